//! What has come in already, so that a redelivery changes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::event::fact::{Inbound, Origin};
use crate::core::ids::Service;
use crate::core::time::Timestamp;

/// Message ids remembered; older ones are forgotten first. Positions in streams are never forgotten.
pub const IDS_MAX: usize = 65_536;
/// Gaps remembered per stream; more than that and the lowest is given up as never coming.
const RANGES_MAX: usize = 1_024;

/// Positions and ids of what was recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeliveryLog {
    /// Per stream, the sequences recorded: start -> end of each run, both included.
    streams: BTreeMap<Inbound, BTreeMap<u64, u64>>,
    /// Per stream, when the message with the highest sequence was published; never running backwards.
    youngest: BTreeMap<Inbound, Timestamp>,
    /// Hashes of recent message ids, and their order.
    ids: BTreeSet<u64>,
    order: VecDeque<u64>,
}

impl DeliveryLog {
    /// Whether this delivery has been recorded.
    pub fn has(&self, origin: &Origin) -> bool {
        let Some(delivery) = origin.delivery else { return false };
        let Some(runs) = self.streams.get(&delivery.stream) else { return false };
        runs.range(..=delivery.seq).next_back().is_some_and(|(_, end)| *end >= delivery.seq)
    }

    /// Whether a telemetry message of the same service and id has been recorded lately.
    pub fn has_id(&self, service: &Service, origin: &Origin) -> bool {
        origin.message_id.as_ref().is_some_and(|id| self.ids.contains(&hash(service, id)))
    }

    /// Remembers the delivery.
    pub fn note(&mut self, origin: &Origin) {
        let Some(delivery) = origin.delivery else { return };
        note_run(self.streams.entry(delivery.stream).or_default(), delivery.seq);
        // Not of one that fills a gap: of those above it the time may not be known.
        if let Some(published) = delivery.published
            && delivery.seq == self.high(delivery.stream)
        {
            let youngest = self.youngest.entry(delivery.stream).or_default();
            *youngest = published.max(*youngest);
        }
    }

    /// Remembers the message id, forgetting the oldest above [`IDS_MAX`].
    pub fn note_id(&mut self, service: &Service, origin: &Origin) {
        if let Some(id) = origin.message_id.as_ref().map(|id| hash(service, id))
            && self.ids.insert(id)
        {
            self.order.push_back(id);
            if self.order.len() > IDS_MAX {
                let oldest = self.order.pop_front().expect("not empty");
                self.ids.remove(&oldest);
            }
        }
    }

    /// The highest sequence recorded from a stream.
    pub fn high(&self, stream: Inbound) -> u64 {
        self.streams.get(&stream).and_then(|runs| runs.last_key_value()).map_or(0, |(_, end)| *end)
    }

    /// No message that was recorded from a stream is younger. Nothing where only logs of before speak of it.
    pub fn youngest(&self, stream: Inbound) -> Option<Timestamp> {
        self.youngest.get(&stream).copied()
    }
}

fn note_run(runs: &mut BTreeMap<u64, u64>, seq: u64) {
    // In order is the rule: extend the last run.
    if let Some(mut last) = runs.last_entry()
        && *last.get() + 1 == seq
    {
        last.insert(seq);
        return;
    }
    let (mut start, mut end) = (seq, seq);
    if let Some((&s, &e)) = runs.range(..=seq).next_back() {
        if e >= seq {
            return;
        }
        if e + 1 == seq {
            start = s;
        }
    }
    if let Some(&e) = runs.get(&(seq + 1)) {
        runs.remove(&(seq + 1));
        end = e;
    }
    runs.insert(start, end);
    if runs.len() > RANGES_MAX {
        let (first, _) = runs.pop_first().expect("not empty");
        let (_, end) = runs.pop_first().expect("more than one");
        runs.insert(first, end);
    }
}

fn hash(service: &Service, id: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(service.0.as_bytes()).update(b"/").update(id.as_bytes());
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::fact::Delivery;

    fn from(seq: u64) -> Origin {
        published(seq, None)
    }

    fn published(seq: u64, at: Option<u64>) -> Origin {
        let published = at.map(Timestamp);
        Origin { delivery: Some(Delivery { stream: Inbound::Acks, seq, published }), ..Origin::default() }
    }

    #[test]
    fn a_gap_is_still_expected_after_later_messages() {
        let mut intake = DeliveryLog::default();
        for seq in [1, 2, 5, 6, 4] {
            intake.note(&from(seq));
        }
        let seen: Vec<bool> = (1..=7).map(|seq| intake.has(&from(seq))).collect();
        assert_eq!(seen, [true, true, false, true, true, true, false]);
        intake.note(&from(3));
        assert_eq!(intake.streams[&Inbound::Acks], BTreeMap::from([(1, 6)]));
    }

    /// Else the redelivery of a message without a known time would look younger than all that was recorded.
    #[test]
    fn the_youngest_is_the_highest_and_never_older_than_before() {
        let mut intake = DeliveryLog::default();
        let mut youngest = |seq, at| {
            intake.note(&published(seq, at));
            intake.youngest(Inbound::Acks).map(|at| at.0)
        };
        let told = [youngest(3, None), youngest(1, Some(10)), youngest(4, Some(40)), youngest(5, Some(30))];
        assert_eq!(told, [None, None, Some(40), Some(40)]);
    }

    #[test]
    fn old_message_ids_are_forgotten_first() {
        let mut intake = DeliveryLog::default();
        let named = |n: usize| Origin { message_id: Some(format!("m{n}")), ..Origin::default() };
        let service = Service::from("s");
        (0..=IDS_MAX).for_each(|n| intake.note_id(&service, &named(n)));
        let has = |n| intake.has_id(&service, &named(n));
        assert!(!has(0) && has(1) && has(IDS_MAX));
    }
}
