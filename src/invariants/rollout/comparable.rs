//! What may be compared at all, where the sender or the moment leaves that open.

use std::collections::BTreeMap;
use std::ops::Range;

use super::evidence::segment_of;
use super::{Checked, ensure};
use crate::core::columns::Columns;
use crate::core::ids::{Metric, Version};
use crate::core::policy::{Guardrail, Policy, Rule};
use crate::core::time::Timestamp;

/// By how many ms the clocks of senders may differ from the log's.
const CLOCKS: u64 = 5_000;

/// Observations by the second in which they were served.
type Seconds = BTreeMap<u64, u64>;
type Unfit = BTreeMap<(Version, Metric), Seconds>;

/// What must not be compared of one rollout.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparable {
    /// When a command was issued, and when the last actuator had confirmed it: in between nobody knows the share.
    moves: Vec<(Timestamp, Option<Timestamp>)>,
    /// Sums of metrics whose means are compared.
    sums: Unfit,
    /// What came of a split while its share was not known, of no named segment. A sender whose clock is ahead may send what
    /// nobody can know of yet: what counts is what was known when it came.
    moving: Unfit,
}

impl Comparable {
    pub fn issued(&mut self, at: Timestamp) {
        if !matches!(self.moves.last(), Some((_, None))) {
            self.moves.push((at, None));
        }
    }

    pub fn applied(&mut self, at: Timestamp) {
        if let Some((_, applied @ None)) = self.moves.last_mut() {
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
        let add = |unfit: &mut Unfit, series: u32, second: u64, n: u64| {
            let series = &columns.series[series as usize];
            let seconds = unfit.entry((series.version.clone(), series.metric.clone())).or_default();
            *seconds.entry(second).or_default() += n;
        };
        for sum in &columns.aggregates {
            let second = sum.from.0 / 1000;
            if means[sum.series as usize] {
                add(&mut self.sums, sum.series, second, sum.n);
            }
            if splits[sum.series as usize] && self.moves_in(second) {
                add(&mut self.moving, sum.series, second, sum.n);
            }
        }
        for sample in columns.samples().filter(|sample| splits[sample.series as usize]) {
            let second = sample.served_at.0 / 1000;
            let named = |tag| segment_of(policy, &columns.tags[tag as usize]).is_some();
            if self.moves_in(second) && !sample.tag.is_some_and(named) {
                add(&mut self.moving, sample.series, second, 1);
            }
        }
    }

    /// Drops what is from before `second`.
    pub fn forget(&mut self, metric: &Metric, second: u64) {
        let unfit = self.sums.iter_mut().chain(&mut self.moving);
        for (_, seconds) in unfit.filter(|((_, of), _)| of == metric) {
            *seconds = seconds.split_off(&second);
        }
    }

    /// Whether nobody knew the share in any moment of a second.
    fn moves_in(&self, second: u64) -> bool {
        let (start, end) = (second * 1000, second * 1000 + 999);
        self.moves.iter().any(|(issued, applied)| {
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
        let (unfit, promise, why) = match guardrail.rule {
            _ if of_segment => return Ok(()),
            Rule::Mean { .. } => (&self.sums, "I51", "came as sums"),
            Rule::Split => (&self.moving, "I52", "came while the share moved"),
            _ => return Ok(()),
        };
        let held = unfit.get(&(version.clone(), guardrail.metric.clone()));
        let unfit: u64 = held.into_iter().flat_map(|held| held.range(seconds.clone())).map(|(_, n)| n).sum();
        let name = &guardrail.name;
        ensure(n <= served.saturating_sub(unfit), promise, || {
            format!("a cohort of {name} has {n} values of {version}, of {served} {unfit} {why}")
        })
    }
}
