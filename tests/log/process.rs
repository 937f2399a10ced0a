//! The log under another process: killed, traced, on a full disk.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// A command that runs `role` of [`child`] on `dir` in another process.
fn in_child(program: &[&str], role: &str, dir: &Path) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(program.first().map_or(exe.as_os_str(), |program| program.as_ref()));
    if !program.is_empty() {
        command.args(&program[1..]).arg(exe);
    }
    command.args(["--exact", "process::child", "--ignored", "--nocapture", "--test-threads=1"]);
    command
        .env("SLUICE_TEST_ROLE", role)
        .env("SLUICE_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn appended(log: &mut Log, group: &mut Group, event: &Event) -> Result<(), sluice::shell::log::LogError> {
    for _ in 0..10 {
        group.push(event, Timestamp(1)).unwrap();
    }
    log.append(group)?;
    group.appended();
    println!("acked {}", log.head().seq);
    Ok(())
}

#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child() {
    let (role, dir) = (std::env::var("SLUICE_TEST_ROLE").unwrap(), std::env::var("SLUICE_TEST_DIR").unwrap());
    let dir = Path::new(&dir);
    let ballast = if role.starts_with("disk") { 12 << 20 } else { 0 };
    let opened = Log::open(dir, &OpenOptions { ballast, ..options() }).unwrap();
    let (mut log, mut group) = (opened.log, Group::after(Head::default()));
    match role.as_str() {
        "append ten times" => {
            (0..10).for_each(|_| appended(&mut log, &mut group, &Event::TimePassed).unwrap())
        }
        "append for ever" => loop {
            appended(&mut log, &mut group, &batch(256)).unwrap();
        },
        "disk fills" => {
            let error = loop {
                if let Err(error) = appended(&mut log, &mut group, &batch(1_000)) {
                    break error;
                }
            };
            println!("write: {error}");
            println!("next: {}", log.append(&group).unwrap_err());
        }
        "disk is full" => {
            println!("released {} low {}", opened.ballast_released, log.space().unwrap().low);
            println!("verified {}", log.reader().verify().unwrap().events);
            group = Group::after(log.head());
            appended(&mut log, &mut group, &Event::TimePassed).unwrap();
        }
        other => panic!("no role {other}"),
    }
    std::process::exit(0);
}

fn lines(output: &[u8], prefix: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    // The first line of a test shares its line with the harness.
    let tails = text.lines().filter_map(|line| line.split_once(prefix));
    tails.map(|(_, rest)| rest.trim().to_owned()).collect()
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let dir = dir.path().join(round.to_string());
        let mut child = in_child(&[], "append for ever", &dir).spawn().unwrap();
        let pid = child.id();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acked =
            lines.by_ref().map(|line| line.unwrap()).filter(|line| line.contains("acked")).nth(round * 17);
        let message = refused(&dir, &options());
        assert!(message.contains(&format!("is locked by process {pid};")), "{message}");
        child.kill().unwrap();
        child.wait().unwrap();
        let last =
            lines.map_while(Result::ok).filter(|line| line.contains("acked")).last().or(acked).unwrap();
        let last: u64 = last.rsplit(' ').next().unwrap().parse().unwrap();
        let log = open(&dir);
        assert!(log.head().seq >= last && log.head().seq.is_multiple_of(10), "{:?} after {last}", log.head());
        assert_eq!(log.reader().verify().unwrap().head, log.head());
    }
}

/// What the kernel is asked to do: before anything is acknowledged, sled's file is synced, and never by
/// the call that does not reach the disk.
#[test]
fn a_flush_syncs_the_file_before_it_returns() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: strace is not installed, so what a flush asks of the kernel was not checked");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let calls = "trace=fsync,fdatasync,sync_file_range,write";
    let strace = ["strace", "-f", "-y", "-e", calls, "-o", trace.to_str().unwrap()];
    let output = in_child(&strace, "append ten times", &dir.path().join("data")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(!trace.contains("sync_file_range"));
    let (mut synced, mut acked) = (false, 0);
    for line in trace.lines() {
        // Either a whole call, or its end after another thread's calls.
        synced |= line.contains("fsync") && line.ends_with("= 0") && !line.contains("fdatasync");
        if line.contains("write(1") && line.contains("acked") {
            assert!(synced, "acknowledged without a sync before: {line}");
            (synced, acked) = (false, acked + 1);
        }
    }
    assert_eq!(acked, 10);
    assert!(trace.lines().any(|line| line.contains("fsync(") && line.contains("/data/sled/db>")));
}

/// On a disk of 40 MB: the write that fails is the last one, nothing acknowledged is lost, and the
/// ballast makes the full disk's log usable again.
#[test]
fn a_full_disk_ends_writing_and_the_ballast_reopens_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=40m none {}", dir.path().display());
    let possible = Command::new("unshare").args(["-rm", "sh", "-c", &mount]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no tmpfs may be mounted here, so a full disk was not tried");
        return;
    }
    let script = format!(
        "{mount} && \"$0\" \"$@\"; head -c 40m /dev/zero > {}/rest; SLUICE_TEST_ROLE='disk is full' \"$0\" \"$@\"",
        dir.path().display()
    );
    let program = ["unshare", "-rm", "sh", "-c", &script];
    let output = in_child(&program, "disk fills", &dir.path().join("data")).output().unwrap();
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    let acked: Vec<u64> = lines(out, "acked ").iter().map(|seq| seq.parse().unwrap()).collect();
    assert_eq!(lines(out, "write: "), ["using the log failed: no space left on device"], "{err}");
    assert_eq!(
        lines(out, "next: "),
        ["writing the log failed before; restart sluice, which recovers all that was acknowledged"]
    );
    assert_eq!(lines(out, "released "), ["true low true"], "{err}");
    let verified: u64 = lines(out, "verified ")[0].parse().unwrap();
    let before = acked[acked.len() - 2];
    assert!(verified >= before && verified <= before + 10, "{verified} events, {before} acknowledged");
    assert_eq!(acked.last(), Some(&(verified + 10)), "appending goes on");
}
