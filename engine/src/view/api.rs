//! The API, the same over HTTP and over NATS: its verbs, and the schemas of what it takes and gives. Strict on the way in: an
//! unknown field is an error. On the way out fields are only ever added.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::act::{ActAnswer, ActRequest};
use super::error::{ApiError, ErrorBody};
use super::events::{EventAnswer, EventRequest, EventsPage, EventsRequest, FollowLine};
use super::evidence::{EvidenceAnswer, EvidenceRequest};
use super::explain::Explanation;
use super::freeze::{FreezeAnswer, FreezeRequest};
use super::info::InfoAnswer;
use super::intake::{AckAnswer, DeployAnswer, TelemetryAnswer};
use super::list::{ListAnswer, ListRequest};
use super::plan::{PlanAnswer, PlanRequest};
use super::rollout::{RolloutRequest, RolloutView};
use super::windows::{WindowsAnswer, WindowsRequest};
use crate::core::event::verb::Verb;
use crate::wire::intent::INTENT_MAX;
use crate::wire::json;
use crate::wire::schema::schema;

/// What a verb of the API does; the names of the NATS endpoints.
pub const VERBS: [(&str, &str); 22] = [
    ("ls", "open rollouts and the last ended ones"),
    ("status", "one rollout in full"),
    ("explain", "one rollout, what happens next, and what you can do"),
    ("plan", "how long a rollout of a service would take, and what would shorten it"),
    ("deploy", "an intent: starts a rollout"),
    act(Verb::Promote),
    act(Verb::Pause),
    act(Verb::Resume),
    act(Verb::Rollback),
    act(Verb::Abort),
    act(Verb::Approve),
    act(Verb::Note),
    ("freeze", "nothing of a service, or at all, moves forward; rollbacks do"),
    ("unfreeze", "ends a freeze"),
    ("windows", "whether a promotion could happen at a time, and why"),
    act(Verb::Claim),
    act(Verb::Skip),
    ("ack", "an actuator confirms a command"),
    ("events", "a page of the log"),
    ("event", "one event, and why it came"),
    ("evidence", "every factor of the evidence behind an event"),
    ("info", "version, log, policies"),
];

/// The row of a verb that acts on a rollout.
const fn act(verb: Verb) -> (&'static str, &'static str) {
    let spec = verb.spec();
    (spec.name, spec.does)
}

/// Reads the strict JSON object of a request. Unlike the messages, requests have lists in them.
pub fn request<T: DeserializeOwned>(verb: &str, body: &[u8]) -> Result<T, ApiError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    Ok(json::flat_object(verb, json::text(verb, body, INTENT_MAX)?)?)
}

/// JSON Schemas of everything the API takes and gives and the bus carries out, by name.
pub fn schemas() -> Vec<(&'static str, Value)> {
    macro_rules! of {
        ($($name:literal $type:ty),* $(,)?) => { vec![$(($name, schema::<$type>($name, $name))),*] };
    }
    of![
        "rollout" RolloutView,
        "api-error" ErrorBody,
        "api-ls-request" ListRequest,
        "api-ls" ListAnswer,
        "api-status-request" RolloutRequest,
        "api-explain" Explanation,
        "api-plan-request" PlanRequest,
        "api-plan" PlanAnswer,
        "api-deploy" DeployAnswer,
        "api-act-request" ActRequest,
        "api-act" ActAnswer,
        "api-freeze-request" FreezeRequest,
        "api-freeze" FreezeAnswer,
        "api-windows-request" WindowsRequest,
        "api-windows" WindowsAnswer,
        "api-ack" AckAnswer,
        "api-telemetry" TelemetryAnswer,
        "api-events-request" EventsRequest,
        "api-events" EventsPage,
        "api-event-request" EventRequest,
        "api-event" EventAnswer,
        "api-evidence-request" EvidenceRequest,
        "api-evidence" EvidenceAnswer,
        "api-follow" FollowLine,
        "api-info" InfoAnswer,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_of_the_core_is_a_verb_of_the_api() {
        for verb in Verb::ALL {
            assert!(VERBS.iter().any(|(name, _)| *name == verb.as_str()), "{}", verb.as_str());
        }
    }
}
