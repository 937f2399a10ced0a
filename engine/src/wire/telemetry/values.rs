//! The values of a sample, from any serde format, without allocating.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::core::event::code::Code;
use crate::core::telemetry::columns::{Columns, Row, Sample};

/// A scalar. Its text, where it is one, is in the [`Slot`] it was read into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
    /// An object, an array or bytes; reading stops there.
    Nested,
}

/// The number that a scalar is, or the code and what keeps it from being one.
pub fn number(value: Value) -> Result<f64, (Code, String)> {
    let (code, what) = match value {
        Value::Bool(is) => return Ok(f64::from(u8::from(is))),
        Value::Unsigned(n) if n as f64 as u128 == u128::from(n) => return Ok(n as f64),
        Value::Signed(n) if n as f64 as i128 == i128::from(n) => return Ok(n as f64),
        // Adding zero makes the negative zero the positive one.
        Value::Float(n) if n.is_finite() => return Ok(n + 0.0),
        Value::Float(n) if n.is_nan() => (Code::NotFinite, "NaN is not a finite number"),
        Value::Float(_) => (Code::OutOfRange, "out of range for a finite number"),
        Value::Unsigned(n) => {
            return Err((Code::NotExact, format!("{n} is above 2^53 and cannot be kept exactly")));
        }
        Value::Signed(n) => {
            return Err((Code::NotExact, format!("{n} is below -2^53 and cannot be kept exactly")));
        }
        Value::Null => (Code::Null, "missing value is not zero and not success; leave the field out"),
        Value::Text => (Code::NotANumber, "a metric is a number or a boolean, got the string"),
        Value::Nested => (Code::NotANumber, "a metric is a number or a boolean, got an object or array"),
    };
    Err((code, what.to_owned()))
}

// A time, as the schemas have it.
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "documents what samples and aggregates read")]
#[schemars(untagged, inline)]
pub enum TimeShape {
    Text(#[schemars(extend("format" = "date-time"))] String),
    Milliseconds(u64),
}

/// Where a value is read into; used again for the next.
#[derive(Default)]
pub struct Slot {
    pub text: String,
    nested: bool,
}

impl Slot {
    /// Reads the value that `map` is at.
    pub fn value<'de, M: MapAccess<'de>>(&mut self, map: &mut M) -> Result<Value, M::Error> {
        self.nested = false;
        match map.next_value_seed(Scalar(self)) {
            Err(_) if self.nested => Ok(Value::Nested),
            result => result,
        }
    }

    /// Reads the next key of `map` into `text`; false at its end.
    pub fn key<'de, M: MapAccess<'de>>(&mut self, map: &mut M) -> Result<bool, M::Error> {
        match map.next_key_seed(Scalar(self))? {
            None => Ok(false),
            Some(Value::Text) => Ok(true),
            // MessagePack allows anything; `text` would still be that of the last string.
            Some(_) => Err(Error::custom("a field's name must be a string")),
        }
    }
}

struct Scalar<'a>(&'a mut Slot);

impl<'de> DeserializeSeed<'de> for Scalar<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a boolean or a string")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        self.0.text.clear();
        self.0.text.push_str(value);
        Ok(Value::Text)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Value, E> {
        self.0.nested = true;
        Err(E::custom("bytes"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        self.0.nested = true;
        Err(A::Error::custom("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        self.0.nested = true;
        Err(A::Error::custom("an object"))
    }
}

/// A small value that is kept whole: tags and sums, never a sample.
#[derive(Debug, PartialEq)]
pub enum Part {
    Scalar(Value),
    Text(String),
    Map(Vec<(String, Part)>),
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Part, D::Error> {
        input.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a string or an object")
    }

    fn visit_unit<E>(self) -> Result<Part, E> {
        Ok(Part::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Part, E> {
        Ok(Part::Scalar(Value::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Part, E> {
        Ok(Part::Scalar(Value::Unsigned(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Part, E> {
        Ok(Part::Scalar(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Part, E> {
        Ok(Part::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Part, E> {
        Ok(Part::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Part, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Part::Scalar(Value::Nested))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = map.next_entry()? {
            parts.push(part);
        }
        Ok(Part::Map(parts))
    }
}

/// A sample with its names, as a [`crate::core::columns::Builder`] takes it.
pub fn row<'a>(columns: &'a Columns, sample: &Sample) -> Row<'a> {
    let series = &columns.series[sample.series as usize];
    // The empty name stands for none.
    let named = |names: &'a [String], index: Option<u32>| {
        index.map(|index| names[index as usize].as_str()).filter(|name| !name.is_empty())
    };
    Row {
        version: series.version.as_str(),
        metric: series.metric.as_str(),
        served_at: sample.served_at,
        unit: named(&columns.units, sample.unit),
        tags: named(&columns.tags, sample.tag),
        value: sample.value,
    }
}
