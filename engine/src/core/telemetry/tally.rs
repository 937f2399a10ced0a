//! What is counted of a canary as it comes, by guardrails that compare nothing.

use serde::{Deserialize, Serialize};

use super::arm::ArmCount;
use super::sliding_window::Recent;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tally {
    /// Of the last observations.
    Last(Recent),
    /// Of all there ever were.
    All(Total),
}

/// Everything that a rollout's canary has sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// More bad ones are too many.
    allowed: u64,
    n: u64,
    bad: u64,
}

impl Total {
    pub fn new(allowed: u64) -> Total {
        Total { allowed, n: 0, bad: 0 }
    }
}

impl Tally {
    /// Takes in `n` observations with so many bad ones.
    pub fn take(&mut self, n: u64, bad: u64) {
        match self {
            Tally::Last(recent) => recent.spread(n, bad),
            Tally::All(total) => {
                total.n = total.n.saturating_add(n);
                total.bad = total.bad.saturating_add(bad);
            }
        }
    }

    /// Whether too many were bad at some time.
    pub fn is_over(&self) -> bool {
        match self {
            Tally::Last(recent) => recent.fired,
            Tally::All(total) => total.bad > total.allowed,
        }
    }

    /// What it counts now: observations, and the bad ones of them.
    pub fn counted(&self) -> ArmCount {
        match self {
            Tally::Last(recent) => ArmCount { n: u64::from(recent.n), sum: f64::from(recent.bad) },
            Tally::All(total) => ArmCount { n: total.n, sum: total.bad as f64 },
        }
    }
}
