//! Label bets: events that have no denominator. Given that an event happened, which arm it came from is a
//! coin with a known chance, whatever the intensity of the events was and however it changed (Lindon and Malek 2022,
//! arXiv:2011.03567). A block's pay-off is the likelihood ratio of two such coins, so its expectation under the null
//! is exactly 1.

/// Ratios of the canary's rate to the boundary's that are bet on.
pub const RATIOS_ABOVE: [f64; 6] = [1.25, 1.5, 2.0, 3.0, 5.0, 9.0];
pub const RATIOS_BELOW: [f64; 5] = [0.9, 0.8, 0.6, 0.4, 0.2];
/// Odds of assignment, relative to the plan, that are bet on, both ways.
pub const SPLITS: [f64; 10] = [0.5, 0.8, 0.9, 0.95, 0.98, 1.0 / 0.98, 1.0 / 0.95, 1.0 / 0.9, 1.0 / 0.8, 2.0];

/// The chance that an event is the canary's, when its rate is `ratio` times the baseline's and it is exposed to
/// `e_b` of the traffic, the baseline to `e_a`.
pub fn chance(ratio: f64, e_a: f64, e_b: f64) -> f64 {
    ratio * e_b / (ratio * e_b + e_a)
}

/// Log pay-off (nats) of a bet on chance `t` against `t0`, for `x_a` and `x_b` events of the arms.
pub fn pay(t0: f64, t: f64, x_a: f64, x_b: f64) -> f64 {
    x_b * libm::log(t / t0) + x_a * libm::log((1.0 - t) / (1.0 - t0))
}
