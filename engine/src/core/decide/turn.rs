//! What every question about a rollout is asked of.

use crate::core::policy::Policy;
use crate::core::state::State;
use crate::core::state::rollout::Rollout;
use crate::core::time::Timestamp;

/// One rollout at one moment.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    pub state: &'a State,
    pub rollout: &'a Rollout,
    /// The one that it was created under.
    pub policy: &'a Policy,
    pub now: Timestamp,
}

impl<'a> Turn<'a> {
    pub fn of(state: &'a State, rollout: &'a Rollout) -> Turn<'a> {
        Turn { state, rollout, policy: state.policy_of(rollout), now: state.now }
    }
}
