//! What follows from the act of a person: it is accepted, or refused with what would be. What an accepted act leads to is decided
//! by `decide`.

use super::assessment::Assessment;
use super::turn::Turn;
use super::{gates, windows};
use crate::core::event::Event;
use crate::core::event::decision::{Gate, Grounds, Reason};
use crate::core::event::fact::Act;
use crate::core::event::reading::GuardrailReading;
use crate::core::event::refusal::Refusal;
use crate::core::event::rollout_spec::Outcome;
use crate::core::event::verb::Verb;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::Weight;
use crate::core::state::rollout::{Bake, Claim, Stage};
use crate::core::state::{Ended, State};
use crate::core::time::Span;

/// Accepts what a person asks for, or says why not.
pub fn act(state: &State, act: &Act) -> Event {
    let (rollout, verb, actor) = (act.rollout.clone(), act.verb, act.actor.clone());
    match check_act(state, act) {
        Ok(()) => Event::ActAccepted { rollout, verb, actor },
        Err(refusal) => Event::ActRefused { rollout, verb, actor, refusal },
    }
}

fn check_act(state: &State, act: &Act) -> Result<(), Refusal> {
    let id = || act.rollout.clone();
    let Some(rollout) = state.rollouts.get(&act.rollout) else {
        let Some(ended) = state.ended.iter().rev().find(|ended| ended.id == act.rollout) else {
            return Err(Refusal::NoRollout { rollout: id() });
        };
        let (outcome, at) = (ended.outcome, ended.ended);
        return match (act.verb, outcome) {
            (Verb::Note, _) => Ok(()),
            (Verb::Rollback, Outcome::Completed) => check_undo(state, ended, act),
            (Verb::Rollback, Outcome::RolledBack) => Err(Refusal::WasRolledBack { rollout: id(), at }),
            _ => Err(Refusal::Over { rollout: id(), outcome, at }),
        };
    };
    let moved = rollout.moved;
    if let Some(seen) = act.if_seq.filter(|seen| *seen < moved) {
        return Err(Refusal::Moved { rollout: id(), seen, moved });
    }
    let turn = Turn::of(state, rollout);
    let verb = act.verb;
    match (verb, &rollout.stage) {
        (Verb::Note, _) => Ok(()),
        (Verb::Claim, _) => match &rollout.claimed {
            Some(Claim { by, seq, .. }) if *by == act.actor => {
                Err(Refusal::ClaimedAlready { rollout: id(), by: by.clone(), seq: *seq })
            }
            Some(Claim { by, seq, .. }) if !act.force => {
                Err(Refusal::ClaimedByAnother { rollout: id(), by: by.clone(), seq: *seq })
            }
            _ => Ok(()),
        },
        (_, Stage::Releasing) => Err(Refusal::Releasing { rollout: id() }),
        // Confirmed by all, and telemetry does not show it: somebody who knows better takes it as done.
        (Verb::Rollback, Stage::RollingBack) if act.force && rollout.sent.is_none() => Ok(()),
        (Verb::Rollback, Stage::RollingBack) if rollout.sent.is_none() => {
            Err(Refusal::RollbackNotShown { rollout: id() })
        }
        (_, Stage::RollingBack) => {
            let decision = rollout.last_choice.as_ref().map_or(0, |last| last.0);
            Err(Refusal::RollingBack { rollout: id(), verb, decision })
        }
        (Verb::Rollback, _) if !rollout.exposed() => Err(Refusal::NoTraffic { rollout: id() }),
        (Verb::Rollback, _) => Ok(()),
        (Verb::Abort, _) if rollout.exposed() => Err(Refusal::HasTraffic { rollout: id() }),
        (Verb::Abort, _) => Ok(()),
        (Verb::Pause, _) if rollout.paused.is_some() => Err(Refusal::AlreadyPaused { rollout: id() }),
        (Verb::Resume, _) if rollout.paused.is_none() => Err(Refusal::NotPaused { rollout: id() }),
        (Verb::Pause | Verb::Resume, _) => Ok(()),
        (Verb::Approve, Stage::Baking(_)) => match gates::approvals(turn) {
            (_, 0) => Err(Refusal::NoApprovalNeeded { rollout: id() }),
            _ if act.actor == rollout.spec.by && gates::not_submitter(turn) => {
                Err(Refusal::OwnChange { rollout: id(), by: act.actor.clone() })
            }
            _ if rollout.approvals.contains(&act.actor) => {
                Err(Refusal::ApprovedAlready { rollout: id(), by: act.actor.clone() })
            }
            _ => Ok(()),
        },
        (Verb::Promote, Stage::Baking(bake)) => check_promote(turn, bake, act),
        (Verb::Promote, Stage::Queued) if state.turn_of(rollout) && rollout.paused.is_none() => {
            past_shut(turn, act, None)
        }
        (Verb::Skip, Stage::Baking(bake)) => check_skip(turn, bake),
        (Verb::Promote | Verb::Skip | Verb::Approve, stage) => Err(match stage {
            Stage::Applying { .. } => Refusal::NotConfirmed { rollout: id(), verb },
            Stage::Soaking(_) => Refusal::FullyExposed { rollout: id(), verb },
            _ => Refusal::NotStarted { rollout: id(), verb },
        }),
    }
}

/// A completed rollout can be taken back while what served before is kept, and nothing has come in between.
fn check_undo(state: &State, ended: &Ended, act: &Act) -> Result<(), Refusal> {
    let Ended { spec, ended: at, .. } = ended;
    let (rollout, service, baseline) = (ended.id.clone(), spec.service.clone(), ended.baseline.clone());
    let keep = state.policies[&spec.policy].keep_old;
    if keep == Span::ZERO {
        return Err(Refusal::Over { rollout, outcome: Outcome::Completed, at: *at });
    }
    if act.if_seq.is_some_and(|seen| seen < *at) {
        return Err(Refusal::CompletedSince { rollout, at: *at });
    }
    let known = &state.services[&service];
    if let Some(active) = known.active.clone() {
        return Err(Refusal::AnotherActive { service, active });
    }
    let of_service = |e: &&Ended| e.spec.service == service && e.outcome == Outcome::Completed;
    let newest = state.ended.iter().rev().find(of_service).is_some_and(|newest| newest.id == rollout);
    if !newest || known.serving.as_ref() != Some(&spec.to) {
        return Err(Refusal::OtherServes { rollout, service, serves: known.serving.clone(), baseline });
    }
    let since = state.now.since(ended.ended_at);
    if since >= keep {
        return Err(Refusal::NotKept { rollout, service, baseline, since, keep });
    }
    Ok(())
}

/// A person may skip time, sample counts and what is undecided. Past anything else they must say so.
fn check_promote(turn: Turn, bake: &Bake, act: &Act) -> Result<(), Refusal> {
    let Turn { rollout, policy, .. } = turn;
    let Assessment { judgement, gates, .. } = Assessment::of(turn);
    if judgement.harm {
        return Err(Refusal::HarmShown { rollout: rollout.id.clone() });
    }
    past_shut(turn, act, Some(policy.step(bake.step).to))?;
    let serious = |gate: &&Gate| match &gate.reason {
        Reason::Guardrail { name } => {
            let of = |r: &&GuardrailReading| r.name == *name;
            !gate.met && judgement.readings.iter().find(of).is_some_and(|r| r.verdict != Verdict::Undecided)
        }
        Reason::Approvals { .. }
        | Reason::Segment { .. }
        | Reason::Slice { .. }
        | Reason::Smoke { .. }
        | Reason::Condition { known: true, .. } => !gate.met,
        // Not shown yet is undecided; not shown in its time is not.
        Reason::Effective { .. } => {
            !gate.met && rollout.effect.as_ref().is_some_and(|effect| effect.announced)
        }
        _ => false,
    };
    match gates.iter().find(serious) {
        Some(gate) if !act.force => {
            let grounds = Grounds::of(vec![gate.reason.clone()], &judgement.readings);
            let (rollout, at) = (rollout.id.clone(), policy.step_name(bake.step));
            Err(Refusal::GateNotMet { rollout, at, gate: Box::new(grounds) })
        }
        _ => Ok(()),
    }
}

/// Past a closed window a person must say so. A freeze stands until somebody ends it.
fn past_shut(turn: Turn, act: &Act, at: Option<Weight>) -> Result<(), Refusal> {
    let stands = |reason: &Reason| matches!(reason, Reason::Frozen { .. }) || !act.force;
    match windows::gates(turn).into_iter().find(|gate| !gate.met && stands(&gate.reason)) {
        Some(gate) => {
            Err(Refusal::Shut { rollout: turn.rollout.id.clone(), at, gate: Box::new(gate.reason) })
        }
        None => Ok(()),
    }
}

/// Skipping passes the bake time and the sample minimum, and nothing else.
fn check_skip(turn: Turn, bake: &Bake) -> Result<(), Refusal> {
    let Assessment { judgement, gates, .. } = Assessment::of(turn);
    let passable = |reason: &Reason| matches!(reason, Reason::Samples { .. } | Reason::Bake { .. });
    match gates.iter().find(|gate| !gate.met && !passable(&gate.reason)) {
        Some(gate) => {
            let grounds = Grounds::of(vec![gate.reason.clone()], &judgement.readings);
            let (rollout, at) = (turn.rollout.id.clone(), turn.policy.step_name(bake.step));
            Err(Refusal::SkipsTooMuch { rollout, at, gate: Box::new(grounds) })
        }
        None => Ok(()),
    }
}
