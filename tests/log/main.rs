//! The log as its users see it: on a real disk, with damage done by hand.

use std::path::Path;

use sluice::core::event::Event;
use sluice::core::event::fact::Origin;
use sluice::core::ids::{Digest, EventSeq};
use sluice::core::telemetry::columns::{Builder, Row};
use sluice::core::time::{Span, Timestamp};
use sluice::shell::log::{Log, OpenOptions, Opened, Verified};
use sluice::wire::envelope::{self, Envelope, Group, Head};

mod anchor;
mod damage;
mod export;
mod folder;
mod formats;
mod fuzz_corpus;
mod ledger;
mod process;
#[path = "../support/references.rs"]
mod references;
#[path = "../support/scenario.rs"]
mod scenario;

fn options() -> OpenOptions {
    OpenOptions { ballast: 0, ..OpenOptions::default() }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, &options()).unwrap().log
}

/// The database of a closed log. A process that another test starts has its lock too, between fork and exec.
fn opened(path: &Path) -> sled::Db {
    let mut left = 2_000;
    loop {
        match sled::open(path) {
            Err(error) if error.to_string().contains("lock") && left > 0 => {
                left -= 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn refused(dir: &Path, options: &OpenOptions) -> String {
    Log::open(dir, options).err().expect("opening is refused").to_string()
}

fn batch(samples: u32) -> Event {
    let mut builder = Builder::new(Timestamp(1_000));
    for i in 0..samples {
        builder.push(Row {
            version: ["opus@1", "opus@2"][i as usize % 2],
            metric: ["eval_pass", "latency_ms", "cost_usd"][i as usize % 3],
            served_at: Timestamp(1_000 + u64::from(i)),
            unit: None,
            tags: None,
            value: f64::from(i * 7_919 % 4_096) / 8.0,
        });
    }
    Event::BatchReceived { service: "chat".into(), columns: builder.finish(), origin: Origin::default() }
}

fn started(build: &str) -> Event {
    Event::DaemonStarted { build: build.into() }
}

/// A log of `count` small events, one group each ten.
fn filled(dir: &Path, count: u64) -> Log {
    let mut log = open(dir);
    let mut group = Group::after(log.head());
    for i in 1..=count {
        group.push(&started(&format!("build {i}")), Timestamp(i)).unwrap();
        if i % 10 == 0 || i == count {
            log.append(&group).unwrap();
            group.appended();
        }
    }
    log
}

fn all(log: &Log, from: EventSeq) -> Vec<Envelope> {
    log.reader().scan(from).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Runs `change` on the pages of a closed log.
fn tamper(dir: &Path, change: impl FnOnce(&sled::Tree)) {
    let db = opened(&dir.join("sled"));
    change(&db.open_tree("pages").unwrap());
    db.flush().unwrap();
}

/// Replaces the records of the page that holds `seq` by what `change` makes of them.
fn rewrite_page(dir: &Path, seq: EventSeq, change: impl FnOnce(Vec<Vec<u8>>) -> Vec<Vec<u8>>) {
    tamper(dir, |pages| {
        let (key, page) = pages.get_lt((seq + 1).to_be_bytes()).unwrap().unwrap();
        let (mut offset, mut records) = (0, vec![]);
        while offset < page.len() {
            records.push(envelope::header(&page, &mut offset).unwrap().bytes.to_vec());
        }
        pages.insert(key, change(records).concat()).unwrap();
    });
}

fn close(log: Log) -> Head {
    let head = log.head();
    log.close().unwrap();
    head
}

#[test]
fn what_was_appended_reads_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let id = log.id();
    let events = [started("a"), Event::TimePassed, batch(256), batch(3), batch(9_000), started("b")];
    let mut group = Group::after(log.head());
    for (i, event) in events.iter().enumerate() {
        group.push(event, Timestamp(100 + i as u64)).unwrap();
        if i == 2 {
            log.append(&group).unwrap();
            group.appended();
        }
    }
    log.append(&group).unwrap();
    let head = log.head();
    assert_eq!((head.seq, head.at), (6, Timestamp(105)));
    log.close().unwrap();

    let Opened { log, created, accepted, .. } = Log::open(dir.path(), &options()).unwrap();
    assert_eq!((log.id(), log.head(), created, accepted), (id, head, false, None));
    let back = all(&log, 1);
    assert_eq!(back.iter().map(|e| &e.event).collect::<Vec<_>>(), events.iter().collect::<Vec<_>>());
    assert_eq!(back[0].prev, Digest::default());
    for from in 1..=7 {
        assert_eq!(all(&log, from), back[from as usize - 1..]);
    }
    for envelope in &back {
        assert_eq!(&log.reader().read(envelope.seq).unwrap(), envelope);
    }
    assert_eq!(log.reader().read(7).unwrap_err().to_string(), "no seq 7 in the log; it has 6 events");
    assert_eq!(log.reader().verify().unwrap(), Verified { events: 6, head });
}

/// Pages hold many small records, none exceeds an item, and a large record is a page alone.
#[test]
fn pages_gather_small_records_and_split_large_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let mut group = Group::after(log.head());
    for _ in 0..200 {
        group.push(&started("small"), Timestamp(1)).unwrap();
    }
    group.push(&batch(9_000), Timestamp(1)).unwrap();
    group.push(&started("small"), Timestamp(1)).unwrap();
    log.append(&group).unwrap();
    let pages: Vec<_> = log.reader().pages_from(1).unwrap().map(|page| page.unwrap()).collect();
    let sizes: Vec<_> = pages.iter().map(|page| page.bytes.len()).collect();
    let (large, small) = (pages.iter().position(|page| page.first == 201).unwrap(), 200 * 100);
    assert!(sizes[large] > 40_000 && sizes[large + 1] == 100, "{sizes:?}");
    assert_eq!(sizes[..large].iter().sum::<usize>(), small);
    assert!(sizes[..large - 1].iter().all(|size| *size == 6_400), "{sizes:?}");
    assert_eq!(log.reader().verify().unwrap().events, 202);
}

/// sled keeps nodes above 128 KiB in files that it never syncs: there must not be any.
#[test]
fn nothing_is_stored_where_a_flush_does_not_reach() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let mut group = Group::after(log.head());
    for round in 0..60 {
        for _ in 0..8 {
            group.push(&batch(9_000), Timestamp(1)).unwrap();
        }
        log.append(&group).unwrap();
        group.appended();
        if round % 10 == 0 {
            log.put_snapshot(log.head(), &vec![round; 700_000]).unwrap();
        }
    }
    let kept_apart = std::fs::read_dir(dir.path().join("sled/blobs")).unwrap().count();
    assert_eq!(kept_apart, 0);
    log.close().unwrap();
    let log = open(dir.path());
    assert_eq!(log.reader().verify().unwrap().events, 480);
    assert_eq!(log.latest_snapshot().unwrap().unwrap().1, vec![50; 700_000]);
}

#[test]
fn a_group_must_continue_the_log_and_fit_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = filled(dir.path(), 10);
    let mut stale = Group::after(Head::default());
    stale.push(&Event::TimePassed, Timestamp(1)).unwrap();
    let error = log.append(&stale).unwrap_err().to_string();
    assert_eq!(error, "the records to append follow seq 0, the log ends at seq 10");
    let mut large = Group::after(log.head());
    for _ in 0..300 {
        large.push(&batch(1_000), Timestamp(1)).unwrap();
    }
    let error = log.append(&large).unwrap_err().to_string();
    assert_eq!(error, "a group of 300 pages exceeds the 256 that are written at once; append it in parts");
    // Neither harmed the log.
    let mut group = Group::after(log.head());
    group.push(&Event::TimePassed, Timestamp(99)).unwrap();
    log.append(&group).unwrap();
    assert_eq!(log.reader().verify().unwrap().events, 11);
}

#[test]
fn the_outbox_cursor_rides_with_the_next_flush() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = filled(dir.path(), 3);
    assert_eq!(log.outbox_cursor().unwrap(), 0);
    log.set_outbox_cursor(3);
    log.close().unwrap();
    assert_eq!(open(dir.path()).outbox_cursor().unwrap(), 3);
}

/// A reader sees whole groups only, in order, while the log grows.
#[test]
fn reading_beside_the_writer_sees_whole_groups() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = filled(dir.path(), 7);
    let reader = log.reader();
    let beside = std::thread::spawn(move || {
        loop {
            let events = reader.verify().unwrap().events;
            assert!(events.is_multiple_of(7), "{events}");
            if events == 7 * 200 {
                return;
            }
        }
    });
    let mut group = Group::after(log.head());
    for _ in 1..200 {
        for _ in 0..7 {
            group.push(&batch(800), Timestamp(20)).unwrap();
        }
        log.append(&group).unwrap();
        group.appended();
    }
    beside.join().unwrap();
}

#[test]
fn the_newest_whole_snapshot_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    assert!(log.latest_snapshot().unwrap().is_none());
    let mut heads = vec![];
    let mut group = Group::after(log.head());
    for i in 1..=4u8 {
        group.push(&Event::TimePassed, Timestamp(u64::from(i))).unwrap();
        log.append(&group).unwrap();
        group.appended();
        heads.push(log.head());
        log.put_snapshot(log.head(), &vec![i; 20_000]).unwrap();
    }
    assert_eq!(log.latest_snapshot().unwrap(), Some((heads[3], vec![4; 20_000])));
    close(log);

    let change = |change: &dyn Fn(&sled::Tree)| {
        let db = opened(&dir.path().join("sled"));
        change(&db.open_tree("snapshots").unwrap());
        drop(db);
        open(dir.path()).latest_snapshot().unwrap()
    };
    let key = |seq: u64, part: u32| [seq.to_be_bytes().as_slice(), &part.to_be_bytes()].concat();
    // Two are kept, each of four parts and a closing item.
    let count = std::cell::Cell::new(0);
    change(&|tree| count.set(tree.len()));
    assert_eq!(count.get(), 10);
    // One that was not finished does not count, nor one with a changed byte, nor one of another history.
    assert_eq!(change(&|tree| drop(tree.insert(key(9, 0), &[1; 10]))), Some((heads[3], vec![4; 20_000])));
    let damage = |tree: &sled::Tree| drop(tree.insert(key(4, 1), vec![5; 6_400]).unwrap().unwrap());
    assert_eq!(change(&damage), Some((heads[2], vec![3; 20_000])));
    let foreign = |tree: &sled::Tree| {
        let mut closing = tree.get(key(3, u32::MAX)).unwrap().unwrap().to_vec();
        closing[20] ^= 1;
        tree.insert(key(3, u32::MAX), closing).unwrap();
    };
    assert_eq!(change(&foreign), None);
}
