//! Grades of the same units, answered by both arms: their difference is bet on, which varies less than either.

use super::margin::{points, points_beyond, spread, worse as worse_words};
use crate::core::evidence::bets::{Bets, PairSetting, Pairs, benefit, worse};
use crate::core::evidence::figures::{Limit, Measure, Shown, Unit};
use crate::core::evidence::kind::{Bucket, Compares, Kind, Profile, Scope, Summed, Way};
use crate::core::evidence::reference::{BaselineSample, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, Guardrail, GuardrailKind, Paired};
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::text::{count, percent, signed};
use crate::core::time::{Span, Timestamp};

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Paired,
    shows_safety: true,
    of_answers: true,
    of_pairs: true,
    judged: true,
    graded: true,
    of_values: true,
    // A pair is made of one request.
    of_requests: false,
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
    figures,
};

/// Share of pairs that differ which plans suppose while none has been seen.
pub const DISCORDANT: f64 = 0.1;

fn figures(shown: &Shown) -> Option<String> {
    let (difference, limit) = (shown.difference(Unit::Points)?, signed(shown.limit? * 100.0));
    let (canary, baseline, n) = (shown.canary.mean(), shown.baseline.mean(), count(shown.canary.n));
    Some(format!("{difference}; limit {limit} (canary {canary:.3}, baseline {baseline:.3} on the same {n})"))
}

impl Paired {
    /// By how much the canary's mean may differ.
    fn d(&self, better: Better) -> f64 {
        benefit(better, -self.points)
    }
}

impl Kind for Paired {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Compares(self)
    }

    fn limit(&self, better: Better, reference: Option<&Reference>, _: ArmCount) -> Option<f64> {
        reference.map(|_| self.d(better))
    }

    fn fails_when(&self, metric: &Metric, better: Better) -> String {
        let (by, worse) = (percent(self.points), worse_words(better));
        format!("{metric} of the same units is shown to be more than {by} points {worse} than the baseline's")
    }

    fn allows(&self, _: Better) -> Option<String> {
        (self.points > 0.0).then(|| points(self.points))
    }
}

impl Compares for Paired {
    fn requests(&self) -> Option<&Metric> {
        None
    }

    /// Without a unit there is nothing to pair it with.
    fn take(&self, cohort: &mut Cohort, o: &Observation, _: Span) -> bool {
        if o.unit.is_some() {
            cohort.keep(o, o.value.clamp(0.0, 1.0));
        }
        o.unit.is_some()
    }

    fn sums<'a>(&self, _: u64, _: &'a Sums, _: Role) -> Summed<'a> {
        Summed::Nothing
    }

    fn portions(&self, _: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)> {
        cohort.pairs(of.start)
    }

    /// Nothing but the variance is to be learned, and pairs are few.
    fn needs(&self, least: u64) -> u64 {
        least.div_ceil(10).max(20)
    }

    fn baseline(
        &self,
        _: &Guardrail,
        gathered: &BaselineSample,
        _: Option<&Reference>,
    ) -> Result<Reference, Unusable> {
        let theta = gathered.sum / gathered.n as f64;
        Ok(Reference { theta, variance: variance(gathered), ..Reference::default() })
    }

    fn bets(&self, g: &Guardrail, reference: &Reference) -> Bets {
        let setting = |d: f64| PairSetting { d, variance: reference.variance };
        Bets::Pairs(Pairs {
            setting: setting(self.d(g.better)),
            lean: worse(g.better),
            margin: self.points,
            benefit: g.benefit.map(|by| (setting(benefit(g.better, by)), by)),
        })
    }

    fn factor(&self, _: Better) -> f64 {
        1.0
    }

    fn resolution(&self, _: Better, reference: &Reference) -> Option<String> {
        reference.harm_grid.first().map(|smallest| points_beyond(*smallest))
    }

    fn spread(&self, _: Better, _: &Lately, _: f64) -> Option<f64> {
        spread(DISCORDANT / 4.0, self.points / 2.0)
    }
}

/// Variance of the observations of pairs around a half, drawn towards that of pairs that all differ: the few pairs of the
/// first reference may hold none that does, and bets as large as that allows lose everything to the first one.
fn variance(gathered: &BaselineSample) -> f64 {
    let n = gathered.n as f64;
    (gathered.sumsq - gathered.sum + n / 4.0 + 0.25) / (n + 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeros and ones: `(differing + 1) / (n + 2) / 4`.
    #[test]
    fn few_pairs_that_agree_do_not_make_a_bet_without_bound() {
        let of = |differing: u64, n: u64| {
            let (half, one) = ((n - differing) as f64, differing as f64);
            variance(&BaselineSample {
                n,
                sum: half / 2.0 + one,
                sumsq: half / 4.0 + one,
                ..BaselineSample::default()
            })
        };
        assert_eq!(of(0, 50), 1.0 / 52.0 / 4.0);
        assert!((of(5, 50) - 6.0 / 52.0 / 4.0).abs() < 1e-15);
    }
}
