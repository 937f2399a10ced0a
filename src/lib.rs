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
//! Start at [`core`], then [`runner`]: inputs in, effects out, one owner of the state.

#![deny(unsafe_code)] // `shell::durable` alone may, and says why

pub mod cli;
pub mod core;
pub mod invariants;
pub mod replay;
pub mod retrace;
pub mod runner;
pub mod shell;
pub mod sim;
pub mod view;
pub mod windows;
pub mod wire;
