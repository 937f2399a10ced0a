//! The one list of codes against what is said about them, and what provokes them.

use std::collections::BTreeSet;
use std::path::Path;

use sluice::core::event::code::Code;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The table of codes has each of them once, and none that is not there.
#[test]
fn every_code_is_documented() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/messages.md")).unwrap();
    let table = page.split("\n## Codes\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| E"));
    let documented: Vec<&str> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split(", ").map(str::trim)).collect();
    let twice = documented.iter().enumerate().filter(|(i, code)| documented[..*i].contains(code));
    assert_eq!(twice.map(|(_, code)| *code).collect::<Vec<_>>(), [""; 0]);
    let all: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(documented.into_iter().collect::<BTreeSet<_>>(), all);
}

/// By name or by number, in what tests expect: of a code that nothing provokes nobody knows whether it is ever said.
#[test]
fn every_code_is_provoked_by_a_test() {
    let mut expected = String::new();
    gather(&Path::new(ROOT).join("tests"), &mut expected);
    gather(&Path::new(ROOT).join("engine/src"), &mut expected);
    let missing: Vec<Code> = Code::ALL
        .iter()
        .copied()
        .filter(|code| !expected.contains(code.as_str()) && !expected.contains(&format!("Code::{code:?}")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Appends what tests say: of sources beside the code only their tests.
fn gather(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            gather(&path, text);
        } else if [".rs", ".json", ".scn"].iter().any(|end| name.ends_with(end)) {
            let whole = std::fs::read_to_string(&path).unwrap();
            let is_test = !path.starts_with(Path::new(ROOT).join("engine/src")) || name.starts_with("tests");
            let tests = if is_test { Some(whole.as_str()) } else { whole.split("#[cfg(test)]").nth(1) };
            text.extend(tests);
        }
    }
}
