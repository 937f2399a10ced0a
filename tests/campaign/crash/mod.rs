//! Crashes, power cuts, full disks and damage, on the real binary and real files.
//!
//! `kill`: the daemon dies at a system call. `power`: the file system under it loses what was not synced.
//! `full`: its disk fills. `fault`: a system call fails. `damage`: the files of a closed log are changed. Moments that
//! hang on time, and the broker's, are `kill`'s.
//!
//! Every case follows from a seed and a number. One that fails names both, and the command that repeats it; what
//! cannot be tried on a machine is counted and said. The sizes here are those of a smoke test: `make crash N=2000`
//! is the campaign.

mod campaign;
mod check;
mod daemon;
mod damage;
mod disk;
mod fault;
mod full;
mod kill;
mod power;
mod traffic;
mod writer;
