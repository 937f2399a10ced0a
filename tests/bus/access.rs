//! Who sluice is to the broker.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_is_named_after_ten_seconds() {
    let error = bus::connect(&settings("nats://user:secret@127.0.0.1:1")).await.err().expect("refused");
    assert_eq!(error.to_string(), "cannot reach NATS at nats://127.0.0.1:1 after 10 s");
}
