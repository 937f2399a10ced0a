//! What must not happen: counted again from what came in, whatever the rollout made of it.

use super::comparable::{events, events_summed};
use super::{Checked, Followed, ensure};
use crate::core::event::decision::Choice;
use crate::core::policy::Policy;
use crate::core::policy::guardrail::Guardrail;
use crate::core::telemetry::columns::{Columns, Sums};
use crate::core::time::{Span, Timestamp};
use crate::invariants::kinds::kind;

/// By how much the clocks of senders may differ from the log's.
const CLOCKS: Span = Span::secs(5);

/// What the canary has sent of one metric in the whole rollout.
#[derive(Clone, Debug, Default)]
pub(super) struct Happened {
    pub(super) n: u64,
    pub(super) times: u64,
    /// When somebody last said that it did not happen.
    heard: Option<Timestamp>,
}

impl Followed {
    /// Counts a batch. Returns whether it takes the canary back.
    pub(super) fn happened(&mut self, at: Timestamp, policy: &Policy, columns: &Columns) -> bool {
        let over = matches!(self.choice, Some(Choice::Rollback | Choice::Complete));
        if self.step.is_none() || over {
            return false;
        }
        let mut due = false;
        for guardrail in &policy.guardrails {
            let Some(allowed) = kind(&guardrail.rule).allowed else { continue };
            let happened = self.happened.entry(guardrail.name.clone()).or_default();
            let mut take = |series: u32, served_at: Timestamp, n: u64, times: u64| {
                let series = &columns.series[series as usize];
                let of_canary = series.version == self.spec.to && series.metric == guardrail.metric;
                if of_canary && served_at.plus(CLOCKS) >= self.began {
                    (happened.n, happened.times) = (happened.n + n, happened.times + times);
                    happened.heard = if times < n { Some(at) } else { happened.heard };
                }
            };
            columns.samples().for_each(|s| take(s.series, s.served_at, 1, events(s.value)));
            let summed = |sums: &Sums| !matches!(sums, Sums::Histogram { .. });
            for a in columns.aggregates.iter().filter(|a| a.n > 0 && summed(&a.sums)) {
                take(a.series, a.to, a.n, events_summed(&a.sums));
            }
            due |= happened.times > allowed;
        }
        due
    }

    /// A failure of this kind is that it has happened too often, and nothing else.
    pub(super) fn stops_on_enough(&self, guardrail: &Guardrail) -> Checked {
        let Some(allowed) = kind(&guardrail.rule).allowed else { return Ok(()) };
        let times = self.happened.get(&guardrail.name).map_or(0, |happened| happened.times);
        ensure(times > allowed, "I53", || {
            format!("{} fails, it happened {times} times, allowed is {allowed}", guardrail.name)
        })
    }

    /// Nothing moves on while nobody says that it did not happen.
    pub(super) fn is_heard(&self, at: Timestamp, policy: &Policy, guardrail: &Guardrail) -> Checked {
        if kind(&guardrail.rule).allowed.is_none() {
            return Ok(());
        }
        let heard = self.happened.get(&guardrail.name).and_then(|happened| happened.heard);
        let lately = heard.is_some_and(|heard| at.since(heard.max(self.resumed)) < policy.stale_after);
        ensure(lately, "I53", || {
            format!("{} moves on, and {} was last heard {heard:?}", self.id, guardrail.name)
        })
    }
}
