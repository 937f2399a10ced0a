//! One guardrail of one rollout at work: what waits, what it has learned, what it last said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cohort::{Arm, Cohort};
use super::event::ArmCount;
use super::evidence::{EPOCH_CANARY, Evidence, Portion, Scored};
use super::planted::{Bug, planted};
use super::policy::{Better, EvidenceRules, Guardrail, Rule};
use super::reference::{GATHERED_MAX, Gathered, Reference};
use super::time::{Span, Timestamp};
use super::verdict::Verdict;

/// What one guardrail of one rollout holds and has learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    pub reference: Option<Reference>,
    /// Epoch in which it was frozen.
    pub reference_epoch: u32,
    /// Baseline observations for the next reference.
    pub gathered: Gathered,
    /// Why no reference could be frozen, until one can.
    pub unusable: Option<String>,
    pub evidence: Evidence,
    /// By start; each belongs to one step.
    pub cohorts: BTreeMap<Timestamp, Cohort>,
    /// Start of the last scored cohort.
    pub scored_to: Option<Timestamp>,
    /// Observations that came after their cohort was scored: stored, counted, not bet on.
    pub late: u64,
    /// Canary observations that came in at all, and when the last one did.
    pub canary_seen: u64,
    pub last_canary: Option<Timestamp>,
    /// Absolute guards only.
    pub recent: Option<Recent>,
    /// What it last said. `Fail` stays.
    pub verdict: Option<Verdict>,
    /// The step at which it was shown safe. One crossing suffices for a promotion, whatever follows; it does
    /// not count against evidence of harm, nor at the next step.
    pub safe_at: Option<u16>,
}

/// The last canary observations of an absolute guard, bad or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// One bit each, a ring.
    bits: Vec<u64>,
    size: u32,
    next: u32,
    pub n: u32,
    pub bad: u32,
    /// More than the limit were bad at some time. Latched.
    pub fired: bool,
}

impl Recent {
    pub fn new(size: u32) -> Recent {
        let words = size.div_ceil(64) as usize;
        Recent { bits: vec![0; words], size, next: 0, n: 0, bad: 0, fired: false }
    }

    fn push(&mut self, bad: bool, above: f64) {
        let (word, bit) = ((self.next / 64) as usize, 1u64 << (self.next % 64));
        if self.n == self.size {
            self.bad -= u32::from(self.bits[word] & bit != 0);
        } else {
            self.n += 1;
        }
        if bad {
            self.bits[word] |= bit;
            self.bad += 1;
        } else {
            self.bits[word] &= !bit;
        }
        self.next = (self.next + 1) % self.size;
        // Counted against the whole window: more bad ones than it allows cannot be undone by filling it.
        self.fired |= f64::from(self.bad) > above * f64::from(self.size);
    }
}

/// An observation on its way to a watch.
#[derive(Clone, Copy)]
pub struct Observation {
    pub arm: Arm,
    pub served_at: Timestamp,
    /// Start of the cohort it belongs to.
    pub cohort: Timestamp,
    /// Of a named unit.
    pub unit: Option<u64>,
    /// Of its place in the log.
    pub place: u64,
    pub value: f64,
}

impl Watch {
    pub fn new(guardrail: &Guardrail) -> Watch {
        let recent = match guardrail.rule {
            Rule::Absolute { of_last, .. } => Some(Recent::new(of_last)),
            _ => None,
        };
        Watch { recent, ..Watch::default() }
    }

    /// Takes in one observation at log time `now`, of a cohort of `length` that settles at `settles`. Returns
    /// whether an absolute guard has news by it: it fired, or had heard nothing before.
    #[inline]
    pub fn observe(
        &mut self,
        guardrail: &Guardrail,
        length: Span,
        now: Timestamp,
        settles: Timestamp,
        o: Observation,
    ) -> bool {
        self.note(o.arm, now, 1);
        if let Rule::Absolute { above, .. } = guardrail.rule {
            return o.arm == Arm::Canary && self.observe_absolute(guardrail.better, above, o.value, 1);
        }
        let Some(cohort) = self.waiting(o.cohort, settles <= now, 1) else { return false };
        let offset = o.served_at.since(o.cohort);
        match (&guardrail.rule, o.unit) {
            (Rule::Proportion { .. }, None) => {
                cohort.count(o.arm, offset, length, 1, u64::from(o.value >= 0.5));
            }
            (_, unit) => cohort.keep(o.arm, offset, unit.unwrap_or(o.place), o.value),
        }
        false
    }

    /// Takes in zeros and ones that the sender summed.
    #[allow(clippy::too_many_arguments, reason = "an observation with its counts and its moment")]
    pub fn observe_counts(
        &mut self,
        guardrail: &Guardrail,
        length: Span,
        now: Timestamp,
        settles: Timestamp,
        o: Observation,
        n: u64,
        ones: u64,
    ) -> bool {
        self.note(o.arm, now, n);
        if let Rule::Absolute { above, .. } = guardrail.rule {
            // The order inside an aggregate is not known; the window sees the ones first.
            return o.arm == Arm::Canary
                && (self.observe_absolute(guardrail.better, above, 1.0, ones)
                    | self.observe_absolute(guardrail.better, above, 0.0, n - ones));
        }
        let Some(cohort) = self.waiting(o.cohort, settles <= now, n) else { return false };
        cohort.count(o.arm, o.served_at.since(o.cohort), length, n, ones);
        false
    }

    /// That `n` observations of an arm have come in, whatever becomes of them.
    #[inline]
    fn note(&mut self, arm: Arm, now: Timestamp, n: u64) {
        if arm == Arm::Canary {
            self.canary_seen += n;
            self.last_canary = Some(now);
        }
    }

    /// The cohort that starts at `start`, while it waits; after that, the `n` observations count as late.
    #[inline]
    fn waiting(&mut self, start: Timestamp, settled: bool, n: u64) -> Option<&mut Cohort> {
        let late = settled || self.scored_to.is_some_and(|scored| start <= scored);
        if late && !planted(Bug::BetsLate) {
            self.late += n;
            return None;
        }
        Some(self.cohorts.entry(start).or_default())
    }

    fn observe_absolute(&mut self, better: Better, above: f64, value: f64, times: u64) -> bool {
        let recent = self.recent.as_mut().expect("an absolute guard has a window");
        let bad = (value >= 0.5) == (better == Better::Lower);
        // Also news: the first word from a canary that was silent. Nothing else would look, for there is no cohort to
        // settle.
        let silent = !matches!(self.verdict, Some(Verdict::Pass | Verdict::Fail));
        let before = recent.fired;
        for _ in 0..times.min(u64::from(recent.size)) {
            recent.push(bad, above);
        }
        silent || recent.fired && !before
    }

    /// Start of the oldest cohort that waits.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.cohorts.keys().next().copied()
    }

    /// Scores the cohort that starts at `start`, served at `step`: what it held and the evidence afterwards.
    pub fn score(&self, guardrail: &Guardrail, rules: &EvidenceRules, start: Timestamp, step: u16) -> Scored {
        let cohort = &self.cohorts[&start];
        let mut evidence = self.evidence.clone();
        let (mut baseline, mut canary) = (ArmCount::default(), ArmCount::default());
        let portions: Vec<_> = if matches!(guardrail.rule, Rule::Mean { .. }) {
            cohort.values(start)
        } else {
            cohort.counts(start, rules.cohort).collect()
        };
        if self.reference.is_some() {
            evidence.enter_step(step);
        }
        for (at, portion) in &portions {
            match *portion {
                Portion::Counts { n_a, f_a, n_b, f_b } => {
                    baseline.add(n_a, f_a as f64);
                    canary.add(n_b, f_b as f64);
                }
                Portion::Value { canary: false, x } => baseline.add(1, x),
                Portion::Value { canary: true, x } => canary.add(1, x),
            }
            if let Some(reference) = &self.reference {
                evidence.add(guardrail, reference, *at, portion);
            }
        }
        if let Some(reference) = &self.reference {
            let end = start.plus(rules.cohort);
            evidence.end_cohort(guardrail, reference, end);
        }
        if evidence.step != step {
            let kept = if planted(Bug::ForgetsStepCount) { evidence.step_canary } else { 0 };
            (evidence.step, evidence.step_canary) = (step, kept);
        }
        evidence.step_canary += canary.n;
        Scored { step, baseline, canary, reference_only: self.reference.is_none(), evidence }
    }

    /// Folds a scored cohort: the evidence as recorded, and its baseline into the next reference.
    pub fn apply_scored(&mut self, guardrail: &Guardrail, start: Timestamp, scored: &Scored) {
        let Some(cohort) = self.cohorts.remove(&start) else { return };
        self.scored_to = Some(start);
        if let (Rule::Mean { .. }, Some(reference)) = (&guardrail.rule, &self.reference) {
            // Only what the baseline's own cohort held, normalised as the bets see it.
            for (_, portion) in cohort.values(start) {
                if let Portion::Value { canary: false, x } = portion {
                    let y = reference.baseline_y(x);
                    self.gathered.n += 1;
                    self.gathered.sum += y;
                    self.gathered.sumsq += y * y;
                }
            }
        } else {
            self.gathered.n += scored.baseline.n;
            self.gathered.sum += scored.baseline.sum;
            if matches!(guardrail.rule, Rule::Mean { .. }) {
                let room = GATHERED_MAX.saturating_sub(self.gathered.values.len());
                let values = cohort.values(start).into_iter().filter_map(|(_, portion)| match portion {
                    Portion::Value { canary: false, x } => Some(x),
                    _ => None,
                });
                self.gathered.values.extend(values.take(room));
            }
        }
        self.gathered.forget();
        self.evidence = scored.evidence.clone();
    }

    /// The reference to freeze now, if any: the first as soon as the baseline suffices, the next when an
    /// epoch has ended since the last.
    pub fn next_reference(
        &self,
        guardrail: &Guardrail,
        rules: &EvidenceRules,
    ) -> Option<Result<Reference, String>> {
        match &self.reference {
            None if self.gathered.n >= u64::from(rules.reference_min) && self.unusable.is_none() => {
                Some(Reference::first(guardrail, &self.gathered).map_err(|e| e.0))
            }
            // What was gathered has been scored already; only cohorts still to come will use it.
            Some(reference)
                if self.gathered.n >= EPOCH_CANARY && self.evidence.harm.epoch > self.reference_epoch =>
            {
                let refreshed = reference.refreshed(guardrail, &self.gathered);
                refreshed.differs(reference).then_some(Ok(refreshed))
            }
            _ => None,
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

    /// Folds a frozen reference; the first starts the evidence.
    pub fn apply_reference(&mut self, reference: &Reference, step: u16) {
        if self.reference.is_none() {
            self.evidence.start(reference, step);
        }
        self.reference_epoch = self.evidence.harm.epoch;
        self.reference = Some(reference.clone());
        self.gathered = Gathered::default();
    }
}

impl ArmCount {
    pub fn add(&mut self, n: u64, sum: f64) {
        self.n += n;
        self.sum += sum;
    }

    pub fn mean(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.sum / self.n as f64 }
    }
}
