//! The way in, whatever it came by: bytes are parsed, recorded (or recorded as refused), and answered once that
//! is durable. NATS and HTTP are both thin over this.

use crate::core::event::Event;
use crate::core::ids::EventSeq;
use crate::runner::Taken;
use crate::wire;
pub use crate::wire::intake::{Kind, Message, service_in};

use super::clock;
use super::writer::{Gone, Outcome, Receipt, Writer};

/// The facts in a message: one, or several batches where telemetry had to be split.
pub fn facts(kind: Kind, message: &Message<'_>) -> Vec<Event> {
    wire::intake::facts(kind, message, clock::now())
}

/// How a message was answered.
#[derive(Debug)]
pub enum Answer {
    /// Durable; the first event, and what was concluded.
    Recorded { seq: EventSeq, receipts: Vec<Receipt> },
    /// It had been recorded before.
    Duplicate,
    /// Recorded as refused.
    Refused { seq: EventSeq, code: String, message: String },
    /// Nothing was recorded: the disk is nearly full.
    Full { free: u64 },
}

/// Takes in one message and waits until it is durable.
pub async fn take(writer: &Writer, kind: Kind, message: &Message<'_>) -> Result<Answer, Gone> {
    let mut receipts = Vec::new();
    for fact in facts(kind, message) {
        receipts.push(writer.submit(fact).await?);
    }
    Ok(answer(receipts))
}

/// One answer from the receipts of a message's facts.
pub fn answer(receipts: Vec<Receipt>) -> Answer {
    let mut first = None;
    for receipt in &receipts {
        match &receipt.outcome {
            Outcome::Full(free) => return Answer::Full { free: *free },
            Outcome::Taken(Taken::Refused(seq, refusal)) => {
                let (code, message) = (refusal.code.clone(), refusal.message.clone());
                return Answer::Refused { seq: *seq, code, message };
            }
            Outcome::Taken(Taken::Recorded(seq)) => {
                // What the core refuses is an answer too.
                let refused = receipt.news.iter().find_map(|n| match &n.event {
                    Event::InputRejected { rejection: r, .. } => Some((n.seq, &r.code, &r.message)),
                    Event::IntentRefused { refusal: r, .. }
                    | Event::AckRefused { refusal: r, .. }
                    | Event::FreezeRefused { refusal: r, .. }
                    | Event::ActRefused { refusal: r, .. } => Some((n.seq, &r.code, &r.message)),
                    _ => None,
                });
                if let Some((seq, code, message)) = refused {
                    return Answer::Refused { seq, code: code.clone(), message: message.clone() };
                }
                first.get_or_insert(*seq);
            }
            Outcome::Taken(Taken::Duplicate) => {}
        }
    }
    match first {
        Some(seq) => Answer::Recorded { seq, receipts },
        None => Answer::Duplicate,
    }
}
