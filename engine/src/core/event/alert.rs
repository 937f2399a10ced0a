//! Something a person should know about.

use serde::{Deserialize, Serialize};

use super::reading::GuardrailReading;
use crate::core::ids::{Actuator, CommandId, SmokeId};

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
