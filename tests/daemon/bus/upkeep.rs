//! What sluice makes on the broker, and what it refuses to work with.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_consumers_are_made() {
    let (nats, dir, sluice, peer) = start().await;
    for (name, subject) in [
        ("SLUICE_INTENTS", "sluice.v1.intent.*"),
        ("SLUICE_TELEMETRY", "sluice.v1.telemetry.*"),
        ("SLUICE_ACKS", "sluice.v1.ack.*"),
    ] {
        let stream = peer.js.get_stream(name).await.expect("the stream");
        let config = &stream.cached_info().config;
        assert_eq!(config.subjects, [subject]);
        assert_eq!(config.retention, stream::RetentionPolicy::WorkQueue);
        assert_eq!(config.discard, stream::DiscardPolicy::New);
        assert!(config.max_bytes > 0);
        assert_eq!(
            stream.consumer_info(streams::CONSUMER).await.expect("the consumer").config.max_deliver,
            -1
        );
    }
    let out = peer.js.get_stream(streams::OUT).await.expect("the stream");
    assert_eq!(out.cached_info().config.subjects.len(), 4);
    sluice.stop().await;
    // What was made is found again.
    Sluice::start(dir.path(), &nats).await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_stream_is_refused_by_name_and_field() {
    let (nats, dir, sluice, peer) = start().await;
    sluice.stop().await;
    let mut config = peer.config("SLUICE_INTENTS").await;
    config.max_age = Duration::from_secs(3_600);
    peer.js.update_stream(config).await.expect("change the stream");
    let error = Sluice::start_at(dir.path(), &nats.url()).await.err().expect("refused");
    assert_eq!(error.code().as_str(), "E7002");
    assert_eq!(
        error.to_string(),
        "stream SLUICE_INTENTS: max_age is 1h, expected at least no limit; set it back, or remove the stream \
         and start sluice, which makes it again"
    );
}

/// [`start`], and three intents are on record.
async fn with_three_intents() -> (NatsServer, TempDir, Sluice, Peer) {
    let started = start().await;
    let (_, _, sluice, peer) = &started;
    peer.deploy(&["a", "b", "c"]).await;
    sluice.wait_recorded(Inbound::Intents, 3).await;
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_stream_is_made_again_and_counts_on() {
    let (_nats, _dir, sluice, peer) = with_three_intents().await;
    peer.wait_messages(streams::OUT, sluice.announced().await).await;
    for stream in ["SLUICE_INTENTS", streams::OUT] {
        peer.js.delete_stream(stream).await.expect("remove the stream");
    }
    let seq = peer.deploy(&["d"]).await;
    assert_eq!(seq, 4, "numbers that were used would be taken for redeliveries");
    sluice.wait_recorded(Inbound::Intents, 4).await;
    assert_eq!(sluice.count("rollout.created").await, 4);
    // The outbound stream comes back with the next decision, and its command.
    peer.wait_messages(streams::OUT, 2).await;
    sluice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_counts_from_anew_is_refused() {
    let (nats, dir, sluice, peer) = with_three_intents().await;
    sluice.stop().await;
    peer.make_anew("SLUICE_INTENTS").await;
    let error = Sluice::start_at(dir.path(), &nats.url()).await.err().expect("refused");
    assert_eq!(error.code().as_str(), "E7008", "{error}");
    peer.remove_as_told(dir.path(), &nats).await;
}

impl Peer {
    /// After three intents: removes the stream, as the refusal says, and sees that sluice goes on with the fourth.
    async fn remove_as_told(&self, dir: &Path, nats: &NatsServer) {
        self.js.delete_stream("SLUICE_INTENTS").await.unwrap();
        let sluice = Sluice::start(dir, nats).await;
        assert_eq!(self.deploy(&["d"]).await, 4);
        sluice.wait_recorded(Inbound::Intents, 4).await;
        assert_eq!(sluice.count("rollout.created").await, 4);
        sluice.stop().await;
    }
}

/// Somebody removed the stream while sluice was away, and senders have filled the new one up to the last number that
/// was recorded, or beyond it.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_with_used_numbers_is_refused_and_loses_nothing() {
    let (nats, dir, sluice, peer) = with_three_intents().await;
    sluice.stop().await;
    peer.make_anew("SLUICE_INTENTS").await;
    for (services, last) in [(&["d", "e", "f"][..], 3), (&["g", "h"], 5)] {
        assert_eq!(peer.deploy(services).await, last);
        let error = Sluice::start_at(dir.path(), &nats.url()).await.err().expect("refused");
        assert_eq!(
            error.to_string(),
            "stream SLUICE_INTENTS counts from anew: it gave number 3 to a new message, and this log has recorded \
             up to message 3; its messages would be taken for old ones. remove the stream, and sluice makes it \
             again after message 3; what waits in it has to be sent again"
        );
        assert_eq!(error.code().as_str(), "E7008");
        peer.wait_messages("SLUICE_INTENTS", last).await;
    }
    peer.remove_as_told(dir.path(), &nats).await;
}

/// The same where the last number has been purged: the first message that is read shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_number_on_a_new_message_is_refused_when_it_is_read() {
    let nats = NatsServer::start();
    let mut daemon = Daemon::start(Some(&nats), None);
    let peer = Peer::join(&nats.url()).await;
    let send = async || {
        for service in ["a", "b", "c"] {
            let sample = r#"{"version":"a@1","eval_pass":1}"#;
            peer.publish(&format!("sluice.v1.telemetry.{service}"), &[], sample).await;
        }
    };
    send().await;
    peer.wait_messages("SLUICE_TELEMETRY", 0).await;
    daemon.terminate();
    peer.make_anew("SLUICE_TELEMETRY").await;
    send().await;
    let stream = peer.js.get_stream("SLUICE_TELEMETRY").await.unwrap();
    stream.purge().filter("sluice.v1.telemetry.c").await.unwrap();
    daemon.restart();
    wait_for("the refusal, time and again", || {
        let refused = "stream SLUICE_TELEMETRY counts from anew: it gave number 1 to a new message";
        (daemon.stderr().matches(refused).count() >= 3).then_some(())
    });
    peer.wait_messages("SLUICE_TELEMETRY", 2).await;
}
