//! The single writer: one thread that owns the log and the state.
//!
//! It takes whatever has arrived, urgent before bulk, into the ledger, makes the group durable, and only then
//! releases what follows: confirmations, messages, views. An error of the log ends the process: nothing that is not
//! durable is ever confirmed.
//! Not here: what follows from a fact and when it may leave (`runner::ledger`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::clock;
use super::log::{Log, LogError, Reader};
use crate::core::event::Event;
use crate::core::ids::{EventSeq, RolloutId};
use crate::core::state::State;
use crate::core::time::Span;
use crate::runner::Taken;
use crate::runner::clock::Moment;
pub use crate::runner::ledger::{Journal, News, OUTBOX_MAX, Outcome, Receipt};
use crate::runner::ledger::{Ledger, Released};
use crate::view::{View, Views};
use crate::wire::outgoing::Outgoing;

/// Facts that may wait for the writer; more wait with their senders.
const JOBS_MAX: usize = 4_096;
/// How often views follow plain telemetry and time, and free disk space is looked at.
const REFRESH: Duration = Duration::from_millis(250);
/// Open rollouts that are drawn anew at a time: what the writer can do between two groups and nobody notices.
const DRAWN: usize = 16;
/// However many are open, the writer draws no more often than this, and the views of more than 800 lag further.
const DRAW_PAUSE: Duration = Duration::from_millis(5);
/// News kept for subscribers that lag.
const NEWS_MAX: usize = 4_096;

type Read = Box<dyn FnOnce(&State, &Reader) + Send>;

/// Called on the writer's thread: must be quick and must not wait.
pub type Done = Box<dyn FnOnce(Receipt) + Send>;

enum Job {
    Take { fact: Box<Event>, done: Done },
    Read(Read),
    Published { seq: EventSeq, n: usize },
    Stop,
}

/// The writer has ended: the daemon is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("sluice is shutting down")]
pub struct Gone;

/// A handle to the writer, for any task.
#[derive(Clone)]
pub struct Writer {
    /// What must not wait behind telemetry.
    urgent: mpsc::Sender<Job>,
    bulk: mpsc::Sender<Job>,
    views: watch::Receiver<Arc<View>>,
    news: broadcast::Sender<Arc<News>>,
}

impl Writer {
    /// Hands over a fact; `done` is called when it is durable. Waits while the writer is behind.
    pub async fn take(&self, fact: Event, done: Done) -> Result<(), Gone> {
        let lane = match fact {
            Event::BatchReceived { .. } | Event::InputRejected { .. } => &self.bulk,
            _ => &self.urgent,
        };
        lane.send(Job::Take { fact: Box::new(fact), done }).await.map_err(|_| Gone)
    }

    /// Hands over a fact and waits until it is durable.
    pub async fn submit(&self, fact: Event) -> Result<Receipt, Gone> {
        let (send, receive) = oneshot::channel();
        self.take(fact, Box::new(move |receipt| drop(send.send(receipt)))).await?;
        receive.await.map_err(|_| Gone)
    }

    /// Runs `read` between two groups, on the state and the log as they are then.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State, &Reader) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (send, receive) = oneshot::channel();
        let job = Job::Read(Box::new(move |state, log| drop(send.send(read(state, log)))));
        self.urgent.send(job).await.map_err(|_| Gone)?;
        receive.await.map_err(|_| Gone)
    }

    /// The newest view: a quarter of a second behind telemetry (more with over 800 rollouts open), never behind a decision.
    pub fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    /// Every durable event from now on, telemetry excepted.
    pub fn follow(&self) -> broadcast::Receiver<Arc<News>> {
        self.news.subscribe()
    }

    /// The next `n` messages of the outbox have reached the broker, and with them every message that announces an
    /// event up to `seq`.
    pub async fn published(&self, seq: EventSeq, n: usize) {
        // When the writer is gone, the messages are sent again after the next start.
        let _ = self.urgent.send(Job::Published { seq, n }).await;
    }

    /// Asks the writer to finish what has arrived, anchor and close.
    pub async fn stop(&self) {
        let _ = self.bulk.send(Job::Stop).await;
    }
}

/// A journal that keeps, or is, the log: the log itself, or what a benchmark compares it with.
pub trait Store: Journal<Error = LogError> + Send + 'static {
    /// The log that keeps the anchor, and that is read.
    fn log(&mut self) -> &mut Log;
    fn into_log(self) -> Log;
}

impl Store for Log {
    fn log(&mut self) -> &mut Log {
        self
    }

    fn into_log(self) -> Log {
        self
    }
}

/// Starts the writer thread on an opened log and its recovered state. `outbox` gets what is to be published, from
/// where the last process stopped. Returns the handle and the thread, which ends with the log's error, if any.
pub fn start<S: Store>(
    store: S,
    state: State,
    outbox: Option<mpsc::Sender<Outgoing>>,
) -> (Writer, std::thread::JoinHandle<Result<(), LogError>>) {
    let (urgent, urgent_in) = mpsc::channel(JOBS_MAX);
    let (bulk, bulk_in) = mpsc::channel(JOBS_MAX);
    let inbox = Inbox { urgent: urgent_in, bulk: bulk_in };
    let (news, _) = broadcast::channel(NEWS_MAX);
    let mut drawn = Views::default();
    drawn.follow(&state, clock::now(), state.rollouts.keys());
    let (show, views) = watch::channel(Arc::new(drawn.view(&state, clock::now())));
    let writer = Writer { urgent, bulk, views, news: news.clone() };
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new()
        .name("writer".into())
        .spawn(move || {
            let now = clock::monotonic();
            let thread = Thread {
                ledger: Ledger::new(store, state, outbox.is_some()),
                began: now,
                outbox,
                news,
                views: drawn,
                show,
                draw_at: now,
                refresh_at: now,
                stale: false,
                changed: BTreeSet::new(),
            };
            thread.run(inbox, runtime)
        })
        .expect("a thread can be started");
    (writer, thread)
}

/// Jobs that have arrived, the urgent ones first: a flood of telemetry never delays a rollback.
struct Inbox {
    urgent: mpsc::Receiver<Job>,
    bulk: mpsc::Receiver<Job>,
}

impl Inbox {
    /// The next job; `None` when every handle is gone.
    async fn next(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            Some(job) = self.urgent.recv() => Some(job),
            job = self.bulk.recv() => job,
        }
    }

    /// A job that is there already.
    fn waiting(&mut self) -> Option<Job> {
        self.urgent.try_recv().or_else(|_| self.bulk.try_recv()).ok()
    }
}

struct Thread<S> {
    ledger: Ledger<S, Done>,
    /// What steady time is counted from.
    began: Instant,
    outbox: Option<mpsc::Sender<Outgoing>>,
    news: broadcast::Sender<Arc<News>>,
    views: Views,
    show: watch::Sender<Arc<View>>,
    /// When the next few rollouts are drawn in turn.
    draw_at: Instant,
    refresh_at: Instant,
    /// The log has grown since the last refresh.
    stale: bool,
    /// Rollouts that decisions and the like have changed since they were drawn.
    changed: BTreeSet<RolloutId>,
}

impl<S: Store> Thread<S> {
    fn run(mut self, mut inbox: Inbox, runtime: tokio::runtime::Handle) -> Result<(), LogError> {
        let resumed = self.ledger.resume()?;
        self.release(resumed);
        loop {
            let wait = self.wait();
            let first = runtime.block_on(async { tokio::time::timeout(wait, inbox.next()).await });
            let mut stop = matches!(first, Ok(None | Some(Job::Stop)));
            if let Ok(Some(job)) = first {
                self.job(job)?;
            }
            while !stop && !self.ledger.is_full() {
                match inbox.waiting() {
                    Some(Job::Stop) => stop = true,
                    Some(job) => self.job(job)?,
                    None => break,
                }
            }
            self.ledger.tick(self.moment())?;
            self.commit()?;
            if stop {
                self.ledger.snapshot()?;
                return self.ledger.journal.into_log().close();
            }
        }
    }

    fn moment(&self) -> Moment {
        let steady = clock::monotonic() - self.began;
        Moment { wall: clock::now(), steady: Span(steady.as_millis() as u64) }
    }

    /// How long nothing needs to be done unless a job arrives.
    fn wait(&mut self) -> Duration {
        let now = clock::monotonic();
        let due = self.ledger.quiet().map(|quiet| Duration::from_millis(quiet.0));
        let anchor = self.ledger.journal.log().anchor_due().map(|at| at.saturating_duration_since(now));
        let refresh = self.stale.then(|| self.refresh_at.saturating_duration_since(now));
        let open = !self.ledger.state().rollouts.is_empty();
        let draw = open.then(|| self.draw_at.saturating_duration_since(now));
        let soonest = [due, anchor, refresh, draw].into_iter().flatten().min();
        // The wall clock may be set while we wait, so never for long.
        soonest.unwrap_or(REFRESH * 4).min(REFRESH * 4)
    }

    fn job(&mut self, job: Job) -> Result<(), LogError> {
        match job {
            Job::Take { fact, done } => {
                self.ledger.take(self.moment(), *fact, done)?;
                self.changed.extend(self.ledger.state().agenda.iter().cloned());
            }
            Job::Read(read) => {
                // Reads see what is durable only.
                self.commit()?;
                let reader = self.ledger.journal.log().reader();
                read(self.ledger.state(), &reader);
            }
            Job::Published { seq, n } => {
                let messages = self.ledger.published(seq, n)?;
                self.publish(messages);
            }
            Job::Stop => {}
        }
        Ok(())
    }

    /// Makes the group durable, then releases what waited for it.
    fn commit(&mut self) -> Result<(), LogError> {
        let start = clock::monotonic();
        let released = self.ledger.commit()?;
        if released.events > 0 {
            histogram!("sluice_log_append_seconds").record(clock::monotonic() - start);
            counter!("sluice_events_total").increment(released.events as u64);
            counter!("sluice_log_bytes_total").increment(released.bytes as u64);
            self.stale = true;
        }
        let told = !released.news.is_empty();
        self.release(released);
        let now = clock::monotonic();
        self.draw(now, told);
        if self.stale && self.refresh_at <= now {
            self.refresh(now)?;
        }
        self.ledger.journal.log().anchor_if_due(now)?;
        self.ledger.snapshot_if_due()
    }

    fn release(&mut self, released: Released<Done>) {
        self.publish(released.messages);
        for (done, receipt) in released.receipts {
            if receipt.outcome == Outcome::Taken(Taken::Duplicate) {
                counter!("sluice_duplicates_total").increment(1);
            }
            done(receipt);
        }
        for item in released.news {
            self.changed.extend(item.event.rollout().cloned());
            count(&item.event);
            // Nobody may be listening.
            let _ = self.news.send(item);
        }
    }

    fn publish(&mut self, messages: Vec<Outgoing>) {
        let Some(outbox) = &self.outbox else { return };
        for message in messages {
            // There is room, for no more are handed out than that. A publisher that has ended means shutdown: the
            // next process starts at the cursor.
            let _ = outbox.try_send(message);
        }
    }

    /// Shows at once what was decided, and everything else in turn.
    fn draw(&mut self, now: Instant, told: bool) {
        let (state, turn) = (self.ledger.state(), self.draw_at <= now);
        if !told && !turn {
            return;
        }
        let at = clock::now();
        self.views.follow(state, at, &std::mem::take(&mut self.changed));
        if turn {
            self.views.turn(state, at, DRAWN);
            let turns = state.rollouts.len().div_ceil(DRAWN).max(1);
            self.draw_at = now + (REFRESH / turns as u32).max(DRAW_PAUSE);
        }
        self.show.send_replace(Arc::new(self.views.view(state, at)));
    }

    fn refresh(&mut self, now: Instant) -> Result<(), LogError> {
        self.ledger.note_quiet();
        let space = self.ledger.journal.log().space()?;
        self.ledger.set_full(space.low.then_some(space.free));
        gauge!("sluice_disk_free_bytes").set(space.free as f64);
        gauge!("sluice_rollouts_open").set(self.ledger.state().rollouts.len() as f64);
        // While the disk is full the log need not grow, and still there may be room again.
        self.stale = space.low;
        self.refresh_at = now + REFRESH;
        Ok(())
    }
}

fn count(event: &Event) {
    match event {
        Event::DecisionMade { decision, .. } => {
            counter!("sluice_decisions_total", "decision" => decision.choice.as_str()).increment(1);
        }
        Event::InputRejected { .. } | Event::IntentRefused { .. } | Event::AckRefused { .. } => {
            counter!("sluice_rejected_total").increment(1);
        }
        Event::AlertRaised { .. } => counter!("sluice_alerts_total").increment(1),
        Event::CommandResent { .. } => counter!("sluice_commands_resent_total").increment(1),
        _ => {}
    }
}
