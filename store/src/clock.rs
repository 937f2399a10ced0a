//! The one place where the machine's clock is read.

use crate::core::time::Timestamp;

/// Wall time. It may jump; log time does not follow it backwards.
#[expect(clippy::disallowed_methods, reason = "the rest of the program gets its time from here")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as u64))
}

/// A clock that never jumps, for durations.
#[expect(clippy::disallowed_methods, reason = "the rest of the program gets its time from here")]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}
