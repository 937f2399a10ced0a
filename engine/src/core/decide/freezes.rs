//! What follows from the order to freeze, or to end a freeze.

use super::acts::refusal;
use super::windows::FREEZES_MAX;
use crate::core::event::Event;
use crate::core::event::fact::FreezeOrder;
use crate::core::event::windows::Freeze;
use crate::core::state::State;
use crate::core::words;

/// Begins or ends a freeze, or says why not.
pub fn freeze(state: &State, order: &FreezeOrder) -> Event {
    let FreezeOrder { service, until, actor, reason, .. } = order;
    let refuse = |code: &str, message: String| Event::FreezeRefused {
        service: service.clone(),
        actor: actor.clone(),
        refusal: refusal(code, message),
    };
    let scope = words::scope(service.as_ref());
    if order.freeze {
        if until.is_some_and(|until| until <= state.now) {
            return refuse(
                "E0340",
                format!("the freeze of {scope} would be over before it begins; nothing is frozen by it"),
            );
        }
        let known = state.freezes.iter().any(|freeze| freeze.service == *service);
        if !known && state.freezes.len() >= FREEZES_MAX {
            return refuse(
                "E0341",
                format!("{FREEZES_MAX} freezes are on; end one, or freeze everything: sluice freeze"),
            );
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
    let one = state.freezes.iter().find_map(|freeze| freeze.service.as_ref());
    let message = match (service, all, one) {
        (Some(_), Some(all), _) => {
            let by = &all.by;
            format!(
                "{scope} has no freeze of its own; everything is frozen by {by}. End that: sluice unfreeze"
            )
        }
        (None, None, Some(one)) => {
            format!(
                "there is no freeze of everything; {one} is frozen. End that: sluice unfreeze --service {one}"
            )
        }
        (Some(_), ..) => format!("{scope} is not frozen; there is no freeze to end"),
        _ => "nothing is frozen; there is no freeze to end".into(),
    };
    refuse("E0342", message)
}
