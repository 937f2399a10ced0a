//! One seed, one history: the production ledger, core and wire formats on a simulated disk, between a broker,
//! actuators and people that do what the plan says. Everything that becomes durable is checked at once.

mod bus;
mod daemon;
mod people;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use serde_json::Value;
use uuid::Uuid;

use super::broker::{Broker, Stored};
use super::coverage::rare::Rare;
use super::coverage::{Coverage, Judged};
use super::disk::{Disk, DiskError, SimLog};
use super::plan::{Draw, Fault, MINUTE, Obedience, Plan, Stimulus, TICK, Work, random};
use super::random::Random;
use super::script::START;
use super::traffic::Serving;
use crate::core::event::Event;
use crate::core::event::fact::Inbound;
use crate::core::event::smoke::SmokeResult;
use crate::core::ids::{Actuator, Digest, EventSeq, RolloutId};
use crate::core::state::State;
use crate::core::time::{Span, Timestamp};
use crate::invariants::{Checker, Violation};
use crate::replay::Verifier;
use crate::runner::clock::Moment;
use crate::runner::ledger::{Journal, Ledger};
use crate::wire::outgoing::{self, Outgoing};

/// How long the broker waits for a confirmation, and the daemon for the broker's.
const ACK_WAIT: u64 = 30_000;
const RESEND: u64 = 5_000;
/// After people have taken back what was still open everything must be over within this.
const OVER: u64 = 30 * MINUTE;

/// Things that may happen in one history; more means that the simulator itself runs in circles.
const HAPPENINGS_MAX: u64 = 3_000_000;

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct History {
    pub seed: u64,
    pub events: u64,
    /// Hash of the last record: two runs of one seed end alike.
    pub head: Digest,
    pub rare: BTreeSet<Rare>,
    pub failure: Option<Violation>,
    pub judged: Vec<Judged>,
    /// Rollouts that ended.
    pub over: usize,
    pub trace: Vec<String>,
}

/// Who handed a fact in.
enum Ticket {
    /// A part of a message; the last one confirms it.
    Part {
        stream: Inbound,
        seq: u64,
        last: bool,
    },
    Own,
}

#[derive(Debug)]
enum Happening {
    Stimulus(usize),
    /// Ten seconds of a service after trouble ended.
    Tick(usize),
    Deliver(Inbound, u64),
    /// Nobody has confirmed what was delivered so many times.
    AckWait(Inbound, u64, u32),
    Confirm(Inbound, u64),
    Publish(Inbound, Box<Stored>),
    Start,
    Work(u64),
    Wake(u64),
    /// A message of that life of the daemon, by its place in the outbox, reaches the broker; the broker's answer comes.
    Out(u64, u64, Box<Outgoing>),
    OutAck(u64, u64),
    OutRetry(u64, u64),
    Command(usize, Value),
    /// A smoke test that this life of the daemon runs has ended.
    Smoke(u64, Box<SmokeResult>),
    /// There is room on the disk again.
    Room,
    Care,
}

struct Sending {
    place: u64,
    message: Outgoing,
    stored: bool,
    /// The last time it was sent it got lost.
    lost: bool,
}

/// One life of the daemon.
struct Node {
    ledger: Ledger<SimLog, Ticket>,
    inbox: VecDeque<(Ticket, Event)>,
    outbox: VecDeque<Sending>,
    place: u64,
    began: u64,
    slept: u64,
    working: bool,
}

/// Why a run ends before its time.
enum Stop {
    Broken(Violation),
    /// A start refuses by name what was done to the disk.
    Refused,
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Broken(violation)
    }
}

/// What one life of the daemon did to the world, and what the world did to it.
pub struct Run<'a> {
    plan: &'a Plan,
    queue: BTreeMap<(u64, u64), Happening>,
    n: u64,
    now: u64,
    wall: i64,
    disk: Rc<RefCell<Disk>>,
    log: Uuid,
    node: Option<Node>,
    life: u64,
    asleep: u64,
    /// All the time the machine has slept.
    slept: u64,
    /// When each rollout's last command was confirmed, in time awake.
    applied: BTreeMap<RolloutId, u64>,
    /// Ids of messages that reached the broker.
    delivered: BTreeSet<String>,
    last_start: u64,
    /// Things that may still be told before the process is killed.
    budget: Option<u64>,
    /// Of the next messages only the first arrives, and then the process is killed.
    kill_at_loss: bool,
    full: bool,
    broker: Broker,
    /// What the daemon has confirmed to the broker.
    confirmed: BTreeSet<(Inbound, u64)>,
    obedience: Vec<Obedience>,
    work: Vec<Work>,
    /// Per actuator and service: the last decision obeyed, and what is served since.
    exposures: BTreeMap<(usize, String), (u64, Serving)>,
    /// Commands as they reached actuators.
    seen: BTreeMap<(String, usize), Value>,
    lied: bool,
    checker: Checker,
    coverage: Coverage,
    trace: Option<Vec<String>>,
    healed: bool,
}

/// Runs what `plan` says, without the stimuli in `skip`.
pub fn run(plan: &Plan, skip: &BTreeSet<usize>, trace: bool) -> History {
    let log = Uuid::from_u64_pair(0x7369_6d75_6c61_7465, plan.seed);
    let mut run = Run {
        plan,
        queue: BTreeMap::new(),
        n: 0,
        now: 0,
        wall: 0,
        disk: Rc::default(),
        log,
        node: None,
        life: 0,
        asleep: 0,
        slept: 0,
        applied: BTreeMap::new(),
        delivered: BTreeSet::new(),
        last_start: 0,
        budget: None,
        kill_at_loss: false,
        full: false,
        broker: Broker::default(),
        confirmed: BTreeSet::new(),
        obedience: vec![Obedience::After(500); plan.actuators.len()],
        work: vec![Work::Well; plan.actuators.len()],
        exposures: BTreeMap::new(),
        seen: BTreeMap::new(),
        lied: false,
        checker: Checker::default(),
        coverage: Coverage::default(),
        trace: trace.then(Vec::new),
        healed: false,
    };
    for (i, (at, _)) in plan.stimuli.iter().enumerate().filter(|(i, _)| !skip.contains(i)) {
        run.at(*at, Happening::Stimulus(i));
    }
    run.at(0, Happening::Start);
    run.at(plan.healed, Happening::Care);
    // An assertion that fails is a broken promise as well, and its history is told like the others'.
    let failure = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.go())) {
        Ok(Ok(()) | Err(Stop::Refused)) => None,
        Ok(Err(Stop::Broken(violation))) => Some(violation),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let why = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned();
            Some(Violation { invariant: "an assertion", seq: run.checker.seq, why })
        }
    };
    let over = run.coverage.over();
    let judged = if run.lied { Vec::new() } else { run.coverage.judged(plan) };
    History {
        seed: plan.seed,
        events: run.checker.seq,
        head: run.coverage.head,
        rare: run.coverage.rare,
        failure,
        judged,
        over,
        trace: run.trace.unwrap_or_default(),
    }
}

fn broken(invariant: &'static str, seq: EventSeq, why: impl Into<String>) -> Stop {
    Stop::Broken(Violation { invariant, seq, why: why.into() })
}

impl Run<'_> {
    fn at(&mut self, at: u64, what: Happening) {
        self.n += 1;
        self.queue.insert((at, self.n), what);
    }

    /// Randomness for the `n`th thing of a kind.
    fn random(&self, what: Draw, n: u64) -> Random {
        random(self.plan.seed, what, n)
    }

    fn reach(&mut self, state: Rare) {
        self.coverage.rare.insert(state);
    }

    fn has(&self, fault: Fault) -> bool {
        !self.healed && self.plan.has(fault)
    }

    fn true_time(&self) -> Timestamp {
        START.plus(Span(self.now))
    }

    fn moment(&self) -> Moment {
        let node = self.node.as_ref().expect("a running daemon");
        let ran = (self.now as u128 * u128::from(self.plan.rate) / 1_000_000) as i64;
        let wall = START.0 as i64 + ran + self.wall;
        Moment { wall: Timestamp(wall as u64), steady: Span(self.now - node.began - node.slept) }
    }

    fn go(&mut self) -> Result<(), Stop> {
        while let Some(((at, n), what)) = self.queue.pop_first() {
            assert!(n < HAPPENINGS_MAX, "seed {} does not settle: at {at} ms {what:?}", self.plan.seed);
            self.now = at;
            self.happen(what)?;
            if self.healed && self.checker.seq >= self.plan.events_min && self.over() {
                return self.finish();
            }
            if self.now > self.plan.cleared + OVER {
                let state = self.node.as_ref().map(|node| node.ledger.state());
                let open: Vec<_> =
                    state.map_or(Vec::new(), |s| s.rollouts.keys().map(|id| id.0.clone()).collect());
                let (waiting, outbox) =
                    (self.broker.all_waiting().len(), self.node.as_ref().map_or(0, |node| node.outbox.len()));
                let why = format!(
                    "{} after trouble ended: open {open:?}, {waiting} messages not recorded, {outbox} not sent",
                    Span(self.plan.cleared + OVER - self.plan.healed)
                );
                return Err(broken("I14", self.checker.seq, why));
            }
        }
        Ok(())
    }

    /// Nothing is open, nothing is on its way.
    fn over(&self) -> bool {
        let Some(node) = &self.node else { return false };
        let quiet = node.inbox.is_empty() && node.outbox.iter().all(|sending| sending.stored);
        quiet && node.ledger.state().rollouts.is_empty() && self.broker.all_waiting().is_empty()
    }

    fn happen(&mut self, what: Happening) -> Result<(), Stop> {
        // A machine that sleeps does not see what comes before it wakes.
        let daemons = match &what {
            Happening::Stimulus(i) => {
                !matches!(self.plan.stimuli[*i].1, Stimulus::Tick(_) | Stimulus::Intent(_))
            }
            Happening::Start
            | Happening::Care
            | Happening::Deliver(..)
            | Happening::AckWait(..)
            | Happening::Work(_)
            | Happening::Wake(_)
            | Happening::OutAck(..)
            | Happening::Smoke(..)
            | Happening::OutRetry(..) => true,
            _ => false,
        };
        if daemons && self.now < self.asleep {
            self.at(self.asleep, what);
            return Ok(());
        }
        match what {
            Happening::Stimulus(i) => self.stimulus(i)?,
            Happening::Tick(i) => {
                self.measure(i, self.now);
                self.at(self.now + TICK, Happening::Tick(i));
            }
            Happening::Publish(stream, message) => self.publish(stream, *message),
            Happening::Deliver(stream, seq) => self.deliver(stream, seq),
            Happening::AckWait(stream, seq, attempts) => {
                let waits = self.broker.waiting(stream, seq).is_some_and(|m| m.attempts == attempts);
                if self.node.is_some() && waits {
                    self.deliver(stream, seq);
                }
            }
            Happening::Confirm(stream, seq) => self.broker.confirm(stream, seq),
            Happening::Start => self.start()?,
            Happening::Work(life) if life == self.life => {
                if let Some(node) = &mut self.node {
                    node.working = false;
                }
                self.work()?;
            }
            Happening::Wake(life) if life == self.life && self.node.is_some() => {
                if let Some(node) = &mut self.node {
                    node.ledger.note_quiet();
                }
                self.work()?;
            }
            Happening::Out(life, place, message) => self.out(life, place, *message)?,
            Happening::OutAck(life, place) if life == self.life => self.out_ack(place)?,
            Happening::OutRetry(life, place) if life == self.life => self.send(place),
            Happening::Command(actuator, body) => self.command(actuator, body)?,
            Happening::Care => self.care(),
            Happening::Smoke(life, result) => {
                if let Some(node) = self.node.as_mut().filter(|_| life == self.life) {
                    node.inbox.push_back((Ticket::Own, Event::SmokeFinished { result: *result }));
                    self.soon();
                }
            }
            Happening::Room => self.full = false,
            Happening::Work(_) | Happening::Wake(_) | Happening::OutAck(..) | Happening::OutRetry(..) => {}
        }
        Ok(())
    }

    /// Everything is over: the whole history is decided again, and nothing may be left.
    fn finish(&mut self) -> Result<(), Stop> {
        self.catch_up()?;
        self.checker.settled()?;
        let node = self.node.as_ref().expect("over says so");
        let (mut verifier, mut parted) = (Verifier::default(), None);
        let scanned = node.ledger.journal.scan(1, &mut |e| {
            parted =
                verifier.next(e.seq, e.at, &e.event).err().map(|divergence| (e.seq, divergence.to_string()));
            parted.is_none()
        });
        if let Err(error) = scanned {
            return self.refused(&error);
        }
        if let Some((seq, why)) = parted {
            return Err(broken("I9", seq, why));
        }
        let at = verifier.state.last;
        verifier.settled().map_err(|divergence| broken("I9", at, divergence.to_string()))?;
        if verifier.state.digest() != node.ledger.state().digest() {
            return Err(broken("I9", at, "the replayed state differs"));
        }
        // I14: everything that is announced has reached the broker. Commands that no longer stand are not sent.
        let mut unsent = None;
        let scanned = node.ledger.journal.scan(1, &mut |e| {
            let announced = !matches!(e.event, Event::CommandIssued { .. } | Event::CommandResent { .. });
            if announced && !matches!(e.event, Event::BatchReceived { .. }) {
                let messages = outgoing::messages(&verifier.state, e.seq, e.at, &e.event);
                let lost = messages.iter().map(message_id).find(|id| !self.delivered.contains(id));
                unsent = lost.map(|_| (e.seq, e.event.kind()));
            }
            unsent.is_none()
        });
        if let (Ok(()), Some((seq, kind))) = (scanned, unsent) {
            return Err(broken("I14", seq, format!("the message of {kind} never reached the broker")));
        }
        // And every command reached every actuator it was for.
        for (command, actuators) in &self.coverage.issued {
            for (i, name) in self.plan.actuators.iter().enumerate() {
                let asked = actuators.contains(&Actuator::from(*name));
                let arrived = self.seen.contains_key(&(command.to_string(), i));
                if asked && !arrived && self.coverage.stands(*command) {
                    return Err(broken("I14", at, format!("command {command} never reached {name}")));
                }
            }
        }
        self.coverage.head = node.ledger.journal.head().hash;
        Ok(())
    }
}

/// The fold of the whole log.
fn whole(journal: &SimLog) -> Result<State, DiskError> {
    let mut state = State::default();
    journal.scan(1, &mut |e| {
        state.apply(e.seq, e.at, &e.event);
        true
    })?;
    Ok(state)
}

fn message_id(message: &Outgoing) -> String {
    let id = message.headers.iter().find(|(name, _)| *name == "Nats-Msg-Id");
    id.map(|(_, id)| id.clone()).expect("every message has an id")
}

/// A message of an inbound stream as a number: what happens to it depends on nothing else.
fn key(stream: Inbound, seq: u64) -> u64 {
    (stream as u64) << 56 | seq
}
