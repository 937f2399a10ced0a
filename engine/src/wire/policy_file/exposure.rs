//! Who is exposed, in which order: every way comes to a list of steps.

use std::collections::{BTreeMap, BTreeSet};

use super::grammar::{
    AbBody, BlueGreenBody, CohortBody, Exposure, ParallelBody, RegionBody, ShadowBody, Spec, StepBody,
    TaskBody, WhereBody,
};
use super::scalars::{Exposed, Label, MetricName, Words};
use crate::core::event::code::Code;
use crate::core::ids::{Metric, Weight};
use crate::core::policy::Step;
use crate::core::policy::guardrail::Guardrail;
use crate::core::policy::segment::{OnSegmentFailure, Segment, SegmentKind, Segments, Task, Test};
use crate::core::time::Span;
use crate::wire::error::{did_you_mean, shown};
use crate::wire::yaml::{At, Checker, Node, Place};

const STEPS_MAX: usize = 50;
const SEGMENTS_MAX: usize = 16;
const VALUES_MAX: usize = 1_000;
/// The baseline keeps at least 5 % of traffic while anything is to be compared.
const HOLDBACK: Weight = Weight(9_500);
const WAYS: &str = "percent, cohorts, regions, ab, parallel, blue_green";

/// A checked exposure.
pub struct Checked {
    pub steps: Vec<Step>,
    pub segments: Option<Segments>,
    pub soak: Span,
}

/// What the checks of one policy share.
struct Context<'a> {
    /// Metrics that guardrails use; empty where there was something wrong with them, and then nothing is held against
    /// them.
    metrics: BTreeSet<&'a str>,
}

pub fn exposure(c: &mut Checker, spec: &Spec, guardrails: &mut [Guardrail]) -> Option<Checked> {
    let At { value: body, place } = &spec.exposure;
    let named = guardrails.iter().map(|guardrail| guardrail.metric.0.clone()).collect::<Vec<_>>();
    let context = Context { metrics: named.iter().map(String::as_str).collect() };
    only_one(c, body, *place)?;
    let soak = c.get_or("spec.exposure.soak", &body.soak, Span::ZERO);
    let within = body.apply_within.as_ref().map(|node| c.get("spec.exposure.apply_within", node));
    let mut segments = None;
    let (mut steps, soak) = if let Some(At { value, place }) = &body.percent {
        (context.steps(c, "spec.exposure.percent", value, *place, true), soak)
    } else if let Some(list) = &body.cohorts {
        (context.cohorts(c, list, &mut segments), soak)
    } else if let Some(list) = &body.regions {
        let on_failure =
            c.get_or("spec.exposure.on_region_failure", &body.on_region_failure, OnSegmentFailure::All);
        (context.regions(c, list, on_failure?, &mut segments), soak)
    } else if let Some(At { value, .. }) = &body.ab {
        (context.ab(c, value, spec, guardrails), soak)
    } else if let Some(At { value, .. }) = &body.parallel {
        (context.parallel(c, value), kept(c, "spec.exposure.parallel.keep", &value.keep, body))
    } else if let Some(At { value, .. }) = &body.blue_green {
        (context.blue_green(c, value), kept(c, "spec.exposure.blue_green.keep", &value.keep, body))
    } else {
        return None;
    };
    if let Some(within) = within {
        let within = within?;
        for step in steps.iter_mut().flatten().filter(|step| step.apply_within.is_none()) {
            step.apply_within = Some(within);
        }
    }
    Some(Checked { steps: steps?, segments, soak: soak? })
}

/// Of several ways, or none, nobody could say what is meant.
fn only_one(c: &mut Checker, body: &Exposure, place: Place) -> Option<()> {
    let given = [
        ("percent", body.percent.as_ref().map(|at| at.place)),
        ("cohorts", body.cohorts.as_ref().map(|at| at.place)),
        ("regions", body.regions.as_ref().map(|at| at.place)),
        ("ab", body.ab.as_ref().map(|at| at.place)),
        ("parallel", body.parallel.as_ref().map(|at| at.place)),
        ("blue_green", body.blue_green.as_ref().map(|at| at.place)),
    ];
    let given: Vec<(&str, Place)> =
        given.into_iter().filter_map(|(name, place)| Some((name, place?))).collect();
    if let Some(node) = body.on_region_failure.as_ref().filter(|_| body.regions.is_none()) {
        c.refuse(Code::FileValue, node.place, "spec.exposure.on_region_failure", "belongs to regions");
    }
    match given.as_slice() {
        [_] => Some(()),
        [] => {
            c.refuse(Code::FileKeyMissing, place, "spec.exposure", &format!("one of {WAYS} is required"));
            None
        }
        [_, (name, place), ..] => {
            let message = format!("one of {WAYS} is enough; {} is there as well", given[0].0);
            c.refuse(Code::FileValue, *place, &format!("spec.exposure.{name}"), &message);
            None
        }
    }
}

/// How long the old one is kept is how long the new one is watched at 100 %.
fn kept(c: &mut Checker, path: &str, keep: &Option<Node<Span>>, body: &Exposure) -> Option<Span> {
    if let Some(node) = &body.soak {
        c.refuse(
            Code::FileValue,
            node.place,
            "spec.exposure.soak",
            &format!("here it is called {}", &path[14..]),
        );
    }
    c.get_or(path, keep, Span::ZERO)
}

impl Context<'_> {
    /// `last`: nothing follows, so the last of them is everybody.
    fn steps(
        &self,
        c: &mut Checker,
        path: &str,
        bodies: &[StepBody],
        place: Place,
        last: bool,
    ) -> Option<Vec<Step>> {
        if bodies.is_empty() || bodies.len() > STEPS_MAX {
            let message = format!("must have 1 to {STEPS_MAX} steps, got {}", bodies.len());
            c.refuse(Code::Exposure, place, path, &message);
            return None;
        }
        let mut before = Weight::ZERO;
        let mut steps = Vec::new();
        let mut sound = true;
        for (i, body) in bodies.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let Some(step) = step(c, &path, body, &self.metrics, last && i + 1 == bodies.len()) else {
                sound = false;
                continue;
            };
            if step.to <= before {
                let message = format!("{} does not rise above the step before it, {before}", step.to);
                c.refuse(Code::Exposure, body.to.place, &format!("{path}.to"), &message);
            }
            if step.to > HOLDBACK && step.to < Weight::FULL {
                let message = format!(
                    "{} leaves the baseline less than 5%, too little to compare with; end at 95% or below before 100%",
                    step.to
                );
                c.refuse(Code::Exposure, body.to.place, &format!("{path}.to"), &message);
            }
            if !last && i == 0 && step.to == Weight::FULL {
                let message = "100% at once leaves nothing to compare with; begin at 95% or below";
                c.refuse(Code::Exposure, body.to.place, &format!("{path}.to"), message);
            }
            before = step.to;
            steps.push(step);
        }
        sound.then_some(steps)
    }

    fn cohorts(
        &self,
        c: &mut Checker,
        list: &At<Vec<CohortBody>>,
        segments: &mut Option<Segments>,
    ) -> Option<Vec<Step>> {
        let path = "spec.exposure.cohorts";
        let named: Vec<_> = list.value.iter().map(|body| (&body.name, &body.steps)).collect();
        let (names, steps) = self.segments(c, path, list.place, &named)?;
        let (last, others) = list.value.split_last()?;
        if let Some(At { place, .. }) = &last.r#where {
            let path = format!("{path}[{}].where", others.len());
            c.refuse(Code::FileValue, *place, &path, "the last cohort is everybody else; leave where out");
        }
        let mut named = Vec::new();
        for (i, (body, name)) in others.iter().zip(&names).enumerate() {
            let path = format!("{path}[{i}]");
            match &body.r#where {
                Some(At { value, place }) => named.extend(membership(c, &path, name, value, *place)),
                None => {
                    let message = "required key where is missing; only the last cohort is everybody else";
                    c.refuse(Code::FileKeyMissing, body.name.place, &path, message);
                }
            }
        }
        let rest = names.last()?.clone();
        *segments =
            Some(Segments { kind: SegmentKind::Cohort, named, rest, on_failure: OnSegmentFailure::All });
        Some(steps)
    }

    fn regions(
        &self,
        c: &mut Checker,
        list: &At<Vec<RegionBody>>,
        on_failure: OnSegmentFailure,
        segments: &mut Option<Segments>,
    ) -> Option<Vec<Step>> {
        let named: Vec<_> = list.value.iter().map(|body| (&body.name, &body.steps)).collect();
        let (names, steps) = self.segments(c, "spec.exposure.regions", list.place, &named)?;
        let (rest, names) = names.split_last()?;
        let segment = |name: &String| Segment {
            name: name.clone(),
            attribute: SegmentKind::Region.as_str().into(),
            test: Test::In(vec![name.clone()]),
        };
        let (kind, named) = (SegmentKind::Region, names.iter().map(segment).collect());
        *segments = Some(Segments { kind, named, rest: rest.clone(), on_failure });
        Some(steps)
    }

    /// The steps of segments, one segment after another, the last everybody else; and their names.
    fn segments(
        &self,
        c: &mut Checker,
        path: &str,
        place: Place,
        bodies: &[(&Node<Label>, &At<Vec<StepBody>>)],
    ) -> Option<(Vec<String>, Vec<Step>)> {
        if !(2..=SEGMENTS_MAX).contains(&bodies.len()) {
            let message =
                format!("must have 2 to {SEGMENTS_MAX}, got {}; for one, use percent", bodies.len());
            c.refuse(Code::Exposure, place, path, &message);
            return None;
        }
        let (mut names, mut steps): (Vec<String>, Vec<Step>) = (Vec::new(), Vec::new());
        let mut sound = true;
        for (i, (name, At { value, place })) in bodies.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let last = i + 1 == bodies.len();
            let label = c.get(&format!("{path}.name"), name).map(|Label(name)| name);
            if let Some(label) = label {
                if names.contains(&label) {
                    c.refuse(
                        Code::NamedTwice,
                        name.place,
                        &format!("{path}.name"),
                        &format!("{label} is there twice"),
                    );
                }
                names.push(label);
            }
            match self.steps(c, &format!("{path}.steps"), value, *place, last) {
                Some(own) => {
                    let segment = (!last).then_some(i as u16);
                    steps.extend(own.into_iter().map(|step| Step { segment, ..step }));
                }
                None => sound = false,
            }
        }
        if steps.len() > STEPS_MAX {
            let message = format!("must have at most {STEPS_MAX} steps together, got {}", steps.len());
            c.refuse(Code::Exposure, place, path, &message);
        }
        (sound && names.len() == bodies.len()).then_some((names, steps))
    }

    /// One split until the horizon, then all or nothing.
    fn ab(
        &self,
        c: &mut Checker,
        body: &AbBody,
        spec: &Spec,
        guardrails: &mut [Guardrail],
    ) -> Option<Vec<Step>> {
        let path = "spec.exposure.ab";
        let split = c.get(&format!("{path}.split"), &body.split);
        let horizon = c.get(&format!("{path}.horizon"), &body.horizon);
        let primary = c.get(&format!("{path}.primary"), &body.primary);
        let min_samples = min_samples(c, path, &body.min_samples, &self.metrics);
        let (Exposed(split), horizon, MetricName(primary)) = (split?, horizon?, primary?);
        if split > HOLDBACK {
            let message = format!("{split} leaves the old version less than 5%, too little to compare with");
            c.refuse(Code::Exposure, body.split.place, &format!("{path}.split"), &message);
        }
        if horizon == Span::ZERO {
            c.refuse(Code::FileValue, body.horizon.place, &format!("{path}.horizon"), "must be above 0s");
        }
        let shows = |g: &Guardrail| g.name == primary && g.shows_safety();
        if !guardrails.is_empty() && !guardrails.iter().any(shows) {
            let names = guardrails.iter().filter(|g| g.shows_safety()).map(|g| g.name.as_str());
            let near = did_you_mean(&primary, names).map(|near| format!("; did you mean {near}?"));
            let message = format!(
                "no guardrail that can show safety is called {}{}",
                shown(&primary),
                near.unwrap_or_default()
            );
            c.refuse(Code::MetricUnused, body.primary.place, &format!("{path}.primary"), &message);
        }
        // The others need not have failed; where more is wanted the policy says so.
        for (guardrail, given) in guardrails.iter_mut().zip(&spec.guardrails.value) {
            match &given.gates {
                _ if guardrail.name == primary => guardrail.gates = true,
                None => guardrail.gates = false,
                Some(_) => {}
            }
        }
        let first = Step { min_samples, deadline: Some(horizon), ..Step::plain(split, horizon) };
        Some(vec![first, Step::plain(Weight::FULL, Span::ZERO)])
    }

    /// Fill the new one, compare it in the shadow, then shift.
    fn parallel(&self, c: &mut Checker, body: &ParallelBody) -> Option<Vec<Step>> {
        let path = "spec.exposure.parallel";
        let mut steps = vec![task(c, &format!("{path}.populate"), &body.populate, Task::Populate)?];
        if let Some(At { value, .. }) = &body.shadow {
            steps.push(self.shadow(c, &format!("{path}.shadow"), value)?);
        }
        let At { value, place } = &body.percent;
        steps.extend(self.steps(c, &format!("{path}.percent"), value, *place, true)?);
        Some(steps)
    }

    fn shadow(&self, c: &mut Checker, path: &str, body: &ShadowBody) -> Option<Step> {
        let bake = c.get(&format!("{path}.bake"), &body.bake)?;
        let deadline = body.deadline.as_ref().map(|node| c.get(&format!("{path}.deadline"), node));
        let min_samples = min_samples(c, path, &body.min_samples, &self.metrics);
        if let (Some(Some(deadline)), Some(node)) = (deadline, &body.deadline)
            && deadline <= bake
        {
            let message = format!("{deadline} is not after bake, {bake}: the step could never be promoted");
            c.refuse(Code::Unreachable, node.place, &format!("{path}.deadline"), &message);
        }
        let deadline = deadline.map_or(Some(None), |deadline| deadline.map(Some))?;
        Some(Step { task: Some(Task::Shadow), min_samples, deadline, ..Step::plain(Weight::ZERO, bake) })
    }

    /// Start the new stack, send it canary traffic, then all.
    fn blue_green(&self, c: &mut Checker, body: &BlueGreenBody) -> Option<Vec<Step>> {
        let path = "spec.exposure.blue_green";
        let start = task(c, &format!("{path}.start"), &body.start, Task::Start)?;
        let canary = step(c, &format!("{path}.canary"), &body.canary, &self.metrics, false)?;
        if canary.to > HOLDBACK {
            let message =
                format!("{} leaves the old stack less than 5%, too little to compare with", canary.to);
            c.refuse(Code::Exposure, body.canary.to.place, &format!("{path}.canary.to"), &message);
        }
        Some(vec![start, canary, Step::plain(Weight::FULL, Span::ZERO)])
    }
}

fn task(c: &mut Checker, path: &str, body: &TaskBody, task: Task) -> Option<Step> {
    let within = body.within.as_ref().map(|node| c.get(&format!("{path}.within"), node));
    let apply_within = within.map_or(Some(None), |within| within.map(Some))?;
    Some(Step { task: Some(task), apply_within, ..Step::plain(Weight::ZERO, Span::ZERO) })
}

fn membership(c: &mut Checker, path: &str, name: &str, body: &WhereBody, place: Place) -> Option<Segment> {
    let path = format!("{path}.where");
    let Words(attribute) = c.get(&format!("{path}.attribute"), &body.attribute)?;
    let text = |c: &mut Checker, key: &str, node: &Option<Node<Words>>| {
        node.as_ref().map(|node| c.get(&format!("{path}.{key}"), node).map(|Words(text)| text))
    };
    let starts = text(c, "starts_with", &body.starts_with);
    let ends = text(c, "ends_with", &body.ends_with);
    let test = match (&body.r#in, starts, ends) {
        (Some(values), None, None) => {
            if values.is_empty() || values.len() > VALUES_MAX {
                let message = format!("must have 1 to {VALUES_MAX} values, got {}", values.len());
                c.refuse(Code::FileValue, place, &format!("{path}.in"), &message);
                return None;
            }
            let read = values.iter().enumerate().map(|(i, node)| c.get(&format!("{path}.in[{i}]"), node));
            let read: Vec<Option<Words>> = read.collect();
            Test::In(read.into_iter().map(|value| value.map(|Words(text)| text)).collect::<Option<_>>()?)
        }
        (None, Some(text), None) => Test::StartsWith(text?),
        (None, None, Some(text)) => Test::EndsWith(text?),
        _ => {
            c.refuse(Code::FileValue, place, &path, "must have one of in, starts_with and ends_with");
            return None;
        }
    };
    Some(Segment { name: name.to_owned(), attribute, test })
}

fn min_samples(
    c: &mut Checker,
    path: &str,
    bodies: &BTreeMap<String, Node<u64>>,
    metrics: &BTreeSet<&str>,
) -> BTreeMap<Metric, u64> {
    let mut found = BTreeMap::new();
    for (metric, node) in bodies {
        let path = format!("{path}.min_samples.{}", shown(metric));
        match c.get(&path, node) {
            Some(0) => c.refuse(Code::NoSamples, node.place, &path, "must be 1 or more"),
            Some(n) if metrics.is_empty() || metrics.contains(metric.as_str()) => {
                found.insert(Metric(metric.clone()), n);
            }
            Some(_) => {
                let message = match did_you_mean(metric, metrics.iter().copied()) {
                    Some(near) => format!("no guardrail uses {}; did you mean {near}?", shown(metric)),
                    None => format!("no guardrail uses {}", shown(metric)),
                };
                c.refuse(Code::MetricUnused, node.place, &path, &message);
            }
            None => {}
        }
    }
    found
}

fn step(c: &mut Checker, path: &str, body: &StepBody, metrics: &BTreeSet<&str>, last: bool) -> Option<Step> {
    let to_path = format!("{path}.to");
    let to = c.get(&to_path, &body.to).map(|Exposed(to)| to);
    let bake_path = format!("{path}.bake");
    let bake = c.get_or(&bake_path, &body.bake, Span::ZERO);
    let deadline_path = format!("{path}.deadline");
    let deadline = body.deadline.as_ref().map(|node| c.get(&deadline_path, node));

    let min_samples = min_samples(c, path, &body.min_samples, metrics);

    match to {
        Some(Weight::FULL) if last => {
            let given = [&body.bake, &body.deadline].into_iter().flatten().map(|node| node.place);
            let given = given.chain(body.min_samples.values().map(|node| node.place)).next();
            if let Some(place) = given {
                let message = "nothing follows the step to 100%; how long it is watched is exposure.soak";
                c.refuse(Code::Exposure, place, path, message);
            }
        }
        Some(to) if last => {
            c.refuse(
                Code::Exposure,
                body.to.place,
                &to_path,
                &format!("the last step must reach 100%, got {to}"),
            );
        }
        Some(_) if body.bake.is_none() => {
            c.refuse(Code::FileKeyMissing, body.to.place, path, "required key bake is missing");
        }
        _ => {}
    }
    if let (Some(bake), Some(Some(deadline)), Some(node)) = (bake, deadline, &body.deadline)
        && deadline <= bake
    {
        let message = format!("{deadline} is not after bake, {bake}: the step could never be promoted");
        c.refuse(Code::Unreachable, node.place, &deadline_path, &message);
    }
    Some(Step {
        min_samples,
        deadline: deadline.map_or(Some(None), |d| d.map(Some))?,
        ..Step::plain(to?, bake?)
    })
}
