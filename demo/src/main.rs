//! `make demo`: the demo without the rest of sluice, which takes a multiple of the time to build.

use std::process::ExitCode;

fn main() -> ExitCode {
    match sluice_demo::run(sluice_demo::SEED, None) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
