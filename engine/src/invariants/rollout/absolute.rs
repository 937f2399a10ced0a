//! What an absolute guard may fail on: so many bad requests among so many in a row.

use std::collections::VecDeque;

use super::{Checked, Followed, ensure};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::{Absolute, Better, Guardrail, Rule};
use crate::core::telemetry::columns::{Columns, Sums};

/// The last requests of the canary. Of a sum each counts as bad by the share of the whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest {
    bad: VecDeque<f64>,
    most: f64,
}

impl Latest {
    fn take(&mut self, size: usize, n: u64, share: f64) {
        for _ in 0..n.min(size as u64) {
            self.bad.push_back(share);
            if self.bad.len() > size {
                self.bad.pop_front();
            }
            if share > 0.0 {
                self.most = self.most.max(self.bad.iter().sum());
            }
        }
    }
}

impl Followed {
    pub(super) fn latest(&mut self, policy: &Policy, columns: &Columns) {
        let Some(began) = self.first_applied else { return };
        for guardrail in &policy.guardrails {
            let Rule::Absolute(Absolute { of_last, .. }) = guardrail.rule else { continue };
            let latest = self.latest.entry(guardrail.name.clone()).or_default();
            let size = of_last as usize;
            let is_canary = |series: u32| {
                let series = &columns.series[series as usize];
                series.version == self.spec.to && series.metric == guardrail.metric
            };
            let bad = |ones: f64| if guardrail.better == Better::Lower { ones } else { 1.0 - ones };
            for sample in columns.samples().filter(|s| is_canary(s.series) && s.served_at >= began) {
                latest.take(size, 1, bad(f64::from(u8::from(sample.value >= 0.5))));
            }
            for sum in columns.aggregates.iter().filter(|a| is_canary(a.series) && a.from >= began) {
                let ones = match sum.sums {
                    Sums::Ones(ones) => ones as f64,
                    Sums::Moments { sum, .. } => sum,
                    Sums::Histogram { .. } => continue,
                };
                latest.take(size, sum.n, bad(ones / sum.n.max(1) as f64));
            }
        }
    }

    /// What goes back by itself leaves requests out that a guard would have counted; then nothing is said.
    pub(super) fn fails_on_enough(&self, guardrail: &Guardrail) -> Checked {
        let Rule::Absolute(Absolute { above, of_last }) = guardrail.rule else { return Ok(()) };
        if self.returned_once {
            return Ok(());
        }
        let most = self.latest.get(&guardrail.name).map_or(0.0, |latest| latest.most);
        let limit = above * f64::from(of_last);
        // A sum at either end of the window may show one more than its share.
        ensure(most > limit - 2.0, "I48", || {
            format!(
                "{} fails, of {of_last} requests at most {most:.1} were bad, the limit is {limit}",
                guardrail.name
            )
        })
    }
}
