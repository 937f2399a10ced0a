//! The command line as a user meets it: the real binary, its words, its exit codes.

mod bundle;
mod daemon;
mod evidence;
mod offline;
mod readme;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// Nothing listens here: the port is reserved.
const NOBODY: &str = "http://127.0.0.1:1";

fn sluice(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    // Whatever the tester has set must not reach the tests.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SLUICE_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).env("USER", "maya").env("SLUICE_SERVER", NOBODY);
    command
}

fn run(args: &[&str]) -> Output {
    sluice(args).output().expect("run sluice")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Asserts that nothing came out but `stderr`, with this exit code.
#[track_caller]
fn refused(output: &Output, exit: i32, stderr: &str) {
    let said = text(&output.stderr);
    assert!(said.starts_with(stderr), "stderr: {said}");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(exit), String::new()), "{said}");
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}
