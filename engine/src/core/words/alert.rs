//! What a person should know about, in one sentence with its values.

use super::{asked, evidence_needed, grounds, listed, reading, reason, refusal};
use crate::core::event::alert::{AboveCap, Alert, NotEffective, Objection, Overtaken};
use crate::core::event::decision::Reason;
use crate::core::evidence::reference::Unusable;
use crate::core::policy::actuator::OnDeadline;
use crate::core::text::{count, digits, trim};

pub fn text(alert: &Alert) -> String {
    match alert {
        Alert::Guardrail { reading: failed } | Alert::Slice { reading: failed, .. } => reading(failed),
        Alert::Unjudgeable { guardrail, why } => format!("{guardrail} cannot be judged: {}", unusable(why)),
        Alert::AboveCap(above) => above_cap(above),
        Alert::Condition { name, when } => {
            let holds = Reason::Condition { name: name.clone(), known: true };
            format!("{}: {when}", reason(&holds, &[]))
        }
        Alert::Segment { name } => reason(&Reason::Segment { name: name.clone() }, &[]),
        Alert::Deadline { at, after, first, .. } => {
            format!("no promotion out of {at} within {after}: {}", grounds(first))
        }
        Alert::NotApplied { waiting, within, .. } => {
            reason(&Reason::NotApplied { waiting: waiting.clone(), within_ms: within.0 }, &[])
        }
        Alert::ActuatorRejected { actuator, asked: what, why } => {
            format!("actuator {actuator} rejected {}: {}", asked(what), objection(why))
        }
        Alert::ActuatorSilent { actuator, asked: what, within, on_silent } => {
            let then = match on_silent {
                None => "resending",
                Some(OnDeadline::Hold) => "the command is sent again",
                Some(OnDeadline::Rollback) => "rolling back",
            };
            format!("actuator {actuator} has not confirmed {} within {within}; {then}", asked(what))
        }
        Alert::RollbackUnconfirmed { actuator, asked: what, canary, since, .. } => format!(
            "actuator {actuator} has not confirmed the rollback, {}, for {since}; it may still send requests to \
             {canary}. The command is sent again",
            asked(what)
        ),
        Alert::NotEffective(found) => not_effective(found),
        Alert::Smoke { reason: failed, .. } => reason(failed, &[]),
        Alert::Overtaken(why) => overtaken(why),
    }
}

/// Why a rollout was not begun when its turn came.
pub fn overtaken(why: &Overtaken) -> String {
    match why {
        Overtaken::Serves { service, to } => {
            format!("{to} has come to serve {service} meanwhile; nothing is left to roll out")
        }
        Overtaken::Refused(now) => refusal::text(now),
    }
}

fn unusable(why: &Unusable) -> String {
    match why {
        Unusable::NeverAboveZero { metric } => format!("{metric} is never above 0 in the baseline"),
        Unusable::Boundary { metric, boundary, theta } => format!(
            "the limit puts {metric} at {boundary:.4} where the baseline is {theta:.4}; it must lie between 0 and 1"
        ),
        Unusable::AboveLastBound { metric, q } => {
            format!("the {q} quantile of {metric} lies above the last finite bound of its histograms")
        }
    }
}

fn objection(why: &Objection) -> String {
    match why {
        Objection::Rejects(why) => why.clone(),
        Objection::Unfinished { done, of } => {
            format!("says that it is done, with {} of {}", count(*done), count(*of))
        }
    }
}

/// `router-eu confirmed 25%, telemetry shows 5.1% of 12,004 requests (error) in the 10m since`
fn not_effective(found: &NotEffective) -> String {
    let NotEffective { actuators, asked: what, seen, over, takes_back, .. } = found;
    let shown = match seen {
        Some((metric, canary, requests)) => {
            let share = *canary as f64 / *requests as f64 * 100.0;
            format!("telemetry shows {share:.1}% of {} requests ({metric}) in {over}", count(*requests))
        }
        None => format!("telemetry shows no request in {over}"),
    };
    let opposed = seen.as_ref().is_some_and(|(_, canary, _)| *canary > 0);
    let then = match (takes_back, opposed) {
        (true, true) => "the command is sent again",
        (true, false) => "no request speaks against it, and it is taken as done",
        (false, _) => "nothing is promoted before it is shown",
    };
    format!("{} confirmed {}, {shown}; {then}", listed(actuators), asked(what))
}

/// What a mean does not see: values above the baseline's 99.9th percentile. The canary's are compared with it after what the limit
/// allows is taken off.
///
/// `cost_usd: 15 of 1,131 canary values are above 0.133, of the baseline 8 of 10,669 above 0.0888: ..`
fn above_cap(above: &AboveCap) -> String {
    let AboveCap { guardrail, canary, baseline, times, plus, ln, need_ln } = above;
    format!(
        "{guardrail}: {} of {} canary values are above {}, of the baseline {} of {} above {}: more than {times} times \
         as often plus {} pts, evidence {}. The mean counts each of them as no more than that",
        count(canary.n),
        count(canary.of),
        digits(canary.cap),
        count(baseline.n),
        count(baseline.of),
        digits(baseline.cap),
        trim(plus * 100.0),
        evidence_needed(*ln, *need_ln),
    )
}
