//! Everything that touches the world: disk, network, clock.

pub mod api;
pub mod clock;
pub mod durable;
pub mod http;
pub mod intake;
pub mod log;
pub mod micro;
pub mod observe;
pub mod writer;
