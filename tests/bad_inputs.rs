//! Every malformed input we could think of, with the one code and the exact message it must be refused
//! with. A row: `id`, `kind`, the input (`input` as text, `hex` as bytes, `repeat` as a text and a number
//! of times, put behind `input`), where it matters `content_type` and `subject`, then `code` and `message`.
//! For policy and config files `message` has the place in front: `9:12 policy: ...`.

use serde::Deserialize;
use sluice::core::time::Timestamp;
use sluice::wire::error::InputError;
use sluice::wire::yaml::FileError;
use sluice::wire::{ack, config_file, intent, policy_file, telemetry};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    kind: String,
    #[serde(default)]
    input: String,
    hex: Option<String>,
    repeat: Option<(String, usize)>,
    content_type: Option<String>,
    subject: Option<String>,
    code: String,
    message: String,
}

impl Row {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.input.clone().into_bytes();
        if let Some(hex) = &self.hex {
            let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            bytes.extend(pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()));
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

#[test]
fn every_bad_input_is_refused_with_its_message() {
    let mut wrong = Vec::new();
    for text in [
        include_str!("bad_inputs/messages.json"),
        include_str!("bad_inputs/telemetry.json"),
        include_str!("bad_inputs/files.json"),
    ] {
        let rows: Vec<Row> = serde_json::from_str(text).unwrap();
        for row in rows {
            let (expected, got) = (format!("{} {}", row.code, row.message), row.refusal());
            if got != expected {
                wrong.push(format!("{}\n  expected {expected}\n  got      {got}", row.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}
