//! Times as text: RFC 3339, the one form in which a time is written and read.

use crate::core::time::Timestamp;

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(at: Timestamp) -> String {
    let time = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| at.0.to_string(), |time| format!("{time:.3}"))
}

/// `text` as RFC 3339, in milliseconds; `None` when it is not, or before 1970.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // jiff reads more than RFC 3339 (week dates, zone names): what looks like it must be it.
    let shape = bytes.len() >= 20
        && bytes[4] == b'-'
        && matches!(bytes[10], b'T' | b't' | b' ')
        && bytes
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'T' | b't' | b'Z' | b'z' | b'+' | b'-' | b':' | b'.' | b' '));
    let time: jiff::Timestamp = shape.then(|| text.parse().ok()).flatten()?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp)
}
