//! Whole rollouts, each with the whole trace it must leave. `SLUICE_WRITE_TRACES=1` rewrites the traces, and the
//! digests of the states they end in; `SLUICE_SCENARIO=silent,smoke` takes only those with one of these in their names.
//!
//! The digests stand apart, in `scenarios/digests`: a stored field more changes them all, and none of the traces.
//!
//! Beside the trace, every scenario is replayed from its stored bytes, folded again from a snapshot in its middle, and
//! checked against the invariants.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sluice::core::event::Event;
use sluice::core::state::State;
use sluice::core::words::line;
use sluice::invariants::Checker;
use sluice::replay::Verifier;
use sluice::sim::script::{self, Entry};
use sluice::wire::{envelope, policy_file};

/// Events that every second or minute brings; the last line of a trace counts them, and the digest pins them.
fn is_routine(event: &Event) -> bool {
    matches!(
        event,
        Event::BatchReceived { .. }
            | Event::CohortScored { .. }
            | Event::TimePassed
            | Event::EngineAdopted { .. }
    )
}

fn trace(events: &[Entry]) -> String {
    let told = events.iter().filter(|(_, _, event)| !is_routine(event));
    let mut text = String::new();
    for (_, at, event) in told {
        let line = line::line(0, *at, events[0].1, event);
        text.push_str(line.trim_start().trim_start_matches("0 "));
        text.push('\n');
    }
    let decided = events.iter().filter(|(_, _, e)| matches!(e, Event::DecisionMade { .. })).count();
    text.push_str(&format!("{} events, {decided} decisions\n", events.len()));
    text
}

/// The stored form of the history decides the same again, and a snapshot in its middle changes nothing.
fn check_replay(name: &str, events: &[Entry], state: &State) {
    let (mut stored, mut head) = (Vec::new(), envelope::Head::default());
    let mut group = envelope::Group::after(head);
    for (_, at, event) in events {
        group.push(event, *at).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    stored.extend_from_slice(group.bytes());
    let (mut verifier, mut invariants) = (Verifier::default(), Checker::default());
    let (mut offset, mut snapshot) = (0, None);
    while offset < stored.len() {
        let record = head.accept(&stored, &mut offset).unwrap_or_else(|e| panic!("{name}: {e}"));
        let e = record.envelope().unwrap_or_else(|e| panic!("{name}: {e}"));
        verifier.next(e.seq, e.at, &e.event).unwrap_or_else(|d| panic!("{name}: {d}\n{d:?}"));
        invariants.next(e.seq, e.at, &e.event).unwrap_or_else(|v| panic!("{name}: {v}"));
        if let Some(state) = &mut snapshot {
            State::apply(state, e.seq, e.at, &e.event);
        } else if e.seq == events.len() as u64 / 2 {
            let bytes = rmp_serde::to_vec_named(&verifier.state).expect("storable");
            snapshot = Some(rmp_serde::from_slice::<State>(&bytes).expect("readable"));
        }
    }
    verifier.settled().unwrap_or_else(|d| panic!("{name}: {d}"));
    invariants.settled().unwrap_or_else(|v| panic!("{name}: {v}"));
    assert_eq!(verifier.state.digest(), state.digest(), "{name}: replayed state");
    assert_eq!(snapshot.expect("half way").digest(), state.digest(), "{name}: state after a snapshot");
}

#[test]
fn every_scenario_leaves_its_trace() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("tests/scenarios")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "scn"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    let recorded = std::fs::read_to_string(folder.join("digests")).expect("tests/scenarios/digests");
    let recorded: BTreeMap<&str, &str> = recorded.lines().filter_map(|line| line.split_once(' ')).collect();
    let (mut digests, mut wrong) = (BTreeMap::new(), Vec::new());
    for path in names {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if std::env::var("SLUICE_SCENARIO").is_ok_and(|part| !part.split(',').any(|part| name.contains(part)))
        {
            digests.extend(recorded.get(name.as_str()).map(|digest| (name, (*digest).to_owned())));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        let [policy_text, commands, expected] =
            script::parts(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let head = text.lines().next().expect("a title");
        let policy = policy_file::parse_policy(policy_text, &name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (runner, events) =
            script::run(policy, policy_text, commands, 7).unwrap_or_else(|e| panic!("{name}: {e}"));
        check_replay(&name, &events, &runner.state);
        let (replayed, digest) = (trace(&events), runner.state.digest().short());
        if std::env::var_os("SLUICE_WRITE_TRACES").is_some() {
            let text = format!("{head}\n== policy\n{policy_text}== script\n{commands}== trace\n{replayed}");
            std::fs::write(&path, text).expect("writable");
        } else if replayed != expected {
            let line = expected.lines().zip(replayed.lines()).find(|(a, b)| a != b);
            wrong.push(match line {
                Some((a, b)) => format!("{name}:\n  RECORDED {a}\n  REPLAYED {b}"),
                None => format!(
                    "{name}: {} lines recorded, {} replayed",
                    expected.lines().count(),
                    replayed.lines().count()
                ),
            });
        } else if recorded.get(name.as_str()) != Some(&digest.as_str()) {
            wrong.push(format!("{name}: state {digest}, recorded {:?}", recorded.get(name.as_str())));
        }
        digests.insert(name, digest);
    }
    if std::env::var_os("SLUICE_WRITE_TRACES").is_some() {
        let lines: String = digests.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
        std::fs::write(folder.join("digests"), lines).expect("writable");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
