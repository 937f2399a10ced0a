//! Parts of the traffic that are exposed one after another, and tasks in place of a share.

use serde::{Deserialize, Serialize};

use crate::core::ids::Weight;

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
