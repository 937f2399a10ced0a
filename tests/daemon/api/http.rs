//! Requests, refusals and limits over a real socket.

use std::io::{Read, Write};
use std::net::TcpStream;

use futures_util::StreamExt;
use sluice::shell::api::unread;
use sluice::shell::log::LogError;

use super::*;
use crate::support::{Daemon, http};

#[tokio::test(flavor = "multi_thread")]
async fn from_an_intent_to_the_rollback_that_errors_cause() {
    let server = Server::start().await;
    let mut decisions = server.stream("/v1/decisions").await;

    let (status, receipt) = server.post("/v1/intents", intent("support-bot")).await;
    assert_eq!((status, &receipt["ok"], &receipt["state"]), (200, &json!(true), &json!("applying")));
    assert_eq!(receipt["rollout"], "support-bot-1");
    assert_eq!(receipt["plan"], "10% 1h > 100% soak 6h");
    let promote = decisions.next().await.unwrap();
    assert_eq!((promote.name.as_str(), &promote.data["weight"]["to"]), ("promote", &json!(10.0)));

    assert_eq!(server.confirm("support-bot-1").await, promote.id);
    let (_, rollout) = server.get("/v1/rollouts/support-bot-1").await;
    assert_eq!((&rollout["state"], &rollout["weight"]), (&json!("baking"), &json!(10.0)));

    let telemetry = "/v1/telemetry?service=support-bot";
    let (status, receipt) = server.post(telemetry, errors(30)).await;
    assert_eq!((status, &receipt["observations"]), (200, &json!(40)));
    let rollback = decisions.next().await.unwrap();
    assert_eq!(rollback.name, "rollback");
    assert_eq!(rollback.data["seq"], rollback.id);
    assert_eq!(rollback.data["mode"], "automatic");
    assert!(rollback.data["summary"].as_str().unwrap().starts_with("error.absolute fails"));

    let (_, why) = server.get(&format!("/v1/events/{}?why=true", rollback.id)).await;
    let kinds: Vec<&str> =
        why["why"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["batch.received", "verdict.reached", "decision.made", "command.issued"]);
    let batch = &why["why"][0]["event"]["BatchReceived"];
    assert_eq!(batch["series"], json!([{"version": CANARY, "metric": "error", "n": 40}]));
    assert_eq!(batch.get("samples"), None);
    let (_, whole) = server.get(&format!("/v1/events/{}", why["why"][0]["seq"])).await;
    assert_eq!(whole["event"]["BatchReceived"]["samples"].as_array().unwrap().len(), 40);

    server.confirm("support-bot-1").await;
    let (_, rollout) = server.get("/v1/rollouts/@last").await;
    assert_eq!(rollout["state"], "rolled_back");
    let (_, list) = server.get("/v1/rollouts").await;
    assert_eq!(list["rollouts"][0], rollout);
    server.stop().await;
    assert_eq!(decisions.next().await, None, "a stream ends with the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_do_is_recorded_or_refused_with_its_reason() {
    let server = Server::start().await;
    let rollout = server.deploy("support-bot").await;
    let act = async |verb: &str, more: Value| {
        let mut body = json!({"actor": "maya", "host": "m1", "args": ["sluice", verb, "1"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post(&format!("/v1/rollouts/1/{verb}"), body).await
    };
    assert_eq!(refused(act("rollback", json!({})).await), (400, "E4003".into()));
    assert_eq!(refused(act("rollback", json!({"reason": " "})).await), (400, "E4003".into()));
    let (status, aborted) = act("abort", json!({"reason": "x"})).await;
    assert_eq!((status, &aborted["code"]), (409, &json!("E0315")));
    assert!(aborted["message"].as_str().unwrap().contains("use: sluice rollback support-bot-1"));
    assert_eq!(refused(act("promote", json!({"reason": "x"})).await), (409, "E0320".into()));
    server.confirm(&rollout).await;
    let (status, paused) = act("pause", json!({"reason": "lunch"})).await;
    assert_eq!((status, &paused["state"], &paused["ok"]), (200, &json!("paused"), &json!(true)));

    // A rehearsal says what would happen, and nothing happens.
    let (_, head) = server.get("/v1/info").await;
    let (status, dry) = act("rollback", json!({"reason": "bad refunds", "dry_run": true})).await;
    assert_eq!((status, &dry["dry_run"], &dry["state"]), (200, &json!(true), &json!("rolling_back")));
    assert_eq!(dry["decision"]["decision"], "rollback");
    assert_eq!(server.get("/v1/info").await.1["head"], head["head"]);
    assert_eq!(refused(act("abort", json!({"dry_run": true})).await), (409, "E0315".into()));

    let (status, done) = act("rollback", json!({"reason": "bad refunds"})).await;
    assert_eq!((status, &done["state"]), (200, &json!("rolling_back")));
    assert_eq!(done["decision"]["actor"], "maya");
    assert_eq!(done["decision"]["command"], done["command"]);
    assert_eq!(refused(act("rollback", json!({"reason": "again"})).await), (409, "E1022".into()));
    let (_, recorded) = server.get(&format!("/v1/events/{}", done["seq"])).await;
    let recorded = &recorded["event"]["OperatorActed"]["act"];
    assert_eq!(recorded["args"], json!(["sluice", "rollback", "1"]));
    assert_eq!((&recorded["actor"], &recorded["host"]), (&json!("maya"), &json!("m1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_says_what_comes_next() {
    let server = Server::start().await;
    let rollout = server.deploy("support-bot").await;
    let (_, applying) = server.get("/v1/rollouts/1/explain").await;
    let waits = "watches 10% as soon as router has confirmed; the command is sent again until then";
    assert_eq!(applying["next"][1], waits);
    server.confirm(&rollout).await;
    let (_, baking) = server.get("/v1/rollouts/1/explain").await;
    assert_eq!(baking["rollout"], "support-bot-1");
    let armed = "rolls back by itself if error.absolute is shown to be beyond its limit";
    assert_eq!(baking["next"][0], armed);
    let promotes = baking["next"][1].as_str().unwrap();
    assert!(promotes.starts_with("promotes to 100% at "), "{promotes}");
    assert!(
        promotes.ends_with(" UTC at the earliest, once error.absolute hears from the canary"),
        "{promotes}"
    );
    let deadline = baking["next"][2].as_str().unwrap();
    assert!(deadline.starts_with("holds and asks for a person if it is not promoted by "), "{deadline}");
    let can =
        ["rollback", "pause", "promote", "skip"].map(|v| format!("sluice {v} support-bot-1 --reason TEXT"));
    let can: Vec<String> = can.into_iter().chain(["sluice claim support-bot-1".into()]).collect();
    assert_eq!(baking["you_can"], json!(can));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_intent_twice_starts_one_rollout() {
    let server = Server::start().await;
    let send = async |key: &str, body: &Value| {
        answer(server.request(Method::POST, "/v1/intents").header("Idempotency-Key", key).json(body)).await
    };
    let (_, first) = send("k-1", &intent("a")).await;
    let (status, second) = send("k-1", &intent("a")).await;
    assert_eq!((status, &second["duplicate"]), (200, &json!(true)));
    assert_eq!((&second["rollout"], &second["seq"]), (&first["rollout"], &first["seq"]));
    assert_eq!(first.get("duplicate"), None);
    assert_eq!(refused(send("k-1", &intent("b")).await), (409, "E1015".into()));
    // A refusal repeats as well.
    let mut unknown = intent("c");
    unknown["policy"] = json!("no-such");
    for _ in 0..2 {
        assert_eq!(refused(send("k-2", &unknown).await), (409, "E3021".into()));
    }
    assert_eq!(refused(send("k 3", &intent("d")).await), (400, "E1007".into()));

    let send = async |id: &str| {
        let request = server.request(Method::POST, "/v1/telemetry?service=a").header("Idempotency-Key", id);
        answer(request.json(&errors(0))).await.1
    };
    assert_eq!(send("t-1").await.get("duplicate"), None);
    assert_eq!(send("t-1").await["duplicate"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_given_on_an_old_view_is_refused() {
    let server = Server::start().await;
    let rollout = server.deploy("support-bot").await;
    server.confirm(&rollout).await;
    let (_, seen) = server.get("/v1/rollouts/1").await;
    let (status, _) = server.post("/v1/rollouts/1/pause", json!({"actor": "li", "reason": "lunch"})).await;
    assert_eq!(status, 200);
    let stale = json!({"actor": "maya", "reason": "x", "if_seq": seen["seq"]});
    let (status, stale) = server.post("/v1/rollouts/1/promote", stale).await;
    assert_eq!((status, &stale["code"]), (409, &json!("E0313")));
    assert_eq!(stale["help"], "sluice explain support-bot-1");
}

/// A request, and the status and code it must get.
type Bad<'a> = (Method, &'a str, &'a str, u16, &'a str);

async fn refuses(server: &Server, (method, path, body, status, code): Bad<'_>) {
    let request = server.request(method.clone(), path);
    let json = request.header("Content-Type", "application/json").body(body.to_owned());
    let given = refused(answer(json).await);
    assert_eq!(given, (status, code.to_owned()), "{method} {path} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_request_gets_its_own_code() {
    let server = Server::start().await;
    server.deploy("a").await;
    let id = "/v1/rollouts/a-1";
    let cases: [Bad; 20] = [
        (Method::GET, "/nothing", "", 404, "E5006"),
        (Method::GET, "/v1/intents", "", 405, "E5008"),
        (Method::GET, "/v1/rollouts/zz", "", 404, "E4004"),
        (Method::GET, "/v1/rollouts/%ff", "", 400, "E5014"),
        (Method::GET, "/v1/rollouts?al=true", "", 400, "E5014"),
        (Method::GET, "/v1/events?limit=0", "", 400, "E5015"),
        (Method::GET, "/v1/events?from=x", "", 400, "E5014"),
        (Method::GET, "/v1/events?rollout=zz", "", 404, "E4004"),
        (Method::GET, "/v1/events/99999999", "", 404, "E4004"),
        (Method::GET, "/v1/events/x", "", 400, "E5014"),
        (Method::POST, "/v1/intents", "", 400, "E1001"),
        (Method::POST, "/v1/intents", "{", 400, "E1002"),
        (Method::POST, "/v1/intents", r#"{"servce":"a"}"#, 400, "E1009"),
        (Method::POST, "/v1/telemetry", r#"{"version":"v","error":true}"#, 400, "E1025"),
        (Method::POST, "/v1/telemetry?service=a", "3", 400, "E1004"),
        (Method::POST, "/v1/acks", r#"{"command":"x","actuator":"r","status":"applied"}"#, 400, "E1005"),
        (Method::POST, &format!("{id}/pause"), r#"{"actor":"m","rollout":"b-1"}"#, 400, "E1026"),
        (Method::POST, &format!("{id}/pause"), r#"["a-1","m"]"#, 400, "E1004"),
        (Method::POST, &format!("{id}/pause"), r#"{"actor":"m","actor":"n"}"#, 400, "E1008"),
        (Method::POST, &format!("{id}/fly"), "{}", 404, "E5006"),
    ];
    for case in cases {
        refuses(&server, case).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_out_of_the_folder_leads_nowhere() {
    refuses(&Server::start().await, (Method::GET, "/ui/..%2f..%2fetc/passwd", "", 404, "E5006")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_everything_is_refused() {
    refuses(&Server::start().await, (Method::GET, "/v1/events?limit=99999999", "", 400, "E5015")).await;
}

/// It goes to the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_names_no_step() {
    let server = Server::start().await;
    server.deploy("a").await;
    let body = r#"{"actor":"m","reason":"r","to_step":4}"#;
    refuses(&server, (Method::POST, "/v1/rollouts/a-1/promote", body, 400, "E1009")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_holds_is_shown_escaped() {
    let server = Server::start().await;
    let message = |(status, answer): (u16, Value)| (status, answer["message"].as_str().unwrap().to_owned());
    let (status, said) = message(server.get("/v1/rollouts?a%E2%80%AE%1Bb=1").await);
    assert!(status == 400 && said.contains(r"unknown field `a\u{202e}\x1bb`"), "{said}");
    let other = json!({"rollout": "b", "actor": "maya", "reason": "x"});
    let (status, said) = message(server.post("/v1/rollouts/a%E2%80%AE/note", other).await);
    assert_eq!((status, said.as_str()), (400, r"note.rollout: b does not match the path's a\u{202e}"));
}

async fn get_with(server: &Server, name: &str, value: &str) -> (u16, Value) {
    answer(server.request(Method::GET, "/v1/rollouts").header(name, value)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_is_refused() {
    let server = Server::start().await;
    let (status, body) = get_with(&server, "Host", "evil.example:8080").await;
    assert_eq!((status, &body["code"]), (403, &json!("E5005")));
    assert_eq!(body["message"], "host evil.example is not this machine's; call sluice by a loopback address");
    for host in ["localhost:7117", "[::1]:7117", "127.0.0.1", "sluice.example:80"] {
        assert_eq!(get_with(&server, "Host", host).await.0, 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_site_sends_is_refused() {
    let server = Server::start().await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let given = refused(get_with(&server, "Origin", origin).await);
        assert_eq!(given, (403, "E5003".into()), "{origin}");
    }
    assert_eq!(get_with(&server, "Origin", &server.base).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_form_can_post_is_refused() {
    let server = Server::start().await;
    for (content_type, code) in [
        ("text/plain", "E5004"),
        ("application/x-www-form-urlencoded", "E5004"),
        ("", "E5004"),
        ("application/x-ndjson", "E1028"),
    ] {
        let request = server.request(Method::POST, "/v1/intents").body(intent("a").to_string());
        let given = refused(answer(request.header("Content-Type", content_type)).await);
        assert_eq!(given, (415, code.into()), "{content_type}");
    }
    assert_eq!(server.get("/v1/rollouts").await.1["rollouts"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_limits() {
    let server = Server::start().await;
    for (path, limit, code) in [
        ("/v1/intents", 256 << 10, "E1001"),
        ("/v1/telemetry?service=a", 1 << 20, "E1001"),
        ("/v1/acks", 16 << 10, "E1001"),
        // Nothing is an empty object there.
        ("/v1/rollouts/a-1/pause", 64 << 10, "E1005"),
    ] {
        let post = async |size: usize| {
            let request = server.request(Method::POST, path).header("Content-Type", "application/json");
            refused(answer(request.body(" ".repeat(size))).await)
        };
        assert_eq!(post(limit).await, (400, code.into()), "{path}");
        assert_eq!(post(limit + 1).await, (413, "E1011".into()), "{path}");
    }
}

/// What is packed is taken for what it is: bytes that are no JSON.
#[tokio::test(flavor = "multi_thread")]
async fn a_packed_body_is_never_unpacked() {
    let server = Server::start().await;
    let bomb = [b"\x1f\x8b\x08\x00".as_slice(), &[0; 1_000]].concat();
    let request = server.request(Method::POST, "/v1/intents").header("Content-Encoding", "gzip");
    let (status, body) = answer(request.header("Content-Type", "application/json").body(bomb)).await;
    assert_eq!((status, &body["code"]), (400, &json!("E1006")));
    assert_eq!(body["message"], "intent: invalid UTF-8 at byte 1");
}

/// Half of one is no message, however long one waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start().await;
    let halves =
        futures_util::stream::iter([Ok::<_, std::io::Error>("{")]).chain(futures_util::stream::pending());
    let request = server.request(Method::POST, "/v1/intents").header("Content-Type", "application/json");
    let (status, body) = answer(request.body(reqwest::Body::wrap_stream(halves))).await;
    assert_eq!((status, &body["code"]), (408, &json!("E5009")));
    assert_eq!(body["message"], "intent: no whole body within 10 s");
}

/// Nothing that a client did is wrong.
#[test]
fn a_log_that_cannot_be_read_is_the_servers_fault() {
    let error = unread(LogError::Poisoned);
    assert_eq!((error.code.as_str(), error.status), ("E5090", 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_loopback_is_listened_on() {
    let server = Server::start().await;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error =
        sluice::shell::http::serve(listener, server.api.clone(), std::future::pending()).await.unwrap_err();
    let expected =
        format!("HTTP has no authentication yet, so it listens on loopback only; got {address} (E5022)");
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_info_are_there() {
    let server = Server::start().await;
    server.deploy("a").await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(server.get(path).await, (200, json!({"ok": true})));
    }
    let (_, info) = server.get("/v1/info").await;
    assert_eq!((&info["nats"], &info["started_ms"]), (&json!(false), &json!(1)));
    assert_eq!(info["policies"][0]["name"], "prompt-default");
    assert_eq!(info["head"]["hash"].as_str().unwrap().len(), 64);
    let text = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for metric in [
        "sluice_build_info{version=",
        "sluice_decisions_total{decision=\"promote\"}",
        "sluice_log_append_seconds_bucket{le=\"0.005\"}",
        "sluice_http_requests_total{status=\"200\"}",
        "sluice_rollouts_open",
        "sluice_disk_free_bytes",
    ] {
        assert!(text.contains(metric), "{metric} is not in\n{text}");
    }
}

/// The watermark is higher than any disk: there is no room from the start.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_intake_and_says_so() {
    let server = Server::on(Watermark { pct: 5, bytes: u64::MAX }).await;
    for (path, body) in [("/v1/intents", intent("a")), ("/v1/telemetry?service=a", errors(0))] {
        let (status, body) = server.post(path, body).await;
        assert_eq!((status, &body["code"]), (503, &json!("E5021")));
        let message = body["message"].as_str().unwrap();
        assert!(message.starts_with("storage unavailable: "), "{message}");
        assert!(message.ends_with("kept for decisions; nothing was accepted"), "{message}");
    }
    assert_eq!(server.get("/v1/info").await.1["head"]["seq"], 3);
}

/// As many as there may be connect and never finish their first request: they are sent away, and who comes after them
/// gets an answer. Without the timeout never; without the cap there would be one connection more.
#[test]
fn slow_clients_do_not_keep_their_places() {
    const CONNECTIONS_MAX: usize = 512;
    let daemon = Daemon::start(None, None);
    let url = daemon.url("");
    let address = url.strip_prefix("http://").unwrap();
    let slow: Vec<TcpStream> = (0..CONNECTIONS_MAX)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: local").unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream
        })
        .collect();
    let metrics = http().get(daemon.url("/metrics")).send().unwrap().text().unwrap();
    let open = metrics.lines().find_map(|line| line.strip_prefix("sluice_http_connections ")).unwrap();
    let open: usize = open.parse().unwrap();
    assert!((1..=CONNECTIONS_MAX).contains(&open), "{open}");
    for mut stream in slow {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("the server ends the connection");
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&said));
    }
}
