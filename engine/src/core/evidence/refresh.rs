//! From what a monitor computes its reference, and when. A block is never scored with a reference that was computed from it,
//! nor is the choice of a reference: what is still to be bet on is not looked at.

use std::borrow::Cow;

use super::bets::{Arms, Bets, Wealth};
use super::block::{EPOCH_CANARY, OpenBlock, pair_y};
use super::monitor::GuardrailMonitor;
use super::reference::{BaselineSample, GATHERED_MAX, Reference, Unusable, exceeds};
use super::score::Scored;
use crate::core::policy::guardrail::{EvidenceRules, Guardrail};
use crate::core::telemetry::arm::Portion;
use crate::core::telemetry::cohort::Cohort;
use crate::core::time::Timestamp;

impl Reference {
    /// The first reference of a rollout: what the baseline is, and the sizes of regression, and of benefit, that are bet on.
    /// Errors when the margin puts the boundary where no mean can be.
    pub fn first(guardrail: &Guardrail, gathered: &BaselineSample) -> Result<Reference, Unusable> {
        let kind = guardrail.compares().expect("what compares nothing needs no baseline");
        let mut first = Reference { n: gathered.n, ..kind.baseline(guardrail, gathered, None)? };
        match kind.bets(guardrail, &first) {
            Bets::Counts(arms) | Bets::Values(arms) => {
                let Arms { setting, lean, margin, .. } = &arms;
                if !setting.is_possible() {
                    let (boundary, theta) = (setting.boundary(), first.theta);
                    return Err(Unusable::Boundary { metric: guardrail.metric.clone(), boundary, theta });
                }
                first.harm_grid = setting.default_grid(*lean, *margin);
                first.safe_grid = setting.default_grid(lean.opposite(), *margin);
                first.choose_secondary(&arms);
            }
            Bets::Pairs(pairs) => {
                let safe = pairs.lean.opposite();
                first.harm_grid = pairs.setting.grid(pairs.lean, pairs.margin);
                first.safe_grid = pairs.setting.grid(safe, pairs.margin);
                let benefit = pairs.benefit.map(|(setting, by)| setting.grid(safe, by));
                first.secondary_grid = benefit.unwrap_or_default();
            }
            Bets::Labels { harm, safe } => {
                (first.harm_grid, first.safe_grid) = (harm.to_vec(), safe.to_vec());
            }
        }
        Ok(first)
    }

    fn choose_secondary(&mut self, arms: &Arms) {
        if let Some((setting, lean)) = &arms.secondary {
            self.secondary_grid = setting.default_grid(*lean, (setting.boundary() - setting.theta).abs());
        }
    }

    /// The reference for the next epoch: a new baseline, the same cap and the same bets. What could not be bet on so far is
    /// from now on, if it can be.
    pub fn refreshed(&self, guardrail: &Guardrail, gathered: &BaselineSample) -> Reference {
        let baseline =
            guardrail.compares().map(|kind| (kind, kind.baseline(guardrail, gathered, Some(self))));
        let Some((kind, Ok(baseline))) = baseline else { return self.clone() };
        let mut next = Reference {
            n: gathered.n,
            harm_grid: self.harm_grid.clone(),
            safe_grid: self.safe_grid.clone(),
            secondary_grid: self.secondary_grid.clone(),
            ..baseline
        };
        if let Bets::Counts(arms) | Bets::Values(arms) = kind.bets(guardrail, &next) {
            // A baseline that drifted to where the limit has no meaning keeps the old guess: it costs speed only.
            let sound = arms.setting.is_possible() && next.theta > 0.0 && next.theta < 1.0;
            if !sound {
                return self.clone();
            }
            if next.secondary_grid.is_empty() {
                next.choose_secondary(&arms);
            }
        }
        next
    }

    /// Whether the baseline has moved by enough to matter, the smallest regression that is bet on, and by more than
    /// chance moves it: three standard errors.
    pub fn differs(&self, guardrail: &Guardrail, gathered: &BaselineSample, next: &Reference) -> bool {
        if guardrail.profile().of_pairs {
            // Nothing else of the baseline is bet with.
            let ratio = next.variance / self.variance;
            return !(0.67..1.5).contains(&ratio);
        }
        let smallest = self.harm_grid.first().copied().unwrap_or(0.0);
        // Both this reference and the next have the error of their samples; of quantiles, of the values kept.
        let (was, is) = match gathered.values.len() as u64 {
            0 => (self.n, gathered.n),
            kept => (self.n.min(GATHERED_MAX as u64), kept),
        };
        let error = self.variance * (1.0 / was.max(1) as f64 + 1.0 / is.max(1) as f64);
        let least = smallest.max(3.0 * libm::sqrt(error));
        if let Some(threshold) = self.threshold {
            let beyond = gathered.values.iter().filter(|x| exceeds(guardrail.better, **x, threshold)).count();
            let share = beyond as f64 / gathered.values.len().max(1) as f64;
            return gathered.histogram.is_some() && next.threshold != self.threshold
                || !gathered.values.is_empty() && (share - self.theta).abs() >= least;
        }
        (self.theta - next.theta).abs() >= least
    }
}

impl GuardrailMonitor {
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
            self.gathered = BaselineSample::default();
            self.evidence.open = OpenBlock::default();
        }
        let (held, holds) = (&self.evidence.open, &scored.evidence.open);
        if !guardrail.profile().of_values {
            self.gathered.n += scored.baseline.n + held.n_a - holds.n_a;
            self.gathered.sum += scored.baseline.sum + held.sum_a - holds.sum_a;
            return self.gathered.forget();
        }
        // A threshold is found among values again.
        let keeps = self.reference.as_ref().is_none_or(|reference| reference.threshold.is_some());
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
            if keeps {
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
        if self.unusable && self.gathered.n >= 2 * self.tried {
            self.tried = self.gathered.n;
            if Reference::first(guardrail, &self.gathered).is_ok() {
                self.unusable = false;
            }
        }
    }

    /// What a reference may be computed from: of values that are compared with a threshold the youngest may still wait for
    /// the other arm. `None`: that cannot be told.
    fn settled(&self, reference: &Reference) -> Option<Cow<'_, BaselineSample>> {
        let open = self.evidence.open.n_a;
        if reference.threshold.is_none() || open == 0 {
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
        let settled = self.settled(reference).filter(|settled| settled.n >= needs)?;
        let renewed = reference.refreshed(guardrail, &settled);
        reference.differs(guardrail, &settled, &renewed).then_some(renewed)
    }

    /// The reference to freeze now, if any: the first as soon as the baseline suffices, the next when an
    /// epoch has ended since the last.
    pub fn next_reference(
        &self,
        guardrail: &Guardrail,
        rules: &EvidenceRules,
    ) -> Option<Result<Reference, Unusable>> {
        guardrail.compares()?;
        let needs = guardrail.needs(rules);
        match &self.reference {
            None if self.gathered.n >= needs && !self.unusable => {
                Some(Reference::first(guardrail, &self.gathered))
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
        if self.evidence.secondary.is_none() && !reference.secondary_grid.is_empty() {
            self.evidence.secondary = Some(Wealth::new(reference.secondary_grid.len()));
        }
        self.reference_epoch = self.evidence.harm.epoch;
        self.reference = Some(reference.clone());
        self.gathered = BaselineSample::default();
    }
}
