//! What the conditions of a policy see, and whether they hold.

use std::collections::BTreeMap;

use super::turn::Turn;
use crate::core::evidence::figures::{Limit, Measure};
use crate::core::evidence::monitor::GuardrailMonitor;
use crate::core::ids::Weight;
use crate::core::policy::Policy;
use crate::core::policy::condition::Figures;
use crate::core::policy::guardrail::{Condition, Guardrail, Unless};
use crate::core::state::rollout::{Rollout, Stage};
use crate::core::telemetry::arm::ArmCount;

/// What conditions see, by name of the guardrail; nothing where the policy has none.
pub fn observed<'a>(turn: Turn<'a>) -> BTreeMap<&'a str, Figures> {
    let Turn { rollout, policy, .. } = turn;
    let asks = |guardrail: &Guardrail| matches!(guardrail.unless, Some(Unless::When { .. }));
    if policy.conditions.is_empty() && !policy.guardrails.iter().any(asks) {
        return BTreeMap::new();
    }
    let figures = |(monitor, guardrail): (&GuardrailMonitor, &'a Guardrail)| {
        let evidence = &monitor.evidence;
        let (baseline, canary) = (evidence.baseline, evidence.canary);
        let profile = guardrail.profile();
        // A value, as a quantile's, is no difference.
        let of_difference = matches!(profile.limit, Limit::Difference | Limit::EitherWay);
        let scale = profile.unit.scale(baseline.mean());
        let judged =
            monitor.reference.is_some() && evidence.blocks > 0 && !of_part_before(rollout, policy, monitor);
        let (baseline, canary) = if judged { (baseline, canary) } else { Default::default() };
        let compared = judged && profile.measure != Measure::Events;
        let range = if compared { evidence.interval.range(monitor.scale()) } else { None };
        let mean = |arm: ArmCount| (arm.n > 0).then(|| arm.mean());
        let figures = Figures {
            diff: range.map(|range| range.diff * scale),
            low: range.map(|range| range.lo * scale),
            high: range.map(|range| range.hi * scale),
            limit: limit_of(guardrail, monitor)
                .filter(|_| compared && of_difference)
                .map(|limit| limit * scale),
            ratio: estimate(guardrail, monitor),
            canary: mean(canary),
            baseline: mean(baseline),
            canary_n: canary.n as f64,
            baseline_n: baseline.n as f64,
        };
        (guardrail.name.as_str(), figures)
    };
    rollout.monitors.iter().zip(&policy.guardrails).map(figures).collect()
}

/// Whether what a monitor has found is of the segment before the one that is exposed now.
pub fn of_part_before(rollout: &Rollout, policy: &Policy, monitor: &GuardrailMonitor) -> bool {
    let segment = |step: u16| policy.steps.get(usize::from(step)).and_then(|step| step.segment);
    rollout.serving_step().is_some_and(|step| segment(step) != segment(monitor.evidence.step))
}

/// Every condition of the policy, and whether it holds; `None`: that cannot be told yet. Without traffic of the canary
/// there is nothing they could be about, and with all of it nothing left to decide.
pub fn conditions<'a>(
    turn: Turn<'a>,
    observed: &BTreeMap<&str, Figures>,
) -> Vec<(&'a Condition, Option<bool>)> {
    let Turn { rollout, policy, .. } = turn;
    let baking = match &rollout.stage {
        Stage::Baking(bake) => policy.step(bake.step).to > Weight::ZERO,
        _ => false,
    };
    if policy.conditions.is_empty() || !baking {
        return Vec::new();
    }
    policy.conditions.iter().map(|condition| (condition, condition.when.holds(observed).ok())).collect()
}

/// Of counts, the canary's rate over the baseline's; of a split, the share asked for.
pub fn estimate(guardrail: &Guardrail, monitor: &GuardrailMonitor) -> Option<f64> {
    let interval = &monitor.evidence.interval;
    (guardrail.profile().measure == Measure::Events)
        .then(|| interval.sum / interval.weight)
        .filter(|ratio| ratio.is_finite())
}

/// How far from the baseline the canary may be, as its kind has it.
pub fn limit_of(guardrail: &Guardrail, monitor: &GuardrailMonitor) -> Option<f64> {
    let (reference, baseline) = (monitor.reference.as_ref(), monitor.evidence.baseline);
    guardrail.rule.kind().limit(guardrail.better, reference, baseline)
}
