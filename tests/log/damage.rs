//! Damage inside the log: found, located, never a panic.

use super::*;

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
        let hash = envelope::hash(&records[4][..end]);
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
