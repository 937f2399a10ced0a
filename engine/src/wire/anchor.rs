//! The anchor: where the log ended when last looked at, kept outside the store.
//!
//! sled drops a damaged tail without a word, and a shorter chain still verifies. So the file `anchor` keeps the head,
//! in two slots written in turn: a torn write costs the newer slot, never both.
//! Slot: log id 16 | sequence u64 | recorded at u64 | head hash 32 | BLAKE3 of these 32.

use uuid::Uuid;

use super::envelope::Head;
use crate::core::ids::{Digest, EventSeq};
use crate::core::text::count;
use crate::core::time::Timestamp;

const SLOT: usize = 16 + 8 + 8 + 32 + 32;
/// Slots lie in different blocks of the disk.
pub const STRIDE: u64 = 4096;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchored {
    /// There is no file.
    Missing,
    /// Nothing was ever written to it, or it was written only for an empty log.
    Nothing,
    /// Neither slot can be read.
    Damaged,
    At {
        log: Uuid,
        head: Head,
    },
}

/// The newest sound slot of an anchor's file.
pub fn read(file: &[u8]) -> Anchored {
    let slots = [0, STRIDE as usize].map(|at| file.get(at..at + SLOT).unwrap_or_default());
    let newest = slots.into_iter().filter_map(parse).max_by_key(|(_, head)| head.seq);
    match newest {
        Some((_, head)) if head.seq == 0 => Anchored::Nothing,
        Some((log, head)) => Anchored::At { log, head },
        None => Anchored::Damaged,
    }
}

/// A slot that says that `log` ends at `head`.
pub fn slot(log: Uuid, head: Head) -> Vec<u8> {
    let mut slot = Vec::with_capacity(SLOT);
    slot.extend_from_slice(log.as_bytes());
    slot.extend_from_slice(&head.seq.to_le_bytes());
    slot.extend_from_slice(&head.at.0.to_le_bytes());
    slot.extend_from_slice(&head.hash.0);
    let check = Digest::of(&slot);
    slot.extend_from_slice(&check.0);
    slot
}

fn parse(slot: &[u8]) -> Option<(Uuid, Head)> {
    let (body, check) = slot.split_at_checked(SLOT - 32)?;
    if Digest::of(body).0 != check {
        return None;
    }
    let u64_at = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("8 bytes"));
    let log = Uuid::from_slice(&body[..16]).expect("16 bytes");
    let hash = Digest(body[32..64].try_into().expect("32 bytes"));
    Some((log, Head { seq: u64_at(16), at: Timestamp(u64_at(24)), hash }))
}

/// How the log and its anchor disagree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorMismatch {
    #[error(
        "log is empty but the anchor is at seq {}; restore a backup or pass --accept-loss",
        count(*.anchor)
    )]
    LogEmpty { anchor: EventSeq },
    #[error(
        "log ends at seq {} but its anchor says {}; {} events are missing; restore a backup or pass --accept-loss",
        count(*.log), count(*.anchor), count(.anchor - .log)
    )]
    LogShort { log: EventSeq, anchor: EventSeq },
    #[error(
        "seq {} differs from the anchor: its hash is {}, the anchor says {}; the log was rewritten; \
         restore a backup or pass --accept-loss",
        count(*.seq), .log.short(), .anchor.short()
    )]
    Rewritten { seq: EventSeq, log: Digest, anchor: Digest },
    #[error(
        "the anchor is of log {anchor}, the folder holds log {log}; restore a backup or pass --accept-loss"
    )]
    OtherLog { log: Uuid, anchor: Uuid },
    #[error(
        "log ends at seq {} but its anchor file is missing; restore it from a backup or pass --accept-loss",
        count(*.log)
    )]
    AnchorMissing { log: EventSeq },
    #[error(
        "log ends at seq {} but its anchor file is damaged; restore it from a backup or pass --accept-loss",
        count(*.log)
    )]
    AnchorDamaged { log: EventSeq },
}

/// How the log and its anchor disagree, if they do.
/// `id` and `head` are the log's; `head_at` looks a sequence up in it.
pub fn disagreement<E>(
    anchored: Anchored,
    id: Uuid,
    head: Head,
    head_at: impl FnOnce(EventSeq) -> Result<Option<Head>, E>,
) -> Result<Option<AnchorMismatch>, E> {
    let (log, anchor) = match anchored {
        // Both are there before the first event is.
        Anchored::Missing if head.seq > 0 => {
            return Ok(Some(AnchorMismatch::AnchorMissing { log: head.seq }));
        }
        Anchored::Damaged if head.seq > 0 => {
            return Ok(Some(AnchorMismatch::AnchorDamaged { log: head.seq }));
        }
        Anchored::Missing | Anchored::Damaged | Anchored::Nothing => return Ok(None),
        Anchored::At { log, head } => (log, head),
    };
    let (log_ends, anchor_at) = (head.seq, anchor.seq);
    Ok(match head_at(anchor.seq)? {
        None if head.seq == 0 => Some(AnchorMismatch::LogEmpty { anchor: anchor_at }),
        None => Some(AnchorMismatch::LogShort { log: log_ends, anchor: anchor_at }),
        Some(_) if log != id => Some(AnchorMismatch::OtherLog { log: id, anchor: log }),
        Some(found) if found.hash != anchor.hash => {
            Some(AnchorMismatch::Rewritten { seq: anchor_at, log: found.hash, anchor: anchor.hash })
        }
        Some(_) => None,
    })
}
