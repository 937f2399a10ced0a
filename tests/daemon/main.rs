//! The daemon and the command line: the real binary, real sockets, a real broker.

mod api;
mod bus;
mod cli;
#[path = "../support/facts.rs"]
mod facts;
mod nats_server;
#[path = "../support/references.rs"]
mod references;
#[path = "../support/scenario.rs"]
mod scenario;
mod smoke;
#[path = "../support/mod.rs"]
mod support;
