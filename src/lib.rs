//! Sluice brings a change to an AI system into production a little at a time.
pub mod core;
pub mod replay;
pub mod runner;
pub mod shell;
pub mod sim;
pub mod view;
pub mod wire;
