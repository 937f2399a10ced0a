//! Sluice's way in and out over NATS, against a real broker: the writer, its log and the bus, in this process.

mod access;
mod messages;
mod rate;
mod upkeep;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use async_nats::{HeaderMap, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sluice::core::event::Event;
use sluice::core::event::code::Code;
use sluice::core::event::fact::{Delivery, Inbound, Origin, Rejection};
use sluice::core::state::State;
use sluice::core::telemetry::columns::{Builder, Columns, Row};
use sluice::shell::bus::{self, BusError, NatsSettings, Running, streams};
use sluice::shell::clock;
use sluice::shell::intake::{self, Kind};
use sluice::shell::log::{Log, LogError, OpenOptions, Opened, Watermark};
use sluice::shell::writer::{self, Gone, OUTBOX_MAX, Writer};
use tempfile::TempDir;

use crate::facts::policy_stored;
use crate::support::{DEADLINE, Daemon, NatsServer, wait_for};

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
        Sluice::start_with(dir, &settings(url), Watermark::default()).await
    }

    /// With credentials, or on a disk with less room.
    async fn start_with(dir: &Path, nats: &NatsSettings, watermark: Watermark) -> Result<Sluice, BusError> {
        let (outbox, sent) = tokio::sync::mpsc::channel(OUTBOX_MAX);
        let (writer, thread) = open(dir, watermark, Some(outbox)).await;
        let bus = bus::connect(nats).await.expect("connect");
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

/// A broker, sluice with an empty log on it, and a program beside it. Broker and folder live as long as they are held.
async fn start() -> (NatsServer, TempDir, Sluice, Peer) {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let sluice = Sluice::start(dir.path(), &nats).await;
    let peer = Peer::join(&nats.url()).await;
    (nats, dir, sluice, peer)
}

/// Opens the log in `dir`, recovers its state, and starts the writer; a new log gets the test's policy.
async fn open(
    dir: &Path,
    watermark: Watermark,
    outbox: Option<tokio::sync::mpsc::Sender<sluice::wire::outgoing::Outgoing>>,
) -> (Writer, JoinHandle<Result<(), LogError>>) {
    let options = OpenOptions { ballast: 0, watermark, ..OpenOptions::default() };
    let Opened { log, created, .. } = Log::open(dir, &options).expect("open the log");
    let id = log.id();
    let mut state = State::default();
    for envelope in log.reader().scan(1).expect("scan") {
        let envelope = envelope.expect("a sound log");
        state.apply(envelope.seq, envelope.at, &envelope.event);
    }
    let (writer, thread) = writer::start(log, state, outbox);
    if created {
        for fact in Event::begin(id, "test").into_iter().chain([policy_stored(POLICY)]) {
            writer.submit(fact).await.expect("alive");
        }
    }
    (writer, thread)
}

async fn close(writer: Writer, thread: JoinHandle<Result<(), LogError>>) {
    writer.stop().await;
    tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap().expect("the log closes");
}

/// An actuator has longer than any test takes: what is resent here would only disturb.
const POLICY: &str = "\
apiVersion: sluice.dev/v1
kind: RolloutPolicy
metadata: {name: test}
spec:
  applies_to: [prompt]
  exposure: {percent: [{to: 5%, bake: 10m}, {to: 100%}]}
  guardrails: [{metric: eval_pass, better: higher, kind: absolute, above: 50%, of_last: 100, on_fail: rollback}]
  retry_after_rollback: allowed
  actuators: [router]
  ack_timeout: 1h
";

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
        Peer::on(async_nats::connect(url).await.expect("connect"))
    }

    fn on(client: async_nats::Client) -> Peer {
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

    /// Publishes an intent for each service; the sequence of the last one.
    async fn deploy(&self, services: &[impl AsRef<str>]) -> u64 {
        let mut last = 0;
        for service in services {
            let service = service.as_ref();
            last = self.publish(&format!("sluice.v1.intent.{service}"), &[], intent(service)).await;
        }
        last
    }

    async fn subscribe(&self, subject: &str) -> Subscriber {
        let subscriber = self.client.subscribe(subject.to_owned()).await.expect("subscribe");
        self.client.flush().await.expect("flush");
        subscriber
    }

    async fn config(&self, stream: &str) -> stream::Config {
        self.js.get_stream(stream).await.expect("the stream").cached_info().config.clone()
    }

    /// Removes the stream and makes one like it, which counts from 1.
    async fn make_anew(&self, stream: &str) {
        let config = self.config(stream).await;
        self.js.delete_stream(stream).await.expect("remove the stream");
        let made = self.js.create_stream(config).await.expect("make the stream");
        assert_eq!(made.cached_info().config.first_sequence, None);
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

    /// Waits until sluice has been given a message of the stream for the second time.
    async fn wait_redelivered(&self, stream: &str) {
        let stream = self.js.get_stream(stream).await.expect("the stream");
        let poll = async {
            while stream.consumer_info(streams::CONSUMER).await.expect("the consumer").num_redelivered == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.expect("nothing is delivered again");
    }
}

async fn next(subscriber: &mut Subscriber) -> (async_nats::Message, Value) {
    let message = tokio::time::timeout(DEADLINE, subscriber.next()).await.expect("in time").expect("open");
    let body = serde_json::from_slice(&message.payload).expect("JSON");
    (message, body)
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
