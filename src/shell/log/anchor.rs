//! The anchor: where the log ended when last looked at, kept outside sled.
//!
//! sled drops a damaged tail without a word, and a shorter chain still verifies. So the file `anchor`
//! keeps the head, in two slots written in turn: a torn write costs the newer slot, never both.
//! Slot: log id 16 | sequence u64 | recorded at u64 | head hash 32 | BLAKE3 of these 32.

use crate::shell::clock;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::LogError;
use crate::core::ids::Digest;
use crate::core::time::Timestamp;
use crate::wire::envelope::Head;

/// How long a head may be newer than the anchor.
pub const INTERVAL: Duration = Duration::from_secs(1);
const SLOT: usize = 16 + 8 + 8 + 32 + 32;
/// Slots lie in different blocks of the disk.
const STRIDE: u64 = 4096;

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

pub struct Anchor {
    file: File,
    log: Uuid,
    head: Head,
    slot: u64,
    written: Instant,
}

/// Reads the newest sound slot.
pub fn read(dir: &Path) -> Result<Anchored, LogError> {
    let bytes = match std::fs::read(dir.join("anchor")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Anchored::Missing),
        Err(cause) => return Err(LogError::io("reading the anchor", cause)),
    };
    let slots = [0, STRIDE as usize].map(|at| bytes.get(at..at + SLOT).unwrap_or_default());
    let newest = slots.into_iter().filter_map(parse).max_by_key(|(_, head)| head.seq);
    Ok(match newest {
        Some((_, head)) if head.seq == 0 => Anchored::Nothing,
        Some((log, head)) => Anchored::At { log, head },
        None => Anchored::Damaged,
    })
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

impl Anchor {
    /// Starts a fresh anchor at `head`, in place of any there was.
    pub fn create(dir: &Path, log: Uuid, head: Head) -> Result<Anchor, LogError> {
        let failed = |cause| LogError::io("creating the anchor", cause);
        // Under another name first: a crash must not leave the folder without the old one.
        let (new, path) = (dir.join("anchor.new"), dir.join("anchor"));
        let file = File::options().write(true).create(true).truncate(true).open(&new).map_err(failed)?;
        let mut anchor = Anchor { file, log, head, slot: 0, written: clock::monotonic() };
        anchor.file.set_len(STRIDE * 2).map_err(failed)?;
        anchor.write()?;
        anchor.file.sync_all().map_err(failed)?;
        std::fs::rename(&new, &path).and_then(|()| File::open(dir)?.sync_all()).map_err(failed)?;
        Ok(anchor)
    }

    /// The newest head that is anchored.
    pub fn head(&self) -> Head {
        self.head
    }

    /// When the anchor may be written next.
    pub fn due(&self) -> Instant {
        self.written + INTERVAL
    }

    /// Records that the log durably ends at `head`.
    pub fn set(&mut self, head: Head, now: Instant) -> Result<(), LogError> {
        self.head = head;
        self.written = now;
        self.write()
    }

    fn write(&mut self) -> Result<(), LogError> {
        let mut slot = Vec::with_capacity(SLOT);
        slot.extend_from_slice(self.log.as_bytes());
        slot.extend_from_slice(&self.head.seq.to_le_bytes());
        slot.extend_from_slice(&self.head.at.0.to_le_bytes());
        slot.extend_from_slice(&self.head.hash.0);
        let check = Digest::of(&slot);
        slot.extend_from_slice(&check.0);
        let written = self.file.write_all_at(&slot, self.slot * STRIDE);
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|cause| LogError::io("writing the anchor", cause))?;
        self.slot = 1 - self.slot;
        Ok(())
    }
}
