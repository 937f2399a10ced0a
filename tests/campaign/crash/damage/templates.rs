//! Sound logs to damage.

use std::fs;
use std::path::Path;

use sluice::core::event::Event;
use sluice::core::event::fact::Origin;
use sluice::core::telemetry::columns::{Builder, Row};
use sluice::core::time::Timestamp;
use sluice::shell::log::{Export, Log};
use sluice::shell::recover;
use sluice::wire::envelope::Group;

use crate::crash::check;

/// Writes sound, closed logs of several shapes under `dir`.
pub fn make(dir: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1.0/history.sluice");
    // As a short first run leaves it; after many starts, with the daemon's snapshots; and with several segments.
    for (name, rounds, opens) in [("young", 1, 1), ("old", 2, 5), ("long", 12, 2)] {
        let dir = dir.join(name);
        for open in 0..opens {
            // A child that another test starts shares the lock of a log just closed until it runs its own program.
            let mut log = check::open(&dir).expect("open");
            let mut group = Group::after(log.head());
            if open == 0 {
                for envelope in Export::open(&fixture).expect("the fixture").scan() {
                    let e = envelope.expect("a sound fixture");
                    group.push(&e.event, e.at).expect("it fits");
                    if group.len() == 40 {
                        append(&mut log, &mut group);
                    }
                    if name == "young" && e.seq == 120 {
                        break;
                    }
                }
            }
            for round in 0..rounds {
                for n in 0..20 {
                    let event = Event::DaemonStarted { build: format!("{name} {open} {round} {n}") };
                    group.push(&event, Timestamp(0)).expect("it fits");
                }
                group.push(&large(round), Timestamp(0)).expect("it fits");
                append(&mut log, &mut group);
                if name == "long" {
                    for _ in 0..4 {
                        group.push(&large(round), Timestamp(0)).expect("it fits");
                    }
                    append(&mut log, &mut group);
                }
            }
            append(&mut log, &mut group);
            log.set_outbox_cursor(log.head().seq);
            if open > 0 || name == "long" {
                let state = recover::recover(&log).expect("fold");
                let bytes = rmp_serde::to_vec_named(&state).expect("the state is storable");
                log.put_snapshot(log.head(), &bytes).expect("a snapshot");
            }
            log.close().expect("close");
        }
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the templates").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn append(log: &mut Log, group: &mut Group) {
    log.append(group).expect("append");
    group.appended();
}

/// A record of several parts.
fn large(round: u64) -> Event {
    let mut builder = Builder::new(Timestamp(1_000));
    for i in 0..2_000_u64 {
        builder.push(Row {
            version: ["a@1", "b@1"][i as usize % 2],
            metric: "latency_ms",
            served_at: Timestamp(1_000 + i),
            unit: None,
            tags: None,
            value: ((i + round) * 7_919 % 4_096) as f64 / 8.0,
        });
    }
    Event::BatchReceived { service: "other".into(), columns: builder.finish(), origin: Origin::default() }
}
