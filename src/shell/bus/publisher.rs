//! The outbox: what the writer released goes to the broker, in order, until the broker has stored it.
//!
//! While the broker's stream takes nothing, one message is tried again and again and the others wait, but a
//! command is still sent once, at once: an actuator that listens gets it without the stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{ContextBuilder, PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::{Client, HeaderMap};
use futures_util::FutureExt;
use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, watch};

use super::{ANSWER_WITHIN, Bus, BusError, RETRY_FIRST, later, streams};
use crate::core::ids::EventSeq;
use crate::shell::clock;
use crate::shell::writer::{OUTBOX_MAX, Writer};
use crate::wire::outgoing::Outgoing;

/// Where the subjects of sluice's own streams begin.
const OWN: &str = "sluice.";
/// Messages sent and not confirmed.
const WINDOW: usize = 256;

type Ack = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

struct Waiting {
    message: Outgoing,
    taken_at: Instant,
    /// The broker's answer that is waited for.
    ack: Option<Ack>,
    stored: bool,
}

pub(super) struct Publisher {
    client: Client,
    js: Context,
    connections: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
    /// What has been delivered, for the writer.
    delivered: mpsc::UnboundedSender<(EventSeq, usize)>,
    /// Oldest first; the front is not stored yet.
    queue: VecDeque<Waiting>,
    /// The first so many of the queue have been sent.
    sent: usize,
    /// How long to wait before the next attempt; zero while all is well. Else only the front is tried.
    wait: Duration,
    /// Nothing but commands is sent before this.
    retry_at: Option<Instant>,
}

impl Publisher {
    /// Makes or checks the stream.
    pub async fn new(
        bus: &Bus,
        writer: Writer,
        stopped: watch::Receiver<bool>,
    ) -> Result<Publisher, BusError> {
        let client = bus.client();
        let js = ContextBuilder::new()
            .timeout(ANSWER_WITHIN)
            // A command must never wait for a permit.
            .max_ack_inflight(2 * OUTBOX_MAX)
            .build(client.clone());
        streams::ensure(&js, streams::out(), 1).await?;
        let (delivered, told) = mpsc::unbounded_channel();
        // Apart, for the writer may be behind, and the next command must not wait for it.
        tokio::spawn(tell(writer, told));
        Ok(Publisher {
            client,
            js,
            connections: bus.connections.clone(),
            stopped,
            delivered,
            queue: VecDeque::new(),
            sent: 0,
            wait: Duration::ZERO,
            retry_at: None,
        })
    }

    /// Publishes until stopped; then what is on its way, until `outbox` and queue are empty.
    pub async fn run(mut self, mut outbox: mpsc::Receiver<Outgoing>) {
        let waiting = gauge!("sluice_outbox_waiting");
        let mut open = true;
        let mut stopping = false;
        self.connections.mark_unchanged();
        loop {
            self.fill().await;
            waiting.set((self.queue.len() + outbox.len()) as f64);
            if self.queue.is_empty() && (!open || (stopping && outbox.is_empty())) {
                break;
            }
            let Publisher { queue, connections, stopped, retry_at, .. } = &mut self;
            tokio::select! {
                biased;
                // The broker forgot what was under way.
                Ok(()) = connections.changed() => self.restart().await,
                _ = wait_until(*retry_at) => self.retry(),
                result = first_ack(queue) => self.answered(result).await,
                message = outbox.recv(), if open && queue.len() < OUTBOX_MAX => match message {
                    // All that is there before any of it is sent: a command does not wait for its decision.
                    Some(message) => {
                        self.push(message).await;
                        while let Some(message) = self.room().then(|| outbox.try_recv().ok()).flatten() {
                            self.push(message).await;
                        }
                    }
                    None => open = false,
                },
                () = super::told_to_stop(stopped), if !stopping => stopping = true,
            }
        }
    }

    fn room(&self) -> bool {
        self.queue.len() < OUTBOX_MAX
    }

    async fn push(&mut self, message: Outgoing) {
        let at_once = message.urgent && self.connected();
        self.queue.push_back(Waiting { message, taken_at: clock::monotonic(), ack: None, stored: false });
        if at_once {
            self.send(self.queue.len() - 1).await;
        }
    }

    /// Sends in order, as far as the window allows.
    async fn fill(&mut self) {
        let window = if self.wait.is_zero() { WINDOW } else { 1 };
        while self.sent < self.queue.len().min(window) && self.retry_at.is_none() && self.connected() {
            let next = &self.queue[self.sent];
            if next.ack.is_some() || next.stored || self.send(self.sent).await {
                self.sent += 1;
            }
        }
    }

    /// Whether message `i` of the queue is on its way.
    async fn send(&mut self, i: usize) -> bool {
        let message = &self.queue[i].message;
        let mut headers = HeaderMap::new();
        message.headers.iter().for_each(|(name, value)| headers.insert(*name, value.as_str()));
        if !message.subject.starts_with(OWN) {
            return self.hand_over(i, headers).await;
        }
        let publish = PublishMessage::build().headers(headers).payload(message.body().into());
        let sent: Result<PublishAckFuture, _> = self.js.send_publish(message.subject.clone(), publish).await;
        match sent {
            Ok(ack) => {
                self.queue[i].ack = Some(Box::pin(async move { ack.await.map(drop) }));
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// A command for a subject of somebody else's: no stream of sluice's takes it. It counts as delivered when the broker has
    /// it; what counts further is the actuator's word.
    async fn hand_over(&mut self, i: usize, headers: HeaderMap) -> bool {
        let (subject, body) = {
            let message = &self.queue[i].message;
            (message.subject.clone(), message.body())
        };
        let lost = || PublishError::from(PublishErrorKind::BrokenPipe);
        if self.client.publish_with_headers(subject, headers, body.into()).await.is_err() {
            self.failed(&lost());
            return false;
        }
        let client = self.client.clone();
        self.queue[i].ack = Some(Box::pin(async move { client.flush().await.map_err(|_| lost()) }));
        true
    }

    async fn answered(&mut self, result: Result<(), PublishError>) {
        let front = self.queue.front_mut().expect("an answer to the front");
        front.ack = None;
        match result {
            Ok(_) => {
                front.stored = true;
                if !std::mem::take(&mut self.wait).is_zero() {
                    tracing::info!("NATS stores messages again");
                }
                self.pop();
            }
            Err(error) => {
                self.failed(&error);
                if error.kind() == PublishErrorKind::StreamNotFound {
                    self.make_stream().await;
                }
            }
        }
    }

    /// Takes off the front what is stored, and tells the writer.
    fn pop(&mut self) {
        let mut told = None;
        while let Some(front) = self.queue.front_mut() {
            match front.ack.as_mut().and_then(FutureExt::now_or_never) {
                Some(Ok(_)) => front.stored = true,
                Some(Err(error)) => {
                    front.ack = None;
                    self.failed(&error);
                    break;
                }
                None if front.stored => {}
                None => break,
            }
            histogram!("sluice_publish_seconds").record(clock::monotonic() - front.taken_at);
            counter!("sluice_published_total", "what" => what(&front.message)).increment(1);
            let (_, n) = told.unwrap_or((0, 0));
            told = Some((front.message.seq, n + 1));
            self.queue.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        let Some((seq, n)) = told else { return };
        // More messages of the same event may follow: only a younger event shows that this one is done. When the
        // outbox is empty the writer itself moves on.
        let done = self.queue.front().is_some_and(|next| next.message.seq > seq);
        let _ = self.delivered.send((if done { seq } else { seq.saturating_sub(1) }, n));
    }

    fn failed(&mut self, error: &PublishError) {
        self.wait = if self.wait.is_zero() { RETRY_FIRST } else { later(self.wait) };
        self.retry_at = Some(clock::monotonic() + self.wait);
        counter!("sluice_publish_errors_total").increment(1);
        tracing::error!(waiting = self.queue.len(), "cannot publish: {error}; trying again");
    }

    async fn make_stream(&mut self) {
        match streams::ensure(&self.js, streams::out(), 1).await {
            Ok(found) if found.created => {
                counter!("sluice_streams_recreated_total", "stream" => streams::OUT).increment(1);
                tracing::error!("stream {} was gone and is made again; what it held is lost", streams::OUT);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(code = error.code().as_str(), "stream {}: {error}", streams::OUT),
        }
    }

    /// Everything that has no answer is sent again; commands before all else.
    async fn restart(&mut self) {
        self.settle();
        (self.wait, self.retry_at) = (Duration::ZERO, None);
        for i in 0..self.queue.len() {
            if self.queue[i].message.urgent && !self.queue[i].stored && self.connected() {
                self.send(i).await;
            }
        }
    }

    fn retry(&mut self) {
        if self.connected() {
            self.retry_at = None;
            self.settle();
        } else {
            self.retry_at = Some(clock::monotonic() + self.wait);
        }
    }

    /// Notes what has been stored, and forgets answers that have not come.
    fn settle(&mut self) {
        for waiting in &mut self.queue {
            let answer = waiting.ack.take().and_then(FutureExt::now_or_never);
            waiting.stored |= matches!(answer, Some(Ok(_)));
        }
        self.sent = 0;
        self.pop();
    }

    fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }
}

/// The answer to the oldest message, once it has been sent.
async fn first_ack(queue: &mut VecDeque<Waiting>) -> Result<(), PublishError> {
    match queue.front_mut().and_then(|front| front.ack.as_mut()) {
        Some(ack) => ack.await,
        None => std::future::pending().await,
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn what(message: &Outgoing) -> String {
    if !message.subject.starts_with(OWN) {
        return "command".to_owned();
    }
    message.subject.split('.').nth(2).unwrap_or_default().to_owned()
}

/// Tells the writer what has been delivered, as much at a time as has come together.
async fn tell(writer: Writer, mut told: mpsc::UnboundedReceiver<(EventSeq, usize)>) {
    let mut batch = Vec::new();
    while told.recv_many(&mut batch, OUTBOX_MAX).await > 0 {
        let n = batch.iter().map(|(_, n)| n).sum();
        let (seq, _) = *batch.last().expect("at least one");
        batch.clear();
        writer.published(seq, n).await;
    }
}
