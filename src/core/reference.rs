//! What a guardrail takes the baseline to be while it bets: frozen from settled baseline observations
//! before the blocks that use it, recorded as an event, and never re-estimated from a block being scored.

use serde::{Deserialize, Serialize};

use super::bets::{Lean, Setting};
use super::policy::{Better, Guardrail, Rule};

/// A frozen baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Expected baseline mean of the normalised observation, in (0, 1).
    pub theta: f64,
    /// Variance of one normalised baseline observation.
    pub variance: f64,
    /// Means only: a larger value counts as this one. The unit is the metric's.
    pub cap: Option<f64>,
    /// Baseline observations it was computed from.
    pub n: u64,
    /// Sizes of regression that are bet on. Chosen with the first reference of a rollout and kept.
    pub harm_grid: Vec<f64>,
    pub safe_grid: Vec<f64>,
}

/// Baseline observations gathered for the next reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gathered {
    pub n: u64,
    pub sum: f64,
    pub sumsq: f64,
    /// Means only, until the first reference: the values, for the cap. At most [`GATHERED_MAX`].
    pub values: Vec<f64>,
}

/// Enough for the 99.9th percentile, and 32 KiB.
pub const GATHERED_MAX: usize = 4096;

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
    /// (nearest rank) and cut at 1. Errors when the margin puts the boundary outside (0, 1).
    pub fn first(guardrail: &Guardrail, gathered: &Gathered) -> Result<Reference, Unusable> {
        let n = gathered.n;
        let (theta, variance, cap) = match &guardrail.rule {
            Rule::Mean { .. } => {
                let mut values = gathered.values.clone();
                values.sort_by(f64::total_cmp);
                let rank = (values.len() * 999).div_ceil(1000).max(1) - 1;
                let cap = values.get(rank).copied().unwrap_or(0.0);
                if cap <= 0.0 {
                    return Err(Unusable(format!("{} is never above 0 in the baseline", guardrail.metric)));
                }
                let count = values.len() as f64;
                let ys = values.iter().map(|x| (x / cap).min(1.0));
                let mean = ys.clone().sum::<f64>() / count;
                let variance = ys.map(|y| (y - mean) * (y - mean)).sum::<f64>() / count;
                (mean, variance, Some(cap))
            }
            _ => {
                let theta = (gathered.sum + 0.5) / (n as f64 + 1.0);
                (theta, theta * (1.0 - theta), None)
            }
        };
        let mut reference = Reference { theta, variance, cap, n, harm_grid: vec![], safe_grid: vec![] };
        let setting = reference.setting(guardrail);
        let boundary = setting.boundary();
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
        let lean = harm_lean(guardrail.better);
        reference.harm_grid = setting.default_grid(lean, margin);
        reference.safe_grid = setting.default_grid(lean.opposite(), margin);
        Ok(reference)
    }

    /// The reference for the next epoch: a new baseline mean, the same cap and the same bets.
    pub fn refreshed(&self, guardrail: &Guardrail, gathered: &Gathered) -> Reference {
        let n = gathered.n as f64;
        let (theta, variance) = match &guardrail.rule {
            Rule::Mean { .. } => {
                let mean = (gathered.sum + 0.5 * self.theta) / (n + 0.5);
                (mean, (gathered.sumsq / n - mean * mean).max(1e-6))
            }
            _ => {
                let theta = (gathered.sum + 0.5) / (n + 1.0);
                (theta, theta * (1.0 - theta))
            }
        };
        let next = Reference { theta, variance, n: gathered.n, ..self.clone() };
        let boundary = next.setting(guardrail).boundary();
        // A baseline that drifted to where the limit has no meaning keeps the old guess: it costs speed only.
        if boundary > 0.0 && boundary < 1.0 && theta > 0.0 && theta < 1.0 { next } else { self.clone() }
    }

    /// Whether the baseline has moved by enough to matter: the smallest regression that is bet on.
    pub fn differs(&self, other: &Reference) -> bool {
        (self.theta - other.theta).abs() >= self.harm_grid.first().copied().unwrap_or(0.0)
    }

    /// What the bets assume under this reference.
    pub fn setting(&self, guardrail: &Guardrail) -> Setting {
        match &guardrail.rule {
            Rule::Proportion { margin } => {
                let (rho, d) = margin.boundary(guardrail.better);
                Setting::binary(rho, d, self.theta)
            }
            // The handicap is in the observation, so the boundary is equality.
            Rule::Mean { .. } => Setting {
                rho: 1.0,
                d: 0.0,
                theta: self.theta,
                var_a: self.variance,
                var_b: self.variance,
                binary: false,
            },
            Rule::Absolute { .. } => unreachable!("absolute guards have no reference"),
        }
    }

    /// A baseline value of a mean, normalised to [0, 1].
    pub fn baseline_y(&self, x: f64) -> f64 {
        (x / self.cap.unwrap_or(1.0)).clamp(0.0, 1.0)
    }

    /// A canary value of a mean: first the handicap, then the cap; the other order biases the null.
    pub fn canary_y(&self, guardrail: &Guardrail, x: f64) -> f64 {
        let Rule::Mean { handicap } = guardrail.rule else { return x };
        let factor = if guardrail.better == Better::Lower { 1.0 + handicap } else { 1.0 - handicap };
        self.baseline_y(x / factor)
    }
}

/// The direction in which harm lies.
pub fn harm_lean(better: Better) -> Lean {
    if better == Better::Higher { Lean::Below } else { Lean::Above }
}
