//! A guardrail's reading as programs get it, in messages and in answers: percentages and points instead of shares.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::figures::Limit;
use crate::core::evidence::score::BENEFIT_LN;
use crate::core::evidence::verdict::Verdict;
use crate::core::policy::guardrail::{GuardrailKind, OnFail};
use crate::core::words;

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

/// A reading as programs get it: percentages and points instead of shares.
pub fn guardrail_view(r: &GuardrailReading) -> GuardrailView {
    let profile = r.kind.profile();
    let scale = profile.unit.scale(r.baseline.mean());
    let scaled = |x: Option<f64>| x.map(|x| x * scale).filter(|x| x.is_finite());
    GuardrailView {
        name: r.name.clone(),
        metric: r.metric.0.clone(),
        kind: r.kind,
        verdict: r.verdict,
        on_fail: r.on_fail,
        baseline: ArmView { n: r.baseline.n, mean: r.baseline.mean() },
        canary: ArmView { n: r.canary.n, mean: r.canary.mean() },
        diff: scaled(r.range.map(|range| range.diff)),
        lo: scaled(r.range.map(|range| range.lo)),
        hi: scaled(r.range.map(|range| range.hi)),
        limit: if profile.limit == Limit::Value { r.limit } else { scaled(r.limit) },
        unit: profile.unit.name().into(),
        harm: words::meter(r.harm_ln, r.harm_need_ln),
        safe: words::meter(r.safe_ln, r.safe_need_ln),
        harm_evidence: words::evidence(r.harm_ln, r.harm_need_ln),
        safe_evidence: words::evidence(r.safe_ln, r.safe_need_ln),
        waiting: r.waiting,
        late: r.late,
        left_out: r.left_out,
        clamped: r.clamped,
        estimate: r.estimate,
        excused_by: r.excused.clone(),
        excused_when: r.excused_when.clone(),
        benefit_evidence: r.benefit_ln.map(|ln| words::evidence(ln, BENEFIT_LN)),
        slices: Vec::new(),
        outlook: None,
        meaning: Vec::new(),
        text: words::reading(r),
    }
}
