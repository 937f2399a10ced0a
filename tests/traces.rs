//! Traces go where the environment says, as parts of the caller's trace.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::routing::post;
use sluice::core::event::Event;
use sluice::core::state::State;
use sluice::core::time::Timestamp;
use sluice::shell::api::{About, Api, Caller};
use sluice::shell::log::{Log, OpenOptions};
use sluice::shell::{observe, writer};
use tokio::sync::mpsc;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const INTENT: &[u8] =
    br#"{"service":"a","change":{"kind":"prompt","from":"p@1","to":"p@2"},"by":"m","reason":"r"}"#;

/// A collector that hands on each body posted to `/v1/traces`.
async fn collector() -> (String, mpsc::UnboundedReceiver<Bytes>) {
    let (send, received) = mpsc::unbounded_channel();
    let take = async |Shared(send): Shared<mpsc::UnboundedSender<Bytes>>, body: Bytes| {
        send.send(body).unwrap();
    };
    let router = Router::new().route("/v1/traces", post(take)).with_state(send);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    (format!("http://{address}"), received)
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

/// The intent is refused for want of a policy; its span is exported all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_span_of_an_intent_continues_the_callers_trace() {
    let (collector, mut received) = collector().await;
    let env = move |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| collector.clone());
    let telemetry = tokio::task::spawn_blocking(move || observe::init(true, &env)).await.unwrap().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
    let log = Log::open(dir.path(), &options).unwrap().log;
    let created = Event::LogCreated { log: log.id(), build: "test".into() };
    let (writer, _) = writer::start(log, State::default(), None);
    writer.submit(created).await.unwrap();
    let about = About { started: Timestamp(1), nats: false, hosts: Vec::new() };
    let api = Arc::new(Api::new(writer, about));
    let traceparent = Some(format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let caller = Caller { traceparent, ..Caller::default() };
    assert_eq!(api.call("deploy", INTENT, &caller).await.unwrap_err().code, "E3022");

    tokio::task::spawn_blocking(|| telemetry.shutdown()).await.unwrap();
    let body = tokio::time::timeout(Duration::from_secs(30), received.recv()).await.unwrap().unwrap();
    let trace: Vec<u8> =
        (0..32).step_by(2).map(|i| u8::from_str_radix(&TRACE[i..i + 2], 16).unwrap()).collect();
    assert!(contains(&body, &trace), "the trace id is not in {} bytes", body.len());
    assert!(contains(&body, b"intent") && contains(&body, b"sluice"));
}
