//! Inputs that are sound by themselves and wrong where they come: the history decides.

use sluice::core::event::Event;
use sluice::core::event::fact::{Delivery, Inbound, Origin};
use sluice::core::ids::{Digest, EventSeq, RolloutId, Service};
use sluice::core::rules::ENGINE;
use sluice::core::state::State;
use sluice::core::telemetry::columns::{Builder, Row};
use sluice::core::time::Timestamp;
use sluice::core::words;
use sluice::runner::{Runner, Taken};
use sluice::wire::envelope::{self, Group, Head};
use sluice::wire::{intent, policy_file};
use uuid::Uuid;

use crate::facts::policy_stored;

type Entry = (EventSeq, Timestamp, Event);

const START: Timestamp = Timestamp(1_763_473_562_000);

/// A log with the shipped policy of prompts: seq 1 to 3.
fn begun() -> (Runner, Vec<Entry>) {
    let (mut runner, mut log) = (Runner::new(State::default()), Vec::new());
    let [_, (_, text), ..] = policy_file::shipped();
    for fact in Event::begin(Uuid::from_u128(7), "test").into_iter().chain([policy_stored(text)]) {
        take(&mut runner, &mut log, 0, fact);
    }
    (runner, log)
}

fn take(runner: &mut Runner, log: &mut Vec<Entry>, after_s: u64, fact: Event) -> Taken {
    let at = Timestamp(START.0 + after_s * 1_000);
    runner.take(at, fact, &mut |seq, at, event| log.push((seq, at, event.clone())))
}

fn prompt(id: &str, to: &str, delivery: u64) -> Event {
    let body = format!(
        r#"{{"id":"{id}","service":"chat","change":{{"kind":"prompt","from":"p@1","to":"{to}"}},"by":"maya","reason":"r"}}"#
    );
    let intent = intent::parse_intent(body.as_bytes(), None, None, None, START).unwrap();
    Event::IntentReceived { intent, origin: delivered(Inbound::Intents, delivery) }
}

fn delivered(stream: Inbound, seq: u64) -> Origin {
    Origin { delivery: Some(Delivery { stream, seq, published: None }), ..Origin::default() }
}

fn samples(version: &str, message_id: Option<&str>, delivery: u64) -> Event {
    let mut builder = Builder::new(START);
    for _ in 0..40 {
        let row = Row { version, metric: "eval_pass", served_at: START, unit: None, tags: None, value: 1.0 };
        builder.push(row);
    }
    let mut origin = delivered(Inbound::Telemetry, delivery);
    origin.message_id = message_id.map(str::to_owned);
    Event::BatchReceived { service: Service::from("chat"), columns: builder.finish(), origin }
}

/// `code message` of the last refusal.
fn refusal(log: &[Entry]) -> String {
    match log.last() {
        Some((_, _, Event::IntentRefused { refusal, .. })) => {
            format!("{} {}", refusal.code(), words::refusal::text(refusal))
        }
        other => panic!("no refusal but {other:?}"),
    }
}

/// A week later, under another delivery: neither the broker nor the stream's position knows it any more.
#[test]
fn the_same_intent_again_has_no_effect() {
    let (mut runner, mut log) = begun();
    take(&mut runner, &mut log, 1, prompt("i-1", "p@2", 1));
    let rollouts = runner.state.rollouts.len();
    take(&mut runner, &mut log, 7 * 86_400, prompt("i-1", "p@2", 2));
    assert_eq!(refusal(&log), "E1014 intent i-1 was already received at seq 4; no effect");
    assert_eq!((rollouts, runner.state.rollouts.len()), (1, 1));
}

#[test]
fn an_id_used_for_other_content_is_refused() {
    let (mut runner, mut log) = begun();
    take(&mut runner, &mut log, 1, prompt("i-1", "p@2", 1));
    take(&mut runner, &mut log, 2, prompt("i-1", "p@3", 2));
    let told = "E1015 intent i-1 was received at seq 4 with different content (hash 8d017d, now 3e1aa4); use a new id";
    assert_eq!(refusal(&log), told);
    assert_eq!(runner.state.rollouts.len(), 1);
}

#[test]
fn a_version_in_neither_arm_counts_for_nothing() {
    let (mut runner, mut log) = begun();
    take(&mut runner, &mut log, 1, prompt("i-1", "p@2", 1));
    let observed = |runner: &Runner| {
        let rollout = &runner.state.rollouts[&RolloutId::from("chat-1")];
        rollout.monitors.iter().map(|monitor| (monitor.canary_seen, monitor.late)).collect::<Vec<_>>()
    };
    let before = observed(&runner);
    let taken = take(&mut runner, &mut log, 2, samples("p@0", None, 1));
    assert!(matches!(taken, Taken::Recorded { .. }), "it is kept for the record: {taken:?}");
    assert_eq!(observed(&runner), before);
}

/// Twice by the broker, and once more by a sender who had no answer.
#[test]
fn a_message_delivered_three_times_counts_once() {
    let (mut runner, mut log) = begun();
    assert_eq!(
        take(&mut runner, &mut log, 1, samples("p@1", Some("s-1"), 1)),
        Taken::Recorded { seq: 4, answer: None }
    );
    assert_eq!(take(&mut runner, &mut log, 2, samples("p@1", Some("s-1"), 1)), Taken::Duplicate);
    assert_eq!(take(&mut runner, &mut log, 3, samples("p@1", Some("s-1"), 2)), Taken::Duplicate);
    let known = &runner.state.services[&Service::from("chat")];
    assert_eq!(known.series.values().map(|seen| seen.n).sum::<u64>(), 40);
    assert_eq!(log.len(), 4);
}

#[test]
fn an_edited_policy_changes_no_running_rollout() {
    let (mut runner, mut log) = begun();
    take(&mut runner, &mut log, 1, prompt("i-1", "p@2", 1));
    let id = RolloutId::from("chat-1");
    let old = runner.state.rollouts[&id].spec.policy;
    let [_, (_, text), ..] = policy_file::shipped();
    let edited = format!("{text}# another digest\n");
    take(&mut runner, &mut log, 2, policy_stored(&edited));
    assert_eq!(runner.state.rollouts[&id].spec.policy, old);
    assert_eq!(
        runner.state.default_policy(sluice::core::policy::ChangeKind::Prompt, false).unwrap().1,
        Digest::of(edited.as_bytes())
    );
    assert!(runner.state.policies.contains_key(&old), "it is there as long as the log");
}

#[test]
fn what_another_engine_decided_is_not_read() {
    let (mut runner, mut log) = begun();
    take(&mut runner, &mut log, 1, prompt("i-1", "p@2", 1));
    let (seq, at, event) = log.iter_mut().find(|(_, _, event)| event.kind() == "decision.made").unwrap();
    let Event::DecisionMade { decision, .. } = event else { unreachable!() };
    decision.engine = 9;
    let mut group = Group::after(Head { seq: *seq - 1, ..Head::default() });
    group.push(event, *at).unwrap();
    let told = envelope::decode(group.bytes(), &mut 0).unwrap_err().to_string();
    let has = format!("this build has engine {ENGINE}");
    assert_eq!(told, format!("seq 6 was decided by engine 9, and {has}; use a sluice that has engine 9"));
}
