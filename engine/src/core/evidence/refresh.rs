//! From what a watch computes its reference, and when. A block is never scored with a reference that was computed from it,
//! nor is the choice of a reference: what is still to be bet on is not looked at.

use std::borrow::Cow;

use super::bets::Wealth;
use super::block::{EPOCH_CANARY, OpenBlock, pair_y};
use super::monitor::Watch;
use super::reference::{self, Gathered, Reference};
use super::score::Scored;
use crate::core::planted::{Bug, planted};
use crate::core::policy::guardrail::{EvidenceRules, Guardrail, Rule, needs_values};
use crate::core::telemetry::arm::Portion;
use crate::core::telemetry::cohort::Cohort;
use crate::core::time::Timestamp;

impl Watch {
    /// Gathers the baseline of a cohort that comes to `scored`, except for what waits for the other arm from now on, and
    /// with what waited before.
    pub(super) fn gather(
        &mut self,
        guardrail: &Guardrail,
        portions: &[(Timestamp, Portion)],
        cohort: &Cohort,
        scored: &Scored,
    ) {
        // What one judge says of the baseline is no reference for another.
        let another = self.evidence.judge != 0 && scored.evidence.judge != self.evidence.judge;
        if another {
            self.gathered = Gathered::default();
            self.evidence.open = OpenBlock::default();
        }
        let (held, holds) = match planted(Bug::OpenBlockKept) {
            true => (&OpenBlock::default(), &OpenBlock::default()),
            false => (&self.evidence.open, &scored.evidence.open),
        };
        if !needs_values(&guardrail.rule) {
            self.gathered.n += scored.baseline.n + held.n_a - holds.n_a;
            self.gathered.sum += scored.baseline.sum + held.sum_a - holds.sum_a;
            return self.gathered.forget();
        }
        let of_quantile = matches!(guardrail.rule, Rule::Quantile { .. });
        let fresh = portions.iter().filter_map(|(_, portion)| match portion {
            Portion::Value { canary: false, x } => Some((*x, None)),
            Portion::Pair { a, b } => Some((*a, Some(*b))),
            _ => None,
        });
        let baseline: Vec<_> = held.xs_a.iter().map(|x| (*x, None)).chain(fresh).collect();
        for (x, other) in &baseline[..baseline.len() - holds.xs_a.len()] {
            // As the bets see it: means normalised, pairs as their difference.
            let y = match (other, &self.reference) {
                (Some(other), _) => pair_y(*x, *other),
                (None, Some(reference)) => reference.baseline_y(*x),
                (None, None) => *x,
            };
            self.gathered.n += 1;
            self.gathered.sum += y;
            self.gathered.sumsq += y * y;
            if self.reference.is_none() || of_quantile {
                self.gathered.values.push(if other.is_some() { y } else { *x });
            }
        }
        if let Some(histogram) = cohort.histogram() {
            self.gathered.add_histogram(histogram);
        }
        self.gathered.forget();
    }

    /// A baseline that was of no use may be when there is twice as much of it.
    pub(super) fn try_again(&mut self, guardrail: &Guardrail) {
        if self.unusable.is_some() && self.gathered.n >= 2 * self.tried {
            self.tried = self.gathered.n;
            if Reference::first(guardrail, &self.gathered).is_ok() {
                self.unusable = None;
            }
        }
    }

    /// What a reference may be computed from: of values that are compared with a threshold the youngest may still wait for
    /// the other arm. `None`: that cannot be told.
    fn settled(&self, guardrail: &Guardrail) -> Option<Cow<'_, Gathered>> {
        let open = self.evidence.open.n_a;
        let of_quantile = matches!(guardrail.rule, Rule::Quantile { .. });
        if !of_quantile || open == 0 || planted(Bug::OpenBlockKept) {
            return Some(Cow::Borrowed(&self.gathered));
        }
        if self.gathered.histogram.is_some() {
            return None;
        }
        let mut settled = self.gathered.clone();
        settled.n = settled.n.saturating_sub(open);
        settled.values.truncate(settled.values.len().saturating_sub(open as usize));
        Some(Cow::Owned(settled))
    }

    /// The reference that takes the place of this one, when an epoch has ended since and the baseline is another by now.
    fn renewed(&self, reference: &Reference, guardrail: &Guardrail, needs: u64) -> Option<Reference> {
        let needs = needs.max(EPOCH_CANARY);
        if self.gathered.n < needs || self.evidence.harm.epoch <= self.reference_epoch {
            return None;
        }
        let settled = self.settled(guardrail).filter(|settled| settled.n >= needs)?;
        let renewed = reference.refreshed(guardrail, &settled);
        reference.differs(guardrail, &settled, &renewed).then_some(renewed)
    }

    /// The reference to freeze now, if any: the first as soon as the baseline suffices, the next when an
    /// epoch has ended since the last.
    pub fn next_reference(
        &self,
        guardrail: &Guardrail,
        rules: &EvidenceRules,
    ) -> Option<Result<Reference, String>> {
        if let Rule::Absolute { .. } = guardrail.rule {
            return None;
        }
        let needs = reference::needs(&guardrail.rule, rules);
        if planted(Bug::ReferenceAhead) && !needs_values(&guardrail.rule) && needs > 0 {
            let mut ahead = self.clone();
            let next = ahead.cohorts.pop_first().map_or([0; 4], |(_, cohort)| cohort.totals());
            ahead.cohorts.clear();
            ahead.gathered.n += next[0];
            ahead.gathered.sum += next[1] as f64;
            return ahead.freezes(guardrail, rules);
        }
        self.freezes(guardrail, rules)
    }

    fn freezes(&self, guardrail: &Guardrail, rules: &EvidenceRules) -> Option<Result<Reference, String>> {
        let needs = reference::needs(&guardrail.rule, rules);
        match &self.reference {
            None if self.gathered.n >= needs && self.unusable.is_none() => {
                Some(Reference::first(guardrail, &self.gathered).map_err(|e| e.0))
            }
            None => None,
            // What was gathered has been scored already; only what is still to be bet on will use it.
            Some(reference) => self.renewed(reference, guardrail, needs).map(Ok),
        }
    }

    /// Folds a frozen reference; the first starts the evidence.
    pub fn apply_reference(&mut self, reference: &Reference, step: u16) {
        if self.reference.is_none() {
            self.evidence.start(reference, step);
        }
        // What was counted above one threshold cannot be compared with what is above another.
        let another = self.reference.as_ref().is_some_and(|before| before.threshold != reference.threshold);
        if another {
            self.evidence.open = OpenBlock::default();
        }
        if self.evidence.other.is_none() && !reference.other_grid.is_empty() {
            self.evidence.other = Some(Wealth::new(reference.other_grid.len()));
        }
        self.reference_epoch = self.evidence.harm.epoch;
        self.reference = Some(reference.clone());
        self.gathered = Gathered::default();
    }
}
