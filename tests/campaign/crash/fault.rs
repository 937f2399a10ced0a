//! The disk fails: the daemon's n-th system call of a kind on the data folder ends in EIO, once or from then on.
//!
//! strace answers in the kernel's place, so a call that fails has done nothing. The daemon must end by itself and say
//! what failed, and all that it confirmed, over HTTP or to the broker, and all that it sent must be in the log that the
//! next start opens. Some folders lie on an ext4 that loses its power then: what a failed sync left in memory goes.
//! A folder lives through five faults.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use serde_json::json;
use sluice::core::event::Event;
use sluice::core::event::fact::Inbound;
use sluice::core::state::State;
use sluice::shell::bus::streams::OUT;
use sluice::shell::clock;
use sluice::sim::random::Random;
use sluice::wire::envelope::Envelope;
use sluice::wire::outgoing;

use crate::crash::campaign::Campaign;
use crate::crash::check::{self, Promises};
use crate::crash::daemon::Daemon;
use crate::crash::disk::Disk;
use crate::crash::traffic::{StopAtEnd, Traffic};
use crate::support::NatsServer;

/// Faults of one folder.
const FAULTS: u64 = 5;
const MIB: u64 = 160;
const DISK: &str = "{ballast: 1MiB, free_min: 1MiB}";
const INTENTS: &str = "SLUICE_INTENTS";

/// What fails, how far to count (about what a start and a little traffic do on one thread), and for how many
/// milliseconds the daemon works. An anchor is due every second.
const CALLS: [(&str, u64, f64); 8] = [
    ("pwrite64", 8, 400.0),
    ("pwrite64", 40, 800.0),
    ("fsync", 8, 400.0),
    ("fsync", 40, 800.0),
    ("fdatasync", 2, 2_500.0),
    ("ftruncate", 2, 0.0),
    ("write", 4, 0.0),
    ("rename", 1, 0.0),
];
/// Where `write` fails: elsewhere it is no call of the disk's.
const WRITTEN: [&str; 4] = ["sled/db", "sled/conf", "ballast", "anchor.new"];

#[test]
fn after_an_error_of_the_disk_nothing_is_confirmed_or_sent() {
    let campaign = Campaign::new("fault", FAULTS, 10);
    let strace = std::process::Command::new("strace").arg("-V").output();
    if !strace.is_ok_and(|output| output.status.success()) {
        return campaign.skip("strace is not installed: apt-get install strace");
    }
    campaign.run(|_, mut random| faults(&mut random));
}

/// One folder; says what each fault met.
fn faults(random: &mut Random) -> Vec<String> {
    let home = tempfile::tempdir().expect("a temporary folder");
    // Not everywhere is there a loop device.
    let disk = random.chance(0.5).then(|| Disk::ext4(home.path(), MIB).ok()).flatten();
    let data = disk.as_ref().map_or(home.path(), Disk::path).join("data");
    let broker = random.chance(0.5).then(Broker::start);
    let mut promises = Promises::default();
    let mut met = Vec::new();
    let mut failed = 0;
    for round in 0.. {
        let (call, most, millis) = CALLS[random.below(CALLS.len() as u64) as usize];
        let (nth, for_ever) = (1 + random.below(most), random.chance(0.5));
        let work = Duration::from_secs_f64(millis / 1_000.0 * random.unit());
        let closes = random.chance(0.3);
        let trace = home.path().join("trace");
        let mut under = broker.iter().flat_map(Broker::env).collect::<Vec<_>>();
        under.extend(failing(call, nth, for_ever, &data, &trace));
        let hit = || fs::read_to_string(&trace).is_ok_and(|trace| trace.contains("(INJECTED)"));
        let traffic = Traffic::new(format!("e{round}"), 20);
        let mut daemon = Daemon::start(home.path(), &data, &under, DISK);
        let stage = match daemon.ready() {
            None => "at the start",
            Some(address) => traffic.run(&address, || {
                let mut serve = || {
                    let until = clock::monotonic() + work;
                    while daemon.ended().is_none() && clock::monotonic() < until {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    if !hit() && closes {
                        daemon.terminate();
                        daemon.wait();
                        return "at the end";
                    }
                    "at work"
                };
                match &broker {
                    Some(broker) => broker.feed(serve),
                    None => serve(),
                }
            }),
        };
        met.extend(broker.iter().map(|_| "with a broker".to_owned()));
        if hit() {
            let ended = daemon.wait();
            let said = daemon.stderr();
            let named = said.contains("input/output error") || said.contains("did not finish within");
            assert!(
                !ended.success() && named,
                "{call} {nth}, for ever: {for_ever}, {stage}: {ended}: {said}"
            );
            assert!(!said.contains("panicked"), "{call} {nth}, for ever: {for_ever}, {stage}: {said}");
            failed += 1;
            met.push(format!("{call}, {stage}{}", if for_ever { ", for ever" } else { "" }));
        } else {
            met.push("no such call".to_owned());
        }
        daemon.kill9();
        promises.acked.append(&mut traffic.acked());
        if let Some(disk) = &disk {
            met.push("then a power cut".to_owned());
            disk.cut_power().expect("the power is cut");
            disk.power_on();
        }
        if random.chance(0.7) || failed == FAULTS {
            promises.check(&data);
            broker.iter().for_each(|broker| broker.check(&data));
        }
        if failed == FAULTS {
            break;
        }
    }
    promises.check_verbs(&data);
    met
}

/// The words that run a program whose `nth` such call on any thread fails.
fn failing(call: &str, nth: u64, for_ever: bool, data: &Path, trace: &Path) -> Vec<String> {
    let on = if for_ever { "+" } else { "" };
    let inject = format!("inject={call}:error=EIO:when={nth}{on}");
    let (calls, trace) = (format!("trace={call}"), trace.display().to_string());
    let words = ["strace", "-f", "-qqq", "-o", &trace, "-e", &calls, "-e", &inject].map(str::to_owned);
    let only = |name| ["-P".to_owned(), data.join(name).display().to_string()];
    let only = WRITTEN.iter().filter(|_| call == "write").flat_map(only);
    words.into_iter().chain(only).collect()
}

/// A broker of our own, and a sender on it.
struct Broker {
    nats: NatsServer,
    runtime: tokio::runtime::Runtime,
    js: jetstream::Context,
}

impl Broker {
    fn start() -> Broker {
        let nats = NatsServer::start();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let client = runtime.block_on(async_nats::connect(nats.url())).expect("connect");
        let js = {
            let _inside = runtime.enter();
            jetstream::new(client)
        };
        Broker { nats, runtime, js }
    }

    /// The words that tell a daemon of it.
    fn env(&self) -> [String; 2] {
        ["env".into(), format!("SLUICE_NATS={}", self.nats.url())]
    }

    /// Sends intents, each for a service of its own, while `meanwhile` runs.
    fn feed<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let service = format!("n-{}", uuid::Uuid::new_v4().simple());
                    let intent = json!({
                        "service": service, "change": {"kind": "prompt", "from": "a@1", "to": "b@1"},
                        "policy": "short", "by": "maya", "reason": "a better answer",
                    });
                    let subject = format!("sluice.v1.intent.{service}");
                    let sent = async { self.js.publish(subject, intent.to_string().into()).await?.await };
                    // The stream is there once sluice has made it.
                    let _ = self.runtime.block_on(sent);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let _stop = StopAtEnd(&stop);
            meanwhile()
        })
    }

    /// What is confirmed has left its stream, and must be in the log; what has come must follow from the log.
    fn check(&self, data: &Path) {
        let log = check::open(data).expect("it opened just now");
        let (mut state, mut recorded, mut sent) = (State::default(), BTreeSet::new(), BTreeSet::new());
        for envelope in log.reader().scan(1).expect("scan") {
            let Envelope { seq, at, event, .. } = envelope.expect("sound");
            state.apply(seq, at, &event);
            recorded.extend(delivered(&event));
            // Right behind the event: of a command that is carried out nothing more is said.
            let headers = outgoing::messages(&state, seq, at, &event).into_iter().flat_map(|m| m.headers);
            sent.extend(headers.filter(|(name, _)| *name == "Nats-Msg-Id").map(|(_, id)| id));
        }
        for (seq, message) in self.stored(INTENTS) {
            assert!(
                message.is_some() || recorded.contains(&seq),
                "intent {seq} is confirmed and not in the log"
            );
        }
        for (seq, message) in self.stored(OUT) {
            let Some(message) = message else { continue };
            let id = message.headers.get("Nats-Msg-Id").expect("an id").to_string();
            assert!(sent.contains(&id), "message {seq} was sent, and follows from nothing: {message:?}");
        }
    }

    /// Every message the stream has ever held; without those that it does not hold any more.
    fn stored(&self, stream: &str) -> Vec<(u64, Option<jetstream::message::StreamMessage>)> {
        self.runtime.block_on(async {
            // A daemon that never came up has made none.
            let Ok(stream) = self.js.get_stream(stream).await else { return Vec::new() };
            let mut stored = Vec::new();
            for seq in 1..=stream.cached_info().state.last_sequence {
                stored.push((seq, stream.get_raw_message(seq).await.ok()));
            }
            stored
        })
    }
}

/// The number in the stream of intents that the fact came under.
fn delivered(event: &Event) -> Option<u64> {
    let (Event::IntentReceived { origin, .. } | Event::InputRejected { origin, .. }) = event else {
        return None;
    };
    origin.delivery.filter(|delivery| delivery.stream == Inbound::Intents).map(|delivery| delivery.seq)
}
