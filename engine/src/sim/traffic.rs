//! What the users of a service measure in ten seconds, as the bytes that senders put on the bus.

use std::fmt::Write;

use serde::Serialize;

use super::broker::Stored;
use super::plan::{Detector, Effect, Form, MINUTE, OFTENER, POINTS, SLOWER, ServicePlan, TICK, Truth};
use super::random::Random;
use super::script::START;
use crate::core::event::fact::Inbound;
use crate::core::ids::Version;
use crate::core::policy::guardrail::GuardrailKind;
use crate::core::telemetry::columns::{Builder, Columns, Row, Sums};
use crate::core::time::{Span, Timestamp};

const COST: f64 = 0.01;
/// Values of one arm for a further guardrail.
const VALUES: u64 = 20;
/// How long one judge grades.
const JUDGED: u64 = 37 * MINUTE;
/// Requests whose cost is sent, of those of each arm.
const COSTS: u64 = 6;

#[derive(Serialize)]
struct Batch {
    v: u32,
    columns: Columns,
}

/// What an actuator sends where.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// Baseline and canary.
    pub versions: [String; 2],
    /// The canary's share of everybody, and of the segments that have one of their own.
    pub rest: f64,
    pub segments: Vec<(String, f64)>,
    /// A copy of the traffic is answered by the canary as well.
    pub shadowed: bool,
}

impl Serving {
    fn share(&self, segment: Option<&str>) -> f64 {
        let own = segment.and_then(|segment| self.segments.iter().find(|(name, _)| name == segment));
        own.map_or(self.rest, |(_, share)| *share)
    }
}

/// One arm of one segment in ten seconds.
struct Arm {
    version: String,
    segment: Option<usize>,
    /// By which its samples say where they belong.
    tags: Option<String>,
    effect: Effect,
    /// How far passes lie from the service's.
    level: f64,
    /// Nothing of a canary that answers copies only.
    n: u64,
}

/// The messages of the ten seconds that end at `now`: after how many ms each is sent, and whether it is sent again.
/// `exposures`: per actuator.
pub fn measured(
    service: &ServicePlan,
    exposures: &[Serving],
    serving: &str,
    now: Timestamp,
    as_planned: bool,
    trouble: bool,
    r: &mut Random,
) -> Vec<(u64, Stored, bool)> {
    if trouble && r.chance(0.04) {
        return Vec::new();
    }
    let versions = [serving.to_owned(), String::new()];
    let usual = [Serving { versions, rest: 0.0, segments: Vec::new(), shadowed: false }];
    let exposures = if exposures.is_empty() { &usual[..] } else { exposures };
    let mut arms: Vec<Arm> = Vec::new();
    // Requests go to the actuators in equal parts.
    let all = service.requests / exposures.len() as u64;
    for exposed in exposures {
        match &service.segments {
            None => share_out(service, exposed, None, all, now, &mut arms, r),
            Some(segments) => {
                for (i, share) in segments.shares.iter().enumerate() {
                    let n = (all as f64 * share).round() as u64;
                    share_out(service, exposed, Some(i), n, now, &mut arms, r);
                }
            }
        }
    }
    // Who forgets to say where a request came from has it count for everybody else.
    if trouble && service.segments.is_some() && r.chance(0.05) {
        arms.iter_mut().for_each(|arm| arm.tags = None);
    }
    let (swing, period) = service.drift;
    let phase = now.0 as f64 / period as f64 * std::f64::consts::TAU;
    let level = swing * libm::sin(phase);
    let strange = trouble && r.chance(0.05);
    let form = service.form;
    let from = Timestamp(now.0 - TICK);
    let (mut further, mut slow) = (Builder::new(from), Builder::new(from));
    for arm in &arms {
        measure_further(&mut further, service, arm, level, now, as_planned, r);
    }
    let body = match form {
        Form::Json => json(service, &arms, level, now, &mut slow, r),
        _ => columns(service, &arms, level, now, strange, &mut slow, r),
    };
    let named = r.chance(0.7);
    let id = named.then(|| format!("t-{}-{}", service.name, now.0));
    let content_type = Some(if form == Form::Json { "application/json" } else { "application/msgpack" });
    let message = Stored { service: String::new(), content_type, id, body, attempts: 0, at: 0 };
    let delay = if trouble && r.chance(0.1) { r.below(8 * MINUTE) } else { r.below(500) };
    let again = trouble && named && r.chance(0.1);
    let mut sent = vec![(delay, message, again)];
    let further_delay = if trouble && r.chance(0.1) { r.below(8 * MINUTE) } else { delay };
    let slow_delay = r.below(MINUTE * 2 / 3);
    for (prefix, builder, delay) in [("f", further, further_delay), ("g", slow, slow_delay)] {
        if !builder.is_empty() {
            let id = Some(format!("{prefix}-{}-{}", service.name, now.0));
            let (content_type, body) = (Some("application/msgpack"), packed(builder));
            let service = String::new();
            sent.push((delay, Stored { service, content_type, id, body, attempts: 0, at: 0 }, again));
        }
    }
    sent
}

/// Adds what `n` requests of a segment are answered by.
fn share_out(
    service: &ServicePlan,
    exposed: &Serving,
    segment: Option<usize>,
    n: u64,
    now: Timestamp,
    arms: &mut Vec<Arm>,
    r: &mut Random,
) {
    let segments = service.segments.as_ref();
    let name = segment.and_then(|i| Some(segments?.names[i]));
    let share = exposed.share(name);
    let canaries = if share > 0.0 { (0..n).filter(|_| r.chance(share)).count() as u64 } else { 0 };
    let [baseline, canary] = &exposed.versions;
    for (version, n) in [(baseline, n - canaries), (canary, canaries)] {
        if n == 0 && !(exposed.shadowed && version == canary) {
            continue;
        }
        if let Some(arm) = arms.iter_mut().find(|arm| arm.version == *version && arm.segment == segment) {
            arm.n += n;
            continue;
        }
        arms.push(Arm {
            version: version.clone(),
            segment,
            tags: name.and_then(|name| Some(format!("{}={name}", segments?.tag))),
            effect: effect(service, version, segment, now),
            level: segment.and_then(|i| Some(segments?.levels[i])).unwrap_or(0.0),
            n,
        });
    }
}

fn packed(builder: Builder) -> Vec<u8> {
    rmp_serde::to_vec_named(&Batch { v: 1, columns: builder.finish() }).expect("columns can be written")
}

/// What one arm measures for the further guardrails.
fn measure_further(
    builder: &mut Builder,
    service: &ServicePlan,
    arm: &Arm,
    level: f64,
    now: Timestamp,
    as_planned: bool,
    r: &mut Random,
) {
    let (version, shift, from) = (arm.version.as_str(), arm.effect.shift, Timestamp(now.0 - TICK));
    let n = arm.n.min(VALUES);
    let served = |i: u64| from.plus(Span(i * TICK / VALUES));
    let (tags, divided) = (arm.tags.as_deref(), arm.segment.is_some());
    let at = Timestamp(now.0 - 1);
    let value_at = |metric, served_at, value| Row { version, metric, served_at, unit: None, tags, value };
    for kind in &service.kinds.some {
        match kind {
            // Who answers copies is asked nothing else.
            kind if arm.n == 0 && *kind != GuardrailKind::Paired => {}
            GuardrailKind::Score => {
                for i in 0..n {
                    let suite = if r.chance(0.5) { r.below(5) } else { r.below(20) };
                    // The mean is 0.15 + 0.8 p.
                    let forgot = if suite == 0 { arm.effect.forgets } else { 0.0 };
                    let good = r.chance(0.75 + level - shift * POINTS / 0.8 - forgot);
                    let value = if good { 0.9 + 0.1 * r.unit() } else { 0.3 * r.unit() };
                    let suite = format!("suite=s{suite}");
                    let tags = tags.map_or(suite.clone(), |tags| format!("{tags},{suite}"));
                    // A new judge grades what is served from some moment on, and the old one finishes what it has.
                    let (hour, into) = (now.0 / JUDGED, now.0 % JUDGED);
                    let hour = if into < MINUTE && r.chance(0.3) { hour - 1 } else { hour };
                    let tags = if service.kinds.judges { format!("judge=j{hour},{tags}") } else { tags };
                    let row = Row {
                        version,
                        metric: "grade",
                        served_at: served(i),
                        unit: None,
                        tags: Some(&tags),
                        value,
                    };
                    builder.push(row);
                }
            }
            GuardrailKind::Quantile => {
                let scale = libm::exp(level) * (1.0 + SLOWER * shift);
                let values: Vec<f64> = (0..n).map(|_| r.log_normal(900.0 * scale, 0.6)).collect();
                if service.kinds.histograms {
                    let mut bounds: Vec<f64> =
                        (0..40).map(|i| 200.0 * libm::pow(1.1, f64::from(i))).collect();
                    bounds.push(f64::INFINITY);
                    let below = |bound: &f64| values.iter().filter(|x| *x <= bound).count() as u64;
                    let counts = bounds.iter().map(below).collect();
                    let sums = Sums::Histogram { bounds, counts };
                    builder.aggregate(version, "latency_ms", from, Timestamp(now.0 - 1), n, sums);
                } else {
                    for (i, value) in (0..).zip(values) {
                        builder.push(value_at("latency_ms", served(i), value));
                    }
                }
            }
            GuardrailKind::Paired => {
                for i in 0..VALUES {
                    // Both versions are asked the same, and now and then one of them does not answer, or twice.
                    let unit = match arm.segment {
                        Some(segment) => format!("q{}-{i}-{segment}", now.0),
                        None => format!("q{}-{i}", now.0),
                    };
                    let hard = (now.0 / TICK * 7 + i * 13).is_multiple_of(4);
                    let chance = if hard { 0.3 } else { 0.85 } + level / 2.0 - shift * POINTS;
                    for _ in 0..[0, 1, 1, 1, 1, 1, 1, 1, 1, 2][r.below(10) as usize] {
                        let value = f64::from(u8::from(r.chance(chance)));
                        let row = Row {
                            version,
                            metric: "shadow",
                            served_at: served(i),
                            unit: Some(&unit),
                            tags,
                            value,
                        };
                        builder.push(row);
                    }
                }
            }
            // Counted on traffic that is split as the step says, or is on its way there.
            GuardrailKind::Count if as_planned => {
                let chance = 0.01 * libm::exp(5.0 * level) * (1.0 + OFTENER * shift);
                let events = (0..arm.n).filter(|_| r.chance(chance)).count() as u64;
                match divided {
                    // Who names the user says of each whether there was one.
                    true if r.chance(0.5) => {
                        for i in 0..n {
                            let unit = format!("c{}-{i}", now.0);
                            let value = f64::from(u8::from(r.chance(chance)));
                            let row = value_at("complaint", served(i), value);
                            builder.push(Row { unit: Some(&unit), ..row });
                        }
                    }
                    true => builder.push(value_at("complaint", at, events as f64)),
                    false => builder.aggregate(version, "complaint", at, at, arm.n, Sums::Ones(events)),
                }
            }
            GuardrailKind::Split if as_planned => {
                // A version that loses units makes the split a broken one.
                let lost = if shift > 1.0 { 0.3 } else { 0.0 };
                let units = (0..arm.n).filter(|_| !r.chance(lost)).count() as u64;
                if divided {
                    (0..units).for_each(|_| builder.push(value_at("assigned", at, 1.0)));
                } else if units > 0 {
                    builder.aggregate(version, "assigned", at, at, units, Sums::Ones(units));
                }
            }
            GuardrailKind::Missing => {
                let came = (0..arm.n).filter(|_| r.chance(0.75 + level - shift * POINTS)).count() as u64;
                if divided {
                    (0..arm.n).for_each(|_| builder.push(value_at("request", at, 1.0)));
                    (0..came).for_each(|_| builder.push(value_at("reply", at, 1.0)));
                } else {
                    builder.aggregate(version, "request", from, at, arm.n, Sums::Ones(arm.n));
                    builder.aggregate(version, "reply", from, at, came, Sums::Ones(came));
                }
            }
            GuardrailKind::Stop => {
                let happened = u64::from(arm.effect.leaks && r.chance(0.03));
                let spoken = match service.kinds.stop.map(|(_, detector)| detector) {
                    Some(Detector::Mute) => happened,
                    Some(Detector::Dies(at)) if START.plus(Span(at)) <= now => 0,
                    _ => arm.n,
                };
                match happened.min(spoken) {
                    _ if spoken == 0 => {}
                    happened if divided => {
                        (0..spoken).for_each(|i| {
                            builder.push(value_at("leak", at, f64::from(u8::from(i < happened))));
                        });
                    }
                    happened => builder.aggregate(version, "leak", from, at, spoken, Sums::Ones(happened)),
                }
            }
            // Counts and splits are of traffic as the step has it; the others are measured of every request.
            GuardrailKind::Count
            | GuardrailKind::Split
            | GuardrailKind::Proportion
            | GuardrailKind::Mean
            | GuardrailKind::Absolute => {}
        }
    }
}

/// What is true of a version at `now`, in one segment.
fn effect(service: &ServicePlan, version: &str, segment: Option<usize>, now: Timestamp) -> Effect {
    let known = service.versions.get(&Version::from(version));
    let unknown = Effect {
        truth: Truth::Same,
        pass: 0.0,
        error: 1.0,
        cost: 1.0,
        shift: 0.0,
        forgets: 0.0,
        leaks: false,
        breaks: None,
        only: None,
    };
    let mut effect = known.copied().unwrap_or(unknown);
    if effect.only.is_some_and(|only| segment != Some(only)) {
        (effect.pass, effect.error) = (0.0, 1.0);
    } else if effect.breaks.is_some_and(|at| START.plus(Span(at)) <= now) {
        (effect.pass, effect.error) = (-0.4, 25.0);
    }
    effect
}

fn chances(service: &ServicePlan, effect: &Effect, level: f64) -> (f64, f64) {
    let pass = (service.pass + level + effect.pass).clamp(0.01, 0.995);
    (pass, (service.error * effect.error).clamp(0.0, 0.9))
}

fn columns(
    service: &ServicePlan,
    arms: &[Arm],
    level: f64,
    now: Timestamp,
    strange: bool,
    slow: &mut Builder,
    r: &mut Random,
) -> Vec<u8> {
    let from = Timestamp(now.0 - TICK);
    let mut builder = Builder::new(from);
    // Now and then there are many requests, and only their errors are counted.
    let times = if r.chance(0.01) { 30 } else { 1 };
    for arm in arms.iter().filter(|arm| arm.n > 0) {
        let (pass, error) = chances(service, &arm.effect, level + arm.level);
        let (version, tags) = (arm.version.as_str(), arm.tags.as_deref());
        if service.form == Form::Sums {
            let passed = (0..arm.n).filter(|_| r.chance(pass)).count() as u64;
            let requests = arm.n * times;
            let failed = (0..requests).filter(|_| r.chance(error)).count() as u64;
            for (metric, n, ones) in [("eval_pass", arm.n, passed), ("error", requests, failed)] {
                builder.aggregate(version, metric, from, Timestamp(now.0 - 1), n, Sums::Ones(ones));
            }
        } else {
            let mut user = String::new();
            for i in 0..arm.n {
                let served_at = from.plus(Span(i * TICK / arm.n));
                if service.form == Form::Units {
                    user.clear();
                    write!(user, "u{}", r.below(50_000)).expect("a string takes all");
                }
                for (metric, chance) in [("eval_pass", pass), ("error", error)] {
                    let value = f64::from(u8::from(r.chance(chance)));
                    let unit = (service.form == Form::Units).then_some(user.as_str());
                    let late = service.kinds.slow_grades && metric == "eval_pass" && value == 0.0;
                    let builder = if late { &mut *slow } else { &mut builder };
                    builder.push(Row { version, metric, served_at, unit, tags, value });
                }
            }
        }
        for i in 0..arm.n.min(COSTS) {
            let served_at = from.plus(Span(i * TICK / COSTS));
            let value = cost(arm, r);
            builder.push(Row { version, metric: "cost_usd", served_at, unit: None, tags, value });
        }
        // A part of the costs comes as sums, which say nothing.
        if service.form == Form::Sums && r.chance(0.1) {
            let costs: Vec<f64> = (0..COSTS).map(|_| cost(arm, r)).collect();
            let (sum, sumsq) = (costs.iter().sum(), costs.iter().map(|x| x * x).sum());
            let sums = Sums::Moments { sum, sumsq };
            builder.aggregate(version, "cost_usd", from, Timestamp(now.0 - 1), COSTS, sums);
        }
    }
    if strange {
        let row =
            Row { version: "m@77", metric: "error", served_at: from, unit: None, tags: None, value: 1.0 };
        builder.push(row);
    }
    packed(builder)
}

fn cost(arm: &Arm, r: &mut Random) -> f64 {
    (r.log_normal(COST * arm.effect.cost, 0.5) * 1e6).round().max(1.0) / 1e6
}

fn json(
    service: &ServicePlan,
    arms: &[Arm],
    level: f64,
    now: Timestamp,
    slow: &mut Builder,
    r: &mut Random,
) -> Vec<u8> {
    let from = now.0 - TICK;
    let mut text = String::from("[");
    for arm in arms.iter().filter(|arm| arm.n > 0) {
        let (pass, error) = chances(service, &arm.effect, level + arm.level);
        for i in 0..arm.n {
            let (passed, failed) = (u8::from(r.chance(pass)), u8::from(r.chance(error)));
            let comma = if text.len() > 1 { "," } else { "" };
            let (version, at) = (arm.version.as_str(), from + i * TICK / arm.n);
            write!(text, "{comma}{{\"version\":\"{version}\",\"served_at\":{at},\"error\":{failed}")
                .expect("a string takes all");
            if service.kinds.slow_grades && passed == 0 {
                let (metric, served_at) = ("eval_pass", Timestamp(at));
                let tags = arm.tags.as_deref();
                slow.push(Row { version, metric, served_at, unit: None, tags, value: 0.0 });
            } else {
                write!(text, ",\"eval_pass\":{passed}").expect("a string takes all");
            }
            if i < COSTS {
                write!(text, ",\"cost_usd\":{}", cost(arm, r)).expect("a string takes all");
            }
            if let Some((tag, name)) = arm.tags.as_ref().and_then(|tags| tags.split_once('=')) {
                write!(text, ",\"tags\":{{\"{tag}\":\"{name}\"}}").expect("a string takes all");
            }
            text.push('}');
        }
    }
    text.push(']');
    text.into_bytes()
}

/// A message that nobody can read, one of many kinds.
pub fn garbage(stream: Inbound, what: u64, now: Timestamp) -> Stored {
    let bodies: [String; 6] = match stream {
        Inbound::Intents => [
            String::new(),
            "[\"a1\",\"prod\",null]".into(),
            "{\"id\":\"x\",\"id\":\"y\"}".into(),
            "{\"id\":\"x\",\"rolback\":true}".into(),
            "[".repeat(2_000),
            "{\"id\":\"x\",\"by\":\"m\",\"reason\":\"r\",\"change\":{\"kind\":\"model\",\"to\":\"\\u202e\"}}".into(),
        ],
        Inbound::Telemetry => [
            "{\"version\":\"m@1\",\"error\":NaN}".into(),
            "{\"version\":\"m@1\",\"error\":1e999}".into(),
            "{\"version\":\"m@1\",\"error\":null}".into(),
            "{\"version\":\"m@1\",\"served_at\":12,\"error\":1}".into(),
            format!("{{\"version\":\"m@1\",\"served_at\":{},\"error\":1}}", now.0 + 3_600_000),
            "not json".into(),
        ],
        Inbound::Acks => [
            "{}".into(),
            "{\"command\":\"c7\",\"actuator\":\"router\",\"status\":\"applied\"}".into(),
            "{\"command\":\"853d99b9-876a-52e4-9e88-01b622741235\",\"actuator\":\"router\",\"status\":\"applied\"}".into(),
            "{\"command\":\"853d99b9-876a-52e4-9e88-01b622741235\",\"actuator\":\"router\",\"status\":\"done\"}".into(),
            "\u{0}".into(),
            "{\"v\":9}".into(),
        ],
    };
    let body = bodies[(what % 6) as usize].clone().into_bytes();
    Stored { service: "assistant".into(), content_type: None, id: None, body, attempts: 0, at: 0 }
}
