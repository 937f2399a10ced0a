//! `info`: version, log and policies.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::ids::EventSeq;
use crate::core::policy::ChangeKind;
use crate::core::state::State;

/// Answer to `info`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InfoAnswer {
    pub version: &'static str,
    pub engine: u32,
    /// Identity of the log.
    pub log: String,
    pub head: HeadView,
    pub started_ms: u64,
    /// Whether it is connected to a NATS server, or runs on its own.
    pub nats: bool,
    pub policies: Vec<PolicyView>,
}

/// The last event of the log and its hash.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HeadView {
    pub seq: EventSeq,
    pub hash: String,
}

/// A policy that intents can name.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PolicyView {
    pub name: String,
    pub hash: String,
    /// Kinds it is the default for.
    pub applies_to: Vec<ChangeKind>,
    /// Whether that is for changes which their submitter calls significant.
    pub significant: bool,
}

/// The policies that are in force, by name.
pub fn policies(state: &State) -> Vec<PolicyView> {
    let view = |(name, digest): (&String, _)| PolicyView {
        name: name.clone(),
        hash: format!("{digest}"),
        applies_to: state.policies[digest].applies_to.clone(),
        significant: state.policies[digest].significant,
    };
    state.policy_names.iter().map(view).collect()
}
