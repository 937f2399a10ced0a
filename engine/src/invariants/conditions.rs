//! Conditions of policies, worked out from what a decision records.

use std::collections::BTreeMap;

use super::{Checked, ensure};
use crate::core::event::decision::Decision;
use crate::core::event::reading::GuardrailReading;
use crate::core::policy::Policy;
use crate::core::policy::condition::Figures;
use crate::core::policy::guardrail::{GuardrailKind, OnFail};
use crate::core::telemetry::arm::ArmCount;

/// A promotion that nobody ordered leaves no condition behind that holds, or that cannot be told.
pub fn allow(policy: &Policy, decision: &Decision) -> Checked {
    let seen: BTreeMap<&str, Figures> =
        decision.readings.iter().map(|reading| (reading.name.as_str(), figures(reading))).collect();
    for condition in policy.conditions.iter().filter(|condition| condition.on == OnFail::Hold) {
        let holds = condition.when.holds(&seen);
        ensure(holds == Ok(false), "I43", || {
            format!("promoted although condition {} comes to {holds:?}", condition.name)
        })?;
    }
    Ok(())
}

fn figures(reading: &GuardrailReading) -> Figures {
    let of_mean = reading.kind == GuardrailKind::Mean;
    let scale = if of_mean { 100.0 / reading.baseline.mean() } else { 100.0 };
    let mean = |arm: ArmCount| (arm.n > 0).then(|| arm.mean());
    Figures {
        diff: reading.range.map(|range| range.diff * scale),
        low: reading.range.map(|range| range.lo * scale),
        high: reading.range.map(|range| range.hi * scale),
        limit: reading
            .limit
            .filter(|_| reading.range.is_some() && reading.kind != GuardrailKind::Quantile)
            .map(|limit| limit * scale),
        ratio: reading.estimate,
        canary: mean(reading.canary),
        baseline: mean(reading.baseline),
        canary_n: reading.canary.n as f64,
        baseline_n: reading.baseline.n as f64,
    }
}
