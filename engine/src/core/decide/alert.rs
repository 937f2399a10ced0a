//! Telling people, once.

use crate::core::event::Event;
use crate::core::event::alert::Alert;
use crate::core::state::rollout::Rollout;

/// As [`raised`], unless it was.
pub fn alert(rollout: &Rollout, alert: Alert) -> Option<Event> {
    (!rollout.alerts.contains_key(&alert.kind())).then(|| raised(rollout, alert))
}

pub fn raised(rollout: &Rollout, alert: Alert) -> Event {
    Event::AlertRaised { rollout: rollout.id.clone(), alert }
}
