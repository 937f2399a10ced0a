//! Everything that touches the world: disk, network, clock.

pub mod api;
pub mod bus;
pub mod daemon;
pub mod http;
pub mod intake;
pub mod micro;
pub mod observe;
pub mod policies;
pub mod recover;
pub mod smoke;
mod unread;
pub mod writer;

pub use sluice_store::{clock, durable, log};
