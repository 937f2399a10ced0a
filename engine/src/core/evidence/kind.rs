//! What a kind of guardrail is. Each has a file in `kinds`, and says there what it does with samples, what its evidence is
//! about, and how it reads. Nothing has a default: whoever adds a kind answers every question here.

use super::bets::Bets;
use super::figures::{Limit, Measure, Shown, Unit};
use super::reference::{BaselineSample, Reference, Unusable};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Better, EvidenceRules, Guardrail, GuardrailKind};
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::telemetry::rates::Lately;
use crate::core::telemetry::tally::Tally;
use crate::core::time::{Span, Timestamp};

/// What holds of a kind whatever a policy says of the guardrail.
pub struct Profile {
    pub kind: GuardrailKind,
    /// It can show that its limit is respected; the others only show that it is not.
    pub shows_safety: bool,
    /// An observation says how good one answer is: it can be better than the baseline's, and both can answer the same.
    pub of_answers: bool,
    /// Both arms answer the same units: a shadow step is where they do, and what is silent is not the baseline.
    pub of_pairs: bool,
    /// What is observed is somebody's judgement: what two judge is not compared.
    pub judged: bool,
    /// Values are grades from 0 to 1, and count as the nearer of the two outside of that.
    pub graded: bool,
    /// A reference is computed from values, not from counts.
    pub of_values: bool,
    /// Whatever is observed is a request, so that the observations of both arms say how requests are split.
    pub of_requests: bool,
    pub scope: Scope,
    /// It takes the canary's share of the traffic to be that of the step.
    pub needs_share: bool,
    /// It can be told apart by the values of a tag.
    pub has_slices: bool,
    /// It is about how the traffic is split, and not about the canary.
    pub of_split: bool,
    /// What it finds is that the comparison is not sound, and not that the canary is worse.
    pub of_comparison: bool,
    /// The e-value of harm that acts.
    pub acts_at: fn(&EvidenceRules) -> f64,
    /// What [`Reference::secondary_grid`] is about, where no benefit is asked for.
    pub secondary: Option<Secondary>,
    pub measure: Measure,
    pub unit: Unit,
    pub limit: Limit,
    /// Of whom strong evidence of harm is rarely seen; `None`: no evidence is weighed.
    pub healthy: Option<&'static str>,
    /// Difference, range, limit and counts; `None` until they can be given.
    pub figures: fn(&Shown) -> Option<String>,
}

/// Which of the observations of a rollout count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What a step serves where it is compared: of its segment, and after the warm-up.
    Step,
    /// What any step serves, but for a part that goes back.
    Exposed,
    /// Whatever the canary does as long as there is a rollout of it. What is too much is so for all of it.
    Rollout,
}

/// The question beside harm and safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secondary {
    /// The limit holds on both sides, and this is the lower.
    Below,
    /// More values than may be are above the cap.
    AboveCap,
}

/// One kind, with what a policy says of the guardrail.
pub trait Kind {
    fn profile(&self) -> &'static Profile;

    fn way(&self) -> Way<'_>;

    /// How far from the baseline the canary may be, in the metric's own unit, or what [`Profile::limit`] says.
    fn limit(&self, better: Better, reference: Option<&Reference>, baseline: ArmCount) -> Option<f64>;

    /// When it fails, for a sentence that begins with `Roll back when`.
    fn fails_when(&self, metric: &Metric, better: Better) -> String;

    /// How much worse the canary may be: `3 points`, `20%`. `None`: not at all, or that is no question.
    fn allows(&self, better: Better) -> Option<String>;
}

/// How a kind comes to what it says.
pub enum Way<'a> {
    /// It compares settled cohorts of both arms.
    Compares(&'a dyn Compares),
    /// It counts what the canary sends, as it comes, and compares nothing.
    Counts(&'a dyn Counts),
}

/// How a kind counts.
pub trait Counts {
    /// What it counts in.
    fn tally(&self) -> Tally;

    /// How many bad ones an observation stands for.
    fn bad(&self, better: Better, value: f64) -> u64;

    /// The same of `n` observations that the sender summed; `None`: that cannot be told.
    fn bad_of(&self, better: Better, n: u64, sums: &Sums) -> Option<u64>;

    /// Whether `n` observations, so many bad, show that whoever sends them would say so if all were well.
    fn is_heard(&self, n: u64, bad: u64) -> bool;
}

/// How a kind compares.
pub trait Compares {
    /// The metric that every request has, where requests without a value are what counts.
    fn requests(&self) -> Option<&Metric>;

    /// Takes an observation into its cohort. Returns whether it can be used.
    fn take(&self, cohort: &mut Cohort, o: &Observation, length: Span) -> bool;

    /// What can be used of `n` observations that the sender summed.
    fn sums<'a>(&self, n: u64, sums: &'a Sums, role: Role) -> Summed<'a>;

    /// What a cohort holds, in order of request time.
    fn portions(&self, better: Better, cohort: &Cohort, of: Bucket) -> Vec<(Timestamp, Portion)>;

    /// Baseline observations that the first reference takes, where the policy asks for `least`.
    fn needs(&self, least: u64) -> u64;

    /// What the baseline is taken to be, from what was gathered `before` or after there is a reference.
    fn baseline(
        &self,
        guardrail: &Guardrail,
        gathered: &BaselineSample,
        before: Option<&Reference>,
    ) -> Result<Reference, Unusable>;

    /// What is bet on.
    fn bets(&self, guardrail: &Guardrail, reference: &Reference) -> Bets;

    /// What the canary's values are divided by before they are compared.
    fn factor(&self, better: Better) -> f64;

    /// Of which sizes half the smallest bet may never be found: `Differences of less than 0.75 points beyond the limit`.
    fn resolution(&self, better: Better, reference: &Reference) -> Option<String>;

    /// `V / eps^2`, for plans: how many observations an equal canary is from its boundary, in square standard deviations, with
    /// `share` of the traffic. V is the variance at the boundary and eps the distance to it. `None`: that cannot be told.
    fn spread(&self, better: Better, lately: &Lately, share: f64) -> Option<f64>;
}

/// What is of use in a sum.
#[derive(Debug, PartialEq)]
pub enum Summed<'a> {
    /// So many observations, so many of them ones.
    Counts(u64, u64),
    /// Of values only their mean is known: it counts as one observation of it.
    Mean(f64),
    Histogram {
        bounds: &'a [f64],
        counts: &'a [u64],
    },
    Nothing,
}

/// The cohort that portions are of.
#[derive(Clone, Copy)]
pub struct Bucket<'a> {
    pub start: Timestamp,
    pub length: Span,
    /// The share of the traffic that the canary was to have.
    pub share: f64,
    /// With what it will be scored.
    pub reference: Option<&'a Reference>,
}
