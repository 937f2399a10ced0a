//! Means of positive values, as of a cost. Values are cut at the baseline's 99.9th percentile, which makes a mean of them
//! something that can be bet on; whether more of the canary's are above that is asked beside.

use super::margin::{self, handicapped, percents};
use crate::core::evidence::bets::{Arms, Bets, Lean, Setting, worse};
use crate::core::evidence::figures::{Limit, Measure, Unit};
use crate::core::evidence::kind::{Bucket, Compares, Kind, Profile, Scope, Secondary, Summed, Way};
use crate::core::evidence::reference::{ABOVE_CAP, BaselineSample, CAPPED, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, Guardrail, GuardrailKind, Mean};
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::text::{digits, percent};
use crate::core::time::{Span, Timestamp};

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Mean,
    shows_safety: true,
    of_answers: false,
    of_pairs: false,
    judged: true,
    graded: false,
    of_values: true,
    of_requests: true,
    scope: Scope::Step,
    needs_share: false,
    has_slices: true,
    of_split: false,
    of_comparison: false,
    acts_at: |rules| rules.rollback,
    secondary: Some(Secondary::AboveCap),
    measure: Measure::Value,
    unit: Unit::Percent,
    limit: Limit::Difference,
    healthy: Some("healthy canaries"),
    figures: |shown| shown.compared(Measure::Value, Unit::Percent),
};

impl Kind for Mean {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Compares(self)
    }

    fn limit(&self, better: Better, reference: Option<&Reference>, baseline: ArmCount) -> Option<f64> {
        let sign = if better == Better::Lower { 1.0 } else { -1.0 };
        reference.map(|_| sign * self.handicap * baseline.mean())
    }

    fn fails_when(&self, metric: &Metric, better: Better) -> String {
        let (by, worse) = (percent(self.handicap), margin::worse(better));
        format!("the mean of {metric} is shown to be more than {by}% {worse} than the baseline's")
    }

    fn allows(&self, _: Better) -> Option<String> {
        Some(percents(self.handicap))
    }
}

impl Compares for Mean {
    fn requests(&self) -> Option<&Metric> {
        None
    }

    fn take(&self, cohort: &mut Cohort, o: &Observation, _: Span) -> bool {
        cohort.keep(o, o.value);
        true
    }

    /// The means of few values scatter more than those of many, and the cap cuts what scatters: where the arms sum different
    /// numbers of requests, it would cut more of one.
    fn sums<'a>(&self, _: u64, _: &'a Sums, _: Role) -> Summed<'a> {
        Summed::Nothing
    }

    fn portions(&self, _: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)> {
        cohort.values(of.start)
    }

    fn needs(&self, least: u64) -> u64 {
        least
    }

    /// First, values are divided by their 99.9th percentile (nearest rank) and cut at 1; the cap stays.
    fn baseline(
        &self,
        g: &Guardrail,
        gathered: &BaselineSample,
        before: Option<&Reference>,
    ) -> Result<Reference, Unusable> {
        if let Some(before) = before {
            return Ok(Reference { cap: before.cap, ..gathered.drawn_to(before.theta) });
        }
        let mut cap = gathered.quantile(1.0 - CAPPED);
        if cap <= 0.0 {
            return Err(Unusable::NeverAboveZero { metric: g.metric.clone() });
        }
        // A constant has no percentiles, and more than it must be possible.
        if gathered.values.iter().all(|x| *x >= cap) {
            cap *= 2.0 * g.canary_factor().max(1.0);
        }
        let ys = gathered.values.iter().map(|x| (x / cap).min(1.0));
        Ok(Reference { cap: Some(cap), ..Reference::of_values(ys) })
    }

    /// The handicap is in the observation, so the boundary is equality.
    fn bets(&self, g: &Guardrail, reference: &Reference) -> Bets {
        let setting = Setting::general(1.0, 0.0, reference.theta, reference.variance);
        let margin = reference.theta * self.handicap / (1.0 + self.handicap);
        let (rho, d) = ABOVE_CAP;
        let above_cap = (Setting::binary(rho, d, CAPPED), Lean::Above);
        Bets::Values(Arms::new(setting, worse(g.better), margin, Some(above_cap)))
    }

    fn factor(&self, better: Better) -> f64 {
        handicapped(better, self.handicap)
    }

    fn resolution(&self, better: Better, reference: &Reference) -> Option<String> {
        let of_baseline = reference.harm_grid.first()? / 2.0 * self.factor(better) / reference.theta;
        Some(format!("Differences of less than {}% beyond the limit", digits(of_baseline * 100.0)))
    }

    fn spread(&self, better: Better, lately: &Lately, _: f64) -> Option<f64> {
        let factor = handicapped(better, self.handicap);
        margin::spread(lately.variance * (factor * factor), self.handicap * lately.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::guardrail::Rule;

    #[test]
    fn a_constant_can_be_judged() {
        let gathered = BaselineSample { n: 500, values: vec![0.25; 500], ..BaselineSample::default() };
        let price = Guardrail::new("cost", Better::Lower, Rule::Mean(Mean { handicap: 0.2 }));
        let first = Reference::first(&price, &gathered).expect("a reference");
        assert!(first.cap > Some(0.3) && first.theta < 0.5 && !first.harm_grid.is_empty(), "{first:?}");
    }
}
