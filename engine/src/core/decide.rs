//! What follows from the facts so far. `decide` gives the next conclusion; folding it and asking again until
//! there is none carries one fact to its end.
//!
//! Precedence, highest first: an operator's abort or rollback; harm; a failed smoke test; the deadline; hold guardrails; sample
//! minimum; bake time; freezes and change windows; approval. Nothing on this list but an abort or a rollback keeps a rollback from happening.

use super::answer;
use super::chase;
use super::conclusion::{Alert, AlertKind, Choice, Command, Decision, Outcome, Reason};
use super::effect::{self, Effect};
use super::event::Event;
use super::exposure::Task;
use super::fact::Verb;
use super::ids::{CommandId, Weight, derived_id};
use super::judge::{self, Judgement};
use super::planted::{Bug, planted};
use super::policy::{GuardrailKind, OnDeadline, OnFail, Policy};
use super::reading::GuardrailReading;
use super::rollout::{Rollout, Stage};
use super::slices;
use super::smoke;
use super::state::{Question, State};
use super::verdict::Verdict;
use super::windows;
use super::words;

/// The next conclusion that follows from `state`, or `None` when everything has been drawn.
pub fn decide(state: &State) -> Option<Event> {
    match &state.question {
        Some(Question::Intent(intent, trace)) => return Some(answer::intent(state, intent, trace)),
        Some(Question::Act(act)) => return Some(answer::act(state, act)),
        Some(Question::Ack(ack)) => return Some(answer::stray_ack(state, ack)),
        Some(Question::Freeze(order)) => return Some(answer::freeze(state, order)),
        None => {}
    }
    let over = |freeze: &&windows::Freeze| freeze.until.is_some_and(|until| until <= state.now);
    if let Some(freeze) = state.freezes.iter().find(over) {
        return Some(Event::FreezeEnded { service: freeze.service.clone(), by: None });
    }
    state.touched.open().filter_map(|id| state.rollouts.get(id)).find_map(|rollout| next(state, rollout))
}

/// The next conclusion about one rollout.
fn next(state: &State, rollout: &Rollout) -> Option<Event> {
    let policy = state.policy_of(rollout);
    let id = || rollout.id.clone();
    if let Stage::Ended(outcome) = rollout.stage {
        return Some(Event::RolloutEnded { rollout: id(), outcome });
    }
    if let Some((decision, weight)) = rollout.to_issue {
        let (segments, task) = match rollout.stage {
            Stage::Applying { step } => {
                (policy.exposure_at(step).segments, policy.steps[usize::from(step)].task)
            }
            Stage::Releasing => (Vec::new(), Some(Task::Release)),
            _ => (Vec::new(), None),
        };
        let weight = match task {
            Some(Task::Shadow) if planted(Bug::ServesShadow) => Weight(1_000),
            _ => weight,
        };
        let early = planted(Bug::ReleaseEarly) && policy.release && weight == Weight::FULL;
        let task = if early { Some(Task::Release) } else { task };
        let command = Command {
            id: CommandId(derived_id(state.log, "command", decision)),
            service: rollout.opening.service.clone(),
            decision,
            baseline: rollout.baseline.clone(),
            canary: rollout.opening.to.clone(),
            bundle: rollout.opening.makeup.parts.clone(),
            weight,
            segments,
            task,
            actuators: policy.actuators.clone(),
        };
        return Some(Event::CommandIssued { rollout: id(), command });
    }
    match rollout.order.as_ref().map(|act| act.verb) {
        Some(Verb::Abort) => return Some(Event::RolloutEnded { rollout: id(), outcome: Outcome::Aborted }),
        Some(Verb::Rollback) => return Some(ordered(state, rollout, Choice::Rollback)),
        _ => {}
    }
    // What is on its way to its end gets there.
    let ending = matches!(rollout.stage, Stage::RollingBack | Stage::Releasing);
    if let Some(by) = rollout.superseded.as_ref().filter(|_| !ending) {
        let because = vec![Reason::Superseded { by: by.clone() }];
        return Some(match rollout.exposed() {
            true => {
                made(state, rollout, Choice::Rollback, because, &judge::judge(rollout, policy, state.now))
            }
            false => Event::RolloutEnded { rollout: id(), outcome: Outcome::Superseded },
        });
    }
    if let Some(event) = smoke::ask(rollout, policy).or_else(|| effect::next(state, rollout, policy)) {
        return Some(event);
    }
    if rollout.armed()
        && let Some(event) = weigh(state, rollout, policy)
    {
        return Some(event);
    }
    if let Some(event) = chase::chase(state, rollout, policy) {
        return Some(event);
    }
    match &rollout.stage {
        Stage::Releasing if rollout.sent.is_none() => {
            Some(Event::RolloutEnded { rollout: id(), outcome: Outcome::Completed })
        }
        // Confirmed is not done, where telemetry has to show it.
        Stage::RollingBack
            if rollout.sent.is_none() && rollout.effect.as_ref().is_none_or(Effect::is_shown) =>
        {
            let superseded = rollout.superseded.is_some();
            let outcome = if superseded { Outcome::Superseded } else { Outcome::RolledBack };
            Some(Event::RolloutEnded { rollout: id(), outcome })
        }
        Stage::Queued => {
            if let Some(why) = answer::overtaken(state, rollout) {
                let alert = Alert { kind: AlertKind::Overtaken, summary: why, reading: None };
                return Some(match rollout.alerts.contains_key(&alert.kind) {
                    false => Event::AlertRaised { rollout: id(), alert },
                    true => Event::RolloutEnded { rollout: id(), outcome: Outcome::Aborted },
                });
            }
            if rollout.order.as_ref().is_some_and(|act| act.verb == Verb::Promote) {
                return Some(ordered(state, rollout, Choice::Promote));
            }
            let open = windows::gates(state, rollout, state.now).iter().all(|gate| gate.met);
            (state.turn_of(rollout) && rollout.paused.is_none() && open).then(|| {
                made(state, rollout, Choice::Promote, Vec::new(), &judge::judge(rollout, policy, state.now))
            })
        }
        _ => None,
    }
}

/// Freezes references, scores what has settled, then reads the guardrails and chooses.
fn weigh(state: &State, rollout: &Rollout, policy: &Policy) -> Option<Event> {
    let (id, now) = (|| rollout.id.clone(), state.now);
    // A reference first: the cohorts that waited meanwhile can then be bet on.
    for (watch, guardrail) in rollout.watches.iter().zip(&policy.guardrails) {
        match watch.next_reference(guardrail, &policy.evidence) {
            Some(Ok(reference)) => {
                return Some(Event::ReferenceFrozen {
                    rollout: id(),
                    guardrail: guardrail.name.clone(),
                    reference,
                });
            }
            Some(Err(why)) => {
                let kind = AlertKind::Unjudgeable(guardrail.name.clone());
                let summary = format!("{} cannot be judged: {why}", guardrail.name);
                return Some(Event::AlertRaised {
                    rollout: id(),
                    alert: Alert { kind, summary, reading: None },
                });
            }
            None => {}
        }
    }
    if let Some((i, cohort)) = rollout.settled(policy, now) {
        let guardrail = &policy.guardrails[i];
        let step = rollout.step_at(cohort).map_or(0, |(_, step)| step);
        let scored = Box::new(rollout.watches[i].score(guardrail, policy, cohort, step));
        return Some(Event::CohortScored {
            rollout: id(),
            guardrail: guardrail.name.clone(),
            cohort,
            scored,
        });
    }
    let judgement = judge::judge(rollout, policy, now);
    // Having too little evidence is where everything starts: it is no news until something else was said.
    let said = rollout.watches.iter().map(|watch| watch.verdict.unwrap_or(Verdict::Insufficient));
    if let Some((reading, _)) = judgement.readings.iter().zip(said).find(|(r, said)| *said != r.verdict) {
        return Some(Event::VerdictReached { rollout: id(), reading: reading.clone() });
    }
    choose(state, rollout, policy, &judgement)
}

fn choose(state: &State, rollout: &Rollout, policy: &Policy, judgement: &Judgement) -> Option<Event> {
    let failing = |on_fail: OnFail| {
        judgement.readings.iter().filter(move |r| r.verdict == Verdict::Fail && r.does() == on_fail)
    };
    let named = |r: &GuardrailReading| Reason::Guardrail { name: r.name.clone() };
    let (have, need) = judge::approvals(rollout, policy);
    let shut = || windows::gates(state, rollout, state.now).iter().any(|gate| !gate.met);
    let waits = planted(Bug::PausedHarm) && rollout.paused.is_some()
        || planted(Bug::GateBeforeHarm) && have < need
        || planted(Bug::WindowBeforeHarm) && shut();
    if judgement.harm && !waits {
        let because = failing(OnFail::Rollback).map(named).collect();
        return Some(made(state, rollout, Choice::Rollback, because, judgement));
    }
    let failed: Vec<Reason> = smoke::failed(rollout, policy, OnDeadline::Rollback).collect();
    if !failed.is_empty() {
        return Some(made(state, rollout, Choice::Rollback, failed, judgement));
    }
    if let Some(event) = smoke::alert(rollout, policy) {
        return Some(event);
    }
    for reading in failing(OnFail::Alert).chain(failing(OnFail::Hold)) {
        let kind = AlertKind::Guardrail(reading.name.clone());
        if !rollout.alerts.contains_key(&kind) {
            let alert = Alert { kind, summary: words::reading(reading), reading: Some(reading.clone()) };
            return Some(Event::AlertRaised { rollout: rollout.id.clone(), alert });
        }
    }
    if let Some(event) = slices::alert(rollout, policy, state.now) {
        return Some(event);
    }
    if let Some(event) = above_cap(rollout, policy) {
        return Some(event);
    }
    let conditions = judge::conditions(rollout, policy);
    let holding = |on: OnFail| {
        conditions.iter().filter(move |(condition, holds)| condition.on == on && *holds == Some(true))
    };
    for (condition, _) in holding(OnFail::Alert).chain(holding(OnFail::Hold)) {
        let reason = Reason::Condition { name: condition.name.clone(), known: true };
        let summary = format!("{}: {}", words::reason(&reason, &[]), condition.when.text());
        let kind = AlertKind::Condition(condition.name.clone());
        if let Some(event) = chase::alert(rollout, kind, summary) {
            return Some(event);
        }
    }
    if let Some(name) = &rollout.parked {
        let summary = words::reason(&Reason::Segment { name: name.clone() }, &judgement.readings);
        if let Some(event) = chase::alert(rollout, AlertKind::Segment(name.clone()), summary) {
            return Some(event);
        }
    }
    let bake = rollout.bake()?;
    if rollout.order.as_ref().is_some_and(|act| matches!(act.verb, Verb::Promote | Verb::Skip)) {
        return Some(ordered(state, rollout, Choice::Promote));
    }
    let gates = judge::gates(state, rollout, &judgement.readings, state.now);
    let unmet: Vec<&judge::Gate> = gates.iter().filter(|gate| !gate.met).collect();
    if unmet.is_empty() {
        return Some(match rollout.stage {
            Stage::Soaking(_) => made(state, rollout, Choice::Complete, vec![Reason::SoakOver], judgement),
            _ => made(state, rollout, Choice::Promote, Vec::new(), judgement),
        });
    }
    let mut because: Vec<Reason> = unmet.iter().map(|gate| gate.reason.clone()).collect();
    // A deadline asks for evidence. A canary that only waits for a window or the end of a freeze has given it.
    let only_shut = unmet.iter().all(|gate| windows::shuts(gate));
    let deadline = judge::deadline_passed(rollout, policy, state.now).filter(|_| !only_shut);
    if let Some(after) = deadline {
        because.insert(0, Reason::Deadline { after_ms: after.0 });
        let first = words::reason(&unmet[0].reason, &judgement.readings);
        let at = policy.step_name(bake.step);
        let summary = format!("no promotion out of {at} within {after}: {first}");
        if let Some(event) = chase::alert(rollout, AlertKind::Deadline(bake.step), summary) {
            return Some(event);
        }
        // What a broken split has measured says nothing about the versions.
        let split = |r: &GuardrailReading| {
            r.kind == GuardrailKind::Split && r.verdict == Verdict::Fail && r.does() == OnFail::Hold
        };
        let unsound = policy.ab && judgement.readings.iter().any(split);
        if policy.on_deadline == OnDeadline::Rollback && !unsound {
            return Some(made(state, rollout, Choice::Rollback, because, judgement));
        }
    }
    // Holding means that something other than time is in the way: a failing guardrail at any time, and once
    // time and counts are served, whatever is left. A pause is a person's, and shown as theirs.
    let held_by_guardrail = failing(OnFail::Hold).next().is_some() || holding(OnFail::Hold).next().is_some();
    let served = unmet.iter().all(|gate| !gate.time);
    let only_paused = unmet.iter().all(|gate| gate.time || matches!(gate.reason, Reason::Paused { .. }));
    let stands = unmet.iter().any(|gate| matches!(gate.reason, Reason::Slice { .. }))
        || rollout.effect.as_ref().is_some_and(|effect| effect.named && !effect.is_shown())
        || smoke::failed(rollout, policy, OnDeadline::Hold).next().is_some();
    let holds = held_by_guardrail || stands || deadline.is_some() || served && !only_paused;
    let news = bake.held.as_ref().is_none_or(|held| !same_reasons(held, &because));
    (holds && news).then(|| made(state, rollout, Choice::Hold, because, judgement))
}

/// A mean counts what is above its cap as the cap, and does not see it grow: people are told, as for an alert guardrail.
fn above_cap(rollout: &Rollout, policy: &Policy) -> Option<Event> {
    rollout.watches.iter().zip(&policy.guardrails).find_map(|(watch, guardrail)| {
        let cap = watch.reference.as_ref()?.cap?;
        let evidence = &watch.evidence;
        let ln = evidence.other.as_ref().map_or(0.0, |other| other.ln());
        let need_ln = libm::log(policy.evidence.rollback);
        let summary = || words::above_cap(guardrail, cap, evidence, ln, need_ln);
        (ln >= need_ln)
            .then(|| chase::alert(rollout, AlertKind::AboveCap(guardrail.name.clone()), summary()))?
    })
}

/// The same things are in the way, whatever their figures.
fn same_reasons(a: &[Reason], b: &[Reason]) -> bool {
    let key = |reason: &Reason| match reason {
        Reason::Guardrail { name } => ("guardrail", name.clone()),
        Reason::Samples { metric, .. } => ("samples", metric.0.clone()),
        Reason::Bake { .. } => ("bake", String::new()),
        Reason::Deadline { .. } => ("deadline", String::new()),
        Reason::Window { .. } => ("window", String::new()),
        Reason::Frozen { by, .. } => ("frozen", by.clone()),
        Reason::Approvals { .. } => ("approvals", String::new()),
        Reason::Paused { by } => ("paused", by.clone()),
        Reason::Operator { by, .. } => ("operator", by.clone()),
        Reason::ActuatorRejected { actuator, .. } => ("actuator", actuator.0.clone()),
        Reason::Superseded { by } => ("superseded", by.0.clone()),
        Reason::SoakOver => ("soak", String::new()),
        Reason::Slice { name } => ("slice", name.clone()),
        Reason::Segment { name } => ("segment", name.clone()),
        Reason::NotApplied { .. } => ("not_applied", String::new()),
        Reason::Condition { name, known } => {
            (if *known { "condition" } else { "condition_unknown" }, name.clone())
        }
        Reason::Effective { .. } => ("effective", String::new()),
        Reason::Smoke { name, outcome, .. } => ("smoke", format!("{name} {outcome:?}")),
    };
    a.iter().map(key).eq(b.iter().map(key))
}

/// A decision that a person ordered.
fn ordered(state: &State, rollout: &Rollout, choice: Choice) -> Event {
    let policy = state.policy_of(rollout);
    let judgement = judge::judge(rollout, policy, state.now);
    let order = rollout.order.as_ref();
    let order = order.map(|act| Reason::Operator { by: act.actor.clone(), reason: act.reason.clone() });
    let mut because: Vec<Reason> = order.into_iter().collect();
    if choice == Choice::Promote {
        // A window that is passed stays on record.
        let shut = windows::gates(state, rollout, state.now).into_iter().filter(|gate| !gate.met);
        because.extend(shut.map(|gate| gate.reason));
    }
    made(state, rollout, choice, because, &judgement)
}

pub(super) fn made(
    state: &State,
    rollout: &Rollout,
    choice: Choice,
    because: Vec<Reason>,
    judgement: &Judgement,
) -> Event {
    let policy = state.policy_of(rollout);
    let step = match rollout.stage {
        Stage::Queued => None,
        _ => rollout.step(),
    };
    let weight_to = match choice {
        Choice::Promote
            if planted(Bug::SkipsStep) && step.is_some_and(|s| usize::from(s) + 2 < policy.steps.len()) =>
        {
            policy.steps[step.map_or(0, |step| usize::from(step) + 2)].to
        }
        Choice::Promote => policy.steps[step.map_or(0, |step| usize::from(step) + 1)].to,
        Choice::Rollback if planted(Bug::RollsBackInSteps) => rollout.weight.min(policy.steps[0].to),
        Choice::Rollback => Weight::ZERO,
        Choice::Hold | Choice::Complete => rollout.weight,
    };
    // Where segments come one after another, a failure may be answered in the one that failed: where labels
    // are slow, that may be one before the one that is watched.
    let of_all = rollout.order.is_some() || rollout.superseded.is_some();
    let showed = |reason: &Reason| {
        let Reason::Guardrail { name } = reason else { return None };
        let fails = |r: &GuardrailReading| r.verdict == Verdict::Fail && r.does() == OnFail::Rollback;
        judgement.readings.iter().find(|r| r.name == *name && fails(r))?;
        let i = policy.guardrails.iter().position(|g| g.name == *name)?;
        let watch = rollout.watches.get(i).filter(|watch| watch.recent.is_none())?;
        Some(watch.evidence.step)
    };
    let failed_at = because.iter().filter_map(showed).chain(step).min();
    let back_to = match (choice, failed_at) {
        (Choice::Rollback, Some(step)) if !of_all => policy.step_before_segment(step),
        _ => None,
    };
    let about = match choice {
        Choice::Promote => Some(step.map_or(0, |step| step + 1)),
        Choice::Rollback if back_to.is_none() => None,
        Choice::Rollback => failed_at,
        _ => step,
    };
    let task = match choice {
        Choice::Promote => about.and_then(|step| policy.steps[usize::from(step)].task),
        Choice::Complete if policy.release => Some(Task::Release),
        _ => None,
    };
    let weight_from = match about {
        Some(next) if choice == Choice::Promote && policy.segments.is_some() => policy.weight_before(next),
        // Labels that come late have shown it of a part before.
        Some(failed)
            if back_to.is_some() && policy.segment_of(failed) != step.and_then(|s| policy.segment_of(s)) =>
        {
            policy.steps[usize::from(failed)].to
        }
        _ => rollout.weight,
    };
    // A queued rollout is compared with what serves when its turn comes.
    let serving = state.services.get(&rollout.opening.service).and_then(|s| s.serving.clone());
    let baseline = serving.filter(|_| step.is_none()).unwrap_or_else(|| rollout.baseline.clone());
    let decision = Decision {
        choice,
        baseline,
        canary: rollout.opening.to.clone(),
        step,
        weight_from,
        weight_to,
        segment: about.and_then(|step| policy.segment_of(step)).map(str::to_owned),
        task,
        back_to,
        because,
        readings: judgement.readings.clone(),
        harm_ln: judgement.harm_ln,
        policy: rollout.opening.policy,
        engine: rollout.opening.engine,
        inputs: (rollout.created, state.last),
        actor: rollout.order.as_ref().map(|act| act.actor.clone()),
    };
    Event::DecisionMade { rollout: rollout.id.clone(), decision: Box::new(decision) }
}
