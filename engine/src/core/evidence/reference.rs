//! What a guardrail takes the baseline to be while it bets: frozen from settled baseline observations
//! before the blocks that use it, recorded as an event, and never re-estimated from a block being scored.

use serde::{Deserialize, Serialize};

use super::bets::{Lean, PairSetting, Setting};
use super::label_bets;
use crate::core::planted::{Bug, planted};
use crate::core::policy::guardrail::{Better, EvidenceRules, Guardrail, Rule};
use crate::core::telemetry::arm::Histogram;

/// A frozen baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Expected baseline mean of the normalised observation, in (0, 1); of pairs, the mean of theirs.
    pub theta: f64,
    /// Variance of one normalised baseline observation (of one pair).
    pub variance: f64,
    /// Means only: a larger value counts as this one. The unit is the metric's.
    pub cap: Option<f64>,
    /// Quantiles only: the baseline's quantile. What is above it (below, where higher is better) counts as a one.
    pub threshold: Option<f64>,
    /// Baseline observations it was computed from.
    pub n: u64,
    /// Sizes of regression (of counts and splits: ratios) that are bet on. Chosen with the first reference of a
    /// rollout and kept.
    pub harm_grid: Vec<f64>,
    pub safe_grid: Vec<f64>,
    /// The same for a benefit that another guardrail's trade-off asks for, for the lower side of a missing share, or for
    /// values of a mean above the cap.
    pub other_grid: Vec<f64>,
}

/// Baseline observations gathered for the next reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gathered {
    pub n: u64,
    pub sum: f64,
    pub sumsq: f64,
    /// Means and scores until the first reference, quantiles always: the values, oldest first. At most
    /// [`GATHERED_MAX`].
    pub values: Vec<f64>,
    /// Quantiles only: what came as histograms.
    pub histogram: Option<(Vec<f64>, Vec<u64>)>,
}

/// Enough for the 99.9th percentile, and 32 KiB.
pub const GATHERED_MAX: usize = 4096;

/// Baseline observations that the first reference of a guardrail takes.
pub fn needs(rule: &Rule, rules: &EvidenceRules) -> u64 {
    let least = u64::from(rules.reference_min);
    match rule {
        Rule::Absolute { .. } | Rule::Count { .. } | Rule::Split => 0,
        // Nothing but the variance is to be learned, and pairs are few.
        Rule::Paired { .. } => least.div_ceil(10).max(20),
        // Twenty values beyond it, or the threshold is anywhere: of p99 that takes 2,000.
        Rule::Quantile { q, .. } => {
            let beyond = libm::ceil(20.0 / q.min(1.0 - q)) as u64;
            least.max(beyond.min(GATHERED_MAX as u64))
        }
        _ => least,
    }
}

/// Observations after which older ones count half.
const MEMORY: u64 = 16_384;

impl Gathered {
    /// Halves the weight of what was gathered, when there is enough, so that a drift shows.
    pub fn forget(&mut self) {
        if self.n > MEMORY {
            self.n /= 2;
            self.sum /= 2.0;
            self.sumsq /= 2.0;
        }
        // The youngest say most about what comes.
        if self.values.len() > GATHERED_MAX {
            self.values.drain(..GATHERED_MAX / 2);
        }
    }

    /// Adds the baseline's side of a histogram; another one than before starts anew.
    pub fn add_histogram(&mut self, held: &Histogram) {
        let n = held.baseline.last().copied().unwrap_or(0);
        match &mut self.histogram {
            Some((bounds, counts)) if *bounds == held.bounds => {
                counts.iter_mut().zip(&held.baseline).for_each(|(counted, more)| *counted += more);
            }
            other => *other = Some((held.bounds.clone(), held.baseline.clone())),
        }
        self.n += n;
    }

    /// The share beyond a threshold that [`Gathered::quantile`] found: of ties, and of coarse bounds, less than the quantile
    /// says. `(k + 0.5) / (n + 1)`.
    fn beyond(&self, better: Better, q: f64, threshold: f64) -> f64 {
        let (k, n) = match &self.histogram {
            Some((bounds, counts)) => {
                let n = counts.last().copied().unwrap_or(0);
                let up_to = bounds.iter().position(|bound| *bound == threshold).map_or(n, |i| counts[i]);
                (if better == Better::Lower { n - up_to } else { up_to }, n)
            }
            None => {
                // One value at the threshold: what the quantile says by definition.
                if self.values.iter().filter(|x| **x == threshold).count() <= 1 {
                    return if better == Better::Lower { 1.0 - q } else { q };
                }
                let k = self.values.iter().filter(|x| exceeds(better, **x, threshold)).count();
                (k as u64, self.values.len() as u64)
            }
        };
        (k as f64 + 0.5) / (n as f64 + 1.0)
    }

    /// The smallest value that at least a share `q` of what was gathered does not exceed.
    fn quantile(&self, q: f64) -> f64 {
        if let Some((bounds, counts)) = &self.histogram {
            let total = counts.last().copied().unwrap_or(0) as f64;
            let reached = counts.iter().position(|below| *below as f64 >= q * total);
            return reached.map_or(f64::INFINITY, |i| bounds[i]);
        }
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let rank = libm::ceil(values.len() as f64 * q).max(1.0) as usize;
        values.get(rank - 1).copied().unwrap_or(0.0)
    }
}

/// Why no reference can be frozen from what was gathered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

impl Reference {
    /// The first reference of a rollout.
    ///
    /// Proportion: `theta = (ones + 0.5) / (n + 1)`. Mean: values are divided by their 99.9th percentile
    /// (nearest rank) and cut at 1. Quantile: the threshold is the nearest-rank quantile, and `theta` what lies
    /// beyond it by definition. Errors when the margin puts the boundary outside (0, 1).
    pub fn first(guardrail: &Guardrail, gathered: &Gathered) -> Result<Reference, Unusable> {
        let mut reference = Reference { n: gathered.n, ..Reference::default() };
        match &guardrail.rule {
            Rule::Mean { .. } => {
                let mut cap = gathered.quantile(1.0 - CAPPED);
                if cap <= 0.0 {
                    return Err(Unusable(format!("{} is never above 0 in the baseline", guardrail.metric)));
                }
                // A constant has no percentiles, and more than it must be possible.
                if gathered.values.iter().all(|x| *x >= cap) {
                    cap *= 2.0 * canary_factor(guardrail).max(1.0);
                }
                reference.cap = Some(cap);
                let ys = gathered.values.iter().map(|x| (x / cap).min(1.0));
                (reference.theta, reference.variance) = mean_and_variance(ys);
                reference.variance = reference.variance.max(VARIANCE_MIN);
            }
            Rule::Score { .. } => {
                (reference.theta, reference.variance) = mean_and_variance(gathered.values.iter().copied());
                reference.variance = reference.variance.max(VARIANCE_MIN);
            }
            Rule::Paired { .. } => {
                reference.theta = gathered.sum / gathered.n as f64;
                reference.variance = pair_variance(gathered);
            }
            Rule::Quantile { q, .. } => {
                let threshold = threshold(guardrail, gathered, *q)?;
                reference.threshold = Some(threshold);
                let beyond = gathered.beyond(guardrail.better, *q, threshold);
                (reference.theta, reference.variance) = (beyond, beyond * (1.0 - beyond));
            }
            Rule::Count { .. } => {
                let (above, below) = (label_bets::RATIOS_ABOVE.to_vec(), label_bets::RATIOS_BELOW.to_vec());
                (reference.harm_grid, reference.safe_grid) =
                    if guardrail.better == Better::Lower { (above, below) } else { (below, above) };
                return Ok(reference);
            }
            Rule::Split => {
                reference.harm_grid = label_bets::SPLITS.to_vec();
                return Ok(reference);
            }
            Rule::Proportion { .. } | Rule::Missing { .. } | Rule::Absolute { .. } => {
                let theta = (gathered.sum + 0.5) / (gathered.n as f64 + 1.0);
                (reference.theta, reference.variance) = (theta, theta * (1.0 - theta));
            }
        }
        reference.choose_bets(guardrail)?;
        Ok(reference)
    }

    /// Chooses the sizes of regression, and of benefit, that are bet on.
    fn choose_bets(&mut self, guardrail: &Guardrail) -> Result<(), Unusable> {
        let lean = harm_lean(guardrail);
        if let Rule::Paired { points } = guardrail.rule {
            let setting = self.pair_setting(guardrail);
            self.harm_grid = setting.grid(lean, points);
            self.safe_grid = setting.grid(lean.opposite(), points);
            if let Some(by) = guardrail.benefit {
                self.other_grid = self.pair_benefit(guardrail, by).grid(lean.opposite(), by);
            }
            return Ok(());
        }
        let setting = self.setting(guardrail);
        let (boundary, theta) = (setting.boundary(), self.theta);
        if !(boundary > 0.0 && boundary < 1.0) {
            return Err(Unusable(format!(
                "the limit puts {} at {boundary:.4} where the baseline is {theta:.4}; it must lie between 0 and 1",
                guardrail.metric
            )));
        }
        let margin = match &guardrail.rule {
            Rule::Mean { handicap } => theta * handicap / (1.0 + handicap),
            _ => (boundary - theta).abs(),
        };
        self.harm_grid = setting.default_grid(lean, margin);
        self.safe_grid = setting.default_grid(lean.opposite(), margin);
        self.choose_other(guardrail);
        Ok(())
    }

    fn choose_other(&mut self, guardrail: &Guardrail) {
        if let Some((setting, lean)) = self.other(guardrail) {
            let boundary = setting.boundary();
            // Nothing can be better than all good, or missing less than not at all: then there is nothing to bet on.
            if boundary > 0.0 && boundary < 1.0 {
                self.other_grid = setting.default_grid(lean, (boundary - setting.theta).abs());
            }
        }
    }

    /// The reference for the next epoch: a new baseline, the same cap and the same bets. What could not be bet on so far is
    /// from now on, if it can be.
    pub fn refreshed(&self, guardrail: &Guardrail, gathered: &Gathered) -> Reference {
        let n = gathered.n as f64;
        let mut next = Reference { n: gathered.n, ..self.clone() };
        match &guardrail.rule {
            Rule::Paired { .. } => {
                next.theta = gathered.sum / n;
                next.variance = pair_variance(gathered);
            }
            Rule::Mean { .. } | Rule::Score { .. } => {
                next.theta = (gathered.sum + 0.5 * self.theta) / (n + 0.5);
                next.variance = (gathered.sumsq / n - next.theta * next.theta).max(VARIANCE_MIN);
            }
            Rule::Quantile { q, .. } => match threshold(guardrail, gathered, *q) {
                Ok(threshold) => {
                    next.threshold = Some(threshold);
                    next.theta = gathered.beyond(guardrail.better, *q, threshold);
                    next.variance = next.theta * (1.0 - next.theta);
                }
                Err(_) => return self.clone(),
            },
            Rule::Count { .. } | Rule::Split => return self.clone(),
            Rule::Proportion { .. } | Rule::Missing { .. } | Rule::Absolute { .. } => {
                next.theta = (gathered.sum + 0.5) / (n + 1.0);
                next.variance = next.theta * (1.0 - next.theta);
            }
        }
        if matches!(guardrail.rule, Rule::Paired { .. }) {
            return next;
        }
        let boundary = next.setting(guardrail).boundary();
        // A baseline that drifted to where the limit has no meaning keeps the old guess: it costs speed only.
        let sound = boundary > 0.0 && boundary < 1.0 && next.theta > 0.0 && next.theta < 1.0;
        if !sound {
            return self.clone();
        }
        if next.other_grid.is_empty() {
            next.choose_other(guardrail);
        }
        next
    }

    /// Whether the baseline has moved by enough to matter, the smallest regression that is bet on, and by more than
    /// chance moves it: three standard errors.
    pub fn differs(&self, guardrail: &Guardrail, gathered: &Gathered, next: &Reference) -> bool {
        if matches!(guardrail.rule, Rule::Paired { .. }) {
            // Nothing else of the baseline is bet with.
            let ratio = next.variance / self.variance;
            return !(0.67..1.5).contains(&ratio);
        }
        let smallest = self.harm_grid.first().copied().unwrap_or(0.0);
        // Both this reference and the next have the error of their samples; of quantiles, of the values kept.
        let (was, is) = match gathered.values.len() as u64 {
            0 => (self.n, gathered.n),
            kept => (self.n.min(GATHERED_MAX as u64), kept),
        };
        let error = self.variance * (1.0 / was.max(1) as f64 + 1.0 / is.max(1) as f64);
        let least = smallest.max(3.0 * libm::sqrt(error));
        if let (Rule::Quantile { .. }, Some(threshold)) = (&guardrail.rule, self.threshold) {
            let beyond = gathered.values.iter().filter(|x| exceeds(guardrail.better, **x, threshold)).count();
            let share = beyond as f64 / gathered.values.len().max(1) as f64;
            return gathered.histogram.is_some() && next.threshold != self.threshold
                || !gathered.values.is_empty() && (share - self.theta).abs() >= least;
        }
        (self.theta - next.theta).abs() >= least
    }

    /// What the bets on harm and safety assume under this reference. Not for pairs, counts and splits.
    pub fn setting(&self, guardrail: &Guardrail) -> Setting {
        match &guardrail.rule {
            Rule::Proportion { margin } => {
                let (rho, d) = margin.boundary(guardrail.better);
                Setting::binary(rho, d, self.theta)
            }
            Rule::Missing { points, .. } => Setting::binary(1.0, *points, self.theta),
            Rule::Score { margin } => {
                let (rho, d) = margin.boundary(guardrail.better);
                self.general(rho, d)
            }
            // The handicap is in the observation, so the boundary is equality.
            Rule::Quantile { .. } => Setting::binary(1.0, 0.0, self.theta),
            Rule::Mean { .. } => self.general(1.0, 0.0),
            Rule::Paired { .. } | Rule::Count { .. } | Rule::Split | Rule::Absolute { .. } => {
                unreachable!("not judged by balanced bets")
            }
        }
    }

    fn general(&self, rho: f64, d: f64) -> Setting {
        let variance = self.variance;
        Setting { rho, d, theta: self.theta, var_a: variance, var_b: variance, binary: false }
    }

    /// The third question, where one is asked: is the canary better by so much; of a missing share, is it lower by so
    /// much; of a mean, are more values above the cap than [`ABOVE_CAP`] allows. With the way its bets lean.
    pub fn other(&self, guardrail: &Guardrail) -> Option<(Setting, Lean)> {
        let sign = if guardrail.better == Better::Higher { 1.0 } else { -1.0 };
        let asked = match (&guardrail.rule, guardrail.benefit) {
            (Rule::Missing { points, .. }, _) => {
                Some((Setting::binary(1.0, -points, self.theta), Lean::Below))
            }
            (Rule::Mean { .. }, _) => {
                let (rho, d) = ABOVE_CAP;
                Some((Setting::binary(rho, d, CAPPED), Lean::Above))
            }
            (Rule::Proportion { .. }, Some(by)) => {
                Some((Setting::binary(1.0, sign * by, self.theta), harm_lean(guardrail).opposite()))
            }
            (Rule::Score { .. }, Some(by)) => {
                Some((self.general(1.0, sign * by), harm_lean(guardrail).opposite()))
            }
            _ => None,
        };
        // Nothing can be better than all good, or missing less than not at all. A baseline that has drifted there leaves no
        // bet to be made: at a boundary that cannot be, stakes turn over and win on nothing.
        let possible = |setting: &Setting| setting.boundary() > 0.0 && setting.boundary() < 1.0;
        asked.filter(|(setting, _)| possible(setting))
    }

    /// What bets on pairs assume.
    pub fn pair_setting(&self, guardrail: &Guardrail) -> PairSetting {
        let Rule::Paired { points } = guardrail.rule else { unreachable!("only of pairs") };
        let sign = if guardrail.better == Better::Higher { -1.0 } else { 1.0 };
        PairSetting { d: sign * points, variance: self.variance }
    }

    pub fn pair_benefit(&self, guardrail: &Guardrail, by: f64) -> PairSetting {
        let sign = if guardrail.better == Better::Higher { 1.0 } else { -1.0 };
        PairSetting { d: sign * by, variance: self.variance }
    }

    /// A baseline value of a mean, normalised to [0, 1].
    pub fn baseline_y(&self, x: f64) -> f64 {
        (x / self.cap.unwrap_or(1.0)).clamp(0.0, 1.0)
    }

    /// A canary value of a mean: first the handicap, then the cap; the other order biases the null.
    pub fn canary_y(&self, guardrail: &Guardrail, x: f64) -> f64 {
        self.baseline_y(x / canary_factor(guardrail))
    }
}

/// The baseline's share of values above the cap of a mean, by definition of the cap.
const CAPPED: f64 = 0.001;
/// The canary's share may be twice the baseline's and 0.1 points: factor and points. A mean cannot see what is above its
/// cap grow, and a share of one in a thousand moves by chance.
pub const ABOVE_CAP: (f64, f64) = (2.0, 0.001);

/// What the canary's values are divided by before they are compared.
pub fn canary_factor(guardrail: &Guardrail) -> f64 {
    match guardrail.rule {
        _ if planted(Bug::NoHandicap) => 1.0,
        Rule::Mean { handicap } | Rule::Quantile { handicap, .. } => match guardrail.better {
            Better::Lower => 1.0 + handicap,
            Better::Higher => 1.0 - handicap,
        },
        _ => 1.0,
    }
}

/// Whether a value is on the bad side of a threshold.
pub fn exceeds(better: Better, x: f64, threshold: f64) -> bool {
    if better == Better::Lower { x > threshold } else { x < threshold }
}

/// Variance of the observations of pairs around a half, drawn towards that of pairs that all differ: the few pairs of the
/// first reference may hold none that does, and bets as large as that allows lose everything to the first one.
fn pair_variance(gathered: &Gathered) -> f64 {
    let n = gathered.n as f64;
    (gathered.sumsq - gathered.sum + n / 4.0 + 0.25) / (n + 2.0)
}

/// Grades that are all the same still vary a little: a bet must not be without bound.
const VARIANCE_MIN: f64 = 1e-6;

fn threshold(guardrail: &Guardrail, gathered: &Gathered, q: f64) -> Result<f64, Unusable> {
    let threshold = gathered.quantile(q);
    if threshold.is_finite() {
        return Ok(threshold);
    }
    let metric = &guardrail.metric;
    Err(Unusable(format!("the {q} quantile of {metric} lies above the last finite bound of its histograms")))
}

fn mean_and_variance(ys: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = ys.clone().count().max(1) as f64;
    let mean = ys.clone().sum::<f64>() / n;
    (mean, ys.map(|y| (y - mean) * (y - mean)).sum::<f64>() / n)
}

/// The direction in which harm lies.
pub fn harm_lean(guardrail: &Guardrail) -> Lean {
    match guardrail.rule {
        // Ones are what is beyond the threshold, or missing.
        Rule::Quantile { .. } | Rule::Missing { .. } => Lean::Above,
        _ if guardrail.better == Better::Higher => Lean::Below,
        _ => Lean::Above,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::guardrail::Margin;

    /// Zeros and ones: `(differing + 1) / (n + 2) / 4`.
    #[test]
    fn few_pairs_that_agree_do_not_make_a_bet_without_bound() {
        let of = |differing: u64, n: u64| {
            let (half, one) = ((n - differing) as f64, differing as f64);
            pair_variance(&Gathered {
                n,
                sum: half / 2.0 + one,
                sumsq: half / 4.0 + one,
                ..Gathered::default()
            })
        };
        assert_eq!(of(0, 50), 1.0 / 52.0 / 4.0);
        assert!((of(5, 50) - 6.0 / 52.0 / 4.0).abs() < 1e-15);
    }

    /// At 98.5 % there is no room for two points more; bets there would win on nothing.
    #[test]
    fn a_benefit_that_cannot_be_is_not_bet_on() {
        let margin = Margin::Points(0.03);
        let asks = Guardrail {
            benefit: Some(0.02),
            ..Guardrail::new("eval_pass", Better::Higher, Rule::Proportion { margin })
        };
        let missing =
            Guardrail::new("graded", Better::Lower, Rule::Missing { of: "request".into(), points: 0.02 });
        let at = |theta: f64| Reference { theta, ..Reference::default() };
        assert!(at(0.965).other(&asks).is_some() && at(0.985).other(&asks).is_none());
        assert!(at(0.03).other(&missing).is_some() && at(0.005).other(&missing).is_none());
    }

    /// Whole seconds: nearly all of what the 95 % quantile says is beyond it is at it.
    #[test]
    fn the_share_beyond_a_threshold_with_ties_is_what_is_beyond_it() {
        let q = Rule::Quantile { q: 0.95, handicap: 0.1 };
        let mut values = vec![1.0; 940];
        values.extend([2.0; 50]);
        values.extend([3.0; 10]);
        let gathered = Gathered { n: 1_000, values, ..Gathered::default() };
        let first = Reference::first(&Guardrail::new("latency", Better::Lower, q), &gathered).unwrap();
        assert_eq!((first.threshold, first.theta), (Some(2.0), 10.5 / 1_001.0));
    }

    #[test]
    fn a_constant_can_be_judged() {
        let gathered = Gathered { n: 500, values: vec![0.25; 500], ..Gathered::default() };
        let price = Guardrail::new("cost", Better::Lower, Rule::Mean { handicap: 0.2 });
        let first = Reference::first(&price, &gathered).expect("a reference");
        assert!(first.cap > Some(0.3) && first.theta < 0.5 && !first.harm_grid.is_empty(), "{first:?}");
    }
}
