//! The API on a real log: over a real socket, and over a real nats-server.

mod http;
mod micro;
mod slow_reader;
mod streams;
mod traces;

use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sluice::core::event::Event;
use sluice::core::state::State;
use sluice::core::time::Timestamp;
use sluice::shell::api::{About, Api};
use sluice::shell::log::{Log, OpenOptions, Watermark};
use sluice::shell::{observability, writer};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::facts::policy_stored;
use crate::support::DEADLINE;

const CANARY: &str = "prompt@42";

/// The API on a new log that knows one policy. The folder is to be kept as long as the API.
async fn api(watermark: Watermark) -> (Arc<Api>, TempDir) {
    let dir = TempDir::new().unwrap();
    let options = OpenOptions { ballast: 0, watermark, ..OpenOptions::default() };
    let log = Log::open(dir.path(), &options).unwrap().log;
    let begin = Event::begin(log.id(), "test");
    let (writer, _) = writer::start(log, State::default(), None);
    for fact in begin.into_iter().chain([policy_stored(POLICY)]) {
        writer.submit(fact).await.unwrap();
    }
    let about = About { started: Timestamp(1), nats: false, hosts: vec!["sluice.example".into()] };
    (Arc::new(Api::new(writer, about)), dir)
}

/// The API over HTTP.
struct Server {
    client: Client,
    base: String,
    api: Arc<Api>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
    _dir: TempDir,
}

const POLICY: &str = "\
apiVersion: sluice.dev/v1
kind: RolloutPolicy
metadata: {name: prompt-default}
spec:
  applies_to: [prompt]
  exposure: {percent: [{to: 10%, bake: 1h, deadline: 3h}, {to: 100%}], soak: 6h}
  guardrails: [{metric: error, kind: absolute, above: 20%, of_last: 20, on_fail: rollback}]
  stale_after: 24h
  actuators: [router]
  ack_timeout: 1h
";

impl Server {
    async fn start() -> Server {
        Server::on(Watermark::default()).await
    }

    async fn on(watermark: Watermark) -> Server {
        // An error only says that it is set already.
        let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
        observability::install_metrics().unwrap();
        let (api, dir) = api(watermark).await;
        let listener = sluice::shell::http::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let served = tokio::spawn(sluice::shell::http::serve(listener, api.clone(), shutdown));
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
