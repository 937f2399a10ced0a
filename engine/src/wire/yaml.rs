//! YAML that people write, read strictly, with errors that point at the place.
//!
//! Strict: no unknown or repeated key, no `yes` for true, no tag, no merge key, no NaN, 32 levels, and
//! aliases only as far as 10,000 nodes. serde sees the structure (`tree`); every scalar is kept as its text and
//! place ([`Node`]) and read by [`Checker::get`], which can then name the field's path.
//!
//! Codes: E3001 not finite, E3002 aliases, E3003 nesting, E3004 key twice, E3005 unknown key, E3017 key
//! missing, E3018 not YAML or not such a value, E3019 not supported yet, E3023 too large.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_saphyr::options::{MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error as Yaml, Options};

use super::error::{InputError, did_you_mean, head, shown};
use super::json::NESTING_MAX;
pub use super::tree::{At, Place};
use super::tree::{EMPTY, File, Misfit, Why};
use crate::core::event::code::Code;
use crate::core::text::{count, is_hidden};
use crate::core::time::Span;

/// Bytes of a file. A long policy with all its comments has ten thousand.
pub const FILE_MAX: usize = 256 * 1024;
/// Nodes of a file with its aliases followed.
pub const NODES_MAX: usize = 10_000;

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable, for programs: `E3005`.
    pub code: Code,
    /// The field, the value and the limit, in one line.
    pub message: String,
    pub file: String,
    pub place: Place,
    /// The line it is on; of a very long one the beginning.
    pub source: String,
}

/// The message, then where, then the line with the spot underlined.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, length } = self.place;
        write!(f, "error[{}]: {}", self.code, self.message)?;
        if line == 0 {
            return write!(f, "\n  --> {}", self.file);
        }
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        // One character for one, so that the mark stands below what it means.
        let plain = |c: char| match c {
            c if c.is_control() => ' ',
            c if is_hidden(c) => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        let source: String = self.source.chars().map(plain).collect();
        write!(f, "\n{margin}--> {}:{line}:{column}", self.file)?;
        write!(f, "\n{margin} |\n{number} | {source}")?;
        let (before, shown) = (column.saturating_sub(1), source.chars().count());
        if before > shown {
            return Ok(()); // behind the part of a very long line that is kept
        }
        let (pad, mark) = (" ".repeat(before), "^".repeat(length.min(shown - before).max(1)));
        write!(f, "\n{margin} | {pad}{mark}")
    }
}

/// All that is wrong with a file; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError(pub Vec<Fault>);

impl std::error::Error for FileError {}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// The first fault, in one line.
impl From<FileError> for InputError {
    fn from(error: FileError) -> InputError {
        let Some(first) = error.0.into_iter().next() else {
            return InputError::new(Code::FileValue, "the file is not valid");
        };
        let Fault { code, message, file, place: Place { line, column, .. }, .. } = first;
        InputError::new(code, format!("{message} ({file}:{line}:{column})"))
    }
}

/// A file while it is read: gathers what is wrong with it.
pub struct Checker<'a> {
    /// Names the file in messages: `policy`.
    what: &'static str,
    file: &'a str,
    text: &'a str,
    faults: Vec<Fault>,
}

impl<'a> Checker<'a> {
    pub fn new(what: &'static str, file: &'a str, text: &'a str) -> Checker<'a> {
        Checker { what, file, text, faults: Vec::new() }
    }

    /// The structure of the file. `not_yet`: keys of the full grammar that this version does not read.
    pub fn parse<T: DeserializeOwned>(&mut self, not_yet: &[&str]) -> Option<T> {
        if self.text.len() > FILE_MAX {
            // Nobody may have counted: files are read up to here.
            let message = format!("exceeds the {}-byte limit", count(FILE_MAX as u64));
            self.refuse(Code::FileTooLarge, Place::default(), "", &message);
            return None;
        }
        let tree = serde_saphyr::from_str_with_options::<File>(self.text, options());
        let tree = tree.map_err(|error| self.yaml(error.without_snippet())).ok()?;
        tree.read(self.text).map_err(|misfit| self.misfit(misfit, not_yet)).ok()
    }

    fn misfit(&mut self, Misfit { place, why }: Misfit, not_yet: &[&str]) {
        let (code, message) = match why {
            Why::Unknown { key, .. } if not_yet.contains(&&*key) => {
                (Code::Unsupported, format!("{key} is not supported by this version of sluice"))
            }
            Why::Unknown { key, known } => {
                let suggestion = match did_you_mean(&key, known.iter().copied()) {
                    Some(key) => format!("did you mean {key}?"),
                    None => format!("expected one of {}", known.join(", ")),
                };
                (Code::FileUnknownKey, format!("unknown key {}; {suggestion}", shown(&key)))
            }
            Why::Missing(key) => (Code::FileKeyMissing, format!("required key {key} is missing")),
            Why::Other(message) => (Code::FileValue, shown(&message)),
        };
        self.refuse(code, place, "", &message);
    }

    fn yaml(&mut self, error: &Yaml) {
        let place = error.location().map(Place::from).unwrap_or_default();
        let (code, message) = match error {
            Yaml::Eof { .. } => (Code::FileKeyMissing, "the file is empty".to_owned()),
            Yaml::DuplicateMappingKey { key, .. } => {
                let key = shown(key.as_deref().unwrap_or("a key"));
                (
                    Code::FileGivenTwice,
                    match self.first_line_of(&key, place) {
                        Some(first) if first == place.line => format!("{key} given twice on line {first}"),
                        Some(first) => format!("{key} given twice (lines {first} and {})", place.line),
                        None => format!("{key} given twice"),
                    },
                )
            }
            Yaml::AliasError { error, .. } => return self.yaml(error),
            Yaml::AliasReplayLimitExceeded { .. } | Yaml::AliasExpansionLimitExceeded { .. } => {
                (Code::FileExpands, "expands past 10,000 nodes".to_owned())
            }
            Yaml::Budget { breach: serde_saphyr::budget::BudgetBreach::Depth { .. }, .. } => {
                (Code::FileTooDeep, format!("nesting deeper than {NESTING_MAX} levels"))
            }
            Yaml::Budget { .. } => (Code::FileExpands, "expands past 10,000 nodes".to_owned()),
            Yaml::NullIntoString { .. } => (Code::FileValue, "the value is missing".to_owned()),
            Yaml::MultipleDocuments { .. } => (Code::FileValue, "has more than one YAML document".to_owned()),
            Yaml::MergeKeyNotAllowed { .. } => {
                (Code::FileValue, "merge keys (<<) are not read; write the keys out".to_owned())
            }
            Yaml::UnsupportedTag { tag, .. } => {
                (Code::FileValue, format!("the tag {} is not read", shown(tag)))
            }
            other => {
                let message = other.to_string();
                let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text);
                match message {
                    EMPTY => (Code::FileKeyMissing, "the file is empty".to_owned()),
                    "recursion limit exceeded" => {
                        (Code::FileTooDeep, format!("nesting deeper than {NESTING_MAX} levels"))
                    }
                    "expected string scalar" => {
                        (Code::FileValue, "expected a single value, not a list or map".to_owned())
                    }
                    "expected mapping start" => {
                        (Code::FileValue, "expected a map of keys and values".to_owned())
                    }
                    message => (Code::FileValue, shown(message)),
                }
            }
        };
        self.refuse(code, place, "", &message);
    }

    /// The line on which `key` stands first, given the place where it stands again: on the same line, or
    /// above it in the same column.
    fn first_line_of(&self, key: &str, again: Place) -> Option<usize> {
        let is_key =
            |rest: &str| rest.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
        let lines: Vec<&str> = self.text.lines().take(again.line).collect();
        let (last, above) = lines.split_last()?;
        let before: String = last.chars().take(again.column.saturating_sub(1)).collect();
        if before.match_indices(key).any(|(at, _)| is_key(&before[at..])) {
            return Some(again.line);
        }
        let after_column = |line: &str| line.chars().skip(again.column.saturating_sub(1)).collect::<String>();
        above.iter().rposition(|line| is_key(&after_column(line))).map(|line| line + 1)
    }

    /// Notes that something is wrong at `place`; `path` is the field's below the file (`spec.soak`).
    pub fn refuse(&mut self, code: Code, place: Place, path: &str, message: &str) {
        let line = place.line.checked_sub(1).and_then(|line| self.text.lines().nth(line));
        let dot = if path.is_empty() { "" } else { "." };
        self.faults.push(Fault {
            code,
            message: format!("{}{dot}{path}: {message}", self.what),
            file: self.file.to_owned(),
            place,
            source: head(line.unwrap_or_default(), 512).to_owned(),
        });
    }

    /// The value of a scalar; what is wrong with it is noted.
    pub fn get<T: Scalar>(&mut self, path: &str, node: &Node<T>) -> Option<T> {
        match T::parse(&node.text) {
            Ok(value) => Some(value),
            Err(Unfit { code, message }) => {
                self.refuse(code, node.place, path, &message);
                None
            }
        }
    }

    /// As [`Self::get`], `default` where the key was left out.
    pub fn get_or<T: Scalar>(&mut self, path: &str, node: &Option<Node<T>>, default: T) -> Option<T> {
        node.as_ref().map_or(Some(default), |node| self.get(path, node))
    }

    /// `value`, unless anything was wrong.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, FileError> {
        self.faults.sort_by_key(|fault| (fault.place.line, fault.place.column));
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(FileError(self.faults)),
        }
    }
}

fn options() -> Options {
    let mut options = serde_saphyr::options! {
        strict_booleans: true,
        reject_unsupported_tags: true,
        merge_keys: MergeKeyPolicy::Error,
        // Refused by the field that they stand in, with its path.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: NESTING_MAX,
            flow_nesting_limit: NESTING_MAX,
            max_nodes: NODES_MAX,
        },
    };
    options.alias_limits.max_total_replayed_events = NODES_MAX;
    options
}

/// A scalar as it is written, and where; what it means is read by [`Checker::get`].
#[derive(Clone, Debug)]
pub struct Node<T> {
    pub text: String,
    pub place: Place,
    kind: PhantomData<T>,
}

impl<'de, T> Deserialize<'de> for Node<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Node<T>, D::Error> {
        let At { value: text, place } = At::deserialize(input)?;
        Ok(Node { text, place, kind: PhantomData })
    }
}

impl<T: Scalar> JsonSchema for Node<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Node".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

/// Why a scalar's text does not say what it should.
pub struct Unfit {
    pub code: Code,
    pub message: String,
}

impl Unfit {
    pub fn new<T>(message: impl Into<String>) -> Result<T, Unfit> {
        Err(Unfit { code: Code::FileValue, message: message.into() })
    }
}

impl From<InputError> for Unfit {
    fn from(error: InputError) -> Unfit {
        let message = error.message.trim_start_matches(": ").to_owned();
        Unfit { code: Code::FileValue, message }
    }
}

/// What a scalar can mean.
pub trait Scalar: Sized {
    fn parse(text: &str) -> Result<Self, Unfit>;

    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

impl Scalar for String {
    fn parse(text: &str) -> Result<String, Unfit> {
        Ok(text.to_owned())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

impl Scalar for bool {
    fn parse(text: &str) -> Result<bool, Unfit> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Unfit::new(format!("must be true or false, got {}", shown(text))),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "boolean"})
    }
}

impl Scalar for u64 {
    fn parse(text: &str) -> Result<u64, Unfit> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(n) if digits => Ok(n),
            _ => Unfit::new(format!("must be a whole number, got {}", shown(text))),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0})
    }
}

impl Scalar for f64 {
    fn parse(text: &str) -> Result<f64, Unfit> {
        number(text, text)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number"})
    }
}

/// `digits` as a finite decimal number; `text` is the whole for the message.
pub fn number(digits: &str, text: &str) -> Result<f64, Unfit> {
    let special = digits.trim_start_matches(['-', '+']).to_ascii_lowercase();
    let name = match special.as_str() {
        ".nan" | "nan" => Some("NaN"),
        ".inf" | "inf" | "infinity" => Some("infinity"),
        _ => None,
    };
    let parsed = digits.parse::<f64>().ok().filter(|_| name.is_none());
    match (name, parsed) {
        (Some(name), _) => {
            Err(Unfit { code: Code::FileNotFinite, message: format!("must be a finite number, got {name}") })
        }
        (None, Some(n)) if n.is_finite() => Ok(n),
        (None, Some(_)) => Err(Unfit {
            code: Code::FileNotFinite,
            message: format!("must be a finite number, got {}", shown(text)),
        }),
        (None, None) => Unfit::new(format!("must be a number, got {}", shown(text))),
    }
}

/// A share written as a percentage: `5%` is 0.05. Not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(pub f64);

impl Scalar for Percent {
    fn parse(text: &str) -> Result<Percent, Unfit> {
        let Some(digits) = text.strip_suffix('%') else {
            number(text, text)?;
            return Unfit::new(format!("needs its unit, as in {0}%; got {0}", shown(text)));
        };
        let n = number(digits, text)?;
        if n < 0.0 {
            return Unfit::new(format!("must be 0% or more, got {}", shown(text)));
        }
        Ok(Percent(n / 100.0))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"})
    }
}

/// A difference of shares in percentage points: `3pp` is 0.03. Not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Points(pub f64);

impl Scalar for Points {
    fn parse(text: &str) -> Result<Points, Unfit> {
        let Some(digits) = text.strip_suffix("pp") else {
            return Unfit::new(format!("must be percentage points, as in 0.1pp; got {}", shown(text)));
        };
        let n = number(digits, text)?;
        if !(0.0..100.0).contains(&n) {
            let message = format!("must be 0pp to below 100pp, got {}", shown(text));
            return Err(Unfit { code: Code::Limit, message });
        }
        Ok(Points(n / 100.0))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?pp$"})
    }
}

/// Longest span a file may name: a year.
pub const SPAN_MAX: Span = Span(365 * 24 * 3_600_000);

/// `4h`, `1h30m`, `250ms`: whole numbers with units, largest unit first.
impl Scalar for Span {
    fn parse(text: &str) -> Result<Span, Unfit> {
        const UNITS: [(&str, u64); 5] =
            [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let wrong = || Unfit::new(format!("must be a time such as 4h, 1h30m or 250ms, got {}", shown(text)));
        let (mut rest, mut left, mut total) = (text, UNITS.as_slice(), 0u64);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let Ok(n) = rest[..digits].parse::<u64>() else { return wrong() };
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let Some(unit) = left.iter().position(|(name, _)| *name == &rest[..letters]) else {
                return wrong();
            };
            total = total.saturating_add(n.saturating_mul(left[unit].1));
            left = &left[unit + 1..];
            rest = &rest[letters..];
        }
        if text.is_empty() {
            return wrong();
        }
        if total > SPAN_MAX.0 {
            return Unfit::new(format!("must be at most {SPAN_MAX}, got {}", shown(text)));
        }
        Ok(Span(total))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2})
    }
}

/// The word of an enumeration, with a suggestion where it is nearly one.
pub fn word<T: Copy>(text: &str, words: &[(&str, T)], not_yet: &[&str]) -> Result<T, Unfit> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    if not_yet.contains(&text) {
        let message = format!("{text} is not supported by this version of sluice");
        return Err(Unfit { code: Code::Unsupported, message });
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    match did_you_mean(text, known.iter().copied()) {
        Some(word) => Unfit::new(format!("got {}; did you mean {word}?", shown(text))),
        None => Unfit::new(format!("must be one of {}, got {}", known.join(", "), shown(text))),
    }
}

/// A scalar that is one of a few words.
macro_rules! words {
    ($type:ty, $not_yet:expr, $($word:literal => $value:expr),+ $(,)?) => {
        impl $crate::wire::yaml::Scalar for $type {
            fn parse(text: &str) -> Result<$type, $crate::wire::yaml::Unfit> {
                $crate::wire::yaml::word(text, &[$(($word, $value)),+], $not_yet)
            }

            fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": [$($word),+]})
            }
        }
    };
}
pub(in crate::wire) use words;

/// A scalar that says which sort of file this is.
macro_rules! stamp {
    ($type:ident, $text:literal) => {
        impl $crate::wire::yaml::Scalar for $type {
            fn parse(text: &str) -> Result<$type, $crate::wire::yaml::Unfit> {
                if text == $text {
                    return Ok($type);
                }
                let message = format!("this sluice reads {}, got {}", $text, $crate::wire::error::shown(text));
                Err($crate::wire::yaml::Unfit { code: Code::NoSuchPolicy, message })
            }

            fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"const": $text})
            }
        }
    };
}
pub(in crate::wire) use stamp;

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let mut checker = Checker::new("policy", "p.yaml", text);
        let tree: Option<serde_json::Value> = checker.parse(&[]);
        checker.finish(tree).unwrap_err().to_string()
    }

    #[test]
    fn the_line_is_shown_without_what_could_move_or_hide_text() {
        let expected = "error[E3004]: policy: a given twice on line 1\n --> p.yaml:1:10\n  |\n1 | {a: '\u{fffd}', a: 1}\n  |          ^";
        assert_eq!(fault("{a: '\u{202e}', a: 1}"), expected);
    }

    #[test]
    fn a_place_far_out_on_a_line_is_named_and_not_drawn() {
        let shown = fault(&format!("{{a: '{}', a: 1}}", "x".repeat(100_000)));
        assert!(shown.len() < 700, "{} bytes", shown.len());
        assert!(shown.starts_with("error[E3004]: policy: a given twice on line 1\n --> p.yaml:1:100009\n"));
        assert!(shown.ends_with("xxx"), "{shown}");
    }
}
