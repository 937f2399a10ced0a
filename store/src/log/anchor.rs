//! The anchor's file. What stands in it is `wire::anchor`'s business.

use crate::clock;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::LogError;
use crate::wire::anchor::{self as wire, Anchored, STRIDE};
use crate::wire::envelope::Head;

/// How long a head may be newer than the anchor.
pub const INTERVAL: Duration = Duration::from_secs(1);

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
    Ok(wire::read(&bytes))
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
        let slot = wire::slot(self.log, self.head);
        let written = self.file.write_all_at(&slot, self.slot * STRIDE);
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|cause| LogError::io("writing the anchor", cause))?;
        self.slot = 1 - self.slot;
        Ok(())
    }
}
