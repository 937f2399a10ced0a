//! The sentences in which sluice gives its reasons. One generator for the CLI, the API, the messages and the
//! log, so that all say the same.
//!
//! Never here: the probability of a hypothesis, or "no problem found" for what was not shown.

pub mod alert;
pub mod line;
pub mod refusal;

mod meaning;

pub use meaning::{family, meaning, resolution, rolled_back, series, strength};

use super::ids::{Service, Weight};
use super::time::Span;
use crate::core::event::command::Asked;
use crate::core::event::decision::{Choice, Decision, Grounds, Reason};
use crate::core::event::reading::{GuardrailReading, Silence};
use crate::core::event::smoke::SmokeOutcome;
use crate::core::evidence::figures::Shown;
use crate::core::evidence::verdict::Verdict;
use crate::core::policy::guardrail::OnFail;
use crate::core::text::count;

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
        return format!("{} {}{}", r.name, silent(r, silence), detail(r));
    }
    format!("{} {says}{}", r.name, detail(r))
}

/// Who is silent, and for how long.
fn silent(r: &GuardrailReading, s: &Silence) -> String {
    let (canary, baseline) = (&s.canary, &s.baseline);
    let lasts = |span: Option<Span>| span.map_or("ever".into(), |span| format!("for {span}"));
    match (r.verdict, s.canary_for, s.baseline_for) {
        (_, None, _) if r.canary.n > 0 => {
            format!("hears only of hits from {canary}, which is no sign that anybody looks at the rest")
        }
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
    let profile = r.kind.profile();
    let figures = (profile.figures)(&Shown {
        baseline: r.baseline,
        canary: r.canary,
        range: r.range,
        limit: r.limit,
        estimate: r.estimate,
        reference: r.reference.as_ref(),
    });
    if profile.healthy.is_none() {
        return figures.map(|figures| format!(": {figures}")).unwrap_or_default();
    }
    let mut text = String::from(": ");
    match (figures, r.reference.is_some()) {
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

/// `evidence 14x of the 20x needed`; below 1x there is none.
pub fn evidence(ln: f64, need_ln: f64) -> String {
    let need = times(need_ln);
    if ln <= 0.0 {
        format!("none of the {need} needed")
    } else {
        // Never more than there is: 19.6x is not 20x, and nothing acts.
        format!("{} of the {need} needed", at_least(ln))
    }
}

/// Of what has been enough, as much as there is.
fn evidence_needed(ln: f64, need_ln: f64) -> String {
    format!("{} of the {} needed", times(ln), times(need_ln))
}

/// Evidence cut off after the digits that are shown.
fn at_least(ln: f64) -> String {
    let e = libm::exp(ln) * (1.0 + 1e-12);
    match e {
        e if ln > 13.8 || e >= 100.0 => times(ln),
        e if e >= 10.0 => format!("{}x", libm::floor(e)),
        e => format!("{:.1}x", libm::floor(e * 10.0) / 10.0),
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
        Reason::Window { why: Some(why), .. } => format!("change window closed: {why}"),
        Reason::Window { why: None, .. } => {
            "change window closed: the change windows have not been worked out for \
                                             now; until then they count as closed"
                .into()
        }
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
            format!("{} has not confirmed within {}", listed(waiting), Span(*within_ms))
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

/// Everything that was in the way, binding first.
pub fn grounds(of: &Grounds) -> String {
    reasons(&of.reasons, &of.readings)
}

fn reasons(reasons: &[Reason], readings: &[GuardrailReading]) -> String {
    reasons.iter().map(|reason| self::reason(reason, readings)).collect::<Vec<_>>().join("; ")
}

/// `router-eu, router-us`
pub fn listed(names: &[impl ToString]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a freeze is of.
pub fn scope(service: Option<&Service>) -> String {
    service.map_or_else(|| "everything".into(), |service| service.to_string())
}

/// What a command asks for: `setting 25%`, `setting beta 10%, others 0%`, `populate at 0%`.
pub fn asked(command: &Asked) -> String {
    let others = if command.segments.is_empty() { String::new() } else { "others ".into() };
    let segments: String =
        command.segments.iter().map(|(name, weight)| format!("{name} {weight}, ")).collect();
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
    match d.choice {
        Choice::Promote if d.because.is_empty() && d.step.is_none() => "first step".into(),
        Choice::Promote if d.because.is_empty() => {
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
        _ => reasons(&d.because, &d.readings),
    }
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
}
