//! What the outcomes of a scenario say about the goals: a number, its standard error and a limit each.

use serde_json::json;

use crate::scenario::{Asked, Scenario};
use crate::stream::{At, LEVELS, Outcome};

pub const ALPHAS: [f64; 2] = [0.05, 0.01];
/// Limits are on streams that Wald's limit gives this many canary observations: below, a block decides.
const LIMIT_MIN: f64 = 60.0;

/// Share of the streams that may be blind: nothing found in 20 times Wald's limit for alpha 0.01.
const BLIND: f64 = 0.001;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    Yes,
    /// Above the limit, by no more than three standard errors.
    WithinError,
    No,
    /// Nothing was asked.
    Shown,
}

/// One line of the table.
pub struct Row {
    pub goal: &'static str,
    pub scenario: String,
    pub share: f64,
    pub what: String,
    pub alpha: f64,
    pub measured: f64,
    pub error: f64,
    pub limit: Option<f64>,
    /// Wald's limit in canary observations, and what was measured in the same unit.
    pub wald: Option<f64>,
    pub canary: Option<f64>,
    pub runs: usize,
    /// Streams in which it never happened, where it should have.
    pub never: usize,
}

impl Row {
    pub fn met(&self) -> Met {
        let allowed = BLIND * self.runs as f64;
        match self.limit {
            None => Met::Shown,
            // A few blind streams move a mean far, and its error farther.
            Some(_) if self.never as f64 > allowed + 3.0 * allowed.sqrt() => Met::No,
            Some(limit) if self.measured <= limit => Met::Yes,
            Some(_) if self.allowed().is_some_and(|allowed| self.measured <= allowed) => Met::WithinError,
            Some(_) => Met::No,
        }
    }

    /// The limit and what chance may add to it in this many streams.
    fn allowed(&self) -> Option<f64> {
        self.limit.map(|limit| limit + 3.0 * self.error)
    }

    pub fn head() -> String {
        format!(
            "{:<6} {:<34} {:>4} {:<22} {:>7} {:>5} {:>8} {:>7} {:>6} {:>7}  {:<8} {}",
            "goal",
            "stream",
            "q",
            "measured",
            "streams",
            "alpha",
            "value",
            "s.e.",
            "limit",
            "allowed",
            "",
            "canary (Wald's limit)"
        )
    }

    pub fn line(&self) -> String {
        let met = match self.met() {
            Met::Yes => "met",
            Met::WithinError => "met*",
            Met::No => "MISSED",
            Met::Shown => "",
        };
        let three = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.3}"));
        let mut rest = match (self.canary, self.wald) {
            (Some(canary), Some(wald)) => format!("{canary:.0} ({wald:.0})"),
            (Some(canary), None) => format!("{canary:.0}"),
            _ => String::new(),
        };
        if self.never > 0 {
            rest += &format!(", never in {} of {}", self.never, self.runs);
        }
        format!(
            "{:<6} {:<34} {:>3}% {:<22} {:>7} {:>5} {:>8.4} {:>7.4} {:>6} {:>7}  {:<8} {rest}",
            self.goal,
            self.scenario,
            self.share * 100.0,
            self.what,
            self.runs,
            self.alpha,
            self.measured,
            self.error,
            three(self.limit),
            three(self.allowed()),
            met,
        )
        .trim_end()
        .to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        json!({
            "goal": self.goal, "scenario": self.scenario, "canary_share": self.share, "what": self.what,
            "alpha": self.alpha, "measured": self.measured, "standard_error": self.error, "limit": self.limit,
            "allowed": self.allowed(),
            "wald_canary": self.wald, "canary": self.canary, "runs": self.runs, "never": self.never,
            "missed": self.met() == Met::No,
        })
    }
}

/// The lines of one scenario. `early`: the median delay of a regression that is there from the start.
pub fn rows(scenario: &Scenario, outcomes: &[Outcome], early: &mut Option<(f64, f64)>) -> Vec<Row> {
    let mut rows = Vec::new();
    let harm = |level: usize| outcomes.iter().map(move |o| o.harm[level]);
    let safe = |level: usize| outcomes.iter().map(move |o| o.safe[level]);
    let share = |goal, what: &str, level: usize, limit, fired: usize| {
        let p = fired as f64 / outcomes.len() as f64;
        // At the limit, where that is larger: a share of 0 has an error too.
        let at = p.max(limit).min(0.5);
        Row {
            measured: p,
            error: (at * (1.0 - at) / outcomes.len() as f64).sqrt(),
            limit: Some(limit),
            ..Row::of(scenario, goal, what, level, outcomes)
        }
    };
    let per_nat = || scenario.canary_per_nat();
    match scenario.asked {
        Asked::Margin(rollback, promotion) => {
            for (level, alpha) in ALPHAS.into_iter().enumerate() {
                rows.push(share(rollback, "false rollback", level, alpha, harm(level).flatten().count()));
            }
            for (level, alpha) in ALPHAS.into_iter().enumerate().filter(|_| scenario.guardrail.shows_safety())
            {
                rows.push(share(promotion, "false promotion", level, alpha, safe(level).flatten().count()));
            }
        }
        Asked::Equal => {
            rows.push(share("G2", "false rollback", 0, 0.005, harm(0).flatten().count()));
            rows.push(share("G2", "false rollback", 1, 0.005, harm(1).flatten().count()));
            if !scenario.guardrail.shows_safety() {
                return rows;
            }
            let wald = per_nat();
            for level in 0..2 {
                let times = Times::of(outcomes, safe(level), false);
                rows.push(times.mean(scenario, "G5", "mean time to safe", level, wald, Some(1.6)));
            }
        }
        Asked::Worse | Asked::WorseFast => {
            let wald = per_nat();
            let (at_05, at_01) = (Times::of(outcomes, harm(0), false), Times::of(outcomes, harm(1), false));
            let limit = |at: f64| (wald * LEVELS[0].ln() >= LIMIT_MIN).then_some(at);
            rows.push(at_05.median(scenario, "G3", "median time to harm", 0, wald, limit(1.65)));
            rows.push(at_05.mean(scenario, "G3", "mean time to harm", 0, wald, limit(1.8)));
            rows.push(at_01.mean(scenario, "G3", "mean time to harm", 1, wald, limit(1.6)));
            if scenario.asked == Asked::WorseFast {
                rows.push(at_05.median(scenario, "G4", "median time to harm", 0, wald, Some(1.3)));
            }
        }
        Asked::Onset => {
            // Streams that were rolled back before the onset say nothing about the delay after it.
            let onsets =
                outcomes.iter().zip(harm(0)).filter(|(o, at)| at.is_none_or(|at| at.canary > o.onset));
            let kept: Vec<Outcome> = onsets.map(|(o, _)| o.clone()).collect();
            let times = Times::of(&kept, kept.iter().map(|o| o.harm[0]), true);
            let (median, error) = times.middle();
            let (first, first_error) = *early.get_or_insert((median, error));
            let ratio = median / first;
            rows.push(Row {
                measured: ratio,
                error: ratio * ((error / median).powi(2) + (first_error / first).powi(2)).sqrt(),
                limit: Some(4.0),
                canary: Some(median),
                never: times.never,
                ..Row::of(scenario, "G7", "delay / early delay", 0, &kept)
            });
        }
        Asked::PooledEvidence => {
            let wald = per_nat();
            let times = Times::of(outcomes, harm(0), false);
            rows.push(times.median(scenario, "policy", "median time to harm", 0, wald, None));
            rows.push(times.mean(scenario, "policy", "mean time to harm", 0, wald, None));
        }
        Asked::Range(_) => {
            let missed = outcomes.iter().filter(|outcome| outcome.missed).count();
            rows.push(share("range", "ever missed the truth", 0, ALPHAS[0], missed));
        }
        Asked::Rollback(goal) => {
            rows.push(share(goal, "false rollback", 0, ALPHAS[0], harm(0).flatten().count()));
        }
        Asked::Safe(goal) => {
            rows.push(share(goal, "false promotion", 0, ALPHAS[0], safe(0).flatten().count()));
        }
        Asked::NaiveRollback(goal) => {
            let row = share(goal, "rolled back (shown)", 0, 0.0, harm(0).flatten().count());
            rows.push(Row { limit: None, ..row });
        }
        Asked::NaiveSafe(goal) => {
            let row = share(goal, "shown safe (shown)", 0, 0.0, safe(0).flatten().count());
            rows.push(Row { limit: None, ..row });
        }
    }
    rows
}

impl Row {
    fn of(scenario: &Scenario, goal: &'static str, what: &str, level: usize, outcomes: &[Outcome]) -> Row {
        Row {
            goal,
            scenario: scenario.name.clone(),
            share: scenario.share,
            what: what.to_owned(),
            alpha: ALPHAS[level],
            measured: 0.0,
            error: 0.0,
            limit: None,
            wald: None,
            canary: None,
            runs: outcomes.len(),
            never: 0,
        }
    }
}

/// Canary observations until something happened, sorted. A stream without counts with all its observations, which
/// makes a mean too small: how many those are is told.
struct Times {
    sorted: Vec<f64>,
    never: usize,
}

impl Times {
    fn of(outcomes: &[Outcome], at: impl Iterator<Item = Option<At>>, from_onset: bool) -> Times {
        let mut never = 0;
        let mut sorted: Vec<f64> = outcomes
            .iter()
            .zip(at)
            .map(|(outcome, at)| {
                never += usize::from(at.is_none());
                let canary = at.map_or(outcome.canary, |at| at.canary);
                (canary - if from_onset { outcome.onset } else { 0 }) as f64
            })
            .collect();
        sorted.sort_by(f64::total_cmp);
        Times { sorted, never }
    }

    /// The median and its standard error, half the distance between the order statistics one error away.
    fn middle(&self) -> (f64, f64) {
        let n = self.sorted.len() as f64;
        let at = |rank: f64| self.sorted[(rank as usize).min(self.sorted.len() - 1)];
        (at(n / 2.0), (at(n / 2.0 + n.sqrt() / 2.0) - at((n / 2.0 - n.sqrt() / 2.0).max(0.0))) / 2.0)
    }

    fn average(&self) -> (f64, f64) {
        let n = self.sorted.len() as f64;
        let mean = self.sorted.iter().sum::<f64>() / n;
        let square: f64 = self.sorted.iter().map(|x| (x - mean) * (x - mean)).sum();
        (mean, (square / (n - 1.0).max(1.0) / n).sqrt())
    }

    fn median(
        &self,
        scenario: &Scenario,
        goal: &'static str,
        what: &str,
        level: usize,
        per_nat: f64,
        limit: Option<f64>,
    ) -> Row {
        self.row(self.middle(), scenario, goal, what, level, per_nat, limit)
    }

    fn mean(
        &self,
        scenario: &Scenario,
        goal: &'static str,
        what: &str,
        level: usize,
        per_nat: f64,
        limit: Option<f64>,
    ) -> Row {
        self.row(self.average(), scenario, goal, what, level, per_nat, limit)
    }

    #[allow(clippy::too_many_arguments, reason = "a statistic with what it belongs to")]
    fn row(
        &self,
        (value, error): (f64, f64),
        scenario: &Scenario,
        goal: &'static str,
        what: &str,
        level: usize,
        per_nat: f64,
        limit: Option<f64>,
    ) -> Row {
        let wald = per_nat * LEVELS[level].ln();
        Row {
            measured: value / wald,
            error: error / wald,
            limit,
            wald: Some(wald),
            canary: Some(value),
            runs: self.sorted.len(),
            never: self.never,
            ..Row::of(scenario, goal, what, level, &[])
        }
    }
}
