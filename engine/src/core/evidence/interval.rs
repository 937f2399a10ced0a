//! The difference that people are shown, and conditions see, with its range. No verdict reads it.

use serde::{Deserialize, Serialize};

use super::bets::Bets;
use super::block::{EPOCH_CANARY, OpenBlock, pair_y};
use super::reference::Reference;
use crate::core::telemetry::arm::ArmCount;

/// Accumulators of what people are shown, and conditions see; no verdict reads them. Of counts: `sum / weight` is the ratio of the arms'
/// rates; of a split, the share that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntervalEstimate {
    pub weight: f64,
    pub sum: f64,
    pub variance: f64,
    /// The variance at which the range is tightest: that of [`EPOCH_CANARY`] canary observations.
    pub best_at: f64,
    /// Observations of this step as the bets see them, baseline and canary; of pairs the second only.
    pub step: [ArmCount; 2],
    /// Sums of their squares, where they are not zeros and ones.
    pub squares: [f64; 2],
}

impl IntervalEstimate {
    /// Block difference with Mantel-Haenszel weight `n_a n_b / (n_a + n_b)`: only arms of the same minutes are
    /// compared, so drift of the baseline cancels.
    pub fn add(&mut self, bets: &Bets, reference: &Reference, block: &OpenBlock) {
        let (n_a, n_b) = (block.n_a as f64, block.n_b as f64);
        if self.weight == 0.0 {
            self.best_at = reference.variance * EPOCH_CANARY as f64;
        }
        match bets {
            Bets::Values(_) => {
                // On the scale of the bets, so that one rule fits every unit, and cut at the cap as they are: the
                // difference of means without bound has no range. Without the handicap, for it is the difference itself.
                let ys = |xs: &[f64]| xs.iter().map(|x| reference.baseline_y(*x)).collect::<Vec<_>>();
                let (ys_a, ys_b) = (ys(&block.xs_a), ys(&block.xs_b));
                let (sum_a, sum_b) = (ys_a.iter().sum::<f64>(), ys_b.iter().sum::<f64>());
                let variances =
                    [self.variance_of(0, &ys_a, reference), self.variance_of(1, &ys_b, reference)];
                let variance = variances[0] / n_a + variances[1] / n_b;
                self.block(n_a * n_b / (n_a + n_b), sum_b / n_b - sum_a / n_a, variance);
            }
            // The difference of a pair varies four times as much as its observation, which is half of it.
            Bets::Pairs(_) => {
                let ys: Vec<f64> = block.xs_a.iter().zip(&block.xs_b).map(|(a, b)| pair_y(*a, *b)).collect();
                let variance = 4.0 * self.variance_of(1, &ys, reference) / n_b;
                self.block(n_b, (block.sum_b - block.sum_a) / n_b, variance);
            }
            Bets::Counts(_) => self.add_counts(block.n_a, block.sum_a, block.n_b, block.sum_b),
            Bets::Labels { .. } => {}
        }
    }

    /// The variance of an arm's observations at this step, these included, or the baseline's of before where that is larger:
    /// the few first values of a long tail show none of it.
    fn variance_of(&mut self, arm: usize, ys: &[f64], reference: &Reference) -> f64 {
        self.step[arm].add(ys.len() as u64, ys.iter().sum());
        self.squares[arm] += ys.iter().map(|y| y * y).sum::<f64>();
        let (n, sum) = (self.step[arm].n as f64, self.step[arm].sum);
        let scatter = (self.squares[arm] - sum * sum / n).max(0.0);
        (scatter / n).max(reference.variance)
    }

    /// Adds a difference of weight `h` and variance `variance`.
    fn block(&mut self, h: f64, difference: f64, variance: f64) {
        self.weight += h;
        self.sum += h * difference;
        self.variance += h * h * variance;
    }

    /// The share of ones of each arm at this step, drawn towards a half so that a few observations claim no certainty.
    fn shares_so_far(&mut self, n_a: u64, f_a: f64, n_b: u64, f_b: f64) -> [f64; 2] {
        self.step[0].add(n_a, f_a);
        self.step[1].add(n_b, f_b);
        self.step.map(|arm| (arm.sum + 1.0) / (arm.n as f64 + 2.0))
    }

    /// Adds a block of zeros and ones.
    pub fn add_counts(&mut self, n_a: u64, f_a: f64, n_b: u64, f_b: f64) {
        let [v_a, v_b] = self.shares_so_far(n_a, f_a, n_b, f_b).map(|p| p * (1.0 - p));
        let (a, b) = (n_a as f64, n_b as f64);
        self.block(a * b / (a + b), f_b / b - f_a / a, v_a / a + v_b / b);
    }

    /// Estimate and always-valid 95 % range: a normal mixture boundary (Howard et al. 2021, Annals of
    /// Statistics, arXiv:1810.08240). Asymptotic, hence for display only. `None` while too little was seen.
    pub fn range(&self, scale: f64) -> Option<Range> {
        if self.weight < 20.0 {
            return None;
        }
        let radius = normal_mixture_bound(self.variance, 0.05, self.best_at) / self.weight;
        let diff = self.sum / self.weight;
        Some(Range { diff: diff * scale, lo: (diff - radius) * scale, hi: (diff + radius) * scale })
    }
}

/// A difference and the range it lies in, in the metric's own unit (shares for proportions).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    pub diff: f64,
    pub lo: f64,
    pub hi: f64,
}

/// The two-sided normal mixture boundary at intrinsic variance `v`, tightest at `v_opt`: a sum of that variance
/// leaves `±bound` at any time with probability at most `alpha` (Howard et al. 2021, equation 14).
pub fn normal_mixture_bound(v: f64, alpha: f64, v_opt: f64) -> f64 {
    let tail = libm::log(1.0 / alpha);
    let rho = v_opt / (2.0 * tail + libm::log(1.0 + 2.0 * tail));
    libm::sqrt((v + rho) * (libm::log(1.0 + v / rho) + 2.0 * tail))
}
