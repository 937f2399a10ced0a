//! The pure core: `decide` says what follows from the facts so far, `apply` folds facts and conclusions
//! into the state. No clock, no I/O, no randomness, no hash-ordered collection, no platform math.

pub mod bets;
pub mod columns;
pub mod event;
pub mod evidence;
pub mod ids;
pub mod policy;
pub mod reference;
pub mod time;
pub mod verdict;
