//! Balanced bets: the arithmetic of one e-process. Betting pay-offs multiply a capital whose
//! expectation never exceeds 1 while the null hypothesis holds, so `capital >= 1/alpha` happens in at most
//! a share alpha of the histories in which it holds, however often one looks (Ville 1939).
//!
//! The block e-value joins one capped bounded-mean bet per arm (Waudby-Smith and Ramdas 2024, JRSSB,
//! arXiv:2010.09686) through the balance `n_a c = rho n_b g`, which makes any linear boundary
//! `mu_b = rho mu_a + d` a valid null (cf. Turner and Grunwald, arXiv:2203.09785).
//!
//! Only `ln`, `exp` and `ln_1p` are not exact in IEEE arithmetic; they come from `libm`, so that all
//! machines agree on every bit.

use serde::{Deserialize, Serialize};

use crate::core::policy::guardrail::Better;

/// Largest share of its capital that one bet risks on one observation.
const KAPPA: f64 = 0.95;
/// Capital that is bet from the start; the rest is injected over the epochs.
pub const INITIAL_STAKE: f64 = 0.75;
/// Units per nat: log-wealth is fixed-point, so that it adds up exactly and in any order.
pub const UNITS_PER_NAT: f64 = (1u64 << 40) as f64;

/// Which way a bet leans: `Below` gains while the canary lies below the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lean {
    Below,
    Above,
}

impl Lean {
    fn sign(self) -> f64 {
        if self == Lean::Below { 1.0 } else { -1.0 }
    }

    pub fn opposite(self) -> Lean {
        if self == Lean::Below { Lean::Above } else { Lean::Below }
    }
}

/// What the bets assume: the boundary and a guess of the baseline. A wrong guess costs speed, never validity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Boundary `b = rho a + d`, observations in [0, 1].
    pub rho: f64,
    pub d: f64,
    /// Expected baseline mean.
    pub theta: f64,
    /// Expected variance of one observation, baseline and canary.
    pub var_a: f64,
    pub var_b: f64,
    /// Observations are zeros and ones.
    pub binary: bool,
}

impl Setting {
    /// Zeros and ones around `theta`.
    pub fn binary(rho: f64, d: f64, theta: f64) -> Setting {
        let b0 = rho * theta + d;
        Setting { rho, d, theta, var_a: theta * (1.0 - theta), var_b: b0 * (1.0 - b0), binary: true }
    }

    /// Where the canary's mean meets the boundary.
    pub fn boundary(&self) -> f64 {
        self.rho * self.theta + self.d
    }

    /// Whether observations from 0 to 1 can have such a mean, and one on either side of it.
    pub fn is_possible(&self) -> bool {
        let boundary = self.boundary();
        boundary > 0.0 && boundary < 1.0
    }

    /// Sizes of the excess over the boundary that are bet on: doubling from `smallest`, at most `count`,
    /// ending at the largest excess that keeps the mean inside [0, 1].
    pub fn grid(&self, lean: Lean, smallest: f64, count: usize) -> Vec<f64> {
        let b0 = self.boundary();
        let largest = 0.95 * if lean == Lean::Below { b0 } else { 1.0 - b0 };
        doubling(smallest, largest, count)
    }

    /// The default smallest excess and grid length for a margin `half` of it away from the baseline;
    /// with no margin, an eighth of the nearer border and eight bets.
    pub fn default_grid(&self, lean: Lean, margin: f64) -> Vec<f64> {
        if margin > 0.0 {
            self.grid(lean, margin / 2.0, 6)
        } else {
            self.grid(lean, self.theta.min(1.0 - self.theta) / 8.0, 8)
        }
    }

    /// Values of about the same `variance` in both arms.
    pub fn general(rho: f64, d: f64, theta: f64, variance: f64) -> Setting {
        Setting { rho, d, theta, var_a: variance, var_b: variance, binary: false }
    }

    /// The bet on an excess `eps` in a block of `n_a` and `n_b` observations.
    pub fn bet(&self, lean: Lean, eps: f64, n_a: f64, n_b: f64) -> Bet {
        let Setting { rho, d, theta, var_a, var_b, binary } = *self;
        let s = lean.sign();
        let mut x = eps * rho * n_b * var_a / (n_a * var_b + rho * rho * n_b * var_a);
        let mut a = theta - s * x;
        let mut b = rho * a + d;
        let inside = |p: f64| (1e-6..=1.0 - 1e-6).contains(&p);
        if !inside(a) || !inside(b) {
            (x, a) = (0.0, theta);
            b = rho * theta + d;
        }
        let excess = eps - rho * x;
        let wish = if binary { excess / (b * (1.0 - b)) } else { excess / (var_b + excess * excess) };
        // The balance uses the counts that came, not the planned split: validity rests on it.
        let r = rho * n_b / n_a;
        let cap = match lean {
            Lean::Below => (KAPPA / (1.0 - b)).min(KAPPA / (r * a)),
            Lean::Above => (KAPPA / b).min(KAPPA / (r * (1.0 - a))),
        };
        let g = wish.min(cap);
        Bet { s, a, b, g, c: r * g }
    }
}

/// Bets on pairs: both arms answered the same request, and an observation is `y = (1 + canary - baseline) / 2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairSetting {
    /// The boundary: the canary's mean is the baseline's plus this.
    pub d: f64,
    /// Expected variance of one observation; of zeros and ones, a quarter of the share of pairs that differ.
    pub variance: f64,
}

impl PairSetting {
    /// Mean of the observation at the boundary.
    pub fn boundary(&self) -> f64 {
        (1.0 + self.d) / 2.0
    }

    /// Sizes of the excess, in the unit of the difference, that are bet on.
    pub fn grid(&self, lean: Lean, margin: f64) -> Vec<f64> {
        let b = self.boundary();
        let largest = 1.9 * if lean == Lean::Below { b } else { 1.0 - b };
        doubling(
            if margin > 0.0 { margin / 2.0 } else { 1.0 / 64.0 },
            largest,
            if margin > 0.0 { 6 } else { 8 },
        )
    }

    /// Stake per pair of the bet on an excess `eps`.
    pub fn stake(&self, lean: Lean, eps: f64) -> f64 {
        let b = self.boundary();
        let half = eps / 2.0;
        (half / (self.variance + half * half)).min(KAPPA / if lean == Lean::Below { 1.0 - b } else { b })
    }

    /// Log pay-off (nats) of a stake of `g` a pair on a block of pairs.
    pub fn pay(&self, lean: Lean, g: f64, ys: &[f64]) -> f64 {
        let (s, b) = (lean.sign(), self.boundary());
        ys.iter().map(|y| libm::log1p(s * g * (b - y))).sum()
    }
}

/// Sizes that double from `smallest`, at most `count`, ending at `largest`.
fn doubling(smallest: f64, largest: f64, count: usize) -> Vec<f64> {
    let mut grid = Vec::with_capacity(count);
    let mut eps = smallest;
    while grid.len() < count {
        if eps >= largest {
            grid.push(largest);
            break;
        }
        grid.push(eps);
        eps *= 2.0;
    }
    grid
}

/// One sized bet: the boundary point and the stake per observation of each arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bet {
    s: f64,
    pub a: f64,
    pub b: f64,
    pub g: f64,
    pub c: f64,
}

impl Bet {
    /// Log pay-off (nats) of a block of zeros and ones: `n` observations, `f` of them ones.
    pub fn pay_counts(&self, n_a: f64, f_a: f64, n_b: f64, f_b: f64) -> f64 {
        let Bet { s, a, b, g, c } = *self;
        f_a * libm::log1p(s * c * (1.0 - a))
            + (n_a - f_a) * libm::log1p(-s * c * a)
            + f_b * libm::log1p(-s * g * (1.0 - b))
            + (n_b - f_b) * libm::log1p(s * g * b)
    }

    /// Log pay-off (nats) of a block of values in [0, 1], in the order given.
    pub fn pay_values(&self, ys_a: &[f64], ys_b: &[f64]) -> f64 {
        let Bet { s, a, b, g, c } = *self;
        let baseline: f64 = ys_a.iter().map(|y| libm::log1p(s * c * (y - a))).sum();
        let canary: f64 = ys_b.iter().map(|y| libm::log1p(s * g * (b - y))).sum();
        baseline + canary
    }
}

/// The capital of one e-process, spread over its bets, plus what has not been staked yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wealth {
    /// Log capital of each bet, in units of 2^-40 nats.
    pub log_wealth: Box<[i64]>,
    /// Capital in reserve.
    pub cash: f64,
    /// Epochs begun after the first.
    pub epoch: u32,
}

impl Wealth {
    /// A capital of 1, three quarters of it staked on `bets` bets.
    pub fn new(bets: usize) -> Wealth {
        Wealth::staked(bets, INITIAL_STAKE)
    }

    pub fn staked(bets: usize, stake: f64) -> Wealth {
        Wealth { log_wealth: vec![floor_units(libm::log(stake)); bets].into(), cash: 1.0 - stake, epoch: 0 }
    }

    /// Adds a block's log pay-offs, one per bet, each rounded down: rounding can only lose evidence.
    pub fn add(&mut self, pays: impl IntoIterator<Item = f64>) {
        for (units, pay) in self.log_wealth.iter_mut().zip(pays) {
            *units = units.saturating_add(floor_units(pay));
        }
    }

    /// Begins an epoch: a share of the reserve is staked afresh, so that a regression that starts late is
    /// still seen. The shares `(1-w0)/(j(j+1))` sum to the reserve over an endless history.
    pub fn begin_epoch(&mut self) {
        if self.cash == 0.0 {
            return;
        }
        self.epoch += 1;
        let j = f64::from(self.epoch);
        let reserve = 1.0 - INITIAL_STAKE;
        let injected = libm::log(reserve / (j * (j + 1.0)));
        self.cash = reserve / (j + 1.0);
        for units in &mut self.log_wealth {
            let held = *units as f64 / UNITS_PER_NAT;
            let (max, min) = if held > injected { (held, injected) } else { (injected, held) };
            let sum = max + libm::log1p(libm::exp(min - max));
            *units = floor_units(sum);
        }
    }

    /// Log of the whole capital (nats): `ln(cash + mean of exp(log-wealth))`, never leaving the log scale.
    pub fn ln(&self) -> f64 {
        if self.log_wealth.is_empty() {
            return 0.0;
        }
        let share = libm::log(self.log_wealth.len() as f64);
        let parts = self.log_wealth.iter().map(|units| *units as f64 / UNITS_PER_NAT - share);
        ln_sum_exp(parts.chain((self.cash > 0.0).then(|| libm::log(self.cash))))
    }
}

/// `ln(sum(exp(parts)))` with the largest part taken out; minus infinity for no parts.
pub fn ln_sum_exp(parts: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = parts.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + libm::log(parts.map(|part| libm::exp(part - max)).sum())
}

/// Log of the weighted average of e-values given by their logs; itself an e-value (Vovk and Wang 2021,
/// arXiv:1912.06116). Weights need not sum to 1: a missing share counts as an e-value of 0.
pub fn ln_weighted(parts: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    ln_sum_exp(parts.filter(|(weight, _)| *weight > 0.0).map(|(weight, ln)| libm::log(weight) + ln))
}

/// Which of several e-values, given by their logs, are discoveries at a false discovery rate of `1 / level`: the `k`
/// largest, for the largest k whose k-th is at least `m level / k`. Holds however they depend on each other (e-BH; Wang
/// and Ramdas 2022, JRSSB, arXiv:2009.02824).
pub fn discoveries(lns: &[f64], level: f64) -> Vec<bool> {
    let mut sorted = lns.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let counts = |(i, ln): (usize, &f64)| (*ln >= enough(lns.len(), i + 1, level)).then_some(i + 1);
    let k = sorted.iter().enumerate().filter_map(counts).max().unwrap_or(0);
    let least = if k == 0 { f64::INFINITY } else { sorted[k - 1] };
    lns.iter().map(|ln| *ln >= least).collect()
}

/// The log of the e-value that each of `k` discoveries among `m` needs.
pub fn enough(m: usize, k: usize, level: f64) -> f64 {
    libm::log(m as f64 * level / k as f64)
}

fn floor_units(nats: f64) -> i64 {
    let units = nats * UNITS_PER_NAT;
    libm::floor(units) as i64
}

/// What a kind bets on under a reference.
#[derive(Clone, Debug, PartialEq)]
pub enum Bets {
    /// Zeros and ones of both arms.
    Counts(Arms),
    /// Values of both arms, from 0 to 1 when they are normalised.
    Values(Arms),
    /// Values of both arms for the same units.
    Pairs(Pairs),
    /// Which arm events are of: ratios of the canary's rate that are bet on.
    Labels { harm: &'static [f64], safe: &'static [f64] },
}

/// A boundary between two arms.
#[derive(Clone, Debug, PartialEq)]
pub struct Arms {
    pub setting: Setting,
    /// The direction in which harm lies.
    pub lean: Lean,
    /// How far an equal canary is from the boundary.
    pub margin: f64,
    /// The third question, where one is asked, with the way its bets lean.
    pub secondary: Option<(Setting, Lean)>,
}

impl Arms {
    /// Nothing can be better than all good, or missing less than not at all. A baseline that has drifted there leaves no bet
    /// to be made on `other`: at a boundary that cannot be, stakes turn over and win on nothing.
    pub fn new(setting: Setting, lean: Lean, margin: f64, secondary: Option<(Setting, Lean)>) -> Arms {
        Arms { setting, lean, margin, secondary: secondary.filter(|(setting, _)| setting.is_possible()) }
    }
}

/// A boundary between two answers to the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    pub setting: PairSetting,
    pub lean: Lean,
    pub margin: f64,
    /// That a canary is better, and by how much.
    pub benefit: Option<(PairSetting, f64)>,
}

/// The boundary of the benefit `by` that another guardrail's trade-off asks for: the canary's mean is better by so much.
pub fn benefit(better: Better, by: f64) -> f64 {
    if better == Better::Higher { by } else { -by }
}

/// The direction in which a canary is worse.
pub fn worse(better: Better) -> Lean {
    if better == Better::Higher { Lean::Below } else { Lean::Above }
}

#[cfg(test)]
mod tests;
