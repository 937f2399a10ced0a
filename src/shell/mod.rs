//! Everything that touches the world: disk, network, clock.

pub mod api;
pub mod bus;
pub mod daemon;
pub mod http;
pub mod intake;
pub mod micro;
pub mod observability;
pub mod policies;
pub mod recover;
mod slow_reader;
pub mod smoke;
pub mod writer;

pub use sluice_store::{clock, log, os_sync};
