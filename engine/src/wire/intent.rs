//! `sluice.v1.intent.<service>`: a request to roll out one change, as plain JSON or as a structured
//! CloudEvent with the same object under `data`.

use serde::Deserialize;

use super::error::{InputError, shown};
use super::{json, names};
use crate::core::event::bundle::{Commit, Composition, Part, Parts, fingerprint};
use crate::core::event::code::Code;
use crate::core::event::fact::Intent;
use crate::core::ids::{Digest, Scope, Version};
use crate::core::policy::ChangeKind;
use crate::core::time::Timestamp;

/// Bytes of an intent. Two fields of prose and a few names: a kilobyte is usual.
pub const INTENT_MAX: usize = 256 * 1024;
/// Characters of a repository's address, and of a path in it.
const GIT_MAX: usize = 512;
/// Scopes of an intent, and as many of a policy.
pub const SCOPES_MAX: usize = 16;
/// Content types of an intent; none counts as the first.
pub const CONTENT_TYPES: [&str; 2] = ["application/json", "application/cloudevents+json"];

/// A request to roll out one change.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntentBody {
    /// The submitter's own id. Submitting the same id and content again has no effect.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[!-~]+$"))]
    pub id: Option<String>,
    /// What is changed. May be left out where the subject names it.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub service: Option<String>,
    pub change: ChangeBody,
    /// Name of the policy; else the default of the change kind.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub policy: Option<String>,
    /// Who asks.
    #[schemars(length(min = 1, max = 200))]
    pub by: String,
    /// Why, for the record.
    #[schemars(length(min = 1, max = 2000))]
    pub reason: String,
    /// What was found out about the last attempt, where it was taken back by a guardrail or a deadline.
    #[schemars(length(min = 1, max = 2000))]
    pub finding: Option<String>,
    /// What it shares with rollouts of other services: one at a time has each.
    #[serde(default)]
    #[schemars(length(max = 16), inner(regex(pattern = "^[a-z0-9][a-z0-9-]{0,62}$")))]
    pub scopes: Vec<String>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeBody {
    pub kind: ChangeKind,
    /// What serves now; left out, it is what the last completed rollout brought.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[!-~]+$"))]
    pub from: Option<String>,
    /// What shall serve: a version that always names the same thing.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[!-~]+$"))]
    pub to: Option<String>,
    /// What `to` is made of, where several parts are rolled out as one. Its fingerprint is its version, and may be left
    /// out of `to`.
    pub bundle: Option<BundleBody>,
    /// What `from` is made of, as long as sluice does not know it from a bundle that it brought.
    pub from_bundle: Option<BundleBody>,
    /// Where `to` comes from.
    pub git: Option<GitBody>,
    /// Whether it is rolled out under the policy for significant changes of its kind, where there is one.
    #[serde(default)]
    pub significant: bool,
}

/// Versions of the parts of a bundle, one at least.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct BundleBody {
    model: Option<String>,
    prompt: Option<String>,
    parameters: Option<String>,
    index: Option<String>,
    cache: Option<String>,
    /// What grades the answers.
    judge: Option<String>,
}

/// A file of a Git repository at a commit.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitBody {
    /// As its users address it, without credentials.
    #[schemars(length(min = 1, max = 512))]
    pub repository: String,
    /// From the root of the repository.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
    /// In full.
    #[schemars(regex(pattern = "^([0-9a-f]{40}|[0-9a-f]{64})$"))]
    pub commit: String,
}

/// A structured CloudEvent. Its other attributes, extensions included, are not sluice's business.
#[derive(Deserialize)]
struct CloudEvent {
    specversion: String,
    id: String,
    data: IntentBody,
}

/// Reads one intent.
///
/// `service_from_subject`: the last token of the subject, which the body must agree with.
/// `message_id`: the sender's id of the message; the intent's id where the body has none. Without either,
/// the id is derived from service, content and time, so a repetition is another intent.
///
/// Errors: E1001 to E1013 form and names, E1024 no service, E1025 lengths, E1026 service and subject
/// differ, E1016 a bundle under another name, E1027 nothing changes, E1028 content type.
pub fn parse_intent(
    bytes: &[u8],
    content_type: Option<&str>,
    service_from_subject: Option<&str>,
    message_id: Option<&str>,
    now: Timestamp,
) -> Result<Intent, InputError> {
    let text = json::text("intent", bytes, INTENT_MAX)?;
    let (body, event_id) = match media_type(content_type).as_str() {
        "" | "application/json" => (json::object::<IntentBody>("intent", text)?, None),
        "application/cloudevents+json" => {
            let event: CloudEvent = json::object("intent", text)?;
            if event.specversion != "1.0" {
                let found = shown(&event.specversion);
                let message = format!("intent.specversion: CloudEvents 1.0 is accepted, got {found}");
                return Err(InputError::new(Code::FieldValue, message));
            }
            (event.data, Some(event.id))
        }
        other => return Err(unaccepted("intent", other, &CONTENT_TYPES)),
    };

    let service = names::agreed_service("intent", service_from_subject, body.service.as_deref())?;
    let from = body.change.from.as_deref();
    let from = from.map(|from| names::pinned_version("intent.change.from", from)).transpose()?;
    let parts = bundle("intent.change.bundle", body.change.bundle.as_ref())?;
    let to = to(body.change.to.as_deref(), &parts)?;
    let from_parts = bundle("intent.change.from_bundle", body.change.from_bundle.as_ref())?;
    let from = match (from, from_parts.is_empty()) {
        (Some(from), false) => Some(fingerprinted("intent.change.from", from, &from_parts)?),
        (None, false) => Some(fingerprint(&from_parts)),
        (from, true) => from,
    };
    if from.as_ref() == Some(&to) {
        let message = format!("intent.change.to: {to} is also from; there is nothing to roll out");
        return Err(InputError::new(Code::NothingChanges, message));
    }
    let content = Digest::of(bytes);
    let id = match body.id.as_deref().map(|id| ("intent.id", id)) {
        Some((field, id)) => names::intent_id(field, id)?,
        None => match message_id.or(event_id.as_deref()) {
            Some(id) => names::intent_id("intent message id", id)?,
            None => {
                let about = format!("{service}/{content}");
                let derived = format!("{}-{}", &Digest::of(about.as_bytes()).to_string()[..16], now.0);
                names::intent_id("intent.id", &derived)?
            }
        },
    };
    let (policy, finding) = (body.policy.as_deref(), body.finding.as_deref());
    Ok(Intent {
        id,
        service,
        kind: body.change.kind,
        from,
        to,
        policy: policy.map(|policy| names::label("intent.policy", policy)).transpose()?,
        by: names::prose("intent.by", &body.by, names::BY_MAX)?,
        reason: names::prose("intent.reason", &body.reason, names::REASON_MAX)?,
        finding: finding.map(|f| names::prose("intent.finding", f, names::REASON_MAX)).transpose()?,
        scopes: scopes(&body.scopes)?,
        significant: body.change.significant,
        composition: Composition { parts, git: body.change.git.as_ref().map(commit).transpose()? },
        from_composition: Composition { parts: from_parts, git: None },
        content,
    })
}

fn bundle(field: &str, body: Option<&BundleBody>) -> Result<Parts, InputError> {
    let Some(body) = body else { return Ok(Parts::new()) };
    let of = |part: Part| match part {
        Part::Model => &body.model,
        Part::Prompt => &body.prompt,
        Part::Parameters => &body.parameters,
        Part::Index => &body.index,
        Part::Cache => &body.cache,
        Part::Judge => &body.judge,
    };
    let mut parts = Parts::new();
    for part in Part::ALL {
        if let Some(version) = of(part) {
            let field = format!("{field}.{}", part.as_str());
            parts.insert(part, names::pinned_version(&field, version)?);
        }
    }
    if parts.is_empty() {
        let known = Part::ALL.map(Part::as_str).join(", ");
        return Err(InputError::new(Code::FieldValue, format!("{field}: names no part; known: {known}")));
    }
    Ok(parts)
}

fn to(named: Option<&str>, parts: &Parts) -> Result<Version, InputError> {
    match named.map(|to| names::pinned_version("intent.change.to", to)).transpose()? {
        Some(to) if parts.is_empty() => Ok(to),
        Some(to) => fingerprinted("intent.change.to", to, parts),
        None if parts.is_empty() => Err(InputError::new(
            Code::FieldValue,
            "intent.change: required field to is missing, and no bundle stands for it",
        )),
        None => Ok(fingerprint(parts)),
    }
}

/// A bundle has no other name than its fingerprint: two bundles of one name could not be told apart.
fn fingerprinted(field: &str, named: Version, parts: &Parts) -> Result<Version, InputError> {
    let version = fingerprint(parts);
    if named != version {
        let message = format!("{field}: {named} is not the bundle's fingerprint, {version}; leave it out");
        return Err(InputError::new(Code::NotItsFingerprint, message));
    }
    Ok(version)
}

fn commit(body: &GitBody) -> Result<Commit, InputError> {
    let GitBody { repository, path, commit } = body;
    let repository = names::prose("intent.change.git.repository", repository, GIT_MAX)?;
    if repository
        .split_once("://")
        .is_some_and(|(_, rest)| rest.split('/').next().unwrap_or("").contains('@'))
    {
        let message =
            "intent.change.git.repository: must not carry a user or a password; it is kept for ever";
        return Err(InputError::new(Code::Character, message));
    }
    let hex = commit.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !hex || !matches!(commit.len(), 40 | 64) {
        let found = shown(commit);
        let message =
            format!("intent.change.git.commit: must be a commit in full, 40 or 64 hex digits, got {found}");
        return Err(InputError::new(Code::Character, message));
    }
    Ok(Commit {
        repository,
        path: names::prose("intent.change.git.path", path, GIT_MAX)?,
        commit: commit.clone(),
    })
}

fn scopes(given: &[String]) -> Result<Vec<Scope>, InputError> {
    if given.len() > SCOPES_MAX {
        let message = format!("intent.scopes: must name at most {SCOPES_MAX}, got {}", given.len());
        return Err(InputError::new(Code::Length, message));
    }
    let mut scopes = Vec::new();
    for (i, name) in given.iter().enumerate() {
        let scope = Scope(names::label(&format!("intent.scopes[{i}]"), name)?);
        if scopes.contains(&scope) {
            return Err(InputError::new(
                Code::GivenTwice,
                format!("intent.scopes[{i}]: {scope} is there twice"),
            ));
        }
        scopes.push(scope);
    }
    Ok(scopes)
}

/// The media type in lower case, without parameters; empty when none was given.
pub fn media_type(content_type: Option<&str>) -> String {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().to_ascii_lowercase()
}

/// E1028: a content type that sluice does not read.
pub fn unaccepted(what: &str, media_type: &str, accepted: &[&str]) -> InputError {
    let (found, accepted) = (shown(media_type), accepted.join(", "));
    InputError::new(
        Code::ContentType,
        format!("{what}: content type {found} is not accepted; use {accepted}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &str = r#"{"service":"support-bot","change":{"kind":"prompt","from":"prompt@41","to":"prompt@42"},
        "policy":"prompt-default","by":"maya","reason":"shorter refund flow"}"#;

    fn parse(body: &str) -> Result<Intent, InputError> {
        parse_intent(body.as_bytes(), None, None, None, Timestamp(7))
    }

    #[test]
    fn the_documented_intent_is_read() {
        let intent = parse(BODY).unwrap();
        assert_eq!((intent.service.as_str(), intent.to.as_str()), ("support-bot", "prompt@42"));
        assert_eq!(intent.from, Some("prompt@41".into()));
        assert_eq!(intent.content, Digest::of(BODY.as_bytes()));
        assert!(intent.id.as_str().ends_with("-7"), "{}", intent.id);
    }

    #[test]
    fn the_bodys_id_goes_before_the_messages_and_the_cloud_events() {
        let event = |data: &str| {
            let event = format!(
                r#"{{"specversion":"1.0","id":"ce-1","type":"t","source":"/ci","ext":"x","data":{data}}}"#
            );
            let content_type = Some("application/cloudevents+json; charset=utf-8");
            move |message_id: Option<&str>| {
                parse_intent(event.as_bytes(), content_type, None, message_id, Timestamp(7)).unwrap().id
            }
        };
        assert_eq!(event(BODY)(None), "ce-1".into());
        assert_eq!(event(BODY)(Some("m-1")), "m-1".into());
        let with_id = BODY.replacen('{', r#"{"id":"a-1","#, 1);
        assert_eq!(event(&with_id)(Some("m-1")), "a-1".into());
    }

    #[test]
    fn the_subject_names_the_service_and_must_agree() {
        let body = BODY.replace(r#""service":"support-bot","#, "");
        let parse = |body: &str, subject| parse_intent(body.as_bytes(), None, subject, None, Timestamp(7));
        assert_eq!(parse(&body, Some("search")).unwrap().service, "search".into());
        assert_eq!(parse(&body, None).unwrap_err().code, Code::NoService);
        assert_eq!(parse(BODY, Some("search")).unwrap_err().code, Code::NamesDiffer);
    }

    proptest! {
        /// A sound intent with one byte changed, and perhaps cut there; as an ack too.
        #[test]
        fn nearly_right_bytes_do_not_panic(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(), noise in any::<Vec<u8>>()
        ) {
            let mut bytes = BODY.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            for bytes in [bytes, noise] {
                for content_type in CONTENT_TYPES {
                    let _ = parse_intent(&bytes, Some(content_type), None, None, Timestamp(7))
                        .map_err(|error| error.rejection(&bytes, "subject"));
                }
                let _ = crate::wire::ack::parse_ack(&bytes, None);
            }
        }
    }
}
