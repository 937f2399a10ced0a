//! Smoke tests by the real daemon: programs that pass, fail, hang and outlive it, and a runner on NATS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DEADLINE, Daemon, NatsServer, sluice_in, wait_for};

/// What it does depends on the version that is rolled out.
const PROGRAM: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
case $SLUICE_TO in
pass)
    echo "$SLUICE_ROLLOUT $SLUICE_SERVICE $SLUICE_STEP $SLUICE_FROM $SLUICE_TO $1"
    # Whoever inherits the lock of the data folder keeps the next daemon from it.
    ls -l /proc/$$/fd | grep -c 'data/' || true
    # What cargo sets for a test stands for the secrets of a daemon.
    env | grep -c CARGO_
    exit 0 ;;
fail)
    echo "37 of 40 alike"
    exit 3 ;;
hang)
    sleep 1000 &
    echo $! >child
    echo "waiting for an answer"
    sleep 1000 ;;
again)
    echo run >>runs
    while [ ! -e go ]; do sleep 0.05; done ;;
esac
"#;

struct Place {
    dir: TempDir,
}

impl Place {
    /// A folder with the program, a policy whose tests are `smoke`, and a config that allows the program.
    fn new(actuator: &str, smoke: impl Fn(&str) -> String) -> Place {
        let place = Place { dir: TempDir::new().expect("a folder") };
        let program = place.file("golden");
        fs::write(&program, PROGRAM).expect("write");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it a program");
        let program = program.display().to_string();
        fs::create_dir(place.file("policies")).expect("a folder");
        let policy = format!(
            "apiVersion: sluice.dev/v1\nkind: RolloutPolicy\nmetadata: {{name: tested}}\nspec:\n  exposure:\n    percent: \
             [{{to: 50%, bake: 1h}}, {{to: 100%}}]\n  guardrails: [{{metric: error, kind: absolute, above: 50%, of_last: 20, \
             on_fail: rollback}}]\n  actuators: [{actuator}]\n  smoke:\n{}",
            smoke(&program)
        );
        fs::write(place.file("policies/tested.yaml"), policy).expect("write");
        let config = format!("apiVersion: sluice.dev/v1\nkind: Config\nsmoke_commands: [{program}]\n");
        fs::write(place.file("config.yaml"), config).expect("write");
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn daemon(&self, nats: Option<String>) -> Daemon {
        let (policies, config) = (self.file("policies"), self.file("config.yaml"));
        Daemon::start_configured(nats, Some(&policies), Some(&config))
    }
}

/// Rolls `to` out on a service of that name, and confirms the first step.
fn begin(daemon: &Daemon, to: &str) -> String {
    let intent = json!({"id": to, "service": to, "change": {"kind": "prompt", "from": "old", "to": to}, "policy": "tested",
        "by": "maya", "reason": "try it"});
    let (status, receipt) = daemon.post("/v1/intents", &intent);
    assert_eq!(status, 200, "{receipt}");
    let rollout = receipt["rollout"].as_str().expect("an id").to_owned();
    let command = wait_for("a command", || {
        let (_, view) = daemon.get(&format!("/v1/rollouts/{rollout}"));
        view["command"].as_str().map(str::to_owned)
    });
    let ack = json!({"command": command, "actuator": "router", "status": "applied"});
    let (status, answer) = daemon.post(&format!("/v1/acks?service={to}"), &ack);
    assert_eq!(status, 200, "{answer}");
    rollout
}

/// The rollout, once `ready` says so of it.
fn once(daemon: &Daemon, rollout: &str, ready: impl Fn(&Value) -> bool) -> Value {
    wait_for("the rollout to get there", || {
        let (_, view) = daemon.get(&format!("/v1/rollouts/{rollout}"));
        ready(&view).then_some(view)
    })
}

fn ended(view: &Value) -> bool {
    view["smoke"][0]["outcome"].is_string()
}

fn is_gone(pid: &str) -> bool {
    // What nobody has reaped yet is gone as well.
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.is_empty() || state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn programs_pass_fail_hang_and_are_not_allowed() {
    let place = Place::new("router", |program| {
        format!("    - {{name: golden, command: [{program}, --fast], timeout: 3s}}\n")
    });
    let daemon = place.daemon(None);

    let rollout = begin(&daemon, "pass");
    let view = once(&daemon, &rollout, ended);
    let said = "pass-1 pass 1 old pass --fast\n0\n0";
    assert_eq!((&view["smoke"][0]["outcome"], &view["smoke"][0]["detail"]), (&json!("passed"), &json!(said)));
    assert_eq!(view["state"], "baking");

    let rollout = begin(&daemon, "fail");
    let view = once(&daemon, &rollout, |view| view["state"] == "rolling_back");
    assert_eq!(view["last_decision"]["summary"], "smoke test golden failed: 37 of 40 alike");

    let rollout = begin(&daemon, "hang");
    let view = once(&daemon, &rollout, |view| view["state"] == "rolling_back");
    let why = "smoke test golden did not end within 3s: waiting for an answer";
    assert_eq!(view["last_decision"]["summary"], why);
    let child = fs::read_to_string(place.file("child")).expect("its child");
    wait_for("its child to be killed", || is_gone(child.trim()).then_some(()));

    fs::write(place.file("config.yaml"), "apiVersion: sluice.dev/v1\nkind: Config\n").expect("write");
    let daemon = place.daemon(None);
    assert!(daemon.stderr().contains("this daemon may not run "), "{}", daemon.stderr());
    let rollout = begin(&daemon, "pass");
    let view = once(&daemon, &rollout, |view| view["state"] == "holding");
    assert_eq!(view["smoke"][0]["outcome"], "could_not_run", "{view}");
    assert!(
        view["alerts"][0].as_str().is_some_and(|alert| alert.contains("allow it with smoke_commands")),
        "{view}"
    );
}

#[test]
fn a_test_that_ran_when_the_daemon_died_runs_again() {
    let place = Place::new("router", |program| {
        format!("    - {{name: golden, command: [{program}], timeout: 1m}}\n")
    });
    let mut daemon = place.daemon(None);
    let rollout = begin(&daemon, "again");
    let runs = |n: usize| {
        let said = fs::read_to_string(place.file("runs")).unwrap_or_default();
        (said.lines().count() == n).then_some(())
    };
    wait_for("the test to run", || runs(1));
    let id = once(&daemon, &rollout, |view| view["smoke"][0]["attempt"] == 1)["smoke"][0]["id"].clone();
    daemon.kill9();
    daemon.restart();
    wait_for("the test to run again", || runs(2));
    fs::write(place.file("go"), "").expect("write");
    let view = once(&daemon, &rollout, ended);
    let test = &view["smoke"][0];
    assert_eq!((&test["outcome"], &test["attempt"], &test["id"]), (&json!("passed"), &json!(2), &id));
    // In order, it takes its tests along.
    fs::remove_file(place.file("go")).expect("remove");
    fs::remove_file(place.file("runs")).expect("remove");
    let data = daemon.data();
    assert!(daemon.terminate().success());
    assert_eq!(verify(&data), Some(0));
}

fn verify(data: &Path) -> Option<i32> {
    let data = data.display().to_string();
    let (code, said) = sluice_in(&[], &["log", "verify", "--data", &data]);
    assert!(said.contains("every invariant holds"), "{said}");
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_on_nats_answers_and_an_actuator_has_a_subject_of_its_own() {
    let nats = NatsServer::start();
    let place = Place::new("{name: router, subject: routers.eu.set}", |_| {
        "    - {name: golden, request: tests.golden, timeout: 30s}\n    - {name: nobody, request: tests.nobody, timeout: 5s}\n"
            .into()
    });
    let client = async_nats::connect(nats.url()).await.expect("connect");
    let mut asked = client.subscribe("tests.golden").await.expect("subscribe");
    let mut commands = client.subscribe("routers.eu.set").await.expect("subscribe");
    client.flush().await.expect("flush");
    let url = nats.url();
    let (daemon, rollout) = tokio::task::spawn_blocking(move || {
        let daemon = place.daemon(Some(url));
        let rollout = begin(&daemon, "chat");
        (daemon, rollout)
    })
    .await
    .expect("a daemon");

    let next = |message: Option<async_nats::Message>| {
        let message = message.expect("a message");
        (serde_json::from_slice::<Value>(&message.payload).expect("JSON"), message)
    };
    let wait = Duration::from_secs(DEADLINE.as_secs());
    let (command, _) = next(tokio::time::timeout(wait, commands.next()).await.expect("in time"));
    assert_eq!(
        (&command["op"], &command["actuator"], &command["canary_weight"]),
        (&json!("set_weight"), &json!("router"), &json!(50.0))
    );
    let (request, message) = next(tokio::time::timeout(wait, asked.next()).await.expect("in time"));
    assert_eq!(
        (&request["rollout"], &request["step"], &request["to"]),
        (&json!("chat-1"), &json!(1), &json!("chat"))
    );
    let reply = message.reply.expect("somewhere to answer");
    client.publish(reply, r#"{"ok":false,"detail":"3 of 40 differ"}"#.into()).await.expect("publish");
    client.flush().await.expect("flush");

    tokio::task::spawn_blocking(move || {
        let view = once(&daemon, &rollout, |view| view["state"] == "rolling_back");
        assert_eq!(view["last_decision"]["summary"], "smoke test golden failed: 3 of 40 differ");
        let (_, page) = daemon.get("/v1/events?from=1&limit=1000");
        let page = page.to_string();
        assert!(page.contains("nobody listens on tests.nobody"), "{page}");
    })
    .await
    .expect("the rest");
}
