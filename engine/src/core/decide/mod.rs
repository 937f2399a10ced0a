//! What follows from the facts so far. `decide` gives the next conclusion; folding it and asking again until
//! there is none carries one fact to its end.
//!
//! Precedence, highest first: an operator's abort or rollback; harm; a failed smoke test; the deadline; hold guardrails; sample
//! minimum; bake time; freezes and change windows; approval. Nothing on this list but an abort or a rollback keeps a rollback from happening.

pub mod acts;
pub mod alert;
pub mod assessment;
pub mod conditions;
pub mod decision;
pub mod delivery;
pub mod effect;
pub mod freezes;
pub mod gates;
pub mod intents;
pub mod readings;
pub mod slices;
pub mod smoke;
pub mod turn;
pub mod windows;

use self::alert::{alert, raised};
use self::assessment::Assessment;
use self::conditions::observed;
use self::decision::{decision_event, ordered};
use self::readings::judge;
use self::turn::Turn;
use super::event::Event;
use super::policy::Policy;
use super::state::{PendingInput, State};
use crate::core::event::alert::{Above, AboveCap, Alert, AlertKind};
use crate::core::event::decision::{Choice, Gate, Grounds, Reason, same_reasons};
use crate::core::event::reading::GuardrailReading;
use crate::core::event::rollout_spec::Outcome;
use crate::core::event::verb::Verb;
use crate::core::event::windows::Freeze;
use crate::core::evidence::reference::ABOVE_CAP;
use crate::core::evidence::verdict::Verdict;
use crate::core::policy::actuator::OnDeadline;
use crate::core::policy::guardrail::OnFail;
use crate::core::state::effect::Effect;
use crate::core::state::rollout::{Rollout, Stage};

/// The next conclusion that follows from `state`, or `None` when everything has been drawn.
pub fn decide(state: &State) -> Option<Event> {
    match &state.pending {
        Some(PendingInput::Intent(intent, trace)) => return Some(intents::intent(state, intent, trace)),
        Some(PendingInput::Act(act)) => return Some(acts::act(state, act)),
        Some(PendingInput::Ack(ack)) => return Some(delivery::stray_ack(state, ack)),
        Some(PendingInput::Freeze(order)) => return Some(freezes::freeze(state, order)),
        None => {}
    }
    let over = |freeze: &&Freeze| freeze.until.is_some_and(|until| until <= state.now);
    if let Some(freeze) = state.freezes.iter().find(over) {
        return Some(Event::FreezeEnded { service: freeze.service.clone(), by: None });
    }
    state
        .agenda
        .open()
        .filter_map(|id| state.rollouts.get(id))
        .find_map(|rollout| next(Turn::of(state, rollout)))
}

/// The next conclusion about one rollout.
fn next(turn: Turn) -> Option<Event> {
    let Turn { state, rollout, .. } = turn;
    let id = || rollout.id.clone();
    if let Stage::Ended(outcome) = rollout.stage {
        return Some(Event::RolloutEnded { rollout: id(), outcome });
    }
    if let Some(command) = &rollout.to_issue {
        return Some(Event::CommandIssued { rollout: id(), command: command.clone() });
    }
    match rollout.order.as_ref().map(|act| act.verb) {
        Some(Verb::Abort) => return Some(Event::RolloutEnded { rollout: id(), outcome: Outcome::Aborted }),
        Some(Verb::Rollback) => return Some(ordered(turn, Choice::Rollback)),
        _ => {}
    }
    // What is on its way to its end gets there.
    let ending = matches!(rollout.stage, Stage::RollingBack | Stage::Releasing);
    if let Some(by) = rollout.superseded.as_ref().filter(|_| !ending) {
        let because = vec![Reason::Superseded { by: by.clone() }];
        return Some(match rollout.exposed() {
            true => decision_event(turn, Choice::Rollback, because, &judge(turn, &observed(turn))),
            false => Event::RolloutEnded { rollout: id(), outcome: Outcome::Superseded },
        });
    }
    if let Some(event) = smoke::ask(turn).or_else(|| effect::next(turn)) {
        return Some(event);
    }
    if rollout.guardrails_active()
        && let Some(event) = score_evidence(turn)
    {
        return Some(event);
    }
    if let Some(event) = delivery::follow_up(turn) {
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
            if let Some(why) = intents::overtaken(turn) {
                let ended = || Event::RolloutEnded { rollout: id(), outcome: Outcome::Aborted };
                return Some(alert(rollout, Alert::Overtaken(why)).unwrap_or_else(ended));
            }
            if rollout.order.as_ref().is_some_and(|act| act.verb == Verb::Promote) {
                return Some(ordered(turn, Choice::Promote));
            }
            let open = windows::gates(turn).iter().all(|gate| gate.met);
            (state.turn_of(rollout) && rollout.paused.is_none() && open)
                .then(|| decision_event(turn, Choice::Promote, Vec::new(), &judge(turn, &observed(turn))))
        }
        _ => None,
    }
}

/// Freezes references, scores what has settled, then reads the guardrails and chooses.
fn score_evidence(turn: Turn) -> Option<Event> {
    let Turn { rollout, policy, now, .. } = turn;
    let id = || rollout.id.clone();
    // A reference first: the cohorts that waited meanwhile can then be bet on.
    for (monitor, guardrail) in rollout.monitors.iter().zip(&policy.guardrails) {
        match monitor.next_reference(guardrail, &policy.evidence) {
            Some(Ok(reference)) => {
                return Some(Event::ReferenceFrozen {
                    rollout: id(),
                    guardrail: guardrail.name.clone(),
                    reference,
                });
            }
            Some(Err(why)) => {
                let guardrail = guardrail.name.clone();
                return Some(raised(rollout, Alert::Unjudgeable { guardrail, why }));
            }
            None => {}
        }
    }
    if let Some((i, cohort)) = rollout.settled(policy, now) {
        let guardrail = &policy.guardrails[i];
        let step = rollout.step_at(cohort).map_or(0, |(_, step)| step);
        let scored = Box::new(rollout.monitors[i].score(guardrail, policy, cohort, step));
        return Some(Event::CohortScored {
            rollout: id(),
            guardrail: guardrail.name.clone(),
            cohort,
            scored,
        });
    }
    let observed = observed(turn);
    let judgement = judge(turn, &observed);
    // Having too little evidence is where everything starts: it is no news until something else was said.
    let said = rollout.monitors.iter().map(|monitor| monitor.verdict.unwrap_or(Verdict::Insufficient));
    if let Some((reading, _)) = judgement.readings.iter().zip(said).find(|(r, said)| *said != r.verdict) {
        return Some(Event::VerdictReached { rollout: id(), reading: reading.clone() });
    }
    choose_action(turn, &Assessment::with(turn, judgement, &observed))
}

fn choose_action(turn: Turn, assessment: &Assessment) -> Option<Event> {
    let Turn { rollout, policy, .. } = turn;
    let Assessment { judgement, conditions, slices, gates } = assessment;
    let failing = |on_fail: OnFail| {
        judgement
            .readings
            .iter()
            .filter(move |r| r.verdict == Verdict::Fail && r.on_fail_effective() == on_fail)
    };
    let named = |r: &GuardrailReading| Reason::Guardrail { name: r.name.clone() };
    if judgement.harm {
        let because = failing(OnFail::Rollback).map(named).collect();
        return Some(decision_event(turn, Choice::Rollback, because, judgement));
    }
    let failed: Vec<Reason> = smoke::failed(turn, OnDeadline::Rollback).collect();
    if !failed.is_empty() {
        return Some(decision_event(turn, Choice::Rollback, failed, judgement));
    }
    if let Some(event) = smoke::alert(turn) {
        return Some(event);
    }
    let untold = |r: &&GuardrailReading| !rollout.alerts.contains_key(&AlertKind::Guardrail(r.name.clone()));
    if let Some(reading) = failing(OnFail::Alert).chain(failing(OnFail::Hold)).find(untold) {
        return Some(raised(rollout, Alert::Guardrail { reading: Box::new(reading.clone()) }));
    }
    if let Some(event) = slices::alert(turn, slices) {
        return Some(event);
    }
    if let Some(event) = above_cap(rollout, policy) {
        return Some(event);
    }
    let holding = |on: OnFail| {
        conditions.iter().filter(move |(condition, holds)| condition.on == on && *holds == Some(true))
    };
    for (condition, _) in holding(OnFail::Alert).chain(holding(OnFail::Hold)) {
        let (name, when) = (condition.name.clone(), condition.when.text().to_owned());
        if let Some(event) = alert(rollout, Alert::Condition { name, when }) {
            return Some(event);
        }
    }
    if let Some(name) = &rollout.segment_taken_back
        && let Some(event) = alert(rollout, Alert::Segment { name: name.clone() })
    {
        return Some(event);
    }
    let bake = rollout.bake()?;
    if rollout.order.as_ref().is_some_and(|act| matches!(act.verb, Verb::Promote | Verb::Skip)) {
        return Some(ordered(turn, Choice::Promote));
    }
    let unmet: Vec<&Gate> = gates.iter().filter(|gate| !gate.met).collect();
    if unmet.is_empty() {
        return Some(match rollout.stage {
            Stage::Soaking(_) => decision_event(turn, Choice::Complete, vec![Reason::SoakOver], judgement),
            _ => decision_event(turn, Choice::Promote, Vec::new(), judgement),
        });
    }
    let mut because: Vec<Reason> = unmet.iter().map(|gate| gate.reason.clone()).collect();
    // A deadline asks for evidence. A canary that only waits for a window or the end of a freeze has given it.
    let only_shut = unmet.iter().all(|gate| windows::shuts(gate));
    let deadline = gates::deadline_passed(turn).filter(|_| !only_shut);
    if let Some(after) = deadline {
        because.insert(0, Reason::Deadline { after_ms: after.0 });
        let first = Box::new(Grounds::of(vec![unmet[0].reason.clone()], &judgement.readings));
        let (step, at) = (bake.step, policy.step_name(bake.step));
        if let Some(event) = alert(rollout, Alert::Deadline { step, at, after, first }) {
            return Some(event);
        }
        // What a broken split has measured says nothing about the versions.
        let split = |r: &GuardrailReading| {
            r.kind.profile().of_split && r.verdict == Verdict::Fail && r.on_fail_effective() == OnFail::Hold
        };
        let unsound = policy.ab && judgement.readings.iter().any(split);
        if policy.on_deadline == OnDeadline::Rollback && !unsound {
            return Some(decision_event(turn, Choice::Rollback, because, judgement));
        }
    }
    // Holding means that something other than time is in the way: a failing guardrail at any time, and once
    // time and counts are served, whatever is left. A pause is a person's, and shown as theirs.
    let held_by_guardrail = failing(OnFail::Hold).next().is_some() || holding(OnFail::Hold).next().is_some();
    let served = unmet.iter().all(|gate| !gate.time);
    let only_paused = unmet.iter().all(|gate| gate.time || matches!(gate.reason, Reason::Paused { .. }));
    let stands = unmet.iter().any(|gate| matches!(gate.reason, Reason::Slice { .. }))
        || rollout.effect.as_ref().is_some_and(|effect| effect.announced && !effect.is_shown())
        || smoke::failed(turn, OnDeadline::Hold).next().is_some();
    let holds = held_by_guardrail || stands || deadline.is_some() || served && !only_paused;
    let news = bake.held.as_ref().is_none_or(|held| !same_reasons(held, &because));
    (holds && news).then(|| decision_event(turn, Choice::Hold, because, judgement))
}

/// A mean counts what is above its cap as the cap, and does not see it grow: people are told, as for an alert guardrail.
fn above_cap(rollout: &Rollout, policy: &Policy) -> Option<Event> {
    rollout.monitors.iter().zip(&policy.guardrails).find_map(|(monitor, guardrail)| {
        let cap = monitor.reference.as_ref()?.cap?;
        let evidence = &monitor.evidence;
        let ln = evidence.secondary.as_ref().map_or(0.0, |secondary| secondary.ln());
        let need_ln = libm::log(policy.evidence.rollback);
        let [baseline, canary] = evidence.capped.map(u64::from);
        let (times, plus) = ABOVE_CAP;
        let above = || AboveCap {
            guardrail: guardrail.name.clone(),
            canary: Above { n: canary, of: evidence.canary.n, cap: cap * guardrail.canary_factor() },
            baseline: Above { n: baseline, of: evidence.baseline.n, cap },
            times,
            plus,
            ln,
            need_ln,
        };
        (ln >= need_ln).then(|| alert(rollout, Alert::AboveCap(above())))?
    })
}
