//! All that can ever have happened, each in its newest form.
//!
//! A *fact* came from outside; a *conclusion* is what `decide` derived from the facts before it.
//! Stored forms and their versions are `wire::events`' business.

pub mod alert;
pub mod bundle;
pub mod code;
pub mod command;
pub mod decision;
pub mod fact;
pub mod reading;
pub mod refusal;
pub mod rollout_spec;
pub mod smoke;
pub mod verb;
pub mod windows;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{Actuator, CommandId, Digest, IntentId, RolloutId, Service};
use super::policy::Policy;
use super::rules::ENGINE;
use super::time::{Span, Timestamp};
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
use crate::core::telemetry::columns::Columns;

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
        spec: RolloutSpec,
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
    /// What every log begins with: which one it is, and by which rules conclusions follow in it.
    pub fn begin(log: Uuid, build: &str) -> [Event; 2] {
        [Event::LogCreated { log, build: build.to_owned() }, Event::EngineAdopted { engine: ENGINE }]
    }

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

    /// How a fact came in, where somebody sent it.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Event::IntentReceived { origin, .. }
            | Event::BatchReceived { origin, .. }
            | Event::AckReceived { origin, .. }
            | Event::OperatorActed { origin, .. }
            | Event::FreezeOrdered { origin, .. }
            | Event::InputRejected { origin, .. } => Some(origin),
            _ => None,
        }
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
