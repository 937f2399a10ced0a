//! One inbound stream: messages are parsed here, recorded by the writer, and confirmed once durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Stream;
use async_nats::jetstream::{AckKind, Context, Message};
use async_nats::{Client, HeaderMap, Subject};
use futures_util::{FutureExt, StreamExt};
use metrics::{Counter, counter, gauge};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{ANSWER_WITHIN, Bus, BusError, RETRY_FIRST, later, streams, told_to_stop};
use crate::core::event::fact::{Delivery, Inbound};
use crate::core::state::State;
use crate::core::time::Timestamp;
use crate::shell::intake::{self, Kind};
use crate::shell::log::Reader;
use crate::shell::writer::{Outcome, Receipt, Writer};

/// Asked from the broker at a time: messages, and bytes. Enough to bridge many round trips at 100 MB/s, and
/// little enough that an ack behind it on the same connection waits a few milliseconds.
const PULL_MESSAGES: usize = 1_024;
const PULL_BYTES: usize = 4 << 20;
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// Two of these missing means that the broker does not know our request any more.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Bytes of messages handed to the writer and not durable yet. A message counts as 16 KiB at least: so at most
/// 512 of them, two groups of the writer. More would be no faster, and an ack would wait behind them.
const ROOM: usize = 8 << 20;
const MESSAGE_COUNTS: usize = 16 << 10;
/// How long to leave a message with the broker while the disk is full.
const FULL_DELAY: Duration = Duration::from_secs(5);

pub(super) struct Intake {
    stream: Inbound,
    name: &'static str,
    kind: Kind,
    bus: Bus,
    connections: watch::Receiver<u64>,
    js: Context,
    writer: Writer,
    stopped: watch::Receiver<bool>,
    /// The highest sequence recorded or seen, and the broker's time above which no message up to it was
    /// published; no time where the log has none.
    high: (u64, Option<Timestamp>),
    /// When the stream was created (ns since 1970), and the used number that this very stream gave to a new message.
    created: i128,
    refused: Option<(i128, u64)>,
    room: Arc<Semaphore>,
    replies: mpsc::UnboundedSender<(Subject, Reply)>,
    replier: tokio::task::JoinHandle<()>,
    taken: Counter,
}

/// What the broker is told about a message.
#[derive(Clone, Copy)]
enum Reply {
    Durable,
    /// Nothing was recorded: deliver it again, after a while or at once.
    Full,
    Unread,
}

impl Intake {
    pub fn new(bus: &Bus, writer: Writer, stream: Inbound, stopped: watch::Receiver<bool>) -> Intake {
        let mut js = async_nats::jetstream::new(bus.client());
        js.set_timeout(ANSWER_WITHIN);
        let kind = match stream {
            Inbound::Intents => Kind::Intent,
            Inbound::Telemetry => Kind::Telemetry,
            Inbound::Acks => Kind::Ack,
        };
        let name = streams::name(stream);
        // Unbounded, for the writer must not wait; it holds at most what `ROOM` lets in.
        let (replies, inbox) = mpsc::unbounded_channel();
        let replier = tokio::spawn(reply(bus.client(), inbox, name));
        Intake {
            stream,
            name,
            kind,
            connections: bus.connections.clone(),
            bus: bus.clone(),
            js,
            writer,
            stopped,
            high: (0, None),
            created: 0,
            refused: None,
            room: Arc::new(Semaphore::new(ROOM)),
            replies,
            replier,
            taken: counter!("sluice_messages_in_total", "stream" => name),
        }
    }

    /// Makes or checks stream and consumer, and asks for messages.
    pub async fn attach(&mut self) -> Result<Stream, BusError> {
        self.connections.mark_unchanged();
        self.check().await?;
        let consumer = streams::ensure_consumer(&self.js, self.name).await?;
        consumer
            .stream()
            .max_messages_per_batch(PULL_MESSAGES)
            .max_bytes_per_batch(PULL_BYTES)
            .expires(PULL_EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|e| BusError::Api { doing: "read stream", what: self.name.into(), source: e.into() })
    }

    /// Makes or checks the stream: whether it still counts on from what has been recorded, or is another one that
    /// gives the same numbers to other messages.
    async fn check(&mut self) -> Result<(), BusError> {
        self.bus.check_server()?;
        let stream = self.stream;
        let read =
            move |state: &State, _: &Reader| (state.intake.high(stream), state.intake.youngest(stream));
        let (recorded, youngest) = self.writer.read(read).await?;
        self.high = (recorded.max(self.high.0), youngest.max(self.high.1));
        let recorded = self.high.0;
        let found = streams::ensure(&self.js, streams::inbound(stream), recorded + 1).await?;
        let (first, last) = (found.info.state.first_sequence, found.info.state.last_sequence);
        if found.created && recorded > 0 {
            counter!("sluice_streams_recreated_total", "stream" => self.name).increment(1);
            tracing::error!(
                "stream {} was gone and is made again after message {recorded}; what waited in it is lost",
                self.name
            );
        }
        if last < recorded {
            return Err(self.rewound(format!("ends at message {last}"), recorded));
        }
        self.created = found.info.created.unix_timestamp_nanos();
        self.refused = self.refused.filter(|(created, _)| *created == self.created);
        // Something waits under a number that was used. Whether the message of the highest one is ours is found out
        // before any is read: had they come in another order, later ones would be recorded and hide the fault.
        if self.refused.is_none()
            && (1..=recorded).contains(&first)
            && let Some(published) = streams::published(&self.js, self.name, recorded).await?
            && self.is_another(recorded, at(published))
        {
            self.refused = Some((self.created, recorded));
        }
        match self.refused {
            Some((_, seq)) => Err(self.gave(seq)),
            None => Ok(()),
        }
    }

    /// Whether a message has a number that was used before, and is younger than all that had one: the stream lost
    /// messages, or is another one.
    fn is_another(&self, seq: u64, published: Timestamp) -> bool {
        let (high, youngest) = self.high;
        seq <= high && youngest.is_some_and(|youngest| published > youngest)
    }

    fn gave(&self, seq: u64) -> BusError {
        self.rewound(format!("gave number {seq} to a new message"), self.high.0)
    }

    fn rewound(&self, has: String, recorded: u64) -> BusError {
        BusError::Rewound { stream: self.name, has, recorded }
    }

    /// Takes in messages until the bus is stopped or the writer has ended.
    pub async fn run(mut self, messages: Stream) {
        let working = gauge!("sluice_intake_working", "stream" => self.name);
        let mut attached = Ok(messages);
        let mut wait = RETRY_FIRST;
        loop {
            match attached {
                Ok(messages) => {
                    working.set(1.0);
                    wait = RETRY_FIRST;
                    match self.consume(messages).await {
                        Ok(()) | Err(BusError::Gone(_)) => break,
                        Err(error) => self.report(&error),
                    }
                }
                Err(BusError::Gone(_)) => break,
                Err(error) => self.report(&error),
            }
            working.set(0.0);
            if tokio::time::timeout(wait, told_to_stop(&mut self.stopped)).await.is_ok() {
                break;
            }
            wait = later(wait);
            attached = self.attach().await;
        }
        working.set(0.0);
        // The replier ends when the last receipt has come.
        drop(self.replies);
        if let Err(error) = self.replier.await {
            tracing::error!("stream {}: {error}", self.name);
        }
    }

    fn report(&self, error: &BusError) {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        counter!("sluice_intake_stops_total", "stream" => self.name, "code" => error.code().as_str())
            .increment(1);
        tracing::error!(
            code = error.code().as_str(),
            "intake of {} stopped: {error}{source}; trying again",
            self.name
        );
    }

    /// Takes messages until stopped, or until reading fails.
    async fn consume(&mut self, mut messages: Stream) -> Result<(), BusError> {
        let result = loop {
            let message = tokio::select! {
                biased;
                () = told_to_stop(&mut self.stopped) => break Ok(()),
                // The broker may have come back with less than it had.
                Ok(()) = self.connections.changed() => match self.check().await {
                    Ok(()) => continue,
                    Err(error) => break Err(error),
                },
                message = messages.next() => message,
            };
            let result = match message {
                Some(Ok(message)) => self.take(message).await,
                Some(Err(source)) => Err(self.broken(source.into())),
                None => Err(self.broken("the connection was closed".into())),
            };
            if let Err(error) = result {
                break Err(error);
            }
        };
        // What has arrived and is not taken: without this it would come again only after half a minute.
        while let Some(Some(Ok(message))) = messages.next().now_or_never() {
            if let Some(reply) = &message.reply {
                self.reply(reply.clone(), Reply::Unread);
            }
        }
        result
    }

    fn broken(&self, source: async_nats::Error) -> BusError {
        BusError::Api { doing: "go on reading stream", what: self.name.into(), source }
    }

    async fn take(&mut self, message: Message) -> Result<(), BusError> {
        let (seq, published) = match message.info() {
            Ok(info) => (info.stream_sequence, at(info.published.unix_timestamp_nanos())),
            Err(source) => return Err(self.broken(source)),
        };
        let Some(answer_to) = message.reply.clone() else { return Ok(()) };
        if self.is_another(seq, published) {
            self.reply(answer_to, Reply::Full);
            self.refused = Some((self.created, seq));
            return Err(self.gave(seq));
        }
        if seq > self.high.0 {
            self.high = (seq, self.high.1.max(Some(published)));
        }
        let headers = message.headers.as_ref();
        let facts = intake::facts(
            self.kind,
            &intake::Message {
                body: &message.payload,
                content_type: header(headers, "content-type"),
                service: intake::service_in(&message.subject),
                source: &message.subject,
                message_id: header(headers, "nats-msg-id"),
                traceparent: header(headers, "traceparent"),
                delivery: Some(Delivery { stream: self.stream, seq, published: Some(published) }),
            },
        );
        let counts = message.payload.len().clamp(MESSAGE_COUNTS, ROOM) as u32;
        let room = self.room.clone().acquire_many_owned(counts).await.expect("never closed");
        self.taken.increment(1);
        let mut last = Some((answer_to, room, self.replies.clone()));
        let full = Arc::new(AtomicBool::new(false));
        let mut left = facts.len();
        for fact in facts {
            left -= 1;
            let full = full.clone();
            // Receipts come in the order of the facts: with the last, all are durable.
            let last = if left == 0 { last.take() } else { None };
            let done = move |receipt: Receipt| {
                if matches!(receipt.outcome, Outcome::Full(_)) {
                    full.store(true, Ordering::Relaxed);
                }
                if let Some((answer_to, _room, replies)) = last {
                    let reply = if full.load(Ordering::Relaxed) { Reply::Full } else { Reply::Durable };
                    // The other end waits for us.
                    let _ = replies.send((answer_to, reply));
                }
            };
            self.writer.take(fact, Box::new(done)).await?;
        }
        Ok(())
    }

    fn reply(&self, to: Subject, reply: Reply) {
        // The replier lives as long as this task.
        let _ = self.replies.send((to, reply));
    }
}

/// The broker's time as it is kept.
fn at(nanoseconds: i128) -> Timestamp {
    Timestamp(u64::try_from(nanoseconds / 1_000_000).unwrap_or(0))
}

/// The value of a header by its name in lower case. Senders write names as they like.
fn header<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    let (_, values) = headers?.iter().find(|(found, _)| {
        let found: &str = (*found).as_ref();
        found.eq_ignore_ascii_case(name)
    })?;
    values.first().map(|value| value.as_str())
}

/// Answers the broker, in bursts of what has become durable. An answer that gets lost makes the broker send the
/// message again, which changes nothing.
async fn reply(client: Client, mut inbox: mpsc::UnboundedReceiver<(Subject, Reply)>, stream: &'static str) {
    let confirmed = counter!("sluice_messages_confirmed_total", "stream" => stream);
    let put_back = counter!("sluice_messages_put_back_total", "stream" => stream);
    let mut batch = Vec::new();
    while inbox.recv_many(&mut batch, PULL_MESSAGES).await > 0 {
        for (to, reply) in batch.drain(..) {
            let kind = match reply {
                Reply::Durable => AckKind::Ack,
                Reply::Full => AckKind::Nak(Some(FULL_DELAY)),
                Reply::Unread => AckKind::Nak(None),
            };
            let count = if matches!(reply, Reply::Durable) { &confirmed } else { &put_back };
            count.increment(1);
            if let Err(error) = client.publish(to, kind.into()).await {
                tracing::warn!("stream {stream}: {error}; the message comes again");
            }
        }
    }
}
