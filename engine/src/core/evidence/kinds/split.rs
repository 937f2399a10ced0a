//! Assigned units against the share that was asked for: whether there is anything sound to compare.

use crate::core::evidence::bets::Bets;
use crate::core::evidence::figures::{Limit, Measure, Shown, Unit};
use crate::core::evidence::kind::{Bucket, Compares, Kind, Profile, Scope, Summed, Way};
use crate::core::evidence::label_bets::SPLITS;
use crate::core::evidence::reference::{BaselineSample, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, Guardrail, GuardrailKind};
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::text::{count, digits, trim};
use crate::core::time::{Span, Timestamp};

/// A policy says nothing further of it.
pub struct Split;

pub static PROFILE: Profile = Profile {
    kind: GuardrailKind::Split,
    shows_safety: false,
    of_answers: false,
    of_pairs: false,
    judged: false,
    graded: false,
    of_values: false,
    of_requests: true,
    scope: Scope::Step,
    needs_share: true,
    has_slices: false,
    of_split: true,
    of_comparison: true,
    acts_at: |rules| rules.split,
    secondary: None,
    measure: Measure::Events,
    unit: Unit::Points,
    limit: Limit::None,
    healthy: Some("rollouts whose traffic is split as asked for"),
    figures,
};

/// `6.1% of 20,000 are the canary's, where 5% were asked for`
fn figures(shown: &Shown) -> Option<String> {
    let planned = shown.estimate? * 100.0;
    let n = shown.canary.n + shown.baseline.n;
    let share = shown.canary.n as f64 / n as f64 * 100.0;
    Some(format!("{share:.1}% of {} are the canary's, where {}% were asked for", count(n), trim(planned)))
}

impl Kind for Split {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn way(&self) -> Way<'_> {
        Way::Compares(self)
    }

    fn limit(&self, _: Better, _: Option<&Reference>, _: ArmCount) -> Option<f64> {
        None
    }

    fn fails_when(&self, metric: &Metric, _: Better) -> String {
        format!("{metric} is shown not to be split as the step asks for")
    }

    fn allows(&self, _: Better) -> Option<String> {
        None
    }
}

impl Compares for Split {
    fn requests(&self) -> Option<&Metric> {
        None
    }

    fn take(&self, cohort: &mut Cohort, o: &Observation, length: Span) -> bool {
        match o.unit {
            None => cohort.count(o, length, 1, 0),
            Some(_) => cohort.keep(o, o.value),
        }
        true
    }

    fn sums<'a>(&self, n: u64, _: &'a Sums, _: Role) -> Summed<'a> {
        Summed::Counts(n, 0)
    }

    fn portions(&self, _: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)> {
        let [x_a, _, x_b, _] = cohort.totals();
        vec![(of.start, Portion::Labels { x_a, x_b, share: of.share, ratio: None })]
    }

    /// Its bets know the split, and nothing of the baseline.
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

    fn bets(&self, _: &Guardrail, _: &Reference) -> Bets {
        Bets::Labels { harm: &SPLITS, safe: &[] }
    }

    fn factor(&self, _: Better) -> f64 {
        1.0
    }

    fn resolution(&self, _: Better, reference: &Reference) -> Option<String> {
        reference.harm_grid.first()?;
        let nearest = reference.harm_grid.iter().map(|odds| (odds - 1.0).abs()).fold(1.0, f64::min);
        Some(format!("Splits whose odds are off by less than {}%", digits(nearest * 50.0)))
    }

    /// It gates nothing.
    fn spread(&self, _: Better, _: &Lately, _: f64) -> Option<f64> {
        None
    }
}
