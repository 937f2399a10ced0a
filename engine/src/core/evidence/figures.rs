//! How what both arms have shown reads: in which unit, and in which words.

use super::interval::Range;
use super::reference::Reference;
use crate::core::telemetry::arm::ArmCount;
use crate::core::text::{count, signed, significant};

/// What there is to be said of both arms.
pub struct Shown<'a> {
    pub baseline: ArmCount,
    pub canary: ArmCount,
    pub range: Option<Range>,
    pub limit: Option<f64>,
    pub estimate: Option<f64>,
    pub reference: Option<&'a Reference>,
}

/// How the mean of an arm reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Share,
    Grade,
    Value,
    /// Not at all: their number stands for itself, and the difference has no range.
    Events,
    /// How often it happened.
    Happened,
}

impl Measure {
    /// `88.4% of 9,320`
    pub fn of(self, arm: &ArmCount) -> String {
        let (mean, n) = (arm.mean(), count(arm.n));
        match self {
            Measure::Share => format!("{:.1}% of {n}", mean * 100.0),
            Measure::Grade => format!("{mean:.3} over {n}"),
            Measure::Value => format!("{} over {n}", significant(mean)),
            Measure::Events => n,
            Measure::Happened => format!("{} of {n}", count(arm.sum as u64)),
        }
    }
}

/// What a difference is shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Points,
    /// Of the baseline's mean.
    Percent,
    Times,
    Events,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Points => "pts",
            Unit::Percent => "%",
            Unit::Times => "x",
            Unit::Events => "events",
        }
    }

    /// From the metric's own unit.
    pub fn scale(self, baseline: f64) -> f64 {
        match self {
            Unit::Points => 100.0,
            Unit::Percent => 100.0 / baseline,
            Unit::Times | Unit::Events => 1.0,
        }
    }
}

/// What the limit is that people are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A difference to the baseline.
    Difference,
    /// The same on either side.
    EitherWay,
    /// A value of the metric.
    Value,
    /// A factor on the baseline's rate.
    Times,
    /// A share of the canary's.
    Share,
    /// How often it may happen.
    Number,
    None,
}

impl Shown<'_> {
    /// `-4.6 pts, between -6.3 and -3.0`. `None` also where it is a share of nothing.
    pub fn difference(&self, unit: Unit) -> Option<String> {
        let scale = unit.scale(self.baseline.mean());
        let range = self.range.filter(|_| scale.is_finite())?;
        let [diff, lo, hi] = [range.diff, range.lo, range.hi].map(|x| x * scale);
        let space = if unit == Unit::Points { " " } else { "" };
        Some(format!("{diff:+.1}{space}{}, between {lo:+.1} and {hi:+.1}", unit.name()))
    }

    /// `-4.6 pts, between -6.3 and -3.0; limit -3.0 (canary 88.4% of 9,320, baseline 93.0% of 28,110)`
    pub fn compared(&self, measure: Measure, unit: Unit) -> Option<String> {
        let (difference, limit) = (self.difference(unit)?, self.limit? * unit.scale(self.baseline.mean()));
        let [canary, baseline] = [&self.canary, &self.baseline].map(|arm| measure.of(arm));
        Some(format!("{difference}; limit {} (canary {canary}, baseline {baseline})", signed(limit)))
    }
}
