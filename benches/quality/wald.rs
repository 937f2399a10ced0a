//! How fast any valid test can be: the mean number of canary observations is at least `ln(1/alpha) / KL_inf` (Wald
//! 1945), with KL_inf the divergence from the true pair of laws to the nearest pair on the boundary, weighed by the
//! arms' shares of the traffic (Honda and Takemura 2010 for one bounded mean).

use sluice::core::evidence::label_bets;
use sluice::core::evidence::reference::exceeds;
use sluice::core::policy::guardrail::{Count, Guardrail, Missing, Paired, Proportion, Quantile, Rule, Score};

use crate::law::Law;
use crate::scenario::Phase;

type Points = Vec<(f64, f64)>;

/// The limit in canary observations per nat of evidence. Of events, `phase.share` is the canary's share of them, and
/// `planned` that of the traffic.
pub fn canary_per_nat(guardrail: &Guardrail, phase: &Phase, planned: f64) -> f64 {
    let ratio = match guardrail.rule {
        Rule::Count(Count { ratio }) => Some(ratio),
        Rule::Split => Some(1.0),
        _ => None,
    };
    if let Some(ratio) = ratio {
        let at_boundary = label_bets::chance(ratio, 1.0 - planned, planned);
        return phase.share / kl_inf(&Law::Share(phase.share).points(), at_boundary);
    }
    if let Rule::Paired(Paired { points }) = guardrail.rule {
        let ys: Points = phase.canary.points().into_iter().map(|(x, w)| ((1.0 + x) / 2.0, w)).collect();
        return 1.0 / kl_inf(&ys, (1.0 - points) / 2.0);
    }
    let (a, b, rho, d) = seen_by_the_bets(guardrail, phase.baseline, phase.canary);
    let weight_a = (1.0 - phase.share) / phase.share;
    let at = |m: f64| {
        let m_b = rho * m + d;
        if m_b <= 0.0 || m_b >= 1.0 { f64::INFINITY } else { weight_a * kl_inf(&a, m) + kl_inf(&b, m_b) }
    };
    // Between the two means the sum is convex in the baseline's.
    let (mean_a, mean_b) = (mean(&a), (mean(&b) - d) / rho);
    let (lo, hi) = (mean_a.min(mean_b).max(1e-9), mean_a.max(mean_b).min(1.0 - 1e-9));
    1.0 / at(search(lo, hi, |m| -at(m)))
}

/// Both laws as the bets see them, in [0, 1], and the boundary `b = rho a + d` between them.
fn seen_by_the_bets(guardrail: &Guardrail, baseline: Law, canary: Law) -> (Points, Points, f64, f64) {
    let factor = guardrail.canary_factor();
    let changed = |law: Law, y: &dyn Fn(f64) -> f64| -> Points {
        law.points().into_iter().map(|(x, w)| (y(x), w)).collect()
    };
    match &guardrail.rule {
        Rule::Proportion(Proportion { margin }) | Rule::Score(Score { margin }) => {
            let (rho, d) = margin.boundary(guardrail.better);
            (baseline.points(), canary.points(), rho, d)
        }
        Rule::Missing(Missing { points, .. }) => (baseline.points(), canary.points(), 1.0, *points),
        Rule::Mean { .. } => {
            let cap = baseline.quantile(0.999);
            let y = |x: f64| (x / cap).min(1.0);
            (changed(baseline, &y), changed(canary, &|x| y(x / factor)), 1.0, 0.0)
        }
        Rule::Quantile(Quantile { q, .. }) => {
            let threshold = baseline.quantile(*q);
            let y = |x: f64| f64::from(u8::from(exceeds(guardrail.better, x, threshold)));
            (changed(baseline, &y), changed(canary, &|x| y(x / factor)), 1.0, 0.0)
        }
        Rule::Paired(_) | Rule::Count(_) | Rule::Split | Rule::Absolute(_) | Rule::Stop(_) => {
            unreachable!("not two arms of observations")
        }
    }
}

fn mean(points: &[(f64, f64)]) -> f64 {
    points.iter().map(|(y, w)| y * w).sum()
}

/// Divergence from a law to the nearest one on [0, 1] with mean `m`: `max E ln(1 + l (y - m))` over the `l` that keep
/// the logarithm finite.
fn kl_inf(points: &[(f64, f64)], m: f64) -> f64 {
    let gain = |l: f64| points.iter().map(|(y, w)| w * libm::log1p(l * (y - m))).sum::<f64>();
    let end = 1.0 - 1e-9;
    gain(search(-end / (1.0 - m), end / m, gain)).max(0.0)
}

/// Where a concave function is largest, by golden section.
fn search(mut lo: f64, mut hi: f64, f: impl Fn(f64) -> f64) -> f64 {
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (hi - golden * (hi - lo), lo + golden * (hi - lo));
    let (mut f_left, mut f_right) = (f(left), f(right));
    for _ in 0..48 {
        if f_left >= f_right {
            (hi, right, f_right) = (right, left, f_left);
            left = hi - golden * (hi - lo);
            f_left = f(left);
        } else {
            (lo, left, f_left) = (left, right, f_right);
            right = lo + golden * (hi - lo);
            f_right = f(right);
        }
    }
    (lo + hi) / 2.0
}
