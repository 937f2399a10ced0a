//! Telling people, once.

use crate::core::event::Event;
use crate::core::event::alert::{Alert, AlertKind};
use crate::core::state::rollout::Rollout;

/// As [`raised`], unless it was.
pub fn alert(rollout: &Rollout, kind: AlertKind, summary: String) -> Option<Event> {
    (!rollout.alerts.contains_key(&kind)).then(|| raised(rollout, kind, summary))
}

pub fn raised(rollout: &Rollout, kind: AlertKind, summary: String) -> Event {
    Event::AlertRaised { rollout: rollout.id.clone(), alert: Alert { kind, summary, reading: None } }
}
