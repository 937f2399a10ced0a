//! A rollout that is open, as it stands at a moment: what is in its way, and what is known of it.

use super::rollout::{
    DecisionRef, EffectView, GateView, RolloutView, SmokeView, Standing, StepView, WaitView, meaning,
};
use super::{guardrail, wait};
use crate::core::decide::assessment::Assessment;
use crate::core::decide::turn::Turn;
use crate::core::decide::windows;
use crate::core::event::alert::AlertKind;
use crate::core::event::decision::{Gate, Reason};
use crate::core::event::reading::GuardrailReading;
use crate::core::ids::Actuator;
use crate::core::policy::{Policy, Step};
use crate::core::state::State;
use crate::core::state::rollout::{Rollout, Stage};
use crate::core::time::{Span, Timestamp};
use crate::core::{text, words};

/// `rollout` as it stands at `now`.
pub fn view(state: &State, rollout: &Rollout, now: Timestamp) -> RolloutView {
    let policy = state.policy_of(rollout);
    let turn = Turn { state, rollout, policy, now };
    let Assessment { judgement, mut gates, slices, .. } = Assessment::of(turn);
    // What keeps everything where it is comes first: nothing is wrong with the canary then.
    gates.sort_by_key(|gate| (gate.met, gate.time, !windows::shuts(gate)));
    let readings = &judgement.readings;
    let standing = standing(rollout, &gates);
    let waits = wait::waits(state, rollout);
    let sent = rollout.sent.as_ref();
    let last = rollout.last_choice.as_ref();
    let o = &rollout.spec;
    RolloutView {
        state: standing,
        weight: rollout.weight.as_percent(),
        step: rollout.step().map(|step| step + 1),
        steps: steps(policy),
        since_ms: rollout.bake().map(|bake| bake.since.0),
        watched_ms: rollout.watched(now).0,
        bake_ms: to_bake(policy, rollout).0,
        behind: o.behind.as_ref().map(|id| id.0.clone()),
        claimed_by: rollout.claimed.as_ref().map(|claim| claim.by.clone()),
        superseded_by: rollout.superseded.as_ref().map(|id| id.0.clone()),
        seq: rollout.moved,
        summary: summary(turn, standing, &waits, &gates, readings),
        waits,
        meaning: meaning(policy, o, last.map(|last| &last.1)),
        gates: gates
            .iter()
            .map(|gate| GateView { met: gate.met, time: gate.time, text: in_the_way(gate, readings) })
            .collect(),
        guardrails: guardrail::views(turn, readings, &slices),
        alerts: rollout
            .alerts
            .iter()
            .filter(|(kind, _)| stands(rollout, kind))
            .map(|(_, alert)| words::alert::text(alert))
            .collect(),
        last_decision: last.map(|last| DecisionRef::new(last.0, &last.1)),
        unconfirmed: sent.iter().flat_map(|sent| &sent.waiting).map(|name| name.0.clone()).collect(),
        command: sent.map(|sent| sent.command.id.to_string()),
        silent: silent(policy, rollout, now),
        effective: effective(policy, rollout),
        smoke: smoke(policy, rollout),
        ..RolloutView::new(&rollout.id, &rollout.baseline, o, rollout.created_at)
    }
}

fn standing(rollout: &Rollout, gates: &[Gate]) -> Standing {
    match &rollout.stage {
        Stage::Queued if gates.iter().any(|gate| !gate.met) => Standing::Scheduled,
        Stage::Queued => Standing::Queued,
        Stage::Applying { .. } => Standing::Applying,
        Stage::RollingBack => Standing::RollingBack,
        Stage::Releasing => Standing::Releasing,
        Stage::Baking(_) | Stage::Soaking(_) if rollout.paused.is_some() => Standing::Paused,
        Stage::Baking(bake) | Stage::Soaking(bake) if bake.held.is_some() => Standing::Holding,
        Stage::Baking(_) => Standing::Baking,
        Stage::Soaking(_) => Standing::Soaking,
        Stage::Ended(_) => Standing::Completed,
    }
}

fn steps(policy: &Policy) -> Vec<StepView> {
    let step = |(i, step): (usize, &Step)| StepView {
        name: policy.step_name(i as u16),
        weight: step.to.as_percent(),
        bake_ms: step.bake.0,
    };
    policy.steps.iter().enumerate().map(step).collect()
}

/// How long the current step must be watched; with the soak, where it soaks.
fn to_bake(policy: &Policy, rollout: &Rollout) -> Span {
    let Some(bake) = rollout.bake() else { return Span::ZERO };
    let step = policy.step(bake.step);
    if matches!(rollout.stage, Stage::Soaking(_)) { step.bake.plus(policy.soak) } else { step.bake }
}

/// One sentence: what is in the way.
fn summary(
    turn: Turn,
    standing: Standing,
    waits: &[WaitView],
    gates: &[Gate],
    readings: &[GuardrailReading],
) -> String {
    let Turn { rollout, policy, now, .. } = turn;
    match (standing, gates.iter().find(|gate| !gate.met)) {
        (Standing::Queued, _) => match waits.first() {
            Some(WaitView { rollout, scope: None, .. }) => {
                format!("behind {rollout}: same service, one change at a time")
            }
            Some(WaitView { rollout, scope: Some(scope), .. }) => {
                format!("behind {rollout}: both use {scope}, one at a time")
            }
            None if rollout.paused.is_some() => "paused before its start".into(),
            None => "about to start".into(),
        },
        (Standing::Applying | Standing::RollingBack | Standing::Releasing, _) => {
            waits_for(policy, rollout, now)
        }
        (_, Some(gate)) => in_the_way(gate, readings),
        (_, None) => "every gate is met".into(),
    }
}

fn in_the_way(gate: &Gate, readings: &[GuardrailReading]) -> String {
    match &gate.reason {
        Reason::Condition { name, known: true } if gate.met => format!("condition {name} does not hold"),
        reason => words::reason(reason, readings),
    }
}

/// Whether an alert is still about something: an actuator that has confirmed is silent no more.
fn stands(rollout: &Rollout, alert: &AlertKind) -> bool {
    match alert {
        AlertKind::ActuatorSilent(actuator) | AlertKind::RollbackUnconfirmed(actuator, _) => {
            rollout.sent.as_ref().is_some_and(|sent| sent.waiting.contains(actuator))
        }
        _ => true,
    }
}

/// `waits for index-eu (1,200 of 8,000 done), index-us to confirm`
fn waits_for(policy: &Policy, rollout: &Rollout, now: Timestamp) -> String {
    if let (None, Some(effect)) = (&rollout.sent, &rollout.effect) {
        return format!("confirmed by all; {}", words::reason(&effect.reason(policy), &[]));
    }
    let silent = silent(policy, rollout, now);
    let mute = |name: &Actuator| silent.contains(&name.0);
    let waiting = rollout.sent.iter().flat_map(|sent| sent.waiting.iter().map(move |name| (name, sent)));
    let told = waiting.map(|(name, sent)| match sent.progress.get(name) {
        Some((_, Some((done, of)))) => {
            format!("{name} ({} of {} done)", text::count(*done), text::count(*of))
        }
        Some((_, None)) if !mute(name) => format!("{name} (at work)"),
        _ if mute(name) => format!("{name} (silent)"),
        _ => name.to_string(),
    });
    format!("waits for {} to confirm", told.collect::<Vec<_>>().join(", "))
}

fn silent(policy: &Policy, rollout: &Rollout, now: Timestamp) -> Vec<String> {
    let silent = rollout.silent(policy, now).into_iter();
    silent.map(|actuator| actuator.0.clone()).collect()
}

/// What telemetry shows of the command that was confirmed last.
fn effective(policy: &Policy, rollout: &Rollout) -> Option<EffectView> {
    let effect = rollout.effect.as_ref()?;
    let found = effect.requests(policy);
    Some(EffectView {
        shown: effect.is_shown(),
        at_ms: effect.shown.map(|at| at.0),
        weight: effect.to.as_percent(),
        requests: found.map_or(0, |(_, _, all)| all),
        canary: found.map_or(0, |(_, canary, _)| canary),
        metric: found.map(|(metric, ..)| metric.0.clone()),
    })
}

/// The smoke tests of the current step.
fn smoke(policy: &Policy, rollout: &Rollout) -> Vec<SmokeView> {
    let views = rollout.smoke.iter().map(|test| SmokeView {
        name: policy.smoke[usize::from(test.test)].name.clone(),
        id: test.id.to_string(),
        attempt: test.attempt,
        outcome: test.result.as_ref().map(|result| result.outcome),
        detail: test.result.as_ref().map(|result| result.detail.clone()).unwrap_or_default(),
        took_ms: test.result.as_ref().map(|result| result.took_ms),
    });
    views.collect()
}
