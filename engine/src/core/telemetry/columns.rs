//! The samples of one telemetry message, column by column. This is also their stored form: folding
//! and replaying read the same bytes, and nothing is rounded.
//!
//! Per sample: the series it belongs to, milliseconds since the previous sample, the value, and (where
//! the message has any) the unit and the tag set. A value that is exactly a decimal with zero, three
//! or six places is a varint of `int << 2 | places`; any other is its 8 raw bytes.

use serde::{Deserialize, Serialize};

use crate::core::ids::{Metric, Version};
use crate::core::time::Timestamp;

/// What one observation measures: which version served, which metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Series {
    pub version: Version,
    pub metric: Metric,
}

/// Stored as a pair: the field names of a dozen series would be a tenth of a batch.
impl Serialize for Series {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (&self.version, &self.metric).serialize(s)
    }
}

/// One observation of one metric, as read back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Index into [`Columns::series`].
    pub series: u32,
    pub served_at: Timestamp,
    /// Index into [`Columns::units`], where a unit was named.
    pub unit: Option<u32>,
    /// Index into [`Columns::tags`], where the sample has tags.
    pub tag: Option<u32>,
    pub value: f64,
}

/// Many observations summed by the sender. Always finite; `ones <= n`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    pub series: u32,
    pub from: Timestamp,
    pub to: Timestamp,
    pub n: u64,
    pub sums: Sums,
}

/// What a sender summed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sums {
    /// Of `n` zeros and ones, how many are ones.
    Ones(u64),
    Moments {
        sum: f64,
        sumsq: f64,
    },
    /// Cumulative counts at rising upper bounds; the last bound is infinite.
    Histogram {
        bounds: Vec<f64>,
        counts: Vec<u64>,
    },
}

impl Sums {
    /// How many of `n` zeros and ones are ones; `None` where they need not be such.
    pub fn ones(&self, n: u64) -> Option<u64> {
        match self {
            Sums::Ones(ones) => Some(*ones),
            // Of zeros and ones the sum of squares is the sum.
            Sums::Moments { sum, sumsq } => {
                let whole = sum == sumsq && *sum >= 0.0 && *sum <= n as f64 && libm::floor(*sum) == *sum;
                whole.then_some(*sum as u64)
            }
            Sums::Histogram { .. } => None,
        }
    }

    /// The mean of `n` values.
    pub fn mean(&self, n: u64) -> Option<f64> {
        match self {
            Sums::Ones(ones) => Some(*ones as f64 / n as f64),
            Sums::Moments { sum, .. } => Some(sum / n as f64),
            Sums::Histogram { .. } => None,
        }
    }

    /// How many events samples stand for that say how many there were.
    pub fn events(&self) -> Option<u64> {
        match self {
            Sums::Ones(ones) => Some(*ones),
            Sums::Moments { sum, .. } => Some(events(*sum)),
            Sums::Histogram { .. } => None,
        }
    }
}

/// How many events a sample stands for.
pub fn events(value: f64) -> u64 {
    libm::round(value).clamp(0.0, 1e12) as u64
}

/// The samples of one message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Columns {
    /// Number of samples, aggregates not counted.
    pub n: u32,
    /// Where the first sample's time is counted from.
    pub base: Timestamp,
    pub series: Vec<Series>,
    #[serde(with = "serde_bytes")]
    pub series_col: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub time_col: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub value_col: Vec<u8>,
    /// The randomised units, usually users. Empty together with `unit_col` when none was named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<String>,
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    pub unit_col: Vec<u8>,
    /// Other attributes of a request, as `key=value` joined by `,` in key order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    pub tag_col: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregates: Vec<Aggregate>,
}

/// Why stored columns cannot be read. A batch is checked once, when it comes in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    #[error("column {column} cannot be read after {have} of {need} samples")]
    Short { column: &'static str, have: u32, need: u32 },
    #[error("column {column} has {extra} bytes too many")]
    Long { column: &'static str, extra: usize },
    #[error("sample {index} names {what} {found}, the batch has {have}")]
    Index { index: u32, what: &'static str, found: u64, have: usize },
    #[error("sample {index} is not a finite number")]
    NotFinite { index: u32 },
    #[error("aggregate {index}: {why}")]
    Aggregate { index: usize, why: String },
}

impl Columns {
    /// The samples in the order they came.
    pub fn samples(&self) -> Samples<'_> {
        Samples { columns: self, left: self.n, time: self.base.0, at: [0; 5] }
    }

    /// Checks everything that [`Samples`] relies on.
    pub fn check(&self) -> Result<(), ColumnsError> {
        let mut samples = self.samples();
        for index in 0..self.n {
            let Some(sample) = samples.next() else {
                return Err(ColumnsError::Short {
                    column: samples.broken_column(),
                    have: index,
                    need: self.n,
                });
            };
            let names = [
                ("series", Some(sample.series), self.series.len()),
                ("unit", sample.unit, self.units.len()),
                ("tag", sample.tag, self.tags.len()),
            ];
            for (what, found, have) in names {
                if let Some(found) = found.filter(|found| *found as usize >= have) {
                    return Err(ColumnsError::Index { index, what, found: u64::from(found), have });
                }
            }
            if !sample.value.is_finite() {
                return Err(ColumnsError::NotFinite { index });
            }
        }
        for (column, bytes, at) in samples.ends() {
            if at < bytes {
                return Err(ColumnsError::Long { column, extra: bytes - at });
            }
        }
        for (index, aggregate) in self.aggregates.iter().enumerate() {
            let fault = |why: String| Err(ColumnsError::Aggregate { index, why });
            if aggregate.series as usize >= self.series.len() {
                return fault(format!(
                    "names series {}, the batch has {}",
                    aggregate.series,
                    self.series.len()
                ));
            }
            match &aggregate.sums {
                Sums::Ones(ones) if *ones > aggregate.n => {
                    return fault(format!("k ({ones}) exceeds n ({})", aggregate.n));
                }
                Sums::Moments { sum, sumsq } if !sum.is_finite() || !sumsq.is_finite() => {
                    return fault("sum and sumsq must be finite".into());
                }
                Sums::Histogram { bounds, counts } if bounds.len() != counts.len() => {
                    return fault(format!("{} bounds but {} counts", bounds.len(), counts.len()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How many observations each series has.
    pub fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.series.len()];
        let mut at = 0;
        for _ in 0..self.n {
            let Some(series) = get_index(&self.series_col, &mut at) else { break };
            counts[series as usize] += 1;
        }
        self.aggregates.iter().for_each(|a| counts[a.series as usize] += a.n);
        counts
    }

    /// Observations in the batch: samples and the counts of aggregates.
    pub fn observations(&self) -> u64 {
        u64::from(self.n) + self.aggregates.iter().map(|a| a.n).sum::<u64>()
    }
}

/// Builds columns, one observation at a time, with its own dictionaries.
#[derive(Default)]
pub struct Builder {
    columns: Columns,
    last: Timestamp,
    series: std::collections::BTreeMap<Series, u32>,
    units: std::collections::BTreeMap<String, u32>,
    tags: std::collections::BTreeMap<String, u32>,
}

/// One observation on its way into a [`Builder`].
pub struct Row<'a> {
    pub version: &'a str,
    pub metric: &'a str,
    pub served_at: Timestamp,
    pub unit: Option<&'a str>,
    pub tags: Option<&'a str>,
    pub value: f64,
}

impl Builder {
    pub fn new(base: Timestamp) -> Builder {
        Builder { columns: Columns { base, ..Columns::default() }, last: base, ..Builder::default() }
    }

    /// The index of a series, entered when new.
    pub fn series(&mut self, version: &str, metric: &str) -> u32 {
        // The last few series are nearly always the ones asked for, and a batch has few.
        let known = self.columns.series.iter().take(16);
        if let Some(index) = known.into_iter().position(|s| s.metric.0 == metric && s.version.0 == version) {
            return index as u32;
        }
        let series = Series { version: version.into(), metric: metric.into() };
        let next = self.columns.series.len() as u32;
        *self.series.entry(series.clone()).or_insert_with(|| {
            self.columns.series.push(series);
            next
        })
    }

    /// Adds one observation.
    pub fn push(&mut self, row: Row<'_>) {
        let series = self.series(row.version, row.metric);
        let columns = &mut self.columns;
        // The first named unit (or tag) comes after samples without one: those get the empty name.
        for (name, dictionary, names, column) in [
            (row.unit, &mut self.units, &mut columns.units, &mut columns.unit_col),
            (row.tags, &mut self.tags, &mut columns.tags, &mut columns.tag_col),
        ] {
            if name.is_none() && names.is_empty() {
                continue;
            }
            if names.is_empty() {
                names.push(String::new());
                dictionary.insert(String::new(), 0);
                column.resize(columns.n as usize, 0);
            }
            let name = name.unwrap_or("");
            let index = match dictionary.get(name) {
                Some(index) => *index,
                None => {
                    let index = names.len() as u32;
                    names.push(name.to_owned());
                    dictionary.insert(name.to_owned(), index);
                    index
                }
            };
            put_varint(column, u64::from(index));
        }
        put_varint(&mut columns.series_col, u64::from(series));
        put_varint(&mut columns.time_col, zigzag(row.served_at.0.wrapping_sub(self.last.0) as i64));
        put_value(&mut columns.value_col, row.value);
        columns.n += 1;
        self.last = row.served_at;
    }

    /// Adds one summed series.
    pub fn aggregate(
        &mut self,
        version: &str,
        metric: &str,
        from: Timestamp,
        to: Timestamp,
        n: u64,
        sums: Sums,
    ) {
        let series = self.series(version, metric);
        self.columns.aggregates.push(Aggregate { series, from, to, n, sums });
    }

    pub fn len(&self) -> usize {
        self.columns.n as usize + self.columns.aggregates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns of all that was added.
    pub fn finish(self) -> Columns {
        self.columns
    }
}

/// Reads the samples of one batch in order. Ends early on damaged columns, which
/// [`Columns::check`] reports.
pub struct Samples<'a> {
    columns: &'a Columns,
    left: u32,
    time: u64,
    /// Read positions: series, time, value, unit, tag.
    at: [usize; 5],
}

impl Samples<'_> {
    fn ends(&self) -> [(&'static str, usize, usize); 5] {
        let c = self.columns;
        [
            ("series", c.series_col.len(), self.at[0]),
            ("time", c.time_col.len(), self.at[1]),
            ("value", c.value_col.len(), self.at[2]),
            ("unit", c.unit_col.len(), self.at[3]),
            ("tag", c.tag_col.len(), self.at[4]),
        ]
    }

    /// After an early end: the first column that does not hold one entry more than was read.
    fn broken_column(&self) -> &'static str {
        let c = self.columns;
        let read = c.n - self.left;
        type Reads = fn(&[u8], &mut usize) -> bool;
        let index: Reads = |bytes, at| get_index(bytes, at).is_some();
        let time: Reads = |bytes, at| get_varint(bytes, at).is_some();
        let value: Reads = |bytes, at| get_value(bytes, at).is_some();
        let columns =
            [("series", &c.series_col, index), ("time", &c.time_col, time), ("value", &c.value_col, value)];
        let rest = [("unit", &c.unit_col, index), ("tag", &c.tag_col, index)];
        let rest = rest.into_iter().filter(|(_, bytes, _)| !bytes.is_empty());
        let whole = |bytes: &[u8], reads: Reads| {
            let mut at = 0;
            (0..=read).all(|_| reads(bytes, &mut at))
        };
        columns
            .into_iter()
            .chain(rest)
            .find(|(_, bytes, reads)| !whole(bytes, *reads))
            .map_or("value", |(name, ..)| name)
    }
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    #[inline]
    fn next(&mut self) -> Option<Sample> {
        if self.left == 0 {
            return None;
        }
        let c = self.columns;
        let series = get_index(&c.series_col, &mut self.at[0])?;
        let delta = unzigzag(get_varint(&c.time_col, &mut self.at[1])?);
        let value = get_value(&c.value_col, &mut self.at[2])?;
        let unit = if c.unit_col.is_empty() { None } else { Some(get_index(&c.unit_col, &mut self.at[3])?) };
        let tag = if c.tag_col.is_empty() { None } else { Some(get_index(&c.tag_col, &mut self.at[4])?) };
        self.time = self.time.wrapping_add(delta as u64);
        self.left -= 1;
        Some(Sample { series, served_at: Timestamp(self.time), unit, tag, value })
    }
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[inline]
fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[inline]
fn get_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut byte = *bytes.get(*at)?;
    *at += 1;
    let mut n = u64::from(byte & 0x7f);
    let mut shift = 7;
    while byte & 0x80 != 0 {
        if shift > 63 {
            return None;
        }
        byte = *bytes.get(*at)?;
        *at += 1;
        n |= u64::from(byte & 0x7f) << shift;
        shift += 7;
    }
    Some(n)
}

/// An index of a dictionary. A larger number must not be cut to one that fits: other readers would not cut it.
#[inline]
fn get_index(bytes: &[u8], at: &mut usize) -> Option<u32> {
    get_varint(bytes, at)?.try_into().ok()
}

/// Decimal places of the three exact forms; the fourth tag is raw bytes.
const SCALES: [f64; 3] = [1.0, 1e3, 1e6];
const RAW: u64 = 3;

#[inline]
fn put_value(out: &mut Vec<u8>, value: f64) {
    for (tag, scale) in SCALES.iter().enumerate() {
        let scaled = value * scale;
        // 2^53: above it not every integer is a double, and the shift below must fit.
        if (0.0..9_007_199_254_740_992.0).contains(&scaled) {
            // Half away from zero by truncation: `f64::round` is a library call on some targets.
            let int = (scaled + 0.5) as u64;
            if (int as f64 / scale).to_bits() == value.to_bits() {
                return put_varint(out, int << 2 | tag as u64);
            }
        }
    }
    put_varint(out, RAW);
    out.extend_from_slice(&value.to_le_bytes());
}

#[inline]
fn get_value(bytes: &[u8], at: &mut usize) -> Option<f64> {
    let word = get_varint(bytes, at)?;
    let int = (word >> 2) as f64;
    match word & 3 {
        0 => Some(int),
        1 => Some(int / 1e3),
        2 => Some(int / 1e6),
        _ => {
            let raw = bytes.get(*at..*at + 8)?;
            *at += 8;
            Some(f64::from_le_bytes(raw.try_into().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_batch_without_units_stores_none() {
        let mut builder = Builder::new(Timestamp(1_000));
        let row = Row {
            version: "b",
            metric: "error",
            served_at: Timestamp(999),
            unit: None,
            tags: None,
            value: 0.0,
        };
        builder.push(row);
        let columns = builder.finish();
        assert_eq!((columns.units.len(), columns.unit_col.len()), (0, 0));
        assert_eq!(columns.samples().next().unwrap().served_at, Timestamp(999));
    }

    #[test]
    fn a_short_column_is_named() {
        let mut builder = Builder::new(Timestamp(0));
        for value in [1.0, 2.0] {
            builder.push(Row {
                version: "b",
                metric: "m",
                served_at: Timestamp(5),
                unit: None,
                tags: None,
                value,
            });
        }
        let mut columns = builder.finish();
        columns.value_col.pop();
        assert_eq!(columns.check(), Err(ColumnsError::Short { column: "value", have: 1, need: 2 }));
    }

    proptest! {
        /// Whatever goes in comes out bit for bit, in order, and passes the check.
        #[test]
        fn columns_round_trip(
            rows in proptest::collection::vec(
                (0u8..3, 0u64..1u64 << 45, proptest::option::of(0u8..4), any::<f64>().prop_filter("finite", |v| v.is_finite())),
                0..200,
            )
        ) {
            let mut builder = Builder::new(Timestamp(7));
            for (metric, at, unit, value) in &rows {
                builder.push(Row {
                    version: "v", metric: ["a", "b", "c"][*metric as usize], served_at: Timestamp(*at),
                    unit: unit.map(|u| ["u0", "u1", "u2", "u3"][u as usize]), tags: None, value: *value,
                });
            }
            let columns = builder.finish();
            prop_assert_eq!(columns.check(), Ok(()));
            let back: Vec<_> = columns.samples().collect();
            prop_assert_eq!(back.len(), rows.len());
            for (sample, (metric, at, unit, value)) in back.iter().zip(&rows) {
                prop_assert_eq!(&columns.series[sample.series as usize].metric.0, ["a", "b", "c"][*metric as usize]);
                prop_assert_eq!(sample.served_at, Timestamp(*at));
                prop_assert_eq!(sample.value.to_bits(), value.to_bits());
                let name = sample.unit.map(|u| columns.units[u as usize].clone()).filter(|n| !n.is_empty());
                prop_assert_eq!(name, unit.map(|u| format!("u{u}")));
            }
        }
    }
}
