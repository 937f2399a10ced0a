//! What was recorded as sums: windows of five minutes, whole benchmark runs, series of one value. Sums are not served
//! as requests: each becomes a pre-summed block, as far as a sum says what a guardrail needs.

use std::collections::BTreeMap;

use sluice::core::policy::Policy;
use sluice::core::telemetry::columns::{Builder, Row as Sample, Sums};
use sluice::core::time::Span;
use sluice::sim::random::Random;

use super::data::{self, Outcome, Row, number};
use super::play::{BASELINE, CANARY, Ended, Play};

/// One five-minute window of the web service.
#[derive(Clone, Debug)]
pub struct Window {
    pub requests: u64,
    pub errors: u64,
    /// p50, p90, p95, p99 in seconds.
    latency_s: [f64; 4],
}

/// A fault: its setting, the window before it, and the windows after its start. The window in which it starts is a mixture, and
/// left out.
pub struct Fault {
    pub name: String,
    pub before: Window,
    pub after: Vec<Window>,
}

/// The quiet windows in order of time, and the faults.
pub fn web() -> (Vec<Window>, Vec<Fault>) {
    let rows = data::rows(&data::folder().join("windows/web-faults.csv.gz"));
    let mut series: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        series.entry(row["series"].clone()).or_default().push(row);
    }
    let of = |rows: &[&Row], phase: &str| -> Vec<Window> {
        rows.iter().filter(|row| row["phase"] == phase).map(|row| window(row)).collect()
    };
    let mut quiet = Vec::new();
    let mut faults = Vec::new();
    for (name, rows) in &series {
        if rows[0]["phase"] == "normal" {
            quiet = of(rows, "normal");
            continue;
        }
        faults.push(Fault {
            name: format!(
                "{} {}={}",
                name.trim_start_matches("high_traffic/"),
                rows[0]["fault"],
                rows[0]["fault_param"]
            ),
            before: of(rows, "before").remove(0),
            after: of(rows, "after_start"),
        });
    }
    (quiet, faults)
}

fn window(row: &Row) -> Window {
    let column = |name: &str| number(row, name).unwrap_or_else(|| panic!("{name} is empty"));
    let names = ["latency_p50_s", "latency_p90_s", "latency_p95_s", "latency_p99_s"];
    Window {
        requests: column("requests") as u64,
        errors: column("errors") as u64,
        latency_s: names.map(column),
    }
}

impl Window {
    /// Requests that have the window's percentiles: straight lines between two known ones, the last line drawn on above
    /// p99. (Were the tail all of one value, a threshold would lie on it or below it by chance, and ask two different questions.)
    /// The tail itself and the order of requests are not recorded; which of the requests failed is not either, and no
    /// guardrail asks for both.
    pub fn requests(&self) -> Vec<Outcome> {
        let knots = [0.5, 0.9, 0.95, 0.99];
        let latency = |u: f64| {
            if u < knots[0] {
                return self.latency_s[0];
            }
            let i = knots.iter().position(|knot| u < *knot).unwrap_or(knots.len() - 1);
            let part = (u - knots[i - 1]) / (knots[i] - knots[i - 1]);
            self.latency_s[i - 1] + part * (self.latency_s[i] - self.latency_s[i - 1])
        };
        let n = self.requests;
        let outcome = |i: u64| {
            let mut outcome = Outcome::default();
            outcome[2] = Some((latency((i as f64 + 0.5) / n as f64) * 1e6).round() / 1e6);
            outcome[3] = Some(f64::from(u8::from(i < self.errors)));
            outcome
        };
        (0..n).map(outcome).collect()
    }
}

/// One window in one arm of one cohort of five minutes: errors as a sum, latencies as values.
fn put(builder: &mut Builder, version: &str, from: sluice::core::time::Timestamp, requests: &[Outcome]) {
    let (n, length) = (requests.len() as u64, Span::mins(5));
    let ones = requests.iter().filter(|o| o[3] == Some(1.0)).count() as u64;
    builder.aggregate(version, "error", from, from.plus(length), n, Sums::Ones(ones));
    for (i, outcome) in requests.iter().enumerate() {
        let served_at = from.plus(Span(i as u64 * length.0 / n));
        let value = outcome[2].expect("a latency");
        builder.push(Sample { version, metric: "latency_s", served_at, unit: None, tags: None, value });
    }
}

fn shuffled(mut requests: Vec<Outcome>, random: &mut Random) -> Vec<Outcome> {
    for i in (1..requests.len()).rev() {
        requests.swap(i, random.below(i as u64 + 1) as usize);
    }
    requests
}

/// The recorded windows, once: the window before is dealt into four equal parts, the first for the reference, the others
/// beside one window of the canary each.
pub fn once(policy: &Policy, before: &Window, after: &[Window], seed: u64) -> Ended {
    let mut random = Random::new(seed);
    let dealt = shuffled(before.requests(), &mut random);
    let part = dealt.len() / (after.len() + 1);
    let mut cohorts: Vec<[Vec<Outcome>; 2]> = vec![[dealt[..part].to_vec(), Vec::new()]];
    for (i, window) in after.iter().enumerate() {
        let own = dealt[(i + 1) * part..(i + 2) * part].to_vec();
        cohorts.push([own, shuffled(window.requests(), &mut random)]);
    }
    cohorts_of(policy, &cohorts, seed)
}

/// Neighbouring windows as the two arms of a cohort, the first for the reference.
pub fn neighbours(policy: &Policy, windows: &[Window], seed: u64) -> Ended {
    let mut random = Random::new(seed);
    let mut cohorts = vec![[shuffled(windows[0].requests(), &mut random), Vec::new()]];
    for pair in windows[1..].chunks_exact(2) {
        // Which of the two is the canary is drawn: time must not favour an arm.
        let first = random.below(2) as usize;
        let mut arms = [Vec::new(), Vec::new()];
        arms[first] = shuffled(pair[0].requests(), &mut random);
        arms[1 - first] = shuffled(pair[1].requests(), &mut random);
        cohorts.push(arms);
    }
    cohorts_of(policy, &cohorts, seed)
}

fn cohorts_of(policy: &Policy, cohorts: &[[Vec<Outcome>; 2]], seed: u64) -> Ended {
    let mut policy = policy.clone();
    let length = policy.evidence.cohort;
    let all = Span(length.0 * cohorts.len() as u64);
    policy.steps[0].bake = all;
    policy.steps[0].deadline = Some(all.plus(Span(2 * length.0)));
    let mut play = Play::start(&policy, seed);
    for arms in cohorts {
        let from = play.now;
        let mut builder = Builder::new(from);
        for (version, requests) in [BASELINE, CANARY].into_iter().zip(arms) {
            if !requests.is_empty() {
                put(&mut builder, version, from, requests);
            }
        }
        play.canary += arms[1].len() as u64;
        play.batch(from.plus(length), builder.finish());
        if let Some(ended) = play.ended {
            return ended;
        }
    }
    wait(play, Span(4 * length.0))
}

/// Nothing more comes: until the deadline, or the end of a soak.
fn wait(mut play: Play, at_most: Span) -> Ended {
    let until = play.now.plus(at_most);
    while play.ended.is_none() && play.now < until {
        play.pass(play.now.plus(Span::mins(1)));
    }
    play.ended.expect("ended by its deadline")
}

/// What a benchmark run says: cases, passes, unusable answers, and the means of cost and time where known.
#[derive(Clone, Debug)]
pub struct Run {
    pub suite: String,
    pub version: String,
    pub variant: String,
    pub n: u64,
    pub passed: u64,
    pub malformed: u64,
    pub cost_usd: Option<f64>,
    pub latency_s: Option<f64>,
}

pub fn runs() -> Vec<Run> {
    let rows = data::rows(&data::folder().join("aggregates/coding-benchmark-runs.csv"));
    let run = |row: &Row| {
        let n = number(row, "n_cases").expect("n_cases");
        Run {
            suite: row["suite"].clone(),
            version: row["version"].clone(),
            variant: row["variant"].clone(),
            n: n as u64,
            passed: number(row, "passed").expect("passed") as u64,
            malformed: number(row, "well_formed_pct")
                .map_or(0, |pct| (n * (100.0 - pct) / 100.0).round() as u64),
            cost_usd: number(row, "cost_usd_total").map(|total| total / n),
            latency_s: number(row, "latency_s_per_case"),
        }
    };
    rows.iter().map(run).collect()
}

/// What a run is to the policy: zeros and ones that lose nothing. Its means stay what they are.
pub fn outcomes(runs: &[Run]) -> Vec<Outcome> {
    let mut all = Vec::new();
    for run in runs {
        for i in 0..run.n {
            let mut outcome = Outcome::default();
            outcome[data::EVAL] = Some(f64::from(u8::from(i < run.passed)));
            outcome[4] = Some(f64::from(u8::from(i < run.malformed)));
            (outcome[1], outcome[2]) = (run.cost_usd, run.latency_s);
            all.push(outcome);
        }
    }
    all
}

/// Each run of the canary beside one of the baseline, in a cohort of its own, once. A single pair is dealt into four parts, for
/// otherwise the reference would take all of it; of its means, the first part has the only observation.
pub fn runs_once(policy: &Policy, baseline: &[Run], canary: &[Run], seed: u64) -> Ended {
    let mut random = Random::new(seed);
    let pairs = baseline.iter().zip(canary);
    let mut cohorts: Vec<(Run, Run)> = pairs.map(|(a, b)| (a.clone(), b.clone())).collect();
    if let [(a, b)] = cohorts.as_slice() {
        let (a, b) = (dealt(a, 4, &mut random), dealt(b, 4, &mut random));
        cohorts = a.into_iter().zip(b).collect();
    }
    let mut play = Play::start(policy, seed);
    for (a, b) in &cohorts {
        block(&mut play, policy, a, b);
    }
    match play.ended {
        Some(ended) => ended,
        None => wait(play, Span::hours(25)),
    }
}

/// Runs drawn with replacement, a pair a cohort, until it is decided.
pub fn runs_drawn(policy: &Policy, baseline: &[Run], canary: &[Run], seed: u64) -> Ended {
    let mut random = Random::new(seed);
    let mut play = Play::start(policy, seed);
    while play.ended.is_none() {
        let drawn = [baseline, canary].map(|runs| &runs[random.below(runs.len() as u64) as usize]);
        block(&mut play, policy, drawn[0], drawn[1]);
    }
    play.ended.expect("ended")
}

fn dealt(run: &Run, parts: usize, random: &mut Random) -> Vec<Run> {
    let cases = shuffled(outcomes(std::slice::from_ref(run)), random);
    let size = cases.len().div_ceil(parts);
    let part = |(i, cases): (usize, &[Outcome])| Run {
        n: cases.len() as u64,
        passed: cases.iter().filter(|o| o[data::EVAL] == Some(1.0)).count() as u64,
        malformed: cases.iter().filter(|o| o[4] == Some(1.0)).count() as u64,
        cost_usd: run.cost_usd.filter(|_| i == 0),
        latency_s: run.latency_s.filter(|_| i == 0),
        ..run.clone()
    };
    cases.chunks(size).enumerate().map(part).collect()
}

fn block(play: &mut Play, policy: &Policy, a: &Run, b: &Run) {
    let (from, length) = (play.now, policy.evidence.cohort);
    let to = from.plus(length);
    let mut builder = Builder::new(from);
    for (version, run) in [(BASELINE, a), (CANARY, b)] {
        let mut ones = |metric, ones| builder.aggregate(version, metric, from, to, run.n, Sums::Ones(ones));
        ones("eval_pass", run.passed);
        ones("invalid_output", run.malformed);
        for (metric, mean) in [("cost_usd", run.cost_usd), ("latency_s", run.latency_s)] {
            if let Some(mean) = mean {
                // The sum of squares is not known; no guardrail uses it.
                let sums = Sums::Moments { sum: mean * run.n as f64, sumsq: 0.0 };
                builder.aggregate(version, metric, from, to, run.n, sums);
            }
        }
    }
    play.canary += b.n;
    play.batch(to, builder.finish());
}

/// A labelled series: values in order of time, and whether each lies in a labelled window.
pub fn series() -> BTreeMap<String, Vec<(f64, bool)>> {
    let mut series: BTreeMap<String, Vec<(f64, bool)>> = BTreeMap::new();
    for row in data::rows(&data::folder().join("windows/labelled-series.csv.gz")) {
        let point = (number(&row, "value").expect("a value"), row["in_incident_window"] == "1");
        series.entry(row["series"].clone()).or_default().push(point);
    }
    series
}

/// What an absolute guard finds in a series: labelled windows, those with an alert in them, rollouts, those with an
/// alert outside of a window.
#[derive(Debug, PartialEq)]
pub struct Found {
    pub windows: usize,
    pub caught: usize,
    pub rollouts: usize,
    pub outside: usize,
}

/// A rollout for every `size` points. A point is high above mean and three standard deviations of the first points,
/// up to half of what comes before the first label.
pub fn watch(policy: &Policy, points: &[(f64, bool)], size: usize) -> Found {
    let first = points.iter().position(|(_, labelled)| *labelled).unwrap_or(points.len()) / 2;
    let known: Vec<f64> = points[..first].iter().map(|(x, _)| *x).collect();
    let mean = known.iter().sum::<f64>() / first as f64;
    let variance = known.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / first as f64;
    let limit = mean + 3.0 * variance.sqrt();
    let mut window = 0;
    let numbered: Vec<usize> = (0..points.len())
        .map(|i| {
            window += usize::from(points[i].1 && (i == 0 || !points[i - 1].1));
            if points[i].1 { window } else { 0 }
        })
        .collect();
    let mut caught = std::collections::BTreeSet::new();
    let (mut rollouts, mut outside) = (0, 0);
    for start in (0..points.len()).step_by(size) {
        rollouts += 1;
        let mut play = Play::start(policy, start as u64);
        for i in start..(start + size).min(points.len()) {
            let mut builder = Builder::new(play.now);
            let (served_at, value) = (play.now, f64::from(u8::from(points[i].0 > limit)));
            builder.push(Sample {
                version: CANARY,
                metric: "high",
                served_at,
                unit: None,
                tags: None,
                value,
            });
            play.batch(served_at.plus(Span::mins(5)), builder.finish());
            if play.has_failed() {
                if numbered[i] > 0 {
                    caught.insert(numbered[i]);
                } else {
                    outside += 1;
                }
                break;
            }
        }
    }
    Found { windows: window, caught: caught.len(), rollouts, outside }
}
