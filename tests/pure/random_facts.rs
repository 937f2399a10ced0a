//! Facts in any order and with any content, most of which no daemon would ever see: after every event the promises hold,
//! and the same facts decide the same again.
//!
//! The simulator draws histories that could be; here nothing has to make sense.

use proptest::prelude::*;
use sluice::core::event::fact::*;
use sluice::core::event::smoke::{SmokeOutcome, SmokeResult};
use sluice::core::event::verb::Verb;
use sluice::core::event::*;
use sluice::core::ids::{CommandId, Digest, RolloutId, Scope, Service, SmokeId};
use sluice::core::policy::{ChangeKind, Policy};
use sluice::core::telemetry::columns::{Builder, Row};
use sluice::core::time::{Span, Timestamp};
use sluice::invariants::Checker;
use sluice::replay::Verifier;
use sluice::runner::Runner;
use sluice::sim::script::START;
use sluice::wire::policy_file;

const SERVICES: [&str; 2] = ["bot", "search"];
const VERSIONS: [&str; 4] = ["a", "b", "c", "d"];
const PEOPLE: [&str; 3] = ["maya", "li", "zoe"];
const ACTUATORS: [&str; 3] = ["router-eu", "router-us", "nobody"];
const METRICS: [&str; 3] = ["eval_pass", "error", "cost_usd"];

/// Everything at once, with short times, so that much of it comes due.
const POLICIES: [&str; 2] = [
    "apiVersion: sluice.dev/v1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  applies_to: [model]
  exposure:
    percent: [{to: 20%, bake: 20s, deadline: 20m}, {to: 60%, bake: 20s}, {to: 100%}]
    apply_within: 5m
    soak: 2m
  on_deadline: rollback
  guardrails:
    - {metric: eval_pass, kind: proportion, better: higher, limit: 20pp, on_fail: rollback}
    - {metric: error, kind: absolute, above: 30%, of_last: 20, on_fail: rollback}
    - {metric: cost_usd, kind: mean, better: lower, limit: 20%, on_fail: hold}
  conditions: [{name: dear, when: 'cost_usd.diff > 10', on: hold}]
  evidence: {reference_min: 20, cohort: 10s, promote: 2, promote_last: 2}
  approvals: [{before: 60%, by: 1, not_submitter: true}]
  actuators: [{name: router-eu, ack_within: 1m, on_silent: rollback}, router-us]
  effective: {within: 3m}
  smoke: [{name: golden, request: tests.golden, timeout: 1m}]
  stale_after: 3m
  keep_old: 10m
  concurrency: supersede
",
    "apiVersion: sluice.dev/v1
kind: RolloutPolicy
metadata: {name: regions}
spec:
  exposure:
    regions:
      - {name: eu, steps: [{to: 50%, bake: 20s, deadline: 20m}]}
      - {name: everywhere, steps: [{to: 50%, bake: 20s, deadline: 20m}, {to: 100%}]}
    on_region_failure: alone
    soak: 1m
  guardrails:
    - {metric: eval_pass, kind: proportion, better: higher, limit: 20pp, on_fail: rollback}
    - {metric: error, kind: absolute, above: 30%, of_last: 20, on_fail: rollback}
  evidence: {reference_min: 20, cohort: 10s, promote: 2, promote_last: 2}
  actuators: [router-eu]
  scopes: [gateway]
  retry_after_rollback: needs_finding
",
];

/// A fact as numbers; what they stand for depends on how things are when it is its turn.
#[derive(Clone, Debug)]
struct Drawn {
    kind: u8,
    wait_ms: u64,
    a: usize,
    b: usize,
    c: usize,
    odd: bool,
    some: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    // Acts, acks and telemetry more often than the rest; short waits more often than long ones.
    let kind =
        prop_oneof![3 => Just(0u8), 9 => Just(1), 9 => Just(2), 2 => Just(3), 3 => Just(6), 1 => 4u8..9];
    let wait = prop_oneof![6 => 0u64..5_000, 4 => 0u64..90_000, 1 => 0u64..1_800_000];
    (kind, wait, 0usize..64, 0usize..64, 0usize..64, any::<bool>(), any::<bool>())
        .prop_map(|(kind, wait_ms, a, b, c, odd, some)| Drawn { kind, wait_ms, a, b, c, odd, some })
}

fn pick<T: Copy>(of: &[T], i: usize) -> T {
    of[i % of.len()]
}

fn rollout(runner: &Runner, i: usize) -> RolloutId {
    let state = &runner.state;
    let known: Vec<&RolloutId> = state.rollouts.keys().chain(state.ended.iter().map(|e| &e.id)).collect();
    known.get(i % (known.len() + 1)).map_or_else(|| RolloutId::from("bot-99"), |id| (*id).clone())
}

fn batch(d: &Drawn, now: Timestamp) -> Event {
    let mut builder = Builder::new(now);
    // Mostly as it would be; now and then the canary breaks, or everything is from somewhere else.
    for i in 0..60 + d.a {
        let version = pick(&VERSIONS, if d.odd { i } else { i % 2 });
        let broken = d.some && d.c < 8 && version != "a";
        let value = |metric: &str| match metric {
            "eval_pass" => f64::from(u8::from(!broken && !i.is_multiple_of(10))),
            "error" => f64::from(u8::from(broken && i.is_multiple_of(2))),
            _ => 0.01 + (i % 7) as f64 * 0.001,
        };
        for metric in METRICS {
            let tags = (d.b.is_multiple_of(2)).then_some(if i.is_multiple_of(3) {
                "region=eu"
            } else {
                "region=us"
            });
            let served_at = Timestamp(now.0 + (i as u64 * 50) - 2_000 * u64::from(d.odd));
            builder.push(Row { version, metric, served_at, unit: None, tags, value: value(metric) });
        }
    }
    let origin = Origin { message_id: d.some.then(|| format!("m{}", d.c)), ..Origin::default() };
    Event::BatchReceived { service: pick(&SERVICES, d.c / 8).into(), columns: builder.finish(), origin }
}

fn intent(d: &Drawn) -> Event {
    let intent = Intent {
        id: format!("i{}", d.a).as_str().into(),
        service: pick(&SERVICES, d.b).into(),
        kind: pick(&[ChangeKind::Model, ChangeKind::Cache], usize::from(d.c.is_multiple_of(9))),
        from: (!d.a.is_multiple_of(8)).then(|| pick(&VERSIONS, if d.some { 0 } else { d.c / 4 }).into()),
        to: pick(&VERSIONS, d.c).into(),
        policy: pick(&[None, Some("quick"), Some("regions"), Some("unknown")], d.b / 2).map(str::to_owned),
        by: pick(&PEOPLE, d.a).into(),
        reason: "drawn".into(),
        finding: d.odd.then(|| "found".into()),
        scopes: if d.a.is_multiple_of(5) { vec![Scope("gateway".into())] } else { Vec::new() },
        significant: d.odd,
        composition: Default::default(),
        from_composition: Default::default(),
        content: Digest::of(&[d.c as u8]),
    };
    Event::IntentReceived { intent, origin: Origin::default() }
}

fn ack(runner: &Runner, d: &Drawn) -> Event {
    let service = Service::from(pick(&SERVICES, d.b));
    let open = runner.state.rollouts.values().filter_map(|r| r.sent.as_ref());
    let open: Vec<_> = open.filter(|sent| sent.command.service == service).collect();
    let command = open.first().filter(|_| !d.c.is_multiple_of(8));
    let status = match d.c % 16 {
        1 => AckStatus::Rejected("no".into()),
        2 => AckStatus::Progress,
        _ => AckStatus::Applied,
    };
    let ack = Ack {
        service,
        command: command.map_or_else(CommandId::default, |sent| sent.command.id),
        // Mostly somebody who is waited for.
        actuator: match command.filter(|_| !d.a.is_multiple_of(8)).and_then(|sent| sent.waiting.first()) {
            Some(waiting) => waiting.clone(),
            None => pick(&ACTUATORS, d.a).into(),
        },
        status,
        took_ms: None,
        done: (d.b.is_multiple_of(9)).then_some((d.a as u64, 40)),
    };
    Event::AckReceived { ack, origin: Origin::default() }
}

fn act(runner: &Runner, d: &Drawn) -> Event {
    let act = Act {
        rollout: rollout(runner, d.a),
        // What ends a rollout less often than what moves it.
        verb: match d.b % 4 {
            0 => pick(&Verb::ALL, d.b / 4),
            1 => Verb::Approve,
            _ => pick(&[Verb::Promote, Verb::Skip, Verb::Note], d.b / 4),
        },
        actor: pick(&PEOPLE, d.c).into(),
        host: "laptop".into(),
        args: Vec::new(),
        reason: "drawn".into(),
        if_seq: (d.c.is_multiple_of(3)).then(|| runner.state.last.saturating_sub(d.a as u64)),
        force: d.odd,
    };
    Event::OperatorActed { act, origin: Origin::default() }
}

fn smoke(runner: &Runner, d: &Drawn) -> Event {
    let id = rollout(runner, d.a);
    let asked = runner.state.rollouts.get(&id).and_then(|rollout| rollout.smoke.first());
    let outcomes =
        [SmokeOutcome::Passed, SmokeOutcome::Failed, SmokeOutcome::TimedOut, SmokeOutcome::CouldNotRun];
    let result = SmokeResult {
        id: asked.map_or_else(SmokeId::default, |test| test.id),
        rollout: id,
        name: "golden".into(),
        outcome: pick(&outcomes, if d.some { 0 } else { d.b / 16 }),
        detail: String::new(),
        took_ms: 5,
    };
    Event::SmokeFinished { result }
}

fn fact(runner: &Runner, d: &Drawn, now: Timestamp) -> Event {
    match d.kind {
        0 => act(runner, d),
        1 => batch(d, now),
        2 => ack(runner, d),
        3 => intent(d),
        4 => Event::DaemonStarted { build: "drawn".into() },
        5 => Event::ClockStepped { by: Span(d.wait_ms) },
        6 | 7 => smoke(runner, d),
        _ => {
            let order = FreezeOrder {
                freeze: d.odd,
                service: d.some.then(|| pick(&SERVICES, d.a).into()),
                until: (d.b.is_multiple_of(2)).then(|| now.plus(Span(d.wait_ms))),
                actor: pick(&PEOPLE, d.c).into(),
                host: "laptop".into(),
                args: Vec::new(),
                reason: "drawn".into(),
            };
            Event::FreezeOrdered { order, origin: Origin::default() }
        }
    }
}

fn policies() -> Vec<(Digest, Policy, String)> {
    let read = |text: &&str| {
        let policy = policy_file::parse_policy(text, "policy.yaml").unwrap_or_else(|error| panic!("{error}"));
        (Digest::of(text.as_bytes()), policy, (*text).to_owned())
    };
    POLICIES.iter().map(read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds_after_every_event(facts in proptest::collection::vec(drawn(), 50..400)) {
        let (mut runner, mut now) = (Runner::default(), START);
        let (mut checker, mut verifier) = (Checker::default(), Verifier::default());
        let mut wrong = None;
        let mut record = |seq, at, event: &Event| {
            let broken = checker.next(seq, at, event).err().map(|violation| violation.to_string());
            let parted = verifier.next(seq, at, event).err().map(|divergence| divergence.to_string());
            wrong = wrong.take().or(broken).or(parted);
        };
        let log = uuid::Uuid::from_u128(7);
        for fact in Event::begin(log, "drawn") {
            runner.take(now, fact, &mut record);
        }
        for (digest, policy, source) in policies() {
            runner.take(now, Event::PolicyStored { digest, policy, source }, &mut record);
        }
        for drawn in &facts {
            now = now.plus(Span(drawn.wait_ms));
            runner.tick(now, &mut record);
            let fact = fact(&runner, drawn, now);
            runner.take(now, fact, &mut record);
        }
        prop_assert_eq!(wrong, None);
        checker.settled().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
        verifier.settled().map_err(|divergence| TestCaseError::fail(divergence.to_string()))?;
        prop_assert_eq!(verifier.state.digest(), runner.state.digest());
    }
}
