//! Tables say which tests prove what they list. Each binary holds the names that are its own against the tests it has.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

const TABLES: [&str; 2] =
    [include_str!("../pure/practices.json"), include_str!("../pure/bad_inputs/catalogue.json")];

const BINARIES: [&str; 4] = ["pure", "log", "daemon", "campaign"];

/// What the harness lists of this binary with these arguments.
fn listed(more: &[&str]) -> BTreeSet<String> {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args(["--list", "--format", "terse"]).args(more).output();
    let output = String::from_utf8(output.expect("run this program").stdout).expect("UTF-8");
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[test]
fn tests_that_tables_name_are_there_and_run() {
    let runs = &listed(&[]) - &listed(&["--ignored"]);
    let rows = TABLES.iter().flat_map(|table| serde_json::from_str::<Vec<Value>>(table).expect("a list"));
    let named = rows.filter_map(|row| row["test"].as_str().map(str::to_owned));
    let own = named.filter_map(|test| {
        let (binary, name) = test.split_once("::").expect("binary::name");
        assert!(BINARIES.contains(&binary), "{test}");
        (binary == env!("CARGO_CRATE_NAME")).then(|| name.to_owned())
    });
    let own: BTreeSet<String> = own.collect();
    assert!(!own.is_empty(), "the tables name no test of this binary");
    assert!(own.is_subset(&runs), "no tests that run: {:?}", &own - &runs);
}
