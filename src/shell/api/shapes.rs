//! Requests and answers of the API, the same over HTTP and over NATS. Strict on the way in: an unknown field is
//! an error. On the way out fields are only ever added.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evidence::{EvidenceAnswer, EvidenceRequest};
use crate::core::event::fact::Verb;
use crate::core::ids::EventSeq;
use crate::core::policy::ChangeKind;
use crate::view::forecast::{Plan, PlannedGate, PlannedStep};
use crate::view::{FreezeView, RolloutView, Standing, WaitView};
use crate::wire::error::InputError;
use crate::wire::outgoing::DecisionMessage;
use crate::wire::schema::schema;

/// Why a request is not answered: a code for programs, words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable: `E0313`.
    pub code: String,
    /// As HTTP counts.
    pub status: u16,
    pub message: String,
    /// A command line that helps.
    pub help: Option<String>,
}

impl ApiError {
    pub fn new(code: &str, message: impl Into<String>) -> ApiError {
        ApiError { code: code.to_owned(), status: status(code), message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> ApiError {
        self.help = Some(help.into());
        self
    }

    pub fn body(&self) -> ErrorBody {
        let ApiError { code, message, help, .. } = self.clone();
        ErrorBody { ok: false, code, message, help }
    }
}

/// What a code means to an HTTP client.
fn status(code: &str) -> u16 {
    match code {
        "E5003" | "E5005" => 403,
        "E4004" | "E5006" => 404,
        "E5008" => 405,
        "E5009" => 408,
        // What the core refuses: it was understood, and does not fit how things stand.
        "E1014" | "E1015" | "E1021" | "E1022" | "E2101" | "E3021" | "E3022" => 409,
        code if code.starts_with("E03") || code.starts_with("E103") => 409,
        "E1011" => 413,
        "E1028" | "E5004" => 415,
        "E5090" => 500,
        "E5021" => 503,
        _ => 400,
    }
}

impl From<InputError> for ApiError {
    fn from(error: InputError) -> ApiError {
        ApiError::new(error.code, error.message)
    }
}

/// An error as it is answered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// Always false.
    pub ok: bool,
    pub code: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Every ended rollout that is still listed, not only the last 20.
    #[serde(default)]
    pub all: bool,
}

/// Answer to `ls`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ListAnswer {
    /// The event this is as of, and the time.
    pub seq: EventSeq,
    pub at_ms: u64,
    pub rollouts: Vec<RolloutView>,
    /// What is frozen by people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<FreezeView>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// Its id, a unique suffix of it (`118`), or `@last`.
    pub rollout: String,
}

/// Answer to `explain`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Explanation {
    #[serde(flatten)]
    pub rollout: RolloutView,
    /// What happens next if nobody does anything, one sentence each.
    pub next: Vec<String>,
    /// What a person can do about it, as command lines.
    pub you_can: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    pub service: String,
    /// By name; else the default of `kind`.
    pub policy: Option<String>,
    pub kind: Option<ChangeKind>,
    /// The default for changes of that kind that are called significant.
    #[serde(default)]
    pub significant: bool,
}

/// Answer to `plan`: what a rollout would take at the traffic seen lately, if the canary is as good as the baseline.
/// Times in milliseconds, `null` where they cannot be told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlanAnswer {
    pub service: String,
    pub policy: String,
    /// What serves, as far as is known.
    pub baseline: Option<String>,
    pub steps: Vec<PlannedStepView>,
    /// Until all traffic is the canary's.
    pub total_ms: Option<u64>,
    /// Observations an hour of each metric that gates, in the last hour or two: what the plan goes by.
    #[serde(default)]
    pub traffic: BTreeMap<String, u64>,
    /// What is slow or cannot be told, and what would shorten it.
    pub advice: Vec<String>,
}

/// One step of a plan.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStepView {
    /// As people call it: `25%`, `beta 10%`, `populate`.
    pub name: String,
    /// In percent.
    pub weight: f64,
    pub bake_ms: u64,
    pub takes_ms: Option<u64>,
    pub deadline_ms: Option<u64>,
    pub gates: Vec<PlannedGateView>,
}

/// One gate of a step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlannedGateView {
    pub gate: String,
    /// Canary observations since the rollout began.
    pub samples: Option<u64>,
    /// From the beginning of the step.
    pub takes_ms: Option<u64>,
}

impl PlanAnswer {
    pub fn new(service: String, policy: String, baseline: Option<String>, plan: Plan) -> PlanAnswer {
        let gate = |gate: PlannedGate| PlannedGateView {
            gate: gate.guardrail,
            samples: gate.samples,
            takes_ms: gate.takes.map(|takes| takes.0),
        };
        let step = |step: PlannedStep| PlannedStepView {
            name: step.name,
            weight: step.to.as_percent(),
            bake_ms: step.bake.0,
            takes_ms: step.takes.map(|takes| takes.0),
            deadline_ms: step.deadline.map(|deadline| deadline.0),
            gates: step.gates.into_iter().map(gate).collect(),
        };
        PlanAnswer {
            service,
            policy,
            baseline,
            steps: plan.steps.into_iter().map(step).collect(),
            total_ms: plan.total.map(|total| total.0),
            traffic: plan.traffic,
            advice: plan.advice,
        }
    }
}

/// Answer to an intent.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeployAnswer {
    /// Always true.
    pub ok: bool,
    pub rollout: String,
    /// The event that created the rollout.
    pub seq: EventSeq,
    pub state: Standing,
    /// `1% 4h > 5% 4h > 100% soak 24h`
    pub plan: String,
    /// How long that will take at the traffic seen lately, and what would shorten it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outlook: Vec<String>,
    /// The rollout it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// What it needs and another has: the rollout and the scope.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<WaitView>,
    /// The same intent had come before; nothing was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// What a person does to a rollout.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActRequest {
    /// As in `status`. Over HTTP the path names it.
    pub rollout: Option<String>,
    /// Who does it.
    #[schemars(length(min = 1, max = 200))]
    pub actor: String,
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub host: String,
    /// The command line as given, for the record.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub args: Vec<String>,
    /// Why. `rollback`, `skip`, `note` and an overriding `promote` or `claim` need one.
    #[serde(default)]
    #[schemars(length(max = 2000))]
    pub reason: String,
    /// Refuse when the rollout has moved since this event.
    pub if_seq: Option<EventSeq>,
    /// Promote although a guardrail or an approval is in the way; claim what somebody else has claimed.
    #[serde(default, rename = "override")]
    pub force: bool,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to an act.
#[derive(Serialize, JsonSchema)]
pub struct ActAnswer {
    /// Always true.
    pub ok: bool,
    pub rollout: String,
    pub verb: &'static str,
    /// The event of the act. Of a dry run: the one it would have become.
    pub seq: EventSeq,
    /// Where the rollout stands now. Of a dry run: would stand.
    pub state: Standing,
    pub summary: String,
    /// What was decided because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionMessage>,
    /// Id of the command that carries it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Nothing was recorded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Begins a freeze, or ends it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// One service; else everything.
    pub service: Option<String>,
    /// When a freeze ends by itself: a time with its zone (`2026-12-24T15:00Z`), or how long it lasts (`4h`).
    pub until: Option<String>,
    /// Who does it.
    #[schemars(length(min = 1, max = 200))]
    pub actor: String,
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub host: String,
    /// The command line as given, for the record.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub args: Vec<String>,
    /// Why.
    #[schemars(length(min = 1, max = 2000))]
    #[serde(default)]
    pub reason: String,
}

/// Answer to `freeze` and `unfreeze`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FreezeAnswer {
    /// Always true.
    pub ok: bool,
    pub verb: &'static str,
    /// The event of the order.
    pub seq: EventSeq,
    pub service: Option<String>,
    pub until_ms: Option<u64>,
    /// Rollouts that moved because of it.
    pub moved: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowsRequest {
    pub service: String,
    /// A time with its zone: `2026-12-24T15:00Z` or `2026-12-24 15:00 Europe/Berlin`. Now, when left out.
    pub at: Option<String>,
}

/// Answer to `windows`: whether a promotion could happen at a time, and why.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WindowsAnswer {
    pub service: Option<String>,
    pub policy: String,
    pub at_ms: u64,
    /// Nothing but evidence, time served and approvals would be in the way.
    pub open: bool,
    /// Which window or freeze says so, and when it next changes.
    pub why: String,
    /// When it opens, or closes, if that is known.
    pub turns_ms: Option<u64>,
    /// The next times at which the windows are open, as far as known now.
    pub openings: Vec<OpeningView>,
}

/// A time at which the windows are open.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OpeningView {
    pub from_ms: u64,
    /// `null`: without an end within 400 days.
    pub to_ms: Option<u64>,
    pub text: String,
}

/// Answer to an ack.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AckAnswer {
    /// Always true.
    pub ok: bool,
    /// The event of the ack; none for a duplicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<EventSeq>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// Answer to telemetry.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TelemetryAnswer {
    /// Always true.
    pub ok: bool,
    /// The event of its first part; none for a duplicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<EventSeq>,
    /// Observations in the message, aggregated ones counted each.
    pub observations: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// First event; 1 when left out.
    #[serde(default = "one")]
    pub from: EventSeq,
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: u64,
    /// Only conclusions about this rollout, each group behind the fact that led to it.
    pub rollout: Option<String>,
}

fn one() -> EventSeq {
    1
}

fn hundred() -> u64 {
    100
}

/// A page of the log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EventsPage {
    pub events: Vec<EventView>,
    /// Where the next page begins. A page may be short, or empty, before the end of the log.
    pub next: EventSeq,
    /// The last event of the log.
    pub last: EventSeq,
}

/// One event for people and programs.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EventView {
    pub seq: EventSeq,
    /// RFC 3339, UTC.
    pub at: String,
    pub at_ms: u64,
    pub kind: &'static str,
    /// One line.
    pub text: String,
    /// The event itself; its form may grow with the log's format.
    pub event: Value,
}

/// One line of `/v1/follow`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FollowLine {
    pub seq: EventSeq,
    pub at: String,
    pub kind: &'static str,
    pub text: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRequest {
    pub seq: EventSeq,
    /// With the fact that led to it, and everything else that fact led to.
    #[serde(default)]
    pub why: bool,
}

/// One event in full.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EventAnswer {
    #[serde(flatten)]
    pub event: EventView,
    /// BLAKE3 of the record before it, and of it.
    pub prev: String,
    pub hash: String,
    /// The fact first, then what followed from it, this event included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<EventView>,
}

/// Answer to `info`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InfoAnswer {
    pub version: &'static str,
    pub engine: u32,
    /// Identity of the log.
    pub log: String,
    pub head: HeadView,
    pub started_ms: u64,
    /// Whether it is connected to a NATS server, or runs on its own.
    pub nats: bool,
    pub policies: Vec<PolicyView>,
}

/// The last event of the log and its hash.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HeadView {
    pub seq: EventSeq,
    pub hash: String,
}

/// A policy that intents can name.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PolicyView {
    pub name: String,
    pub hash: String,
    /// Kinds it is the default for.
    pub applies_to: Vec<ChangeKind>,
    /// Whether that is for changes which their submitter calls significant.
    pub significant: bool,
}

/// What a verb of the API does; the names of the NATS endpoints.
pub const VERBS: [(&str, &str); 22] = [
    ("ls", "open rollouts and the last ended ones"),
    ("status", "one rollout in full"),
    ("explain", "one rollout, what happens next, and what you can do"),
    ("plan", "how long a rollout of a service would take, and what would shorten it"),
    ("deploy", "an intent: starts a rollout"),
    ("promote", "one step now"),
    ("pause", "no promotion until resumed; guardrails stay armed"),
    ("resume", "ends a pause"),
    ("rollback", "canary to 0 now"),
    ("abort", "withdraws a rollout that has no traffic"),
    ("approve", "satisfies an approval gate"),
    ("note", "adds a remark to the log"),
    ("freeze", "nothing of a service, or at all, moves forward; rollbacks do"),
    ("unfreeze", "ends a freeze"),
    ("windows", "whether a promotion could happen at a time, and why"),
    ("claim", "says who takes responsibility for a rollout"),
    ("skip", "one step now, past bake time and sample minimum only"),
    ("ack", "an actuator confirms a command"),
    ("events", "a page of the log"),
    ("event", "one event, and why it came"),
    ("evidence", "every factor of the evidence behind an event"),
    ("info", "version, log, policies"),
];

/// The verbs that act on a rollout.
pub fn act_verb(verb: &str) -> Option<Verb> {
    Verb::ALL.into_iter().find(|v| v.as_str() == verb)
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
    fn every_shape_has_a_schema_of_its_own_name() {
        let schemas = schemas();
        let mut names: Vec<&str> = schemas.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), schemas.len());
        for (name, schema) in &schemas {
            assert_eq!(schema["type"], "object", "{name}");
            assert!(jsonschema::validator_for(schema).is_ok(), "{name}");
            // What comes in is checked strictly, and its schema says so.
            let strict = schema["additionalProperties"] == false;
            assert_eq!(strict, name.ends_with("-request"), "{name}");
        }
    }

    #[test]
    fn every_verb_of_the_core_is_a_verb_of_the_api() {
        for verb in Verb::ALL {
            assert!(VERBS.iter().any(|(name, _)| *name == verb.as_str()), "{}", verb.as_str());
            assert_eq!(act_verb(verb.as_str()), Some(verb));
        }
    }
}
