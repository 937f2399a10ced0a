//! What was decided about a rollout, as it is recorded: the choice, and everything that speaks for it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::Command;
use super::reading::GuardrailReading;
use super::rollout_spec::RolloutSpec;
use super::smoke::SmokeOutcome;
use crate::core::ids::{Actuator, CommandId, Digest, EventSeq, Metric, RolloutId, Service, Version, Weight};
use crate::core::policy::Policy;
use crate::core::policy::exposure::Exposure;
use crate::core::policy::segment::Task;
use crate::core::time::Timestamp;

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
    /// Whether a command carries it out.
    pub fn moves(&self) -> bool {
        match self.choice {
            Choice::Promote | Choice::Rollback => true,
            Choice::Complete => self.task.is_some(),
            Choice::Hold => false,
        }
    }

    /// The command that carries it out, recorded as `seq` in `log`: the one place where a command comes from.
    pub fn command(&self, log: Uuid, seq: EventSeq, policy: &Policy, of: &RolloutSpec) -> Option<Command> {
        let enters = match self.choice {
            Choice::Promote => Some(self.step.map_or(0, |step| step + 1)),
            Choice::Rollback => self.back_to,
            Choice::Hold | Choice::Complete => None,
        };
        let (Exposure { rest, segments }, task) = match enters {
            Some(step) => (policy.exposure_at(step), policy.step(step).task),
            None => (Exposure { rest: self.weight_to, segments: Vec::new() }, self.task),
        };
        self.moves().then(|| Command {
            id: CommandId::of(log, seq),
            service: of.service.clone(),
            decision: seq,
            baseline: self.baseline.clone(),
            canary: self.canary.clone(),
            bundle: of.composition.parts.clone(),
            weight: rest,
            segments,
            task,
            actuators: policy.actuators.clone(),
        })
    }

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
    /// `why`: `None` where that has not been worked out for now.
    Window {
        why: Option<String>,
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

/// Reasons, with the readings of the guardrails that they name: all that it takes to put them into words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grounds {
    pub reasons: Vec<Reason>,
    pub readings: Vec<GuardrailReading>,
}

impl Grounds {
    /// `readings`: of all guardrails.
    pub fn of(reasons: Vec<Reason>, readings: &[GuardrailReading]) -> Grounds {
        let names = |r: &&GuardrailReading| {
            reasons.iter().any(|reason| matches!(reason, Reason::Guardrail { name } if *name == r.name))
        };
        Grounds { readings: readings.iter().filter(names).cloned().collect(), reasons }
    }
}

/// One condition of the next promotion (or completion).
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub met: bool,
    /// Only time or sample count is missing.
    pub time: bool,
    pub reason: Reason,
}

/// The same things are in the way, whatever their figures.
pub fn same_reasons(a: &[Reason], b: &[Reason]) -> bool {
    let key = |reason: &Reason| match reason {
        Reason::Guardrail { name } => ("guardrail", name.clone()),
        Reason::Samples { metric, .. } => ("samples", metric.0.clone()),
        Reason::Bake { .. } => ("bake", String::new()),
        Reason::Deadline { .. } => ("deadline", String::new()),
        Reason::Window { .. } => ("window", String::new()),
        Reason::Frozen { by, .. } => ("frozen", by.clone()),
        Reason::Approvals { .. } => ("approvals", String::new()),
        Reason::Paused { by } => ("paused", by.clone()),
        Reason::Operator { by, .. } => ("operator", by.clone()),
        Reason::ActuatorRejected { actuator, .. } => ("actuator", actuator.0.clone()),
        Reason::Superseded { by } => ("superseded", by.0.clone()),
        Reason::SoakOver => ("soak", String::new()),
        Reason::Slice { name } => ("slice", name.clone()),
        Reason::Segment { name } => ("segment", name.clone()),
        Reason::NotApplied { .. } => ("not_applied", String::new()),
        Reason::Condition { name, known } => {
            (if *known { "condition" } else { "condition_unknown" }, name.clone())
        }
        Reason::Effective { .. } => ("effective", String::new()),
        Reason::Smoke { name, outcome, .. } => ("smoke", format!("{name} {outcome:?}")),
    };
    a.iter().map(key).eq(b.iter().map(key))
}
