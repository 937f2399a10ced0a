//! `sluice policy test`: scripted traffic under a policy, and what must become of it.
//!
//! A test file names a policy (a file beside it, or one that ships with sluice), then tests: a name each, and a script in
//! the language of [`crate::sim::script`], whose `expect` lines say how the rollout must stand at that moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::{self, Format};
use super::{CliError, Common, exit};
use crate::core::event::Event;
use crate::core::event::code::Code;
use crate::core::evidence::verdict::Verdict;
use crate::shell::policies::{self, Loaded};
use crate::sim::script;

/// One test of a file: its name, the line its script begins after, and the script.
struct Test<'a> {
    name: &'a str,
    line: usize,
    script: String,
}

/// Runs every `*.test` file of `folder` under its policy. The exit code says whether all of them passed.
pub fn run(common: &Common, folder: &Path, seed: u64) -> Result<u8, CliError> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(|error| CliError::file(format!("reading {}", folder.display()), &error))?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "test"));
    files.sort();
    if files.is_empty() {
        let message = format!("{} holds no file that ends in .test", folder.display());
        return Err(CliError::new(exit::NOT_FOUND, Code::NotFound, message));
    }
    let (mut passed, mut failed, mut results) = (0, 0, Vec::new());
    let (mut rules, mut covered) = (0, 0);
    for file in files {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(&file)
            .map_err(|error| CliError::file(format!("reading {shown}"), &error))?;
        let (policy, tests) = read(&text).map_err(|why| CliError::usage(format!("{shown}: {why}")))?;
        let loaded = policy_of(&file, policy)?;
        let mut failing = BTreeSet::new();
        for test in tests {
            let run = script::run(loaded.policy.clone(), &loaded.source, &test.script, seed);
            let why = match run {
                Ok((_, events)) => {
                    failing.extend(events.into_iter().filter_map(|(_, _, event)| match event {
                        Event::VerdictReached { reading, .. } if reading.verdict == Verdict::Fail => {
                            Some(reading.name)
                        }
                        _ => None,
                    }));
                    None
                }
                Err(why) => Some(placed(&why, test.line)),
            };
            match &why {
                None => passed += 1,
                Some(why) => {
                    failed += 1;
                    output::say(&format!("failed  {shown}: {}: {why}", test.name));
                }
            }
            results.push(json!({"file": shown, "test": test.name, "ok": why.is_none(), "why": why}));
        }
        rules += loaded.policy.guardrails.len();
        covered += failing.len();
        let unseen = loaded.policy.guardrails.iter().filter(|g| !failing.contains(&g.name));
        let unseen: Vec<&str> = unseen.map(|g| g.name.as_str()).collect();
        if !unseen.is_empty() && common.output == Format::Table {
            output::say(&format!("note    {shown}: no test makes {} fail", unseen.join(", ")));
        }
    }
    let summary = format!("{passed} passed, {failed} failed, guardrails seen failing {covered} of {rules}");
    match common.output {
        Format::Json => output::json(&serde_json::Value::from(results).to_string())?,
        Format::Jsonl => results.iter().try_for_each(|result| output::json(&result.to_string()))?,
        Format::Table | Format::Plain => {
            output::lines(&format!("{}  {summary}", if failed == 0 { "ok" } else { "failed" }))?;
        }
    }
    Ok(if failed == 0 { exit::OK } else { exit::CHECK_FAILED })
}

/// The policy that a test file is about, and its tests.
fn read(text: &str) -> Result<(&str, Vec<Test<'_>>), String> {
    let (mut policy, mut tests) = (None, Vec::<Test>::new());
    for (i, line) in text.lines().enumerate() {
        match (line.split_once(' '), tests.last_mut()) {
            (Some(("policy", name)), None) => policy = Some(name.trim()),
            (Some(("test", name)), _) => {
                tests.push(Test { name: name.trim(), line: i + 1, script: String::new() });
            }
            (_, Some(test)) => test.script += &format!("{line}\n"),
            _ if line.trim().is_empty() || line.starts_with('#') => {}
            _ => return Err(format!("line {}: expected policy NAME, or test NAME: {line}", i + 1)),
        }
    }
    let policy = policy.ok_or("it names no policy; its first line is: policy FILE")?;
    if tests.is_empty() {
        return Err("it has no test; a test begins with a line: test NAME".into());
    }
    Ok((policy, tests))
}

/// A file beside the test, else a policy that ships with sluice.
fn policy_of(file: &Path, name: &str) -> Result<Loaded, CliError> {
    let beside = file.parent().unwrap_or(Path::new(".")).join(name);
    if beside.is_file() {
        return policies::check(&beside).map_err(CliError::policies);
    }
    let shipped = policies::load(None).map_err(CliError::policies)?;
    shipped.into_iter().find(|known| known.policy.name == name).ok_or_else(|| {
        let message = format!("{}: no policy {name}, neither a file beside it nor shipped", file.display());
        CliError::new(exit::NOT_FOUND, Code::NotFound, message)
    })
}

/// `line 3: ..` of a script, as the line of the file that it is.
fn placed(why: &str, before: usize) -> String {
    let line = why.strip_prefix("line ").and_then(|rest| rest.split_once(':'));
    match line.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest))) {
        Some((number, rest)) => format!("line {}:{rest}", before + number),
        None => why.to_owned(),
    }
}
