//! The log as its users see it: on a real disk, with damage done by hand.

use std::path::Path;
use std::time::{Duration, Instant};

use sluice::core::columns::{Builder, Row};
use sluice::core::event::{Event, Origin};
use sluice::core::ids::{Digest, EventSeq};
use sluice::core::time::Timestamp;
use sluice::shell::log::{
    AnchorMismatch, Export, History, Log, LogError, OpenOptions, Opened, Verified, export, import,
};
use sluice::wire::envelope::{self, Envelope, Group, Head, Record};

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
