//! What the pure core costs: folding telemetry with its policy, reading stored batches, scoring. No disk, no network.
//!
//! Fails when scoring misses its bar: time for each observation, and the state that a guardrail keeps of them.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use sluice::core::event::Event;
use sluice::core::event::fact::{Ack, AckStatus, Intent, Origin};
use sluice::core::evidence::bets::Wealth;
use sluice::core::evidence::block::BLOCK;
use sluice::core::evidence::reference::{BaselineSample, GATHERED_MAX, Reference};
use sluice::core::evidence::score::Evidence;
use sluice::core::ids::{Digest, Service};
use sluice::core::policy::ChangeKind;
use sluice::core::policy::guardrail::{Better, Guardrail, Margin, Mean, Proportion, Quantile, Rule, Score};
use sluice::core::telemetry::arm::Portion;
use sluice::core::telemetry::columns::{Builder, Columns, Row};
use sluice::core::time::{Span, Timestamp};
use sluice::replay::Verifier;
use sluice::runner::Runner;
use sluice::sim::random::Random;
use sluice::wire::envelope::{Group, Head};
use sluice::wire::policy_file;

const POLICY: &str = include_str!("policy.yaml");
const START: Timestamp = Timestamp(1_767_603_600_000);
const BATCH: u32 = 256;

fn main() -> ExitCode {
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

    if betting() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Bytes that one guardrail, or one of its slices, keeps of all observations that were bet on.
const STATE_MAX: usize = 512;

/// Four million observations are taken in so many parts, each with epochs of its own, and the fastest tells: the others
/// were disturbed.
const PARTS: usize = 100;

/// A kind of guardrail: its name, rule, the benefit that is asked for, and nanoseconds an observation may take.
type Kind = (&'static str, Rule, Option<f64>, f64);

/// What one observation costs where it is bet on, and what is kept of it: six bets, harm and safety, blocks of 32.
/// Whether all bars were met.
fn betting() -> bool {
    let kinds: [Kind; 6] = [
        ("binary", Rule::Proportion(Proportion { margin: Margin::Points(0.03) }), None, 50.0),
        ("quantile", Rule::Quantile(Quantile { q: 0.95, handicap: 0.1 }), None, 50.0),
        ("graded", Rule::Score(Score { margin: Margin::Points(0.03) }), None, 250.0),
        ("cost", Rule::Mean(Mean { handicap: 0.2 }), None, 250.0),
        ("binary, benefit", Rule::Proportion(Proportion { margin: Margin::Points(0.03) }), Some(0.02), 50.0),
        ("graded, benefit", Rule::Score(Score { margin: Margin::Points(0.03) }), Some(0.02), 250.0),
    ];
    println!(
        "\none observation bet on: six bets, harm and safety, blocks of {BLOCK}; the fastest of {PARTS} parts"
    );
    let (mut met, mut kept) = (true, Vec::new());
    for (name, rule, benefit, bar) in kinds {
        let (each, evidence, reference) = bet(rule, benefit);
        // The bar is for two accounts; a third costs half as much again.
        let counts = benefit.is_none();
        met &= each <= bar || !counts;
        let verdict = if counts { word(each <= bar) } else { "a third account: shown" };
        println!("  {name:<16} {each:>6.1} ns   bar {bar} ns   {verdict}");
        kept.push((name, evidence, reference));
    }
    println!(
        "state of one guardrail, and of each of its slices, in the middle of a block. What counts for the bar is what\n  \
         remains of all observations that were bet on: counts, sums, and the words of both accounts. Shown beside it, and\n  \
         not counted: a third account (a benefit), the values of the block that is open, and the reference."
    );
    for (name, evidence, reference) in kept {
        let words = |w: &Wealth| w.log_wealth.len() * 8;
        let accounts = words(&evidence.harm) + words(&evidence.safe);
        let bytes = size_of::<Evidence>() + accounts;
        met &= bytes <= STATE_MAX;
        let verdict = word(bytes <= STATE_MAX);
        println!(
            "  {name:<16} {bytes:>5} bytes, {accounts} of them words   bar {STATE_MAX} bytes   {verdict}"
        );
        let beside = |what: &str, more: usize, note: &str| {
            let all = bytes + more;
            let over = match all.checked_sub(STATE_MAX) {
                Some(over @ 1..) => format!(", {over} over {STATE_MAX}"),
                _ => String::new(),
            };
            println!("  {:<16} {more:>+5} bytes, {what}: {all} with it{over}{note}", "");
        };
        if let Some(other) = &evidence.secondary {
            beside("a third account", words(other), "");
        }
        let open = &evidence.open;
        let values = (open.xs_a.capacity() + open.xs_b.capacity()) * 8;
        if values > 0 {
            let note =
                "; with one arm silent, at most 1,024 values (8,192 bytes) from one cohort to the next";
            beside(&format!("{} values of the open block", open.values()), values, note);
        }
        let grids = [&reference.harm_grid, &reference.safe_grid, &reference.secondary_grid];
        let held = size_of::<Reference>() + grids.into_iter().map(|grid| grid.capacity() * 8).sum::<usize>();
        beside("the reference", held, "");
    }
    println!(
        "  Beside these, and bounded by themselves: what waits for its cohort to settle, and the baseline that is gathered\n  \
         for the next reference ({} bytes; with values, which quantiles always keep and means and scores until their\n  \
         first reference, {GATHERED_MAX} of them, {} bytes).",
        size_of::<BaselineSample>(),
        GATHERED_MAX * 8
    );
    met
}

fn word(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Nanoseconds for an observation, and what is left after four million of them and most of another block.
fn bet(rule: Rule, benefit: Option<f64>) -> (f64, Evidence, Reference) {
    let higher = matches!(rule, Rule::Proportion { .. } | Rule::Score { .. });
    let guardrail = Guardrail {
        benefit,
        ..Guardrail::new("bench", if higher { Better::Higher } else { Better::Lower }, rule)
    };
    let mut random = Random::new(1);
    let mut draw = |higher: bool| if higher { random.unit() } else { random.log_normal(1.0, 0.6) };
    let values: Vec<f64> = (0..4_000).map(|_| draw(higher)).collect();
    let ones = |values: &[f64]| values.iter().filter(|x| **x < 0.9).count() as f64;
    let (sum, sumsq) = (values.iter().sum(), values.iter().map(|x| x * x).sum());
    let binary = matches!(guardrail.rule, Rule::Proportion { .. });
    let gathered = BaselineSample {
        n: values.len() as u64,
        sum: if binary { ones(&values) } else { sum },
        sumsq,
        values: values.clone(),
        ..BaselineSample::default()
    };
    let reference = Reference::first(&guardrail, &gathered).expect("a sound baseline");
    let portion = |canary: bool, x: f64| {
        let (b, f) = (u64::from(canary), u64::from(x < 0.9));
        match binary {
            true => Portion::Counts { n_a: 1 - b, f_a: f * (1 - b), n_b: b, f_b: f * b },
            false => Portion::Value { canary, x },
        }
    };
    let of_stream = |i: u32| portion(i.is_multiple_of(20), values[i as usize % values.len()]);
    let portions: Vec<Portion> = (0..4_000_000).map(of_stream).collect();
    let mut evidence = Evidence::default();
    evidence.start(&reference, 0);
    let mut each = f64::INFINITY;
    for part in portions.chunks(portions.len() / PARTS) {
        let (_, took) =
            timed(|| part.iter().for_each(|portion| evidence.add(&guardrail, &reference, START, portion)));
        each = each.min(took * 1e9 / part.len() as f64);
    }
    // One observation short of closing the next block.
    let mut left = values.iter().cycle();
    while evidence.open.n_a + evidence.open.n_b != BLOCK - 1 {
        let x = *left.next().expect("endless");
        evidence.add(&guardrail, &reference, START, &portion(evidence.open.n_b < 2, x));
    }
    // A rollout keeps a copy, which has no room to spare.
    (each, evidence.clone(), reference)
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
        finding: None,
        scopes: Vec::new(),
        significant: false,
        composition: Default::default(),
        from_composition: Default::default(),
        content: digest,
    };
    let mut sent = BTreeMap::new();
    let mut record = |_, _, event: &Event| {
        if let Event::CommandIssued { command, .. } = event {
            sent.insert(0, command.clone());
        }
    };
    for fact in Event::begin(uuid::Uuid::from_u128(7), "bench") {
        runner.take(START, fact, &mut record);
    }
    runner.take(START, Event::PolicyStored { digest, policy, source: POLICY.into() }, &mut record);
    runner.take(START, Event::IntentReceived { intent, origin: Origin::default() }, &mut record);
    let command = sent.remove(&0).expect("a command");
    let ack = Ack {
        service: "bench".into(),
        command: command.id,
        actuator: command.actuators[0].clone(),
        status: AckStatus::Applied,
        took_ms: None,
        done: None,
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
