//! Whether telemetry shows what was commanded: "applied" is an actuator's word, effective is what requests say.
//!
//! Two sequential probability ratio tests on the canary's share of the requests served since the confirmation. One asks
//! whether the share is the commanded one or only half-way there from what was served before: what one of two actuators
//! that did nothing would leave. The other asks the same on the far side. Effective is what both favour 20 to 1: a share
//! that is only half-way there is called effective in at most 1 of 20 looks, however often one counts, as long as
//! requests are independent.
//! Source: Wald (1945), Ann. Math. Stat. 16(2), 117-186; that one may look at any time: Ville (1939).
//!
//! Pure. What follows from it: no promotion before it is shown, a rollback is not done before. Not here: whether users are split
//! at random (guardrails of kind `split`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::batch::{Batch, Routes};
use crate::core::event::command::Command;
use crate::core::event::decision::Reason;
use crate::core::ids::{Metric, Weight};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::Guardrail;
use crate::core::telemetry::arm::Arm;
use crate::core::time::{Span, Timestamp};

/// Evidence that shows a share, as a likelihood ratio.
const SHOWN: f64 = 20.0;
/// Nothing and all are tested with a tenth of the distance as their error: a request that was on its way when the command was
/// confirmed is no contradiction for ever.
const STRAGGLERS: f64 = 0.1;

/// What telemetry has to show of a confirmed command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    pub command: Command,
    /// The segment it is about.
    pub segment: Option<u16>,
    /// The canary's share of it before, and the one that was commanded.
    pub from: Weight,
    pub to: Weight,
    pub issued_at: Timestamp,
    /// How often the command was sent.
    pub attempt: u32,
    /// When the present look began: requests served before do not count in it.
    pub since: Timestamp,
    pub look: u32,
    /// By metric: requests to the canary and to the baseline.
    pub counts: BTreeMap<Metric, [u64; 2]>,
    /// The canary's and all requests of the last look that ended without showing it.
    pub seen: Option<(u64, u64)>,
    /// And people were told.
    pub announced: bool,
    /// A rollback: told, and to be sent again.
    pub again: bool,
    pub shown: Option<Timestamp>,
}

/// Log-evidence (nats) that the canary's share is `a` and not `b`, from `canary` of `requests`.
fn evidence(canary: u64, requests: u64, a: f64, b: f64) -> f64 {
    let (k, rest) = (canary as f64, (requests - canary) as f64);
    k * libm::log(a / b) + rest * libm::log((1.0 - a) / (1.0 - b))
}

/// Whether `canary` of `requests` show the share `to`, where it was `from` before.
pub fn shows(canary: u64, requests: u64, from: Weight, to: Weight) -> bool {
    let (from, to) = (from.as_share(), to.as_share());
    let half = (from + to) / 2.0;
    let beyond = match to > from {
        true => (to + (to - from) / 2.0).min((1.0 + to) / 2.0),
        false => (to - (from - to) / 2.0).max(to / 2.0),
    };
    let tested = match to {
        0.0 => half * STRAGGLERS,
        1.0 => 1.0 - (1.0 - half) * STRAGGLERS,
        to => to,
    };
    let sure = |other: f64| evidence(canary, requests, tested, other) >= libm::log(SHOWN);
    // Nothing is beyond nothing and all.
    sure(half) && (to == 0.0 || to == 1.0 || sure(beyond))
}

impl Effect {
    pub fn is_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// Begins to count anew.
    pub fn look_again(&mut self, at: Timestamp) {
        (self.since, self.look) = (at, self.look + 1);
        self.counts.clear();
    }

    /// The present look is over, and has not shown it.
    fn end_look(&mut self, policy: &Policy, at: Timestamp) {
        self.seen = Some(self.requests(policy).map_or((0, 0), |(_, canary, all)| (canary, all)));
        self.look_again(at);
    }

    /// When the present look ends.
    pub fn over(&self, policy: &Policy) -> Timestamp {
        self.since.plus(policy.effective.map_or(Span::ZERO, |rules| rules.within))
    }

    pub fn due(&self, policy: &Policy) -> Option<Timestamp> {
        (!self.is_shown()).then(|| self.over(policy))
    }

    /// The metric that stands for requests, with the canary's and all of them: what a guardrail of kind `split` counts, else
    /// what came most often.
    pub fn requests(&self, policy: &Policy) -> Option<(&Metric, u64, u64)> {
        let all = |metric: &Metric| self.counts.get(metric).map_or(0, |[canary, baseline]| canary + baseline);
        let split = policy.guardrails.iter().find(|g| g.profile().of_split).map(|g| &g.metric);
        let split = split.and_then(|metric| self.counts.get_key_value(metric)).map(|(metric, _)| metric);
        let most = || self.counts.keys().rev().max_by_key(|metric| all(metric));
        let metric = split.or_else(most)?;
        Some((metric, self.counts[metric][0], all(metric)))
    }

    pub fn shows(&self, policy: &Policy) -> bool {
        self.requests(policy).is_some_and(|(_, canary, requests)| shows(canary, requests, self.from, self.to))
    }

    /// Counts the requests of a message that were served in the present look. Returns whether they show it.
    pub fn observe(&mut self, policy: &Policy, batch: &Batch, routes: &Routes) -> bool {
        let Some(rules) = policy.effective.filter(|_| !self.is_shown()) else { return false };
        if self.over(policy) <= batch.at {
            self.end_look(policy, batch.at);
        }
        let since = self.since.plus(rules.after);
        let divided = policy.segments.is_some();
        let mut found = vec![0_u64; batch.columns.series.len()];
        for sample in batch.samples.iter().filter(|sample| sample.served_at >= since) {
            let here = !divided || routes.part(sample.tag).flatten() == self.segment;
            found[sample.series as usize] += u64::from(here);
        }
        // Sums have no tags.
        for sum in batch.columns.aggregates.iter().filter(|a| a.from >= since && self.segment.is_none()) {
            found[sum.series as usize] += sum.n;
        }
        // A pair is made of one request, a count has none: neither says how requests are split.
        let counts = |metric: &Metric| {
            let requests = |g: &Guardrail| g.compares().and_then(|kind| kind.requests()) == Some(metric);
            let mut of = policy.guardrails.iter().filter(|g| g.metric == *metric || requests(g));
            of.clone().next().is_some() && of.all(|g| g.profile().of_requests)
        };
        for ((i, series), n) in (0..).zip(&batch.columns.series).zip(found).filter(|(_, n)| *n > 0) {
            if let Some(arm) = routes.arm(i).filter(|_| counts(&series.metric)) {
                let counts = self.counts.entry(series.metric.clone()).or_default();
                counts[usize::from(arm == Arm::Baseline)] += n;
            }
        }
        self.shows(policy)
    }

    /// Folds that people were told: a rollback is sent again, unless no request speaks against it.
    pub fn apply_announced(&mut self, policy: &Policy, at: Timestamp, takes_back: bool) {
        self.announced = true;
        self.again = takes_back && self.requests(policy).is_some_and(|(_, canary, _)| canary > 0);
        self.end_look(policy, at);
    }

    pub fn apply_resent(&mut self, attempt: u32) {
        (self.attempt, self.again) = (attempt, false);
    }

    /// As a condition of the next promotion.
    pub fn reason(&self, policy: &Policy) -> Reason {
        let present = || self.requests(policy).map_or((0, 0), |(_, canary, all)| (canary, all));
        let (canary, requests) = self.seen.filter(|_| !self.is_shown()).unwrap_or_else(present);
        Reason::Effective { to: self.to, canary, requests, shown: self.is_shown() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `requests` that are split exactly so.
    fn shown(from: u16, to: u16, served_pct: f64, requests: u64) -> bool {
        let canary = (requests as f64 * served_pct / 100.0).round() as u64;
        shows(canary, requests, Weight::percent(from), Weight::percent(to))
    }

    #[test]
    fn the_commanded_share_is_shown_and_half_of_it_is_not() {
        for (from, to) in [(0, 5), (5, 25), (25, 50), (50, 100), (25, 0), (100, 0)] {
            let half = (f64::from(from) + f64::from(to)) / 2.0;
            for n in [10_000, 1_000_000] {
                assert!(shown(from, to, f64::from(to), n), "{from} -> {to}: served");
                assert!(!shown(from, to, f64::from(from), n), "{from} -> {to}: nothing done");
                assert!(!shown(from, to, half, n), "{from} -> {to}: half done");
            }
        }
        assert!(!shown(5, 25, 60.0, 10_000), "more than was asked for");
    }

    /// By hand: 3 / (v / 2) requests without a canary show that it is not v / 2 any more (the rule of three), and a little more for
    /// the tenth that is allowed for stragglers.
    #[test]
    fn a_rollback_needs_the_rule_of_three() {
        let least =
            |from: u16| (1..).find(|n| shows(0, *n, Weight::percent(from), Weight::ZERO)).expect("some");
        assert_eq!([least(1), least(10), least(100)], [664, 65, 5]);
        assert!(!shows(3, 65, Weight::percent(10), Weight::ZERO), "stragglers cost");
        assert!(shows(3, 300, Weight::percent(10), Weight::ZERO), "and are made up for");
    }

    #[test]
    fn little_shows_nothing() {
        assert!(!shown(0, 5, 5.0, 100));
        assert!(!shows(0, 0, Weight::percent(5), Weight::ZERO));
    }
}
