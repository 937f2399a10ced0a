//! Expected pay-offs by enumeration: all outcomes of a block, weighed by their chances, are worth 1 at most, whatever
//! the truth under the null is. On the boundary, where the bound is nearly reached, and beyond it.

use super::*;
use crate::core::evidence::label_bets;
use crate::core::evidence::monitor::GuardrailMonitor;
use crate::core::evidence::reference::{BaselineSample, Reference};
use crate::core::evidence::score::{Evidence, harm_ln};
use crate::core::policy::guardrail::{Better, Guardrail, Missing, Rule};
use crate::core::telemetry::arm::Portion;
use crate::core::time::Timestamp;

/// What rounding may add to a sum.
const ROUNDING: f64 = 1e-12;

/// The largest expectation that was met. One far below 1 would tell of a look at the wrong place.
#[derive(Default)]
struct Largest(f64);

impl Largest {
    fn note(&mut self, expected: f64, what: impl FnOnce() -> String) {
        assert!(expected <= 1.0 + ROUNDING, "{expected} is expected of {}", what());
        self.0 = self.0.max(expected);
    }

    fn is_close_to_one(&self) {
        assert!(self.0 > 0.999, "no more than {} is expected anywhere", self.0);
    }
}

/// Chances of 0 to `n` ones.
fn binomial(n: u32, p: f64) -> Vec<f64> {
    let (n, mut choose) = (n as i32, 1.0);
    let mut chances = Vec::new();
    for k in 0..=n {
        chances.push(choose * p.powi(k) * (1.0 - p).powi(n - k));
        choose *= f64::from(n - k) / f64::from(k + 1);
    }
    chances
}

fn dot(chances: &[f64], values: &[f64]) -> f64 {
    chances.iter().zip(values).map(|(chance, value)| chance * value).sum()
}

/// The canary means under the null against which `lean` bets: the nearest to the boundary, and others beyond it.
fn under_null(lean: Lean, boundary: f64) -> impl Iterator<Item = f64> {
    let s = lean.sign();
    [0.0, 0.005, 0.05, 0.3]
        .into_iter()
        .map(move |beyond| (boundary + s * beyond).clamp(0.0, 1.0))
        .filter(move |mu| s * (mu - boundary) >= 0.0)
}

#[test]
fn zeros_and_ones_pay_one_at_most() {
    let mut largest = Largest::default();
    let rates =
        || [0.0, 0.001, 0.01].into_iter().chain((1..=19).map(|i| f64::from(i) / 20.0)).chain([0.99, 1.0]);
    for (rho, d) in [(1.0, -0.03), (1.0, 0.0), (0.97, 0.0), (1.5, 0.001), (1.0, 0.02)] {
        for (n_a, n_b) in [(1, 1), (8, 8), (17, 15), (30, 2), (2, 30), (3, 12)] {
            for lean in [Lean::Below, Lean::Above] {
                // For each rate of the baseline, its chances and those of the canary's rates under the null.
                let truths: Vec<(f64, Vec<f64>, Vec<Vec<f64>>)> = rates()
                    .map(|mu_a| {
                        let canaries = under_null(lean, rho * mu_a + d).map(|mu_b| binomial(n_b, mu_b));
                        (mu_a, binomial(n_a, mu_a), canaries.collect())
                    })
                    .collect();
                for theta in [0.01, 0.05, 0.3, 0.6, 0.9, 0.98] {
                    let setting = Setting::binary(rho, d, theta);
                    let boundary = setting.boundary();
                    if boundary <= 0.0 || boundary >= 1.0 {
                        continue;
                    }
                    for eps in setting.default_grid(lean, (boundary - theta).abs()) {
                        let (a, b) = (f64::from(n_a), f64::from(n_b));
                        let bet = setting.bet(lean, eps, a, b);
                        let pays = |f_b: u32| -> Vec<f64> {
                            (0..=n_a).map(|f_a| bet.pay_counts(a, f_a.into(), b, f_b.into()).exp()).collect()
                        };
                        let pays: Vec<Vec<f64>> = (0..=n_b).map(pays).collect();
                        for (mu_a, baseline, canaries) in &truths {
                            let given: Vec<f64> = pays.iter().map(|pays| dot(baseline, pays)).collect();
                            for canary in canaries {
                                largest.note(dot(canary, &given), || {
                                    format!("rho={rho} d={d} {lean:?} theta={theta} eps={eps} {n_a}+{n_b} at {mu_a}")
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    largest.is_close_to_one();
}

/// Every way to spread `parts` equal parts of the chance over `levels` levels.
fn spreads(levels: usize, parts: u32) -> Vec<Vec<f64>> {
    fn rest(levels: usize, left: u32, parts: u32) -> Vec<Vec<f64>> {
        let share = |n: u32| f64::from(n) / f64::from(parts);
        if levels == 1 {
            return vec![vec![share(left)]];
        }
        let with = |n: u32| {
            rest(levels - 1, left - n, parts).into_iter().map(move |tail| [vec![share(n)], tail].concat())
        };
        (0..=left).flat_map(with).collect()
    }
    rest(levels, parts, parts)
}

/// Every sequence of `n` of the values.
fn sequences(values: &[f64], n: u32) -> Vec<Vec<f64>> {
    let longer = |shorter: Vec<Vec<f64>>, _| {
        shorter.iter().flat_map(|ys| values.iter().map(move |y| [ys.as_slice(), &[*y]].concat())).collect()
    };
    (0..n).fold(vec![vec![]], longer)
}

/// Their chances, in the same order.
fn chances(law: &[f64], n: u32) -> Vec<f64> {
    sequences(law, n).iter().map(|ps| ps.iter().product()).collect()
}

/// `law` itself if it is under the null, and mixed with the lowest or the highest level so that its mean is on the
/// boundary.
fn laws_under_null(lean: Lean, boundary: f64, levels: &[f64], law: &[f64]) -> Vec<Vec<f64>> {
    let mean = dot(law, levels);
    let mut laws = Vec::new();
    if lean.sign() * (mean - boundary) > 0.0 {
        laws.push(law.to_vec());
    }
    let end = if mean < boundary { levels.len() - 1 } else { 0 };
    let t = if mean == boundary { 0.0 } else { (boundary - mean) / (levels[end] - mean) };
    if (0.0..=1.0).contains(&t) {
        let mut mixed: Vec<f64> = law.iter().map(|p| p * (1.0 - t)).collect();
        mixed[end] += t;
        laws.push(mixed);
    }
    laws
}

#[test]
fn grades_pay_one_at_most_whatever_their_law() {
    let levels = [0.0, 0.25, 0.5, 1.0];
    let laws = spreads(levels.len(), 4);
    let mut largest = Largest::default();
    for (rho, d) in [(1.0, -0.03), (0.97, 0.0), (1.0, 0.0), (1.2, 0.01)] {
        for (n_a, n_b) in [(1, 1), (3, 1), (1, 3), (2, 2)] {
            let (all_a, all_b) = (sequences(&levels, n_a), sequences(&levels, n_b));
            for lean in [Lean::Below, Lean::Above] {
                let truth = |baseline: &Vec<f64>| {
                    let boundary = rho * dot(baseline, &levels) + d;
                    let canaries = laws.iter().flat_map(|law| laws_under_null(lean, boundary, &levels, law));
                    let canaries: Vec<Vec<f64>> = canaries.map(|law| chances(&law, n_b)).collect();
                    (baseline.clone(), chances(baseline, n_a), canaries)
                };
                let truths: Vec<_> = laws.iter().map(truth).collect();
                for (theta, variance) in [(0.8, 0.11), (0.3, 0.02)] {
                    let setting = Setting { rho, d, theta, var_a: variance, var_b: variance, binary: false };
                    for eps in setting.default_grid(lean, (setting.boundary() - theta).abs()) {
                        let bet = setting.bet(lean, eps, f64::from(n_a), f64::from(n_b));
                        let pays = |ys_b: &Vec<f64>| -> Vec<f64> {
                            all_a.iter().map(|ys_a| bet.pay_values(ys_a, ys_b).exp()).collect()
                        };
                        let pays: Vec<Vec<f64>> = all_b.iter().map(pays).collect();
                        for (law, baseline, canaries) in &truths {
                            let given: Vec<f64> = pays.iter().map(|pays| dot(baseline, pays)).collect();
                            for canary in canaries {
                                largest.note(dot(canary, &given), || {
                                    format!("rho={rho} d={d} {lean:?} theta={theta} eps={eps} {n_a}+{n_b} at {law:?}")
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    largest.is_close_to_one();
}

#[test]
fn pairs_pay_one_at_most_whatever_share_of_them_differs() {
    let levels = [0.0, 0.5, 1.0];
    let mut largest = Largest::default();
    for d in [-0.1, -0.03, 0.0, 0.03] {
        for variance in [0.005, 0.025, 0.15] {
            let setting = PairSetting { d, variance };
            for lean in [Lean::Below, Lean::Above] {
                let laws = spreads(levels.len(), 8);
                let laws: Vec<Vec<f64>> = laws
                    .iter()
                    .flat_map(|law| laws_under_null(lean, (1.0 + d) / 2.0, &levels, law))
                    .collect();
                for n in 1..=4 {
                    let all = sequences(&levels, n);
                    for eps in setting.grid(lean, d.abs()) {
                        let stake = setting.stake(lean, eps);
                        let pays: Vec<f64> =
                            all.iter().map(|ys| setting.pay(lean, stake, ys).exp()).collect();
                        for law in &laws {
                            largest.note(dot(&chances(law, n), &pays), || {
                                format!("d={d} variance={variance} {lean:?} eps={eps}, {n} pairs at {law:?}")
                            });
                        }
                    }
                }
            }
        }
    }
    largest.is_close_to_one();
}

/// Given that there were n events. On the boundary a pay-off is a likelihood ratio, and exactly 1 is expected.
#[test]
fn events_pay_one_on_the_boundary_and_less_beyond_it() {
    for share in [0.01, 0.05, 0.25, 0.5, 0.9] {
        for boundary in [0.8, 1.0, 1.25] {
            let t0 = label_bets::chance(boundary, 1.0 - share, share);
            for r in
                label_bets::RATIOS_ABOVE.iter().chain(&label_bets::RATIOS_BELOW).chain(&label_bets::SPLITS)
            {
                let t = label_bets::chance(boundary * r, 1.0 - share, share);
                for n in [1, 2, 4, 9, 25] {
                    let pays = |x_b: u32| label_bets::pay(t0, t, f64::from(n - x_b), f64::from(x_b)).exp();
                    let pays: Vec<f64> = (0..=n).map(pays).collect();
                    let expected = |t: f64| dot(&binomial(n, t), &pays);
                    let what = format!("{share}, {boundary} times, bet on {r}, {n} events");
                    assert!((expected(t0) - 1.0).abs() <= ROUNDING, "{} is expected of {what}", expected(t0));
                    for part in [0.0, 0.5, 0.9, 0.99] {
                        // Away from what is bet on.
                        let beyond = if t > t0 { t0 * part } else { 1.0 - (1.0 - t0) * part };
                        assert!(expected(beyond) < 1.0, "{} is expected of {what}", expected(beyond));
                    }
                }
            }
        }
    }
}

/// Two accounts, one for each side, and their average is what acts. As a rollout scores a block and reads it.
#[test]
fn a_missing_share_within_its_points_pays_one_at_most() {
    let points = 0.02;
    let guardrail =
        Guardrail::new("graded", Better::Lower, Rule::Missing(Missing { of: "request".into(), points }));
    let mut largest = Largest::default();
    for theta in [0.01, 0.05, 0.4] {
        let n = 9_999;
        let gathered = BaselineSample { n, sum: theta * (n + 1) as f64 - 0.5, ..BaselineSample::default() };
        let reference = Reference::first(&guardrail, &gathered).expect("a sound baseline");
        for (n_a, n_b) in [(1, 1), (8, 8), (30, 2), (2, 30), (60, 40)] {
            let after = |f_a: u32, f_b: u32| {
                let mut monitor =
                    GuardrailMonitor { evidence: Evidence::default(), ..GuardrailMonitor::new(&guardrail) };
                monitor.evidence.start(&reference, 0);
                let [n_a, f_a, n_b, f_b] = [n_a, f_a, n_b, f_b].map(u64::from);
                let portion = Portion::Counts { n_a, f_a, n_b, f_b };
                monitor.evidence.add(&guardrail, &reference, Timestamp(0), &portion);
                monitor.evidence.end_cohort(&guardrail, &reference, Timestamp(60_000));
                assert_eq!(monitor.evidence.blocks, 1);
                harm_ln(&guardrail, &monitor.evidence).exp()
            };
            let pays: Vec<Vec<f64>> =
                (0..=n_b).map(|f_b| (0..=n_a).map(|f_a| after(f_a, f_b)).collect()).collect();
            for mu_a in [0.0, 0.005, 0.02, 0.05, 0.2, 0.5, 0.9, 1.0] {
                let baseline = binomial(n_a, mu_a);
                let given: Vec<f64> = pays.iter().map(|pays| dot(&baseline, pays)).collect();
                for off in [-1.0, -0.5, 0.0, 0.5, 1.0] {
                    let mu_b: f64 = mu_a + off * points;
                    if (0.0..=1.0).contains(&mu_b) {
                        let expected = dot(&binomial(n_b, mu_b), &given);
                        largest.note(expected, || format!("theta={theta} {n_a}+{n_b} at {mu_a} and {mu_b}"));
                    }
                }
            }
        }
    }
    largest.is_close_to_one();
}
