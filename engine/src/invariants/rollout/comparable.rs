//! What may be compared at all, where the sender or the moment leaves that open.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Checked, ensure};
use crate::core::ids::{Metric, Version};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::{Guardrail, Rule};
use crate::core::telemetry::columns::{Columns, Sums};
use crate::core::time::Timestamp;
use crate::invariants::segments::segment_of;

/// By how many ms the clocks of senders may differ from the log's.
const CLOCKS: u64 = 5_000;

/// Observations or events by the second in which they were served.
type Seconds = BTreeMap<u64, u64>;
type Held = BTreeMap<(Version, Metric), Seconds>;

/// What may be compared of one rollout, and what may not.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparable {
    /// When a command was issued, and when the last actuator had confirmed it: in between nobody knows the share.
    share_changes: Vec<(Timestamp, Option<Timestamp>)>,
    /// Sums of metrics whose means are compared: never.
    sums: Held,
    /// What came of splits while the share was known, of no named segment. A sender whose clock is ahead may send what nobody
    /// can know of yet: what counts is what was known when it came.
    splits: Held,
    /// Likewise of counts, in events.
    counts: Held,
}

impl Comparable {
    pub fn issued(&mut self, at: Timestamp) {
        if !matches!(self.share_changes.last(), Some((_, None))) {
            self.share_changes.push((at, None));
        }
    }

    pub fn applied(&mut self, at: Timestamp) {
        if let Some((_, applied @ None)) = self.share_changes.last_mut() {
            *applied = Some(at);
        }
    }

    pub fn batch(&mut self, policy: &Policy, columns: &Columns) {
        let judged = |is: fn(&Rule) -> bool| -> Vec<bool> {
            let of = |metric: &Metric| policy.guardrails.iter().any(|g| g.metric == *metric && is(&g.rule));
            columns.series.iter().map(|series| of(&series.metric)).collect()
        };
        let means = judged(|rule| matches!(rule, Rule::Mean { .. }));
        let splits = judged(|rule| matches!(rule, Rule::Split));
        let counts = judged(|rule| matches!(rule, Rule::Count { .. }));
        let add = |held: &mut Held, series: usize, second: u64, n: u64| {
            let series = &columns.series[series];
            let seconds = held.entry((series.version.clone(), series.metric.clone())).or_default();
            *seconds.entry(second).or_default() += n;
        };
        for sum in &columns.aggregates {
            let (series, second) = (sum.series as usize, sum.from.0 / 1000);
            if means[series] {
                add(&mut self.sums, series, second, sum.n);
            }
            if splits[series] && !self.share_in_flux(second) {
                add(&mut self.splits, series, second, sum.n);
            }
            if counts[series] && !self.share_in_flux(second) {
                add(&mut self.counts, series, second, events_summed(&sum.sums));
            }
        }
        for sample in columns.samples().filter(|s| splits[s.series as usize] || counts[s.series as usize]) {
            let (series, second) = (sample.series as usize, sample.served_at.0 / 1000);
            let named = |tag| segment_of(policy, &columns.tags[tag as usize]).is_some();
            if self.share_in_flux(second) || sample.tag.is_some_and(named) {
                continue;
            }
            if splits[series] {
                add(&mut self.splits, series, second, 1);
            }
            if counts[series] {
                add(&mut self.counts, series, second, events(sample.value));
            }
        }
    }

    /// Drops what is from before `second`.
    pub fn forget(&mut self, metric: &Metric, second: u64) {
        let held = self.sums.iter_mut().chain(&mut self.splits).chain(&mut self.counts);
        for (_, seconds) in held.filter(|((_, of), _)| of == metric) {
            *seconds = seconds.split_off(&second);
        }
    }

    /// Whether nobody knew the share in any moment of a second.
    fn share_in_flux(&self, second: u64) -> bool {
        let (start, end) = (second * 1000, second * 1000 + 999);
        self.share_changes.iter().any(|(issued, applied)| {
            start + CLOCKS >= issued.0 && applied.is_none_or(|applied| end <= applied.0 + CLOCKS)
        })
    }

    /// Checks that of those `served` in the seconds of a cohort, of one segment or of all, a guardrail compares no more than it
    /// may. Sums say nothing about segments, and so are of none.
    pub fn check(
        &self,
        guardrail: &Guardrail,
        version: &Version,
        n: u64,
        served: u64,
        of_segment: bool,
        seconds: &Range<u64>,
    ) -> Checked {
        let in_them = |held: &Held| -> u64 {
            let held = held.get(&(version.clone(), guardrail.metric.clone()));
            held.into_iter().flat_map(|held| held.range(seconds.clone())).map(|(_, n)| n).sum()
        };
        let (most, promise, why) = match guardrail.rule {
            _ if of_segment => return Ok(()),
            Rule::Mean { .. } => (served.saturating_sub(in_them(&self.sums)), "I51", "came one by one"),
            Rule::Split => (in_them(&self.splits), "I52", "came while the share was known"),
            Rule::Count { .. } => (in_them(&self.counts), "I52", "came while the share was known"),
            _ => return Ok(()),
        };
        let name = &guardrail.name;
        ensure(n <= most, promise, || format!("a cohort of {name} has {n} of {version}, and {most} {why}"))
    }
}

/// How many events a sample of a count stands for.
pub(super) fn events(value: f64) -> u64 {
    if value >= 0.5 { value.round() as u64 } else { 0 }
}

/// Likewise what a sender summed.
pub(super) fn events_summed(sums: &Sums) -> u64 {
    match *sums {
        Sums::Ones(ones) => ones,
        Sums::Moments { sum, .. } => events(sum),
        _ => 0,
    }
}
