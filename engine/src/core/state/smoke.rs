//! Smoke tests: what is run, by a program or a runner on the bus, as soon as a step is applied.
//!
//! The core asks, and what comes of it is a fact; it runs nothing itself, and so neither does a replay. A test that was running
//! when the daemon stopped is asked again under the same id: it may run twice. What is not over promotes nothing; what failed
//! takes the canary back or holds, as the policy says; what could not be run says nothing about the canary, and holds.

use serde::{Deserialize, Serialize};

use crate::core::event::smoke::{SmokeAsk, SmokeResult};
use crate::core::ids::SmokeId;

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

/// Folds a restart: whoever ran tests is gone.
pub fn apply_restart(tests: &mut [SmokeTest]) {
    for test in tests.iter_mut().filter(|test| test.result.is_none()) {
        test.to_ask = true;
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
    (test.result, test.to_ask) = (Some(result.clone()), false);
    true
}
