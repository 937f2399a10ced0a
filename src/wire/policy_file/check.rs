//! What the values of a policy file may be, alone and together.

use std::collections::{BTreeMap, BTreeSet};

use super::grammar::{
    Exposed, GuardrailBody, Label, Limit, MetricName, PolicyFile, RuleKind, Spec, StepBody,
};
use crate::core::ids::{Actuator, Metric, Weight};
use crate::core::policy::{
    Approval, Better, Concurrency, EvidenceRules, Guardrail, Margin, OnDeadline, OnFail, Policy, Rule, Step,
    Unless,
};
use crate::core::time::Span;
use crate::wire::error::{did_you_mean, shown};
use crate::wire::names::is_metric;
use crate::wire::yaml::{At, Checker, Percent, Place, Points, Scalar, Unfit};

const STEPS_MAX: usize = 50;
/// The baseline keeps at least 5 % of traffic while anything is to be compared.
const HOLDBACK: Weight = Weight(9_500);
const GUARDRAILS_MAX: usize = 32;
const ACTUATORS_MAX: usize = 16;
const APPROVERS_MAX: u64 = 10;
/// Observations an absolute guardrail remembers.
const OF_LAST_MAX: u64 = 10_000;
/// A relative limit above this (the tenfold) limits nothing.
const RELATIVE_MAX: f64 = 9.0;
/// Values that arrive later than this are of no use to a rollout.
const MATURITY_MAX: Span = Span::hours(7 * 24);
/// Cohorts of one guardrail that may wait for their maturity.
const COHORTS_MAX: u64 = 2_000;
/// Weights sum to 1 but for the rounding of decimals.
const WEIGHTS_ROUNDING: f64 = 1e-9;

pub fn policy(c: &mut Checker, file: &PolicyFile) -> Option<Policy> {
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
        actuators: actuators?,
        ack_timeout: ack_timeout?,
    })
}

type Node<T> = crate::wire::yaml::Node<T>;

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

fn guardrails(c: &mut Checker, spec: &Spec) -> Option<Vec<Guardrail>> {
    let At { value: bodies, place } = &spec.guardrails;
    let path = "spec.guardrails";
    if bodies.len() > GUARDRAILS_MAX {
        let message = format!("at most {GUARDRAILS_MAX} guardrails, got {}", bodies.len());
        c.refuse("E3018", *place, path, &message);
        return None;
    }
    let read: Vec<Option<Guardrail>> =
        bodies.iter().enumerate().map(|(i, body)| guardrail(c, &format!("{path}[{i}]"), body)).collect();
    let mut guardrails = read.into_iter().collect::<Option<Vec<_>>>()?;

    for (i, guardrail) in guardrails.iter().enumerate() {
        if guardrails[..i].iter().any(|earlier| earlier.name == guardrail.name) {
            let place = bodies[i].name.as_ref().unwrap_or(&bodies[i].metric).place;
            let message = format!("{} is there twice; give one of them another name", guardrail.name);
            c.refuse("E3025", place, &format!("{path}[{i}].name"), &message);
        }
    }
    if guardrails.iter().all(|guardrail| guardrail.on_fail == OnFail::Alert) {
        c.refuse("E3007", *place, path, "at least one guardrail with on_fail rollback or hold is required");
    }
    weights(c, bodies, &mut guardrails);
    trade_offs(c, bodies, &mut guardrails);
    Some(guardrails)
}

/// Connects each trade-off with the guardrail that can show its benefit.
fn trade_offs(c: &mut Checker, bodies: &[GuardrailBody], guardrails: &mut [Guardrail]) {
    for (i, body) in bodies.iter().enumerate() {
        let Some(unless) = &body.unless else { continue };
        let path = format!("spec.guardrails[{i}].unless");
        let (Some(MetricName(benefit)), Some(Points(by))) =
            (c.get(&format!("{path}.benefit"), &unless.benefit), c.get(&format!("{path}.by"), &unless.by))
        else {
            continue;
        };
        let at = unless.benefit.place;
        if guardrails[i].on_fail != OnFail::Rollback || matches!(guardrails[i].rule, Rule::Absolute { .. }) {
            let message =
                "unless turns a rollback into a hold; this guardrail does not roll back by comparison";
            c.refuse("E3018", at, &path, message);
            continue;
        }
        let can = |g: &Guardrail| {
            matches!(g.rule, Rule::Proportion { .. } | Rule::Score { .. } | Rule::Paired { .. })
        };
        let names = guardrails.iter().filter(|g| can(g)).map(|g| g.name.as_str());
        let Some(shows) = guardrails.iter().position(|g| g.name == benefit && can(g)) else {
            let near = did_you_mean(&benefit, names).map(|near| format!("; did you mean {near}?"));
            let message = format!(
                "no guardrail of kind proportion, score or paired is called {}{}",
                shown(&benefit),
                near.unwrap_or_default()
            );
            c.refuse("E3006", at, &format!("{path}.benefit"), &message);
            continue;
        };
        match guardrails[shows].benefit {
            Some(other) if other != by => {
                let message = format!(
                    "{benefit} is asked for a benefit of {} elsewhere: one per guardrail",
                    points(other)
                );
                c.refuse("E3025", unless.by.place, &format!("{path}.by"), &message);
            }
            _ if shows == i => {
                c.refuse("E3010", at, &path, "a guardrail that fails shows no benefit of its own");
            }
            _ => {
                guardrails[shows].benefit = Some(by);
                guardrails[i].unless = Some(Unless { guardrail: benefit });
            }
        }
    }
}

/// `2pp`
fn points(share: f64) -> String {
    format!("{}pp", (share * 1e6).round() / 1e4)
}

/// Whether the guardrail takes part in the error budget of rollbacks.
fn has_share(guardrail: &Guardrail) -> bool {
    guardrail.on_fail == OnFail::Rollback && guardrail.shows_safety()
}

/// Equal shares where none is named; else all are, and they sum to 1.
fn weights(c: &mut Checker, bodies: &[GuardrailBody], guardrails: &mut [Guardrail]) {
    let mut sharing: Vec<(usize, &GuardrailBody)> = Vec::new();
    for (i, (body, guardrail)) in bodies.iter().zip(guardrails.iter()).enumerate() {
        match &body.weight {
            _ if has_share(guardrail) => sharing.push((i, body)),
            Some(node) => {
                let message = "only guardrails that compare the arms and roll back have a weight";
                c.refuse("E3020", node.place, &format!("spec.guardrails[{i}].weight"), message);
            }
            None => {}
        }
    }
    let given: Vec<Place> =
        sharing.iter().filter_map(|(_, body)| Some(body.weight.as_ref()?.place)).collect();
    let Some(first) = given.first() else {
        let share = 1.0 / sharing.len() as f64;
        sharing.iter().for_each(|(i, _)| guardrails[*i].weight = share);
        return;
    };
    if let Some((i, body)) = sharing.iter().find(|(_, body)| body.weight.is_none()) {
        let path = format!("spec.guardrails[{i}]");
        let message = "weight is missing; give all that roll back a weight, or none (equal shares)";
        return c.refuse("E3020", body.metric.place, &path, message);
    }
    let sum: f64 = sharing.iter().map(|(i, _)| guardrails[*i].weight).sum();
    if (sum - 1.0).abs() > WEIGHTS_ROUNDING {
        // Two decimals more than people write, so that what is shown is what they wrote.
        let sum = (sum * 1e6).round() / 1e6;
        let message = format!("the weights of guardrails that roll back must sum to 1, got {sum}");
        c.refuse("E3020", *first, "spec.guardrails", &message);
    }
}

fn guardrail(c: &mut Checker, path: &str, body: &GuardrailBody) -> Option<Guardrail> {
    let field = |name: &str| format!("{path}.{name}");
    let metric = c.get(&field("metric"), &body.metric);
    let kind = c.get(&field("kind"), &body.kind);
    let name = body.name.as_ref().map(|name| c.get(&field("name"), name));
    let on_fail = c.get(&field("on_fail"), &body.on_fail);
    let maturity = c.get_or(&field("maturity"), &body.maturity, Span::ZERO);
    let weight = c.get_or(&field("weight"), &body.weight, 0.0);
    let better = match &body.better {
        Some(better) => c.get(&field("better"), better),
        None if kind.is_some_and(lower_by_default) => Some(Better::Lower),
        None => {
            c.refuse("E3017", body.metric.place, path, "required key better is missing (higher or lower)");
            None
        }
    };
    let (kind, better, on_fail) = (kind?, better?, on_fail?);
    let shows_safety = !matches!(kind, RuleKind::Absolute | RuleKind::Split | RuleKind::Missing);
    let gates_default = on_fail == OnFail::Rollback && shows_safety;
    let gates = c.get_or(&field("gates"), &body.gates, gates_default);
    let rule = rule(c, path, body, kind, better);

    if let (Some(node), Some(weight)) = (&body.weight, weight)
        && !(weight > 0.0 && weight <= 1.0)
    {
        let message = format!("must be above 0 and at most 1, got {weight}");
        c.refuse("E3020", node.place, &field("weight"), &message);
    }
    if let (Some(node), Some(maturity)) = (&body.maturity, maturity)
        && maturity > MATURITY_MAX
    {
        let message = format!("must be at most {MATURITY_MAX}, got {maturity}");
        c.refuse("E3018", node.place, &field("maturity"), &message);
    }
    if let Some(node) = body.maturity.as_ref().filter(|_| kind == RuleKind::Absolute) {
        c.refuse("E3018", node.place, &field("maturity"), "kind absolute looks at values as they come");
    }
    if let Some(node) = body.gates.as_ref().filter(|_| gates == Some(true) && !shows_safety) {
        let message = format!("kind {} shows no safety, so it cannot gate", body.kind.text);
        c.refuse("E3018", node.place, &field("gates"), &message);
    }
    if on_fail == OnFail::Rollback && matches!(kind, RuleKind::Split | RuleKind::Missing) {
        let message = format!(
            "kind {} says that the comparison is not sound, not that the canary is worse: hold or alert",
            body.kind.text
        );
        c.refuse("E3018", body.on_fail.place, &field("on_fail"), &message);
    }
    let slices = body.slices.as_ref().map(|node| (node.place, c.get(&field("slices"), node)));
    if let Some((place, Some(_))) = &slices
        && (!shows_safety || kind == RuleKind::Count)
    {
        let message = format!("kind {} is not shown in parts", body.kind.text);
        c.refuse("E3018", *place, &field("slices"), &message);
    }
    let slices = match slices {
        Some((_, tag)) => Some(tag?.0),
        None => None,
    };
    let metric = Metric(metric?.0);
    let default_name = match kind {
        RuleKind::Absolute => format!("{metric}.absolute"),
        RuleKind::Missing => format!("{metric}.missing"),
        RuleKind::Split => format!("{metric}.split"),
        RuleKind::Quantile => {
            let digits = rule.as_ref().map_or(String::new(), quantile_digits);
            format!("{metric}.p{digits}")
        }
        RuleKind::Proportion | RuleKind::Score | RuleKind::Mean | RuleKind::Paired | RuleKind::Count => {
            metric.0.clone()
        }
    };
    let name = match name {
        Some(name) => name?.0,
        None if is_metric(&default_name) => default_name,
        None => {
            let message = format!("{default_name} is too long for a name; give the guardrail a name");
            c.refuse("E3022", body.metric.place, path, &message);
            return None;
        }
    };
    Some(Guardrail {
        name,
        metric,
        better,
        rule: rule?,
        maturity: maturity?,
        on_fail,
        weight: weight?,
        gates: gates?,
        slices,
        unless: None,
        benefit: None,
    })
}

/// `95` of 0.95, `999` of 0.999.
fn quantile_digits(rule: &Rule) -> String {
    let Rule::Quantile { q, .. } = rule else { return String::new() };
    let text = format!("{q}");
    let digits = text.trim_start_matches("0.");
    if digits.len() == 1 { format!("{digits}0") } else { digits.to_owned() }
}

/// Kinds of which a little is nearly always good.
fn lower_by_default(kind: RuleKind) -> bool {
    matches!(kind, RuleKind::Absolute | RuleKind::Count | RuleKind::Missing | RuleKind::Split)
}

fn rule(c: &mut Checker, path: &str, body: &GuardrailBody, kind: RuleKind, better: Better) -> Option<Rule> {
    let field = |name: &str| format!("{path}.{name}");
    if kind == RuleKind::Absolute {
        if let Some(limit) = &body.limit {
            c.refuse("E3018", limit.place, &field("limit"), "kind absolute has above and of_last, not limit");
        }
        let above = needed(c, path, body, "above", &body.above);
        let of_last = needed(c, path, body, "of_last", &body.of_last);
        let (Percent(above), of_last) = (above?, of_last?);
        let (above_node, of_last_node) = (body.above.as_ref()?, body.of_last.as_ref()?);
        if !(1..=OF_LAST_MAX).contains(&of_last) {
            let message = format!("must be 1 to {OF_LAST_MAX}, got {of_last}");
            c.refuse("E3024", of_last_node.place, &field("of_last"), &message);
            return None;
        }
        if above >= 1.0 {
            let message = format!(
                "{} can never trigger: more than all of the last {of_last} cannot be",
                shown(&above_node.text)
            );
            c.refuse("E3010", above_node.place, &field("above"), &message);
            return None;
        }
        if above == 0.0 {
            c.refuse("E3024", above_node.place, &field("above"), "must be above 0%");
            return None;
        }
        return Some(Rule::Absolute { above, of_last: of_last as u32 });
    }
    for (name, place) in
        [("above", body.above.as_ref().map(|n| n.place)), ("of_last", body.of_last.as_ref().map(|n| n.place))]
    {
        if let Some(place) = place {
            c.refuse("E3018", place, &field(name), "belongs to kind absolute");
        }
    }
    for (name, place, belongs) in [
        ("q", body.q.as_ref().map(|n| n.place), (RuleKind::Quantile, "quantile")),
        ("of", body.of.as_ref().map(|n| n.place), (RuleKind::Missing, "missing")),
    ] {
        if let Some(place) = place.filter(|_| kind != belongs.0) {
            c.refuse("E3018", place, &field(name), &format!("belongs to kind {}", belongs.1));
        }
    }
    if kind == RuleKind::Split {
        if let Some(limit) = &body.limit {
            c.refuse(
                "E3018",
                limit.place,
                &field("limit"),
                "kind split compares with the step's share: it has no limit",
            );
        }
        return Some(Rule::Split);
    }
    let Some(limit) = &body.limit else {
        c.refuse("E3017", body.metric.place, path, "required key limit is missing");
        return None;
    };
    let limit_path = field("limit");
    let margin = margin(c, &limit_path, limit, better)?;
    let wrong = |c: &mut Checker, message: &str| {
        c.refuse("E3024", limit.place, &limit_path, &format!("kind {} {message}", body.kind.text));
        None
    };
    match (kind, margin) {
        (RuleKind::Proportion, margin) => Some(Rule::Proportion { margin }),
        (RuleKind::Score, margin) => Some(Rule::Score { margin }),
        (RuleKind::Mean, Margin::Relative(handicap)) if handicap > 0.0 => Some(Rule::Mean { handicap }),
        (RuleKind::Mean, Margin::Relative(_)) => wrong(c, "needs a limit above 0%"),
        (RuleKind::Mean, _) => wrong(c, "has a relative limit, as in 20%"),
        (RuleKind::Quantile, Margin::Relative(handicap)) => {
            let q = needed(c, path, body, "q", &body.q)?;
            let place = body.q.as_ref()?.place;
            if !(0.01..=0.999).contains(&q) {
                c.refuse("E3024", place, &field("q"), &format!("must be 0.01 to 0.999, got {q}"));
                return None;
            }
            Some(Rule::Quantile { q, handicap })
        }
        (RuleKind::Quantile, _) => wrong(c, "has a relative limit, as in 10%"),
        (RuleKind::Paired, Margin::Points(points)) => Some(Rule::Paired { points }),
        (RuleKind::Paired, _) => wrong(c, "has a limit in points, as in 3pp"),
        (RuleKind::Count, Margin::Relative(by)) => {
            let ratio = if better == Better::Lower { 1.0 + by } else { 1.0 - by };
            Some(Rule::Count { ratio })
        }
        (RuleKind::Count, Margin::Ratio { ratio, plus: 0.0 }) => Some(Rule::Count { ratio }),
        (RuleKind::Count, _) => {
            wrong(c, "has a relative limit, as in 25%, for there is nothing to take points of")
        }
        (RuleKind::Missing, Margin::Points(points)) if points > 0.0 => {
            let MetricName(of) = needed(c, path, body, "of", &body.of)?;
            if body.metric.text == of {
                c.refuse(
                    "E3010",
                    body.of.as_ref()?.place,
                    &field("of"),
                    "no value of a metric is missing where it is there",
                );
                return None;
            }
            Some(Rule::Missing { of: Metric(of), points })
        }
        (RuleKind::Missing, _) => wrong(c, "has a limit above 0 in points, as in 2pp"),
        (RuleKind::Split | RuleKind::Absolute, _) => None,
    }
}

fn needed<T: Scalar>(
    c: &mut Checker,
    path: &str,
    body: &GuardrailBody,
    name: &str,
    node: &Option<Node<T>>,
) -> Option<T> {
    match node {
        Some(node) => c.get(&format!("{path}.{name}"), node),
        None => {
            c.refuse("E3017", body.metric.place, path, &format!("required key {name} is missing"));
            None
        }
    }
}

fn margin(c: &mut Checker, path: &str, limit: &At<Limit>, better: Better) -> Option<Margin> {
    let result = match &limit.value {
        Limit::Ratio { ratio, plus } => {
            let Some(ratio_node) = ratio else {
                c.refuse("E3017", limit.place, path, "required key ratio is missing");
                return None;
            };
            let ratio = c.get(&format!("{path}.ratio"), ratio_node)?;
            let Points(plus) = c.get_or(&format!("{path}.plus"), plus, Points(0.0))?;
            let (fits, rule) = match better {
                Better::Lower => {
                    ((1.0..=1.0 + RELATIVE_MAX).contains(&ratio), "1 to 10 where lower is better")
                }
                Better::Higher => {
                    (ratio > 0.0 && ratio <= 1.0, "above 0 and at most 1 where higher is better")
                }
            };
            if !fits {
                let message = format!("must be {rule}, got {ratio}");
                c.refuse("E3024", ratio_node.place, &format!("{path}.ratio"), &message);
                return None;
            }
            return Some(Margin::Ratio { ratio, plus });
        }
        Limit::Text(text) if text.ends_with("pp") => Points::parse(text).map(|Points(p)| Margin::Points(p)),
        Limit::Text(text) if text.ends_with('%') => Percent::parse(text).and_then(|Percent(share)| {
            let max = if better == Better::Higher { 1.0 } else { RELATIVE_MAX };
            if share < max || (share == max && better == Better::Lower) {
                return Ok(Margin::Relative(share));
            }
            let max = max * 100.0;
            Err(Unfit { code: "E3024", message: format!("must be below {max}%, got {}", shown(text)) })
        }),
        Limit::Text(text) => match f64::parse(text) {
            Err(unfit) if unfit.code == "E3001" => Err(unfit),
            _ => Unfit::new(format!(
                "needs its unit: 3pp (points), 10% (relative) or {{ratio: 1.5, plus: 0.1pp}}; got {}",
                shown(text)
            )),
        },
    };
    match result {
        Ok(margin) => Some(margin),
        Err(Unfit { code, message }) => {
            c.refuse(code, limit.place, path, &message);
            None
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
