//! Damage inside the log: found, located, never a panic.

use super::*;

/// What `change` does to the records of page 21, the fifth of which is seq 25, is found at `seq` and said.
#[track_caller]
fn verify_names(change: impl FnOnce(&mut Vec<Vec<u8>>), seq: EventSeq, message: &str) {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path(), 50));
    rewrite_page(dir.path(), 21, |mut records| {
        change(&mut records);
        records
    });
    let log = open(dir.path());
    let error = log.reader().verify().unwrap_err();
    assert!(error.to_string().starts_with(message), "{error}");
    assert_eq!(error.seq(), Some(seq));
    // A scan ends there, and begins again behind the damage only on demand.
    let scanned: Vec<_> = log.reader().scan(20).unwrap().collect();
    assert_eq!((scanned.len() as u64, scanned.iter().filter(|e| e.is_err()).count()), (seq - 20 + 1, 1));
    assert!(log.reader().scan(40).unwrap().all(|envelope| envelope.is_ok()));
}

#[test]
fn a_changed_bit_is_named() {
    let message = "log corrupt at seq 25, byte 412 of page 21: hash mismatch";
    verify_names(|records| records[4][70] ^= 4, 25, message);
}

#[test]
fn swapped_records_are_named() {
    let message = "log corrupt at seq 25, byte 412 of page 21: previous-hash mismatch";
    verify_names(|records| records.swap(4, 5), 25, message);
}

#[test]
fn a_missing_record_is_named() {
    let message = "log corrupt at seq 25, byte 412 of page 21: previous-hash mismatch";
    verify_names(|records| drop(records.remove(4)), 25, message);
}

#[test]
fn an_inserted_record_is_named() {
    let insert = |records: &mut Vec<Vec<u8>>| {
        let before = envelope::decode(&records[4], &mut 0).unwrap();
        let mut extra = vec![];
        envelope::encode(&Event::TimePassed, 26, Timestamp(25), before.hash, &mut extra).unwrap();
        records.insert(5, extra);
    };
    verify_names(insert, 27, "log corrupt at seq 27, byte 603 of page 21: previous-hash mismatch");
}

#[test]
fn a_version_of_the_future_is_named() {
    let future = |records: &mut Vec<Vec<u8>>| {
        records[4][6] = 99;
        let end = records[4].len() - 32;
        let hash = envelope::hash(&records[4][..end]);
        records[4][end..].copy_from_slice(&hash.0);
    };
    verify_names(future, 25, "seq 25 uses event version 99; this build reads 1 to 1");
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
    let parts = ["sled/conf", "anchor"].map(|name| (name, std::fs::read(dir.path().join(name)).unwrap()));
    let db = std::fs::read(dir.path().join("sled/db")).unwrap();
    let opened = |db: &[u8]| {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(copy.path().join("sled/blobs")).unwrap();
        for (name, bytes) in &parts {
            std::fs::write(copy.path().join(name), bytes).unwrap();
        }
        std::fs::write(copy.path().join("sled/db"), db).unwrap();
        Log::open(copy.path(), &options()).and_then(|opened| opened.log.reader().verify())
    };
    assert_eq!(opened(&db).unwrap().events, 200);
    let used = db.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut refusals, mut harmless) = (0, 0);
    for at in (0..used).step_by(used / 60) {
        let mut damaged = db.clone();
        damaged[at] ^= 0x10;
        match opened(&damaged) {
            Ok(verified) => {
                assert_eq!(verified.events, 200, "byte {at}");
                harmless += 1;
            }
            Err(_) => refusals += 1,
        }
    }
    assert!(refusals > 5, "{refusals} refused, {harmless} harmless");
}
