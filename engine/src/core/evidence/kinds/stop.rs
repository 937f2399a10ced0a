//! Events that must not happen, as leaked personal data or an unsafe tool call. They are counted over the whole rollout, and
//! are weighed against nothing: one more than is allowed takes the canary back at once.

use crate::core::evidence::figures::{Limit, Measure, Shown, Unit};
use crate::core::evidence::kind::{Counts, Kind, Profile, Scope, Way};
use crate::core::evidence::reference::Reference;
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, GuardrailKind, Stop};
use crate::core::telemetry::arm::ArmCount;
use crate::core::telemetry::columns::{Sums, events};
use crate::core::telemetry::tally::{Tally, Total};
use crate::core::text::count;

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Stop,
    shows_safety: false,
    of_answers: false,
    of_pairs: false,
    judged: false,
    graded: false,
    of_values: false,
    // A detector need not speak of every one.
    of_requests: false,
    scope: Scope::Rollout,
    needs_share: false,
    has_slices: false,
    of_split: false,
    of_comparison: false,
    acts_at: |rules| rules.rollback,
    secondary: None,
    measure: Measure::Happened,
    unit: Unit::Events,
    limit: Limit::Number,
    healthy: None,
    figures,
};

/// `1 among 12,004 of the canary; none may be`
fn figures(shown: &Shown) -> Option<String> {
    let (n, happened) = (shown.canary.n, shown.canary.sum as u64);
    let allowed = match shown.limit? as u64 {
        0 => "none".into(),
        allowed => count(allowed),
    };
    // Who is asked what it looked at says so; the others are never heard.
    let mute = if n > 0 && happened >= n { ", and nothing that was not one" } else { "" };
    (n > 0).then(|| format!("{} among {} of the canary{mute}; {allowed} may be", count(happened), count(n)))
}

impl Kind for Stop {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Counts(self)
    }

    fn limit(&self, _: Better, _: Option<&Reference>, _: ArmCount) -> Option<f64> {
        Some(self.allowed as f64)
    }

    fn fails_when(&self, metric: &Metric, _: Better) -> String {
        let heard = "no promotion while nobody says that it did not";
        match self.allowed {
            0 => format!("{metric} happens once in the whole rollout; {heard}"),
            allowed => {
                format!("{metric} happens more than {} times in the whole rollout; {heard}", count(allowed))
            }
        }
    }

    fn allows(&self, _: Better) -> Option<String> {
        None
    }
}

impl Counts for Stop {
    fn tally(&self) -> Tally {
        Tally::All(Total::new(self.allowed))
    }

    /// A sample says whether there was one, or how many there were.
    fn bad(&self, _: Better, value: f64) -> u64 {
        events(value)
    }

    fn bad_of(&self, _: Better, _: u64, sums: &Sums) -> Option<u64> {
        sums.events()
    }

    /// What only speaks of what has happened may be dead, for all that is known.
    fn is_heard(&self, n: u64, bad: u64) -> bool {
        bad < n
    }
}
