use proptest::prelude::*;

use super::batch::Batch;
use super::*;
use crate::core::event::code::Code;
use crate::core::telemetry::columns::{Row, Sample, Sums};

const NOW: Timestamp = Timestamp(1_763_473_562_000);

fn parse(body: &str) -> Result<Parsed, InputError> {
    parse_telemetry(body.as_bytes(), None, NOW)
}

fn one(parsed: Parsed) -> Columns {
    assert_eq!(parsed.columns.len(), 1);
    parsed.columns.into_iter().next().unwrap()
}

fn values(columns: &Columns) -> Vec<(String, f64)> {
    let named = |s: Sample| (columns.series[s.series as usize].metric.0.clone(), s.value);
    columns.samples().map(named).collect()
}

fn msgpack(value: &impl serde::Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

#[test]
fn the_documented_sample_is_read() {
    let body = r#"{"version":"prompt@42","served_at":"2025-11-18T13:46:02Z","unit":"u-7","id":"s-1",
        "tags":{"region":"eu","lang":"de"},"eval_pass":true,"cost_usd":0.0139,"latency_ms":1812,"error":false}"#;
    let parsed = parse(body).unwrap();
    assert_eq!(parsed.message_id.as_deref(), Some("s-1"));
    let columns = one(parsed);
    let expected = [("eval_pass", 1.0), ("cost_usd", 0.0139), ("latency_ms", 1812.0), ("error", 0.0)];
    assert_eq!(values(&columns), expected.map(|(m, v)| (m.to_owned(), v)));
    let sample = columns.samples().next().unwrap();
    assert_eq!(sample.served_at, NOW);
    assert_eq!(columns.units[sample.unit.unwrap() as usize], "u-7");
    assert_eq!(columns.tags[sample.tag.unwrap() as usize], "lang=de,region=eu");
    assert_eq!(columns.check(), Ok(()));
}

#[test]
fn the_documented_aggregate_is_read() {
    let body = r#"{"version":"prompt@42","from":"2025-11-18T13:46:00Z","to":"2025-11-18T13:46:10Z","id":"evals-7:9913",
        "m":{"eval_pass":{"n":96,"k":85},"cost_usd":{"n":100,"sum":1.39,"sumsq":0.0201},
        "latency_ms":{"n":100,"le":{"1000":22,"2000":91,"4000":99,"inf":100}}}}"#;
    let parsed = parse(body).unwrap();
    assert_eq!(parsed.message_id.as_deref(), Some("evals-7:9913"));
    let columns = one(parsed);
    assert_eq!(columns.observations(), 296);
    assert_eq!(columns.aggregates[0].sums, Sums::Ones(85));
    assert_eq!(columns.aggregates[1].sums, Sums::Moments { sum: 1.39, sumsq: 0.0201 });
    let bounds = vec![1000.0, 2000.0, 4000.0, f64::INFINITY];
    assert_eq!(columns.aggregates[2].sums, Sums::Histogram { bounds, counts: vec![22, 91, 99, 100] });
}

/// An array, lines (named or recognised) and MessagePack say the same.
#[test]
fn every_form_gives_the_same_columns() {
    let samples = [
        serde_json::json!({"version": "b", "served_at": NOW.0 - 5, "error": false, "cost_usd": 0.02}),
        serde_json::json!({"cost_usd": 0.5, "error": true, "version": "c", "served_at": NOW.0 - 9}),
    ];
    let array = serde_json::to_vec(&samples).unwrap();
    let lines = samples.each_ref().map(|s| s.to_string()).join("\r\n") + "\n";
    let expected = parse_telemetry(&array, Some("application/json"), NOW).unwrap();
    assert_eq!(expected.columns[0].n, 4);
    for (body, content_type) in [
        (lines.clone().into_bytes(), None),
        (lines.into_bytes(), Some("application/x-ndjson")),
        (msgpack(&samples), Some("application/msgpack")),
        (msgpack(&Batch { v: 1, columns: expected.columns[0].clone() }), Some("application/vnd.msgpack")),
    ] {
        assert_eq!(parse_telemetry(&body, content_type, NOW).unwrap(), expected, "{content_type:?}");
    }
    let single = msgpack(&samples[0]);
    assert_eq!(one(parse_telemetry(&single, Some("application/msgpack"), NOW).unwrap()).n, 2);
}

#[test]
fn one_bad_sample_refuses_the_message_by_its_index() {
    let good = r#"{"version":"b","error":0}"#;
    let mut samples = [good; 20];
    samples[17] = r#"{"version":"b","error":"no"}"#;
    let expected = r#"sample 17: error: a metric is a number or a boolean, got the string "no""#;
    for body in [format!("[{}]", samples.join(",")), samples.join("\n")] {
        assert_eq!(parse(&body).unwrap_err().message, expected);
    }
    samples[17] = r#"{"version":"b","error":NaN}"#;
    for body in [format!("[{}]", samples.join(",")), samples.join("\n")] {
        assert_eq!(parse(&body).unwrap_err().message, "sample 17: error: NaN is not a JSON number");
    }
}

#[test]
fn a_message_that_one_event_cannot_hold_becomes_several() {
    let sample = |i: u64| {
        let at = NOW.0 - 1_000 + i % 7;
        format!(r#"{{"version":"b","unit":"user-{i:012}","served_at":{at},"x":0.123456789{i},"e":1}}"#)
    };
    let body: Vec<String> = (0..4_000).map(sample).collect();
    let parsed = parse(&body.join("\n")).unwrap();
    assert!(parsed.columns.len() > 1);
    let mut read = 0;
    for columns in &parsed.columns {
        assert_eq!(columns.check(), Ok(()));
        assert!(rmp_serde::to_vec_named(columns).unwrap().len() <= EVENT_MAX);
        for sample in columns.samples() {
            let i = read / 2;
            assert_eq!(columns.units[sample.unit.unwrap() as usize], format!("user-{i:012}"));
            assert_eq!(sample.served_at.0, NOW.0 - 1_000 + i % 7);
            read += 1;
        }
    }
    assert_eq!(read, 8_000);
}

#[test]
fn columns_from_outside_are_checked() {
    let columns = one(parse(r#"{"version":"b","error":0,"x":2.5}"#).unwrap());
    let refused = |change: fn(&mut Columns)| {
        let mut columns = columns.clone();
        change(&mut columns);
        let body = msgpack(&Batch { v: 1, columns });
        parse_telemetry(&body, Some("application/msgpack"), NOW).unwrap_err().code
    };
    assert_eq!(refused(|c| c.n = u32::MAX), Code::SampleCount);
    assert_eq!(refused(|c| c.n = 3), Code::Columns);
    assert_eq!(refused(|c| c.series[0].metric = "A b".into()), Code::Character);
    assert_eq!(refused(|c| c.series[1] = c.series[0].clone()), Code::Columns);
    assert_eq!(refused(|c| c.base = Timestamp(NOW.0 + 400_000)), Code::InTheFuture);
    assert_eq!(refused(|c| c.base = Timestamp(5)), Code::TooOld);
    assert_eq!(refused(|c| c.units = vec!["\u{202e}".into()]), Code::Columns);
}

#[test]
fn negative_zero_is_zero() {
    let columns = one(parse(r#"{"version":"b","x":-0.0,"y":-0}"#).unwrap());
    assert!(columns.samples().all(|s| s.value.to_bits() == 0));
}

#[test]
fn a_number_of_seventeen_digits_is_kept() {
    let columns =
        one(parse(r#"{"version":"b","x":0.30000000000000004,"y":1.7976931348623157e308}"#).unwrap());
    assert_eq!(values(&columns), [("x".into(), 0.1 + 0.2), ("y".into(), f64::MAX)]);
}

#[test]
fn only_rfc_3339_is_a_time() {
    let parse = |at: &str| parse(&format!(r#"{{"version":"b","served_at":"{at}","e":1}}"#));
    for good in ["2025-11-18T13:46:02Z", "2025-11-18T14:46:02.000+01:00", "2025-11-18 13:46:02Z"] {
        assert_eq!(one(parse(good).unwrap()).samples().next().unwrap().served_at, NOW, "{good}");
    }
    for bad in ["2026-02-30T25:61:00", "2025-W47-2T13:46:02Z", "20251118T134602Z", "2025-11-18T13:46:02", "é"]
    {
        assert_eq!(parse(bad).unwrap_err().code, Code::NotATime, "{bad}");
    }
}

fn any_columns() -> impl Strategy<Value = Columns> {
    let row = (0usize..4, 0u64..1 << 39, proptest::option::of(0usize..3), any::<f64>());
    proptest::collection::vec(row, 1..300).prop_map(|rows| {
        let mut builder = Builder::new(NOW);
        for (metric, ago, unit, value) in rows {
            builder.push(Row {
                version: ["a", "b"][metric % 2],
                metric: ["x", "y", "z.q", "w_1"][metric],
                served_at: Timestamp(NOW.0 - ago),
                unit: unit.map(|unit| ["u1", "u2", "u3"][unit]),
                tags: None,
                value: if value.is_finite() { value } else { 0.5 },
            });
        }
        builder.finish()
    })
}

proptest! {
    #[test]
    fn columns_round_trip_through_msgpack(columns in any_columns()) {
        let body = msgpack(&Batch { v: 1, columns: columns.clone() });
        let parsed = parse_telemetry(&body, Some("application/msgpack"), NOW).unwrap();
        prop_assert_eq!(parsed.columns, vec![columns]);
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0usize..4) {
        let _ = parse_telemetry(&bytes, Some(CONTENT_TYPES[kind]), NOW);
    }

    /// Bytes that are nearly right get further than noise does.
    #[test]
    fn nearly_right_bytes_do_not_panic(
        columns in any_columns(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let json = br#"[{"version":"b","served_at":"2025-11-18T13:46:02Z","m":{"e":{"n":5,"le":{"1":2,"inf":5}}},"from":1,"to":2},
            {"version":"\u00e9","id":"x","x":1e3,"tags":{"a":"b"}}]"#.to_vec();
        for (mut bytes, content_type) in [
            (msgpack(&Batch { v: 1, columns: columns.clone() }), "application/msgpack"),
            (json.clone(), "application/json"),
            (json, "application/x-ndjson"),
        ] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            let _ = parse_telemetry(&bytes, Some(content_type), NOW);
        }
    }
}
