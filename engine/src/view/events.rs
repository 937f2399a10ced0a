//! The log as it is shown: events, one by one and in pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::core::event::Event;
use crate::core::ids::EventSeq;
use crate::core::telemetry::columns::{Columns, Sample, Series};
use crate::core::time::Timestamp;
use crate::core::words::{self, line};
use crate::wire::envelope::Envelope;
use crate::wire::time::rfc3339;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// First event; 1 when left out.
    #[serde(default = "one")]
    pub from: EventSeq,
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: u64,
    /// Only conclusions about this rollout, each group behind the fact that led to it.
    pub rollout: Option<String>,
}

fn one() -> EventSeq {
    1
}

fn hundred() -> u64 {
    100
}

/// A page of the log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EventsPage {
    pub events: Vec<EventView>,
    /// Where the next page begins. A page may be short, or empty, before the end of the log.
    pub next: EventSeq,
    /// The last event of the log.
    pub last: EventSeq,
}

/// One event for people and programs.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EventView {
    pub seq: EventSeq,
    /// RFC 3339, UTC.
    pub at: String,
    pub at_ms: u64,
    pub kind: &'static str,
    /// One line.
    pub text: String,
    /// The event itself; its form may grow with the log's format.
    pub event: Value,
}

/// One line of `/v1/follow`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FollowLine {
    pub seq: EventSeq,
    pub at: String,
    pub kind: &'static str,
    pub text: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRequest {
    pub seq: EventSeq,
    /// With the fact that led to it, and everything else that fact led to.
    #[serde(default)]
    pub why: bool,
}

/// One event in full.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EventAnswer {
    #[serde(flatten)]
    pub event: EventView,
    /// BLAKE3 of the record before it, and of it.
    pub prev: String,
    pub hash: String,
    /// The fact first, then what followed from it, this event included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<EventView>,
}

impl EventView {
    /// `samples`: show each sample of a batch, not only how many there are.
    pub fn new(envelope: &Envelope, samples: bool) -> EventView {
        EventView {
            seq: envelope.seq,
            at: rfc3339(envelope.at),
            at_ms: envelope.at.0,
            kind: envelope.event.kind(),
            text: line::describe(&envelope.event),
            event: value(&envelope.event, samples),
        }
    }
}

impl FollowLine {
    pub fn new(seq: EventSeq, at: Timestamp, event: &Event) -> FollowLine {
        FollowLine { seq, at: rfc3339(at), kind: event.kind(), text: line::describe(event) }
    }
}

fn value(event: &Event, samples: bool) -> Value {
    match event {
        Event::BatchReceived { service, columns, origin } => {
            let mut batch = json!({"service": service, "origin": origin, "series": series(columns)});
            if samples {
                batch["samples"] = columns.samples().map(|s| sample(columns, &s)).collect();
                batch["aggregates"] = json!(columns.aggregates);
            }
            json!({ "BatchReceived": batch })
        }
        event => worded(event),
    }
}

/// With what was said: a refusal by its code and its message, an alert by its summary.
fn worded(event: &Event) -> Value {
    let mut shown = json!(event);
    let of = shown.as_object_mut().and_then(|event| event.values_mut().next());
    match (event, of) {
        (
            Event::IntentRefused { refusal, .. }
            | Event::ActRefused { refusal, .. }
            | Event::AckRefused { refusal, .. }
            | Event::FreezeRefused { refusal, .. },
            Some(of),
        ) => of["refusal"] = json!({"code": refusal.code(), "message": words::refusal::text(refusal)}),
        (Event::AlertRaised { alert, .. }, Some(of)) => {
            let summary = words::alert::text(alert);
            of["alert"] = json!({"kind": alert.kind(), "summary": summary, "reading": alert.reading()});
        }
        _ => {}
    }
    shown
}

/// Observations per series.
fn series(columns: &Columns) -> Value {
    let of = |(s, n): (&Series, u64)| json!({"version": s.version, "metric": s.metric, "n": n});
    columns.series.iter().zip(columns.counts()).map(of).collect()
}

fn sample(columns: &Columns, sample: &Sample) -> Value {
    let series = &columns.series[sample.series as usize];
    let mut shown = json!({
        "version": series.version,
        "metric": series.metric,
        "served_at_ms": sample.served_at,
        "value": sample.value,
    });
    if let Some(unit) = sample.unit {
        shown["unit"] = json!(columns.units[unit as usize]);
    }
    if let Some(tag) = sample.tag {
        shown["tags"] = json!(columns.tags[tag as usize]);
    }
    shown
}
