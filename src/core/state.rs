//! Everything the log has established so far, and the fold that makes it: `apply(state, event) -> state`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::columns::{Columns, Series, Sums};
use super::conclusion::{AlertKind, Blocked, Choice, Decision, Opening, Outcome};
use super::effect;
use super::event::Event;
use super::fact::{Ack, AckStatus, Act, FreezeOrder, Intent, Verb};
use super::ids::{CommandId, Digest, EventSeq, IntentId, RolloutId, Scope, Service, Version};
use super::intake::Intake;
use super::makeup::Makeup;
use super::planted::{Bug, planted};
use super::policy::{ChangeKind, Policy, Retry, Windows};
use super::rollout::{Bake, Claim, Rollout, Stage};
use super::smoke;
use super::time::{Span, Timestamp};
use super::touched::Touched;
use super::traffic::Seen;
use super::watch::Watch;
use super::windows::{Bounds, Freeze};
use super::words;

/// Ended rollouts that are still listed; older ones are found in the log.
pub const ENDED_MAX: usize = 1_000;
const COMMANDS_MAX: usize = 32;
/// Series (version and metric) a service may send.
pub const SERIES_MAX: usize = 1_000;
/// Values of a message that are looked at for plans.
const LOOKED: usize = 32;

/// The fold of the log: everything a decision may depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub log: Uuid,
    /// The engine adopted last; 0 for none, which is the first. See [`State::engine`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub adopted: u32,
    /// Sequence and time of the last event folded.
    pub last: EventSeq,
    pub now: Timestamp,
    pub policies: BTreeMap<Digest, Policy>,
    /// The newest policy of each name.
    pub policy_names: BTreeMap<String, Digest>,
    pub services: BTreeMap<Service, ServiceState>,
    /// Open rollouts.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// Open rollouts that name a scope, in the order in which they came. The first has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scopes: BTreeMap<Scope, Vec<RolloutId>>,
    /// The last [`ENDED_MAX`], oldest first.
    pub ended: VecDeque<Ended>,
    /// Every intent ever accepted or refused: what it said and where it stands.
    pub intents: BTreeMap<IntentId, (Digest, EventSeq)>,
    pub intake: Intake,
    /// What the windows of the policies in use say, as last worked out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub windows: BTreeMap<Digest, Bounds>,
    /// Freezes that are on: at most one for everything and one a service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
    /// The fact that waits to be answered.
    pub question: Option<Question>,
    /// Rollouts that the last fact may have changed. Not part of the stored state.
    #[serde(skip)]
    pub touched: Touched,
}

/// What is known of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Rollouts so far.
    pub number: u64,
    pub active: Option<RolloutId>,
    pub queue: VecDeque<RolloutId>,
    /// What serves when no rollout is active.
    pub serving: Option<Version>,
    /// What that is made of, as far as it is known.
    #[serde(default, skip_serializing_if = "Makeup::is_empty")]
    pub makeup: Makeup,
    /// Attempts per version.
    pub attempts: BTreeMap<Version, u32>,
    /// Versions that a guardrail or a deadline took back, until they complete.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined: BTreeMap<Version, Quarantine>,
    /// The last commands issued, newest last, at most 32: a late or repeated confirmation of one is
    /// nothing to complain of.
    pub commands: VecDeque<CommandId>,
    /// Series seen, and what they have been like.
    pub series: BTreeMap<Series, Seen>,
}

/// Why a version may not be tried again as if nothing had been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The last rollout that was taken back, and the decision.
    pub rollout: RolloutId,
    pub decision: EventSeq,
    /// The decision in words.
    pub why: String,
}

/// A fact that asks for an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// With the trace context it came with.
    Intent(Box<Intent>, Option<String>),
    Act(Act),
    Ack(Ack),
    Freeze(FreezeOrder),
}

/// What is kept of a rollout that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub id: RolloutId,
    pub opening: Opening,
    pub baseline: Version,
    pub outcome: Outcome,
    pub created: EventSeq,
    pub created_at: Timestamp,
    pub ended: EventSeq,
    pub ended_at: Timestamp,
    /// The decision that ended it, with its sequence.
    pub decision: Option<(EventSeq, Decision)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded: Option<RolloutId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Claim>,
    /// Why it was not begun when its turn came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtaken: Option<String>,
    /// When telemetry had shown what its last command asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Timestamp>,
}

fn is_none(engine: &u32) -> bool {
    *engine == 0
}

impl State {
    /// The rules by which conclusions follow from here on.
    pub fn engine(&self) -> u32 {
        self.adopted.max(1)
    }

    /// The policy that a rollout was created under.
    pub fn policy_of(&self, rollout: &Rollout) -> &Policy {
        if planted(Bug::NewestPolicy) {
            return &self.policies[&self.policy_names[&rollout.opening.policy_name]];
        }
        &self.policies[&rollout.opening.policy]
    }

    /// The default policy of a change kind: the first by name that applies to it.
    /// A kind without a policy for significant changes has one for all of them.
    pub fn default_policy(&self, kind: ChangeKind, significant: bool) -> Option<(&str, Digest)> {
        let of = |significant: bool| {
            self.policy_names.iter().find(|(_, digest)| {
                let policy = &self.policies[digest];
                policy.significant == significant && policy.applies_to.contains(&kind)
            })
        };
        let found = if significant { of(true).or_else(|| of(false)) } else { of(false) };
        found.map(|(name, digest)| (name.as_str(), *digest))
    }

    /// The scope that the rollout waits for, and who has it: all scopes are taken at once, in the order in which
    /// rollouts were created, so that no two can wait for each other.
    pub fn blocked(&self, id: &RolloutId, scopes: &[Scope]) -> Option<Blocked> {
        let first = |scope| self.scopes.get(scope)?.first().filter(|first| *first != id);
        scopes.iter().find_map(|scope| Some(Blocked { scope: scope.clone(), by: first(scope)?.clone() }))
    }

    /// The next moment at which a `TimePassed` fact is needed.
    pub fn due(&self) -> Option<Timestamp> {
        let rollouts = self.rollouts.values().filter_map(|rollout| self.due_of(rollout));
        rollouts.chain(self.freeze_due()).min()
    }

    /// The same of one rollout; also when its windows have to be worked out again.
    pub fn due_of(&self, rollout: &Rollout) -> Option<Timestamp> {
        let windows = self.needs_windows(rollout).then(|| self.windows.get(&rollout.opening.policy));
        let windows = windows.flatten().map(|bounds| bounds.until).filter(|until| *until > self.now);
        rollout.due(self.policy_of(rollout), self.now).into_iter().chain(windows).min()
    }

    /// The next moment at which a freeze is over by itself.
    pub fn freeze_due(&self) -> Option<Timestamp> {
        self.freezes.iter().filter_map(|freeze| freeze.until).filter(|until| *until > self.now).min()
    }

    /// A policy among those of `rollouts` whose windows have to be worked out for `now`.
    pub fn windows_wanted<'a>(
        &self,
        rollouts: impl IntoIterator<Item = &'a RolloutId>,
        now: Timestamp,
    ) -> Option<(Digest, &Windows)> {
        rollouts.into_iter().filter_map(|id| self.rollouts.get(id)).find_map(|rollout| {
            let digest = rollout.opening.policy;
            let known = self.windows.get(&digest).is_some_and(|bounds| now < bounds.until);
            let windows = self.policies[&digest].windows.as_ref().filter(|_| !known);
            windows.filter(|_| self.needs_windows(rollout)).map(|windows| (digest, windows))
        })
    }

    /// Whether some forward move is left that windows could keep from happening: of the one whose turn it is.
    fn needs_windows(&self, rollout: &Rollout) -> bool {
        let moves = matches!(rollout.stage, Stage::Queued | Stage::Applying { .. } | Stage::Baking(_));
        moves && self.turn_of(rollout) && self.policies[&rollout.opening.policy].windows.is_some()
    }

    /// Whether a rollout is the one that moves, of its service and of each of its scopes.
    pub fn turn_of(&self, rollout: &Rollout) -> bool {
        let service = self.services.get(&rollout.opening.service);
        let free = planted(Bug::ScopeTwice) || self.blocked(&rollout.id, &rollout.opening.scopes).is_none();
        free && service.is_some_and(|service| service.active.as_ref() == Some(&rollout.id))
    }

    /// Folds one event, fact or conclusion, recorded at `at` as number `seq`.
    pub fn apply(&mut self, seq: EventSeq, at: Timestamp, event: &Event) {
        debug_assert!(seq == self.last + 1 && at >= self.now);
        let before = self.now;
        (self.last, self.now) = (seq, at);
        match event {
            Event::LogCreated { log, .. } => self.log = *log,
            Event::EngineAdopted { engine } => self.adopted = *engine,
            Event::DaemonStarted { .. } => {
                if planted(Bug::ForgetsFreeze) {
                    self.freezes.clear();
                }
                if planted(Bug::ForgetsQuarantine) {
                    self.services.values_mut().for_each(|service| service.quarantined.clear());
                }
                let watched = planted(Bug::DowntimeCountsAsWatched);
                let down = if watched { Span::ZERO } else { at.since(before) };
                for rollout in self.rollouts.values_mut() {
                    rollout.parked.take_if(|_| planted(Bug::UnparksItself));
                    rollout.sent.take_if(|_| planted(Bug::ForgetsCommand));
                    rollout.apply_gap(down, at);
                    rollout.apply_restart(&self.policies[&rollout.opening.policy], at);
                    self.touched.insert(rollout.id.clone());
                }
            }
            Event::ClockStepped { by } => {
                for rollout in self.rollouts.values_mut() {
                    rollout.apply_gap(*by, at);
                    rollout.apply_step(&self.policies[&rollout.opening.policy], *by);
                    self.touched.insert(rollout.id.clone());
                }
            }
            Event::PolicyStored { digest, policy, .. } => {
                self.policy_names.insert(policy.name.clone(), *digest);
                self.policies.insert(*digest, policy.clone());
            }
            Event::IntentReceived { intent, origin } => {
                self.intake.note(origin);
                self.question = Some(Question::Intent(Box::new(intent.clone()), origin.traceparent.clone()));
            }
            Event::BatchReceived { service, columns, origin } => {
                self.intake.note(origin);
                self.intake.note_id(service, origin);
                self.apply_batch(seq, at, service, columns);
            }
            Event::AckReceived { ack, origin } => {
                self.intake.note(origin);
                self.question = Some(Question::Ack(ack.clone()));
                self.apply_ack(at, ack);
            }
            Event::OperatorActed { act, origin } => {
                self.intake.note(origin);
                self.question = Some(Question::Act(act.clone()));
            }
            Event::InputRejected { origin, .. } => self.intake.note(origin),
            Event::WindowsComputed { policy, bounds } => {
                let of = |r: &&Rollout| r.opening.policy == *policy;
                self.touched.extend(self.rollouts.values().filter(of).map(|r| r.id.clone()));
                let used: BTreeSet<Digest> = self.rollouts.values().map(|r| r.opening.policy).collect();
                self.windows.retain(|digest, _| used.contains(digest));
                self.windows.insert(*policy, bounds.clone());
            }
            Event::FreezeOrdered { order, origin } => {
                self.intake.note(origin);
                self.question = Some(Question::Freeze(order.clone()));
            }
            Event::FreezeStarted { freeze } => {
                self.question = None;
                self.freezes.retain(|known| known.service != freeze.service);
                self.freezes.push(freeze.clone());
                self.touch_service(freeze.service.as_ref());
            }
            Event::FreezeEnded { service, .. } => {
                self.question.take_if(|question| matches!(question, Question::Freeze(_)));
                self.freezes.retain(|freeze| freeze.service != *service);
                self.touch_service(service.as_ref());
            }
            Event::SmokeFinished { result } => {
                let known = self.rollouts.get_mut(&result.rollout);
                if known.is_some_and(|rollout| smoke::apply_finished(&mut rollout.smoke, result)) {
                    self.touched.insert(result.rollout.clone());
                }
            }
            Event::TimePassed => self.touched.extend(self.rollouts.keys().cloned()),
            Event::IntentRefused { intent, .. } => {
                let Some(Question::Intent(asked, _)) = self.question.take() else { return };
                self.intents.entry(intent.clone()).or_insert((asked.content, seq));
            }
            Event::RolloutCreated { rollout, opening } => self.apply_created(seq, at, rollout, opening),
            Event::ActRefused { .. } | Event::AckRefused { .. } | Event::FreezeRefused { .. } => {
                self.question = None;
            }
            Event::ActAccepted { rollout: id, .. } => {
                let Some(Question::Act(act)) = self.question.take() else { return };
                if act.verb == Verb::Rollback {
                    self.reopen(id, seq, at);
                }
                // A note may be about a rollout that is over: then the record of it is all there is to do.
                if let Some(rollout) = self.rollouts.get_mut(id) {
                    let policy = &self.policies[&rollout.opening.policy];
                    rollout.apply_act(policy, &act, seq, at);
                    self.touched.insert(id.clone());
                }
            }
            _ => {
                let Some(id) = event.rollout() else { return };
                self.apply_to_rollout(seq, at, &id.clone(), event);
            }
        }
    }

    /// `None`: everything.
    fn touch_service(&mut self, service: Option<&Service>) {
        let of = |r: &&Rollout| service.is_none_or(|service| r.opening.service == *service);
        self.touched.extend(self.rollouts.values().filter(of).map(|r| r.id.clone()));
    }

    /// Opens a completed rollout again, to be taken back: with everything exposed, and nothing to weigh any more.
    fn reopen(&mut self, id: &RolloutId, seq: EventSeq, at: Timestamp) {
        let completed = |ended: &Ended| ended.id == *id && ended.outcome == Outcome::Completed;
        let Some(ended) = self.ended.iter().rposition(completed).and_then(|i| self.ended.remove(i)) else {
            return;
        };
        let policy = &self.policies[&ended.opening.policy];
        let step = policy.steps.len() as u16 - 1;
        let mut rollout = Rollout::new(id.clone(), ended.opening, policy, ended.created, ended.created_at);
        rollout.stage = Stage::Soaking(Bake { step, since: at, unwatched: Span::ZERO, held: None });
        rollout.baseline = ended.baseline;
        rollout.weight = policy.steps[usize::from(step)].to;
        rollout.steps.push((at, step));
        rollout.last_choice = ended.decision.map(Box::new);
        rollout.watches.clear();
        rollout.claimed = ended.claimed;
        rollout.moved = seq;
        let service = self.services.entry(rollout.opening.service.clone()).or_default();
        service.active = Some(id.clone());
        for scope in &rollout.opening.scopes {
            self.scopes.entry(scope.clone()).or_default().insert(0, id.clone());
        }
        self.rollouts.insert(id.clone(), rollout);
    }

    fn apply_batch(&mut self, seq: EventSeq, at: Timestamp, service: &Service, columns: &Columns) {
        let known = self.services.entry(service.clone()).or_default();
        for (series, n) in columns.series.iter().zip(columns.counts()) {
            match known.series.get_mut(series) {
                Some(seen) => seen.count(at, n),
                None => known.series.entry(series.clone()).or_default().count(at, n),
            }
        }
        look(known, columns);
        let Some(id) = &known.active else { return };
        let Some(rollout) = self.rollouts.get_mut(id) else { return };
        let policy = &self.policies[&rollout.opening.policy];
        if rollout.observe(policy, seq, at, columns) {
            self.touched.insert(id.clone());
        }
        self.touched.extend(effect::observe(rollout, policy, at, columns));
    }

    fn apply_ack(&mut self, at: Timestamp, ack: &Ack) {
        let Some(service) = self.services.get(&ack.service) else { return };
        let known = service.commands.contains(&ack.command);
        let active = service.active.clone().filter(|id| self.rollouts.contains_key(id));
        let Some(rollout) = active.as_ref().and_then(|id| self.rollouts.get_mut(id)) else {
            self.question.take_if(|_| known);
            return;
        };
        match rollout.sent.as_ref().filter(|sent| sent.command.id == ack.command) {
            // From somebody it was not sent to: that is worth a refusal.
            Some(sent) if !sent.command.actuators.contains(&ack.actuator) => {}
            Some(_) => {
                let unfinished = ack.done.filter(|(done, of)| done < of && !planted(Bug::HalfDone));
                match (&ack.status, unfinished) {
                    (AckStatus::Progress, _) if planted(Bug::ProgressConfirms) => {
                        rollout.apply_ack(ack.command, &ack.actuator, None);
                    }
                    (AckStatus::Progress, _) => rollout.apply_progress(&ack.actuator, ack.done, at),
                    (AckStatus::Applied, None) => rollout.apply_ack(ack.command, &ack.actuator, None),
                    (AckStatus::Applied, Some((done, of))) => {
                        let why = format!(
                            "says that it is done, with {} of {}",
                            words::count(done),
                            words::count(of)
                        );
                        rollout.apply_ack(ack.command, &ack.actuator, Some(&why));
                    }
                    (AckStatus::Rejected(why), _) => {
                        rollout.apply_ack(ack.command, &ack.actuator, Some(why.as_str()));
                    }
                }
                self.question = None;
                self.touched.extend(active);
            }
            None => drop(self.question.take_if(|_| known)),
        }
    }

    fn apply_created(&mut self, seq: EventSeq, at: Timestamp, id: &RolloutId, opening: &Opening) {
        if let Some(Question::Intent(asked, _)) = self.question.take() {
            self.intents.insert(asked.id, (asked.content, seq));
        }
        let rollout = Rollout::new(id.clone(), opening.clone(), &self.policies[&opening.policy], seq, at);
        let service = self.services.entry(opening.service.clone()).or_default();
        service.number += 1;
        *service.attempts.entry(opening.to.clone()).or_default() += 1;
        if opening.behind.is_some() {
            service.queue.push_back(id.clone());
        } else {
            service.active = Some(id.clone());
            // The submitter knows best what serves while nothing is being rolled out.
            service.serving = Some(opening.from.clone());
            service.makeup = opening.from_makeup.clone();
        }
        for scope in &opening.scopes {
            self.scopes.entry(scope.clone()).or_default().push(id.clone());
        }
        for old in &opening.supersedes {
            if let Some(rollout) = self.rollouts.get_mut(old) {
                rollout.superseded = Some(id.clone());
                self.touched.insert(old.clone());
            }
        }
        self.rollouts.insert(id.clone(), rollout);
        self.touched.insert(id.clone());
    }

    fn apply_to_rollout(&mut self, seq: EventSeq, at: Timestamp, id: &RolloutId, event: &Event) {
        let Some(rollout) = self.rollouts.get_mut(id) else { return };
        let policy = &self.policies[&rollout.opening.policy];
        let guardrail = |name: &str| policy.guardrails.iter().position(|g| g.name == *name);
        self.touched.conclude(id);
        match event {
            Event::ReferenceFrozen { guardrail: name, reference, .. } => {
                let step = rollout.step().unwrap_or(0);
                if let Some(i) = guardrail(name) {
                    rollout.watches[i].apply_reference(reference, step);
                }
            }
            Event::CohortScored { guardrail: name, cohort, scored, .. } => {
                if let Some(i) = guardrail(name) {
                    rollout.watches[i].apply_scored(&policy.guardrails[i], policy, *cohort, scored);
                }
            }
            Event::VerdictReached { reading, .. } => {
                let step = rollout.serving_step();
                if let Some(i) = guardrail(&reading.name) {
                    rollout.watches[i].apply_verdict(reading.verdict, step);
                }
            }
            Event::AlertRaised { alert, .. } => {
                rollout.apply_alerted(&alert.kind, policy, at);
                rollout.alerts.insert(alert.kind.clone(), alert.summary.clone());
                if let AlertKind::Unjudgeable(name) = &alert.kind
                    && let Some(i) = guardrail(name)
                {
                    let watch = &mut rollout.watches[i];
                    (watch.unusable, watch.tried) = (Some(alert.summary.clone()), watch.gathered.n);
                }
            }
            Event::DecisionMade { decision, .. } => {
                apply_decision(rollout, policy, decision, seq, at);
            }
            Event::CommandIssued { command, .. } => {
                rollout.apply_issued(command, policy, at);
                let commands = &mut self.services.entry(command.service.clone()).or_default().commands;
                commands.push_back(command.id);
                if commands.len() > COMMANDS_MAX {
                    commands.pop_front();
                }
            }
            Event::CommandResent { attempt, actuators, .. } => {
                rollout.apply_resent(*attempt, actuators, policy, at);
            }
            Event::EffectShown { .. } => rollout.apply_shown(at),
            Event::SmokeAsked { ask, .. } => smoke::apply_asked(&mut rollout.smoke, ask),
            Event::CommandApplied { .. } => rollout.apply_applied(policy, seq, at),
            Event::RolloutEnded { outcome, .. } => self.apply_ended(seq, at, id, *outcome),
            _ => {}
        }
    }

    fn apply_ended(&mut self, seq: EventSeq, at: Timestamp, id: &RolloutId, outcome: Outcome) {
        let Some(rollout) = self.rollouts.remove(id) else { return };
        let policy = &self.policies[&rollout.opening.policy];
        let service = self.services.entry(rollout.opening.service.clone()).or_default();
        service.queue.retain(|queued| queued != id);
        if service.active.as_ref() == Some(id) {
            service.active = service.queue.pop_front();
            self.touched.extend(service.active.clone());
            if planted(Bug::InheritsEvidence)
                && let Some(next) = service.active.as_ref().and_then(|id| self.rollouts.get_mut(id))
            {
                next.watches = rollout.watches.clone();
            }
        }
        for scope in &rollout.opening.scopes {
            let Some(line) = self.scopes.get_mut(scope) else { continue };
            line.retain(|waiting| waiting != id);
            self.touched.extend(line.first().cloned());
            if line.is_empty() {
                self.scopes.remove(scope);
            }
        }
        match (outcome, &rollout.last_choice) {
            (Outcome::Superseded, _) if planted(Bug::SupersededServes) => {
                service.serving = Some(rollout.opening.to.clone());
            }
            (Outcome::Completed, _) => {
                service.serving = Some(rollout.opening.to.clone());
                service.makeup = rollout.opening.makeup.clone();
                service.quarantined.remove(&rollout.opening.to);
            }
            // What served before serves again, also after a completion.
            (Outcome::RolledBack, Some(last)) if !last.1.is_automatic() => {
                if service.serving.as_ref() != Some(&rollout.baseline) {
                    let known = rollout.baseline == rollout.opening.from;
                    service.makeup =
                        if known { rollout.opening.from_makeup.clone() } else { Makeup::default() };
                }
                service.serving = Some(rollout.baseline.clone());
            }
            (Outcome::RolledBack, Some(last)) if policy.retry_after_rollback == Retry::NeedsFinding => {
                let (decision, why) = (last.0, words::decision(&last.1));
                let quarantine = Quarantine { rollout: id.clone(), decision, why };
                service.quarantined.insert(rollout.opening.to.clone(), quarantine);
            }
            _ => {}
        }
        self.ended.push_back(Ended {
            id: id.clone(),
            opening: rollout.opening,
            baseline: rollout.baseline,
            outcome,
            created: rollout.created,
            created_at: rollout.created_at,
            ended: seq,
            ended_at: at,
            decision: rollout.last_choice.map(|last| *last),
            superseded: rollout.superseded,
            claimed: rollout.claimed,
            overtaken: rollout.alerts.get(&AlertKind::Overtaken).cloned(),
            effective: rollout.effect.and_then(|effect| effect.shown),
        });
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }
}

/// Looks at some of the values, for plans: enough to know what they are like, too few to be felt.
fn look(known: &mut ServiceState, columns: &Columns) {
    let mut sums = vec![(0, 0.0, 0.0); columns.series.len()];
    let mut add = |series: u32, n, sum: f64, sumsq: f64| {
        if let Some((looked, total, squares)) = sums.get_mut(series as usize) {
            (*looked, *total, *squares) = (*looked + n, *total + sum, *squares + sumsq);
        }
    };
    for sample in columns.samples().take(LOOKED) {
        add(sample.series, 1, sample.value, sample.value * sample.value);
    }
    for aggregate in &columns.aggregates {
        match aggregate.sums {
            Sums::Ones(ones) => add(aggregate.series, aggregate.n, ones as f64, ones as f64),
            Sums::Moments { sum, sumsq } => add(aggregate.series, aggregate.n, sum, sumsq),
            Sums::Histogram { .. } => {}
        }
    }
    for (series, (n, sum, sumsq)) in columns.series.iter().zip(sums) {
        if let Some(seen) = known.series.get_mut(series) {
            seen.look(n, sum, sumsq);
        }
    }
}

fn apply_decision(rollout: &mut Rollout, policy: &Policy, decision: &Decision, seq: EventSeq, at: Timestamp) {
    rollout.moved = seq;
    rollout.order = None;
    rollout.last_choice = Some(Box::new((seq, decision.clone())));
    if matches!(decision.choice, Choice::Promote | Choice::Rollback) {
        rollout.effect = None;
        rollout.smoke.clear();
    }
    match decision.choice {
        Choice::Promote => {
            let step = decision.step.map_or(0, |step| step + 1);
            if decision.step.is_none() {
                rollout.baseline = decision.baseline.clone();
            }
            rollout.stage = Stage::Applying { step };
            rollout.parked = None;
            rollout.to_issue = Some((seq, policy.exposure_at(step).rest));
        }
        Choice::Hold => {
            if let Some(bake) = rollout.bake_mut() {
                bake.held = Some(decision.because.clone());
            }
            rollout
                .alerts
                .retain(|kind, _| !(planted(Bug::AlertsTwice) && matches!(kind, AlertKind::Deadline(_))));
        }
        Choice::Rollback if decision.back_to.is_some() => {
            let step = decision.back_to.unwrap_or(0);
            rollout.stage = Stage::Applying { step };
            rollout.sent = None;
            rollout.to_issue = Some((seq, policy.exposure_at(step).rest));
            rollout.parked = decision.segment.clone();
            // What was found is about the part that is taken back, and so is what it has served and what is on its way.
            if rollout.opening.engine() >= 2 && !planted(Bug::StragglersCount) {
                rollout.steps = vec![(at, step)];
            }
            let engine = rollout.opening.engine();
            rollout.watches = policy.guardrails.iter().map(|g| Watch::new(g, engine)).collect();
            rollout.resumed = at;
            rollout.alerts.clear();
            rollout.approvals.clear();
        }
        Choice::Rollback => {
            rollout.stage = Stage::RollingBack;
            rollout.sent = None;
            rollout.to_issue = Some((seq, decision.weight_to));
        }
        Choice::Complete if policy.release => {
            rollout.stage = Stage::Releasing;
            rollout.to_issue = Some((seq, decision.weight_to));
        }
        Choice::Complete => rollout.stage = Stage::Ended(Outcome::Completed),
    }
}

impl State {
    /// BLAKE3 of the state in its stored form.
    pub fn digest(&self) -> Digest {
        Digest::of(&rmp_serde::to_vec_named(self).expect("the state is made of storable types"))
    }
}
