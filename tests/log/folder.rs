//! The data folder: who holds it, what is in it, how full the disk is.

use sluice::shell::log::History;

use super::*;

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

/// What a process forked between closing and opening does to both locks of a log.
#[test]
fn a_lock_that_outlives_the_closed_log_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 1);
    close(log);
    let db = opened(&dir.path().join("sled"));
    let holder = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(db);
    });
    assert_eq!(open(dir.path()).head().seq, 1);
    holder.join().unwrap();
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
    let db = opened(&dir.path().join("sled"));
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
    drop(History::open(dir.path()).unwrap());
    assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 1 << 20);
    with.watermark.bytes = free * 2;
    assert!(Log::open(dir.path(), &with).unwrap().log.space().unwrap().low);
    with.watermark = sluice::shell::log::Watermark { pct: 0, bytes: 1 };
    assert!(!Log::open(dir.path(), &with).unwrap().log.space().unwrap().low);
}

/// A scan of a folder keeps it open, and lets go of it at its end.
#[test]
fn a_folder_reads_as_history() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 30);
    let (id, events) = (log.id(), all(&log, 1));
    close(log);
    let history = History::open(dir.path()).unwrap();
    assert_eq!(history.log_id(), id);
    let mut scan = history.scan().unwrap();
    assert_eq!(scan.by_ref().collect::<Result<Vec<_>, _>>().unwrap(), events);
    assert!(refused(dir.path(), &options()).contains("is locked by process"));
    drop(scan);
    assert_eq!(open(dir.path()).head().seq, 30);
}

/// A start that was killed while sled wrote its settings, or a snapshot of its page table.
#[test]
fn what_a_killed_start_left_half_made_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("sled");
    drop(open(dir.path()));
    let conf = std::fs::read(store.join("conf")).unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    std::fs::create_dir_all(store.join("blobs")).unwrap();
    std::fs::write(store.join("conf"), &conf[..conf.len() - 4]).unwrap();
    drop(open(dir.path()));

    close(filled(dir.path(), 30));
    // The second start after the first event makes the first snapshot that counts.
    close(open(dir.path()));
    let snapshot = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("snap.");
    let names = || std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names().filter(snapshot).count(), 1);
    for bytes in [&b""[..], b"half", &[9; 300]] {
        std::fs::write(store.join("snap.00000000FFFFFFFF.generating"), bytes).unwrap();
        let log = open(dir.path());
        assert_eq!(log.reader().verify().unwrap().events, 30);
        close(log);
        assert_eq!(names().filter(snapshot).count(), 1);
    }
}
