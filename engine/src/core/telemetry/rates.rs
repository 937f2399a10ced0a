//! What a service has sent lately of each series: how much, and what it looks like. For plans; no decision reads it.

use serde::{Deserialize, Serialize};

use crate::core::time::{Span, Timestamp};

/// How long one window of measurement lasts; two are kept.
const WINDOW: Span = Span::hours(1);
/// Less than this says nothing about a rate.
const LEAST: Span = Span::mins(1);

/// One series: all of it counted, the last hour or two measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub n: u64,
    current: Window,
    before: Option<Window>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Window {
    since: Timestamp,
    n: u64,
    /// Of those whose value was looked at.
    looked: u64,
    sum: f64,
    sumsq: f64,
}

/// A series as it has been lately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lately {
    pub per_hour: f64,
    pub mean: f64,
    /// Of one value.
    pub variance: f64,
}

impl Seen {
    /// Counts `n` observations that came in at `at`.
    pub fn count(&mut self, at: Timestamp, n: u64) {
        if self.n == 0 {
            self.current.since = at;
        } else if at.since(self.current.since) >= WINDOW {
            self.before = Some(self.current);
            self.current = Window { since: at, ..Window::default() };
        }
        self.n += n;
        self.current.n += n;
    }

    /// Looks at the values of `n` of them.
    pub fn look(&mut self, n: u64, sum: f64, sumsq: f64) {
        self.current.looked += n;
        self.current.sum += sum;
        self.current.sumsq += sumsq;
    }

    /// `None` while it is too little to tell.
    pub fn lately(&self, now: Timestamp) -> Option<Lately> {
        let since = self.before.map_or(self.current.since, |before| before.since);
        let both = || self.before.iter().chain([&self.current]);
        let looked = both().map(|w| w.looked).sum::<u64>() as f64;
        let span = now.since(since);
        if span < LEAST || looked == 0.0 {
            return None;
        }
        let n: u64 = both().map(|w| w.n).sum();
        let mean = both().map(|w| w.sum).sum::<f64>() / looked;
        let square = both().map(|w| w.sumsq).sum::<f64>() / looked;
        Some(Lately {
            per_hour: n as f64 * WINDOW.0 as f64 / span.0 as f64,
            mean,
            variance: (square - mean * mean).max(0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_ago_is_forgotten_after_two() {
        let mut seen = Seen::default();
        for minute in 0..240 {
            let value = if minute < 120 { 0.0 } else { 1.0 };
            seen.count(Timestamp(minute * 60_000), 10);
            seen.look(10, 10.0 * value, 10.0 * value);
        }
        let lately = seen.lately(Timestamp(240 * 60_000)).expect("enough");
        assert_eq!((seen.n, lately.mean, lately.variance), (2_400, 1.0, 0.0));
        assert!((lately.per_hour - 600.0).abs() < 1.0, "{lately:?}");
    }
}
