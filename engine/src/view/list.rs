//! `ls`: the rollouts and freezes there are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rollout::RolloutView;
use super::{FreezeView, View};
use crate::core::ids::EventSeq;

/// Ended rollouts that are listed unless all are asked for.
const ENDED_SHOWN: usize = 20;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Every ended rollout that is still listed, not only the last 20.
    #[serde(default)]
    pub all: bool,
}

/// Answer to `ls`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ListAnswer {
    /// The event this is as of, and the time.
    pub seq: EventSeq,
    pub at_ms: u64,
    pub rollouts: Vec<RolloutView>,
    /// What is frozen by people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<FreezeView>,
}

impl ListAnswer {
    /// Open rollouts, and ended ones.
    pub fn new(view: &View, request: &ListRequest) -> ListAnswer {
        let mut ended = 0;
        let shown = view.rollouts.iter().filter(|rollout| {
            ended += usize::from(rollout.state.is_over());
            request.all || !rollout.state.is_over() || ended <= ENDED_SHOWN
        });
        let rollouts = shown.map(|rollout| rollout.as_ref().clone()).collect();
        ListAnswer { seq: view.seq, at_ms: view.at.0, rollouts, freezes: view.freezes.clone() }
    }
}
