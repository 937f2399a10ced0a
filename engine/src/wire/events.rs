//! The stored form of each kind of event: its code, and the fields of its payload.
//!
//! A payload is a MessagePack map of the event's fields by name. The table below is part of the log
//! format: a code or a field name, once released, keeps its meaning for ever. When the stored form of a
//! kind changes, its old fields stay as a frozen struct of that version, the kind's newest version
//! rises, and [`decode`] gets one arm that lifts the old form into the new.

use serde::Deserialize;
use serde::ser::{SerializeMap, Serializer as _};
use uuid::Uuid;

use crate::core::event::Event;
use crate::core::event::alert::Alert;
use crate::core::event::command::{Command, Shown};
use crate::core::event::decision::Decision;
use crate::core::event::fact::{Ack, Act, FreezeOrder, Intent, Origin, Rejection};
use crate::core::event::reading::GuardrailReading;
use crate::core::event::refusal::Refusal;
use crate::core::event::rollout_spec::{Outcome, RolloutSpec};
use crate::core::event::smoke::{SmokeAsk, SmokeResult};
use crate::core::event::verb::Verb;
use crate::core::event::windows::{Bounds, Freeze};
use crate::core::evidence::reference::Reference;
use crate::core::evidence::score::Scored;
use crate::core::ids::{Actuator, CommandId, Digest, IntentId, RolloutId, Service};
use crate::core::policy::Policy;
use crate::core::rules::{ENGINE, Rules};
use crate::core::telemetry::columns::Columns;
use crate::core::time::{Span, Timestamp};
use crate::msgpack;
use crate::wire::error::inert;

/// Why a payload cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("uses event version {found}; this build reads 1 to {newest}")]
    Version { found: u8, newest: u8 },
    #[error("is of kind {0}, which this build does not know; use a newer sluice")]
    Kind(u8),
    #[error(
        "was decided by engine {0}, and this build has engine {ENGINE}; use a sluice that has engine {0}"
    )]
    Engine(u32),
    #[error("holds a payload that does not decode: {0}")]
    Damaged(String),
}

/// Appends the newest stored form of `event`'s payload to `out` and returns (kind, version).
///
/// Errors: only those of a type that MessagePack cannot hold; none of the events has one.
pub fn encode(event: &Event, out: &mut Vec<u8>) -> Result<(u8, u8), rmp_serde::encode::Error> {
    let mut payload = rmp_serde::Serializer::new(out).with_struct_map();
    encode_v1(event, &mut payload).map(|kind| (kind, NEWEST))
}

/// Reads the payload of one event and lifts it to the newest form.
pub fn decode(kind: u8, version: u8, payload: &[u8]) -> Result<Event, PayloadError> {
    let event = match (kind, version) {
        // A later version of one kind adds its arms here, before the general one.
        (kind, 1) => decode_v1(kind, payload)?,
        (kind, found) if name(kind).is_some() => {
            return Err(PayloadError::Version { found, newest: NEWEST });
        }
        (kind, _) => return Err(PayloadError::Kind(kind)),
    };
    match engine(&event).filter(|engine| Rules::of(*engine).is_none()) {
        Some(engine) => Err(PayloadError::Engine(engine)),
        None => Ok(event),
    }
}

/// The engine that an event says conclusions follow by.
fn engine(event: &Event) -> Option<u32> {
    match event {
        Event::EngineAdopted { engine } => Some(*engine),
        Event::RolloutCreated { spec, .. } => Some(spec.engine),
        Event::DecisionMade { decision, .. } => Some(decision.engine),
        _ => None,
    }
}

/// Bytes of the decoder's own words in an error.
const WHY_MAX: usize = 256;

/// Newest stored version of every kind.
const NEWEST: u8 = 1;

/// Generates, for version 1 of all kinds: the code's name, the encoder and the decoder.
macro_rules! stored_v1 {
    ($($code:literal $name:literal $kind:ident { $($field:ident: $type:ty),* })*) => {
        /// The name of a kind by its code, as in [`Event::kind`].
        pub fn name(kind: u8) -> Option<&'static str> {
            match kind {
                $($code => Some($name),)*
                _ => None,
            }
        }

        fn encode_v1(
            event: &Event,
            payload: &mut rmp_serde::Serializer<
                &mut Vec<u8>,
                rmp_serde::config::StructMapConfig<rmp_serde::config::DefaultConfig>,
            >,
        ) -> Result<u8, rmp_serde::encode::Error> {
            match event {
                $(Event::$kind { $($field),* } => {
                    const FIELDS: &[&str] = &[$(stringify!($field)),*];
                    #[allow(unused_mut)]
                    let mut map = payload.serialize_map(Some(FIELDS.len()))?;
                    $(map.serialize_entry(stringify!($field), $field)?;)*
                    map.end().map(|()| $code)
                })*
            }
        }

        fn decode_v1(kind: u8, payload: &[u8]) -> Result<Event, PayloadError> {
            match kind {
                $($code => {
                    #[derive(Deserialize)]
                    #[serde(deny_unknown_fields)]
                    struct Stored { $($field: $type),* }
                    whole(payload).map(|Stored { $($field),* }| Event::$kind { $($field),* })
                })*
                unknown => Err(PayloadError::Kind(unknown)),
            }
        }

        #[cfg(test)]
        const CODES: &[u8] = &[$($code),*];
    };
}

stored_v1! {
    1 "log.created" LogCreated { log: Uuid, build: String }
    2 "daemon.started" DaemonStarted { build: String }
    3 "policy.stored" PolicyStored { digest: Digest, policy: Policy, source: String }
    4 "intent.received" IntentReceived { intent: Intent, origin: Origin }
    5 "batch.received" BatchReceived { service: Service, columns: Columns, origin: Origin }
    6 "ack.received" AckReceived { ack: Ack, origin: Origin }
    7 "operator.acted" OperatorActed { act: Act, origin: Origin }
    8 "input.rejected" InputRejected { rejection: Rejection, origin: Origin }
    9 "time.passed" TimePassed {}
    10 "clock.stepped" ClockStepped { by: Span }
    16 "engine.adopted" EngineAdopted { engine: u32 }
    14 "windows.computed" WindowsComputed { policy: Digest, bounds: Bounds }
    15 "freeze.ordered" FreezeOrdered { order: FreezeOrder, origin: Origin }
    17 "smoke.finished" SmokeFinished { result: SmokeResult }
    20 "intent.refused" IntentRefused { intent: IntentId, service: Service, refusal: Refusal }
    21 "rollout.created" RolloutCreated { rollout: RolloutId, spec: RolloutSpec }
    22 "act.accepted" ActAccepted { rollout: RolloutId, verb: Verb, actor: String }
    23 "act.refused" ActRefused { rollout: RolloutId, verb: Verb, actor: String, refusal: Refusal }
    24 "reference.frozen" ReferenceFrozen { rollout: RolloutId, guardrail: String, reference: Reference }
    25 "cohort.scored" CohortScored {
        rollout: RolloutId, guardrail: String, cohort: Timestamp, scored: Box<Scored>
    }
    26 "verdict.reached" VerdictReached { rollout: RolloutId, reading: GuardrailReading }
    27 "decision.made" DecisionMade { rollout: RolloutId, decision: Box<Decision> }
    28 "command.issued" CommandIssued { rollout: RolloutId, command: Command }
    29 "command.resent" CommandResent {
        rollout: RolloutId, command: CommandId, attempt: u32, actuators: Vec<Actuator>
    }
    30 "command.applied" CommandApplied { rollout: RolloutId, command: CommandId }
    31 "ack.refused" AckRefused { command: CommandId, actuator: Actuator, refusal: Refusal }
    32 "alert.raised" AlertRaised { rollout: RolloutId, alert: Alert }
    33 "rollout.ended" RolloutEnded { rollout: RolloutId, outcome: Outcome }
    44 "freeze.started" FreezeStarted { freeze: Freeze }
    45 "freeze.ended" FreezeEnded { service: Option<Service>, by: Option<String> }
    46 "freeze.refused" FreezeRefused { service: Option<Service>, actor: String, refusal: Refusal }
    47 "effect.shown" EffectShown { rollout: RolloutId, effect: Shown }
    48 "smoke.asked" SmokeAsked { rollout: RolloutId, ask: SmokeAsk }
}

/// Decodes `payload` and insists that nothing follows.
fn whole<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, PayloadError> {
    // An error quotes what was found, whatever and however long that is.
    msgpack::from_slice(payload).map_err(|error| PayloadError::Damaged(inert(&error.to_string(), WHY_MAX)))
}

#[cfg(test)]
mod tests;
