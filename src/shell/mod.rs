//! Everything that touches the world: disk, network, clock.

pub mod durable;
pub mod log;
