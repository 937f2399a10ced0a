//! `kill -9` between what sluice has made durable and what it told the broker.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use async_nats::jetstream;
use async_nats::{HeaderMap, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sluice::core::ids::{CommandId, derived_id};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::assert_sound;
use crate::support::{DEADLINE, Daemon, NatsServer, wait_for};

const OUT: &str = "SLUICE_OUT";
const INTENTS: &str = "SLUICE_INTENTS";

/// The intent is in the log, the broker does not know: it delivers the intent again.
#[test]
fn a_kill_between_fact_and_ack_repeats_nothing() {
    let nats = NatsServer::start();
    let proxy = Proxy::before(&nats, "only said once");
    let mut daemon = Daemon::start_at(Some(proxy.url()), Some(&policies()));
    let peer = Peer::join(&nats);
    // Without an id of its own: nothing but the number of its delivery tells the second from a new one.
    let mut intent = intent("only said once");
    intent.as_object_mut().expect("an object").remove("id");
    peer.publish("sluice.v1.intent.chat", &intent);
    let delivery = proxy.delivery.recv_timeout(DEADLINE).expect("the intent is delivered");
    wait_for("the rollout to be durable", || {
        let (_, list) = daemon.get("/v1/rollouts");
        (list["rollouts"].as_array()?.len() == 1).then_some(())
    });
    daemon.kill9();
    assert_eq!(peer.messages(INTENTS), 1, "the confirmation got through");

    daemon.turn_to(&nats);
    // Else it would be delivered to the dead, and again only after 30 s.
    wait_for("the broker to miss the daemon", || (peer.consumer(INTENTS).num_waiting == 0).then_some(()));
    // The broker would deliver again when 30 s have passed without a confirmation; told to, it does at once.
    peer.send(&delivery, "-NAK");
    daemon.restart();
    wait_for("the intent to leave its stream", || (peer.messages(INTENTS) == 0).then_some(()));
    assert_eq!(peer.consumer(INTENTS).delivered.consumer_sequence, 2, "deliveries");
    wait_for("decision and command", || (peer.messages(OUT) == 2).then_some(()));
    assert_eq!(of_kind(&daemon, "intent.received").len(), 1);
    assert_eq!(of_kind(&daemon, "rollout.created").len(), 1);
    assert_sound(&mut daemon);
    assert_eq!(peer.messages(OUT), 2);
}

/// The decision is in the log, the broker was down: it gets decision and command from the next process.
#[test]
fn a_kill_between_decision_and_publish_publishes_once_under_one_id() {
    let mut nats = NatsServer::start();
    let mut daemon = Daemon::start(Some(&nats), Some(&policies()));
    let (status, receipt) = daemon.post("/v1/intents", &intent("to be taken back"));
    assert_eq!(status, 200, "{receipt}");
    wait_for("the first decision and its command", || (Peer::join(&nats).messages(OUT) == 2).then_some(()));

    nats.stop();
    let order = json!({"actor": "maya", "reason": "users complain"});
    let (status, answer) = daemon.post("/v1/rollouts/chat-1/rollback", &order);
    assert_eq!(status, 200, "{answer}");
    let decision = answer["decision"]["seq"].as_u64().expect("the decision's sequence");
    assert_eq!(of_kind(&daemon, "decision.made").last().map(|e| &e["seq"]), Some(&json!(decision)));
    daemon.kill9();
    nats.start_again();

    let peer = Peer::join(&nats);
    assert_eq!(peer.messages(OUT), 2, "published before the kill");
    let mut heard = peer.subscribe("sluice.v1.>");
    daemon.restart();
    wait_for("all decisions and commands", || (peer.messages(OUT) >= 4).then_some(()));
    // Killed and started once more, now that all is out: what goes out again is the same.
    daemon.kill9();
    daemon.restart();
    let command = answer["command"].as_str().expect("the command's id").to_owned();
    let ack = json!({"command": command, "actuator": "router", "status": "applied"});
    assert_eq!(daemon.post("/v1/acks?service=chat", &ack).0, 200);
    let (_, info) = daemon.get("/v1/info");
    // The daemon ends when all it had to say is with the broker.
    assert_sound(&mut daemon);

    let stored = peer.stored(OUT);
    let ids: Vec<&str> = stored.iter().map(|message| message.id.as_str()).collect();
    let log: Uuid = info["log"].as_str().and_then(|id| id.parse().ok()).expect("the log's id");
    let of_decision = derived_id(log, "sluice-rollout.rolledback", decision).to_string();
    let of_command = CommandId(derived_id(log, "command", decision));
    assert_eq!(command, of_command.to_string());
    let to_router = derived_id(of_command.0, "router", decision).to_string();
    // In either order: a command does not wait for its decision.
    let mut late = ids[2..].to_vec();
    late.sort_unstable_by_key(|id| *id != of_decision);
    assert_eq!(late, [&of_decision, &to_router], "the stream holds {stored:#?}");
    let heard = peer.heard(&mut heard);
    for (id, message) in ids.iter().zip(&stored).skip(2) {
        let same: Vec<_> = heard.iter().filter(|heard| heard.id == *id).collect();
        assert!(!same.is_empty(), "{message:?} was not heard");
        assert!(same.iter().all(|heard| *heard == message), "{message:?} was heard as {same:#?}");
    }
    // Who listens gets the open command again after each restart.
    assert!(heard.iter().filter(|message| message.id == to_router).count() >= 2);
}

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/campaign/kill/policies")
}

fn intent(reason: &str) -> Value {
    json!({
        "id": "intent", "service": "chat", "change": {"kind": "prompt", "from": "a@1", "to": "b@1"},
        "policy": "short", "by": "maya", "reason": reason,
    })
}

fn of_kind(daemon: &Daemon, kind: &str) -> Vec<Value> {
    let (status, page) = daemon.get("/v1/events?limit=1000");
    assert_eq!(status, 200, "{page}");
    let events = page["events"].as_array().expect("events");
    events.iter().filter(|event| event["kind"] == kind).cloned().collect()
}

/// Stands between daemon and broker. As soon as the broker delivers what contains `marker`, nothing that the daemon
/// says arrives any more.
struct Proxy {
    port: u16,
    /// Where the confirmation of the marked message belongs.
    delivery: mpsc::Receiver<String>,
}

impl Proxy {
    fn before(nats: &NatsServer, marker: &'static str) -> Proxy {
        let address = nats.url().trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let cut = Arc::new(AtomicBool::new(false));
        let (found, delivery) = mpsc::channel();
        std::thread::spawn(move || {
            for daemon in listener.incoming() {
                let daemon = daemon.expect("a connection");
                let broker = TcpStream::connect(&address).expect("the broker");
                let (to_broker, to_daemon) = (broker.try_clone(), daemon.try_clone());
                let (to_broker, to_daemon) = (to_broker.expect("a handle"), to_daemon.expect("a handle"));
                let (spoken, marked, found) = (cut.clone(), cut.clone(), found.clone());
                std::thread::spawn(move || pass(daemon, to_broker, |_| !spoken.load(Ordering::SeqCst)));
                let mut said = Vec::new();
                let listen = move |bytes: &[u8]| {
                    said.extend_from_slice(bytes);
                    if let Some(delivery) = delivery_of(&said, marker) {
                        // Before the daemon can know of the message.
                        marked.store(true, Ordering::SeqCst);
                        // The first delivery is enough to know.
                        let _ = found.send(delivery);
                    }
                    true
                };
                std::thread::spawn(move || pass(broker, to_daemon, listen));
            }
        });
        Proxy { port, delivery }
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

/// Passes on what `allows`, until either end closes; then closes the other.
fn pass(mut from: TcpStream, mut to: TcpStream, mut allows: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 1 << 16];
    while let Ok(n) = from.read(&mut buffer)
        && n > 0
        && (!allows(&buffer[..n]) || to.write_all(&buffer[..n]).is_ok())
    {}
    // Either may be gone already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// The subject that confirms the message with `marker`.
fn delivery_of(said: &[u8], marker: &str) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let before = &said[..said.find(marker)?];
    let subject = &before[before.rfind("$JS.ACK.")?..];
    subject.split_whitespace().next().map(str::to_owned)
}

/// A message as it went over the wire.
#[derive(Debug, PartialEq)]
struct Said {
    id: String,
    subject: String,
    /// Only those that sluice sets.
    headers: Vec<String>,
    body: String,
}

impl Said {
    fn new(subject: &str, headers: Option<&HeaderMap>, body: &[u8]) -> Said {
        let ours = headers.into_iter().flat_map(|headers| headers.iter());
        let ours = ours.filter(|(name, _)| name.to_string().starts_with("ce-"));
        let mut ours: Vec<String> = ours.map(|(name, values)| format!("{name}: {values:?}")).collect();
        ours.sort();
        let id = headers.and_then(|headers| headers.get("Nats-Msg-Id"));
        Said {
            id: id.map(ToString::to_string).unwrap_or_default(),
            subject: subject.to_owned(),
            headers: ours,
            body: String::from_utf8_lossy(body).into_owned(),
        }
    }
}

/// A program beside sluice on the same broker.
struct Peer {
    runtime: Runtime,
    client: async_nats::Client,
    js: jetstream::Context,
}

impl Peer {
    fn join(nats: &NatsServer) -> Peer {
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime.block_on(async_nats::connect(nats.url())).expect("connect");
        let js = {
            let _inside = runtime.enter();
            jetstream::new(client.clone())
        };
        Peer { runtime, client, js }
    }

    fn publish(&self, subject: &str, body: &Value) {
        let (subject, body) = (subject.to_owned(), body.to_string());
        let publish = async { self.js.publish(subject, body.into()).await.expect("publish").await };
        self.runtime.block_on(publish).expect("the broker stores it");
    }

    fn send(&self, subject: &str, body: &'static str) {
        let (subject, body) = (subject.to_owned(), body.into());
        self.runtime.block_on(async {
            self.client.publish(subject, body).await.expect("publish");
            self.client.flush().await.expect("flush");
        });
    }

    fn subscribe(&self, subject: &'static str) -> Subscriber {
        self.runtime.block_on(async {
            let subscriber = self.client.subscribe(subject).await.expect("subscribe");
            self.client.flush().await.expect("flush");
            subscriber
        })
    }

    /// Everything that has come so far.
    fn heard(&self, subscriber: &mut Subscriber) -> Vec<Said> {
        self.send("sluice.v1.the-end", "");
        self.runtime.block_on(async {
            let mut heard = Vec::new();
            loop {
                let message = tokio::time::timeout(DEADLINE, subscriber.next()).await;
                let message = message.expect("in time").expect("an open subscription");
                if message.subject.as_str() == "sluice.v1.the-end" {
                    return heard;
                }
                heard.push(Said::new(&message.subject, message.headers.as_ref(), &message.payload));
            }
        })
    }

    fn stream(&self, name: &str) -> jetstream::stream::Stream {
        self.runtime.block_on(self.js.get_stream(name)).expect("the stream")
    }

    fn messages(&self, stream: &str) -> u64 {
        self.stream(stream).cached_info().state.messages
    }

    /// Sluice's own consumer of a stream.
    fn consumer(&self, stream: &str) -> jetstream::consumer::Info {
        self.runtime.block_on(self.stream(stream).consumer_info("sluice")).expect("the consumer")
    }

    fn stored(&self, stream: &str) -> Vec<Said> {
        let stream = self.stream(stream);
        let state = &stream.cached_info().state;
        let messages = (state.first_sequence..=state.last_sequence).map(|seq| {
            let message = self.runtime.block_on(stream.get_raw_message(seq)).expect("a stored message");
            Said::new(&message.subject, Some(&message.headers), &message.payload)
        });
        messages.collect()
    }
}
