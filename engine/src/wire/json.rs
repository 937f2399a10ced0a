//! JSON held to what sluice promises about it: one document, no key twice, bounded nesting, only
//! finite numbers, and errors that say where.
//!
//! serde alone would take an array for a struct (by position), the last of two equal keys in a map, and
//! 128 levels. So every text is scanned once before it is deserialised; the scan needs about a
//! nanosecond a byte.

use serde::de::DeserializeOwned;

use super::error::{InputError, head, shown, unknown};
use crate::core::event::code::Code;
use crate::core::text::count;

/// Deepest nesting of any input.
pub const NESTING_MAX: usize = 32;
/// Most keys of one object. Bounds the search for equal keys.
pub const KEYS_MAX: usize = 256;

/// Fields of an object that are lists of names.
pub const LISTS: [&str; 1] = ["scopes"];

/// How many documents a text holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    One,
    /// One object without arrays in it but those of [`LISTS`]: serde would take one for a struct, by position.
    Object,
    /// One object that may hold lists. Only for types without structs in them.
    Flat,
    /// One object after another, usually a line each.
    Lines,
}

/// The text of a message of at most `limit` bytes; `what` names the message in errors.
///
/// Errors: E1011 too large, E1001 empty, E1006 not UTF-8.
pub fn text<'a>(what: &str, bytes: &'a [u8], limit: usize) -> Result<&'a str, InputError> {
    check_size(what, bytes, limit)?;
    std::str::from_utf8(bytes).map_err(|error| {
        InputError::new(Code::NotUtf8, format!("{what}: invalid UTF-8 at byte {}", error.valid_up_to()))
    })
}

/// Errors: E1011 too large, E1001 empty.
pub fn check_size(what: &str, bytes: &[u8], limit: usize) -> Result<(), InputError> {
    if bytes.len() > limit {
        let (have, limit) = (count(bytes.len() as u64), count(limit as u64));
        return Err(InputError::new(
            Code::TooLarge,
            format!("{what}: {have} bytes exceeds the {limit}-byte limit"),
        ));
    }
    if bytes.trim_ascii().is_empty() {
        let message = format!("{what}: body is empty ({} bytes); expected one JSON object", bytes.len());
        return Err(InputError::new(Code::Empty, message));
    }
    Ok(())
}

/// The one object that `text` is.
///
/// Errors: those of [`scan`]; E1004 not an object, E1005 a missing field or a value of the wrong type,
/// E1009 an unknown field.
pub fn object<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, InputError> {
    one(what, text, Form::Object)
}

/// As [`object`], for a type without structs in it: lists are allowed.
pub fn flat_object<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, InputError> {
    one(what, text, Form::Flat)
}

fn one<T: DeserializeOwned>(what: &str, text: &str, form: Form) -> Result<T, InputError> {
    let found = match text.trim_start().as_bytes().first() {
        Some(b'{') => None,
        Some(b'[') => Some("an array"),
        Some(b'"') => Some("a string"),
        Some(b'-' | b'0'..=b'9') => Some("a number"),
        Some(b't' | b'f') => Some("a boolean"),
        Some(b'n') => Some("null"),
        _ => Some("something that is not JSON"),
    };
    scan(what, text, form)?;
    if let Some(found) = found {
        let message = format!("{what}: top level must be an object, got {found}");
        return Err(InputError::new(Code::NotAnObject, message));
    }
    serde_json::from_str(text).map_err(|error| explain(what, text, form, &error))
}

/// Checks what serde does not: nesting, keys given twice, literals that are not JSON, trailing data.
/// Returns how many objects or arrays there are at the top, a last unfinished one included.
///
/// Errors: E1010, E1008, E1005 an array in [`Form::Object`], E1029 too many keys, E2001 NaN or Infinity, E1003.
pub fn scan(what: &str, text: &str, form: Form) -> Result<usize, InputError> {
    let mut scanner = Scanner::new(text, form);
    let Some(fault) = scanner.run(text.len()) else {
        return Ok(scanner.documents + usize::from(!scanner.frames.is_empty()));
    };
    Err(match fault {
        Fault::Deep => {
            InputError::new(Code::TooDeep, format!("{what}: nesting deeper than {NESTING_MAX} levels"))
        }
        Fault::Twice { first, second } => {
            let key = scanner.frames.last().and_then(|frame| frame.key);
            let key = shown(key.map_or("", |(from, to)| &text[from..to]));
            let (first, second) = (place(text, first), place(text, second));
            let both = match (first, second) {
                ((1, a), (1, b)) => format!("columns {a} and {b}"),
                ((l, a), (m, b)) => format!("line {l} column {a} and line {m} column {b}"),
            };
            InputError::new(
                Code::GivenTwice,
                format!("{}: field {key} appears twice ({both})", scanner.path(what, false)),
            )
        }
        Fault::Array => {
            InputError::new(Code::FieldValue, format!("{}: must not be an array", scanner.path(what, true)))
        }
        Fault::ManyKeys => InputError::new(
            Code::TooManyFields,
            format!("{}: more than {KEYS_MAX} fields in one object", scanner.path(what, false)),
        ),
        Fault::Literal(word) => InputError::new(
            Code::NotFinite,
            format!("{}: {word} is not a JSON number", scanner.path(what, true)),
        ),
        Fault::Trailing(at) => {
            let at = place_words(text, at);
            InputError::new(
                Code::TrailingData,
                format!("{what}: trailing data after the first JSON value at {at}"),
            )
        }
    })
}

/// serde's error on `text`, which [`scan`] has passed, with the path of the field.
pub fn explain(what: &str, text: &str, form: Form, error: &serde_json::Error) -> InputError {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(head, _)| head);
    let at = offset(text, error.line(), error.column());
    let mut scanner = Scanner::new(text, form);
    scanner.run(at.saturating_sub(1));
    if message.starts_with("number out of range") {
        let path = scanner.path(what, true);
        return InputError::new(Code::OutOfRange, format!("{path}: out of range for a finite number"));
    }
    if error.is_syntax() || error.is_eof() {
        let at = place_words(text, at.saturating_sub(1));
        return InputError::new(Code::NotReadable, format!("{what}: not valid JSON at {at}: {message}"));
    }
    if let Some((word, candidates)) = unknown_word(message, "field") {
        let path = scanner.path(what, false);
        return InputError::new(
            Code::UnknownField,
            format!("{path}: {}", unknown("field", word, &candidates)),
        );
    }
    if let Some((word, candidates)) = unknown_word(message, "variant") {
        let path = scanner.path(what, true);
        return InputError::new(Code::FieldValue, format!("{path}: {}", unknown("value", word, &candidates)));
    }
    if let Some(word) = message.strip_prefix("missing field `") {
        let path = scanner.path(what, false);
        let word = word.trim_end_matches('`');
        return InputError::new(Code::FieldValue, format!("{path}: required field {word} is missing"));
    }
    let path = scanner.path(what, true);
    InputError::new(Code::FieldValue, format!("{path}: {}", plain(message)))
}

/// What serde calls an unknown field or variant, and what it knows. The word is the sender's and may hold anything,
/// quotes and serde's own words included; what is known comes last.
fn unknown_word<'a>(message: &'a str, what: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let rest = message.strip_prefix("unknown ")?.strip_prefix(what)?.strip_prefix(" `")?;
    let (word, known) = rest.rsplit_once("`, expected ")?;
    Some((word, known.split('`').skip(1).step_by(2).collect()))
}

/// serde's own sentence, without the words of Rust; it may quote a string of any length, and with any words.
fn plain(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return shown(message) };
    let found = found.replace("invalid type: ", "").replace("invalid value: ", "").replace('`', "");
    let expected = match expected {
        "u64" | "u32" => "a whole number, 0 or more",
        "f64" => "a number",
        expected if expected.starts_with("struct ") => "an object",
        expected => expected,
    };
    format!("expected {expected}, got {}", shown(&found))
}

/// Line and column of a byte, both from 1, columns in characters.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = head(text, at);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn place_words(text: &str, at: usize) -> String {
    match place(text, at) {
        (1, column) => format!("column {column}"),
        (line, column) => format!("line {line} column {column}"),
    }
}

/// The byte after the one serde_json counts as `column` (from 1) of `line` (from 1).
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (start + column).min(text.len())
}

enum Fault {
    Deep,
    Twice { first: usize, second: usize },
    ManyKeys,
    Array,
    Literal(&'static str),
    Trailing(usize),
}

struct Frame {
    object: bool,
    /// The last key's text, in an object.
    key: Option<(usize, usize)>,
    /// Where this object's keys begin in [`Scanner::keys`].
    keys_from: usize,
    /// Commas passed, in an array.
    index: usize,
}

/// Follows the structure; grammar is serde_json's business.
struct Scanner<'a> {
    text: &'a str,
    frames: Vec<Frame>,
    keys: Vec<(usize, usize)>,
    expects_key: bool,
    form: Form,
    /// Documents passed.
    documents: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, form: Form) -> Scanner<'a> {
        Scanner { text, frames: Vec::new(), keys: Vec::new(), expects_key: false, form, documents: 0 }
    }

    /// Reads up to the byte `end`, or to the first fault.
    fn run(&mut self, end: usize) -> Option<Fault> {
        let bytes = self.text.as_bytes();
        let mut at = 0;
        while at < end {
            match bytes[at] {
                b'"' => {
                    let from = at + 1;
                    at = from;
                    while at < bytes.len() && bytes[at] != b'"' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    if self.expects_key
                        && let Some(fault) = self.key(from, at.min(bytes.len()))
                    {
                        return Some(fault);
                    }
                }
                open @ (b'{' | b'[') => {
                    if self.frames.len() == NESTING_MAX {
                        return Some(Fault::Deep);
                    }
                    let object = open == b'{';
                    let in_object = self.frames.first().is_some_and(|frame| frame.object);
                    let key = self.frames.last().and_then(|frame| frame.key);
                    let list = key.is_some_and(|(from, to)| LISTS.contains(&&self.text[from..to]));
                    if self.form == Form::Object && in_object && !object && !list {
                        return Some(Fault::Array);
                    }
                    self.frames.push(Frame { object, key: None, keys_from: self.keys.len(), index: 0 });
                    self.expects_key = object;
                }
                b'}' | b']' => {
                    if let Some(frame) = self.frames.pop() {
                        self.keys.truncate(frame.keys_from);
                    }
                    self.expects_key = false;
                    self.documents += usize::from(self.frames.is_empty());
                    if self.frames.is_empty() && self.form != Form::Lines {
                        let rest = &bytes[at + 1..];
                        let next = rest.iter().position(|byte| !byte.is_ascii_whitespace());
                        return next.map(|next| Fault::Trailing(at + 1 + next));
                    }
                }
                b',' => {
                    if let Some(frame) = self.frames.last_mut() {
                        frame.index += 1;
                        self.expects_key = frame.object;
                    }
                }
                b':' => self.expects_key = false,
                b'N' if bytes[at..].starts_with(b"NaN") => return Some(Fault::Literal("NaN")),
                b'I' if bytes[at..].starts_with(b"Infinity") => return Some(Fault::Literal("Infinity")),
                _ => {}
            }
            at += 1;
        }
        None
    }

    fn key(&mut self, from: usize, to: usize) -> Option<Fault> {
        self.expects_key = false;
        let frame = self.frames.last_mut()?;
        frame.key = Some((from, to));
        let bytes = self.text.as_bytes();
        let earlier = &self.keys[frame.keys_from..];
        if let Some((first, _)) = earlier.iter().find(|(a, b)| bytes[*a..*b] == bytes[from..to]) {
            return Some(Fault::Twice { first: first - 1, second: from - 1 });
        }
        if earlier.len() == KEYS_MAX {
            return Some(Fault::ManyKeys);
        }
        self.keys.push((from, to));
        None
    }

    /// `intent.change.to`, or `sample 17: m.cost_usd` for one of several; without `leaf` the object that
    /// holds the last key.
    fn path(&self, what: &str, leaf: bool) -> String {
        let mut parts = Vec::new();
        let mut frames = self.frames.as_slice();
        let one_of_many = match frames.first() {
            _ if self.form == Form::Lines => Some(self.documents),
            Some(Frame { object: false, index, .. }) => {
                frames = &frames[1..];
                Some(*index)
            }
            _ => None,
        };
        for (depth, frame) in frames.iter().enumerate() {
            match (frame.object, frame.key) {
                (true, Some((from, to))) if leaf || depth + 1 < frames.len() => {
                    parts.push(shown(&self.text[from..to]));
                }
                (false, _) => parts.push(frame.index.to_string()),
                _ => {}
            }
        }
        let parts = parts.join(".");
        match one_of_many {
            Some(index) if parts.is_empty() => format!("{what} {index}"),
            Some(index) => format!("{what} {index}: {parts}"),
            None if parts.is_empty() => what.to_owned(),
            None => format!("{what}.{parts}"),
        }
    }
}
