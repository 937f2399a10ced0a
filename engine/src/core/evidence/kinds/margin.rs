//! What kinds with a margin have in common.

use crate::core::policy::guardrail::{Better, Margin};
use crate::core::text::{digits, percent};

/// `3 points`
pub fn points(by: f64) -> String {
    format!("{} points", digits(by * 100.0))
}

/// `20%`
pub fn percents(by: f64) -> String {
    format!("{}%", digits(by * 100.0))
}

/// How far the boundary is from a baseline whose mean is `theta`.
pub fn limit(margin: Margin, better: Better, theta: f64) -> f64 {
    let (rho, d) = margin.boundary(better);
    rho * theta + d - theta
}

/// How much worse a canary may be. `None`: not at all.
pub fn allows(margin: Margin, better: Better) -> Option<String> {
    Some(match margin {
        Margin::Points(by) if by > 0.0 => points(by),
        Margin::Relative(by) if by > 0.0 => percents(by),
        Margin::Points(_) | Margin::Relative(_) => return None,
        Margin::Ratio { ratio, plus } => {
            let by = if better == Better::Higher { 1.0 - ratio } else { ratio - 1.0 };
            match (by > 0.0, plus > 0.0) {
                (true, true) => format!("{} of the baseline plus {}", percents(by), points(plus)),
                (true, false) => percents(by),
                (false, true) => points(plus),
                (false, false) => return None,
            }
        }
    })
}

/// `more than 3 points lower than the baseline's`
pub fn beyond(margin: Margin, better: Better) -> String {
    let worse = worse(better);
    match margin {
        Margin::Points(by) => format!("more than {} points {worse} than the baseline's", percent(by)),
        Margin::Relative(by) => format!("more than {}% {worse} than the baseline's", percent(by)),
        Margin::Ratio { ratio, plus } => {
            let sign = if better == Better::Higher { "-" } else { "+" };
            format!("{worse} than {ratio} times the baseline's {sign} {} points", percent(plus))
        }
    }
}

/// Which way a value is worse.
pub fn worse(better: Better) -> &'static str {
    if better == Better::Higher { "lower" } else { "higher" }
}

/// What the canary's values are divided by where they may be worse by `handicap`.
pub fn handicapped(better: Better, handicap: f64) -> f64 {
    if better == Better::Lower { 1.0 + handicap } else { 1.0 - handicap }
}

/// `Differences of less than 0.75 points beyond the limit`
pub fn points_beyond(smallest: f64) -> String {
    format!("Differences of less than {} points beyond the limit", digits(smallest / 2.0 * 100.0))
}

/// `V / eps^2`; `None` where the limit is at the baseline itself, which an equal canary never clears.
pub fn spread(variance: f64, eps: f64) -> Option<f64> {
    (eps != 0.0).then(|| variance / (eps * eps))
}
