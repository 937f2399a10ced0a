//! Shares of zeros and ones: passed evaluations, errors.

use super::margin::{self, allows, beyond, points_beyond};
use crate::core::evidence::bets::{Arms, Bets, Setting, benefit, worse};
use crate::core::evidence::figures::{Limit, Measure, Unit};
use crate::core::evidence::kind::{Bucket, Compares, Kind, Profile, Scope, Summed, Way};
use crate::core::evidence::reference::{BaselineSample, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, Guardrail, GuardrailKind, Proportion};
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::time::{Span, Timestamp};

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Proportion,
    shows_safety: true,
    of_answers: true,
    of_pairs: false,
    judged: true,
    graded: false,
    of_values: false,
    of_requests: true,
    scope: Scope::Step,
    needs_share: false,
    has_slices: true,
    of_split: false,
    of_comparison: false,
    acts_at: |rules| rules.rollback,
    secondary: None,
    measure: Measure::Share,
    unit: Unit::Points,
    limit: Limit::Difference,
    healthy: Some("healthy canaries"),
    figures: |shown| shown.compared(Measure::Share, Unit::Points),
};

impl Kind for Proportion {
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
        format!("{metric} is shown to be {}", beyond(self.margin, better))
    }

    fn allows(&self, better: Better) -> Option<String> {
        allows(self.margin, better)
    }
}

impl Compares for Proportion {
    fn requests(&self) -> Option<&Metric> {
        None
    }

    fn take(&self, cohort: &mut Cohort, o: &Observation, length: Span) -> bool {
        match o.unit {
            None => cohort.count(o, length, 1, u64::from(o.is_one())),
            Some(_) => cohort.keep(o, o.value),
        }
        true
    }

    fn sums<'a>(&self, n: u64, sums: &'a Sums, _: Role) -> Summed<'a> {
        sums.ones(n).map_or(Summed::Nothing, |ones| Summed::Counts(n, ones))
    }

    fn portions(&self, _: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)> {
        cohort.counts(of.start, of.length).collect()
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

    fn bets(&self, g: &Guardrail, reference: &Reference) -> Bets {
        let (rho, d) = self.margin.boundary(g.better);
        let setting = Setting::binary(rho, d, reference.theta);
        let asked = g.benefit.map(|by| Setting::binary(1.0, benefit(g.better, by), reference.theta));
        let (lean, margin) = (worse(g.better), (setting.boundary() - reference.theta).abs());
        Bets::Counts(Arms::new(setting, lean, margin, asked.map(|asked| (asked, lean.opposite()))))
    }

    fn factor(&self, _: Better) -> f64 {
        1.0
    }

    fn resolution(&self, _: Better, reference: &Reference) -> Option<String> {
        reference.harm_grid.first().map(|smallest| points_beyond(*smallest))
    }

    fn spread(&self, better: Better, lately: &Lately, _: f64) -> Option<f64> {
        let (rho, d) = self.margin.boundary(better);
        let boundary = rho * lately.mean + d;
        margin::spread((boundary * (1.0 - boundary)).max(1e-6), boundary - lately.mean)
    }
}
