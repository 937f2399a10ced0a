//! The API as a NATS micro service, on a real server.

use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use sluice::shell::micro;
use sluice::view::api::VERBS;

use super::*;
use crate::support::NatsServer;

async fn ask(client: &Client, verb: &str, body: &str) -> (Option<HeaderMap>, Value) {
    let subject = format!("sluice.v1.api.{verb}");
    let answer = client.request(subject, body.to_owned().into()).await.unwrap();
    let value = serde_json::from_slice(&answer.payload).unwrap();
    (answer.headers, value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_over_nats_is_answered_like_one_over_http() {
    let server = NatsServer::start();
    let client = async_nats::connect(server.url()).await.unwrap();
    let (api, _dir) = api(Watermark::default()).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(micro::serve(client.clone(), api, async move { drop(stopped.await) }));

    // The service answers discovery once all of its endpoints are there.
    let info = loop {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.unwrap();
        client.publish_with_reply("$SRV.INFO.sluice", inbox, "".into()).await.unwrap();
        let answer = tokio::time::timeout(DEADLINE, answers.next()).await.unwrap().unwrap();
        let info = serde_json::from_slice::<Value>(&answer.payload).unwrap_or_default();
        if info["endpoints"].as_array().is_some_and(|found| found.len() == VERBS.len()) {
            break info;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    let subjects = info["endpoints"].as_array().unwrap().iter().map(|e| e["subject"].as_str().unwrap());
    let mut subjects: Vec<&str> = subjects.collect();
    subjects.sort_unstable();
    let mut expected: Vec<String> = VERBS.iter().map(|(verb, _)| format!("sluice.v1.api.{verb}")).collect();
    expected.sort_unstable();
    assert_eq!(subjects, expected);

    let (_, info) = ask(&client, "info", "").await;
    assert_eq!((&info["nats"], &info["head"]["seq"]), (&json!(false), &json!(3)));
    let (_, list) = ask(&client, "ls", r#"{"all":true}"#).await;
    assert_eq!(list["rollouts"], json!([]));

    let (headers, error) = ask(&client, "status", r#"{"rollout":"zz"}"#).await;
    let headers = headers.unwrap();
    let expected = json!({"ok": false, "code": "E4004", "message": "no rollout zz; see: sluice ls"});
    assert_eq!(error, expected);
    assert_eq!(headers.get("Nats-Service-Error-Code").unwrap().as_str(), "404");
    assert_eq!(headers.get("Nats-Service-Error").unwrap().as_str(), "E4004 no rollout zz; see: sluice ls");
    let (_, error) = ask(&client, "ls", r#"{"al":true}"#).await;
    assert_eq!(error["code"], "E1009");

    let (_, receipt) = ask(&client, "deploy", &intent("a").to_string()).await;
    assert_eq!((&receipt["ok"], &receipt["rollout"]), (&json!(true), &json!("a-1")));
    let (_, claimed) = ask(&client, "claim", r#"{"rollout":"a-1","actor":"li"}"#).await;
    assert_eq!((&claimed["ok"], &claimed["verb"]), (&json!(true), &json!("claim")));
    let (_, status) = ask(&client, "status", r#"{"rollout":"a-1"}"#).await;
    assert_eq!(status["claimed_by"], "li");
    let (headers, refused) = ask(&client, "claim", r#"{"rollout":"a-1","actor":"omar"}"#).await;
    assert_eq!(refused["code"], "E0323");
    assert_eq!(headers.unwrap().get("Nats-Service-Error-Code").unwrap().as_str(), "409");
    let (_, refused) = ask(&client, "skip", r#"{"rollout":"a-1","actor":"li"}"#).await;
    assert_eq!(refused["code"], "E4003");
    let act = r#"{"rollout":"@last","actor":"maya","reason":"bad refunds"}"#;
    let (headers, done) = ask(&client, "rollback", act).await;
    assert_eq!((&done["ok"], &done["state"]), (&json!(true), &json!("rolling_back")));
    assert!(headers.unwrap().get("Nats-Service-Error").is_none());
    stop.send(()).unwrap();
    tokio::time::timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
}
