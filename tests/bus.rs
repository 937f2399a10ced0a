//! Sluice's way in and out over NATS, against a real broker: the writer, its log and the bus, in this process.

mod support;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use async_nats::{HeaderMap, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sluice::core::columns::{Builder, Columns, Row};
use sluice::core::event::{Delivery, Event, Inbound, Origin, Rejection};
use sluice::core::ids::{Digest, Weight};
use sluice::core::policy::{
    Better, ChangeKind, Concurrency, EvidenceRules, Guardrail, OnDeadline, OnFail, Policy, Rule, Step,
};
use sluice::core::state::State;
use sluice::core::time::Span;
use sluice::shell::bus::{self, BusError, NatsSettings, Running, streams};
use sluice::shell::clock;
use sluice::shell::intake::{self, Kind};
use sluice::shell::log::{Log, LogError, OpenOptions, Opened};
use sluice::shell::writer::{self, OUTBOX_MAX, Writer};
use support::{DEADLINE, NatsServer};
use tempfile::TempDir;

/// A writer on a data folder, connected to a broker.
struct Sluice {
    writer: Writer,
    thread: JoinHandle<Result<(), LogError>>,
    running: Running,
}

impl Sluice {
    async fn start(dir: &Path, nats: &NatsServer) -> Sluice {
        Sluice::start_at(dir, &nats.url()).await.expect("the bus starts")
    }

    async fn start_at(dir: &Path, url: &str) -> Result<Sluice, BusError> {
        // RUST_LOG=sluice=debug shows what the bus says.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let (outbox, sent) = tokio::sync::mpsc::channel(OUTBOX_MAX);
        let (writer, thread) = open(dir, Some(outbox)).await;
        let bus = bus::connect(&settings(url)).await.expect("connect");
        match bus.start(&writer, sent).await {
            Ok(running) => Ok(Sluice { writer, thread, running }),
            Err(error) => {
                close(writer, thread).await;
                Err(error)
            }
        }
    }

    async fn stop(self) {
        self.running.stop(DEADLINE).await;
        close(self.writer, self.thread).await;
    }

    /// Polls the state until `probe` gives a value.
    async fn wait_for<T: Send + 'static>(&self, what: &str, probe: fn(&State) -> Option<T>) -> T {
        let poll = async {
            loop {
                if let Some(value) = self.writer.read(move |state, _| probe(state)).await.expect("alive") {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn wait_recorded(&self, stream: Inbound, n: u64) {
        let poll = async {
            while self.writer.read(move |state, _| state.intake.high(stream)).await.expect("alive") < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("{stream:?} stays below {n}"));
    }

    /// Kinds of all events of the log.
    async fn kinds(&self) -> Vec<&'static str> {
        let read = |_: &State, log: &sluice::shell::log::Reader| {
            log.scan(1).expect("scan").map(|envelope| envelope.expect("sound").event.kind()).collect()
        };
        self.writer.read(read).await.expect("alive")
    }

    /// How many messages must have gone out: one for each of these events, as there is one actuator.
    async fn announced(&self) -> u64 {
        let announced = ["decision.made", "command.issued", "input.rejected"];
        self.kinds().await.into_iter().filter(|kind| announced.contains(kind)).count() as u64
    }

    async fn count(&self, kind: &str) -> usize {
        self.kinds().await.into_iter().filter(|found| *found == kind).count()
    }
}

/// Opens the log in `dir`, recovers its state, and starts the writer; a new log gets the test's policy.
async fn open(
    dir: &Path,
    outbox: Option<tokio::sync::mpsc::Sender<sluice::wire::outgoing::Outgoing>>,
) -> (Writer, JoinHandle<Result<(), LogError>>) {
    let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
    let Opened { log, created, .. } = Log::open(dir, &options).expect("open the log");
    let id = log.id();
    let mut state = State::default();
    for envelope in log.reader().scan(1).expect("scan") {
        let envelope = envelope.expect("a sound log");
        state.apply(envelope.seq, envelope.at, &envelope.event);
    }
    let (writer, thread) = writer::start(log, state, outbox);
    if created {
        let policy = policy();
        let digest = Digest::of(policy.name.as_bytes());
        let begin = Event::LogCreated { log: id, build: "test".into() };
        for fact in [begin, Event::PolicyStored { digest, policy, source: "test".into() }] {
            writer.submit(fact).await.expect("alive");
        }
    }
    (writer, thread)
}

async fn close(writer: Writer, thread: JoinHandle<Result<(), LogError>>) {
    writer.stop().await;
    tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap().expect("the log closes");
}

fn policy() -> Policy {
    let guardrail = Guardrail {
        name: "eval_pass".into(),
        metric: "eval_pass".into(),
        better: Better::Higher,
        rule: Rule::Absolute { above: 0.5, of_last: 100 },
        maturity: Span::ZERO,
        on_fail: OnFail::Rollback,
        weight: 0.0,
        gates: true,
    };
    let step = |percent| Step {
        to: Weight::percent(percent),
        bake: Span::mins(10),
        min_samples: Default::default(),
        deadline: None,
    };
    Policy {
        name: "test".into(),
        applies_to: vec![ChangeKind::Prompt],
        steps: vec![step(5), step(100)],
        soak: Span::ZERO,
        on_deadline: OnDeadline::Hold,
        guardrails: vec![guardrail],
        evidence: EvidenceRules::default(),
        stale_after: Span::mins(5),
        approvals: Vec::new(),
        concurrency: Concurrency::Queue,
        actuators: vec!["router".into()],
        // Longer than any test: what is resent here would only disturb.
        ack_timeout: Span::hours(1),
    }
}

fn settings(url: &str) -> NatsSettings {
    NatsSettings { servers: vec![url.into()], creds: None }
}

/// An intent for a service.
fn intent(service: &str) -> String {
    let change = json!({"kind": "prompt", "from": "prompt@1", "to": "prompt@2"});
    json!({"service": service, "change": change, "by": "ci", "reason": "test"}).to_string()
}

/// A program beside sluice on the same broker.
struct Peer {
    client: async_nats::Client,
    js: jetstream::Context,
}

impl Peer {
    async fn join(url: &str) -> Peer {
        let client = async_nats::connect(url).await.expect("connect");
        Peer { js: jetstream::new(client.clone()), client }
    }

    /// Publishes until the broker has stored it; the sequence it got.
    async fn publish(&self, subject: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> u64 {
        let body = bytes::Bytes::from(body.into());
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        let publish = async {
            loop {
                let sent = self.js.publish_with_headers(subject.to_owned(), map.clone(), body.clone()).await;
                match sent.expect("the connection takes it").await {
                    Ok(ack) => return ack.sequence,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(DEADLINE, publish).await.expect("the broker stores it")
    }

    async fn subscribe(&self, subject: &str) -> Subscriber {
        let subscriber = self.client.subscribe(subject.to_owned()).await.expect("subscribe");
        self.client.flush().await.expect("flush");
        subscriber
    }

    /// Waits until the stream holds so many messages.
    async fn wait_messages(&self, stream: &str, n: u64) {
        let poll = async {
            let found = async || Some(self.js.get_stream(stream).await.ok()?.cached_info().state.messages);
            while found().await != Some(n) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("{stream} never has {n}"));
    }
}

async fn next(subscriber: &mut Subscriber) -> (async_nats::Message, Value) {
    let message = tokio::time::timeout(DEADLINE, subscriber.next()).await.expect("in time").expect("open");
    let body = serde_json::from_slice(&message.payload).expect("JSON");
    (message, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_consumers_are_made() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let sluice = Sluice::start(dir.path(), &nats).await;
    let peer = Peer::join(&nats.url()).await;
    for (name, subject) in [
        ("SLUICE_INTENTS", "sluice.v1.intent.*"),
        ("SLUICE_TELEMETRY", "sluice.v1.telemetry.*"),
        ("SLUICE_ACKS", "sluice.v1.ack.*"),
    ] {
        let stream = peer.js.get_stream(name).await.expect("the stream");
        let config = &stream.cached_info().config;
        assert_eq!(config.subjects, [subject]);
        assert_eq!(config.retention, stream::RetentionPolicy::WorkQueue);
        assert_eq!(config.discard, stream::DiscardPolicy::New);
        assert!(config.max_bytes > 0);
        assert_eq!(
            stream.consumer_info(streams::CONSUMER).await.expect("the consumer").config.max_deliver,
            -1
        );
    }
    let out = peer.js.get_stream(streams::OUT).await.expect("the stream");
    assert_eq!(out.cached_info().config.subjects.len(), 4);
    sluice.stop().await;
    // What was made is found again.
    Sluice::start(dir.path(), &nats).await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_stream_is_refused_by_name_and_field() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    Sluice::start(dir.path(), &nats).await.stop().await;
    let peer = Peer::join(&nats.url()).await;
    let mut config = peer.js.get_stream("SLUICE_INTENTS").await.unwrap().cached_info().config.clone();
    config.max_age = Duration::from_secs(3_600);
    peer.js.update_stream(config).await.expect("change the stream");
    let error = Sluice::start_at(dir.path(), &nats.url()).await.err().expect("refused");
    assert_eq!(error.code(), "E7002");
    assert_eq!(
        error.to_string(),
        "stream SLUICE_INTENTS: max_age is 1h, expected at least no limit; set it back, or remove the stream \
         and start sluice, which makes it again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_becomes_a_rollout_and_its_command_arrives() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let sluice = Sluice::start(dir.path(), &nats).await;
    let peer = Peer::join(&nats.url()).await;
    let mut commands = peer.subscribe("sluice.v1.command.>").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    // Header names as an HTTP bridge would spell them.
    let headers = [("content-type", "application/json"), ("nats-msg-id", "deploy-1"), ("Traceparent", trace)];
    peer.publish("sluice.v1.intent.chat", &headers, intent("chat")).await;

    let (message, command) = next(&mut commands).await;
    assert_eq!(message.subject.as_str(), "sluice.v1.command.chat.router");
    assert_eq!((&command["canary"], &command["canary_weight"]), (&json!("prompt@2"), &json!(5.0)));
    let headers = message.headers.expect("headers");
    assert_eq!(headers.get("ce-type").expect("a type").as_str(), "dev.cdeventsx.sluice-command.issued.0.1.0");
    assert_eq!(headers.get("traceparent").expect("a trace").as_str(), trace);
    assert!(sluice.writer.read(|state, _| state.intents.contains_key(&"deploy-1".into())).await.unwrap());

    let ack = json!({"command": command["command"], "actuator": "router", "status": "applied"});
    peer.publish("sluice.v1.ack.chat", &[], ack.to_string()).await;
    sluice.wait_recorded(Inbound::Acks, 1).await;
    assert_eq!(sluice.count("command.applied").await, 1);
    // Confirmed: the work queues are empty; what went out is kept.
    peer.wait_messages("SLUICE_INTENTS", 0).await;
    peer.wait_messages("SLUICE_ACKS", 0).await;
    let out = peer.js.get_stream(streams::OUT).await.unwrap().cached_info().state.messages;
    assert!(out >= 1, "the command is kept");
    sluice.stop().await;
}

/// The process died after the fact was durable and before the broker was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_recorded_but_not_confirmed_counts_once() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    Sluice::start(dir.path(), &nats).await.stop().await;
    let peer = Peer::join(&nats.url()).await;
    let body = intent("chat");
    let seq = peer.publish("sluice.v1.intent.chat", &[], body.clone()).await;
    let (writer, thread) = open(dir.path(), None).await;
    let message = intake::Message {
        body: body.as_bytes(),
        service: Some("chat"),
        source: "sluice.v1.intent.chat",
        delivery: Some(Delivery { stream: Inbound::Intents, seq }),
        ..Default::default()
    };
    intake::take(&writer, Kind::Intent, &message).await.expect("alive");
    close(writer, thread).await;
    peer.wait_messages("SLUICE_INTENTS", 1).await;

    let sluice = Sluice::start(dir.path(), &nats).await;
    peer.wait_messages("SLUICE_INTENTS", 0).await;
    assert_eq!(sluice.count("intent.received").await, 1);
    assert_eq!(sluice.count("rollout.created").await, 1);
    // What the dead process could not send went out, too.
    peer.wait_messages(streams::OUT, sluice.announced().await).await;
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_in_either_direction() {
    let (mut nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let sluice = Sluice::start(dir.path(), &nats).await;
    let peer = Peer::join(&nats.url()).await;
    peer.publish("sluice.v1.intent.chat", &[], intent("chat")).await;
    sluice.wait_for("the first rollout", |state| state.rollouts.keys().next().cloned()).await;
    nats.stop();
    let rejection = Rejection {
        code: "E1001".into(),
        message: "while the broker was away".into(),
        source: "test".into(),
        bytes: 0,
        excerpt: String::new(),
    };
    let refused = Event::InputRejected { rejection, origin: Origin::default() };
    sluice.writer.submit(refused).await.expect("alive");
    nats.start_again();

    let peer = Peer::join(&nats.url()).await;
    for i in 0..20 {
        let service = format!("service-{i}");
        peer.publish(&format!("sluice.v1.intent.{service}"), &[], intent(&service)).await;
    }
    sluice.wait_recorded(Inbound::Intents, 21).await;
    assert_eq!(sluice.count("rollout.created").await, 21);
    assert_eq!(sluice.count("command.issued").await, 21);
    // Each once.
    peer.wait_messages(streams::OUT, sluice.announced().await).await;
    // A confirmation that died with the broker is made up for half a minute later: not waited for here.
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_comes_out_on_rejected() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let sluice = Sluice::start(dir.path(), &nats).await;
    let peer = Peer::join(&nats.url()).await;
    let mut rejected = peer.subscribe("sluice.v1.rejected").await;
    peer.publish("sluice.v1.telemetry.Chat", &[], r#"{"version":"a@1","eval_pass":1}"#).await;
    let (message, body) = next(&mut rejected).await;
    assert_eq!(body["code"], "E1007");
    assert_eq!(body["source"], "sluice.v1.telemetry.Chat");
    let headers = message.headers.expect("headers");
    assert_eq!(headers.get("ce-type").expect("a type").as_str(), "dev.cdeventsx.sluice-input.rejected.0.1.0");
    assert!(headers.get("Nats-Msg-Id").is_some());
    peer.publish("sluice.v1.intent.chat", &[("Content-Type", "text/plain")], "deploy please").await;
    assert_eq!(next(&mut rejected).await.1["code"], "E1028");
    peer.wait_messages("SLUICE_TELEMETRY", 0).await;
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_of_every_content_type_is_recorded() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let sluice = Sluice::start(dir.path(), &nats).await;
    let peer = Peer::join(&nats.url()).await;
    let sample = json!({"version": "a@1", "eval_pass": 1});
    let lines = format!("{sample}\n{sample}\n{sample}");
    let packed = rmp_serde::to_vec_named(&json!([sample, sample])).unwrap();
    let columns = batch(256);
    for (content_type, body) in [
        (None, sample.to_string().into_bytes()),
        (Some("application/json"), json!([sample, sample]).to_string().into_bytes()),
        (Some("application/x-ndjson"), lines.into_bytes()),
        (Some("application/msgpack"), packed),
        (Some("application/msgpack"), columns),
    ] {
        let headers: Vec<_> = content_type.iter().map(|t| ("Content-Type", *t)).collect();
        peer.publish("sluice.v1.telemetry.chat", &headers, body).await;
    }
    sluice.wait_recorded(Inbound::Telemetry, 5).await;
    assert_eq!(sluice.count("input.rejected").await, 0);
    let seen = |state: &State| state.services.get(&"chat".into()).map(|s| s.series.values().sum::<u64>());
    assert_eq!(sluice.writer.read(move |state, _| seen(state)).await.unwrap(), Some(1 + 2 + 3 + 2 + 256));
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_stream_is_made_again_and_counts_on() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let sluice = Sluice::start(dir.path(), &nats).await;
    let peer = Peer::join(&nats.url()).await;
    for service in ["a", "b", "c"] {
        peer.publish(&format!("sluice.v1.intent.{service}"), &[], intent(service)).await;
    }
    sluice.wait_recorded(Inbound::Intents, 3).await;
    peer.wait_messages(streams::OUT, sluice.announced().await).await;
    for stream in ["SLUICE_INTENTS", streams::OUT] {
        peer.js.delete_stream(stream).await.expect("remove the stream");
    }
    let seq = peer.publish("sluice.v1.intent.d", &[], intent("d")).await;
    assert_eq!(seq, 4, "numbers that were used would be taken for redeliveries");
    sluice.wait_recorded(Inbound::Intents, 4).await;
    assert_eq!(sluice.count("rollout.created").await, 4);
    // The outbound stream comes back with the next decision, and its command.
    peer.wait_messages(streams::OUT, 2).await;
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_counts_from_anew_is_refused() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let sluice = Sluice::start(dir.path(), &nats).await;
    let peer = Peer::join(&nats.url()).await;
    for service in ["a", "b", "c"] {
        peer.publish(&format!("sluice.v1.intent.{service}"), &[], intent(service)).await;
    }
    sluice.wait_recorded(Inbound::Intents, 3).await;
    sluice.stop().await;
    let config = peer.js.get_stream("SLUICE_INTENTS").await.unwrap().cached_info().config.clone();
    peer.js.delete_stream("SLUICE_INTENTS").await.unwrap();
    peer.js.create_stream(config).await.unwrap();
    let error = Sluice::start_at(dir.path(), &nats.url()).await.err().expect("refused");
    assert_eq!(error.code(), "E7008", "{error}");
    // As the message says.
    peer.js.delete_stream("SLUICE_INTENTS").await.unwrap();
    let sluice = Sluice::start(dir.path(), &nats).await;
    assert_eq!(peer.publish("sluice.v1.intent.d", &[], intent("d")).await, 4);
    sluice.wait_recorded(Inbound::Intents, 4).await;
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_is_named_after_ten_seconds() {
    let error = bus::connect(&settings("nats://user:secret@127.0.0.1:1")).await.err().expect("refused");
    assert_eq!(error.to_string(), "cannot reach NATS at nats://127.0.0.1:1 after 10 s");
}

/// A batch of columns as sluice's own senders write it.
fn batch(samples: u32) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Batch {
        v: u32,
        columns: Columns,
    }
    let now = clock::now();
    let mut builder = Builder::new(now);
    for i in 0..samples {
        let version = ["a@1", "b@1"][i as usize % 2];
        let metric = ["eval_pass", "latency_ms"][i as usize / 2 % 2];
        let value = f64::from(i * 7_919 % 4_096) / 8.0;
        builder.push(Row { version, metric, served_at: now, unit: None, tags: None, value });
    }
    rmp_serde::to_vec_named(&Batch { v: 1, columns: builder.finish() }).unwrap()
}

/// How fast a backlog of telemetry is taken in, and how long an intent takes to become a command meanwhile.
/// `SLUICE_NATS_URL` names a broker; else one of our own, which syncs each message.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: cargo test --release --test bus -- --ignored --nocapture"]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
async fn rate() {
    let own = std::env::var("SLUICE_NATS_URL").is_err().then(NatsServer::start);
    let url = std::env::var("SLUICE_NATS_URL").unwrap_or_else(|_| own.as_ref().unwrap().url());
    let messages = std::env::var("SLUICE_MESSAGES").map_or(50_000, |n| n.parse().unwrap());
    let dir = TempDir::new().unwrap();
    let sample = |i: usize| {
        let version = ["a@1", "b@1"][i % 2];
        json!({"version": version, "eval_pass": 1, "latency_ms": i, "served_at": clock::now().0})
    };
    let json: Vec<_> = (0..32).map(sample).collect();
    for (what, samples, body) in
        [("columns", 256, batch(256)), ("json", 64, json!(json).to_string().into_bytes())]
    {
        let dir = dir.path().join(what);
        Sluice::start_at(&dir, &url).await.unwrap().stop().await;
        let peer = Peer::join(&url).await;
        let mut acks = Vec::new();
        for i in 0..messages {
            let sent = peer
                .js
                .publish(format!("sluice.v1.telemetry.s{}", i % 4), body.clone().into())
                .await
                .unwrap();
            acks.push(sent);
            if acks.len() == 1_000 || i + 1 == messages {
                for ack in acks.drain(..) {
                    ack.await.unwrap();
                }
            }
        }
        let backlog = peer.js.get_stream("SLUICE_TELEMETRY").await.unwrap().cached_info().state.last_sequence;
        let mut commands = peer.subscribe("sluice.v1.command.>").await;
        let start = Instant::now();
        let sluice = Sluice::start_at(&dir, &url).await.unwrap();
        let mut waits = Vec::new();
        let mut n = 0;
        while sluice.writer.read(|s, _| s.intake.high(Inbound::Telemetry)).await.unwrap() < backlog {
            n += 1;
            let asked = Instant::now();
            let subject = format!("sluice.v1.intent.{what}-{n}");
            peer.client.publish(subject, intent(&format!("{what}-{n}")).into()).await.unwrap();
            next(&mut commands).await;
            waits.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = start.elapsed().as_secs_f64();
        waits.sort();
        let per_second = messages as f64 / took;
        println!(
            "{what}: {messages} messages of {} bytes in {took:.2} s: {per_second:.0} messages/s, {:.2} M samples/s; \
             intent to command p50 {:?} p99 {:?} of {}",
            body.len(),
            per_second * f64::from(samples) / 1e6,
            waits[waits.len() / 2],
            waits[waits.len() * 99 / 100],
            waits.len(),
        );
        peer.wait_messages("SLUICE_TELEMETRY", 0).await;
        println!("{what}: all confirmed {:.2} s after the start", start.elapsed().as_secs_f64());
        sluice.stop().await;
        for stream in ["SLUICE_TELEMETRY", "SLUICE_INTENTS", "SLUICE_ACKS", streams::OUT] {
            peer.js.delete_stream(stream).await.unwrap();
        }
    }
}
