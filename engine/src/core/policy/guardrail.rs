//! A limit on a metric: how it is compared, and what happens when it is exceeded.

use serde::{Deserialize, Serialize};

use super::condition::Expression;
use crate::core::ids::Metric;
use crate::core::time::Span;

/// E-values that act, and how traffic is cut for them (`docs/statistics`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRules {
    /// Harm: 20 means a healthy canary is rolled back in at most 1 of 20 rollouts.
    pub rollback: f64,
    /// Safety needed for a step before the last gated one.
    pub promote: f64,
    /// Safety needed for the step to 100 %.
    pub promote_last: f64,
    /// Evidence that traffic is not split as asked for.
    pub split: f64,
    /// What is served in this time after a step was applied is not compared: caches are cold.
    pub warm_up: Span,
    /// Length of a request-time cohort.
    pub cohort: Span,
    /// Baseline observations that a reference needs.
    pub reference_min: u32,
}

impl Default for EvidenceRules {
    fn default() -> EvidenceRules {
        EvidenceRules {
            rollback: 20.0,
            promote: 5.0,
            promote_last: 20.0,
            split: 1000.0,
            warm_up: Span::ZERO,
            cohort: Span::mins(1),
            reference_min: 500,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

/// What happens when a guardrail fails, mildest last.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    Rollback,
    Hold,
    Alert,
}

/// A limit on a metric with what happens when it is exceeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guardrail {
    /// The metric's name, with `.absolute` for an absolute guard of a metric that has another.
    pub name: String,
    pub metric: Metric,
    pub better: Better,
    pub rule: Rule,
    /// How long after a cohort's end its observations may still arrive.
    pub maturity: Span,
    pub on_fail: OnFail,
    /// Share of the rollback alpha; the weights of the statistical rollback guardrails sum to 1,
    /// every other guardrail has 0.
    pub weight: f64,
    /// Whether a promotion needs this guardrail shown safe.
    pub gates: bool,
    /// The tag by whose values it is told apart.
    pub slices: Option<String>,
    /// Those values that are judged. `None`: the first that come are shown to people, and decide nothing.
    pub judged: Option<Judged>,
    /// The trade-off that turns a rollback into a hold.
    pub unless: Option<Unless>,
    /// By how many points (as a share) better the canary must be for the trade-off of another guardrail.
    pub benefit: Option<f64>,
}

/// Slices that each may hold the rollout or raise an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Values of the guardrail's tag; none is there twice.
    pub values: Vec<String>,
    pub on_fail: OnFail,
}

/// What excuses a failing guardrail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unless {
    /// The guardrail whose metric must be shown better, by its `benefit`.
    Benefit {
        guardrail: String,
    },
    When {
        when: Expression,
    },
}

/// An expression over what was observed, and what happens while it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Unlike that of every other condition.
    pub name: String,
    pub when: Expression,
    /// `hold` or `alert`.
    pub on: OnFail,
}

impl Guardrail {
    /// One that takes the canary back by itself, on evidence whose error rate is all its own, and gates every step. What it
    /// sees settles as soon as its cohort ends.
    pub fn new(name: &str, better: Better, rule: Rule) -> Guardrail {
        Guardrail {
            name: name.into(),
            metric: name.into(),
            better,
            rule,
            maturity: Span::ZERO,
            on_fail: OnFail::Rollback,
            weight: 1.0,
            gates: true,
            slices: None,
            judged: None,
            unless: None,
            benefit: None,
        }
    }
}

/// How a guardrail compares: its kind, with what a policy says of it. What a kind does with samples stands in
/// `evidence::kinds`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    Proportion(Proportion),
    Score(Score),
    Mean(Mean),
    Quantile(Quantile),
    Paired(Paired),
    Count(Count),
    /// Assigned units against the share that was asked for.
    Split,
    Missing(Missing),
    Absolute(Absolute),
    Stop(Stop),
}

/// Shares of zeros and ones compared between the arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proportion {
    pub margin: Margin,
}

/// Means of grades from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub margin: Margin,
}

/// Means of positive values; the canary may be higher by the factor `1 + handicap` (lower by `1 - handicap` where higher is
/// better).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    pub handicap: f64,
}

/// The `q`-quantile of values; the canary's may be higher by the factor `1 + handicap` (lower by `1 - handicap` where
/// higher is better).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    pub q: f64,
    pub handicap: f64,
}

/// Grades from 0 to 1 of the same units, answered by both arms: the mean difference, which may be worse by `points`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    pub points: f64,
}

/// Events that have no denominator: the rate per share of traffic, which may be `ratio` times the baseline's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    pub ratio: f64,
}

/// Requests (observations of `of`) whose value of the metric has not come by its maturity: the share of them may differ
/// from the baseline's by `points`, either way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    pub of: Metric,
    pub points: f64,
}

/// More than `above` (a share) of the last `of_last` canary observations are ones (zeros where higher is better).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Absolute {
    pub above: f64,
    pub of_last: u32,
}

/// Events that must not happen: more than `allowed` in the whole rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    pub allowed: u64,
}

/// The kind of a guardrail.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum GuardrailKind {
    Proportion,
    Score,
    Mean,
    Quantile,
    Paired,
    Count,
    Split,
    Missing,
    Absolute,
    Stop,
}

impl GuardrailKind {
    /// As a policy spells it.
    pub fn name(self) -> &'static str {
        match self {
            GuardrailKind::Proportion => "proportion",
            GuardrailKind::Score => "score",
            GuardrailKind::Mean => "mean",
            GuardrailKind::Quantile => "quantile",
            GuardrailKind::Paired => "paired",
            GuardrailKind::Count => "count",
            GuardrailKind::Split => "split",
            GuardrailKind::Missing => "missing",
            GuardrailKind::Absolute => "absolute",
            GuardrailKind::Stop => "stop",
        }
    }
}

/// How much worse the canary may be: the boundary is `canary = rho * baseline + d`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// Absolute, as a share: 0.03 is 3 points.
    Points(f64),
    /// Relative to the baseline: 0.10 is 10 %.
    Relative(f64),
    /// `ratio * baseline + plus`.
    Ratio { ratio: f64, plus: f64 },
}

impl Margin {
    /// `(rho, d)` of the boundary.
    pub fn boundary(self, better: Better) -> (f64, f64) {
        let sign = if better == Better::Higher { -1.0 } else { 1.0 };
        match self {
            Margin::Points(delta) => (1.0, sign * delta),
            Margin::Relative(m) => (1.0 + sign * m, 0.0),
            Margin::Ratio { ratio, plus } => (ratio, sign * plus),
        }
    }
}

/// The largest true share of bad requests at which an absolute guard raises at most one false alarm in a million
/// canary requests: each request ends one window, so the chance that one window is over the limit bounds the alarms per
/// request. From the exact binomial tail.
pub fn quiet_below(above: f64, of_last: u32) -> f64 {
    const ALARMS: f64 = 1e-6;
    let n = f64::from(of_last);
    // As `Recent` counts: more than the share of the whole window.
    let first = libm::floor(above * n) + 1.0;
    let tail = |p: f64| {
        let ln_choose = |k: f64| libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
        let mass = |k: f64| libm::exp(ln_choose(k) + k * libm::log(p) + (n - k) * libm::log1p(-p));
        (0..).map(|i| first + f64::from(i)).take_while(|k| *k <= n).map(mass).sum::<f64>()
    };
    let (mut low, mut high) = (0.0, above.clamp(1e-9, 1.0 - 1e-9));
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if tail(middle) > ALARMS { high = middle } else { low = middle }
    }
    low
}

/// Values of a tag that are followed, or that a policy may name; observations with others count in the whole only.
pub const SLICES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// At these shares the tail, in exact fractions, is one in a million.
    #[test]
    fn the_budget_of_an_absolute_guard_is_the_binomial_tail() {
        for (above, of_last, share) in [(0.2, 200, 0.092_335_74), (0.5, 20, 0.103_472_38)] {
            let quiet = quiet_below(above, of_last);
            assert!((quiet - share).abs() < 1e-6, "{quiet} is not {share}");
        }
    }
}
