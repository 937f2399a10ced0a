//! JSON Schemas (draft 2020-12) of what people and programs write, made from the types that read it.
//!
//! They say what a schema can: fields, types, spellings. What depends on several values (steps rise,
//! weights sum to 1) or on the time, the parsers say.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::ack::AckBody;
use super::config_file::ConfigFile;
use super::intent::IntentBody;
use super::outgoing::{AlertMessage, CommandMessage, DecisionMessage, RejectedMessage};
use super::policy_file::PolicyFile;
use super::smoke::{SmokeAnswer, SmokeRequest};
use super::telemetry::{AggregateShape, SampleShape};

/// Where the schemas are published; a file's name follows.
pub const BASE: &str = "https://sluice.dev/schemas/v1/";

/// Every schema of an input, by name.
pub fn inputs() -> Vec<(&'static str, Value)> {
    vec![
        ("intent", schema::<IntentBody>("intent", "Intent")),
        ("telemetry-sample", without_null(schema::<SampleShape>("telemetry-sample", "Sample"))),
        ("telemetry-aggregate", without_null(schema::<AggregateShape>("telemetry-aggregate", "Aggregate"))),
        ("ack", schema::<AckBody>("ack", "Ack")),
        ("policy", schema::<PolicyFile>("policy", "RolloutPolicy")),
        ("config", schema::<ConfigFile>("config", "Config")),
        ("smoke-answer", schema::<SmokeAnswer>("smoke-answer", "Answer to a smoke test")),
    ]
}

/// What sluice publishes.
pub fn messages() -> Vec<(&'static str, Value)> {
    vec![
        ("decision", schema::<DecisionMessage>("decision", "Decision")),
        ("command", schema::<CommandMessage>("command", "Command")),
        ("alert", schema::<AlertMessage>("alert", "Alert")),
        ("rejected", schema::<RejectedMessage>("rejected", "Rejected input")),
        ("smoke-request", schema::<SmokeRequest>("smoke-request", "Smoke test")),
    ]
}

/// The schema of `T`, published as `<name>.json`.
pub fn schema<T: JsonSchema>(name: &str, title: &str) -> Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), format!("{BASE}{name}.json").into());
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

/// A field may be left out, but not null: in telemetry null is a missing value, which is neither zero nor
/// success.
fn without_null(mut schema: Value) -> Value {
    match &mut schema {
        Value::Array(items) => {
            let before = items.len();
            items.retain(|item| *item != "null" && item["type"] != "null");
            items.iter_mut().for_each(|item| *item = without_null(item.take()));
            if let [only] = items.as_mut_slice()
                && before == 2
                && only.is_string()
            {
                return only.take();
            }
        }
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| *field = without_null(field.take()));
        }
        _ => {}
    }
    schema
}

/// A schema as its file holds it.
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}
