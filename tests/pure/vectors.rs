//! The published numbers of the evidence engine, at their published tolerance: `make test-data`.

use std::path::PathBuf;

use serde_json::Value;
use sluice::core::evidence::bets::{
    Bet, Bets, INITIAL_STAKE, Lean, PairSetting, Setting, UNITS_PER_NAT, Wealth, ln_weighted,
};
use sluice::core::evidence::block::EPOCH_CANARY;
use sluice::core::evidence::interval::{IntervalEstimate, normal_mixture_bound};
use sluice::core::evidence::label_bets;
use sluice::core::evidence::reference::{BaselineSample, Reference};
use sluice::core::policy::guardrail::{Better, Guardrail, Margin, Mean, Proportion, Quantile, Rule};
use sluice::sim::random::Random;

fn vectors(name: &str) -> Value {
    let folder = std::env::var("SLUICE_VECTORS").expect("SLUICE_VECTORS names the folder of vectors");
    let text = std::fs::read_to_string(PathBuf::from(folder).join(name)).expect("a file of vectors");
    serde_json::from_str(&text).expect("JSON")
}

/// Numbers come as decimal strings or as numbers.
fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{value} is no number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(number).collect()
}

fn close(have: f64, want: f64, what: &str) {
    assert!((have - want).abs() <= 1e-9, "{what}: {have} is not {want}");
}

fn lean(s: &Value) -> Lean {
    if s.as_i64() == Some(1) { Lean::Below } else { Lean::Above }
}

fn setting(p: &Value) -> Setting {
    let (rho, d, theta) = (number(&p["rho"]), number(&p["d"]), number(&p["theta"]));
    if p["binary"].as_bool().expect("binary") {
        Setting::binary(rho, d, theta)
    } else {
        Setting { rho, d, theta, var_a: number(&p["vA"]), var_b: number(&p["vB"]), binary: false }
    }
}

#[test]
#[ignore = "reads published vectors: make test-data"]
fn balanced_bets() {
    let file = vectors("balanced_bets.json");
    for vector in file["vectors"].as_array().expect("vectors") {
        let name = vector["name"].as_str().expect("a name");
        let p = &vector["params"];
        let (setting, lean, eps) = (setting(p), lean(&p["s"]), numbers(&p["eps"]));
        let mut wealth = Wealth::staked(eps.len(), number(&p["w0"]));
        for (i, (block, expected)) in vector["blocks"]
            .as_array()
            .expect("blocks")
            .iter()
            .zip(vector["expected"].as_array().expect("expected"))
            .enumerate()
        {
            let what = format!("{name}, block {i}");
            if block["epoch"].as_bool() == Some(true) {
                wealth.begin_epoch();
            }
            let (ys_a, ys_b) = (block.get("yA").map(numbers), block.get("yB").map(numbers));
            let counts = ["nA", "fA", "nB", "fB"].map(|key| block.get(key).map_or(0.0, number));
            let (n_a, n_b) = match (&ys_a, &ys_b) {
                (Some(a), Some(b)) => (a.len() as f64, b.len() as f64),
                _ => (counts[0], counts[2]),
            };
            let bets: Vec<Bet> = eps.iter().map(|e| setting.bet(lean, *e, n_a, n_b)).collect();
            let pays: Vec<f64> = bets
                .iter()
                .map(|bet| match (&ys_a, &ys_b) {
                    (Some(a), Some(b)) => bet.pay_values(a, b),
                    _ => bet.pay_counts(n_a, counts[1], n_b, counts[3]),
                })
                .collect();
            for ((bet, pay), want) in bets.iter().zip(&pays).zip(expected["bets"].as_array().expect("bets")) {
                close(bet.a, number(&want["a"]), &what);
                close(bet.b, number(&want["b"]), &what);
                close(bet.g, number(&want["g"]), &what);
                close(bet.c, number(&want["c"]), &what);
                close(*pay, number(&want["inc"]), &what);
            }
            wealth.add(pays);
            close(wealth.ln(), number(&expected["log_e"]), &what);
            for (word, want) in
                wealth.log_wealth.iter().zip(expected["w_fixed_point"].as_array().expect("words"))
            {
                let want: i64 = want.as_str().expect("a word").parse().expect("an integer");
                assert!((word - want).abs() <= 2, "{what}: word {word} is not {want}");
            }
        }
    }
}

#[test]
#[ignore = "reads published vectors: make test-data"]
fn long_replays() {
    let file = vectors("replay_long.json");
    for run in file["runs"].as_array().expect("runs") {
        let seed: u64 = run["seed"].as_str().expect("a seed").parse().expect("an integer");
        let what = format!("seed {seed}");
        let (lean, eps) = (lean(&run["s"]), numbers(&run["eps"]));
        let setting = Setting::binary(number(&run["rho"]), number(&run["d"]), number(&run["theta"]));
        assert_eq!((number(&run["w0"]), number(&run["R"])), (INITIAL_STAKE, EPOCH_CANARY as f64));
        let mut wealth = Wealth::new(eps.len());
        let mut random = Random::new(seed);
        let (mut n, mut f, mut canary, mut crossed) = ([0.0; 2], [0.0; 2], 0, None);
        for request in 1..=run["requests"].as_u64().expect("requests") {
            let arm = usize::from(random.unit() < number(&run["q"]));
            let p = number(&run[["pA", "pB"][arm]]);
            n[arm] += 1.0;
            f[arm] += f64::from(u8::from(random.unit() < p));
            canary += u64::from(arm == 1);
            if n[0] + n[1] < number(&run["block_size"]) || n[0] == 0.0 || n[1] == 0.0 {
                continue;
            }
            let bet = |e: &f64| setting.bet(lean, *e, n[0], n[1]).pay_counts(n[0], f[0], n[1], f[1]);
            wealth.add(eps.iter().map(bet));
            (n, f) = ([0.0; 2], [0.0; 2]);
            if crossed.is_none() && wealth.ln() >= 20f64.ln() {
                crossed = Some((request, wealth.ln()));
            }
            if canary >= EPOCH_CANARY {
                wealth.begin_epoch();
                canary = 0;
            }
        }
        match (&run["first_crossing_20"], crossed) {
            (Value::Null, None) => {}
            (want, Some((request, ln))) => {
                assert_eq!(want["request"].as_u64(), Some(request), "{what}");
                close(ln, number(&want["log_e"]), &what);
            }
            (want, None) => panic!("{what}: never crossed, expected {want}"),
        }
        close(wealth.ln(), number(&run["final_log_e"]), &what);
        for (word, want) in
            wealth.log_wealth.iter().zip(run["final_w_fixed_point"].as_array().expect("words"))
        {
            let want: i64 = want.as_str().expect("a word").parse().expect("an integer");
            assert!((word - want).abs() <= 4, "{what}: word {word} is not {want}");
        }
    }
}

#[test]
#[ignore = "reads published vectors: make test-data"]
fn label_bets() {
    let file = vectors("label_bets.json");
    for vector in file["vectors"].as_array().expect("vectors") {
        let name = vector["name"].as_str().expect("a name");
        let ratios = numbers(&vector["ratios"]);
        let split = vector["kind"] == "srm";
        let used: &[&[f64]] = &[&label_bets::SPLITS, &label_bets::RATIOS_ABOVE, &label_bets::RATIOS_BELOW];
        let bets = used.iter().find(|bets| bets.len() == ratios.len()).expect("a grid of ours");
        bets.iter().zip(&ratios).for_each(|(have, want)| close(*have, *want, name));
        let mut wealth = Wealth::staked(bets.len(), 1.0);
        let (blocks, wants) = (vector["blocks"].as_array(), vector["expected"].as_array());
        for (block, want) in blocks.expect("blocks").iter().zip(wants.expect("expected")) {
            let (rho, e_a, e_b) = match split {
                true => (1.0, 1.0 - number(&block["q"]), number(&block["q"])),
                false => (number(&block["rho"]), number(&block["EA"]), number(&block["EB"])),
            };
            let t0 = label_bets::chance(rho, e_a, e_b);
            let (x_a, x_b) = (number(&block["xA"]), number(&block["xB"]));
            wealth.add(
                bets.iter().map(|r| label_bets::pay(t0, label_bets::chance(rho * r, e_a, e_b), x_a, x_b)),
            );
            close(wealth.ln(), number(&want["log_e"]), name);
            for (word, want) in wealth.log_wealth.iter().zip(numbers(&want["log_w"])) {
                close(*word as f64 / UNITS_PER_NAT, want, name);
            }
        }
    }
}

#[test]
#[ignore = "reads published vectors: make test-data"]
fn combining_grids_and_the_displayed_range() {
    let file = vectors("combine_display_paired.json");
    let mut grids = 0;
    for v in file["vectors"].as_array().expect("vectors") {
        let name = v["name"].as_str().expect("a name");
        if name.starts_with("weighted_average") {
            let parts: Vec<(f64, f64)> =
                numbers(&v["weights"]).into_iter().zip(numbers(&v["log_e"])).collect();
            close(ln_weighted(parts.into_iter()), number(&v["expected_log_e"]), name);
        } else if name == "display_bound" {
            let bound = normal_mixture_bound(number(&v["v"]), number(&v["alpha"]), number(&v["v_opt"]));
            close(bound, number(&v["expected_bound"]), name);
        } else if name == "display_cs" {
            let mut interval =
                IntervalEstimate { best_at: number(&v["v_opt"]), ..IntervalEstimate::default() };
            let (blocks, wants) = (v["blocks"].as_array(), v["expected"].as_array());
            for (block, want) in blocks.expect("blocks").iter().zip(wants.expect("expected")) {
                let [n_a, f_a, n_b, f_b] = ["nA", "fA", "nB", "fB"].map(|key| number(&block[key]));
                interval.add_counts(n_a as u64, f_a, n_b as u64, f_b);
                let range = interval.range(1.0).expect("enough was seen");
                close(interval.weight, number(&want["H"]), name);
                close(interval.variance, number(&want["V"]), name);
                close(range.diff, number(&want["diff"]), name);
                close(range.lo, number(&want["lo"]), name);
                close(range.hi, number(&want["hi"]), name);
            }
        } else if name.starts_with("paired") {
            // The stakes are given. How one follows from an excess is a test of `core::bets`.
            let setting = PairSetting { d: 2.0 * number(&v["b"]) - 1.0, variance: 0.0 };
            let (ys, mut sum) = (numbers(&v["y"]), 0.0);
            for (y, want) in ys.iter().zip(numbers(&v["expected_log_w"])) {
                sum += setting.pay(lean(&v["s"]), number(&v["g"]), &[*y]);
                close(sum, want, name);
            }
        } else if name.starts_with("default_grid") {
            // Their sizes come from the margin alone: the smallest and how many are the engine's own.
            let guardrail = of_default_grid(v);
            let reference =
                Reference::first(&guardrail, &baseline_around(number(&v["theta"]), &guardrail.rule))
                    .expect("a sound baseline");
            close(reference.theta, number(&v["theta"]), name);
            let bets = guardrail.bets(&reference);
            let Some(Bets::Counts(arms) | Bets::Values(arms)) = bets else { panic!("{name}: {bets:?}") };
            close(arms.setting.rho, number(&v["rho"]), name);
            close(arms.setting.d, number(&v["d"]), name);
            let of_harm = arms.lean == lean(&v["s"]);
            let grid = if of_harm { &reference.harm_grid } else { &reference.safe_grid };
            let want = numbers(&v["expected_eps"]);
            close(grid[0], number(&v["e0"]), name);
            assert!(grid.len() as u64 <= v["K"].as_u64().expect("K"), "{name}");
            assert_eq!(grid.len(), want.len(), "{name}");
            grid.iter().zip(want).for_each(|(have, want)| close(*have, want, name));
            grids += 1;
        } else {
            panic!("{name} is of no kind that is known here");
        }
    }
    assert_eq!(grids, 10);
}

/// The guardrail that a published default grid is of.
fn of_default_grid(v: &Value) -> Guardrail {
    let (rho, d) = (number(&v["rho"]), number(&v["d"]));
    let (better, rule) = match v["margin_kind"].as_str().expect("a kind of margin") {
        "abs" => (Better::Higher, Rule::Proportion(Proportion { margin: Margin::Points(-d) })),
        "rate" => {
            (Better::Lower, Rule::Proportion(Proportion { margin: Margin::Ratio { ratio: rho, plus: d } }))
        }
        "zero" => (Better::Lower, Rule::Quantile(Quantile { q: 1.0 - number(&v["theta"]), handicap: 0.1 })),
        "handicap0.2" => (Better::Lower, Rule::Mean(Mean { handicap: 0.2 })),
        other => panic!("no margin is of kind {other}"),
    };
    Guardrail::new("vector", better, rule)
}

/// A baseline of which the reference's mean is `theta`.
fn baseline_around(theta: f64, rule: &Rule) -> BaselineSample {
    let n = 9_999u64;
    let values: Vec<f64> = match rule {
        // The largest 19 are the cap, 1, and above the 99.9th percentile.
        Rule::Mean { .. } => {
            let low = (theta * n as f64 - 19.0) / (n - 19) as f64;
            (0..n).map(|i| if i < n - 19 { low } else { 1.0 }).collect()
        }
        Rule::Quantile { .. } => (0..n).map(|i| i as f64).collect(),
        _ => Vec::new(),
    };
    // Of zeros and ones: theta is `(ones + 0.5) / (n + 1)`.
    let sum = if values.is_empty() { theta * (n + 1) as f64 - 0.5 } else { values.iter().sum() };
    BaselineSample { n, sum, sumsq: sum, values, ..BaselineSample::default() }
}
