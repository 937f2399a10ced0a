//! A measurement, run by hand.

use super::*;

/// How fast a backlog of telemetry is taken in, and how long an intent takes to become a command meanwhile.
/// `SLUICE_NATS_URL` names a broker; else one of our own, which syncs each message.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: cargo test --release --test daemon bus::rate -- --ignored --nocapture"]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
async fn rate() {
    let own = std::env::var("SLUICE_NATS_URL").is_err().then(NatsServer::start);
    let url = std::env::var("SLUICE_NATS_URL").unwrap_or_else(|_| own.as_ref().unwrap().url());
    let messages = std::env::var("SLUICE_MESSAGES").map_or(50_000, |n| n.parse().unwrap());
    let dir = TempDir::new().unwrap();
    let sample = |i: usize| {
        let version = ["a@1", "b@1"][i % 2];
        json!({"version": version, "eval_pass": 1, "latency_ms": i, "served_at": clock::now().0})
    };
    let json: Vec<_> = (0..32).map(sample).collect();
    for (what, samples, body) in
        [("columns", 256, batch(256)), ("json", 64, json!(json).to_string().into_bytes())]
    {
        let dir = dir.path().join(what);
        Sluice::start_at(&dir, &url).await.unwrap().stop().await;
        let peer = Peer::join(&url).await;
        let mut acks = Vec::new();
        for i in 0..messages {
            let sent = peer
                .js
                .publish(format!("sluice.v1.telemetry.s{}", i % 4), body.clone().into())
                .await
                .unwrap();
            acks.push(sent);
            if acks.len() == 1_000 || i + 1 == messages {
                for ack in acks.drain(..) {
                    ack.await.unwrap();
                }
            }
        }
        let backlog = peer.js.get_stream("SLUICE_TELEMETRY").await.unwrap().cached_info().state.last_sequence;
        let mut commands = peer.subscribe("sluice.v1.command.>").await;
        let start = Instant::now();
        let sluice = Sluice::start_at(&dir, &url).await.unwrap();
        let mut waits = Vec::new();
        let mut n = 0;
        while sluice.writer.read(|s, _| s.intake.high(Inbound::Telemetry)).await.unwrap() < backlog {
            n += 1;
            let asked = Instant::now();
            let subject = format!("sluice.v1.intent.{what}-{n}");
            peer.client.publish(subject, intent(&format!("{what}-{n}")).into()).await.unwrap();
            next(&mut commands).await;
            waits.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = start.elapsed().as_secs_f64();
        waits.sort();
        let per_second = messages as f64 / took;
        println!(
            "{what}: {messages} messages of {} bytes in {took:.2} s: {per_second:.0} messages/s, {:.2} M samples/s; \
             intent to command p50 {:?} p99 {:?} of {}",
            body.len(),
            per_second * f64::from(samples) / 1e6,
            waits[waits.len() / 2],
            waits[waits.len() * 99 / 100],
            waits.len(),
        );
        peer.wait_messages("SLUICE_TELEMETRY", 0).await;
        println!("{what}: all confirmed {:.2} s after the start", start.elapsed().as_secs_f64());
        sluice.stop().await;
        for stream in ["SLUICE_TELEMETRY", "SLUICE_INTENTS", "SLUICE_ACKS", streams::OUT] {
            peer.js.delete_stream(stream).await.unwrap();
        }
    }
}
