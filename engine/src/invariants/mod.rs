//! What a log must never say, whatever happened: an account of its own beside the core's, checked event by event.
//!
//! The numbers are those of `RELIABILITY.md`. Nothing here asks the core what it thinks: the state, the judge and
//! the rules are what is checked. Pure; the simulator runs it over every history, `sluice log verify` over a real log.

mod actuation;
mod bundle;
mod conditions;
mod intake;
mod kinds;
mod rollout;
mod segments;

use std::collections::{BTreeMap, BTreeSet};

use bundle::Made;
use intake::Intake;
use rollout::Followed;
use uuid::Uuid;

use crate::core::decide::intents::QUEUE_MAX;
use crate::core::event::Event;
use crate::core::event::alert::AlertKind;
use crate::core::event::decision::{Choice, Decision, Reason};
use crate::core::event::fact::{Act, FreezeOrder};
use crate::core::event::rollout_spec::Outcome;
use crate::core::event::verb::Verb;
use crate::core::ids::{CommandId, Digest, EventSeq, IntentId, RolloutId, Service, Version};
use crate::core::policy::{Policy, Retry};
use crate::core::time::{Span, Timestamp};

/// What was promised and is not so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} broken at seq {seq}: {why}")]
pub struct Violation {
    /// `I16`
    pub invariant: &'static str,
    pub seq: EventSeq,
    pub why: String,
}

/// The fact that waits for its one answer.
#[derive(Clone, Debug)]
enum Asked {
    Intent(IntentId),
    Act(Act),
    Freeze(FreezeOrder),
}

/// The account, up to the last event given.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    pub seq: EventSeq,
    pub at: Timestamp,
    log: Uuid,
    policies: BTreeMap<Digest, Policy>,
    /// Which rollout each intent became.
    intents: BTreeMap<IntentId, Option<RolloutId>>,
    rollouts: BTreeMap<RolloutId, Followed>,
    active: BTreeMap<Service, RolloutId>,
    /// Versions that no person took back, with the rollout in which they were.
    quarantined: BTreeMap<(Service, Version), RolloutId>,
    /// What serves while nothing is exposed.
    serving: BTreeMap<Service, Version>,
    /// Completed rollouts and when they were, as long as none of them is taken back.
    completed: BTreeMap<Service, Vec<(Followed, Timestamp)>>,
    commands: BTreeSet<CommandId>,
    made: Made,
    intake: Intake,
    asked: Option<Asked>,
    /// What the windows of each policy last said, and until when.
    windows: BTreeMap<Digest, (bool, Timestamp)>,
    /// Freezes that are on, and when they end by themselves.
    freezes: BTreeMap<Option<Service>, Option<Timestamp>>,
    /// Rollouts whose rollback is due before the next fact, and why.
    owed: BTreeMap<RolloutId, String>,
}

/// What a check has to say of one event.
type Checked = Result<(), (&'static str, String)>;

/// Holds, or breaks the invariant of that number.
fn ensure(holds: bool, invariant: &'static str, why: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err((invariant, why())) }
}

impl Checker {
    /// Takes the next event, whatever it is.
    pub fn next(&mut self, seq: EventSeq, at: Timestamp, event: &Event) -> Result<(), Violation> {
        let before = self.at;
        let checked = self.check(seq, at, event, at.since(before));
        (self.seq, self.at) = (seq, at);
        checked.map_err(|(invariant, why)| Violation { invariant, seq, why })
    }

    /// At the end: nothing is left unanswered.
    pub fn settled(&self) -> Result<(), Violation> {
        self.answered().map_err(|(invariant, why)| Violation { invariant, seq: self.seq, why })
    }

    /// How long the step that `rollout` stands at must be watched.
    pub fn bake(&self, rollout: &RolloutId) -> Option<Span> {
        let rollout = self.rollouts.get(rollout)?;
        let steps = &self.policies.get(&rollout.spec.policy)?.steps;
        steps.get(usize::from(rollout.step()?)).map(|step| step.bake)
    }

    /// How long it must be watched at 100 %.
    pub fn soak(&self, rollout: &RolloutId) -> Option<Span> {
        let policy = self.policies.get(&self.rollouts.get(rollout)?.spec.policy)?;
        Some(self.bake(rollout)?.plus(policy.soak))
    }

    fn answered(&self) -> Checked {
        ensure(self.asked.is_none(), "I24", || format!("no answer to {:?}", self.asked))?;
        let owed = self.owed.first_key_value();
        ensure(owed.is_none(), "I21", || format!("no rollback follows: {owed:?}"))
    }

    fn check(&mut self, seq: EventSeq, at: Timestamp, event: &Event, passed: Span) -> Checked {
        ensure(seq == self.seq + 1, "I3", || format!("it follows seq {}", self.seq))?;
        ensure(at >= self.at, "I34", || format!("its time {} is before {}", at.0, self.at.0))?;
        if event.is_fact() {
            self.answered()?;
            for rollout in self.rollouts.values() {
                rollout.settled(&self.policies[&rollout.spec.policy], self.at)?;
            }
        }
        match event {
            Event::LogCreated { log, .. } => {
                ensure(seq == 1, "I3", || "a log is created once".into())?;
                self.log = *log;
            }
            Event::DaemonStarted { .. } => {
                self.rollouts.values_mut().for_each(|r| r.restarted(passed, at));
            }
            Event::SmokeFinished { result } => {
                self.rollouts.get_mut(&result.rollout).into_iter().for_each(|r| r.smoke.finished(result));
            }
            Event::ClockStepped { by } => self.rollouts.values_mut().for_each(|r| r.stepped(*by, at)),
            Event::PolicyStored { digest, policy, .. } => {
                self.policies.insert(*digest, policy.clone());
            }
            Event::TimePassed | Event::InputRejected { .. } => self.intake.delivered(event)?,
            Event::IntentReceived { intent, .. } => {
                self.intake.delivered(event)?;
                self.made.intent(intent)?;
                self.asked = Some(Asked::Intent(intent.id.clone()));
            }
            Event::BatchReceived { service, columns, .. } => {
                self.intake.delivered(event)?;
                if let Some(rollout) = self.active.get(service).and_then(|id| self.rollouts.get_mut(id)) {
                    let due = rollout.batch(at, &self.policies[&rollout.spec.policy], columns);
                    let why = || "what must not happen has happened too often".to_owned();
                    self.owed.extend(due.then(|| (rollout.id.clone(), why())));
                }
            }
            Event::AckReceived { ack, .. } => {
                self.intake.delivered(event)?;
                if let Some(rollout) = self.active.get(&ack.service).and_then(|id| self.rollouts.get_mut(id))
                {
                    rollout.ack(at, ack);
                }
            }
            Event::OperatorActed { act, .. } => {
                self.intake.delivered(event)?;
                self.asked = Some(Asked::Act(act.clone()));
            }
            Event::WindowsComputed { policy, bounds } => {
                let fresh = bounds.from == at && bounds.until > at;
                ensure(fresh, "I38", || format!("windows of {}: {bounds:?}", policy.short()))?;
                self.windows.insert(*policy, (bounds.open, bounds.until));
            }
            Event::FreezeOrdered { order, .. } => {
                self.intake.delivered(event)?;
                self.asked = Some(Asked::Freeze(order.clone()));
            }
            _ => self.answers(seq, at, event)?,
        }
        Ok(())
    }

    /// What is accepted or refused of what was asked for.
    fn answers(&mut self, seq: EventSeq, at: Timestamp, event: &Event) -> Checked {
        match event {
            Event::FreezeStarted { freeze } => {
                let order = self.answer_freeze()?;
                let fits = order.freeze && (&order.service, order.until) == (&freeze.service, freeze.until);
                ensure(fits, "I33", || format!("{order:?} begins {freeze:?}"))?;
                self.freezes.insert(freeze.service.clone(), freeze.until);
            }
            Event::FreezeEnded { service, by } => self.freeze_ended(at, service, by.is_some())?,
            Event::FreezeRefused { .. } => drop(self.answer_freeze()?),
            Event::IntentRefused { intent, .. } => {
                self.answer_intent(intent)?;
                self.intents.entry(intent.clone()).or_insert(None);
            }
            Event::RolloutCreated { rollout, spec } => {
                self.answer_intent(&spec.intent)?;
                self.created(seq, at, rollout, spec)?;
            }
            Event::ActAccepted { rollout, verb, .. } => {
                let act = self.answer_act(*verb)?;
                self.accepted(at, rollout, &act)?;
            }
            Event::ActRefused { verb, .. } => drop(self.answer_act(*verb)?),
            Event::AckRefused { .. } => {}
            _ => self.concluded(seq, at, event)?,
        }
        Ok(())
    }

    /// By a person who asked for it, or when its time was over.
    fn freeze_ended(&mut self, at: Timestamp, service: &Option<Service>, asked: bool) -> Checked {
        let until = self.freezes.remove(service);
        ensure(until.is_some(), "I38", || format!("a freeze of {service:?} ends, and there was none"))?;
        if !asked {
            let over = until.flatten().is_some_and(|until| until <= at);
            return ensure(over, "I38", || format!("the freeze of {service:?} ends before its time"));
        }
        let order = self.answer_freeze()?;
        ensure(!order.freeze && order.service == *service, "I33", || {
            format!("{order:?} ends the freeze of {service:?}")
        })
    }

    fn answer_intent(&mut self, intent: &IntentId) -> Checked {
        let asked = self.asked.take();
        let fits = matches!(&asked, Some(Asked::Intent(id)) if id == intent);
        ensure(fits, "I24", || format!("it answers intent {intent}, asked was {asked:?}"))
    }

    fn answer_act(&mut self, verb: Verb) -> Result<Act, (&'static str, String)> {
        match self.asked.take() {
            Some(Asked::Act(act)) if act.verb == verb => Ok(act),
            asked => Err(("I24", format!("it answers {}, asked was {asked:?}", verb.as_str()))),
        }
    }

    fn answer_freeze(&mut self) -> Result<FreezeOrder, (&'static str, String)> {
        match self.asked.take() {
            Some(Asked::Freeze(order)) => Ok(order),
            asked => Err(("I24", format!("it answers a freeze, asked was {asked:?}"))),
        }
    }

    /// Nothing moves forward in a freeze, nor past a closed window but on an order that says so and is on record.
    fn may_move(&self, at: Timestamp, rollout: &Followed, policy: &Policy, decision: &Decision) -> Checked {
        let service = &rollout.spec.service;
        for of in [None, Some(service.clone())] {
            let on = self.freezes.get(&of).is_some_and(|until| until.is_none_or(|until| at < until));
            ensure(!on, "I38", || {
                format!("{} is promoted while {of:?} is frozen (None: everything)", rollout.id)
            })?;
        }
        let known = self.windows.get(&rollout.spec.policy).filter(|(_, until)| at < *until);
        if policy.windows.is_none() || known.is_some_and(|(open, _)| *open) {
            return Ok(());
        }
        ensure(rollout.forced(), "I38", || format!("{} is promoted, its windows say {known:?}", rollout.id))?;
        let told = decision.because.iter().any(|reason| matches!(reason, Reason::Window { .. }));
        ensure(told, "I38", || {
            format!("{} passes a closed window, and the record does not say so", rollout.id)
        })
    }

    fn created(
        &mut self,
        seq: EventSeq,
        at: Timestamp,
        id: &RolloutId,
        spec: &crate::core::event::rollout_spec::RolloutSpec,
    ) -> Checked {
        let known = self.intents.get(&spec.intent);
        ensure(known.is_none(), "I23", || format!("intent {} had its effect: {known:?}", spec.intent))?;
        let policy = self.policies.get(&spec.policy);
        ensure(policy.is_some(), "I11", || format!("policy {} is not in the log", spec.policy.short()))?;
        ensure(!self.rollouts.contains_key(id), "I22", || format!("{id} exists already"))?;
        let quarantine = self.quarantined.get(&(spec.service.clone(), spec.to.clone()));
        ensure(quarantine.is_none() || spec.finding.is_some(), "I35", || {
            format!("{id} tries {} again after {quarantine:?}, and nothing was found out", spec.to)
        })?;
        self.intents.insert(spec.intent.clone(), Some(id.clone()));
        let active = self.active.get(&spec.service);
        ensure(active.is_some() == spec.behind.is_some(), "I22", || {
            format!("{id} starts behind {:?} while {active:?} is active", spec.behind)
        })?;
        self.active.entry(spec.service.clone()).or_insert_with(|| id.clone());
        let all = policy.is_none_or(|policy| policy.scopes.iter().all(|s| spec.scopes.contains(s)));
        ensure(all, "I36", || format!("{id} leaves out a scope of its policy"))?;
        if spec.behind.is_none() {
            self.serving.insert(spec.service.clone(), spec.from.clone());
        }
        for old in &spec.supersedes {
            let rollout = self.rollouts.get_mut(old).filter(|old| old.spec.service == spec.service);
            let Some(rollout) = rollout else { return Err(("I22", format!("{id} supersedes {old}"))) };
            rollout.superseded = true;
            self.owed.insert(old.clone(), format!("{old} superseded by {id}"));
        }
        self.rollouts.insert(id.clone(), Followed::new(id, spec, seq, at));
        let waiting = self.rollouts.values().filter(|r| r.spec.service == spec.service).count();
        let left = waiting - spec.supersedes.len();
        ensure(left <= QUEUE_MAX + 1, "I25", || format!("{waiting} rollouts open on {}", spec.service))
    }

    fn accepted(&mut self, at: Timestamp, id: &RolloutId, act: &Act) -> Checked {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            if act.verb == Verb::Rollback {
                return self.undone(at, id, act);
            }
            // About a rollout that is over there can be remarks, and nothing else.
            return ensure(act.verb == Verb::Note, "I16", || {
                format!("{} of {id} is over", act.verb.as_str())
            });
        };
        let policy = &self.policies[&rollout.spec.policy];
        rollout.accepted(self.seq + 1, at, policy, act)?;
        if matches!(act.verb, Verb::Rollback | Verb::Abort) {
            self.owed.insert(id.clone(), format!("{} ordered by {}", act.verb.as_str(), act.actor));
        }
        Ok(())
    }

    /// A completed rollout is taken back: it was the last of its service, and what served before is still there.
    fn undone(&mut self, at: Timestamp, id: &RolloutId, act: &Act) -> Checked {
        let mut lines = self.completed.iter_mut();
        let line = lines.find(|(_, line)| line.last().is_some_and(|(last, _)| last.id == *id));
        let Some((service, line)) = line else {
            return Err(("I37", format!("{id} is taken back, and it is not the last that completed")));
        };
        let Some((mut rollout, completed)) = line.pop() else { return Ok(()) };
        let active = self.active.insert(service.clone(), id.clone());
        ensure(active.is_none(), "I37", || format!("{id} is taken back while {active:?} is active"))?;
        let policy = &self.policies[&rollout.spec.policy];
        let (since, keep) = (at.since(completed), policy.keep_old);
        ensure(since < keep, "I37", || format!("{id} is taken back after {since}, kept was it for {keep}"))?;
        rollout.accepted(self.seq + 1, at, policy, act)?;
        self.rollouts.insert(id.clone(), rollout);
        self.owed.insert(id.clone(), format!("{} ordered by {}", act.verb.as_str(), act.actor));
        Ok(())
    }

    /// A rollout begins: against what serves, and alone with its scopes, of which the first that came has each.
    fn begins(&self, id: &RolloutId, baseline: &Version) -> Checked {
        let rollout = &self.rollouts[id];
        let serving = self.serving.get(&rollout.spec.service);
        ensure(serving == Some(baseline), "I20", || {
            format!("{id} is compared with {baseline} while {serving:?} serves")
        })?;
        let policy = &self.policies[&rollout.spec.policy];
        self.made.begins(id, &rollout.spec, policy, serving)?;
        let scopes = &rollout.spec.scopes;
        let shares = |other: &&Followed| other.spec.scopes.iter().any(|scope| scopes.contains(scope));
        let others = self.rollouts.values().filter(|other| other.id != *id).filter(shares);
        let mut before = others.filter(|other| other.step().is_some() || other.created < rollout.created);
        let before = before.next().map(|other| &other.id);
        ensure(before.is_none(), "I36", || {
            format!("{id} begins while {before:?} has or awaits a scope of it")
        })
    }

    /// A conclusion about one open rollout.
    fn concluded(&mut self, seq: EventSeq, at: Timestamp, event: &Event) -> Checked {
        let Some(id) = event.rollout() else { return Ok(()) };
        if let Event::DecisionMade { decision, .. } = event
            && decision.choice == Choice::Promote
            && self.rollouts.get(id).is_some_and(|rollout| rollout.step().is_none())
        {
            self.begins(id, &decision.baseline)?;
        }
        let Some(rollout) = self.rollouts.get(id) else {
            return Err(("I16", format!("{} about {id}, which is not open", event.kind())));
        };
        let policy = &self.policies[&rollout.spec.policy];
        if let Event::DecisionMade { decision, .. } = event
            && decision.choice == Choice::Promote
        {
            self.may_move(at, rollout, policy, decision)?;
        }
        let Some(rollout) = self.rollouts.get_mut(id) else { return Ok(()) };
        let active = self.active.get(&rollout.spec.service) == Some(id);
        match event {
            Event::ReferenceFrozen { guardrail, reference, .. } => {
                rollout.reference(policy, guardrail, reference)?;
            }
            Event::CohortScored { guardrail, cohort, scored, .. } => {
                rollout.scored(at, policy, guardrail, *cohort, scored)?;
            }
            Event::VerdictReached { reading, .. } => {
                let due = rollout.verdict(policy, reading)?;
                self.owed.extend(due.then(|| (id.clone(), format!("{} of {id} failed", reading.name))));
            }
            Event::DecisionMade { decision, .. } => {
                ensure(active, "I22", || format!("{id} is decided on while {:?} is active", self.active))?;
                if rollout.decided(seq, at, policy, decision)? {
                    self.owed.remove(id);
                }
            }
            Event::CommandIssued { command, .. } => {
                let fresh = self.commands.insert(command.id);
                ensure(fresh, "I15", || format!("command {} was issued before", command.id))?;
                rollout.issued(at, self.log, policy, command)?;
            }
            Event::CommandResent { command, actuators, .. } => rollout.resent(*command, actuators)?,
            Event::CommandApplied { command, .. } => rollout.applied(at, policy, *command)?,
            Event::EffectShown { effect, .. } => rollout.shown(effect)?,
            Event::SmokeAsked { ask, .. } => {
                rollout.smoke.asked(policy, ask, rollout.step().unwrap_or(0))?;
            }
            Event::AlertRaised { alert, .. } => {
                if alert.kind() == AlertKind::Overtaken {
                    let serving = self.serving.get(&rollout.spec.service);
                    let left = self.made.leaves_something(&rollout.spec, policy, serving);
                    ensure(active && !left, "I42", || format!("{id} is not overtaken: {serving:?} serves"))?;
                }
                let due = rollout.alerted(at, policy, alert)?;
                self.owed.extend(due.then(|| (id.clone(), format!("{:?}", alert.kind()))));
            }
            Event::RolloutEnded { outcome, .. } => self.ended(seq, at, id, *outcome)?,
            _ => {}
        }
        Ok(())
    }

    /// What serves from now on, what may not be tried again, and whose turn it is.
    fn ended(&mut self, seq: EventSeq, at: Timestamp, id: &RolloutId, outcome: Outcome) -> Checked {
        let Some(rollout) = self.rollouts.remove(id) else { return Ok(()) };
        self.owed.remove(id);
        let policy = &self.policies[&rollout.spec.policy];
        rollout.ended(policy, outcome)?;
        let service = rollout.spec.service.clone();
        let version = (service.clone(), rollout.spec.to.clone());
        match outcome {
            Outcome::Completed => {
                self.serving.insert(service.clone(), version.1.clone());
                self.quarantined.remove(&version);
                self.completed.entry(service.clone()).or_default().push((rollout.kept(seq), at));
            }
            Outcome::RolledBack if rollout.by_person(Choice::Rollback) => {
                self.serving.insert(service.clone(), rollout.baseline().clone());
            }
            Outcome::RolledBack if policy.retry_after_rollback == Retry::NeedsFinding => {
                self.quarantined.insert(version, id.clone());
            }
            _ => {}
        }
        if self.active.get(&service) == Some(id) {
            self.active.remove(&service);
            let next = self.rollouts.values().filter(|r| r.spec.service == service);
            if let Some(next) = next.min_by_key(|r| r.created) {
                self.active.insert(service, next.id.clone());
            }
        }
        Ok(())
    }
}
