//! The durable log: every event, in order, on disk before anything acts on it.
//!
//! A data folder holds `sled/` (the store), `anchor` (where the log ended, outside the store), `lock`
//! (the id of the process that has it open) and `ballast` (space to give up when the disk is full).
//!
//! Invariants: what [`Log::append`] returned from is on disk, whole; a page is never rewritten; an I/O
//! error is final: the log refuses all further writes, and the process is to end and start again.
//! Only one thread writes; any thread may read through a [`Reader`].
//! Not here: what events mean (`core`), how one is encoded (`wire`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::core::ids::EventSeq;
use crate::wire::anchor::{Anchored, disagreement};
use crate::wire::envelope::{Group, Head};
use crate::wire::pages;

mod anchor;
mod error;
mod export;
mod folder;
mod journal;
mod locate;
mod reader;
mod sled_guard;
mod snapshot;
mod watchdog;

pub use crate::wire::anchor::AnchorMismatch;
pub use crate::wire::pages::GROUP_BYTES;
pub use error::{LogError, Place};
pub use export::{Export, History, export, import};
pub use folder::{Space, Watermark};
pub use reader::{Chunk, Chunks, Reader, Scan, Verified};

use super::{clock, os_sync};
use anchor::Anchor;
use folder::{Ballast, Lock};
use sled_guard::{Store, guard};
use watchdog::Watchdog;

/// The layout of trees, keys and values that this build writes, and the newest it reads.
const FORMAT: u32 = 1;
/// sled's cache in bytes. It bounds little (a scan of a small log stays resident whole), so it is small.
const CACHE: u64 = 16 << 20;
/// Longest wait for sled's own lock, in steps of 10 ms.
const SLED_LOCK_WAITS: u32 = 500;
/// Longest wait for a flush.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// How to open a log.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Begin a log when the folder has none.
    pub create: bool,
    /// Identity of a log that is begun; random when `None`.
    pub log_id: Option<Uuid>,
    /// Go on with a log that ends before its anchor or differs from it. What was accepted is returned
    /// in [`Opened::accepted`], for the caller to record.
    pub accept_loss: bool,
    /// Disk space set aside, in bytes: sled must write to open a log, so on a full disk the ballast is
    /// given up first. 0 for none.
    pub ballast: u64,
    /// When [`Log::space`] calls the disk nearly full.
    pub watermark: Watermark,
    /// After this long in one flush the process aborts with a message: a store that neither writes nor
    /// fails leaves nothing else to do.
    pub flush_deadline: Duration,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            create: true,
            log_id: None,
            accept_loss: false,
            ballast: 64 << 20,
            watermark: Watermark::default(),
            flush_deadline: FLUSH_DEADLINE,
        }
    }
}

/// A log, and what its opening found.
pub struct Opened {
    pub log: Log,
    /// The log was begun just now and has no events.
    pub created: bool,
    /// The disagreement with the anchor that was accepted.
    pub accepted: Option<AnchorMismatch>,
    /// The disk was full: the ballast was given up to open at all.
    pub ballast_released: bool,
}

/// An open log; the one that may write.
pub struct Log {
    reader: Reader,
    snapshots: sled::Tree,
    outbox: sled::Tree,
    /// After the trees: of all handles the last.
    db: Store,
    id: Uuid,
    head: Head,
    /// The outbox cursor, when it has moved since the last flush.
    cursor: Option<EventSeq>,
    anchor: Anchor,
    poisoned: bool,
    watchdog: Watchdog,
    dir: PathBuf,
    watermark: Watermark,
    /// Last, so that the folder is free only when sled has let go.
    _lock: Lock,
}

impl Log {
    /// Opens the log in `dir`, creating folder and log if allowed. Checks that flushing is durable, that
    /// the last page is sound, and that the log has not lost what its anchor knew.
    pub fn open(dir: &Path, options: &OpenOptions) -> Result<Opened, LogError> {
        Log::open_store(dir, options).map_err(|error| locate::located(error, &dir.join("sled")))
    }

    fn open_store(dir: &Path, options: &OpenOptions) -> Result<Opened, LogError> {
        let store = dir.join("sled");
        let begun = store.exists();
        // An anchor without a store is a log that lost everything, which is worth a better message.
        if !begun && !options.create && !dir.join("anchor").exists() {
            return Err(LogError::NoLog(dir.to_owned()));
        }
        let failed = |cause| LogError::io("creating the data folder", cause);
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = Lock::take(dir)?;
        let anchored = anchor::read(dir)?;
        if !begun && let (Anchored::At { head, .. }, false) = (anchored, options.accept_loss) {
            return Err(AnchorMismatch::LogEmpty { anchor: head.seq }.into());
        }

        let ballast = Ballast::new(dir, options.ballast);
        let ballast_released = ballast.release_if_full(dir)?;
        let watchdog = Watchdog::start(options.flush_deadline)
            .map_err(|cause| LogError::io("starting the log's watchdog", cause))?;
        folder::remove_half_made(&store)?;
        let config = sled::Config::new().path(&store).cache_capacity(CACHE).flush_every_ms(None);
        let db = open_sled(&config, dir)?;
        let tree = |name| guard(|| db.open_tree(name));
        let (id, created) = identify(&tree("meta")?, options.log_id)?;

        // The first flush always has something to write, and so shows whether writes reach the disk.
        let before = os_sync::syncs();
        watchdog.guard(|| guard(|| db.flush()))?;
        if !os_sync::in_force(before) {
            return Err(LogError::NotDurable);
        }
        if created {
            for path in [store.join("db"), store, dir.to_owned()] {
                sync_parent(&path).map_err(failed)?;
            }
        }

        let reader = Reader { pages: tree("pages")? };
        let head = reader.head()?;
        let mismatch = disagreement(anchored, id, head, |seq| reader.head_at(seq))?;
        if let (Some(mismatch), false) = (&mismatch, options.accept_loss) {
            return Err(mismatch.clone().into());
        }
        let log = Log {
            snapshots: tree("snapshots")?,
            outbox: tree("outbox")?,
            anchor: Anchor::create(dir, id, head)?,
            reader,
            db,
            id,
            head,
            cursor: None,
            poisoned: false,
            watchdog,
            dir: dir.to_owned(),
            watermark: options.watermark,
            _lock: lock,
        };
        if !ballast_released {
            ballast.set_aside(dir)?;
        }
        Ok(Opened { log, created, accepted: mismatch, ballast_released })
    }

    /// Identity of the log, for ever.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The last durable record; default when the log is empty.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Reads for any thread, while this log is open.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Appends all records of `group` at once; when this returns they are on disk, and after a crash
    /// before that either all of them are there or none. The caller then calls [`Group::appended`].
    ///
    /// A group is to be appended once it holds [`GROUP_BYTES`]; more than 256 pages are refused. An error of the disk is final: see [`LogError::Poisoned`].
    pub fn append(&mut self, group: &Group) -> Result<(), LogError> {
        if group.is_empty() {
            return Ok(());
        }
        if group.start() != self.head {
            return Err(LogError::OutOfOrder { group: group.start().seq, log: self.head.seq });
        }
        let mut items = pages::items(group);
        if items.len() > pages::BATCH_ITEMS {
            return Err(LogError::GroupTooLarge { pages: items.len(), max: pages::BATCH_ITEMS });
        }
        self.writing(|log| {
            let pages = &log.reader.pages;
            // One item is atomic by itself. sled syncs twice for a batch: once for its frame, once for its items.
            match items.pop() {
                Some((key, bytes)) if items.is_empty() => guard(|| pages.insert(key, bytes)).map(drop)?,
                last => {
                    let mut batch = sled::Batch::default();
                    items.into_iter().chain(last).for_each(|(key, bytes)| batch.insert(key, bytes));
                    guard(|| pages.apply_batch(batch))?;
                }
            }
            log.put_cursor()?;
            log.flush()
        })?;
        self.head = group.head();
        Ok(())
    }

    /// Anchors the head if it has moved and the anchor is old enough. To be called after every append
    /// and when [`Log::anchor_due`] has come.
    pub fn anchor_if_due(&mut self, now: Instant) -> Result<(), LogError> {
        match self.anchor_due() {
            Some(due) if due <= now => self.writing(|log| log.anchor.set(log.head, now)),
            _ => Ok(()),
        }
    }

    /// When the anchor must be written next; `None` while it is up to date.
    pub fn anchor_due(&self) -> Option<Instant> {
        (self.anchor.head() != self.head).then(|| self.anchor.due())
    }

    /// Flushes, anchors the head, and lets go of the folder.
    pub fn close(mut self) -> Result<(), LogError> {
        self.writing(|log| {
            log.put_cursor()?;
            log.flush()?;
            log.anchor.set(log.head, clock::monotonic())
        })
    }

    /// Up to where the outbox has been delivered; 0 at first.
    pub fn outbox_cursor(&self) -> Result<EventSeq, LogError> {
        if let Some(cursor) = self.cursor {
            return Ok(cursor);
        }
        let stored = guard(|| self.outbox.get("cursor"))?;
        stored.map_or(Ok(0), |bytes| {
            let bytes = bytes.as_ref().try_into();
            bytes
                .map(EventSeq::from_be_bytes)
                .map_err(|_| LogError::damaged("the outbox cursor has a wrong size"))
        })
    }

    /// Moves the cursor. Stored with the next flush, not by one of its own: after a crash it may be old, and
    /// deliveries repeat.
    pub fn set_outbox_cursor(&mut self, seq: EventSeq) {
        self.cursor = Some(seq);
    }

    /// After the pages: what waits in sled when a batch begins costs a sync of its own.
    fn put_cursor(&mut self) -> Result<(), LogError> {
        let Some(cursor) = self.cursor.take() else { return Ok(()) };
        guard(|| self.outbox.insert("cursor", &cursor.to_be_bytes())).map(drop)
    }

    /// Room on the disk. When low, intake has to stop while the log still takes decisions.
    pub fn space(&self) -> Result<Space, LogError> {
        folder::space(&self.dir, self.watermark)
    }

    /// Runs `write` unless a write failed before; a failure of the disk is the last.
    fn writing<T>(&mut self, write: impl FnOnce(&mut Log) -> Result<T, LogError>) -> Result<T, LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        self.poisoned = true;
        let result = write(self)?;
        self.poisoned = false;
        Ok(result)
    }

    fn flush(&self) -> Result<(), LogError> {
        self.watchdog.guard(|| guard(|| self.db.flush())).map(drop)
    }
}

/// Opens the store of a folder that is locked already. What still holds sled's own lock then is a process forked
/// by the one that closed the log, until it executes its program: soon gone.
fn open_sled(config: &sled::Config, dir: &Path) -> Result<Store, LogError> {
    let mut waits = SLED_LOCK_WAITS;
    loop {
        match Store::open(config) {
            Err(LogError::Io { cause, .. }) if cause.to_string().contains("could not acquire lock") => {
                waits = waits
                    .checked_sub(1)
                    .ok_or_else(|| LogError::Locked { dir: dir.to_owned(), holder: None })?;
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// Reads the format and the identity of the log, or sets those of a new one. Always writes something,
/// so that the next flush has work to do.
fn identify(meta: &sled::Tree, wanted: Option<Uuid>) -> Result<(Uuid, bool), LogError> {
    let damaged = |what: &str| LogError::damaged(format!("{what} has a wrong size"));
    let created = match guard(|| meta.get("format"))? {
        None => true,
        Some(found) => match found.as_ref().try_into().map(u32::from_be_bytes) {
            Ok(FORMAT) => false,
            Ok(found) => return Err(LogError::Format { found, newest: FORMAT }),
            Err(_) => return Err(damaged("the format number")),
        },
    };
    let mut batch = sled::Batch::default();
    let id = match guard(|| meta.get("log"))? {
        Some(id) if !created => Uuid::from_slice(&id).map_err(|_| damaged("the log id"))?,
        _ => wanted.unwrap_or_else(Uuid::new_v4),
    };
    let opens = guard(|| meta.get("opens"))?;
    let opens = opens.and_then(|n| n.as_ref().try_into().map(u64::from_be_bytes).ok()).unwrap_or(0);
    batch.insert("format", &FORMAT.to_be_bytes());
    batch.insert("log", id.as_bytes());
    batch.insert("opens", &(opens + 1).to_be_bytes());
    guard(|| meta.apply_batch(batch))?;
    Ok((id, created))
}

/// Makes the entry of a new file or folder in its parent durable.
fn sync_parent(path: &Path) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
