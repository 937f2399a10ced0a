//! `sluice demo`: three rollouts in virtual time. The story stands in `sluice_demo`.

use std::path::PathBuf;

use sluice_demo::DemoError;

use super::error::CliError;
use super::{exit, replay};
use crate::core::event::code::Code;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Seed of the made-up traffic: the same seed gives the same story
    #[arg(long, default_value_t = sluice_demo::SEED)]
    pub seed: u64,
    /// Keep the log in this new folder instead of a temporary one
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Runs the demo; prints the story as it happens.
pub fn run(args: Args) -> Result<u8, CliError> {
    sluice_demo::run(args.seed, args.keep.as_deref()).map(|()| exit::OK).map_err(|error| match error {
        DemoError::Log(error) => error.into(),
        DemoError::Replay(divergence) => replay::differs(divergence),
        DemoError::State => CliError::new(exit::MISMATCH, Code::ReplayDiffers, error.to_string()),
    })
}
