//! What carries commands out, and what tests a step.

use serde::{Deserialize, Serialize};

use crate::core::time::Span;

/// An actuator that is more than a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Where its commands go; `None`: where those of every actuator go.
    pub subject: Option<String>,
    /// Silent for longer, it is named and `on_silent` happens; `None`: the policy's `ack_timeout`.
    pub ack_within: Option<Span>,
    /// `None`: after the policy's `ack_timeout`, then twice as long, and so on.
    pub resend_every: Option<Span>,
    /// Of a step. A rollback that is not confirmed is named again and again.
    pub on_silent: OnDeadline,
}

/// When a confirmed command counts as effective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// Telemetry that has not shown it so long after the confirmation is told of.
    pub within: Span,
    /// What is served in this time after the confirmation says nothing: somebody still has the old share at hand.
    pub after: Span,
}

/// A test that is run when a step is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smoke {
    pub name: String,
    pub run: Run,
    pub timeout: Span,
    /// At the first step only.
    pub first: bool,
    pub on_fail: OnDeadline,
}

/// How a test is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// A program of the daemon's machine and its arguments.
    Command(Vec<String>),
    /// A request on this subject.
    Request(String),
}

/// What a step does when its deadline passes without a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDeadline {
    Hold,
    Rollback,
}
