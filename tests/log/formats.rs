//! A log that a released version wrote still opens, verifies and replays, for ever. `SLUICE_WRITE_FIXTURES=1` writes
//! the fixtures that are not there yet; one that is there is never written again. New kinds of events come in a history
//! of their own.

use std::path::PathBuf;

use sluice::core::event::Event;
use sluice::core::event::code::Code;
use sluice::core::event::fact::{Ack, AckStatus, Origin, Rejection};
use sluice::core::ids::CommandId;
use sluice::replay::Verifier;
use sluice::shell::log::{Export, Log, OpenOptions, export};
use sluice::wire::envelope::Group;
use sluice::wire::events;

use crate::scenario;

/// Name of the fixture, and the scenario it was written from.
const HISTORIES: [(&str, &str); 5] = [
    ("history", "nearly_everything"),
    ("carried-out", "confirmed_shown_and_tested"),
    ("windows", "a_first_step_waits_for_windows_and_freezes"),
    ("restarts", "restarts_do_not_hide_harm"),
    ("bundles", "bundle_changes_one_part"),
];

fn fixture(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1.0");
    folder.join(name).with_extension("sluice")
}

fn write(name: &str, script: &str) {
    let (mut runner, mut events) = scenario::run(script);
    let rejection = Rejection {
        code: Code::Empty,
        message: "intent: body is empty (0 bytes); expected one JSON object".into(),
        source: "sluice.v1.intent.assistant".into(),
        bytes: 0,
        excerpt: String::new(),
    };
    let stray = Ack {
        service: "assistant".into(),
        command: CommandId::default(),
        actuator: "router-eu".into(),
        status: AckStatus::Rejected("unknown command".into()),
        took_ms: None,
        done: None,
    };
    for fact in [
        Event::InputRejected { rejection, origin: Origin::default() },
        Event::AckReceived { ack: stray, origin: Origin::default() },
    ] {
        let at = runner.state.now;
        runner.take(at, fact, &mut |seq, at, event| events.push((seq, at, event.clone())));
    }
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { ballast: 0, log_id: Some(runner.state.log), ..OpenOptions::default() };
    let mut log = Log::open(folder.path(), &options).unwrap().log;
    let mut group = Group::after(log.head());
    for (_, at, event) in &events {
        group.push(event, *at).unwrap();
        if group.bytes().len() > 100_000 {
            log.append(&group).unwrap();
            group.appended();
        }
    }
    log.append(&group).unwrap();
    let mut file = std::fs::File::create(fixture(name)).unwrap();
    export(&log.reader(), log.id(), 1..=log.head().seq, &mut file).unwrap();
    log.close().unwrap();
    let told = format!("{} events\nstate {}\n", events.len(), runner.state.digest());
    std::fs::write(fixture(name).with_extension("txt"), told).unwrap();
}

#[test]
fn the_logs_of_format_1_0_replay_byte_for_byte() {
    let mut kinds = std::collections::BTreeSet::new();
    for (name, script) in HISTORIES {
        if std::env::var_os("SLUICE_WRITE_FIXTURES").is_some() && !fixture(name).exists() {
            write(name, script);
        }
        let mut verifier = Verifier::default();
        for envelope in Export::open(&fixture(name)).unwrap().scan() {
            let e = envelope.unwrap();
            kinds.insert(e.event.kind());
            verifier
                .next(e.seq, e.at, &e.event)
                .unwrap_or_else(|divergence| panic!("{name}: {divergence}\n{divergence:?}"));
        }
        verifier.settled().unwrap();
        let told = format!("{} events\nstate {}\n", verifier.counts.events, verifier.state.digest());
        assert_eq!(told, std::fs::read_to_string(fixture(name).with_extension("txt")).unwrap(), "{name}");
    }
    // A fixture that misses a kind protects nothing of it.
    let missing: Vec<&str> =
        (0..=u8::MAX).filter_map(events::name).filter(|kind| !kinds.contains(kind)).collect();
    assert!(missing.is_empty(), "the histories have no {missing:?}");
}
