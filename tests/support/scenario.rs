//! What the scripts of `tests/scenarios` lead to, for tests that look at it in another way than `pure::scenarios`.

use sluice::runner::Runner;
use sluice::sim::script::{self, Entry};
use sluice::wire::policy_file;

/// Everything recorded in a scenario.
pub fn history(name: &str) -> Vec<Entry> {
    run(name).1
}

pub fn run(name: &str) -> (Runner, Vec<Entry>) {
    let path = format!("{}/tests/scenarios/{name}.scn", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let [policy, commands, _] = script::parts(&text).expect("its parts");
    play(policy, commands)
}

pub fn play(policy: &str, commands: &str) -> (Runner, Vec<Entry>) {
    let parsed = policy_file::parse_policy(policy, "policy.yaml").expect("its policy");
    script::run(parsed, policy, commands, 7).expect("it runs")
}
