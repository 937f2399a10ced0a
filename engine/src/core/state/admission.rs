//! What may enter the log: redeliveries and broken bounds are turned away here.

use std::collections::BTreeMap;

use super::{SERIES_MAX, State};
use crate::core::event::Event;
use crate::core::event::refusal::Refusal;

/// Whether a fact may enter the log as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    Accept,
    /// It has been recorded before; there is nothing to do but confirm it again.
    Duplicate,
    /// It would break a bound.
    Refuse(Refusal),
}

impl State {
    /// Decides whether `fact` may be recorded.
    pub fn admit(&self, fact: &Event) -> Admission {
        let Some(origin) = fact.origin() else { return Admission::Accept };
        if self.intake.has(origin) {
            return Admission::Duplicate;
        }
        if let Event::BatchReceived { service, columns, .. } = fact {
            if self.intake.has_id(service, origin) {
                return Admission::Duplicate;
            }
            let seen = self.services.get(service).map(|known| &known.series);
            let new =
                columns.series.iter().filter(|s| !seen.is_some_and(|seen| seen.contains_key(s))).count();
            let have = seen.map_or(0, BTreeMap::len);
            if new > 0 && have + new > SERIES_MAX {
                let first = columns.series.iter().find(|s| !seen.is_some_and(|seen| seen.contains_key(s)));
                return Admission::Refuse(Refusal::TooManySeries {
                    service: service.clone(),
                    metric: first.map(|s| s.metric.clone()).unwrap_or_default(),
                    limit: SERIES_MAX,
                });
            }
        }
        Admission::Accept
    }
}
