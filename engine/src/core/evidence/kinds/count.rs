//! Events that have no denominator, as complaints: how often they come at equal traffic.

use super::margin::percents;
use crate::core::evidence::bets::Bets;
use crate::core::evidence::figures::{Limit, Measure, Shown, Unit};
use crate::core::evidence::kind::{Bucket, Compares, Kind, Profile, Scope, Summed, Way};
use crate::core::evidence::label_bets::{RATIOS_ABOVE, RATIOS_BELOW, chance};
use crate::core::evidence::reference::{BaselineSample, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, Count, Guardrail, GuardrailKind};
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::{Sums, events};
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::text::{count, digits, trim};
use crate::core::time::{Span, Timestamp};

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Count,
    shows_safety: true,
    of_answers: false,
    of_pairs: false,
    judged: false,
    graded: false,
    of_values: false,
    // An event is none.
    of_requests: false,
    scope: Scope::Step,
    needs_share: true,
    has_slices: false,
    of_split: false,
    of_comparison: false,
    acts_at: |rules| rules.rollback,
    secondary: None,
    measure: Measure::Events,
    unit: Unit::Times,
    limit: Limit::Times,
    healthy: Some("healthy canaries"),
    figures,
};

/// `1.43 times the baseline's rate; limit 1.25 (canary 43 events, baseline 570)`
fn figures(shown: &Shown) -> Option<String> {
    let (ratio, limit) = (shown.estimate?, trim(shown.limit?));
    let [canary, baseline] = [shown.canary, shown.baseline].map(|arm| count(arm.n));
    Some(format!(
        "{ratio:.2} times the baseline's rate at equal traffic; limit {limit} (canary {canary}, baseline {baseline} events)"
    ))
}

impl Kind for Count {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Compares(self)
    }

    fn limit(&self, _: Better, _: Option<&Reference>, _: ArmCount) -> Option<f64> {
        Some(self.ratio)
    }

    fn fails_when(&self, metric: &Metric, better: Better) -> String {
        let (often, ratio) = (if better == Better::Lower { "more" } else { "less" }, self.ratio);
        format!(
            "{metric} is shown to come {often} than {ratio} times as often as the baseline's at equal traffic"
        )
    }

    fn allows(&self, _: Better) -> Option<String> {
        (self.ratio != 1.0).then(|| percents((self.ratio - 1.0).abs()))
    }
}

impl Compares for Count {
    fn requests(&self) -> Option<&Metric> {
        None
    }

    /// A sample says how many events there were; a unit of which there were any counts once.
    fn take(&self, cohort: &mut Cohort, o: &Observation, length: Span) -> bool {
        match (o.unit, events(o.value)) {
            (None, n) => cohort.count(o, length, n, 0),
            (Some(_), 0) => {}
            (Some(_), _) => cohort.keep(o, o.value),
        }
        true
    }

    fn sums<'a>(&self, _: u64, sums: &'a Sums, _: Role) -> Summed<'a> {
        sums.events().map_or(Summed::Nothing, |events| Summed::Counts(events, 0))
    }

    fn portions(&self, _: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)> {
        let [x_a, _, x_b, _] = cohort.totals();
        vec![(of.start, Portion::Labels { x_a, x_b, share: of.share, ratio: Some(self.ratio) })]
    }

    /// Bets on events know the split, and nothing of the baseline.
    fn needs(&self, _: u64) -> u64 {
        0
    }

    fn baseline(
        &self,
        _: &Guardrail,
        _: &BaselineSample,
        _: Option<&Reference>,
    ) -> Result<Reference, Unusable> {
        Ok(Reference::default())
    }

    fn bets(&self, g: &Guardrail, _: &Reference) -> Bets {
        match g.better {
            Better::Lower => Bets::Labels { harm: &RATIOS_ABOVE, safe: &RATIOS_BELOW },
            Better::Higher => Bets::Labels { harm: &RATIOS_BELOW, safe: &RATIOS_ABOVE },
        }
    }

    fn factor(&self, _: Better) -> f64 {
        1.0
    }

    fn resolution(&self, _: Better, reference: &Reference) -> Option<String> {
        let beyond = (reference.harm_grid.first()? / 2.0 - 0.5).abs() * 100.0;
        Some(format!("Rates that are less than {}% beyond the limit", digits(beyond)))
    }

    /// Events are the canary's with chance `share`; the boundary says `t0`. One event is worth the difference of the two
    /// coins, of which the canary has `share`.
    fn spread(&self, _: Better, _: &Lately, share: f64) -> Option<f64> {
        let t0 = chance(self.ratio, 1.0 - share, share);
        let worth = share * libm::log(share / t0) + (1.0 - share) * libm::log((1.0 - share) / (1.0 - t0));
        (worth > 0.0).then(|| share * (1.0 - share) / (2.0 * worth))
    }
}
