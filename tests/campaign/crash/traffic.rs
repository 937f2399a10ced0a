//! Everything that comes in at once: intents, orders, telemetry, and an actuator that carries out commands.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use sluice::shell::clock;

use crate::support::http;

/// What a daemon confirmed: the event that must be in its log for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Acked {
    pub seq: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// An intent, and the rollout it became.
    Rollout { intent: String, rollout: String },
    /// Telemetry with this id.
    Batch(String),
    /// The confirmation of this command.
    Ack(String),
    /// An order, and the command it led to.
    Order { rollout: String, command: Option<String> },
}

/// Senders, shared by their threads.
pub struct Traffic {
    /// Makes names unique.
    prefix: String,
    intents_max: u32,
    stop: AtomicBool,
    /// The disk is nearly full, the daemon said.
    pub full: AtomicBool,
    acked: Mutex<Vec<Acked>>,
}

/// Tells senders to stop when it goes out of scope.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    pub fn new(prefix: String, intents_max: u32) -> Traffic {
        Traffic {
            prefix,
            intents_max,
            stop: AtomicBool::new(false),
            full: AtomicBool::new(false),
            acked: Mutex::default(),
        }
    }

    /// Sends to `address` until told to stop, or nobody answers any more. `meanwhile` runs beside.
    pub fn run<T>(&self, address: &str, meanwhile: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let base = format!("http://{address}/v1");
            for send in [Traffic::submit, Traffic::observe, Traffic::actuate] {
                let base = base.clone();
                scope.spawn(move || send(self, &Sender { base, client: http() }));
            }
            // Also when `meanwhile` panics: nobody would hear of it while they send.
            let _stop = StopAtEnd(&self.stop);
            meanwhile()
        })
    }

    pub fn acked(&self) -> MutexGuard<'_, Vec<Acked>> {
        self.acked.lock().expect("no sender panics with it")
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Keeps what has a sequence, and so was confirmed.
    pub fn confirmed(&self, seq: Option<u64>, what: What) {
        self.acked().extend(seq.map(|seq| Acked { seq, what }));
    }

    /// Intents, each for a service of its own; every second rollout is taken back.
    fn submit(&self, sender: &Sender) {
        for n in 0..self.intents_max {
            let name = format!("{}-{n}", self.prefix);
            let intent = json!({
                "id": name, "service": format!("s-{name}"),
                "change": {"kind": "prompt", "from": "a@1", "to": "b@1"},
                "policy": "short", "by": "maya", "reason": "a better answer",
            });
            let Some(receipt) = self.post(sender, "/intents", None, &intent) else { return };
            let Some(rollout) = receipt["rollout"].as_str().map(str::to_owned) else { continue };
            let what = What::Rollout { intent: name, rollout: rollout.clone() };
            self.confirmed(receipt["seq"].as_u64(), what);
            if n % 2 == 1 {
                let order = json!({"actor": "maya", "reason": "users complain"});
                let path = format!("/rollouts/{rollout}/rollback");
                let Some(answer) = self.post(sender, &path, None, &order) else { return };
                let command = answer["command"].as_str().map(str::to_owned);
                self.confirmed(answer["seq"].as_u64(), What::Order { rollout, command });
            }
        }
    }

    fn observe(&self, sender: &Sender) {
        for n in 0_u32.. {
            let now = clock::now().0;
            let arm = |version: &str, passed: u64| json!({"version": version, "from": now, "to": now, "m": {"eval_pass": {"n": 2_000, "k": passed}}});
            let (id, batch) =
                (format!("{}-batch-{n}", self.prefix), json!([arm("a@1", 1_800), arm("b@1", 1_900)]));
            let service = format!("s-{}-{}", self.prefix, n % 4);
            let path = format!("/telemetry?service={service}");
            let Some(receipt) = self.post(sender, &path, Some(&id), &batch) else { return };
            self.confirmed(receipt["seq"].as_u64(), What::Batch(id));
        }
    }

    /// Confirms every command it finds in the log, once.
    fn actuate(&self, sender: &Sender) {
        let (mut from, mut done) = (1, BTreeSet::new());
        loop {
            let page = sender.get(&format!("/events?from={from}&limit=1000"));
            let Some(page) = page.filter(|_| self.goes_on()) else { return };
            for event in page["events"].as_array().into_iter().flatten() {
                let command = &event["event"]["CommandIssued"]["command"];
                let (Some(id), Some(service)) = (command["id"].as_str(), command["service"].as_str()) else {
                    continue;
                };
                if done.insert(id.to_owned()) {
                    let ack = json!({"command": id, "actuator": "router", "status": "applied"});
                    let (path, key) = (format!("/acks?service={service}"), format!("ack-{id}"));
                    let Some(answer) = self.post(sender, &path, Some(&key), &ack) else { return };
                    self.confirmed(answer["seq"].as_u64(), What::Ack(id.to_owned()));
                }
            }
            let next = page["next"].as_u64().unwrap_or(from);
            if next == from {
                std::thread::sleep(Duration::from_millis(5));
            }
            from = next;
        }
    }

    /// The receipt; `Null` when the disk is full, `None` when it is over.
    fn post(&self, sender: &Sender, path: &str, key: Option<&str>, body: &Value) -> Option<Value> {
        let mut request = sender.client.post(format!("{}{path}", sender.base)).json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let (status, answer) = crate::support::reply(request).filter(|_| self.goes_on())?;
        if answer["code"] == "E5021" {
            self.full.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
            return Some(Value::Null);
        }
        // A daemon whose writer has ended says so on its way out.
        (200..300).contains(&status).then_some(answer)
    }
}

struct Sender {
    base: String,
    client: reqwest::blocking::Client,
}

impl Sender {
    fn get(&self, path: &str) -> Option<Value> {
        let request = self.client.get(format!("{}{path}", self.base));
        crate::support::reply(request).filter(|(status, _)| *status == 200).map(|(_, body)| body)
    }
}
