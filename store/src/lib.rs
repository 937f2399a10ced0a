//! The log on a disk, and what it takes: [`log`] keeps events, [`durable`] asks the operating system for syncs that
//! hold, [`clock`] is the one place where the machine's clock is read.

#![deny(unsafe_code)] // `durable` alone may, and says why

pub mod clock;
pub mod log;
pub mod os_sync;

use sluice_engine::{core, runner, wire};
