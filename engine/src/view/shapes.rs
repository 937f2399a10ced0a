//! The shapes in which the state is shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::event::bundle::Parts;
use crate::core::event::decision::Choice;
use crate::core::event::smoke::SmokeOutcome;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::EventSeq;
use crate::core::policy::ChangeKind;
use crate::core::policy::guardrail::{GuardrailKind, OnFail};

/// What a person has frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FreezeView {
    /// `null`: everything.
    pub service: Option<String>,
    pub by: String,
    pub reason: String,
    pub since_ms: u64,
    pub until_ms: Option<u64>,
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

/// One guardrail as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuardrailView {
    pub name: String,
    pub metric: String,
    pub kind: GuardrailKind,
    pub verdict: Verdict,
    pub on_fail: OnFail,
    pub baseline: ArmView,
    pub canary: ArmView,
    /// Estimated difference, canary minus baseline, and its always-valid 95 % range, in `unit`. For people, and for
    /// conditions of the policy: no verdict reads it.
    pub diff: Option<f64>,
    pub lo: Option<f64>,
    pub hi: Option<f64>,
    pub limit: Option<f64>,
    /// `pts` (percentage points), `%` (of the baseline mean) or `x` (times the baseline's rate).
    pub unit: String,
    /// How much of the needed evidence of harm, and of safety, there is: 0 to 1 on a log scale.
    pub harm: f64,
    pub safe: f64,
    /// The evidence itself: e-values, `1` is none.
    pub harm_evidence: String,
    pub safe_evidence: String,
    /// Observations that wait for their cohort to settle, and that came too late to be bet on.
    pub waiting: u64,
    pub late: u64,
    /// Those that the kind cannot use, and grades that counted as 0 or 1 because they lie outside.
    #[serde(default, skip_serializing_if = "is_default")]
    pub left_out: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub clamped: u64,
    /// Kind count: the canary's rate over the baseline's. Kind split: the share that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<f64>,
    /// The guardrail whose benefit turns a failure of this one into a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excused_by: Option<String>,
    /// The condition that does the same, as long as it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excused_when: Option<String>,
    /// Evidence that the canary is better by what another guardrail's trade-off asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benefit_evidence: Option<String>,
    /// By value of a tag, most evidence of harm first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceView>,
    /// An open guardrail: what it still needs to be shown safe, if things go on as they do. An estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<String>,
    /// What its evidence means, and what it does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meaning: Vec<String>,
    pub text: String,
}

/// One slice of a guardrail: the requests with one value of a tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SliceView {
    pub slice: String,
    pub baseline: ArmView,
    pub canary: ArmView,
    /// As of the guardrail.
    pub diff: Option<f64>,
    pub lo: Option<f64>,
    pub hi: Option<f64>,
    pub harm_evidence: String,
    /// Beyond the limit, so chosen among the slices of the guardrail that on average at most one in so many of those
    /// that are marked is not, as the policy acts on harm (1 in 20). Of slices that a policy judges: among all that it
    /// judges, and for good.
    pub marked: bool,
}

/// Observations of one side, and their mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArmView {
    pub n: u64,
    pub mean: f64,
}

/// Whether a field says nothing, so that it is left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
