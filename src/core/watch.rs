//! One guardrail of one rollout at work: what waits, what it has learned, what it last said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cohort::{Arm, Cohort, Histogram};
use super::columns::Sums;
use super::conclusion::ArmCount;
use super::evidence::{Evidence, Portion, Scored};
use super::planted::{Bug, planted};
use super::policy::{Better, Guardrail, Policy, Rule};
use super::reference::{Gathered, Reference, canary_factor};
use super::renewal::needs_values;
use super::time::{Span, Timestamp};
use super::verdict::Verdict;

/// What one guardrail of one rollout holds and has learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// The engine it works by; 0 for those before the third.
    #[serde(default, skip_serializing_if = "is_early")]
    pub engine: u32,
    pub reference: Option<Reference>,
    /// Epoch in which it was frozen.
    pub reference_epoch: u32,
    /// Baseline observations for the next reference.
    pub gathered: Gathered,
    /// Why no reference could be frozen, until one can.
    pub unusable: Option<String>,
    /// How many baseline observations were gathered when that was last tried.
    #[serde(default)]
    pub tried: u64,
    pub evidence: Evidence,
    /// By start; each belongs to one step.
    pub cohorts: BTreeMap<Timestamp, Cohort>,
    /// Start of the last scored cohort.
    pub scored_to: Option<Timestamp>,
    /// Observations that came after their cohort was scored: stored, counted, not bet on.
    pub late: u64,
    /// Observations that the guardrail's kind cannot use, such as a sum where values are needed.
    #[serde(default)]
    pub left_out: u64,
    /// Grades outside of 0 to 1, which count as the nearer of the two.
    #[serde(default)]
    pub clamped: u64,
    /// Canary observations that came in at all, and when the last one did.
    pub canary_seen: u64,
    pub last_canary: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_baseline: Option<Timestamp>,
    /// The same by value of a tag. At most [`SLICES_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slices: BTreeMap<String, Watch>,
    /// Absolute guards only.
    pub recent: Option<Recent>,
    /// What it last said. `Fail` stays.
    pub verdict: Option<Verdict>,
    /// Who promoted past its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
    /// The step at which it was shown safe. One crossing suffices for a promotion, whatever follows; it does
    /// not count against evidence of harm, nor at the next step.
    pub safe_at: Option<u16>,
}

/// Values of a tag that are followed, or that a policy may name; observations with others count in the whole only.
pub const SLICES_MAX: usize = 16;

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
    /// Of who graded it, where that is said.
    pub judge: Option<u64>,
    /// Of its place in the log.
    pub place: u64,
    pub value: f64,
    pub role: Role,
}

/// What an observation is to a guardrail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of its metric.
    Value,
    /// Of the metric that every request has, for a missing share.
    Request,
}

fn is_early(engine: &u32) -> bool {
    *engine == 0
}

/// How many events a sample stands for.
fn events(value: f64) -> u64 {
    libm::round(value).clamp(0.0, 1e12) as u64
}

impl Watch {
    pub fn new(guardrail: &Guardrail, engine: u32) -> Watch {
        let recent = match guardrail.rule {
            Rule::Absolute { of_last, .. } => Some(Recent::new(of_last)),
            _ => None,
        };
        let engine = if engine >= 3 { engine } else { 0 };
        Watch { engine, recent, ..Watch::default() }
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
            let ones = u64::from(o.value >= 0.5);
            return o.arm == Arm::Canary && self.observe_absolute(guardrail.better, above, 1, ones);
        }
        let graded = matches!(guardrail.rule, Rule::Score { .. } | Rule::Paired { .. });
        self.clamped += u64::from(graded && !(0.0..=1.0).contains(&o.value));
        let (third, fourth) = (self.engine >= 3, self.engine >= 4);
        // That something came is no judgement.
        let judged =
            !fourth || !matches!(guardrail.rule, Rule::Missing { .. } | Rule::Count { .. } | Rule::Split);
        let Some(cohort) = self.waiting(o.cohort, settles <= now, 1) else { return false };
        if third && judged && !planted(Bug::MixesJudges) {
            let dropped = cohort.admit(o.judge, fourth);
            self.left_out += dropped.unwrap_or(1);
            if dropped.is_none() {
                return false;
            }
        }
        // Engines before the fourth took of two at the same moment whichever came first.
        let place = if fourth { (o.place >> 32) as u32 } else { 0 };
        let Some(cohort) = self.cohorts.get_mut(&o.cohort) else { return false };
        let offset = o.served_at.since(o.cohort);
        match (&guardrail.rule, o.unit) {
            (Rule::Proportion { .. }, None) => {
                cohort.count(o.arm, offset, length, 1, u64::from(o.value >= 0.5));
            }
            // A sample says how many events there were; a unit of which there were any counts once.
            (Rule::Count { .. }, None) => cohort.count(o.arm, offset, length, events(o.value), 0),
            (Rule::Count { .. }, Some(_)) if third && events(o.value) == 0 && !planted(Bug::NoneCounts) => {}
            (Rule::Split, None) => cohort.count(o.arm, offset, length, 1, 0),
            // Requests are counted as such; of their values, that they came.
            (Rule::Missing { .. }, _) => match o.role {
                Role::Request => cohort.count(o.arm, offset, length, 1, 0),
                Role::Value => cohort.count(o.arm, offset, length, 0, 1),
            },
            // Without a unit there is nothing to pair it with.
            (Rule::Paired { .. }, None) => self.left_out += 1,
            (Rule::Score { .. } | Rule::Paired { .. }, unit) => {
                cohort.keep(o.arm, offset, unit.unwrap_or(o.place), place, o.value.clamp(0.0, 1.0));
            }
            (_, unit) => cohort.keep(o.arm, offset, unit.unwrap_or(o.place), place, o.value),
        }
        false
    }

    /// Takes the observation into the part it belongs to as well.
    pub fn observe_slice(
        &mut self,
        guardrail: &Guardrail,
        length: Span,
        now: Timestamp,
        settles: Timestamp,
        o: Observation,
        slice: &str,
    ) {
        // What came too late for the whole is too late for a part of it.
        if self.engine >= 4 && !self.cohorts.contains_key(&o.cohort) {
            return;
        }
        if !self.slices.contains_key(slice) {
            let follows = match &guardrail.judged {
                Some(judged) => judged.values.iter().any(|value| value == slice),
                None => self.slices.len() < SLICES_MAX,
            };
            if !follows {
                return;
            }
            self.slices.insert(slice.to_owned(), Watch { engine: self.engine, ..Watch::default() });
        }
        if let Some(part) = self.slices.get_mut(slice) {
            part.observe(guardrail, length, now, settles, o);
        }
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

    /// Takes in what the sender summed. What its kind cannot use is counted as left out.
    pub fn observe_sums(
        &mut self,
        guardrail: &Guardrail,
        length: Span,
        now: Timestamp,
        settles: Timestamp,
        o: Observation,
        (n, sums): (u64, &Sums),
    ) -> bool {
        let counts = |ones: u64| (n, ones);
        let counted = match (&guardrail.rule, sums) {
            (Rule::Proportion { .. } | Rule::Absolute { .. }, Sums::Ones(ones)) => Some(counts(*ones)),
            // Of zeros and ones the sum of squares is the sum.
            (Rule::Proportion { .. } | Rule::Absolute { .. }, Sums::Moments { sum, sumsq })
                if sum == sumsq && *sum >= 0.0 && *sum <= n as f64 && libm::floor(*sum) == *sum =>
            {
                Some(counts(*sum as u64))
            }
            (Rule::Count { .. }, Sums::Ones(ones)) => Some((*ones, 0)),
            (Rule::Count { .. }, Sums::Moments { sum, .. }) => Some((events(*sum), 0)),
            (Rule::Split, _) => Some((n, 0)),
            (Rule::Missing { .. }, _) => match o.role {
                Role::Request => Some((n, 0)),
                Role::Value => Some((0, n)),
            },
            _ => None,
        };
        if let Some((n, ones)) = counted {
            return self.observe_counts(guardrail, length, now, settles, o, n, ones);
        }
        let mean = match (&guardrail.rule, sums) {
            // The means of few values scatter more than those of many, and the cap cuts what scatters: where the arms sum
            // different numbers of requests, it would cut more of one.
            (Rule::Mean { .. }, _) if self.engine >= 4 => {
                self.leave_out(o.arm, now, n);
                return false;
            }
            // Of values only their mean is known: it counts as one observation of it.
            (Rule::Mean { .. } | Rule::Score { .. }, Sums::Moments { sum, .. }) => sum / n as f64,
            (Rule::Mean { .. } | Rule::Score { .. }, Sums::Ones(ones)) => *ones as f64 / n as f64,
            (Rule::Quantile { .. }, Sums::Histogram { bounds, counts }) => {
                self.note(o.arm, now, n);
                if let Some(cohort) = self.waiting(o.cohort, settles <= now, n)
                    && !cohort.add_histogram(o.arm, bounds, counts)
                {
                    self.left_out += n;
                }
                return false;
            }
            _ => {
                self.leave_out(o.arm, now, n);
                return false;
            }
        };
        self.observe(guardrail, length, now, settles, Observation { value: mean, ..o })
    }

    /// Takes in zeros and ones that the sender summed.
    #[allow(clippy::too_many_arguments, reason = "an observation with its counts and its moment")]
    fn observe_counts(
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
            return o.arm == Arm::Canary && self.observe_absolute(guardrail.better, above, n, ones);
        }
        let Some(cohort) = self.waiting(o.cohort, settles <= now, n) else { return false };
        cohort.count(o.arm, o.served_at.since(o.cohort), length, n, ones);
        false
    }

    /// Counts what its kind cannot use.
    pub fn leave_out(&mut self, arm: Arm, now: Timestamp, n: u64) {
        self.note(arm, now, n);
        self.left_out += n;
    }

    /// That `n` observations of an arm have come in, whatever becomes of them.
    #[inline]
    fn note(&mut self, arm: Arm, now: Timestamp, n: u64) {
        if arm == Arm::Canary {
            self.canary_seen += n;
            self.last_canary = Some(now);
        } else {
            self.last_baseline = Some(now);
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

    /// Takes `n` observations into the window, of which `ones` are ones. The order inside a sum is not known: the bad
    /// ones are spread evenly, so that a window shows the share that the sum has. All at once they would show any share.
    fn observe_absolute(&mut self, better: Better, above: f64, n: u64, ones: u64) -> bool {
        let recent = self.recent.as_mut().expect("an absolute guard has a window");
        let bad = u128::from(if better == Better::Lower { ones } else { n - ones });
        let before_the = |i: u64| u128::from(i) * bad / u128::from(n.max(1));
        // Also news: the first word from a canary that was silent. Nothing else would look, for there is no cohort to
        // settle.
        let silent = !matches!(self.verdict, Some(Verdict::Pass | Verdict::Fail));
        let before = recent.fired;
        let size = u64::from(recent.size);
        if self.engine < 3 || planted(Bug::SumsAtOnce) {
            for (times, one) in [(ones, true), (n - ones, false)] {
                (0..times.min(size)).for_each(|_| recent.push(one == (better == Better::Lower), above));
            }
        } else {
            // Spread evenly, they say no more after two windows.
            (0..n.min(2 * size)).for_each(|i| recent.push(before_the(i + 1) > before_the(i), above));
        }
        silent || recent.fired && !before
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
        if let Some(judge) = self.cohorts[&start].judge
            && !planted(Bug::JudgeUnseen)
        {
            evidence.enter_judge(judge);
        }
        if self.reference.is_some() {
            let segment = |step: u16| policy.steps.get(usize::from(step)).and_then(|step| step.segment);
            if segment(step) != segment(evidence.step) && !planted(Bug::SafetyCarries) {
                evidence.enter_segment(guardrail.benefit.is_some() && self.engine >= 3);
                if self.engine >= 4 {
                    evidence.capped = [0; 2];
                }
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
            let kept = if planted(Bug::ForgetsStepCount) { evidence.step_canary } else { 0 };
            (evidence.step, evidence.step_canary) = (step, kept);
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
        let cohort = &self.cohorts[&start];
        let length = policy.evidence.cohort;
        match &guardrail.rule {
            Rule::Mean { .. } | Rule::Score { .. } => cohort.values(start),
            Rule::Quantile { .. } => {
                let mut portions = cohort.values(start);
                let beyond = cohort.histogram().and_then(|held| self.beyond(guardrail, held));
                portions.extend(beyond.map(|beyond| (start.plus(length), beyond)));
                portions
            }
            Rule::Paired { .. } => cohort.pairs(start),
            Rule::Count { .. } | Rule::Split => {
                let [x_a, _, x_b, _] = cohort.totals();
                let share = policy.steps[usize::from(step)].to.as_share();
                vec![(start, Portion::Labels { x_a, x_b, share })]
            }
            Rule::Missing { .. } if self.engine >= 4 => cohort.missing(start).into_iter().collect(),
            Rule::Missing { .. } => {
                let counts = cohort.counts(start, length);
                let missing = |n: u64, came: u64| n.saturating_sub(came);
                let portion = |(at, portion)| match portion {
                    Portion::Counts { n_a, f_a, n_b, f_b } => {
                        let (f_a, f_b) = (missing(n_a, f_a), missing(n_b, f_b));
                        (at, Portion::Counts { n_a, f_a, n_b, f_b })
                    }
                    other => (at, other),
                };
                counts.map(portion).collect()
            }
            Rule::Proportion { .. } | Rule::Absolute { .. } => cohort.counts(start, length).collect(),
        }
    }

    /// How many of a histogram lie beyond the threshold. `None` when no bound is at the threshold: what lies between
    /// two bounds cannot be told.
    fn beyond(&self, guardrail: &Guardrail, held: &Histogram) -> Option<Portion> {
        let threshold = self.reference.as_ref()?.threshold?;
        let at = held.bounds.iter().position(|bound| *bound == threshold)?;
        let limit = threshold * canary_factor(guardrail);
        let (n_a, n_b) = (*held.baseline.last()?, *held.canary.last()?);
        // Counts up to the last bound below the limit, and up to the first at or above it.
        let next = held.bounds.iter().position(|bound| *bound >= limit)?;
        let up_to = held.canary[next];
        let surely = match next {
            _ if held.bounds[next] == limit => up_to,
            // What lies below the first bound may lie on either side of the limit.
            0 if self.engine >= 4 => 0,
            0 => up_to,
            _ => held.canary[next - 1],
        };
        Some(match guardrail.better {
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

    /// Folds a scored cohort: the evidence as recorded, and its baseline into the next reference.
    pub fn apply_scored(
        &mut self,
        guardrail: &Guardrail,
        policy: &Policy,
        start: Timestamp,
        scored: &Scored,
    ) {
        let portions = if needs_values(&guardrail.rule) && self.cohorts.contains_key(&start) {
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

impl ArmCount {
    pub fn add(&mut self, n: u64, sum: f64) {
        self.n += n;
        self.sum += sum;
    }

    pub fn mean(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.sum / self.n as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::Margin;

    /// What an absolute guard on 20 % of the last 200 says of sums, each `(n, ones)`.
    fn fires(sums: &[(u64, u64)]) -> bool {
        let mut watch = Watch { engine: 3, recent: Some(Recent::new(200)), ..Watch::default() };
        sums.iter().for_each(|(n, ones)| {
            watch.observe_absolute(Better::Lower, 0.2, *n, *ones);
        });
        watch.recent.is_some_and(|recent| recent.fired)
    }

    /// Their order is not known, and a window of the worst order shows nothing but how large the sum is.
    #[test]
    fn an_absolute_guard_sees_the_share_of_a_sum_not_its_bad_ones_in_a_row() {
        assert!(!fires(&[(10_000, 50)]));
        assert!(!fires(&[(100, 5); 50]));
        assert!(fires(&[(10_000, 2_100)]));
        assert!(fires(&[(30, 15), (30, 15), (30, 15)]));
        assert!(fires(&[(1_000_000_000_000, 300_000_000_000)]));
    }

    /// Higher is better: zeros are the bad ones.
    #[test]
    fn an_absolute_guard_counts_the_zeros_of_a_sum_where_ones_are_good() {
        let mut watch = Watch { engine: 3, recent: Some(Recent::new(10)), ..Watch::default() };
        watch.observe_absolute(Better::Higher, 0.5, 1_000, 900);
        assert!(!watch.recent.as_ref().is_some_and(|recent| recent.fired));
        watch.observe_absolute(Better::Higher, 0.5, 1_000, 300);
        assert!(watch.recent.is_some_and(|recent| recent.fired));
    }

    const MINUTE: Span = Span::mins(1);

    fn watching(reference: Reference) -> Watch {
        Watch { engine: 4, reference: Some(Reference { engine: 4, ..reference }), ..Watch::default() }
    }

    fn at(arm: Arm, offset: u64, role: Role, value: f64) -> Observation {
        let (unit, judge) = (None, None);
        Observation {
            arm,
            served_at: Timestamp(offset),
            cohort: Timestamp(0),
            unit,
            judge,
            place: offset,
            value,
            role,
        }
    }

    /// What is below the first bound may lie on either side of the canary's limit.
    #[test]
    fn what_the_first_bound_of_a_histogram_holds_is_not_sure_to_be_beyond_a_lower_limit() {
        let watch = watching(Reference { threshold: Some(10.0), ..Reference::default() });
        let held = Histogram {
            bounds: vec![10.0, 20.0, f64::INFINITY],
            baseline: vec![6, 50, 100],
            canary: vec![9, 50, 100],
        };
        let faster = Guardrail::new("tokens", Better::Higher, Rule::Quantile { q: 0.05, handicap: 0.2 });
        let portion = watch.beyond(&faster, &held);
        assert_eq!(portion, Some(Portion::Beyond { n_a: 100, f_a: 6, n_b: 100, f_b: 0, unsure_b: 9 }));
    }

    /// The mean of fifty scatters more than that of a thousand, and a cap would cut more of it.
    #[test]
    fn sums_of_a_mean_are_left_out_and_counted() {
        let mut watch = watching(Reference::default());
        let price = Guardrail::new("cost", Better::Lower, Rule::Mean { handicap: 0.2 });
        let sums = Sums::Moments { sum: 5.0, sumsq: 1.0 };
        let o = at(Arm::Canary, 1_000, Role::Value, 0.0);
        watch.observe_sums(&price, MINUTE, Timestamp(1_000), Timestamp(60_000), o, (50, &sums));
        assert_eq!((watch.left_out, watch.canary_seen, watch.cohorts.len()), (50, 50, 0));
    }

    /// Grades of the night do not wait for those of the day.
    #[test]
    fn one_arm_does_not_wait_over_a_gap_for_the_other() {
        let pass = Guardrail::new("pass", Better::Higher, Rule::Proportion { margin: Margin::Points(0.03) });
        let gathered = Gathered { n: 500, sum: 450.0, ..Gathered::default() };
        let reference = Reference::first(&pass, &gathered, 4).unwrap();
        let mut evidence = Evidence::default();
        evidence.start(&reference, 0);
        let hours = |h: u64| Timestamp(h * 3_600_000);
        evidence.add(&pass, &reference, hours(2), &Portion::Counts { n_a: 400, f_a: 360, n_b: 0, f_b: 0 });
        evidence.add(&pass, &reference, hours(14), &Portion::Counts { n_a: 0, f_a: 0, n_b: 40, f_b: 30 });
        assert_eq!((evidence.blocks, evidence.open.n_a, evidence.open.n_b), (0, 0, 40));
    }
}
