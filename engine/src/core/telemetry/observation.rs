//! One observation on its way to a guardrail.

use super::arm::Arm;
use crate::core::time::{Span, Timestamp};

#[derive(Clone, Copy)]
pub struct Observation {
    pub arm: Arm,
    pub served_at: Timestamp,
    /// Start of the cohort it belongs to.
    pub cohort: Timestamp,
    /// Of a named unit.
    pub unit: Option<u64>,
    /// Of who graded it, where that is said.
    pub judge: Option<u64>,
    /// Of its place in the log.
    pub place: u64,
    pub value: f64,
    pub role: Role,
}

/// What an observation is to a guardrail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of its metric.
    Value,
    /// Of the metric that every request has, for a missing share.
    Request,
}

impl Observation {
    /// Whether it is a one.
    pub fn is_one(&self) -> bool {
        self.value >= 0.5
    }

    /// Since the start of its cohort.
    pub fn offset(&self) -> Span {
        self.served_at.since(self.cohort)
    }
}
