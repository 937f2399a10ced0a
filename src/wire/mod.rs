//! Bytes to core types and back. Pure: no clock, no I/O.

pub mod envelope;
pub mod events;
pub mod outgoing;
