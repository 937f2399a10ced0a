//! What may be compared at all, where the sender or the moment leaves that open.

use std::collections::BTreeMap;

use super::{Checked, ensure};
use crate::core::columns::Columns;
use crate::core::ids::{Metric, Version};
use crate::core::policy::{Guardrail, Policy, Rule};
use crate::core::time::Timestamp;

/// By how many ms the clocks of senders may differ from the log's.
const CLOCKS: u64 = 5_000;

/// By the second in which they were served.
type Seconds = BTreeMap<u64, u64>;

/// What must not be compared of one rollout.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparable {
    /// When a command was issued, and when the last actuator had confirmed it: in between nobody knows the share.
    moves: Vec<(Timestamp, Option<Timestamp>)>,
    /// Observations that came as sums, of metrics whose means are compared.
    summed: BTreeMap<(Version, Metric), Seconds>,
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
        let of_mean = |metric: &Metric| {
            policy.guardrails.iter().any(|g| g.metric == *metric && matches!(g.rule, Rule::Mean { .. }))
        };
        for sum in &columns.aggregates {
            let series = &columns.series[sum.series as usize];
            if of_mean(&series.metric) {
                let summed = self.summed.entry((series.version.clone(), series.metric.clone())).or_default();
                *summed.entry(sum.from.0 / 1000).or_default() += sum.n;
            }
        }
    }

    /// Drops what is from before `second`.
    pub fn forget(&mut self, metric: &Metric, second: u64) {
        for (_, summed) in self.summed.iter_mut().filter(|((_, of), _)| of == metric) {
            *summed = summed.split_off(&second);
        }
    }

    /// Whether nobody knew the share in any moment of a second.
    fn unknown_share(&self, second: u64) -> bool {
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
        served: Option<&Seconds>,
        of_segment: bool,
        seconds: &std::ops::Range<u64>,
    ) -> Checked {
        let name = &guardrail.name;
        let in_cohort = |held: Option<&Seconds>| -> Vec<(u64, u64)> {
            held.into_iter().flat_map(|held| held.range(seconds.clone())).map(|(s, n)| (*s, *n)).collect()
        };
        let served = in_cohort(served);
        match guardrail.rule {
            Rule::Split => {
                let known = served.iter().filter(|(second, _)| !self.unknown_share(*second));
                let known: u64 = known.map(|(_, n)| n).sum();
                ensure(n <= known, "I51", || {
                    format!(
                        "a cohort of {name} has {n} of {version}, {known} were served at a share that was known"
                    )
                })
            }
            Rule::Mean { .. } if !of_segment => {
                let key = (version.clone(), guardrail.metric.clone());
                let summed: u64 = in_cohort(self.summed.get(&key)).iter().map(|(_, n)| n).sum();
                let served: u64 = served.iter().map(|(_, n)| n).sum();
                ensure(n <= served.saturating_sub(summed), "I51", || {
                    format!(
                        "a cohort of {name} has {n} values of {version}, of {served} {summed} came as sums"
                    )
                })
            }
            _ => Ok(()),
        }
    }
}
