//! The guardrails of a rollout as they stand: readings, slices, and what is still missing.

use super::forecast;
use crate::core::decide::slices::Slice;
use crate::core::decide::turn::Turn;
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::bets::discoveries;
use crate::core::evidence::monitor::GuardrailMonitor;
use crate::core::evidence::verdict::Verdict;
use crate::core::policy::Policy;
use crate::core::state::rollout::Rollout;
use crate::core::telemetry::arm::ArmCount;
use crate::core::time::{Span, Timestamp};
use crate::core::words;
use crate::wire::reading::{ArmView, GuardrailView, SliceView, guardrail_view};

/// Those of an open rollout, in the policy's order.
pub fn views(turn: Turn, readings: &[GuardrailReading], judged: &[Slice]) -> Vec<GuardrailView> {
    let Turn { rollout, policy, now, .. } = turn;
    let watched = rollout.monitors.iter().zip(&policy.guardrails);
    let views = readings.iter().zip(watched).map(|(reading, (monitor, guardrail))| GuardrailView {
        outlook: outlook(rollout, monitor, reading, now),
        slices: slices(judged, policy, monitor, reading),
        meaning: words::meaning(guardrail, reading),
        ..guardrail_view(reading)
    });
    views.collect()
}

/// As the last decision recorded them.
pub fn last(policy: Option<&Policy>, readings: &[GuardrailReading]) -> Vec<GuardrailView> {
    let stood = |reading: &GuardrailReading| {
        let guardrail = policy.and_then(|p| p.guardrails.iter().find(|g| g.name == reading.name));
        let meaning = guardrail.map(|guardrail| words::meaning(guardrail, reading)).unwrap_or_default();
        GuardrailView { meaning, ..guardrail_view(reading) }
    };
    readings.iter().map(stood).collect()
}

/// The slices of a guardrail, worst first.
fn slices(
    judged: &[Slice],
    policy: &Policy,
    monitor: &GuardrailMonitor,
    reading: &GuardrailReading,
) -> Vec<SliceView> {
    let level = policy.evidence.rollback;
    let shown: Vec<(&String, &GuardrailMonitor)> =
        monitor.slices.iter().filter(|(_, part)| part.evidence.blocks > 0).collect();
    let lns: Vec<f64> = shown.iter().map(|(_, part)| part.evidence.harm.ln()).collect();
    // Those that decide are one family with those of the other guardrails.
    let standing = |value: &str, found: bool| {
        let slice = judged.iter().find(|slice| slice.is(&reading.name, value));
        slice.map_or((found, libm::log(level)), |slice| (slice.fails(), slice.need_ln))
    };
    let mut views: Vec<(f64, SliceView)> = shown
        .into_iter()
        .zip(lns.iter().zip(discoveries(&lns, level)))
        .map(|((value, part), (ln, found))| {
            let (marked, need_ln) = standing(value, found);
            let evidence = &part.evidence;
            let scale = reading.kind.profile().unit.scale(evidence.baseline.mean());
            let range = evidence.interval.range(part.scale());
            let scaled = |x: Option<f64>| x.map(|x| x * scale).filter(|x| x.is_finite());
            let arm = |arm: &ArmCount| ArmView { n: arm.n, mean: arm.mean() };
            let view = SliceView {
                slice: value.clone(),
                baseline: arm(&evidence.baseline),
                canary: arm(&evidence.canary),
                diff: scaled(range.map(|range| range.diff)),
                lo: scaled(range.map(|range| range.lo)),
                hi: scaled(range.map(|range| range.hi)),
                harm_evidence: words::evidence(*ln, need_ln),
                marked,
            };
            (*ln, view)
        })
        .collect();
    views.sort_by(|a, b| b.0.total_cmp(&a.0));
    views.into_iter().map(|(_, view)| view).collect()
}

/// What a guardrail that gates still needs, if things go on as they do.
fn outlook(
    rollout: &Rollout,
    monitor: &GuardrailMonitor,
    reading: &GuardrailReading,
    now: Timestamp,
) -> Option<String> {
    if reading.verdict != Verdict::Undecided || !rollout.guardrails_active() {
        return None;
    }
    let evidence = &monitor.evidence;
    let n = |n: u64| forecast::rounded(n as f64);
    let Some((best, worst)) = forecast::outlook(evidence, true, reading.safe_need_ln) else {
        return Some("evidence of safety does not grow at present".into());
    };
    let samples = match worst {
        Some(worst) if n(worst) != n(best) => format!("{} to {}", n(best), n(worst)),
        Some(_) => n(best),
        None => format!("at least {}", n(best)),
    };
    let watched = rollout.watched(now);
    let time = (evidence.step_canary > 0 && watched > Span::ZERO).then(|| {
        let each = watched.0 as f64 / evidence.step_canary as f64;
        let [best, worst] =
            [best, worst.unwrap_or(best)].map(|n| forecast::rough(Span((n as f64 * each) as u64)));
        let range = if best == worst { best } else { format!("{best} to {worst}") };
        if range.starts_with("under") { format!(", {range}") } else { format!(", about {range}") }
    });
    Some(format!("{samples} more canary observations if this holds{}", time.unwrap_or_default()))
}
