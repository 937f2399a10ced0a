//! The bodies of the fuzz targets, run on stable over every file of the corpora and over small changes of each,
//! with the memory they take counted (no body starts a thread). `SLUICE_WRITE_CORPUS=1` writes the seeds anew from the tests' own inputs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice::core::event::Event;
use sluice::shell::log::{Log, OpenOptions, export};
use sluice::wire::envelope::{Group, Head};
use sluice::wire::{events, policy_file};

use crate::scenario;

#[path = "../../fuzz/bodies.rs"]
mod bodies;

/// Bytes of all corpora together.
const CORPUS_MAX: u64 = 200_000;
/// Bytes that a body may hold at once. Inputs are at most 1 MiB.
const MEMORY_MAX: isize = 64 << 20;
/// Changes of each file.
const CHANGES: u64 = 100;

/// The system's allocator, with what each thread holds counted: other tests run beside this one.
struct Counting;

thread_local! {
    /// What it freed of other threads' memory counts against it.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(size: isize) {
    HELD.set(HELD.get() + size);
    PEAK.set(PEAK.get().max(HELD.get()));
}

// SAFETY: hands every call on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_target_holds_over_its_corpus() {
    if std::env::var_os("SLUICE_WRITE_CORPUS").is_some() {
        write();
    }
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let mut size = 0;
    for (name, body) in bodies::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        assert!(fuzz().join(format!("fuzz_targets/{name}.rs")).exists(), "{name} has no target");
        let mut files: Vec<PathBuf> =
            fs::read_dir(fuzz().join("corpus").join(name)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{name} has {} seeds", files.len());
        for file in files {
            let seed = fs::read(&file).unwrap();
            size += seed.len() as u64;
            run(&file.display().to_string(), body, &seed);
            for change in 0..CHANGES {
                run(&format!("{} change {change}", file.display()), body, &changed(&seed, change));
            }
        }
        for (i, input) in extremes().iter().enumerate() {
            run(&format!("{name} extreme {i}"), body, input);
        }
    }
    assert!(size <= CORPUS_MAX, "the corpora have {size} bytes");
}

fn run(what: &str, body: bodies::Body, input: &[u8]) {
    struct Named<'a>(&'a str);
    impl Drop for Named<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("input: {}", self.0);
            }
        }
    }
    let named = Named(what);
    let before = HELD.get();
    PEAK.set(before);
    body(input);
    let held = PEAK.get() - before;
    assert!(held <= MEMORY_MAX, "{what} took {held} bytes");
    drop(named);
}

/// `seed` with one to four bytes changed, put in or taken out; the same for the same number.
fn changed(seed: &[u8], number: u64) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    // SplitMix64.
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    };
    for _ in 0..=next(4) {
        // The first byte chooses the form.
        let at = 1 + next(bytes.len().saturating_sub(1));
        if at >= bytes.len() {
            continue;
        }
        match next(5) {
            0 => bytes[at] = next(256) as u8,
            1 => bytes[at] ^= 1 << next(8),
            2 => bytes.insert(at, b"\"{}[],:\\0-.e\xff"[next(13)]),
            3 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Inputs that are large or deep in one way.
fn extremes() -> Vec<Vec<u8>> {
    let mut inputs = vec![vec![], vec![0], vec![b'0'; 1 << 20], vec![0xff; 1 << 20]];
    for variant in b'0'..=b'4' {
        for text in
            ["[", "{\"a\":", "\"", "{\"a\":1}\n", "\u{202e}", "- ", "&a [*a,", "\u{81}", "\u{dd}\u{ff}"]
        {
            inputs.push([&[variant], text.repeat(200_000 / text.len()).as_bytes()].concat());
        }
    }
    inputs
}

/// Writes the seeds.
fn write() {
    let mut seeds: BTreeMap<(&str, String), Vec<u8>> = BTreeMap::new();
    let mut put = |target: &'static str, name: &str, bytes: Vec<u8>| {
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        seeds.insert((target, name), bytes);
    };
    for text in [
        include_str!("../pure/bad_inputs/messages.json"),
        include_str!("../pure/bad_inputs/telemetry.json"),
        include_str!("../pure/bad_inputs/files.json"),
    ] {
        let rows: Vec<Value> = serde_json::from_str(text).unwrap();
        let mut policies = 0;
        for row in rows {
            let (id, kind) = (row["id"].as_str().unwrap(), row["kind"].as_str().unwrap());
            let mut bytes = row["input"].as_str().unwrap_or_default().as_bytes().to_vec();
            if let Some(hex) = row["hex"].as_str() {
                let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
                bytes.extend(pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()));
            }
            if !row["repeat"].is_null()
                || !row["repeat_hex"].is_null()
                || bytes.len() > 1_500
                || bytes.is_empty()
            {
                continue;
            }
            let variant = match (kind, row["content_type"].as_str()) {
                (_, Some("application/cloudevents+json")) => b'1',
                ("telemetry", Some("application/x-ndjson")) => b'2',
                ("telemetry", Some("application/msgpack")) => b'3',
                ("telemetry", Some(_)) => continue,
                ("intent" | "ack", _) if row["subject"].is_string() => b'1',
                _ => b'0',
            };
            let with = [&[variant], bytes.as_slice()].concat();
            match kind {
                "intent" => {
                    put("json", id, [b"1", bytes.as_slice()].concat());
                    put("intent", id, with);
                }
                "ack" => put("ack", id, with),
                "telemetry" => {
                    if variant == b'0' {
                        put("json", id, [b"3", bytes.as_slice()].concat());
                    }
                    put("telemetry", id, with);
                }
                "config" => {
                    put("yaml", id, bytes.clone());
                    put("config", id, bytes);
                }
                // Most are one sound policy with one line changed.
                _ => {
                    policies += 1;
                    if bytes.len() < 300 {
                        put("yaml", id, bytes.clone());
                    }
                    if bytes.len() < 300 || policies % 5 == 0 {
                        put("policy", id, bytes);
                    }
                }
            }
        }
    }
    for (name, text) in policy_file::shipped() {
        put("policy", name, text.as_bytes().to_vec());
    }
    for text in
        ["1h30m", "250ms", "0.1pp", "5%", "64MiB", "nats://a:4222,tls://b", "[::1]:80", ".nan", "-0x1"]
    {
        put("yaml", text, text.as_bytes().to_vec());
    }
    put("config", "whole", CONFIG.as_bytes().to_vec());
    for (name, variant, text) in [
        ("sound", "0", INTENT),
        ("sound by subject", "2", INTENT),
        ("sound by message id", "3", INTENT),
        (
            "sound event",
            "1",
            &format!(r#"{{"specversion":"1.0","id":"ce-1","type":"t","source":"/ci","data":{INTENT}}}"#),
        ),
    ] {
        put("intent", name, format!("{variant}{text}").into_bytes());
    }
    put("ack", "applied", format!("1{ACK}").into_bytes());
    put(
        "ack",
        "rejected",
        format!("1{}", ACK.replace("applied\"", "rejected\",\"why\":\"busy\"")).into_bytes(),
    );
    for (name, text) in [("sound", SAMPLE), ("sound sums", SUMS)] {
        let value: Value = serde_json::from_str(text).unwrap();
        let several =
            Value::Array(vec![value.clone(), serde_json::json!({"version": "b", "error": 1, "x": 2.5})]);
        let mut several = several;
        several[0].as_object_mut().unwrap().remove("id");
        let named = |value: &Value| rmp_serde::to_vec_named(value).unwrap();
        put("telemetry", name, format!("0{text}").into_bytes());
        put("telemetry", &format!("{name} lines"), format!("2{}\n{}\n", several[0], several[1]).into_bytes());
        put("telemetry", &format!("{name} array"), format!("1{several}").into_bytes());
        put("telemetry", &format!("{name} packed"), [b"3", named(&value).as_slice()].concat());
        put("telemetry", &format!("{name} packed array"), [b"4", named(&several).as_slice()].concat());
        let parsed =
            sluice::wire::telemetry::parse_telemetry(several.to_string().as_bytes(), None, bodies::NOW);
        let columns = bodies::batch(&parsed.unwrap().columns[0]);
        put("telemetry", &format!("{name} columns"), [b"4", columns.as_slice()].concat());
        put("json", name, format!("2{text}").into_bytes());
    }

    // The smallest event of each kind of a whole history, and the beginning of one.
    let history = scenario::history("nearly_everything");
    let mut smallest: BTreeMap<&str, (usize, &Event)> = BTreeMap::new();
    for (_, _, event) in &history {
        let mut payload = Vec::new();
        events::encode(event, &mut payload).unwrap();
        let entry = smallest.entry(event.kind()).or_insert((payload.len(), event));
        if payload.len() < entry.0 {
            *entry = (payload.len(), event);
        }
    }
    let mut each = Group::after(Head::default());
    for (kind, (_, event)) in smallest {
        let mut payload = Vec::new();
        let (code, version) = events::encode(event, &mut payload).unwrap();
        put("event", kind, [&[code, version], payload.as_slice()].concat());
        let mut group = Group::after(Head::default());
        group.push(event, bodies::NOW).unwrap();
        put("envelope", kind, [b"1", group.bytes()].concat());
        each.push(event, bodies::NOW).unwrap();
    }
    put("envelope", "each kind", [b"0", each.bytes()].concat());
    put("export", "each kind", [b"2", each.bytes()].concat());
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
    let mut log = Log::open(folder.path(), &options).unwrap().log;
    let mut group = Group::after(log.head());
    for (_, at, event) in history.iter().filter(|(_, _, event)| event.kind() != "batch.received").take(12) {
        group.push(event, *at).unwrap();
    }
    log.append(&group).unwrap();
    for (name, from, to) in [("whole", 1, 12), ("one event", 1, 1), ("a part", 5, 9)] {
        let mut file = Vec::new();
        export(&log.reader(), log.id(), from..=to, &mut file).unwrap();
        put("export", name, [b"0", file.as_slice()].concat());
        put("export", &format!("{name} sealed"), [b"1", file.as_slice()].concat());
    }
    log.close().unwrap();

    for (target, _) in bodies::TARGETS {
        let folder = fuzz().join("corpus").join(target);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
    }
    for ((target, name), bytes) in seeds {
        fs::write(fuzz().join("corpus").join(target).join(name), bytes).unwrap();
    }
}

const INTENT: &str = r#"{"id":"i-1","service":"chat","change":{"kind":"prompt","from":"prompt@41","to":"prompt@42"},"policy":"prompt-default","by":"maya","reason":"shorter refund flow"}"#;
const ACK: &str = r#"{"v":1,"command":"0190a0b0-0000-7000-8000-000000000001","actuator":"router-us","status":"applied","canary_weight":0,"took_ms":4580}"#;
const SAMPLE: &str = r#"{"version":"prompt@42","served_at":"2025-11-18T13:46:02Z","unit":"u-7","id":"s-1","tags":{"region":"eu","lang":"de"},"eval_pass":true,"cost_usd":0.0139,"latency_ms":1812,"error":false}"#;
const SUMS: &str = r#"{"version":"prompt@42","from":"2025-11-18T13:46:00Z","to":"2025-11-18T13:46:01Z","id":"e:1","m":{"eval_pass":{"n":96,"k":85},"cost_usd":{"n":100,"sum":1.39,"sumsq":0.0201},"latency_ms":{"n":100,"le":{"1000":22,"4000":99,"inf":100}}}}"#;
const CONFIG: &str = "apiVersion: sluice.dev/v1\nkind: Config\nnats: {url: 'nats://a:4222,tls://b', creds: /etc/sluice.creds}\nhttp: {listen: '[::1]:80'}\ndata: /var/lib/sluice\npolicies: ./policies\ndisk: {free_min: 2GiB, ballast: 0.5MiB}\nlog_format: json\n";
