//! The checked rules a rollout runs under. Parsing and its errors live in `wire::policy_file`;
//! a value of these types has already been found sound.

pub mod actuator;
pub mod condition;
pub mod exposure;
pub mod guardrail;
pub mod segment;
pub mod windows;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{Actuator, Metric, Scope, Weight};
use super::time::Span;
use crate::core::policy::actuator::{Declared, Effective, OnDeadline, Smoke};
use crate::core::policy::guardrail::{Condition, EvidenceRules, Guardrail};
use crate::core::policy::segment::{Segments, Task};
use crate::core::policy::windows::Windows;

/// What sort of thing is changed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Model,
    Prompt,
    VectorStore,
    Cache,
    Serving,
}

impl ChangeKind {
    pub const ALL: [ChangeKind; 5] = [
        ChangeKind::Model,
        ChangeKind::Prompt,
        ChangeKind::VectorStore,
        ChangeKind::Cache,
        ChangeKind::Serving,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Model => "model",
            ChangeKind::Prompt => "prompt",
            ChangeKind::VectorStore => "vector_store",
            ChangeKind::Cache => "cache",
            ChangeKind::Serving => "serving",
        }
    }
}

/// The rules of one rollout, pinned by digest when the rollout is created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub name: String,
    /// Kinds this policy is the default for.
    pub applies_to: Vec<ChangeKind>,
    /// The default for changes of these kinds that their submitter calls significant, and not for the others.
    pub significant: bool,
    /// Weights rise within each segment; the last is everybody at 100 %.
    pub steps: Vec<Step>,
    /// The segments that steps name.
    pub segments: Option<Segments>,
    /// One fixed split until a horizon, which is the first step's deadline; without a pass the baseline stays.
    pub ab: bool,
    /// Whether actuators are told, at the end, to give up what served before.
    pub release: bool,
    /// Watched time after 100 %, guardrails armed.
    pub soak: Span,
    /// How long after completion the old version stays able to serve: so long a completed rollout can be taken back.
    pub keep_old: Span,
    pub on_deadline: OnDeadline,
    /// At least one; names are unique.
    pub guardrails: Vec<Guardrail>,
    pub conditions: Vec<Condition>,
    pub evidence: EvidenceRules,
    /// A telemetry silence longer than this makes a verdict `stale` (or `no_data`).
    pub stale_after: Span,
    pub approvals: Vec<Approval>,
    pub concurrency: Concurrency,
    /// Parts of a bundle that may change in one rollout.
    pub parts_at_once: u8,
    /// When a rollout may move forward; `None`: always.
    pub windows: Option<Windows>,
    /// What it takes to try a version again that was taken back without a person's order. Policies of before this was
    /// asked for allow it.
    pub retry_after_rollback: Retry,
    /// What every rollout of the policy shares with others, beside what its intent names.
    pub scopes: Vec<Scope>,
    /// Everyone who must confirm a command. At least one.
    pub actuators: Vec<Actuator>,
    /// After this long without a confirmation the actuator is named and the command resent.
    pub ack_timeout: Span,
    /// Those of which the file says more than the name.
    pub declared: BTreeMap<Actuator, Declared>,
    /// How telemetry has to show what was commanded; `None`: the actuators are believed.
    pub effective: Option<Effective>,
    /// What is run as soon as a step is applied. Names are unique.
    pub smoke: Vec<Smoke>,
}

/// One exposure, and what it takes to leave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub to: Weight,
    /// Index of the segment it is about; `None`: everybody who is in no named segment.
    pub segment: Option<u16>,
    /// What actuators do beside setting the share.
    pub task: Option<Task>,
    /// From the command; when not every actuator has confirmed by then, `on_deadline` happens.
    pub apply_within: Option<Span>,
    /// Watched time at this step, counted from the applied ack.
    pub bake: Span,
    /// Canary observations each metric must have settled at this step.
    pub min_samples: BTreeMap<Metric, u64>,
    /// From the applied ack; then `on_deadline` happens.
    pub deadline: Option<Span>,
}

impl Step {
    /// A share of everybody for a time, and nothing else.
    pub fn plain(to: Weight, bake: Span) -> Step {
        Step {
            to,
            segment: None,
            task: None,
            apply_within: None,
            bake,
            min_samples: BTreeMap::new(),
            deadline: None,
        }
    }
}

/// What a second intent for a busy service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Concurrency {
    Queue,
    Refuse,
    /// It takes the place of the active one, which is taken back, and of those that wait.
    Supersede,
}

/// What it takes to try a version again that a guardrail or a deadline took back under this policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    NeedsFinding,
    Allowed,
}

/// `by` persons must approve before the step that reaches `before`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    pub before: Weight,
    pub by: u8,
    /// Whoever submitted the change is none of them.
    pub not_submitter: bool,
}

impl Policy {
    pub fn step(&self, step: u16) -> &Step {
        &self.steps[usize::from(step)]
    }

    /// Index of the named segment that `step` is about; `None`: whoever is in none.
    pub fn segment_index(&self, step: u16) -> Option<u16> {
        self.step(step).segment
    }

    /// How long `actuator` may be silent.
    pub fn ack_within(&self, actuator: &Actuator) -> Span {
        let declared = self.declared.get(actuator).and_then(|declared| declared.ack_within);
        declared.unwrap_or(self.ack_timeout)
    }
}
