//! What a history has been through, told from its events.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{DEARER, Effect, Fault, OFTENER, Plan, SLOWER, Truth};
use super::rare::Rare;
use crate::core::event::{AlertKind, Choice, Event, Opening, Outcome, Reason, Verb};
use crate::core::evidence::{GuardrailKind, GuardrailReading};
use crate::core::ids::{Actuator, CommandId, Digest, RolloutId, Service, SmokeId, Version, Weight};
use crate::core::smoke::SmokeOutcome;
use crate::core::time::Timestamp;
use crate::core::verdict::Verdict;
use crate::invariants::Violation;
use crate::wire::envelope::Envelope;

/// The truth about a canary, and what evidence made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Of a proportion: of all that decides on a rollback.
    pub kind: GuardrailKind,
    /// `Same`: as good as the baseline. `Beyond`: worse by the limit or more.
    pub truth: Truth,
    /// Taken back by evidence of harm.
    pub harm: bool,
    /// Promoted to all traffic by evidence of safety.
    pub full: bool,
}

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
    /// What the windows of a policy last said, and freezes that are on (`None`: of everything).
    windows: BTreeMap<Digest, (bool, Timestamp)>,
    frozen: BTreeSet<Option<Service>>,
    open: BTreeMap<RolloutId, Seen>,
    over: Vec<(RolloutId, Seen)>,
}

/// What is true of a canary of shift `b` against a baseline of shift `a`, as each kind's limit has it.
fn further(kind: GuardrailKind, baseline: &Effect, canary: &Effect) -> Truth {
    let (a, b) = (baseline.shift, canary.shift);
    let times = |factor: f64| ((1.0 + factor * b) / (1.0 + factor * a) - 1.0) / factor;
    let limits = match kind {
        GuardrailKind::Split => f64::from(u8::from((a > 1.0) != (b > 1.0))) * 2.0,
        GuardrailKind::Mean => (canary.cost / baseline.cost - 1.0) / DEARER,
        GuardrailKind::Quantile => times(SLOWER),
        GuardrailKind::Count => times(OFTENER),
        GuardrailKind::Missing => (b - a).abs(),
        _ => b - a,
    };
    match limits - 1.0 {
        over if over > 1e-9 => Truth::Beyond,
        over if over > -1e-9 => Truth::AtLimit,
        _ => Truth::Within,
    }
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

    /// What became of rollouts whose truth is known and that no person promoted.
    pub fn judged(&self, plan: &Plan) -> Vec<Judged> {
        let truth = |seen: &Seen| {
            let service = plan.services.iter().find(|s| s.name == seen.opening.service.as_str())?;
            let (a, b) = (service.versions.get(&seen.baseline)?, service.versions.get(&seen.opening.to)?);
            if a.breaks.is_some() || b.breaks.is_some() {
                return None;
            }
            let same = a.pass == b.pass && a.error == b.error;
            if same {
                return Some(Truth::Same);
            }
            // The limits are 4 points of passes, and twice the errors and a point.
            let errors = service.error * b.error >= 2.0 * service.error * a.error + 0.01;
            (b.pass <= a.pass - 0.04 || errors).then_some(Truth::Beyond)
        };
        let judged = self.over.iter().map(|(_, seen)| seen).filter(|seen| !seen.pushed);
        let all = GuardrailKind::Proportion;
        let mut found: Vec<Judged> = judged
            .clone()
            .filter_map(|seen| {
                Some(Judged { kind: all, truth: truth(seen)?, harm: seen.harm, full: seen.full })
            })
            .collect();
        for seen in judged {
            let Some(service) = plan.services.iter().find(|s| s.name == seen.opening.service.as_str()) else {
                continue;
            };
            let of = |version| service.versions.get(version);
            let (Some(a), Some(b)) = (of(&seen.baseline), of(&seen.opening.to)) else { continue };
            for kind in service.kinds.some.iter().chain([&GuardrailKind::Mean]) {
                let labels = matches!(kind, GuardrailKind::Count | GuardrailKind::Split);
                // Under a wrong clock the log assigns requests to other steps than those that served them.
                if !(labels && plan.has(Fault::Clock)) {
                    let (harm, full) = (seen.failed.contains(kind), seen.full && kind.shows_safety());
                    found.push(Judged { kind: *kind, truth: further(*kind, a, b), harm, full });
                }
            }
        }
        found
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
            Event::AckReceived { ack, .. } => {
                let open = self.open.values_mut().find(|seen| seen.opening.service == ack.service);
                if let Some(seen) = open.filter(|seen| !seen.confirmed) {
                    seen.acked += 1;
                }
            }
            Event::DaemonStarted { .. } => {
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

    fn rollout(&mut self, id: RolloutId, now: Timestamp, event: &Event) {
        if let Event::ActAccepted { verb: Verb::Rollback, .. } = event
            && let Some(i) = self.over.iter().rposition(|(over, _)| *over == id)
        {
            self.rare.insert(Rare::Undone);
            self.open.extend([self.over.remove(i)]);
        }
        let Some(seen) = self.open.get_mut(&id) else { return };
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
                        seen.full |= d.weight_to == Weight::FULL;
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
            }
            Event::CommandIssued { command, .. } => {
                (seen.weight, seen.confirmed, seen.acked) = (command.weight, false, 0);
                seen.unshown = false;
                self.issued.insert(command.id, command.actuators.iter().cloned().collect());
            }
            Event::CommandApplied { command, .. } => {
                if seen.acked > 1 {
                    rare.insert(Rare::PartlyConfirmed);
                }
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
            Event::AlertRaised { alert, .. } => {
                seen.unshown |= matches!(alert.kind, AlertKind::NotEffective(..));
                match &alert.kind {
                    AlertKind::RollbackUnconfirmed(_, 1..) => rare.insert(Rare::SilenceAgain),
                    AlertKind::NotEffective(..) if seen.back => rare.insert(Rare::BackNotEffective),
                    AlertKind::NotEffective(..) => rare.insert(Rare::NotEffective),
                    AlertKind::Smoke(_) => rare.insert(Rare::SmokeHeld),
                    AlertKind::ActuatorSilent(_) => rare.insert(Rare::ActuatorSilent),
                    AlertKind::ActuatorRejected(_) => rare.insert(Rare::ActuatorRefused),
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
