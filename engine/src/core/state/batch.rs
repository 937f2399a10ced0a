//! A batch of telemetry on its way into the state: decoded once and routed once, whoever reads it.

use crate::core::ids::{EventSeq, Version};
use crate::core::policy::Policy;
use crate::core::telemetry::arm::Arm;
use crate::core::telemetry::columns::{Columns, Sample, Series};
use crate::core::time::Timestamp;

/// A batch of telemetry, decoded once for all who read it.
pub struct Batch<'a> {
    pub seq: EventSeq,
    pub at: Timestamp,
    pub columns: &'a Columns,
    pub samples: Vec<Sample>,
}

impl Batch<'_> {
    pub fn new(seq: EventSeq, at: Timestamp, columns: &Columns) -> Batch<'_> {
        Batch { seq, at, columns, samples: columns.samples().collect() }
    }

    /// Observations of each series.
    pub fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.columns.series.len()];
        self.samples.iter().for_each(|sample| counts[sample.series as usize] += 1);
        self.columns.aggregates.iter().for_each(|a| counts[a.series as usize] += a.n);
        counts
    }
}

/// The part of the traffic that samples say they belong to: a named one, or the rest. `None`: they say nothing.
pub type Part = Option<Option<u16>>;

/// What the series and the tag sets of a batch are to one rollout.
pub struct Routes {
    /// By series; `None`: of neither.
    pub arms: Vec<Option<Arm>>,
    parts: Vec<Part>,
}

impl Routes {
    /// Of a rollout from `baseline` to `canary`.
    pub fn of([canary, baseline]: [&Version; 2], policy: &Policy, columns: &Columns) -> Routes {
        let arm = |series: &Series| match &series.version {
            version if version == canary => Some(Arm::Canary),
            version if version == baseline => Some(Arm::Baseline),
            _ => None,
        };
        let parts = policy.segments.as_ref().map_or(Vec::new(), |segments| {
            let part = |tags: &String| {
                let name = value_of(tags, segments.kind.as_str())?;
                Some(part_named(policy, name))
            };
            columns.tags.iter().map(part).collect()
        });
        Routes { arms: columns.series.iter().map(arm).collect(), parts }
    }

    /// `None`: it is of neither arm.
    pub fn arm(&self, series: u32) -> Option<Arm> {
        self.arms[series as usize]
    }

    pub fn part(&self, tag: Option<u32>) -> Part {
        tag.and_then(|tag| *self.parts.get(tag as usize)?)
    }
}

/// A segment by name; `None`: whoever is in no named one.
pub fn part_named(policy: &Policy, name: &str) -> Option<u16> {
    let parts = policy.segments.as_ref().map_or(&[][..], |segments| &segments.named);
    parts.iter().position(|part| part.name == name).map(|i| i as u16)
}

/// The value of `tag` in a set written `key=value,key=value`.
pub fn value_of<'a>(tags: &'a str, tag: &str) -> Option<&'a str> {
    tags.split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == tag)
        .map(|(_, value)| value)
}
