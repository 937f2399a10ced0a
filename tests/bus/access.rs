//! Who sluice is to the broker, and what it may do there.

use super::support::sluice_in;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_is_named_after_ten_seconds() {
    let error = bus::connect(&settings("nats://user:secret@127.0.0.1:1")).await.err().expect("refused");
    assert_eq!(error.to_string(), "cannot reach NATS at nats://127.0.0.1:1 after 10 s");
}

/// In the broker's URL, by all that connects there.
#[test]
fn a_password_or_a_token_lets_in() {
    for (access, who) in [
        (r#"authorization { user: "ann", password: "s/c:ret@" }"#, "ann:s%2Fc%3Aret%40"),
        (r#"authorization { token: "t0k/en" }"#, "t0k%2Fen"),
    ] {
        let nats = NatsServer::start_guarded(access);
        let url = nats.url().replace("nats://", &format!("nats://{who}@"));
        let _daemon = Daemon::start_at(Some(url.clone()), None);
        assert_eq!(sluice_in(&[("SLUICE_NATS", &url)], &["ls"]).0, Some(0), "{who}");
        let (code, said) = sluice_in(&[("SLUICE_NATS", &nats.url())], &["ls"]);
        assert!(code == Some(5) && said.contains("authorization violation"), "{said}");
    }
}
