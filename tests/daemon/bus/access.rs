//! Who sluice is to the broker, and what it may do there.

use std::path::PathBuf;

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;

use super::*;
use crate::support::{http, sluice_in};

const POLICIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/policies");

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_is_named_after_ten_seconds() {
    let error = bus::connect(&settings("nats://user:secret@127.0.0.1:1")).await.err().expect("refused");
    assert_eq!(error.to_string(), "cannot reach NATS at nats://127.0.0.1:1 after 10 s");
}

#[tokio::test]
async fn a_url_that_is_none_is_not_echoed() {
    for bad in ["nats://user:secret@host:port", "http://user:secret@host", "nats://user:se/cret@host"] {
        let servers = vec!["nats://127.0.0.1:1".into(), bad.into()];
        let error = bus::connect(&NatsSettings { servers, creds: None }).await.err().expect("refused");
        let told = "NATS URL number 2 is not the address of a server; use nats://host:4222";
        assert_eq!((error.code().as_str(), error.to_string().as_str()), ("E7010", told));
        let whole = format!("{error:?} {}", std::error::Error::source(&error).expect("a cause"));
        assert!(!whole.contains("secret") && !whole.contains("cret@"), "{whole}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_let_sluice_in() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let (nats, dir) = (server_of(&operator, &account), TempDir::new().unwrap());
    let with = |creds| NatsSettings { creds: Some(creds), ..settings(&nats.url()) };
    let creds = creds_of(&account, dir.path());
    let data = dir.path().join("data");
    let sluice =
        Sluice::start_with(&data, &with(creds.clone()), Watermark::default()).await.expect("the bus starts");
    let options = async_nats::ConnectOptions::with_credentials_file(creds).await.expect("a creds file");
    let peer = Peer::on(options.connect(nats.url()).await.expect("connect"));
    let mut commands = peer.subscribe("sluice.v1.command.>").await;
    peer.deploy(&["chat"]).await;
    assert_eq!(next(&mut commands).await.0.subject.as_str(), "sluice.v1.command.chat.router");
    sluice.stop().await;
}

/// Said at once, not after ten seconds of trying.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let (nats, dir) = (server_of(&operator, &account), TempDir::new().unwrap());
    let refused = async |creds: Option<PathBuf>| {
        let error = bus::connect(&NatsSettings { creds, ..settings(&nats.url()) }).await.err();
        let error = error.expect("refused");
        (error.code().as_str(), error.to_string())
    };
    let clear = format!("NATS at {} refuses the connection; check the credentials", nats.url());
    let others = creds_of(&KeyPair::new_account(), dir.path());
    assert_eq!(refused(Some(others)).await, ("E7011", clear.clone()));
    assert_eq!(refused(None).await, ("E7011", clear));
    let garbled = dir.path().join("garbled.creds");
    std::fs::write(&garbled, "what is this").unwrap();
    for path in [garbled, dir.path().join("missing.creds")] {
        let unread = format!("cannot read the NATS credentials {}", path.display());
        assert_eq!(refused(Some(path)).await, ("E7010", unread));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_do_what_is_needed_is_named() {
    let refused = async |access: &str| {
        let (nats, dir) = (NatsServer::start_guarded(access), TempDir::new().unwrap());
        let url = nats.url().replace("nats://", "nats://sluice:s@");
        let error = Sluice::start_at(dir.path(), &url).await.err().expect("refused");
        (error.code().as_str(), error.to_string())
    };
    let user = r#"users: [{user: sluice, password: s}]"#;
    let told = "JetStream is not enabled on the NATS server or for this account; start nats-server with -js";
    assert_eq!(refused(&format!("accounts {{ plain {{ {user} }} }}")).await, ("E7009", told.into()));
    let small = format!("accounts {{ small {{ jetstream {{ max_streams: 1 }}, {user} }} }}");
    assert_eq!(refused(&small).await, ("E7012", "cannot create stream SLUICE_ACKS".into()));
    assert_eq!(BusError::from(Gone).code().as_str(), "E7013");
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

/// To the one who publishes all is well: only the log and the counter tell.
#[test]
fn a_missing_permission_is_named_and_counted() {
    let denied = r#"permissions: {publish: {deny: "sluice.v1.command.>"}}"#;
    let nats = NatsServer::start_guarded(&format!(
        "authorization {{ users: [{{user: sluice, password: \"s/cret\", {denied}}}] }}"
    ));
    let url = nats.url().replace("nats://", "nats://sluice:s%2Fcret@");
    let daemon = Daemon::start_at(Some(url), Some(Path::new(POLICIES)));
    let change = json!({"kind": "prompt", "from": "prompt@1", "to": "prompt@2"});
    let intent =
        json!({"service": "chat", "change": change, "by": "ci", "reason": "test", "policy": "quick"});
    let (status, answer) = daemon.post("/v1/intents", &intent);
    assert_eq!(status, 200, "{answer}");
    wait_for("the log line", || {
        let said = "NATS: permissions violation for publish to \"sluice.v1.command.chat.router\"; \
                    sluice's user needs this permission";
        daemon.stderr().to_lowercase().contains(&said.to_lowercase()).then_some(())
    });
    let metrics = http().get(daemon.url("/metrics")).send().unwrap().text().unwrap();
    let counted = metrics.lines().find_map(|l| l.strip_prefix("sluice_nats_permission_violations_total "));
    assert!(counted.expect("the counter").parse::<u64>().unwrap() >= 1);
}

/// A server that trusts an operator and knows one account of it.
fn server_of(operator: &KeyPair, account: &KeyPair) -> NatsServer {
    // JetStream asks for a system account.
    let system = KeyPair::new_account();
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let token = |of: &KeyPair, limits: &Value| {
        jwt(operator, of, json!({"type": "account", "version": 2, "limits": limits}))
    };
    let (system_key, account_key) = (system.public_key(), account.public_key());
    let known = format!(
        "{system_key}: {}, {account_key}: {}",
        token(&system, &json!({"subs": -1, "conn": -1})),
        token(account, &unlimited)
    );
    let trusted = jwt(operator, operator, json!({"type": "operator", "version": 2}));
    NatsServer::start_guarded(&format!(
        "operator: {trusted}\nsystem_account: {system_key}\nresolver: MEMORY\nresolver_preload: {{{known}}}"
    ))
}

/// A `.creds` file of a new user of the account.
fn creds_of(account: &KeyPair, dir: &Path) -> PathBuf {
    let user = KeyPair::new_user();
    let token =
        jwt(account, &user, json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
    let path = dir.join(format!("{}.creds", user.public_key()));
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A token by which `issuer` vouches for `subject`, as nats-server reads it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let subject = subject.public_key();
    let claims = json!({"jti": subject, "iat": 1, "iss": issuer.public_key(), "name": "test", "sub": subject, "nats": nats});
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}
