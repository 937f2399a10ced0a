//! Many cases of one thing: their size is the environment's, and a small sample runs with all other tests.

mod crash;
mod kill;
mod outcomes;
#[path = "../support/references.rs"]
mod references;
#[path = "../support/mod.rs"]
mod support;
