//! The half of sluice that decides: pure functions of what has happened.
//!
//! No clock, I/O, thread, randomness or hash order, and no dependency that has them: time, identity and seeds are
//! arguments, so that a history replays to the same bytes on every machine. `sluice` performs the effects for real, and
//! [`sim`] in memory.
//!
//! Start at [`core`], then [`runner`]: inputs in, effects out, one owner of the state.

#![forbid(unsafe_code)]

pub mod core;
pub mod evidence_trace;
pub mod invariants;
pub mod msgpack;
pub mod replay;
pub mod runner;
pub mod sim;
pub mod view;
pub mod windows;
pub mod wire;
