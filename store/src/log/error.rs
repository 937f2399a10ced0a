//! What can go wrong with a log, in words that say how to go on.

use std::io;
use std::path::PathBuf;

use crate::core::ids::EventSeq;
use crate::core::text::count;
use crate::wire::anchor::AnchorMismatch;
use crate::wire::envelope::{EnvelopeError, Fault, TooLarge};

/// Why the log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{what} failed: {}", reason(.cause))]
    Io { what: &'static str, cause: io::Error },
    #[error("data folder {} is locked by {}; sluice allows one process at a time", .dir.display(), process(*.holder))]
    Locked { dir: PathBuf, holder: Option<u32> },
    #[error("the log does not open or read: {why}{}; restore a backup or an export", at(.place))]
    Damaged {
        why: String,
        /// File and byte, where they are known.
        place: Option<String>,
    },
    #[error("{}", corrupt(.error, .place))]
    Corrupt { error: EnvelopeError, place: Place },
    #[error("{0}")]
    Anchor(#[from] AnchorMismatch),
    #[error(
        "flushing does not reach the disk here: sled did not call sync_file_range through sluice; \
         nothing would survive a power cut, so sluice does not start. Use an official build"
    )]
    NotDurable,
    #[error("the log has format {found}, this sluice reads {newest}; use a newer sluice")]
    Format { found: u32, newest: u32 },
    #[error("log is empty: 0 events{}", .path.as_ref().map_or(String::new(), |path| format!(" in {}", path.display())))]
    Empty { path: Option<PathBuf> },
    #[error("no log in {}: the folder has no data of sluice", .0.display())]
    NoLog(PathBuf),
    #[error("{} is not empty; import into a new folder", .0.display())]
    NotEmpty(PathBuf),
    #[error("{} is not an export of a log: {why}", .path.display())]
    NotAnExport { path: PathBuf, why: &'static str },
    #[error("export truncated after seq {}: {why}; export again, or use another copy", count(*.seq))]
    Cut { seq: EventSeq, why: &'static str },
    #[error("the export begins at seq {}; only one from seq 1 can become a data folder", count(*.0))]
    NotFromTheStart(EventSeq),
    #[error("no seq {} in the log; it has {} events", count(*.seq), count(*.last))]
    NoSuchEvent { seq: EventSeq, last: EventSeq },
    #[error("the records to append follow seq {group}, the log ends at seq {log}")]
    OutOfOrder { group: EventSeq, log: EventSeq },
    #[error("a group of {pages} pages exceeds the {max} that are written at once; append it in parts")]
    GroupTooLarge { pages: usize, max: usize },
    #[error("{0}; this is a fault in sluice. What was acknowledged is in the log")]
    TooLarge(#[from] TooLarge),
    #[error("writing the log failed before; restart sluice, which recovers all that was acknowledged")]
    Poisoned,
}

/// Where a run of records is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The page of the log that begins with this sequence.
    Page(EventSeq),
    /// The block of an exported file that begins at this byte of the file.
    Block(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Page(first) => write!(f, "page {}", count(*first)),
            Place::Block(byte) => write!(f, "the block at byte {}", count(*byte)),
        }
    }
}

impl LogError {
    pub(super) fn io(what: &'static str, cause: io::Error) -> LogError {
        LogError::Io { what, cause }
    }

    /// The sequence of the first bad record, where the error is about one.
    pub fn seq(&self) -> Option<EventSeq> {
        match self {
            LogError::Corrupt { error, .. } => Some(error.seq),
            LogError::Cut { seq, .. } => Some(seq + 1),
            _ => None,
        }
    }

    /// Damage whose place is not known, or named by `why`.
    pub fn damaged(why: impl Into<String>) -> LogError {
        LogError::Damaged { why: why.into(), place: None }
    }

    pub(super) fn corrupt(seq: EventSeq, byte: usize, fault: Fault, place: Place) -> LogError {
        LogError::Corrupt { error: EnvelopeError { seq, byte, fault }, place }
    }
}

fn corrupt(error: &EnvelopeError, place: &Place) -> String {
    let EnvelopeError { seq, byte, fault } = error;
    if fault.is_from_the_future() {
        return error.to_string();
    }
    let (seq, byte) = (count(*seq), count(*byte as u64));
    format!("log corrupt at seq {seq}, byte {byte} of {place}: {fault}; restore a backup or an export")
}

fn at(place: &Option<String>) -> String {
    place.as_ref().map_or(String::new(), |place| format!(" ({place})"))
}

fn process(pid: Option<u32>) -> String {
    pid.map_or("another process".into(), |pid| format!("process {pid}"))
}

/// An operating system's error in the style of the other messages: `no space left on device`.
fn reason(cause: &io::Error) -> String {
    let text = cause.to_string();
    // sled hands it on in a form for programmers, once or several times over.
    let told = text.split_once("message: ").map(|(_, told)| told.trim_start_matches(['\\', '"']));
    let told = told.and_then(|told| told.split(['\\', '"']).next());
    let text = told.or(text.split(" (os error").next()).unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_reads_the_same_however_often_sled_has_wrapped_it() {
        let mut error = io::Error::from_raw_os_error(libc::EIO);
        for _ in 0..3 {
            assert_eq!(reason(&error), "input/output error");
            error = io::Error::new(error.kind(), format!("{error:?}"));
        }
        assert_eq!(reason(&io::Error::from_raw_os_error(libc::ENOSPC)), "no space left on device");
        assert_eq!(reason(&io::Error::other("lost")), "lost");
    }
}
