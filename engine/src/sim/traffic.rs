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
        Further { builder: &mut further, service, arm, level, now, as_planned, r }.measure();
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
struct Further<'a> {
    builder: &'a mut Builder,
    service: &'a ServicePlan,
    arm: &'a Arm,
    level: f64,
    now: Timestamp,
    as_planned: bool,
    r: &'a mut Random,
}

impl Further<'_> {
    fn measure(mut self) {
        for kind in &self.service.kinds.some {
            match kind {
                // Who answers copies is asked nothing else.
                kind if self.arm.n == 0 && *kind != GuardrailKind::Paired => {}
                GuardrailKind::Score => self.score(),
                GuardrailKind::Quantile => self.quantile(),
                GuardrailKind::Paired => self.paired(),
                // Counted on traffic that is split as the step says, or is on its way there.
                GuardrailKind::Count if self.as_planned => self.count(),
                GuardrailKind::Split if self.as_planned => self.split(),
                GuardrailKind::Missing => self.missing(),
                GuardrailKind::Stop => self.stop(),
                // Counts and splits are of traffic as the step has it; the others are measured of every request.
                GuardrailKind::Count
                | GuardrailKind::Split
                | GuardrailKind::Proportion
                | GuardrailKind::Mean
                | GuardrailKind::Absolute => {}
            }
        }
    }

    fn from(&self) -> Timestamp {
        Timestamp(self.now.0 - TICK)
    }

    fn at(&self) -> Timestamp {
        Timestamp(self.now.0 - 1)
    }

    /// Of how many requests there are values.
    fn n(&self) -> u64 {
        self.arm.n.min(VALUES)
    }

    fn served(&self, i: u64) -> Timestamp {
        self.from().plus(Span(i * TICK / VALUES))
    }

    /// Whether the traffic comes in segments: then nothing is summed.
    fn divided(&self) -> bool {
        self.arm.segment.is_some()
    }

    fn push(&mut self, metric: &str, served_at: Timestamp, unit: Option<&str>, value: f64) {
        let tags = self.arm.tags.as_deref();
        self.builder.push(Row { version: &self.arm.version, metric, served_at, unit, tags, value });
    }

    fn sum(&mut self, metric: &str, from: Timestamp, n: u64, sums: Sums) {
        self.builder.aggregate(&self.arm.version, metric, from, self.at(), n, sums);
    }

    fn score(&mut self) {
        for i in 0..self.n() {
            let suite = if self.r.chance(0.5) { self.r.below(5) } else { self.r.below(20) };
            // The mean is 0.15 + 0.8 p.
            let forgot = if suite == 0 { self.arm.effect.forgets } else { 0.0 };
            let good = self.r.chance(0.75 + self.level - self.arm.effect.shift * POINTS / 0.8 - forgot);
            let value = if good { 0.9 + 0.1 * self.r.unit() } else { 0.3 * self.r.unit() };
            let suite = format!("suite=s{suite}");
            let tags = self.arm.tags.as_deref().map_or(suite.clone(), |tags| format!("{tags},{suite}"));
            // A new judge grades what is served from some moment on, and the old one finishes what it has.
            let (hour, into) = (self.now.0 / JUDGED, self.now.0 % JUDGED);
            let hour = if into < MINUTE && self.r.chance(0.3) { hour - 1 } else { hour };
            let tags = if self.service.kinds.judges { format!("judge=j{hour},{tags}") } else { tags };
            self.builder.push(Row {
                version: &self.arm.version,
                metric: "grade",
                served_at: self.served(i),
                unit: None,
                tags: Some(&tags),
                value,
            });
        }
    }

    fn quantile(&mut self) {
        let n = self.n();
        let scale = libm::exp(self.level) * (1.0 + SLOWER * self.arm.effect.shift);
        let values: Vec<f64> = (0..n).map(|_| self.r.log_normal(900.0 * scale, 0.6)).collect();
        if self.service.kinds.histograms {
            let mut bounds: Vec<f64> = (0..40).map(|i| 200.0 * libm::pow(1.1, f64::from(i))).collect();
            bounds.push(f64::INFINITY);
            let below = |bound: &f64| values.iter().filter(|x| *x <= bound).count() as u64;
            let counts = bounds.iter().map(below).collect();
            self.sum("latency_ms", self.from(), n, Sums::Histogram { bounds, counts });
        } else {
            for (i, value) in (0..).zip(values) {
                self.push("latency_ms", self.served(i), None, value);
            }
        }
    }

    fn paired(&mut self) {
        for i in 0..VALUES {
            // Both versions are asked the same, and now and then one of them does not answer, or twice.
            let unit = match self.arm.segment {
                Some(segment) => format!("q{}-{i}-{segment}", self.now.0),
                None => format!("q{}-{i}", self.now.0),
            };
            let hard = (self.now.0 / TICK * 7 + i * 13).is_multiple_of(4);
            let usual = if hard { 0.3 } else { 0.85 };
            let chance = usual + self.level / 2.0 - self.arm.effect.shift * POINTS;
            for _ in 0..[0, 1, 1, 1, 1, 1, 1, 1, 1, 2][self.r.below(10) as usize] {
                let value = f64::from(u8::from(self.r.chance(chance)));
                self.push("shadow", self.served(i), Some(&unit), value);
            }
        }
    }

    fn count(&mut self) {
        let at = self.at();
        let chance = 0.01 * libm::exp(5.0 * self.level) * (1.0 + OFTENER * self.arm.effect.shift);
        let events = (0..self.arm.n).filter(|_| self.r.chance(chance)).count() as u64;
        match self.divided() {
            // Who names the user says of each whether there was one.
            true if self.r.chance(0.5) => {
                for i in 0..self.n() {
                    let unit = format!("c{}-{i}", self.now.0);
                    let value = f64::from(u8::from(self.r.chance(chance)));
                    self.push("complaint", self.served(i), Some(&unit), value);
                }
            }
            true => self.push("complaint", at, None, events as f64),
            false => self.sum("complaint", at, self.arm.n, Sums::Ones(events)),
        }
    }

    fn split(&mut self) {
        let at = self.at();
        // A version that loses units makes the split a broken one.
        let lost = if self.arm.effect.shift > 1.0 { 0.3 } else { 0.0 };
        let units = (0..self.arm.n).filter(|_| !self.r.chance(lost)).count() as u64;
        if self.divided() {
            (0..units).for_each(|_| self.push("assigned", at, None, 1.0));
        } else if units > 0 {
            self.sum("assigned", at, units, Sums::Ones(units));
        }
    }

    fn missing(&mut self) {
        let (at, n) = (self.at(), self.arm.n);
        let chance = 0.75 + self.level - self.arm.effect.shift * POINTS;
        let came = (0..n).filter(|_| self.r.chance(chance)).count() as u64;
        if self.divided() {
            (0..n).for_each(|_| self.push("request", at, None, 1.0));
            (0..came).for_each(|_| self.push("reply", at, None, 1.0));
        } else {
            self.sum("request", self.from(), n, Sums::Ones(n));
            self.sum("reply", self.from(), came, Sums::Ones(came));
        }
    }

    fn stop(&mut self) {
        let at = self.at();
        let happened = u64::from(self.arm.effect.leaks && self.r.chance(0.03));
        let spoken = match self.service.kinds.stop.map(|(_, detector)| detector) {
            Some(Detector::Mute) => happened,
            Some(Detector::Dies(at)) if START.plus(Span(at)) <= self.now => 0,
            _ => self.arm.n,
        };
        let happened = happened.min(spoken);
        if spoken > 0 && self.divided() {
            (0..spoken).for_each(|i| self.push("leak", at, None, f64::from(u8::from(i < happened))));
        } else if spoken > 0 {
            self.sum("leak", self.from(), spoken, Sums::Ones(happened));
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
