//! What a rollout starts with, and how it ends.

use serde::{Deserialize, Serialize};

use super::bundle::Composition;
use crate::core::ids::{Digest, IntentId, RolloutId, Scope, Service, Version};
use crate::core::policy::ChangeKind;

/// What a rollout starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutSpec {
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
    pub composition: Composition,
    /// What `from` is made of, as far as it is known.
    pub from_composition: Composition,
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
