//! What is written reads back as it was, whatever it is: events, records, states, columns, intents, policies.

mod arbitrary;
mod policies;

use std::collections::BTreeSet;

use proptest::prelude::*;
use sluice::core::event::Event;
use sluice::core::event::decision::Reason;
use sluice::core::policy::{ChangeKind, Policy};
use sluice::core::rules::ENGINE;
use sluice::core::state::State;
use sluice::core::telemetry::columns::{Builder, Columns, Row};
use sluice::core::time::Timestamp;
use sluice::wire::envelope::{Fault, Group, Head};
use sluice::wire::{events, intent, policy_file, telemetry};

use crate::scenario;

const NOW: Timestamp = Timestamp(1_763_473_562_000);
/// Kinds of event.
const KINDS: usize = 33;

fn entropy() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..1_500)
}

/// Of the engine that this build has: what another says is not read.
fn any_event() -> impl Strategy<Value = Event> {
    (0..KINDS, entropy()).prop_map(|(kind, entropy)| {
        let mut event = arbitrary::value(&entropy, Some(kind));
        match &mut event {
            Event::EngineAdopted { engine } => *engine = ENGINE,
            Event::RolloutCreated { spec, .. } => spec.engine = ENGINE,
            Event::DecisionMade { decision, .. } => decision.engine = ENGINE,
            _ => {}
        }
        event
    })
}

fn stored(event: &Event) -> ((u8, u8), Vec<u8>) {
    let mut payload = Vec::new();
    (events::encode(event, &mut payload).expect("events are storable"), payload)
}

/// [`KINDS`] are all kinds, and the forms that the generator knows by heart are all reasons.
#[test]
fn every_kind_and_every_reason_is_drawn() {
    let codes: BTreeSet<u8> = (0..KINDS).map(|kind| stored(&arbitrary::value(&[], Some(kind))).0.0).collect();
    assert_eq!(codes.len(), KINDS);
    let known = (0..=u8::MAX).filter(|code| events::name(*code).is_some()).collect();
    assert_eq!(codes, known);
    let reasons: BTreeSet<usize> = (0..=u8::MAX)
        .map(|i| match arbitrary::value::<Reason>(&[0, 0, 0, i], None) {
            Reason::Guardrail { .. } => 0,
            Reason::Samples { .. } => 1,
            Reason::Bake { .. } => 2,
            Reason::Deadline { .. } => 3,
            Reason::Approvals { .. } => 4,
            Reason::Paused { .. } => 5,
            Reason::Operator { .. } => 6,
            Reason::ActuatorRejected { .. } => 7,
            Reason::SoakOver => 8,
            Reason::Window { .. } => 9,
            Reason::Frozen { .. } => 10,
            Reason::Segment { .. } => 11,
            Reason::NotApplied { .. } => 12,
            Reason::Superseded { .. } => 13,
            Reason::Condition { .. } => 14,
            Reason::Effective { .. } => 15,
            Reason::Smoke { .. } => 16,
            Reason::Slice { .. } => 17,
        })
        .collect();
    assert_eq!(reasons.len(), 18);
}

#[derive(Clone, Debug)]
struct Observed {
    series: usize,
    ago: u64,
    unit: Option<usize>,
    tags: Option<usize>,
    value: f64,
}

const SERIES: [(&str, &str); 4] = [("p@1", "error"), ("p@2", "error"), ("p@2", "cost_usd"), ("p@2", "w.x_1")];
const UNITS: [&str; 3] = ["u-1", "é", "a user with a rather long name"];
const TAGS: [(&str, &str); 3] = [("region", "eu"), ("lang", "pt-BR"), ("a.b", "ü")];

fn any_finite() -> impl Strategy<Value = f64> {
    let whole = any::<i32>().prop_map(f64::from);
    let decimal = (any::<i64>(), 0i32..9).prop_map(|(n, places)| n as f64 / 10f64.powi(places));
    let bits = any::<u64>().prop_map(f64::from_bits);
    let edges = prop::sample::select(vec![
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        0.0,
        2f64.powi(53),
    ]);
    prop_oneof![whole, decimal, bits, edges].prop_filter("finite", |v| v.is_finite())
}

fn any_observed() -> impl Strategy<Value = Vec<Observed>> {
    let one = (
        0..SERIES.len(),
        0u64..1 << 39,
        prop::option::of(0..UNITS.len()),
        prop::option::of(0..TAGS.len()),
        any_finite(),
    )
        .prop_map(|(series, ago, unit, tags, value)| Observed { series, ago, unit, tags, value });
    proptest::collection::vec(one, 1..120)
}

fn built(rows: &[Observed]) -> Columns {
    let mut builder = Builder::new(NOW);
    for o in rows {
        let (version, metric) = SERIES[o.series];
        let tags = o.tags.map(|i| format!("{}={}", TAGS[i].0, TAGS[i].1));
        let (unit, tags) = (o.unit.map(|unit| UNITS[unit]), tags.as_deref());
        builder.push(Row {
            version,
            metric,
            served_at: Timestamp(NOW.0 - o.ago),
            unit,
            tags,
            value: o.value,
        });
    }
    builder.finish()
}

/// What was observed, out of columns: a message may have become several.
fn read<'a>(
    columns: impl IntoIterator<Item = &'a Columns>,
) -> Vec<(String, String, u64, String, String, u64)> {
    let mut all = Vec::new();
    for columns in columns {
        let name =
            |names: &[String], index: Option<u32>| index.map_or(String::new(), |i| names[i as usize].clone());
        for s in columns.samples() {
            let series = &columns.series[s.series as usize];
            let (unit, tags) = (name(&columns.units, s.unit), name(&columns.tags, s.tag));
            all.push((
                series.version.0.clone(),
                series.metric.0.clone(),
                s.served_at.0,
                unit,
                tags,
                s.value.to_bits(),
            ));
        }
    }
    all
}

/// What [`read`] should find.
fn expected(rows: &[Observed], value: fn(f64) -> f64) -> Vec<(String, String, u64, String, String, u64)> {
    let one = |o: &Observed| {
        let (version, metric) = SERIES[o.series];
        let tags = o.tags.map_or(String::new(), |i| format!("{}={}", TAGS[i].0, TAGS[i].1));
        let unit = o.unit.map_or("", |unit| UNITS[unit]).to_owned();
        (version.to_owned(), metric.to_owned(), NOW.0 - o.ago, unit, tags, value(o.value).to_bits())
    };
    rows.iter().map(one).collect()
}

fn sample(o: &Observed) -> serde_json::Value {
    let (version, metric) = SERIES[o.series];
    let mut sample = serde_json::json!({"version": version, "served_at": NOW.0 - o.ago, metric: o.value});
    if let Some(unit) = o.unit {
        sample["unit"] = UNITS[unit].into();
    }
    if let Some(tags) = o.tags {
        sample["tags"] = serde_json::json!({TAGS[tags].0: TAGS[tags].1});
    }
    sample
}

/// Visible text without spaces, as versions and ids have it.
fn visible() -> impl Strategy<Value = String> {
    "[!-~]{1,128}".prop_filter("a version stays", |text| {
        let tag = text.rsplit([':', '@']).next().unwrap_or_default().to_ascii_lowercase();
        !["latest", "main", "master", "head", "current", "stable", "nightly", "edge"].contains(&tag.as_str())
    })
}

/// Words for people, of any script.
fn prose() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 äß漢字🦀,.\"\\\\<>&/-]{1,200}".prop_filter("not blank", |text| !text.trim().is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn an_event_of_any_kind_reads_back_to_the_same_bytes(event in any_event()) {
        let ((kind, version), payload) = stored(&event);
        let back = events::decode(kind, version, &payload);
        let back = back.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(back.kind(), event.kind());
        prop_assert_eq!(stored(&back), ((kind, version), payload));
    }

    /// Whole, cut anywhere, and with any bit changed.
    #[test]
    fn records_read_back_and_every_change_is_found_in_its_record(
        some in proptest::collection::vec((any_event(), 0u64..5_000), 1..6),
        first in 0u64..1 << 40, cut in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(),
    ) {
        let start = Head { seq: first, ..Head::default() };
        let mut group = Group::after(start);
        let mut at = NOW;
        for (event, later) in &some {
            at = Timestamp(at.0 + later);
            prop_assume!(group.push(event, at).is_ok());
        }
        let bytes = group.bytes();
        // The records before the first that does not read, and what is wrong with that.
        let walk = |bytes: &[u8]| {
            let (mut head, mut offset, mut read) = (start, 0, Vec::new());
            while offset < bytes.len() {
                let record = match head.accept(bytes, &mut offset) {
                    Ok(record) => record,
                    Err(error) => return (read, Some(error), head),
                };
                read.push((record.seq, stored(&record.event().expect("a sound record decodes"))));
            }
            (read, None, head)
        };
        let all: Vec<_> = some.iter().zip(first + 1..).map(|((event, _), seq)| (seq, stored(event))).collect();
        let (read, error, head) = walk(bytes);
        prop_assert_eq!((&read, error), (&all, None));
        prop_assert_eq!((head, head.at), (group.head(), at));

        let cut = cut.index(bytes.len());
        let whole = group.ends().iter().filter(|end| **end <= cut).count();
        let (read, error, _) = walk(&bytes[..cut]);
        prop_assert_eq!(&read, &all[..whole]);
        match error {
            None => prop_assert!(cut == 0 || group.ends().contains(&cut)),
            Some(error) => {
                prop_assert_eq!(error.seq, first + 1 + whole as u64);
                prop_assert!(matches!(error.fault, Fault::Truncated { .. }), "{}", error);
            }
        }

        let bit = bit.index(bytes.len() * 8);
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let hit = group.ends().iter().filter(|end| **end <= bit / 8).count();
        let (read, error, _) = walk(&changed);
        prop_assert_eq!(&read, &all[..hit]);
        prop_assert_eq!(error.map(|error| error.seq), Some(first + 1 + hit as u64));
    }

    #[test]
    fn any_state_reads_back_with_the_same_digest(entropy in proptest::collection::vec(any::<u8>(), 0..4_000)) {
        let state: State = arbitrary::value(&entropy, None);
        let bytes = rmp_serde::to_vec_named(&state).unwrap();
        let back: State = rmp_serde::from_slice(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(back.digest(), state.digest());
        prop_assert_eq!(rmp_serde::to_vec_named(&back).unwrap(), bytes);
    }

    /// Through columns as they are stored, and as a sender's message of columns.
    #[test]
    fn observations_come_out_of_columns_as_they_went_in(rows in any_observed()) {
        let columns = built(&rows);
        prop_assert_eq!(columns.check(), Ok(()));
        prop_assert_eq!(read([&columns]), expected(&rows, |v| v));
        let stored = rmp_serde::to_vec_named(&columns).unwrap();
        let back: Columns = rmp_serde::from_slice(&stored).unwrap();
        prop_assert_eq!(&back, &columns);
        let batch = batch(&columns);
        let parsed = telemetry::parse_telemetry(&batch, Some("application/msgpack"), NOW).unwrap();
        prop_assert_eq!(parsed.columns, vec![columns]);
    }

    /// Through every form that a sender may choose; a negative zero arrives as zero.
    #[test]
    fn observations_come_out_of_samples_as_they_went_in(rows in any_observed()) {
        let samples: Vec<_> = rows.iter().map(sample).collect();
        let expected = expected(&rows, |v| v + 0.0);
        let lines = samples.iter().map(|s| format!("{s}\n")).collect::<String>();
        for (body, content_type) in [
            (serde_json::to_vec(&samples).unwrap(), "application/json"),
            (lines.into_bytes(), "application/x-ndjson"),
            (rmp_serde::to_vec_named(&samples).unwrap(), "application/vnd.msgpack"),
        ] {
            let parsed = telemetry::parse_telemetry(&body, Some(content_type), NOW).unwrap();
            prop_assert_eq!(read(&parsed.columns), expected.as_slice(), "{}", content_type);
        }
    }

    #[test]
    fn an_intent_says_what_was_written(
        id in visible(), service in "[a-z0-9][a-z0-9-]{0,62}", policy in prop::option::of("[a-z0-9][a-z0-9-]{0,62}"),
        kind in prop::sample::select(ChangeKind::ALL.to_vec()), from in prop::option::of(visible()), to in visible(),
        by in prose(), reason in prose(), event in any::<bool>(), by_subject in any::<bool>(),
    ) {
        prop_assume!(from.as_ref() != Some(&to));
        let mut body = serde_json::json!({
            "id": id, "service": service, "change": {"kind": kind, "from": from, "to": to}, "policy": policy,
            "by": by, "reason": reason,
        });
        if by_subject {
            body.as_object_mut().unwrap().remove("service");
        }
        let subject = by_subject.then_some(service.as_str());
        let (body, content_type) = if event {
            let event = serde_json::json!({"specversion": "1.0", "id": "ce", "source": "/ci", "type": "t", "data": body});
            (event.to_string(), Some("application/cloudevents+json"))
        } else {
            (body.to_string(), None)
        };
        let parsed = intent::parse_intent(body.as_bytes(), content_type, subject, Some("m"), NOW);
        let parsed = parsed.map_err(|error| TestCaseError::fail(error.message))?;
        prop_assert_eq!(
            (parsed.id.0, parsed.service.0, parsed.kind, parsed.from.map(|v| v.0), parsed.to.0),
            (id, service, kind, from, to)
        );
        prop_assert_eq!((parsed.policy, parsed.by, parsed.reason), (policy, by, reason));
    }

    /// There is no canonical form of a policy: it is written here as a person would.
    #[test]
    fn a_policy_says_what_was_written(policy in policies::any_policy()) {
        let text = policies::text(&policy);
        let parsed = policy_file::parse_policy(&text, "p.yaml");
        let parsed = parsed.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(&parsed, &policy, "{}", text);
        let stored = rmp_serde::to_vec_named(&policy).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Policy>(&stored).unwrap(), policy);
    }
}

/// A message of ready columns.
fn batch(columns: &Columns) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Batch<'a> {
        v: u32,
        columns: &'a Columns,
    }
    rmp_serde::to_vec_named(&Batch { v: 1, columns }).unwrap()
}

/// After every event of a history with nearly everything in it; folding goes on from what was read back.
#[test]
fn the_state_of_a_real_history_reads_back_at_every_event() {
    let (runner, history) = scenario::run("nearly_everything");
    let (mut state, mut stored) = (State::default(), State::default());
    for (i, (seq, at, event)) in history.iter().enumerate() {
        state.apply(*seq, *at, event);
        stored.apply(*seq, *at, event);
        // Telemetry is nearly all of a history: a part of it will do.
        if event.kind() != "batch.received" || i % 50 == 0 {
            let agenda = std::mem::take(&mut stored.agenda);
            stored = rmp_serde::from_slice(&rmp_serde::to_vec_named(&stored).unwrap()).unwrap();
            stored.agenda = agenda;
            assert_eq!(stored.digest(), state.digest(), "seq {seq}, {}", event.kind());
        }
    }
    assert_eq!(stored.digest(), runner.state.digest());
}
