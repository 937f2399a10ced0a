//! From a message to what is on record, and to what goes out for it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_becomes_a_rollout_and_its_command_arrives() {
    let (_nats, _dir, sluice, peer) = start().await;
    let mut commands = peer.subscribe("sluice.v1.command.>").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    // Header names as an HTTP bridge would spell them.
    let headers = [("content-type", "application/json"), ("nats-msg-id", "deploy-1"), ("Traceparent", trace)];
    peer.publish("sluice.v1.intent.chat", &headers, intent("chat")).await;

    let (message, command) = next(&mut commands).await;
    assert_eq!(message.subject.as_str(), "sluice.v1.command.chat.router");
    assert_eq!((&command["canary"], &command["canary_weight"]), (&json!("prompt@2"), &json!(5.0)));
    let headers = message.headers.expect("headers");
    assert_eq!(headers.get("ce-type").expect("a type").as_str(), "dev.cdeventsx.sluice-command.issued.0.1.0");
    assert_eq!(headers.get("traceparent").expect("a trace").as_str(), trace);
    assert!(sluice.writer.read(|state, _| state.intents.contains_key(&"deploy-1".into())).await.unwrap());

    let ack = json!({"command": command["command"], "actuator": "router", "status": "applied"});
    peer.publish("sluice.v1.ack.chat", &[], ack.to_string()).await;
    sluice.wait_recorded(Inbound::Acks, 1).await;
    assert_eq!(sluice.count("command.applied").await, 1);
    // Confirmed: the work queues are empty; what went out is kept.
    peer.wait_messages("SLUICE_INTENTS", 0).await;
    peer.wait_messages("SLUICE_ACKS", 0).await;
    let out = peer.js.get_stream(streams::OUT).await.unwrap().cached_info().state.messages;
    assert!(out >= 1, "the command is kept");
    sluice.stop().await;
}

/// The process died after the fact was durable and before the broker was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_recorded_but_not_confirmed_counts_once() {
    let (nats, dir, sluice, peer) = start().await;
    sluice.stop().await;
    let body = intent("chat");
    let seq = peer.publish("sluice.v1.intent.chat", &[], body.clone()).await;
    let (writer, thread) = open(dir.path(), Watermark::default(), None).await;
    let message = intake::Message {
        body: body.as_bytes(),
        service: Some("chat"),
        source: "sluice.v1.intent.chat",
        delivery: Some(Delivery { stream: Inbound::Intents, seq, published: None }),
        ..Default::default()
    };
    intake::take(&writer, Kind::Intent, &message).await.expect("alive");
    close(writer, thread).await;
    peer.wait_messages("SLUICE_INTENTS", 1).await;

    let sluice = Sluice::start(dir.path(), &nats).await;
    peer.wait_messages("SLUICE_INTENTS", 0).await;
    assert_eq!(sluice.count("intent.received").await, 1);
    assert_eq!(sluice.count("rollout.created").await, 1);
    // What the dead process could not send went out, too.
    peer.wait_messages(streams::OUT, sluice.announced().await).await;
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_in_either_direction() {
    let (mut nats, _dir, sluice, peer) = start().await;
    peer.deploy(&["chat"]).await;
    sluice.wait_for("the first rollout", |state| state.rollouts.keys().next().cloned()).await;
    nats.stop();
    let rejection = Rejection {
        code: Code::Empty,
        message: "while the broker was away".into(),
        source: "test".into(),
        bytes: 0,
        excerpt: String::new(),
    };
    let refused = Event::InputRejected { rejection, origin: Origin::default() };
    sluice.writer.submit(refused).await.expect("alive");
    nats.start_again();

    let peer = Peer::join(&nats.url()).await;
    peer.deploy(&(0..20).map(|i| format!("service-{i}")).collect::<Vec<_>>()).await;
    sluice.wait_recorded(Inbound::Intents, 21).await;
    assert_eq!(sluice.count("rollout.created").await, 21);
    assert_eq!(sluice.count("command.issued").await, 21);
    // Each once.
    peer.wait_messages(streams::OUT, sluice.announced().await).await;
    // A confirmation that died with the broker is made up for half a minute later: not waited for here.
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_comes_out_on_rejected() {
    let (_nats, _dir, sluice, peer) = start().await;
    let mut rejected = peer.subscribe("sluice.v1.rejected").await;
    peer.publish("sluice.v1.telemetry.Chat", &[], r#"{"version":"a@1","eval_pass":1}"#).await;
    let (message, body) = next(&mut rejected).await;
    assert_eq!(body["code"], "E1007");
    assert_eq!(body["source"], "sluice.v1.telemetry.Chat");
    let headers = message.headers.expect("headers");
    assert_eq!(headers.get("ce-type").expect("a type").as_str(), "dev.cdeventsx.sluice-input.rejected.0.1.0");
    assert!(headers.get("Nats-Msg-Id").is_some());
    peer.publish("sluice.v1.intent.chat", &[("Content-Type", "text/plain")], "deploy please").await;
    assert_eq!(next(&mut rejected).await.1["code"], "E1028");
    peer.wait_messages("SLUICE_TELEMETRY", 0).await;
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_of_every_content_type_is_recorded() {
    let (_nats, _dir, sluice, peer) = start().await;
    let sample = json!({"version": "a@1", "eval_pass": 1});
    let lines = format!("{sample}\n{sample}\n{sample}");
    let packed = rmp_serde::to_vec_named(&json!([sample, sample])).unwrap();
    let columns = batch(256);
    for (content_type, body) in [
        (None, sample.to_string().into_bytes()),
        (Some("application/json"), json!([sample, sample]).to_string().into_bytes()),
        (Some("application/x-ndjson"), lines.into_bytes()),
        (Some("application/msgpack"), packed),
        (Some("application/msgpack"), columns),
    ] {
        let headers: Vec<_> = content_type.iter().map(|t| ("Content-Type", *t)).collect();
        peer.publish("sluice.v1.telemetry.chat", &headers, body).await;
    }
    sluice.wait_recorded(Inbound::Telemetry, 5).await;
    assert_eq!(sluice.count("input.rejected").await, 0);
    let seen = |state: &State| {
        state.services.get(&"chat".into()).map(|s| s.series.values().map(|seen| seen.n).sum::<u64>())
    };
    assert_eq!(sluice.writer.read(move |state, _| seen(state)).await.unwrap(), Some(1 + 2 + 3 + 2 + 256));
    sluice.stop().await;
}

/// The watermark is higher than any disk, so there is no room from the start. An ack is taken all the same; an intent
/// and telemetry stay with the broker until there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_puts_messages_back_until_there_is_room() {
    let (nats, dir) = (NatsServer::start(), TempDir::new().unwrap());
    let none = Watermark { pct: 0, bytes: u64::MAX };
    let sluice = Sluice::start_with(dir.path(), &settings(&nats.url()), none).await.expect("the bus starts");
    let peer = Peer::join(&nats.url()).await;
    peer.deploy(&["chat"]).await;
    peer.publish("sluice.v1.telemetry.chat", &[], r#"{"version":"a@1","eval_pass":1}"#).await;
    let ack = json!({"command": uuid::Uuid::nil(), "actuator": "router", "status": "applied"});
    peer.publish("sluice.v1.ack.chat", &[], ack.to_string()).await;
    sluice.wait_recorded(Inbound::Acks, 1).await;
    for stream in ["SLUICE_INTENTS", "SLUICE_TELEMETRY"] {
        // Delivered, put back, and delivered again.
        peer.wait_redelivered(stream).await;
        peer.wait_messages(stream, 1).await;
    }
    assert_eq!((sluice.count("intent.received").await, sluice.count("batch.received").await), (0, 0));
    sluice.stop().await;

    let sluice = Sluice::start(dir.path(), &nats).await;
    sluice.wait_recorded(Inbound::Intents, 1).await;
    sluice.wait_recorded(Inbound::Telemetry, 1).await;
    for stream in ["SLUICE_INTENTS", "SLUICE_TELEMETRY"] {
        peer.wait_messages(stream, 0).await;
    }
    assert_eq!((sluice.count("intent.received").await, sluice.count("batch.received").await), (1, 1));
    sluice.stop().await;
}
