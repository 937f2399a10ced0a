//! The pure core: `decide` says what follows from the facts so far, `apply` folds facts and conclusions
//! into the state. No clock, no I/O, no randomness, no hash-ordered collection, no platform math.

pub mod admission;
pub mod answer;
pub mod bets;
pub mod chase;
pub mod cohort;
pub mod columns;
pub mod conclusion;
pub mod condition;
pub mod decide;
pub mod display;
pub mod effect;
pub mod event;
pub mod evidence;
pub mod exposure;
pub mod fact;
pub mod ids;
pub mod intake;
pub mod judge;
pub mod labels;
pub mod line;
pub mod makeup;
pub mod observe;
pub mod plan;
pub mod planted;
pub mod policy;
pub mod reading;
pub mod reference;
pub mod renewal;
pub mod rollout;
pub mod slices;
pub mod smoke;
pub mod state;
pub mod time;
pub mod touched;
pub mod traffic;
pub mod verdict;
pub mod watch;
pub mod windows;
pub mod words;

/// Whether a field says nothing, so that it is left out where it is stored.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
