//! Smoke tests: what is run, by a program or a runner on the bus, as soon as a step is applied.
//!
//! The core asks, and what comes of it is a fact; it runs nothing itself, and so neither does a replay. A test that was running
//! when the daemon stopped is asked again under the same id: it may run twice. What is not over promotes nothing; what failed
//! takes the canary back or holds, as the policy says; what could not be run says nothing about the canary, and holds.

use serde::{Deserialize, Serialize};

use super::chase::raised;
use super::conclusion::{AlertKind, Command, Reason};
use super::event::Event;
use super::ids::{RolloutId, Service, SmokeId, Version, derived_id};
use super::judge::Gate;
use super::planted::{Bug, planted};
use super::policy::{OnDeadline, Policy, Run, Smoke};
use super::rollout::{Rollout, Stage};
use super::state::State;
use super::time::Span;
use super::words;

/// How a test ended.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SmokeOutcome {
    Passed,
    Failed,
    /// It was ended when its time was over.
    TimedOut,
    CouldNotRun,
}

impl SmokeOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            SmokeOutcome::Passed => "passed",
            SmokeOutcome::Failed => "failed",
            SmokeOutcome::TimedOut => "timed_out",
            SmokeOutcome::CouldNotRun => "could_not_run",
        }
    }
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeAsk {
    pub id: SmokeId,
    pub name: String,
    pub run: Run,
    pub timeout: Span,
    pub service: Service,
    /// Index of the step that was applied.
    pub step: u16,
    pub from: Version,
    pub to: Version,
    /// 2 and more: it was running when the daemon stopped.
    pub attempt: u32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeResult {
    pub id: SmokeId,
    pub rollout: RolloutId,
    pub name: String,
    pub outcome: SmokeOutcome,
    /// The last lines of its output, or why it could not be run.
    pub detail: String,
    pub took_ms: u64,
}

/// A test of the current step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeTest {
    pub id: SmokeId,
    /// Index in the policy.
    pub test: u16,
    /// How often it was asked for; it waits to be asked (again).
    pub attempt: u32,
    pub to_ask: bool,
    pub result: Option<SmokeResult>,
}

/// The tests of the step that `command` has brought about.
pub fn tests(rollout: &Rollout, policy: &Policy, command: &Command) -> Vec<SmokeTest> {
    let Stage::Applying { step } = rollout.stage else { return Vec::new() };
    // What was taken back is not tested.
    if rollout.parked.is_some() {
        return Vec::new();
    }
    let test = |(i, smoke): (usize, &Smoke)| SmokeTest {
        id: SmokeId(derived_id(command.id.0, &smoke.name, command.decision)),
        test: i as u16,
        attempt: 0,
        to_ask: true,
        result: None,
    };
    policy.smoke.iter().enumerate().filter(|(_, smoke)| step == 0 || !smoke.first).map(test).collect()
}

/// Folds a restart: whoever ran tests is gone.
pub fn apply_restart(tests: &mut [SmokeTest]) {
    for test in tests.iter_mut().filter(|test| test.result.is_none() && !planted(Bug::SmokeForgotten)) {
        test.to_ask = true;
        if planted(Bug::SmokeRenamed) {
            test.id = SmokeId(derived_id(test.id.0, "again", u64::from(test.attempt)));
        }
    }
}

/// Folds that a test is asked for.
pub fn apply_asked(tests: &mut [SmokeTest], ask: &SmokeAsk) {
    if let Some(test) = tests.iter_mut().find(|test| test.id == ask.id) {
        (test.attempt, test.to_ask) = (ask.attempt, false);
    }
}

/// Folds a result: the first of each test counts. Returns whether it is one of these.
pub fn apply_finished(tests: &mut [SmokeTest], result: &SmokeResult) -> bool {
    let Some(test) = tests.iter_mut().find(|test| test.id == result.id && test.result.is_none()) else {
        return false;
    };
    let mut result = result.clone();
    if planted(Bug::SmokeTimeout) && result.outcome == SmokeOutcome::TimedOut {
        result.outcome = SmokeOutcome::Passed;
    }
    (test.result, test.to_ask) = (Some(result), false);
    true
}

/// Asks for the next test that nobody has been asked for.
pub fn ask(rollout: &Rollout, policy: &Policy) -> Option<Event> {
    let test = rollout.smoke.iter().find(|test| test.to_ask)?;
    let ask = asked(rollout, policy, test, test.attempt + 1)?;
    Some(Event::SmokeAsked { rollout: rollout.id.clone(), ask })
}

fn asked(rollout: &Rollout, policy: &Policy, test: &SmokeTest, attempt: u32) -> Option<SmokeAsk> {
    let smoke = &policy.smoke[usize::from(test.test)];
    Some(SmokeAsk {
        id: test.id,
        name: smoke.name.clone(),
        run: smoke.run.clone(),
        timeout: smoke.timeout,
        service: rollout.opening.service.clone(),
        step: rollout.bake()?.step,
        from: rollout.baseline.clone(),
        to: rollout.opening.to.clone(),
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

fn all<'a>(
    rollout: &'a Rollout,
    policy: &'a Policy,
) -> impl Iterator<Item = (&'a SmokeTest, &'a Smoke)> + 'a {
    rollout.smoke.iter().map(|test| (test, &policy.smoke[usize::from(test.test)]))
}

/// What a test that did not pass makes the rollout do.
fn does(test: &SmokeTest, smoke: &Smoke) -> Option<OnDeadline> {
    match test.result.as_ref()?.outcome {
        SmokeOutcome::Passed => None,
        SmokeOutcome::Failed | SmokeOutcome::TimedOut => Some(smoke.on_fail),
        SmokeOutcome::CouldNotRun => Some(OnDeadline::Hold),
    }
}

/// The tests that make the rollout do `what`.
pub fn failed<'a>(
    rollout: &'a Rollout,
    policy: &'a Policy,
    what: OnDeadline,
) -> impl Iterator<Item = Reason> + 'a {
    all(rollout, policy)
        .filter(move |(test, smoke)| does(test, smoke) == Some(what))
        .map(|(test, smoke)| reason(test, smoke))
}

/// Tells people of a test that holds the rollout.
pub fn alert(rollout: &Rollout, policy: &Policy) -> Option<Event> {
    let holds = |(test, smoke): &(&SmokeTest, &Smoke)| {
        does(test, smoke) == Some(OnDeadline::Hold)
            && !rollout.alerts.contains_key(&AlertKind::Smoke(test.id))
    };
    let (test, smoke) = all(rollout, policy).find(holds)?;
    Some(raised(rollout, AlertKind::Smoke(test.id), words::reason(&reason(test, smoke), &[])))
}

/// One gate a test.
pub fn gates(rollout: &Rollout, policy: &Policy) -> Vec<Gate> {
    let gate = |(test, smoke): (&SmokeTest, &Smoke)| {
        let outcome = test.result.as_ref().map(|result| result.outcome);
        let met = outcome == Some(SmokeOutcome::Passed) || outcome.is_none() && planted(Bug::SmokeUnfinished);
        Gate { met, time: outcome.is_none(), reason: reason(test, smoke) }
    };
    let mut gates: Vec<Gate> = all(rollout, policy).map(gate).collect();
    // What is wrong before what is not over.
    gates.sort_by_key(|gate| (gate.met, gate.time));
    gates
}

/// Of all open rollouts the tests that somebody has to run: asked for, and without a result.
pub fn running(state: &State) -> Vec<(RolloutId, SmokeAsk)> {
    let waits = |test: &&SmokeTest| test.attempt > 0 && !test.to_ask && test.result.is_none();
    let tests = |rollout: &'_ Rollout| {
        let policy = state.policy_of(rollout);
        let waiting = rollout.smoke.iter().filter(waits);
        let asks = waiting.filter_map(|test| asked(rollout, policy, test, test.attempt));
        asks.map(|ask| (rollout.id.clone(), ask)).collect::<Vec<_>>()
    };
    state.rollouts.values().flat_map(tests).collect()
}
