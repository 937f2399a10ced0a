//! Ready columns in MessagePack, `{"v":1,"columns":{..}}`: what sluice's own senders write. They are
//! checked once and stored as they came.

use rmp::decode::{read_int, read_map_len, read_str_from_slice};
use serde::{Deserialize, Serialize};

use super::{Parsed, UNIT_MAX, aggregate, broken_msgpack, check_bounds, check_time, split};
use crate::core::event::code::Code;
use crate::core::telemetry::columns::Columns;
use crate::core::text::{count, is_hidden};
use crate::core::time::Timestamp;
use crate::wire::error::{InputError, shown};
use crate::wire::names;

/// A batch on the wire.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    pub v: u32,
    pub columns: Columns,
}

/// The batch that `bytes` hold; `None` when they hold something else (samples).
pub fn of(bytes: &[u8]) -> Option<Result<Batch, InputError>> {
    is_batch(bytes)?.then(|| {
        let mut input = rmp_serde::Deserializer::new(bytes);
        input.set_max_depth(crate::wire::json::NESTING_MAX);
        let batch = Batch::deserialize(&mut input);
        let at = bytes.len() - input.get_ref().len();
        let batch = batch.map_err(|error| broken_msgpack(at, &error))?;
        if at < bytes.len() {
            let message = format!("telemetry: trailing data after byte {at}");
            return Err(InputError::new(Code::TrailingData, message));
        }
        Ok(batch)
    })
}

/// A map that begins with `columns`, or with `v` and then `columns`. No sample does: there a metric `v`
/// may come first, but `columns` would be a metric as well and no map.
fn is_batch(bytes: &[u8]) -> Option<bool> {
    let mut rest = bytes;
    read_map_len(&mut rest).ok()?;
    let (key, mut rest) = read_str_from_slice(rest).ok()?;
    if key != "v" {
        return Some(key == "columns");
    }
    read_int::<u64, _>(&mut rest).ok()?;
    Some(read_str_from_slice(rest).ok()?.0 == "columns")
}

/// Checks all that the other forms would have ensured.
///
/// Errors: E2025 columns that cannot be read, and the codes of the sample forms.
pub fn read(batch: Batch, now: Timestamp) -> Result<Parsed, InputError> {
    let Batch { v, columns } = batch;
    if v != 1 {
        return Err(InputError::new(
            Code::FieldValue,
            format!("telemetry.v: this sluice reads version 1, got {v}"),
        ));
    }
    check_bounds(&columns)?;
    columns.check().map_err(|error| InputError::new(Code::Columns, format!("telemetry.columns: {error}")))?;
    for (i, series) in columns.series.iter().enumerate() {
        let field = |name: &str| format!("telemetry.columns.series[{i}].{name}");
        names::version(&field("version"), series.version.as_str())?;
        names::metric(&field("metric"), series.metric.as_str())?;
        if columns.series[..i].contains(series) {
            let message = format!("telemetry.columns.series[{i}]: is there twice");
            return Err(InputError::new(Code::Columns, message));
        }
    }
    for (what, names, limit) in [
        ("units", &columns.units, UNIT_MAX),
        ("tags", &columns.tags, super::TAGS_MAX * (UNIT_MAX + names::NAME_MAX + 2)),
    ] {
        // One for each sample and the empty one: more would make an event of any size of a single sample.
        if names.len() > columns.n as usize + 1 {
            let (have, n) = (count(names.len() as u64), count(u64::from(columns.n)));
            let message = format!("telemetry.columns.{what}: {have} names for {n} samples");
            return Err(InputError::new(Code::Columns, message));
        }
        let unfit = |name: &&String| name.len() > limit || name.chars().any(is_hidden);
        if let Some(name) = names.iter().find(unfit) {
            let name = shown(name);
            let message =
                format!("telemetry.columns.{what}: {name:?} is over {limit} bytes or has unseen characters");
            return Err(InputError::new(Code::Columns, message));
        }
    }
    // The first sample out of bounds is looked for only when there is one: the usual pass is a minimum and a maximum.
    let (mut first, mut last) = (Timestamp(u64::MAX), Timestamp(0));
    for sample in columns.samples() {
        first = first.min(sample.served_at);
        last = last.max(sample.served_at);
    }
    if columns.n > 0 {
        for at in [first, last] {
            check_time(&"telemetry.columns.time_col", at, now)?;
        }
    }
    for (i, aggregate) in columns.aggregates.iter().enumerate() {
        let field = format!("telemetry.columns.aggregates[{i}]");
        check_time(&field, aggregate.from, now)?;
        check_time(&field, aggregate.to, now)?;
        if aggregate.from > aggregate.to {
            return Err(InputError::new(Code::ImpossibleSum, format!("{field}: to is before from")));
        }
        aggregate::check(aggregate.n, &aggregate.sums)
            .map_err(|(code, what)| InputError::new(code, format!("{field}: {what}")))?;
    }
    Ok(Parsed { columns: split(columns), message_id: None })
}
