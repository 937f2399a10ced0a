//! What the users of a service measure in ten seconds, as the bytes that senders put on the bus.

use std::fmt::Write;

use serde::Serialize;

use super::broker::Stored;
use super::plan::{Effect, Form, MINUTE, ServicePlan, TICK, Truth};
use super::random::Random;
use super::script::START;
use crate::core::columns::{Builder, Columns, Row, Sums};
use crate::core::event::Inbound;
use crate::core::ids::Version;
use crate::core::time::{Span, Timestamp};

const COST: f64 = 0.01;
/// Requests whose cost is sent, of those of each arm.
const COSTS: u64 = 6;

#[derive(Serialize)]
struct Batch {
    v: u32,
    columns: Columns,
}

/// One arm in ten seconds.
struct Arm {
    version: String,
    effect: Effect,
    n: u64,
}

/// The messages of the ten seconds that end at `now`: after how many ms each is sent, and whether it is sent again.
/// `exposures`: per actuator, the versions it sends requests to and the canary's share.
pub fn measured(
    service: &ServicePlan,
    exposures: &[([String; 2], f64)],
    serving: &str,
    now: Timestamp,
    trouble: bool,
    r: &mut Random,
) -> Vec<(u64, Stored, bool)> {
    if trouble && r.chance(0.04) {
        return Vec::new();
    }
    let usual = [([serving.to_owned(), String::new()], 0.0)];
    let exposures = if exposures.is_empty() { &usual[..] } else { exposures };
    let mut arms: Vec<Arm> = Vec::new();
    for ([baseline, canary], weight) in exposures {
        // Requests go to the actuators in equal parts.
        let n = service.requests / exposures.len() as u64;
        let canaries = if *weight > 0.0 { (0..n).filter(|_| r.chance(*weight)).count() as u64 } else { 0 };
        for (version, n) in [(baseline, n - canaries), (canary, canaries)].into_iter().filter(|(_, n)| *n > 0)
        {
            match arms.iter_mut().find(|arm| arm.version == *version) {
                Some(arm) => arm.n += n,
                None => arms.push(Arm { version: version.clone(), effect: effect(service, version, now), n }),
            }
        }
    }
    let (swing, period) = service.drift;
    let phase = now.0 as f64 / period as f64 * std::f64::consts::TAU;
    let level = swing * libm::sin(phase);
    let strange = trouble && r.chance(0.05);
    let form = service.form;
    let body = match form {
        Form::Json => json(service, &arms, level, now, r),
        _ => columns(service, &arms, level, now, strange, r),
    };
    let named = r.chance(0.7);
    let id = named.then(|| format!("t-{}-{}", service.name, now.0));
    let content_type = Some(if form == Form::Json { "application/json" } else { "application/msgpack" });
    let message = Stored { service: String::new(), content_type, id, body, attempts: 0, at: 0 };
    let delay = if trouble && r.chance(0.1) { r.below(8 * MINUTE) } else { r.below(500) };
    let again = trouble && named && r.chance(0.1);
    vec![(delay, message, again)]
}

/// What is true of a version at `now`.
fn effect(service: &ServicePlan, version: &str, now: Timestamp) -> Effect {
    let known = service.versions.get(&Version::from(version));
    let unknown = Effect { truth: Truth::Same, pass: 0.0, error: 1.0, cost: 1.0, breaks: None };
    let mut effect = known.copied().unwrap_or(unknown);
    if effect.breaks.is_some_and(|at| START.plus(Span(at)) <= now) {
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
    r: &mut Random,
) -> Vec<u8> {
    let from = Timestamp(now.0 - TICK);
    let mut builder = Builder::new(from);
    for arm in arms {
        let (pass, error) = chances(service, &arm.effect, level);
        let version = arm.version.as_str();
        if service.form == Form::Sums {
            let passed = (0..arm.n).filter(|_| r.chance(pass)).count() as u64;
            let failed = (0..arm.n).filter(|_| r.chance(error)).count() as u64;
            for (metric, ones) in [("eval_pass", passed), ("error", failed)] {
                builder.aggregate(version, metric, from, Timestamp(now.0 - 1), arm.n, Sums::Ones(ones));
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
                    builder.push(Row { version, metric, served_at, unit, tags: None, value });
                }
            }
        }
        for i in 0..arm.n.min(COSTS) {
            let served_at = from.plus(Span(i * TICK / COSTS));
            let value = cost(arm, r);
            builder.push(Row { version, metric: "cost_usd", served_at, unit: None, tags: None, value });
        }
    }
    if strange {
        let row =
            Row { version: "m@77", metric: "error", served_at: from, unit: None, tags: None, value: 1.0 };
        builder.push(row);
    }
    rmp_serde::to_vec_named(&Batch { v: 1, columns: builder.finish() }).expect("columns can be written")
}

fn cost(arm: &Arm, r: &mut Random) -> f64 {
    (r.log_normal(COST * arm.effect.cost, 0.5) * 1e6).round().max(1.0) / 1e6
}

fn json(service: &ServicePlan, arms: &[Arm], level: f64, now: Timestamp, r: &mut Random) -> Vec<u8> {
    let from = now.0 - TICK;
    let mut text = String::from("[");
    for arm in arms {
        let (pass, error) = chances(service, &arm.effect, level);
        for i in 0..arm.n {
            let (passed, failed) = (u8::from(r.chance(pass)), u8::from(r.chance(error)));
            let comma = if text.len() > 1 { "," } else { "" };
            let (version, at) = (&arm.version, from + i * TICK / arm.n);
            write!(
                text,
                "{comma}{{\"version\":\"{version}\",\"served_at\":{at},\"eval_pass\":{passed},\"error\":{failed}"
            )
            .expect("a string takes all");
            if i < COSTS {
                write!(text, ",\"cost_usd\":{}", cost(arm, r)).expect("a string takes all");
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
