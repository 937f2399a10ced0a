//! What is wrong with an input, in words a person can act on and a code a program can.

use crate::core::event::code::Code;
use crate::core::event::fact::Rejection;
use crate::core::text::plain;

/// Bytes of an input that a message or a rejection echoes.
pub const EXCERPT_MAX: usize = 64;

/// Why an input is refused. The message names the field, the value and the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// Stable, for programs: `E1009`.
    pub code: Code,
    pub message: String,
}

impl InputError {
    /// `code` as documented; `message` with the field, the value and the limit.
    pub fn new(code: Code, message: impl Into<String>) -> InputError {
        InputError { code, message: message.into() }
    }

    /// The fact that goes into the log. `source`: the subject or path the input came in on.
    pub fn rejection(self, input: &[u8], source: &str) -> Rejection {
        Rejection {
            code: self.code,
            message: self.message,
            source: source.to_owned(),
            bytes: input.len() as u64,
            excerpt: excerpt(input),
        }
    }
}

/// The first [`EXCERPT_MAX`] bytes of `input`; whatever is not plainly visible text is escaped.
pub fn excerpt(input: &[u8]) -> String {
    let head = &input[..input.len().min(EXCERPT_MAX)];
    let mut out = String::with_capacity(head.len());
    for chunk in head.utf8_chunks() {
        out += &plain(chunk.valid());
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

/// `text` for a message: escaped, and cut after [`EXCERPT_MAX`] bytes.
pub fn shown(text: &str) -> String {
    inert(text, EXCERPT_MAX)
}

/// `text` escaped, and cut after `max` bytes.
pub fn inert(text: &str, max: usize) -> String {
    if text.len() <= max { plain(text) } else { plain(head(text, max)) + "…" }
}

/// At most the first `max` bytes of `text`, whole characters.
pub fn head(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// The candidate that `word` was probably meant to be: at most a third of its letters differ.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > EXCERPT_MAX {
        return None;
    }
    let reach = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `unknown field x; did you mean y?`, or else what there is.
pub fn unknown(what: &str, word: &str, candidates: &[&str]) -> String {
    let word_shown = shown(word);
    match did_you_mean(word, candidates.iter().copied()) {
        Some(candidate) => format!("unknown {what} {word_shown}; did you mean {candidate}?"),
        None => format!("unknown {what} {word_shown}; expected one of {}", candidates.join(", ")),
    }
}

/// Levenshtein distance, a swap of neighbours counted once.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_inert() {
        assert_eq!(excerpt(b"a\x1b]0;owned\x07\xff"), r"a\x1b]0;owned\x07\xff");
        assert_eq!(excerpt("\u{202e}txt.exe".as_bytes()), r"\u{202e}txt.exe");
        assert_eq!(excerpt(&[b'x'; 1_000]).len(), EXCERPT_MAX);
        assert_eq!(excerpt(&"é".repeat(40).into_bytes()[1..]).chars().next(), Some('\\'));
    }

    #[test]
    fn a_near_miss_is_suggested_and_a_far_one_is_not() {
        let fields = ["min_samples", "deadline", "to"];
        assert_eq!(did_you_mean("min_sample", fields), Some("min_samples"));
        assert_eq!(did_you_mean("deadlnie", fields), Some("deadline"));
        assert_eq!(did_you_mean("colour", fields), None);
        assert_eq!(unknown("field", "ot", &fields), "unknown field ot; did you mean to?");
    }
}
