//! Names as they come in from outside: which characters, how long. See `core::ids` for what they name.

use super::error::{InputError, shown};
use crate::core::event::code::Code;
use crate::core::ids::{Actuator, IntentId, Metric, Service, Version};
use crate::core::text::is_hidden;

/// Longest service, policy, actuator or metric name, in bytes: one DNS label.
pub const NAME_MAX: usize = 63;
/// Longest version or id, in bytes: an image digest with its repository fits.
pub const VERSION_MAX: usize = 128;
/// Longest subject of somebody else's, in bytes.
pub const SUBJECT_MAX: usize = 200;
/// Longest `by`, in characters.
pub const BY_MAX: usize = 200;
/// Longest `reason`, in characters.
pub const REASON_MAX: usize = 2_000;
/// Tags that name something else tomorrow.
const MUTABLE_TAGS: [&str; 8] = ["latest", "main", "master", "head", "current", "stable", "nightly", "edge"];

/// A service; errors as [`label`].
pub fn service(field: &str, text: &str) -> Result<Service, InputError> {
    label(field, text).map(Service)
}

/// The service of a message: its subject's, or its body's, which must agree where both name one.
///
/// Errors: E1024 neither names one, E1026 they differ, and those of [`service`].
pub fn agreed_service(what: &str, subject: Option<&str>, body: Option<&str>) -> Result<Service, InputError> {
    match (subject, body) {
        (Some(subject), Some(body)) if subject != body => {
            let (body, subject) = (shown(body), shown(subject));
            let message = format!("{what}.service: {body} does not match the subject's {subject}");
            Err(InputError::new(Code::NamesDiffer, message))
        }
        (None, None) => {
            let message = format!("{what}: required field service is missing, and no subject names it");
            Err(InputError::new(Code::NoService, message))
        }
        (subject, body) => service(&format!("{what}.service"), subject.or(body).unwrap_or_default()),
    }
}

/// An actuator; errors as [`label`].
pub fn actuator(field: &str, text: &str) -> Result<Actuator, InputError> {
    label(field, text).map(Actuator)
}

/// A name that may stand in a NATS subject, a file name and a URL: `[a-z0-9][a-z0-9-]{0,62}`.
///
/// Errors: E1007 a character, E1013 a character with a meaning in NATS subjects, E1025 the length.
pub fn label(field: &str, text: &str) -> Result<String, InputError> {
    if text.contains(['.', '*', '>', ' ']) && !text.contains(is_hidden) {
        let message = format!("{field}: must not contain NATS subject characters . * > or space");
        return Err(InputError::new(Code::SubjectCharacter, message));
    }
    let ok = |i: usize, c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && i > 0);
    spelled(field, text, NAME_MAX, "[a-z0-9][a-z0-9-]{0,62}", ok)
}

/// Whether `text` is `[a-z][a-z0-9_.]{0,62}`. On the path of every observation, hence no error text.
#[inline]
pub fn is_metric(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=NAME_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'))
}

/// A metric: `[a-z][a-z0-9_.]{0,62}`. Errors: E1007 a character, E1025 the length.
pub fn metric(field: &str, text: &str) -> Result<Metric, InputError> {
    let ok =
        |i: usize, c: char| c.is_ascii_lowercase() || (i > 0 && (c.is_ascii_digit() || c == '_' || c == '.'));
    spelled(field, text, NAME_MAX, "[a-z][a-z0-9_.]{0,62}", ok).map(Metric)
}

/// What serves a request: visible ASCII, no spaces.
pub fn version(field: &str, text: &str) -> Result<Version, InputError> {
    visible(field, text).map(Version)
}

/// A version that a rollout may go to: the name must stay with what it names.
///
/// Errors: E1012 for a tag such as `latest`, and those of [`version`].
pub fn pinned_version(field: &str, text: &str) -> Result<Version, InputError> {
    let version = version(field, text)?;
    let tag = text.rsplit([':', '@']).next().unwrap_or(text);
    if MUTABLE_TAGS.contains(&tag.to_ascii_lowercase().as_str()) {
        let message = format!(
            "{field}: needs a version that never changes (a digest, a commit, a number), got tag {tag}"
        );
        return Err(InputError::new(Code::MovingTag, message));
    }
    Ok(version)
}

/// An intent's id; errors as [`visible`].
pub fn intent_id(field: &str, text: &str) -> Result<IntentId, InputError> {
    visible(field, text).map(IntentId)
}

/// 1 to [`VERSION_MAX`] visible ASCII characters without spaces.
pub fn visible(field: &str, text: &str) -> Result<String, InputError> {
    let rule = "1 to 128 visible ASCII characters without spaces";
    spelled(field, text, VERSION_MAX, rule, |_, c| c.is_ascii_graphic())
}

/// A NATS subject that sluice sends to and that is not its own: tokens of visible ASCII between dots, no wildcard, not in a root
/// that is reserved (`$SYS`, `$JS`, `_INBOX`) or sluice's.
///
/// Errors: E1007 a character or an empty token, E1013 a wildcard or a reserved root, E1025 the length.
pub fn subject(field: &str, text: &str) -> Result<String, InputError> {
    if text.contains(['*', '>']) && !text.contains(is_hidden) {
        let message =
            format!("{field}: must be one subject, without the wildcards * and >, got {}", shown(text));
        return Err(InputError::new(Code::SubjectCharacter, message));
    }
    let text = spelled(field, text, SUBJECT_MAX, "tokens of visible ASCII between dots", |_, c| {
        c.is_ascii_graphic()
    })?;
    let first = text.split('.').next().unwrap_or_default();
    if text.split('.').any(str::is_empty) {
        let message = format!("{field}: {} has an empty part between its dots", shown(&text));
        return Err(InputError::new(Code::Character, message));
    }
    if first.starts_with(['$', '_']) || first == "sluice" {
        let message = format!(
            "{field}: {} is in a root that is reserved: $.. and _.. are the broker's, sluice.. is sluice's own",
            shown(&text)
        );
        return Err(InputError::new(Code::SubjectCharacter, message));
    }
    Ok(text)
}

/// Words for people: 1 to `max` characters, none of them unseen.
///
/// Errors: E1007 a control, zero-width or bidirectional character, E1025 the length.
pub fn prose(field: &str, text: &str, max: usize) -> Result<String, InputError> {
    if let Some(c) = text.chars().find(|c| is_hidden(*c)) {
        let message = format!("{field}: character U+{:04X} is not allowed", c as u32);
        return Err(InputError::new(Code::Character, message));
    }
    let length = text.chars().count();
    if text.trim().is_empty() || length > max {
        let message = format!("{field}: must have 1 to {max} characters, got {length}");
        return Err(InputError::new(Code::Length, message));
    }
    Ok(text.to_owned())
}

/// Whether `text` is a W3C trace context of version 00: `00-<32 hex>-<16 hex>-<2 hex>`, ids not zero.
pub fn is_traceparent(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return false };
    let lengths = [trace.len(), span.len(), flags.len()] == [32, 16, 2];
    let zero = |id: &str| id.bytes().all(|b| b == b'0');
    version == "00" && lengths && [trace, span, flags].into_iter().all(hex) && !zero(trace) && !zero(span)
}

fn spelled(
    field: &str,
    text: &str,
    max: usize,
    rule: &str,
    ok: impl Fn(usize, char) -> bool,
) -> Result<String, InputError> {
    if let Some((_, c)) = text.char_indices().find(|(i, c)| !ok(*i, *c)) {
        let c = if c.is_ascii_graphic() {
            format!("{c} in {} is not allowed here", shown(text))
        } else {
            format!("U+{:04X} is not allowed", c as u32)
        };
        return Err(InputError::new(Code::Character, format!("{field}: character {c}; use {rule}")));
    }
    if text.is_empty() || text.len() > max {
        let message = format!("{field}: must have 1 to {max} characters, got {}; use {rule}", text.len());
        return Err(InputError::new(Code::Length, message));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_and_nobody_elses() {
        for good in ["routers.eu.set", "tests-1", "a.b_c.d:e/f"] {
            assert_eq!(subject("f", good).as_deref(), Ok(good));
        }
        for (bad, code) in [
            ("", Code::Length),
            ("routers.*", Code::SubjectCharacter),
            ("routers.>", Code::SubjectCharacter),
            ("routers..eu", Code::Character),
            (".routers", Code::Character),
            ("routers eu", Code::Character),
            ("$SYS.REQ.SERVER.PING", Code::SubjectCharacter),
            ("_INBOX.x", Code::SubjectCharacter),
            ("sluice.v1.intent.chat", Code::SubjectCharacter),
            (&"x".repeat(201), Code::Length),
        ] {
            assert_eq!(subject("f", bad).map_err(|error| error.code), Err(code), "{bad}");
        }
    }

    #[test]
    fn only_a_whole_trace_context_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            &format!("{good}-x"),
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
