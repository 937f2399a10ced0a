//! `sluice.v1.telemetry.<service>`: samples as JSON (one object, an array, one object a line), as
//! MessagePack (the same maps), or as ready columns; columns out, each small enough to be one event.
//!
//! A message is all or nothing: one bad sample refuses it, by its index, and nothing of it counts.
//! Not here: what a version or a metric means to a rollout. Unknown metrics are kept.

mod aggregate;
mod batch;
mod sample;
mod values;

use super::error::{InputError, shown};
use super::intent::{media_type, unaccepted};
use super::json::{self, Form};
use crate::core::event::code::Code;
use crate::core::telemetry::columns::{Builder, Columns};
use crate::core::text::count;
use crate::core::time::{Span, Timestamp};
pub use aggregate::AggregateShape;
use sample::Intake;
pub use sample::SampleShape;

/// Bytes of a message; also what NATS servers accept by default.
pub const MESSAGE_MAX: usize = 1024 * 1024;
/// Observations and aggregates of a message. At the usual five bytes each they fill one event.
pub const SAMPLES_MAX: usize = 10_000;
/// Series (a version and a metric) of a message, so that 15 messages fill the 1,000 of a rollout and not one.
pub const SERIES_MAX: usize = 64;
/// Different tag sets of a message. Tags are for slices (a region, a language), not for identities.
pub const TAG_SETS_MAX: usize = 256;
/// Tags of a sample.
pub const TAGS_MAX: usize = 16;
/// Bytes of a unit, and of a tag's value.
pub const UNIT_MAX: usize = 128;
/// Bytes of one stored event: below 64 KiB, where the log would keep it apart from its page.
pub const EVENT_MAX: usize = 60 * 1024;
/// How far a sender's clock may be ahead.
pub const AHEAD_MAX: Span = Span::mins(5);
/// 2000-01-01: before it a time is a mistake, most often seconds sent as milliseconds.
pub const SERVED_AT_MIN: Timestamp = Timestamp(946_684_800_000);

/// Content types of telemetry; none counts as the first.
pub const CONTENT_TYPES: [&str; 4] =
    ["application/json", "application/x-ndjson", "application/msgpack", "application/vnd.msgpack"];

/// The samples of one message.
#[derive(Debug, PartialEq)]
pub struct Parsed {
    /// At least one; several where one event could not hold them. In the order of the message.
    pub columns: Vec<Columns>,
    /// The `id` of a message that is a single object.
    pub message_id: Option<String>,
}

/// Reads one message. `content_type` as its header gives it; without one it is JSON. `now` is the time of
/// samples that name none.
///
/// Errors: E1001 to E1011 form; E1028 content type; E2001 to E2027 what a sample says.
pub fn parse_telemetry(
    bytes: &[u8],
    content_type: Option<&str>,
    now: Timestamp,
) -> Result<Parsed, InputError> {
    match media_type(content_type).as_str() {
        "" | "application/json" => {
            let text = json::text("telemetry", bytes, MESSAGE_MAX)?;
            parse_json(text, if has_lines(text) { Form::Lines } else { Form::One }, now)
        }
        "application/x-ndjson" => parse_json(json::text("telemetry", bytes, MESSAGE_MAX)?, Form::Lines, now),
        "application/msgpack" | "application/vnd.msgpack" => {
            json::check_size("telemetry", bytes, MESSAGE_MAX)?;
            match batch::of(bytes) {
                Some(batch) => batch::read(batch?, now),
                None => parse_msgpack(bytes, now),
            }
        }
        other => Err(unaccepted("telemetry", other, &CONTENT_TYPES)),
    }
}

/// Whether the first line is a whole object and another follows.
fn has_lines(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().is_some_and(|line| line.starts_with('{') && line.ends_with('}'));
    first && lines.next().is_some_and(|line| line.starts_with('{'))
}

fn parse_json(text: &str, form: Form, now: Timestamp) -> Result<Parsed, InputError> {
    let documents = json::scan("sample", text, form)?;
    let mut input = serde_json::Deserializer::from_str(text);
    let mut intake = Intake::new(now);
    let read = match text.trim_start().as_bytes().first() {
        Some(b'[') => intake.array(&mut input),
        // Counted beforehand: asking serde_json for the end after each would cost a pass over the text.
        Some(b'{') if form == Form::Lines => (0..documents).try_for_each(|_| intake.one_of_many(&mut input)),
        Some(b'{') => intake.single(&mut input),
        _ => {
            let message = "telemetry: expected a JSON object, an array of objects or an object a line";
            return Err(InputError::new(Code::NotAnObject, message));
        }
    };
    match read.and_then(|()| input.end()) {
        Ok(()) => finish(intake),
        Err(error) => Err(intake.fault.take().unwrap_or_else(|| json::explain("sample", text, form, &error))),
    }
}

fn parse_msgpack(bytes: &[u8], now: Timestamp) -> Result<Parsed, InputError> {
    let mut input = rmp_serde::Deserializer::new(bytes);
    input.set_max_depth(json::NESTING_MAX);
    let mut intake = Intake::new(now);
    let read = match bytes[0] {
        0x80..=0x8f | 0xde | 0xdf => intake.single(&mut input),
        0x90..=0x9f | 0xdc | 0xdd => intake.array(&mut input),
        _ => {
            let message = "telemetry: expected a MessagePack map or an array of maps";
            return Err(InputError::new(Code::NotAnObject, message));
        }
    };
    let at = bytes.len() - input.get_ref().len();
    match read {
        Ok(()) if at < bytes.len() => {
            Err(InputError::new(Code::TrailingData, format!("telemetry: trailing data after byte {at}")))
        }
        Ok(()) => finish(intake),
        Err(error) => Err(intake.fault.take().unwrap_or_else(|| broken_msgpack(at, &error))),
    }
}

fn broken_msgpack(at: usize, error: &rmp_serde::decode::Error) -> InputError {
    use rmp_serde::decode::Error;
    let what = match error {
        Error::DepthLimitExceeded => {
            let max = json::NESTING_MAX;
            return InputError::new(Code::TooDeep, format!("telemetry: nesting deeper than {max} levels"));
        }
        Error::InvalidMarkerRead(_) | Error::InvalidDataRead(_) => {
            "it ends in the middle of a value".to_owned()
        }
        other => shown(&other.to_string()),
    };
    InputError::new(Code::NotReadable, format!("telemetry: not valid MessagePack before byte {at}: {what}"))
}

fn finish(intake: Intake) -> Result<Parsed, InputError> {
    let Intake { builder, message_id, .. } = intake;
    let columns = builder.finish();
    check_bounds(&columns)?;
    Ok(Parsed { columns: split(columns), message_id })
}

/// Errors: E2014 too many samples (or none), E2019 too many series or tag sets.
fn check_bounds(columns: &Columns) -> Result<(), InputError> {
    let samples = columns.n as usize + columns.aggregates.len();
    if samples == 0 {
        return Err(InputError::new(Code::SampleCount, "telemetry: has no samples"));
    }
    if samples > SAMPLES_MAX {
        return Err(too_many_samples());
    }
    if let Some(series) = columns.series.get(SERIES_MAX) {
        let (version, metric) = (&series.version, &series.metric);
        let message = format!(
            "telemetry: more than {SERIES_MAX} series in a message; {metric} of {version} is one too many"
        );
        return Err(InputError::new(Code::TooManySeries, message));
    }
    // The empty set is in the dictionary as well.
    if columns.tags.len() > TAG_SETS_MAX + 1 {
        let message = format!(
            "telemetry: more than {TAG_SETS_MAX} different tag sets in a message; tags are for slices, unit is for identities"
        );
        return Err(InputError::new(Code::TooManySeries, message));
    }
    Ok(())
}

fn too_many_samples() -> InputError {
    let max = count(SAMPLES_MAX as u64);
    InputError::new(
        Code::SampleCount,
        format!("telemetry: more than {max} samples in a message; send several messages"),
    )
}

/// Errors: E2009 ahead of `now` by more than [`AHEAD_MAX`], E2013 before [`SERVED_AT_MIN`].
fn check_time(field: &dyn std::fmt::Display, at: Timestamp, now: Timestamp) -> Result<(), InputError> {
    if at > now.plus(AHEAD_MAX) {
        let ahead = at.since(now);
        let message = format!("{field}: {ahead} in the future; limit {AHEAD_MAX}, check the sender's clock");
        return Err(InputError::new(Code::InTheFuture, message));
    }
    if at < SERVED_AT_MIN {
        let message = format!(
            "{field}: {} ms is before the year 2000; integers are milliseconds since 1970, not seconds",
            at.0
        );
        return Err(InputError::new(Code::TooOld, message));
    }
    Ok(())
}

/// An upper bound of the bytes that `columns` take in the log.
fn stored_size(columns: &Columns) -> usize {
    let texts = |names: &[String]| names.iter().map(|name| name.len() + 5).sum::<usize>();
    let series: usize = columns.series.iter().map(|s| s.version.0.len() + s.metric.0.len() + 30).sum();
    let aggregates: usize = columns.aggregates.iter().map(aggregate::stored_size).sum();
    let cols =
        [&columns.series_col, &columns.time_col, &columns.value_col, &columns.unit_col, &columns.tag_col];
    let cols: usize = cols.iter().map(|col| col.len()).sum();
    256 + series + aggregates + cols + texts(&columns.units) + texts(&columns.tags)
}

/// `columns` in as many parts as keep each below [`EVENT_MAX`].
fn split(columns: Columns) -> Vec<Columns> {
    let samples = columns.n as usize + columns.aggregates.len();
    if stored_size(&columns) <= EVENT_MAX || samples < 2 {
        return vec![columns];
    }
    let mut halves = [Builder::new(columns.base), Builder::new(columns.base)];
    for (i, sample) in columns.samples().enumerate() {
        let row = values::row(&columns, &sample);
        halves[usize::from(i >= samples / 2)].push(row);
    }
    for (i, aggregate) in columns.aggregates.iter().enumerate() {
        let series = &columns.series[aggregate.series as usize];
        halves[usize::from(columns.n as usize + i >= samples / 2)].aggregate(
            series.version.as_str(),
            series.metric.as_str(),
            aggregate.from,
            aggregate.to,
            aggregate.n,
            aggregate.sums.clone(),
        );
    }
    halves.into_iter().flat_map(|half| split(half.finish())).collect()
}

#[cfg(test)]
mod tests;
