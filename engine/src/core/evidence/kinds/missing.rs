//! Requests whose value has not come by its maturity: if more or fewer of one arm's are missing, what came of it says little.

use super::margin::{points, points_beyond};
use crate::core::evidence::bets::{Arms, Bets, Lean, Setting};
use crate::core::evidence::figures::{Limit, Measure, Shown, Unit};
use crate::core::evidence::kind::{Bucket, Compares, Kind, Profile, Scope, Secondary, Summed, Way};
use crate::core::evidence::reference::{BaselineSample, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, Guardrail, GuardrailKind, Missing};
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::text::{percent, trim};
use crate::core::time::{Span, Timestamp};

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Missing,
    shows_safety: false,
    of_answers: false,
    of_pairs: false,
    // That something came is no judgement.
    judged: false,
    graded: false,
    of_values: false,
    of_requests: true,
    scope: Scope::Step,
    needs_share: false,
    has_slices: false,
    of_split: false,
    of_comparison: true,
    acts_at: |rules| rules.rollback,
    secondary: Some(Secondary::Below),
    measure: Measure::Share,
    unit: Unit::Points,
    limit: Limit::EitherWay,
    healthy: Some("healthy canaries"),
    figures,
};

fn figures(shown: &Shown) -> Option<String> {
    let (difference, limit) = (shown.difference(Unit::Points)?, trim(shown.limit? * 100.0));
    let [canary, baseline] = [&shown.canary, &shown.baseline].map(|arm| Measure::Share.of(arm));
    Some(format!("{difference}; limit ±{limit} (missing: canary {canary}, baseline {baseline})"))
}

impl Kind for Missing {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Compares(self)
    }

    fn limit(&self, _: Better, _: Option<&Reference>, _: ArmCount) -> Option<f64> {
        Some(self.points)
    }

    fn fails_when(&self, metric: &Metric, _: Better) -> String {
        let (of, by) = (&self.of, percent(self.points));
        format!(
            "the share of {of} without {metric} is shown to differ from the baseline's by more than {by} points"
        )
    }

    fn allows(&self, _: Better) -> Option<String> {
        (self.points > 0.0).then(|| points(self.points))
    }
}

impl Compares for Missing {
    fn requests(&self) -> Option<&Metric> {
        Some(&self.of)
    }

    /// Requests are counted as such; of their values, that they came.
    fn take(&self, cohort: &mut Cohort, o: &Observation, length: Span) -> bool {
        match o.role {
            Role::Request => cohort.count(o, length, 1, 0),
            Role::Value => cohort.count(o, length, 0, 1),
        }
        true
    }

    fn sums<'a>(&self, n: u64, _: &'a Sums, role: Role) -> Summed<'a> {
        match role {
            Role::Request => Summed::Counts(n, 0),
            Role::Value => Summed::Counts(0, n),
        }
    }

    fn portions(&self, _: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)> {
        cohort.missing(of.start).into_iter().collect()
    }

    fn needs(&self, least: u64) -> u64 {
        least
    }

    fn baseline(
        &self,
        _: &Guardrail,
        gathered: &BaselineSample,
        _: Option<&Reference>,
    ) -> Result<Reference, Unusable> {
        Ok(Reference::of_share(gathered.share()))
    }

    /// Ones are what is missing, and it may be more or less.
    fn bets(&self, _: &Guardrail, reference: &Reference) -> Bets {
        let setting = Setting::binary(1.0, self.points, reference.theta);
        let below = Setting::binary(1.0, -self.points, reference.theta);
        let margin = (setting.boundary() - reference.theta).abs();
        Bets::Counts(Arms::new(setting, Lean::Above, margin, Some((below, Lean::Below))))
    }

    fn factor(&self, _: Better) -> f64 {
        1.0
    }

    fn resolution(&self, _: Better, reference: &Reference) -> Option<String> {
        reference.harm_grid.first().map(|smallest| points_beyond(*smallest))
    }

    /// It gates nothing.
    fn spread(&self, _: Better, _: &Lately, _: f64) -> Option<f64> {
        None
    }
}
