//! One sample object, from JSON or MessagePack, straight into columns.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::aggregate::{self, Summary};
use super::values::{Part, Slot, TimeShape, Value, number};
use super::{SAMPLES_MAX, TAGS_MAX, UNIT_MAX, check_time, too_many_samples};
use crate::core::event::code::Code;
use crate::core::telemetry::columns::{Builder, Row};
use crate::core::text::is_hidden;
use crate::core::time::Timestamp;
use crate::wire::error::{InputError, shown};
use crate::wire::json::KEYS_MAX;
use crate::wire::names;
use crate::wire::time::parse_rfc3339;

/// One request as it was observed. Every field that is not named here is a metric: a number, or a
/// boolean (true is 1, false is 0).
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "documents what `SampleSeed` reads")]
#[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9_.]{0,62}$"}))]
pub struct SampleShape {
    /// What served the request.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[!-~]+$"))]
    version: String,
    /// When it was served: RFC 3339, or milliseconds since 1970. Left out, it is now.
    served_at: Option<TimeShape>,
    /// What the traffic is split by, usually the user.
    #[schemars(length(min = 1, max = 128))]
    unit: Option<String>,
    /// Identity of the message, so that its redelivery does not count again. Only where the message is
    /// a single object.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[!-~]+$"))]
    id: Option<String>,
    /// Slices the request belongs to.
    tags: Option<BTreeMap<String, String>>,
    #[schemars(flatten)]
    metrics: BTreeMap<String, ValueShape>,
}

#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "documents what `SampleSeed` reads")]
#[schemars(untagged, inline)]
pub enum ValueShape {
    Number(f64),
    Boolean(bool),
}

/// The message so far, and room to read the next sample in.
pub struct Intake {
    now: Timestamp,
    pub builder: Builder,
    pub message_id: Option<String>,
    /// What refused the message; serde's own error then says nothing more.
    pub fault: Option<InputError>,
    /// Of the sample being read, where the message has several.
    index: Option<usize>,
    /// The version that was checked last.
    checked: String,
    version: String,
    unit: String,
    tags: String,
    /// The names of the sample's metrics, one after another, and their values.
    names: String,
    metrics: Vec<(usize, usize, f64)>,
    summaries: Vec<Summary>,
    slot: Slot,
}

impl Intake {
    pub fn new(now: Timestamp) -> Intake {
        Intake {
            now,
            builder: Builder::new(now),
            message_id: None,
            fault: None,
            index: None,
            checked: String::new(),
            version: String::new(),
            unit: String::new(),
            tags: String::new(),
            names: String::new(),
            metrics: Vec::new(),
            summaries: Vec::new(),
            slot: Slot::default(),
        }
    }

    /// Reads a message that is one object.
    pub fn single<'de, D: Deserializer<'de>>(&mut self, input: D) -> Result<(), D::Error> {
        SampleSeed(self).deserialize(input)
    }

    /// Reads the next of several objects.
    pub fn one_of_many<'de, D: Deserializer<'de>>(&mut self, input: D) -> Result<(), D::Error> {
        self.index = Some(self.index.map_or(0, |index| index + 1));
        SampleSeed(self).deserialize(input)
    }

    /// Reads a message that is an array of objects.
    pub fn array<'de, D: Deserializer<'de>>(&mut self, input: D) -> Result<(), D::Error> {
        input.deserialize_seq(Array(self))
    }

    /// `sample.v`, or `sample 17: v` in a batch; without a field, the sample.
    fn path(&self, field: &str) -> String {
        match (self.index, field) {
            (None, "") => "sample".to_owned(),
            (None, field) => format!("sample.{}", shown(field)),
            (Some(index), "") => format!("sample {index}"),
            (Some(index), field) => format!("sample {index}: {}", shown(field)),
        }
    }

    fn refuse<E: Error>(&mut self, code: Code, field: &str, what: impl fmt::Display) -> E {
        let path = self.path(field);
        self.refuse_with(InputError::new(code, format!("{path}: {what}")))
    }

    fn refuse_with<E: Error>(&mut self, fault: InputError) -> E {
        self.fault.get_or_insert(fault);
        E::custom("refused")
    }

    /// The identity of the message.
    fn id<E: Error>(&mut self, value: Value) -> Result<(), E> {
        if self.index.is_some() {
            let what = "names a message, not a sample; send one object a message, or the id in the Nats-Msg-Id header";
            return Err(self.refuse(Code::IdOfOne, "id", what));
        }
        let text = self.text("id", value)?;
        let id = names::visible(&self.path("id"), &text).map_err(|fault| self.refuse_with(fault))?;
        let mut message_id = self.message_id.take();
        once(self, "id", &mut message_id, id)?;
        self.message_id = message_id;
        Ok(())
    }

    /// The metric whose name was read, and its value.
    fn metric<'de, M: MapAccess<'de>>(&mut self, map: &mut M) -> Result<(), M::Error> {
        // As in JSON; it bounds the search for names given twice.
        if self.metrics.len() == KEYS_MAX {
            let what = format!("more than {KEYS_MAX} fields in one object");
            return Err(self.refuse(Code::TooManyFields, "", what));
        }
        let from = self.names.len();
        self.names.push_str(&self.slot.text);
        let to = self.names.len();
        if !names::is_metric(&self.names[from..to]) {
            let path = self.path("");
            let name = self.names[from..to].to_owned();
            let what = "is not a metric's name; use [a-z][a-z0-9_.]{0,62}";
            let fault = InputError::new(Code::MetricName, format!("{path}: {:?} {what}", shown(&name)));
            return Err(self.refuse_with(fault));
        }
        let value = self.slot.value(map)?;
        let value = match number(value) {
            Ok(value) => value,
            Err(_) => {
                let field = self.names[from..to].to_owned();
                self.number(&field, value)?
            }
        };
        self.metrics.push((from, to, value));
        Ok(())
    }

    /// The number that is a metric's value.
    fn number<E: Error>(&mut self, field: &str, value: Value) -> Result<f64, E> {
        number(value).map_err(|(code, what)| {
            let text = if value == Value::Text { self.text_of(value) } else { String::new() };
            self.refuse(code, field, format!("{what}{text}"))
        })
    }

    fn text_of(&self, value: Value) -> String {
        match value {
            Value::Text => format!(" {:?}", shown(&self.slot.text)),
            Value::Unsigned(n) => format!(" {n}"),
            Value::Signed(n) => format!(" {n}"),
            Value::Float(n) => format!(" {n}"),
            _ => String::new(),
        }
    }

    /// Puts the string `value` into `slot`'s place and says whether it is fit.
    fn text<E: Error>(&mut self, field: &str, value: Value) -> Result<String, E> {
        if value != Value::Text {
            let found = kind(value);
            let text = self.text_of(value);
            return Err(self.refuse(
                Code::NotANumber,
                field,
                format!("expected a string, got {found}{text}"),
            ));
        }
        let text = &self.slot.text;
        if text.is_empty() || text.len() > UNIT_MAX {
            let length = text.len();
            return Err(self.refuse(
                Code::Length,
                field,
                format!("must have 1 to {UNIT_MAX} bytes, got {length}"),
            ));
        }
        if let Some(c) = text.chars().find(|c| is_hidden(*c)) {
            let what = format!("character U+{:04X} is not allowed", c as u32);
            return Err(self.refuse(Code::Character, field, what));
        }
        Ok(text.clone())
    }

    fn time<E: Error>(&mut self, field: &str, value: Value) -> Result<Timestamp, E> {
        let at = match value {
            Value::Unsigned(ms) => Some(Timestamp(ms)),
            Value::Text => parse_rfc3339(&self.slot.text),
            _ => None,
        };
        let Some(at) = at else {
            let found = match value {
                Value::Null => " null".to_owned(),
                value => self.text_of(value),
            };
            let what = format!("{found} is not an RFC 3339 time or integer milliseconds since 1970");
            return Err(self.refuse(Code::NotATime, field, what.trim_start()));
        };
        let path = self.path(field);
        check_time(&path, at, self.now).map_err(|fault| self.refuse_with(fault))?;
        Ok(at)
    }

    fn tags<E: Error>(&mut self, tags: Part) -> Result<(), E> {
        let mut tags =
            aggregate::fields("tags", tags).map_err(|(code, path, what)| self.refuse(code, &path, what))?;
        if tags.len() > TAGS_MAX {
            return Err(self.refuse(
                Code::TooManySeries,
                "tags",
                format!("more than {TAGS_MAX} tags on a sample"),
            ));
        }
        tags.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, value) in tags {
            let field = format!("tags.{key}");
            if !names::is_metric(&key) {
                let what = format!("{:?} is not a tag's name; use [a-z][a-z0-9_.]{{0,62}}", shown(&key));
                return Err(self.refuse(Code::MetricName, "tags", what));
            }
            let Part::Text(value) = value else {
                return Err(self.refuse(Code::NotANumber, &field, "expected a string"));
            };
            self.slot.text = value;
            let value: String = self.text(&field, Value::Text)?;
            if value.contains([',', '=']) {
                return Err(self.refuse(Code::Character, &field, "characters , and = are not allowed"));
            }
            if !self.tags.is_empty() {
                self.tags.push(',');
            }
            self.tags.extend([key.as_str(), "=", value.as_str()]);
        }
        Ok(())
    }

    /// Enters the sample that was read.
    fn enter<E: Error>(&mut self, times: Times) -> Result<(), E> {
        if self.version.is_empty() {
            return Err(self.refuse(Code::FieldValue, "", "required field version is missing"));
        }
        if self.version != self.checked {
            let path = self.path("version");
            names::version(&path, &self.version).map_err(|fault| self.refuse_with(fault))?;
            self.checked.clone_from(&self.version);
        }
        if self.builder.len() + self.metrics.len() + self.summaries.len() > SAMPLES_MAX {
            return Err(self.refuse_with(too_many_samples()));
        }
        if !self.summaries.is_empty() {
            return self.enter_summaries(times);
        }
        if times.from.or(times.to).is_some() {
            return Err(self.refuse(Code::ImpossibleSum, "", "from and to belong to summed metrics (m)"));
        }
        if self.metrics.is_empty() {
            return Err(self.refuse(Code::NoMetric, "", "has no metric; add one, such as \"error\": false"));
        }
        for (i, (from, to, _)) in self.metrics.iter().enumerate() {
            let name = &self.names[*from..*to];
            if self.metrics[..i].iter().any(|(from, to, _)| &self.names[*from..*to] == name) {
                let what = format!("field {} appears twice", shown(name));
                return Err(self.refuse(Code::GivenTwice, "", what));
            }
        }
        let some = |text| Some(text).filter(|text: &&str| !text.is_empty());
        for (from, to, value) in &self.metrics {
            self.builder.push(Row {
                version: &self.version,
                metric: &self.names[*from..*to],
                served_at: times.served_at.unwrap_or(self.now),
                unit: some(&self.unit),
                tags: some(&self.tags),
                value: *value,
            });
        }
        Ok(())
    }

    fn enter_summaries<E: Error>(&mut self, times: Times) -> Result<(), E> {
        if let Some((from, to, _)) = self.metrics.first() {
            let name = self.names[*from..*to].to_owned();
            return Err(self.refuse(Code::ImpossibleSum, &name, "a summed sample has its metrics under m"));
        }
        if times.served_at.is_some() || !self.unit.is_empty() || !self.tags.is_empty() {
            let what = "a summed sample (m) has from and to, not served_at, unit or tags";
            return Err(self.refuse(Code::ImpossibleSum, "", what));
        }
        let (Some(from), Some(to)) = (times.from, times.to) else {
            let missing = if times.from.is_none() { "from" } else { "to" };
            return Err(self.refuse(Code::FieldValue, "", format!("required field {missing} is missing")));
        };
        if from > to {
            let what = format!("{} ms is before from, {} ms", to.0, from.0);
            return Err(self.refuse(Code::ImpossibleSum, "to", what));
        }
        for summary in std::mem::take(&mut self.summaries) {
            let Summary { metric, n, sums } = summary;
            self.builder.aggregate(&self.version, &metric, from, to, n, sums);
        }
        Ok(())
    }
}

fn kind(value: Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Unsigned(_) | Value::Signed(_) | Value::Float(_) => "the number",
        Value::Text => "the string",
        Value::Nested => "an object or array",
    }
}

#[derive(Clone, Copy, Default)]
struct Times {
    served_at: Option<Timestamp>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

struct SampleSeed<'a>(&'a mut Intake);

impl<'de> DeserializeSeed<'de> for SampleSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

/// Twice is only seen here where the format's own check did not: in MessagePack, or behind escapes.
fn once<E: Error, T>(intake: &mut Intake, field: &str, slot: &mut Option<T>, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(intake.refuse(Code::GivenTwice, "", format!("field {field} appears twice"))),
    }
}

impl<'de> Visitor<'de> for SampleSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sample object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let intake = self.0;
        for text in [&mut intake.version, &mut intake.unit, &mut intake.tags, &mut intake.names] {
            text.clear();
        }
        intake.metrics.clear();
        let mut times = Times::default();
        let (mut version, mut unit, mut tags, mut sums) = (None, None, None, None);
        while intake.slot.key(&mut map)? {
            // The key has to outlive the reading of its value: reserved ones are static, a metric's
            // goes among the names.
            let reserved = RESERVED.iter().find(|name| **name == intake.slot.text);
            match reserved.copied() {
                Some("tags") => {
                    once(intake, "tags", &mut tags, ())?;
                    let part = map.next_value()?;
                    intake.tags(part)?;
                }
                Some("m") => {
                    once(intake, "m", &mut sums, ())?;
                    intake.summaries = aggregate::summaries(map.next_value()?)
                        .map_err(|(code, field, what)| intake.refuse(code, &field, what))?;
                }
                Some(field) => {
                    let value = intake.slot.value(&mut map)?;
                    match field {
                        "version" if value == Value::Text => {
                            once(intake, field, &mut version, ())?;
                            intake.version.clone_from(&intake.slot.text);
                        }
                        "unit" => {
                            once(intake, field, &mut unit, ())?;
                            intake.unit = intake.text(field, value)?;
                        }
                        "id" => intake.id(value)?,
                        "served_at" => {
                            let at = intake.time(field, value)?;
                            once(intake, field, &mut times.served_at, at)?;
                        }
                        "from" => {
                            let at = intake.time(field, value)?;
                            once(intake, field, &mut times.from, at)?;
                        }
                        "to" => {
                            let at = intake.time(field, value)?;
                            once(intake, field, &mut times.to, at)?;
                        }
                        _ => {
                            intake.text::<M::Error>(field, value)?;
                        }
                    }
                }
                None => intake.metric(&mut map)?,
            }
        }
        intake.enter(times)
    }
}

const RESERVED: [&str; 8] = ["version", "served_at", "unit", "id", "tags", "from", "to", "m"];

struct Array<'a>(&'a mut Intake);

impl<'de> Visitor<'de> for Array<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of sample objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.index = Some(0);
        while seq.next_element_seed(SampleSeed(self.0))?.is_some() {
            self.0.index = self.0.index.map(|index| index + 1);
        }
        Ok(())
    }
}
