//! A quantile of values, as of a latency. The baseline's is the threshold, and what is bet on is how many of each arm lie
//! beyond it, the handicap allowed for.

use super::margin::{handicapped, percents, spread, worse};
use crate::core::evidence::bets::{Arms, Bets, Lean, Setting};
use crate::core::evidence::figures::{Limit, Measure, Shown, Unit};
use crate::core::evidence::kind::{Bucket, Compares, Kind, Profile, Scope, Summed, Way};
use crate::core::evidence::reference::{BaselineSample, GATHERED_MAX, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, Guardrail, GuardrailKind, Quantile};
use crate::core::telemetry::arm::{ArmCount, Histogram, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::text::{digits, percent, significant};
use crate::core::time::{Span, Timestamp};

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Quantile,
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
    secondary: None,
    measure: Measure::Share,
    unit: Unit::Points,
    limit: Limit::Value,
    healthy: Some("healthy canaries"),
    figures,
};

/// How many of each arm lie beyond the baseline's quantile, the limit allowed for, is what is compared.
fn figures(shown: &Shown) -> Option<String> {
    let (threshold, limit) = (shown.reference?.threshold?, shown.limit?);
    let difference = shown.difference(Unit::Points)?;
    let side = if limit < threshold { "below" } else { "above" };
    let [threshold, limit] = [threshold, limit].map(significant);
    let [canary, baseline] = [&shown.canary, &shown.baseline].map(|arm| Measure::Share.of(arm));
    Some(format!(
        "{canary} {side} {limit} in the canary, {baseline} {side} {threshold} in the baseline: {difference}"
    ))
}

impl Kind for Quantile {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Compares(self)
    }

    /// What the canary's quantile may be.
    fn limit(&self, better: Better, reference: Option<&Reference>, _: ArmCount) -> Option<f64> {
        Some(reference?.threshold? * self.factor(better))
    }

    fn fails_when(&self, metric: &Metric, better: Better) -> String {
        let (p, by, worse) = (percent(self.q), percent(self.handicap), worse(better));
        format!("the {p}% quantile of {metric} is shown to be more than {by}% {worse} than the baseline's")
    }

    fn allows(&self, _: Better) -> Option<String> {
        Some(format!("{} at the {} quantile", percents(self.handicap), percents(self.q)))
    }
}

impl Compares for Quantile {
    fn requests(&self) -> Option<&Metric> {
        None
    }

    fn take(&self, cohort: &mut Cohort, o: &Observation, _: Span) -> bool {
        cohort.keep(o, o.value);
        true
    }

    fn sums<'a>(&self, _: u64, sums: &'a Sums, _: Role) -> Summed<'a> {
        match sums {
            Sums::Histogram { bounds, counts } => Summed::Histogram { bounds, counts },
            Sums::Ones(_) | Sums::Moments { .. } => Summed::Nothing,
        }
    }

    fn portions(&self, better: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)> {
        let mut portions = cohort.values(of.start);
        let threshold = of.reference.and_then(|reference| reference.threshold);
        let beyond = cohort.histogram().zip(threshold);
        let beyond = beyond.and_then(|(held, threshold)| self.beyond(better, held, threshold));
        portions.extend(beyond.map(|beyond| (of.start.plus(of.length), beyond)));
        portions
    }

    /// Twenty values beyond it, or the threshold is anywhere: of p99 that takes 2,000.
    fn needs(&self, least: u64) -> u64 {
        let beyond = libm::ceil(20.0 / self.q.min(1.0 - self.q)) as u64;
        least.max(beyond.min(GATHERED_MAX as u64))
    }

    /// The threshold is the nearest-rank quantile, and `theta` what lies beyond it.
    fn baseline(
        &self,
        g: &Guardrail,
        gathered: &BaselineSample,
        _: Option<&Reference>,
    ) -> Result<Reference, Unusable> {
        let q = self.q;
        let threshold = gathered.quantile(q);
        if !threshold.is_finite() {
            return Err(Unusable::AboveLastBound { metric: g.metric.clone(), q });
        }
        let beyond = gathered.beyond(g.better, q, threshold);
        Ok(Reference { threshold: Some(threshold), ..Reference::of_share(beyond) })
    }

    /// The handicap is in the observation, so the boundary is equality. Ones are what is beyond the threshold.
    fn bets(&self, _: &Guardrail, reference: &Reference) -> Bets {
        Bets::Counts(Arms::new(Setting::binary(1.0, 0.0, reference.theta), Lean::Above, 0.0, None))
    }

    fn factor(&self, better: Better) -> f64 {
        handicapped(better, self.handicap)
    }

    fn resolution(&self, _: Better, reference: &Reference) -> Option<String> {
        let half = reference.harm_grid.first()? / 2.0;
        Some(format!(
            "Differences of less than {} points in the share beyond the quantile",
            digits(half * 100.0)
        ))
    }

    /// As if values were log-normal: how many lie beyond the quantile, the limit allowed for.
    fn spread(&self, better: Better, lately: &Lately, _: f64) -> Option<f64> {
        let sigma = libm::sqrt(libm::log(1.0 + lately.variance / (lately.mean * lately.mean)));
        let tail = if better == Better::Lower { 1.0 - self.q } else { self.q };
        let beyond = upper_tail(upper_quantile(tail) + libm::log(1.0 + self.handicap) / sigma);
        spread(tail * (1.0 - tail), tail - beyond)
    }
}

impl Quantile {
    /// How many of a histogram lie beyond the threshold. `None` when no bound is at the threshold: what lies between
    /// two bounds cannot be told.
    fn beyond(&self, better: Better, held: &Histogram, threshold: f64) -> Option<Portion> {
        let at = held.bounds.iter().position(|bound| *bound == threshold)?;
        let limit = threshold * self.factor(better);
        let (n_a, n_b) = (*held.baseline.last()?, *held.canary.last()?);
        // Counts up to the last bound below the limit, and up to the first at or above it.
        let next = held.bounds.iter().position(|bound| *bound >= limit)?;
        let up_to = held.canary[next];
        let surely = match next {
            _ if held.bounds[next] == limit => up_to,
            // What lies below the first bound may lie on either side of the limit.
            0 => 0,
            _ => held.canary[next - 1],
        };
        Some(match better {
            Better::Lower => Portion::Beyond {
                n_a,
                f_a: n_a - held.baseline[at],
                n_b,
                f_b: n_b - up_to,
                unsure_b: up_to - surely,
            },
            Better::Higher => {
                Portion::Beyond { n_a, f_a: held.baseline[at], n_b, f_b: surely, unsure_b: up_to - surely }
            }
        })
    }
}

/// P(Z > z) of a standard normal.
fn upper_tail(z: f64) -> f64 {
    libm::erfc(z / std::f64::consts::SQRT_2) / 2.0
}

/// The z with P(Z > z) = p, by bisection: plans are rare.
fn upper_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if upper_tail(middle) > p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::guardrail::Rule;

    /// What is below the first bound may lie on either side of the canary's limit.
    #[test]
    fn what_the_first_bound_of_a_histogram_holds_is_not_sure_to_be_beyond_a_lower_limit() {
        let held = Histogram {
            bounds: vec![10.0, 20.0, f64::INFINITY],
            baseline: vec![6, 50, 100],
            canary: vec![9, 50, 100],
        };
        let portion = Quantile { q: 0.05, handicap: 0.2 }.beyond(Better::Higher, &held, 10.0);
        assert_eq!(portion, Some(Portion::Beyond { n_a: 100, f_a: 6, n_b: 100, f_b: 0, unsure_b: 9 }));
    }

    /// Whole seconds: nearly all of what the 95 % quantile says is beyond it is at it.
    #[test]
    fn the_share_beyond_a_threshold_with_ties_is_what_is_beyond_it() {
        let q = Rule::Quantile(Quantile { q: 0.95, handicap: 0.1 });
        let mut values = vec![1.0; 940];
        values.extend([2.0; 50]);
        values.extend([3.0; 10]);
        let gathered = BaselineSample { n: 1_000, values, ..BaselineSample::default() };
        let first = Reference::first(&Guardrail::new("latency", Better::Lower, q), &gathered).unwrap();
        assert_eq!((first.threshold, first.theta), (Some(2.0), 10.5 / 1_001.0));
    }
}
