//! The API over a real socket, on a real log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sluice::core::event::{Event, Origin};
use sluice::core::ids::{Digest, Weight};
use sluice::core::policy::*;
use sluice::core::state::State;
use sluice::core::time::{Span, Timestamp};
use sluice::shell::api::{About, Api};
use sluice::shell::log::{Log, OpenOptions};
use sluice::shell::{http, observe, writer};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Only a broken run waits this long.
const DEADLINE: Duration = Duration::from_secs(30);
const CANARY: &str = "prompt@42";

/// The API on a new log that knows one policy.
struct Server {
    client: Client,
    base: String,
    api: Arc<Api>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
    _dir: TempDir,
}

fn policy() -> Policy {
    let step = |percent, bake, deadline| Step {
        to: Weight::percent(percent),
        bake,
        min_samples: BTreeMap::new(),
        deadline,
    };
    Policy {
        name: "prompt-default".into(),
        applies_to: vec![ChangeKind::Prompt],
        steps: vec![step(10, Span::hours(1), Some(Span::hours(3))), step(100, Span::ZERO, None)],
        soak: Span::hours(6),
        on_deadline: OnDeadline::Hold,
        guardrails: vec![Guardrail {
            name: "error.absolute".into(),
            metric: "error".into(),
            better: Better::Lower,
            rule: Rule::Absolute { above: 0.2, of_last: 20 },
            maturity: Span::ZERO,
            on_fail: OnFail::Rollback,
            weight: 0.0,
            gates: false,
        }],
        evidence: EvidenceRules::default(),
        stale_after: Span::hours(24),
        approvals: Vec::new(),
        concurrency: Concurrency::Queue,
        actuators: vec!["router".into()],
        ack_timeout: Span::hours(1),
    }
}

impl Server {
    async fn start() -> Server {
        // An error only says that it is set already.
        let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
        observe::install_metrics().unwrap();
        let dir = TempDir::new().unwrap();
        let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
        let log = Log::open(dir.path(), &options).unwrap().log;
        let (id, state) = (log.id(), State::default());
        let (writer, _) = writer::start(log, state, None);
        let policy = policy();
        let digest = Digest::of(policy.name.as_bytes());
        let created = Event::LogCreated { log: id, build: "test".into() };
        let stored = Event::PolicyStored { digest, policy, source: "test".into() };
        for fact in [created, stored] {
            writer.submit(fact).await.unwrap();
        }
        let about = About { started: Timestamp(1), nats: false, hosts: vec!["sluice.example".into()] };
        let api = Arc::new(Api::new(writer, about));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let served = tokio::spawn(http::serve(listener, api.clone(), shutdown));
        let client = Client::builder().timeout(DEADLINE).build().unwrap();
        Server { client, base, api, stop: Some(stop), served, _dir: dir }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request(Method::GET, path)).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    /// Starts a rollout of the canary on `service` and gives its id.
    async fn deploy(&self, service: &str) -> String {
        let (status, answer) = self.post("/v1/intents", intent(service)).await;
        assert_eq!(status, 200, "{answer}");
        answer["rollout"].as_str().unwrap().to_owned()
    }

    /// Confirms the last command of `rollout`; the sequence of its decision.
    async fn confirm(&self, rollout: &str) -> u64 {
        let (_, page) = self.get(&format!("/v1/events?rollout={rollout}&limit=1000")).await;
        let events = page["events"].as_array().unwrap();
        let issued = events.iter().rev().find(|e| e["kind"] == "command.issued").unwrap();
        let command = &issued["event"]["CommandIssued"]["command"];
        let service = rollout.rsplit_once('-').unwrap().0;
        let ack = json!({
            "service": service, "command": command["id"], "actuator": "router", "status": "applied"
        });
        let (status, answer) = self.post("/v1/acks", ack).await;
        assert_eq!(status, 200, "{answer}");
        command["decision"].as_u64().unwrap()
    }

    async fn stream(&self, path: &str) -> Stream {
        Stream::of(self.request(Method::GET, path)).await
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(DEADLINE, self.served).await.unwrap().unwrap().unwrap();
    }
}

fn intent(service: &str) -> Value {
    json!({
        "service": service,
        "change": {"kind": "prompt", "from": "prompt@41", "to": CANARY},
        "by": "maya", "reason": "shorter refund flow"
    })
}

/// Forty canary answers of which `bad` are errors.
fn errors(bad: usize) -> Value {
    (0..40).map(|i| json!({"version": CANARY, "error": i < bad})).collect()
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} without JSON: {text}"));
    (status, body)
}

/// The refusal's status and code; it must be well formed.
fn refused((status, body): (u16, Value)) -> (u16, String) {
    assert_eq!(body["ok"], false, "{status} {body}");
    let message = body["message"].as_str().unwrap();
    assert!(!message.is_empty() && !message.ends_with('.'), "{message}");
    (status, body["code"].as_str().unwrap().to_owned())
}

/// One server-sent event.
#[derive(Debug, PartialEq)]
struct Frame {
    id: u64,
    name: String,
    data: Value,
}

struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn of(request: RequestBuilder) -> Stream {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream { response, text: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if let Some(frame) = frame(&block) {
                    return Some(frame);
                }
                continue;
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await.unwrap().unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

fn frame(block: &str) -> Option<Frame> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let data = field("data:")?;
    Some(Frame {
        id: field("id:")?.parse().unwrap(),
        name: field("event:").unwrap_or_default().to_owned(),
        data: serde_json::from_str(data).unwrap(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_intent_to_the_rollback_that_errors_cause() {
    let server = Server::start().await;
    let mut decisions = server.stream("/v1/decisions").await;

    let (status, receipt) = server.post("/v1/intents", intent("support-bot")).await;
    assert_eq!((status, &receipt["ok"], &receipt["state"]), (200, &json!(true), &json!("applying")));
    assert_eq!(receipt["rollout"], "support-bot-1");
    assert_eq!(receipt["plan"], "10% 1h > 100% soak 6h");
    let promote = decisions.next().await.unwrap();
    assert_eq!((promote.name.as_str(), &promote.data["weight"]["to"]), ("promote", &json!(10.0)));

    assert_eq!(server.confirm("support-bot-1").await, promote.id);
    let (_, rollout) = server.get("/v1/rollouts/support-bot-1").await;
    assert_eq!((&rollout["state"], &rollout["weight"]), (&json!("baking"), &json!(10.0)));

    let telemetry = "/v1/telemetry?service=support-bot";
    let (status, receipt) = server.post(telemetry, errors(30)).await;
    assert_eq!((status, &receipt["observations"]), (200, &json!(40)));
    let rollback = decisions.next().await.unwrap();
    assert_eq!(rollback.name, "rollback");
    assert_eq!(rollback.data["seq"], rollback.id);
    assert_eq!(rollback.data["mode"], "automatic");
    assert!(rollback.data["summary"].as_str().unwrap().starts_with("error.absolute fails"));

    let (_, why) = server.get(&format!("/v1/events/{}?why=true", rollback.id)).await;
    let kinds: Vec<&str> =
        why["why"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["batch.received", "verdict.reached", "decision.made", "command.issued"]);
    let batch = &why["why"][0]["event"]["BatchReceived"];
    assert_eq!(batch["series"], json!([{"version": CANARY, "metric": "error", "n": 40}]));
    assert_eq!(batch.get("samples"), None);
    let (_, whole) = server.get(&format!("/v1/events/{}", why["why"][0]["seq"])).await;
    assert_eq!(whole["event"]["BatchReceived"]["samples"].as_array().unwrap().len(), 40);

    server.confirm("support-bot-1").await;
    let (_, rollout) = server.get("/v1/rollouts/@last").await;
    assert_eq!(rollout["state"], "rolled_back");
    let (_, list) = server.get("/v1/rollouts").await;
    assert_eq!(list["rollouts"][0], rollout);
    server.stop().await;
    assert_eq!(decisions.next().await, None, "a stream ends with the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_after_the_last_event_that_was_seen() {
    let server = Server::start().await;
    server.deploy("a").await;
    server.post("/v1/telemetry?service=a", errors(0)).await;
    server.deploy("b").await;
    let mut all = server.stream("/v1/follow?from=1").await;
    let (_, info) = server.get("/v1/info").await;
    let last = info["head"]["seq"].as_u64().unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|frame: &Frame| frame.id < last) {
        seen.push(all.next().await.unwrap());
    }
    assert!(seen.is_sorted_by(|a, b| a.id < b.id));
    assert!(seen.iter().all(|frame| frame.data["kind"] != "batch.received"));
    // Every event but the one batch.
    assert_eq!(seen.len() as u64, last - 1);

    for (i, frame) in seen.iter().enumerate() {
        let request = server.request(Method::GET, "/v1/follow?from=1");
        let mut resumed = Stream::of(request.header("Last-Event-ID", frame.id.to_string())).await;
        if let Some(next) = seen.get(i + 1) {
            assert_eq!(resumed.next().await.as_ref(), Some(next));
        } else {
            server.deploy("c").await;
            assert_eq!(resumed.next().await.unwrap().id, last + 1, "after the end comes what is new");
        }
    }
    let mut decisions = server.stream("/v1/decisions?from=1").await;
    for service in ["a", "b", "c"] {
        assert_eq!(decisions.next().await.unwrap().data["service"], service);
    }
    let bad = server.request(Method::GET, "/v1/follow").header("Last-Event-ID", "x");
    assert_eq!(refused(answer(bad).await), (400, "E5014".into()));
}

/// More events than the broadcast keeps go by while the client does not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_misses_nothing() {
    let server = Server::start().await;
    let rollout = server.deploy("a").await;
    let mut slow = server.stream("/v1/follow?from=1").await;
    let first = slow.next().await.unwrap();
    let reason = "n".repeat(1_900);
    let act = |i: u64| sluice::core::event::Act {
        rollout: rollout.as_str().into(),
        verb: sluice::core::event::Verb::Note,
        actor: "maya".into(),
        host: String::new(),
        args: Vec::new(),
        reason: format!("{i} {reason}"),
        if_seq: None,
        force: false,
    };
    let notes = 3_000;
    let mut last = 0;
    for i in 0..notes {
        let fact = Event::OperatorActed { act: act(i), origin: Origin::default() };
        let done: writer::Done = Box::new(|_| {});
        server.api.writer().take(fact, done).await.unwrap();
        last = i;
    }
    assert_eq!(last, notes - 1);
    server.api.settled().await.unwrap();
    let (_, info) = server.get("/v1/info").await;
    let mut id = first.id;
    while id < info["head"]["seq"].as_u64().unwrap() {
        let next = slow.next().await.unwrap();
        assert_eq!(next.id, id + 1);
        id = next.id;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_do_is_recorded_or_refused_with_its_reason() {
    let server = Server::start().await;
    let rollout = server.deploy("support-bot").await;
    let act = async |verb: &str, more: Value| {
        let mut body = json!({"actor": "maya", "host": "m1", "args": ["sluice", verb, "1"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post(&format!("/v1/rollouts/1/{verb}"), body).await
    };
    assert_eq!(refused(act("rollback", json!({})).await), (400, "E4003".into()));
    assert_eq!(refused(act("rollback", json!({"reason": " "})).await), (400, "E4003".into()));
    let (status, aborted) = act("abort", json!({"reason": "x"})).await;
    assert_eq!((status, &aborted["code"]), (409, &json!("E0315")));
    assert!(aborted["message"].as_str().unwrap().contains("use: sluice rollback support-bot-1"));
    assert_eq!(refused(act("promote", json!({"reason": "x"})).await), (409, "E0320".into()));
    server.confirm(&rollout).await;

    let (_, before) = server.get("/v1/rollouts/1").await;
    let (status, paused) = act("pause", json!({"reason": "lunch"})).await;
    assert_eq!((status, &paused["state"], &paused["ok"]), (200, &json!("paused"), &json!(true)));
    let (status, stale) = act("promote", json!({"if_seq": before["seq"]})).await;
    assert_eq!((status, &stale["code"]), (409, &json!("E0313")));
    assert_eq!(stale["help"], "sluice explain support-bot-1");

    // A rehearsal says what would happen, and nothing happens.
    let (_, head) = server.get("/v1/info").await;
    let (status, dry) = act("rollback", json!({"reason": "bad refunds", "dry_run": true})).await;
    assert_eq!((status, &dry["dry_run"], &dry["state"]), (200, &json!(true), &json!("rolling_back")));
    assert_eq!(dry["decision"]["decision"], "rollback");
    assert_eq!(server.get("/v1/info").await.1["head"], head["head"]);
    assert_eq!(refused(act("abort", json!({"dry_run": true})).await), (409, "E0315".into()));

    let (status, done) = act("rollback", json!({"reason": "bad refunds"})).await;
    assert_eq!((status, &done["state"]), (200, &json!("rolling_back")));
    assert_eq!(done["decision"]["actor"], "maya");
    assert_eq!(done["decision"]["command"], done["command"]);
    assert_eq!(refused(act("rollback", json!({"reason": "again"})).await), (409, "E1021".into()));
    let (_, recorded) = server.get(&format!("/v1/events/{}", done["seq"])).await;
    let recorded = &recorded["event"]["OperatorActed"]["act"];
    assert_eq!(recorded["args"], json!(["sluice", "rollback", "1"]));
    assert_eq!((&recorded["actor"], &recorded["host"]), (&json!("maya"), &json!("m1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_says_what_comes_next() {
    let server = Server::start().await;
    let rollout = server.deploy("support-bot").await;
    let (_, applying) = server.get("/v1/rollouts/1/explain").await;
    let waits = "watches 10% as soon as router has confirmed; the command is sent again until then";
    assert_eq!(applying["next"][1], waits);
    server.confirm(&rollout).await;
    let (_, baking) = server.get("/v1/rollouts/1/explain").await;
    assert_eq!(baking["rollout"], "support-bot-1");
    let armed = "rolls back by itself if error.absolute is shown to be beyond its limit";
    assert_eq!(baking["next"][0], armed);
    let promotes = baking["next"][1].as_str().unwrap();
    assert!(promotes.starts_with("promotes to 100% at ") && promotes.ends_with(" UTC at the earliest"));
    let deadline = baking["next"][2].as_str().unwrap();
    assert!(deadline.starts_with("holds and asks for a person if it is not promoted by "), "{deadline}");
    let can = ["rollback", "pause", "promote"];
    assert_eq!(baking["you_can"], json!(can.map(|v| format!("sluice {v} support-bot-1 --reason TEXT"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_intent_twice_starts_one_rollout() {
    let server = Server::start().await;
    let send = async |key: &str, body: &Value| {
        answer(server.request(Method::POST, "/v1/intents").header("Idempotency-Key", key).json(body)).await
    };
    let (_, first) = send("k-1", &intent("a")).await;
    let (status, second) = send("k-1", &intent("a")).await;
    assert_eq!((status, &second["duplicate"]), (200, &json!(true)));
    assert_eq!((&second["rollout"], &second["seq"]), (&first["rollout"], &first["seq"]));
    assert_eq!(first.get("duplicate"), None);
    assert_eq!(refused(send("k-1", &intent("b")).await), (409, "E1015".into()));
    // A refusal repeats as well.
    let mut unknown = intent("c");
    unknown["policy"] = json!("no-such");
    for _ in 0..2 {
        assert_eq!(refused(send("k-2", &unknown).await), (409, "E3021".into()));
    }
    assert_eq!(refused(send("k 3", &intent("d")).await), (400, "E1007".into()));

    let send = async |id: &str| {
        let request = server.request(Method::POST, "/v1/telemetry?service=a").header("Idempotency-Key", id);
        answer(request.json(&errors(0))).await.1
    };
    assert_eq!(send("t-1").await.get("duplicate"), None);
    assert_eq!(send("t-1").await["duplicate"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_request_gets_its_own_code() {
    let server = Server::start().await;
    server.deploy("a").await;
    let id = "/v1/rollouts/a-1";
    let cases: [(Method, &str, &str, u16, &str); 20] = [
        (Method::GET, "/nothing", "", 404, "E5006"),
        (Method::GET, "/ui/..%2f..%2fetc/passwd", "", 404, "E5006"),
        (Method::GET, "/v1/intents", "", 405, "E5008"),
        (Method::GET, "/v1/rollouts/zz", "", 404, "E4004"),
        (Method::GET, "/v1/rollouts/%ff", "", 400, "E5014"),
        (Method::GET, "/v1/rollouts?al=true", "", 400, "E5014"),
        (Method::GET, "/v1/events?limit=99999999", "", 400, "E5015"),
        (Method::GET, "/v1/events?limit=0", "", 400, "E5015"),
        (Method::GET, "/v1/events?from=x", "", 400, "E5014"),
        (Method::GET, "/v1/events?rollout=zz", "", 404, "E4004"),
        (Method::GET, "/v1/events/99999999", "", 404, "E4004"),
        (Method::GET, "/v1/events/x", "", 400, "E5014"),
        (Method::POST, "/v1/intents", "", 400, "E1001"),
        (Method::POST, "/v1/intents", "{", 400, "E1002"),
        (Method::POST, "/v1/intents", r#"{"servce":"a"}"#, 400, "E1009"),
        (Method::POST, "/v1/telemetry", r#"{"version":"v","error":true}"#, 400, "E1025"),
        (Method::POST, "/v1/telemetry?service=a", "3", 400, "E1004"),
        (Method::POST, "/v1/acks", r#"{"command":"x","actuator":"r","status":"applied"}"#, 400, "E1005"),
        (Method::POST, &format!("{id}/pause"), r#"{"actor":"m","rollout":"b-1"}"#, 400, "E1026"),
        (Method::POST, &format!("{id}/fly"), "{}", 404, "E5006"),
    ];
    for (method, path, body, status, code) in cases {
        let request = server.request(method.clone(), path);
        let json = request.header("Content-Type", "application/json").body(body.to_owned());
        let given = refused(answer(json).await);
        assert_eq!(given, (status, code.to_owned()), "{method} {path} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_can_be_tricked_into_is_refused() {
    let server = Server::start().await;
    let get = async |name: &str, value: &str| {
        answer(server.request(Method::GET, "/v1/rollouts").header(name, value)).await
    };
    assert_eq!(refused(get("Host", "evil.example:8080").await), (403, "E5005".into()));
    let (_, body) = get("Host", "evil.example:8080").await;
    assert_eq!(body["message"], "host evil.example is not in allowed_hosts");
    for host in ["localhost:7117", "[::1]:7117", "127.0.0.1", "sluice.example:80"] {
        assert_eq!(get("Host", host).await.0, 200, "{host}");
    }
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(refused(get("Origin", origin).await), (403, "E5003".into()), "{origin}");
    }
    assert_eq!(get("Origin", &server.base).await.0, 200);
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = server.request(Method::POST, "/v1/intents").body(intent("a").to_string());
        let given = refused(answer(request.header("Content-Type", content_type)).await);
        assert_eq!(given, (415, "E5004".into()), "{content_type}");
    }
    let request = server.request(Method::POST, "/v1/intents").body(intent("a").to_string());
    let given = refused(answer(request.header("Content-Type", "application/x-ndjson")).await);
    assert_eq!(given, (415, "E1028".into()));
    assert_eq!(server.get("/v1/rollouts").await.1["rollouts"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_limits() {
    let server = Server::start().await;
    for (path, limit) in [
        ("/v1/intents", 256 << 10),
        ("/v1/telemetry?service=a", 1 << 20),
        ("/v1/acks", 16 << 10),
        ("/v1/rollouts/a-1/pause", 64 << 10),
    ] {
        let post = async |size: usize| {
            let request = server.request(Method::POST, path).header("Content-Type", "application/json");
            refused(answer(request.body(" ".repeat(size))).await)
        };
        assert_eq!(post(limit).await, (400, "E1001".into()), "{path}");
        assert_eq!(post(limit + 1).await, (413, "E1011".into()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_loopback_is_listened_on() {
    let server = Server::start().await;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = http::serve(listener, server.api.clone(), std::future::pending()).await.unwrap_err();
    let expected = format!("HTTP has no authentication yet, so it listens on loopback only; got {address}");
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_info_are_there() {
    let server = Server::start().await;
    server.deploy("a").await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(server.get(path).await, (200, json!({"ok": true})));
    }
    let (_, info) = server.get("/v1/info").await;
    assert_eq!((&info["nats"], &info["started_ms"]), (&json!(false), &json!(1)));
    assert_eq!(info["policies"][0]["name"], "prompt-default");
    assert_eq!(info["head"]["hash"].as_str().unwrap().len(), 64);
    let text = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for metric in [
        "sluice_build_info{version=",
        "sluice_decisions_total{decision=\"promote\"}",
        "sluice_log_append_seconds_bucket{le=\"0.005\"}",
        "sluice_http_requests_total{status=\"200\"}",
        "sluice_rollouts_open",
        "sluice_disk_free_bytes",
    ] {
        assert!(text.contains(metric), "{metric} is not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_events_join_without_gap_or_overlap() {
    let server = Server::start().await;
    for service in ["a", "b", "c"] {
        server.deploy(service).await;
    }
    for of in ["", "&rollout=b-1"] {
        let (_, whole) = server.get(&format!("/v1/events?limit=1000{of}")).await;
        let whole = whole["events"].as_array().unwrap();
        for limit in 1..=3 {
            let (mut pages, mut from) = (Vec::new(), 1);
            loop {
                let (_, page) = server.get(&format!("/v1/events?from={from}&limit={limit}{of}")).await;
                let events = page["events"].as_array().unwrap();
                assert!(events.len() <= limit);
                pages.extend(events.clone());
                from = page["next"].as_u64().unwrap();
                if from > page["last"].as_u64().unwrap() {
                    break;
                }
            }
            assert_eq!(&pages, whole, "limit {limit} {of}");
        }
    }
    let (_, page) = server.get("/v1/events?rollout=b-1").await;
    let kinds: Vec<&Value> = page["events"].as_array().unwrap().iter().map(|e| &e["kind"]).collect();
    assert_eq!(kinds, ["intent.received", "rollout.created", "decision.made", "command.issued"]);
}
