//! Virtual time and made-up traffic around the real core: what the demo, the scenarios and the simulator run.
//! One seed, one history.

pub mod random;
pub mod script;
pub mod world;
