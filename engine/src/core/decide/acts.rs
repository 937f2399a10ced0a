//! What follows from the act of a person: it is accepted, or refused with what would be. What an accepted act leads to is decided
//! by `decide`.

use super::assessment::Assessment;
use super::turn::Turn;
use super::{gates, windows};
use crate::core::event::Event;
use crate::core::event::decision::{Gate, Reason};
use crate::core::event::fact::Act;
use crate::core::event::opening::{Outcome, Refusal};
use crate::core::event::reading::GuardrailReading;
use crate::core::event::verb::Verb;
use crate::core::evidence::verdict::Verdict;
use crate::core::planted::{Bug, planted};
use crate::core::state::rollout::{Bake, Claim, Stage};
use crate::core::state::{Ended, State};
use crate::core::time::Span;
use crate::core::words;

pub fn refusal(code: &str, message: String) -> Refusal {
    Refusal { code: code.to_owned(), message }
}

/// Accepts what a person asks for, or says why not.
pub fn act(state: &State, act: &Act) -> Event {
    let (rollout, verb, actor) = (act.rollout.clone(), act.verb, act.actor.clone());
    match check_act(state, act) {
        Ok(()) => Event::ActAccepted { rollout, verb, actor },
        Err(refusal) => Event::ActRefused { rollout, verb, actor, refusal },
    }
}

fn check_act(state: &State, act: &Act) -> Result<(), Refusal> {
    let (id, verb) = (&act.rollout, act.verb.as_str());
    let Some(rollout) = state.rollouts.get(id) else {
        let Some(ended) = state.ended.iter().rev().find(|ended| ended.id == *id) else {
            return Err(refusal("E4004", format!("no rollout {id}; see: sluice ls")));
        };
        if act.verb == Verb::Note {
            return Ok(());
        }
        let how = match ended.outcome {
            Outcome::Completed => "completed",
            Outcome::RolledBack => "rolled back",
            Outcome::Aborted => "aborted",
            Outcome::Superseded => "was superseded",
        };
        let at = ended.ended;
        if act.verb == Verb::Rollback && ended.outcome == Outcome::Completed {
            return check_undo(state, ended, act);
        }
        if act.verb == Verb::Rollback && ended.outcome == Outcome::RolledBack {
            return Err(refusal("E1022", format!("{id} was rolled back at seq {at}; nothing sent")));
        }
        let message = format!("{id} {how} at seq {at}; nothing sent. Start a new rollout: sluice deploy");
        return Err(refusal("E1021", message));
    };
    if let Some(seen) = act.if_seq.filter(|seen| *seen < rollout.moved && !planted(Bug::StaleView)) {
        let message = format!("{id} has moved since seq {seen}: see seq {}; nothing sent", rollout.moved);
        return Err(refusal("E0313", message));
    }
    let turn = Turn::of(state, rollout);
    match (act.verb, &rollout.stage) {
        (Verb::Note, _) => Ok(()),
        (Verb::Claim, _) => match &rollout.claimed {
            Some(Claim { by, seq, .. }) if *by == act.actor => {
                Err(refusal("E0323", format!("{by} has claimed {id} already, at seq {seq}")))
            }
            Some(Claim { by, seq, .. }) if !act.force => {
                let message = format!(
                    "{by} has claimed {id}, at seq {seq}. take it over: sluice claim {id} --override --reason \"...\""
                );
                Err(refusal("E0323", message))
            }
            _ => Ok(()),
        },
        (Verb::Promote, Stage::RollingBack) if planted(Bug::PromotesAfterRollback) => Ok(()),
        (_, Stage::Releasing) => {
            let message = format!(
                "{id} is complete and gives up what served before; nothing sent. Start a new rollout: sluice deploy"
            );
            Err(refusal("E1021", message))
        }
        // Confirmed by all, and telemetry does not show it: somebody who knows better takes it as done.
        (Verb::Rollback, Stage::RollingBack) if act.force && rollout.sent.is_none() => Ok(()),
        (Verb::Rollback, Stage::RollingBack) if rollout.sent.is_none() => {
            let message = format!(
                "{id} is rolled back, as its actuators say, and telemetry has to show it. Take their word for it: \
                 sluice rollback {id} --override --reason \"...\""
            );
            Err(refusal("E1022", message))
        }
        (_, Stage::RollingBack) => {
            let seq = rollout.last_choice.as_ref().map_or(0, |last| last.0);
            let code = if act.verb == Verb::Rollback { "E1022" } else { "E1021" };
            Err(refusal(code, format!("{id} is already rolling back (decision {seq}); nothing sent")))
        }
        (Verb::Rollback, _) if !rollout.exposed() => {
            Err(refusal("E0314", format!("{id} has no traffic to roll back; use: sluice abort {id}")))
        }
        (Verb::Rollback, _) => Ok(()),
        (Verb::Abort, _) if rollout.exposed() => {
            Err(refusal("E0315", format!("{id} already has traffic; use: sluice rollback {id}")))
        }
        (Verb::Abort, _) => Ok(()),
        (Verb::Pause, _) if rollout.paused.is_some() => {
            Err(refusal("E0316", format!("{id} is already paused")))
        }
        (Verb::Resume, _) if rollout.paused.is_none() => Err(refusal("E0317", format!("{id} is not paused"))),
        (Verb::Pause | Verb::Resume, _) => Ok(()),
        (Verb::Approve, Stage::Baking(_)) => match gates::approvals(turn) {
            (_, 0) => Err(refusal("E0318", format!("the next step of {id} needs no approval"))),
            _ if act.actor == rollout.opening.by
                && gates::not_submitter(turn)
                && !planted(Bug::SubmitterCounts) =>
            {
                let message = format!("{} submitted {id}; its next step needs the word of others", act.actor);
                Err(refusal("E0324", message))
            }
            _ if rollout.approvals.contains(&act.actor) => {
                Err(refusal("E0319", format!("{} has already approved the next step of {id}", act.actor)))
            }
            _ => Ok(()),
        },
        (Verb::Promote, Stage::Baking(bake)) => check_promote(turn, bake, act),
        (Verb::Promote, Stage::Queued) if state.turn_of(rollout) && rollout.paused.is_none() => {
            past_shut(turn, act, "before its first step")
        }
        (Verb::Skip, Stage::Baking(bake)) => check_skip(turn, bake),
        (Verb::Promote | Verb::Skip | Verb::Approve, Stage::Applying { .. }) => {
            let message =
                format!("{verb} refused: not every actuator of {id} has confirmed the current step");
            Err(refusal("E0320", message))
        }
        (Verb::Promote | Verb::Skip | Verb::Approve, stage) => {
            let why = match stage {
                Stage::Soaking(_) => "it already has all traffic",
                _ => "it has not started",
            };
            Err(refusal("E0321", format!("{verb} refused: {id}: {why}")))
        }
    }
}

/// A completed rollout can be taken back while what served before is kept, and nothing has come in between.
fn check_undo(state: &State, ended: &Ended, act: &Act) -> Result<(), Refusal> {
    let Ended { id, opening, baseline, .. } = ended;
    let (service, keep) = (&opening.service, state.policies[&opening.policy].keep_old);
    if keep == Span::ZERO {
        let at = ended.ended;
        let message = format!("{id} completed at seq {at}; nothing sent. Start a new rollout: sluice deploy");
        return Err(refusal("E1021", message));
    }
    if act.if_seq.is_some_and(|seen| seen < ended.ended) {
        let message = format!("{id} has completed since: see seq {}; nothing sent", ended.ended);
        return Err(refusal("E0313", message));
    }
    let known = &state.services[service];
    if let Some(active) = &known.active {
        let message = format!(
            "{active} is active on {service}; nothing sent. Take that back first: sluice rollback {active}"
        );
        return Err(refusal("E0322", message));
    }
    let of_service = |e: &&Ended| e.opening.service == *service && e.outcome == Outcome::Completed;
    let newest = state.ended.iter().rev().find(of_service).is_some_and(|newest| newest.id == *id);
    let again = format!("roll {baseline} out: sluice deploy {service} {baseline}");
    if !newest || known.serving.as_ref() != Some(&opening.to) {
        let serves = known.serving.as_ref().map_or("something else", |version| version.as_str());
        let message = format!(
            "{id} completed, and {serves} has come to serve {service} since; nothing sent. To go back, {again}"
        );
        return Err(refusal("E0322", message));
    }
    let since = state.now.since(ended.ended_at);
    if since >= keep && !planted(Bug::KeepsForEver) {
        let message = format!(
            "{id} completed {since} ago, and {baseline} was kept for {keep}; nothing sent. To go back, {again}"
        );
        return Err(refusal("E0322", message));
    }
    Ok(())
}

/// A person may skip time, sample counts and what is undecided. Past anything else they must say so.
fn check_promote(turn: Turn, bake: &Bake, act: &Act) -> Result<(), Refusal> {
    let Turn { rollout, policy, .. } = turn;
    let id = &rollout.id;
    let Assessment { judgement, gates, .. } = Assessment::of(turn);
    if judgement.harm {
        let message = format!("promote refused: {id} is being rolled back");
        return Err(refusal("E0312", message));
    }
    let at = policy.step(bake.step).to;
    past_shut(turn, act, &format!("at {at}"))?;
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
        Reason::Effective { .. } => !gate.met && rollout.effect.as_ref().is_some_and(|effect| effect.named),
        _ => false,
    };
    match gates.iter().find(serious) {
        Some(gate) if !act.force => {
            let why = words::reason(&gate.reason, &judgement.readings);
            let at = policy.step_name(bake.step);
            let message = format!(
                "promote refused: {id} at {at}: {why}. override: sluice promote {id} --override --reason \"...\""
            );
            Err(refusal("E0312", message))
        }
        _ => Ok(()),
    }
}

/// Past a closed window a person must say so. A freeze stands until somebody ends it.
fn past_shut(turn: Turn, act: &Act, at: &str) -> Result<(), Refusal> {
    let id = &turn.rollout.id;
    for gate in windows::gates(turn).iter().filter(|gate| !gate.met) {
        let why = words::reason(&gate.reason, &[]);
        let how = match &gate.reason {
            Reason::Frozen { service, .. } => {
                let of = service.as_ref().map(|service| format!(" --service {service}")).unwrap_or_default();
                format!("end it: sluice unfreeze{of} --reason \"...\"")
            }
            _ if act.force => continue,
            _ => format!("override: sluice promote {id} --override --reason \"...\""),
        };
        return Err(refusal("E0312", format!("promote refused: {id} {at}: {why}. {how}")));
    }
    Ok(())
}

/// Skipping passes the bake time and the sample minimum, and nothing else.
fn check_skip(turn: Turn, bake: &Bake) -> Result<(), Refusal> {
    let (id, policy) = (&turn.rollout.id, turn.policy);
    let Assessment { judgement, gates, .. } = Assessment::of(turn);
    let passable = |reason: &Reason| matches!(reason, Reason::Samples { .. } | Reason::Bake { .. });
    match gates.iter().find(|gate| !gate.met && !passable(&gate.reason)) {
        Some(_) if planted(Bug::SkipsGuardrail) => Ok(()),
        Some(gate) => {
            let why = words::reason(&gate.reason, &judgement.readings);
            let at = policy.step_name(bake.step);
            let message =
                format!("skip refused: {id} at {at}: {why}. It passes bake time and sample minimum only");
            Err(refusal("E0325", message))
        }
        None => Ok(()),
    }
}
