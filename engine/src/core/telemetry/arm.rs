//! The two sides of a comparison, and what is counted of each.

use serde::{Deserialize, Serialize};

/// A side of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    Baseline,
    Canary,
}

/// Cumulative counts of both arms at rising upper bounds, the last infinite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub bounds: Vec<f64>,
    pub baseline: Vec<u64>,
    pub canary: Vec<u64>,
}

/// Observations of one instant (or slot) of request time, ready to be cut into blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum Portion {
    /// `n` and how many are ones, per arm.
    Counts { n_a: u64, f_a: u64, n_b: u64, f_b: u64 },
    /// One raw value of the canary or the baseline.
    Value { canary: bool, x: f64 },
    /// Values of both arms for one unit.
    Pair { a: f64, b: f64 },
    /// Of a histogram: observations and how many are beyond the threshold; of `unsure_b` of the canary's it is not
    /// known.
    Beyond { n_a: u64, f_a: u64, n_b: u64, f_b: u64, unsure_b: u64 },
    /// Events of each arm while the canary was to have `share` of the traffic, and how often they may come of it at equal
    /// traffic; `None`: units, of which it was to have that share.
    Labels { x_a: u64, x_b: u64, share: f64, ratio: Option<f64> },
}

/// Counts of one arm, for display and gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmCount {
    pub n: u64,
    pub sum: f64,
}

impl ArmCount {
    pub fn add(&mut self, n: u64, sum: f64) {
        self.n += n;
        self.sum += sum;
    }

    pub fn mean(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.sum / self.n as f64 }
    }
}
