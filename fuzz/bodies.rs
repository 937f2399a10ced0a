//! What every parser of bytes from outside must hold, whatever the bytes: one function a target. The fuzzer
//! (`fuzz_targets/`) and a plain test (`tests/log/fuzz_corpus.rs`) both include this file.
//!
//! Beyond that nothing panics: an error text is short and shows nothing unseen; what is accepted fits one
//! record, is taken by the core, and reads back as itself.

use std::io::Write;

use sluice::core::event::Event;
use sluice::core::event::bundle::Composition;
use sluice::core::event::fact::{Delivery, Inbound, Origin};
use sluice::core::ids::{Digest, Service};
use sluice::core::policy::Step;
use sluice::core::state::State;
use sluice::core::telemetry::columns::Columns;
use sluice::core::text::is_hidden;
use sluice::core::time::{Span, Timestamp};
use sluice::core::words::line;
use sluice::runner::Runner;
use sluice::shell::log::{Export, LogError};
use sluice::wire::envelope::{self, EnvelopeError, FRAMING, Group, Head, RECORD_MAX};
use sluice::wire::error::{InputError, excerpt, shown};
use sluice::wire::json::{self, Form, NESTING_MAX};
use sluice::wire::yaml::{Checker, FileError, Percent, Points, Scalar};
use sluice::wire::{ack, config_file, events, intent, names, policy_file, telemetry};

pub type Body = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Body); 10] = [
    ("intent", intent),
    ("ack", ack),
    ("telemetry", telemetry),
    ("policy", policy),
    ("config", config),
    ("envelope", envelope),
    ("event", event),
    ("json", json),
    ("yaml", yaml),
    ("export", export),
];

/// The time at which everything comes in.
pub const NOW: Timestamp = Timestamp(1_763_473_562_000);
/// Longest error text. The longest path (32 levels of 64 escaped bytes) would be longer: nothing has it.
const MESSAGE_MAX: usize = 4_096;

/// The first byte (a digit in the corpus) chooses among `n` variants; the rest is the input.
fn choice(data: &[u8], n: u8) -> Option<(u8, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((first.wrapping_sub(b'0') % n, rest))
}

fn assert_visible(text: &str) {
    assert!(text.len() <= MESSAGE_MAX, "{} bytes: {}", text.len(), shown(text));
    assert!(!text.contains(is_hidden), "unseen characters in {text:?}");
    assert!(!text.is_empty());
}

/// An error on its way into the log and to people.
fn refused(error: InputError, input: &[u8]) {
    let digits = error.code.as_str().strip_prefix('E').expect("a code begins with E");
    assert!(digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()), "{}", error.code);
    assert_visible(&error.message);
    assert!(!excerpt(input).contains(is_hidden));
    recorded(&Event::InputRejected { rejection: error.rejection(input, "fuzz"), origin: Origin::default() });
}

fn refused_file(error: FileError) {
    assert!(!error.0.is_empty(), "a refusal without a reason");
    for fault in &error.0 {
        assert_visible(&fault.message);
        let text = fault.to_string();
        assert!(text.len() <= 2 * MESSAGE_MAX, "{} bytes", text.len());
        assert!(!text.replace('\n', "").contains(is_hidden), "unseen characters in {text:?}");
    }
    assert_visible(&InputError::from(error).message);
}

/// A fact from outside fits a record, reads back, and has a line.
fn recorded(fact: &Event) {
    let mut group = Group::after(Head::default());
    group.push(fact, NOW).expect("what is accepted fits one record");
    let back = envelope::decode(group.bytes(), &mut 0).expect("what was written reads back");
    assert_eq!(&back.event, fact);
    assert!(!line::describe(fact).is_empty());
}

/// It also does not stop the core.
fn taken(fact: Event) {
    recorded(&fact);
    let mut runner = Runner::new(State::default());
    let mut events = 0;
    runner.take(NOW, fact, &mut |_, _, _| events += 1);
    assert!(events > 0);
    let stored = rmp_serde::to_vec_named(&runner.state).expect("the state is storable");
    let state: State = rmp_serde::from_slice(&stored).expect("a stored state reads back");
    assert_eq!(state.digest(), runner.state.digest());
}

fn origin() -> Origin {
    let delivery = Some(Delivery { stream: Inbound::Telemetry, seq: 1, published: None });
    Origin { delivery, message_id: None, traceparent: None }
}

pub fn intent(data: &[u8]) {
    let Some((variant, body)) = choice(data, 4) else { return };
    let content_type = [None, Some("application/cloudevents+json"), None, None][usize::from(variant)];
    let subject = [None, None, Some("chat"), None][usize::from(variant)];
    let message_id = [None, None, None, Some("m-1")][usize::from(variant)];
    match intent::parse_intent(body, content_type, subject, message_id, NOW) {
        Err(error) => refused(error, body),
        Ok(intent) => {
            names::service("service", intent.service.as_str()).expect("a service");
            names::pinned_version("to", intent.to.as_str()).expect("a version");
            names::intent_id("id", intent.id.as_str()).expect("an id");
            assert_ne!(intent.from.as_ref(), Some(&intent.to));
            // Written out again it is the same intent; only what was submitted differs.
            let parts = |of: &Composition| (!of.parts.is_empty()).then(|| of.parts.clone());
            let written = serde_json::json!({
                "id": intent.id, "service": intent.service, "policy": intent.policy, "by": intent.by,
                "reason": intent.reason, "finding": intent.finding, "scopes": intent.scopes,
                "change": {
                    "kind": intent.kind, "from": intent.from, "to": intent.to,
                    "bundle": parts(&intent.composition), "from_bundle": parts(&intent.from_composition),
                    "git": intent.composition.git, "significant": intent.significant,
                },
            });
            let mut again = intent::parse_intent(written.to_string().as_bytes(), None, None, None, NOW)
                .expect("a written intent is read");
            again.content = intent.content;
            assert_eq!(again, intent);
            taken(Event::IntentReceived { intent, origin: origin() });
        }
    }
}

pub fn ack(data: &[u8]) {
    let Some((variant, body)) = choice(data, 2) else { return };
    match ack::parse_ack(body, [None, Some("chat")][usize::from(variant)]) {
        Err(error) => refused(error, body),
        Ok(ack) => {
            names::service("service", ack.service.as_str()).expect("a service");
            names::actuator("actuator", ack.actuator.as_str()).expect("an actuator");
            taken(Event::AckReceived { ack, origin: origin() });
        }
    }
}

pub fn telemetry(data: &[u8]) {
    let Some((variant, body)) = choice(data, 5) else { return };
    let content_type = (variant > 0).then(|| telemetry::CONTENT_TYPES[usize::from(variant) - 1]);
    let parsed = match telemetry::parse_telemetry(body, content_type, NOW) {
        Err(error) => return refused(error, body),
        Ok(parsed) => parsed,
    };
    assert!(!parsed.columns.is_empty());
    let samples: usize = parsed.columns.iter().map(|c| c.n as usize + c.aggregates.len()).sum();
    assert!((1..=telemetry::SAMPLES_MAX).contains(&samples), "{samples} samples");
    for columns in parsed.columns {
        columns.check().expect("columns that were accepted are sound");
        assert_eq!(columns.samples().count(), columns.n as usize);
        let counts: u64 = columns.counts().iter().sum();
        assert_eq!(counts, columns.observations());
        for series in &columns.series {
            names::version("version", series.version.as_str()).expect("a version");
            assert!(names::is_metric(series.metric.as_str()), "{}", series.metric);
        }
        // The ready columns of a message are the message.
        let batch = batch(&columns);
        let again = telemetry::parse_telemetry(&batch, Some("application/msgpack"), NOW);
        let again = again.expect("columns that were accepted are accepted as columns");
        assert_eq!(again.columns.len(), 1);
        assert_eq!(self::batch(&again.columns[0]), batch);
        taken(Event::BatchReceived { service: Service::from("chat"), columns, origin: origin() });
    }
}

/// A message of ready columns.
pub fn batch(columns: &Columns) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Batch<'a> {
        v: u32,
        columns: &'a Columns,
    }
    rmp_serde::to_vec_named(&Batch { v: 1, columns }).expect("columns are storable")
}

pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match policy_file::parse_policy(text, "policy.yaml") {
        Err(error) => refused_file(error),
        Ok(policy) => {
            // Within a part of the traffic; without any there are tasks.
            let rises = |a: &Step, b: &Step| a.segment != b.segment || a.to < b.to || b.task.is_some();
            assert!(policy.steps.is_sorted_by(rises), "steps rise");
            assert_eq!(policy.steps.last().map(|step| step.to.0), Some(10_000));
            assert!(!policy.guardrails.is_empty() && !policy.actuators.is_empty());
            let weights: f64 = policy.guardrails.iter().map(|g| g.weight).sum();
            assert!(weights == 0.0 || (weights - 1.0).abs() < 1e-6, "weights sum to {weights}");
            let stored = rmp_serde::to_vec_named(&policy).expect("a policy is storable");
            let back: sluice::core::policy::Policy = rmp_serde::from_slice(&stored).expect("it reads back");
            assert_eq!(back, policy);
            let mut runner = Runner::new(State::default());
            let (digest, source) = (Digest::of(data), String::new());
            runner.take(NOW, Event::PolicyStored { digest, policy, source }, &mut |_, _, _| {});
        }
    }
}

pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config_file::parse_config(text, "sluice.yaml") {
        Err(error) => refused_file(error),
        Ok(config) => {
            let creds = config.nats.as_ref().and_then(|nats| nats.creds.as_ref());
            for path in [Some(&config.data), config.policies.as_ref(), creds].into_iter().flatten() {
                assert!(!path.is_empty() && !path.contains(is_hidden), "{path:?}");
            }
            assert!(config.disk.free_min <= 1 << 50 && config.disk.ballast <= 1 << 50);
        }
    }
}

/// Records one after another: `0` as they come, `1` with their chain made right, so that what is behind the
/// hashes is reached as well.
pub fn envelope(data: &[u8]) {
    let Some((variant, bytes)) = choice(data, 2) else { return };
    let mut bytes = bytes.to_vec();
    if variant == 1 {
        chain(&mut bytes, Head::default());
    }
    let (mut head, mut offset, mut events) = (Head::default(), 0, Vec::new());
    while offset < bytes.len() {
        let before = (head, offset);
        match head.accept(&bytes, &mut offset) {
            Ok(record) => {
                assert_eq!((head.seq, head.hash), (before.0.seq + 1, record.hash));
                assert_eq!(offset - before.1, record.bytes.len());
                assert!((FRAMING..=RECORD_MAX).contains(&record.bytes.len()));
                match record.event() {
                    Ok(event) => events.push((record.at, event)),
                    Err(error) => {
                        assert_visible(&error.to_string());
                        break;
                    }
                }
            }
            Err(error) => {
                assert_eq!((head, offset), before, "an error moves nothing");
                assert_eq!((error.seq, error.byte), (head.seq + 1, offset));
                bad_record(&error);
                break;
            }
        }
    }
    let mut at = 0;
    while let Err(error) = envelope::decode(&bytes, &mut at).map(drop) {
        bad_record(&error);
        at += 1;
        if at > 64 {
            break;
        }
    }
    // What was read, written again, reads the same.
    let mut group = Group::after(Head::default());
    for (at, event) in &events {
        group.push(event, *at).expect("a record that was read fits");
    }
    let mut offset = 0;
    for (_, event) in &events {
        let again = envelope::decode(group.bytes(), &mut offset).expect("what was written reads back");
        same(&again.event, event);
    }
}

fn bad_record(error: &EnvelopeError) {
    assert_visible(&error.to_string());
}

/// Events are compared by their bytes: a NaN is not equal to itself.
fn same(a: &Event, b: &Event) {
    let encoded = |event: &Event| {
        let mut bytes = Vec::new();
        let kind = events::encode(event, &mut bytes).expect("events are storable");
        (kind, bytes)
    };
    assert_eq!(encoded(a), encoded(b));
}

/// Makes sequence, previous hash and hash of every whole record in `bytes` right.
pub fn chain(bytes: &mut [u8], mut head: Head) -> Head {
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + 4) {
        let end = at + 4 + u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize;
        if !(FRAMING..=RECORD_MAX).contains(&(end - at)) || end > bytes.len() {
            break;
        }
        let record = &mut bytes[at..end];
        head.seq += 1;
        record[7..15].copy_from_slice(&head.seq.to_le_bytes());
        record[23..55].copy_from_slice(&head.hash.0);
        let body = record.len() - 32;
        head.hash = Digest::of(&record[..body]);
        record[body..].copy_from_slice(&head.hash.0);
        at = end;
    }
    head
}

/// Kind, version, payload.
pub fn event(data: &[u8]) {
    let [kind, version, payload @ ..] = data else { return };
    match events::decode(*kind, *version, payload) {
        Err(error) => assert_visible(&error.to_string()),
        Ok(event) => {
            assert_eq!(events::name(*kind), Some(event.kind()));
            let mut bytes = Vec::new();
            let stored = events::encode(&event, &mut bytes).expect("events are storable");
            let again = events::decode(stored.0, stored.1, &bytes).expect("what was written reads back");
            same(&again, &event);
        }
    }
}

pub fn json(data: &[u8]) {
    let Some((variant, bytes)) = choice(data, 4) else { return };
    let form = [Form::One, Form::Object, Form::Flat, Form::Lines][usize::from(variant)];
    let text = match json::text("json", bytes, 256 * 1024) {
        Ok(text) => text,
        Err(error) => return refused(error, bytes),
    };
    let scanned = json::scan("json", text, form);
    if let Err(error) = &scanned {
        refused(error.clone(), bytes);
    }
    type Tree = std::collections::BTreeMap<String, serde_json::Value>;
    let read = match form {
        Form::Object => json::object::<Tree>("json", text),
        Form::Flat => json::flat_object::<Tree>("json", text),
        Form::One | Form::Lines => {
            // serde's own verdict, explained.
            let documents = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
            if let (Ok(_), Some(error)) = (&scanned, documents.filter_map(Result::err).next()) {
                refused(json::explain("json", text, form, &error), bytes);
            }
            return;
        }
    };
    match read {
        Err(error) => refused(error, bytes),
        Ok(tree) => {
            assert_eq!(scanned, Ok(1));
            let tree = serde_json::Value::Object(tree.into_iter().collect());
            assert!(depth(&tree) <= NESTING_MAX);
            assert!(form != Form::Object || !has_list(&tree));
            let written = tree.to_string();
            assert_eq!(serde_json::from_str::<serde_json::Value>(&written).expect("written JSON"), tree);
        }
    }
}

fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn has_list(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Array(_) => true,
        serde_json::Value::Object(fields) => {
            fields.iter().any(|(key, value)| has_list(value) && !json::LISTS.contains(&key.as_str()))
        }
        _ => false,
    }
}

pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut checker = Checker::new("file", "file.yaml", text);
    let tree: Option<serde_json::Value> = checker.parse(&["windows"]);
    match checker.finish(tree) {
        Err(error) => refused_file(error),
        Ok(tree) => assert!(depth(&tree) <= NESTING_MAX),
    }
    // The same text as a scalar of every sort.
    fn scalar<T: Scalar>(text: &str) -> Option<T> {
        T::parse(text).map_err(|unfit| assert_visible(&unfit.message)).ok()
    }
    scalar::<String>(text);
    scalar::<bool>(text);
    scalar::<u64>(text);
    assert!(scalar::<f64>(text).is_none_or(f64::is_finite));
    assert!(scalar::<Percent>(text).is_none_or(|Percent(share)| share >= 0.0 && share.is_finite()));
    assert!(scalar::<Points>(text).is_none_or(|Points(share)| (0.0..1.0).contains(&share)));
    assert!(scalar::<Span>(text).is_none_or(|span| span <= sluice::wire::yaml::SPAN_MAX));
    scalar::<config_file::Bytes>(text);
    scalar::<config_file::NatsUrl>(text);
    scalar::<config_file::FilePath>(text);
    scalar::<std::net::SocketAddr>(text);
}

/// An exported file: `0` as it comes, `1` with its hashes made right, `2` made of the records that come.
pub fn export(data: &[u8]) {
    let Some((variant, bytes)) = choice(data, 3) else { return };
    let mut bytes = bytes.to_vec();
    match variant {
        1 => seal(&mut bytes),
        2 => bytes = file_of(bytes),
        _ => {}
    }
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&bytes).expect("write the file");
    let told = |error: LogError| {
        let text = error.to_string().replace(&file.path().display().to_string(), "FILE");
        assert_visible(&text);
    };
    match Export::open(file.path()) {
        Err(error) => told(error),
        Ok(export) => {
            let (first, last, end) = (export.first, export.last, export.head);
            match export.scan().verify() {
                Err(error) => told(error),
                Ok(verified) => {
                    assert_eq!(verified.events, last - first + 1);
                    assert_eq!((verified.head.seq, verified.head.hash), (last, end));
                }
            }
        }
    }
}

/// The exported file that holds `records`, with all hashes right.
fn file_of(mut records: Vec<u8>) -> Vec<u8> {
    let head = chain(&mut records, Head::default());
    let mut file = b"SLUICELG\x01".to_vec();
    file.extend_from_slice(&[7; 16]);
    file.extend_from_slice(&1u64.to_le_bytes());
    file.extend_from_slice(&head.seq.to_le_bytes());
    file.extend_from_slice(&[0; 32]);
    file.extend_from_slice(&head.hash.0);
    file.extend_from_slice(&[0; 32]);
    let packed = ruzstd::encoding::compress_to_vec(&*records, ruzstd::encoding::CompressionLevel::Fastest);
    file.push(b'B');
    file.extend_from_slice(&1u64.to_le_bytes());
    file.extend_from_slice(&(records.len() as u32).to_le_bytes());
    file.extend_from_slice(&(packed.len() as u32).to_le_bytes());
    file.extend_from_slice(&packed);
    file.extend_from_slice(&[0; 32]);
    file.push(b'E');
    file.extend_from_slice(&head.seq.to_le_bytes());
    file.extend_from_slice(&[0; 32]);
    seal(&mut file);
    file
}

const EXPORT_HEADER: usize = 8 + 1 + 16 + 8 + 8 + 32 + 32;

/// Makes the hashes of an exported file's header, blocks and trailer right, as far as they are whole.
fn seal(bytes: &mut [u8]) {
    fn hash(bytes: &mut [u8], from: usize, to: usize) -> Option<usize> {
        let hash = Digest::of(bytes.get(from..to)?);
        bytes.get_mut(to..to + 32)?.copy_from_slice(&hash.0);
        Some(to + 32)
    }
    let mut at = hash(bytes, 0, EXPORT_HEADER);
    while let Some(from) = at {
        at = match bytes.get(from) {
            Some(b'B') => {
                let packed = bytes.get(from + 13..from + 17).and_then(|b| b.try_into().ok());
                packed.and_then(|packed| hash(bytes, from, from + 17 + u32::from_le_bytes(packed) as usize))
            }
            Some(b'E') => hash(bytes, from, from + 9).and(None),
            _ => None,
        };
    }
}
