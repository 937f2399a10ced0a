//! `apply(state, event) -> state`: what each fact and each conclusion changes.

use std::collections::BTreeSet;

use super::batch::Batch;
use super::rollout::{Bake, Rollout, Stage};
use super::{ENDED_MAX, Ended, PendingInput, Quarantine, ServiceState, State, smoke};
use crate::core::event::Event;
use crate::core::event::alert::{Alert, Objection};
use crate::core::event::bundle::Composition;
use crate::core::event::decision::{Choice, Decision, Grounds};
use crate::core::event::fact::{Ack, AckStatus};
use crate::core::event::rollout_spec::{Outcome, RolloutSpec};
use crate::core::event::verb::Verb;
use crate::core::evidence::kind::Scope;
use crate::core::evidence::monitor::GuardrailMonitor;
use crate::core::ids::{Digest, EventSeq, RolloutId, Service, Version};
use crate::core::policy::{Policy, Retry};
use crate::core::telemetry::columns::{Columns, Sums};
use crate::core::time::{Span, Timestamp};

const COMMANDS_MAX: usize = 32;
/// Values of a message that are looked at for plans.
const LOOKED: usize = 32;

impl State {
    /// Folds one event, fact or conclusion, recorded at `at` as number `seq`.
    pub fn apply(&mut self, seq: EventSeq, at: Timestamp, event: &Event) {
        debug_assert!(seq == self.last + 1 && at >= self.now);
        let before = self.now;
        (self.last, self.now) = (seq, at);
        if event.is_fact() {
            self.agenda.clear();
        }
        if let Some(origin) = event.origin() {
            self.intake.note(origin);
        }
        match event {
            Event::LogCreated { log, .. } => self.log = *log,
            Event::EngineAdopted { engine } => self.engine = *engine,
            Event::DaemonStarted { .. } => {
                let down = at.since(before);
                for rollout in self.rollouts.values_mut() {
                    let policy = &self.policies[&rollout.spec.policy];
                    rollout.apply_gap(policy, down, at);
                    rollout.apply_restart(policy, at);
                    self.agenda.insert(rollout.id.clone());
                }
            }
            Event::ClockStepped { by } => {
                for rollout in self.rollouts.values_mut() {
                    let policy = &self.policies[&rollout.spec.policy];
                    rollout.apply_gap(policy, *by, at);
                    rollout.apply_step(policy, *by);
                    self.agenda.insert(rollout.id.clone());
                }
            }
            Event::PolicyStored { digest, policy, .. } => {
                self.policy_names.insert(policy.name.clone(), *digest);
                self.policies.insert(*digest, policy.clone());
            }
            Event::IntentReceived { intent, origin } => {
                self.pending =
                    Some(PendingInput::Intent(Box::new(intent.clone()), origin.traceparent.clone()));
            }
            Event::BatchReceived { service, columns, origin } => {
                self.intake.note_id(service, origin);
                self.apply_batch(seq, at, service, columns);
            }
            Event::AckReceived { ack, .. } => {
                self.pending = Some(PendingInput::Ack(ack.clone()));
                self.apply_ack(at, ack);
            }
            Event::OperatorActed { act, .. } => self.pending = Some(PendingInput::Act(act.clone())),
            Event::InputRejected { .. } => {}
            Event::WindowsComputed { policy, bounds } => {
                let of = |r: &&Rollout| r.spec.policy == *policy;
                self.agenda.extend(self.rollouts.values().filter(of).map(|r| r.id.clone()));
                let used: BTreeSet<Digest> = self.rollouts.values().map(|r| r.spec.policy).collect();
                self.windows.retain(|digest, _| used.contains(digest));
                self.windows.insert(*policy, bounds.clone());
            }
            Event::FreezeOrdered { order, .. } => self.pending = Some(PendingInput::Freeze(order.clone())),
            Event::FreezeStarted { freeze } => {
                self.pending = None;
                self.freezes.retain(|known| known.service != freeze.service);
                self.freezes.push(freeze.clone());
                self.touch_service(freeze.service.as_ref());
            }
            Event::FreezeEnded { service, .. } => {
                self.pending.take_if(|pending| matches!(pending, PendingInput::Freeze(_)));
                self.freezes.retain(|freeze| freeze.service != *service);
                self.touch_service(service.as_ref());
            }
            Event::SmokeFinished { result } => {
                let known = self.rollouts.get_mut(&result.rollout);
                if known.is_some_and(|rollout| smoke::apply_finished(&mut rollout.smoke, result)) {
                    self.agenda.insert(result.rollout.clone());
                }
            }
            Event::TimePassed => self.agenda.extend(self.rollouts.keys().cloned()),
            Event::IntentRefused { intent, .. } => {
                let Some(PendingInput::Intent(asked, _)) = self.pending.take() else { return };
                self.intents.entry(intent.clone()).or_insert((asked.content, seq));
            }
            Event::RolloutCreated { rollout, spec } => self.apply_created(seq, at, rollout, spec),
            Event::ActRefused { .. } | Event::AckRefused { .. } | Event::FreezeRefused { .. } => {
                self.pending = None;
            }
            Event::ActAccepted { rollout: id, .. } => {
                let Some(PendingInput::Act(act)) = self.pending.take() else { return };
                if act.verb == Verb::Rollback {
                    self.reopen(id, seq, at);
                }
                // A note may be about a rollout that is over: then the record of it is all there is to do.
                if let Some(rollout) = self.rollouts.get_mut(id) {
                    let policy = &self.policies[&rollout.spec.policy];
                    rollout.apply_act(policy, &act, seq, at);
                    self.agenda.insert(id.clone());
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
        let of = |r: &&Rollout| service.is_none_or(|service| r.spec.service == *service);
        self.agenda.extend(self.rollouts.values().filter(of).map(|r| r.id.clone()));
    }

    /// Opens a completed rollout again, to be taken back: with everything exposed, and nothing to weigh any more.
    fn reopen(&mut self, id: &RolloutId, seq: EventSeq, at: Timestamp) {
        let completed = |ended: &Ended| ended.id == *id && ended.outcome == Outcome::Completed;
        let Some(ended) = self.ended.iter().rposition(completed).and_then(|i| self.ended.remove(i)) else {
            return;
        };
        let policy = &self.policies[&ended.spec.policy];
        let step = policy.steps.len() as u16 - 1;
        let mut rollout = Rollout::new(id.clone(), ended.spec, policy, ended.created, ended.created_at);
        rollout.stage = Stage::Soaking(Bake { step, since: at, unwatched: Span::ZERO, held: None });
        rollout.baseline = ended.baseline;
        rollout.weight = policy.step(step).to;
        rollout.steps.push((at, step));
        rollout.last_choice = ended.decision.map(Box::new);
        rollout.monitors.clear();
        rollout.claimed = ended.claimed;
        rollout.moved = seq;
        let service = self.services.entry(rollout.spec.service.clone()).or_default();
        service.active = Some(id.clone());
        for scope in &rollout.spec.scopes {
            self.scopes.entry(scope.clone()).or_default().insert(0, id.clone());
        }
        self.rollouts.insert(id.clone(), rollout);
    }

    fn apply_batch(&mut self, seq: EventSeq, at: Timestamp, service: &Service, columns: &Columns) {
        let batch = Batch::new(seq, at, columns);
        let known = self.services.entry(service.clone()).or_default();
        for (series, n) in columns.series.iter().zip(batch.counts()) {
            match known.series.get_mut(series) {
                Some(seen) => seen.count(at, n),
                None => known.series.entry(series.clone()).or_default().count(at, n),
            }
        }
        look(known, &batch);
        let Some(id) = &known.active else { return };
        let Some(rollout) = self.rollouts.get_mut(id) else { return };
        let policy = &self.policies[&rollout.spec.policy];
        if rollout.observe(policy, &batch) {
            self.agenda.insert(id.clone());
        }
    }

    fn apply_ack(&mut self, at: Timestamp, ack: &Ack) {
        let Some(service) = self.services.get(&ack.service) else { return };
        let known = service.commands.contains(&ack.command);
        let active = service.active.clone().filter(|id| self.rollouts.contains_key(id));
        let Some(rollout) = active.as_ref().and_then(|id| self.rollouts.get_mut(id)) else {
            self.pending.take_if(|_| known);
            return;
        };
        match rollout.sent.as_ref().filter(|sent| sent.command.id == ack.command) {
            // From somebody it was not sent to: that is worth a refusal.
            Some(sent) if !sent.command.actuators.contains(&ack.actuator) => {}
            Some(_) => {
                let unfinished = ack.done.filter(|(done, of)| done < of);
                match (&ack.status, unfinished) {
                    (AckStatus::Progress, _) => rollout.apply_progress(&ack.actuator, ack.done, at),
                    (AckStatus::Applied, None) => rollout.apply_ack(ack.command, &ack.actuator, None),
                    (AckStatus::Applied, Some((done, of))) => {
                        let why = Objection::Unfinished { done, of };
                        rollout.apply_ack(ack.command, &ack.actuator, Some(why));
                    }
                    (AckStatus::Rejected(why), _) => {
                        let why = Objection::Rejects(why.clone());
                        rollout.apply_ack(ack.command, &ack.actuator, Some(why));
                    }
                }
                self.pending = None;
                self.agenda.extend(active);
            }
            None => drop(self.pending.take_if(|_| known)),
        }
    }

    fn apply_created(&mut self, seq: EventSeq, at: Timestamp, id: &RolloutId, spec: &RolloutSpec) {
        if let Some(PendingInput::Intent(asked, _)) = self.pending.take() {
            self.intents.insert(asked.id, (asked.content, seq));
        }
        let rollout = Rollout::new(id.clone(), spec.clone(), &self.policies[&spec.policy], seq, at);
        let service = self.services.entry(spec.service.clone()).or_default();
        service.number += 1;
        *service.attempts.entry(spec.to.clone()).or_default() += 1;
        if spec.behind.is_some() {
            service.queue.push_back(id.clone());
        } else {
            service.active = Some(id.clone());
            // The submitter knows best what serves while nothing is being rolled out.
            service.serving = Some(spec.from.clone());
            service.composition = spec.from_composition.clone();
        }
        for scope in &spec.scopes {
            self.scopes.entry(scope.clone()).or_default().push(id.clone());
        }
        for old in &spec.supersedes {
            if let Some(rollout) = self.rollouts.get_mut(old) {
                rollout.superseded = Some(id.clone());
                self.agenda.insert(old.clone());
            }
        }
        self.rollouts.insert(id.clone(), rollout);
        self.agenda.insert(id.clone());
    }

    fn apply_to_rollout(&mut self, seq: EventSeq, at: Timestamp, id: &RolloutId, event: &Event) {
        let Some(rollout) = self.rollouts.get_mut(id) else { return };
        let policy = &self.policies[&rollout.spec.policy];
        let guardrail = |name: &str| policy.guardrails.iter().position(|g| g.name == *name);
        self.agenda.conclude(id);
        match event {
            Event::ReferenceFrozen { guardrail: name, reference, .. } => {
                let step = rollout.step().unwrap_or(0);
                if let Some(i) = guardrail(name) {
                    rollout.monitors[i].apply_reference(reference, step);
                }
            }
            Event::CohortScored { guardrail: name, cohort, scored, .. } => {
                if let Some(i) = guardrail(name) {
                    rollout.monitors[i].apply_scored(&policy.guardrails[i], policy, *cohort, scored);
                }
            }
            Event::VerdictReached { reading, .. } => {
                let step = rollout.serving_step();
                if let Some(i) = guardrail(&reading.name) {
                    rollout.monitors[i].apply_verdict(reading.verdict, step);
                }
            }
            Event::AlertRaised { alert, .. } => {
                let kind = alert.kind();
                rollout.apply_alerted(&kind, policy, at);
                rollout.alerts.insert(kind, alert.clone());
                if let Alert::Unjudgeable { guardrail: name, .. } = alert
                    && let Some(i) = guardrail(name)
                {
                    let monitor = &mut rollout.monitors[i];
                    (monitor.unusable, monitor.tried) = (true, monitor.gathered.n);
                }
            }
            Event::DecisionMade { decision, .. } => {
                rollout.to_issue = decision.command(self.log, seq, policy, &rollout.spec);
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
        let policy = &self.policies[&rollout.spec.policy];
        let service = self.services.entry(rollout.spec.service.clone()).or_default();
        service.queue.retain(|queued| queued != id);
        if service.active.as_ref() == Some(id) {
            service.active = service.queue.pop_front();
            self.agenda.extend(service.active.clone());
        }
        for scope in &rollout.spec.scopes {
            let Some(line) = self.scopes.get_mut(scope) else { continue };
            line.retain(|waiting| waiting != id);
            self.agenda.extend(line.first().cloned());
            if line.is_empty() {
                self.scopes.remove(scope);
            }
        }
        match (outcome, &rollout.last_choice) {
            (Outcome::Completed, _) => {
                service.serving = Some(rollout.spec.to.clone());
                service.composition = rollout.spec.composition.clone();
                service.quarantined.remove(&rollout.spec.to);
            }
            // What served before serves again, also after a completion.
            (Outcome::RolledBack, Some(last)) if !last.1.is_automatic() => {
                if service.serving.as_ref() != Some(&rollout.baseline) {
                    let known = rollout.baseline == rollout.spec.from;
                    service.composition =
                        if known { rollout.spec.from_composition.clone() } else { Composition::default() };
                }
                service.serving = Some(rollout.baseline.clone());
            }
            (Outcome::RolledBack, Some(last)) if policy.retry_after_rollback == Retry::NeedsFinding => {
                let (decision, why) = (last.0, Grounds::of(last.1.because.clone(), &last.1.readings));
                let quarantine = Quarantine { rollout: id.clone(), decision, why };
                service.quarantined.insert(rollout.spec.to.clone(), quarantine);
            }
            _ => {}
        }
        // Versions that nobody serves or waits for are forgotten: a service may have a thousand series, not a thousand in its
        // life.
        let line = service.active.iter().chain(&service.queue).filter_map(|id| self.rollouts.get(id));
        let known: Vec<&Version> = line
            .flat_map(|r| [&r.baseline, &r.spec.from, &r.spec.to])
            .chain([&rollout.baseline, &rollout.spec.to])
            .chain(&service.serving)
            .collect();
        service.series.retain(|series, _| known.contains(&&series.version));
        self.ended.push_back(Ended {
            id: id.clone(),
            spec: rollout.spec,
            baseline: rollout.baseline,
            outcome,
            created: rollout.created,
            created_at: rollout.created_at,
            ended: seq,
            ended_at: at,
            decision: rollout.last_choice.map(|last| *last),
            superseded: rollout.superseded,
            claimed: rollout.claimed,
            overtaken: rollout.alerts.into_values().find_map(|alert| match alert {
                Alert::Overtaken(why) => Some(why),
                _ => None,
            }),
            effective: rollout.effect.and_then(|effect| effect.shown),
        });
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }
}

/// Looks at some of the values, for plans: enough to know what they are like, too few to be felt.
fn look(known: &mut ServiceState, batch: &Batch) {
    let columns = batch.columns;
    let mut sums = vec![(0, 0.0, 0.0); columns.series.len()];
    let mut add = |series: u32, n, sum: f64, sumsq: f64| {
        if let Some((looked, total, squares)) = sums.get_mut(series as usize) {
            (*looked, *total, *squares) = (*looked + n, *total + sum, *squares + sumsq);
        }
    };
    for sample in batch.samples.iter().take(LOOKED) {
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
            rollout.segment_taken_back = None;
        }
        Choice::Hold => {
            if let Some(bake) = rollout.bake_mut() {
                bake.held = Some(decision.because.clone());
            }
        }
        Choice::Rollback if decision.back_to.is_some() => {
            let step = decision.back_to.unwrap_or(0);
            rollout.stage = Stage::Applying { step };
            rollout.sent = None;
            rollout.segment_taken_back = decision.segment.clone();
            // What was found is about the part that is taken back, and so is what it has served and what is on its way.
            rollout.steps = vec![(at, step)];
            for (monitor, guardrail) in rollout.monitors.iter_mut().zip(&policy.guardrails) {
                if guardrail.profile().scope != Scope::Rollout {
                    *monitor = GuardrailMonitor::new(guardrail);
                }
            }
            rollout.resumed = at;
            rollout.alerts.clear();
            rollout.approvals.clear();
        }
        Choice::Rollback => {
            rollout.stage = Stage::RollingBack;
            rollout.sent = None;
        }
        Choice::Complete if policy.release => rollout.stage = Stage::Releasing,
        Choice::Complete => rollout.stage = Stage::Ended(Outcome::Completed),
    }
}
