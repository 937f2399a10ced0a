//! Something a person should know about, with the values that it takes to say it. The words are `words::alert`'s.

use serde::{Deserialize, Serialize};

use super::command::Asked;
use super::decision::{Grounds, Reason};
use super::reading::GuardrailReading;
use super::refusal::Refusal;
use crate::core::evidence::reference::Unusable;
use crate::core::ids::{Actuator, CommandId, Metric, Service, SmokeId, Version};
use crate::core::policy::actuator::OnDeadline;
use crate::core::time::Span;

/// Something a person should know about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alert {
    /// It failed.
    Guardrail {
        reading: Box<GuardrailReading>,
    },
    /// A guardrail failed in one slice: its name, and the value of its tag.
    Slice {
        guardrail: String,
        value: String,
        reading: Box<GuardrailReading>,
    },
    /// No reference can be frozen for it.
    Unjudgeable {
        guardrail: String,
        why: Unusable,
    },
    /// More of the canary's values than may be are above the cap of a mean.
    AboveCap(AboveCap),
    /// A condition of the policy holds: its name, and what it says.
    Condition {
        name: String,
        when: String,
    },
    /// A segment was taken back by itself.
    Segment {
        name: String,
    },
    /// A step was not left in time: its index and name, and what is in the way first.
    Deadline {
        step: u16,
        at: String,
        after: Span,
        first: Box<Grounds>,
    },
    /// A step was not applied in time.
    NotApplied {
        step: u16,
        waiting: Vec<Actuator>,
        within: Span,
    },
    ActuatorRejected {
        actuator: Actuator,
        asked: Asked,
        why: Objection,
    },
    /// `on_silent`: what follows; `None` where the policy declares nothing, and the command is sent again.
    ActuatorSilent {
        actuator: Actuator,
        asked: Asked,
        within: Span,
        on_silent: Option<OnDeadline>,
    },
    /// Nobody knows whether it obeys; named again and again, with the number of times before.
    RollbackUnconfirmed {
        actuator: Actuator,
        asked: Asked,
        canary: Version,
        since: Span,
        before: u32,
    },
    /// Telemetry does not show what was confirmed; of a rollback again and again.
    NotEffective(NotEffective),
    /// A smoke test failed, and the policy holds; or it could not be run.
    Smoke {
        test: SmokeId,
        reason: Box<Reason>,
    },
    /// What came before a rollout that waited has left it nothing to do.
    Overtaken(Overtaken),
}

/// What an alert is about. Each is raised once a rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    Guardrail(String),
    Unjudgeable(String),
    ActuatorSilent(Actuator),
    ActuatorRejected(Actuator),
    Deadline(u16),
    NotApplied(u16),
    Segment(String),
    Condition(String),
    Slice(String, String),
    AboveCap(String),
    Overtaken,
    RollbackUnconfirmed(Actuator, u32),
    NotEffective(CommandId, u32),
    Smoke(SmokeId),
}

impl AlertKind {
    /// As messages name it.
    pub fn name(&self) -> &'static str {
        match self {
            AlertKind::Guardrail(_) => "guardrail",
            AlertKind::Unjudgeable(_) => "unjudgeable",
            AlertKind::ActuatorSilent(_) => "actuator_silent",
            AlertKind::ActuatorRejected(_) => "actuator_rejected",
            AlertKind::Deadline(_) => "deadline",
            AlertKind::NotApplied(_) => "not_applied",
            AlertKind::Segment(_) => "segment",
            AlertKind::Overtaken => "overtaken",
            AlertKind::Condition(_) => "condition",
            AlertKind::Slice(..) => "slice",
            AlertKind::AboveCap(_) => "above_cap",
            AlertKind::RollbackUnconfirmed(..) => "rollback_unconfirmed",
            AlertKind::NotEffective(..) => "not_effective",
            AlertKind::Smoke(_) => "smoke",
        }
    }
}

/// How many values of each arm are above its cap, and the evidence (nats) that those of the canary are too many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AboveCap {
    pub guardrail: String,
    pub canary: Above,
    pub baseline: Above,
    /// The canary may have so many times the share of the baseline, and so much more of all.
    pub times: f64,
    pub plus: f64,
    pub ln: f64,
    pub need_ln: f64,
}

/// `n` of `of` values are above `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Above {
    pub n: u64,
    pub of: u64,
    pub cap: f64,
}

/// Why an actuator does not carry a command out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objection {
    Rejects(String),
    /// It says that it is done, and also how much of how much.
    Unfinished {
        done: u64,
        of: u64,
    },
}

/// What was confirmed, and what telemetry shows of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotEffective {
    pub command: CommandId,
    /// How often it was looked before.
    pub look: u32,
    pub actuators: Vec<Actuator>,
    pub asked: Asked,
    /// The canary's of all requests, by the metric that counts them; `None`: no request.
    pub seen: Option<(Metric, u64, u64)>,
    pub over: Span,
    pub takes_back: bool,
}

/// Why a rollout whose turn has come is not begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overtaken {
    /// It serves already.
    Serves { service: Service, to: Version },
    /// Its intent would be refused now.
    Refused(Refusal),
}

impl Alert {
    pub fn kind(&self) -> AlertKind {
        match self {
            Alert::Guardrail { reading } => AlertKind::Guardrail(reading.name.clone()),
            Alert::Slice { guardrail, value, .. } => AlertKind::Slice(guardrail.clone(), value.clone()),
            Alert::Unjudgeable { guardrail, .. } => AlertKind::Unjudgeable(guardrail.clone()),
            Alert::AboveCap(above) => AlertKind::AboveCap(above.guardrail.clone()),
            Alert::Condition { name, .. } => AlertKind::Condition(name.clone()),
            Alert::Segment { name } => AlertKind::Segment(name.clone()),
            Alert::Deadline { step, .. } => AlertKind::Deadline(*step),
            Alert::NotApplied { step, .. } => AlertKind::NotApplied(*step),
            Alert::ActuatorRejected { actuator, .. } => AlertKind::ActuatorRejected(actuator.clone()),
            Alert::ActuatorSilent { actuator, .. } => AlertKind::ActuatorSilent(actuator.clone()),
            Alert::RollbackUnconfirmed { actuator, before, .. } => {
                AlertKind::RollbackUnconfirmed(actuator.clone(), *before)
            }
            Alert::NotEffective(found) => AlertKind::NotEffective(found.command, found.look),
            Alert::Smoke { test, .. } => AlertKind::Smoke(*test),
            Alert::Overtaken(_) => AlertKind::Overtaken,
        }
    }

    /// Of the guardrail or slice that failed.
    pub fn reading(&self) -> Option<&GuardrailReading> {
        match self {
            Alert::Guardrail { reading } | Alert::Slice { reading, .. } => Some(reading),
            _ => None,
        }
    }
}
