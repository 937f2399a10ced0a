//! A guardrail told apart in slices: shown, they decide nothing; judged, one that fails holds.

use proptest::prelude::*;
use sluice::core::event::Event;
use sluice::core::event::fact::{Ack, AckStatus, Origin};
use sluice::core::evidence::bets::discoveries;
use sluice::core::ids::Service;
use sluice::core::telemetry::columns::{Builder, Row};
use sluice::core::time::{Span, Timestamp};
use sluice::runner::Runner;
use sluice::sim::random::Random;
use sluice::view::rollout::{RolloutView, Standing};
use sluice::view::view;
use sluice::wire::intent;
use sluice::wire::reading::GuardrailView;

use crate::facts::policy_stored;

const POLICY: &str = "\
apiVersion: sluice.dev/v1
kind: RolloutPolicy
metadata: {name: p}
spec:
  exposure:
    percent:
      - {to: 50%, bake: 8h}
      - {to: 100%}
  guardrails:
    - {metric: eval_pass, kind: proportion, better: higher, limit: 10pp, on_fail: rollback, slices: suite}
";
const START: Timestamp = Timestamp(1_767_603_600_000);

/// The guardrail after two hours in which the canary passes with the chance given per suite.
fn watched(suites: &[(&str, f64)]) -> GuardrailView {
    followed(POLICY, suites).guardrails[0].clone()
}

/// Likewise, the whole rollout under `policy`.
fn followed(text: &str, suites: &[(&str, f64)]) -> RolloutView {
    let mut runner = Runner::default();
    let intent = br#"{"service":"chat","change":{"kind":"model","from":"a","to":"b"},"policy":"p","by":"maya","reason":"r"}"#;
    let intent = intent::parse_intent(intent, None, None, None, START).expect("an intent");
    let mut command = None;
    let mut record = |_, _, event: &Event| {
        if let Event::CommandIssued { command: issued, .. } = event {
            command.get_or_insert(issued.clone());
        }
    };
    for fact in Event::begin(uuid::Uuid::from_u128(7), "test") {
        runner.take(START, fact, &mut record);
    }
    runner.take(START, policy_stored(text), &mut record);
    runner.take(START, Event::IntentReceived { intent, origin: Origin::default() }, &mut record);
    let command = command.expect("a command");
    let actuator = command.actuators[0].clone();
    let (id, service) = (command.id, Service::from("chat"));
    let ack = Ack {
        service: service.clone(),
        command: id,
        actuator,
        status: AckStatus::Applied,
        took_ms: None,
        done: None,
    };
    runner.take(START, Event::AckReceived { ack, origin: Origin::default() }, &mut |_, _, _| {});
    let mut random = Random::new(3);
    for minute in 0..120 {
        let at = START.plus(Span::mins(minute));
        let mut builder = Builder::new(at);
        for (suite, chance) in suites {
            let tags = format!("region=eu,suite={suite}");
            for i in 0..20 {
                let (version, chance) = if i % 2 == 0 { ("a", 0.9) } else { ("b", *chance) };
                let value = f64::from(u8::from(random.chance(chance)));
                let (unit, tags) = (None, Some(tags.as_str()));
                builder.push(Row { version, metric: "eval_pass", served_at: at, unit, tags, value });
            }
        }
        let (service, columns) = (service.clone(), builder.finish());
        let batch = Event::BatchReceived { service, columns, origin: Origin::default() };
        runner.take(at, batch, &mut |_, _, _| {});
        runner.tick(at.plus(Span::secs(59)), &mut |_, _, _| {});
    }
    let shown = view(&runner.state, runner.state.now);
    shown.rollouts[0].as_ref().clone()
}

#[test]
fn harm_in_one_suite_is_marked_there_and_stops_nothing() {
    let shown = watched(&[("swe", 0.9), ("gaia", 0.6), ("swt", 0.9), ("misc", 0.9), ("more", 0.9)]);
    let parts: Vec<(&str, bool)> = shown.slices.iter().map(|s| (s.slice.as_str(), s.marked)).collect();
    assert_eq!(parts[0], ("gaia", true), "{parts:?}");
    assert!(parts.len() == 5 && parts[1..].iter().all(|(_, marked)| !marked), "{parts:?}");
    let gaia = &shown.slices[0];
    assert!(gaia.lo.unwrap() < -30.0 && gaia.hi.unwrap() > -30.0, "{gaia:?}");
    // 6 points on the whole, where 10 are allowed.
    assert_ne!(shown.verdict.as_str(), "fail");
}

#[test]
fn more_values_than_are_followed_count_in_the_whole() {
    let suites: Vec<String> = (0..20).map(|i| format!("s{i}")).collect();
    let suites: Vec<(&str, f64)> = suites.iter().map(|name| (name.as_str(), 0.9)).collect();
    let shown = watched(&suites);
    assert_eq!(shown.slices.len(), 16);
    let parts: u64 = shown.slices.iter().map(|s| s.canary.n).sum();
    assert!(shown.canary.n > parts, "{} in all, {parts} in slices", shown.canary.n);
}

#[test]
fn only_the_suites_that_are_named_are_judged_and_one_that_fails_holds() {
    let judged =
        POLICY.replace("slices: suite", "slices: {tag: suite, values: [swe, gaia, swt], on_fail: hold}");
    let suites = [("swe", 0.9), ("gaia", 0.6), ("swt", 0.9), ("misc", 0.6), ("more", 1.0), ("most", 1.0)];
    let rollout = followed(&judged, &suites);
    let parts: Vec<(&str, bool)> =
        rollout.guardrails[0].slices.iter().map(|s| (s.slice.as_str(), s.marked)).collect();
    assert_eq!(parts[0], ("gaia", true), "{parts:?}");
    assert_eq!(parts.len(), 3, "{parts:?}");
    assert!(parts[1..].iter().all(|(_, marked)| !marked), "{parts:?}");
    assert!(rollout.state == Standing::Holding, "{rollout:?}");
    assert!(
        rollout.alerts.iter().any(|text| text.starts_with("eval_pass[suite=gaia] fails: ")),
        "{rollout:?}"
    );

    let alerts = followed(&judged.replace("on_fail: hold}", "on_fail: alert}"), &suites);
    assert!(alerts.state == Standing::Baking && alerts.alerts.len() == 1, "{alerts:?}");
}

proptest! {
    /// What keeps the promise for a family that is looked at all the time: whoever is found, their average is beyond
    /// the level, and the average of e-processes is an e-process.
    #[test]
    fn a_find_needs_an_average_at_the_level(lns in proptest::collection::vec(-5.0f64..9.0, 1..40)) {
        let average = lns.iter().map(|ln| ln.exp()).sum::<f64>() / lns.len() as f64;
        if discoveries(&lns, 20.0).contains(&true) {
            prop_assert!(average >= 20.0 * (1.0 - 1e-12), "{} of {:?}", average, lns);
        }
    }
}

/// The rule as it is written (Wang and Ramdas 2022): the k largest, where the k-th times k is at least m times the level.
#[test]
fn discoveries_are_the_largest_that_are_large_enough_together() {
    let ln = |e: &[f64]| e.iter().map(|e| e.ln()).collect::<Vec<_>>();
    assert_eq!(discoveries(&ln(&[100.0, 1.0, 0.2, 30.0]), 20.0), [true, false, false, false]);
    assert_eq!(discoveries(&ln(&[100.0, 1.0, 0.2, 41.0]), 20.0), [true, false, false, true]);
    assert_eq!(discoveries(&ln(&[79.0, 39.0, 26.0, 19.0]), 20.0), [false; 4]);
    assert_eq!(discoveries(&ln(&[21.0, 21.0, 21.0, 21.0]), 20.0), [true; 4]);
    assert!(discoveries(&[], 20.0).is_empty());
}
