//! A choice becomes a decision: what it is about, and what speaks for it.

use super::conditions::observed;
use super::readings::{Judgement, judge};
use super::turn::Turn;
use super::windows;
use crate::core::event::Event;
use crate::core::event::decision::{Choice, Decision, Reason};
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::kind::Scope;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::Weight;
use crate::core::policy::guardrail::OnFail;
use crate::core::policy::segment::Task;
use crate::core::state::rollout::Stage;

/// A decision that a person ordered.
pub fn ordered(turn: Turn, choice: Choice) -> Event {
    let judgement = judge(turn, &observed(turn));
    let order = turn.rollout.order.as_ref();
    let order = order.map(|act| Reason::Operator { by: act.actor.clone(), reason: act.reason.clone() });
    let mut because: Vec<Reason> = order.into_iter().collect();
    if choice == Choice::Promote {
        // A window that is passed stays on record.
        let shut = windows::gates(turn).into_iter().filter(|gate| !gate.met);
        because.extend(shut.map(|gate| gate.reason));
    }
    decision_event(turn, choice, because, &judgement)
}

/// The decision as it is recorded.
pub fn decision_event(turn: Turn, choice: Choice, because: Vec<Reason>, judgement: &Judgement) -> Event {
    let Turn { state, rollout, policy, .. } = turn;
    let step = match rollout.stage {
        Stage::Queued => None,
        _ => rollout.step(),
    };
    let weight_to = match choice {
        Choice::Promote => policy.steps[step.map_or(0, |step| usize::from(step) + 1)].to,
        Choice::Rollback => Weight::ZERO,
        Choice::Hold | Choice::Complete => rollout.weight,
    };
    // Where segments come one after another, a failure may be answered in the one that failed: where labels
    // are slow, that may be one before the one that is watched.
    let stops = |r: &GuardrailReading| r.verdict == Verdict::Fail && r.kind.profile().scope == Scope::Rollout;
    let of_all =
        rollout.order.is_some() || rollout.superseded.is_some() || judgement.readings.iter().any(stops);
    let showed = |reason: &Reason| {
        let Reason::Guardrail { name } = reason else { return None };
        let fails =
            |r: &GuardrailReading| r.verdict == Verdict::Fail && r.on_fail_effective() == OnFail::Rollback;
        judgement.readings.iter().find(|r| r.name == *name && fails(r))?;
        let i = policy.guardrails.iter().position(|g| g.name == *name)?;
        let monitor = rollout.monitors.get(i).filter(|monitor| monitor.tally.is_none())?;
        Some(monitor.evidence.step)
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
        Choice::Promote => about.and_then(|step| policy.step(step).task),
        Choice::Complete if policy.release => Some(Task::Release),
        _ => None,
    };
    let weight_from = match about {
        Some(next) if choice == Choice::Promote && policy.segments.is_some() => policy.weight_before(next),
        // Labels that come late have shown it of a part before.
        Some(failed)
            if back_to.is_some() && policy.segment_of(failed) != step.and_then(|s| policy.segment_of(s)) =>
        {
            policy.step(failed).to
        }
        _ => rollout.weight,
    };
    // A queued rollout is compared with what serves when its turn comes.
    let serving = state.services.get(&rollout.spec.service).and_then(|s| s.serving.clone());
    let baseline = serving.filter(|_| step.is_none()).unwrap_or_else(|| rollout.baseline.clone());
    let decision = Decision {
        choice,
        baseline,
        canary: rollout.spec.to.clone(),
        step,
        weight_from,
        weight_to,
        segment: about.and_then(|step| policy.segment_of(step)).map(str::to_owned),
        task,
        back_to,
        because,
        readings: judgement.readings.clone(),
        harm_ln: judgement.harm_ln,
        policy: rollout.spec.policy,
        engine: rollout.spec.engine,
        inputs: (rollout.created, state.last),
        actor: rollout.order.as_ref().map(|act| act.actor.clone()),
    };
    Event::DecisionMade { rollout: rollout.id.clone(), decision: Box::new(decision) }
}
