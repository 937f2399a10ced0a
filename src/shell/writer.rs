//! The single writer: one thread that owns the log and the state.
//!
//! It takes whatever has arrived, runs the core on each fact, appends facts and conclusions as one group, makes
//! them durable, and only then releases what follows: confirmations, messages, views. An error of the log ends
//! the process: nothing that is not durable is ever confirmed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::clock;
use super::log::{Log, LogError, Reader};
use crate::core::event::Event;
use crate::core::ids::{EventSeq, RolloutId};
use crate::core::state::State;
use crate::core::time::Timestamp;
use crate::runner::{Runner, Taken};
use crate::view::{View, Views};
use crate::wire::envelope::Group;
use crate::wire::outgoing::{self, Outgoing};

/// Facts that may wait for the writer; more wait with their senders.
const JOBS_MAX: usize = 4_096;
/// A group is closed at this many encoded bytes, or facts.
const GROUP_BYTES: usize = 256 << 10;
const GROUP_FACTS: usize = 256;
/// Log bytes between snapshots: reading this much back at a start takes a tenth of a second. Where the state is large,
/// this many times its size, so that snapshots stay a small part of what is written.
const SNAPSHOT_BYTES: u64 = 16 << 20;
const SNAPSHOT_SHARE: u64 = 32;
/// How often views follow plain telemetry and time, and free disk space is looked at.
const REFRESH: Duration = Duration::from_millis(250);
/// Open rollouts that are drawn anew at a time: what the writer can do between two groups and nobody notices.
const DRAWN: usize = 16;
/// However many are open, the writer draws no more often than this, and the views of more than 800 lag further.
const DRAW_PAUSE: Duration = Duration::from_millis(5);
/// News kept for subscribers that lag.
const NEWS_MAX: usize = 4_096;
/// Messages that wait for the broker; more are read back from the log when these are out.
pub const OUTBOX_MAX: usize = 16_384;

/// A durable event other than telemetry.
#[derive(Debug)]
pub struct News {
    pub seq: EventSeq,
    pub at: Timestamp,
    pub event: Event,
}

/// What became of a fact, told once it is durable.
#[derive(Debug)]
pub struct Receipt {
    pub outcome: Outcome,
    /// The fact (telemetry excepted) and its conclusions.
    pub news: Vec<Arc<News>>,
}

/// What became of a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Taken(Taken),
    /// The disk is nearly full: nothing was recorded. Free bytes.
    Full(u64),
}

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

/// Where groups become durable: the log, or what a benchmark compares it with. The one place at which another log of
/// record would be put in.
pub trait Journal: Send + 'static {
    /// All of `group` or nothing, durable when this returns.
    fn append(&mut self, group: &Group) -> Result<(), LogError>;
    /// The log that keeps anchor, snapshots and cursor, and that is read.
    fn log(&mut self) -> &mut Log;
    fn into_log(self) -> Log;
}

impl Journal for Log {
    fn append(&mut self, group: &Group) -> Result<(), LogError> {
        Log::append(self, group)
    }

    fn log(&mut self) -> &mut Log {
        self
    }

    fn into_log(self) -> Log {
        self
    }
}

/// Starts the writer thread on an opened log and its recovered state. `outbox` gets what is to be published, from
/// where the last process stopped. Returns the handle and the thread, which ends with the log's error, if any.
pub fn start<J: Journal>(
    mut journal: J,
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
            let group = Group::after(journal.log().head());
            let now = clock::monotonic();
            let thread = Thread {
                group,
                journal,
                runner: Runner::new(state),
                outbox,
                outstanding: 0,
                behind: false,
                news,
                views: drawn,
                show,
                draw_at: now,
                refresh_at: now,
                full: None,
                stale: false,
                changed: BTreeSet::new(),
                since_snapshot: 0,
                snapshot_after: SNAPSHOT_BYTES,
                waiting: Vec::new(),
                fresh: Vec::new(),
                urgent: false,
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

struct Thread<J> {
    journal: J,
    runner: Runner,
    group: Group,
    outbox: Option<mpsc::Sender<Outgoing>>,
    /// Messages handed to the outbox that have not reached the broker.
    outstanding: usize,
    /// Some messages found no room in the outbox; they are read back from the log.
    behind: bool,
    news: broadcast::Sender<Arc<News>>,
    views: Views,
    show: watch::Sender<Arc<View>>,
    /// When the next few rollouts are drawn in turn.
    draw_at: std::time::Instant,
    refresh_at: std::time::Instant,
    /// Free bytes, when too few.
    full: Option<u64>,
    /// The log has grown since the last refresh.
    stale: bool,
    /// Rollouts that decisions and the like have changed since they were drawn.
    changed: BTreeSet<RolloutId>,
    /// Log bytes since the last snapshot, and after how many the next one is due.
    since_snapshot: u64,
    snapshot_after: u64,
    /// Receipts that go out once the group is durable.
    waiting: Vec<(Done, Receipt)>,
    /// Events of the group, telemetry excepted.
    fresh: Vec<Arc<News>>,
    /// A command was issued: the group closes at once.
    urgent: bool,
}

impl<J: Journal> Thread<J> {
    fn run(mut self, mut inbox: Inbox, runtime: tokio::runtime::Handle) -> Result<(), LogError> {
        // What the last process may not have concluded, or published, goes first.
        self.drive(|runner, record| runner.finish(record))?;
        self.commit()?;
        self.publish_from_log()?;
        loop {
            let wait = self.wait();
            let first = runtime.block_on(async { tokio::time::timeout(wait, inbox.next()).await });
            let mut stop = matches!(first, Ok(None | Some(Job::Stop)));
            if let Ok(Some(job)) = first {
                self.job(job)?;
            }
            while !stop
                && !self.urgent
                && self.waiting.len() < GROUP_FACTS
                && self.group.bytes().len() < GROUP_BYTES
            {
                match inbox.waiting() {
                    Some(Job::Stop) => stop = true,
                    Some(job) => self.job(job)?,
                    None => break,
                }
            }
            self.tick()?;
            self.commit()?;
            if stop {
                return self.close();
            }
        }
    }

    /// How long nothing needs to be done unless a job arrives.
    fn wait(&mut self) -> Duration {
        let now = clock::monotonic();
        let due = self.runner.due().map(|due| Duration::from_millis(due.since(clock::now()).0));
        let anchor = self.journal.log().anchor_due().map(|at| at.saturating_duration_since(now));
        let refresh = self.stale.then(|| self.refresh_at.saturating_duration_since(now));
        let open = !self.runner.state.rollouts.is_empty();
        let draw = open.then(|| self.draw_at.saturating_duration_since(now));
        let soonest = [due, anchor, refresh, draw].into_iter().flatten().min();
        // The wall clock may be set while we wait, so never for long.
        soonest.unwrap_or(REFRESH * 4).min(REFRESH * 4)
    }

    fn job(&mut self, job: Job) -> Result<(), LogError> {
        match job {
            Job::Take { fact, done } => self.take(*fact, done)?,
            Job::Read(read) => {
                // Reads see what is durable only.
                self.commit()?;
                read(&self.runner.state, &self.journal.log().reader());
            }
            Job::Published { seq, n } => {
                self.journal.log().set_outbox_cursor(seq);
                self.outstanding -= n;
                if self.behind && self.outstanding == 0 {
                    self.publish_from_log()?;
                }
            }
            Job::Stop => {}
        }
        Ok(())
    }

    fn take(&mut self, fact: Event, done: Done) -> Result<(), LogError> {
        // What lets traffic be taken back is recorded to the last byte; what only adds to the log waits.
        if let (Some(free), Event::BatchReceived { .. } | Event::IntentReceived { .. }) = (self.full, &fact) {
            self.waiting.push((done, Receipt { outcome: Outcome::Full(free), news: Vec::new() }));
            return Ok(());
        }
        let first = self.fresh.len();
        let taken = self.drive(|runner, record| runner.take(clock::now(), fact, record))?;
        if taken == Taken::Duplicate {
            counter!("sluice_duplicates_total").increment(1);
        }
        let news = self.fresh[first..].to_vec();
        if !news.is_empty() {
            self.changed.extend(self.runner.state.touched.iter().cloned());
        }
        self.waiting.push((done, Receipt { outcome: Outcome::Taken(taken), news }));
        Ok(())
    }

    /// Runs the core, encoding every event into the group. A fact that leads to more than a group holds is written
    /// in several: what follows from it is the same whoever draws it, so a crash between them loses nothing.
    fn drive<T>(
        &mut self,
        run: impl FnOnce(&mut Runner, &mut dyn FnMut(EventSeq, Timestamp, &Event)) -> T,
    ) -> Result<T, LogError> {
        let Thread { runner, group, fresh, urgent, journal, .. } = self;
        let mut written = Ok(());
        let result = run(runner, &mut |seq, at, event| {
            record(group, fresh, urgent, seq, at, event);
            if group.bytes().len() >= GROUP_BYTES && written.is_ok() {
                written = journal.append(group);
                group.appended();
            }
        });
        written.map(|()| result)
    }

    fn tick(&mut self) -> Result<(), LogError> {
        self.drive(|runner, record| runner.tick(clock::now(), record))
    }

    /// Makes the group durable, then releases what waited for it.
    fn commit(&mut self) -> Result<(), LogError> {
        self.urgent = false;
        if !self.group.is_empty() {
            let start = clock::monotonic();
            self.journal.append(&self.group)?;
            histogram!("sluice_log_append_seconds").record(clock::monotonic() - start);
            counter!("sluice_events_total").increment(self.group.len() as u64);
            counter!("sluice_log_bytes_total").increment(self.group.bytes().len() as u64);
            self.since_snapshot += self.group.bytes().len() as u64;
            self.group.appended();
            self.stale = true;
        }
        let news = std::mem::take(&mut self.fresh);
        if self.outbox.is_some() && !self.behind {
            for item in &news {
                self.publish(item.seq, item.at, &item.event);
            }
        }
        for (done, receipt) in self.waiting.drain(..) {
            done(receipt);
        }
        let told = !news.is_empty();
        for item in news {
            self.changed.extend(item.event.rollout().cloned());
            count(&item.event);
            // Nobody may be listening.
            let _ = self.news.send(item);
        }
        let now = clock::monotonic();
        self.draw(now, told);
        if self.stale && self.refresh_at <= now {
            self.refresh(now)?;
        }
        self.journal.log().anchor_if_due(now)?;
        if self.since_snapshot >= self.snapshot_after {
            self.snapshot()?;
        }
        Ok(())
    }

    /// Shows at once what was decided, and everything else in turn.
    fn draw(&mut self, now: std::time::Instant, told: bool) {
        let (state, turn) = (&self.runner.state, self.draw_at <= now);
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

    fn refresh(&mut self, now: std::time::Instant) -> Result<(), LogError> {
        // Nothing is on its way: a restart need not look for messages before this.
        if self.outbox.is_some() && self.outstanding == 0 && !self.behind {
            let log = self.journal.log();
            log.set_outbox_cursor(log.head().seq);
        }
        let space = self.journal.log().space()?;
        self.full = space.low.then_some(space.free);
        gauge!("sluice_disk_free_bytes").set(space.free as f64);
        gauge!("sluice_rollouts_open").set(self.runner.state.rollouts.len() as f64);
        self.stale = false;
        self.refresh_at = now + REFRESH;
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(), LogError> {
        let bytes = rmp_serde::to_vec_named(&self.runner.state).expect("the state is made of storable types");
        let log = self.journal.log();
        log.put_snapshot(log.head(), &bytes)?;
        self.since_snapshot = 0;
        self.snapshot_after = SNAPSHOT_BYTES.max(bytes.len() as u64 * SNAPSHOT_SHARE);
        Ok(())
    }

    /// Hands everything after the cursor to the outbox, as far as there is room.
    fn publish_from_log(&mut self) -> Result<(), LogError> {
        self.behind = false;
        if self.outbox.is_none() {
            return Ok(());
        }
        let log = self.journal.log();
        for envelope in log.reader().scan(log.outbox_cursor()? + 1)? {
            let envelope = envelope?;
            self.publish(envelope.seq, envelope.at, &envelope.event);
            if self.behind {
                break;
            }
        }
        Ok(())
    }

    fn publish(&mut self, seq: EventSeq, at: Timestamp, event: &Event) {
        let Some(outbox) = &self.outbox else { return };
        for message in outgoing::messages(&self.runner.state, seq, at, event) {
            match outbox.try_send(message) {
                Ok(()) => self.outstanding += 1,
                // A publisher that has ended means shutdown: the next process starts at the cursor.
                Err(_) => self.behind = true,
            }
        }
    }

    fn close(mut self) -> Result<(), LogError> {
        if self.since_snapshot > 0 {
            self.snapshot()?;
        }
        self.journal.into_log().close()
    }
}

/// Encodes one event into the group, and keeps it for those who follow unless it is telemetry.
fn record(
    group: &mut Group,
    fresh: &mut Vec<Arc<News>>,
    urgent: &mut bool,
    seq: EventSeq,
    at: Timestamp,
    event: &Event,
) {
    let stored = group.push(event, at).expect("events are bounded well below the size of a page");
    assert_eq!(stored, seq, "the log and the state count alike");
    *urgent |= matches!(event, Event::CommandIssued { .. });
    if !matches!(event, Event::BatchReceived { .. }) {
        fresh.push(Arc::new(News { seq, at, event: event.clone() }));
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
