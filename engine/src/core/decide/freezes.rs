//! What follows from the order to freeze, or to end a freeze.

use super::windows::FREEZES_MAX;
use crate::core::event::Event;
use crate::core::event::fact::FreezeOrder;
use crate::core::event::refusal::Refusal;
use crate::core::event::windows::Freeze;
use crate::core::state::State;

/// Begins or ends a freeze, or says why not.
pub fn freeze(state: &State, order: &FreezeOrder) -> Event {
    let FreezeOrder { service, until, actor, reason, .. } = order;
    let refuse = |refusal| Event::FreezeRefused { service: service.clone(), actor: actor.clone(), refusal };
    if order.freeze {
        if until.is_some_and(|until| until <= state.now) {
            return refuse(Refusal::FreezeOver { service: service.clone() });
        }
        let known = state.freezes.iter().any(|freeze| freeze.service == *service);
        if !known && state.freezes.len() >= FREEZES_MAX {
            return refuse(Refusal::FreezesFull { limit: FREEZES_MAX });
        }
        let (service, by, reason) = (service.clone(), actor.clone(), reason.clone());
        return Event::FreezeStarted {
            freeze: Freeze { service, by, reason, since: state.now, until: *until },
        };
    }
    if state.freezes.iter().any(|freeze| freeze.service == *service) {
        return Event::FreezeEnded { service: service.clone(), by: Some(actor.clone()) };
    }
    let all = state.freezes.iter().find(|freeze| freeze.service.is_none());
    let one = state.freezes.iter().find_map(|freeze| freeze.service.clone());
    refuse(match (service.clone(), all, one) {
        (Some(service), Some(all), _) => Refusal::AllFrozen { service, by: all.by.clone() },
        (None, None, Some(service)) => Refusal::OnlyOneFrozen { service },
        (service, ..) => Refusal::NotFrozen { service },
    })
}
