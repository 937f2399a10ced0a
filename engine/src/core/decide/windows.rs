//! What keeps a rollout from moving forward though nothing is wrong with it: closed change windows, and freezes.
//!
//! Invariant: nothing here is asked before a rollback, a pause or an abort. Windows are worked out outside and come as
//! facts: while none is known that is valid now, the window counts as closed.

use super::turn::Turn;
use crate::core::event::decision::{Gate, Reason};
use crate::core::event::windows::{Bounds, Freeze};
use crate::core::ids::Service;
use crate::core::state::State;
use crate::core::time::Timestamp;

/// Freezes at a time: one for everything, and one a service.
pub const FREEZES_MAX: usize = 256;

/// The gates of a forward move that have nothing to do with evidence or time served: a freeze that is on, and the
/// windows of the policy if it has any.
pub fn gates(turn: Turn) -> Vec<Gate> {
    let Turn { state, rollout, policy, now } = turn;
    let gate = |met, reason| Gate { met, time: false, reason };
    let mut gates: Vec<Gate> = freezes(state, &rollout.spec.service, now)
        .map(|freeze| {
            let Freeze { service, by, reason, until, .. } = freeze.clone();
            gate(false, Reason::Frozen { service, by, reason, until })
        })
        .collect();
    if policy.windows.is_some() {
        let known = state.windows.get(&rollout.spec.policy);
        let stale = |bounds: &&Bounds| now < bounds.until;
        gates.push(match known.filter(stale) {
            Some(Bounds { open, why, turns, .. }) => {
                gate(*open, Reason::Window { why: Some(why.clone()), turns: *turns })
            }
            None => gate(false, Reason::Window { why: None, turns: None }),
        });
    }
    gates
}

/// The freezes that are on for `service` at `now`.
pub fn freezes<'a>(
    state: &'a State,
    service: &Service,
    now: Timestamp,
) -> impl Iterator<Item = &'a Freeze> + use<'a> {
    let service = service.clone();
    state.freezes.iter().filter(move |freeze| {
        freeze.service.as_ref().is_none_or(|of| *of == service)
            && freeze.until.is_none_or(|until| now < until)
    })
}

/// Whether a gate is a closed window or a freeze: then nothing is wrong with the canary.
pub fn shuts(gate: &Gate) -> bool {
    matches!(gate.reason, Reason::Window { .. } | Reason::Frozen { .. })
}
