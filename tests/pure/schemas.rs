//! The published schemas are those of the types that read the input, and they and the parsers agree on
//! examples. `SLUICE_WRITE_SCHEMAS=1 cargo test --test pure schemas` writes the files anew.

use std::path::Path;

use serde_json::{Value, json};
use sluice::core::state::State;
use sluice::core::time::Timestamp;
use sluice::wire::{ack, config_file, intent, outgoing, policy_file, schema, smoke, telemetry};

use crate::scenario;

const NOW: Timestamp = Timestamp(1_763_473_562_000);

#[test]
fn the_published_schemas_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let all = schema::inputs().into_iter().chain(schema::messages()).chain(sluice::view::api::schemas());
    for (name, value) in all {
        let file = folder.join(format!("{name}.json"));
        let current = schema::text(&value);
        if std::env::var_os("SLUICE_WRITE_SCHEMAS").is_some() {
            std::fs::write(&file, current).unwrap();
            continue;
        }
        let published = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(published == current, "{} differs; SLUICE_WRITE_SCHEMAS=1 writes it", file.display());
        assert_eq!(value["$schema"], "https://json-schema.org/draft/2020-12/schema");
        jsonschema::meta::validate(&value).unwrap();
    }
}

/// Every message of a whole rollout is as its schema says.
#[test]
fn what_is_published_fits_its_schema() {
    let events = scenario::history("nearly_everything");
    let schemas = schema::messages();
    let mut state = State::default();
    let mut seen = std::collections::BTreeSet::new();
    for (seq, at, event) in &events {
        state.apply(*seq, *at, event);
        for message in outgoing::messages(&state, *seq, *at, event) {
            let what = message.subject.split('.').nth(2).unwrap();
            let (_, schema) = schemas.iter().find(|(name, _)| *name == what).unwrap();
            let body: Value = serde_json::from_slice(&message.body()).unwrap();
            jsonschema::validate(schema, &body).unwrap_or_else(|e| panic!("{what}: {e}: {body}"));
            seen.insert(what.to_owned());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["alert", "command", "decision", "rejected"]);
}

/// What the schema says, and what the parser says.
fn judge(name: &str, input: &Value) -> (bool, Result<(), String>) {
    let (_, schema) = schema::inputs().into_iter().find(|(known, _)| *known == name).unwrap();
    let bytes = input.to_string().into_bytes();
    // JSON is YAML, so the examples of files are JSON as well.
    let text = input.to_string();
    let parsed = match name {
        "intent" => intent::parse_intent(&bytes, None, Some("s"), None, NOW).map(drop).map_err(|e| e.message),
        "ack" => ack::parse_ack(&bytes, Some("s")).map(drop).map_err(|e| e.message),
        "policy" => policy_file::parse_policy(&text, "p").map(drop).map_err(|e| e.to_string()),
        "smoke-answer" => smoke::parse_answer(&bytes).map(drop).map_err(|e| e.message),
        "config" => config_file::parse_config(&text, "c").map(drop).map_err(|e| e.to_string()),
        _ => telemetry::parse_telemetry(&bytes, None, NOW).map(drop).map_err(|e| e.message),
    };
    (jsonschema::is_valid(&schema, input), parsed)
}

fn good() -> Vec<(&'static str, Value)> {
    vec![
        (
            "intent",
            json!({"change": {"kind": "prompt", "to": "prompt@42"}, "by": "maya", "reason": "shorter"}),
        ),
        (
            "intent",
            json!({"id": "a-1", "service": "s", "change": {"kind": "vector_store", "from": "i@1", "to": "i@2"},
                "policy": "p-1", "by": "ci", "reason": "new index"}),
        ),
        ("telemetry-sample", json!({"version": "b", "error": false, "latency_ms": 12.5})),
        (
            "telemetry-sample",
            json!({"version": "b", "served_at": "2025-11-18T13:46:02Z", "unit": "u", "id": "m:1",
                "tags": {"region": "eu"}, "x.y_1": 3}),
        ),
        ("telemetry-sample", json!({"version": "b", "served_at": NOW.0, "e": 1})),
        (
            "telemetry-aggregate",
            json!({"version": "b", "from": NOW.0 - 5, "to": "2025-11-18T13:46:02Z", "id": "x",
                "m": {"e": {"n": 9, "k": 3}, "c": {"n": 2, "sum": 3.0, "sumsq": 5.0},
                    "l": {"n": 4, "le": {"1.5": 1, "inf": 4}}}}),
        ),
        (
            "ack",
            json!({"command": "0190a0b0-0000-7000-8000-000000000001", "actuator": "r-eu", "status": "applied"}),
        ),
        (
            "ack",
            json!({"v": 1, "command": "0190a0b0-0000-7000-8000-000000000001", "actuator": "r", "took_ms": 3,
                "status": "rejected", "why": "no such flag", "canary_weight": 25, "service": "s"}),
        ),
        ("policy", policy()),
        ("config", json!({"apiVersion": "sluice.dev/v1", "kind": "Config"})),
        (
            "config",
            json!({"apiVersion": "sluice.dev/v1", "kind": "Config", "nats": {"url": "nats://a:4222", "creds": "c"},
                "http": {"listen": "127.0.0.1:1"}, "data": "d", "policies": "p",
                "disk": {"free_min": "2GiB", "ballast": "1MiB"}, "log_format": "json",
                "smoke_commands": ["/opt/golden"]}),
        ),
        ("smoke-answer", json!({"v": 1, "ok": false, "detail": "3 of 40 differ"})),
    ]
}

fn policy() -> Value {
    json!({
        "apiVersion": "sluice.dev/v1", "kind": "RolloutPolicy", "metadata": {"name": "p"},
        "spec": {
            "applies_to": ["model", "cache"],
            "exposure": {"percent": [
                {"to": "0.5%", "bake": "1h30m", "min_samples": {"e": 5}, "deadline": "2h"}, {"to": "100%"}],
                "soak": "1d"},
            "on_deadline": "rollback",
            "guardrails": [
                {"metric": "e", "kind": "proportion", "better": "lower", "limit": "3pp", "on_fail": "rollback",
                    "weight": 1, "gates": true, "maturity": "5m", "name": "errors"},
                {"metric": "e", "kind": "proportion", "better": "lower", "limit": {"ratio": 1.5, "plus": "0.1pp"},
                    "on_fail": "hold"},
                {"metric": "c", "kind": "mean", "better": "lower", "limit": "20%", "on_fail": "alert"},
                {"metric": "e", "kind": "absolute", "above": "20%", "of_last": 200, "on_fail": "rollback"}],
            "evidence": {"rollback": 20, "promote": 5.5, "promote_last": 20, "cohort": "1m", "reference_min": 500},
            "stale_after": "15m", "approvals": [{"before": "100%", "by": 1}], "concurrency": "refuse",
            "actuators": ["r-eu", {"name": "r-us", "subject": "routers.us", "ack_within": "1m", "resend_every": "10s",
                "on_silent": "rollback"}],
            "ack_timeout": "30s",
            "effective": {"within": "15m", "after": "30s"},
            "smoke": [
                {"name": "golden", "command": ["/opt/golden", "--fast"], "timeout": "10m", "at": "first"},
                {"name": "handshake", "request": "tests.handshake", "timeout": "30s", "on_fail": "hold"}]
        }
    })
}

#[test]
fn schema_and_parser_accept_the_good_examples() {
    for (name, input) in good() {
        assert_eq!(judge(name, &input), (true, Ok(())), "{name}: {input}");
    }
}

/// One change to a good example each: (schema, pointer of the object, key, value).
fn bad() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    vec![
        ("intent", "", "rolback", json!(true)),
        ("intent", "", "by", json!(null)),
        ("intent", "", "service", json!("A.b")),
        ("intent", "", "policy", json!("no/path")),
        ("intent", "/change", "kind", json!("modl")),
        ("intent", "/change", "to", json!("two words")),
        ("telemetry-sample", "", "version", json!(3)),
        ("telemetry-sample", "", "served_at", json!(false)),
        ("telemetry-sample", "", "error", json!("no")),
        ("telemetry-sample", "", "error", json!(null)),
        ("telemetry-sample", "", "nested", json!({})),
        ("telemetry-sample", "", "Upper", json!(1)),
        ("telemetry-sample", "", "unit", json!(null)),
        ("telemetry-sample", "", "tags", json!({"a": 1})),
        ("telemetry-aggregate", "/m/e", "k", json!(-1)),
        ("telemetry-aggregate", "/m/e", "x", json!(1)),
        ("telemetry-aggregate", "", "m", json!({})),
        ("ack", "", "status", json!("ok")),
        ("ack", "", "actuator", json!("a b")),
        ("ack", "", "v", json!(2)),
        ("policy", "", "apiVersion", json!("sluice.dev/v0")),
        ("policy", "/spec", "windows", json!([])),
        ("policy", "/spec", "guardrails", json!([])),
        ("policy", "/spec/exposure/percent/0", "to", json!(5)),
        ("policy", "/spec/exposure/percent/0", "bake", json!("4 hours")),
        ("policy", "/spec/guardrails/0", "kind", json!("survival")),
        ("policy", "/spec/guardrails/0", "limit", json!("3")),
        ("policy", "/spec/guardrails/1/limit", "minus", json!("1pp")),
        ("policy", "/spec/actuators/1", "subject", json!("routers.*")),
        ("policy", "/spec/actuators/1", "on_silent", json!("alert")),
        ("policy", "/spec/effective", "for", json!("1m")),
        ("policy", "/spec/smoke/0", "command", json!("golden --fast")),
        ("policy", "/spec/smoke/1", "at", json!("last")),
        ("smoke-answer", "", "ok", json!("yes")),
        ("config", "", "smoke_commands", json!(["golden"])),
        ("config", "", "log_format", json!("yaml")),
        ("config", "", "http", json!({"port": 80})),
        ("config", "", "disk", json!({"free_min": "5 apples"})),
    ]
}

#[test]
fn schema_and_parser_refuse_the_bad_examples() {
    for (name, pointer, key, value) in bad() {
        let (_, mut input) = good().into_iter().find(|(known, _)| *known == name).unwrap();
        input.pointer_mut(pointer).unwrap()[key] = value;
        let (valid, parsed) = judge(name, &input);
        assert!(!valid, "the schema accepts {name}: {input}");
        assert!(parsed.is_err(), "the parser accepts {name}: {input}");
    }
}

#[test]
fn every_shape_has_a_schema_of_its_own_name() {
    let schemas = sluice::view::api::schemas();
    let mut names: Vec<&str> = schemas.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), schemas.len());
    for (name, schema) in &schemas {
        assert_eq!(schema["type"], "object", "{name}");
        assert!(jsonschema::validator_for(schema).is_ok(), "{name}");
        // What comes in is checked strictly, and its schema says so.
        let strict = schema["additionalProperties"] == false;
        assert_eq!(strict, name.ends_with("-request"), "{name}");
    }
}
