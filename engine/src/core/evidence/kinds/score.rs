//! Means of grades from 0 to 1.

use super::margin::{self, allows, beyond, points_beyond};
use crate::core::evidence::bets::{Arms, Bets, Setting, benefit, worse};
use crate::core::evidence::figures::{Limit, Measure, Unit};
use crate::core::evidence::kind::{Bucket, Compares, Kind, Profile, Scope, Summed, Way};
use crate::core::evidence::reference::{BaselineSample, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, Guardrail, GuardrailKind, Score};
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::time::{Span, Timestamp};

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Score,
    shows_safety: true,
    of_answers: true,
    of_pairs: false,
    judged: true,
    graded: true,
    of_values: true,
    of_requests: true,
    scope: Scope::Step,
    needs_share: false,
    has_slices: true,
    of_split: false,
    of_comparison: false,
    acts_at: |rules| rules.rollback,
    secondary: None,
    measure: Measure::Grade,
    unit: Unit::Points,
    limit: Limit::Difference,
    healthy: Some("healthy canaries"),
    figures: |shown| shown.compared(Measure::Grade, Unit::Points),
};

impl Kind for Score {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Compares(self)
    }

    fn limit(&self, better: Better, reference: Option<&Reference>, _: ArmCount) -> Option<f64> {
        reference.map(|reference| margin::limit(self.margin, better, reference.theta))
    }

    fn fails_when(&self, metric: &Metric, better: Better) -> String {
        format!("the mean grade of {metric} is shown to be {}", beyond(self.margin, better))
    }

    fn allows(&self, better: Better) -> Option<String> {
        allows(self.margin, better)
    }
}

impl Compares for Score {
    fn requests(&self) -> Option<&Metric> {
        None
    }

    fn take(&self, cohort: &mut Cohort, o: &Observation, _: Span) -> bool {
        cohort.keep(o, o.value.clamp(0.0, 1.0));
        true
    }

    /// A sum of grades is one observation of their mean: they need no cap, which the means of few would cross more often.
    fn sums<'a>(&self, n: u64, sums: &'a Sums, _: Role) -> Summed<'a> {
        sums.mean(n).map_or(Summed::Nothing, Summed::Mean)
    }

    fn portions(&self, _: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)> {
        cohort.values(of.start)
    }

    fn needs(&self, least: u64) -> u64 {
        least
    }

    fn baseline(
        &self,
        _: &Guardrail,
        gathered: &BaselineSample,
        before: Option<&Reference>,
    ) -> Result<Reference, Unusable> {
        Ok(match before {
            None => Reference::of_values(gathered.values.iter().copied()),
            Some(before) => gathered.drawn_to(before.theta),
        })
    }

    fn bets(&self, g: &Guardrail, reference: &Reference) -> Bets {
        let (rho, d) = self.margin.boundary(g.better);
        let (theta, variance) = (reference.theta, reference.variance);
        let setting = Setting::general(rho, d, theta, variance);
        let asked = g.benefit.map(|by| Setting::general(1.0, benefit(g.better, by), theta, variance));
        let (lean, margin) = (worse(g.better), (setting.boundary() - theta).abs());
        Bets::Values(Arms::new(setting, lean, margin, asked.map(|asked| (asked, lean.opposite()))))
    }

    fn factor(&self, _: Better) -> f64 {
        1.0
    }

    fn resolution(&self, _: Better, reference: &Reference) -> Option<String> {
        reference.harm_grid.first().map(|smallest| points_beyond(*smallest))
    }

    fn spread(&self, better: Better, lately: &Lately, _: f64) -> Option<f64> {
        let (rho, d) = self.margin.boundary(better);
        margin::spread(lately.variance.max(1e-6), rho * lately.mean + d - lately.mean)
    }
}
