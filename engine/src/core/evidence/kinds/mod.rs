//! The kinds of guardrails, a file each. A kind is added with its file, its row here, what a policy says of it
//! (`policy::guardrail`) and how that is spelled (`wire::policy_file`).
//!
//! Not here: what may follow from a verdict (`decide`). `invariants` and `sim` have an account of their own of each kind.

mod absolute;
mod count;
mod margin;
mod mean;
mod missing;
mod paired;
mod proportion;
mod quantile;
mod score;
mod split;
mod stop;

pub use paired::DISCORDANT;

use super::bets::Bets;
use super::kind::{Compares, Kind, Profile, Way};
use super::reference::Reference;
use crate::core::policy::guardrail::{EvidenceRules, Guardrail, GuardrailKind, Rule};

impl Rule {
    /// The one place where a rule becomes the kind that it is of.
    pub fn kind(&self) -> &dyn Kind {
        match self {
            Rule::Proportion(kind) => kind,
            Rule::Score(kind) => kind,
            Rule::Mean(kind) => kind,
            Rule::Quantile(kind) => kind,
            Rule::Paired(kind) => kind,
            Rule::Count(kind) => kind,
            Rule::Split => &split::Split,
            Rule::Missing(kind) => kind,
            Rule::Absolute(kind) => kind,
            Rule::Stop(kind) => kind,
        }
    }
}

impl GuardrailKind {
    pub fn profile(self) -> &'static Profile {
        match self {
            GuardrailKind::Proportion => &proportion::PROFILE,
            GuardrailKind::Score => &score::PROFILE,
            GuardrailKind::Mean => &mean::PROFILE,
            GuardrailKind::Quantile => &quantile::PROFILE,
            GuardrailKind::Paired => &paired::PROFILE,
            GuardrailKind::Count => &count::PROFILE,
            GuardrailKind::Split => &split::PROFILE,
            GuardrailKind::Missing => &missing::PROFILE,
            GuardrailKind::Absolute => &absolute::PROFILE,
            GuardrailKind::Stop => &stop::PROFILE,
        }
    }

    /// Whether it can show that its limit is respected; the others only show that it is not.
    pub fn shows_safety(self) -> bool {
        self.profile().shows_safety
    }
}

impl Guardrail {
    pub fn profile(&self) -> &'static Profile {
        self.rule.kind().profile()
    }

    /// How it compares; `None`: it compares nothing.
    pub fn compares(&self) -> Option<&dyn Compares> {
        match self.rule.kind().way() {
            Way::Compares(kind) => Some(kind),
            Way::Counts(_) => None,
        }
    }

    pub fn shows_safety(&self) -> bool {
        self.profile().shows_safety
    }

    /// Baseline observations that its first reference takes.
    pub fn needs(&self, rules: &EvidenceRules) -> u64 {
        self.compares().map_or(0, |kind| kind.needs(u64::from(rules.reference_min)))
    }

    /// What is bet on under `reference`, which only what compares has.
    pub fn bets(&self, reference: &Reference) -> Option<Bets> {
        Some(self.compares()?.bets(self, reference))
    }

    /// What the canary's values are divided by before they are compared.
    pub fn canary_factor(&self) -> f64 {
        self.compares().map_or(1.0, |kind| kind.factor(self.better))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::guardrail::*;

    /// At 98.5 % there is no room for two points more; bets there would win on nothing.
    #[test]
    fn a_benefit_that_cannot_be_is_not_bet_on() {
        let margin = Margin::Points(0.03);
        let asks = Guardrail {
            benefit: Some(0.02),
            ..Guardrail::new("eval_pass", Better::Higher, Rule::Proportion(Proportion { margin }))
        };
        let missing = Missing { of: "request".into(), points: 0.02 };
        let missing = Guardrail::new("graded", Better::Lower, Rule::Missing(missing));
        let bet_on = |guardrail: &Guardrail, theta: f64| match guardrail.bets(&Reference::of_share(theta)) {
            Some(Bets::Counts(arms)) => arms.secondary.is_some(),
            bets => panic!("{bets:?}"),
        };
        assert!(bet_on(&asks, 0.965) && !bet_on(&asks, 0.985));
        assert!(bet_on(&missing, 0.03) && !bet_on(&missing, 0.005));
    }

    /// A reading knows the kind only, a policy the rule: both lead to the same.
    #[test]
    fn a_rule_and_its_kind_have_one_profile() {
        let margin = Margin::Points(0.03);
        for rule in [
            Rule::Proportion(Proportion { margin }),
            Rule::Score(Score { margin }),
            Rule::Mean(Mean { handicap: 0.2 }),
            Rule::Quantile(Quantile { q: 0.95, handicap: 0.1 }),
            Rule::Paired(Paired { points: 0.03 }),
            Rule::Count(Count { ratio: 1.25 }),
            Rule::Split,
            Rule::Missing(Missing { of: "request".into(), points: 0.02 }),
            Rule::Absolute(Absolute { above: 0.2, of_last: 200 }),
            Rule::Stop(Stop { allowed: 0 }),
        ] {
            let profile = rule.kind().profile();
            assert!(std::ptr::eq(profile, profile.kind.profile()), "{:?}", profile.kind);
        }
    }
}
