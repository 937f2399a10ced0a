//! Exported files.

use sluice::shell::log::{Export, History, export, import};

use super::*;

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

    // A sound header that names what no log has: first and last stand at bytes 25 and 33, a hash of 105 bytes follows.
    let log = filled(&dir.path().join("data"), 12);
    exported(&log, &path);
    let whole = std::fs::read(&path).unwrap();
    for (first, last) in [(0, 12), (13, 12), (1, u64::MAX)] {
        let mut forged = whole.clone();
        forged[25..33].copy_from_slice(&u64::to_le_bytes(first));
        forged[33..41].copy_from_slice(&u64::to_le_bytes(last));
        let hash = Digest::of(&forged[..105]);
        forged[105..137].copy_from_slice(&hash.0);
        std::fs::write(&path, forged).unwrap();
        assert!(said(&path).ends_with("is not an export of a log: its header names no range of events"));
    }
}

#[test]
fn an_export_to_a_full_disk_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 12);
    let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let error = export(&log.reader(), log.id(), 1..=EventSeq::MAX, &mut full).unwrap_err();
    assert_eq!(error.to_string(), "writing the export failed: no space left on device");
}
