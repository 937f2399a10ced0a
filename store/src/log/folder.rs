//! The data folder around sled: who holds it, and how much room is left.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::LogError;
use crate::os_sync;

/// Holds a data folder for this process until dropped. The file keeps the holder's process id.
pub struct Lock {
    file: File,
}

impl Lock {
    pub fn take(dir: &Path) -> Result<Lock, LogError> {
        let failed = |cause| LogError::io("locking the data folder", cause);
        let path = dir.join("lock");
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // A holder that has not written its id yet stays unnamed.
                let _ = file.read_to_string(&mut holder);
                return Err(LogError::Locked { dir: dir.to_owned(), holder: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        // The lock is what counts: on a full disk the id may be missing.
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Lock { file })
    }
}

impl Drop for Lock {
    /// Closing the file alone would not do: a process forked meanwhile has it too, until it executes its program.
    /// If unlocking fails, the lock ends with the last of these.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Removes what a crash left half made in the store, for sled would take it for the real thing and not open.
/// A snapshot of its page table gets its name when it is whole and synced; until then the one before counts. The
/// settings are written before anything else is, not synced, and written anew when they are missing.
pub fn remove_half_made(store: &Path) -> Result<(), LogError> {
    let failed = |cause| LogError::io("clearing what a crash left in the store", cause);
    let entries = match fs::read_dir(store) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let half_made = match &*name {
            "conf" => fs::metadata(store.join("db")).map_or(true, |db| db.len() == 0),
            name => name.starts_with("snap.") && name.ends_with(".generating"),
        };
        if half_made {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// When the disk counts as nearly full: below `pct` percent or below `bytes` free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    pub pct: u8,
    pub bytes: u64,
}

impl Default for Watermark {
    fn default() -> Watermark {
        Watermark { pct: 5, bytes: 256 << 20 }
    }
}

/// Room on the disk that holds the data folder, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free: u64,
    /// Intake must stop.
    pub low: bool,
}

pub fn space(dir: &Path, watermark: Watermark) -> Result<Space, LogError> {
    let room = os_sync::room(dir).map_err(|cause| LogError::io("asking for free disk space", cause))?;
    let share = room.total / 100 * u64::from(watermark.pct);
    Ok(Space { free: room.free, low: room.free < share.max(watermark.bytes) })
}

/// Space set aside in the file `ballast`. sled has to write to open a log, so on a full disk even
/// reading would fail; giving the ballast up makes room to open, export and roll back.
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
}

/// Below this, opening a log is not certain to succeed.
const ROOM_TO_OPEN: u64 = 16 << 20;

impl Ballast {
    pub fn new(dir: &Path, bytes: u64) -> Ballast {
        Ballast { path: dir.join("ballast"), bytes }
    }

    /// Gives the ballast up if the disk is so full that opening might fail. Returns whether it did.
    pub fn release_if_full(&self, dir: &Path) -> Result<bool, LogError> {
        let failed = |cause| LogError::io("making room on a full disk", cause);
        if os_sync::room(dir).map_err(failed)?.free >= ROOM_TO_OPEN || !self.path.exists() {
            return Ok(false);
        }
        fs::remove_file(&self.path).map(|()| true).map_err(failed)
    }

    /// Sets the space aside, unless it is already or the disk has no such room to give. With 0 bytes an
    /// existing ballast stays as it is: a reader wants none, and must not take the daemon's.
    pub fn set_aside(&self, dir: &Path) -> Result<(), LogError> {
        let failed = |cause| LogError::io("setting disk space aside", cause);
        let have = fs::metadata(&self.path).map_or(0, |meta| meta.len());
        if self.bytes == 0 || have == self.bytes || os_sync::room(dir).map_err(failed)?.free / 2 < self.bytes
        {
            return Ok(());
        }
        let mut file = File::create(&self.path).map_err(failed)?;
        // Noise, because a file system that compresses would store zeros in no space at all.
        let mut noise = blake3::Hasher::new().finalize_xof().take(self.bytes);
        std::io::copy(&mut noise, &mut file).and_then(|_| file.sync_all()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process forked while the lock was held has the same open file.
    #[test]
    fn a_dropped_lock_is_free_though_its_file_is_still_open_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let inherited = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::take(dir.path()).unwrap();
        drop(inherited);
    }
}
