//! Everything on the broker that is not sluice: who sends telemetry, who deploys, who carries commands out.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull, stream};
use async_nats::{Client, HeaderMap, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sluice::shell::clock;
use tokio::runtime::Runtime;

use super::Form;
use super::telemetry::{self, BATCH, Pool};

/// Publications without an answer of the broker yet.
const WINDOW: u64 = 1_024;
/// Messages that are stored and not recorded by sluice: enough that it never waits for us.
const BACKLOG: u64 = 4_096;
const TELEMETRY: &str = "SLUICE_TELEMETRY";
/// Between two that are timed one by one.
const PAUSE: Duration = Duration::from_millis(2);

/// Set for the process that echoes: how often, through a stream or not, and where the broker is.
const ECHO: &str = "SLUICE_BENCH_ECHO";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub struct Peer {
    runtime: Runtime,
    client: Client,
}

impl Peer {
    pub fn join(url: &str) -> Peer {
        let runtime = runtime();
        let client = runtime.block_on(async_nats::connect(url)).expect("connect to the broker");
        Peer { runtime, client }
    }

    /// Starts a rollout on each service and confirms its first step.
    pub fn start_rollouts(&self, policy: &str, services: &[String]) {
        self.runtime.block_on(async {
            let mut commands = self.client.subscribe("sluice.v1.command.*.*").await.expect("subscribe");
            for service in services {
                let change = json!({"kind": "model", "from": "m@1", "to": "m@2"});
                let intent = json!({"id": service, "change": change, "policy": policy, "by": "bench", "reason": "bench"});
                let subject = format!("sluice.v1.intent.{service}");
                self.client.publish(subject, intent.to_string().into()).await.expect("publish");
            }
            for _ in services {
                let command = next_command(&mut commands).await;
                let ack =
                    json!({"command": command["command"], "actuator": "router", "status": "applied"});
                let subject = format!("sluice.v1.ack.{}", command["service"].as_str().expect("a service"));
                self.client.publish(subject, ack.to_string().into()).await.expect("publish");
            }
            self.client.flush().await.expect("flush");
            let js = jetstream::new(self.client.clone());
            // The broker may not have stored the last one yet; a step that is applied may be as old as a request.
            tokio::time::sleep(Duration::from_millis(500)).await;
            while waiting(&js, "SLUICE_ACKS").await.0 > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    /// From one message of telemetry to the command that takes the traffic back, for each service; ms.
    pub fn breach(&self, services: &[String]) -> Vec<f64> {
        self.runtime.block_on(async {
            let mut commands = self.client.subscribe("sluice.v1.command.*.*").await.expect("subscribe");
            self.client.flush().await.expect("flush");
            let mut took = Vec::new();
            for service in services {
                tokio::time::sleep(PAUSE).await;
                let body = telemetry::breach(clock::now());
                let start = clock::monotonic();
                self.send(format!("sluice.v1.telemetry.{service}"), body).await;
                let command = next_command(&mut commands).await;
                took.push(ms(start));
                assert_eq!((&command["service"], &command["canary_weight"]), (&json!(service), &json!(0.0)));
            }
            took
        })
    }

    /// There and back `n` times over another process, through a stream or not; ms.
    pub fn echo(&self, url: &str, n: usize, through_stream: bool) -> Vec<f64> {
        let mut other = Command::new(std::env::current_exe().expect("our own path"))
            .env(ECHO, format!("{n} {through_stream} {url}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the other side");
        let mut ready = String::new();
        let out = other.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut ready).expect("the other side");
        let took = self.runtime.block_on(async {
            let mut back = self.client.subscribe("bench.back").await.expect("subscribe");
            self.client.flush().await.expect("flush");
            let mut took = Vec::new();
            for _ in 0..n {
                tokio::time::sleep(PAUSE).await;
                let body = telemetry::breach(clock::now());
                let start = clock::monotonic();
                self.send("bench.there".into(), body).await;
                back.next().await.expect("an echo");
                took.push(ms(start));
            }
            took
        });
        assert!(other.wait().expect("the other side").success());
        took
    }

    async fn send(&self, subject: String, body: Vec<u8>) {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", Form::Columns.content_type());
        self.client.publish_with_headers(subject, headers, body.into()).await.expect("publish");
    }
}

async fn next_command(commands: &mut Subscriber) -> Value {
    let message = tokio::time::timeout(Duration::from_secs(30), commands.next()).await;
    let message = message.expect("a command within 30 s").expect("a connection");
    serde_json::from_slice(&message.payload).expect("a JSON body")
}

/// The other side of [`Peer::echo`], when this process was started as such.
pub fn be_echo() -> bool {
    let Ok(told) = std::env::var(ECHO) else { return false };
    let [n, through_stream, url] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let n = n.parse().expect("a number");
    runtime().block_on(async {
        let client = async_nats::connect(url).await.expect("connect to the broker");
        if through_stream == "true" { echo_stream(client, n).await } else { echo_core(client, n).await }
    });
    true
}

async fn echo_core(client: Client, n: usize) {
    let mut there = client.subscribe("bench.there").await.expect("subscribe");
    client.flush().await.expect("flush");
    println!("ready");
    for _ in 0..n {
        let message = there.next().await.expect("a message");
        client.publish("bench.back", message.payload).await.expect("publish");
    }
    client.flush().await.expect("flush");
}

async fn echo_stream(client: Client, n: usize) {
    let js = jetstream::new(client.clone());
    let config = stream::Config {
        name: "BENCH".into(),
        subjects: vec!["bench.there".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    let stream = js.create_stream(config).await.expect("a stream");
    let config = pull::Config { durable_name: Some("bench".into()), ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let mut there = consumer.messages().await.expect("messages");
    // The pull request must have arrived before the first message.
    tokio::time::sleep(Duration::from_millis(200)).await;
    println!("ready");
    for _ in 0..n {
        let message = there.next().await.expect("a message").expect("a message");
        client.publish("bench.back", message.payload.clone()).await.expect("publish");
        message.ack().await.expect("an ack");
    }
    client.flush().await.expect("flush");
    js.delete_stream("BENCH").await.expect("delete");
}

/// Messages in a stream, and the number of its last.
async fn waiting(js: &jetstream::Context, stream: &str) -> (u64, u64) {
    let state = js.get_stream(stream).await.expect("a stream").cached_info().state.clone();
    (state.messages, state.last_sequence)
}

fn ms(since: std::time::Instant) -> f64 {
    (clock::monotonic() - since).as_secs_f64() * 1e3
}

/// What was sent, and how long it took until sluice had all of it.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub samples: u64,
    pub seconds: f64,
}

impl Sent {
    pub fn rate(&self) -> f64 {
        self.samples as f64 / self.seconds
    }
}

/// Sends telemetry of service `bench`, for `length` or until [`Sender::stop`]: `rate` samples a second, or as many
/// as sluice makes durable.
pub struct Sender {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sent>,
}

impl Sender {
    pub fn start(url: &str, pool: &Arc<Pool>, length: Duration, rate: Option<f64>) -> Sender {
        let stop = Arc::new(AtomicBool::new(false));
        let (url, pool, stopped) = (url.to_owned(), pool.clone(), stop.clone());
        let work = move || runtime().block_on(send(&url, &pool, length, rate, &stopped));
        let thread = std::thread::Builder::new().name("sender".into()).spawn(work).expect("a thread");
        Sender { stop, thread }
    }

    pub fn stop(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    pub fn finish(self) -> Sent {
        self.thread.join().expect("the sender")
    }
}

async fn send(url: &str, pool: &Pool, length: Duration, rate: Option<f64>, stop: &AtomicBool) -> Sent {
    let client = async_nats::connect(url).await.expect("connect to the broker");
    let js = jetstream::new(client.clone());
    let (_, before) = waiting(&js, TELEMETRY).await;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.expect("subscribe");
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", pool.form.content_type());
    // How many sluice has recorded, asked for now and then.
    let recorded = Arc::new(AtomicU64::new(0));
    let asking = tokio::spawn({
        let recorded = recorded.clone();
        async move {
            loop {
                let (waiting, last) = waiting(&js, TELEMETRY).await;
                recorded.store(last - waiting - before, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    let start = clock::monotonic();
    let (mut sent, mut stored) = (0, 0);
    while clock::monotonic() - start < length && !stop.load(Ordering::Relaxed) {
        let due = rate.map_or(u64::MAX, |rate| {
            ((clock::monotonic() - start).as_secs_f64() * rate / BATCH as f64) as u64
        });
        let room = (recorded.load(Ordering::Relaxed) + BACKLOG).min(stored + WINDOW).min(due);
        // A few at a time, for the answers want to be read as well.
        for _ in 0..room.saturating_sub(sent).min(64) {
            let body = pool.message(sent, clock::now());
            let sending = client.publish_with_reply_and_headers(
                "sluice.v1.telemetry.bench",
                inbox.clone(),
                headers.clone(),
                body.into(),
            );
            sending.await.expect("publish");
            sent += 1;
        }
        let pause = tokio::time::sleep(Duration::from_millis(1));
        tokio::select! {
            Some(answer) = answers.next() => { stored += 1; check(&answer.payload); }
            () = pause, if sent >= room => {}
            () = tokio::task::yield_now() , if sent < room => {}
        }
        while let Some(Some(answer)) = futures_util::FutureExt::now_or_never(answers.next()) {
            stored += 1;
            check(&answer.payload);
        }
    }
    while stored < sent {
        check(&answers.next().await.expect("a connection").payload);
        stored += 1;
    }
    while recorded.load(Ordering::Relaxed) < sent {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = (clock::monotonic() - start).as_secs_f64();
    asking.abort();
    Sent { samples: sent * BATCH, seconds }
}

fn check(answer: &[u8]) {
    assert!(!answer.windows(7).any(|w| w == b"\"error\""), "{}", String::from_utf8_lossy(answer));
}
