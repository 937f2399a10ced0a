//! Observations of both arms that are bet on together.

use serde::{Deserialize, Serialize};

use crate::core::time::Timestamp;

/// Canary observations after which a new epoch begins.
pub const EPOCH_CANARY: u64 = 512;

/// Observations that close a block.
pub const BLOCK: u64 = 32;

/// Observations not yet scored, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenBlock {
    /// Request time of the oldest.
    pub since: Timestamp,
    pub n_a: u64,
    pub n_b: u64,
    /// Sums: for zeros and ones, the number of ones.
    pub sum_a: f64,
    pub sum_b: f64,
    /// Canary observations of a histogram of which it is not known whether they exceed the threshold: they do not
    /// where harm is asked for, they do where safety is.
    pub unsure_b: u64,
    /// Values, for means, scores and pairs.
    pub xs_a: Vec<f64>,
    pub xs_b: Vec<f64>,
}

impl OpenBlock {
    pub fn is_empty(&self) -> bool {
        self.n_a + self.n_b == 0
    }

    /// Values held for a mean.
    pub fn values(&self) -> usize {
        self.xs_a.len() + self.xs_b.len()
    }

    pub fn both(&self) -> bool {
        self.n_a > 0 && self.n_b > 0
    }
}

/// One observation of a pair: 0 to 1, a half where both arms did the same.
pub fn pair_y(a: f64, b: f64) -> f64 {
    (1.0 + b - a) / 2.0
}

impl OpenBlock {
    pub fn count(&mut self, n_a: u64, f_a: u64, n_b: u64, f_b: u64) {
        self.n_a += n_a;
        self.n_b += n_b;
        self.sum_a += f_a as f64;
        self.sum_b += f_b as f64;
    }
}
