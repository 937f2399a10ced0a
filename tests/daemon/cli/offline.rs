//! Verbs and mistakes that need no daemon.

use std::io::{Read, Write};
use std::net::TcpListener;

use sluice::core::event::Event;
use sluice::core::event::fact::{Act, Origin};
use sluice::core::event::verb::Verb;
use sluice::core::time::Timestamp;
use sluice::shell::log::{Export, Log, OpenOptions};
use sluice::wire::envelope::Group;

use super::evidence::kept;
use super::*;
use crate::scenario::history;

/// All verbs, the ones of `log` and `policy` too, as the help lists them.
fn verbs() -> Vec<Vec<String>> {
    let of = |path: &[String]| -> Vec<Vec<String>> {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = ok(&run(&args));
        let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or("");
        // A description may wrap; its further lines are indented deeper.
        let lines = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        names.map(|name| path.iter().cloned().chain([name.to_owned()]).collect()).collect()
    };
    let top = of(&[]);
    let below: Vec<_> = ["log", "policy"].iter().flat_map(|verb| of(&[verb.to_string()])).collect();
    top.into_iter().chain(below).collect()
}

#[test]
fn the_help_of_every_verb_begins_with_an_example_that_parses() {
    let verbs = verbs();
    assert!(verbs.len() >= 25, "{verbs:?}");
    for verb in verbs {
        let args: Vec<&str> = verb.iter().map(String::as_str).chain(["--help"]).collect();
        let help = ok(&run(&args));
        let example = help.lines().next().expect("a first line").trim();
        let command = format!("$ sluice {}", verb.join(" "));
        assert!(example.starts_with(&command), "{verb:?}: {example}");
        // Run for real it would do something; --help at its end only parses what stands before, up to errors of
        // single words.
        let words =
            shell_words(example.trim_start_matches("$ sluice").split(" > ").next().expect("the command"));
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        ok(&run(&words));
    }
}

/// Splits on spaces outside of double quotes.
fn shell_words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn the_help_documents_every_exit_code() {
    let help = ok(&run(&["--help"]));
    let codes = help.split("Exit codes:\n").nth(1).expect("a list of exit codes");
    let codes: Vec<&str> = codes.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "10", "11", "12", "13", "20", "21", "130"]);
}

#[test]
fn bad_usage_says_what_was_meant() {
    for (args, stderr) in [
        (
            &["rolback", "118"][..],
            "error[E4002]: unrecognized subcommand 'rolback'\n  help: a similar subcommand exists: 'rollback'\n",
        ),
        (
            &["ls", "--al"],
            "error[E4002]: unexpected argument '--al' found\n  help: a similar argument exists: '--all'\n",
        ),
        (
            &["wait", "118", "--for", "promoted", "--timeout", "4"],
            "error[E4002]: invalid value '4' for '--timeout <DURATION>': \"4\" is not a duration; write it as 90s, 15m or 1h30m\n",
        ),
        (
            &["wait", "118", "--for", "done"],
            "error[E4002]: invalid value 'done' for '--for <STATE>': expected accepted, baking, step=N, holding, paused, promoted, effective, soaked or terminal\n",
        ),
        (
            &["deploy", "support-bot", "v42", "--reason", "x"],
            "error[E4002]: what kind of change v42 is cannot be told from its name\n  help: add --kind model|prompt|vector_store|cache|serving\n",
        ),
        (
            &["emit", "s", "--as", "v@1", "EvalPass=1"],
            "error[E4002]: EvalPass is not a metric's name; use [a-z][a-z0-9_.]{0,62}\n",
        ),
        (
            &["--server", "nats://127.0.0.1", "ls"],
            "error[E4002]: --server nats://127.0.0.1: needs a URL such as http://127.0.0.1:7117; for NATS use --nats URL\n",
        ),
    ] {
        refused(&run(args), 2, stderr);
    }
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn a_rollback_and_a_note_need_a_reason() {
    let stderr = "error[E4003]: rollback needs --reason TEXT (it is written to the log)\n  help: sluice rollback r1 --reason \"...\"\n";
    refused(&run(&["rollback", "r1"]), 2, stderr);
    refused(
        &run(&["note", "r1", "--reason", " "]),
        2,
        "error[E4003]: note needs --reason TEXT (it is written to the log)\n",
    );
}

#[test]
fn who_acts_must_be_known() {
    let mut command = sluice(&["pause", "r1"]);
    let output = command.env_remove("USER").env_remove("LOGNAME").output().expect("run sluice");
    refused(
        &output,
        2,
        "error[E4002]: who is doing this is not known: there is no user name here\n  help: name yourself: --by NAME",
    );
}

#[test]
fn a_daemon_that_is_not_there_leaves_the_state_unknown() {
    let stderr = "error[E4001]: cannot reach sluice at http://127.0.0.1:1: connection refused. The rollout keeps running; its state is UNKNOWN here\n  help: is it running? start it: sluice serve.";
    for args in [
        &["status"][..],
        &["ls"],
        &["explain", "118"],
        &["wait", "118", "--for", "promoted"],
        &["rollback", "118", "--reason", "x"],
        &["deploy", "support-bot", "prompt@42", "--reason", "x"],
        &["log", "tail"],
        &["emit", "support-bot", "--as", "prompt@42", "eval_pass=1"],
    ] {
        refused(&run(args), 5, stderr);
    }
    let output = run(&["--nats", "nats://me:secret@127.0.0.1:1", "status"]);
    refused(&output, 5, "error[E4001]: cannot reach NATS at nats://127.0.0.1:1: connection refused.");
    assert!(!text(&output.stderr).contains("secret"));
}

#[test]
fn a_policy_check_names_each_mistake_and_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/prompt.yaml");
    let good_text = fs::read_to_string(&good).unwrap();
    let bad = dir.path().join("bad.yaml");
    fs::write(&bad, good_text.replace("on_deadline:", "on_deadlin:")).unwrap();
    let output = run(&["policy", "check", good.to_str().unwrap(), bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(20));
    assert!(text(&output.stdout).starts_with(&format!("ok  {}: policy prompt-default (", good.display())));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error[E3005]: policy: unknown key on_deadlin; did you mean on_deadline?"),
        "{said}"
    );
    assert!(said.contains(&format!("--> {}:", bad.display())), "{said}");

    let words = ok(&run(&["policy", "show", "prompt-default"]));
    assert!(
        words
            .contains("Roll back when eval_pass is shown to be more than 3 points lower than the baseline's"),
        "{words}"
    );
    refused(&run(&["policy", "show", "promt"]), 3, "error[E4004]: no policy promt\n  help: there are: ");
}

#[test]
fn a_policy_that_is_not_there_or_never_lets_anything_pass_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.yaml");
    let output = run(&["policy", "check", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(20));
    let said = text(&output.stderr);
    assert!(said.starts_with("error[E3000]: ") && said.contains("missing.yaml"), "{said}");
    let shut = dir.path().join("shut.yaml");
    let good =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/prompt.yaml")).unwrap();
    let windows = "spec:\n  windows: {deny: [{cron: \"0 0 0 * * *\", duration: 24h, tz: UTC}]}\n";
    fs::write(&shut, good.replacen("spec:\n", windows, 1)).unwrap();
    let output = run(&["policy", "check", shut.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(20));
    let said = text(&output.stderr);
    let told = "error[E3042]: policy.spec.windows: nothing could be promoted in the year from ";
    assert!(said.starts_with(told) && said.contains("these windows never open"), "{said}");
}

#[test]
fn an_answer_that_is_none_is_not_taken_for_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let other = std::thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        let mut request = [0; 4_096];
        assert!(client.read(&mut request).unwrap() > 0);
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    });
    let output = run(&["--server", &server, "ls"]);
    refused(&output, 1, "error[E4012]: the answer of sluice was not understood: expected value at line 1");
    other.join().unwrap();
}

#[test]
fn an_address_that_is_taken_is_not_listened_on() {
    let (listener, dir) = (TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    let address = listener.local_addr().unwrap().to_string();
    let data = dir.path().join("data");
    let output = run(&["serve", "--http", &address, "--data", data.to_str().unwrap()]);
    refused(&output, 4, "error[E5023]: ");
}

/// Nor is one that has no end read to it.
#[test]
fn a_file_that_is_too_large_is_not_read_whole() {
    let output = run(&["policy", "check", "/dev/zero"]);
    assert_eq!(output.status.code(), Some(20));
    let limit = "exceeds the 262,144-byte limit\n";
    assert!(text(&output.stderr).starts_with(&format!("error[E3023]: policy: {limit}")), "{output:?}");
    let config = run(&["serve", "--config", "/dev/zero"]);
    refused(&config, 2, &format!("error[E3100]: error[E3023]: config: {limit}"));
}

/// A log of `count` events in `dir`; the last is a note with terminal escapes, as no daemon would let in.
fn log_in(dir: &Path, count: u64) {
    let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
    let mut log = Log::open(dir, &options).unwrap().log;
    let mut group = Group::after(log.head());
    for i in 1..count {
        group.push(&Event::DaemonStarted { build: format!("build {i}") }, Timestamp(i)).unwrap();
    }
    let act = Act {
        rollout: sluice::core::ids::RolloutId("bot-1".into()),
        verb: Verb::Note,
        actor: "maya".into(),
        host: "laptop".into(),
        args: Vec::new(),
        reason: "\u{1b}]0;owned\u{7} \u{202e}txt".into(),
        if_seq: None,
        force: false,
    };
    group
        .push(&Event::OperatorActed { act, origin: Origin::default() }, Timestamp(1_767_603_600_000))
        .unwrap();
    log.append(&group).unwrap();
    log.close().unwrap();
}

#[test]
fn a_log_is_verified_exported_and_imported() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (data, file, copy) = (path("data"), path("all.sluice"), path("copy"));
    log_in(dir.path().join("data").as_path(), 2_000);

    let verified = ok(&run(&["log", "verify", "--data", &data]));
    let head = verified
        .strip_prefix("ok  2,000 events, hash chain intact, every invariant holds, head ")
        .expect("ok")
        .to_owned();
    let exported = ok(&run(&["log", "export", &file, "--data", &data]));
    assert_eq!(exported, format!("ok  2,000 events, written to {file} and read back, head {head}"));
    assert_eq!(ok(&run(&["log", "verify", "--file", &file])), verified);
    let imported = ok(&run(&["log", "import", &file, "--data", &copy]));
    assert_eq!(imported, format!("ok  2,000 events, imported into {copy}, head {head}"));
    assert_eq!(ok(&run(&["log", "verify", "--data", &copy])), verified);

    // To standard output it is the same file.
    let piped = run(&["log", "export", "-", "--data", &data]);
    assert_eq!((piped.status.code(), piped.stdout), (Some(0), fs::read(&file).unwrap()));

    let json: Value =
        serde_json::from_str(&ok(&run(&["-o", "json", "log", "verify", "--file", &file]))).unwrap();
    assert_eq!(
        (&json["ok"], &json["events"], &json["head"]["seq"]),
        (&true.into(), &2_000.into(), &2_000.into())
    );
    assert!(json["head"]["hash"].as_str().unwrap().starts_with(head.trim()));

    refused(
        &run(&["log", "export", &file, "--data", &data]),
        4,
        &format!("error[E4006]: {file} exists; an export does not replace a file\n"),
    );
    refused(
        &run(&["log", "import", &file, "--data", &copy]),
        2,
        &format!("error[E4006]: {copy} is not empty; import into a new folder\n"),
    );
    refused(
        &run(&["log", "export", &path("x"), "--data", &data, "--from", "5", "--to", "4"]),
        2,
        "error[E4002]: --from 5 is after --to 4\n",
    );
}

#[test]
fn damage_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("all.sluice"));
    log_in(&data, 50);
    ok(&run(&["log", "export", file.to_str().unwrap(), "--data", data.to_str().unwrap()]));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    refused(
        &run(&["log", "verify", "--file", file.to_str().unwrap()]),
        21,
        "error[E4010]: log corrupt at seq ",
    );
    fs::write(&file, &bytes[..middle]).unwrap();
    refused(
        &run(&["log", "verify", "--file", file.to_str().unwrap()]),
        21,
        "error[E4010]: export truncated after seq 0: ",
    );
}

/// The chain is sound and what it says is not: one decision has its command twice.
#[test]
fn a_log_that_breaks_a_promise_is_named_with_the_event() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1.0/history.sluice");
    let recorded = Export::open(&recorded).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let options = OpenOptions { ballast: 0, log_id: Some(recorded.log), ..OpenOptions::default() };
    let mut log = Log::open(dir.path(), &options).unwrap().log;
    let mut group = Group::after(log.head());
    let mut events = recorded.scan().map(|envelope| envelope.unwrap());
    let (last, id) = loop {
        let envelope = events.next().expect("a command");
        group.push(&envelope.event, envelope.at).unwrap();
        if let Event::CommandIssued { command, .. } = &envelope.event {
            break (envelope.clone(), command.id);
        }
    };
    log.append(&group).unwrap();
    group.appended();
    log.close().unwrap();
    let verified = ok(&run(&["log", "verify", "--data", &data]));
    let sound = format!("ok  {} events, hash chain intact, every invariant holds", last.seq);
    assert!(verified.starts_with(&sound), "{verified}");

    group.push(&last.event, last.at).unwrap();
    let mut log = Log::open(dir.path(), &options).unwrap().log;
    log.append(&group).unwrap();
    assert_eq!(log.reader().verify().unwrap().events, last.seq + 1);
    log.close().unwrap();
    let told = format!(
        "error[E6010]: I15 broken at seq {}: command {id} was issued before\n  help: the log is what was written, \
         but sluice should never have written it: ",
        last.seq + 1
    );
    refused(&run(&["log", "verify", "--data", &data]), 20, &told);
}

#[test]
fn a_recorded_decision_that_differs_is_shown_beside_the_replayed_one() {
    let mut entries = history("good_model_is_promoted");
    let first = entries.iter().position(|entry| matches!(entry.2, Event::DecisionMade { .. }));
    entries.truncate(first.expect("a decision") + 1);
    let Some((_, _, Event::DecisionMade { decision, .. })) = entries.last_mut() else { unreachable!() };
    decision.weight_to.0 += 100;
    let dir = kept(&entries);
    let output = run(&["replay", "--verify", "--data", dir.path().to_str().unwrap()]);
    let told = "error[E0921]: replay differs from the record\nassistant-1, seq 6, 2026-01-05T09:00:00.000Z\n";
    refused(&output, 21, told);
    let difference = "\nfirst difference: DecisionMade.decision.weight_to: RECORDED 200, REPLAYED 100\n";
    assert!(text(&output.stderr).contains(difference), "{output:?}");
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().join("nothing").display().to_string();
    refused(
        &run(&["log", "verify", "--file", "/dev/null"]),
        2,
        "error[E4005]: log is empty: 0 events in /dev/null\n",
    );
    refused(
        &run(&["log", "verify", "--data", &nothing]),
        2,
        &format!("error[E4006]: no log in {nothing}: the folder has no data of sluice\n  help: "),
    );
    assert!(!Path::new(&nothing).exists(), "looking creates nothing");
    refused(
        &run(&["log", "verify", "--file", &nothing]),
        2,
        "error[E4006]: reading the export failed: no such file or directory\n",
    );
    refused(
        &run(&["emit", "bot", "--as", "v@1", "-f", "/dev/null", "--speed", "max"]),
        2,
        "error[E4005]: the file has no rows\n",
    );
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
    let open = Log::open(dir.path(), &options).unwrap();
    let pid = std::process::id();
    for args in [&["log", "verify", "--data", &data][..], &["log", "export", "-", "--data", &data]] {
        let stderr = format!(
            "error[E4009]: data folder {data} is locked by process {pid}; sluice allows one process at a time\n  help: the log is in use by a running sluice. Stop it first"
        );
        refused(&run(args), 4, &stderr);
    }
    drop(open);
}

#[test]
fn a_full_disk_is_reported_and_a_closed_pipe_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    log_in(Path::new(&data), 100);
    let export = "error[E4007]: writing the export failed: no space left on device\n";
    refused(&run(&["log", "export", "/dev/full", "--data", &data]), 2, export);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("/dev/full"));
    let output = |error: &str, args: &[&str]| {
        let output = sluice(args).stdout(full()).output().expect("run sluice");
        refused(&output, 2, error);
    };
    output(export, &["log", "export", "-", "--data", &data]);
    let words = "error[E4007]: writing the output failed: no space left on device\n";
    for args in [&["log", "verify", "--data", &data][..], &["version"], &["completions", "bash"], &["--help"]]
    {
        output(words, args);
    }

    let mut reader = sluice(&["log", "tail", "--data", &data, "--from", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run sluice");
    drop(reader.stdout.take());
    let ended = reader.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), text(&ended.stderr)), (Some(0), String::new()));
}

#[test]
fn terminal_escapes_in_a_note_are_shown_not_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    log_in(dir.path(), 3);
    for format in ["table", "plain"] {
        let shown = ok(&run(&["log", "tail", "--data", &data, "-o", format]));
        assert!(shown.contains(r"bot-1 note by maya@laptop: \x1b]0;owned\x07 \u{202e}txt"), "{shown}");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
    }
    let last = ok(&run(&["log", "tail", "--data", &data, "-o", "jsonl"])).lines().last().map(str::to_owned);
    let last: Value = serde_json::from_str(&last.unwrap()).unwrap();
    assert_eq!(last["event"]["OperatorActed"]["act"]["reason"], "\u{1b}]0;owned\u{7} \u{202e}txt");
}

#[test]
fn nothing_is_coloured_where_colour_is_not_wanted() {
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        for args in [&["--help"][..], &["ls"], &["rolback"], &["policy", "show", "prompt-default"]] {
            let output = sluice(args).env(name, value).output().expect("run sluice");
            assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{name} {args:?}");
        }
    }
}

#[test]
fn a_recorded_file_is_checked_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("day.csv").display().to_string();
    let emit = |text: &str, more: &[&str]| {
        fs::write(&file, text).unwrap();
        run(&[&["emit", "bot", "-f", &file, "--dry-run"][..], more].concat())
    };
    let good = "version,t_s,pass,group\nv@1,0,1,west\nv@2,0.5,,east\n";
    assert_eq!(ok(&emit(good, &["--map", "pass=eval_pass"])), "would send 2 samples to bot\n");
    refused(
        &emit(good, &[]),
        2,
        "error[E4006]: line 2: group: west is not a finite number, true or false\n  help: send only some columns: --map COLUMN=METRIC\n",
    );
    refused(
        &emit("version,pass\nv@1,1\n", &[]),
        2,
        "error[E4002]: a row has no time (served_at, ts or t_s), so there is no rhythm to keep\n  help: add --speed max",
    );
    refused(
        &emit("version,pass\nv@1\n", &[]),
        2,
        "error[E4006]: not a CSV file: CSV error: record 1 (line: 2, byte: 13): found record with 1 fields, but the previous record has 2 fields\n",
    );
    assert_eq!(
        ok(&emit("{\"version\":\"v@1\",\"error\":false}\n", &["--speed", "max"])),
        "would send 1 sample to bot\n"
    );
    fs::write(&file, [0x1f, 0x8b, 8, 0]).unwrap();
    let output = run(&["emit", "bot", "-f", &file]);
    refused(
        &output,
        2,
        &format!("error[E4006]: {file} is compressed\n  help: zcat {file} | sluice emit SERVICE -f -\n"),
    );
}

/// A policy in words, from a file; and scripted traffic under it, with what goes wrong named by line.
#[test]
fn a_policy_is_explained_and_tested_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "apiVersion: sluice.dev/v1\nkind: RolloutPolicy\nmetadata: {name: quick}\nspec:\n  exposure:\n    \
                  percent: [{to: 10%, bake: 1m}, {to: 100%}]\n  guardrails:\n    - {metric: error, kind: absolute, \
                  above: 20%, of_last: 50, on_fail: rollback}\n";
    fs::write(folder.path().join("quick.yaml"), policy).unwrap();
    let file = folder.path().join("quick.yaml");
    let told = ok(&run(&["policy", "explain", file.to_str().unwrap()]));
    assert!(
        told.starts_with("quick (") && told.contains("Roll back when error is true in more than 20%"),
        "{told}"
    );

    let script = "policy quick.yaml\ntest broken is taken back\ntraffic bot 10/s\nversion a error=chance:0.01\nversion b \
                  error=chance:0.9\nintent a -> b by maya: r\nrun 1m\nexpect rolled_back\nexpect rollback because error.absolute\n";
    fs::write(folder.path().join("quick.test"), script).unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(
        ok(&run(&["policy", "test", path])),
        "ok  1 passed, 0 failed, guardrails seen failing 1 of 1\n"
    );
    fs::write(folder.path().join("quick.test"), script.replace("expect rolled_back", "expect baking at 10%"))
        .unwrap();
    let output = run(&["policy", "test", path]);
    assert_eq!(output.status.code(), Some(20));
    assert!(
        text(&output.stderr).contains("line 8: after 1m it is rolled_back at 0%: expect baking at 10%"),
        "{output:?}"
    );
    assert_eq!(text(&output.stdout), "failed  0 passed, 1 failed, guardrails seen failing 0 of 1\n");
}
