//! That every input counts once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Checked, ensure};
use crate::core::event::Event;
use crate::core::event::fact::Inbound;
use crate::core::ids::Service;
use crate::core::state::dedup::IDS_MAX;

/// What has come in.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    /// Per stream, positions up to the first have all been seen, and those above it that are listed.
    streams: BTreeMap<Inbound, (u64, BTreeSet<u64>)>,
    ids: BTreeSet<(Service, String)>,
    order: VecDeque<(Service, String)>,
}

impl Intake {
    /// Takes in a fact that may have been delivered.
    pub fn delivered(&mut self, event: &Event) -> Checked {
        let Some(origin) = event.origin() else { return Ok(()) };
        let service = match event {
            Event::BatchReceived { service, .. } => Some(service),
            _ => None,
        };
        if let Some(delivery) = origin.delivery {
            let (all, above) = self.streams.entry(delivery.stream).or_default();
            let fresh = delivery.seq > *all && above.insert(delivery.seq);
            ensure(fresh, "I24", || {
                format!("message {} of {:?} is recorded twice", delivery.seq, delivery.stream)
            })?;
            while above.remove(&(*all + 1)) {
                *all += 1;
            }
        }
        if let (Some(service), Some(id)) = (service, &origin.message_id) {
            let id = (service.clone(), id.clone());
            ensure(self.ids.insert(id.clone()), "I23", || format!("telemetry {} counts twice", id.1))?;
            self.order.push_back(id);
            // As many as are promised to be remembered.
            if self.order.len() > IDS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.ids.remove(&oldest);
            }
        }
        Ok(())
    }
}
