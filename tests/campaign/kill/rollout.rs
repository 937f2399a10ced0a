//! A rollout under `kill -9` takes the very decisions of the undisturbed one.
//!
//! The test plays sender, actuator and onlooker of one rollout. It sends each message until it is answered, always
//! with the same id, and the next batch when the last one has been weighed: so decisions hang on what was sent, and
//! a kill may delay them but not change them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::shell::clock;
use sluice::sim::random::Random;

use super::{assert_sound, kills};
use crate::support::{DEADLINE, Daemon, http, reply};

/// Kills in one rollout.
const KILLS_A_RUN: u32 = 10;
/// Observations of each arm in a batch; the policy says how many batches make a step.
const BATCH: u64 = 2_000;
/// A batch that came after its second had settled is never weighed: this long is waited before a look whether one
/// still can be.
const WEIGHED_WITHIN: Duration = Duration::from_millis(2_500);

/// How many of the canary's [`BATCH`] requests pass; of the baseline 1,800 do.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    canary: u64,
    expected: &'static [&'static str],
}

const WORSE: Scenario = Scenario {
    canary: 1_400,
    expected: &[
        "promote 0 -> 25",
        "set 25",
        "applied",
        "rollback 25 -> 0",
        "set 0",
        "applied",
        "rolled_back",
    ],
};

const BETTER: Scenario = Scenario {
    canary: 1_950,
    expected: &[
        "promote 0 -> 25",
        "set 25",
        "applied",
        "promote 25 -> 50",
        "set 50",
        "applied",
        "promote 50 -> 100",
        "set 100",
        "applied",
        "complete 100 -> 100",
        "completed",
    ],
};

#[test]
fn a_killed_rollout_ends_as_the_undisturbed_one() {
    campaign(6, 3);
}

#[test]
#[ignore = "takes minutes: make kill-test N=200"]
fn rollouts_outlive_many_kills() {
    campaign(kills(), KILLS_A_RUN);
}

fn campaign(kills: u32, kills_a_run: u32) {
    let seed = std::env::var("SLUICE_SEED").map_or(1, |seed| seed.parse().expect("SLUICE_SEED is a number"));
    let start = clock::monotonic();
    for scenario in [WORSE, BETTER] {
        Run::go(scenario, seed, 0);
    }
    let (mut runs, mut killed, mut events, mut answers) = (0, 0, 0, 0);
    let mut hits: BTreeMap<String, u32> = BTreeMap::new();
    while killed < kills {
        let scenario = [WORSE, BETTER][runs % 2];
        runs += 1;
        let run = Run::go(scenario, seed.wrapping_add(runs as u64), kills_a_run.min(kills - killed));
        killed += run.killed.len() as u32;
        run.killed.iter().for_each(|hit| *hits.entry(hit.clone()).or_default() += 1);
        events += run.events.len();
        answers += run.answered.len();
    }
    let took = (clock::monotonic() - start).as_secs();
    println!(
        "{runs} rollouts, {killed} kills, {answers} answers and {events} events kept; seed {seed}, {took} s"
    );
    println!("{hits:#?}");
}

/// When the daemon dies; in any case by the end of the run's patience.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    Whenever,
    /// While a request to this path is under way.
    During(&'static str),
    /// Right after an answer.
    Answered,
    /// Right after an event of this kind was seen on the stream.
    Seen(&'static str),
}

const MOMENTS: [Moment; 9] = [
    Moment::Whenever,
    Moment::During("/v1/intents"),
    Moment::During("/v1/telemetry"),
    Moment::During("/v1/acks"),
    Moment::Answered,
    Moment::Seen("decision.made"),
    Moment::Seen("command.issued"),
    Moment::Seen("cohort.scored"),
    Moment::Seen("command.applied"),
];

/// A message that got its receipt.
struct Answered {
    path: &'static str,
    id: String,
    body: Value,
    receipt: Value,
}

struct Run {
    daemon: Daemon,
    random: Random,
    kills_left: u32,
    /// What each kill hit.
    killed: Vec<String>,
    moment: Moment,
    kill_at: Option<Instant>,
    stream: mpsc::Receiver<Value>,
    /// Lines of the stream and events of the log, as this run saw them first.
    told: BTreeMap<u64, Value>,
    events: BTreeMap<u64, Value>,
    answered: Vec<Answered>,
}

impl Run {
    /// Carries one rollout to its end under so many kills, and checks all that is promised.
    fn go(scenario: Scenario, seed: u64, kills: u32) -> Run {
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/campaign/kill/policies");
        let daemon = Daemon::start(None, Some(&policies));
        let stream = follow(&daemon, 1);
        let mut run = Run {
            daemon,
            random: Random::new(seed),
            kills_left: kills,
            killed: Vec::new(),
            moment: Moment::Whenever,
            kill_at: None,
            stream,
            told: BTreeMap::new(),
            events: BTreeMap::new(),
            answered: Vec::new(),
        };
        run.plan();
        run.play(scenario);
        run.check();
        let trace = run.trace();
        assert_eq!(trace, scenario.expected, "{scenario:?}, seed {seed}, killed: {:?}", run.killed);
        run.assert_counted_once();
        assert_sound(&mut run.daemon);
        run
    }

    fn play(&mut self, scenario: Scenario) {
        let intent = json!({
            "id": "intent", "service": "chat", "change": {"kind": "prompt", "from": "a@1", "to": "b@1"},
            "policy": "short", "by": "maya", "reason": "a better answer",
        });
        self.deliver("/v1/intents", "intent", intent);
        let mut batches = 0;
        // Where the last batch is in the log, and how long it is waited for without a look.
        let mut weighing: Option<(u64, Instant)> = None;
        let mut acked = BTreeSet::new();
        let patience = clock::monotonic() + 2 * DEADLINE;
        loop {
            assert!(clock::monotonic() < patience, "no end in sight: {:#?}", self.trace());
            self.read();
            let trace = self.trace();
            assert!(
                scenario.expected.starts_with(&trace.iter().map(String::as_str).collect::<Vec<_>>()),
                "{trace:#?}"
            );
            if self.last("rollout.ended").is_some() {
                return;
            }
            let issued = self.last("command.issued").map(|(seq, event)| {
                (seq, event["CommandIssued"]["command"]["id"].as_str().expect("an id").to_owned())
            });
            let applied = self.last("command.applied").map_or(0, |(seq, _)| seq);
            if let Some((seq, command)) = issued
                && applied < seq
                && acked.insert(command.clone())
            {
                let ack = json!({"command": command, "actuator": "router", "status": "applied"});
                self.deliver("/v1/acks", &format!("ack-{command}"), ack);
                weighing = None;
                continue;
            }
            let decided = self.last("decision.made").map_or(0, |(seq, _)| seq);
            let scored = self.last("cohort.scored").map_or(0, |(seq, _)| seq);
            weighing = weighing.filter(|(sent, _)| scored <= *sent);
            if let Some((_, until)) = &mut weighing
                && *until <= clock::monotonic()
            {
                *until += WEIGHED_WITHIN;
                weighing = weighing.filter(|_| self.waits());
            }
            let soaking = trace.ends_with(&["set 100".into(), "applied".into()]);
            if applied > decided && weighing.is_none() && !soaking {
                batches += 1;
                let id = format!("batch-{batches}");
                self.deliver("/v1/telemetry", &id, batch(scenario));
                self.read();
                let sent = self.events.iter().rev().find(|(_, event)| *message_id(event) == *id);
                let (sent, _) = sent.expect("the batch is in the log");
                weighing = Some((*sent, clock::monotonic() + WEIGHED_WITHIN));
                continue;
            }
            self.wait(weighing.map(|(_, until)| until));
        }
    }

    /// Sends until there is a good answer, every time the same.
    fn deliver(&mut self, path: &'static str, id: &str, body: Value) {
        for _ in 0..100 {
            let url = match path {
                "/v1/intents" => self.daemon.url(path),
                _ => self.daemon.url(&format!("{path}?service=chat")),
            };
            let (key, sent) = (id.to_owned(), body.clone());
            let send = move || reply(http().post(url).header("Idempotency-Key", key).json(&sent));
            let during = self.kills_left > 0 && self.moment == Moment::During(path);
            let answer = if during {
                let sending = std::thread::spawn(send);
                std::thread::sleep(Duration::from_micros(self.random.below(25_000)));
                self.daemon.kill9();
                sending.join().expect("the sender")
            } else {
                Some(send().expect("an answer from a daemon that nobody killed"))
            };
            let good = answer.map(|(status, receipt)| {
                assert!((200..300).contains(&status), "{id}: {status} {receipt}");
                self.answered.push(Answered { path, id: id.to_owned(), body: body.clone(), receipt });
            });
            if during {
                let answered = if good.is_some() { "after" } else { "before" };
                self.kill(&format!("{path}, {answered} its answer"));
            } else if good.is_some() && self.kills_left > 0 && self.moment == Moment::Answered {
                self.kill("after an answer");
            }
            if good.is_some() {
                return;
            }
        }
        panic!("{id} was never answered");
    }

    /// Waits for something new on the stream, or for `until`.
    fn wait(&mut self, until: Option<Instant>) {
        let now = clock::monotonic();
        let end = [until, self.kill_at, Some(now + DEADLINE)].into_iter().flatten().min().expect("an end");
        match self.stream.recv_timeout(end.saturating_duration_since(now)) {
            Ok(line) => {
                let seen = line["kind"].as_str().expect("a kind").to_owned();
                self.tell(line);
                if self.kills_left > 0 && matches!(self.moment, Moment::Seen(kind) if kind == seen) {
                    self.kill(&seen);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout)
                if self.kill_at.is_some_and(|at| at <= clock::monotonic()) =>
            {
                self.kill("whenever");
            }
            Err(mpsc::RecvTimeoutError::Timeout) => assert!(until.is_some(), "nothing happens any more"),
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the stream of events broke off"),
        }
    }

    /// Whether something sent may still be weighed. The view is a quarter of a second old at most.
    fn waits(&self) -> bool {
        let (status, rollout) = self.daemon.get("/v1/rollouts/chat-1");
        assert_eq!(status, 200, "{rollout}");
        rollout["guardrails"][0]["waiting"].as_u64().expect("what waits") > 0
    }

    fn tell(&mut self, line: Value) {
        let seq = line["seq"].as_u64().expect("a sequence");
        assert!(self.told.insert(seq, line).is_none(), "event {seq} came twice on one stream");
    }

    /// Kills the daemon, perhaps once more while it recovers, and checks what comes back.
    fn kill(&mut self, hit: &str) {
        self.daemon.kill9();
        self.count(hit);
        while let Ok(line) = self.stream.recv_timeout(DEADLINE) {
            self.tell(line);
        }
        if self.kills_left > 0 && self.random.chance(0.25) {
            self.daemon.launch();
            std::thread::sleep(Duration::from_millis(self.random.below(300)));
            self.daemon.kill9();
            self.count("while it recovered");
        }
        self.daemon.restart();
        let from = self.told.keys().next_back().map_or(1, |last| last + 1);
        self.stream = follow(&self.daemon, from);
        self.check();
        self.plan();
    }

    fn count(&mut self, hit: &str) {
        self.killed.push(hit.to_owned());
        self.kills_left -= 1;
    }

    fn plan(&mut self) {
        self.moment = MOMENTS[self.random.below(MOMENTS.len() as u64) as usize];
        let delay = Duration::from_millis(self.random.below(2_500));
        self.kill_at = (self.kills_left > 0).then(|| clock::monotonic() + delay);
    }

    /// Reads what is new in the log.
    fn read(&mut self) {
        let from = self.events.keys().next_back().map_or(1, |last| last + 1);
        self.events.extend(self.log(from));
    }

    fn log(&self, mut from: u64) -> BTreeMap<u64, Value> {
        let mut events = BTreeMap::new();
        loop {
            let (status, mut page) = self.daemon.get(&format!("/v1/events?from={from}&limit=1000"));
            assert_eq!(status, 200, "{page}");
            let found = page["events"].as_array_mut().expect("events").drain(..);
            events.extend(found.map(|event| (event["seq"].as_u64().expect("a sequence"), event)));
            from = page["next"].as_u64().expect("where to go on");
            if from > page["last"].as_u64().expect("the last event") {
                return events;
            }
        }
    }

    /// All that was told, read or acknowledged is in the log as it was; nothing was ordered twice.
    fn check(&mut self) {
        let log = self.log(1);
        assert!(log.keys().copied().eq(1..=log.len() as u64), "the log has gaps");
        for (seq, event) in &self.events {
            assert_eq!(log.get(seq), Some(event), "event {seq} after {:?}", self.killed);
        }
        for (seq, line) in &self.told {
            let event = log.get(seq).unwrap_or_else(|| panic!("event {seq} was seen and is gone: {line}"));
            for field in ["at", "kind", "text"] {
                assert_eq!(event[field], line[field], "event {seq} after {:?}", self.killed);
            }
        }
        let last = self.told.keys().next_back().copied().unwrap_or(0);
        let news = log.range(..=last).filter(|(_, event)| event["kind"] != "batch.received");
        assert!(news.map(|(seq, _)| seq).eq(self.told.keys()), "the stream left something out");
        for Answered { path, id, receipt, .. } in &self.answered {
            let Some(seq) = receipt["seq"].as_u64() else { continue };
            let event = log.get(&seq).unwrap_or_else(|| panic!("{id} was acknowledged as {seq} and is gone"));
            match *path {
                "/v1/intents" => assert_eq!(event["event"]["RolloutCreated"]["rollout"], receipt["rollout"]),
                "/v1/acks" => assert_eq!(event["kind"], "ack.received", "{id}"),
                _ => assert_eq!(message_id(event), id),
            }
        }
        self.events = log;
        self.assert_ordered_once();
        if let Some(Answered { body, receipt, .. }) = self.answered.first() {
            let (status, again) = self.daemon.post("/v1/intents", body);
            assert_eq!(
                (status, &again["seq"], &again["rollout"]),
                (200, &receipt["seq"], &receipt["rollout"])
            );
        }
    }

    /// Each decision, and each share, has one command; what was sent again is one of them.
    fn assert_ordered_once(&self) {
        let (mut ids, mut decisions, mut shares) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for event in self.events.values().map(|event| &event["event"]) {
            let command = &event["CommandIssued"]["command"];
            if command.is_object() {
                let new = ids.insert(command["id"].to_string())
                    & decisions.insert(command["decision"].to_string())
                    & shares.insert(command["weight"].to_string());
                assert!(new, "ordered twice: {command}");
            }
            let resent = &event["CommandResent"];
            if resent.is_object() {
                assert!(ids.contains(&resent["command"].to_string()), "never issued: {resent}");
            }
        }
    }

    /// Each batch is in the log once, and sending all of them again adds none.
    fn assert_counted_once(&mut self) {
        let of = |log: &BTreeMap<u64, Value>| -> Vec<String> {
            let batches = log.values().filter(|event| event["kind"] == "batch.received");
            batches.map(|event| message_id(event).as_str().expect("an id").to_owned()).collect()
        };
        let sent = self.answered.iter().filter(|answered| answered.path == "/v1/telemetry");
        let sent: Vec<(String, Value)> = sent.map(|a| (a.id.clone(), a.body.clone())).collect();
        let ids: Vec<String> = sent.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(of(&self.events), ids);
        for (id, body) in sent {
            let request =
                http().post(self.daemon.url("/v1/telemetry?service=chat")).header("Idempotency-Key", &id);
            let (status, again) = reply(request.json(&body)).expect("an answer");
            assert_eq!((status, &again["duplicate"]), (200, &json!(true)), "{id}: {again}");
        }
        assert_eq!(of(&self.log(1)), ids);
    }

    /// The last event of a kind.
    fn last(&self, kind: &str) -> Option<(u64, &Value)> {
        let of_kind = self.events.iter().rev().find(|(_, event)| event["kind"] == kind);
        of_kind.map(|(seq, event)| (*seq, &event["event"]))
    }

    /// What was decided, ordered and done, without times.
    fn trace(&self) -> Vec<String> {
        let share = |weight: &Value| weight.as_u64().expect("a share") / 100;
        let line = |event: &Value| {
            let (kind, of) = event["event"].as_object()?.iter().next()?;
            Some(match kind.as_str() {
                "DecisionMade" => {
                    let d = &of["decision"];
                    let choice = d["choice"].as_str().expect("a choice");
                    format!("{choice} {} -> {}", share(&d["weight_from"]), share(&d["weight_to"]))
                }
                "CommandIssued" => format!("set {}", share(&of["command"]["weight"])),
                "CommandApplied" => "applied".to_owned(),
                "RolloutEnded" => of["outcome"].as_str().expect("an outcome").to_owned(),
                "AlertRaised" | "AckRefused" | "InputRejected" => event["text"].to_string(),
                _ => return None,
            })
        };
        self.events.values().filter_map(line).collect()
    }
}

/// Some requests of both arms, served now and summed by their sender.
fn batch(scenario: Scenario) -> Value {
    let now = clock::now().0;
    let arm = |version: &str, passed: u64| {
        let summary = json!({"eval_pass": {"n": BATCH, "k": passed}});
        json!({"version": version, "from": now, "to": now, "m": summary})
    };
    json!([arm("a@1", 1_800), arm("b@1", scenario.canary)])
}

/// The id that a batch came with; `Null` for other events.
fn message_id(event: &Value) -> &Value {
    &event["event"]["BatchReceived"]["origin"]["message_id"]
}

/// Lines of the event stream from `from` on, until it breaks off.
fn follow(daemon: &Daemon, from: u64) -> mpsc::Receiver<Value> {
    let request = http().get(daemon.url(&format!("/v1/follow?from={from}")));
    let response = request.send().expect("the stream of events");
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(response).lines().map_while(Result::ok) {
            let Some(data) = line.strip_prefix("data:") else { continue };
            let line = serde_json::from_str(data).expect("an event in JSON");
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}
