//! The anchor beside the log: what is missing or rewritten is noticed.

use std::time::Duration;

use sluice::shell::log::AnchorMismatch;

use super::*;

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
    assert!(due <= sluice::shell::clock::monotonic() + Duration::from_secs(1));
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
