//! What one guardrail says about the canary.

use serde::{Deserialize, Serialize};

/// A guardrail's word on the canary.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Shown to be beyond the limit. Latched: it does not go away in this rollout.
    Fail,
    /// Shown to respect the limit, as surely as the next promotion needs.
    Pass,
    /// Enough observations, and they say neither.
    Undecided,
    /// Too few settled observations to say anything.
    Insufficient,
    /// The canary has never sent this metric.
    #[default]
    NoData,
    /// It did, but not lately.
    Stale,
    /// Neither the canary nor the baseline sends this metric, or not lately: what measures it is to blame, not the
    /// canary.
    SourceBroken,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Fail => "fail",
            Verdict::Pass => "pass",
            Verdict::Undecided => "undecided",
            Verdict::Insufficient => "insufficient",
            Verdict::NoData => "no_data",
            Verdict::Stale => "stale",
            Verdict::SourceBroken => "source_broken",
        }
    }
}
