//! Too many bad ones among the last of the canary: for crashes. It looks at them as they come and compares nothing.

use crate::core::evidence::figures::{Limit, Measure, Shown, Unit};
use crate::core::evidence::kind::{Counts, Kind, Profile, Scope, Way};
use crate::core::evidence::reference::Reference;
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Absolute, Better, GuardrailKind, quiet_below};
use crate::core::telemetry::arm::ArmCount;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::sliding_window::Recent;
use crate::core::telemetry::tally::Tally;
use crate::core::text::{count, percent, trim};

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Absolute,
    shows_safety: false,
    of_answers: false,
    of_pairs: false,
    judged: false,
    graded: false,
    of_values: false,
    of_requests: true,
    scope: Scope::Exposed,
    needs_share: false,
    has_slices: false,
    of_split: false,
    of_comparison: false,
    acts_at: |rules| rules.rollback,
    secondary: None,
    measure: Measure::Share,
    unit: Unit::Points,
    limit: Limit::Share,
    healthy: None,
    figures,
};

/// `23 bad of the last 100; limit 20%`
fn figures(shown: &Shown) -> Option<String> {
    let limit = trim(shown.limit.unwrap_or(0.0) * 100.0);
    let n = shown.canary.n;
    (n > 0).then(|| format!("{} bad of the last {}; limit {limit}%", shown.canary.sum, count(n)))
}

impl Kind for Absolute {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Counts(self)
    }

    fn limit(&self, _: Better, _: Option<&Reference>, _: ArmCount) -> Option<f64> {
        Some(self.above)
    }

    fn fails_when(&self, metric: &Metric, better: Better) -> String {
        let bad = if better == Better::Higher { "false" } else { "true" };
        let (of_last, above) = (self.of_last, percent(self.above));
        let quiet = libm::floor(quiet_below(self.above, of_last) * 1e3) / 10.0;
        format!(
            "{metric} is {bad} in more than {above}% of the last {of_last} canary requests (below a true share of {quiet}%, \
             by chance at most once in a million requests)"
        )
    }

    fn allows(&self, _: Better) -> Option<String> {
        None
    }
}

impl Counts for Absolute {
    fn tally(&self) -> Tally {
        Tally::Last(Recent::new(self.of_last, self.above))
    }

    fn bad(&self, better: Better, value: f64) -> u64 {
        u64::from((value >= 0.5) == (better == Better::Lower))
    }

    fn bad_of(&self, better: Better, n: u64, sums: &Sums) -> Option<u64> {
        let ones = sums.ones(n)?;
        Some(if better == Better::Lower { ones } else { n - ones })
    }

    fn is_heard(&self, _: u64, _: u64) -> bool {
        true
    }
}
