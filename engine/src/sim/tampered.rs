//! A disk that somebody has tampered with: faults of storage and of order, around the sound one.

use std::ops::{Deref, DerefMut};

use super::disk::{DiskError, SimLog};
use crate::core::ids::EventSeq;
use crate::core::planted::{Bug, planted};
use crate::core::state::State;
use crate::runner::ledger::Journal;
use crate::wire::envelope::{Envelope, Group, Head};

/// Events that are held back at most.
const HELD: u64 = 8;

pub struct Tampered {
    log: SimLog,
    /// Groups that count as appended and are not.
    held: Vec<Group>,
}

impl Tampered {
    pub fn new(log: SimLog) -> Tampered {
        Tampered { log, held: Vec::new() }
    }
}

impl Deref for Tampered {
    type Target = SimLog;

    fn deref(&self) -> &SimLog {
        &self.log
    }
}

impl DerefMut for Tampered {
    fn deref_mut(&mut self) -> &mut SimLog {
        &mut self.log
    }
}

impl Journal for Tampered {
    type Error = DiskError;

    fn head(&self) -> Head {
        self.held.last().map_or(self.log.head(), Group::head)
    }

    fn append(&mut self, group: &Group) -> Result<(), DiskError> {
        if planted(Bug::AnchorBeforePage) {
            self.log.anchor(group.head());
        }
        if planted(Bug::AckBeforeDurable) {
            self.held.push(group.clone());
            if group.head().seq - self.log.head().seq < HELD {
                return Ok(());
            }
            return std::mem::take(&mut self.held).iter().try_for_each(|group| self.log.append(group));
        }
        self.log.append(group)
    }

    fn scan(&self, from: EventSeq, each: &mut dyn FnMut(&Envelope) -> bool) -> Result<(), DiskError> {
        self.log.scan(from, each)
    }

    fn snapshot(&self) -> Result<Option<(Head, Vec<u8>)>, DiskError> {
        self.log.snapshot()
    }

    fn put_snapshot(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        if !planted(Bug::SnapshotLosesWord) {
            return self.log.put_snapshot(bytes);
        }
        let mut state = State::stored(bytes).expect("a snapshot of this build");
        let monitors = state.rollouts.values_mut().flat_map(|rollout| &mut rollout.monitors);
        monitors.for_each(|m| m.evidence.harm.log_wealth.iter_mut().take(1).for_each(|units| *units = 0));
        self.log.put_snapshot(&rmp_serde::to_vec_named(&state).expect("the state is made of storable types"))
    }

    fn outbox_cursor(&self) -> Result<EventSeq, DiskError> {
        if planted(Bug::ForgetsOutbox) { Ok(self.head().seq) } else { self.log.outbox_cursor() }
    }

    fn set_outbox_cursor(&mut self, seq: EventSeq) {
        self.log.set_outbox_cursor(if planted(Bug::CursorAhead) { self.head().seq } else { seq });
    }
}
