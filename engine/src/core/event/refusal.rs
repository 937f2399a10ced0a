//! What is understood and not done, with the values that it takes to say why. The words are `words::refusal`'s.

use serde::{Deserialize, Serialize};

use super::bundle::PartChange;
use super::code::Code;
use super::decision::{Grounds, Reason};
use super::rollout_spec::Outcome;
use super::verb::Verb;
use crate::core::ids::{
    Actuator, CommandId, Digest, EventSeq, IntentId, Metric, RolloutId, Service, Version, Weight,
};
use crate::core::policy::ChangeKind;
use crate::core::time::Span;

/// Why something that was understood is not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    // Of an act on a rollout.
    NoRollout {
        rollout: RolloutId,
    },
    Over {
        rollout: RolloutId,
        outcome: Outcome,
        at: EventSeq,
    },
    WasRolledBack {
        rollout: RolloutId,
        at: EventSeq,
    },
    /// Completed, and what served before is being given up.
    Releasing {
        rollout: RolloutId,
    },
    RollingBack {
        rollout: RolloutId,
        verb: Verb,
        /// Sequence of the decision.
        decision: EventSeq,
    },
    /// All have confirmed the rollback, and telemetry does not show it.
    RollbackNotShown {
        rollout: RolloutId,
    },
    /// After what was looked at.
    Moved {
        rollout: RolloutId,
        seen: EventSeq,
        moved: EventSeq,
    },
    CompletedSince {
        rollout: RolloutId,
        at: EventSeq,
    },
    ClaimedAlready {
        rollout: RolloutId,
        by: String,
        seq: EventSeq,
    },
    ClaimedByAnother {
        rollout: RolloutId,
        by: String,
        seq: EventSeq,
    },
    NoTraffic {
        rollout: RolloutId,
    },
    HasTraffic {
        rollout: RolloutId,
    },
    AlreadyPaused {
        rollout: RolloutId,
    },
    NotPaused {
        rollout: RolloutId,
    },
    NoApprovalNeeded {
        rollout: RolloutId,
    },
    OwnChange {
        rollout: RolloutId,
        by: String,
    },
    ApprovedAlready {
        rollout: RolloutId,
        by: String,
    },
    NotConfirmed {
        rollout: RolloutId,
        verb: Verb,
    },
    NotStarted {
        rollout: RolloutId,
        verb: Verb,
    },
    FullyExposed {
        rollout: RolloutId,
        verb: Verb,
    },
    HarmShown {
        rollout: RolloutId,
    },
    /// `at`: the step.
    GateNotMet {
        rollout: RolloutId,
        at: String,
        gate: Box<Grounds>,
    },
    /// A closed window or a freeze. `at`: the step that serves; `None` before the first.
    Shut {
        rollout: RolloutId,
        at: Option<Weight>,
        gate: Box<Reason>,
    },
    SkipsTooMuch {
        rollout: RolloutId,
        at: String,
        gate: Box<Grounds>,
    },
    // A completed rollout is not taken back.
    AnotherActive {
        service: Service,
        active: RolloutId,
    },
    OtherServes {
        rollout: RolloutId,
        service: Service,
        serves: Option<Version>,
        baseline: Version,
    },
    NotKept {
        rollout: RolloutId,
        service: Service,
        baseline: Version,
        since: Span,
        keep: Span,
    },

    // Of an intent.
    IntentAgain {
        intent: IntentId,
        seq: EventSeq,
    },
    /// With another content before.
    IntentIdReused {
        intent: IntentId,
        seq: EventSeq,
        before: Digest,
        now: Digest,
    },
    NoSuchPolicy {
        policy: String,
        known: Vec<String>,
    },
    NoPolicyFor {
        kind: ChangeKind,
        known: Vec<String>,
    },
    FromUnknown {
        service: Service,
    },
    ServesAlready {
        service: Service,
        to: Version,
    },
    /// What the active rollout goes back to.
    GoesBackTo {
        to: Version,
        active: RolloutId,
    },
    Quarantined {
        service: Service,
        to: Version,
        rollout: RolloutId,
        decision: EventSeq,
        why: Box<Grounds>,
    },
    RollingOutAlready {
        to: Version,
        by: RolloutId,
    },
    OneAtATime {
        service: Service,
        active: RolloutId,
    },
    QueueFull {
        service: Service,
        waiting: usize,
        limit: usize,
    },
    SeveralParts {
        changes: Vec<PartChange>,
    },
    PartsUnknown {
        service: Service,
        from: Version,
    },

    // Of an order about freezes; `None`: everything.
    FreezeOver {
        service: Option<Service>,
    },
    FreezesFull {
        limit: usize,
    },
    NotFrozen {
        service: Option<Service>,
    },
    /// By whom.
    AllFrozen {
        service: Service,
        by: String,
    },
    OnlyOneFrozen {
        service: Service,
    },

    // Of an ack.
    AckOfAnother {
        command: CommandId,
        actuator: Actuator,
        actuators: Vec<Actuator>,
    },
    OtherCommandWaits {
        service: Service,
        waits: CommandId,
        command: CommandId,
    },
    NothingWaits {
        service: Service,
        command: CommandId,
    },

    // Of telemetry.
    TooManySeries {
        service: Service,
        /// Of the first that is too many.
        metric: Metric,
        limit: usize,
    },
}

impl Refusal {
    pub fn code(&self) -> Code {
        use Refusal as R;
        match self {
            R::NoRollout { .. } => Code::NotFound,
            R::Over { .. } | R::Releasing { .. } => Code::RolloutOver,
            R::RollingBack { verb: Verb::Rollback, .. } => Code::RolledBackAlready,
            R::RollingBack { .. } => Code::RolloutOver,
            R::WasRolledBack { .. } | R::RollbackNotShown { .. } => Code::RolledBackAlready,
            R::Moved { .. } | R::CompletedSince { .. } => Code::Moved,
            R::ClaimedAlready { .. } | R::ClaimedByAnother { .. } => Code::Claimed,
            R::NoTraffic { .. } => Code::NoTraffic,
            R::HasTraffic { .. } => Code::HasTraffic,
            R::AlreadyPaused { .. } => Code::AlreadyPaused,
            R::NotPaused { .. } => Code::NotPaused,
            R::NoApprovalNeeded { .. } => Code::NoApprovalNeeded,
            R::OwnChange { .. } => Code::OwnChange,
            R::ApprovedAlready { .. } => Code::ApprovedAlready,
            R::NotConfirmed { .. } => Code::NotConfirmed,
            R::NotStarted { .. } | R::FullyExposed { .. } => Code::NothingAhead,
            R::HarmShown { .. } | R::GateNotMet { .. } | R::Shut { .. } => Code::PromoteRefused,
            R::SkipsTooMuch { .. } => Code::SkipRefused,
            R::AnotherActive { .. } | R::OtherServes { .. } | R::NotKept { .. } => Code::NotTakenBack,
            R::IntentAgain { .. } => Code::IntentAgain,
            R::IntentIdReused { .. } => Code::IntentIdReused,
            R::NoSuchPolicy { .. } => Code::NoSuchPolicy,
            R::NoPolicyFor { .. } => Code::PolicyName,
            R::FromUnknown { .. } => Code::FromUnknown,
            R::ServesAlready { .. } | R::GoesBackTo { .. } => Code::ServesAlready,
            R::Quarantined { .. } => Code::Quarantined,
            R::RollingOutAlready { .. } => Code::RollingOutAlready,
            R::OneAtATime { .. } => Code::OneAtATime,
            R::QueueFull { .. } => Code::QueueFull,
            R::SeveralParts { .. } => Code::SeveralParts,
            R::PartsUnknown { .. } => Code::PartsUnknown,
            R::FreezeOver { .. } => Code::FreezeOver,
            R::FreezesFull { .. } => Code::FreezesFull,
            R::NotFrozen { .. } | R::AllFrozen { .. } | R::OnlyOneFrozen { .. } => Code::NotFrozen,
            R::AckOfAnother { .. } | R::OtherCommandWaits { .. } | R::NothingWaits { .. } => Code::StrayAck,
            R::TooManySeries { .. } => Code::TooManySeries,
        }
    }
}
