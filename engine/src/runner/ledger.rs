//! What the one writer does, without its thread: facts in, groups to the journal, and only then what follows from
//! them out.
//!
//! Invariant: nothing leaves before the group that it follows from is durable. After an error of the journal the
//! ledger is not to be used again: the next start is the recovery.
//! Pure: time and the journal are given. The daemon and the simulator both run this.

use std::sync::Arc;

use super::clock::{LogClock, Moment};
use super::{Runner, Taken};
use crate::core::event::Event;
use crate::core::ids::EventSeq;
use crate::core::rules::Rules;
use crate::core::state::State;
use crate::core::time::{Span, Timestamp};
use crate::wire::envelope::{Envelope, Group, Head, TooLarge};
use crate::wire::outgoing::{self, Outgoing};

/// A group is closed at this many encoded bytes, or facts.
const GROUP_BYTES: usize = 256 << 10;
const GROUP_FACTS: usize = 256;
/// Log bytes between snapshots: reading this much back at a start takes a tenth of a second. Where the state is large,
/// this many times its size, so that snapshots stay a small part of what is written.
const SNAPSHOT_BYTES: u64 = 16 << 20;
const SNAPSHOT_SHARE: u64 = 32;
/// Messages on their way to the broker; more are read back from the log when these are out.
pub const OUTBOX_MAX: usize = 16_384;

/// Where groups become durable. The one place at which another log of record would be put in.
pub trait Journal {
    /// An event that fits no record is an error of the journal's: it would leave a gap.
    type Error: From<TooLarge>;

    /// The last record that was appended; default when there is none.
    fn head(&self) -> Head;
    /// All of `group` or nothing, durable when this returns.
    fn append(&mut self, group: &Group) -> Result<(), Self::Error>;
    /// Hands out the events from `from` on, the chain checked, until `each` returns false.
    fn scan(&self, from: EventSeq, each: &mut dyn FnMut(&Envelope) -> bool) -> Result<(), Self::Error>;
    /// The newest sound snapshot, with the record it includes.
    fn snapshot(&self) -> Result<Option<(Head, Vec<u8>)>, Self::Error>;
    fn put_snapshot(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Up to where the outbox has been delivered; 0 at first. May be old after a crash: deliveries repeat.
    fn outbox_cursor(&self) -> Result<EventSeq, Self::Error>;
    fn set_outbox_cursor(&mut self, seq: EventSeq);
}

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

/// What may leave once a group is durable.
#[derive(Debug)]
pub struct Released<T> {
    /// For the broker, in order.
    pub messages: Vec<Outgoing>,
    /// For those who handed facts in, in order.
    pub receipts: Vec<(T, Receipt)>,
    /// For everybody who listens.
    pub news: Vec<Arc<News>>,
    /// Events and bytes that became durable.
    pub events: usize,
    pub bytes: usize,
}

/// From a journal to the state it establishes: the newest snapshot, then everything after it. Conclusions are taken
/// as recorded: nothing is decided again. The second value: a snapshot was there and could not be used.
pub fn recover<J: Journal>(journal: &J) -> Result<(State, bool), J::Error> {
    let (mut state, mut unused) = (State::default(), false);
    if let Some((head, bytes)) = journal.snapshot()? {
        // A snapshot saves time, no more: one that another build wrote is left aside.
        match State::stored(&bytes) {
            Some(snapshot) if snapshot.last == head.seq && Rules::of(snapshot.engine).is_some() => {
                state = snapshot;
            }
            _ => unused = true,
        }
    }
    journal.scan(state.last + 1, &mut |envelope| {
        // What the last fact touched stays: if its conclusions are not all there, the rest are drawn.
        state.apply(envelope.seq, envelope.at, &envelope.event);
        true
    })?;
    Ok((state, unused))
}

/// The state, the journal, and what is on its way from one to the other. `T` is whatever a fact's receipt is told to.
pub struct Ledger<J, T> {
    pub journal: J,
    runner: Runner,
    clock: LogClock,
    group: Group,
    /// Encoded bytes at which a group is closed.
    pub group_bytes: usize,
    /// Whether messages are published at all.
    publishes: bool,
    /// Messages handed out that have not reached the broker.
    outstanding: usize,
    /// Some messages found no room; they are read back from the log.
    behind: bool,
    /// Free bytes, when too few.
    full: Option<u64>,
    since_snapshot: u64,
    snapshot_after: u64,
    waiting: Vec<(T, Receipt)>,
    /// Events of the group, telemetry excepted.
    fresh: Vec<Arc<News>>,
    /// A command was issued: the group closes at once.
    urgent: bool,
}

impl<J: Journal, T> Ledger<J, T> {
    pub fn new(journal: J, state: State, publishes: bool) -> Ledger<J, T> {
        Ledger {
            group: Group::after(journal.head()),
            group_bytes: GROUP_BYTES,
            clock: LogClock::after(state.now),
            journal,
            runner: Runner::new(state),
            publishes,
            outstanding: 0,
            behind: false,
            full: None,
            since_snapshot: 0,
            snapshot_after: SNAPSHOT_BYTES,
            waiting: Vec::new(),
            fresh: Vec::new(),
            urgent: false,
        }
    }

    /// The state with everything taken in so far, durable or not.
    pub fn state(&self) -> &State {
        &self.runner.state
    }

    /// To be called first: draws and releases what the last process did not.
    pub fn resume(&mut self) -> Result<Released<T>, J::Error> {
        self.drive(|runner, record| runner.finish(record))?;
        let mut released = self.commit()?;
        released.messages = self.catch_up()?;
        Ok(released)
    }

    /// Takes in one fact. What became of it is released with the next commit.
    pub fn take(&mut self, moment: Moment, fact: Event, to: T) -> Result<(), J::Error> {
        // What lets traffic be taken back is recorded to the last byte; what only adds to the log waits.
        if let (Some(free), Event::BatchReceived { .. } | Event::IntentReceived { .. }) = (self.full, &fact) {
            self.waiting.push((to, Receipt { outcome: Outcome::Full(free), news: Vec::new() }));
            return Ok(());
        }
        let now = self.now(moment)?;
        let first = self.fresh.len();
        let taken = self.drive(|runner, record| runner.take(now, fact, record))?;
        let news = self.fresh[first..].to_vec();
        self.waiting.push((to, Receipt { outcome: Outcome::Taken(taken), news }));
        Ok(())
    }

    /// Notes that time has passed, if something was due.
    pub fn tick(&mut self, moment: Moment) -> Result<(), J::Error> {
        let now = self.now(moment)?;
        self.drive(|runner, record| runner.tick(now, record))
    }

    /// How long nothing is due, as of the last moment; `None`: not before the next fact.
    pub fn quiet(&self) -> Option<Span> {
        self.runner.due().map(|due| due.since(self.clock.now()))
    }

    /// Whether the group is to be committed before more is taken in.
    pub fn is_full(&self) -> bool {
        self.urgent || self.waiting.len() >= GROUP_FACTS || self.group.bytes().len() >= self.group_bytes
    }

    /// Makes the group durable and gives out what waited for it.
    pub fn commit(&mut self) -> Result<Released<T>, J::Error> {
        self.urgent = false;
        let (events, bytes) = (self.group.len(), self.group.bytes().len());
        if events > 0 {
            self.journal.append(&self.group)?;
            self.since_snapshot += bytes as u64;
            self.group.appended();
        }
        let news = std::mem::take(&mut self.fresh);
        let mut messages = Vec::new();
        if self.publishes && !self.behind {
            news.iter().for_each(|item| self.publish(item.seq, item.at, &item.event, &mut messages));
        }
        let receipts = std::mem::take(&mut self.waiting);
        Ok(Released { messages, receipts, news, events, bytes })
    }

    /// The next `n` messages have reached the broker, and with them every message that announces an event up to
    /// `seq`. Returns what is to follow them.
    pub fn published(&mut self, seq: EventSeq, n: usize) -> Result<Vec<Outgoing>, J::Error> {
        self.journal.set_outbox_cursor(seq);
        self.outstanding -= n;
        if self.behind && self.outstanding == 0 { self.catch_up() } else { Ok(Vec::new()) }
    }

    /// Nothing is on its way: a restart need not look for messages before this.
    pub fn note_quiet(&mut self) {
        if self.publishes && self.outstanding == 0 && !self.behind && self.group.is_empty() {
            self.journal.set_outbox_cursor(self.journal.head().seq);
        }
    }

    /// Free bytes when the disk is nearly full: telemetry and intents are turned away until it is not.
    pub fn set_full(&mut self, free: Option<u64>) {
        self.full = free;
    }

    /// Stores the state when enough has been written since the last time. Between groups only.
    pub fn snapshot_if_due(&mut self) -> Result<(), J::Error> {
        if self.since_snapshot >= self.snapshot_after { self.snapshot() } else { Ok(()) }
    }

    /// Stores the state, unless nothing has been written since the last time. Between groups only.
    pub fn snapshot(&mut self) -> Result<(), J::Error> {
        assert!(self.group.is_empty(), "a snapshot holds what is durable");
        if self.since_snapshot == 0 {
            return Ok(());
        }
        let bytes = rmp_serde::to_vec_named(&self.runner.state).expect("the state is made of storable types");
        self.journal.put_snapshot(&bytes)?;
        self.since_snapshot = 0;
        self.snapshot_after = SNAPSHOT_BYTES.max(bytes.len() as u64 * SNAPSHOT_SHARE);
        Ok(())
    }

    /// Log time; a step of the clock is recorded first.
    fn now(&mut self, moment: Moment) -> Result<Timestamp, J::Error> {
        let (now, stepped) = self.clock.read(moment);
        if let Some(by) = stepped {
            self.drive(|runner, record| runner.take(now, Event::ClockStepped { by }, record))?;
        }
        Ok(now)
    }

    /// Runs the core, encoding every event into the group. A fact that leads to more than a group holds is written
    /// in several: what follows from it is the same whoever draws it, so a crash between them loses nothing.
    fn drive<R>(
        &mut self,
        run: impl FnOnce(&mut Runner, &mut dyn FnMut(EventSeq, Timestamp, &Event)) -> R,
    ) -> Result<R, J::Error> {
        let Ledger { runner, group, group_bytes, fresh, urgent, journal, since_snapshot, .. } = self;
        let mut written = Ok(());
        let result = run(runner, &mut |seq, at, event| {
            if written.is_err() {
                return;
            }
            match group.push(event, at) {
                Ok(stored) => assert_eq!(stored, seq, "the log and the state count alike"),
                Err(too_large) => return written = Err(too_large.into()),
            }
            *urgent |= matches!(event, Event::CommandIssued { .. });
            if !matches!(event, Event::BatchReceived { .. }) {
                fresh.push(Arc::new(News { seq, at, event: event.clone() }));
            }
            if group.bytes().len() >= *group_bytes {
                written = journal.append(group);
                *since_snapshot += group.bytes().len() as u64;
                group.appended();
            }
        });
        written.map(|()| result)
    }

    /// The messages of everything after the cursor, as far as there is room.
    fn catch_up(&mut self) -> Result<Vec<Outgoing>, J::Error> {
        self.behind = false;
        if !self.publishes {
            return Ok(Vec::new());
        }
        let mut envelopes = Vec::new();
        self.journal.scan(self.journal.outbox_cursor()? + 1, &mut |envelope| {
            // Telemetry has no message, and may be most of the log.
            if !matches!(envelope.event, Event::BatchReceived { .. }) {
                envelopes.push(envelope.clone());
            }
            envelopes.len() <= OUTBOX_MAX
        })?;
        self.behind = envelopes.len() > OUTBOX_MAX;
        let mut messages = Vec::new();
        for envelope in envelopes.iter().take(OUTBOX_MAX) {
            self.publish(envelope.seq, envelope.at, &envelope.event, &mut messages);
        }
        Ok(messages)
    }

    fn publish(&mut self, seq: EventSeq, at: Timestamp, event: &Event, out: &mut Vec<Outgoing>) {
        for message in outgoing::messages(&self.runner.state, seq, at, event) {
            if self.outstanding < OUTBOX_MAX {
                self.outstanding += 1;
                out.push(message);
            } else {
                self.behind = true;
            }
        }
    }
}
