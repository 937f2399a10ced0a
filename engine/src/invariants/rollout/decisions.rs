//! What may be decided.

use super::{Checked, Followed, commands, ensure, place};
use crate::core::event::decision::{Choice, Decision};
use crate::core::event::fact::Act;
use crate::core::event::verb::Verb;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{EventSeq, Weight};
use crate::core::policy::Policy;
use crate::core::policy::actuator::OnDeadline;
use crate::core::policy::guardrail::{Guardrail, OnFail, Rule, Unless};
use crate::core::policy::segment::{OnSegmentFailure, Task};
use crate::core::time::Timestamp;
use crate::invariants::actuation::Smokes;
use crate::invariants::conditions;
use crate::invariants::kinds::kind;

impl Followed {
    /// Returns whether it takes the canary back.
    pub fn decided(
        &mut self,
        seq: EventSeq,
        at: Timestamp,
        policy: &Policy,
        decision: &Decision,
    ) -> Result<bool, (&'static str, String)> {
        let id = self.id.clone();
        ensure(decision.policy == self.spec.policy, "I11", || {
            let (is, was) = (decision.policy.short(), self.spec.policy.short());
            format!("{id} began under policy {was} and is decided under {is}")
        })?;
        let over = matches!(self.choice, Some(Choice::Rollback | Choice::Complete));
        ensure(!over, "I16", || format!("{id} is over, and then {:?}", decision.choice))?;
        ensure(decision.inputs == (self.created, seq - 1), "I18", || {
            format!("{id} is decided from {:?}, it began at {}", decision.inputs, self.created)
        })?;
        ensure(self.to_issue.is_none(), "I15", || format!("{id} owes a command of its last decision"))?;
        ensure(decision.canary == self.spec.to, "I20", || format!("{id} decides on {}", decision.canary))?;
        let ordered = self.order.take();
        let actor = ordered.as_ref().map(|act| act.actor.clone());
        ensure(decision.actor == actor, "I33", || {
            format!("{id} is decided by {:?}, ordered was it by {actor:?}", decision.actor)
        })?;
        match decision.choice {
            Choice::Promote => {
                self.promoted(at, policy, decision, ordered.as_ref())?;
                (self.entering, self.segment_taken_back, self.returned) = (self.step, false, None);
            }
            Choice::Rollback => {
                if self.taken_back(seq, at, policy, decision, ordered.is_some())? {
                    return Ok(true);
                }
            }
            Choice::Complete => self.completes(at, policy)?,
            Choice::Hold => return Ok(false),
        }
        self.moved = seq;
        self.choice = Some(decision.choice);
        self.to_issue = match (decision.choice, self.entering) {
            (Choice::Promote, Some(step)) => Some((seq, commands::shares(policy, step).0)),
            (Choice::Complete, _) if !policy.release => None,
            _ => Some((seq, decision.weight_to)),
        };
        self.ordered = ordered.is_some();
        Ok(decision.choice == Choice::Rollback)
    }

    /// Returns whether only one segment goes back.
    fn taken_back(
        &mut self,
        seq: EventSeq,
        at: Timestamp,
        policy: &Policy,
        decision: &Decision,
        ordered: bool,
    ) -> Result<bool, (&'static str, String)> {
        let id = &self.id;
        ensure(decision.weight_to == Weight::ZERO, "I21", || {
            format!("{id} is taken back to {}", decision.weight_to)
        })?;
        let alone = self.alone(policy).filter(|_| !ordered && !self.superseded);
        ensure(decision.back_to == alone, "I21", || {
            format!("{id} goes back to step {:?}, its policy says {alone:?}", decision.back_to)
        })?;
        ensure(ordered || self.has_cause(at, policy), "I18", || format!("{id} is taken back for nothing"))?;
        ensure(!decision.because.is_empty(), "I18", || format!("{id} is taken back without a reason"))?;
        (self.open, self.entering, self.taken) = (None, None, self.step);
        (self.effect, self.smoke) = (None, Smokes::default());
        let Some(step) = alone else {
            self.returned = None;
            return Ok(false);
        };
        (self.moved, self.segment_taken_back) = (seq, true);
        self.returned = self.failed(policy);
        self.returned_once = true;
        self.standing.clear();
        (self.step, self.entering) = (alone, alone);
        // What is compared from now on is of the segment before, confirmed or not.
        self.applied = Some((at, step));
        self.to_issue = Some((seq, commands::shares(policy, step).0));
        self.resumed = at;
        // What must not happen is about all of them.
        let stops = |name: &String| self.happened.contains_key(name);
        self.watched.retain(|name, _| stops(name));
        self.alerts.clear();
        self.approvals.clear();
        Ok(true)
    }

    /// Something takes the canary back without a person's order.
    fn has_cause(&self, at: Timestamp, policy: &Policy) -> bool {
        // An excuse by a condition ends with it.
        let lapsed = |g: &Guardrail| {
            let failed = self.watched.get(&g.name).is_some_and(|w| w.verdict == Some(Verdict::Fail));
            failed && matches!(g.unless, Some(Unless::When { .. })) && g.on_fail == OnFail::Rollback
        };
        let failing =
            self.failing(policy, OnFail::Rollback).is_some() || policy.guardrails.iter().any(lapsed);
        let late = policy.on_deadline == OnDeadline::Rollback
            && (self.late(at, policy) || self.unapplied(at, policy));
        let silent = self.open.is_some() && !self.segment_taken_back && self.silence.rolls_back(policy);
        failing || late || silent || self.superseded || self.smoke.failed(policy).is_some()
    }

    fn completes(&mut self, at: Timestamp, policy: &Policy) -> Checked {
        let id = &self.id;
        let last = policy.steps.len() as u16 - 1;
        let soaked = self.applied.is_some_and(|(_, step)| step == last);
        let need = policy.step(last).bake.plus(policy.soak);
        ensure(soaked && self.watched_for(at) >= need, "I34", || {
            format!("{id} completes after {} of {need}", self.watched_for(at))
        })?;
        let failing = self.failing(policy, OnFail::Rollback);
        ensure(failing.is_none(), "I19", || format!("{id} completes although {failing:?} fails"))?;
        self.is_sound()?;
        policy.guardrails.iter().try_for_each(|g| self.is_heard(at, policy, g))
    }

    fn late(&self, at: Timestamp, policy: &Policy) -> bool {
        let step = self.applied.and_then(|(_, step)| policy.steps.get(usize::from(step)));
        step.and_then(|step| step.deadline).is_some_and(|deadline| self.watched_for(at) >= deadline)
    }

    /// Whether the step on its way was not confirmed in the time it has.
    fn unapplied(&self, at: Timestamp, policy: &Policy) -> bool {
        let within = self.entering.and_then(|step| policy.steps.get(usize::from(step))?.apply_within);
        self.open.is_some() && within.is_some_and(|within| self.issued_at.plus(within) <= at)
    }

    /// The segment that fails: the first that a failing guardrail last learned of, or the one the rollout is at.
    fn failed(&self, policy: &Policy) -> Option<Option<u16>> {
        let at = policy.steps.get(usize::from(self.step?))?.segment;
        let fails = policy.guardrails.iter().filter(|g| {
            let verdict = self.watched.get(&g.name).and_then(|w| w.verdict);
            verdict == Some(Verdict::Fail) && self.on_fail_effective(g) == OnFail::Rollback
        });
        let compared = fails.filter(|g| kind(&g.rule).compared);
        let learned = compared.filter_map(|g| self.watched[&g.name].segment);
        learned.chain([at]).min_by_key(|segment| place(*segment))
    }

    /// Where a failure takes back only the segment in which it showed: the last step before that segment.
    fn alone(&self, policy: &Policy) -> Option<u16> {
        policy.segments.as_ref().filter(|segments| segments.on_failure == OnSegmentFailure::Alone)?;
        let stops = |g: &Guardrail| {
            let failed = self.watched.get(&g.name).is_some_and(|w| w.verdict == Some(Verdict::Fail));
            failed && kind(&g.rule).allowed.is_some()
        };
        if policy.guardrails.iter().any(stops) {
            return None;
        }
        let failed = self.failed(policy)?;
        let first = policy.steps.iter().position(|step| step.segment == failed)?;
        first.checked_sub(1).map(|before| before as u16)
    }

    fn promoted(
        &mut self,
        at: Timestamp,
        policy: &Policy,
        decision: &Decision,
        ordered: Option<&Act>,
    ) -> Checked {
        let id = &self.id;
        let next = self.step.map_or(0, |step| step + 1);
        ensure(decision.step == self.step, "I17", || {
            format!("{id} stands at step {:?} and is promoted from {:?}", self.step, decision.step)
        })?;
        let to = policy.steps.get(usize::from(next)).map(|step| step.to);
        ensure(to == Some(decision.weight_to), "I17", || {
            format!("{id} goes to {}, step {next} is {to:?}", decision.weight_to)
        })?;
        let Some(current) = self.step else {
            self.baseline = decision.baseline.clone();
            self.step = Some(next);
            return Ok(());
        };
        let applied = self.applied.map(|(_, step)| step) == self.step && self.entering.is_none();
        ensure(applied, "I17", || format!("{id} leaves step {current}, which was not applied"))?;
        let failing = self.failing(policy, OnFail::Rollback);
        ensure(failing.is_none(), "I19", || format!("{id} is promoted although {failing:?} fails"))?;
        let smoke = self.smoke.failed(policy);
        ensure(smoke.is_none(), "I46", || format!("{id} is promoted although smoke test {smoke:?} failed"))?;
        match ordered.map(|act| act.verb) {
            Some(Verb::Promote) => {}
            other => {
                self.gates(at, policy, current, other == Some(Verb::Skip))?;
                if policy.step(current).to > Weight::ZERO {
                    conditions::allow(policy, decision)?;
                }
            }
        }
        self.step = Some(next);
        (self.effect, self.smoke) = (None, Smokes::default());
        Ok(())
    }

    /// What was commanded is what is served, and the tests of the step have passed.
    fn is_sound(&self) -> Checked {
        let unshown = self.effect.as_ref().filter(|effect| !effect.shown);
        ensure(unshown.is_none(), "I45", || {
            format!("{} moves on, and telemetry does not show {unshown:?}", self.id)
        })?;
        ensure(self.slices.is_empty(), "I47", || {
            format!("{} moves on, and slices {:?} fail", self.id, self.slices)
        })?;
        let open = self.smoke.open();
        ensure(open.is_none(), "I46", || {
            format!("{} moves on, and smoke test {open:?} has not passed", self.id)
        })
    }

    /// Everything that an automatic promotion needs, and all but time and counts what one by skipping does.
    fn gates(&self, at: Timestamp, policy: &Policy, current: u16, skip: bool) -> Checked {
        let id = &self.id;
        ensure(self.paused.is_none(), "I18", || format!("{id} is promoted while it is paused"))?;
        ensure(!self.segment_taken_back, "I18", || {
            format!("{id} is promoted although a segment was taken back")
        })?;
        self.is_sound()?;
        let step = policy.step(current);
        let watched = self.watched_for(at);
        ensure(skip || watched >= step.bake, "I34", || {
            format!("{id} is promoted after {watched} of {}", step.bake)
        })?;
        let horizon = step.deadline.filter(|_| policy.ab && !skip).unwrap_or_default();
        ensure(watched >= horizon, "I41", || format!("{id} is won after {watched} of {horizon}"))?;
        let segment = |step: u16| policy.segment_index(step);
        for guardrail in &policy.guardrails {
            let name = &guardrail.name;
            let verdict = self.watched.get(name).and_then(|w| w.verdict);
            let absolute = !kind(&guardrail.rule).compared;
            // Without traffic only a copy of it can show anything.
            let paired = matches!(guardrail.rule, Rule::Paired { .. });
            let in_shadow = policy.steps.iter().any(|step| step.task == Some(Task::Shadow));
            let can_show = match step.to {
                Weight::ZERO => step.task == Some(Task::Shadow) && paired,
                _ => !(paired && in_shadow),
            };
            let needed = guardrail.on_fail != OnFail::Alert && (absolute || guardrail.gates) && can_show;
            let passes = verdict == Some(Verdict::Pass) || self.on_fail_effective(guardrail) == OnFail::Alert;
            ensure(!needed || passes, "I19", || format!("{id} is promoted while {name} says {verdict:?}"))?;
            if needed {
                self.is_heard(at, policy, guardrail)?;
            }
            let shown_of = self.watched.get(name).and_then(|w| w.segment);
            let shows = needed && !absolute && verdict == Some(Verdict::Pass);
            ensure(!shows || shown_of == Some(segment(current)), "I39", || {
                format!("{id} leaves step {current} by what {name} showed of segment {shown_of:?}")
            })?;
            ensure(
                verdict != Some(Verdict::Fail) || self.on_fail_effective(guardrail) == OnFail::Alert,
                "I19",
                || format!("{id} is promoted although {name} fails"),
            )?;
        }
        for (metric, need) in &step.min_samples {
            let of = policy.guardrails.iter().filter(|g| g.metric == *metric);
            let settled = of.filter_map(|g| self.watched.get(&g.name)).map(|w| w.at_step);
            let have = settled.filter(|(step, _)| *step == current).map(|(_, n)| n).max().unwrap_or(0);
            ensure(skip || have >= *need, "I19", || {
                format!("{id} is promoted with {have} of {need} {metric}")
            })?;
        }
        let next = &policy.steps[usize::from(current) + 1];
        // Each segment begins at nothing.
        let from = if next.segment == step.segment { step.to } else { Weight::ZERO };
        let between = |before: Weight| from < before && before <= next.to;
        let asked: Vec<_> = policy.approvals.iter().filter(|a| between(a.before)).collect();
        let need = asked.iter().map(|a| usize::from(a.by)).max();
        let others = asked.iter().any(|a| a.not_submitter);
        let have = self.approvals.iter().filter(|by| !others || **by != self.spec.by).count();
        ensure(need.is_none_or(|need| have >= need), "I18", || {
            format!("{id} is promoted with {have} of {need:?} approvals")
        })
    }
}
