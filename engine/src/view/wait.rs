//! Whom a rollout waits for before it starts.

use super::rollout::WaitView;
use crate::core::ids::{RolloutId, Scope};
use crate::core::state::State;
use crate::core::state::rollout::{Rollout, Stage};

/// Whom a rollout that has not started waits for: of its service the one just before it, of each scope whoever has it.
pub fn waits(state: &State, rollout: &Rollout) -> Vec<WaitView> {
    if rollout.stage != Stage::Queued {
        return Vec::new();
    }
    let since_ms = rollout.created_at.0;
    let wait = |id: &RolloutId, scope: Option<&Scope>| WaitView {
        rollout: id.0.clone(),
        scope: scope.map(|scope| scope.0.clone()),
        since_ms,
    };
    let service = state.services.get(&rollout.spec.service);
    let line = service.into_iter().flat_map(|service| service.active.iter().chain(&service.queue));
    let ahead = line.take_while(|id| **id != rollout.id).last().map(|id| wait(id, None));
    let scopes = rollout.spec.scopes.iter().filter_map(|scope| {
        let first = state.scopes.get(scope)?.first().filter(|first| **first != rollout.id)?;
        Some(wait(first, Some(scope)))
    });
    ahead.into_iter().chain(scopes).collect()
}
