//! The pure core: `decide` says what follows from the facts so far, `apply` folds facts and conclusions
//! into the state. No clock, no I/O, no randomness, no hash-ordered collection, no platform math.

pub mod answer;
pub mod bets;
pub mod chase;
pub mod cohort;
pub mod columns;
pub mod condition;
pub mod decide;
pub mod effect;
pub mod event;
pub mod evidence;
pub mod exposure;
pub mod ids;
pub mod intake;
pub mod judge;
pub mod labels;
pub mod line;
pub mod makeup;
pub mod plan;
pub mod planted;
pub mod policy;
pub mod reference;
pub mod rollout;
pub mod slices;
pub mod smoke;
pub mod state;
pub mod time;
pub mod traffic;
pub mod verdict;
pub mod watch;
pub mod windows;
pub mod words;
