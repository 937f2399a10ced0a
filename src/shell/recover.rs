//! From a log to the state it establishes.

use super::log::{Log, LogError};
use crate::core::state::State;
use crate::runner::ledger;

/// Folds the log that was opened, from its newest snapshot on.
pub fn recover(log: &Log) -> Result<State, LogError> {
    let (state, unused) = ledger::recover(log)?;
    if unused {
        tracing::warn!("a snapshot could not be used; the whole log was folded");
    }
    Ok(state)
}
