//! One guardrail of one rollout at work: what waits, what it has learned, what it last said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::kind::{Bucket, Way};
use super::reference::{BaselineSample, Reference};
use super::score::{Evidence, Scored};
use super::verdict::Verdict;
use crate::core::policy::Policy;
use crate::core::policy::guardrail::Guardrail;
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::tally::Tally;
use crate::core::time::Timestamp;

/// What one guardrail of one rollout holds and has learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardrailMonitor {
    pub reference: Option<Reference>,
    /// Epoch in which it was frozen.
    pub reference_epoch: u32,
    /// Baseline observations for the next reference.
    pub gathered: BaselineSample,
    /// No reference could be frozen, until one can.
    pub unusable: bool,
    /// How many baseline observations were gathered when that was last tried.
    pub tried: u64,
    pub evidence: Evidence,
    /// By start; each belongs to one step.
    pub cohorts: BTreeMap<Timestamp, Cohort>,
    /// Start of the last scored cohort.
    pub scored_to: Option<Timestamp>,
    /// Observations that came after their cohort was scored: stored, counted, not bet on.
    pub late: u64,
    /// Observations that the guardrail's kind cannot use, such as a sum where values are needed.
    pub left_out: u64,
    /// Grades outside of 0 to 1, which count as the nearer of the two.
    pub clamped: u64,
    /// Canary observations that came in at all, and when the last one did.
    pub canary_seen: u64,
    pub last_canary: Option<Timestamp>,
    pub last_baseline: Option<Timestamp>,
    /// The same by value of a tag. At most [`SLICES_MAX`].
    pub slices: BTreeMap<String, GuardrailMonitor>,
    /// Of what compares nothing.
    pub tally: Option<Tally>,
    /// What it last said. `Fail` stays.
    pub verdict: Option<Verdict>,
    /// Who promoted past its failure.
    pub accepted: Option<String>,
    /// The step at which it was shown safe. One crossing suffices for a promotion, whatever follows; it does
    /// not count against evidence of harm, nor at the next step.
    pub safe_at: Option<u16>,
}

impl GuardrailMonitor {
    pub fn new(guardrail: &Guardrail) -> GuardrailMonitor {
        let tally = match guardrail.rule.kind().way() {
            Way::Counts(kind) => Some(kind.tally()),
            Way::Compares(_) => None,
        };
        GuardrailMonitor { tally, ..GuardrailMonitor::default() }
    }

    /// Bets on the part's own cohort that starts at `start`, when the whole's has been.
    fn follow(&mut self, guardrail: &Guardrail, policy: &Policy, start: Timestamp, step: u16) {
        if self.cohorts.contains_key(&start) {
            let scored = self.score(guardrail, policy, start, step);
            self.apply_scored(guardrail, policy, start, &scored);
        }
        if let Some(Ok(reference)) = self.next_reference(guardrail, &policy.evidence) {
            self.apply_reference(&reference, step);
        }
    }

    /// Leaves out what is said to be served at `at` or later: as late as can be, it is of another segment.
    pub fn drop_from(&mut self, at: Timestamp) {
        let dropped = self.cohorts.split_off(&at);
        self.late += dropped.values().map(Cohort::waiting).sum::<u64>();
        self.slices.values_mut().for_each(|part| part.drop_from(at));
    }

    /// Start of the oldest cohort that waits.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.cohorts.keys().next().copied()
    }

    /// The evidence as the cohort that starts at `start` begins to be scored: served at `step`, and graded by whom it says.
    pub fn entering(&self, guardrail: &Guardrail, policy: &Policy, start: Timestamp, step: u16) -> Evidence {
        let mut evidence = self.evidence.clone();
        if let Some(judge) = self.cohorts[&start].judge {
            evidence.enter_judge(judge);
        }
        if self.reference.is_some() {
            let segment = |step: u16| policy.steps.get(usize::from(step)).and_then(|step| step.segment);
            if segment(step) != segment(evidence.step) {
                evidence.enter_segment(guardrail.benefit.is_some());
            }
            evidence.enter_step(step);
        }
        evidence
    }

    /// Scores the cohort that starts at `start`, served at `step`: what it held and the evidence afterwards.
    pub fn score(&self, guardrail: &Guardrail, policy: &Policy, start: Timestamp, step: u16) -> Scored {
        let mut evidence = self.entering(guardrail, policy, start, step);
        let (mut baseline, mut canary) = (ArmCount::default(), ArmCount::default());
        for (at, portion) in self.portions(guardrail, policy, start, step) {
            match portion {
                Portion::Counts { n_a, f_a, n_b, f_b } | Portion::Beyond { n_a, f_a, n_b, f_b, .. } => {
                    baseline.add(n_a, f_a as f64);
                    canary.add(n_b, f_b as f64);
                }
                Portion::Labels { x_a, x_b, .. } => {
                    baseline.add(x_a, x_a as f64);
                    canary.add(x_b, x_b as f64);
                }
                Portion::Value { canary: false, x } => baseline.add(1, x),
                Portion::Value { canary: true, x } => canary.add(1, x),
                Portion::Pair { a, b } => {
                    baseline.add(1, a);
                    canary.add(1, b);
                }
            }
            if let Some(reference) = &self.reference {
                evidence.add(guardrail, reference, at, &portion);
            }
        }
        if let Some(reference) = &self.reference {
            let end = start.plus(policy.evidence.cohort);
            evidence.end_cohort(guardrail, reference, end);
        }
        if evidence.step != step {
            (evidence.step, evidence.step_canary) = (step, 0);
        }
        evidence.step_canary += canary.n;
        Scored { step, baseline, canary, reference_only: self.reference.is_none(), evidence }
    }

    /// What the cohort that starts at `start` holds, in order of request time, as the guardrail's kind sees it.
    pub fn portions(
        &self,
        guardrail: &Guardrail,
        policy: &Policy,
        start: Timestamp,
        step: u16,
    ) -> Vec<(Timestamp, Portion)> {
        let Some(kind) = guardrail.compares() else { return Vec::new() };
        let of = Bucket {
            start,
            length: policy.evidence.cohort,
            share: policy.step(step).to.as_share(),
            reference: self.reference.as_ref(),
        };
        kind.portions(guardrail.better, &self.cohorts[&start], of)
    }

    /// Folds a scored cohort: the evidence as recorded, and its baseline into the next reference.
    pub fn apply_scored(
        &mut self,
        guardrail: &Guardrail,
        policy: &Policy,
        start: Timestamp,
        scored: &Scored,
    ) {
        let portions = if guardrail.profile().of_values && self.cohorts.contains_key(&start) {
            self.portions(guardrail, policy, start, scored.step)
        } else {
            Vec::new()
        };
        let Some(cohort) = self.cohorts.remove(&start) else { return };
        self.scored_to = Some(start);
        self.gather(guardrail, &portions, &cohort, scored);
        self.evidence = scored.evidence.clone();
        self.try_again(guardrail);
        for part in self.slices.values_mut() {
            part.follow(guardrail, policy, start, scored.step);
        }
    }

    /// What one unit of the normalised observation is worth in the metric's own unit.
    pub fn scale(&self) -> f64 {
        self.reference.as_ref().and_then(|reference| reference.cap).unwrap_or(1.0)
    }

    /// Folds a recorded verdict of the time at which `step` serves.
    pub fn apply_verdict(&mut self, verdict: Verdict, step: Option<u16>) {
        self.verdict = Some(verdict);
        if verdict == Verdict::Pass {
            self.safe_at = step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::guardrail::{Better, Margin, Proportion, Rule};

    /// Nearly all of the baseline passed at first, and nothing is better by so much; then fewer did.
    #[test]
    fn a_benefit_is_bet_on_from_the_reference_that_makes_it_possible() {
        let pass = Guardrail::new(
            "pass",
            Better::Higher,
            Rule::Proportion(Proportion { margin: Margin::Points(0.03) }),
        );
        let pass = Guardrail { benefit: Some(0.02), ..pass };
        let of = |sum: f64| BaselineSample { n: 512, sum, ..BaselineSample::default() };
        let first = Reference::first(&pass, &of(510.0)).unwrap();
        let mut monitor = GuardrailMonitor::new(&pass);
        monitor.apply_reference(&first, 0);
        assert_eq!((first.secondary_grid.len(), &monitor.evidence.secondary), (0, &None));
        let next = first.refreshed(&pass, &of(460.0));
        monitor.apply_reference(&next, 0);
        let bets = monitor.evidence.secondary.map_or(0, |other| other.log_wealth.len());
        assert!(bets > 1 && bets == next.secondary_grid.len(), "{bets} bets on {:?}", next.secondary_grid);
    }

    /// Grades of the night do not wait for those of the day.
    #[test]
    fn one_arm_does_not_wait_over_a_gap_for_the_other() {
        let pass = Guardrail::new(
            "pass",
            Better::Higher,
            Rule::Proportion(Proportion { margin: Margin::Points(0.03) }),
        );
        let gathered = BaselineSample { n: 500, sum: 450.0, ..BaselineSample::default() };
        let reference = Reference::first(&pass, &gathered).unwrap();
        let mut evidence = Evidence::default();
        evidence.start(&reference, 0);
        let hours = |h: u64| Timestamp(h * 3_600_000);
        evidence.add(&pass, &reference, hours(2), &Portion::Counts { n_a: 400, f_a: 360, n_b: 0, f_b: 0 });
        evidence.add(&pass, &reference, hours(14), &Portion::Counts { n_a: 0, f_a: 0, n_b: 40, f_b: 30 });
        assert_eq!((evidence.blocks, evidence.open.n_a, evidence.open.n_b), (0, 0, 40));
    }
}
