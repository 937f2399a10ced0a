//! What evidence means, and what it does not.

use crate::core::event::decision::{Choice, Decision, Reason};
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::figures::Limit;
use crate::core::evidence::reference::Reference;
use crate::core::evidence::verdict::Verdict;
use crate::core::policy::Policy;
use crate::core::policy::guardrail::{Guardrail, GuardrailKind};
use crate::core::text::{count, digits};

/// What the evidence of a guardrail means, and what it does not.
pub fn meaning(g: &Guardrail, r: &GuardrailReading) -> Vec<String> {
    let stands = match r.verdict {
        Verdict::Pass => safe(g, r),
        Verdict::Undecided | Verdict::Insufficient => Some("Not enough evidence yet.".into()),
        Verdict::Fail => wider(r),
        Verdict::NoData | Verdict::Stale | Verdict::SourceBroken => None,
    };
    strength(r.kind, r.harm_ln).into_iter().chain(stands).collect()
}

/// What acts looks to one side only, and is sharper than the range that is shown, which may still hold the limit.
fn wider(r: &GuardrailReading) -> Option<String> {
    let (range, limit) = (r.range?, r.limit?);
    let of_difference = r.kind.profile().limit == Limit::Difference;
    let holds = of_difference && range.lo <= limit && limit <= range.hi;
    let words =
        "The range is cautious and still holds the limit; what decides is the evidence, and there is enough.";
    (holds && r.harm_ln >= r.harm_need_ln).then(|| words.into())
}

/// `At most 1 in 14 healthy canaries would ever show evidence this strong, however often you look.` Below 2x there is
/// nothing to say.
pub fn strength(kind: GuardrailKind, ln: f64) -> Option<String> {
    let healthy = kind.profile().healthy.filter(|_| ln >= core::f64::consts::LN_2)?;
    let n = count((libm::exp(ln) * (1.0 + 1e-12)).clamp(2.0, 1e6) as u64);
    Some(format!("At most 1 in {n} {healthy} would ever show evidence this strong, however often you look."))
}

/// `Shown to be less than 3 points worse; false in at most 5% of canaries that bad.`
fn safe(g: &Guardrail, r: &GuardrailReading) -> Option<String> {
    if !r.kind.shows_safety() {
        return None;
    }
    let shown = match g.rule.kind().allows(g.better) {
        Some(limit) => format!("Shown to be less than {limit} worse"),
        None => "Shown not to be worse".into(),
    };
    // Evidence drifts on after it has been enough.
    let earlier = if r.safe_ln < r.safe_need_ln {
        " That was so earlier at this step, and once is enough."
    } else {
        ""
    };
    let at_most = at_most(libm::exp(-r.safe_need_ln));
    let cap = r.reference.as_ref().and_then(|reference| reference.cap);
    let cap =
        cap.map(|cap| format!(", where values above {} count as that", digits(cap))).unwrap_or_default();
    Some(format!("{shown}{cap}; false in at most {at_most} of canaries that bad.{earlier}"))
}

/// What a rollback by evidence means: `eval_pass is worse than the baseline's by more than 3 points. Had it been within 3
/// points, this would happen in at most 5% of rollouts.` The share is one of all guardrails together. `None`: it was not made by
/// evidence.
pub fn rolled_back(d: &Decision, policy: &Policy) -> Option<String> {
    let share = |name: &str| policy.guardrails.iter().find(|g| g.name == name && g.weight > 0.0);
    let named = d.because.iter().filter_map(|reason| match reason {
        Reason::Guardrail { name } => share(name),
        _ => None,
    });
    let fails = |g: &&Guardrail| d.readings.iter().any(|r| r.name == g.name && r.verdict == Verdict::Fail);
    let g = named.into_iter().find(fails).filter(|_| d.choice == Choice::Rollback && d.is_automatic())?;
    let all = policy.guardrails.iter().filter(|g| g.weight > 0.0).count();
    let (worse, within) = match g.rule.kind().allows(g.better) {
        Some(limit) => (format!(" by more than {limit}"), format!("within {limit}")),
        None => (String::new(), "no worse".into()),
    };
    let within = match all {
        1 => within,
        2 => "within the limits of both guardrails that may roll back on evidence".into(),
        n => format!("within the limits of all {n} guardrails that may roll back on evidence"),
    };
    let at_most = at_most(1.0 / policy.evidence.rollback);
    let alone = d.readings.iter().any(|r| r.name == g.name && r.harm_ln >= r.harm_need_ln);
    let (found, who) = if alone {
        (format!("{} is worse than the baseline's{worse}.", g.name), "it")
    } else {
        // No single one is shown to be beyond its limit: that some are, is.
        let found =
            format!("Together they are worse than their limits allow, and {} has most of it.", g.name);
        (found, "the canary")
    };
    Some(format!("{found} Had {who} been {within}, this would happen in at most {at_most} of rollouts."))
}

/// Every attempt is a test of its own: `2nd attempt of this version: at most 10% of such series would be rolled back
/// wrongly (5% each).`
pub fn series(attempt: u32, policy: &Policy) -> Option<String> {
    if attempt < 2 || policy.guardrails.iter().all(|g| g.weight == 0.0) {
        return None;
    }
    let ordinal = match (attempt % 10, attempt % 100) {
        (1, n) if n != 11 => "st",
        (2, n) if n != 12 => "nd",
        (3, n) if n != 13 => "rd",
        _ => "th",
    };
    let each = 1.0 / policy.evidence.rollback;
    let together = f64::from(attempt) * each;
    let series = if together < 1.0 {
        format!("at most {} of such series would be rolled back wrongly", at_most(together))
    } else {
        "so long a series may well be rolled back wrongly".into()
    };
    Some(format!("{attempt}{ordinal} attempt of this version: {series} ({} each).", at_most(each)))
}

/// What slices that are judged together mean: `At most 1 in 20 canaries that are well in all 5 slices is ever stopped by
/// one of them, however often you look.`
pub fn family(slices: usize, level: f64) -> String {
    let n = count(libm::floor(level) as u64);
    format!(
        "At most 1 in {n} canaries that are well in all {slices} judged slices is ever stopped by one of them, however often you look."
    )
}

/// Half the smallest size that is bet on is where bets stop to gain: `Differences of less than 0.75 points beyond the
/// limit may never be found.`
pub fn resolution(g: &Guardrail, reference: &Reference) -> Option<String> {
    let what = g.compares()?.resolution(g.better, reference)?;
    Some(format!("{what} may never be found."))
}

/// A share of rollouts or canaries in percent, never less than it is: `5%`, `0.1%`, `14.3%`.
fn at_most(share: f64) -> String {
    let tenths = libm::ceil(share * 1_000.0 - 1e-9);
    if tenths <= 1.0 {
        return format!("{}%", digits(share * 100.0));
    }
    format!("{}%", tenths / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::guardrail::*;

    #[test]
    fn evidence_is_said_as_a_rate_among_the_healthy() {
        let said = |e: f64| strength(GuardrailKind::Proportion, libm::log(e));
        let of = |n: &str| {
            Some(format!(
                "At most 1 in {n} healthy canaries would ever show evidence this strong, however often you look."
            ))
        };
        assert_eq!((said(14.9), said(2.0), said(1_234.0)), (of("14"), of("2"), of("1,234")));
        assert_eq!((said(1.99), said(0.03)), (None, None));
        assert_eq!(said(1e9), of("1,000,000"));
        let split = strength(GuardrailKind::Split, libm::log(3.0)).unwrap();
        assert!(split.starts_with("At most 1 in 3 rollouts whose traffic is split as asked for "), "{split}");
        assert_eq!(strength(GuardrailKind::Absolute, 9.0), None);
    }

    fn guardrail(rule: Rule) -> Guardrail {
        Guardrail::new("g", Better::Higher, rule)
    }

    #[test]
    fn limits_are_in_the_unit_of_the_guardrail() {
        let of = |rule: Rule, better: Better| rule.kind().allows(better);
        let (higher, lower) = (Better::Higher, Better::Lower);
        let ratio = Margin::Ratio { ratio: 1.5, plus: 0.001 };
        for (rule, better, words) in [
            (Rule::Proportion(Proportion { margin: Margin::Points(0.03) }), higher, "3 points"),
            (Rule::Score(Score { margin: Margin::Relative(0.025) }), higher, "2.5%"),
            (Rule::Proportion(Proportion { margin: ratio }), lower, "50% of the baseline plus 0.1 points"),
            (Rule::Mean(Mean { handicap: 0.2 }), lower, "20%"),
            (Rule::Quantile(Quantile { q: 0.95, handicap: 0.1 }), lower, "10% at the 95% quantile"),
            (Rule::Paired(Paired { points: 0.03 }), higher, "3 points"),
            (Rule::Count(Count { ratio: 1.25 }), lower, "25%"),
            (Rule::Count(Count { ratio: 0.8 }), higher, "20%"),
        ] {
            assert_eq!(of(rule.clone(), better).as_deref(), Some(words), "{rule:?}");
        }
        assert_eq!(of(Rule::Proportion(Proportion { margin: Margin::Points(0.0) }), higher), None);
        assert_eq!(of(Rule::Split, lower), None);
    }

    #[test]
    fn what_may_never_be_found_is_half_the_smallest_bet() {
        let reference = |grid: &[f64]| Reference {
            theta: 0.4,
            variance: 0.2,
            harm_grid: grid.to_vec(),
            ..Reference::default()
        };
        let said = |rule: Rule, grid: &[f64]| {
            let guardrail = Guardrail { better: Better::Lower, ..guardrail(rule) };
            resolution(&guardrail, &reference(grid))
        };
        let margin = Margin::Points(0.03);
        let points = "Differences of less than 0.75 points beyond the limit may never be found.";
        assert_eq!(said(Rule::Proportion(Proportion { margin }), &[0.015, 0.03]).as_deref(), Some(points));
        // 0.02 of the normalised value is 0.02 * 1.2 / 0.4 of the baseline's mean.
        let mean = "Differences of less than 6% beyond the limit may never be found.";
        assert_eq!(said(Rule::Mean(Mean { handicap: 0.2 }), &[0.04]).as_deref(), Some(mean));
        let rates = "Rates that are less than 12.5% beyond the limit may never be found.";
        assert_eq!(said(Rule::Count(Count { ratio: 1.25 }), &[1.25, 1.5]).as_deref(), Some(rates));
        let split = "Splits whose odds are off by less than 1% may never be found.";
        assert_eq!(said(Rule::Split, &[0.5, 0.98, 1.0 / 0.98, 2.0]).as_deref(), Some(split));
        assert_eq!(said(Rule::Absolute(Absolute { above: 0.1, of_last: 100 }), &[0.1]), None);
        assert_eq!(said(Rule::Proportion(Proportion { margin }), &[]), None);
    }

    #[test]
    fn shares_are_never_said_smaller_than_they_are() {
        let of = |level: f64| at_most(1.0 / level);
        assert_eq!([20.0, 5.0, 7.0, 30.0, 1_000.0].map(of), ["5%", "20%", "14.3%", "3.4%", "0.1%"]);
        assert_eq!(of(1e5), "0.001%");
        // As of a log that went through `ln` and back.
        assert_eq!(at_most(libm::exp(-libm::log(20.0))), "5%");
    }
}
