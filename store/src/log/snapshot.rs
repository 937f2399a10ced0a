//! Snapshots of the folded state: opaque bytes, bound to the record they include.
//!
//! One is stored as parts, key `sequence | part number`, and, behind them, a closing item with its
//! length, head and hash. A snapshot without a sound closing item does not exist.

use super::sled_guard::guard;
use super::{Log, LogError};
use crate::core::ids::{Digest, EventSeq};
use crate::core::time::Timestamp;
use crate::wire::envelope::Head;
use crate::wire::pages::{BATCH_ITEMS, PART_MAX};

/// How many are kept: the newest, and one for the case that it is damaged.
const KEEP: usize = 2;
/// Part number of the closing item.
const CLOSING: u32 = u32::MAX;

impl Log {
    /// Stores the state folded up to and with `head`, durably, and removes all but the newest two.
    pub fn put_snapshot(&mut self, head: Head, bytes: &[u8]) -> Result<(), LogError> {
        self.writing(|log| {
            let mut batch = sled::Batch::default();
            for (part, piece) in bytes.chunks(PART_MAX).enumerate() {
                batch.insert(&key(head.seq, part as u32), piece);
                if (part + 1) % BATCH_ITEMS == 0 {
                    let full = std::mem::take(&mut batch);
                    guard(|| log.snapshots.apply_batch(full))?;
                }
            }
            let mut closing = Vec::with_capacity(80);
            closing.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            closing.extend_from_slice(&head.at.0.to_le_bytes());
            closing.extend_from_slice(&head.hash.0);
            closing.extend_from_slice(&Digest::of(bytes).0);
            batch.insert(&key(head.seq, CLOSING), closing);
            guard(|| log.snapshots.apply_batch(batch))?;
            log.flush()?;
            log.remove_old_snapshots()
        })
    }

    /// The newest snapshot that is whole and belongs to this log, with the head it includes.
    pub fn latest_snapshot(&self) -> Result<Option<(Head, Vec<u8>)>, LogError> {
        for seq in self.closed_snapshots()?.into_iter().rev() {
            if let Some((head, bytes)) = self.snapshot(seq)?
                && self.reader().head_at(seq)? == Some(head)
            {
                return Ok(Some((head, bytes)));
            }
        }
        Ok(None)
    }

    fn snapshot(&self, seq: EventSeq) -> Result<Option<(Head, Vec<u8>)>, LogError> {
        let Some(closing) = guard(|| self.snapshots.get(key(seq, CLOSING)))? else { return Ok(None) };
        let Ok(closing) = <[u8; 80]>::try_from(closing.as_ref()) else { return Ok(None) };
        let u64_at = |at: usize| u64::from_le_bytes(closing[at..at + 8].try_into().expect("8 bytes"));
        let digest = |at: usize| Digest(closing[at..at + 32].try_into().expect("32 bytes"));
        let mut bytes = Vec::new();
        guard(|| {
            let mut parts = self.snapshots.range(key(seq, 0)..key(seq, CLOSING)).values();
            parts.try_for_each(|part| part.map(|part| bytes.extend_from_slice(&part)))
        })?;
        let whole = bytes.len() as u64 == u64_at(0) && Digest::of(&bytes) == digest(48);
        Ok(whole.then(|| (Head { seq, at: Timestamp(u64_at(8)), hash: digest(16) }, bytes)))
    }

    /// Sequences of the snapshots that have a closing item, oldest first.
    fn closed_snapshots(&self) -> Result<Vec<EventSeq>, LogError> {
        let closing = |key: &sled::IVec| parse_key(key).filter(|(_, part)| *part == CLOSING);
        Ok(self.snapshot_keys()?.iter().filter_map(closing).map(|(seq, _)| seq).collect())
    }

    fn snapshot_keys(&self) -> Result<Vec<sled::IVec>, LogError> {
        guard(|| self.snapshots.iter().keys().collect())
    }

    fn remove_old_snapshots(&mut self) -> Result<(), LogError> {
        let closed = self.closed_snapshots()?;
        let keep = &closed[closed.len().saturating_sub(KEEP)..];
        let mut old = self.snapshot_keys()?;
        old.retain(|key| parse_key(key).is_none_or(|(seq, _)| !keep.contains(&seq)));
        // Not flushed at once: an old snapshot that survives a crash does no harm.
        for keys in old.chunks(BATCH_ITEMS) {
            let mut batch = sled::Batch::default();
            keys.iter().for_each(|key| batch.remove(key));
            guard(|| self.snapshots.apply_batch(batch))?;
        }
        Ok(())
    }
}

fn key(seq: EventSeq, part: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&seq.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(EventSeq, u32)> {
    let (seq, part) = key.split_at_checked(8)?;
    Some((u64::from_be_bytes(seq.try_into().ok()?), u32::from_be_bytes(part.try_into().ok()?)))
}
