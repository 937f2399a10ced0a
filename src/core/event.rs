//! All that can ever have happened, each in its newest form.
//!
//! A *fact* came from outside; a *conclusion* is what `decide` derived from the facts before it.
//! Stored forms and their versions are `wire::events`' business.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::columns::Columns;
use super::effect::Shown;
use super::evidence::{GuardrailReading, Scored};
use super::exposure::{SegmentShare, Task};
use super::ids::{
    Actuator, CommandId, Digest, EventSeq, IntentId, Metric, RolloutId, Scope, Service, SmokeId, Version,
    Weight,
};
use super::makeup::{Makeup, Parts};
use super::policy::{ChangeKind, Policy};
use super::reference::Reference;
use super::smoke::{SmokeAsk, SmokeOutcome, SmokeResult};
use super::time::{Span, Timestamp};
use super::windows::{Bounds, Freeze};

/// Identifies the rules by which conclusions follow from facts. Changes whenever a recorded history
/// could be decided differently. The rules of before stay, for histories that were decided by them and for rollouts that
/// began under them.
///
/// - 1: the first.
/// - 2: an intent for what serves already is refused, whatever it says about `from`; a rollout that waited ends when its
///   turn comes and there is nothing left for it to do; a source that is silent on both sides is told apart from a canary
///   that is silent; what a part of the traffic shows counts for that part only, also when it comes late.
pub const ENGINE: u32 = 2;

/// Everything that can happen: facts first, then conclusions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    // Facts.
    LogCreated {
        log: Uuid,
        build: String,
    },
    DaemonStarted {
        build: String,
    },
    /// From here on conclusions follow by these rules: the first daemon that has them opened the log.
    EngineAdopted {
        engine: u32,
    },
    PolicyStored {
        digest: Digest,
        policy: Policy,
        source: String,
    },
    IntentReceived {
        intent: Intent,
        origin: Origin,
    },
    BatchReceived {
        service: Service,
        columns: Columns,
        origin: Origin,
    },
    AckReceived {
        ack: Ack,
        origin: Origin,
    },
    OperatorActed {
        act: Act,
        origin: Origin,
    },
    InputRejected {
        rejection: Rejection,
        origin: Origin,
    },
    /// A deadline came due; which time it is stands in the envelope.
    TimePassed,
    /// The wall clock was set forward, or the machine slept, for so long: time that nobody watched.
    ClockStepped {
        by: Span,
    },
    /// What the windows of a policy say from now on: worked out outside, for cron lines and zones are not the core's.
    WindowsComputed {
        policy: Digest,
        bounds: Bounds,
    },
    FreezeOrdered {
        order: FreezeOrder,
        origin: Origin,
    },
    /// A smoke test has come to an end, or could not be run.
    SmokeFinished {
        result: SmokeResult,
    },

    // Conclusions.
    IntentRefused {
        intent: IntentId,
        service: Service,
        refusal: Refusal,
    },
    RolloutCreated {
        rollout: RolloutId,
        opening: Opening,
    },
    ActAccepted {
        rollout: RolloutId,
        verb: Verb,
        actor: String,
    },
    ActRefused {
        rollout: RolloutId,
        verb: Verb,
        actor: String,
        refusal: Refusal,
    },
    ReferenceFrozen {
        rollout: RolloutId,
        guardrail: String,
        reference: Reference,
    },
    CohortScored {
        rollout: RolloutId,
        guardrail: String,
        cohort: Timestamp,
        scored: Box<Scored>,
    },
    VerdictReached {
        rollout: RolloutId,
        reading: GuardrailReading,
    },
    DecisionMade {
        rollout: RolloutId,
        decision: Box<Decision>,
    },
    CommandIssued {
        rollout: RolloutId,
        command: Command,
    },
    CommandResent {
        rollout: RolloutId,
        command: CommandId,
        attempt: u32,
        actuators: Vec<Actuator>,
    },
    CommandApplied {
        rollout: RolloutId,
        command: CommandId,
    },
    AckRefused {
        command: CommandId,
        actuator: Actuator,
        refusal: Refusal,
    },
    AlertRaised {
        rollout: RolloutId,
        alert: Alert,
    },
    RolloutEnded {
        rollout: RolloutId,
        outcome: Outcome,
    },
    /// In place of the one that was on for the same, if there was one.
    FreezeStarted {
        freeze: Freeze,
    },
    /// `by`: `None` when its time was over.
    FreezeEnded {
        service: Option<Service>,
        by: Option<String>,
    },
    FreezeRefused {
        service: Option<Service>,
        actor: String,
        refusal: Refusal,
    },
    /// Telemetry shows what the last confirmed command asked for.
    EffectShown {
        rollout: RolloutId,
        effect: Shown,
    },
    SmokeAsked {
        rollout: RolloutId,
        ask: SmokeAsk,
    },
}

impl Event {
    /// The stored name of the kind; part of the log format.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::LogCreated { .. } => "log.created",
            Event::DaemonStarted { .. } => "daemon.started",
            Event::EngineAdopted { .. } => "engine.adopted",
            Event::PolicyStored { .. } => "policy.stored",
            Event::IntentReceived { .. } => "intent.received",
            Event::BatchReceived { .. } => "batch.received",
            Event::AckReceived { .. } => "ack.received",
            Event::OperatorActed { .. } => "operator.acted",
            Event::InputRejected { .. } => "input.rejected",
            Event::TimePassed => "time.passed",
            Event::ClockStepped { .. } => "clock.stepped",
            Event::WindowsComputed { .. } => "windows.computed",
            Event::FreezeOrdered { .. } => "freeze.ordered",
            Event::IntentRefused { .. } => "intent.refused",
            Event::RolloutCreated { .. } => "rollout.created",
            Event::ActAccepted { .. } => "act.accepted",
            Event::ActRefused { .. } => "act.refused",
            Event::ReferenceFrozen { .. } => "reference.frozen",
            Event::CohortScored { .. } => "cohort.scored",
            Event::VerdictReached { .. } => "verdict.reached",
            Event::DecisionMade { .. } => "decision.made",
            Event::CommandIssued { .. } => "command.issued",
            Event::CommandResent { .. } => "command.resent",
            Event::CommandApplied { .. } => "command.applied",
            Event::AckRefused { .. } => "ack.refused",
            Event::AlertRaised { .. } => "alert.raised",
            Event::RolloutEnded { .. } => "rollout.ended",
            Event::FreezeStarted { .. } => "freeze.started",
            Event::FreezeEnded { .. } => "freeze.ended",
            Event::FreezeRefused { .. } => "freeze.refused",
            Event::SmokeFinished { .. } => "smoke.finished",
            Event::EffectShown { .. } => "effect.shown",
            Event::SmokeAsked { .. } => "smoke.asked",
        }
    }

    /// Whether the event came from outside. Everything else must follow from the facts before it.
    pub fn is_fact(&self) -> bool {
        matches!(
            self,
            Event::LogCreated { .. }
                | Event::DaemonStarted { .. }
                | Event::EngineAdopted { .. }
                | Event::PolicyStored { .. }
                | Event::IntentReceived { .. }
                | Event::BatchReceived { .. }
                | Event::AckReceived { .. }
                | Event::OperatorActed { .. }
                | Event::InputRejected { .. }
                | Event::TimePassed
                | Event::ClockStepped { .. }
                | Event::WindowsComputed { .. }
                | Event::FreezeOrdered { .. }
                | Event::SmokeFinished { .. }
        )
    }

    /// The rollout a conclusion is about.
    pub fn rollout(&self) -> Option<&RolloutId> {
        match self {
            Event::RolloutCreated { rollout, .. }
            | Event::ActAccepted { rollout, .. }
            | Event::ActRefused { rollout, .. }
            | Event::ReferenceFrozen { rollout, .. }
            | Event::CohortScored { rollout, .. }
            | Event::VerdictReached { rollout, .. }
            | Event::DecisionMade { rollout, .. }
            | Event::CommandIssued { rollout, .. }
            | Event::CommandResent { rollout, .. }
            | Event::CommandApplied { rollout, .. }
            | Event::AlertRaised { rollout, .. }
            | Event::EffectShown { rollout, .. }
            | Event::SmokeAsked { rollout, .. }
            | Event::RolloutEnded { rollout, .. } => Some(rollout),
            _ => None,
        }
    }
}

/// How a fact came in: enough to recognise its redelivery and to continue its trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The stream and sequence it was delivered from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// The sender's own message id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// W3C trace context of the causing message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// A position in one of the inbound streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub stream: Inbound,
    pub seq: u64,
    /// When the broker took it in. A stream that is removed and made anew gives the same numbers again, to younger
    /// messages. Logs of before this was kept do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Timestamp>,
}

/// An inbound stream of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inbound {
    Intents,
    Telemetry,
    Acks,
}

/// A request to roll out one change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub id: IntentId,
    pub service: Service,
    pub kind: ChangeKind,
    /// What serves now, where the submitter named it.
    pub from: Option<Version>,
    pub to: Version,
    /// By name; else the default of the kind.
    pub policy: Option<String>,
    pub by: String,
    pub reason: String,
    /// What an investigation of the last attempt's rollback came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// What it shares with rollouts of other services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// Its submitter calls it significant: the policy for such changes is its default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub significant: bool,
    /// What `to` is made of.
    #[serde(default, skip_serializing_if = "Makeup::is_empty")]
    pub makeup: Makeup,
    /// What `from` is made of, where the submitter named it.
    #[serde(default, skip_serializing_if = "Makeup::is_empty")]
    pub from_makeup: Makeup,
    /// BLAKE3 of what was submitted: tells a repetition from a reused id.
    pub content: Digest,
}

/// An actuator's word on a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    pub service: Service,
    pub command: CommandId,
    pub actuator: Actuator,
    pub status: AckStatus,
    pub took_ms: Option<u64>,
    /// How much of a task is done, of how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<(u64, u64)>,
}

/// Whether the command is carried out; if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckStatus {
    Applied,
    /// At work on it.
    Progress,
    Rejected(String),
}

/// What a person does to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    pub rollout: RolloutId,
    pub verb: Verb,
    pub actor: String,
    pub host: String,
    /// The command line or request as given.
    pub args: Vec<String>,
    pub reason: String,
    /// Refuse if the rollout has changed since this event.
    pub if_seq: Option<EventSeq>,
    /// Promote past gates that are not met (never past a failing rollback guardrail).
    pub force: bool,
}

/// What a person can do to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Promote,
    Pause,
    Resume,
    Rollback,
    Abort,
    Approve,
    Note,
    /// Takes responsibility for a rollout.
    Claim,
    /// Promotes without waiting for time and sample counts, and past nothing else.
    Skip,
}

impl Verb {
    pub const ALL: [Verb; 9] = [
        Verb::Promote,
        Verb::Pause,
        Verb::Resume,
        Verb::Rollback,
        Verb::Abort,
        Verb::Approve,
        Verb::Note,
        Verb::Claim,
        Verb::Skip,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Promote => "promote",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Rollback => "rollback",
            Verb::Abort => "abort",
            Verb::Approve => "approve",
            Verb::Note => "note",
            Verb::Claim => "claim",
            Verb::Skip => "skip",
        }
    }
}

/// What a person does about a freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeOrder {
    /// Begin one; else end it.
    pub freeze: bool,
    /// `None`: everything.
    pub service: Option<Service>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    pub actor: String,
    pub host: String,
    /// The command line or request as given.
    pub args: Vec<String>,
    pub reason: String,
}

/// An input that could not become any other fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Stable, for programs: `E1009`.
    pub code: String,
    /// For people: the field, the value and the limit.
    pub message: String,
    /// Where it came in: a subject or a path.
    pub source: String,
    pub bytes: u64,
    /// The beginning of the input, control characters escaped, at most 64 bytes.
    pub excerpt: String,
}

/// Why something that was understood is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: String,
    pub message: String,
}

/// What a rollout starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    pub intent: IntentId,
    pub service: Service,
    pub kind: ChangeKind,
    pub from: Version,
    pub to: Version,
    pub policy_name: String,
    pub policy: Digest,
    pub by: String,
    pub reason: String,
    /// 1 for the first rollout of this `to` on this service, 2 for the second, ...
    pub attempt: u32,
    /// As the intent gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// What `to` is made of.
    #[serde(default, skip_serializing_if = "Makeup::is_empty")]
    pub makeup: Makeup,
    /// What `from` is made of, as far as it is known.
    #[serde(default, skip_serializing_if = "Makeup::is_empty")]
    pub from_makeup: Makeup,
    /// The rollout it waits for.
    pub behind: Option<RolloutId>,
    /// Rollouts whose place it takes: they end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supersedes: Vec<RolloutId>,
    /// What it shares with rollouts of other services, by its intent and its policy, in order of name. Of those that
    /// share a scope, one at a time has traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// Of the rollouts that come before it in a scope, the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
    /// The engine it is decided by to its end; 0 for the first. See [`Opening::engine`].
    #[serde(default, skip_serializing_if = "is_first")]
    pub rules: u32,
    /// Trace context of the intent; everything sent about the rollout continues it.
    pub traceparent: Option<String>,
}

fn is_first(rules: &u32) -> bool {
    *rules == 0
}

impl Opening {
    pub fn engine(&self) -> u32 {
        self.rules.max(1)
    }
}

/// Who has a scope, as long as another waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    pub scope: Scope,
    pub by: RolloutId,
}

/// What can be decided about a rollout.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    Promote,
    Hold,
    Rollback,
    Complete,
}

impl Choice {
    pub fn named(name: &str) -> Option<Choice> {
        let all = [Choice::Promote, Choice::Hold, Choice::Rollback, Choice::Complete];
        all.into_iter().find(|choice| choice.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Choice::Promote => "promote",
            Choice::Hold => "hold",
            Choice::Rollback => "rollback",
            Choice::Complete => "complete",
        }
    }
}

/// What was chosen for a rollout, with everything that speaks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub choice: Choice,
    pub baseline: Version,
    pub canary: Version,
    /// Index of the step it was made at; `None` before the first.
    pub step: Option<u16>,
    /// Of the part of the traffic that it is about.
    pub weight_from: Weight,
    pub weight_to: Weight,
    /// That part, where a policy has parts; a rollback without one is of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// What actuators do at the step that is entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Of a rollback of one part: the step that serves then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u16>,
    /// What made the choice, binding first. Empty only for a promotion that nothing spoke against.
    pub because: Vec<Reason>,
    /// Every guardrail as it stood.
    pub readings: Vec<GuardrailReading>,
    /// Log-evidence (nats) that the rollback guardrails together have against the canary.
    pub harm_ln: f64,
    pub policy: Digest,
    pub engine: u32,
    /// First and last event the decision could know.
    pub inputs: (EventSeq, EventSeq),
    /// Who ordered it; `None` when the policy did.
    pub actor: Option<String>,
}

impl Decision {
    /// Whether guardrails or a deadline made it, and not somebody's word.
    pub fn is_automatic(&self) -> bool {
        !matches!(self.because.first(), Some(Reason::Operator { .. } | Reason::Superseded { .. }))
    }
}

/// One thing that binds a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "gate")]
pub enum Reason {
    /// A guardrail's verdict is in the way, or forces the choice.
    Guardrail {
        name: String,
    },
    /// Too few settled canary observations.
    Samples {
        metric: Metric,
        have: u64,
        need: u64,
    },
    Bake {
        left_ms: u64,
    },
    Deadline {
        after_ms: u64,
    },
    /// A change window of the policy: closed, or passed on an order.
    Window {
        why: String,
        turns: Option<Timestamp>,
    },
    /// A person's freeze of one service, or of everything.
    Frozen {
        service: Option<Service>,
        by: String,
        reason: String,
        until: Option<Timestamp>,
    },
    Approvals {
        have: u8,
        need: u8,
    },
    Paused {
        by: String,
    },
    Operator {
        by: String,
        reason: String,
    },
    ActuatorRejected {
        actuator: Actuator,
        why: String,
    },
    SoakOver,
    /// A condition of the policy holds, or cannot be told to be false yet.
    Condition {
        name: String,
        known: bool,
    },
    /// A guardrail is beyond its limit in one slice: `eval_pass[suite=refunds]`.
    Slice {
        name: String,
    },
    /// A part of the traffic was taken back by itself; what comes next is a person's decision.
    Segment {
        name: String,
    },
    /// Not every actuator has confirmed in time.
    NotApplied {
        waiting: Vec<Actuator>,
        within_ms: u64,
    },
    /// A newer change of the service takes its place.
    Superseded {
        by: RolloutId,
    },
    /// What telemetry shows of the last command: of so many requests since its confirmation, the canary's.
    Effective {
        to: Weight,
        canary: u64,
        requests: u64,
        shown: bool,
    },
    /// `outcome`: `None` while it runs.
    Smoke {
        name: String,
        outcome: Option<SmokeOutcome>,
        /// The last it said.
        detail: String,
        within_ms: u64,
    },
}

/// An instruction to actuators: serve this share from the canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub id: CommandId,
    pub service: Service,
    /// Sequence of the decision it carries out.
    pub decision: EventSeq,
    pub baseline: Version,
    pub canary: Version,
    /// What the canary is made of, where it is a bundle.
    #[serde(default, skip_serializing_if = "Parts::is_empty")]
    pub bundle: Parts,
    /// Share of whoever is in no named part of the traffic.
    pub weight: Weight,
    /// Shares of the named parts that have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<SegmentShare>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    pub actuators: Vec<Actuator>,
}

/// Something a person should know about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub kind: AlertKind,
    /// One sentence with the values.
    pub summary: String,
    pub reading: Option<GuardrailReading>,
}

/// What an alert is about. Each is raised once a rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// It failed; named by the guardrail.
    Guardrail(String),
    /// No reference can be frozen for it.
    Unjudgeable(String),
    ActuatorSilent(Actuator),
    ActuatorRejected(Actuator),
    Deadline(u16),
    /// A step was not applied in time.
    NotApplied(u16),
    /// A part of the traffic was taken back by itself.
    Segment(String),
    /// A condition of the policy holds.
    Condition(String),
    /// A guardrail failed in one slice: its name, and the value of its tag.
    Slice(String, String),
    /// What came before a rollout that waited has left it nothing to do.
    Overtaken,
    /// Nobody knows whether it obeys; named again and again, with the number of times before.
    RollbackUnconfirmed(Actuator, u32),
    /// Telemetry does not show what was confirmed; of a rollback again and again.
    NotEffective(CommandId, u32),
    /// A smoke test failed, and the policy holds; or it could not be run.
    Smoke(SmokeId),
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    RolledBack,
    Aborted,
    /// A newer change took its place; it was taken back if it had traffic.
    Superseded,
}

/// Counts of one arm, for display and gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmCount {
    pub n: u64,
    pub sum: f64,
}
