//! Telemetry as senders make it: a pool of messages, sent again and again with the time of the moment put in.

use sluice::core::telemetry::columns::{Builder, Columns, Row};
use sluice::core::time::Timestamp;
use sluice::sim::random::Random;

use super::Form;

/// Samples (one value of one metric of one request) of a message, four of each request.
pub const BATCH: u64 = 256;
/// Different messages.
const POOL: u64 = 512;
/// The share of requests that the canary serves.
const SHARE: f64 = 0.05;
/// Over how many ms the requests of a message were served.
const SPREAD: u64 = 8;
/// As many digits (and bytes) as any time of today.
const ANY_TIME: Timestamp = Timestamp(1_767_603_600_000);

pub struct Pool {
    messages: Vec<Message>,
    pub form: Form,
}

struct Message {
    bytes: Vec<u8>,
    /// Where times stand, each with its milliseconds after the first.
    times: Vec<(usize, u64)>,
}

impl Pool {
    pub fn new(form: Form) -> Pool {
        let make = |seed| match form {
            Form::Columns => columns(seed),
            Form::Json => json(seed),
        };
        Pool { messages: (0..POOL).map(make).collect(), form }
    }

    /// Bytes of a message for each of its samples.
    pub fn message_bytes(&self) -> f64 {
        let bytes: usize = self.messages.iter().map(|message| message.bytes.len()).sum();
        bytes as f64 / (BATCH * POOL) as f64
    }

    /// Message `i` as it is sent at `now`.
    pub fn message(&self, i: u64, now: Timestamp) -> Vec<u8> {
        let message = &self.messages[(i % POOL) as usize];
        let mut bytes = message.bytes.clone();
        for (at, after) in &message.times {
            let time = now.0 - SPREAD + after;
            match self.form {
                Form::Columns => bytes[*at..at + 8].copy_from_slice(&time.to_be_bytes()),
                Form::Json => bytes[*at..at + 13].copy_from_slice(time.to_string().as_bytes()),
            }
        }
        bytes
    }
}

/// Requests of one message: version, ms after the first, eval_pass, error, cost_usd, latency_ms.
fn requests(seed: u64) -> impl Iterator<Item = (&'static str, u64, [f64; 4])> {
    let mut random = Random::new(seed);
    let n = BATCH / 4;
    (0..n).map(move |i| {
        let version = if random.chance(SHARE) { "m@2" } else { "m@1" };
        let cost = (random.log_normal(0.01, 0.8) * 1e6).round() / 1e6;
        let latency = random.log_normal(1800.0, 0.6).round();
        let passed = f64::from(u8::from(random.chance(0.93)));
        let error = f64::from(u8::from(random.chance(0.01)));
        (version, i * SPREAD / n, [passed, error, cost, latency])
    })
}

const METRICS: [&str; 4] = ["eval_pass", "error", "cost_usd", "latency_ms"];

fn columns(seed: u64) -> Message {
    let mut builder = Builder::new(ANY_TIME);
    for (version, after, values) in requests(seed) {
        for (metric, value) in METRICS.into_iter().zip(values) {
            let served_at = Timestamp(ANY_TIME.0 + after);
            builder.push(Row { version, metric, served_at, unit: None, tags: None, value });
        }
    }
    let bytes = encode(builder);
    let base = ANY_TIME.0.to_be_bytes();
    let at = bytes.windows(8).position(|window| window == base).expect("the first time is stored whole");
    Message { bytes, times: vec![(at, 0)] }
}

fn json(seed: u64) -> Message {
    let (mut text, mut times) = (String::from("["), Vec::new());
    for (version, after, values) in requests(seed) {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&format!("{{\"version\":\"{version}\",\"served_at\":"));
        times.push((text.len(), after));
        text.push_str(&ANY_TIME.0.to_string());
        for (metric, value) in METRICS.into_iter().zip(values) {
            text.push_str(&format!(",\"{metric}\":{value}"));
        }
        text.push('}');
    }
    text.push(']');
    Message { bytes: text.into_bytes(), times }
}

/// What ends a rollout: 16 requests of the canary, all of them errors.
pub fn breach(now: Timestamp) -> Vec<u8> {
    let mut builder = Builder::new(now);
    for _ in 0..16 {
        let row = Row { version: "m@2", metric: "error", served_at: now, unit: None, tags: None, value: 1.0 };
        builder.push(row);
    }
    encode(builder)
}

/// As sluice's own senders write it.
fn encode(builder: Builder) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Batch {
        v: u32,
        columns: Columns,
    }
    rmp_serde::to_vec_named(&Batch { v: 1, columns: builder.finish() }).expect("columns can be written")
}
