//! What stands between a step and the next.

use super::slices::{self, Slice};
use super::turn::Turn;
use super::{effect, smoke, windows};
use crate::core::event::decision::{Gate, Reason};
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::Weight;
use crate::core::policy::Approval;
use crate::core::policy::guardrail::{Condition, OnFail};
use crate::core::policy::segment::Task;
use crate::core::state::rollout::Stage;
use crate::core::time::Span;

/// Everything the next promotion out of the current step waits for, in order of precedence.
pub fn gates(
    turn: Turn,
    readings: &[GuardrailReading],
    conditions: &[(&Condition, Option<bool>)],
    slices: &[Slice],
) -> Vec<Gate> {
    let Turn { state, rollout, policy, now } = turn;
    let Some(bake) = rollout.bake() else {
        // The first step waits for nothing but its turn, and whatever keeps everything where it is.
        let first = rollout.stage == Stage::Queued && state.turn_of(rollout);
        return if first { windows::gates(turn) } else { Vec::new() };
    };
    let soaking = matches!(rollout.stage, Stage::Soaking(_));
    let step = policy.step(bake.step);
    // Without traffic there is nothing to see but what a copy of it is answered with.
    let idle = step.to == Weight::ZERO;
    let shadowed = step.task == Some(Task::Shadow);
    // Pairs that a shadow step brings end with it: later steps cannot wait for them.
    let in_shadow = policy.steps.iter().any(|step| step.task == Some(Task::Shadow));
    let mut gates = Vec::new();
    if let Some(name) = &rollout.segment_taken_back {
        gates.push(Gate { met: false, time: false, reason: Reason::Segment { name: name.clone() } });
    }
    gates.extend(smoke::gates(turn));
    gates.extend(effect::gate(turn));
    for (reading, guardrail) in readings.iter().zip(&policy.guardrails) {
        // Once everything is exposed there is no baseline left to show safety against: only failing counts. An
        // absolute guard needs none, and what it has not seen it has not found in order.
        let absolute = guardrail.compares().is_none();
        let watches = absolute && guardrail.on_fail != OnFail::Alert && !idle;
        let paired = guardrail.profile().of_pairs;
        let needed = guardrail.gates && if idle { shadowed && paired } else { !(paired && in_shadow) };
        // What a promotion needs shown within its limit does not let it pass by failing, even where that only alerts.
        let asked = needed && !soaking && reading.accepted.is_none();
        let met = match reading.verdict {
            Verdict::Fail => reading.on_fail_effective() == OnFail::Alert && !asked,
            Verdict::Pass => true,
            _ => !watches && (soaking || !needed),
        };
        gates.push(Gate { met, time: false, reason: Reason::Guardrail { name: reading.name.clone() } });
    }
    gates.extend(slices::gates(slices));
    for (condition, holds) in conditions {
        let met = condition.on == OnFail::Alert || *holds == Some(false);
        let reason = Reason::Condition { name: condition.name.clone(), known: holds.is_some() };
        gates.push(Gate { met, time: false, reason });
    }
    for (metric, need) in &step.min_samples {
        let counts = rollout.monitors.iter().zip(&policy.guardrails).filter(|(_, g)| g.metric == *metric);
        let have = counts.map(|(monitor, _)| monitor.evidence.step_canary_at(bake.step)).max().unwrap_or(0);
        let reason = Reason::Samples { metric: metric.clone(), have, need: *need };
        gates.push(Gate { met: have >= *need, time: true, reason });
    }
    let need = if soaking { step.bake.plus(policy.soak) } else { step.bake };
    let left = need.minus(rollout.watched(now));
    gates.push(Gate { met: left == Span::ZERO, time: true, reason: Reason::Bake { left_ms: left.0 } });
    // Completing moves no traffic.
    if !soaking {
        gates.extend(windows::gates(turn));
    }
    if let Some((by, _)) = &rollout.paused {
        gates.push(Gate { met: false, time: false, reason: Reason::Paused { by: by.clone() } });
    }
    let (have, need) = approvals(turn);
    if need > 0 {
        gates.push(Gate { met: have >= need, time: false, reason: Reason::Approvals { have, need } });
    }
    gates
}

/// Approvals given for, and needed by, the next promotion.
pub fn approvals(turn: Turn) -> (u8, u8) {
    let need = asked(turn).map(|a| a.by).max().unwrap_or(0);
    (turn.rollout.approvals.len().min(255) as u8, need)
}

/// Whether the approval of who submitted the change does not count for the next promotion.
pub fn not_submitter(turn: Turn) -> bool {
    asked(turn).any(|a| a.not_submitter)
}

/// What the policy asks for before the next promotion.
fn asked<'a>(turn: Turn<'a>) -> impl Iterator<Item = &'a Approval> {
    let Turn { rollout, policy, .. } = turn;
    let next = rollout.step().map_or(0, |step| usize::from(step) + 1);
    let to = policy.steps.get(next).map_or(Weight::ZERO, |step| step.to);
    let known = next < policy.steps.len();
    let from = if known { policy.weight_before(next as u16) } else { Weight::FULL };
    policy.approvals.iter().filter(move |a| from < a.before && a.before <= to)
}

/// Time since the step was applied after which `on_deadline` happens, when that has passed.
pub fn deadline_passed(turn: Turn) -> Option<Span> {
    let Turn { rollout, policy, now, .. } = turn;
    let Stage::Baking(bake) = &rollout.stage else { return None };
    // A person is asked already.
    if rollout.segment_taken_back.is_some() {
        return None;
    }
    let deadline = policy.step(bake.step).deadline?;
    (rollout.watched(now) >= deadline).then_some(deadline)
}
