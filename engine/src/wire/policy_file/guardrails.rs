//! What the values of a guardrail may be, alone and together.

use super::conditions::excuses;
use super::grammar::{GuardrailBody, Limit, Short, SlicesBody, Spec};
use super::scalars::{MetricName, TagValue};
use crate::core::event::code::Code;
use crate::core::evidence::kind::{Profile, Scope};
use crate::core::ids::Metric;
use crate::core::policy::guardrail::{
    Absolute, Better, Count, Guardrail, GuardrailKind, Judged, Margin, Mean, Missing, OnFail, Paired,
    Proportion, Quantile, Rule, SLICES_MAX, Score, Stop, Unless,
};
use crate::core::time::Span;
use crate::wire::error::{did_you_mean, shown};
use crate::wire::names::is_metric;
use crate::wire::yaml::{At, Checker, Node, Percent, Place, Points, Scalar, Unfit};

const GUARDRAILS_MAX: usize = 32;
/// Observations an absolute guardrail remembers.
const OF_LAST_MAX: u64 = 10_000;
/// A relative limit above this (the tenfold) limits nothing.
const RELATIVE_MAX: f64 = 9.0;
/// Values that arrive later than this are of no use to a rollout.
const MATURITY_MAX: Span = Span::hours(7 * 24);
/// Weights sum to 1 but for the rounding of decimals.
const WEIGHTS_ROUNDING: f64 = 1e-9;

pub fn guardrails(c: &mut Checker, spec: &Spec) -> Option<Vec<Guardrail>> {
    let At { value: bodies, place } = &spec.guardrails;
    let path = "spec.guardrails";
    if bodies.len() > GUARDRAILS_MAX {
        let message = format!("at most {GUARDRAILS_MAX} guardrails, got {}", bodies.len());
        c.refuse(Code::FileValue, *place, path, &message);
        return None;
    }
    let read: Vec<Option<Guardrail>> =
        bodies.iter().enumerate().map(|(i, body)| guardrail(c, &format!("{path}[{i}]"), body)).collect();
    let mut guardrails = read.into_iter().collect::<Option<Vec<_>>>()?;

    for (i, guardrail) in guardrails.iter().enumerate() {
        if guardrails[..i].iter().any(|earlier| earlier.name == guardrail.name) {
            let place = bodies[i].name.as_ref().unwrap_or(&bodies[i].metric).place;
            let message = format!("{} is there twice; give one of them another name", guardrail.name);
            c.refuse(Code::NamedTwice, place, &format!("{path}[{i}].name"), &message);
        }
    }
    if guardrails.iter().all(|guardrail| guardrail.on_fail == OnFail::Alert) {
        c.refuse(
            Code::NothingStops,
            *place,
            path,
            "at least one guardrail with on_fail rollback or hold is required",
        );
    }
    weights(c, bodies, &mut guardrails);
    trade_offs(c, bodies, &mut guardrails);
    excuses(c, spec, &mut guardrails);
    Some(guardrails)
}

/// Connects each trade-off with the guardrail that can show its benefit.
fn trade_offs(c: &mut Checker, bodies: &[GuardrailBody], guardrails: &mut [Guardrail]) {
    for (i, body) in bodies.iter().enumerate() {
        let Some(unless) = &body.unless else { continue };
        let path = format!("spec.guardrails[{i}].unless");
        let named = [
            unless.benefit.as_ref().map(|node| node.place),
            unless.by.as_ref().map(|node| node.place),
            unless.when.as_ref().map(|node| node.place),
        ];
        let Some(at) = named.into_iter().flatten().next() else {
            let message = "say which benefit excuses a failure, and by how much, or when it is excused";
            c.refuse(Code::FileValue, body.metric.place, &path, message);
            continue;
        };
        if matches!(named, [Some(_), _, Some(_)] | [_, Some(_), Some(_)]) {
            c.refuse(Code::Unreachable, at, &path, "either benefit and by, or when; not both");
            continue;
        }
        if guardrails[i].on_fail != OnFail::Rollback || guardrails[i].compares().is_none() {
            let message =
                "unless turns a rollback into a hold; this guardrail does not roll back by comparison";
            c.refuse(Code::FileValue, at, &path, message);
            continue;
        }
        if unless.when.is_some() {
            continue;
        }
        let (Some(shows), Some(least)) = (&unless.benefit, &unless.by) else {
            c.refuse(Code::FileValue, at, &path, "benefit and by belong together: which, and by how much");
            continue;
        };
        let by_place = least.place;
        let (Some(MetricName(benefit)), Some(Points(by))) =
            (c.get(&format!("{path}.benefit"), shows), c.get(&format!("{path}.by"), least))
        else {
            continue;
        };
        let can = |g: &Guardrail| g.profile().of_answers;
        let names = guardrails.iter().filter(|g| can(g)).map(|g| g.name.as_str());
        let Some(shows) = guardrails.iter().position(|g| g.name == benefit && can(g)) else {
            let near = did_you_mean(&benefit, names).map(|near| format!("; did you mean {near}?"));
            let message = format!(
                "no guardrail of kind proportion, score or paired is called {}{}",
                shown(&benefit),
                near.unwrap_or_default()
            );
            c.refuse(Code::MetricUnused, at, &format!("{path}.benefit"), &message);
            continue;
        };
        match guardrails[shows].benefit {
            Some(other) if other != by => {
                let message = format!(
                    "{benefit} is asked for a benefit of {} elsewhere: one per guardrail",
                    points(other)
                );
                c.refuse(Code::NamedTwice, by_place, &format!("{path}.by"), &message);
            }
            _ if shows == i => {
                c.refuse(Code::Unreachable, at, &path, "a guardrail that fails shows no benefit of its own");
            }
            _ => {
                guardrails[shows].benefit = Some(by);
                guardrails[i].unless = Some(Unless::Benefit { guardrail: benefit });
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
                c.refuse(Code::Weights, node.place, &format!("spec.guardrails[{i}].weight"), message);
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
        return c.refuse(Code::Weights, body.metric.place, &path, message);
    }
    let sum: f64 = sharing.iter().map(|(i, _)| guardrails[*i].weight).sum();
    if (sum - 1.0).abs() > WEIGHTS_ROUNDING {
        // Two decimals more than people write, so that what is shown is what they wrote.
        let sum = (sum * 1e6).round() / 1e6;
        let message = format!("the weights of guardrails that roll back must sum to 1, got {sum}");
        c.refuse(Code::Weights, *first, "spec.guardrails", &message);
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
            c.refuse(
                Code::FileKeyMissing,
                body.metric.place,
                path,
                "required key better is missing (higher or lower)",
            );
            None
        }
    };
    let (kind, better, on_fail) = (kind?, better?, on_fail?);
    let profile = kind.profile();
    let gates_default = on_fail == OnFail::Rollback && profile.shows_safety;
    let gates = c.get_or(&field("gates"), &body.gates, gates_default);
    let rule = rule(c, path, body, kind, better);

    if let (Some(node), Some(weight)) = (&body.weight, weight)
        && !(weight > 0.0 && weight <= 1.0)
    {
        let message = format!("must be above 0 and at most 1, got {weight}");
        c.refuse(Code::Weights, node.place, &field("weight"), &message);
    }
    if let (Some(node), Some(maturity)) = (&body.maturity, maturity)
        && maturity > MATURITY_MAX
    {
        let message = format!("must be at most {MATURITY_MAX}, got {maturity}");
        c.refuse(Code::FileValue, node.place, &field("maturity"), &message);
    }
    fits_kind(c, path, body, profile, (on_fail, gates == Some(true)));
    let slices = body.slices.as_ref().map(|At { value, place }| {
        if !profile.has_slices {
            let message = format!("kind {} is not told apart in slices", body.kind.text);
            c.refuse(Code::FileValue, *place, &field("slices"), &message);
        }
        slices(c, &field("slices"), value, *place)
    });
    let (slices, judged) = match slices {
        Some(slices) => slices.map(|(tag, judged)| (Some(tag), judged))?,
        None => (None, None),
    };
    let metric = Metric(metric?.0);
    let default_name = default_name(&metric, kind, rule.as_ref());
    let name = match name {
        Some(name) => name?.0,
        None if is_metric(&default_name) => default_name,
        None => {
            let message = format!("{default_name} is too long for a name; give the guardrail a name");
            c.refuse(Code::PolicyName, body.metric.place, path, &message);
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
        judged,
        unless: None,
        benefit: None,
    })
}

/// What some kinds cannot do.
fn fits_kind(
    c: &mut Checker,
    path: &str,
    body: &GuardrailBody,
    profile: &Profile,
    (on_fail, gates): (OnFail, bool),
) {
    let field = |name: &str| format!("{path}.{name}");
    let kind = &body.kind.text;
    if let Some(node) = body.maturity.as_ref().filter(|_| profile.healthy.is_none()) {
        let message = format!("kind {kind} looks at values as they come");
        c.refuse(Code::FileValue, node.place, &field("maturity"), &message);
    }
    if let Some(node) = body.gates.as_ref().filter(|_| gates && !profile.shows_safety) {
        let message = format!("kind {kind} shows no safety, so it cannot gate");
        c.refuse(Code::FileValue, node.place, &field("gates"), &message);
    }
    if on_fail == OnFail::Rollback && profile.of_comparison {
        let message = format!(
            "kind {kind} says that the comparison is not sound, not that the canary is worse: hold or alert"
        );
        c.refuse(Code::FileValue, body.on_fail.place, &field("on_fail"), &message);
    }
    if on_fail != OnFail::Rollback && profile.scope == Scope::Rollout {
        let message = format!("kind {kind} takes the canary back: on_fail is rollback");
        c.refuse(Code::FileValue, body.on_fail.place, &field("on_fail"), &message);
    }
}

/// What a guardrail is called that was given no name.
fn default_name(metric: &Metric, kind: GuardrailKind, rule: Option<&Rule>) -> String {
    match kind {
        GuardrailKind::Absolute => format!("{metric}.absolute"),
        GuardrailKind::Stop => format!("{metric}.stop"),
        GuardrailKind::Missing => format!("{metric}.missing"),
        GuardrailKind::Split => format!("{metric}.split"),
        GuardrailKind::Quantile => {
            let digits = rule.map_or(String::new(), quantile_digits);
            format!("{metric}.p{digits}")
        }
        GuardrailKind::Proportion
        | GuardrailKind::Score
        | GuardrailKind::Mean
        | GuardrailKind::Paired
        | GuardrailKind::Count => metric.0.clone(),
    }
}

fn slices(
    c: &mut Checker,
    path: &str,
    body: &Short<MetricName, SlicesBody>,
    place: Place,
) -> Option<(String, Option<Judged>)> {
    let body = match body {
        Short::Text(text, _) => match MetricName::parse(text) {
            Ok(MetricName(tag)) => return Some((tag, None)),
            Err(Unfit { code, message }) => {
                c.refuse(code, place, path, &message);
                return None;
            }
        },
        Short::Map(body) => body,
    };
    let tag = c.get(&format!("{path}.tag"), &body.tag);
    let on_fail = c.get(&format!("{path}.on_fail"), &body.on_fail)?;
    if on_fail == OnFail::Rollback {
        let message = "slices have no part in the error budget of rollbacks: hold or alert. What has to roll back by \
                       itself is sent as a metric of its own";
        c.refuse(Code::Unreachable, body.on_fail.place, &format!("{path}.on_fail"), message);
    }
    let At { value: nodes, place } = &body.values;
    let path = format!("{path}.values");
    if nodes.is_empty() || nodes.len() > SLICES_MAX {
        c.refuse(
            Code::FileValue,
            *place,
            &path,
            &format!("must name 1 to {SLICES_MAX}, got {}", nodes.len()),
        );
        return None;
    }
    let mut values = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let TagValue(value) = c.get(&path, node)?;
        if values.contains(&value) {
            c.refuse(Code::NamedTwice, node.place, &path, &format!("{value} is there twice"));
        }
        values.push(value);
    }
    Some((tag?.0, Some(Judged { values, on_fail })))
}

/// `95` of 0.95, `999` of 0.999.
fn quantile_digits(rule: &Rule) -> String {
    let Rule::Quantile(Quantile { q, .. }) = rule else { return String::new() };
    let text = format!("{q}");
    let digits = text.trim_start_matches("0.");
    if digits.len() == 1 { format!("{digits}0") } else { digits.to_owned() }
}

/// Kinds of which a little is nearly always good.
fn lower_by_default(kind: GuardrailKind) -> bool {
    match kind {
        GuardrailKind::Proportion
        | GuardrailKind::Score
        | GuardrailKind::Mean
        | GuardrailKind::Quantile
        | GuardrailKind::Paired => false,
        GuardrailKind::Count
        | GuardrailKind::Split
        | GuardrailKind::Missing
        | GuardrailKind::Absolute
        | GuardrailKind::Stop => true,
    }
}

fn rule(
    c: &mut Checker,
    path: &str,
    body: &GuardrailBody,
    kind: GuardrailKind,
    better: Better,
) -> Option<Rule> {
    let field = |name: &str| format!("{path}.{name}");
    for (name, place, belongs) in [
        ("above", body.above.as_ref().map(|n| n.place), GuardrailKind::Absolute),
        ("of_last", body.of_last.as_ref().map(|n| n.place), GuardrailKind::Absolute),
        ("q", body.q.as_ref().map(|n| n.place), GuardrailKind::Quantile),
        ("of", body.of.as_ref().map(|n| n.place), GuardrailKind::Missing),
        ("allowed", body.allowed.as_ref().map(|n| n.place), GuardrailKind::Stop),
    ] {
        if let Some(place) = place.filter(|_| kind != belongs) {
            c.refuse(Code::FileValue, place, &field(name), &format!("belongs to kind {}", belongs.name()));
        }
    }
    let instead = match kind {
        GuardrailKind::Absolute => Some("kind absolute has above and of_last, not limit"),
        GuardrailKind::Split => Some("kind split compares with the step's share: it has no limit"),
        GuardrailKind::Stop => Some("kind stop has allowed, not limit"),
        GuardrailKind::Proportion
        | GuardrailKind::Score
        | GuardrailKind::Mean
        | GuardrailKind::Quantile
        | GuardrailKind::Paired
        | GuardrailKind::Count
        | GuardrailKind::Missing => None,
    };
    if let (Some(instead), Some(limit)) = (instead, &body.limit) {
        c.refuse(Code::FileValue, limit.place, &field("limit"), instead);
    }
    match kind {
        GuardrailKind::Absolute => return absolute(c, path, body),
        GuardrailKind::Split => return Some(Rule::Split),
        GuardrailKind::Stop => return stop(c, path, body, better),
        _ => {}
    }
    let Some(limit) = &body.limit else {
        c.refuse(Code::FileKeyMissing, body.metric.place, path, "required key limit is missing");
        return None;
    };
    let limit_path = field("limit");
    let margin = margin(c, &limit_path, limit, better)?;
    let wrong = |c: &mut Checker, message: &str| {
        c.refuse(Code::Limit, limit.place, &limit_path, &format!("kind {} {message}", body.kind.text));
        None
    };
    match (kind, margin) {
        (GuardrailKind::Proportion, margin) => Some(Rule::Proportion(Proportion { margin })),
        (GuardrailKind::Score, margin) => Some(Rule::Score(Score { margin })),
        (GuardrailKind::Mean, Margin::Relative(handicap)) if handicap > 0.0 => {
            Some(Rule::Mean(Mean { handicap }))
        }
        (GuardrailKind::Mean, Margin::Relative(_)) => wrong(c, "needs a limit above 0%"),
        (GuardrailKind::Mean, _) => wrong(c, "has a relative limit, as in 20%"),
        (GuardrailKind::Quantile, Margin::Relative(handicap)) => {
            let q = needed(c, path, body, "q", &body.q)?;
            let place = body.q.as_ref()?.place;
            if !(0.01..=0.999).contains(&q) {
                c.refuse(Code::Limit, place, &field("q"), &format!("must be 0.01 to 0.999, got {q}"));
                return None;
            }
            Some(Rule::Quantile(Quantile { q, handicap }))
        }
        (GuardrailKind::Quantile, _) => wrong(c, "has a relative limit, as in 10%"),
        (GuardrailKind::Paired, Margin::Points(points)) => Some(Rule::Paired(Paired { points })),
        (GuardrailKind::Paired, _) => wrong(c, "has a limit in points, as in 3pp"),
        (GuardrailKind::Count, Margin::Relative(by)) => {
            let ratio = if better == Better::Lower { 1.0 + by } else { 1.0 - by };
            Some(Rule::Count(Count { ratio }))
        }
        (GuardrailKind::Count, Margin::Ratio { ratio, plus: 0.0 }) => Some(Rule::Count(Count { ratio })),
        (GuardrailKind::Count, _) => {
            wrong(c, "has a relative limit, as in 25%, for there is nothing to take points of")
        }
        (GuardrailKind::Missing, Margin::Points(points)) if points > 0.0 => {
            let MetricName(of) = needed(c, path, body, "of", &body.of)?;
            if body.metric.text == of {
                c.refuse(
                    Code::Unreachable,
                    body.of.as_ref()?.place,
                    &field("of"),
                    "no value of a metric is missing where it is there",
                );
                return None;
            }
            Some(Rule::Missing(Missing { of: Metric(of), points }))
        }
        (GuardrailKind::Missing, _) => wrong(c, "has a limit above 0 in points, as in 2pp"),
        (GuardrailKind::Split | GuardrailKind::Absolute | GuardrailKind::Stop, _) => None,
    }
}

fn absolute(c: &mut Checker, path: &str, body: &GuardrailBody) -> Option<Rule> {
    let field = |name: &str| format!("{path}.{name}");
    let above = needed(c, path, body, "above", &body.above);
    let of_last = needed(c, path, body, "of_last", &body.of_last);
    let (Percent(above), of_last) = (above?, of_last?);
    let (above_node, of_last_node) = (body.above.as_ref()?, body.of_last.as_ref()?);
    if !(1..=OF_LAST_MAX).contains(&of_last) {
        let message = format!("must be 1 to {OF_LAST_MAX}, got {of_last}");
        c.refuse(Code::Limit, of_last_node.place, &field("of_last"), &message);
        return None;
    }
    if above >= 1.0 {
        let message = format!(
            "{} can never trigger: more than all of the last {of_last} cannot be",
            shown(&above_node.text)
        );
        c.refuse(Code::Unreachable, above_node.place, &field("above"), &message);
        return None;
    }
    if above == 0.0 {
        c.refuse(Code::Limit, above_node.place, &field("above"), "must be above 0%");
        return None;
    }
    Some(Rule::Absolute(Absolute { above, of_last: of_last as u32 }))
}

/// What must not happen is taken back, whatever speaks for the canary.
fn stop(c: &mut Checker, path: &str, body: &GuardrailBody, better: Better) -> Option<Rule> {
    let field = |name: &str| format!("{path}.{name}");
    let allowed = c.get_or(&field("allowed"), &body.allowed, 0)?;
    if let Some(node) = body.better.as_ref().filter(|_| better == Better::Higher) {
        let message = "kind stop counts what must not happen: better is lower";
        c.refuse(Code::FileValue, node.place, &field("better"), message);
    }
    Some(Rule::Stop(Stop { allowed }))
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
            c.refuse(
                Code::FileKeyMissing,
                body.metric.place,
                path,
                &format!("required key {name} is missing"),
            );
            None
        }
    }
}

fn margin(c: &mut Checker, path: &str, limit: &At<Limit>, better: Better) -> Option<Margin> {
    let result = match &limit.value {
        Limit::Ratio { ratio, plus } => {
            let Some(ratio_node) = ratio else {
                c.refuse(Code::FileKeyMissing, limit.place, path, "required key ratio is missing");
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
                c.refuse(Code::Limit, ratio_node.place, &format!("{path}.ratio"), &message);
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
            Err(Unfit { code: Code::Limit, message: format!("must be below {max}%, got {}", shown(text)) })
        }),
        Limit::Text(text) => match f64::parse(text) {
            Err(unfit) if unfit.code == Code::FileNotFinite => Err(unfit),
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
