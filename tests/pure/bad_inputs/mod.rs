//! Every malformed input we could think of, with the one code and the exact message it must be refused
//! with. A row: `id`, `kind`, the input (`input` as text, `hex` as bytes, `repeat` and `repeat_hex` with a
//! number of times, one behind the other), where it matters `content_type` and `subject`, then `code` and `message`.
//! For policy and config files `message` has the place in front: `9:12 policy: ...`. A row without a code is
//! harmless and must be accepted.
//!
//! `bad_inputs/catalogue.json` has a line for each situation that was thought of beforehand: its rows here
//! (whose ids begin with the situation's), or the test elsewhere, or why there is none yet.

use std::collections::BTreeMap;

use serde::Deserialize;
use sluice::core::time::Timestamp;
use sluice::wire::error::InputError;
use sluice::wire::yaml::FileError;
use sluice::wire::{ack, config_file, intent, policy_file, telemetry};

use crate::scenarios;

mod codes;
mod refusals;
mod situations;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    kind: String,
    #[serde(default)]
    input: String,
    hex: Option<String>,
    repeat: Option<(String, usize)>,
    repeat_hex: Option<(String, usize)>,
    content_type: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Row {
    fn expected(&self) -> String {
        if self.code.is_empty() { "accepted".to_owned() } else { format!("{} {}", self.code, self.message) }
    }

    fn bytes(&self) -> Vec<u8> {
        let of_hex = |hex: &str| -> Vec<u8> {
            let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
        };
        let mut bytes = self.input.clone().into_bytes();
        bytes.extend(self.hex.as_deref().map(of_hex).unwrap_or_default());
        if let Some((hex, times)) = &self.repeat_hex {
            bytes.extend(of_hex(hex).repeat(*times));
        }
        if let Some((text, times)) = &self.repeat {
            bytes.extend(text.repeat(*times).bytes());
        }
        bytes
    }

    /// `code message` of the refusal.
    fn refusal(&self) -> String {
        let (bytes, now) = (self.bytes(), Timestamp(1_763_473_562_000));
        let (content_type, subject) = (self.content_type.as_deref(), self.subject.as_deref());
        let wire = |error: InputError| format!("{} {}", error.code, error.message);
        let file = |error: FileError| {
            let fault = &error.0[0];
            format!("{} {}:{} {}", fault.code, fault.place.line, fault.place.column, fault.message)
        };
        let text = || std::str::from_utf8(&bytes).unwrap();
        let result = match self.kind.as_str() {
            "intent" => {
                intent::parse_intent(&bytes, content_type, subject, None, now).map(drop).map_err(wire)
            }
            "ack" => ack::parse_ack(&bytes, subject).map(drop).map_err(wire),
            "telemetry" => telemetry::parse_telemetry(&bytes, content_type, now).map(drop).map_err(wire),
            "policy" => policy_file::parse_policy(text(), "p.yaml").map(drop).map_err(file),
            "config" => config_file::parse_config(text(), "c.yaml").map(drop).map_err(file),
            other => panic!("{}: no parser for {other}", self.id),
        };
        result.err().unwrap_or_else(|| "accepted".to_owned())
    }
}

fn rows() -> Vec<Row> {
    let files = [include_str!("messages.json"), include_str!("telemetry.json"), include_str!("files.json")];
    files.into_iter().flat_map(|text| serde_json::from_str::<Vec<Row>>(text).unwrap()).collect()
}

#[test]
fn every_bad_input_is_refused_with_its_message() {
    let mut wrong = Vec::new();
    for row in rows() {
        let (expected, got) = (row.expected(), row.refusal());
        if got != expected {
            wrong.push(format!("{}\n  expected {expected}\n  got      {got}", row.id));
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// One situation of the catalogue: exactly one of `rows`, `test` and `not_yet`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Situation {
    id: String,
    situation: String,
    /// Rows of this test have its id.
    #[serde(default)]
    rows: bool,
    /// `binary::name`; that it is there and runs, `references` sees to.
    test: Option<String>,
    /// What the trace must say, if the test is a scenario.
    says: Option<String>,
    /// Why it cannot come in, or is not refused.
    not_yet: Option<String>,
}

/// How many situations each group has.
const CATALOGUE: [(&str, usize); 7] =
    [("INT", 20), ("TEL", 18), ("POL", 17), ("CLI", 7), ("HTTP", 16), ("LOG", 9), ("NATS", 5)];

#[test]
fn every_situation_of_the_catalogue_has_its_place() {
    let situations: Vec<Situation> = serde_json::from_str(include_str!("catalogue.json")).unwrap();
    let rows: Vec<String> = rows().into_iter().map(|row| row.id).collect();
    let is_of = |row: &str, id: &str| row.strip_prefix(id).is_some_and(|rest| rest.starts_with(' '));
    let mut wrong = Vec::new();
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, s) in situations.iter().enumerate() {
        *groups.entry(s.id.split('-').next().unwrap_or_default()).or_default() += 1;
        if situations[..i].iter().any(|earlier| earlier.id == s.id) || s.situation.is_empty() {
            wrong.push(format!("{}: is there twice, or says nothing", s.id));
        }
        let place = match (s.rows, &s.test, &s.says, &s.not_yet) {
            (true, None, None, None) if rows.iter().any(|row| is_of(row, &s.id)) => Ok(()),
            (true, None, None, None) => Err("no row has its id".to_owned()),
            (false, Some(test), Some(says), None) => scenarios::says(test, says),
            (false, Some(_), None, None) => Ok(()),
            (false, None, None, Some(why)) if !why.is_empty() => Ok(()),
            _ => Err("needs one of rows, test, not_yet".to_owned()),
        };
        wrong.extend(place.err().map(|why| format!("{} ({}): {why}", s.id, s.situation)));
    }
    for row in &rows {
        let id = row.split(' ').next().unwrap_or_default();
        let group =
            CATALOGUE.iter().any(|(group, _)| id.strip_prefix(group).is_some_and(|n| n.starts_with('-')));
        if group && !situations.iter().any(|s| s.id == id && s.rows) {
            wrong.push(format!("the row {row} has an id that the catalogue does not list as rows"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(groups, CATALOGUE.into_iter().collect());
}
