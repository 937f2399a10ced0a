//! What came from outside, as it is recorded.

use serde::{Deserialize, Serialize};

use super::bundle::Composition;
use super::code::Code;
use super::verb::Verb;
use crate::core::ids::{Actuator, CommandId, Digest, EventSeq, IntentId, RolloutId, Scope, Service, Version};
use crate::core::policy::ChangeKind;
use crate::core::time::Timestamp;

/// How a fact came in: enough to recognise its redelivery and to continue its trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The stream and sequence it was delivered from.
    pub delivery: Option<Delivery>,
    /// The sender's own message id.
    pub message_id: Option<String>,
    /// W3C trace context of the causing message.
    pub traceparent: Option<String>,
}

/// A position in one of the inbound streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub stream: Inbound,
    pub seq: u64,
    /// When the broker took it in. A stream that is removed and made anew gives the same numbers again, to younger
    /// messages. Logs of before this was kept do not have it.
    pub published: Option<Timestamp>,
}

/// An inbound stream of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inbound {
    Intents,
    Telemetry,
    Acks,
}

/// A request to roll out one change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub id: IntentId,
    pub service: Service,
    pub kind: ChangeKind,
    /// What serves now, where the submitter named it.
    pub from: Option<Version>,
    pub to: Version,
    /// By name; else the default of the kind.
    pub policy: Option<String>,
    pub by: String,
    pub reason: String,
    /// What an investigation of the last attempt's rollback came to.
    pub finding: Option<String>,
    /// What it shares with rollouts of other services.
    pub scopes: Vec<Scope>,
    /// Its submitter calls it significant: the policy for such changes is its default.
    pub significant: bool,
    /// What `to` is made of.
    pub composition: Composition,
    /// What `from` is made of, where the submitter named it.
    pub from_composition: Composition,
    /// BLAKE3 of what was submitted: tells a repetition from a reused id.
    pub content: Digest,
}

/// An actuator's word on a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    pub service: Service,
    pub command: CommandId,
    pub actuator: Actuator,
    pub status: AckStatus,
    pub took_ms: Option<u64>,
    /// How much of a task is done, of how much.
    pub done: Option<(u64, u64)>,
}

/// Whether the command is carried out; if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckStatus {
    Applied,
    /// At work on it.
    Progress,
    Rejected(String),
}

/// What a person does to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    pub rollout: RolloutId,
    pub verb: Verb,
    pub actor: String,
    pub host: String,
    /// The command line or request as given.
    pub args: Vec<String>,
    pub reason: String,
    /// Refuse if the rollout has changed since this event.
    pub if_seq: Option<EventSeq>,
    /// Promote past gates that are not met (never past a failing rollback guardrail).
    pub force: bool,
}

/// What a person does about a freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeOrder {
    /// Begin one; else end it.
    pub freeze: bool,
    /// `None`: everything.
    pub service: Option<Service>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    pub actor: String,
    pub host: String,
    /// The command line or request as given.
    pub args: Vec<String>,
    pub reason: String,
}

/// An input that could not become any other fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub code: Code,
    /// For people: the field, the value and the limit.
    pub message: String,
    /// Where it came in: a subject or a path.
    pub source: String,
    pub bytes: u64,
    /// The beginning of the input, control characters escaped, at most 64 bytes.
    pub excerpt: String,
}
