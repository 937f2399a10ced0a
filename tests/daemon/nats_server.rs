//! The broker that the other tests stand on: it keeps what it acknowledged through a crash.

use async_nats::jetstream;

use crate::support::NatsServer;

/// Both halves matter to every crash test: a store that survives, on the port clients reconnect to.
#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_its_messages() {
    let mut server = NatsServer::start();
    let url = server.url();
    let client = async_nats::connect(&url).await.expect("connect");
    let stream = jetstream::stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept.>".into()],
        ..Default::default()
    };
    let bus = jetstream::new(client);
    bus.create_stream(stream).await.expect("create the stream");
    for n in 0..10 {
        let sent = bus.publish(format!("kept.{n}"), "x".into()).await.expect("publish");
        sent.await.expect("the broker's ack");
    }

    server.stop();
    assert!(async_nats::connect(&url).await.is_err(), "the server still answers after stop()");
    server.start_again();

    assert_eq!(server.url(), url);
    let bus = jetstream::new(async_nats::connect(&url).await.expect("connect again"));
    let stream = bus.get_stream("KEPT").await.expect("the stream");
    assert_eq!(stream.get_info().await.expect("its state").state.messages, 10);
}

/// Each test has a broker of its own, so tests can run side by side.
#[test]
fn two_servers_do_not_meet() {
    assert_ne!(NatsServer::start().url(), NatsServer::start().url());
}
