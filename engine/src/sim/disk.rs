//! A disk that loses what was not synced, and on request lies, rots, fills up and tears; and the journal on it.
//!
//! The journal cuts groups into pages, keeps the anchor and refuses a log that disagrees with it with the code that
//! the real log uses (`wire::pages`, `wire::anchor`, `wire::envelope`). What stands in for sled is an ordered map in
//! which a batch is there whole or not at all, as sled's own tests and ours show it to be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use uuid::Uuid;

use super::random::Random;
use crate::core::ids::EventSeq;

use crate::core::time::Span;
use crate::runner::ledger::Journal;
use crate::wire::anchor::{self, AnchorMismatch, Anchored, STRIDE};
use crate::wire::envelope::{self, Envelope, Group, Head, Record, TooLarge};
use crate::wire::pages;

/// How long a head may be newer than its anchor.
const ANCHOR_EVERY: Span = Span::secs(1);

/// Why the journal stops.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The process is gone: not an answer of the disk, but the end of everything that waits for one.
    #[error("the process was killed")]
    Killed,
    #[error("no space left on device")]
    Full,
    #[error("the sync failed")]
    Sync,
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    Anchor(#[from] AnchorMismatch),
    #[error("{0}")]
    TooLarge(#[from] TooLarge),
}

/// What happens to the next group that is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Killed before anything was written.
    KilledBefore,
    /// Killed with the group written and not synced: it may be there or not.
    KilledUnsynced,
    /// Killed after the sync, before anybody was told.
    KilledAfter,
    /// Killed before the next group that only goes on with what an earlier fact led to.
    KilledBetween,
    Full,
    Sync,
    /// The disk says that it synced, and did not.
    Lost,
}

/// What happens to what lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Flip,
    /// A page is written where another one was.
    Misdirected,
    /// The end of the store is gone.
    Tail,
    /// The anchor's file cannot be read.
    Anchor,
}

#[derive(Clone, Debug)]
struct Page {
    bytes: Vec<u8>,
    synced: bool,
}

/// What survives a process.
#[derive(Debug, Default)]
pub struct Disk {
    pages: BTreeMap<Vec<u8>, Page>,
    cursor: EventSeq,
    snapshots: Vec<(Head, Vec<u8>)>,
    /// The anchor's file, and which slot is written next.
    anchor: Vec<u8>,
    slot: usize,
    anchored_at: Span,
    pub mishap: Option<Mishap>,
    /// Something was changed behind the journal's back, or synced only in words: what follows from it must be noticed.
    pub damaged: bool,
    pub lied: bool,
    /// The last crash tore a slot of the anchor.
    pub torn: bool,
}

impl Disk {
    /// The process is gone, and what was not synced is there or not. Returns which; `None` when all was synced.
    pub fn crash(&mut self, random: &mut Random) -> Option<bool> {
        self.mishap = None;
        // One batch is all that is ever not synced, apart from what the disk lied about.
        let kept = !self.lied && random.chance(0.5);
        let pages = self.pages.len();
        let unsynced = self.pages.values_mut().filter(|page| !page.synced);
        let unsynced = unsynced.map(|page| page.synced = kept).count();
        if !kept && unsynced > 0 {
            self.pages.retain(|_, page| page.synced);
            assert_eq!(self.pages.len(), pages - unsynced);
        }
        if random.chance(0.2) {
            // The slot being written is torn; the other is whole.
            let at = self.slot * STRIDE as usize;
            if let Some(byte) = self.anchor.get_mut(at + 40) {
                *byte ^= 0x10;
                self.torn = true;
            }
        }
        (unsynced > 0).then_some(kept)
    }

    /// Changes what lies there. Returns whether there was anything to change.
    pub fn damage(&mut self, damage: Damage, random: &mut Random) -> bool {
        let keys: Vec<Vec<u8>> = self.pages.keys().cloned().collect();
        if keys.len() < 4 {
            return false;
        }
        let any = |random: &mut Random| keys[random.below(keys.len() as u64) as usize].clone();
        match damage {
            Damage::Flip => {
                let page = self.pages.get_mut(&any(random)).expect("a page");
                let at = random.below(page.bytes.len() as u64) as usize;
                page.bytes[at] ^= 1 << random.below(8);
            }
            Damage::Misdirected => {
                let (from, to) = (any(random), any(random));
                if self.pages[&from].bytes == self.pages[&to].bytes {
                    return false;
                }
                let page = self.pages[&from].clone();
                self.pages.insert(to, page);
            }
            Damage::Tail => {
                // Below the anchor: what it does not know of yet nobody can miss.
                let Anchored::At { head, .. } = anchor::read(&self.anchor) else { return false };
                let keep = random.below(keys.len() as u64) as usize;
                let cut = &keys[keep];
                if pages::page_key(cut).is_ok_and(|(first, _)| first > head.seq) {
                    return false;
                }
                self.pages.retain(|key, _| key < cut);
                // Nor is a snapshot older than what it includes.
                self.snapshots.clear();
            }
            Damage::Anchor => self.anchor.iter_mut().for_each(|byte| *byte = 0xaa),
        }
        self.damaged = true;
        true
    }
}

/// The log of one process on a [`Disk`].
pub struct SimLog {
    disk: Rc<RefCell<Disk>>,
    head: Head,
    log: Uuid,
    /// The process's steady clock, set by whoever runs it.
    pub steady: Span,
    poisoned: bool,
    /// What the anchor says.
    anchored: Head,
    /// What this process has read and checked, from seq 1 on: a page is never rewritten while it lives.
    read: RefCell<Vec<Envelope>>,
}

impl SimLog {
    /// Opens the log: its last page must be sound, and it must agree with its anchor.
    pub fn open(disk: &Rc<RefCell<Disk>>, log: Uuid) -> Result<SimLog, DiskError> {
        let anchored = {
            let disk = disk.borrow();
            if disk.anchor.is_empty() { Anchored::Missing } else { anchor::read(&disk.anchor) }
        };
        let mut opened = SimLog {
            disk: Rc::clone(disk),
            head: Head::default(),
            log,
            steady: Span::ZERO,
            poisoned: false,
            anchored: Head::default(),
            read: RefCell::default(),
        };
        opened.head = opened.end()?;
        let mismatch = anchor::disagreement(anchored, log, opened.head, |seq| opened.head_at(seq))?;
        if let Some(mismatch) = mismatch {
            return Err(mismatch.into());
        }
        disk.borrow_mut().anchored_at = Span::ZERO;
        opened.anchor(opened.head);
        Ok(opened)
    }

    fn end(&self) -> Result<Head, DiskError> {
        let disk = self.disk.borrow();
        let Some((key, _)) = disk.pages.last_key_value() else { return Ok(Head::default()) };
        let (first, _) = pages::page_key(key).map_err(DiskError::Damaged)?;
        let mut head = None;
        walk(&disk, first, &mut |bytes, mut offset| {
            let mut at = match head {
                Some(head) => head,
                None => before(bytes, first)?,
            };
            while offset < bytes.len() {
                at.accept(bytes, &mut offset).map_err(|error| DiskError::Damaged(error.to_string()))?;
            }
            head = Some(at);
            Ok(true)
        })?;
        Ok(head.unwrap_or_default())
    }

    /// The chain up to and with `seq`; `None` when the log does not reach that far.
    pub fn head_at(&self, seq: EventSeq) -> Result<Option<Head>, DiskError> {
        if seq > self.head.seq {
            return Ok(None);
        }
        let mut found = None;
        self.records(seq, &mut |record| {
            found = (record.seq == seq).then(|| record.head());
            record.seq < seq
        })?;
        Ok(found)
    }

    /// Hands out the records from `from` on; the chain is checked from the page on that holds it.
    fn records(&self, from: EventSeq, each: &mut dyn FnMut(&Record) -> bool) -> Result<(), DiskError> {
        let disk = self.disk.borrow();
        let mut upper = from.to_be_bytes().to_vec();
        upper.extend([0xff; 2]);
        let page = disk.pages.range(..upper).next_back().or(disk.pages.first_key_value());
        let Some((key, _)) = page else { return Ok(()) };
        let (first, _) = pages::page_key(key).map_err(DiskError::Damaged)?;
        let mut head = None;
        walk(&disk, first, &mut |bytes, mut offset| {
            let mut at = match head {
                Some(head) => head,
                None if first == 1 => Head::default(),
                None => before(bytes, first)?,
            };
            while offset < bytes.len() {
                let record = at.accept(bytes, &mut offset);
                let record = record.map_err(|error| DiskError::Damaged(error.to_string()))?;
                if record.seq >= from && !each(&record) {
                    return Ok(false);
                }
            }
            head = Some(at);
            Ok(true)
        })
    }

    /// Says where the log ends; the slot is synced when this returns.
    fn anchor(&mut self, head: Head) {
        let mut disk = self.disk.borrow_mut();
        let at = disk.slot * STRIDE as usize;
        disk.anchor.resize(2 * STRIDE as usize, 0);
        let slot = anchor::slot(self.log, head);
        disk.anchor[at..at + slot.len()].copy_from_slice(&slot);
        disk.slot = 1 - disk.slot;
        disk.anchored_at = self.steady;
        drop(disk);
        self.anchored = head;
    }

    /// Anchors the head if it has moved and the anchor is old enough.
    pub fn anchor_if_due(&mut self) {
        let due = self.disk.borrow().anchored_at.plus(ANCHOR_EVERY) <= self.steady;
        if due && !self.poisoned && self.anchored != self.head {
            self.anchor(self.head);
        }
    }

    /// Reads, checks and decodes what has been appended since the last time.
    fn read_on(&self) -> Result<(), DiskError> {
        let mut read = self.read.borrow_mut();
        let next = read.len() as EventSeq + 1;
        if next > self.head.seq {
            return Ok(());
        }
        let mut damaged = Ok(());
        self.records(next, &mut |record| {
            damaged = record.envelope().map(|envelope| read.push(envelope));
            damaged.is_ok()
        })?;
        damaged.map_err(|error| DiskError::Damaged(error.to_string()))
    }
}

/// Takes a page and where to begin in it; says whether to go on.
type Each<'a> = dyn FnMut(&[u8], usize) -> Result<bool, DiskError> + 'a;

/// Joins the parts of each page from `first` on and hands the pages out.
fn walk(disk: &Disk, first: EventSeq, each: &mut Each<'_>) -> Result<(), DiskError> {
    let mut items = disk.pages.range(first.to_be_bytes().to_vec()..).peekable();
    while let Some((key, page)) = items.next() {
        let (first, part) = pages::page_key(key).map_err(DiskError::Damaged)?;
        if part != 0 {
            return Err(DiskError::Damaged(format!("page {first} has no beginning")));
        }
        let mut joined = None;
        while let Some((_, part)) =
            items.next_if(|(key, _)| pages::page_key(key).is_ok_and(|(page, part)| page == first && part > 0))
        {
            joined.get_or_insert_with(|| page.bytes.clone()).extend_from_slice(&part.bytes);
        }
        if !each(joined.as_deref().unwrap_or(&page.bytes), 0)? {
            break;
        }
    }
    Ok(())
}

/// The chain before a page's first record, as far as that record tells.
fn before(bytes: &[u8], first: EventSeq) -> Result<Head, DiskError> {
    let record = envelope::header(bytes, &mut 0);
    let record = record.map_err(|error| DiskError::Damaged(error.to_string()))?;
    Ok(Head { seq: first.saturating_sub(1), ..record.before() })
}

fn begins_with_fact(group: &Group) -> bool {
    let first = envelope::decode(group.bytes(), &mut 0).expect("a group is made of sound records");
    first.event.is_fact()
}

impl Journal for SimLog {
    type Error = DiskError;

    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, group: &Group) -> Result<(), DiskError> {
        assert!(!self.poisoned, "an error of the disk is final");
        assert_eq!(group.start(), self.head, "a group continues the log");
        self.poisoned = true;
        let mut mishap = self.disk.borrow_mut().mishap.take();
        if mishap == Some(Mishap::KilledBetween) && begins_with_fact(group) {
            self.disk.borrow_mut().mishap = mishap.take();
        }
        match mishap {
            Some(Mishap::KilledBefore | Mishap::KilledBetween) => return Err(DiskError::Killed),
            Some(Mishap::Full) => return Err(DiskError::Full),
            _ => {}
        }
        let mut disk = self.disk.borrow_mut();
        let synced = !matches!(mishap, Some(Mishap::KilledUnsynced | Mishap::Sync | Mishap::Lost));
        for (key, bytes) in pages::items(group) {
            let fresh = disk.pages.insert(key, Page { bytes: bytes.to_vec(), synced });
            assert!(fresh.is_none(), "a page is never rewritten");
        }
        drop(disk);
        match mishap {
            Some(Mishap::KilledUnsynced | Mishap::KilledAfter) => return Err(DiskError::Killed),
            Some(Mishap::Sync) => return Err(DiskError::Sync),
            Some(Mishap::Lost) => self.disk.borrow_mut().lied = true,
            _ => {}
        }
        self.head = group.head();
        self.poisoned = false;
        Ok(())
    }

    fn scan(&self, from: EventSeq, each: &mut dyn FnMut(&Envelope) -> bool) -> Result<(), DiskError> {
        self.read_on()?;
        let read = self.read.borrow();
        let _ = read.iter().skip(from.saturating_sub(1) as usize).all(each);
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<(Head, Vec<u8>)>, DiskError> {
        let snapshots = self.disk.borrow().snapshots.clone();
        for (head, bytes) in snapshots.into_iter().rev() {
            if self.head_at(head.seq)? == Some(head) {
                return Ok(Some((head, bytes)));
            }
        }
        Ok(None)
    }

    fn put_snapshot(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        let mut disk = self.disk.borrow_mut();
        disk.snapshots.push((self.head, bytes.to_vec()));
        let old = disk.snapshots.len().saturating_sub(2);
        disk.snapshots.drain(..old);
        Ok(())
    }

    fn outbox_cursor(&self) -> Result<EventSeq, DiskError> {
        Ok(self.disk.borrow().cursor.min(self.head.seq))
    }

    fn set_outbox_cursor(&mut self, seq: EventSeq) {
        self.disk.borrow_mut().cursor = seq;
    }
}
