//! A smoke test, asked for and answered.

use serde::{Deserialize, Serialize};

use crate::core::ids::{RolloutId, Service, SmokeId, Version};
use crate::core::policy::actuator::Run;
use crate::core::time::Span;

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
