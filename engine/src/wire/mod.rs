//! Bytes to core values and back. Pure: the time is an argument, and nothing is read from elsewhere.
//!
//! What people and programs write to sluice is checked here, once and completely; a value that gets
//! past this module needs no second look. Every refusal is an [`error::InputError`] that names the field,
//! the value and the limit.

pub mod ack;
pub mod anchor;
pub mod config_file;
pub mod envelope;
pub mod error;
pub mod events;
pub mod intake;
pub mod intent;
pub mod json;
pub mod names;
pub mod outgoing;
pub mod pages;
pub mod policy_file;
pub mod reading;
pub mod schema;
pub mod smoke;
pub mod telemetry;
pub mod time;
mod tree;
pub mod yaml;
