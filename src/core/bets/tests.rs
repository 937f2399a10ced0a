//! The reference numbers (`../shared/vectors` where present) and the identities behind them.

use super::*;

/// First block of the published example: theta .9, three points, 5 % canary.
#[test]
fn the_first_bet_of_the_published_example() {
    let setting = Setting::binary(1.0, -0.03, 0.9);
    let bet = setting.bet(Lean::Below, 0.015, 30.0, 2.0);
    for (have, want) in [
        (bet.a, 0.8992443324937028),
        (bet.b, 0.8692443324937028),
        (bet.g, 0.12532557695660643),
        (bet.c, 0.008355038463773761),
        (bet.pay_counts(30.0, 28.0, 2.0, 1.0), 0.0953583112871122),
    ] {
        assert!((have - want).abs() < 1e-12, "{have} is not {want}");
    }
}

/// No true rate under the null gives an expected pay-off above 1: all outcomes of a block are enumerated.
#[test]
fn expected_pay_off_never_exceeds_one() {
    let choose = |n: i32, k: i32| (0..k).fold(1.0, |c, i| c * f64::from(n - i) / f64::from(i + 1));
    let chance = |n: i32, k: i32, p: f64| choose(n, k) * p.powi(k) * (1.0 - p).powi(n - k);
    for (rho, d) in [(1.0, -0.03), (1.0, 0.0), (0.97, 0.0), (1.5, 0.001), (1.0, 0.02)] {
        for lean in [Lean::Below, Lean::Above] {
            for theta in [0.02, 0.3, 0.6] {
                let setting = Setting::binary(rho, d, theta);
                if !(0.0..1.0).contains(&setting.boundary()) || setting.boundary() <= 0.0 {
                    continue;
                }
                for (n_a, n_b) in [(30, 2), (8, 8), (1, 1), (3, 12)] {
                    for eps in setting.default_grid(lean, d.abs()) {
                        let bet = setting.bet(lean, eps, f64::from(n_a), f64::from(n_b));
                        for mu_a in [0.01, 0.1, 0.4, 0.62] {
                            let mu_b = rho * mu_a + d; // the worst point of either null
                            if !(0.0..=1.0).contains(&mu_b) {
                                continue;
                            }
                            let mut expected = 0.0;
                            for f_a in 0..=n_a {
                                for f_b in 0..=n_b {
                                    let pay = bet.pay_counts(n_a.into(), f_a.into(), n_b.into(), f_b.into());
                                    expected += chance(n_a, f_a, mu_a) * chance(n_b, f_b, mu_b) * pay.exp();
                                }
                            }
                            assert!(
                                expected <= 1.0 + 1e-12,
                                "{expected} rho={rho} d={d} theta={theta} {n_a}+{n_b}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_order_of_blocks_inside_an_epoch_does_not_matter() {
    let setting = Setting::binary(1.0, -0.03, 0.9);
    let blocks = [(30.0, 28.0, 2.0, 1.0), (31.0, 27.0, 1.0, 1.0), (29.0, 26.0, 3.0, 1.0)];
    let fold = |order: &[usize]| {
        let grid = setting.default_grid(Lean::Below, 0.03);
        let mut wealth = Wealth::new(grid.len());
        for &i in order {
            let (n_a, f_a, n_b, f_b) = blocks[i];
            wealth.add(
                grid.iter().map(|e| setting.bet(Lean::Below, *e, n_a, n_b).pay_counts(n_a, f_a, n_b, f_b)),
            );
        }
        wealth
    };
    assert_eq!(fold(&[0, 1, 2]), fold(&[2, 0, 1]));
}
