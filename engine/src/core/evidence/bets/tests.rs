//! The reference numbers (`../shared/vectors` where present) and the identities behind them.

mod enumeration;
mod invariance;

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

/// `(eps/2) / (v + eps^2/4)`, and no more than 0.95 of what a pair can lose; the published vectors give stakes, and
/// not what they come from.
#[test]
fn the_stake_on_pairs_follows_its_formula() {
    // A tenth of the pairs differ; b = 0.485.
    let setting = PairSetting { d: -0.03, variance: 0.1 / 4.0 };
    for (lean, eps, want) in [
        (Lean::Below, 0.03, 0.015 / 0.025225),
        (Lean::Above, 0.03, 0.015 / 0.025225),
        (Lean::Below, 0.48, 0.95 / 0.515),
        (Lean::Above, 0.48, 0.95 / 0.485),
    ] {
        let have = setting.stake(lean, eps);
        assert!((have - want).abs() < 1e-12, "{lean:?}, {eps}: {have} is not {want}");
    }
}
