//! Answers to what comes in: intents, acks, telemetry.

use schemars::JsonSchema;
use serde::Serialize;

use super::rollout::{Standing, WaitView};
use crate::core::ids::EventSeq;

/// Answer to an intent.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeployAnswer {
    /// Always true.
    pub ok: bool,
    pub rollout: String,
    /// The event that created the rollout.
    pub seq: EventSeq,
    pub state: Standing,
    /// `1% 4h > 5% 4h > 100% soak 24h`
    pub plan: String,
    /// How long that will take at the traffic seen lately, and what would shorten it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outlook: Vec<String>,
    /// The rollout it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// What it needs and another has: the rollout and the scope.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<WaitView>,
    /// The same intent had come before; nothing was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// Answer to an ack.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AckAnswer {
    /// Always true.
    pub ok: bool,
    /// The event of the ack; none for a duplicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<EventSeq>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// Answer to telemetry.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TelemetryAnswer {
    /// Always true.
    pub ok: bool,
    /// The event of its first part; none for a duplicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<EventSeq>,
    /// Observations in the message, aggregated ones counted each.
    pub observations: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}
