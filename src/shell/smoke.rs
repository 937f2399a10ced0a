//! Runs smoke tests: programs of this machine that the config names, and requests to runners on the bus.
//!
//! A test is run once it is durable that it was asked for, and what came of it is handed in as a fact. At least once: a
//! process that dies leaves its tests to the next one, which asks again under the same id.
//! A program gets an argument list and no shell, a few variables, and a process group of its own that is killed as a whole: when its
//! time is over, when it ends, when the rollout has moved on, and when the daemon stops.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::connection::State as Connection;
use async_nats::{Client, Request};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::clock;
use super::writer::Writer;
use crate::core::decide::smoke;
use crate::core::event::Event;
use crate::core::event::smoke::{SmokeAsk, SmokeOutcome, SmokeResult};
use crate::core::ids::{RolloutId, SmokeId};
use crate::core::policy::Policy;
use crate::core::policy::actuator::Run;
use crate::wire::smoke as wire;

/// Tests that run at a time; the time of the others begins when it is their turn.
const AT_ONCE: usize = 8;
/// Of what a program says, the last bytes are kept.
const OUTPUT_MAX: usize = 8 << 10;
/// How long what a program said may still be on its way when it has ended.
const REST: Duration = Duration::from_secs(1);
/// What a program gets of the daemon's own environment.
const KEPT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// What it takes to run tests.
#[derive(Clone)]
pub struct Means {
    /// Programs that may be run, by their whole paths.
    pub programs: Arc<BTreeSet<String>>,
    pub client: Option<Client>,
}

type Ended = (SmokeOutcome, String);

/// Runs what is asked for until `stopped`; whatever runs then is killed.
pub async fn run(writer: Writer, means: Means, mut stopped: watch::Receiver<bool>) {
    let mut news = writer.follow();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let (mut tasks, mut running) = (JoinSet::new(), BTreeMap::<SmokeId, AbortHandle>::new());
    let mut look = true;
    loop {
        if std::mem::take(&mut look) {
            let Ok(wanted) = writer.read(|state, _| smoke::running(state)).await else { return };
            running.retain(|id, task| {
                let keep = wanted.iter().any(|(_, ask)| ask.id == *id);
                if !keep {
                    task.abort();
                }
                keep
            });
            for (rollout, ask) in wanted {
                let (writer, means, turns) = (writer.clone(), means.clone(), turns.clone());
                running.entry(ask.id).or_insert_with(|| {
                    tasks.spawn(async move {
                        let _turn = turns.acquire().await;
                        let id = ask.id;
                        let result = test(&means, rollout, ask).await;
                        // The writer is gone when the daemon stops: the next one asks again.
                        let _ = writer.submit(Event::SmokeFinished { result }).await;
                        id
                    })
                });
            }
        }
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            item = news.recv() => match item {
                Ok(item) => {
                    use Event::{DecisionMade, RolloutEnded, SmokeAsked};
                    look = matches!(item.event, SmokeAsked { .. } | DecisionMade { .. } | RolloutEnded { .. });
                }
                Err(RecvError::Lagged(_)) => look = true,
                Err(RecvError::Closed) => return,
            },
            Some(ended) = tasks.join_next() => match ended {
                Ok(id) => drop(running.remove(&id)),
                // Aborted, for nobody waits for it any more.
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!("a smoke test ended badly: {error}"),
            },
        }
    }
}

/// Names the programs that policies would run and the config does not allow.
pub fn warn_of<'a>(policies: impl Iterator<Item = &'a Policy>, programs: &BTreeSet<String>) {
    for policy in policies {
        for test in &policy.smoke {
            if let Run::Command(argv) = &test.run
                && !programs.contains(&argv[0])
            {
                let (policy, test) = (&policy.name, &test.name);
                tracing::warn!(policy, test, "{}", not_allowed(&argv[0]));
            }
        }
    }
}

fn not_allowed(program: &str) -> String {
    format!("this daemon may not run {program}; allow it with smoke_commands in its config file")
}

async fn test(means: &Means, rollout: RolloutId, ask: SmokeAsk) -> SmokeResult {
    let began = clock::monotonic();
    let (outcome, detail) = match &ask.run {
        Run::Command(argv) if !means.programs.contains(&argv[0]) => {
            (SmokeOutcome::CouldNotRun, not_allowed(&argv[0]))
        }
        Run::Command(argv) => command(argv, &rollout, &ask).await,
        Run::Request(subject) => request(means.client.as_ref(), subject, &rollout, &ask).await,
    };
    let took_ms = (clock::monotonic() - began).as_millis() as u64;
    let (id, name, detail) = (ask.id, ask.name, wire::detail(&detail));
    SmokeResult { id, rollout, name, outcome, detail, took_ms }
}

/// A process group, killed when this is dropped. Numbers are not given out again before all others have been: a group that is
/// gone already is nobody else's yet.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody left is what should be.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

async fn command(argv: &[String], rollout: &RolloutId, ask: &SmokeAsk) -> Ended {
    let cannot = |error: io::Error| (SmokeOutcome::CouldNotRun, format!("cannot start {}: {error}", argv[0]));
    let (mut child, output) = match start(argv, rollout, ask) {
        Ok(started) => started,
        Err(error) => return cannot(error),
    };
    let group = child.id().and_then(|id| Pid::from_raw(id as i32)).map(Group);
    let mut said = Vec::new();
    let ended = {
        let time = Duration::from_millis(ask.timeout.0);
        let mut waiting = std::pin::pin!(tokio::time::timeout(time, child.wait()));
        let mut reading = std::pin::pin!(tail(output, &mut said));
        let mut open = true;
        let ended = loop {
            tokio::select! {
                ended = &mut waiting => break ended,
                () = &mut reading, if open => open = false,
            }
        };
        drop(group);
        if open {
            // A timeout: whoever left the group still has the pipe.
            let _ = tokio::time::timeout(REST, &mut reading).await;
        }
        ended
    };
    let said = String::from_utf8_lossy(&said).into_owned();
    match ended {
        Err(_) => (SmokeOutcome::TimedOut, said),
        Ok(Ok(status)) if status.success() => (SmokeOutcome::Passed, said),
        Ok(Ok(status)) => (SmokeOutcome::Failed, format!("{}\n{said}", how(status))),
        Ok(Err(error)) => cannot(error),
    }
}

fn start(
    argv: &[String],
    rollout: &RolloutId,
    ask: &SmokeAsk,
) -> io::Result<(tokio::process::Child, pipe::Receiver)> {
    let (output, end): (PipeReader, _) = io::pipe()?;
    let kept = KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let child = Command::new(&argv[0])
        .args(&argv[1..])
        .env_clear()
        .envs(kept)
        .env("SLUICE_ROLLOUT", rollout.as_str())
        .env("SLUICE_SERVICE", ask.service.as_str())
        .env("SLUICE_STEP", (ask.step + 1).to_string())
        .env("SLUICE_FROM", ask.from.as_str())
        .env("SLUICE_TO", ask.to.as_str())
        .env("SLUICE_SMOKE_ID", ask.id.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(end.try_clone()?)
        .stderr(end)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(output))?))
}

/// Reads to the end, and keeps the last of it.
async fn tail(mut output: pipe::Receiver, said: &mut Vec<u8>) {
    let mut bytes = [0; 4 << 10];
    while let Ok(n @ 1..) = output.read(&mut bytes).await {
        said.extend_from_slice(&bytes[..n]);
        let more = said.len().saturating_sub(OUTPUT_MAX);
        said.drain(..more);
    }
}

/// `exit code 3`, `killed by signal 9`
fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    }
}

async fn request(client: Option<&Client>, subject: &str, rollout: &RolloutId, ask: &SmokeAsk) -> Ended {
    let Some(client) = client else {
        let why = format!("{subject} is asked over NATS, and this daemon has none; start it with --nats");
        return (SmokeOutcome::CouldNotRun, why);
    };
    let body = serde_json::to_vec(&wire::request(rollout, ask)).expect("made of numbers and strings");
    let timeout = Duration::from_millis(ask.timeout.0);
    let request = Request::new().payload(body.into()).timeout(Some(timeout));
    let answer = client.send_request(subject.to_owned(), request).await;
    match answer {
        Ok(message) => match wire::parse_answer(&message.payload) {
            Ok(answer) if answer.ok => (SmokeOutcome::Passed, answer.detail),
            Ok(answer) => (SmokeOutcome::Failed, answer.detail),
            Err(error) => {
                (SmokeOutcome::CouldNotRun, format!("{subject} answered, and not as it should: {error}"))
            }
        },
        Err(error) => match error.kind() {
            // Whoever is cut off hears no answer.
            RequestErrorKind::TimedOut if client.connection_state() == Connection::Connected => {
                (SmokeOutcome::TimedOut, String::new())
            }
            RequestErrorKind::NoResponders => {
                (SmokeOutcome::CouldNotRun, format!("nobody listens on {subject}"))
            }
            _ => (SmokeOutcome::CouldNotRun, format!("{subject} cannot be asked: {error}")),
        },
    }
}
