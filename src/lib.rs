//! Sluice brings a change to an AI system (a new model version, a new prompt, a new index, cache or serving
//! stack) into production a little at a time, compares it with what served before, and promotes it, holds it or
//! takes it back.
//!
//! ```text
//!  NATS / HTTP / timers -> shell::intake -> [ shell::writer: decide -> append -> sync ] -> release
//!                                               |             |                 acks, messages, views
//!                                             core         shell::log
//! ```
//!
//! Four promises hold throughout. What is not in the log has not been decided. The same log and policy give the
//! same bytes. Missing evidence is a reason to hold, never to promote. A log written by any released version
//! still opens.
//!
//! This half touches the world: the daemon ([`shell`]) and the command line ([`cli`]). The log on a disk stands in `sluice_store`; what
//! decides is pure and stands in a crate of its own, `sluice_engine`, whose modules are found here under the same names. Start at [`core`], then [`runner`]: inputs in, effects out, one owner of the state.

#![forbid(unsafe_code)]

pub mod cli;
pub mod shell;

pub use sluice_engine::{core, evidence_trace, invariants, replay, runner, sim, view, windows, wire};
