//! What a rollout will take, before it starts: how many canary observations each gate needs and how long that takes at
//! the traffic seen lately; and, while it runs, how much is left if things go on as they do.
//!
//! Estimates for people. They suppose a canary that is as good as the baseline; no decision reads them.

use std::collections::BTreeMap;

use crate::core::evidence::kinds::DISCORDANT;
use crate::core::evidence::score::Evidence;
use crate::core::ids::{Version, Weight};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::Guardrail;
use crate::core::telemetry::columns::Series;
use crate::core::telemetry::rates::{Lately, Seen};
use crate::core::text::count;
use crate::core::time::{Span, Timestamp};

/// What each step will take.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub steps: Vec<PlannedStep>,
    /// Until the canary has all traffic; `None` when some gate cannot be told.
    pub total: Option<Span>,
    /// Observations an hour of each metric that gates, in the last hour or two: what the plan goes by.
    pub traffic: BTreeMap<String, u64>,
    /// What can be told about the slowest gate, and what would shorten it.
    pub advice: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// As [`Policy::step_name`] has it.
    pub name: String,
    pub to: Weight,
    pub bake: Span,
    /// At least the bake time; `None` when some gate cannot be told.
    pub takes: Option<Span>,
    pub deadline: Option<Span>,
    pub gates: Vec<PlannedGate>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlannedGate {
    pub guardrail: String,
    /// Canary observations since the rollout began; `None` without traffic to go by.
    pub samples: Option<u64>,
    /// From the beginning of the step.
    pub takes: Option<Span>,
}

/// Steps that take longer than this get advice.
const SLOW: Span = Span::hours(24);
/// Longer than this is never.
const FOREVER_HOURS: f64 = 24.0 * 365.0 * 10.0;

/// Plans a rollout of `baseline`'s service under `policy`, by what the service has sent up to `now`.
pub fn plan(
    policy: &Policy,
    seen: &BTreeMap<Series, Seen>,
    baseline: Option<&Version>,
    now: Timestamp,
) -> Plan {
    let metrics = Metrics { seen, baseline, now };
    let gating: Vec<(&Guardrail, Option<Lately>)> =
        policy.guardrails.iter().filter(|g| g.gates).map(|g| (g, metrics.of(g.metric.as_str()))).collect();
    let mut exposed: BTreeMap<&str, f64> = BTreeMap::new();
    let mut steps = Vec::new();
    let mut slowest: Option<(Span, &Guardrail, Lately, f64, f64)> = None;
    for (i, step) in policy.steps.iter().enumerate().take(policy.steps.len().saturating_sub(1)) {
        let share = step.to.as_share();
        let last = i + 2 >= policy.steps.len();
        let level = if last { policy.evidence.promote_last } else { policy.evidence.promote };
        let gate = |(guardrail, lately): &(&Guardrail, Option<Lately>)| {
            let samples = lately.and_then(|lately| samples_needed(guardrail, &lately, share, level));
            let hours = samples.zip(*lately).map(|(samples, lately)| {
                let have = exposed.get(guardrail.name.as_str()).copied().unwrap_or(0.0);
                // The reference is gathered first, and once.
                let first = if i == 0 { reference_hours(policy, guardrail, &lately, share) } else { 0.0 };
                let settle = policy.evidence.cohort.plus(guardrail.maturity);
                first + (samples - have).max(0.0) / (lately.per_hour * share) + settle.0 as f64 / 3_600_000.0
            });
            PlannedGate {
                guardrail: guardrail.name.clone(),
                samples: samples.map(|n| libm::ceil(n) as u64),
                takes: hours.filter(|hours| *hours < FOREVER_HOURS).map(span),
            }
        };
        // Without traffic there is nothing to wait for that traffic brings.
        let idle = step.to == Weight::ZERO;
        let mut gates: Vec<PlannedGate> = if idle { Vec::new() } else { gating.iter().map(gate).collect() };
        if step.segment.is_some() {
            // How much of the traffic it has is not known.
            gates.iter_mut().for_each(|gate| gate.takes = None);
        }
        gates.extend(step.min_samples.iter().map(|(metric, need)| {
            let share = if idle { 1.0 } else { share };
            let per_hour = metrics.of(metric.as_str()).map(|lately| lately.per_hour * share);
            let per_hour = per_hour.filter(|_| step.segment.is_none());
            let takes = per_hour.map(|per_hour| *need as f64 / per_hour).filter(|h| *h < FOREVER_HOURS);
            let guardrail = format!("min_samples of {metric}");
            PlannedGate { guardrail, samples: Some(*need), takes: takes.map(span) }
        }));
        let known: Option<Vec<Span>> = gates.iter().map(|gate| gate.takes).collect();
        let takes = known.map(|takes| takes.into_iter().fold(step.bake, Span::max));
        for (guardrail, lately) in &gating {
            let (Some(lately), Some(takes)) = (lately, takes) else { continue };
            let hours = takes.0 as f64 / 3_600_000.0;
            *exposed.entry(guardrail.name.as_str()).or_default() += lately.per_hour * share * hours;
            let own = gates.iter().find(|gate| gate.guardrail == guardrail.name).and_then(|gate| gate.takes);
            if let Some(own) = own.filter(|own| slowest.as_ref().is_none_or(|(most, ..)| own > most)) {
                slowest = Some((own, guardrail, *lately, share, level));
            }
        }
        steps.push(PlannedStep {
            name: policy.step_name(i as u16),
            to: step.to,
            bake: step.bake,
            takes,
            deadline: step.deadline,
            gates,
        });
    }
    let total: Option<u64> = steps.iter().map(|step| step.takes.map(|takes| takes.0)).sum();
    let mut advice = advice(policy, &steps, &gating);
    if let Some((takes, guardrail, lately, share, level)) = slowest.filter(|(takes, ..)| *takes > SLOW) {
        advice.extend(shorter(guardrail, &lately, share, level, metrics.fastest(), takes));
    }
    let known =
        gating.iter().filter_map(|(g, lately)| Some((g.metric.to_string(), lately.as_ref()?.per_hour)));
    let traffic = known.map(|(metric, per_hour)| (metric, libm::round(per_hour) as u64)).collect();
    Plan { steps, total: total.map(Span), traffic, advice }
}

/// How long it takes to gather the baseline of a guardrail.
fn reference_hours(policy: &Policy, guardrail: &Guardrail, lately: &Lately, share: f64) -> f64 {
    guardrail.needs(&policy.evidence) as f64 / (lately.per_hour * (1.0 - share))
}

/// What cannot be told, and what will hardly be in time.
fn advice(policy: &Policy, steps: &[PlannedStep], gating: &[(&Guardrail, Option<Lately>)]) -> Vec<String> {
    let mut advice = Vec::new();
    for step in steps {
        if let (Some(takes), Some(deadline)) = (step.takes, step.deadline)
            && takes > deadline
        {
            advice.push(format!("{} will hardly be decided by its deadline of {deadline}", step.name));
        }
    }
    if let Some(segments) = &policy.segments {
        let kind = segments.kind.as_str();
        advice.push(format!("how much traffic each {kind} has is not known, and so not how long it takes"));
    }
    for (guardrail, _) in gating.iter().filter(|(_, lately)| lately.is_none()) {
        advice.push(format!("{} has come in too little lately to tell", guardrail.metric));
    }
    advice
}

struct Metrics<'a> {
    seen: &'a BTreeMap<Series, Seen>,
    baseline: Option<&'a Version>,
    now: Timestamp,
}

impl Metrics<'_> {
    /// All traffic of a metric, with the values of the baseline where it is known.
    fn of(&self, metric: &str) -> Option<Lately> {
        let all = self.seen.iter().filter(|(series, _)| series.metric.as_str() == metric);
        let all: Vec<(&Series, Lately)> =
            all.filter_map(|(series, seen)| Some((series, seen.lately(self.now)?))).collect();
        let per_hour: f64 = all.iter().map(|(_, lately)| lately.per_hour).sum();
        let own = all.iter().find(|(series, _)| Some(&series.version) == self.baseline);
        let busiest = || all.iter().max_by(|a, b| a.1.per_hour.total_cmp(&b.1.per_hour));
        let (_, like) = own.or_else(busiest)?;
        (per_hour > 0.0).then_some(Lately { per_hour, ..*like })
    }

    /// Observations an hour of the metric that comes most often: about the requests.
    fn fastest(&self) -> f64 {
        let names: std::collections::BTreeSet<&str> = self.seen.keys().map(|s| s.metric.as_str()).collect();
        names.into_iter().filter_map(|name| self.of(name)).map(|l| l.per_hour).fold(0.0, f64::max)
    }
}

/// Canary observations until a canary as good as the baseline is shown to respect the limit, with `share` of the
/// traffic: about `2.7 ln(level) V (1 + n_b/n_a) / eps^2`, V the variance at the boundary and eps the distance to it
/// (the mean of a sequential test of this kind, measured; Wald 1945 has 2 for the limit). `None` where the limit is at
/// the baseline itself, which an equal canary never clears.
fn samples_needed(guardrail: &Guardrail, lately: &Lately, share: f64, level: f64) -> Option<f64> {
    let spread = guardrail.compares()?.spread(guardrail.better, lately, share)?;
    let factor = if guardrail.profile().of_pairs { 1.0 } else { 1.0 / (1.0 - share) };
    let n = 2.7 * libm::log(level) * spread * factor;
    (n.is_finite() && n > 0.0).then_some(n)
}

/// How long the slowest gate takes, and ways to shorten it.
fn shorter(
    guardrail: &Guardrail,
    lately: &Lately,
    share: f64,
    level: f64,
    requests: f64,
    takes: Span,
) -> Vec<String> {
    let name = &guardrail.name;
    let mut ways = vec![format!("{name} at {}% takes about {}", trim(share * 100.0), rough(takes))];
    let spread = guardrail.compares().and_then(|kind| kind.spread(guardrail.better, lately, share));
    let Some(spread) = spread else { return ways };
    // Only what is shorter is a way to shorten it.
    let mut add = |what: &str, n: f64, of: &str, per_hour: f64| {
        let own = span(n / per_hour);
        if own < takes {
            ways.push(format!("{what}: about {} {of}, {}", rounded(n), rough(own)));
        }
    };
    let profile = guardrail.profile();
    if requests > 1.5 * lately.per_hour {
        // All of the canary, a twentieth of the baseline.
        let n = 2.7 * libm::log(level) * spread * (1.0 + share / (0.05 * (1.0 - share)));
        let what = "measure every canary request and 5% of the baseline's";
        add(what, n, "canary samples", requests * share);
    }
    if profile.of_answers && !profile.of_pairs {
        let eps = libm::sqrt(lately.variance.max(1e-6) / spread);
        let n = 2.7 * libm::log(level) * (DISCORDANT / 4.0) / (eps * eps / 4.0);
        let what = "let the baseline answer the canary's requests too (kind paired)";
        add(what, n, "pairs if a tenth differ", lately.per_hour.max(requests) * share);
    }
    let n = 2.7 * libm::log(level) * spread / 4.0 / (1.0 - share);
    add("accept a limit twice as wide", n, "canary samples", lately.per_hour * share);
    ways
}

/// How many more canary observations a finding needs if the evidence grows on as it did: at best and, where both the
/// whole rollout and its last epoch say so, at worst. `None` where it does not grow.
pub fn outlook(evidence: &Evidence, safe: bool, need_ln: f64) -> Option<(u64, Option<u64>)> {
    let mark = &evidence.mark;
    let (ln, before) = match safe {
        true => (evidence.safe.ln(), mark.safe_ln),
        false => (evidence.harm.ln(), mark.harm_ln),
    };
    let left = need_ln - ln;
    let n = evidence.canary.n;
    if left <= 0.0 || n == 0 {
        return None;
    }
    let pace = |gained: f64, over: u64| (over > 0 && gained > 0.0).then(|| left * over as f64 / gained);
    // An epoch that has just begun says little.
    let recent = (n - mark.canary >= 64).then(|| (ln - before, n - mark.canary));
    let paces = [Some((ln, n)), recent].into_iter().flatten().map(|(gained, over)| pace(gained, over));
    let paces: Vec<Option<f64>> = paces.collect();
    let best = paces.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let worst =
        paces.iter().copied().collect::<Option<Vec<f64>>>().map(|all| all.into_iter().fold(0.0, f64::max));
    let whole = |n: f64| libm::ceil(n) as u64;
    best.is_finite().then(|| (whole(best), worst.filter(|worst| worst.is_finite()).map(whole)))
}

fn span(hours: f64) -> Span {
    Span(libm::ceil(hours * 3_600.0) as u64 * 1_000)
}

/// `12 days`, `5 h`, `40 min`
pub fn rough(span: Span) -> String {
    let minutes = span.0 as f64 / 60_000.0;
    match minutes {
        m if m < 1.0 => "under a minute".into(),
        m if m < 90.0 => format!("{m:.0} min"),
        m if m < 48.0 * 60.0 => format!("{:.0} h", m / 60.0),
        m => format!("{:.0} days", m / 1440.0),
    }
}

/// Two digits that mean something.
pub fn rounded(n: f64) -> String {
    let mut unit = 1.0;
    while n / unit >= 100.0 {
        unit *= 10.0;
    }
    count((libm::round(n / unit) * unit) as u64)
}

fn trim(x: f64) -> String {
    format!("{x:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::guardrail::*;

    fn guardrail(rule: Rule) -> Guardrail {
        Guardrail::new("eval_pass", Better::Higher, rule)
    }

    /// Measured means of simulated streams, 5 % canary, evidence of 20x (docs/statistics.md): the plan must be within
    /// a third of them.
    #[test]
    fn the_rule_of_thumb_is_near_what_was_measured() {
        let pass = Lately { per_hour: 100.0, mean: 0.9, variance: 0.09 };
        let near = |rule, better, lately: Lately, measured: f64| {
            let guardrail = Guardrail { better, ..guardrail(rule) };
            let n = samples_needed(&guardrail, &lately, 0.05, 20.0).expect("a number");
            assert!((0.67..1.5).contains(&(n / measured)), "{n} where {measured} were measured");
        };
        near(Rule::Proportion(Proportion { margin: Margin::Points(0.03) }), Better::Higher, pass, 989.0);
        let graded = Lately { mean: 0.8, variance: 0.33 * 0.33, ..pass };
        near(Rule::Score(Score { margin: Margin::Points(0.03) }), Better::Higher, graded, 1_040.0);
        let latency = Lately { mean: 1.0, variance: libm::exp(0.36) - 1.0, ..pass };
        near(Rule::Quantile(Quantile { q: 0.95, handicap: 0.1 }), Better::Lower, latency, 1_680.0);
        let error = Lately { mean: 0.01, variance: 0.0099, ..pass };
        let ratio = Margin::Ratio { ratio: 1.5, plus: 0.0 };
        near(Rule::Proportion(Proportion { margin: ratio }), Better::Lower, error, 3_780.0);
    }

    #[test]
    fn a_limit_at_the_baseline_itself_is_never_cleared_by_an_equal_canary() {
        let lately = Lately { per_hour: 100.0, mean: 0.9, variance: 0.09 };
        let none = guardrail(Rule::Proportion(Proportion { margin: Margin::Points(0.0) }));
        assert_eq!(samples_needed(&none, &lately, 0.05, 20.0), None);
    }

    #[test]
    fn numbers_are_rounded_to_what_they_are_worth() {
        assert_eq!([7.0, 99.4, 1_234.0, 56_789.0].map(rounded), ["7", "99", "1,200", "57,000"]);
        let times = [Span::secs(20), Span::mins(40), Span::hours(5), Span::hours(300)].map(rough);
        assert_eq!(times, ["under a minute", "40 min", "5 h", "12 days"]);
    }
}
