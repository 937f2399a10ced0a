//! From a log to the state it establishes: the newest snapshot, then everything after it.

use super::log::{Log, LogError};
use crate::core::state::State;

/// Folds the log that was opened. Conclusions are taken as recorded: nothing is decided again.
///
/// Errors: the log's, and a snapshot that does not belong to it.
pub fn recover(log: &Log) -> Result<State, LogError> {
    let mut state = State::default();
    let reader = log.reader();
    if let Some((head, bytes)) = log.latest_snapshot()? {
        // A snapshot saves time, no more: one that another build wrote, or that does not match the chain,
        // is left aside and everything is folded from the start.
        let known = reader.head_at(head.seq)?.is_some_and(|known| known == head);
        match rmp_serde::from_slice::<State>(&bytes) {
            Ok(snapshot) if known && snapshot.last == head.seq => state = snapshot,
            _ => tracing::warn!(seq = head.seq, "snapshot not used; folding the whole log"),
        }
    }
    for envelope in reader.scan(state.last + 1)? {
        let envelope = envelope?;
        // What the last fact touched stays: if its conclusions are not all there, the writer draws the rest.
        if envelope.event.is_fact() {
            state.touched.clear();
        }
        state.apply(envelope.seq, envelope.at, &envelope.event);
    }
    Ok(state)
}
