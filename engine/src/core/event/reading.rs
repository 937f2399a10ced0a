//! How one guardrail stands, as decisions, messages and people see it.

use serde::{Deserialize, Serialize};

use crate::core::evidence::interval::Range;
use crate::core::evidence::reference::Reference;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{Metric, Version};
use crate::core::policy::guardrail::{GuardrailKind, OnFail};
use crate::core::telemetry::arm::ArmCount;
use crate::core::time::Span;

/// How one guardrail stands: the verdict and all that `explain` needs to say why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardrailReading {
    pub name: String,
    pub metric: Metric,
    pub kind: GuardrailKind,
    pub on_fail: OnFail,
    pub verdict: Verdict,
    pub baseline: ArmCount,
    pub canary: ArmCount,
    pub range: Option<Range>,
    /// Log-evidence in nats, and how much of it acts.
    pub harm_ln: f64,
    pub harm_need_ln: f64,
    pub safe_ln: f64,
    pub safe_need_ln: f64,
    /// How far the canary may be from the baseline, in the metric's own unit; the share of an absolute guard; what the
    /// canary's quantile may be.
    pub limit: Option<f64>,
    /// Observations that wait for their cohort to settle.
    pub waiting: u64,
    /// Observations that came too late to be bet on.
    pub late: u64,
    /// Those that the guardrail's kind cannot use, and grades that counted as 0 or 1 because they lie outside.
    pub left_out: u64,
    pub clamped: u64,
    pub reference: Option<Reference>,
    pub epoch: u32,
    pub blocks: u64,
    /// Of counts, the canary's rate over the baseline's; of a split, the share asked for.
    pub estimate: Option<f64>,
    /// The benefit that excuses this guardrail has been shown: it holds, and does not roll back.
    pub excused: Option<String>,
    /// The condition by which it is excused holds.
    pub excused_when: Option<String>,
    /// Who promoted past its failure: it stops nothing any more.
    pub accepted: Option<String>,
    /// Log-evidence (nats) that the canary is better by what another guardrail's trade-off asks for.
    pub benefit_ln: Option<f64>,
    /// Who has been silent, when that is what the verdict is about.
    pub silence: Option<Silence>,
}

/// How long nothing has come of each version; `None`: nothing ever has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    pub canary: Version,
    pub canary_for: Option<Span>,
    pub baseline: Version,
    pub baseline_for: Option<Span>,
}

impl GuardrailReading {
    /// What its failing does, trade-off and acceptance weighed.
    pub fn on_fail_effective(&self) -> OnFail {
        match (&self.accepted, &self.excused, &self.excused_when) {
            (Some(_), ..) => OnFail::Alert,
            (None, None, None) => self.on_fail,
            (None, ..) => OnFail::Hold,
        }
    }
}
