//! What the values of a policy file may be, alone and together.

use super::actuation::{self, actuators};
use super::conditions::conditions;
use super::exposure::exposure;
use super::grammar::{PolicyFile, Spec};
use super::guardrails::guardrails;
use super::scalars::{Exposed, Label, Lasting};
use super::windows::windows;
use crate::core::event::bundle::Part;
use crate::core::event::code::Code;
use crate::core::ids::{Scope, Weight};
use crate::core::policy::actuator::OnDeadline;
use crate::core::policy::guardrail::{EvidenceRules, Guardrail, OnFail};
use crate::core::policy::{Approval, Concurrency, Policy, Retry, Step};
use crate::core::time::{Span, Timestamp};
use crate::wire::intent::SCOPES_MAX;
use crate::wire::yaml::{Checker, Node, Scalar};

const APPROVERS_MAX: u64 = 10;
/// Cohorts of one guardrail that may wait for their maturity.
const COHORTS_MAX: u64 = 2_000;

/// `now`: when windows that never open again are mistakes.
pub fn policy(c: &mut Checker, file: &PolicyFile, now: Option<Timestamp>) -> Option<Policy> {
    let stamps = (c.get("apiVersion", &file.api_version), c.get("kind", &file.kind));
    let name = c.get("metadata.name", &file.metadata.name);
    let spec = &file.spec;

    let mut applies_to = Vec::new();
    for (i, kind) in spec.applies_to.iter().enumerate() {
        let path = format!("spec.applies_to[{i}]");
        match c.get(&path, kind) {
            Some(value) if applies_to.contains(&value) => {
                c.refuse(Code::NamedTwice, kind.place, &path, &format!("{} is there twice", value.as_str()));
            }
            value => applies_to.extend(value),
        }
    }
    let significant = c.get_or("spec.significant", &spec.significant, false);
    let mut guardrails = guardrails(c, spec);
    let exposure = exposure(c, spec, guardrails.as_deref_mut().unwrap_or_default());
    let conditions = conditions(c, spec, guardrails.as_deref().unwrap_or_default());
    if let (Some(guardrails), Some(exposure)) = (&guardrails, &exposure) {
        something_to_show(c, spec, guardrails, &exposure.steps);
    }
    let on_deadline = on_deadline(c, spec);
    let keep_old = c.get_or("spec.keep_old", &spec.keep_old, Span::ZERO);
    kept_or_released(c, spec);
    let evidence = evidence(c, spec);
    if let Some(rules) = evidence {
        waiting_cohorts(c, spec, rules.cohort);
    }
    let stale_after = c.get_or("spec.stale_after", &spec.stale_after, Lasting(Span::mins(15)));
    let approvals = approvals(c, spec, exposure.as_ref().map(|exposure| exposure.steps.as_slice()));
    let concurrency = c.get_or("spec.concurrency", &spec.concurrency, Concurrency::Queue);
    let parts_at_once = parts_at_once(c, spec);
    let windows = windows(c, spec, now);
    let scopes = scopes(c, spec);
    let retry = c.get_or("spec.retry_after_rollback", &spec.retry_after_rollback, Retry::NeedsFinding);
    let (actuators, declared) = actuators(c, spec).unzip();
    let effective = actuation::effective(c, spec);
    let smoke = actuation::smoke(c, spec);
    let ack_timeout = c.get_or("spec.ack_timeout", &spec.ack_timeout, Lasting(Span::secs(30)));

    let (Some(_), Some(_)) = stamps else { return None };
    let exposure = exposure?;
    Some(Policy {
        name: name?.0,
        applies_to,
        significant: significant?,
        steps: exposure.steps,
        segments: exposure.segments,
        ab: spec.exposure.value.ab.is_some(),
        release: spec.exposure.value.parallel.is_some() || spec.exposure.value.blue_green.is_some(),
        soak: exposure.soak,
        keep_old: keep_old?,
        on_deadline: on_deadline?,
        guardrails: guardrails?,
        conditions,
        evidence: evidence?,
        stale_after: stale_after?.0,
        approvals,
        concurrency: concurrency?,
        parts_at_once: parts_at_once?,
        windows,
        retry_after_rollback: retry?,
        scopes,
        actuators: actuators?,
        ack_timeout: ack_timeout?.0,
        declared: declared?,
        effective,
        smoke,
    })
}

/// A promotion must need something to be seen of the canary: missing evidence is no reason to go on.
fn something_to_show(c: &mut Checker, spec: &Spec, guardrails: &[Guardrail], steps: &[Step]) {
    let absolute = |g: &Guardrail| g.compares().is_none() && g.on_fail != OnFail::Alert;
    let needed = guardrails.iter().any(|g| g.gates || absolute(g));
    let seen = |step: &&Step| step.to > Weight::ZERO;
    let counted = steps
        .split_last()
        .is_some_and(|(_, before)| before.iter().filter(seen).all(|s| !s.min_samples.is_empty()));
    if !needed && !counted {
        let message = "nothing has to be seen of the canary before a promotion; give a guardrail gates: true, or every step min_samples";
        c.refuse(Code::NothingStops, spec.guardrails.place, "spec.guardrails", message);
    }
}

/// What is released at the end cannot be gone back to.
fn kept_or_released(c: &mut Checker, spec: &Spec) {
    let released = spec.exposure.value.parallel.is_some() || spec.exposure.value.blue_green.is_some();
    if let Some(node) = spec.keep_old.as_ref().filter(|_| released) {
        let message =
            "parallel and blue_green release the old one at the end; how long it is kept is their keep";
        c.refuse(Code::FileValue, node.place, "spec.keep_old", message);
    }
}

/// At the horizon of an A/B the old version stays, unless the new one was shown to be no worse.
fn on_deadline(c: &mut Checker, spec: &Spec) -> Option<OnDeadline> {
    let ab = spec.exposure.value.ab.is_some();
    let default = if ab { OnDeadline::Rollback } else { OnDeadline::Hold };
    let on_deadline = c.get_or("spec.on_deadline", &spec.on_deadline, default)?;
    if let Some(node) = spec.on_deadline.as_ref().filter(|_| ab && on_deadline == OnDeadline::Hold) {
        let message = "at the horizon of an ab the old version stays if the new one does not win: rollback, or leave it out";
        c.refuse(Code::Unreachable, node.place, "spec.on_deadline", message);
    }
    Some(on_deadline)
}

/// A cohort waits until it is mature: a long maturity with short cohorts would make many of them wait at once.
fn waiting_cohorts(c: &mut Checker, spec: &Spec, cohort: Span) {
    for (i, body) in spec.guardrails.value.iter().enumerate() {
        let path = format!("spec.guardrails[{i}].maturity");
        let Some(node) = &body.maturity else { continue };
        // What is no duration has been refused already.
        if let Ok(maturity) = Span::parse(&node.text)
            && maturity.0 > cohort.0 * COHORTS_MAX
        {
            let message = format!(
                "{maturity} is over {COHORTS_MAX} cohorts of {cohort}, the most that may wait; lengthen spec.evidence.cohort"
            );
            c.refuse(Code::FileValue, node.place, &path, &message);
        }
    }
}

fn evidence(c: &mut Checker, spec: &Spec) -> Option<EvidenceRules> {
    let (body, default) = (&spec.evidence, EvidenceRules::default());
    let mut level = |name: &str, node: &Option<Node<f64>>, default: f64| {
        let path = format!("spec.evidence.{name}");
        let level = c.get_or(&path, node, default)?;
        if let Some(node) = node.as_ref().filter(|_| !(level > 1.0 && level <= 1e6)) {
            let message = format!("must be above 1 and at most 1000000, got {level}");
            c.refuse(Code::Limit, node.place, &path, &message);
        }
        Some(level)
    };
    let rollback = level("rollback", &body.rollback, default.rollback);
    let promote = level("promote", &body.promote, default.promote);
    let promote_last = level("promote_last", &body.promote_last, default.promote_last);
    let split = level("split", &body.split, default.split);
    let warm_up = c.get_or("spec.evidence.warm_up", &body.warm_up, default.warm_up);
    let cohort = c.get_or("spec.evidence.cohort", &body.cohort, default.cohort);
    if let (Some(node), Some(span)) = (&body.cohort, cohort)
        && !(Span::secs(1)..=Span::hours(1)).contains(&span)
    {
        c.refuse(Code::Limit, node.place, "spec.evidence.cohort", &format!("must be 1s to 1h, got {span}"));
    }
    let path = "spec.evidence.reference_min";
    let reference_min = c.get_or(path, &body.reference_min, u64::from(default.reference_min));
    if let (Some(node), Some(n)) = (&body.reference_min, reference_min)
        && !(20..=1_000_000).contains(&n)
    {
        c.refuse(Code::Limit, node.place, path, &format!("must be 20 to 1000000, got {n}"));
    }
    Some(EvidenceRules {
        rollback: rollback?,
        promote: promote?,
        promote_last: promote_last?,
        split: split?,
        warm_up: warm_up?,
        cohort: cohort?,
        reference_min: u32::try_from(reference_min?).ok()?,
    })
}

fn approvals(c: &mut Checker, spec: &Spec, steps: Option<&[Step]>) -> Vec<Approval> {
    let mut approvals: Vec<Approval> = Vec::new();
    for (i, body) in spec.approvals.iter().enumerate() {
        let path = format!("spec.approvals[{i}]");
        let before_path = format!("{path}.before");
        let by_path = format!("{path}.by");
        let (before, by) = (c.get(&before_path, &body.before), c.get(&by_path, &body.by));
        let not_submitter = c.get_or(&format!("{path}.not_submitter"), &body.not_submitter, false);
        let (Some(Exposed(before)), Some(by), Some(not_submitter)) = (before, by, not_submitter) else {
            continue;
        };
        if !(1..=APPROVERS_MAX).contains(&by) {
            let message = format!("must be 1 to {APPROVERS_MAX} persons, got {by}");
            c.refuse(Code::FileValue, body.by.place, &by_path, &message);
        } else if approvals.iter().any(|approval| approval.before == before) {
            c.refuse(Code::NamedTwice, body.before.place, &before_path, &format!("{before} is there twice"));
        } else if steps.as_ref().is_some_and(|steps| steps.iter().all(|step| step.to != before)) {
            let message = format!("no step goes to {before}");
            c.refuse(Code::Exposure, body.before.place, &before_path, &message);
        } else {
            approvals.push(Approval { before, by: by as u8, not_submitter });
        }
    }
    approvals
}

fn parts_at_once(c: &mut Checker, spec: &Spec) -> Option<u8> {
    let (path, most) = ("spec.parts_at_once", Part::ALL.len() as u64);
    let n = c.get_or(path, &spec.parts_at_once, 1)?;
    if let Some(node) = spec.parts_at_once.as_ref().filter(|_| !(1..=most).contains(&n)) {
        c.refuse(Code::FileValue, node.place, path, &format!("must be 1 to {most} parts, got {n}"));
        return None;
    }
    Some(n as u8)
}

fn scopes(c: &mut Checker, spec: &Spec) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for (i, node) in spec.scopes.iter().enumerate() {
        let path = format!("spec.scopes[{i}]");
        let Some(Label(name)) = c.get(&path, node) else { continue };
        if scopes.contains(&Scope(name.clone())) {
            c.refuse(Code::NamedTwice, node.place, &path, &format!("{name} is there twice"));
        } else if i >= SCOPES_MAX {
            let message = format!("must name at most {SCOPES_MAX}, got {}", spec.scopes.len());
            c.refuse(Code::FileValue, node.place, "spec.scopes", &message);
            break;
        }
        scopes.push(Scope(name));
    }
    scopes
}
