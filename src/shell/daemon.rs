//! The long-running daemon: opens the log, recovers, lets the world in, and closes in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::api::Api;
use super::bus::{self, BusError, NatsSettings};
use super::log::{Log, LogError, OpenOptions};
use super::policies::{self, PoliciesError};
use super::recover::recover;
use super::writer::{self, Gone, OUTBOX_MAX};
use super::{clock, http, micro, observe};
use crate::core::event::Event;
use crate::core::state::State;

/// Everything `sluice serve` can be told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data: PathBuf,
    pub policies: Option<PathBuf>,
    pub nats: Option<NatsSettings>,
    pub http: SocketAddr,
    pub log: OpenOptions,
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Policies(#[from] PoliciesError),
    #[error("{0}")]
    Bus(#[from] BusError),
    #[error("cannot listen on http://{address}: {cause}")]
    Listen { address: SocketAddr, cause: std::io::Error },
    #[error("{0}")]
    Http(#[from] http::HttpError),
    #[error("{0}")]
    Micro(#[from] micro::MicroError),
    #[error("{0}")]
    Gone(#[from] Gone),
    #[error("the writer thread panicked; restart sluice, which recovers all that was acknowledged")]
    Panicked,
}

/// Name and version of this build, as recorded in the log.
pub fn build() -> String {
    format!("sluice {}", env!("CARGO_PKG_VERSION"))
}

/// Runs until a signal, or until the log fails. `ready` is told the HTTP address once everything is up.
pub async fn run(settings: Settings, ready: impl FnOnce(SocketAddr)) -> Result<(), DaemonError> {
    let policies = policies::load(settings.policies.as_deref())?;
    let metrics = observe::metrics();
    let opened = Log::open(&settings.data, &settings.log)?;
    if let Some(accepted) = &opened.accepted {
        tracing::warn!("continuing with a log that differs from its anchor: {accepted}");
    }
    let log = opened.log;
    let state = recover(&log)?;
    let started = start_facts(&log, &state, policies);
    tracing::info!(log = %log.id(), events = log.head().seq, "log recovered");

    let bus = match &settings.nats {
        Some(nats) => Some(bus::connect(nats).await?),
        None => None,
    };
    let (outbox, messages) = match bus {
        Some(_) => {
            let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
            (Some(outbox), Some(messages))
        }
        None => (None, None),
    };
    let (writer, thread) = writer::start(log, state, outbox);
    for fact in started {
        writer.submit(fact).await?;
    }

    let (stop, stopped) = watch::channel(false);
    let api = Arc::new(Api::new(writer.clone(), bus.is_some(), metrics));
    let listener = http::listen(settings.http).await?;
    let address = listener.local_addr().map_err(|cause| DaemonError::Listen { address: settings.http, cause })?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn({
        let (api, stopped) = (api.clone(), stopped.clone());
        async move { http::serve(listener, api, until(stopped)).await.map_err(DaemonError::from) }
    });
    if let (Some(bus), Some(messages)) = (bus, messages) {
        let client = bus.client();
        tasks.spawn({
            let (writer, stopped) = (writer.clone(), stopped.clone());
            async move { bus.run(writer, messages, until(stopped)).await.map_err(DaemonError::from) }
        });
        tasks.spawn({
            let (api, stopped) = (api.clone(), stopped.clone());
            async move { micro::serve(client, api, until(stopped)).await.map_err(DaemonError::from) }
        });
    }
    ready(address);

    // The writer thread ends by itself only when the log failed: then nothing may go on.
    let (ended, mut writer_ended) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let result = thread.join().unwrap_or(Err(LogError::Poisoned));
        // The receiver is gone only when the daemon has already given up.
        let _ = ended.blocking_send(result);
    });
    let mut result = tokio::select! {
        ended = writer_ended.recv() => return Err(ended.map_or(DaemonError::Panicked, |r| {
            r.err().map_or(DaemonError::Panicked, DaemonError::Log)
        })),
        () = signalled() => Ok(()),
        Some(task) = tasks.join_next() => match task {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Err(DaemonError::Panicked),
        },
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    while let Some(task) = tasks.join_next().await {
        if let (Ok(Err(error)), Ok(())) = (task, &result) {
            result = Err(error);
        }
    }
    writer.stop().await;
    match writer_ended.recv().await {
        Some(Err(error)) => Err(error.into()),
        _ => result,
    }
}

/// What a start adds to the log: its creation, the start itself, and policies that are new.
fn start_facts(log: &Log, state: &State, policies: Vec<policies::Loaded>) -> Vec<Event> {
    let mut facts = Vec::new();
    if state.last == 0 {
        facts.push(Event::LogCreated { log: log.id(), build: build() });
    }
    facts.push(Event::DaemonStarted { build: build() });
    facts.extend(policies::to_store(state, policies));
    facts
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// SIGINT or SIGTERM.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).expect("signal handlers can be installed");
    let (mut int, mut term) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

/// When this process started, for `info`.
pub fn started() -> crate::core::time::Timestamp {
    clock::now()
}
