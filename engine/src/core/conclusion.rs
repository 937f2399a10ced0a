//! What follows from the facts, as it is recorded.

use serde::{Deserialize, Serialize};

use super::exposure::{SegmentShare, Task};
use super::ids::{
    Actuator, CommandId, Digest, EventSeq, IntentId, Metric, RolloutId, Scope, Service, SmokeId, Version,
    Weight,
};
use super::makeup::{Makeup, Parts};
use super::policy::ChangeKind;
use super::reading::GuardrailReading;
use super::smoke::SmokeOutcome;
use super::time::Timestamp;

/// Why something that was understood is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: String,
    pub message: String,
}

/// What a rollout starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    pub intent: IntentId,
    pub service: Service,
    pub kind: ChangeKind,
    pub from: Version,
    pub to: Version,
    pub policy_name: String,
    pub policy: Digest,
    pub by: String,
    pub reason: String,
    /// 1 for the first rollout of this `to` on this service, 2 for the second, ...
    pub attempt: u32,
    /// As the intent gave it.
    pub finding: Option<String>,
    /// What `to` is made of.
    pub makeup: Makeup,
    /// What `from` is made of, as far as it is known.
    pub from_makeup: Makeup,
    /// The rollout it waits for.
    pub behind: Option<RolloutId>,
    /// Rollouts whose place it takes: they end first.
    pub supersedes: Vec<RolloutId>,
    /// What it shares with rollouts of other services, by its intent and its policy, in order of name. Of those that
    /// share a scope, one at a time has traffic.
    pub scopes: Vec<Scope>,
    /// Of the rollouts that come before it in a scope, the first.
    pub blocked: Option<Blocked>,
    /// The rules it is decided by to its end.
    pub engine: u32,
    /// Trace context of the intent; everything sent about the rollout continues it.
    pub traceparent: Option<String>,
}

/// Who has a scope, as long as another waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    pub scope: Scope,
    pub by: RolloutId,
}

/// What can be decided about a rollout.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    Promote,
    Hold,
    Rollback,
    Complete,
}

impl Choice {
    pub fn named(name: &str) -> Option<Choice> {
        let all = [Choice::Promote, Choice::Hold, Choice::Rollback, Choice::Complete];
        all.into_iter().find(|choice| choice.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Choice::Promote => "promote",
            Choice::Hold => "hold",
            Choice::Rollback => "rollback",
            Choice::Complete => "complete",
        }
    }
}

/// What was chosen for a rollout, with everything that speaks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub choice: Choice,
    pub baseline: Version,
    pub canary: Version,
    /// Index of the step it was made at; `None` before the first.
    pub step: Option<u16>,
    /// Of the segment that it is about.
    pub weight_from: Weight,
    pub weight_to: Weight,
    /// That segment, where a policy has any; a rollback without one is of all.
    pub segment: Option<String>,
    /// What actuators do at the step that is entered.
    pub task: Option<Task>,
    /// Of a rollback of one segment: the step that serves then.
    pub back_to: Option<u16>,
    /// What made the choice, binding first. Empty only for a promotion that nothing spoke against.
    pub because: Vec<Reason>,
    /// Every guardrail as it stood.
    pub readings: Vec<GuardrailReading>,
    /// Log-evidence (nats) that the rollback guardrails together have against the canary.
    pub harm_ln: f64,
    pub policy: Digest,
    pub engine: u32,
    /// First and last event the decision could know.
    pub inputs: (EventSeq, EventSeq),
    /// Who ordered it; `None` when the policy did.
    pub actor: Option<String>,
}

impl Decision {
    /// Whether guardrails or a deadline made it, and not somebody's word.
    pub fn is_automatic(&self) -> bool {
        !matches!(self.because.first(), Some(Reason::Operator { .. } | Reason::Superseded { .. }))
    }
}

/// One thing that binds a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "gate")]
pub enum Reason {
    /// A guardrail's verdict is in the way, or forces the choice.
    Guardrail {
        name: String,
    },
    /// Too few settled canary observations.
    Samples {
        metric: Metric,
        have: u64,
        need: u64,
    },
    Bake {
        left_ms: u64,
    },
    Deadline {
        after_ms: u64,
    },
    /// A change window of the policy: closed, or passed on an order.
    Window {
        why: String,
        turns: Option<Timestamp>,
    },
    /// A person's freeze of one service, or of everything.
    Frozen {
        service: Option<Service>,
        by: String,
        reason: String,
        until: Option<Timestamp>,
    },
    Approvals {
        have: u8,
        need: u8,
    },
    Paused {
        by: String,
    },
    Operator {
        by: String,
        reason: String,
    },
    ActuatorRejected {
        actuator: Actuator,
        why: String,
    },
    SoakOver,
    /// A condition of the policy holds, or cannot be told to be false yet.
    Condition {
        name: String,
        known: bool,
    },
    /// A guardrail is beyond its limit in one slice: `eval_pass[suite=refunds]`.
    Slice {
        name: String,
    },
    /// A segment was taken back by itself; what comes next is a person's decision.
    Segment {
        name: String,
    },
    /// Not every actuator has confirmed in time.
    NotApplied {
        waiting: Vec<Actuator>,
        within_ms: u64,
    },
    /// A newer change of the service takes its place.
    Superseded {
        by: RolloutId,
    },
    /// What telemetry shows of the last command: of so many requests since its confirmation, the canary's.
    Effective {
        to: Weight,
        canary: u64,
        requests: u64,
        shown: bool,
    },
    /// `outcome`: `None` while it runs.
    Smoke {
        name: String,
        outcome: Option<SmokeOutcome>,
        /// The last it said.
        detail: String,
        within_ms: u64,
    },
}

/// An instruction to actuators: serve this share from the canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub id: CommandId,
    pub service: Service,
    /// Sequence of the decision it carries out.
    pub decision: EventSeq,
    pub baseline: Version,
    pub canary: Version,
    /// What the canary is made of, where it is a bundle.
    pub bundle: Parts,
    /// Share of whoever is in no named segment.
    pub weight: Weight,
    /// Shares of the named segments that have one.
    pub segments: Vec<SegmentShare>,
    pub task: Option<Task>,
    pub actuators: Vec<Actuator>,
}

/// Something a person should know about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub kind: AlertKind,
    /// One sentence with the values.
    pub summary: String,
    pub reading: Option<GuardrailReading>,
}

/// What an alert is about. Each is raised once a rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// It failed; named by the guardrail.
    Guardrail(String),
    /// No reference can be frozen for it.
    Unjudgeable(String),
    ActuatorSilent(Actuator),
    ActuatorRejected(Actuator),
    Deadline(u16),
    /// A step was not applied in time.
    NotApplied(u16),
    /// A segment was taken back by itself.
    Segment(String),
    /// A condition of the policy holds.
    Condition(String),
    /// A guardrail failed in one slice: its name, and the value of its tag.
    Slice(String, String),
    /// More of the canary's values than may be are above the cap of a mean; named by the guardrail.
    AboveCap(String),
    /// What came before a rollout that waited has left it nothing to do.
    Overtaken,
    /// Nobody knows whether it obeys; named again and again, with the number of times before.
    RollbackUnconfirmed(Actuator, u32),
    /// Telemetry does not show what was confirmed; of a rollback again and again.
    NotEffective(CommandId, u32),
    /// A smoke test failed, and the policy holds; or it could not be run.
    Smoke(SmokeId),
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    RolledBack,
    Aborted,
    /// A newer change took its place; it was taken back if it had traffic.
    Superseded,
}

/// Counts of one arm, for display and gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmCount {
    pub n: u64,
    pub sum: f64,
}

impl ArmCount {
    pub fn add(&mut self, n: u64, sum: f64) {
        self.n += n;
        self.sum += sum;
    }

    pub fn mean(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.sum / self.n as f64 }
    }
}
