//! Virtual time and made-up traffic around the real core: what the demo, the scenarios and the simulator run.
//! One seed, one history.

pub mod broker;
pub mod coverage;
pub mod disk;
pub mod history;
pub mod minimize;
pub mod plan;
pub mod random;
pub mod script;
pub mod traffic;
pub mod world;
