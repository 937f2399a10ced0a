//! Samples in, log-evidence out: what speaks for harm and for safety, and how much of it there is.

pub mod bets;
pub mod block;
pub mod figures;
pub mod ingest;
pub mod interval;
pub mod kind;
pub mod kinds;
pub mod label_bets;
pub mod monitor;
pub mod reference;
pub mod refresh;
pub mod score;
pub mod verdict;
