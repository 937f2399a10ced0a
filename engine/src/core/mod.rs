//! The pure core: `decide` says what follows from the facts so far, `apply` folds facts and conclusions
//! into the state. No clock, no I/O, no randomness, no hash-ordered collection, no platform math.
//!
#![doc = include_str!("guide.md")]

pub mod decide;
pub mod event;
pub mod evidence;
pub mod ids;
pub mod policy;
pub mod rules;
pub mod state;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod words;
