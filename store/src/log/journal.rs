//! The log as the journal that the ledger writes to.

use super::{Log, LogError};
use crate::core::ids::EventSeq;
use crate::runner::ledger::Journal;
use crate::wire::envelope::{Envelope, Group, Head};

impl Journal for Log {
    type Error = LogError;

    fn head(&self) -> Head {
        Log::head(self)
    }

    fn append(&mut self, group: &Group) -> Result<(), LogError> {
        Log::append(self, group)
    }

    fn scan(&self, from: EventSeq, each: &mut dyn FnMut(&Envelope) -> bool) -> Result<(), LogError> {
        for envelope in self.reader().scan(from)? {
            if !each(&envelope?) {
                break;
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<(Head, Vec<u8>)>, LogError> {
        self.latest_snapshot()
    }

    fn put_snapshot(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        Log::put_snapshot(self, Log::head(self), bytes)
    }

    fn outbox_cursor(&self) -> Result<EventSeq, LogError> {
        Log::outbox_cursor(self)
    }

    fn set_outbox_cursor(&mut self, seq: EventSeq) {
        Log::set_outbox_cursor(self, seq);
    }
}
