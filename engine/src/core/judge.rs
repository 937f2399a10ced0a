//! Weighs one rollout: the evidence and the policy in, readings and gates out. Chooses nothing itself.
//!
//! Invariant: missing evidence is never a pass. Pure: the same state gives the same readings, in the policy's
//! order.

use std::collections::BTreeMap;

use super::bets::ln_weighted;
use super::cohort::Arm;
use super::conclusion::{ArmCount, Reason};
use super::condition::Figures;
use super::effect;
use super::evidence::Evidence;
use super::exposure::Task;
use super::ids::Weight;
use super::planted::{Bug, planted};
use super::policy::{Approval, Better, Condition, Guardrail, GuardrailKind, OnFail, Policy, Rule, Unless};
use super::reading::{GuardrailReading, Silence};
use super::reference::canary_factor;
use super::rollout::{Rollout, Stage};
use super::slices;
use super::smoke;
use super::state::State;
use super::time::{Span, Timestamp};
use super::verdict::Verdict;
use super::watch::Watch;
use super::windows;

/// How all guardrails of a rollout stand at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// In the policy's order.
    pub readings: Vec<GuardrailReading>,
    /// Log-evidence (nats) of the rollback guardrails together: the log of their weighted average.
    pub harm_ln: f64,
    /// Any rollback guardrail fails, or all together do.
    pub harm: bool,
}

/// Reads every guardrail of `rollout` at `now`.
pub fn judge(rollout: &Rollout, policy: &Policy, now: Timestamp) -> Judgement {
    let together = Together::of(rollout, policy);
    let largest = together.largest();
    let watches = rollout.watches.iter().zip(&policy.guardrails);
    let readings: Vec<GuardrailReading> =
        watches.map(|(watch, guardrail)| read(rollout, policy, watch, guardrail, largest, now)).collect();
    let harm = readings.iter().any(|r| r.verdict == Verdict::Fail && r.does() == OnFail::Rollback);
    Judgement { readings, harm_ln: together.ln(), harm }
}

/// The rollback guardrails together: the weighted average of their evidence is what decides.
pub struct Together<'a> {
    /// Those that have a reference, in the policy's order.
    pub parts: Vec<Part<'a>>,
    /// Log-evidence (nats) that acts.
    pub need_ln: f64,
}

/// What one guardrail adds to the average.
pub struct Part<'a> {
    pub name: &'a str,
    pub weight: f64,
    pub ln: f64,
    pub excused: bool,
}

impl Part<'_> {
    /// Log of weight times evidence.
    pub fn share_ln(&self) -> f64 {
        libm::log(self.weight) + self.ln
    }
}

impl<'a> Together<'a> {
    pub fn of(rollout: &Rollout, policy: &'a Policy) -> Together<'a> {
        let watches = rollout.watches.iter().zip(&policy.guardrails);
        let weighted = watches.filter(|(w, g)| g.weight > 0.0 && w.reference.is_some());
        let parts = weighted.map(|(w, g)| Part {
            name: &g.name,
            weight: g.weight,
            ln: w.evidence.harm.ln(),
            excused: excuse(rollout, policy, g).is_some()
                || excused_when(rollout, policy, g).is_some()
                || w.accepted.is_some(),
        });
        Together { parts: parts.collect(), need_ln: libm::log(policy.evidence.rollback) }
    }

    /// Log of the average of all.
    pub fn ln(&self) -> f64 {
        average(self.parts.iter())
    }

    /// The same without those that are excused; `None` when none is.
    pub fn rest_ln(&self) -> Option<f64> {
        let rest = || self.parts.iter().filter(|part| !part.excused);
        (rest().count() < self.parts.len()).then(|| average(rest()))
    }

    /// When an average has crossed, the guardrail that carries most of it is the one that failed. One that is excused
    /// must not hide another: without it the rest are asked again. What the largest part of each average is.
    pub fn largest(&self) -> [Option<f64>; 2] {
        let culprit = |parts: &mut dyn Iterator<Item = &Part>| {
            let parts: Vec<&Part> = parts.collect();
            let crossed = average(parts.iter().copied()) >= self.need_ln && !parts.is_empty();
            crossed.then(|| parts.iter().map(|part| part.share_ln()).fold(f64::NEG_INFINITY, f64::max))
        };
        [culprit(&mut self.parts.iter()), culprit(&mut self.parts.iter().filter(|part| !part.excused))]
    }
}

fn average<'p, 'a: 'p>(parts: impl Iterator<Item = &'p Part<'a>>) -> f64 {
    let parts: Vec<(f64, f64)> = parts.map(|part| (part.weight, part.ln)).collect();
    if parts.is_empty() { 0.0 } else { ln_weighted(parts.iter().copied()) }
}

/// The benefit that turns a failure of `guardrail` into a hold, if it has been shown: the name of the guardrail that
/// shows it.
fn excuse(rollout: &Rollout, policy: &Policy, guardrail: &Guardrail) -> Option<String> {
    let Unless::Benefit { guardrail: shows } = guardrail.unless.as_ref()? else { return None };
    let i = policy.guardrails.iter().position(|g| g.name == *shows)?;
    (rollout.watches.get(i)?.evidence.benefit_shown || planted(Bug::ExcuseUnshown)).then(|| shows.clone())
}

/// The condition that does the same, if it holds.
fn excused_when(rollout: &Rollout, policy: &Policy, guardrail: &Guardrail) -> Option<String> {
    let Unless::When { when } = guardrail.unless.as_ref()? else { return None };
    when.holds(&observed(rollout, policy)).is_ok_and(|holds| holds).then(|| when.text().to_owned())
}

/// What conditions see, by name of the guardrail.
fn observed<'a>(rollout: &Rollout, policy: &'a Policy) -> BTreeMap<&'a str, Figures> {
    let figures = |(watch, guardrail): (&Watch, &'a Guardrail)| {
        let evidence = &watch.evidence;
        let (baseline, canary) = (evidence.baseline, evidence.canary);
        let of_mean = matches!(guardrail.rule, Rule::Mean { .. });
        // What the limit of a quantile allows is a value, and not a difference.
        let of_quantile = matches!(guardrail.rule, Rule::Quantile { .. });
        let scale = if of_mean { 100.0 / baseline.mean() } else { 100.0 };
        let judged =
            watch.reference.is_some() && evidence.blocks > 0 && !of_part_before(rollout, policy, watch);
        let (baseline, canary) = if judged { (baseline, canary) } else { Default::default() };
        let compared = judged && !matches!(guardrail.rule, Rule::Count { .. } | Rule::Split);
        let range = if compared { evidence.display.range(watch.scale()) } else { None };
        let mean = |arm: ArmCount| (arm.n > 0).then(|| arm.mean());
        let figures = Figures {
            diff: range.map(|range| range.diff * scale),
            low: range.map(|range| range.lo * scale),
            high: range.map(|range| range.hi * scale),
            limit: limit_of(guardrail, watch).filter(|_| compared && !of_quantile).map(|limit| limit * scale),
            ratio: estimate(guardrail, watch),
            canary: mean(canary),
            baseline: mean(baseline),
            canary_n: canary.n as f64,
            baseline_n: baseline.n as f64,
        };
        (guardrail.name.as_str(), figures)
    };
    rollout.watches.iter().zip(&policy.guardrails).map(figures).collect()
}

/// Whether what a watch has found is of the segment before the one that is exposed now.
fn of_part_before(rollout: &Rollout, policy: &Policy, watch: &Watch) -> bool {
    let segment = |step: u16| policy.steps.get(usize::from(step)).and_then(|step| step.segment);
    rollout.serving_step().is_some_and(|step| segment(step) != segment(watch.evidence.step))
}

/// Every condition of the policy, and whether it holds; `None`: that cannot be told yet. Without traffic of the canary
/// there is nothing they could be about, and with all of it nothing left to decide.
pub fn conditions<'a>(rollout: &Rollout, policy: &'a Policy) -> Vec<(&'a Condition, Option<bool>)> {
    let baking = match &rollout.stage {
        Stage::Baking(bake) => policy.steps[usize::from(bake.step)].to > Weight::ZERO,
        _ => false,
    };
    if policy.conditions.is_empty() || !baking || planted(Bug::ConditionIgnored) {
        return Vec::new();
    }
    let observed = observed(rollout, policy);
    policy.conditions.iter().map(|condition| (condition, condition.when.holds(&observed).ok())).collect()
}

/// Of counts, the canary's rate over the baseline's; of a split, the share asked for.
fn estimate(guardrail: &Guardrail, watch: &Watch) -> Option<f64> {
    let display = &watch.evidence.display;
    matches!(guardrail.rule, Rule::Count { .. } | Rule::Split)
        .then(|| display.sum / display.weight)
        .filter(|ratio| ratio.is_finite())
}

pub(super) fn read(
    rollout: &Rollout,
    policy: &Policy,
    watch: &Watch,
    guardrail: &Guardrail,
    largest: [Option<f64>; 2],
    now: Timestamp,
) -> GuardrailReading {
    let evidence = &watch.evidence;
    // A guardrail that shares the rollback alpha needs its weight's worth more by itself.
    let act_ln = libm::log(match guardrail.rule {
        Rule::Split => policy.evidence.split,
        _ => policy.evidence.rollback,
    });
    let harm_need_ln = if guardrail.weight > 0.0 { act_ln - libm::log(guardrail.weight) } else { act_ln };
    let safe_need_ln = libm::log(promote_level(rollout, policy));
    let (harm_ln, mut safe_ln) = if watch.reference.is_some() {
        (harm_ln(guardrail, evidence), evidence.safe.ln())
    } else {
        (0.0, 0.0)
    };
    let (mut baseline, mut canary) = (evidence.baseline, evidence.canary);
    let judged = watch.reference.is_some() && evidence.blocks > 0;
    let failed = watch.verdict == Some(Verdict::Fail)
        || watch.recent.as_ref().is_some_and(|recent| recent.fired)
        || judged && harm_ln >= harm_need_ln
        || judged
            && guardrail.weight > 0.0
            && largest.iter().flatten().any(|largest| libm::log(guardrail.weight) + harm_ln >= *largest);
    // What was shown of the segment before says nothing about the one that is exposed now.
    let before = of_part_before(rollout, policy, watch);
    let before = before && !failed && !planted(Bug::SafetyCarries);
    if before {
        (safe_ln, baseline, canary) = (0.0, ArmCount::default(), ArmCount::default());
    }
    if let Some(recent) = &watch.recent {
        canary = ArmCount { n: u64::from(recent.n), sum: f64::from(recent.bad) };
        baseline = ArmCount::default();
    }
    let quiet = |arm: Arm| {
        rollout.quiet_since(policy, watch, arm).is_some_and(|at| now.since(at) >= policy.stale_after)
    };
    let silent = quiet(Arm::Canary);
    // Once everybody is exposed the baseline has nothing to send, and pairs are the canary's alone.
    let compared = rollout.weight < Weight::FULL && !matches!(guardrail.rule, Rule::Paired { .. });
    let broken = silent && compared && quiet(Arm::Baseline);
    let verdict = if failed {
        Verdict::Fail
    } else if broken {
        Verdict::SourceBroken
    } else if watch.canary_seen == 0 {
        if silent { Verdict::NoData } else { Verdict::Insufficient }
    } else if silent {
        Verdict::Stale
    } else if watch.recent.is_some() || judged && !guardrail.shows_safety() && canary.n > 0 {
        Verdict::Pass
    } else if !judged || before || !guardrail.shows_safety() {
        Verdict::Insufficient
    } else if safe_ln >= safe_need_ln
        || harm_ln <= 0.0 && watch.safe_at.is_some() && watch.safe_at == rollout.step()
    {
        Verdict::Pass
    } else {
        Verdict::Undecided
    };
    let display = &evidence.display;
    GuardrailReading {
        name: guardrail.name.clone(),
        metric: guardrail.metric.clone(),
        kind: GuardrailKind::of(&guardrail.rule),
        on_fail: guardrail.on_fail,
        verdict,
        baseline,
        canary,
        range: if judged && !before { display.range(watch.scale()) } else { None }
            .filter(|_| !matches!(guardrail.rule, Rule::Count { .. } | Rule::Split)),
        harm_ln,
        harm_need_ln,
        safe_ln,
        safe_need_ln,
        limit: limit_of(guardrail, watch),
        waiting: watch.cohorts.values().map(|cohort| cohort.waiting()).sum(),
        late: watch.late,
        left_out: watch.left_out,
        clamped: watch.clamped,
        reference: watch.reference.clone(),
        epoch: evidence.harm.epoch,
        blocks: evidence.blocks,
        estimate: estimate(guardrail, watch),
        excused: if failed { excuse(rollout, policy, guardrail) } else { None },
        excused_when: if failed { excused_when(rollout, policy, guardrail) } else { None },
        accepted: watch.accepted.clone(),
        silence: silence(rollout, watch, verdict, now),
        benefit_ln: guardrail.benefit.map(|_| evidence.other.as_ref().map_or(0.0, |other| other.ln())),
    }
}

/// Who has been silent for how long, when that is what the verdict is about.
fn silence(rollout: &Rollout, watch: &Watch, verdict: Verdict, now: Timestamp) -> Option<Silence> {
    let about = matches!(verdict, Verdict::NoData | Verdict::Stale | Verdict::SourceBroken);
    about.then(|| Silence {
        canary: rollout.opening.to.clone(),
        canary_for: watch.last_canary.map(|last| now.since(last)),
        baseline: rollout.baseline.clone(),
        baseline_for: watch.last_baseline.map(|last| now.since(last)),
    })
}

/// Log-evidence that the limit is exceeded. A missing share has two sides: the average of their evidence is evidence
/// against either.
pub fn harm_ln(guardrail: &Guardrail, evidence: &Evidence) -> f64 {
    let above = evidence.harm.ln();
    if !matches!(guardrail.rule, Rule::Missing { .. }) {
        return above;
    }
    let below = evidence.other.as_ref().map_or(0.0, |other| other.ln());
    ln_weighted([(0.5, above), (0.5, below)].into_iter())
}

/// How far from the baseline the canary may be, in the metric's own unit; for an absolute guard, the share; for a
/// quantile, what the canary's may be.
fn limit_of(guardrail: &Guardrail, watch: &Watch) -> Option<f64> {
    match (&guardrail.rule, &watch.reference) {
        (Rule::Absolute { above, .. }, _) => Some(*above),
        (Rule::Quantile { .. }, Some(reference)) => {
            reference.threshold.map(|threshold| threshold * canary_factor(guardrail))
        }
        (Rule::Proportion { .. } | Rule::Score { .. }, Some(reference)) => {
            Some(reference.setting(guardrail).boundary() - reference.theta)
        }
        (Rule::Paired { .. }, Some(reference)) => Some(reference.pair_setting(guardrail).d),
        (Rule::Count { ratio }, _) => Some(*ratio),
        (Rule::Missing { points, .. }, _) => Some(*points),
        (Rule::Mean { handicap }, Some(_)) => {
            let sign = if guardrail.better == Better::Lower { 1.0 } else { -1.0 };
            Some(sign * handicap * watch.evidence.baseline.mean())
        }
        _ => None,
    }
}

/// The e-value of safety that the next promotion needs.
fn promote_level(rollout: &Rollout, policy: &Policy) -> f64 {
    let next = rollout.serving_step().map_or(0, |step| usize::from(step) + 1);
    if next + 1 >= policy.steps.len() { policy.evidence.promote_last } else { policy.evidence.promote }
}

/// One condition of the next promotion (or completion).
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub met: bool,
    /// Only time or sample count is missing.
    pub time: bool,
    pub reason: Reason,
}

/// Everything the next promotion out of the current step waits for, in order of precedence.
pub fn gates(state: &State, rollout: &Rollout, readings: &[GuardrailReading], now: Timestamp) -> Vec<Gate> {
    let policy = state.policy_of(rollout);
    let Some(bake) = rollout.bake() else {
        // The first step waits for nothing but its turn, and whatever keeps everything where it is.
        let first = rollout.stage == Stage::Queued && state.turn_of(rollout);
        return if first { windows::gates(state, rollout, now) } else { Vec::new() };
    };
    let soaking = matches!(rollout.stage, Stage::Soaking(_));
    let step = &policy.steps[usize::from(bake.step)];
    // Without traffic there is nothing to see but what a copy of it is answered with.
    let idle = step.to == Weight::ZERO;
    let shadowed = step.task == Some(Task::Shadow);
    // Pairs that a shadow step brings end with it: later steps cannot wait for them.
    let in_shadow = policy.steps.iter().any(|step| step.task == Some(Task::Shadow));
    let mut gates = Vec::new();
    if let Some(name) = &rollout.parked {
        gates.push(Gate { met: false, time: false, reason: Reason::Segment { name: name.clone() } });
    }
    gates.extend(smoke::gates(rollout, policy));
    gates.extend(effect::gate(rollout, policy));
    for (reading, guardrail) in readings.iter().zip(&policy.guardrails) {
        // Once everything is exposed there is no baseline left to show safety against: only failing counts. An
        // absolute guard needs none, and what it has not seen it has not found in order.
        let absolute = matches!(guardrail.rule, Rule::Absolute { .. });
        let watches = absolute && guardrail.on_fail != OnFail::Alert && !idle;
        let paired = matches!(guardrail.rule, Rule::Paired { .. });
        let needed = guardrail.gates && if idle { shadowed && paired } else { !(paired && in_shadow) };
        // What a promotion needs shown within its limit does not let it pass by failing, even where that only alerts.
        let asked = needed && !soaking && reading.accepted.is_none();
        let met = match reading.verdict {
            Verdict::Fail => reading.does() == OnFail::Alert && !asked,
            Verdict::Pass => true,
            Verdict::Insufficient | Verdict::NoData if planted(Bug::PromotesOnNoData) => true,
            _ => !watches && (soaking || !needed),
        };
        gates.push(Gate { met, time: false, reason: Reason::Guardrail { name: reading.name.clone() } });
    }
    gates.extend(slices::gates(rollout, policy));
    for (condition, holds) in conditions(rollout, policy) {
        let met = condition.on == OnFail::Alert || holds == Some(false);
        let reason = Reason::Condition { name: condition.name.clone(), known: holds.is_some() };
        gates.push(Gate { met, time: false, reason });
    }
    for (metric, need) in &step.min_samples {
        let counts = rollout.watches.iter().zip(&policy.guardrails).filter(|(_, g)| g.metric == *metric);
        let have = counts.map(|(watch, _)| watch.evidence.step_canary_at(bake.step)).max().unwrap_or(0);
        let reason = Reason::Samples { metric: metric.clone(), have, need: *need };
        gates.push(Gate { met: have >= *need, time: true, reason });
    }
    let need = if soaking { step.bake.plus(policy.soak) } else { step.bake };
    let won = planted(Bug::EarlyHorizon) && policy.ab && readings.iter().all(|r| r.verdict != Verdict::Fail);
    let need = if won { Span::ZERO } else { need };
    let left = need.minus(rollout.watched(now));
    gates.push(Gate { met: left == Span::ZERO, time: true, reason: Reason::Bake { left_ms: left.0 } });
    // Completing moves no traffic.
    if !soaking {
        gates.extend(windows::gates(state, rollout, now));
    }
    if let Some((by, _)) = &rollout.paused {
        gates.push(Gate { met: false, time: false, reason: Reason::Paused { by: by.clone() } });
    }
    let (have, need) = approvals(rollout, policy);
    if need > 0 {
        gates.push(Gate { met: have >= need, time: false, reason: Reason::Approvals { have, need } });
    }
    gates
}

/// Approvals given for, and needed by, the next promotion.
pub fn approvals(rollout: &Rollout, policy: &Policy) -> (u8, u8) {
    let need = asked(rollout, policy).map(|a| a.by).max().unwrap_or(0);
    (rollout.approvals.len().min(255) as u8, need)
}

/// Whether the approval of who submitted the change does not count for the next promotion.
pub fn not_submitter(rollout: &Rollout, policy: &Policy) -> bool {
    asked(rollout, policy).any(|a| a.not_submitter)
}

/// What the policy asks for before the next promotion.
fn asked<'a>(rollout: &Rollout, policy: &'a Policy) -> impl Iterator<Item = &'a Approval> {
    let next = rollout.step().map_or(0, |step| usize::from(step) + 1);
    let to = policy.steps.get(next).map_or(Weight::ZERO, |step| step.to);
    let known = next < policy.steps.len();
    let from = if known { policy.weight_before(next as u16) } else { Weight::FULL };
    policy.approvals.iter().filter(move |a| from < a.before && a.before <= to)
}

/// Time since the step was applied after which `on_deadline` happens, when that has passed.
pub fn deadline_passed(rollout: &Rollout, policy: &Policy, now: Timestamp) -> Option<Span> {
    let Stage::Baking(bake) = &rollout.stage else { return None };
    // A person is asked already.
    if rollout.parked.is_some() {
        return None;
    }
    let deadline = policy.steps[usize::from(bake.step)].deadline?;
    (rollout.watched(now) >= deadline).then_some(deadline)
}
