//! Verbs that talk to a running daemon.

use super::*;
use crate::support::{Daemon, NatsServer, wait_for};

const POLICIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/policies");

/// A daemon, and the command line that talks to it.
pub struct Ui {
    daemon: Daemon,
}

impl Ui {
    pub fn start() -> Ui {
        Ui { daemon: Daemon::start(None, Some(Path::new(POLICIES))) }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = sluice(args);
        command.env("SLUICE_SERVER", self.daemon.url(""));
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("run sluice")
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&ok(&self.run(&[&["-o", "json"], args].concat()))).expect("JSON")
    }

    /// Starts `bot-N` at prompt@N and returns its id.
    fn deploy(&self, to: &str) -> String {
        let args = ["deploy", "bot", to, "--from", "prompt@41", "--policy", "quick", "--reason", "shorter"];
        self.json(&args)["rollout"].as_str().expect("an id").to_owned()
    }

    /// Confirms the newest command.
    fn confirm(&self) {
        let tail = ok(&self.run(&["log", "tail", "--from", "1", "--until-end", "-o", "jsonl"]));
        let events = tail.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut commands = events.filter(|event| event["kind"] == "command.issued");
        let last = commands.next_back().expect("a command");
        let id = last["event"]["CommandIssued"]["command"]["id"].as_str().expect("its id").to_owned();
        let unknown = self.run(&["ack", "0000", "--actuator", "router"]);
        let said = String::from_utf8_lossy(&unknown.stderr);
        assert!(
            said.contains(&format!("what waits: {id} of bot")) && unknown.status.code() == Some(2),
            "{said}"
        );
        ok(&self.run(&["ack", &id[..8], "--actuator", "router"]));
    }
}

#[test]
fn a_change_is_submitted_watched_and_taken_back() {
    let ui = Ui::start();
    let deploy = [
        "deploy",
        "bot",
        "prompt@42",
        "--from",
        "prompt@41",
        "--policy",
        "quick",
        "--id",
        "i-1",
        "--reason",
        "shorter",
    ];
    let would = ok(&ui.run(&[&deploy[..], &["--dry-run"]].concat()));
    assert_eq!(would, "would roll out prompt@41 → prompt@42 on bot under policy quick; nothing was sent\n");
    let unknown = "eval_pass has come in too little lately to tell\n";
    let plan = ok(&ui.run(&["plan", "bot", "--policy", "quick"]));
    assert!(plan.starts_with("bot under quick, if the canary is as good as the baseline\n"), "{plan}");
    assert!(plan.contains("how long it takes cannot be told") && plan.contains(unknown), "{plan}");
    let told = ok(&ui.run(&deploy));
    let expected =
        format!("plan       25% 1s > 50% 1s > 100% soak 1s\n           {unknown}accepted   bot-1 (event ");
    assert!(told.starts_with(&expected), "{told}");
    assert!(ok(&ui.run(&deploy)).contains("submitted before, no effect"));

    ui.confirm();
    assert!(ok(&ui.run(&["wait", "1", "--for", "baking"])).starts_with("bot-1 "));
    let page = ok(&ui.run(&["status", "1"]));
    assert!(page.starts_with("bot-1   prompt prompt@41 → prompt@42   \"shorter\"\npolicy quick ("), "{page}");
    assert!(page.contains("\nGUARDRAIL ") && page.contains("\neval_pass "), "{page}");
    let why = ok(&ui.run(&["explain", "@last", "--evidence"]));
    assert!(why.starts_with("bot-1 is ") && why.contains("Guardrails are armed."), "{why}");
    assert!(
        why.contains("  ✗ eval_pass has too little evidence: ") && why.contains("What happens next\n"),
        "{why}"
    );
    assert!(
        why.contains("You can: sluice rollback bot-1") && why.contains("none of the 20x needed"),
        "{why}"
    );

    refused(
        &ui.run(&["promote", "1"]),
        4,
        "error[E0312]: promote refused: bot-1 at 25%: eval_pass has too little evidence",
    );
    refused(&ui.run(&["pause", "1", "--if-seq", "1"]), 4, "error[E0313]: bot-1 has moved since seq 1");
    refused(&ui.run(&["status", "7"]), 3, "error[E4004]: no rollout 7; see: sluice ls\n");
    refused(&ui.run(&["log", "show", "99999"]), 3, "error[E4004]: no seq 99,999 in the log");

    let would = ok(&ui.run(&["rollback", "1", "--reason", "bad refunds", "--dry-run"]));
    let decided = "rollback 25% → 0%: ordered by maya: bad refunds";
    assert_eq!(
        would,
        format!(
            "rollback of bot-1 would be accepted; nothing was sent\nwould decide {decided}\nbot-1 would be rolling back\n"
        )
    );
    let done = ok(&ui.run(&["rollback", "1", "--reason", "bad refunds"]));
    assert!(done.contains(&format!("decided    {decided}\nsent       command ")), "{done}");
    assert!(done.contains(", not confirmed yet\nnow        bot-1 is rolling back\n"), "{done}");
    let waiting = ui.run(&["wait", "1", "--for", "terminal", "--timeout", "300ms"]);
    assert_eq!(waiting.status.code(), Some(12), "unconfirmed is not done");
    ui.confirm();
    let waited = ui.run(&["wait", "1", "--for", "terminal"]);
    assert_eq!(waited.status.code(), Some(10));
    assert!(text(&waited.stdout).contains(" UTC bot-1 ROLLED BACK: ordered by maya: bad refunds (decision "));

    // Who, where, and the exact words are on record; the dry run is not.
    let tail = ok(&ui.run(&["log", "tail", "--from", "1", "--until-end", "-o", "jsonl"]));
    let acts: Vec<Value> = tail
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"]["OperatorActed"]["act"].clone())
        .filter(|act| act["verb"] == "rollback")
        .collect();
    assert_eq!(acts.len(), 1);
    let mut events = tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let decided = events.rfind(|event| event["kind"] == "decision.made").unwrap()["seq"].to_string();
    let behind = ok(&ui.run(&["explain", &decided, "--evidence", "--guardrail", "eval_pass"]));
    assert!(behind.contains("bot-1 eval_pass at event "), "{behind}");
    assert!(behind.contains("\n  Not enough evidence yet.\n"), "{behind}");
    assert!(behind.ends_with("\nidentical to the record, word for word\n"), "{behind}");
    assert_eq!(ok(&ui.run(&["explain", "--event", &decided, "--guardrail", "eval_pass"])), behind);
    let none = "error[E4004]: there is no event 99999\n  help: with --evidence a number is an event of the log; a rollout is \
                named in full: SERVICE-99999\n";
    refused(&ui.run(&["explain", "99999", "--evidence"]), 3, none);
    let unknown = "error[E4004]: no rollout 7; see: sluice ls\n  help: of event 7 of the log: sluice explain 7 --evidence\n";
    refused(&ui.run(&["explain", "7"]), 3, unknown);
    let alone =
        "error[E4002]: --guardrail is for the evidence of one event: sluice explain EVENT --evidence\n";
    refused(&ui.run(&["explain", "bot-1", "--evidence", "--guardrail", "eval_pass"]), 2, alone);

    // The same version again is another test.
    ui.deploy("prompt@42");
    let again =
        "2nd attempt of this version: at most 10% of such series would be rolled back wrongly (5% each).\n";
    for verb in ["status", "explain"] {
        let page = ok(&ui.run(&[verb, "2"]));
        assert!(page.contains(again), "{page}");
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!((&acts[0]["actor"], &acts[0]["host"]), (&json!("maya"), &json!(host.trim())));
    assert_eq!(
        acts[0]["args"].as_array().unwrap()[1..],
        [json!("rollback"), json!("1"), json!("--reason"), json!("bad refunds")]
    );
}

#[test]
fn json_is_the_apis_own_and_every_table_is_within_it() {
    let ui = Ui::start();
    ui.deploy("prompt@42");
    ui.confirm();
    ok(&ui.run(&["pause", "1", "--reason", "a look first"])); // a paused rollout stands still
    for (args, path) in [
        (&["ls", "--all"][..], "/v1/rollouts?all=true"),
        (&["status", "1"], "/v1/rollouts/1"),
        (&["explain", "1"], "/v1/rollouts/1/explain"),
        (&["log", "show", "3"], "/v1/events/3"),
    ] {
        let (status, mut api) = ui.daemon.get(path);
        let mut cli = ui.json(args);
        for value in [&mut api, &mut cli] {
            value.as_object_mut().unwrap().remove("at_ms"); // when it was asked
        }
        assert_eq!((status, &api), (200, &cli), "{path}");
    }
    let rollout = ui.json(&["status", "1"]);
    let row = ok(&ui.run(&["-o", "plain", "ls"]));
    let cells: Vec<&str> = row.trim_end().split('\t').collect();
    let summary = rollout["summary"].as_str().unwrap();
    assert_eq!(cells, ["bot-1", "prompt prompt@41 → prompt@42", "‖ PAUSED", "25%", "1/3", "", summary]);
    let lines = ok(&ui.run(&["-o", "jsonl", "ls"]));
    assert_eq!(serde_json::from_str::<Value>(lines.trim_end()).unwrap()["rollout"], "bot-1");
}

#[test]
fn each_way_of_waiting_ends_with_its_own_code() {
    let ui = Ui::start();
    ui.deploy("prompt@42");
    let second = ui.deploy("prompt@43");
    ui.confirm();
    ok(&ui.run(&["pause", "1"]));
    let code = |args: &[&str]| ui.run(args).status.code();
    assert_eq!(code(&["wait", "1", "--for", "paused,promoted"]), Some(0));
    assert_eq!(code(&["wait", "1", "--for", "promoted", "--timeout", "100ms"]), Some(12));
    assert_eq!(code(&["wait", "1", "--for", "promoted", "--fail-on", "hold"]), Some(13));
    assert_eq!(code(&["wait", "3", "--for", "promoted"]), Some(3));
    ok(&ui.run(&["abort", &second, "--reason", "not needed"]));
    assert_eq!(code(&["wait", &second, "--for", "terminal"]), Some(11));

    let mut waiting = ui.command(&["wait", "1", "--for", "promoted"]);
    let mut waiting = waiting.stderr(Stdio::piped()).spawn().expect("run sluice");
    let mut said = std::io::BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.starts_with("bot-1 ‖ PAUSED at 25%"), "{line}");
    let sent = Command::new("kill").args(["-INT", &waiting.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
    std::io::Read::read_to_string(&mut said, &mut line).unwrap();
    assert!(
        line.ends_with("error[E4011]: interrupted. What was sent stays sent, and rollouts keep running\n"),
        "{line}"
    );
}

#[test]
fn recorded_traffic_drives_a_change_to_the_end() {
    let ui = Ui::start();
    ui.deploy("prompt@42");
    ui.confirm();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("day.csv");
    // Both versions are as good: 40 requests a second for ten minutes, told in ten seconds.
    let mut csv = String::from("t_s,version,unit,pass,group\n");
    for i in 0..24_000 {
        let version = if i % 4 == 0 { "prompt@42" } else { "prompt@41" };
        csv += &format!("{},{version},user-{i},{},x\n", f64::from(i) / 40.0, u8::from(i % 20 != 7));
    }
    fs::write(&file, csv).unwrap();
    let file = file.to_str().unwrap();
    let mut traffic = ui
        .command(&["emit", "bot", "-f", file, "--speed", "60x", "--map", "pass=eval_pass"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("run sluice");
    ok(&ui.run(&["wait", "1", "--for", "step=2", "--timeout", "60s"]));
    traffic.kill().expect("stop the traffic");
    traffic.wait().expect("reap it");
    let rollout = ui.json(&["status", "1"]);
    assert_eq!(rollout["guardrails"][0]["verdict"], "pass", "{rollout}");
}

#[test]
fn nats_and_http_give_the_same_answers() {
    let nats = NatsServer::start();
    let ui = Ui { daemon: Daemon::start(Some(&nats), Some(Path::new(POLICIES))) };
    let url = nats.url();
    ui.deploy("prompt@42");
    ok(&ui.run(&["--nats", &url, "pause", "1"]));
    for args in [&["status", "1"][..], &["explain", "1"], &["log", "show", "3", "--why"]] {
        assert_eq!(ui.json(args), ui.json(&[&["--nats", &url], args].concat()), "{args:?}");
    }
    refused(&ui.run(&["--nats", &url, "status", "7"]), 3, "error[E4004]: no rollout 7; see: sluice ls\n");
    ok(&ui.run(&["--nats", &url, "emit", "bot", "--as", "prompt@42", "eval_pass=true", "cost_usd=0.0139"]));
    wait_for("the sample to be recorded", || {
        let (_, page) = ui.daemon.get("/v1/events?from=1&limit=1000");
        let found = page["events"].as_array()?.iter().any(|event| event["kind"] == "batch.received");
        found.then_some(())
    });

    let alone = NatsServer::start();
    let output = run(&["--nats", &alone.url(), "status"]);
    refused(
        &output,
        5,
        &format!("error[E4001]: cannot reach sluice at {}: no sluice is connected to it.", alone.url()),
    );
}

#[test]
fn a_running_daemon_keeps_its_folder_to_itself() {
    let ui = Ui::start();
    let data = ui.daemon.data().display().to_string();
    for args in [&["log", "verify", "--data", &data][..], &["replay", "--verify", "--data", &data]] {
        refused(&run(args), 4, &format!("error[E4009]: data folder {data} is locked by process "));
    }
    let second = run(&["serve", "--data", &data, "--http", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(4), "{}", text(&second.stderr));
}
