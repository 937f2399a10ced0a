//! Observations that wait for their request-time bucket to settle.
//!
//! Late labels must not bias the evidence, so nothing is bet on before everything served in the same
//! minute has had time to arrive. What waits is bounded: zeros and ones without a unit are counts per slot;
//! values, and observations of a named unit, are kept up to [`SAMPLE_MAX`] an arm as a uniform sample, chosen
//! by hash and so independent of what was observed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::arm::{Arm, Histogram, Portion};
use super::observation::Observation;
use crate::core::time::{Span, Timestamp};

/// Values kept of one arm in one cohort.
pub const SAMPLE_MAX: usize = 8192;
/// Slots of a cohort; inside one, order of request time is not kept for counts.
const SLOTS: u64 = 60;

/// One bucket of request time at one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cohort {
    /// Per slot: baseline n and ones, canary n and ones. Empty until the first count.
    slots: Vec<[u64; 4]>,
    baseline: Sampled,
    canary: Sampled,
    /// Who graded what is held, by hash, where that was said.
    pub judge: Option<u64>,
    /// Quantiles only: what came as histograms, all with the bounds of the first.
    histogram: Option<Histogram>,
}

/// A uniform sample of the observations of one arm: those with the smallest keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sampled {
    kept: BTreeMap<u64, Kept>,
    /// Observations offered, repetitions of a unit not counted.
    offered: u64,
}

/// One observation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Milliseconds after the cohort's start.
    at: u32,
    x: f64,
    /// A hash of its place in the log.
    place: u32,
}

impl Sampled {
    fn offer(&mut self, key: u64, at: u32, place: u32, x: f64) {
        // The usual end of an observation in a flood, and so looked at first: above the largest there is nothing.
        let full = self.kept.len() == SAMPLE_MAX;
        if full && self.kept.last_key_value().is_some_and(|(largest, _)| *largest < key) {
            self.offered += 1;
            return;
        }
        if let Some(kept) = self.kept.get_mut(&key) {
            // One observation per unit and cohort: the one served first; of those served at once, one that neither its
            // value nor its arrival has chosen.
            if (at, place) < (kept.at, kept.place) {
                *kept = Kept { at, x, place };
            }
            return;
        }
        self.offered += 1;
        if full {
            self.kept.pop_last();
        }
        self.kept.insert(key, Kept { at, x, place });
    }
}

impl Cohort {
    /// Lets in what `judge` graded: what two judges say cannot be compared. One of them counts, and so does who names
    /// none: the one with the smallest hash, whoever is heard of first, so that it is the same from cohort to cohort.
    /// Returns how many observations of another had to go, `None` if this one has to.
    pub fn admit(&mut self, judge: Option<u64>) -> Option<u64> {
        let Some(judge) = judge else { return Some(0) };
        match self.judge {
            Some(held) if held == judge => Some(0),
            Some(held) if held < judge => None,
            Some(_) => {
                let gone = self.waiting();
                *self = Cohort { judge: Some(judge), ..Cohort::default() };
                Some(gone)
            }
            None => {
                self.judge = Some(judge);
                Some(0)
            }
        }
    }

    /// Counts `n` zeros and ones, of no named unit, where `o` is.
    #[inline]
    pub fn count(&mut self, o: &Observation, length: Span, n: u64, ones: u64) {
        if self.slots.is_empty() {
            self.slots = vec![[0; 4]; SLOTS as usize];
        }
        let slot = &mut self.slots[slot_of(o.offset().0, length)];
        let arm = if o.arm == Arm::Baseline { 0 } else { 2 };
        slot[arm] += n;
        slot[arm + 1] += ones;
    }

    /// Keeps an observation as the value `x`: one of a unit, else one of many. Where it stands in the log decides between
    /// two of a unit that were served at once.
    #[inline]
    pub fn keep(&mut self, o: &Observation, x: f64) {
        let sampled = if o.arm == Arm::Baseline { &mut self.baseline } else { &mut self.canary };
        let at = o.offset().0.min(u64::from(u32::MAX)) as u32;
        sampled.offer(o.unit.unwrap_or(o.place), at, (o.place >> 32) as u32, x);
    }

    /// Adds a histogram. Returns whether it could be: all of one cohort must have the same bounds.
    pub fn add_histogram(&mut self, arm: Arm, bounds: &[f64], counts: &[u64]) -> bool {
        let held = self.histogram.get_or_insert_with(|| Histogram {
            bounds: bounds.to_vec(),
            baseline: vec![0; bounds.len()],
            canary: vec![0; bounds.len()],
        });
        if held.bounds != bounds {
            return false;
        }
        let side = if arm == Arm::Baseline { &mut held.baseline } else { &mut held.canary };
        side.iter_mut().zip(counts).for_each(|(held, more)| *held += more);
        true
    }

    pub fn histogram(&self) -> Option<&Histogram> {
        self.histogram.as_ref()
    }

    /// Observations waiting here.
    pub fn waiting(&self) -> u64 {
        let counted: u64 = self.slots.iter().map(|slot| slot[0] + slot[2]).sum();
        let held = self.histogram.iter().flat_map(|h| [h.baseline.last(), h.canary.last()]).flatten();
        counted + (self.baseline.kept.len() + self.canary.kept.len()) as u64 + held.sum::<u64>()
    }

    /// Of all slots together: baseline n and ones, canary n and ones; of named units the number, thinned alike in
    /// both arms, so that their ratio stays what it is.
    pub fn totals(&self) -> [u64; 4] {
        let mut totals = [0; 4];
        for slot in &self.slots {
            totals.iter_mut().zip(slot).for_each(|(total, n)| *total += n);
        }
        let full = [&self.baseline, &self.canary].into_iter().filter(|s| s.kept.len() == SAMPLE_MAX);
        let largest = full.filter_map(|s| Some(*s.kept.last_key_value()?.0)).min().unwrap_or(u64::MAX);
        totals[0] += self.baseline.kept.range(..=largest).count() as u64;
        totals[2] += self.canary.kept.range(..=largest).count() as u64;
        totals
    }

    /// Requests, and those of them without a value. Of the whole cohort: a request and its value need not be of one slot.
    pub fn missing(&self, start: Timestamp) -> Option<(Timestamp, Portion)> {
        let [n_a, came_a, n_b, came_b] = self.totals();
        let (f_a, f_b) = (n_a.saturating_sub(came_a), n_b.saturating_sub(came_b));
        (n_a + n_b > 0).then_some((start, Portion::Counts { n_a, f_a, n_b, f_b }))
    }

    /// Units that both arms answered, in order of the later answer: baseline's and canary's value.
    pub fn pairs(&self, start: Timestamp) -> Vec<(Timestamp, Portion)> {
        let mut pairs: Vec<_> = self
            .baseline
            .kept
            .iter()
            .filter_map(|(key, Kept { at, x: a, .. })| {
                let Kept { at: other, x: b, .. } = self.canary.kept.get(key)?;
                Some((*at.max(other), *key, *a, *b))
            })
            .collect();
        pairs.sort_by_key(|(at, key, ..)| (*at, *key));
        let portion = |(at, _, a, b)| (start.plus(Span(u64::from(at))), Portion::Pair { a, b });
        pairs.into_iter().map(portion).collect()
    }

    /// Zeros and ones as counts, in order of request time.
    pub fn counts(&self, start: Timestamp, length: Span) -> impl Iterator<Item = (Timestamp, Portion)> {
        let mut slots = if self.slots.is_empty() { vec![[0; 4]; SLOTS as usize] } else { self.slots.clone() };
        for (arm, sampled) in [(0, &self.baseline), (2, &self.canary)] {
            for Kept { at, x, .. } in sampled.kept.values() {
                let slot = &mut slots[slot_of(u64::from(*at), length)];
                slot[arm] += 1;
                slot[arm + 1] += u64::from(*x >= 0.5);
            }
        }
        slots.into_iter().enumerate().filter(|(_, s)| s[0] + s[2] > 0).map(
            move |(i, [n_a, f_a, n_b, f_b])| {
                let at = start.plus(Span(i as u64 * length.0 / SLOTS));
                (at, Portion::Counts { n_a, f_a, n_b, f_b })
            },
        )
    }

    /// Values in order of request time; the key breaks ties, so that the order is the same everywhere.
    pub fn values(&self, start: Timestamp) -> Vec<(Timestamp, Portion)> {
        let of = |canary: bool, sampled: &Sampled| {
            sampled
                .kept
                .iter()
                .map(move |(key, Kept { at, x, .. })| (*at, canary, *key, *x))
                .collect::<Vec<_>>()
        };
        let mut all = of(false, &self.baseline);
        all.extend(of(true, &self.canary));
        all.sort_by_key(|(at, canary, key, _)| (*at, *canary, *key));
        all.into_iter()
            .map(|(at, canary, _, x)| (start.plus(Span(u64::from(at))), Portion::Value { canary, x }))
            .collect()
    }
}

fn slot_of(offset_ms: u64, length: Span) -> usize {
    (offset_ms * SLOTS / length.0.max(1)).min(SLOTS - 1) as usize
}

/// A key for the observation at `index` of the event at `seq`, uniform and unrelated to its value.
#[inline]
pub fn position_key(seq: u64, index: u32) -> u64 {
    mix(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(index))
}

/// A key for a named unit: FNV-1a, then mixed.
pub fn unit_key(unit: &str) -> u64 {
    let fnv = unit
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    mix(fnv)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection that spreads every bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::telemetry::observation::Role;

    /// Served so many ms after the start of the cohort.
    fn at(arm: Arm, offset: u64) -> Observation {
        let (served_at, cohort) = (Timestamp(offset), Timestamp(0));
        let (unit, judge, place, value, role) = (None, None, 0, 0.0, Role::Value);
        Observation { arm, served_at, cohort, unit, judge, place, value, role }
    }

    #[test]
    fn a_unit_counts_once_with_what_it_was_served_first() {
        let mut cohort = Cohort::default();
        for (served, x) in [(900, 0.0), (100, 1.0), (500, 0.0)] {
            cohort.keep(&Observation { unit: Some(unit_key("maya")), ..at(Arm::Canary, served) }, x);
        }
        let portions: Vec<_> = cohort.counts(Timestamp(0), Span::mins(1)).map(|(_, p)| p).collect();
        assert_eq!(portions, [Portion::Counts { n_a: 0, f_a: 0, n_b: 1, f_b: 1 }]);
    }

    /// Whichever of the two comes first.
    #[test]
    fn of_two_of_a_unit_at_once_the_same_one_counts_in_either_order() {
        let kept = |order: [(u64, f64); 2]| {
            let mut cohort = Cohort::default();
            for (place, x) in order {
                let unit = Some(unit_key("maya"));
                cohort.keep(&Observation { unit, place: place << 32, ..at(Arm::Canary, 100) }, x);
            }
            cohort.values(Timestamp(0))
        };
        assert_eq!(kept([(7, 1.0), (3, 0.0)]), kept([(3, 0.0), (7, 1.0)]));
    }

    /// Requests summed at the start of the minute, their values all over it.
    #[test]
    fn a_value_of_another_second_than_its_request_is_not_missing() {
        let (mut cohort, minute) = (Cohort::default(), Span::mins(1));
        for (arm, n, came) in [(Arm::Baseline, 100, 90), (Arm::Canary, 10, 7)] {
            cohort.count(&at(arm, 0), minute, n, 0);
            (0..came).for_each(|i| cohort.count(&at(arm, 600 * (i + 1)), minute, 0, 1));
        }
        let counts = Portion::Counts { n_a: 100, f_a: 10, n_b: 10, f_b: 3 };
        assert_eq!(cohort.missing(Timestamp(0)), Some((Timestamp(0), counts)));
    }

    #[test]
    fn the_judge_of_a_cohort_does_not_depend_on_who_is_heard_first() {
        let heard = |order: [u64; 4]| {
            let mut cohort = Cohort::default();
            let mut left_out = 0;
            for (i, judge) in order.into_iter().enumerate() {
                let gone = cohort.admit(Some(judge));
                left_out += gone.unwrap_or(1);
                if gone.is_some() {
                    let place = position_key(1, i as u32);
                    cohort.keep(&Observation { place, ..at(Arm::Canary, judge) }, judge as f64);
                }
            }
            (cohort.judge, cohort.waiting(), left_out)
        };
        assert_eq!(heard([5, 3, 5, 3]), (Some(3), 2, 2));
        assert_eq!(heard([3, 5, 3, 5]), (Some(3), 2, 2));
    }

    /// Above the bound the kept values are a fair sample: their share of ones is the share offered.
    #[test]
    fn a_flood_is_thinned_without_favour() {
        let mut cohort = Cohort::default();
        for i in 0..200_000u32 {
            // Ones come late, so that keeping the first to arrive would show.
            let x = if i >= 150_000 { 1.0 } else { 0.0 };
            let place = position_key(9, i);
            cohort.keep(&Observation { place, ..at(Arm::Baseline, u64::from(i / 4)) }, x);
        }
        let values = cohort.values(Timestamp(0));
        assert_eq!(values.len(), SAMPLE_MAX);
        let ones = values.iter().filter(|(_, p)| matches!(p, Portion::Value { x: 1.0, .. })).count();
        let share = ones as f64 / SAMPLE_MAX as f64;
        assert!((share - 0.25).abs() < 0.02, "{share}");
    }

    #[test]
    fn values_come_back_in_order_of_request_time() {
        let mut cohort = Cohort::default();
        for (index, served) in [30u64, 10, 20].into_iter().enumerate() {
            let place = position_key(1, index as u32);
            cohort.keep(&Observation { place, ..at(Arm::Canary, served) }, served as f64);
        }
        let times: Vec<_> = cohort.values(Timestamp(1_000)).into_iter().map(|(at, _)| at.0).collect();
        assert_eq!(times, [1_010, 1_020, 1_030]);
    }
}
