//! Traces go where the environment says, as parts of the caller's trace.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::routing::post;
use sluice::shell::api::Caller;
use tokio::sync::mpsc;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

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

/// Other tests run meanwhile and are traced as well: only what carries the trace's id counts.
#[tokio::test(flavor = "multi_thread")]
async fn an_intent_its_acts_and_its_decisions_continue_the_callers_trace() {
    let (collector, mut received) = collector().await;
    // Lines for people are off: they would stand between the results of all other tests.
    let env = move |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(collector.clone()),
        "RUST_LOG" => Some("off".to_owned()),
        _ => None,
    };
    let telemetry =
        tokio::task::spawn_blocking(move || observability::init(true, &env)).await.unwrap().unwrap();

    let (api, _dir) = api(Watermark::default()).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let narrated = tokio::spawn(observability::narrate(api.writer().clone(), async { drop(stopped.await) }));
    let traceparent = Some(format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let caller = Caller { traceparent, ..Caller::default() };
    api.call("deploy", intent("a").to_string().as_bytes(), &caller).await.unwrap();
    let act = br#"{"rollout":"a-1","actor":"maya"}"#;
    api.call("pause", act, &caller).await.unwrap();

    stop.send(()).unwrap();
    narrated.await.unwrap();
    tokio::task::spawn_blocking(|| telemetry.shutdown()).await.unwrap();
    let trace: Vec<u8> =
        (0..32).step_by(2).map(|i| u8::from_str_radix(&TRACE[i..i + 2], 16).unwrap()).collect();
    let mut found = 0;
    while let Ok(body) = received.try_recv() {
        found += body.windows(16).filter(|window| *window == trace).count();
    }
    assert_eq!(found, 3, "spans in the trace");
}
