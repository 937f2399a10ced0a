//! What the checks take each kind of guardrail to be: said anew, so that a kind that is added is thought about here too.

use crate::core::ids::Metric;
use crate::core::policy::guardrail::{Missing, Rule, Stop};

/// One kind, as the checks see it.
pub struct Kind<'a> {
    /// Settled cohorts of both arms are compared; the others look at what comes.
    pub compared: bool,
    /// Each observation is a request of the arm that it is of.
    pub of_requests: bool,
    /// How often something may happen that must not.
    pub allowed: Option<u64>,
    /// The metric that every request has.
    pub of: Option<&'a Metric>,
}

pub fn kind(rule: &Rule) -> Kind<'_> {
    let seen = |compared, of_requests| Kind { compared, of_requests, allowed: None, of: None };
    match rule {
        Rule::Proportion(_) | Rule::Score(_) | Rule::Mean(_) | Rule::Quantile(_) | Rule::Split => {
            seen(true, true)
        }
        // A pair is made of one request, an event of none.
        Rule::Paired(_) | Rule::Count(_) => seen(true, false),
        Rule::Missing(Missing { of, .. }) => Kind { of: Some(of), ..seen(true, true) },
        Rule::Absolute(_) => seen(false, true),
        Rule::Stop(Stop { allowed }) => Kind { allowed: Some(*allowed), ..seen(false, false) },
    }
}
