//! The log as its users see it: on a real disk, with damage done by hand.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sluice::core::columns::{Builder, Row};
use sluice::core::event::{Event, Origin};
use sluice::core::ids::{Digest, EventSeq};
use sluice::core::time::Timestamp;
use sluice::shell::log::{
    AnchorMismatch, Export, History, Log, OpenOptions, Opened, Verified, export, import,
};
use sluice::wire::envelope::{self, Envelope, Group, Head};

fn options() -> OpenOptions {
    OpenOptions { ballast: 0, ..OpenOptions::default() }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, &options()).map(|opened| opened.log).unwrap()
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
    log.set_outbox_cursor(3).unwrap();
    log.close().unwrap();
    assert_eq!(open(dir.path()).outbox_cursor().unwrap(), 3);
}

// The anchor.

/// Runs `change` on the pages of a closed log.
fn tamper(dir: &Path, change: impl FnOnce(&sled::Tree)) {
    let db = sled::open(dir.join("sled")).unwrap();
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
fn a_log_that_ends_before_its_anchor_is_refused_with_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let head = close(filled(dir.path(), 3_199));
    assert_eq!(head.seq, 3_199);
    // The last pages of the groups of ten.
    tamper(dir.path(), |pages| {
        for first in (3_101u64..=3_191).step_by(10) {
            pages.remove(first.to_be_bytes()).unwrap().unwrap();
        }
    });
    let message = "log ends at seq 3,100 but its anchor says 3,199; 99 events are missing; restore a backup or \
                   pass --accept-loss";
    assert_eq!(refused(dir.path(), &options()), message);
    // Refusing changes nothing.
    assert_eq!(refused(dir.path(), &options()), message);

    let accept = OpenOptions { accept_loss: true, ..options() };
    let Opened { log, accepted, .. } = Log::open(dir.path(), &accept).unwrap();
    assert_eq!(accepted, Some(AnchorMismatch::LogShort { log: 3_100, anchor: 3_199 }));
    assert_eq!(log.head().seq, 3_100);
    drop(log);
    assert_eq!(Log::open(dir.path(), &options()).unwrap().accepted, None);
}

#[test]
fn a_log_cut_after_its_anchor_opens() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 40)); // not closed: the anchor still says 0
    tamper(dir.path(), |pages| drop(pages.remove(31u64.to_be_bytes()).unwrap().unwrap()));
    assert_eq!(open(dir.path()).head().seq, 30);
}

#[test]
fn the_anchor_follows_within_a_second_of_activity() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = filled(dir.path(), 20);
    let due = log.anchor_due().expect("the head has moved");
    log.anchor_if_due(due - Duration::from_millis(1)).unwrap();
    assert_eq!(log.anchor_due(), Some(due));
    log.anchor_if_due(due).unwrap();
    assert_eq!(log.anchor_due(), None);
    drop(log);
    tamper(dir.path(), |pages| drop(pages.remove(11u64.to_be_bytes()).unwrap().unwrap()));
    assert!(
        refused(dir.path(), &options()).starts_with("log ends at seq 10 but its anchor says 20; 10 events")
    );
    assert!(due <= Instant::now() + Duration::from_secs(1));
}

#[test]
fn a_rewritten_chain_differs_from_the_anchor() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path(), 10));
    rewrite_page(dir.path(), 1, |_| {
        let mut forged = Group::after(Head::default());
        for i in 1..=10u64 {
            forged.push(&started(&format!("forged {i}")), Timestamp(i)).unwrap();
        }
        vec![forged.bytes().to_vec()]
    });
    let message = refused(dir.path(), &options());
    assert!(message.starts_with("seq 10 differs from the anchor: its hash is "), "{message}");
    let accept = OpenOptions { accept_loss: true, ..options() };
    let opened = Log::open(dir.path(), &accept).unwrap();
    assert!(matches!(opened.accepted, Some(AnchorMismatch::Rewritten { seq: 10, .. })));
    assert_eq!(opened.log.reader().verify().unwrap().events, 10);
}

#[test]
fn a_log_that_is_gone_is_not_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path(), 3_199));
    std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let message = "log is empty but the anchor is at seq 3,199; restore a backup or pass --accept-loss";
    for create in [true, false] {
        assert_eq!(refused(dir.path(), &OpenOptions { create, ..options() }), message);
    }
    assert!(!dir.path().join("sled").exists());
    let accept = OpenOptions { accept_loss: true, ..options() };
    let opened = Log::open(dir.path(), &accept).unwrap();
    assert_eq!((opened.created, opened.accepted), (true, Some(AnchorMismatch::LogEmpty { anchor: 3_199 })));
}

#[test]
fn a_missing_a_foreign_and_a_damaged_anchor_are_told_apart() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    close(filled(dir.path(), 5));
    close(filled(other.path(), 5));
    let anchor = dir.path().join("anchor");
    let own = std::fs::read(&anchor).unwrap();

    std::fs::copy(other.path().join("anchor"), &anchor).unwrap();
    assert!(refused(dir.path(), &options()).starts_with("the anchor is of log "));
    std::fs::write(&anchor, vec![0xaa; own.len()]).unwrap();
    assert!(refused(dir.path(), &options()).starts_with("log ends at seq 5 but its anchor file is damaged"));
    std::fs::remove_file(&anchor).unwrap();
    assert!(refused(dir.path(), &options()).starts_with("log ends at seq 5 but its anchor file is missing"));

    // A torn write costs one slot only.
    for slot in [0, 4096] {
        let mut torn = own.clone();
        torn[slot + 20] ^= 1;
        std::fs::write(&anchor, torn).unwrap();
        assert_eq!(open(dir.path()).head().seq, 5);
    }
}

// Damage inside.

#[test]
fn verify_names_the_first_bad_record() {
    type Change = fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>;
    let swap: Change = |mut records| {
        records.swap(4, 5);
        records
    };
    let insert: Change = |mut records| {
        let before = envelope::decode(&records[4], &mut 0).unwrap();
        let mut extra = vec![];
        envelope::encode(&Event::TimePassed, 26, Timestamp(25), before.hash, &mut extra).unwrap();
        records.insert(5, extra);
        records
    };
    let flip: Change = |mut records| {
        records[4][70] ^= 4;
        records
    };
    let remove: Change = |mut records| {
        records.remove(4);
        records
    };
    let future: Change = |mut records| {
        records[4][6] = 99;
        let end = records[4].len() - 32;
        let hash = Digest::of(&records[4][..end]);
        records[4][end..].copy_from_slice(&hash.0);
        records
    };
    for (change, message, seq) in [
        (swap, "log corrupt at seq 25, byte 412 of page 21: previous-hash mismatch", 25),
        (insert, "log corrupt at seq 27, byte 603 of page 21: previous-hash mismatch", 27),
        (flip, "log corrupt at seq 25, byte 412 of page 21: hash mismatch", 25),
        (remove, "log corrupt at seq 25, byte 412 of page 21: previous-hash mismatch", 25),
        (future, "seq 25 uses event version 99; this build reads 1 to 1", 25),
    ] {
        let dir = tempfile::tempdir().unwrap();
        close(filled(dir.path(), 50));
        rewrite_page(dir.path(), 21, change);
        let log = open(dir.path());
        let error = log.reader().verify().unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}");
        assert_eq!(error.seq(), Some(seq));
        // A scan ends there, and begins again behind the damage only on demand.
        let scanned: Vec<_> = log.reader().scan(20).unwrap().collect();
        assert_eq!((scanned.len() as u64, scanned.iter().filter(|e| e.is_err()).count()), (seq - 20 + 1, 1));
        assert!(log.reader().scan(40).unwrap().all(|envelope| envelope.is_ok()));
    }
}

#[test]
fn a_damaged_last_page_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path(), 50));
    rewrite_page(dir.path(), 50, |mut records| {
        records[9][70] ^= 4;
        records
    });
    let message = refused(dir.path(), &options());
    assert!(message.starts_with("log corrupt at seq 50, byte 927 of page 41: hash mismatch"), "{message}");
}

/// sled reports some damage and panics over other: every flipped byte of its file is an error or harmless.
#[test]
fn damage_to_the_store_never_panics_and_never_loses_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path(), 200));
    let files: Vec<_> = ["db", "conf"].iter().map(|name| dir.path().join("sled").join(name)).collect();
    let whole: Vec<_> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let anchor = std::fs::read(dir.path().join("anchor")).unwrap();
    let used = whole[0].iter().rposition(|byte| *byte != 0).unwrap();
    let (mut refusals, mut harmless) = (0, 0);
    for at in (0..used).step_by(used / 60) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("sled")).unwrap();
        std::fs::create_dir(copy.path().join("sled/blobs")).unwrap();
        std::fs::write(copy.path().join("sled/conf"), &whole[1]).unwrap();
        let mut damaged = whole[0].clone();
        damaged[at] ^= 0x10;
        std::fs::write(copy.path().join("sled/db"), damaged).unwrap();
        std::fs::write(copy.path().join("anchor"), &anchor).unwrap();
        match Log::open(copy.path(), &options()).and_then(|opened| opened.log.reader().verify()) {
            Ok(verified) => {
                assert_eq!(verified.events, 200, "byte {at}");
                harmless += 1;
            }
            Err(_) => refusals += 1,
        }
    }
    assert!(refusals > 5, "{refusals} refused, {harmless} harmless");
}

// Who holds the folder.

#[test]
fn a_second_open_names_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 1);
    let expected = format!(
        "data folder {} is locked by process {}; sluice allows one process at a time",
        dir.path().display(),
        std::process::id()
    );
    assert_eq!(refused(dir.path(), &options()), expected);
    drop(log);
    open(dir.path());
}

#[test]
fn a_folder_without_a_log_is_not_made_one_by_reading() {
    let dir = tempfile::tempdir().unwrap();
    let message = History::open(dir.path()).err().unwrap().to_string();
    assert_eq!(message, format!("no log in {}: the folder has no data of sluice", dir.path().display()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(open(dir.path()));
    let empty = History::open(dir.path()).unwrap().verify().unwrap_err().to_string();
    assert_eq!(empty, "log is empty: 0 events");
}

#[test]
fn a_newer_format_is_named() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path(), 1));
    let db = sled::open(dir.path().join("sled")).unwrap();
    db.open_tree("meta").unwrap().insert("format", &7u32.to_be_bytes()).unwrap();
    drop(db);
    assert_eq!(
        refused(dir.path(), &options()),
        "the log has format 7, this sluice reads 1; use a newer sluice"
    );
}

#[test]
fn the_ballast_is_set_aside_and_a_low_disk_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut with = OpenOptions { ballast: 1 << 20, ..options() };
    let ballast = dir.path().join("ballast");
    let log = Log::open(dir.path(), &with).unwrap().log;
    assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 1 << 20);
    let free = log.space().unwrap().free;
    drop(log);
    with.watermark.bytes = free * 2;
    assert!(Log::open(dir.path(), &with).unwrap().log.space().unwrap().low);
    with.watermark = sluice::shell::log::Watermark { pct: 0, bytes: 1 };
    assert!(!Log::open(dir.path(), &with).unwrap().log.space().unwrap().low);
}

// Snapshots.

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
        let db = sled::open(dir.path().join("sled")).unwrap();
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

// Exports.

fn exported(log: &Log, path: &Path) -> Verified {
    let mut file = std::fs::File::create(path).unwrap();
    export(&log.reader(), log.id(), 1..=EventSeq::MAX, &mut file).unwrap()
}

#[test]
fn an_export_has_the_same_events_and_imports_as_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = filled(&dir.path().join("data"), 50);
    let mut group = Group::after(log.head());
    for _ in 0..400 {
        group.push(&batch(1_000), Timestamp(60)).unwrap();
        if group.len() == 100 {
            log.append(&group).unwrap();
            group.appended();
        }
    }
    let path = dir.path().join("log.sluice");
    let verified = exported(&log, &path);
    assert_eq!(verified, Verified { events: 450, head: log.head() });
    let raw: usize = log.reader().pages_from(1).unwrap().map(|page| page.unwrap().bytes.len()).sum();
    assert!(raw > 3 << 19, "more than one block: {raw}");
    let packed = std::fs::metadata(&path).unwrap().len();
    assert!(packed < raw as u64, "{packed} of {raw}");

    let export = Export::open(&path).unwrap();
    assert_eq!((export.log, export.first, export.last, export.head), (log.id(), 1, 450, log.head().hash));
    assert_eq!(export.scan().collect::<Result<Vec<_>, _>>().unwrap(), all(&log, 1));
    assert_eq!(History::open(&path).unwrap().verify().unwrap(), verified);

    let copy = dir.path().join("copy");
    assert_eq!(import(&path, &copy, &options()).unwrap(), verified);
    let again = import(&path, &copy, &options()).unwrap_err().to_string();
    assert_eq!(again, format!("{} is not empty; import into a new folder", copy.display()));
    let copy = open(&copy);
    assert_eq!((copy.id(), copy.head()), (log.id(), log.head()));
    assert_eq!(all(&copy, 1), all(&log, 1));
}

#[test]
fn a_range_exports_with_its_place_in_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(&dir.path().join("data"), 50);
    let path = dir.path().join("part");
    let write = |range| export(&log.reader(), log.id(), range, &mut std::fs::File::create(&path).unwrap());
    write(15..=33).unwrap();
    assert_eq!(
        Export::open(&path).unwrap().scan().collect::<Result<Vec<_>, _>>().unwrap(),
        all(&log, 15)[..19]
    );
    assert_eq!(
        import(&path, &dir.path().join("copy"), &options()).unwrap_err().to_string(),
        "the export begins at seq 15; only one from seq 1 can become a data folder"
    );
    assert_eq!(write(51..=60).unwrap_err().to_string(), "log is empty: 0 events");
}

#[test]
fn every_changed_byte_of_an_export_is_found_and_every_cut_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(&dir.path().join("data"), 12);
    let path = dir.path().join("log.sluice");
    exported(&log, &path);
    let whole = std::fs::read(&path).unwrap();
    let verify = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        History::open(&path).and_then(History::verify)
    };
    const HEADER: usize = 137;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        let error = verify(&damaged).expect_err(&format!("byte {at} of {}", whole.len()));
        // Past the header, the first record that cannot be relied on is named.
        assert_eq!(error.seq().is_some(), at >= HEADER, "byte {at}: {error}");
    }
    for end in 0..whole.len() {
        assert!(verify(&whole[..end]).is_err(), "cut at {end}");
    }
    assert!(verify(&[&whole[..], b"x"].concat()).is_err());
    verify(&whole).unwrap();
}

#[test]
fn files_that_are_no_export_say_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let said = |path: &Path| History::open(path).err().unwrap().to_string();
    assert_eq!(said(&path), "reading the export failed: no such file or directory");
    assert_eq!(said(Path::new("/dev/null")), "log is empty: 0 events in /dev/null");
    std::fs::write(&path, "hello").unwrap();
    assert!(said(&path).ends_with("is not an export of a log: it does not begin as one"));
}

#[test]
fn an_export_to_a_full_disk_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 12);
    let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let error = export(&log.reader(), log.id(), 1..=EventSeq::MAX, &mut full).unwrap_err();
    assert_eq!(error.to_string(), "writing the export failed: no space left on device");
}

// Processes of their own.

/// A command that runs `role` of [`child`] on `dir` in another process.
fn in_child(program: &[&str], role: &str, dir: &Path) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(program.first().map_or(exe.as_os_str(), |program| program.as_ref()));
    if !program.is_empty() {
        command.args(&program[1..]).arg(exe);
    }
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    command
        .env("SLUICE_TEST_ROLE", role)
        .env("SLUICE_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn appended(log: &mut Log, group: &mut Group, event: &Event) -> Result<(), sluice::shell::log::LogError> {
    for _ in 0..10 {
        group.push(event, Timestamp(1)).unwrap();
    }
    log.append(group)?;
    group.appended();
    println!("acked {}", log.head().seq);
    Ok(())
}

#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child() {
    let (role, dir) = (std::env::var("SLUICE_TEST_ROLE").unwrap(), std::env::var("SLUICE_TEST_DIR").unwrap());
    let dir = Path::new(&dir);
    let ballast = if role.starts_with("disk") { 12 << 20 } else { 0 };
    let opened = Log::open(dir, &OpenOptions { ballast, ..options() }).unwrap();
    let (mut log, mut group) = (opened.log, Group::after(Head::default()));
    match role.as_str() {
        "append ten times" => {
            (0..10).for_each(|_| appended(&mut log, &mut group, &Event::TimePassed).unwrap())
        }
        "append for ever" => loop {
            appended(&mut log, &mut group, &batch(256)).unwrap();
        },
        "disk fills" => {
            let error = loop {
                if let Err(error) = appended(&mut log, &mut group, &batch(1_000)) {
                    break error;
                }
            };
            println!("write: {error}");
            println!("next: {}", log.append(&group).unwrap_err());
        }
        "disk is full" => {
            println!("released {} low {}", opened.ballast_released, log.space().unwrap().low);
            println!("verified {}", log.reader().verify().unwrap().events);
            group = Group::after(log.head());
            appended(&mut log, &mut group, &Event::TimePassed).unwrap();
        }
        other => panic!("no role {other}"),
    }
    std::process::exit(0);
}

fn lines(output: &[u8], prefix: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    // The first line of a test shares its line with the harness.
    let tails = text.lines().filter_map(|line| line.split_once(prefix));
    tails.map(|(_, rest)| rest.trim().to_owned()).collect()
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let dir = dir.path().join(round.to_string());
        let mut child = in_child(&[], "append for ever", &dir).spawn().unwrap();
        let pid = child.id();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acked =
            lines.by_ref().map(|line| line.unwrap()).filter(|line| line.contains("acked")).nth(round * 17);
        let message = refused(&dir, &options());
        assert!(message.contains(&format!("is locked by process {pid};")), "{message}");
        child.kill().unwrap();
        child.wait().unwrap();
        let last =
            lines.map_while(Result::ok).filter(|line| line.contains("acked")).last().or(acked).unwrap();
        let last: u64 = last.rsplit(' ').next().unwrap().parse().unwrap();
        let log = open(&dir);
        assert!(log.head().seq >= last && log.head().seq.is_multiple_of(10), "{:?} after {last}", log.head());
        assert_eq!(log.reader().verify().unwrap().head, log.head());
    }
}

/// What the kernel is asked to do: before anything is acknowledged, sled's file is synced, and never by
/// the call that does not reach the disk.
#[test]
fn a_flush_syncs_the_file_before_it_returns() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: strace is not installed, so what a flush asks of the kernel was not checked");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let calls = "trace=fsync,fdatasync,sync_file_range,write";
    let strace = ["strace", "-f", "-y", "-e", calls, "-o", trace.to_str().unwrap()];
    let output = in_child(&strace, "append ten times", &dir.path().join("data")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(!trace.contains("sync_file_range"));
    let (mut synced, mut acked) = (false, 0);
    for line in trace.lines() {
        // Either a whole call, or its end after another thread's calls.
        synced |= line.contains("fsync") && line.ends_with("= 0") && !line.contains("fdatasync");
        if line.contains("write(1") && line.contains("acked") {
            assert!(synced, "acknowledged without a sync before: {line}");
            (synced, acked) = (false, acked + 1);
        }
    }
    assert_eq!(acked, 10);
    assert!(trace.lines().any(|line| line.contains("fsync(") && line.contains("/data/sled/db>")));
}

/// On a disk of 40 MB: the write that fails is the last one, nothing acknowledged is lost, and the
/// ballast makes the full disk's log usable again.
#[test]
fn a_full_disk_ends_writing_and_the_ballast_reopens_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=40m none {}", dir.path().display());
    let possible = Command::new("unshare").args(["-rm", "sh", "-c", &mount]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no tmpfs may be mounted here, so a full disk was not tried");
        return;
    }
    let script = format!(
        "{mount} && \"$0\" \"$@\"; head -c 40m /dev/zero > {}/rest; SLUICE_TEST_ROLE='disk is full' \"$0\" \"$@\"",
        dir.path().display()
    );
    let program = ["unshare", "-rm", "sh", "-c", &script];
    let output = in_child(&program, "disk fills", &dir.path().join("data")).output().unwrap();
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    let acked: Vec<u64> = lines(out, "acked ").iter().map(|seq| seq.parse().unwrap()).collect();
    assert_eq!(lines(out, "write: "), ["using the log failed: no space left on device"], "{err}");
    assert_eq!(
        lines(out, "next: "),
        ["writing the log failed before; restart sluice, which recovers all that was acknowledged"]
    );
    assert_eq!(lines(out, "released "), ["true low true"], "{err}");
    let verified: u64 = lines(out, "verified ")[0].parse().unwrap();
    let before = acked[acked.len() - 2];
    assert!(verified >= before && verified <= before + 10, "{verified} events, {before} acknowledged");
    assert_eq!(acked.last(), Some(&(verified + 10)), "appending goes on");
}
