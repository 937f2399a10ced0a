//! What the values of a policy file may be, alone and together.

use std::collections::{BTreeMap, BTreeSet};

use super::grammar::{Exposed, Label, PolicyFile, Spec, StepBody};
use super::guardrails::guardrails;
use super::windows::windows;
use crate::core::ids::{Actuator, Metric, Weight};
use crate::core::policy::{
    Approval, Concurrency, EvidenceRules, Guardrail, OnDeadline, OnFail, Policy, Rule, Step,
};
use crate::core::time::{Span, Timestamp};
use crate::wire::error::{did_you_mean, shown};
use crate::wire::yaml::{At, Checker, Node, Scalar};

const STEPS_MAX: usize = 50;
/// The baseline keeps at least 5 % of traffic while anything is to be compared.
const HOLDBACK: Weight = Weight(9_500);
const ACTUATORS_MAX: usize = 16;
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
                c.refuse("E3025", kind.place, &path, &format!("{} is there twice", value.as_str()));
            }
            value => applies_to.extend(value),
        }
    }
    let guardrails = guardrails(c, spec);
    let steps = steps(c, spec, guardrails.as_deref().unwrap_or_default());
    if let (Some(guardrails), Some(steps)) = (&guardrails, &steps) {
        something_to_show(c, spec, guardrails, steps);
    }
    let soak = c.get_or("spec.exposure.soak", &spec.exposure.soak, Span::ZERO);
    let on_deadline = c.get_or("spec.on_deadline", &spec.on_deadline, OnDeadline::Hold);
    let evidence = evidence(c, spec);
    if let Some(rules) = evidence {
        waiting_cohorts(c, spec, rules.cohort);
    }
    let stale_after = c.get_or("spec.stale_after", &spec.stale_after, Span::mins(15));
    let stale_after = at_least_a_second(c, "spec.stale_after", &spec.stale_after, stale_after);
    let approvals = approvals(c, spec, &steps);
    let concurrency = c.get_or("spec.concurrency", &spec.concurrency, Concurrency::Queue);
    let windows = windows(c, spec, now);
    let actuators = actuators(c, spec);
    let ack_timeout = c.get_or("spec.ack_timeout", &spec.ack_timeout, Span::secs(30));
    let ack_timeout = at_least_a_second(c, "spec.ack_timeout", &spec.ack_timeout, ack_timeout);

    let (Some(_), Some(_)) = stamps else { return None };
    Some(Policy {
        name: name?.0,
        applies_to,
        steps: steps?,
        soak: soak?,
        on_deadline: on_deadline?,
        guardrails: guardrails?,
        evidence: evidence?,
        stale_after: stale_after?,
        approvals,
        concurrency: concurrency?,
        windows,
        actuators: actuators?,
        ack_timeout: ack_timeout?,
    })
}

/// A promotion must need something to be seen of the canary: missing evidence is no reason to go on.
fn something_to_show(c: &mut Checker, spec: &Spec, guardrails: &[Guardrail], steps: &[Step]) {
    let absolute = |g: &Guardrail| matches!(g.rule, Rule::Absolute { .. }) && g.on_fail != OnFail::Alert;
    let needed = guardrails.iter().any(|g| g.gates || absolute(g));
    let counted =
        steps.split_last().is_some_and(|(_, before)| before.iter().all(|s| !s.min_samples.is_empty()));
    if !needed && !counted {
        let message = "nothing has to be seen of the canary before a promotion; give a guardrail gates: true, or every step min_samples";
        c.refuse("E3007", spec.guardrails.place, "spec.guardrails", message);
    }
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
            c.refuse("E3018", node.place, &path, &message);
        }
    }
}

fn at_least_a_second(
    c: &mut Checker,
    path: &str,
    node: &Option<Node<Span>>,
    value: Option<Span>,
) -> Option<Span> {
    if let (Some(node), Some(span)) = (node, value)
        && span < Span::secs(1)
    {
        c.refuse("E3018", node.place, path, &format!("must be 1s or more, got {span}"));
        return None;
    }
    value
}

/// `guardrails`: empty where there was something wrong with them; then nothing is held against them.
fn steps(c: &mut Checker, spec: &Spec, guardrails: &[Guardrail]) -> Option<Vec<Step>> {
    let At { value: bodies, place } = &spec.exposure.percent;
    if bodies.is_empty() || bodies.len() > STEPS_MAX {
        let message = format!("must have 1 to {STEPS_MAX} steps, got {}", bodies.len());
        c.refuse("E3009", *place, "spec.exposure.percent", &message);
        return None;
    }
    let metrics: BTreeSet<&str> = guardrails.iter().map(|guardrail| guardrail.metric.as_str()).collect();
    let mut before = Weight::ZERO;
    let mut steps = Vec::new();
    let mut sound = true;
    for (i, body) in bodies.iter().enumerate() {
        let path = format!("spec.exposure.percent[{i}]");
        let Some(step) = step(c, &path, body, &metrics, i + 1 == bodies.len()) else {
            sound = false;
            continue;
        };
        if step.to <= before {
            let message = format!("{} does not rise above the step before it, {before}", step.to);
            c.refuse("E3009", body.to.place, &format!("{path}.to"), &message);
        }
        if step.to > HOLDBACK && step.to < Weight::FULL {
            let message = format!(
                "{} leaves the baseline less than 5%, too little to compare with; end at 95% or below before 100%",
                step.to
            );
            c.refuse("E3009", body.to.place, &format!("{path}.to"), &message);
        }
        before = step.to;
        steps.push(step);
    }
    sound.then_some(steps)
}

fn step(c: &mut Checker, path: &str, body: &StepBody, metrics: &BTreeSet<&str>, last: bool) -> Option<Step> {
    let to_path = format!("{path}.to");
    let to = c.get(&to_path, &body.to).map(|Exposed(to)| to);
    let bake_path = format!("{path}.bake");
    let bake = c.get_or(&bake_path, &body.bake, Span::ZERO);
    let deadline_path = format!("{path}.deadline");
    let deadline = body.deadline.as_ref().map(|node| c.get(&deadline_path, node));

    let mut min_samples = BTreeMap::new();
    for (metric, node) in &body.min_samples {
        let path = format!("{path}.min_samples.{}", shown(metric));
        match c.get(&path, node) {
            Some(0) => c.refuse("E3008", node.place, &path, "must be 1 or more"),
            Some(n) if metrics.is_empty() || metrics.contains(metric.as_str()) => {
                min_samples.insert(Metric(metric.clone()), n);
            }
            Some(_) => {
                let message = match did_you_mean(metric, metrics.iter().copied()) {
                    Some(near) => format!("no guardrail uses {}; did you mean {near}?", shown(metric)),
                    None => format!("no guardrail uses {}", shown(metric)),
                };
                c.refuse("E3006", node.place, &path, &message);
            }
            None => {}
        }
    }

    match to {
        Some(Weight::FULL) if last => {
            let given = [&body.bake, &body.deadline].into_iter().flatten().map(|node| node.place);
            let given = given.chain(body.min_samples.values().map(|node| node.place)).next();
            if let Some(place) = given {
                let message = "nothing follows the step to 100%; how long it is watched is exposure.soak";
                c.refuse("E3009", place, path, message);
            }
        }
        Some(to) if last => {
            c.refuse("E3009", body.to.place, &to_path, &format!("the last step must reach 100%, got {to}"));
        }
        Some(_) if body.bake.is_none() => {
            c.refuse("E3017", body.to.place, path, "required key bake is missing");
        }
        _ => {}
    }
    if let (Some(bake), Some(Some(deadline)), Some(node)) = (bake, deadline, &body.deadline)
        && deadline <= bake
    {
        let message = format!("{deadline} is not after bake, {bake}: the step could never be promoted");
        c.refuse("E3010", node.place, &deadline_path, &message);
    }
    Some(Step { to: to?, bake: bake?, min_samples, deadline: deadline.map_or(Some(None), |d| d.map(Some))? })
}

fn evidence(c: &mut Checker, spec: &Spec) -> Option<EvidenceRules> {
    let (body, default) = (&spec.evidence, EvidenceRules::default());
    let mut level = |name: &str, node: &Option<Node<f64>>, default: f64| {
        let path = format!("spec.evidence.{name}");
        let level = c.get_or(&path, node, default)?;
        if let Some(node) = node.as_ref().filter(|_| !(level > 1.0 && level <= 1e6)) {
            let message = format!("must be above 1 and at most 1000000, got {level}");
            c.refuse("E3024", node.place, &path, &message);
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
        c.refuse("E3024", node.place, "spec.evidence.cohort", &format!("must be 1s to 1h, got {span}"));
    }
    let path = "spec.evidence.reference_min";
    let reference_min = c.get_or(path, &body.reference_min, u64::from(default.reference_min));
    if let (Some(node), Some(n)) = (&body.reference_min, reference_min)
        && !(20..=1_000_000).contains(&n)
    {
        c.refuse("E3024", node.place, path, &format!("must be 20 to 1000000, got {n}"));
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

fn approvals(c: &mut Checker, spec: &Spec, steps: &Option<Vec<Step>>) -> Vec<Approval> {
    let mut approvals: Vec<Approval> = Vec::new();
    for (i, body) in spec.approvals.iter().enumerate() {
        let path = format!("spec.approvals[{i}]");
        let before_path = format!("{path}.before");
        let by_path = format!("{path}.by");
        let (before, by) = (c.get(&before_path, &body.before), c.get(&by_path, &body.by));
        let (Some(Exposed(before)), Some(by)) = (before, by) else { continue };
        if !(1..=APPROVERS_MAX).contains(&by) {
            let message = format!("must be 1 to {APPROVERS_MAX} persons, got {by}");
            c.refuse("E3018", body.by.place, &by_path, &message);
        } else if approvals.iter().any(|approval| approval.before == before) {
            c.refuse("E3025", body.before.place, &before_path, &format!("{before} is there twice"));
        } else if steps.as_ref().is_some_and(|steps| steps.iter().all(|step| step.to != before)) {
            let message = format!("no step goes to {before}");
            c.refuse("E3009", body.before.place, &before_path, &message);
        } else {
            approvals.push(Approval { before, by: by as u8 });
        }
    }
    approvals
}

fn actuators(c: &mut Checker, spec: &Spec) -> Option<Vec<Actuator>> {
    let Some(At { value: nodes, place }) = &spec.actuators else {
        return Some(vec![Actuator::from("default")]);
    };
    if nodes.is_empty() || nodes.len() > ACTUATORS_MAX {
        let message = format!("must name 1 to {ACTUATORS_MAX}, got {}", nodes.len());
        c.refuse("E3018", *place, "spec.actuators", &message);
        return None;
    }
    let mut actuators = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let path = format!("spec.actuators[{i}]");
        let Some(Label(name)) = c.get(&path, node) else { continue };
        if actuators.contains(&Actuator(name.clone())) {
            c.refuse("E3025", node.place, &path, &format!("{name} is there twice"));
        }
        actuators.push(Actuator(name));
    }
    Some(actuators)
}
