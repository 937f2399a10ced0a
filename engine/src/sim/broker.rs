//! A message broker that keeps its promises and no more: at least once, in no order, and it forgets ids after two
//! minutes.

use std::collections::BTreeMap;

use crate::core::event::fact::Inbound;

/// How long a message id is remembered, in ms: what the real streams are set to.
const DUPLICATE_WINDOW: u64 = 120_000;

/// A message in one of the inbound streams.
#[derive(Clone, Debug)]
pub struct Stored {
    pub service: String,
    pub content_type: Option<&'static str>,
    pub id: Option<String>,
    pub body: Vec<u8>,
    pub attempts: u32,
    /// When the broker stored it, ms.
    pub at: u64,
}

#[derive(Clone, Debug, Default)]
struct Stream {
    last: u64,
    waiting: BTreeMap<u64, Stored>,
    ids: BTreeMap<String, u64>,
}

/// The inbound streams (work queues) and what the outbound one remembers.
#[derive(Clone, Debug, Default)]
pub struct Broker {
    streams: BTreeMap<Inbound, Stream>,
    out: BTreeMap<String, u64>,
}

impl Broker {
    /// Stores a message and returns its number; `None` when the stream has it.
    pub fn publish(&mut self, stream: Inbound, mut message: Stored, now: u64) -> Option<u64> {
        let stream = self.streams.entry(stream).or_default();
        if let Some(id) = &message.id {
            stream.ids.retain(|_, at| *at + DUPLICATE_WINDOW > now);
            if stream.ids.insert(id.clone(), now).is_some() {
                return None;
            }
        }
        stream.last += 1;
        message.at = now;
        stream.waiting.insert(stream.last, message);
        Some(stream.last)
    }

    /// The message, if nobody has confirmed it.
    pub fn waiting(&mut self, stream: Inbound, seq: u64) -> Option<&mut Stored> {
        self.streams.get_mut(&stream)?.waiting.get_mut(&seq)
    }

    /// Everything that is not confirmed.
    pub fn all_waiting(&self) -> Vec<(Inbound, u64)> {
        let of = |(stream, held): (&Inbound, &Stream)| {
            held.waiting.keys().map(|seq| (*stream, *seq)).collect::<Vec<_>>()
        };
        self.streams.iter().flat_map(of).collect()
    }

    pub fn confirm(&mut self, stream: Inbound, seq: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.waiting.remove(&seq);
        }
    }

    /// The stream is gone with everything in it, and made again to count on after `recorded`, as the daemon does.
    pub fn reset(&mut self, stream: Inbound, recorded: u64) {
        self.streams.insert(stream, Stream { last: recorded, ..Stream::default() });
    }

    /// Whether an outgoing message is new; the same id within the window is not.
    pub fn accept(&mut self, id: &str, now: u64) -> bool {
        self.out.retain(|_, at| *at + DUPLICATE_WINDOW > now);
        let new = !self.out.contains_key(id);
        // The window begins with the first: whoever sends often is not unheard for ever.
        self.out.entry(id.to_owned()).or_insert(now);
        new
    }
}
