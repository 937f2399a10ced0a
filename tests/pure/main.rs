//! What is pure: the core, its formats, its replay and its simulator. Nothing here can name what touches the world: `sluice` is
//! the engine alone.

extern crate sluice_engine as sluice;

mod bad_inputs;
mod evidence_trace;
#[path = "../support/facts.rs"]
mod facts;
mod layering;
mod practices;
mod random_facts;
mod recovery;
#[path = "../support/references.rs"]
mod references;
mod round_trips;
#[path = "../support/scenario.rs"]
mod scenario;
mod scenarios;
mod schemas;
mod simulate;
mod slices;
mod vectors;
mod view;
