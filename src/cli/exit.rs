//! The exit codes. Scripts build on them: a number keeps its meaning for ever.

pub const OK: u8 = 0;
pub const BUG: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOT_FOUND: u8 = 3;
pub const REFUSED: u8 = 4;
/// Nobody could be asked. Not a failure of the rollout, and never to be read as one.
pub const UNKNOWN: u8 = 5;
pub const ROLLED_BACK: u8 = 10;
pub const ABORTED: u8 = 11;
pub const TIMED_OUT: u8 = 12;
pub const NEEDS_HUMAN: u8 = 13;
pub const CHECK_FAILED: u8 = 20;
pub const MISMATCH: u8 = 21;
pub const INTERRUPTED: u8 = 130;

/// The end of `sluice --help`.
pub const HELP: &str = "\
Exit codes:
  0    done, or the state waited for was reached
  1    a fault in sluice itself
  2    wrong usage, or a file that cannot be read or written
  3    no such rollout, event or policy
  4    refused: a guardrail, a permission, a stale --if-seq, a folder in use
  5    sluice or NATS cannot be reached: the state is UNKNOWN, not failed
  10   the rollout was rolled back
  11   the rollout was aborted, or superseded by a newer one
  12   timed out; the rollout is still running
  13   the rollout waits for a person (wait --fail-on hold)
  20   a check failed
  21   a replay or a hash differs from the record
  130  interrupted; what runs goes on";
