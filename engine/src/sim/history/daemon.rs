//! The daemon's lives: how one begins, what it takes in and tells, and how it ends.

use std::collections::{BTreeMap, VecDeque};

use super::{Happening, Node, Run, Sending, Stop, Ticket, broken, key, whole};
use crate::core::event::Event;
use crate::core::event::decision::Choice;
use crate::core::event::fact::{Delivery, Origin};
use crate::core::event::smoke::{SmokeAsk, SmokeOutcome, SmokeResult};
use crate::core::ids::{Digest, EventSeq, RolloutId, SmokeId};
use crate::core::time::Span;
use crate::core::words::line;
use crate::invariants::{Checker, Violation};
use crate::runner::Taken;
use crate::runner::ledger::{Journal, Ledger, Outcome, Receipt, Released, recover};
use crate::sim::coverage::rare::Rare;
use crate::sim::disk::{DiskError, SimLog};
use crate::sim::plan::actuation::{self, Ending};
use crate::sim::plan::{Draw, Fault, MINUTE};
use crate::sim::script::START;
use crate::wire::anchor::AnchorMismatch;
use crate::wire::envelope::Envelope;

impl Run<'_> {
    pub(super) fn start(&mut self) -> Result<(), Stop> {
        if self.node.is_some() {
            return Ok(());
        }
        match self.open() {
            Ok(node) => self.node = Some(node),
            Err(error) => return self.refused(&error),
        }
        let state = self.node.as_ref().map(|node| node.ledger.state()).expect("it started");
        if state.last < self.checker.seq && self.disk.borrow().lied {
            // Younger than the anchor: that much a disk that lies can take without being noticed.
            self.reach(Rare::LieUnnoticed);
            return Err(Stop::Refused);
        }
        let lost = self.confirmed.iter().find(|(stream, seq)| {
            let delivery = Some(Delivery { stream: *stream, seq: *seq, published: None });
            !state.intake.has(&Origin { delivery, ..Origin::default() })
        });
        if let Some(lost) = lost {
            return Err(broken("I2", state.last, format!("{lost:?} was confirmed and is not in the log")));
        }
        let first = state.last == 0;
        let resumed = self.node.as_mut().expect("it started").ledger.resume();
        if let Ok(resumed) = &resumed {
            let (messages, concluded) = (!resumed.messages.is_empty(), resumed.events > 0);
            self.coverage.rare.extend(messages.then_some(Rare::OutboxResent));
            self.coverage.rare.extend(concluded.then_some(Rare::HalfTold));
        }
        if !self.told(resumed)? {
            return Ok(());
        }
        let build = "simulated".to_owned();
        let mut facts = Vec::new();
        if first {
            facts.extend(Event::begin(self.log, &build));
        }
        facts.push(Event::DaemonStarted { build });
        if first {
            facts.extend(self.plan.policies.iter().map(|(source, policy)| Event::PolicyStored {
                digest: Digest::of(source.as_bytes()),
                policy: policy.clone(),
                source: source.clone(),
            }));
        }
        let node = self.node.as_mut().expect("it started");
        node.inbox.extend(facts.into_iter().map(|fact| (Ticket::Own, fact)));
        self.work()?;
        // The broker delivers again what nobody has confirmed.
        for (stream, seq) in self.broker.all_waiting() {
            self.at(self.now + 5, Happening::Deliver(stream, seq));
        }
        Ok(())
    }

    pub(super) fn open(&mut self) -> Result<Node, DiskError> {
        self.disk.borrow_mut().mishap = None;
        let journal = SimLog::open(&self.disk, self.log)?;
        if let Some((head, _)) = journal.snapshot()? {
            self.reach(Rare::SnapshotUsed);
            // I12: a snapshot and what follows it say what the whole log says.
            let whole = whole(&journal)?;
            let (state, _) = recover(&journal)?;
            if whole.digest() != state.digest() {
                let why = format!("a start from the snapshot at seq {} differs from the whole log", head.seq);
                self.coverage.broken = Some(Violation { invariant: "I12", seq: state.last, why });
            }
        }
        // A log that was changed behind our back is read whole, as `log verify` does.
        if self.disk.borrow().damaged {
            whole(&journal)?;
        }
        let (state, _) = recover(&journal)?;
        self.life += 1;
        if self.life > 1 && self.now < self.last_start + MINUTE {
            self.reach(Rare::KilledTwice);
        }
        self.last_start = self.now;
        let mut ledger = Ledger::new(journal, state, true);
        if let Some(bytes) = self.plan.group_bytes {
            ledger.group_bytes = bytes;
        }
        Ok(Node {
            ledger,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            place: 0,
            began: self.now,
            slept: 0,
            working: false,
        })
    }

    /// A start that refuses is right when something was done to the disk, and only then.
    pub(super) fn refused(&mut self, error: &DiskError) -> Result<(), Stop> {
        let (damaged, lied) = (self.disk.borrow().damaged, self.disk.borrow().lied);
        if !damaged && !lied {
            return Err(broken("I2", self.checker.seq, format!("a sound log does not open: {error}")));
        }
        let short = matches!(error, DiskError::Anchor(AnchorMismatch::LogShort { .. }))
            || matches!(error, DiskError::Anchor(AnchorMismatch::LogEmpty { .. }));
        let state = match error {
            _ if !damaged => Rare::LieNoticed,
            DiskError::Anchor(AnchorMismatch::AnchorDamaged { .. }) => Rare::AnchorNoticed,
            _ if short => Rare::TailNoticed,
            _ => Rare::DamageNoticed,
        };
        self.reach(state);
        Err(Stop::Refused)
    }

    /// The process is gone, and with it everything that was not durable.
    pub(super) fn kill(&mut self, after: u64) {
        let Some(mut node) = self.node.take() else { return };
        node.inbox.clear();
        self.life += 1;
        self.budget = None;
        self.kill_at_loss = false;
        let mut r = self.random(Draw::Crash, self.life);
        let kept = self.disk.borrow_mut().crash(&mut r);
        match kept {
            Some(true) => self.reach(Rare::UnsyncedKept),
            Some(false) => self.reach(Rare::UnsyncedLost),
            None => {}
        }
        if self.disk.borrow().torn {
            self.disk.borrow_mut().torn = false;
            self.reach(Rare::TornAnchor);
        }
        self.at(self.now + after, Happening::Start);
    }

    pub(super) fn down_for(&self) -> u64 {
        let mut r = self.random(Draw::Downtime, self.life);
        if r.chance(0.5) { 500 + r.below(30_000) } else { r.below(8 * MINUTE) }
    }

    /// What came of an append: told to everybody, or the end of the process. Returns whether it lives.
    pub(super) fn told(&mut self, result: Result<Released<Ticket>, DiskError>) -> Result<bool, Stop> {
        match result {
            Ok(released) => {
                self.catch_up()?;
                self.release(released)
            }
            Err(error) => {
                match error {
                    DiskError::Killed => {}
                    DiskError::Full => self.reach(Rare::DiskFull),
                    DiskError::Sync => self.reach(Rare::SyncFailed),
                    DiskError::TooLarge(event) => {
                        return Err(broken("I25", self.checker.seq, event.to_string()));
                    }
                    other => return self.refused(&other).map(|()| false),
                }
                let after = self.down_for();
                self.kill(after);
                Ok(false)
            }
        }
    }

    /// Checks everything that has become durable since the last time.
    pub(super) fn catch_up(&mut self) -> Result<(), Stop> {
        if let Some(broken) = self.coverage.broken.take() {
            return Err(broken.into());
        }
        let Some(node) = &self.node else { return Ok(()) };
        let awake = self.now - self.slept;
        let (checker, coverage, trace) = (&mut self.checker, &mut self.coverage, &mut self.trace);
        let applied = &mut self.applied;
        let mut asked = Vec::new();
        let mut failed = None;
        let scanned = node.ledger.journal.scan(checker.seq + 1, &mut |e| {
            if let Some(trace) = trace {
                trace.push(line::line(e.seq, e.at, START, &e.event));
            }
            coverage.see(e);
            if let Event::SmokeAsked { rollout, ask } = &e.event {
                asked.push((rollout.clone(), ask.clone()));
            }
            failed =
                in_time(checker, applied, awake, e).and_then(|()| checker.next(e.seq, e.at, &e.event)).err();
            failed.is_none()
        });
        for (rollout, ask) in asked {
            self.test(rollout, &ask);
        }
        match (failed, scanned) {
            (Some(violation), _) => Err(violation.into()),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) if self.disk.borrow().damaged => self.refused(&error),
            (None, Err(error)) => Err(broken("I6", self.checker.seq, error.to_string())),
        }
    }

    /// Runs a smoke test, until it ends or the process does.
    fn test(&mut self, rollout: RolloutId, ask: &SmokeAsk) {
        let Ending { after, outcome, twice, strange } = actuation::ending(self.plan.seed, ask, self.healed);
        let detail = if outcome == SmokeOutcome::Failed { "3 of 40 differ" } else { "" };
        let (id, name, detail) = (ask.id, ask.name.clone(), detail.to_owned());
        let result = SmokeResult { id, rollout, name, outcome, detail, took_ms: after };
        let mut ends = vec![(after, result.clone())];
        ends.extend(twice.then(|| (after + 2_000, result.clone())));
        let id = SmokeId(uuid::Uuid::from_u128(result.id.0.as_u128() ^ 1));
        ends.extend(strange.then_some((after / 2, SmokeResult { id, ..result })));
        for (after, result) in ends {
            self.at(self.now + after, Happening::Smoke(self.life, Box::new(result)));
        }
    }

    pub(super) fn work(&mut self) -> Result<(), Stop> {
        loop {
            let moment = match &self.node {
                Some(_) => self.moment(),
                None => return Ok(()),
            };
            let full = (self.full && !self.healed).then_some(1_000_000);
            let node = self.node.as_mut().expect("checked");
            node.ledger.journal.steady = moment.steady;
            node.ledger.set_full(full);
            let mut result = Ok(());
            while result.is_ok() && !node.ledger.is_full() {
                let Some((ticket, fact)) = node.inbox.pop_front() else { break };
                result = node.ledger.take(moment, fact, ticket);
            }
            let result = result.and_then(|()| node.ledger.tick(moment)).and_then(|()| node.ledger.commit());
            if !self.told(result)? {
                return Ok(());
            }
            let Some(node) = self.node.as_mut() else { return Ok(()) };
            node.ledger.journal.anchor_if_due();
            if node.inbox.is_empty() {
                // As the real one: never for more than a second, for the clock may be set.
                let quiet = node.ledger.quiet().map_or(1_000, |quiet| quiet.0.clamp(1, 1_000));
                let (at, life) = (self.now + quiet, self.life);
                if !node.working {
                    node.working = true;
                    self.at(at, Happening::Work(life));
                }
                return Ok(());
            }
        }
    }

    /// Tells what is durable, in order; the process may be killed in the middle of it.
    pub(super) fn release(&mut self, released: Released<Ticket>) -> Result<bool, Stop> {
        let head = self.node.as_ref().map_or(0, |node| node.ledger.journal.head().seq);
        for message in released.messages {
            if message.seq > head {
                return Err(broken(
                    "I13",
                    message.seq,
                    format!("it is published, the log ends at seq {head}"),
                ));
            }
            if self.spent() {
                return Ok(false);
            }
            let node = self.node.as_mut().expect("it lives");
            node.place += 1;
            let place = node.place;
            node.outbox.push_back(Sending { place, message, stored: false, lost: false });
            self.send(place);
        }
        for (ticket, receipt) in released.receipts {
            if self.spent() {
                return Ok(false);
            }
            self.receipt(head, ticket, &receipt)?;
        }
        Ok(true)
    }

    /// Whether the process is killed before the next thing is told.
    pub(super) fn spent(&mut self) -> bool {
        match &mut self.budget {
            None => false,
            Some(0) => {
                self.reach(Rare::KilledInRelease);
                let after = self.down_for();
                self.kill(after);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    pub(super) fn receipt(&mut self, head: EventSeq, ticket: Ticket, receipt: &Receipt) -> Result<(), Stop> {
        let recorded = match &receipt.outcome {
            Outcome::Taken(Taken::Recorded { seq, .. } | Taken::Refused(seq, _)) => Some(*seq),
            Outcome::Taken(Taken::Duplicate) => {
                self.reach(if matches!(ticket, Ticket::Part { .. }) {
                    Rare::Redelivered
                } else {
                    Rare::IntentAgain
                });
                None
            }
            Outcome::Full(_) => {
                self.reach(Rare::TurnedAway);
                if let Ticket::Part { stream, seq, .. } = ticket
                    && let Some(message) = self.broker.waiting(stream, seq)
                {
                    let attempts = message.attempts;
                    self.at(self.now + 20_000, Happening::AckWait(stream, seq, attempts));
                }
                return Ok(());
            }
        };
        if let Some(seq) = recorded.filter(|seq| *seq > head) {
            return Err(broken("I1", seq, format!("it is confirmed, the log ends at seq {head}")));
        }
        if let Ticket::Part { stream, seq, last: true } = ticket {
            // What was a duplicate by its id is in the log under another number.
            if recorded.is_some() {
                self.confirmed.insert((stream, seq));
            }
            let mut r = self.random(Draw::Confirm, self.now.rotate_left(32) ^ key(stream, seq));
            if self.has(Fault::Bus) && r.chance(0.05) {
                self.reach(Rare::AckLost);
            } else {
                self.at(self.now + 1, Happening::Confirm(stream, seq));
            }
        }
        Ok(())
    }
}

/// How far log time may part from the steady clock.
const APART: u64 = 2_500;

/// A step that time alone keeps has been watched for so long by a clock that nobody can set.
fn in_time(
    checker: &Checker,
    applied: &mut BTreeMap<RolloutId, u64>,
    awake: u64,
    e: &Envelope,
) -> Result<(), Violation> {
    match &e.event {
        Event::CommandApplied { rollout, .. } => drop(applied.insert(rollout.clone(), awake)),
        Event::DecisionMade { rollout, decision } if decision.actor.is_none() => {
            let since = applied.get(rollout).copied().unwrap_or(awake);
            let need = match decision.choice {
                Choice::Promote if decision.step.is_some() => checker.bake(rollout),
                Choice::Complete => checker.soak(rollout),
                _ => None,
            };
            if let Some(need) = need.filter(|need| awake - since + APART < need.0) {
                let why =
                    format!("{rollout} moves on after {} of {need} by the steady clock", Span(awake - since));
                return Err(Violation { invariant: "I34", seq: e.seq, why });
            }
        }
        _ => {}
    }
    Ok(())
}
