//! The way in, whatever it came by: bytes are parsed, recorded (or recorded as refused), and answered once that
//! is durable. NATS and HTTP are both thin over this.

use std::sync::Arc;

use crate::core::event::Event;
use crate::core::event::code::Code;
use crate::core::ids::EventSeq;
use crate::core::words;
use crate::runner::{self, Taken};
use crate::wire;
pub use crate::wire::intake::{Kind, Message, service_in};

use super::clock;
use super::writer::{Gone, News, Outcome, Receipt, Writer};

/// The facts in a message: one, or several batches where telemetry had to be split.
pub fn facts(kind: Kind, message: &Message<'_>) -> Vec<Event> {
    wire::intake::facts(kind, message, clock::now())
}

/// How a message was answered.
#[derive(Debug)]
pub enum Answer {
    /// Durable, with its first event, and what else was concluded.
    Recorded { seq: EventSeq, answer: Option<runner::Answer>, news: Vec<Arc<News>> },
    /// It had been recorded before.
    Duplicate,
    /// Recorded as refused.
    Refused { seq: EventSeq, code: Code, message: String },
    /// Nothing was recorded: the disk is nearly full.
    Full { free: u64 },
}

/// Takes in one message and waits until it is durable.
pub async fn take(writer: &Writer, kind: Kind, message: &Message<'_>) -> Result<Answer, Gone> {
    record(writer, facts(kind, message)).await
}

/// Records the facts of one message: all of them, whatever becomes of the first. Its answer is what keeps one of them
/// out, else what became of the first that is new.
pub async fn record(writer: &Writer, facts: Vec<Event>) -> Result<Answer, Gone> {
    let mut answers = Vec::with_capacity(facts.len());
    for fact in facts {
        // What cannot be read is recorded, and refused all the same.
        let rejected = match &fact {
            Event::InputRejected { rejection: r, .. } => Some((r.code, r.message.clone())),
            _ => None,
        };
        answers.push(match (answer(writer.submit(fact).await?), rejected) {
            (Answer::Recorded { seq, .. }, Some((code, message))) => Answer::Refused { seq, code, message },
            (answer, _) => answer,
        });
    }
    let kept_out = |answer: &Answer| matches!(answer, Answer::Refused { .. } | Answer::Full { .. });
    let new = |answer: &Answer| matches!(answer, Answer::Recorded { .. });
    let told = answers.iter().position(kept_out).or_else(|| answers.iter().position(new));
    Ok(told.map_or(Answer::Duplicate, |i| answers.swap_remove(i)))
}

/// The answer to one fact.
pub fn answer(receipt: Receipt) -> Answer {
    match receipt.outcome {
        Outcome::Full(free) => Answer::Full { free },
        Outcome::Taken(Taken::Duplicate) => Answer::Duplicate,
        // What the core refuses is an answer too.
        Outcome::Taken(
            Taken::Refused(seq, refusal)
            | Taken::Recorded { answer: Some(runner::Answer::Refused { seq, refusal }), .. },
        ) => Answer::Refused { seq, code: refusal.code(), message: words::refusal::text(&refusal) },
        Outcome::Taken(Taken::Recorded { seq, answer }) => {
            Answer::Recorded { seq, answer, news: receipt.news }
        }
    }
}
