//! What follows from the smoke tests of a step.

use super::alert::raised;
use super::turn::Turn;
use crate::core::event::Event;
use crate::core::event::alert::{Alert, AlertKind};
use crate::core::event::decision::{Gate, Reason};
use crate::core::event::smoke::{SmokeAsk, SmokeOutcome};
use crate::core::ids::RolloutId;
use crate::core::policy::actuator::{OnDeadline, Smoke};
use crate::core::state::State;
use crate::core::state::rollout::Rollout;
use crate::core::state::smoke::SmokeTest;

/// Asks for the next test that nobody has been asked for.
pub fn ask(turn: Turn) -> Option<Event> {
    let rollout = turn.rollout;
    let test = rollout.smoke.iter().find(|test| test.to_ask)?;
    let ask = asked(turn, test, test.attempt + 1)?;
    Some(Event::SmokeAsked { rollout: rollout.id.clone(), ask })
}

fn asked(turn: Turn, test: &SmokeTest, attempt: u32) -> Option<SmokeAsk> {
    let Turn { rollout, policy, .. } = turn;
    let smoke = &policy.smoke[usize::from(test.test)];
    Some(SmokeAsk {
        id: test.id,
        name: smoke.name.clone(),
        run: smoke.run.clone(),
        timeout: smoke.timeout,
        service: rollout.spec.service.clone(),
        step: rollout.bake()?.step,
        from: rollout.baseline.clone(),
        to: rollout.spec.to.clone(),
        attempt,
    })
}

fn reason(test: &SmokeTest, smoke: &Smoke) -> Reason {
    Reason::Smoke {
        name: smoke.name.clone(),
        outcome: test.result.as_ref().map(|result| result.outcome),
        detail: test.result.as_ref().map(|result| last_line(&result.detail)).unwrap_or_default(),
        within_ms: smoke.timeout.0,
    }
}

/// The last line that says something, at most 200 characters of it.
fn last_line(detail: &str) -> String {
    let line = detail.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(200).collect()
}

fn all<'a>(turn: Turn<'a>) -> impl Iterator<Item = (&'a SmokeTest, &'a Smoke)> {
    turn.rollout.smoke.iter().map(move |test| (test, &turn.policy.smoke[usize::from(test.test)]))
}

/// What a test that did not pass makes the rollout do.
fn on_fail_effective(test: &SmokeTest, smoke: &Smoke) -> Option<OnDeadline> {
    match test.result.as_ref()?.outcome {
        SmokeOutcome::Passed => None,
        SmokeOutcome::Failed | SmokeOutcome::TimedOut => Some(smoke.on_fail),
        SmokeOutcome::CouldNotRun => Some(OnDeadline::Hold),
    }
}

/// The tests that make the rollout do `what`.
pub fn failed(turn: Turn<'_>, what: OnDeadline) -> impl Iterator<Item = Reason> {
    all(turn)
        .filter(move |(test, smoke)| on_fail_effective(test, smoke) == Some(what))
        .map(|(test, smoke)| reason(test, smoke))
}

/// Tells people of a test that holds the rollout.
pub fn alert(turn: Turn) -> Option<Event> {
    let rollout = turn.rollout;
    let holds = |(test, smoke): &(&SmokeTest, &Smoke)| {
        on_fail_effective(test, smoke) == Some(OnDeadline::Hold)
            && !rollout.alerts.contains_key(&AlertKind::Smoke(test.id))
    };
    let (test, smoke) = all(turn).find(holds)?;
    Some(raised(rollout, Alert::Smoke { test: test.id, reason: Box::new(reason(test, smoke)) }))
}

/// One gate a test.
pub fn gates(turn: Turn) -> Vec<Gate> {
    let gate = |(test, smoke): (&SmokeTest, &Smoke)| {
        let outcome = test.result.as_ref().map(|result| result.outcome);
        let met = outcome == Some(SmokeOutcome::Passed);
        Gate { met, time: outcome.is_none(), reason: reason(test, smoke) }
    };
    let mut gates: Vec<Gate> = all(turn).map(gate).collect();
    // What is wrong before what is not over.
    gates.sort_by_key(|gate| (gate.met, gate.time));
    gates
}

/// Of all open rollouts the tests that somebody has to run: asked for, and without a result.
pub fn running(state: &State) -> Vec<(RolloutId, SmokeAsk)> {
    let waits = |test: &&SmokeTest| test.attempt > 0 && !test.to_ask && test.result.is_none();
    let tests = |rollout: &'_ Rollout| {
        let turn = Turn::of(state, rollout);
        let waiting = rollout.smoke.iter().filter(waits);
        let asks = waiting.filter_map(|test| asked(turn, test, test.attempt));
        asks.map(|ask| (rollout.id.clone(), ask)).collect::<Vec<_>>()
    };
    state.rollouts.values().flat_map(tests).collect()
}
