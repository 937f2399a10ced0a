//! What a guardrail takes the baseline to be while it bets: frozen from settled baseline observations
//! before the blocks that use it, recorded as an event, and never re-estimated from a block being scored.

use serde::{Deserialize, Serialize};

use crate::core::ids::Metric;
use crate::core::policy::guardrail::Better;
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
    pub secondary_grid: Vec<f64>,
}

/// Baseline observations gathered for the next reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineSample {
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

/// Observations after which older ones count half.
const MEMORY: u64 = 16_384;

impl BaselineSample {
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

    /// The share beyond a threshold that [`BaselineSample::quantile`] found: of ties, and of coarse bounds, less than the quantile
    /// says. `(k + 0.5) / (n + 1)`.
    pub fn beyond(&self, better: Better, q: f64, threshold: f64) -> f64 {
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
    pub fn quantile(&self, q: f64) -> f64 {
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

    /// The share of ones, drawn towards a half: `(ones + 0.5) / (n + 1)`.
    pub fn share(&self) -> f64 {
        (self.sum + 0.5) / (self.n as f64 + 1.0)
    }

    /// Mean and variance of normalised values, drawn towards the mean of before.
    pub fn drawn_to(&self, before: f64) -> Reference {
        let n = self.n as f64;
        let theta = (self.sum + 0.5 * before) / (n + 0.5);
        let variance = (self.sumsq / n - theta * theta).max(VARIANCE_MIN);
        Reference { theta, variance, ..Reference::default() }
    }
}

/// Why no reference can be frozen from what was gathered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unusable {
    NeverAboveZero {
        metric: Metric,
    },
    /// The limit, allowed for, is nothing that the metric can be.
    Boundary {
        metric: Metric,
        boundary: f64,
        theta: f64,
    },
    /// The quantile lies above the last finite bound of the histograms.
    AboveLastBound {
        metric: Metric,
        q: f64,
    },
}

impl Reference {
    /// Zeros and ones of which so many are ones.
    pub fn of_share(theta: f64) -> Reference {
        Reference { theta, variance: theta * (1.0 - theta), ..Reference::default() }
    }

    /// Normalised values.
    pub fn of_values(ys: impl Iterator<Item = f64> + Clone) -> Reference {
        let n = ys.clone().count().max(1) as f64;
        let theta = ys.clone().sum::<f64>() / n;
        let variance = ys.map(|y| (y - theta) * (y - theta)).sum::<f64>() / n;
        Reference { theta, variance: variance.max(VARIANCE_MIN), ..Reference::default() }
    }

    /// A baseline value of a mean, normalised to [0, 1].
    pub fn baseline_y(&self, x: f64) -> f64 {
        (x / self.cap.unwrap_or(1.0)).clamp(0.0, 1.0)
    }
}

/// The baseline's share of values above the cap of a mean, by definition of the cap.
pub const CAPPED: f64 = 0.001;
/// The canary's share may be twice the baseline's and 0.1 points: factor and points. A mean cannot see what is above its
/// cap grow, and a share of one in a thousand moves by chance.
pub const ABOVE_CAP: (f64, f64) = (2.0, 0.001);

/// Whether a value is on the bad side of a threshold.
pub fn exceeds(better: Better, x: f64, threshold: f64) -> bool {
    if better == Better::Lower { x > threshold } else { x < threshold }
}

/// Grades that are all the same still vary a little: a bet must not be without bound.
const VARIANCE_MIN: f64 = 1e-6;
