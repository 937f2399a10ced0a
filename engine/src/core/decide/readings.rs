//! Weighs one rollout: the evidence and the policy in, readings and gates out. Chooses nothing itself.
//!
//! Invariant: missing evidence is never a pass. Pure: the same state gives the same readings, in the policy's
//! order.

use std::collections::BTreeMap;

use super::conditions::{estimate, limit_of, of_part_before};
use super::turn::Turn;
use crate::core::event::reading::{GuardrailReading, Silence};
use crate::core::evidence::bets::ln_weighted;
use crate::core::evidence::figures::Measure;
use crate::core::evidence::monitor::GuardrailMonitor;
use crate::core::evidence::score::harm_ln;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::Weight;
use crate::core::policy::Policy;
use crate::core::policy::condition::Figures;
use crate::core::policy::guardrail::{Guardrail, OnFail, Unless};
use crate::core::state::rollout::Rollout;
use crate::core::telemetry::arm::{Arm, ArmCount};
use crate::core::telemetry::tally::Tally;
use crate::core::time::Timestamp;

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

/// Reads every guardrail.
pub fn judge(turn: Turn, observed: &BTreeMap<&str, Figures>) -> Judgement {
    let excuses = excuses(turn, observed);
    let pooled = PooledEvidence::of(turn, &excuses);
    let largest = pooled.largest();
    let monitors = turn.rollout.monitors.iter().zip(&turn.policy.guardrails);
    let read = |((monitor, guardrail), excuse)| read(turn, monitor, guardrail, excuse, largest);
    let readings: Vec<GuardrailReading> = monitors.zip(excuses.iter().cloned()).map(read).collect();
    let harm =
        readings.iter().any(|r| r.verdict == Verdict::Fail && r.on_fail_effective() == OnFail::Rollback);
    Judgement { readings, harm_ln: pooled.ln(), harm }
}

/// What excuses the failure of a guardrail now.
#[derive(Clone, Debug, Default)]
pub struct Excuse {
    /// The guardrail that shows the benefit which turns it into a hold.
    benefit: Option<String>,
    /// The condition that does the same and holds.
    when: Option<String>,
}

/// That of each guardrail, in the policy's order.
pub fn excuses(turn: Turn, observed: &BTreeMap<&str, Figures>) -> Vec<Excuse> {
    let Turn { rollout, policy, .. } = turn;
    let shown = |name: &str| {
        let of = policy.guardrails.iter().position(|g| g.name == name).and_then(|i| rollout.monitors.get(i));
        of.is_some_and(|monitor| monitor.evidence.benefit_shown)
    };
    let excuse = |guardrail: &Guardrail| match &guardrail.unless {
        Some(Unless::Benefit { guardrail }) => {
            Excuse { benefit: shown(guardrail).then(|| guardrail.clone()), when: None }
        }
        Some(Unless::When { when }) => {
            let holds = when.holds(observed).is_ok_and(|holds| holds);
            Excuse { benefit: None, when: holds.then(|| when.text().to_owned()) }
        }
        None => Excuse::default(),
    };
    policy.guardrails.iter().map(excuse).collect()
}

/// The rollback guardrails together: the weighted average of their evidence is what decides.
pub struct PooledEvidence<'a> {
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

impl<'a> PooledEvidence<'a> {
    /// `excuses`: of each guardrail, in the policy's order.
    pub fn of(turn: Turn<'a>, excuses: &[Excuse]) -> PooledEvidence<'a> {
        let monitors = turn.rollout.monitors.iter().zip(&turn.policy.guardrails).zip(excuses);
        let weighted = monitors.filter(|((w, g), _)| g.weight > 0.0 && w.reference.is_some());
        let parts = weighted.map(|((w, g), excuse)| Part {
            name: &g.name,
            weight: g.weight,
            ln: w.evidence.harm.ln(),
            excused: excuse.benefit.is_some() || excuse.when.is_some() || w.accepted.is_some(),
        });
        PooledEvidence { parts: parts.collect(), need_ln: libm::log(turn.policy.evidence.rollback) }
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

/// Reads one guardrail. `largest`: what the largest part of each pooled average is, where one has crossed.
pub fn read(
    turn: Turn,
    monitor: &GuardrailMonitor,
    guardrail: &Guardrail,
    excuse: Excuse,
    largest: [Option<f64>; 2],
) -> GuardrailReading {
    let Turn { rollout, policy, now, .. } = turn;
    let (evidence, profile) = (&monitor.evidence, guardrail.profile());
    // A guardrail that shares the rollback alpha needs its weight's worth more by itself.
    let act_ln = libm::log((profile.acts_at)(&policy.evidence));
    let harm_need_ln = if guardrail.weight > 0.0 { act_ln - libm::log(guardrail.weight) } else { act_ln };
    let safe_need_ln = libm::log(promote_level(rollout, policy));
    let (harm_ln, mut safe_ln) = if monitor.reference.is_some() {
        (harm_ln(guardrail, evidence), evidence.safe.ln())
    } else {
        (0.0, 0.0)
    };
    let (mut baseline, mut canary) = (evidence.baseline, evidence.canary);
    let judged = monitor.reference.is_some() && evidence.blocks > 0;
    let failed = monitor.verdict == Some(Verdict::Fail)
        || monitor.tally.as_ref().is_some_and(Tally::is_over)
        || judged && harm_ln >= harm_need_ln
        || judged
            && guardrail.weight > 0.0
            && largest.iter().flatten().any(|largest| libm::log(guardrail.weight) + harm_ln >= *largest);
    // What was shown of the segment before says nothing about the one that is exposed now.
    let before = !failed && of_part_before(rollout, policy, monitor);
    if before {
        (safe_ln, baseline, canary) = (0.0, ArmCount::default(), ArmCount::default());
    }
    if let Some(tally) = &monitor.tally {
        (baseline, canary) = (ArmCount::default(), tally.counted());
    }
    let quiet = |arm: Arm| {
        rollout.quiet_since(policy, monitor, arm).is_some_and(|at| now.since(at) >= policy.stale_after)
    };
    let silent = quiet(Arm::Canary);
    // Once everybody is exposed the baseline has nothing to send, and pairs are the canary's alone.
    let compared = rollout.weight < Weight::FULL && !profile.of_pairs;
    let broken = silent && compared && quiet(Arm::Baseline);
    let verdict = if failed {
        Verdict::Fail
    } else if broken {
        Verdict::SourceBroken
    } else if monitor.canary_seen == 0 {
        if silent { Verdict::NoData } else { Verdict::Insufficient }
    } else if silent {
        Verdict::Stale
    } else if monitor.tally.is_some() || judged && !profile.shows_safety && canary.n > 0 {
        Verdict::Pass
    } else if !judged || before || !profile.shows_safety {
        Verdict::Insufficient
    } else if safe_ln >= safe_need_ln
        || harm_ln <= 0.0 && monitor.safe_at.is_some() && monitor.safe_at == rollout.step()
    {
        Verdict::Pass
    } else {
        Verdict::Undecided
    };
    let interval = &evidence.interval;
    GuardrailReading {
        name: guardrail.name.clone(),
        metric: guardrail.metric.clone(),
        kind: profile.kind,
        on_fail: guardrail.on_fail,
        verdict,
        baseline,
        canary,
        range: if judged && !before { interval.range(monitor.scale()) } else { None }
            .filter(|_| profile.measure != Measure::Events),
        harm_ln,
        harm_need_ln,
        safe_ln,
        safe_need_ln,
        limit: limit_of(guardrail, monitor),
        waiting: monitor.cohorts.values().map(|cohort| cohort.waiting()).sum(),
        late: monitor.late,
        left_out: monitor.left_out,
        clamped: monitor.clamped,
        reference: monitor.reference.clone(),
        epoch: evidence.harm.epoch,
        blocks: evidence.blocks,
        estimate: estimate(guardrail, monitor),
        excused: excuse.benefit.filter(|_| failed),
        excused_when: excuse.when.filter(|_| failed),
        accepted: monitor.accepted.clone(),
        silence: silence(rollout, monitor, verdict, now),
        benefit_ln: guardrail
            .benefit
            .map(|_| evidence.secondary.as_ref().map_or(0.0, |secondary| secondary.ln())),
    }
}

/// Who has been silent for how long, when that is what the verdict is about.
fn silence(
    rollout: &Rollout,
    monitor: &GuardrailMonitor,
    verdict: Verdict,
    now: Timestamp,
) -> Option<Silence> {
    let about = matches!(verdict, Verdict::NoData | Verdict::Stale | Verdict::SourceBroken);
    about.then(|| Silence {
        canary: rollout.spec.to.clone(),
        canary_for: monitor.last_canary.map(|last| now.since(last)),
        baseline: rollout.baseline.clone(),
        baseline_for: monitor.last_baseline.map(|last| now.since(last)),
    })
}

/// The e-value of safety that the next promotion needs.
fn promote_level(rollout: &Rollout, policy: &Policy) -> f64 {
    let next = rollout.serving_step().map_or(0, |step| usize::from(step) + 1);
    if next + 1 >= policy.steps.len() { policy.evidence.promote_last } else { policy.evidence.promote }
}
