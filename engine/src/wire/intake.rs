//! From a message to facts: parsed, or recorded as refused. Whatever it came by, nothing is dropped in silence.

use super::error::InputError;
use super::{ack, intent, names, telemetry};
use crate::core::event::Event;
use crate::core::event::fact::{Delivery, Origin, Rejection};
use crate::core::time::Timestamp;

/// Bytes of a message id that are remembered; a longer id is ignored.
const MESSAGE_ID_MAX: usize = 256;

/// One message as it came in.
#[derive(Clone, Debug, Default)]
pub struct Message<'a> {
    pub body: &'a [u8],
    pub content_type: Option<&'a str>,
    /// The service in the subject, where there is one.
    pub service: Option<&'a str>,
    /// Subject or path, for the record of a refusal.
    pub source: &'a str,
    pub message_id: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub delivery: Option<Delivery>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Intent,
    Telemetry,
    Ack,
}

/// The facts in a message: one, or several batches where telemetry had to be split.
pub fn facts(kind: Kind, message: &Message<'_>, now: Timestamp) -> Vec<Event> {
    match parse(kind, message, now) {
        Ok(facts) => facts,
        Err(error) => vec![rejected(error.rejection(message.body, message.source), message)],
    }
}

fn parse(kind: Kind, m: &Message<'_>, now: Timestamp) -> Result<Vec<Event>, InputError> {
    match kind {
        Kind::Intent => {
            let intent = intent::parse_intent(m.body, m.content_type, m.service, m.message_id, now)?;
            Ok(vec![Event::IntentReceived { intent, origin: origin(m, None) }])
        }
        Kind::Ack => {
            let ack = ack::parse_ack(m.body, m.service)?;
            Ok(vec![Event::AckReceived { ack, origin: origin(m, None) }])
        }
        Kind::Telemetry => {
            let service = names::service("telemetry.service", m.service.unwrap_or_default())?;
            let parsed = telemetry::parse_telemetry(m.body, m.content_type, now)?;
            let id = m.message_id.map(str::to_owned).or(parsed.message_id);
            let parts = parsed.columns.len();
            let fact = |(part, columns)| {
                let last = part + 1 == parts;
                // The delivery counts as recorded with the last part; each part has an id of its own, so that a
                // redelivery after a crash between them repeats none.
                let id = match (&id, m.delivery) {
                    (Some(id), _) if parts == 1 => Some(id.clone()),
                    (Some(id), _) => Some(format!("{id}/{part}")),
                    (None, Some(delivery)) if parts > 1 => Some(format!("stream/{}/{part}", delivery.seq)),
                    (None, _) => None,
                };
                let mut origin = origin(m, id);
                origin.delivery = origin.delivery.filter(|_| last);
                Event::BatchReceived { service: service.clone(), columns, origin }
            };
            Ok(parsed.columns.into_iter().enumerate().map(fact).collect())
        }
    }
}

fn rejected(rejection: Rejection, m: &Message<'_>) -> Event {
    Event::InputRejected { rejection, origin: origin(m, None) }
}

fn origin(m: &Message<'_>, message_id: Option<String>) -> Origin {
    // A trace context is passed on to others: what is not one is left behind. So is an id that nobody would send.
    let traceparent = m.traceparent.filter(|text| names::is_traceparent(text)).map(str::to_owned);
    let message_id = message_id.filter(|id| id.len() <= MESSAGE_ID_MAX);
    Origin { delivery: m.delivery, message_id, traceparent }
}

/// The service in the fourth part of a subject: `sluice.v1.telemetry.<service>`.
pub fn service_in(subject: &str) -> Option<&str> {
    subject.split('.').nth(3)
}
