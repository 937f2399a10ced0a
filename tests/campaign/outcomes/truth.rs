//! What is right where everything that is served is known: the differences of the two populations against the limits
//! of the policy.

use sluice::core::policy::Policy;
use sluice::core::policy::guardrail::{
    Absolute, Better, Guardrail, Mean, OnFail, Paired, Proportion, Quantile, Rule, Score,
};

use super::data::{METRICS, Outcome};
use super::play::Word;

/// What follows from the policy when enough is seen.
#[derive(Clone, Debug)]
pub struct Truth {
    pub word: Word,
    /// Whether a guardrail that alerts is beyond its limit; `None`: too near to be found.
    pub alerts: Option<bool>,
    /// What decides is nearer to its limit than the smallest regression that is bet on: it takes many times the samples, or
    /// for ever. So it may stay undecided.
    pub slow: bool,
    /// A guardrail that rolls back is beyond its limit, if only by a little.
    pub may_roll_back: bool,
    /// No guardrail that gates is.
    pub may_promote: bool,
}

pub fn truth(policy: &Policy, baseline: &[Outcome], canary: &[Outcome]) -> Truth {
    let known = policy.guardrails.iter().filter_map(|g| Some((g.on_fail, distance(g, baseline, canary)?)));
    let known: Vec<(OnFail, Distance)> = known.collect();
    let any = |on_fail: OnFail, is: &dyn Fn(&Distance) -> bool| {
        known.iter().any(|(does, distance)| *does == on_fail && is(distance))
    };
    let beyond = |on_fail| any(on_fail, &|d| d.excess > 0.0 && !d.near);
    let near = |on_fail| any(on_fail, &|d| d.near);
    let may_roll_back = any(OnFail::Rollback, &|d| d.excess > 0.0);
    let firmly = |on_fail| any(on_fail, &|d| d.excess > 0.0 && !d.slow);
    let (word, slow) = if beyond(OnFail::Rollback) {
        (Word::Rollback, !firmly(OnFail::Rollback))
    } else if beyond(OnFail::Hold) || near(OnFail::Hold) || near(OnFail::Rollback) {
        (Word::Hold, !firmly(OnFail::Hold))
    } else {
        (Word::Promote, [OnFail::Rollback, OnFail::Hold].iter().any(|does| any(*does, &|d| d.slow)))
    };
    Truth {
        word,
        alerts: if beyond(OnFail::Alert) { Some(true) } else { (!near(OnFail::Alert)).then_some(false) },
        slow,
        may_roll_back,
        may_promote: !may_roll_back && !any(OnFail::Hold, &|d| d.excess > 0.0),
    }
}

/// How the canary's population lies to a limit.
struct Distance {
    /// Above 0: beyond it. In the unit of the bets.
    excess: f64,
    /// Nearer than the smallest regression that is bet on.
    slow: bool,
    /// Nearer than half of it: such a difference may stay undecided for ever, by design.
    near: bool,
}

/// `None` where the populations do not have the metric.
fn distance(guardrail: &Guardrail, baseline: &[Outcome], canary: &[Outcome]) -> Option<Distance> {
    let metric = METRICS.iter().position(|metric| *metric == guardrail.metric.as_str())?;
    let values = |arm: &[Outcome]| -> Vec<f64> { arm.iter().filter_map(|o| o[metric]).collect() };
    let (a, b) = (values(baseline), values(canary));
    if a.is_empty() || b.is_empty() {
        return None;
    }
    // How far the canary is beyond the limit, and the smallest regression beyond it that is bet on.
    let (excess, smallest) = match guardrail.rule {
        Rule::Proportion(Proportion { margin }) | Rule::Score(Score { margin }) => {
            let (rho, d) = margin.boundary(guardrail.better);
            let boundary = rho * mean(&a) + d;
            let sign = if guardrail.better == Better::Higher { -1.0 } else { 1.0 };
            (sign * (mean(&b) - boundary), (boundary - mean(&a)).abs() / 2.0)
        }
        Rule::Paired(Paired { points }) => {
            let sign = if guardrail.better == Better::Higher { -1.0 } else { 1.0 };
            (sign * (mean(&b) - mean(&a)) - points, points / 2.0)
        }
        Rule::Mean(Mean { handicap }) => {
            let cap = quantile(&a, 0.999);
            let normal = |xs: &[f64], factor: f64| -> Vec<f64> {
                xs.iter().map(|x| (x / factor / cap).min(1.0)).collect()
            };
            let (a, b) = (mean(&normal(&a, 1.0)), mean(&normal(&b, 1.0 + handicap)));
            (b - a, a * handicap / (1.0 + handicap) / 2.0)
        }
        Rule::Quantile(Quantile { q, handicap }) => {
            let threshold = quantile(&a, q);
            let beyond = |xs: &[f64], factor: f64| -> f64 {
                xs.iter().filter(|x| **x / factor > threshold).count() as f64 / xs.len() as f64
            };
            (beyond(&b, 1.0 + handicap) - beyond(&a, 1.0), (1.0 - q).min(q) / 8.0)
        }
        // A threshold on a window, not a test: beyond it when the share is.
        Rule::Absolute(Absolute { above, .. }) => (mean(&b) - above, 0.0),
        Rule::Count(_) | Rule::Split | Rule::Missing(_) | Rule::Stop(_) => return None,
    };
    let size = excess.abs();
    Some(Distance { excess, slow: size < smallest, near: size < smallest / 2.0 })
}

fn mean(xs: &[f64]) -> f64 {
    xs.iter().sum::<f64>() / xs.len() as f64
}

fn quantile(xs: &[f64], q: f64) -> f64 {
    let mut xs = xs.to_vec();
    xs.sort_by(f64::total_cmp);
    xs[((xs.len() as f64 * q).ceil().max(1.0) as usize).min(xs.len()) - 1]
}
