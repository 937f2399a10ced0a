//! What is read of the log, live or page by page: nothing twice, nothing missing.

use sluice::core::event::fact::{Act, Origin};
use sluice::core::event::verb::Verb;
use sluice::shell::api::Feed;

use super::*;

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

/// More events than the broadcast keeps go by while nobody reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_misses_nothing() {
    let server = Server::start().await;
    let rollout = server.deploy("a").await;
    let mut slow = Feed::open(server.api.writer(), None).await.unwrap();
    let (_, info) = server.get("/v1/info").await;
    let before = info["head"]["seq"].as_u64().unwrap();
    for i in 0..3_000 {
        let act = Act {
            rollout: rollout.as_str().into(),
            verb: Verb::Note,
            actor: "maya".into(),
            host: String::new(),
            args: Vec::new(),
            reason: i.to_string(),
            if_seq: None,
            force: false,
        };
        let fact = Event::OperatorActed { act, origin: Origin::default() };
        server.api.writer().take(fact, Box::new(drop)).await.unwrap();
    }
    server.api.settled().await.unwrap();
    // Each note is accepted, which is an event too.
    for seq in before + 1..=before + 6_000 {
        assert_eq!(slow.next().await.unwrap().seq, seq);
    }
    server.deploy("b").await;
    assert_eq!(slow.next().await.unwrap().seq, before + 6_001);
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
