//! The sentences in which sluice gives its reasons. One generator for the CLI, the API, the messages and the
//! log, so that all say the same.
//!
//! Never here: the probability of a hypothesis, or "no problem found" for what was not shown.

use super::conclusion::{ArmCount, Choice, Command, Decision, Reason};
use super::evidence::{Evidence, GuardrailKind, GuardrailReading, Silence};
use super::ids::{Service, Weight};
use super::policy::{Better, Guardrail, Margin, OnFail, Policy, Rule};
use super::reference::{ABOVE_CAP, Reference, canary_factor};
use super::smoke::SmokeOutcome;
use super::time::Span;
use super::verdict::Verdict;

/// One sentence about a guardrail: metric, verdict, difference, range, limit, counts.
///
/// `eval_pass fails: -4.6 pts, between -6.3 and -3.0; limit -3.0 (canary 88.4% of 9,320, baseline 93.0% of 28,110)`
pub fn reading(r: &GuardrailReading) -> String {
    let says = match r.verdict {
        Verdict::Fail => "fails",
        Verdict::Pass => "passes",
        Verdict::Undecided => "is undecided",
        Verdict::Insufficient => "has too little evidence",
        Verdict::NoData => "has no data from the canary",
        Verdict::Stale => "has had no data from the canary lately",
        Verdict::SourceBroken => "has had no data from either side lately",
    };
    if let Some(silence) = &r.silence {
        return format!("{} {}{}", r.name, silent(r.verdict, silence), detail(r));
    }
    format!("{} {says}{}", r.name, detail(r))
}

/// Who is silent, and for how long.
fn silent(verdict: Verdict, s: &Silence) -> String {
    let (canary, baseline) = (&s.canary, &s.baseline);
    let lasts = |span: Option<Span>| span.map_or("ever".into(), |span| format!("for {span}"));
    match (verdict, s.canary_for, s.baseline_for) {
        (Verdict::SourceBroken, None, None) => {
            format!(
                "has a broken source: neither {canary} nor {baseline} has sent it; is it sent under this name?"
            )
        }
        (Verdict::SourceBroken, ..) => format!(
            "has a broken source: no data from {canary} {}, nor from {baseline} {}",
            lasts(s.canary_for),
            lasts(s.baseline_for)
        ),
        (_, None, _) => format!("has no data from {canary}, while {baseline} sends it"),
        (_, Some(_), _) => format!("has had no data from {canary} {}", lasts(s.canary_for)),
    }
}

/// The figures of a reading, with a leading `: `, or nothing when there are none.
pub fn detail(r: &GuardrailReading) -> String {
    if r.kind == GuardrailKind::Absolute {
        if r.canary.n == 0 {
            return String::new();
        }
        let limit = r.limit.unwrap_or(0.0) * 100.0;
        return format!(": {} bad of the last {}; limit {}%", r.canary.sum, count(r.canary.n), trim(limit));
    }
    let mut text = String::from(": ");
    match (figures(r), r.reference.is_some()) {
        (Some(figures), _) => text.push_str(&figures),
        (None, true) => text.push_str(&format!("{} canary observations settled", count(r.canary.n))),
        (None, false) => text.push_str("the baseline has too few settled observations to compare with"),
    }
    if r.waiting > 0 {
        text.push_str(&format!("; {} not settled yet", count(r.waiting)));
    }
    if r.left_out > 0 {
        text.push_str(&format!("; {} left out, which its kind cannot use", count(r.left_out)));
    }
    if r.clamped > 0 {
        text.push_str(&format!("; {} outside of 0 to 1 counted as the nearer of the two", count(r.clamped)));
    }
    if let Some(who) = &r.accepted {
        text.push_str(&format!("; accepted by {who}"));
    } else if let Some(when) = &r.excused_when {
        text.push_str(&format!("; accepted as long as {when}"));
    } else if let Some(shows) = &r.excused {
        text.push_str(&format!("; accepted for {shows}, which is shown to be better by what was asked for"));
    }
    text
}

/// Difference, range, limit and counts; `None` until they can be given.
fn figures(r: &GuardrailReading) -> Option<String> {
    match r.kind {
        GuardrailKind::Count => return rates(r),
        GuardrailKind::Split => return split(r),
        _ => {}
    }
    let (range, limit) = (r.range?, r.limit?);
    let mean = r.kind == GuardrailKind::Mean;
    let (scale, unit) = if mean {
        if r.baseline.mean() == 0.0 {
            return None;
        }
        (100.0 / r.baseline.mean(), "%")
    } else {
        (100.0, " pts")
    };
    let [diff, lo, hi, limit] = [range.diff, range.lo, range.hi, limit].map(|x| x * scale);
    let difference = format!("{diff:+.1}{unit}, between {lo:+.1} and {hi:+.1}");
    let arm = |arm: &ArmCount| match r.kind {
        GuardrailKind::Mean => format!("{} over {}", significant(arm.mean()), count(arm.n)),
        GuardrailKind::Score => format!("{:.3} over {}", arm.mean(), count(arm.n)),
        _ => format!("{:.1}% of {}", arm.mean() * 100.0, count(arm.n)),
    };
    let (canary, baseline) = (arm(&r.canary), arm(&r.baseline));
    Some(match r.kind {
        GuardrailKind::Quantile => {
            // How many of each arm lie beyond the baseline's quantile, the limit allowed for, is what is compared.
            let (threshold, limit) = (r.reference.as_ref()?.threshold?, r.limit?);
            let side = if limit < threshold { "below" } else { "above" };
            let [threshold, limit] = [threshold, limit].map(significant);
            format!(
                "{canary} {side} {limit} in the canary, {baseline} {side} {threshold} in the baseline: {difference}"
            )
        }
        GuardrailKind::Paired => format!(
            "{difference}; limit {} (canary {:.3}, baseline {:.3} on the same {})",
            signed(limit),
            r.canary.mean(),
            r.baseline.mean(),
            count(r.canary.n)
        ),
        GuardrailKind::Missing => {
            format!("{difference}; limit ±{} (missing: canary {canary}, baseline {baseline})", trim(limit))
        }
        _ => format!("{difference}; limit {} (canary {canary}, baseline {baseline})", signed(limit)),
    })
}

/// `1.43 times the baseline's rate; limit 1.25 (canary 43 events, baseline 570)`
fn rates(r: &GuardrailReading) -> Option<String> {
    let (ratio, limit) = (r.estimate?, r.limit?);
    let (canary, baseline) = (count(r.canary.n), count(r.baseline.n));
    Some(format!(
        "{ratio:.2} times the baseline's rate at equal traffic; limit {} (canary {canary}, baseline {baseline} events)",
        trim(limit)
    ))
}

/// `6.1% of 20,000 are the canary's, where 5% were asked for`
fn split(r: &GuardrailReading) -> Option<String> {
    let planned = r.estimate? * 100.0;
    let n = r.canary.n + r.baseline.n;
    let share = r.canary.n as f64 / n as f64 * 100.0;
    Some(format!("{share:.1}% of {} are the canary's, where {}% were asked for", count(n), trim(planned)))
}

/// `evidence 14x of the 20x needed`; below 1x there is none.
pub fn evidence(ln: f64, need_ln: f64) -> String {
    let need = times(need_ln);
    if ln <= 0.0 {
        format!("none of the {need} needed")
    } else {
        format!("{} of the {need} needed", times(ln))
    }
}

fn times(ln: f64) -> String {
    let e = libm::exp(ln);
    if ln > 13.8 {
        "over 1,000,000x".into()
    } else if e >= 100.0 {
        format!("{}x", count(e as u64))
    } else if e >= 10.0 {
        format!("{e:.0}x")
    } else {
        format!("{e:.1}x")
    }
}

/// What a mean does not see. `cap` is the baseline's 99.9th percentile; the canary's values are compared with it after what
/// the limit allows is taken off.
///
/// `cost_usd: 15 of 1,131 canary values are above 0.133, of the baseline 8 of 10,669 above 0.0888: ..`
pub fn above_cap(guardrail: &Guardrail, cap: f64, shown: &Evidence, ln: f64, need_ln: f64) -> String {
    let (factor, points) = ABOVE_CAP;
    let [baseline, canary] = shown.capped.map(|n| count(u64::from(n)));
    let (own, cap) = (digits(cap * canary_factor(guardrail)), digits(cap));
    format!(
        "{}: {canary} of {} canary values are above {own}, of the baseline {baseline} of {} above {cap}: more than {factor} times as often plus {} pts, evidence {}. The mean counts each of them as no more than that",
        guardrail.name,
        count(shown.canary.n),
        count(shown.baseline.n),
        trim(points * 100.0),
        evidence(ln, need_ln),
    )
}

/// What the evidence of a guardrail means, and what it does not.
pub fn meaning(g: &Guardrail, r: &GuardrailReading) -> Vec<String> {
    let stands = match r.verdict {
        Verdict::Pass => safe(g, r),
        Verdict::Undecided | Verdict::Insufficient => Some("Not enough evidence yet.".into()),
        Verdict::Fail | Verdict::NoData | Verdict::Stale | Verdict::SourceBroken => None,
    };
    strength(r.kind, r.harm_ln).into_iter().chain(stands).collect()
}

/// `At most 1 in 14 healthy canaries would ever show evidence this strong, however often you look.` Below 2x there is
/// nothing to say.
pub fn strength(kind: GuardrailKind, ln: f64) -> Option<String> {
    if kind == GuardrailKind::Absolute || ln < core::f64::consts::LN_2 {
        return None;
    }
    let n = count((libm::exp(ln) * (1.0 + 1e-12)).clamp(2.0, 1e6) as u64);
    let healthy = match kind {
        GuardrailKind::Split => "rollouts whose traffic is split as asked for",
        _ => "healthy canaries",
    };
    Some(format!("At most 1 in {n} {healthy} would ever show evidence this strong, however often you look."))
}

/// `Shown to be less than 3 points worse; false in at most 5% of canaries that bad.`
fn safe(g: &Guardrail, r: &GuardrailReading) -> Option<String> {
    if !r.kind.shows_safety() {
        return None;
    }
    let shown = match limit(g) {
        Some(limit) => format!("Shown to be less than {limit} worse"),
        None => "Shown not to be worse".into(),
    };
    Some(format!("{shown}; false in at most {} of canaries that bad.", at_most(libm::exp(-r.safe_need_ln))))
}

/// What a rollback by evidence means: `Worse than the baseline by more than 3 points. If it had been within 3 points,
/// this happens in at most 5% of rollouts.` The share is one of all guardrails together. `None`: it was not made by
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
    let (worse, within) = match limit(g) {
        Some(limit) => (format!(" by more than {limit}"), format!("within {limit}")),
        None => (String::new(), "no worse".into()),
    };
    let within = match all {
        1 => within,
        2 => "within the limits of both guardrails that may roll back on evidence".into(),
        n => format!("within the limits of all {n} guardrails that may roll back on evidence"),
    };
    let at_most = at_most(1.0 / policy.evidence.rollback);
    Some(format!(
        "Worse than the baseline{worse}. If it had been {within}, this happens in at most {at_most} of rollouts."
    ))
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
    let half = reference.harm_grid.first()? / 2.0;
    let what = match g.rule {
        Rule::Proportion { .. } | Rule::Score { .. } | Rule::Paired { .. } | Rule::Missing { .. } => {
            format!("Differences of less than {} points beyond the limit", digits(half * 100.0))
        }
        Rule::Mean { .. } => {
            let of_baseline = half * canary_factor(g) / reference.theta;
            format!("Differences of less than {}% beyond the limit", digits(of_baseline * 100.0))
        }
        Rule::Quantile { .. } => {
            format!(
                "Differences of less than {} points in the share beyond the quantile",
                digits(half * 100.0)
            )
        }
        Rule::Count { .. } => {
            let beyond = (half - 0.5).abs() * 100.0;
            format!("Rates that are less than {}% beyond the limit", digits(beyond))
        }
        Rule::Split => {
            let nearest = reference.harm_grid.iter().map(|odds| (odds - 1.0).abs()).fold(1.0, f64::min);
            format!("Splits whose odds are off by less than {}%", digits(nearest * 50.0))
        }
        Rule::Absolute { .. } => return None,
    };
    Some(format!("{what} may never be found."))
}

/// How much worse the canary may be: `3 points`, `20%`. `None`: not at all.
fn limit(g: &Guardrail) -> Option<String> {
    let points = |by: f64| format!("{} points", digits(by * 100.0));
    let percent = |by: f64| format!("{}%", digits(by * 100.0));
    Some(match g.rule {
        Rule::Proportion { margin } | Rule::Score { margin } => match margin {
            Margin::Points(by) if by > 0.0 => points(by),
            Margin::Relative(by) if by > 0.0 => percent(by),
            Margin::Points(_) | Margin::Relative(_) => return None,
            Margin::Ratio { ratio, plus } => {
                let by = if g.better == Better::Higher { 1.0 - ratio } else { ratio - 1.0 };
                match (by > 0.0, plus > 0.0) {
                    (true, true) => format!("{} of it plus {}", percent(by), points(plus)),
                    (true, false) => percent(by),
                    (false, true) => points(plus),
                    (false, false) => return None,
                }
            }
        },
        Rule::Mean { handicap } => percent(handicap),
        Rule::Quantile { q, handicap } => format!("{} at the {} quantile", percent(handicap), percent(q)),
        Rule::Paired { points: by } | Rule::Missing { points: by, .. } if by > 0.0 => points(by),
        Rule::Count { ratio } if ratio != 1.0 => percent((ratio - 1.0).abs()),
        _ => return None,
    })
}

/// A share of rollouts or canaries in percent, never less than it is: `5%`, `0.1%`, `14.3%`.
fn at_most(share: f64) -> String {
    let tenths = libm::ceil(share * 1_000.0 - 1e-9);
    if tenths <= 1.0 {
        return format!("{}%", digits(share * 100.0));
    }
    format!("{}%", tenths / 10.0)
}

/// At most three significant digits, none that are zero.
fn digits(x: f64) -> String {
    let text = significant(x);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// How far a meter stands: log-evidence over what acts, 0 to 1.
pub fn meter(ln: f64, need_ln: f64) -> f64 {
    if need_ln > 0.0 { (ln / need_ln).clamp(0.0, 1.0) } else { 0.0 }
}

/// A gate in words, as it stands in the way (or would).
pub fn reason(reason: &Reason, readings: &[GuardrailReading]) -> String {
    match reason {
        Reason::Guardrail { name } => {
            readings.iter().find(|r| r.name == *name).map_or_else(|| name.clone(), self::reading)
        }
        Reason::Samples { metric, have, need } => {
            format!("{metric}: {} of {} canary observations at this step", count(*have), count(*need))
        }
        Reason::Bake { left_ms } if *left_ms == 0 => "bake time is over".into(),
        Reason::Bake { left_ms } => format!("bake time: {} left", Span(*left_ms)),
        Reason::Deadline { after_ms } => format!("the step's deadline of {} has passed", Span(*after_ms)),
        Reason::Window { why, .. } => format!("change window closed: {why}"),
        Reason::Frozen { service, by, reason, .. } => {
            format!("{} is frozen by {by}: {reason}", scope(service.as_ref()))
        }
        Reason::Approvals { have, need } => format!("approvals: {have} of {need}"),
        Reason::Paused { by } => format!("paused by {by}"),
        Reason::Operator { by, reason } if reason.is_empty() => format!("ordered by {by}"),
        Reason::Operator { by, reason } => format!("ordered by {by}: {reason}"),
        Reason::ActuatorRejected { actuator, why } => {
            format!("actuator {actuator} rejected the command: {why}")
        }
        Reason::Segment { name } => {
            format!("{name} was taken back by itself; the next step is a person's decision")
        }
        Reason::NotApplied { waiting, within_ms } => {
            let names: Vec<&str> = waiting.iter().map(|actuator| actuator.as_str()).collect();
            format!("{} has not confirmed within {}", names.join(", "), Span(*within_ms))
        }
        Reason::Slice { name } => format!("{name} fails"),
        Reason::Superseded { by } => format!("{by} takes its place"),
        Reason::Condition { name, known: true } => format!("condition {name} holds"),
        Reason::Condition { name, known: false } => {
            format!("whether condition {name} holds cannot be told yet")
        }
        Reason::Effective { to, canary, requests, shown } => effective(*to, *canary, *requests, *shown),
        Reason::Smoke { name, outcome, detail, within_ms } => {
            let said = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            match outcome {
                None => format!("smoke test {name} is running"),
                Some(SmokeOutcome::Passed) => format!("smoke test {name} passed"),
                Some(SmokeOutcome::Failed) => format!("smoke test {name} failed{said}"),
                Some(SmokeOutcome::TimedOut) => {
                    format!("smoke test {name} did not end within {}{said}", Span(*within_ms))
                }
                Some(SmokeOutcome::CouldNotRun) => format!("smoke test {name} could not be run{said}"),
            }
        }
        Reason::SoakOver => "the soak is over and nothing stands against it".into(),
    }
}

/// `25% is effective`, `telemetry does not show 25% yet: 5.1% of 12,004 requests since it was confirmed`
fn effective(to: Weight, canary: u64, requests: u64, shown: bool) -> String {
    let seen = match requests {
        0 => "no request".into(),
        n => format!("{:.1}% of {} requests", canary as f64 / n as f64 * 100.0, count(n)),
    };
    if shown {
        format!("{to} is effective: {seen}")
    } else {
        format!("telemetry does not show {to} yet: {seen}")
    }
}

/// What a freeze is of.
pub fn scope(service: Option<&Service>) -> String {
    service.map_or_else(|| "everything".into(), |service| service.to_string())
}

/// What a command asks for: `setting 25%`, `setting beta 10%, others 0%`, `populate at 0%`.
pub fn asked(command: &Command) -> String {
    let others = if command.segments.is_empty() { String::new() } else { "others ".into() };
    let segments: String =
        command.segments.iter().map(|own| format!("{} {}, ", own.segment.name, own.weight)).collect();
    let task = match command.task {
        Some(task) => format!("{} at ", task.as_str()),
        None => "setting ".into(),
    };
    format!("{task}{segments}{others}{}", command.weight)
}

/// What a decision moves: `5% -> 25%`, `beta 10% -> 50%`, `populate, 0% -> 0%`.
pub fn moves(d: &Decision) -> String {
    let task = d.task.map(|task| format!("{}, ", task.as_str())).unwrap_or_default();
    let segment = d.segment.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
    format!("{task}{segment}{} -> {}", d.weight_from, d.weight_to)
}

/// A decision in one sentence: what binds it first.
pub fn decision(d: &Decision) -> String {
    let because: Vec<String> = d.because.iter().map(|r| reason(r, &d.readings)).collect();
    match d.choice {
        Choice::Promote if because.is_empty() && d.step.is_none() => "first step".into(),
        Choice::Promote if because.is_empty() => {
            // Some show no safety: they only have not fired.
            let safe = d.readings.iter().filter(|r| {
                r.verdict == Verdict::Pass && r.on_fail != OnFail::Alert && r.kind.shows_safety()
            });
            let names: Vec<&str> = safe.map(|r| r.name.as_str()).collect();
            if names.is_empty() {
                "every gate is met".into()
            } else {
                format!("{} shown within limits", names.join(", "))
            }
        }
        _ => because.join("; "),
    }
}

/// `1,234,567`
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits.
fn significant(x: f64) -> String {
    let places = match x.abs() {
        0.0 => 0,
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 => 2,
        a if a >= 0.1 => 3,
        a if a >= 0.01 => 4,
        a if a >= 0.001 => 5,
        _ => 6,
    };
    format!("{x:.places$}")
}

/// With a sign, and no more digits than it has: `-3`, `+0.25`.
fn signed(x: f64) -> String {
    let text = trim(x);
    if x >= 0.0 { format!("+{text}") } else { text }
}

/// At most two decimals, none that are zero.
fn trim(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_count() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(count), ["0", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn evidence_below_one_is_none() {
        let need = libm::log(20.0);
        assert_eq!(evidence(-2.0, need), "none of the 20x needed");
        assert_eq!(evidence(libm::log(14.2), need), "14x of the 20x needed");
        assert_eq!(evidence(40.0, need), "over 1,000,000x of the 20x needed");
    }

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
        Guardrail {
            name: "g".into(),
            metric: "g".into(),
            better: Better::Higher,
            rule,
            maturity: Span::ZERO,
            on_fail: OnFail::Rollback,
            weight: 1.0,
            gates: true,
            slices: None,
            judged: None,
            unless: None,
            benefit: None,
        }
    }

    #[test]
    fn limits_are_in_the_unit_of_the_guardrail() {
        let of = |rule: Rule, better: Better| limit(&Guardrail { better, ..guardrail(rule) });
        let (higher, lower) = (Better::Higher, Better::Lower);
        let ratio = Margin::Ratio { ratio: 1.5, plus: 0.001 };
        for (rule, better, words) in [
            (Rule::Proportion { margin: Margin::Points(0.03) }, higher, "3 points"),
            (Rule::Score { margin: Margin::Relative(0.025) }, higher, "2.5%"),
            (Rule::Proportion { margin: ratio }, lower, "50% of it plus 0.1 points"),
            (Rule::Mean { handicap: 0.2 }, lower, "20%"),
            (Rule::Quantile { q: 0.95, handicap: 0.1 }, lower, "10% at the 95% quantile"),
            (Rule::Paired { points: 0.03 }, higher, "3 points"),
            (Rule::Count { ratio: 1.25 }, lower, "25%"),
            (Rule::Count { ratio: 0.8 }, higher, "20%"),
        ] {
            assert_eq!(of(rule.clone(), better).as_deref(), Some(words), "{rule:?}");
        }
        assert_eq!(of(Rule::Proportion { margin: Margin::Points(0.0) }, higher), None);
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
        assert_eq!(said(Rule::Proportion { margin }, &[0.015, 0.03]).as_deref(), Some(points));
        // 0.02 of the normalised value is 0.02 * 1.2 / 0.4 of the baseline's mean.
        let mean = "Differences of less than 6% beyond the limit may never be found.";
        assert_eq!(said(Rule::Mean { handicap: 0.2 }, &[0.04]).as_deref(), Some(mean));
        let rates = "Rates that are less than 12.5% beyond the limit may never be found.";
        assert_eq!(said(Rule::Count { ratio: 1.25 }, &[1.25, 1.5]).as_deref(), Some(rates));
        let split = "Splits whose odds are off by less than 1% may never be found.";
        assert_eq!(said(Rule::Split, &[0.5, 0.98, 1.0 / 0.98, 2.0]).as_deref(), Some(split));
        assert_eq!(said(Rule::Absolute { above: 0.1, of_last: 100 }, &[0.1]), None);
        assert_eq!(said(Rule::Proportion { margin }, &[]), None);
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
