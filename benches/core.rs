//! What the pure core costs: folding telemetry with its policy, reading stored batches, scoring. No disk, no network.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use sluice::core::columns::{Builder, Columns, Row};
use sluice::core::event::{Ack, AckStatus, Event, Intent, Origin};
use sluice::core::ids::{Digest, Service};
use sluice::core::policy::ChangeKind;
use sluice::core::time::{Span, Timestamp};
use sluice::replay::Verifier;
use sluice::runner::Runner;
use sluice::sim::random::Random;
use sluice::wire::envelope::{Group, Head};
use sluice::wire::policy_file;

const POLICY: &str = include_str!("policy.yaml");
const START: Timestamp = Timestamp(1_767_603_600_000);
const BATCH: u32 = 256;

fn main() {
    let batches = 40_000;
    let columns: Vec<Columns> = (0..batches).map(batch).collect();
    let samples = f64::from(BATCH) * batches as f64;
    let bytes: usize =
        columns.iter().map(|c| c.series_col.len() + c.time_col.len() + c.value_col.len()).sum();
    println!("{batches} batches of {BATCH}, {:.2} column bytes a sample", bytes as f64 / samples);

    let (_, took) = timed(|| columns.iter().flat_map(Columns::samples).map(|s| s.value).sum::<f64>());
    report("read the columns and add", samples, took);

    let mut runner = started();
    let (_, took) = timed(|| {
        for (i, columns) in columns.iter().enumerate() {
            let fact = Event::BatchReceived {
                service: Service::from("bench"),
                columns: columns.clone(),
                origin: Origin::default(),
            };
            runner.take(at(i), fact, &mut |_, _, _| {});
        }
    });
    report("fold with the whole policy", samples, took);

    let mut runner = started();
    let mut group = Group::after(Head::default());
    let mut stored = Vec::new();
    let (_, took) = timed(|| {
        for (i, columns) in columns.iter().enumerate() {
            let fact = Event::BatchReceived {
                service: Service::from("bench"),
                columns: columns.clone(),
                origin: Origin::default(),
            };
            runner.take(at(i), fact, &mut |_, at, event| assert!(group.push(event, at).is_ok()));
        }
        stored.extend_from_slice(group.bytes());
    });
    report("fold, encode and chain", samples, took);
    println!("  {:.2} stored bytes a sample", stored.len() as f64 / samples);

    let (_, took) = timed(|| {
        let (mut offset, mut head) = (0, Head::default());
        while offset < stored.len() {
            black_box(head.accept(&stored, &mut offset).expect("sound").envelope().expect("known"));
        }
    });
    report("check the chain and decode", samples, took);

    // The facts that started the rollout are not in `stored`: fold them first.
    let mut verifier = Verifier::from(started().state);
    let base = verifier.state.last;
    let (_, took) = timed(|| {
        let (mut offset, mut head) = (0, Head::default());
        while offset < stored.len() {
            let e = head.accept(&stored, &mut offset).expect("sound").envelope().expect("known");
            verifier.next(base + e.seq, e.at, &e.event).expect("the same conclusions");
        }
    });
    report("replay, every conclusion decided again", samples, took);
    assert_eq!(verifier.state.digest(), runner.state.digest());
}

/// A rollout at its first step, 5 %.
fn started() -> Runner {
    let mut runner = Runner::default();
    let policy = policy_file::parse_policy(POLICY, "policy.yaml").expect("a policy");
    let digest = Digest::of(POLICY.as_bytes());
    let intent = Intent {
        id: "i1".into(),
        service: "bench".into(),
        kind: ChangeKind::Model,
        from: Some("a".into()),
        to: "b".into(),
        policy: Some(policy.name.clone()),
        by: "bench".into(),
        reason: "bench".into(),
        content: digest,
    };
    let mut sent = BTreeMap::new();
    let mut record = |_, _, event: &Event| {
        if let Event::CommandIssued { command, .. } = event {
            sent.insert(0, command.clone());
        }
    };
    runner.take(START, Event::PolicyStored { digest, policy, source: POLICY.into() }, &mut record);
    runner.take(START, Event::IntentReceived { intent, origin: Origin::default() }, &mut record);
    let command = sent.remove(&0).expect("a command");
    let ack = Ack {
        service: "bench".into(),
        command: command.id,
        actuator: command.actuators[0].clone(),
        status: AckStatus::Applied,
        took_ms: None,
    };
    runner.take(START, Event::AckReceived { ack, origin: Origin::default() }, &mut |_, _, _| {});
    runner
}

/// Batches come every 50 us, 5 million samples a second.
fn at(i: usize) -> Timestamp {
    START.plus(Span(1 + i as u64 / 20))
}

fn batch(i: usize) -> Columns {
    let mut random = Random::new(i as u64);
    let mut builder = Builder::new(at(i));
    while builder.len() < BATCH as usize {
        let version = if random.chance(0.05) { "b" } else { "a" };
        let row = |metric, value| Row { version, metric, served_at: at(i), unit: None, tags: None, value };
        let cost = (random.log_normal(0.01, 0.8) * 1e6).round() / 1e6;
        let latency = (random.log_normal(1800.0, 0.6)).round();
        builder.push(row("eval_pass", f64::from(u8::from(random.chance(0.93)))));
        builder.push(row("error", f64::from(u8::from(random.chance(0.01)))));
        builder.push(row("cost_usd", cost));
        builder.push(row("latency_ms", latency));
    }
    builder.finish()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = black_box(work());
    (result, start.elapsed().as_secs_f64())
}

fn report(what: &str, samples: f64, seconds: f64) {
    println!(
        "{what:<42} {:>8.1} M samples/s  {:>6.1} ns each",
        samples / seconds / 1e6,
        seconds * 1e9 / samples
    );
}
