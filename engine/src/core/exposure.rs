//! Who is sent to the canary: a share of everybody, or segments of the traffic one after another, each by shares. And what
//! actuators do before anybody is.

use serde::{Deserialize, Serialize};

use super::ids::Weight;
use super::planted::{Bug, planted};
use super::policy::Policy;

/// Segments of the traffic that are exposed one after another. Whoever is in none of them comes last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segments {
    pub kind: SegmentKind,
    /// In order of exposure; names are unique.
    pub named: Vec<Segment>,
    /// What the steps that follow the named ones are called.
    pub rest: String,
    /// When one fails: only that one goes back, or all.
    pub on_failure: OnSegmentFailure,
}

/// What divides the traffic. Also the tag by which samples say where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    Cohort,
    Region,
}

impl SegmentKind {
    pub fn as_str(self) -> &'static str {
        match self {
            SegmentKind::Cohort => "cohort",
            SegmentKind::Region => "region",
        }
    }
}

/// How far a failure takes the canary back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSegmentFailure {
    All,
    /// The one in which it showed; the others keep what they have, and a person decides what comes next.
    Alone,
}

/// A segment: one part of the traffic, a cohort or a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    pub name: String,
    /// Who belongs to it, by an attribute of the evaluation context.
    pub attribute: String,
    pub test: Test,
}

/// What the attribute must be. Text is compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    In(Vec<String>),
    StartsWith(String),
    EndsWith(String),
}

/// What actuators do at a step beside setting the share.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Fill the new index or cache, beside the old one.
    Populate,
    /// Start the new serving stack.
    Start,
    /// Answer a copy of the traffic with the canary, for nobody to see.
    Shadow,
    /// Give up what served before.
    Release,
}

impl Task {
    pub fn as_str(self) -> &'static str {
        match self {
            Task::Populate => "populate",
            Task::Start => "start",
            Task::Shadow => "shadow",
            Task::Release => "release",
        }
    }
}

/// The share of one segment, as commands carry it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentShare {
    pub segment: Segment,
    pub weight: Weight,
}

/// The canary's share of whoever is in no named segment, and of each segment that has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposure {
    pub rest: Weight,
    pub segments: Vec<SegmentShare>,
}

impl Policy {
    /// What is exposed once `step` is applied: its own share, and of segments before it what they had reached.
    pub fn exposure_at(&self, step: u16) -> Exposure {
        let mut exposure = Exposure::default();
        // At the end there are no segments any more: it is everybody.
        if usize::from(step) + 1 == self.steps.len() {
            return Exposure { rest: self.steps[usize::from(step)].to, segments: Vec::new() };
        }
        let named = self.segments.as_ref().map_or(&[][..], |segments| &segments.named);
        let own = self.steps[usize::from(step)].segment;
        for step in self.steps.iter().take(usize::from(step) + 1) {
            if planted(Bug::ForgetsSegment) && step.segment != own {
                continue;
            }
            let Some(i) = step.segment else {
                exposure.rest = step.to;
                continue;
            };
            let Some(segment) = named.get(usize::from(i)) else { continue };
            match exposure.segments.iter_mut().find(|share| share.segment.name == segment.name) {
                Some(share) => share.weight = step.to,
                None => exposure.segments.push(SegmentShare { segment: segment.clone(), weight: step.to }),
            }
        }
        exposure
    }

    /// The segment that `step` is about, by name: `None` where it is everybody.
    pub fn segment_of(&self, step: u16) -> Option<&str> {
        let segments = self.segments.as_ref()?;
        let step = self.steps.get(usize::from(step))?;
        Some(
            step.segment.and_then(|i| segments.named.get(usize::from(i))).map_or(&segments.rest, |s| &s.name),
        )
    }

    /// A step as people call it: `25%`, `beta 10%`, `populate`.
    pub fn step_name(&self, step: u16) -> String {
        let Some(own) = self.steps.get(usize::from(step)) else { return String::new() };
        match (own.task, self.segment_of(step)) {
            (Some(task), _) => task.as_str().to_owned(),
            (None, Some(segment)) => format!("{segment} {}", own.to),
            (None, None) => own.to.to_string(),
        }
    }

    /// The share of its own part that was exposed before `step`.
    pub fn weight_before(&self, step: u16) -> Weight {
        let (before, own) =
            (self.steps.get(usize::from(step).wrapping_sub(1)), &self.steps[usize::from(step)]);
        before.filter(|before| before.segment == own.segment).map_or(Weight::ZERO, |before| before.to)
    }

    /// The last step of the part before that of `step`, where a part that fails goes back alone and there is one.
    pub fn step_before_segment(&self, step: u16) -> Option<u16> {
        let alone = |segments: &&Segments| segments.on_failure == OnSegmentFailure::Alone;
        self.segments.as_ref().filter(alone).filter(|_| !planted(Bug::AloneTakesAll))?;
        let own = self.steps.get(usize::from(step))?.segment;
        let before = self.steps[..usize::from(step)].iter().rposition(|step| step.segment != own)?;
        Some(before as u16)
    }
}
