//! Everything that touches the world: disk, network, clock.

pub mod api;
pub mod bus;
pub mod clock;
pub mod daemon;
pub mod durable;
pub mod http;
pub mod intake;
pub mod log;
pub mod micro;
pub mod observe;
pub mod policies;
pub mod recover;
pub mod smoke;
mod unread;
pub mod writer;
