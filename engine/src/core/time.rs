//! Points and lengths of time as plain values. The core never reads a clock: time arrives in events.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Timestamp {
    /// The instant `span` later; saturates at the end of time.
    pub fn plus(self, span: Span) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Timestamp) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn secs(n: u64) -> Span {
        Span(n * 1_000)
    }

    pub const fn mins(n: u64) -> Span {
        Span(n * 60_000)
    }

    pub const fn hours(n: u64) -> Span {
        Span(n * 3_600_000)
    }

    pub fn minus(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }

    pub fn plus(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

/// People's form with the two largest units: `4h`, `15m54s`, `250ms`, `0s`.
impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 1_000 {
            return write!(f, "{}ms", self.0);
        }
        let seconds = self.0 / 1_000;
        let units = [
            ("d", seconds / 86_400),
            ("h", seconds / 3_600 % 24),
            ("m", seconds / 60 % 60),
            ("s", seconds % 60),
        ];
        let first = units.iter().position(|(_, n)| *n > 0).unwrap_or(3);
        for (unit, n) in &units[first..units.len().min(first + 2)] {
            if *n > 0 {
                write!(f, "{n}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (span, text) in [
            (Span::ZERO, "0s"),
            (Span(250), "250ms"),
            (Span::secs(954), "15m54s"),
            (Span::hours(4), "4h"),
            (Span::hours(49), "2d1h"),
            (Span::secs(86_401), "1d"),
        ] {
            assert_eq!(span.to_string(), text);
        }
    }
}
