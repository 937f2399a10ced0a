//! How a monitor takes in what is observed: into the cohort that it was served in, or the window of an absolute guard.

use super::kind::{Counts, Summed, Way};
use super::monitor::GuardrailMonitor;
use super::verdict::Verdict;
use crate::core::policy::guardrail::{Guardrail, SLICES_MAX};
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

impl GuardrailMonitor {
    /// Takes in one observation. Returns whether what is counted as it comes has news by it: too many are bad, or nothing had
    /// been heard before.
    #[inline]
    pub fn observe(&mut self, receipt: &Receipt, o: Observation) -> bool {
        let Receipt { guardrail, length, now, settled } = *receipt;
        let rule = guardrail.rule.kind();
        let kind = match rule.way() {
            Way::Compares(kind) => kind,
            Way::Counts(kind) => {
                let bad = kind.bad(guardrail.better, o.value);
                return self.count(kind, o.arm, now, (1, bad));
            }
        };
        let profile = rule.profile();
        self.note(o.arm, now, 1);
        self.clamped += u64::from(profile.graded && !(0.0..=1.0).contains(&o.value));
        if self.late(o.cohort, settled, 1) {
            return false;
        }
        let cohort = self.cohorts.entry(o.cohort).or_default();
        if profile.judged {
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
            self.slices.insert(slice.to_owned(), GuardrailMonitor::default());
        }
        if let Some(part) = self.slices.get_mut(slice) {
            part.observe(receipt, o);
        }
    }

    /// Takes in what the sender summed. What its kind cannot use is counted as left out.
    pub fn observe_sums(&mut self, receipt: &Receipt, o: Observation, (n, sums): (u64, &Sums)) -> bool {
        let Receipt { guardrail, length, now, settled } = *receipt;
        let kind = match guardrail.rule.kind().way() {
            Way::Compares(kind) => kind,
            Way::Counts(kind) => match kind.bad_of(guardrail.better, n, sums) {
                Some(bad) => return self.count(kind, o.arm, now, (n, bad)),
                None => {
                    // For all that is known, all of them are bad.
                    if kind.is_heard(n, n) {
                        self.note(o.arm, now, n);
                    }
                    self.left_out += n;
                    return false;
                }
            },
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
        self.late += if late { n } else { 0 };
        late
    }

    /// Counts observations as they come, with so many bad ones. Returns whether there is news by it.
    fn count(&mut self, kind: &dyn Counts, arm: Arm, now: Timestamp, (n, bad): (u64, u64)) -> bool {
        if kind.is_heard(n, bad) {
            self.note(arm, now, n);
        }
        // Also news: the first word from a canary that was silent. Nothing else would look, for there is no cohort to
        // settle.
        let silent = !matches!(self.verdict, Some(Verdict::Pass | Verdict::Fail));
        let Some(tally) = self.tally.as_mut().filter(|_| arm == Arm::Canary) else { return false };
        let before = tally.is_over();
        tally.take(n, bad);
        silent || tally.is_over() && !before
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::Reference;
    use super::*;
    use crate::core::policy::guardrail::{Absolute, Better, Mean, Rule, Stop};
    use crate::core::telemetry::observation::Role;
    use crate::core::telemetry::tally::Tally;

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
        let rule = Rule::Absolute(Absolute { above: 0.5, of_last: 10 });
        let well = Guardrail::new("well", Better::Higher, rule);
        let mut monitor = GuardrailMonitor::new(&well);
        let mut is_over = |ones| {
            let receipt = Receipt { guardrail: &well, length: MINUTE, now: Timestamp(1_000), settled: false };
            let o = at(Arm::Canary, 1_000, Role::Value, 0.0);
            monitor.observe_sums(&receipt, o, (1_000, &Sums::Ones(ones)));
            monitor.tally.as_ref().is_some_and(Tally::is_over)
        };
        assert_eq!([is_over(900), is_over(300)], [false, true]);
    }

    /// The mean of fifty scatters more than that of a thousand, and a cap would cut more of it.
    #[test]
    fn sums_of_a_mean_are_left_out_and_counted() {
        let mut monitor =
            GuardrailMonitor { reference: Some(Reference::default()), ..GuardrailMonitor::default() };
        let price = Guardrail::new("cost", Better::Lower, Rule::Mean(Mean { handicap: 0.2 }));
        let sums = Sums::Moments { sum: 5.0, sumsq: 1.0 };
        let o = at(Arm::Canary, 1_000, Role::Value, 0.0);
        let receipt = Receipt { guardrail: &price, length: MINUTE, now: Timestamp(1_000), settled: false };
        monitor.observe_sums(&receipt, o, (50, &sums));
        assert_eq!((monitor.left_out, monitor.canary_seen, monitor.cohorts.len()), (50, 50, 0));
    }

    /// Leaks, and whether somebody says that there was none.
    #[test]
    fn a_hit_is_no_sign_that_a_detector_lives() {
        let leak = Guardrail::new("leak", Better::Lower, Rule::Stop(Stop { allowed: 2 }));
        let mut monitor = GuardrailMonitor::new(&leak);
        let mut after = |minute: u64, n, sums: Sums| {
            let now = Timestamp(minute * MINUTE.0);
            let receipt = Receipt { guardrail: &leak, length: MINUTE, now, settled: true };
            monitor.observe_sums(&receipt, at(Arm::Canary, 0, Role::Value, 0.0), (n, &sums));
            (monitor.last_canary, monitor.tally.as_ref().is_some_and(Tally::is_over))
        };
        let heard = |minute: u64| Some(Timestamp(minute * MINUTE.0));
        assert_eq!(after(1, 1, Sums::Ones(1)), (None, false));
        let histogram = Sums::Histogram { bounds: vec![f64::INFINITY], counts: vec![9] };
        assert_eq!(after(2, 9, histogram), (None, false));
        assert_eq!(after(3, 50, Sums::Ones(0)), (heard(3), false));
        assert_eq!(after(4, 50, Sums::Moments { sum: 1.0, sumsq: 1.0 }), (heard(4), false));
        assert_eq!(after(5, 1, Sums::Ones(1)), (heard(4), true));
    }
}
