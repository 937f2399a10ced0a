//! What is simulated: streams of two arms, the guardrail that judges them, and what is asked of the outcome.

use sluice::core::evidence::label_bets;
use sluice::core::policy::guardrail::{
    Better, Count, Guardrail, Margin, Mean, Missing, Paired, Proportion, Quantile, Rule, Score,
};
use sluice::core::time::Span;

use crate::law::Law;
use crate::wald::canary_per_nat;

/// A stretch of requests.
#[derive(Clone, Debug)]
pub struct Phase {
    pub requests: u64,
    /// Entering another begins an epoch.
    pub step: u16,
    /// The canary's share of the requests; of events, of those.
    pub share: f64,
    pub baseline: Law,
    pub canary: Law,
}

/// How outcomes come in, for streams that are judged through cohorts.
#[derive(Clone, Copy, Debug)]
pub struct Labels {
    /// Requests a second.
    pub rate: u64,
    /// Mean minutes until a one and until a zero is known.
    pub minutes: [f64; 2],
    pub maturity: Span,
    /// Taken as served when they come in, which is what a reader of arrivals does.
    pub by_arrival: bool,
    /// Requests of a user, seconds between them, and whether observations name the user.
    pub user: (u64, u64, bool),
    /// The share of the variance that lies between users.
    pub icc: f64,
}

/// What is asked of a stream's outcomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked {
    /// The canary is exactly as bad as is still allowed: neither side may fire in more than a share alpha of the
    /// streams. The goals that rolling back and showing safe count for.
    Margin(&'static str, &'static str),
    /// The canary is like the baseline: no rollback, and soon shown safe.
    Equal,
    /// The canary is worse than allowed: how soon is that found?
    Worse,
    /// As `Worse`, with the narrower limit.
    WorseFast,
    /// The last phase is bad: how soon is it found, counted from there?
    Onset,
    /// At most alpha of the streams are rolled back.
    Rollback(&'static str),
    /// At most alpha of the streams are shown safe.
    Safe(&'static str),
    /// As `Worse`, of a policy of several guardrails: shown.
    PooledEvidence,
    /// The canary's mean differs by this much all the time: the always-valid range that people are shown may ever miss
    /// it in at most 5 % of the streams.
    Range(f64),
    /// What a mistaken reading of the same streams does: shown, for scale.
    NaiveRollback(&'static str),
    NaiveSafe(&'static str),
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub guardrail: Guardrail,
    /// Other guardrails that roll back, of other metrics of the same requests. One phase, then.
    pub beside: Vec<Secondary>,
    /// The canary's planned share of the traffic, at first; of pairs 1, for every request is answered by both.
    pub share: f64,
    pub phases: Vec<Phase>,
    pub labels: Option<Labels>,
    pub asked: Asked,
    /// Runs for each of those asked for on the command line.
    pub weight: f64,
}

/// A guardrail of a metric with what its observations are drawn from.
#[derive(Clone, Debug)]
pub struct Secondary {
    pub guardrail: Guardrail,
    pub baseline: Law,
    pub canary: Law,
}

impl Scenario {
    /// Wald's limit in canary observations per nat, for the last phase. Of several guardrails, that of the bad ones
    /// together: what they say adds up.
    pub fn canary_per_nat(&self) -> f64 {
        let last = self.phases.last().expect("a phase");
        let per_nat = |guardrail: &Guardrail, baseline, canary| {
            canary_per_nat(guardrail, &Phase { baseline, canary, ..last.clone() }, self.share)
        };
        if self.beside.is_empty() {
            return per_nat(&self.guardrail, last.baseline, last.canary);
        }
        let bad = self.parts().filter(|(_, baseline, canary)| baseline != canary);
        1.0 / bad.map(|(guardrail, baseline, canary)| 1.0 / per_nat(guardrail, baseline, canary)).sum::<f64>()
    }

    /// Every guardrail with what the baseline's and the canary's observations are drawn from, in the first phase.
    pub fn parts(&self) -> impl Iterator<Item = (&Guardrail, Law, Law)> {
        let first = (&self.guardrail, self.phases[0].baseline, self.phases[0].canary);
        std::iter::once(first).chain(self.beside.iter().map(|b| (&b.guardrail, b.baseline, b.canary)))
    }
}

const AT_MARGIN: Asked = Asked::Margin("G1", "G5");

/// A metric with its baseline, the canary at the margin, and canaries beyond it.
struct Metric {
    name: &'static str,
    guardrail: Guardrail,
    baseline: Law,
    margin: Law,
    worse: Vec<(&'static str, Law)>,
}

fn guardrail(name: &str, better: Better, rule: Rule) -> Guardrail {
    Guardrail::new(name, better, rule)
}

fn pass_rate() -> Guardrail {
    guardrail("pass", Better::Higher, Rule::Proportion(Proportion { margin: Margin::Points(0.03) }))
}

/// Metrics of two arms.
fn metrics() -> Vec<Metric> {
    let shares = |all: &[(&'static str, f64)]| all.iter().map(|(what, p)| (*what, Law::Share(*p))).collect();
    let errors = |plus| {
        let margin = Margin::Ratio { ratio: 1.5, plus };
        guardrail("errors", Better::Lower, Rule::Proportion(Proportion { margin }))
    };
    let grade = |lower| Law::Grade { lower };
    let cost = |mean| Law::LogNormal { mean, sigma: 1.0 };
    let latency = |mean| Law::LogNormal { mean, sigma: 0.6 };
    let quantile = |q| guardrail("latency", Better::Lower, Rule::Quantile(Quantile { q, handicap: 0.10 }));
    vec![
        Metric {
            name: "pass",
            guardrail: pass_rate(),
            baseline: Law::Share(0.90),
            margin: Law::Share(0.87),
            worse: shares(&[("drop 6", 0.84), ("drop 10", 0.80), ("drop 20", 0.70)]),
        },
        Metric {
            name: "errors",
            guardrail: errors(0.0),
            baseline: Law::Share(0.01),
            margin: Law::Share(0.015),
            worse: shares(&[("x2", 0.02), ("x3", 0.03), ("x10", 0.10)]),
        },
        Metric {
            name: "errors+.001",
            guardrail: errors(0.001),
            baseline: Law::Share(0.01),
            margin: Law::Share(0.016),
            worse: shares(&[("x3", 0.03)]),
        },
        Metric {
            name: "grade",
            guardrail: guardrail(
                "grade",
                Better::Higher,
                Rule::Score(Score { margin: Margin::Points(0.03) }),
            ),
            baseline: grade(0.0),
            margin: grade(0.03),
            worse: vec![("drop 6", grade(0.06)), ("drop 10", grade(0.10))],
        },
        Metric {
            name: "cost",
            guardrail: guardrail("cost", Better::Lower, Rule::Mean(Mean { handicap: 0.20 })),
            baseline: cost(1.0),
            margin: cost(1.2),
            worse: vec![("x1.4", cost(1.4)), ("x1.6", cost(1.6)), ("x2", cost(2.0))],
        },
        Metric {
            name: "p50",
            guardrail: quantile(0.50),
            baseline: latency(1.0),
            margin: latency(1.1),
            worse: vec![("x1.25", latency(1.25)), ("x1.5", latency(1.5))],
        },
        Metric {
            name: "p95",
            guardrail: quantile(0.95),
            baseline: latency(1.0),
            margin: latency(1.1),
            worse: vec![("x1.25", latency(1.25)), ("x1.5", latency(1.5))],
        },
        Metric {
            name: "p99",
            guardrail: quantile(0.99),
            baseline: latency(1.0),
            margin: latency(1.1),
            worse: vec![("x1.25", latency(1.25)), ("x1.5", latency(1.5))],
        },
        Metric {
            name: "missing",
            guardrail: guardrail(
                "missing",
                Better::Lower,
                Rule::Missing(Missing { of: "request".into(), points: 0.02 }),
            ),
            baseline: Law::Share(0.05),
            margin: Law::Share(0.07),
            worse: shares(&[("5 % to 12 %", 0.12)]),
        },
    ]
}

/// Everything that is simulated, in the order of the table.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    for metric in metrics() {
        for share in [0.05, 0.50] {
            all.extend(stationary(&metric, share));
        }
    }
    all.extend(others());
    all.extend(policies());
    all.extend(ramps());
    all.extend(drifts());
    all.extend(ranges());
    all.extend(onsets());
    all.extend(late_labels());
    all.extend(repeated_users());
    all
}

fn stationary(metric: &Metric, share: f64) -> Vec<Scenario> {
    let phase = |canary| Phase { requests: 0, step: 0, share, baseline: metric.baseline, canary };
    let worse = metric.worse.iter().map(|(what, law)| (*what, phase(*law)));
    questions(
        metric.name,
        &metric.guardrail,
        share,
        phase(metric.margin),
        Some(phase(metric.baseline)),
        worse,
    )
}

/// Pairs of which a tenth differ, events of which the canary may cause 1.25 times as many, and the split of traffic.
fn others() -> Vec<Scenario> {
    let pairs = |worse: f64| {
        let canary = Law::Difference { worse: 0.05 + worse / 2.0, better: 0.05 - worse / 2.0 };
        Phase { requests: 0, step: 0, share: 1.0, baseline: canary, canary }
    };
    let paired = guardrail("pairs", Better::Higher, Rule::Paired(Paired { points: 0.03 }));
    let worse = [("drop 6", pairs(0.06)), ("drop 9", pairs(0.09))].into_iter();
    let mut all = questions("pairs", &paired, 1.0, pairs(0.03), Some(pairs(0.0)), worse);
    for share in [0.05, 0.50] {
        let events = |ratio: f64| Phase {
            requests: 0,
            step: 0,
            share: label_bets::chance(ratio, 1.0 - share, share),
            baseline: Law::Event,
            canary: Law::Event,
        };
        let count = guardrail("complaints", Better::Lower, Rule::Count(Count { ratio: 1.25 }));
        let worse = [("x2", events(2.0)), ("x3", events(3.0))].into_iter();
        all.extend(questions("complaints", &count, share, events(1.25), Some(events(1.0)), worse));
        let split = guardrail("split", Better::Higher, Rule::Split);
        let worse = [("a tenth lost", events(0.9)), ("half lost", events(0.5))].into_iter();
        all.extend(questions("split", &split, share, events(1.0), None, worse));
    }
    all
}

/// What is asked of every metric.
fn questions(
    name: &str,
    guardrail: &Guardrail,
    share: f64,
    at_margin: Phase,
    equal: Option<Phase>,
    worse: impl Iterator<Item = (&'static str, Phase)>,
) -> Vec<Scenario> {
    let of = |what: &str, phase: Phase, requests: f64, asked: Asked, weight: f64| Scenario {
        name: format!("{name} {what}"),
        guardrail: guardrail.clone(),
        beside: Vec::new(),
        share,
        phases: vec![Phase { requests: requests as u64, ..phase }],
        labels: None,
        asked,
        weight,
    };
    // Long enough that a stream without a crossing is one in which the bets are blind.
    let enough = |phase: &Phase| 20.0 * canary_per_nat(guardrail, phase, share) * 100f64.ln() / phase.share;
    let mut all = vec![
        of("at the margin", at_margin.clone(), 1e5, AT_MARGIN, 2.0),
        of("at the margin, 2e6", at_margin, 2e6, AT_MARGIN, 0.1),
    ];
    if let Some(phase) = equal {
        // Where nothing can be shown safe, the length is that of the others.
        let requests = if guardrail.shows_safety() { enough(&phase).max(1e5) } else { 1e5 };
        all.push(of("equal", phase, requests, Asked::Equal, 1.0));
    }
    for (what, phase) in worse {
        let fast = name == "pass" && share == 0.05 && what != "drop 20";
        let requests = enough(&phase).max(1e5);
        all.push(of(what, phase, requests, if fast { Asked::WorseFast } else { Asked::Worse }, 1.0));
    }
    all
}

/// Three guardrails that share the alpha of a rollback by weight: pass rate, errors and p95 latency.
fn policies() -> Vec<Scenario> {
    let weights = [("pass", 0.5), ("errors", 0.3), ("p95", 0.2)];
    let bad = ["drop 6", "x3", "x1.25"];
    let metrics = metrics();
    let found = |name| metrics.iter().find(|m| m.name == name).expect("a metric");
    let law = |metric: &Metric, what: &str| metric.worse.iter().find(|(w, _)| *w == what).expect("a law").1;
    let of = |what: &str, share: f64, asked: Asked, requests: u64, canary: &dyn Fn(usize, &Metric) -> Law| {
        let mut parts = weights.iter().enumerate().map(|(i, (name, weight))| {
            let metric = found(*name);
            let guardrail = Guardrail { weight: *weight, ..metric.guardrail.clone() };
            Secondary { guardrail, baseline: metric.baseline, canary: canary(i, metric) }
        });
        let Secondary { guardrail, baseline, canary } = parts.next().expect("three");
        Scenario {
            name: format!("policy of 3, {what}"),
            guardrail,
            beside: parts.collect(),
            share,
            phases: vec![Phase { requests, step: 0, share, baseline, canary }],
            labels: None,
            asked,
            weight: 1.0,
        }
    };
    let mut all = Vec::new();
    for share in [0.05, 0.50] {
        all.push(of("at the margin", share, Asked::Rollback("G1"), 100_000, &|_, m| m.margin));
        for (i, (name, _)) in weights.iter().enumerate() {
            let what = format!("{name} {}", bad[i]);
            let canary = |j, m: &Metric| if i == j { law(m, bad[i]) } else { m.baseline };
            all.push(of(&what, share, Asked::PooledEvidence, 1_000_000, &canary));
        }
        all.push(of("all three so", share, Asked::PooledEvidence, 1_000_000, &|i, m| law(m, bad[i])));
    }
    all
}

/// Traffic that gets harder (or easier) while the canary's share grows, as it does over the hours of a day.
fn ramps() -> Vec<Scenario> {
    let ramp = |name: &str, levels: [f64; 4], worse: f64, asked: Asked, margin: f64| Scenario {
        name: format!("pass {name}"),
        guardrail: guardrail(
            "pass",
            Better::Higher,
            Rule::Proportion(Proportion { margin: Margin::Points(margin) }),
        ),
        beside: Vec::new(),
        share: 0.01,
        phases: [0.01, 0.05, 0.25, 0.50]
            .into_iter()
            .zip(levels)
            .enumerate()
            .map(|(step, (share, level))| Phase {
                requests: 25_000,
                step: step as u16,
                share,
                baseline: Law::Share(level),
                canary: Law::Share(level - worse),
            })
            .collect(),
        labels: None,
        asked,
        weight: 2.0,
    };
    let (harder, easier) = ([0.92, 0.92, 0.85, 0.80], [0.80, 0.85, 0.92, 0.92]);
    vec![
        ramp("ramp, harder, equal", harder, 0.0, Asked::Rollback("G6"), 0.03),
        ramp("ramp, harder, at the margin", harder, 0.03, Asked::Rollback("G6"), 0.03),
        ramp("ramp, harder, equal, no margin", harder, 0.0, Asked::Rollback("G6"), 0.0),
        ramp("ramp, easier, at the margin", easier, 0.03, Asked::Safe("G6"), 0.03),
    ]
}

/// A pass rate that swings by 14 points over a day of 20,000 requests, the canary 3 points below it.
fn drifts() -> Vec<Scenario> {
    let scenario = |share: f64| Scenario {
        name: "pass drift, at the margin".into(),
        guardrail: pass_rate(),
        beside: Vec::new(),
        share,
        phases: (0..500)
            .map(|i| {
                let level = 0.85 + 0.07 * libm::sin(f64::from(i) / 100.0 * std::f64::consts::TAU);
                Phase {
                    requests: 200,
                    step: 0,
                    share,
                    baseline: Law::Share(level),
                    canary: Law::Share(level - 0.03),
                }
            })
            .collect(),
        labels: None,
        asked: Asked::Margin("drift", "drift"),
        weight: 2.0,
    };
    [0.05, 0.50].map(scenario).into()
}

/// The range that people are shown, while the canary's share grows and the baseline swings as above.
fn ranges() -> Vec<Scenario> {
    let scenario = |name: &str, at: &dyn Fn(f64) -> (Law, Law), difference: f64| {
        let metrics = metrics();
        let metric = metrics.iter().find(|m| m.name == name).expect("a metric");
        let phase = |i: u16| {
            let (baseline, canary) = at(libm::sin(f64::from(i) / 100.0 * std::f64::consts::TAU));
            let step = i / 125;
            let share = [0.01, 0.05, 0.25, 0.50][usize::from(step)];
            Phase { requests: 200, step, share, baseline, canary }
        };
        Scenario {
            name: format!("{name} ramp and drift, range"),
            guardrail: metric.guardrail.clone(),
            beside: Vec::new(),
            share: 0.01,
            phases: (0..500).map(phase).collect(),
            labels: None,
            asked: Asked::Range(difference),
            weight: 2.0,
        }
    };
    let pass = |swing: f64| {
        let level = 0.85 + 0.07 * swing;
        (Law::Share(level), Law::Share(level - 0.03))
    };
    let grade = |swing: f64| {
        let lower = 0.1 * (1.0 + swing);
        (Law::Grade { lower }, Law::Grade { lower: lower + 0.03 })
    };
    let cost = |swing: f64| {
        let mean = 1.0 + 0.3 * swing;
        (Law::LogNormal { mean, sigma: 1.0 }, Law::LogNormal { mean: mean + 0.2, sigma: 1.0 })
    };
    vec![scenario("pass", &pass, -0.03), scenario("grade", &grade, -0.03), scenario("cost", &cost, 0.2)]
}

/// As good as the baseline for a while, then 10 points worse.
fn onsets() -> Vec<Scenario> {
    [0, 500, 2_000, 5_000, 20_000]
        .into_iter()
        .map(|good: u64| {
            let phase = |requests, canary| Phase {
                requests,
                step: 0,
                share: 0.05,
                baseline: Law::Share(0.90),
                canary: Law::Share(canary),
            };
            Scenario {
                name: format!("pass drop 10 after {good} good"),
                guardrail: pass_rate(),
                beside: Vec::new(),
                share: 0.05,
                phases: vec![phase(good * 20, 0.90), phase(400_000, 0.80)],
                labels: None,
                asked: Asked::Onset,
                weight: 0.5,
            }
        })
        .collect()
}

const PLAIN: Labels = Labels {
    rate: 1,
    minutes: [0.0; 2],
    maturity: Span::ZERO,
    by_arrival: false,
    user: (1, 0, false),
    icc: 0.0,
};

fn through_cohorts(name: &str, share: f64, canary: f64, labels: Labels, asked: Asked) -> Scenario {
    let phase =
        Phase { requests: 100_000, step: 0, share, baseline: Law::Share(0.90), canary: Law::Share(canary) };
    Scenario {
        name: format!("pass {name}"),
        guardrail: Guardrail { maturity: labels.maturity, ..pass_rate() },
        beside: Vec::new(),
        share,
        phases: vec![phase],
        labels: Some(labels),
        asked,
        weight: 1.0,
    }
}

/// Failures become known 20 minutes after the request, passes after 2 (both means of exponential delays).
fn late_labels() -> Vec<Scenario> {
    let slow = |minutes: u64| Labels { minutes: [2.0, 20.0], maturity: Span::mins(minutes), ..PLAIN };
    let naive = Labels { by_arrival: true, ..slow(0) };
    vec![
        through_cohorts("late labels, maturity 60 min", 0.05, 0.87, slow(60), Asked::Safe("labels")),
        through_cohorts("late labels, maturity 120 min", 0.05, 0.87, slow(120), Asked::Safe("labels")),
        through_cohorts("late labels, maturity 0", 0.05, 0.87, slow(0), Asked::NaiveSafe("labels")),
        through_cohorts("late labels, by arrival", 0.05, 0.87, naive, Asked::NaiveSafe("labels")),
    ]
}

/// Ten requests a user, and a user's outcomes alike: intraclass correlation 0.2.
fn repeated_users() -> Vec<Scenario> {
    let of = |apart: u64, named: bool| Labels { rate: 10, user: (10, apart, named), icc: 0.2, ..PLAIN };
    let (rule, naive) = (Asked::Rollback("users"), Asked::NaiveRollback("users"));
    vec![
        through_cohorts("users named, 1 s apart", 0.05, 0.87, of(1, true), rule),
        through_cohorts("users named, 1 s apart", 0.50, 0.87, of(1, true), rule),
        through_cohorts("users named, 10 min apart", 0.05, 0.87, of(600, true), naive),
        through_cohorts("users unnamed, 1 s apart", 0.05, 0.87, of(1, false), naive),
    ]
}
