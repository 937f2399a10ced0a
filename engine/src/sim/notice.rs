//! What a history has been through, told from its events.

mod judged;

use std::collections::{BTreeMap, BTreeSet};

pub use judged::Judged;

use super::rare::Rare;
use crate::core::event::Event;
use crate::core::event::alert::AlertKind;
use crate::core::event::decision::{Choice, Decision, Reason};
use crate::core::event::fact::{Ack, AckStatus};
use crate::core::event::opening::{Opening, Outcome};
use crate::core::event::reading::GuardrailReading;
use crate::core::event::smoke::SmokeOutcome;
use crate::core::event::verb::Verb;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{Actuator, CommandId, Digest, RolloutId, Service, SmokeId, Version, Weight};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::{GuardrailKind, Rule};
use crate::core::policy::segment::Task;
use crate::core::time::Timestamp;
use crate::invariants::Violation;
use crate::wire::envelope::Envelope;

#[derive(Clone, Debug)]
struct Seen {
    opening: Opening,
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
    parked: bool,
    /// The last command, what it asks for, and how far who reported was.
    command: Option<CommandId>,
    task: Option<Task>,
    progress: BTreeMap<Actuator, u64>,
}

impl Seen {
    /// Somebody works on a task.
    fn at_work(&self) -> bool {
        !self.confirmed && matches!(self.task, Some(Task::Populate | Task::Start))
    }
}

/// What has been noticed so far.
#[derive(Clone, Debug, Default)]
pub struct Notice {
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

impl Notice {
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
                if rejection.code == "E2001" || rejection.code == "E2002" {
                    rare.insert(Rare::NotFinite);
                }
            }
            Event::BatchReceived { service, columns, .. } => {
                let seen = self.open.values().find(|seen| seen.opening.service == *service);
                let known =
                    |v: &Version| seen.is_none_or(|seen| *v == seen.baseline || *v == seen.opening.to);
                if columns.series.iter().any(|series| !known(&series.version)) {
                    rare.insert(Rare::StrangeVersion);
                }
            }
            Event::PolicyStored { digest, policy, .. } => {
                self.policies.insert(*digest, policy.clone());
            }
            Event::AckReceived { ack, .. } => {
                self.reported(ack);
                let open = self.open.values_mut().find(|seen| seen.opening.service == ack.service);
                if let Some(seen) = open.filter(|seen| !seen.confirmed) {
                    seen.acked += 1;
                }
            }
            Event::DaemonStarted { .. } => {
                rare.extend(self.open.values().any(Seen::at_work).then_some(Rare::TaskKilled));
                rare.extend(self.open.values().any(|seen| seen.parked).then_some(Rare::SegmentKilled));
                rare.extend((!self.frozen.is_empty()).then_some(Rare::FreezeRestart));
                let used = self.open.values().filter_map(|seen| self.windows.get(&seen.opening.policy));
                let stale = used.clone().any(|(_, until)| *until <= e.at);
                rare.extend(stale.then_some(Rare::WindowStale));
            }
            Event::WindowsComputed { policy, bounds } => {
                let before = self.windows.insert(*policy, (bounds.open, bounds.until));
                let waiting = self.open.values().find(|seen| seen.opening.policy == *policy);
                if let (Some(seen), false) = (waiting, bounds.open) {
                    rare.insert(Rare::WindowShut);
                    rare.extend((!seen.begun).then_some(Rare::Scheduled));
                }
                let opens = bounds.open && before.is_some_and(|(open, _)| !open);
                rare.extend(opens.then_some(Rare::WindowOpened));
            }
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
                match refusal.code.as_str() {
                    "E1014" => rare.insert(Rare::IntentAgain),
                    "E1015" => rare.insert(Rare::IntentReused),
                    "E1035" => rare.insert(Rare::Quarantined),
                    "E1036" => rare.insert(Rare::SeveralParts),
                    _ => false,
                };
            }
            Event::RolloutCreated { rollout, opening } => {
                if opening.behind.is_some() {
                    rare.insert(Rare::Queued);
                }
                let service = |id: &RolloutId| self.open.get(id).map(|seen| &seen.opening.service);
                if opening.blocked.as_ref().is_some_and(|b| service(&b.by) != Some(&opening.service)) {
                    rare.insert(Rare::ScopeWaited);
                }
                if opening.attempt > 1 {
                    rare.insert(Rare::SecondAttempt);
                    rare.extend(opening.finding.is_some().then_some(Rare::Investigated));
                }
                let seen = Seen {
                    baseline: opening.from.clone(),
                    opening: opening.clone(),
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
                    parked: false,
                    command: None,
                    task: None,
                    progress: BTreeMap::new(),
                };
                self.open.insert(rollout.clone(), seen);
            }
            Event::ActRefused { refusal, .. } => {
                match refusal.code.as_str() {
                    "E0313" => rare.insert(Rare::StaleOrder),
                    "E1021" | "E1022" => rare.insert(Rare::OrderTooLate),
                    "E0319" => rare.insert(Rare::ApprovedTwice),
                    "E0322" => rare.insert(Rare::UndoneTooLate),
                    "E0323" => rare.insert(Rare::ClaimedTwice),
                    "E0324" => rare.insert(Rare::OwnApproval),
                    "E0325" => rare.insert(Rare::SkipRefused),
                    _ => false,
                };
            }
            Event::SmokeFinished { result } => {
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
                rare.insert(state);
            }
            Event::AckRefused { .. } => {}
            event => {
                if let Some(id) = event.rollout() {
                    self.rollout(id.clone(), e.at, event);
                }
            }
        }
    }

    fn readings(&mut self, readings: &[GuardrailReading]) {
        for reading in readings {
            if reading.accepted.is_some() {
                self.rare.insert(Rare::Accepted);
            }
            if reading.late > 0 {
                self.rare.insert(Rare::LateSample);
            }
            if reading.epoch > 1 {
                self.rare.insert(Rare::Epoch);
            }
        }
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

    /// What a decision says of segments, A/B and tasks.
    fn exposed(&mut self, id: &RolloutId, d: &Decision) {
        let Some(seen) = self.open.get_mut(id) else { return };
        let Some(policy) = self.policies.get(&seen.opening.policy) else { return };
        let rare = &mut self.rare;
        let by = d.actor.is_some();
        let automatic = d.is_automatic();
        let segment = |step: u16| policy.steps.get(usize::from(step)).and_then(|step| step.segment);
        let split = |reason: &Reason| {
            let of = |name: &str| policy.guardrails.iter().any(|g| g.name == name && g.rule == Rule::Split);
            matches!(reason, Reason::Guardrail { name } if of(name))
        };
        match d.choice {
            Choice::Promote => {
                let next = d.step.map_or(0, |step| step + 1);
                if let (Some(segments), Some(step)) = (&policy.segments, d.step) {
                    rare.extend((segment(next) != segment(step)).then_some(Rare::SegmentNext));
                    rare.extend((seen.parked && by).then_some(Rare::SegmentAgain));
                    seen.reached = segment(next).map_or(segments.named.len(), usize::from);
                }
                rare.extend((policy.ab && d.step == Some(0) && !by).then_some(Rare::AbWon));
                (seen.step, seen.parked) = (Some(next), false);
            }
            Choice::Rollback => {
                rare.extend(seen.at_work().then_some(Rare::TaskCalledOff));
                let late = matches!(d.because.first(), Some(Reason::NotApplied { .. }));
                rare.extend(late.then_some(Rare::NotAppliedBack));
                if policy.ab && automatic && !late {
                    let deadline = matches!(d.because.first(), Some(Reason::Deadline { .. }));
                    rare.insert(if deadline { Rare::AbKept } else { Rare::AbHarm });
                }
                if policy.segments.is_some() && automatic {
                    rare.insert(if d.back_to.is_some() { Rare::SegmentAlone } else { Rare::SegmentAll });
                }
                if let Some(back) = d.back_to {
                    // The evidence begins anew.
                    self.ended.push(seen.clone());
                    (seen.step, seen.parked, seen.harm) = (Some(back), true, false);
                    seen.reached = segment(back).map_or(seen.reached, usize::from);
                    seen.failed.clear();
                }
            }
            Choice::Hold => {
                rare.extend((policy.ab && d.because.iter().any(split)).then_some(Rare::AbSplit));
                let waits = |reason: &Reason| matches!(reason, Reason::Segment { .. });
                rare.extend(d.because.iter().any(waits).then_some(Rare::SegmentWaits));
            }
            Choice::Complete => {}
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
        let policy = self.policies.get(&seen.opening.policy);
        let rare = &mut self.rare;
        match event {
            Event::ActAccepted { verb, .. } => match verb {
                Verb::Pause => seen.paused = true,
                Verb::Resume => {
                    seen.paused = false;
                    rare.insert(Rare::Paused);
                }
                Verb::Promote => seen.pushed = true,
                Verb::Rollback if seen.back => drop(rare.insert(Rare::TakenAsDone)),
                Verb::Claim => drop(rare.insert(Rare::Claimed)),
                Verb::Skip => {
                    seen.pushed = true;
                    rare.insert(Rare::Skipped);
                }
                _ => {}
            },
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
            Event::VerdictReached { reading, .. } => {
                match reading.verdict {
                    Verdict::Stale => rare.insert(Rare::Stale),
                    Verdict::NoData => rare.insert(Rare::NoData),
                    Verdict::SourceBroken => rare.insert(Rare::SourceBroken),
                    _ => false,
                };
                if reading.verdict == Verdict::Fail {
                    seen.failed.insert(reading.kind);
                }
                if reading.kind == GuardrailKind::Paired && seen.task == Some(Task::Shadow) && seen.confirmed
                {
                    match reading.verdict {
                        Verdict::Pass => rare.insert(Rare::ShadowShown),
                        Verdict::Fail => rare.insert(Rare::ShadowFailed),
                        _ => false,
                    };
                }
                rare.extend(match (reading.kind, reading.verdict) {
                    (_, Verdict::Fail) if reading.excused.is_some() => Some(Rare::Excused),
                    (GuardrailKind::Quantile, Verdict::Fail) => Some(Rare::QuantileFails),
                    (GuardrailKind::Score, Verdict::Fail) => Some(Rare::ScoreFails),
                    (GuardrailKind::Count, Verdict::Fail) => Some(Rare::CountFails),
                    (GuardrailKind::Paired, Verdict::Pass) => Some(Rare::PairPasses),
                    (GuardrailKind::Split, Verdict::Fail) => Some(Rare::SplitFails),
                    (GuardrailKind::Missing, Verdict::Fail) => Some(Rare::MissingFails),
                    _ => None,
                });
                self.readings(std::slice::from_ref(reading));
            }
            Event::DecisionMade { decision: d, .. } => {
                let by = d.actor.is_some();
                seen.back = d.choice == Choice::Rollback;
                let about = |reason: &Reason| match reason {
                    Reason::NotApplied { .. } => Some(Rare::SilenceBack),
                    Reason::Smoke { .. } => Some(Rare::SmokeFailed),
                    _ => None,
                };
                rare.extend(d.because.first().and_then(about).filter(|_| seen.back));
                seen.begun |= d.choice == Choice::Promote;
                let window = self.windows.get(&seen.opening.policy);
                let shut = window.is_some_and(|(open, until)| !open && *until > now)
                    || self.frozen.contains(&None)
                    || self.frozen.contains(&Some(seen.opening.service.clone()));
                rare.extend((shut && d.choice == Choice::Rollback && !by).then_some(Rare::HarmShut));
                let passed = d.choice == Choice::Promote
                    && d.because.iter().any(|reason| matches!(reason, Reason::Window { .. }));
                rare.extend(passed.then_some(Rare::WindowPassed));
                match d.choice {
                    Choice::Promote if d.step.is_none() => {
                        seen.baseline = d.baseline.clone();
                        if seen.opening.behind.is_some() {
                            rare.insert(Rare::NextInLine);
                        }
                    }
                    Choice::Promote if by => {
                        let met = d.readings.iter().all(|r| r.verdict == Verdict::Pass);
                        rare.insert(if met { Rare::PromotedByPerson } else { Rare::Overridden });
                    }
                    Choice::Promote => {
                        rare.insert(Rare::Promoted);
                        let steps = policy.map_or(0, |policy| policy.steps.len());
                        seen.full |= d.step.is_some_and(|step| usize::from(step) + 2 == steps);
                    }
                    Choice::Hold => drop(rare.insert(Rare::Held)),
                    Choice::Complete => {}
                    Choice::Rollback if by => drop(rare.insert(Rare::RolledBackByPerson)),
                    Choice::Rollback if matches!(d.because.first(), Some(Reason::Deadline { .. })) => {
                        rare.insert(Rare::Deadline);
                    }
                    Choice::Rollback => {
                        let failing = |kind: GuardrailKind| {
                            d.readings.iter().any(|r| r.kind == kind && r.verdict == Verdict::Fail)
                        };
                        if failing(GuardrailKind::Absolute) {
                            rare.insert(Rare::Crash);
                        }
                        if failing(GuardrailKind::Proportion) {
                            rare.insert(Rare::Harm);
                            seen.harm = true;
                        }
                        if seen.paused {
                            rare.insert(Rare::HarmPaused);
                        }
                        if !seen.confirmed {
                            rare.insert(Rare::HarmApplying);
                        }
                        if seen.weight == Weight::FULL && seen.confirmed {
                            rare.insert(Rare::HarmSoaking);
                        }
                    }
                }
                self.readings(&d.readings);
                self.exposed(&id, d);
            }
            Event::CommandIssued { command, .. } => {
                (seen.weight, seen.confirmed, seen.acked) = (command.weight, false, 0);
                seen.unshown = false;
                (seen.command, seen.task) = (Some(command.id), command.task);
                seen.progress.clear();
                self.issued.insert(command.id, command.actuators.iter().cloned().collect());
            }
            Event::CommandApplied { command, .. } => {
                if seen.acked > 1 {
                    rare.insert(Rare::PartlyConfirmed);
                }
                seen.confirmed = true;
                let step = policy.zip(seen.step).map(|(policy, step)| {
                    let last = usize::from(step) + 1 == policy.steps.len();
                    policy.step(step).to == Weight::FULL && !last
                });
                rare.extend((step == Some(true)).then_some(Rare::SegmentFull));
                rare.extend((seen.task == Some(Task::Release)).then_some(Rare::Released));
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
            Event::AlertRaised { alert, .. } => {
                seen.unshown |= matches!(alert.kind, AlertKind::NotEffective(..));
                match &alert.kind {
                    AlertKind::RollbackUnconfirmed(_, 1..) => rare.insert(Rare::SilenceAgain),
                    AlertKind::NotEffective(..) if seen.back => rare.insert(Rare::BackNotEffective),
                    AlertKind::NotEffective(..) => rare.insert(Rare::NotEffective),
                    AlertKind::Smoke(_) => rare.insert(Rare::SmokeHeld),
                    AlertKind::Overtaken => rare.insert(Rare::Overtaken),
                    AlertKind::AboveCap(_) => rare.insert(Rare::AboveCap),
                    AlertKind::Slice(..) => rare.insert(Rare::SliceHolds),
                    AlertKind::Condition(_) => rare.insert(Rare::ConditionHolds),
                    AlertKind::ActuatorSilent(_) => rare.insert(Rare::ActuatorSilent),
                    AlertKind::ActuatorRejected(_) => rare.insert(Rare::ActuatorRefused),
                    AlertKind::NotApplied(_) => rare.insert(Rare::NotApplied),
                    AlertKind::Guardrail(name) if name == "cost_usd" => rare.insert(Rare::CostAlert),
                    _ => false,
                };
            }
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
