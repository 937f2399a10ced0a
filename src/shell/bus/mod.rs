//! NATS: what comes in is taken to the writer and confirmed once it is durable; what the writer releases is
//! published, in order, until the broker has it.
//!
//! Invariants: a message is confirmed to the broker only after its facts are durable; the outbox moves on only
//! past what the broker has stored; nothing waits behind telemetry here but telemetry.
//! A lost connection, a restarted broker or a removed stream stops nothing for good: each task finds its way
//! back, and both directions may repeat a message (same id) but not lose one.
//! Not here: what messages mean (`shell::intake`, `wire`), requests and replies (`shell::micro`).

mod intake;
mod publisher;
pub mod streams;

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use metrics::{counter, gauge};
use percent_encoding::percent_decode_str;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::clock;
use super::writer::{Gone, Writer};
use crate::core::event::code::Code;
use crate::core::event::fact::Inbound;
use crate::wire::outgoing::Outgoing;

/// How long to look for a broker at the start. Later it is looked for until it is back.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The oldest server that has what sluice relies on: `sync_interval`, and a first sequence for new streams.
const OLDEST: (u32, u32) = (2, 10);
/// Longest answer of the broker's API, and longest wait for the confirmation of a publication.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Waits between attempts double from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// Where the broker is.
#[derive(Clone, Debug, Default)]
pub struct NatsSettings {
    /// `nats://host:4222` or `tls://host:4222`, one or several of the same cluster; `user:password@` or `token@`
    /// may stand before the host.
    pub servers: Vec<String>,
    /// A `.creds` file.
    pub creds: Option<PathBuf>,
}

/// Why sluice cannot work with the broker.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Not echoed: it may hold a password, and what cannot be read does not tell where.
    #[error("NATS URL number {number} is not the address of a server; use nats://host:4222")]
    Address { number: usize, source: std::io::Error },
    #[error("cannot read the NATS credentials {path}", path = path.display())]
    Credentials { path: PathBuf, source: std::io::Error },
    #[error("cannot reach NATS at {servers} after {} s", CONNECT_WITHIN.as_secs())]
    Unreachable { servers: String, source: async_nats::ConnectError },
    #[error("NATS at {servers} refuses the connection; check the credentials")]
    Refused { servers: String, source: async_nats::ConnectError },
    #[error("nats-server {version} is too old; {}.{} or newer is needed", OLDEST.0, OLDEST.1)]
    TooOld { version: String },
    #[error("JetStream is not enabled on the NATS server or for this account; start nats-server with -js")]
    NoJetStream,
    #[error("{what}: {field} is {found}, expected {expected}; {fix}")]
    Drift { what: String, field: &'static str, found: String, expected: String, fix: &'static str },
    #[error("cannot {doing} {what}")]
    Api { doing: &'static str, what: String, source: async_nats::Error },
    #[error(
        "stream {stream} counts from anew: it {has}, and this log has recorded up to message {recorded}; \
         its messages would be taken for old ones. remove the stream, and sluice makes it again after \
         message {recorded}; what waits in it has to be sent again"
    )]
    Rewound { stream: &'static str, has: String, recorded: u64 },
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl BusError {
    /// Stable, for programs and the documentation.
    pub fn code(&self) -> Code {
        match self {
            BusError::Drift { .. } => Code::StreamDiffers,
            BusError::Rewound { .. } => Code::StreamAnew,
            BusError::TooOld { .. } | BusError::NoJetStream => Code::BrokerOld,
            BusError::Address { .. } | BusError::Credentials { .. } => Code::BrokerAddress,
            BusError::Unreachable { .. } | BusError::Refused { .. } => Code::BrokerUnreached,
            BusError::Api { .. } => Code::BrokerAnswer,
            BusError::Gone(_) => Code::Stopping,
        }
    }
}

/// A connection to the broker.
#[derive(Clone)]
pub struct Bus {
    client: Client,
    /// How often a connection has been made; changes when one is made again.
    connections: watch::Receiver<u64>,
}

/// Connects, and checks that the server is one sluice can work with. Gives up after 10 seconds; once connected,
/// a lost connection is looked for until it is back.
pub async fn connect(settings: &NatsSettings) -> Result<Bus, BusError> {
    let servers = addresses(&settings.servers)?;
    // Without user and password.
    let shown: Vec<_> =
        servers.iter().map(|s| format!("{}://{}:{}", s.scheme(), s.host(), s.port())).collect();
    let shown = shown.join(", ");
    let (count, connections) = watch::channel(0);
    let options = options(settings, &servers, count).await?;
    let deadline = clock::monotonic() + CONNECT_WITHIN;
    let mut wait = RETRY_FIRST;
    let client = loop {
        match options.clone().connect(servers.clone()).await {
            Ok(client) => break client,
            Err(source) => match source.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    return Err(BusError::Refused { servers: shown, source });
                }
                _ if clock::monotonic() + wait > deadline => {
                    return Err(BusError::Unreachable { servers: shown, source });
                }
                _ => {}
            },
        }
        tokio::time::sleep(wait).await;
        wait = later(wait);
    };
    let bus = Bus { client, connections };
    bus.check_server()?;
    Ok(bus)
}

fn addresses(servers: &[String]) -> Result<Vec<ServerAddr>, BusError> {
    let parse = |(i, address): (usize, &String)| {
        address.parse().map_err(|source| BusError::Address { number: i + 1, source })
    };
    servers.iter().enumerate().map(parse).collect()
}

/// With the user and password, or the token alone, of the first URL that has one: async-nats leaves them out.
pub fn sign_in(options: ConnectOptions, servers: &[ServerAddr]) -> ConnectOptions {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    match servers.iter().find_map(|server| Some((server.username()?, server.password()))) {
        Some((user, Some(password))) => options.user_and_password(decoded(user), decoded(password)),
        Some((token, None)) => options.token(decoded(token)),
        None => options,
    }
}

async fn options(
    settings: &NatsSettings,
    servers: &[ServerAddr],
    count: watch::Sender<u64>,
) -> Result<ConnectOptions, BusError> {
    let options = match &settings.creds {
        Some(path) => ConnectOptions::with_credentials_file(path)
            .await
            .map_err(|source| BusError::Credentials { path: path.clone(), source })?,
        None => sign_in(ConnectOptions::new(), servers),
    };
    Ok(options
        .name("sluice")
        .connection_timeout(ANSWER_WITHIN)
        .request_timeout(Some(ANSWER_WITHIN))
        .reconnect_delay_callback(|attempts| {
            RETRY_LAST.min(RETRY_FIRST * 2u32.saturating_pow(attempts.saturating_sub(1).min(8) as u32))
        })
        .event_callback(move |event| {
            noticed(&event, &count);
            std::future::ready(())
        }))
}

/// A connection's ups and downs. A missing permission shows here and nowhere else: to the one who published,
/// all is well.
fn noticed(event: &Event, count: &watch::Sender<u64>) {
    match event {
        Event::Connected => {
            gauge!("sluice_nats_connected").set(1.0);
            count.send_modify(|n| *n += 1);
            tracing::info!("connected to NATS");
        }
        Event::Disconnected | Event::Closed => {
            gauge!("sluice_nats_connected").set(0.0);
            tracing::warn!("connection to NATS lost; trying again");
        }
        Event::ServerError(ServerError::Other(text))
            if text.to_lowercase().contains("permissions violation") =>
        {
            counter!("sluice_nats_permission_violations_total").increment(1);
            tracing::error!("NATS: {text}; sluice's user needs this permission");
        }
        Event::ServerError(_) | Event::ClientError(_) | Event::SlowConsumer(_) => {
            counter!("sluice_nats_errors_total").increment(1);
            tracing::error!("NATS: {event}");
        }
        Event::LameDuckMode | Event::Draining => tracing::info!("NATS: {event}"),
    }
}

/// Returns when the bus is stopped, or has been dropped.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // The result holds a lock; an error says that nobody is left to say it.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn later(wait: Duration) -> Duration {
    (wait * 2).min(RETRY_LAST)
}

impl Bus {
    /// The connection, for requests and replies.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Makes or checks the streams, then takes in messages and publishes what comes out of `outbox` (the
    /// receiver of a channel of [`OUTBOX_MAX`](super::writer::OUTBOX_MAX)) until [`Running::stop`].
    pub async fn start(self, writer: &Writer, outbox: mpsc::Receiver<Outgoing>) -> Result<Running, BusError> {
        let (stop, stopped) = watch::channel(false);
        let publisher = publisher::Publisher::new(&self, writer.clone(), stopped.clone()).await?;
        let mut intakes = Vec::new();
        for stream in [Inbound::Acks, Inbound::Intents, Inbound::Telemetry] {
            let mut intake = intake::Intake::new(&self, writer.clone(), stream, stopped.clone());
            let messages = intake.attach().await?;
            intakes.push((intake, messages));
        }
        let intakes =
            intakes.into_iter().map(|(intake, messages)| tokio::spawn(intake.run(messages))).collect();
        let publisher = tokio::spawn(publisher.run(outbox));
        Ok(Running { client: self.client, stop, intakes, publisher })
    }

    fn check_server(&self) -> Result<(), BusError> {
        let info = self.client.server_info();
        let mut parts = info.version.split('.').map_while(|part| part.parse::<u32>().ok());
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version < OLDEST {
            return Err(BusError::TooOld { version: info.version });
        }
        Ok(())
    }
}

/// The tasks of a bus that is at work.
pub struct Running {
    client: Client,
    stop: watch::Sender<bool>,
    intakes: Vec<JoinHandle<()>>,
    publisher: JoinHandle<()>,
}

impl Running {
    /// Takes in nothing more, confirms what is durable, and publishes what is on its way out, for at most
    /// `grace`. To be called while the writer still runs; what was not published is after the next start.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let aborts: Vec<_> =
            self.intakes.iter().chain([&self.publisher]).map(JoinHandle::abort_handle).collect();
        let finish = async {
            for task in self.intakes.into_iter().chain([self.publisher]) {
                if let Err(error) = task.await {
                    tracing::error!("a task of the bus ended badly: {error}");
                }
            }
            if let Err(error) = self.client.flush().await {
                tracing::warn!("NATS: {error}; unconfirmed messages come again");
            }
        };
        if tokio::time::timeout(grace, finish).await.is_err() {
            tracing::warn!(
                "NATS did not take everything within {} s; the rest follows after the next start",
                grace.as_secs()
            );
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}
