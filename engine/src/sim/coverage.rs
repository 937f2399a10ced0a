//! What a history has been through, told from its events.

mod decided;
mod judged;
pub mod rare;

use std::collections::{BTreeMap, BTreeSet};

pub use judged::Judged;

use self::rare::Rare;
use crate::core::event::Event;
use crate::core::event::alert::AlertKind;
use crate::core::event::code::Code;
use crate::core::event::fact::{Ack, AckStatus};
use crate::core::event::rollout_spec::{Outcome, RolloutSpec};
use crate::core::event::smoke::{SmokeOutcome, SmokeResult};
use crate::core::event::verb::Verb;
use crate::core::event::windows::Bounds;
use crate::core::ids::{Actuator, CommandId, Digest, RolloutId, Service, SmokeId, Version, Weight};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::GuardrailKind;
use crate::core::policy::segment::Task;
use crate::core::telemetry::columns::Columns;
use crate::core::time::Timestamp;
use crate::invariants::Violation;
use crate::wire::envelope::Envelope;

#[derive(Clone, Debug)]
struct Seen {
    spec: RolloutSpec,
    baseline: Version,
    /// Its first step was promoted to.
    begun: bool,
    paused: bool,
    /// Shares commanded, and whether the last one is confirmed.
    weight: Weight,
    confirmed: bool,
    harm: bool,
    full: bool,
    /// Kinds that failed.
    failed: BTreeSet<GuardrailKind>,
    /// A person promoted it.
    pushed: bool,
    acked: u32,
    /// It is being taken back; people were told that telemetry does not show what was confirmed.
    back: bool,
    unshown: bool,
    /// Smoke tests asked for, and those that have ended.
    tests: BTreeMap<SmokeId, bool>,
    /// The step last decided on, and the last segment of the traffic that was (an index; the rest comes last).
    step: Option<u16>,
    reached: usize,
    /// A segment was taken back, and nobody has said how to go on.
    segment_taken_back: bool,
    /// The last command, what it asks for, and how far who reported was.
    command: Option<CommandId>,
    task: Option<Task>,
    progress: BTreeMap<Actuator, u64>,
}

impl Seen {
    fn new(spec: &RolloutSpec) -> Seen {
        Seen {
            baseline: spec.from.clone(),
            spec: spec.clone(),
            begun: false,
            paused: false,
            weight: Weight::ZERO,
            confirmed: true,
            harm: false,
            full: false,
            failed: BTreeSet::new(),
            pushed: false,
            acked: 0,
            back: false,
            unshown: false,
            tests: BTreeMap::new(),
            step: None,
            reached: 0,
            segment_taken_back: false,
            command: None,
            task: None,
            progress: BTreeMap::new(),
        }
    }

    /// A person gave an order.
    fn acted(&mut self, verb: Verb) -> Option<Rare> {
        match verb {
            Verb::Pause => self.paused = true,
            Verb::Resume => {
                self.paused = false;
                return Some(Rare::Paused);
            }
            Verb::Promote => self.pushed = true,
            Verb::Rollback if self.back => return Some(Rare::TakenAsDone),
            Verb::Claim => return Some(Rare::Claimed),
            Verb::Skip => {
                self.pushed = true;
                return Some(Rare::Skipped);
            }
            _ => {}
        }
        None
    }

    /// People were told.
    fn alerted(&mut self, alert: &AlertKind) -> Option<Rare> {
        self.unshown |= matches!(alert, AlertKind::NotEffective(..));
        match alert {
            AlertKind::RollbackUnconfirmed(_, 1..) => Some(Rare::SilenceAgain),
            AlertKind::NotEffective(..) if self.back => Some(Rare::BackNotEffective),
            AlertKind::NotEffective(..) => Some(Rare::NotEffective),
            AlertKind::Smoke(_) => Some(Rare::SmokeHeld),
            AlertKind::Overtaken => Some(Rare::Overtaken),
            AlertKind::AboveCap(_) => Some(Rare::AboveCap),
            AlertKind::Slice(..) => Some(Rare::SliceHolds),
            AlertKind::Condition(_) => Some(Rare::ConditionHolds),
            AlertKind::ActuatorSilent(_) => Some(Rare::ActuatorSilent),
            AlertKind::ActuatorRejected(_) => Some(Rare::ActuatorRefused),
            AlertKind::NotApplied(_) => Some(Rare::NotApplied),
            AlertKind::Guardrail(name) if name == "cost_usd" => Some(Rare::CostAlert),
            _ => None,
        }
    }

    /// Its step gives a segment all it can have, and others follow.
    fn fills(&self, policy: &Policy) -> bool {
        self.step.map(usize::from).is_some_and(|step| {
            let last = step + 1 == policy.steps.len();
            policy.steps[step].to == Weight::FULL && !last
        })
    }

    /// Somebody works on a task.
    fn at_work(&self) -> bool {
        !self.confirmed && matches!(self.task, Some(Task::Populate | Task::Start))
    }
}

/// What has been noticed so far.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pub rare: BTreeSet<Rare>,
    pub head: Digest,
    /// Found outside the checker's sight.
    pub broken: Option<Violation>,
    /// Commands and whom they were for.
    pub issued: BTreeMap<CommandId, BTreeSet<Actuator>>,
    /// Commands that were confirmed: they must have arrived.
    applied: BTreeSet<CommandId>,
    /// Guardrails that have had their first reference.
    referenced: BTreeSet<(RolloutId, String)>,
    /// Who graded what guardrails last scored, by hash.
    judges: BTreeMap<(RolloutId, String), u64>,
    /// What the windows of a policy last said, and freezes that are on (`None`: of everything).
    windows: BTreeMap<Digest, (bool, Timestamp)>,
    frozen: BTreeSet<Option<Service>>,
    open: BTreeMap<RolloutId, Seen>,
    over: Vec<(RolloutId, Seen)>,
    /// What came of the evidence that a segment which went back alone ended.
    ended: Vec<Seen>,
    policies: BTreeMap<Digest, Policy>,
}

impl Coverage {
    /// Rollouts that have ended.
    pub fn over(&self) -> usize {
        self.over.len()
    }

    /// Whether the command was confirmed by all.
    pub fn stands(&self, command: CommandId) -> bool {
        self.applied.contains(&command)
    }

    /// Takes in the next durable event.
    pub fn see(&mut self, e: &Envelope) {
        self.head = e.hash;
        let rare = &mut self.rare;
        match &e.event {
            Event::ClockStepped { .. } => drop(rare.insert(Rare::ClockForward)),
            Event::InputRejected { rejection, .. } => {
                rare.insert(Rare::Refused);
                if rejection.code == Code::NotFinite || rejection.code == Code::OutOfRange {
                    rare.insert(Rare::NotFinite);
                }
            }
            Event::BatchReceived { service, columns, .. } => self.batch(service, columns),
            Event::PolicyStored { digest, policy, .. } => {
                self.policies.insert(*digest, policy.clone());
            }
            Event::AckReceived { ack, .. } => {
                self.reported(ack);
                let open = self.open.values_mut().find(|seen| seen.spec.service == ack.service);
                if let Some(seen) = open.filter(|seen| !seen.confirmed) {
                    seen.acked += 1;
                }
            }
            Event::DaemonStarted { .. } => self.restarted(e.at),
            Event::WindowsComputed { policy, bounds } => self.computed(*policy, bounds),
            Event::FreezeStarted { freeze } => {
                let all = freeze.service.is_none();
                rare.insert(if all { Rare::FrozenAll } else { Rare::FrozenOne });
                self.frozen.insert(freeze.service.clone());
            }
            Event::FreezeEnded { service, by } => {
                rare.insert(if by.is_some() { Rare::FreezeEnded } else { Rare::FreezeOver });
                self.frozen.remove(service);
            }
            Event::FreezeRefused { .. } => drop(rare.insert(Rare::FreezeNone)),
            Event::IntentRefused { refusal, .. } => {
                match refusal.code() {
                    Code::IntentAgain => rare.insert(Rare::IntentAgain),
                    Code::IntentIdReused => rare.insert(Rare::IntentReused),
                    Code::Quarantined => rare.insert(Rare::Quarantined),
                    Code::SeveralParts => rare.insert(Rare::SeveralParts),
                    _ => false,
                };
            }
            Event::RolloutCreated { rollout, spec } => self.created(rollout, spec),
            Event::ActRefused { refusal, .. } => {
                match refusal.code() {
                    Code::Moved => rare.insert(Rare::StaleOrder),
                    Code::RolloutOver | Code::RolledBackAlready => rare.insert(Rare::OrderTooLate),
                    Code::ApprovedAlready => rare.insert(Rare::ApprovedTwice),
                    Code::NotTakenBack => rare.insert(Rare::UndoneTooLate),
                    Code::Claimed => rare.insert(Rare::ClaimedTwice),
                    Code::OwnChange => rare.insert(Rare::OwnApproval),
                    Code::SkipRefused => rare.insert(Rare::SkipRefused),
                    _ => false,
                };
            }
            Event::SmokeFinished { result } => self.tested(result),
            Event::AckRefused { .. } => {}
            event => {
                if let Some(id) = event.rollout() {
                    self.rollout(id.clone(), e.at, event);
                }
            }
        }
    }

    /// What comes of versions that nobody waits for.
    fn batch(&mut self, service: &Service, columns: &Columns) {
        let seen = self.open.values().find(|seen| seen.spec.service == *service);
        let known = |v: &Version| seen.is_none_or(|seen| *v == seen.baseline || *v == seen.spec.to);
        if columns.series.iter().any(|series| !known(&series.version)) {
            self.rare.insert(Rare::StrangeVersion);
        }
    }

    /// What was under way when the daemon went down.
    fn restarted(&mut self, at: Timestamp) {
        self.rare.extend(self.open.values().any(Seen::at_work).then_some(Rare::TaskKilled));
        self.rare
            .extend(self.open.values().any(|seen| seen.segment_taken_back).then_some(Rare::SegmentKilled));
        self.rare.extend((!self.frozen.is_empty()).then_some(Rare::FreezeRestart));
        let used = self.open.values().filter_map(|seen| self.windows.get(&seen.spec.policy));
        let stale = used.clone().any(|(_, until)| *until <= at);
        self.rare.extend(stale.then_some(Rare::WindowStale));
    }

    /// What the windows of a policy say from now on.
    fn computed(&mut self, policy: Digest, bounds: &Bounds) {
        let before = self.windows.insert(policy, (bounds.open, bounds.until));
        let waiting = self.open.values().find(|seen| seen.spec.policy == policy);
        if let (Some(seen), false) = (waiting, bounds.open) {
            self.rare.insert(Rare::WindowShut);
            self.rare.extend((!seen.begun).then_some(Rare::Scheduled));
        }
        let opens = bounds.open && before.is_some_and(|(open, _)| !open);
        self.rare.extend(opens.then_some(Rare::WindowOpened));
    }

    /// A rollout that begins, or waits.
    fn created(&mut self, rollout: &RolloutId, spec: &RolloutSpec) {
        if spec.behind.is_some() {
            self.rare.insert(Rare::Queued);
        }
        let service = |id: &RolloutId| self.open.get(id).map(|seen| &seen.spec.service);
        if spec.blocked.as_ref().is_some_and(|b| service(&b.by) != Some(&spec.service)) {
            self.rare.insert(Rare::ScopeWaited);
        }
        if spec.attempt > 1 {
            self.rare.insert(Rare::SecondAttempt);
            self.rare.extend(spec.finding.is_some().then_some(Rare::Investigated));
        }
        self.open.insert(rollout.clone(), Seen::new(spec));
    }

    /// How a smoke test ended.
    fn tested(&mut self, result: &SmokeResult) {
        let seen = self.open.get_mut(&result.rollout);
        let known = seen.and_then(|seen| seen.tests.get_mut(&result.id));
        let state = match (known, result.outcome) {
            (None, _) => Rare::SmokeStranger,
            (Some(true), _) => Rare::SmokeTwice,
            (Some(over), outcome) => {
                *over = true;
                match outcome {
                    SmokeOutcome::Passed => Rare::SmokePassed,
                    SmokeOutcome::TimedOut => Rare::SmokeHung,
                    SmokeOutcome::CouldNotRun => Rare::SmokeNotRun,
                    SmokeOutcome::Failed => return,
                }
            }
        };
        self.rare.insert(state);
    }

    /// An actuator's word on a task.
    fn reported(&mut self, ack: &Ack) {
        let again = ack.status == AckStatus::Progress && self.applied.contains(&ack.command);
        self.rare.extend(again.then_some(Rare::TaskLonger));
        let mut open = self.open.values_mut();
        let Some(seen) = open.find(|seen| seen.command == Some(ack.command)) else { return };
        let Some((done, of)) = ack.done else { return };
        let rare = &mut self.rare;
        match ack.status {
            AckStatus::Applied if done < of => drop(rare.insert(Rare::TaskHalf)),
            AckStatus::Progress => {
                let before = seen.progress.insert(ack.actuator.clone(), done);
                rare.extend((!seen.confirmed).then_some(Rare::TaskReported));
                rare.extend(before.is_some_and(|before| before > done).then_some(Rare::TaskBackward));
            }
            _ => {}
        }
    }

    fn rollout(&mut self, id: RolloutId, now: Timestamp, event: &Event) {
        if let Event::ActAccepted { verb: Verb::Rollback, .. } = event
            && let Some(i) = self.over.iter().rposition(|(over, _)| *over == id)
        {
            self.rare.insert(Rare::Undone);
            self.open.extend([self.over.remove(i)]);
        }
        let Some(seen) = self.open.get_mut(&id) else { return };
        let policy = self.policies.get(&seen.spec.policy);
        let rare = &mut self.rare;
        match event {
            Event::ActAccepted { verb, .. } => rare.extend(seen.acted(*verb)),
            Event::ReferenceFrozen { guardrail, reference, .. } => {
                let again = !self.referenced_first(&id, guardrail);
                self.rare.extend((again && reference.threshold.is_some()).then_some(Rare::Refrozen));
                self.rare.extend(again.then_some(Rare::Refreshed));
            }
            Event::CohortScored { guardrail, scored, .. } => {
                let judge = scored.evidence.judge;
                if judge != 0 {
                    let before = self.judges.insert((id.clone(), guardrail.clone()), judge);
                    rare.extend(before.filter(|before| *before != judge).map(|_| Rare::JudgeChanged));
                }
            }
            Event::VerdictReached { reading, .. } => self.verdict(&id, reading),
            Event::DecisionMade { decision, .. } => self.decided(&id, now, decision),
            Event::CommandIssued { command, .. } => {
                (seen.weight, seen.confirmed, seen.acked) = (command.weight, false, 0);
                seen.unshown = false;
                (seen.command, seen.task) = (Some(command.id), command.task);
                seen.progress.clear();
                self.issued.insert(command.id, command.actuators.iter().cloned().collect());
            }
            Event::CommandApplied { command, .. } => {
                rare.extend((seen.acked > 1).then_some(Rare::PartlyConfirmed));
                rare.extend(policy.is_some_and(|policy| seen.fills(policy)).then_some(Rare::SegmentFull));
                rare.extend((seen.task == Some(Task::Release)).then_some(Rare::Released));
                seen.confirmed = true;
                self.applied.insert(*command);
            }
            Event::EffectShown { .. } => {
                rare.insert(Rare::EffectShown);
                rare.extend(seen.unshown.then_some(Rare::EffectLate));
            }
            Event::SmokeAsked { ask, .. } => {
                rare.extend((ask.attempt > 1).then_some(Rare::SmokeAgain));
                seen.tests.entry(ask.id).or_insert(false);
            }
            Event::AlertRaised { alert, .. } => rare.extend(seen.alerted(&alert.kind())),
            Event::RolloutEnded { outcome, .. } => {
                match outcome {
                    Outcome::Completed => rare.insert(Rare::Completed),
                    Outcome::Aborted => rare.insert(Rare::Aborted),
                    Outcome::Superseded => rare.insert(Rare::Superseded),
                    Outcome::RolledBack => false,
                };
                let seen = self.open.remove(&id).expect("it is open");
                self.over.push((id, seen));
            }
            _ => {}
        }
    }

    /// Whether this is the guardrail's first reference in the rollout.
    fn referenced_first(&mut self, id: &RolloutId, guardrail: &str) -> bool {
        self.referenced.insert((id.clone(), guardrail.to_owned()))
    }
}
