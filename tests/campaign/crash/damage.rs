//! Damage to a closed log.
//!
//! A case takes a fresh copy of a sound log, changes it, and reads it as a start of the daemon would: opened, walked,
//! folded. Either that is refused, naming the place, or every record and the folded state are as they were: then what
//! was changed is not in use. A log that reads as anything else has lost or gained something unnoticed.
//!
//! Copies lie in memory and only the files that change are written again, so an attempt costs a few milliseconds.
//! They run in processes of their own: one that hangs or dies is a finding, not the end of the campaign.
//!
//! Not here: a record appended to the end of the chain. It is what a crash between a flush and the next anchor leaves,
//! and nothing tells the two apart.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use sluice::shell::clock;

use crate::crash::campaign::{Campaign, Tally};
use crate::support::DEADLINE;

mod bench;
mod templates;

use bench::Bench;

/// Cases that one process tries, so that what a broken store leaks does not add up.
const CASES_A_PROCESS: u64 = 500;
/// A log that neither opens nor fails for this long hangs.
const PATIENCE: Duration = DEADLINE;

#[test]
fn damage_is_found_and_located_or_touches_nothing() {
    let campaign = Campaign::new("damage", 1, 200);
    let cases = campaign.cases();
    if cases.is_empty() {
        return;
    }
    let done = cases.end - cases.start;
    let start = clock::monotonic();
    let templates = kept("templates");
    // The very bytes of a store hang on its threads: one case is repeated on the logs of the run that it failed in.
    if done != 1 || !templates.is_dir() {
        let _ = fs::remove_dir_all(&templates); // there may be none
        templates::make(&templates);
    }

    let (send, receive) = mpsc::channel();
    let mut tally = Tally::new();
    let mut bad = Vec::new();
    let next = std::sync::atomic::AtomicU64::new(cases.start);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (send, next, templates, cases) = (send.clone(), &next, &templates, cases.clone());
            scope.spawn(move || {
                loop {
                    let first = next.fetch_add(CASES_A_PROCESS, std::sync::atomic::Ordering::Relaxed);
                    if first >= cases.end {
                        return;
                    }
                    attempt_all(templates, first..cases.end.min(first + CASES_A_PROCESS), &send);
                }
            });
        }
        drop(send);
        for (case, word) in receive {
            if word.starts_with("located") || word.starts_with("not in use") {
                *tally.entry(word).or_default() += 1;
            } else {
                bad.push((case, word));
            }
        }
    });
    campaign.report(done, &tally, (clock::monotonic() - start).as_secs_f64());
    for (case, word) in bad.iter().take(20) {
        eprintln!("case {case}: {word}; to repeat it: {}", campaign.repeat(*case));
    }
    assert!(bad.is_empty(), "{} of {done} damages were not found as they should be", bad.len());
    assert_eq!(tally.values().sum::<u64>(), done);
}

/// Where what a later run needs is kept.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("damage").join(name)
}

/// Tries `cases` in other processes, and says what became of each.
fn attempt_all(templates: &Path, mut cases: std::ops::Range<u64>, tell: &mpsc::Sender<(u64, String)>) {
    while !cases.is_empty() {
        let mut child = start_child(templates, &cases);
        let (send, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        loop {
            let word = match lines.recv_timeout(PATIENCE) {
                Ok(line) => match line.split_once("case ").and_then(|(_, rest)| rest.split_once(": ")) {
                    Some((case, word)) => {
                        assert_eq!(case.parse(), Ok(cases.start), "{line}");
                        word.to_owned()
                    }
                    None => continue, // the test harness has its own lines
                },
                Err(mpsc::RecvTimeoutError::Timeout) => "it hangs".to_owned(),
                Err(mpsc::RecvTimeoutError::Disconnected) if cases.is_empty() => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => "the process died".to_owned(),
            };
            let over = word.ends_with("hangs") || word.ends_with("died");
            tell.send((cases.start, word)).expect("the campaign listens");
            cases.start += 1;
            if over {
                break;
            }
        }
        child.kill().expect("end a child");
        child.wait().expect("reap a child");
    }
}

fn start_child(templates: &Path, cases: &std::ops::Range<u64>) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "crash::damage::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env("SLUICE_TEMPLATES", templates)
        .env("SLUICE_RANGE", format!("{} {}", cases.start, cases.end))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start this program once more")
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn child() {
    let var = |name| std::env::var(name).expect("run by another test");
    let range = var("SLUICE_RANGE");
    let (first, end) = range.split_once(' ').expect("two numbers");
    let campaign = Campaign::new("damage", 1, 0);
    let mut bench = Bench::new(Path::new(&var("SLUICE_TEMPLATES")));
    for case in first.parse().expect("a number")..end.parse().expect("a number") {
        println!(
            "case {case}: {}",
            bench.attempt(&mut campaign.random(case), &kept(&format!("case-{case}")))
        );
    }
}
