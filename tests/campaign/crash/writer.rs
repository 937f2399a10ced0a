//! The log under a writer that does nothing else: far more groups a second than the daemon has messages for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;

use sluice::core::event::Event;
use sluice::core::event::fact::Origin;
use sluice::core::ids::{Digest, EventSeq};
use sluice::core::telemetry::columns::{Builder, Row};
use sluice::core::time::Timestamp;
use sluice::runner::Runner;
use sluice::shell::log::LogError;
use sluice::shell::{clock, recover};
use sluice::sim::random::Random;
use sluice::wire::envelope::Group;

use crate::crash::check;
use crate::support::{dying_with_us, kill9_group, wait_for};

/// Another process that appends for ever. It is killed with the value.
pub struct Writer {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Writer {
    /// Starts it on `data`, behind the words of `under`.
    pub fn start(data: &Path, random: &mut Random, under: &[String]) -> Writer {
        let mut words = under.to_vec();
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        let mut child = dying_with_us(&words[0])
            .args(&words[1..])
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", "crash::writer::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env("SLUICE_TEST_DIR", data)
            .env("SLUICE_TEST_SEED", random.bits().to_string())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("start this program once more");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Writer { child, lines }
    }

    /// Waits until it ends by itself; whether it said that writing failed.
    pub fn wait(&mut self) -> bool {
        wait_for("the writer to end", || self.ended()).code() == Some(FAILED)
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("ask for the writer")
    }

    /// Ends it as a crash would, and what it runs under.
    pub fn kill9(&mut self) {
        kill9_group(&mut self.child);
    }

    /// The last record that it has called durable by now. All before are covered by the hash.
    pub fn last(&self) -> Option<(EventSeq, Digest)> {
        last(self.lines.try_iter())
    }

    /// The same once it has ended, of what it said since it was last asked.
    pub fn rest(&self) -> Option<(EventSeq, Digest)> {
        last(self.lines.iter())
    }
}

fn last(lines: impl Iterator<Item = String>) -> Option<(EventSeq, Digest)> {
    let last = lines.filter(|line| line.contains("acked ") && line.ends_with(" .")).last()?;
    let mut words = last.split_once("acked ")?.1.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Ended because the log could not be written.
const FAILED: i32 = 7;

#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child() {
    let var = |name| std::env::var(name).expect("run by another test");
    let mut random = Random::new(var("SLUICE_TEST_SEED").parse().expect("a number"));
    let error = append(Path::new(&var("SLUICE_TEST_DIR")), &mut random);
    eprintln!("{error}");
    std::process::exit(FAILED);
}

/// Appends groups of all sizes, with anchors and snapshots as the daemon writes them, until that fails.
fn append(data: &Path, random: &mut Random) -> LogError {
    let mut work = || -> Result<(), LogError> {
        let mut log = check::open(data)?;
        let mut runner = Runner::new(recover::recover(&log)?);
        let mut group = Group::after(log.head());
        let mut out = std::io::stdout().lock();
        for n in 0_u64.. {
            let most = if random.chance(0.1) { 40 } else { 3 };
            for _ in 0..1 + random.below(most) {
                let fact = if random.chance(0.3) {
                    batch(random)
                } else {
                    Event::DaemonStarted { build: format!("writer {n}") }
                };
                let record = &mut |_, at, event: &Event| {
                    group.push(event, at).expect("it fits");
                };
                runner.take(clock::now(), fact, record);
            }
            log.set_outbox_cursor(log.head().seq);
            log.append(&group)?;
            group.appended();
            // Nobody may be left to read it.
            let _ =
                writeln!(out, "acked {} {} .", log.head().seq, log.head().hash).and_then(|()| out.flush());
            log.anchor_if_due(clock::monotonic())?;
            if random.chance(0.01) {
                let state = rmp_serde::to_vec_named(&runner.state).expect("the state is storable");
                log.put_snapshot(log.head(), &state)?;
            }
        }
        Ok(())
    };
    work().expect_err("it goes on until writing fails")
}

fn batch(random: &mut Random) -> Event {
    let mut builder = Builder::new(Timestamp(1_000));
    for i in 0..random.below(2_000) {
        let (version, value) = (["a@1", "b@1"][i as usize % 2], random.below(4_096) as f64 / 8.0);
        let served_at = Timestamp(1_000 + i);
        builder.push(Row { version, metric: "latency_ms", served_at, unit: None, tags: None, value });
    }
    Event::BatchReceived { service: "bulk".into(), columns: builder.finish(), origin: Origin::default() }
}
