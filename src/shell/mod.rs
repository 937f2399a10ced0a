//! Everything that touches the world: disk, network, clock.

pub mod bus;
pub mod clock;
pub mod durable;
pub mod intake;
pub mod log;
pub mod writer;
