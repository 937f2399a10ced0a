//! What the log needs from the operating system below the standard library: a sync that reaches the
//! disk, and the free space there. The only `unsafe` of the crate.
//!
//! On Linux sled 0.34 makes its log durable with `sync_file_range`, which writes pages back without
//! waiting for the disk's cache and without the file's size: after a power cut the log is gone. It
//! falls back to `fsync` when the kernel lacks that call (ENOSYS). So the function of that name is
//! defined here, takes the place of the C library's in the whole process, and always says ENOSYS.
//! Linking decides whether it is in force; therefore it counts its calls, and opening a log refuses
//! to go on when the first flush did not come by here.

#![allow(unsafe_code)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Stands in for the C library's function: fails with ENOSYS, so that sled calls `fsync` instead.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(_fd: i32, _offset: i64, _bytes: i64, _flags: u32) -> i32 {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the address of this thread's errno is always valid to write.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// How often sled's sync was turned into an `fsync`; stays 0 where sled calls `fsync` by itself.
pub fn syncs() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Whether a flush was durable, given the count of [`syncs`] before it.
pub fn in_force(before: u64) -> bool {
    // Elsewhere sled has no other way than `fsync`.
    !cfg!(target_os = "linux") || syncs() > before
}

/// Bytes of a file system: what this process may still write, and all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub free: u64,
    pub total: u64,
}

/// The room on the file system that holds `path`.
#[allow(clippy::unnecessary_cast)] // the widths differ by platform
pub fn room(path: &Path) -> io::Result<Room> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in NUL, and the call fills `stat` when it returns 0.
    let stat = unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    let unit = stat.f_frsize as u64;
    Ok(Room { free: stat.f_bavail as u64 * unit, total: stat.f_blocks as u64 * unit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_flush_that_did_not_come_by_here_is_not_durable() {
        let before = syncs();
        assert!(!in_force(u64::MAX));
        assert_eq!(sync_file_range(0, 0, 0, 0), -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOSYS));
        assert!(in_force(before));
    }

    #[test]
    fn the_room_of_a_folder_is_known() {
        let room = room(&std::env::temp_dir()).unwrap();
        assert!(room.free <= room.total && room.total > 0);
        assert_eq!(super::room(Path::new("/no/such")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
