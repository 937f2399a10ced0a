//! What teams do to ship changes to AI systems safely, and where each practice is shown, the way it goes wrong included;
//! the races that such a controller must win; and what comparable controllers got wrong.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::scenarios;

/// One place that shows a practice: a test or, of a policy that ships, one of `policies/tests`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    practice: String,
    /// `binary::name`; that it is there and runs, `references` sees to.
    test: Option<String>,
    /// What the trace must say, if the test is a scenario.
    says: Option<String>,
    /// `file: name`.
    policy_test: Option<String>,
}

impl Row {
    fn holds(&self) -> Result<(), String> {
        match (&self.test, &self.says, &self.policy_test) {
            (Some(test), Some(says), None) => scenarios::says(test, says),
            (Some(_), None, None) => Ok(()),
            (None, None, Some(test)) => is_policy_test(test),
            _ => Err("needs test, with or without says, or policy_test".to_owned()),
        }
    }
}

fn is_policy_test(test: &str) -> Result<(), String> {
    let (file, name) = test.split_once(": ").ok_or("expected file: name")?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/tests").join(file).with_extension("test");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
    let has = text.lines().any(|line| line.strip_prefix("test ") == Some(name));
    has.then_some(()).ok_or_else(|| format!("{file} has no test {name:?}"))
}

const PRACTICES: [&str; 21] = [
    "change kinds",
    "the unit of change",
    "prompts from Git",
    "percent",
    "cohorts",
    "regions",
    "A/B",
    "parallel",
    "blue-green",
    "guardrails",
    "missing evidence",
    "rollback",
    "retry",
    "coordination",
    "windows",
    "people",
    "smoke tests",
    "extended monitoring",
    "feedback channels",
    "actuators",
    "effective",
];
const RACES: usize = 9;
const WRONG_ELSEWHERE: usize = 6;

#[test]
fn every_practice_is_shown_where_the_table_says() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("practices.json")).unwrap();
    let wrong = rows.iter().filter_map(|row| Some(format!("{}: {}", row.practice, row.holds().err()?)));
    let mut wrong: Vec<String> = wrong.collect();
    let shown: BTreeSet<&str> = rows.iter().map(|row| row.practice.as_str()).collect();
    let missing = PRACTICES.iter().filter(|practice| !shown.contains(*practice));
    wrong.extend(missing.map(|practice| format!("nothing shows {practice}")));
    let of = |kind: &str| shown.iter().filter(|practice| practice.starts_with(kind)).count();
    assert_eq!((of("race: "), of("wrong elsewhere: ")), (RACES, WRONG_ELSEWHERE));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
