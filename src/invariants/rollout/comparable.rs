//! What may be compared at all, where the sender leaves that open.

use std::collections::BTreeMap;

use super::{Checked, ensure};
use crate::core::columns::Columns;
use crate::core::ids::{Metric, Version};
use crate::core::policy::{Guardrail, Policy, Rule};

/// What must not be compared of one rollout: observations that came as sums, of metrics whose means are compared, by the second in which
/// they were served.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparable {
    summed: BTreeMap<(Version, Metric), BTreeMap<u64, u64>>,
}

impl Comparable {
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

    /// Checks that of those `served` in the seconds of a cohort, of one segment or of all, a guardrail compares no more than it
    /// may. Sums say nothing about segments, and so are of none.
    pub fn check(
        &self,
        guardrail: &Guardrail,
        version: &Version,
        n: u64,
        served: u64,
        of_segment: bool,
        seconds: &std::ops::Range<u64>,
    ) -> Checked {
        if of_segment || !matches!(guardrail.rule, Rule::Mean { .. }) {
            return Ok(());
        }
        let held = self.summed.get(&(version.clone(), guardrail.metric.clone()));
        let summed: u64 = held.into_iter().flat_map(|held| held.range(seconds.clone())).map(|(_, n)| n).sum();
        let name = &guardrail.name;
        ensure(n <= served.saturating_sub(summed), "I51", || {
            format!("a cohort of {name} has {n} values of {version}, of {served} {summed} came as sums")
        })
    }
}
