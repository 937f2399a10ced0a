//! How a watch takes in what is observed: into the cohort that it was served in, or the window of an absolute guard.

use super::monitor::Watch;
use super::verdict::Verdict;
use crate::core::planted::{Bug, planted};
use crate::core::policy::guardrail::{Better, Guardrail, Rule, SLICES_MAX};
use crate::core::telemetry::arm::Arm;
use crate::core::telemetry::cohort::Cohort;
use crate::core::telemetry::columns::Sums;
use crate::core::time::{Span, Timestamp};

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

/// By whom and when observations are taken in.
#[derive(Clone, Copy)]
pub struct Receipt<'a> {
    pub guardrail: &'a Guardrail,
    /// Of a cohort.
    pub length: Span,
    /// By the log.
    pub now: Timestamp,
    /// Whether the cohort had settled by then.
    pub settled: bool,
}

/// What an observation is to a guardrail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of its metric.
    Value,
    /// Of the metric that every request has, for a missing share.
    Request,
}

/// How many events a sample stands for.
fn events(value: f64) -> u64 {
    libm::round(value).clamp(0.0, 1e12) as u64
}

impl Watch {
    /// Takes in one observation. Returns whether an absolute guard has news by it: it fired, or had heard nothing
    /// before.
    #[inline]
    pub fn observe(&mut self, receipt: &Receipt, o: Observation) -> bool {
        let Receipt { guardrail, length, now, settled } = *receipt;
        self.note(o.arm, now, 1);
        if let Rule::Absolute { above, .. } = guardrail.rule {
            let ones = u64::from(o.value >= 0.5);
            return o.arm == Arm::Canary && self.observe_absolute(guardrail.better, above, 1, ones);
        }
        let graded = matches!(guardrail.rule, Rule::Score { .. } | Rule::Paired { .. });
        self.clamped += u64::from(graded && !(0.0..=1.0).contains(&o.value));
        // That something came is no judgement.
        let judged = !matches!(guardrail.rule, Rule::Missing { .. } | Rule::Count { .. } | Rule::Split);
        let Some(cohort) = self.waiting(o.cohort, settled, 1) else { return false };
        let mut left_out = 0;
        if judged && !planted(Bug::MixesJudges) {
            let Some(dropped) = cohort.admit(o.judge) else {
                self.left_out += 1;
                return false;
            };
            left_out = dropped;
        }
        let place = (o.place >> 32) as u32;
        let offset = o.served_at.since(o.cohort);
        match (&guardrail.rule, o.unit) {
            (Rule::Proportion { .. }, None) => {
                cohort.count(o.arm, offset, length, 1, u64::from(o.value >= 0.5));
            }
            // A sample says how many events there were; a unit of which there were any counts once.
            (Rule::Count { .. }, None) => cohort.count(o.arm, offset, length, events(o.value), 0),
            (Rule::Count { .. }, Some(_)) if events(o.value) == 0 && !planted(Bug::NoneCounts) => {}
            (Rule::Split, None) => cohort.count(o.arm, offset, length, 1, 0),
            // Requests are counted as such; of their values, that they came.
            (Rule::Missing { .. }, _) => match o.role {
                Role::Request => cohort.count(o.arm, offset, length, 1, 0),
                Role::Value => cohort.count(o.arm, offset, length, 0, 1),
            },
            // Without a unit there is nothing to pair it with.
            (Rule::Paired { .. }, None) => left_out += 1,
            (Rule::Score { .. } | Rule::Paired { .. }, unit) => {
                cohort.keep(o.arm, offset, unit.unwrap_or(o.place), place, o.value.clamp(0.0, 1.0));
            }
            (_, unit) => cohort.keep(o.arm, offset, unit.unwrap_or(o.place), place, o.value),
        }
        self.left_out += left_out;
        false
    }

    /// Takes the observation into the part it belongs to as well.
    pub fn observe_slice(&mut self, receipt: &Receipt, o: Observation, slice: &str) {
        // What came too late for the whole is too late for a part of it.
        if !self.cohorts.contains_key(&o.cohort) {
            return;
        }
        if !self.slices.contains_key(slice) {
            let follows = match &receipt.guardrail.judged {
                Some(judged) => judged.values.iter().any(|value| value == slice),
                None => self.slices.len() < SLICES_MAX,
            };
            if !follows {
                return;
            }
            self.slices.insert(slice.to_owned(), Watch::default());
        }
        if let Some(part) = self.slices.get_mut(slice) {
            part.observe(receipt, o);
        }
    }

    /// Takes in what the sender summed. What its kind cannot use is counted as left out.
    pub fn observe_sums(&mut self, receipt: &Receipt, o: Observation, (n, sums): (u64, &Sums)) -> bool {
        let Receipt { guardrail, now, settled, .. } = *receipt;
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
            return self.observe_counts(receipt, o, n, ones);
        }
        let mean = match (&guardrail.rule, sums) {
            // The means of few values scatter more than those of many, and the cap cuts what scatters: where the arms sum
            // different numbers of requests, it would cut more of one.
            (Rule::Mean { .. }, _) if !planted(Bug::SumsOfMeans) => {
                self.leave_out(o.arm, now, n);
                return false;
            }
            // Of values only their mean is known: it counts as one observation of it.
            (Rule::Mean { .. } | Rule::Score { .. }, Sums::Moments { sum, .. }) => sum / n as f64,
            (Rule::Mean { .. } | Rule::Score { .. }, Sums::Ones(ones)) => *ones as f64 / n as f64,
            (Rule::Quantile { .. }, Sums::Histogram { bounds, counts }) => {
                self.note(o.arm, now, n);
                if let Some(cohort) = self.waiting(o.cohort, settled, n)
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
        self.observe(receipt, Observation { value: mean, ..o })
    }

    /// Takes in zeros and ones that the sender summed.
    fn observe_counts(&mut self, receipt: &Receipt, o: Observation, n: u64, ones: u64) -> bool {
        let Receipt { guardrail, length, now, settled } = *receipt;
        self.note(o.arm, now, n);
        if let Rule::Absolute { above, .. } = guardrail.rule {
            return o.arm == Arm::Canary && self.observe_absolute(guardrail.better, above, n, ones);
        }
        let Some(cohort) = self.waiting(o.cohort, settled, n) else { return false };
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

    /// Takes `n` observations into the window, of which `ones` are ones. Returns whether there is news by it.
    fn observe_absolute(&mut self, better: Better, above: f64, n: u64, ones: u64) -> bool {
        let recent = self.recent.as_mut().expect("an absolute guard has a window");
        // Also news: the first word from a canary that was silent. Nothing else would look, for there is no cohort to
        // settle.
        let silent = !matches!(self.verdict, Some(Verdict::Pass | Verdict::Fail));
        let before = recent.fired;
        let ones_are_bad = better == Better::Lower;
        if planted(Bug::SumsAtOnce) {
            recent.run(ones_are_bad, ones, above);
            recent.run(!ones_are_bad, n - ones, above);
        } else {
            recent.spread(n, if ones_are_bad { ones } else { n - ones }, above);
        }
        silent || recent.fired && !before
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::Reference;
    use super::*;
    use crate::core::telemetry::sliding_window::Recent;

    const MINUTE: Span = Span::mins(1);

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

    /// Higher is better: zeros are the bad ones.
    #[test]
    fn an_absolute_guard_counts_the_zeros_of_a_sum_where_ones_are_good() {
        let mut watch = Watch { recent: Some(Recent::new(10)), ..Watch::default() };
        watch.observe_absolute(Better::Higher, 0.5, 1_000, 900);
        assert!(!watch.recent.as_ref().is_some_and(|recent| recent.fired));
        watch.observe_absolute(Better::Higher, 0.5, 1_000, 300);
        assert!(watch.recent.is_some_and(|recent| recent.fired));
    }

    /// The mean of fifty scatters more than that of a thousand, and a cap would cut more of it.
    #[test]
    fn sums_of_a_mean_are_left_out_and_counted() {
        let mut watch = Watch { reference: Some(Reference::default()), ..Watch::default() };
        let price = Guardrail::new("cost", Better::Lower, Rule::Mean { handicap: 0.2 });
        let sums = Sums::Moments { sum: 5.0, sumsq: 1.0 };
        let o = at(Arm::Canary, 1_000, Role::Value, 0.0);
        let receipt = Receipt { guardrail: &price, length: MINUTE, now: Timestamp(1_000), settled: false };
        watch.observe_sums(&receipt, o, (50, &sums));
        assert_eq!((watch.left_out, watch.canary_seen, watch.cohorts.len()), (50, 50, 0));
    }
}
