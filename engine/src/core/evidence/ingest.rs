//! How a watch takes in what is observed: into the cohort that it was served in, or the window of an absolute guard.

use super::kind::Summed;
use super::monitor::Watch;
use super::verdict::Verdict;
use crate::core::planted::{Bug, planted};
use crate::core::policy::guardrail::{Better, Guardrail, SLICES_MAX};
use crate::core::telemetry::arm::Arm;
use crate::core::telemetry::columns::Sums;
use crate::core::telemetry::observation::Observation;
use crate::core::time::{Span, Timestamp};

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

impl Watch {
    /// Takes in one observation. Returns whether an absolute guard has news by it: it fired, or had heard nothing
    /// before.
    #[inline]
    pub fn observe(&mut self, receipt: &Receipt, o: Observation) -> bool {
        let Receipt { guardrail, length, now, settled } = *receipt;
        self.note(o.arm, now, 1);
        let rule = guardrail.rule.kind();
        let (profile, Some(kind)) = (rule.profile(), rule.compares()) else {
            return self.observe_at_once(o.arm, guardrail.better, 1, u64::from(o.is_one()));
        };
        self.clamped += u64::from(profile.graded && !(0.0..=1.0).contains(&o.value));
        if self.late(o.cohort, settled, 1) {
            return false;
        }
        let cohort = self.cohorts.entry(o.cohort).or_default();
        if profile.judged && !planted(Bug::MixesJudges) {
            let Some(dropped) = cohort.admit(o.judge) else {
                self.left_out += 1;
                return false;
            };
            self.left_out += dropped;
        }
        self.left_out += u64::from(!kind.take(cohort, &o, length));
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
        let Receipt { guardrail, length, now, settled } = *receipt;
        let Some(kind) = guardrail.compares() else {
            let Some(ones) = sums.ones(n) else {
                self.leave_out(o.arm, now, n);
                return false;
            };
            self.note(o.arm, now, n);
            return self.observe_at_once(o.arm, guardrail.better, n, ones);
        };
        match kind.sums(n, sums, o.role) {
            Summed::Counts(n, ones) => {
                self.note(o.arm, now, n);
                if !self.late(o.cohort, settled, n) {
                    self.cohorts.entry(o.cohort).or_default().count(&o, length, n, ones);
                }
            }
            Summed::Mean(value) => return self.observe(receipt, Observation { value, ..o }),
            Summed::Histogram { bounds, counts } => {
                self.note(o.arm, now, n);
                if !self.late(o.cohort, settled, n) {
                    let cohort = self.cohorts.entry(o.cohort).or_default();
                    let fits = cohort.add_histogram(o.arm, bounds, counts);
                    self.left_out += if fits { 0 } else { n };
                }
            }
            Summed::Nothing => self.leave_out(o.arm, now, n),
        }
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

    /// Whether the cohort that starts at `start` waits no more: then the `n` observations count as late.
    #[inline]
    fn late(&mut self, start: Timestamp, settled: bool, n: u64) -> bool {
        let late = settled || self.scored_to.is_some_and(|scored| start <= scored);
        let late = late && !planted(Bug::BetsLate);
        self.late += if late { n } else { 0 };
        late
    }

    /// Takes `n` observations into the window, of which `ones` are ones. Returns whether there is news by it.
    fn observe_at_once(&mut self, arm: Arm, better: Better, n: u64, ones: u64) -> bool {
        // Also news: the first word from a canary that was silent. Nothing else would look, for there is no cohort to
        // settle.
        let silent = !matches!(self.verdict, Some(Verdict::Pass | Verdict::Fail));
        let Some(recent) = self.recent.as_mut().filter(|_| arm == Arm::Canary) else { return false };
        let before = recent.fired;
        let bad = if better == Better::Lower { ones } else { n - ones };
        if planted(Bug::SumsAtOnce) {
            recent.run(true, bad);
            recent.run(false, n - bad);
        } else {
            recent.spread(n, bad);
        }
        silent || recent.fired && !before
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::Reference;
    use super::*;
    use crate::core::policy::guardrail::{Mean, Rule};
    use crate::core::telemetry::observation::Role;
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
        let mut watch = Watch { recent: Some(Recent::new(10, 0.5)), ..Watch::default() };
        watch.observe_at_once(Arm::Canary, Better::Higher, 1_000, 900);
        assert!(!watch.recent.as_ref().is_some_and(|recent| recent.fired));
        watch.observe_at_once(Arm::Canary, Better::Higher, 1_000, 300);
        assert!(watch.recent.is_some_and(|recent| recent.fired));
    }

    /// The mean of fifty scatters more than that of a thousand, and a cap would cut more of it.
    #[test]
    fn sums_of_a_mean_are_left_out_and_counted() {
        let mut watch = Watch { reference: Some(Reference::default()), ..Watch::default() };
        let price = Guardrail::new("cost", Better::Lower, Rule::Mean(Mean { handicap: 0.2 }));
        let sums = Sums::Moments { sum: 5.0, sumsq: 1.0 };
        let o = at(Arm::Canary, 1_000, Role::Value, 0.0);
        let receipt = Receipt { guardrail: &price, length: MINUTE, now: Timestamp(1_000), settled: false };
        watch.observe_sums(&receipt, o, (50, &sums));
        assert_eq!((watch.left_out, watch.canary_seen, watch.cohorts.len()), (50, 50, 0));
    }
}
