//! The long-running daemon: opens the log, recovers, lets the world in, and closes in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::api::{About, Api};
use super::bus::{self, BusError, NatsSettings};
use super::log::{Log, LogError, OpenOptions};
use super::micro::{self, MicroError};
use super::observability;
use super::policies::{self, PoliciesError};
use super::recover::recover;
use super::writer::{self, OUTBOX_MAX, Writer};
use super::{clock, http, smoke};
use crate::core::event::Event;
use crate::core::rules::{ENGINE, Rules};
use crate::core::state::State;

/// How long the broker may take to accept what is on its way when the daemon stops.
const GRACE: Duration = Duration::from_secs(5);

/// Everything `sluice serve` can be told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data: PathBuf,
    pub policies: Option<PathBuf>,
    pub nats: Option<NatsSettings>,
    pub http: SocketAddr,
    /// Names that HTTP clients may call the daemon by, besides loopback ones.
    pub hosts: Vec<String>,
    pub log: OpenOptions,
    /// Programs that smoke tests may run, by their whole paths.
    pub smoke_commands: Vec<String>,
}

/// Why the daemon ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Policies(#[from] PoliciesError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Micro(#[from] MicroError),
    #[error("cannot listen on http://{address}: {cause}")]
    Listen { address: SocketAddr, cause: std::io::Error },
    #[error("HTTP failed: {0}")]
    Http(std::io::Error),
    #[error("a part of sluice panicked; start it again, it recovers all that was acknowledged")]
    Panicked,
}

/// Name and version of this build, as recorded in the log.
pub fn build() -> String {
    format!("sluice {}", env!("CARGO_PKG_VERSION"))
}

/// Runs until a signal, or until something fails that it cannot go on without. `ready` is told the HTTP address
/// once everything is up.
pub async fn run(settings: Settings, ready: impl FnOnce(SocketAddr)) -> Result<(), DaemonError> {
    let started = clock::now();
    let policies = policies::load(settings.policies.as_deref())?;
    let address = settings.http;
    let listener = http::listen(address).map_err(|cause| DaemonError::Listen { address, cause })?;
    let address = listener.local_addr().map_err(DaemonError::Http)?;
    let (log, state) = open_log(&settings)?;
    let bus = match &settings.nats {
        Some(nats) => Some(bus::connect(nats).await?),
        None => None,
    };
    let programs = Arc::new(settings.smoke_commands.into_iter().collect());
    smoke::warn_of(policies.iter().map(|loaded| &loaded.policy), &programs);
    let tests = smoke::Means { programs, client: bus.as_ref().map(|bus| bus.client()) };
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    let first = first_facts(&log, &state, policies);
    let (writer, thread) = writer::start(log, state, bus.is_some().then_some(outbox));
    // The writer ends by itself only when the log failed: then nothing else may go on.
    let mut thread = tokio::task::spawn_blocking(move || thread.join());
    for fact in first {
        if writer.submit(fact).await.is_err() {
            return Err(failure(thread.await));
        }
    }
    let about = About { started, nats: bus.is_some(), hosts: settings.hosts };
    let api = Arc::new(Api::new(writer.clone(), about));
    let (stop, stopped) = watch::channel(false);
    let mut fronts: JoinSet<Result<(), DaemonError>> = JoinSet::new();
    let mut running = None;
    if let Some(bus) = bus {
        let client = bus.client();
        running = match bus.start(&writer, messages).await {
            Err(BusError::Gone(_)) => return Err(failure(thread.await)),
            running => Some(running?),
        };
        let (api, stopped) = (api.clone(), stopped.clone());
        fronts.spawn(async move { Ok(micro::serve(client, api, until(stopped)).await?) });
    }
    fronts.spawn({
        let (api, stopped) = (api.clone(), stopped.clone());
        async move { http::serve(listener, api, until(stopped)).await.map_err(DaemonError::Http) }
    });
    fronts.spawn({
        let (writer, stopped) = (writer.clone(), stopped.clone());
        async move {
            smoke::run(writer, tests, stopped).await;
            Ok(())
        }
    });
    tokio::spawn(observability::narrate(writer.clone(), until(stopped.clone())));
    let mut signals = Signals::listen();
    ready(address);

    let failed = tokio::select! {
        ended = &mut thread => return Err(failure(ended)),
        () = signals.next() => None,
        front = fronts.join_next() => Some(match front {
            Some(Ok(Err(error))) => error,
            _ => DaemonError::Panicked,
        }),
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    if let Some(running) = running {
        running.stop(GRACE).await;
    }
    drain(fronts).await;
    close(writer, thread).await?;
    failed.map_or(Ok(()), Err)
}

/// Lets what is being answered be answered.
async fn drain(mut fronts: JoinSet<Result<(), DaemonError>>) {
    let rest = tokio::time::timeout(GRACE, async { while fronts.join_next().await.is_some() {} });
    if rest.await.is_err() {
        tracing::warn!("some requests were cut off after {} s", GRACE.as_secs());
    }
}

/// The log as it is at the start, with the state that it establishes.
fn open_log(settings: &Settings) -> Result<(Log, State), DaemonError> {
    let opened = Log::open(&settings.data, &settings.log)?;
    if let Some(accepted) = &opened.accepted {
        tracing::warn!("going on with a log that disagrees with its anchor, as told to: {accepted}");
    }
    let state = recover(&opened.log)?;
    tracing::info!(log = %opened.log.id(), events = opened.log.head().seq, "log recovered");
    Ok((opened.log, state))
}

type Joined = std::thread::Result<Result<(), LogError>>;
type Ended = Result<Joined, tokio::task::JoinError>;

fn end_of(ended: Ended) -> Result<(), DaemonError> {
    match ended {
        Ok(Ok(result)) => Ok(result?),
        Ok(Err(_)) | Err(_) => Err(DaemonError::Panicked),
    }
}

/// Why the writer has ended before it was told to.
fn failure(ended: Ended) -> DaemonError {
    end_of(ended).err().unwrap_or(DaemonError::Panicked)
}

async fn close(writer: Writer, thread: JoinHandle<Joined>) -> Result<(), DaemonError> {
    writer.stop().await;
    end_of(thread.await)
}

/// What a start adds to the log: its creation, the start itself, and policies that are new.
fn first_facts(log: &Log, state: &State, policies: Vec<policies::Loaded>) -> Vec<Event> {
    let mut facts = Vec::new();
    if state.last == 0 {
        facts.extend(Event::begin(log.id(), &build()));
    } else if !Rules::are_current(state.engine) {
        facts.push(Event::EngineAdopted { engine: ENGINE });
    }
    facts.push(Event::DaemonStarted { build: build() });
    facts.extend(policies::to_store(state, policies));
    facts
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// SIGINT and SIGTERM.
struct Signals {
    int: Signal,
    term: Signal,
}

impl Signals {
    /// From here on a signal is kept. One that came while a later call put its handler in place would be lost.
    fn listen() -> Signals {
        let listen = |kind| signal(kind).expect("signal handlers can be installed");
        Signals { int: listen(SignalKind::interrupt()), term: listen(SignalKind::terminate()) }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}
