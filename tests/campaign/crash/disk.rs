//! Disks of our own: small file systems that can lose power, and fill.
//!
//! They are mounted where only the thread that made them, and what it starts, can see them. Where others can, a process
//! that moves to mounts of its own meanwhile takes a copy of ours along (a container does, and so does `tests/log`). Our
//! unmounting then ends nothing: the file system lives on under that copy, without its power, and mounting its image
//! again gives the same one back. It also leaves nothing behind, however a test ends.

use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::wait_for;

/// A mounted file system, gone with the value.
pub struct Disk {
    at: PathBuf,
    /// Where it is kept; `None` in memory.
    image: Option<PathBuf>,
}

impl Disk {
    /// An ext4 in a file under `home`. Errors: why this machine does not let us.
    pub fn ext4(home: &Path, mib: u64) -> Result<Disk, String> {
        alone()?;
        let image = home.join("disk.ext4");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)])?;
        let disk = Disk { at: mount_point(home)?, image: Some(image) };
        disk.mount().map(|()| disk)
    }

    /// One in memory.
    pub fn tmpfs(home: &Path, mib: u64) -> Result<Disk, String> {
        alone()?;
        let disk = Disk { at: mount_point(home)?, image: None };
        let size = format!("size={mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "none", text(&disk.at)]).map(|_| disk)
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// From now on nothing reaches the disk any more, and what the journal had not yet committed is lost: ext4's forced
    /// shutdown without flushing its log.
    pub fn cut_power(&self) -> Result<(), String> {
        /// `_IOR('X', 125, __u32)` of the kernel's `ext4.h`, and its flag.
        const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
        static NOLOGFLUSH: u32 = 2;
        let root = File::open(&self.at).map_err(|error| error.to_string())?;
        // SAFETY: the descriptor is open, and the kernel reads one u32 behind the pointer.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &raw const NOLOGFLUSH) };
        if done == 0 {
            return Ok(());
        }
        Err(format!("EXT4_IOC_SHUTDOWN: {}", std::io::Error::last_os_error()))
    }

    /// Unmounts and mounts again: the power is back, ext4 replays its journal.
    pub fn power_on(&self) {
        wait_for("the disk to be unmounted", || run("umount", &[text(&self.at)]).ok());
        // The loop device goes with its file system. One that is still there would be mounted again as it is.
        let device = || run("losetup", &["--noheadings", "--associated", text(self.image())]);
        wait_for("nobody to hold the disk", || device().expect("ask for it").is_empty().then_some(()));
        self.mount().expect("the disk mounts again");
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", text(self.image()), text(&self.at)]).map(drop)
    }

    fn image(&self) -> &Path {
        self.image.as_deref().expect("a disk in a file")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a failing test may still have a process there. An error means that it was never mounted.
        let _ = run("umount", &["-l", text(&self.at)]);
    }
}

/// Moves this thread to mounts of its own, which nothing outside follows. Once is enough.
fn alone() -> Result<(), String> {
    thread_local!(static ALONE: OnceCell<()> = const { OnceCell::new() });
    if ALONE.with(|alone| alone.get().is_some()) {
        return Ok(());
    }
    // SAFETY: no memory is touched.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!("mounts of our own: {}", std::io::Error::last_os_error()));
    }
    run("mount", &["--make-rprivate", "/"])?;
    ALONE.with(|alone| alone.set(())).expect("it was not yet");
    Ok(())
}

fn mount_point(home: &Path) -> Result<PathBuf, String> {
    let at = home.join("disk");
    std::fs::create_dir_all(&at).map(|()| at).map_err(|error| error.to_string())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs a program of the system; what it prints, or its complaint when it fails.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    // mkfs is not on everybody's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).env("PATH", path).output();
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program}: {}", said.lines().next().unwrap_or("no reason given")))
        }
        Err(error) => Err(format!("{program}: {error}")),
    }
}
