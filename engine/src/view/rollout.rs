//! One rollout as it is shown, open or over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::event::bundle::{self, Commit, PartChange, Parts};
use crate::core::event::decision::{Choice, Decision};
use crate::core::event::rollout_spec::RolloutSpec;
use crate::core::event::smoke::SmokeOutcome;
use crate::core::ids::{EventSeq, RolloutId, Version};
use crate::core::policy::{ChangeKind, Policy};
use crate::core::time::Timestamp;
use crate::core::words;
use crate::wire::reading::GuardrailView;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// Its id, a unique suffix of it (`118`), or `@last`.
    pub rollout: String,
}

/// One word for where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Queued,
    /// It is its turn, and a change window or a freeze keeps it from starting.
    Scheduled,
    Applying,
    Baking,
    Holding,
    Paused,
    Soaking,
    RollingBack,
    /// Complete; what served before is being given up.
    Releasing,
    Completed,
    RolledBack,
    Aborted,
    Superseded,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Queued => "queued",
            Standing::Scheduled => "scheduled",
            Standing::Applying => "applying",
            Standing::Baking => "baking",
            Standing::Holding => "holding",
            Standing::Paused => "paused",
            Standing::Soaking => "soaking",
            Standing::RollingBack => "rolling_back",
            Standing::Releasing => "releasing",
            Standing::Completed => "completed",
            Standing::RolledBack => "rolled_back",
            Standing::Aborted => "aborted",
            Standing::Superseded => "superseded",
        }
    }

    pub fn named(name: &str) -> Option<Standing> {
        serde_json::from_value(name.into()).ok()
    }

    /// Whether nothing follows any more.
    pub fn is_over(self) -> bool {
        use Standing::{Aborted, Completed, RolledBack, Superseded};
        matches!(self, Completed | RolledBack | Aborted | Superseded)
    }
}

/// One rollout in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutView {
    pub rollout: String,
    pub service: String,
    pub kind: ChangeKind,
    pub from: String,
    pub to: String,
    pub state: Standing,
    /// Share of traffic the actuators last confirmed, in percent.
    pub weight: f64,
    /// Number of the current step, from 1; `None` before the first.
    pub step: Option<u16>,
    pub steps: Vec<StepView>,
    /// When the current step began, in milliseconds since 1970 UTC.
    pub since_ms: Option<u64>,
    /// How long it has been watched, and how long it must be.
    pub watched_ms: u64,
    pub bake_ms: u64,
    pub policy: String,
    pub policy_hash: String,
    pub by: String,
    pub reason: String,
    pub attempt: u32,
    pub behind: Option<String>,
    /// Whom it waits for before it starts, and since when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<WaitView>,
    /// What it shares with rollouts of other services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// What was found out about the attempt before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// The version of each part, where what it brings is a bundle.
    #[serde(default, skip_serializing_if = "Parts::is_empty")]
    pub bundle: Parts,
    /// The parts that it changes, as far as what serves is known: `model opus-4.6 -> opus-4.7`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Where what it brings comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitView>,
    /// Who takes responsibility for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
    /// The newer rollout that takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
    pub created_ms: u64,
    pub ended_ms: Option<u64>,
    /// Last event that moved it; give it as `--if-seq`.
    pub seq: EventSeq,
    /// One sentence: what is in the way, or how it ended.
    pub summary: String,
    /// What a rollback by evidence means, and an attempt that is not the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meaning: Vec<String>,
    /// Every condition of the next promotion, what is in the way first.
    pub gates: Vec<GateView>,
    pub guardrails: Vec<GuardrailView>,
    pub alerts: Vec<String>,
    pub last_decision: Option<DecisionRef>,
    /// Actuators that have not confirmed the last command.
    pub unconfirmed: Vec<String>,
    /// Its id: what they confirm it by.
    pub command: Option<String>,
    /// Those of them that have used up their time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
    /// Whether telemetry shows the command that was confirmed last, where the policy asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectView>,
    /// The smoke tests of the current step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smoke: Vec<SmokeView>,
}

impl RolloutView {
    /// What is known of it from its beginning; `from`: the version that it is compared with.
    pub(super) fn new(id: &RolloutId, from: &Version, spec: &RolloutSpec, created: Timestamp) -> RolloutView {
        RolloutView {
            rollout: id.0.clone(),
            service: spec.service.0.clone(),
            kind: spec.kind,
            from: from.0.clone(),
            to: spec.to.0.clone(),
            state: Standing::Queued,
            weight: 0.0,
            step: None,
            steps: Vec::new(),
            since_ms: None,
            watched_ms: 0,
            bake_ms: 0,
            policy: spec.policy_name.clone(),
            policy_hash: spec.policy.short(),
            by: spec.by.clone(),
            reason: spec.reason.clone(),
            attempt: spec.attempt,
            behind: None,
            waits: Vec::new(),
            scopes: spec.scopes.iter().map(|scope| scope.0.clone()).collect(),
            finding: spec.finding.clone(),
            bundle: spec.composition.parts.clone(),
            changes: changes(spec),
            git: git_view(spec),
            claimed_by: None,
            superseded_by: None,
            created_ms: created.0,
            ended_ms: None,
            seq: 0,
            summary: String::new(),
            meaning: Vec::new(),
            gates: Vec::new(),
            guardrails: Vec::new(),
            alerts: Vec::new(),
            last_decision: None,
            unconfirmed: Vec::new(),
            command: None,
            silent: Vec::new(),
            effective: None,
            smoke: Vec::new(),
        }
    }
}

fn git_view(spec: &RolloutSpec) -> Option<GitView> {
    let Commit { repository, path, commit } = spec.composition.git.clone()?;
    let range = bundle::range(spec.from_composition.git.as_ref(), spec.composition.git.as_ref()?);
    Some(GitView { repository, path, commit, range })
}

/// What it changes, where both are known.
fn changes(spec: &RolloutSpec) -> Vec<String> {
    let (from, to) = (&spec.from_composition.parts, &spec.composition.parts);
    if from.is_empty() || to.is_empty() {
        return Vec::new();
    }
    bundle::changed(from, to).iter().map(PartChange::to_string).collect()
}

/// What a rollback by evidence means, and an attempt that is not the first.
pub(super) fn meaning(policy: &Policy, spec: &RolloutSpec, last: Option<&Decision>) -> Vec<String> {
    let back = last.and_then(|decision| words::rolled_back(decision, policy));
    back.into_iter().chain(words::series(spec.attempt, policy)).collect()
}

/// What telemetry shows of a confirmed command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectView {
    pub shown: bool,
    /// When it was; milliseconds since 1970 UTC.
    pub at_ms: Option<u64>,
    /// The commanded share, in percent.
    pub weight: f64,
    /// Requests counted since the confirmation, and the canary's.
    pub requests: u64,
    pub canary: u64,
    /// The metric by which they are counted.
    pub metric: Option<String>,
}

/// One smoke test of the current step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SmokeView {
    pub name: String,
    pub id: String,
    /// How often it was asked for: more than once after a restart of the daemon.
    pub attempt: u32,
    /// `null` while it runs.
    pub outcome: Option<SmokeOutcome>,
    /// The last lines of its output, or why it could not be run.
    pub detail: String,
    pub took_ms: Option<u64>,
}

/// A file of a Git repository, and what changed in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GitView {
    pub repository: String,
    pub path: String,
    pub commit: String,
    /// From the commit that serves to this one, for `git diff`; the commit alone where the other is not known.
    pub range: String,
}

/// A rollout that another waits for: of the same service, or with the same scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitView {
    pub rollout: String,
    /// None: the service has one change at a time.
    pub scope: Option<String>,
    pub since_ms: u64,
}

/// A step of the plan: what people call it, weight in percent, watched time in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// `25%`, `beta 10%`, `populate`.
    pub name: String,
    pub weight: f64,
    pub bake_ms: u64,
}

/// A condition of the next promotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateView {
    pub met: bool,
    /// Only time or sample count is missing.
    pub time: bool,
    pub text: String,
}

/// The last decision, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionRef {
    pub seq: EventSeq,
    pub choice: Choice,
    pub summary: String,
}

impl DecisionRef {
    pub(super) fn new(seq: EventSeq, decision: &Decision) -> DecisionRef {
        DecisionRef { seq, choice: decision.choice, summary: words::decision(decision) }
    }
}
