//! An instruction to actuators, and what telemetry shows of it.

use serde::{Deserialize, Serialize};

use super::bundle::Parts;
use crate::core::ids::{Actuator, CommandId, EventSeq, Metric, Service, Version, Weight};
use crate::core::policy::segment::{SegmentShare, Task};

/// An instruction to actuators: serve this share from the canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub id: CommandId,
    pub service: Service,
    /// Sequence of the decision it carries out.
    pub decision: EventSeq,
    pub baseline: Version,
    pub canary: Version,
    /// What the canary is made of, where it is a bundle.
    pub bundle: Parts,
    /// Share of whoever is in no named segment.
    pub weight: Weight,
    /// Shares of the named segments that have one.
    pub segments: Vec<SegmentShare>,
    pub task: Option<Task>,
    pub actuators: Vec<Actuator>,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub task: Option<Task>,
    /// Shares of the named segments that have one.
    pub segments: Vec<(String, Weight)>,
    /// Share of whoever is in none of them.
    pub weight: Weight,
}

impl Command {
    pub fn asked(&self) -> Asked {
        let segments = self.segments.iter().map(|own| (own.segment.name.clone(), own.weight)).collect();
        Asked { task: self.task, segments, weight: self.weight }
    }
}

/// That it is shown, and by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    pub command: CommandId,
    pub to: Weight,
    /// The metric by which requests were counted.
    pub metric: Metric,
    pub canary: u64,
    pub requests: u64,
    /// Since the command.
    pub took_ms: u64,
}
