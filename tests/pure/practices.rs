//! What teams do to ship changes to AI systems safely, and where each practice is shown, the way it goes wrong included;
//! the races that such a controller must win; and what comparable controllers got wrong.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    practice: String,
    r#in: String,
    says: String,
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows: Vec<Row> = serde_json::from_str(include_str!("practices.json")).unwrap();
    let mut wrong = Vec::new();
    for Row { practice, r#in, says } in &rows {
        match std::fs::read_to_string(root.join(r#in)) {
            Ok(text) if text.contains(says.as_str()) => {}
            Ok(_) => wrong.push(format!("{practice}: {in} does not say {says:?}", r#in = r#in)),
            Err(error) => wrong.push(format!("{practice}: {in}: {error}", r#in = r#in)),
        }
    }
    let shown: BTreeSet<&str> = rows.iter().map(|row| row.practice.as_str()).collect();
    let missing = PRACTICES.iter().filter(|practice| !shown.contains(*practice));
    wrong.extend(missing.map(|practice| format!("nothing shows {practice}")));
    let of = |kind: &str| shown.iter().filter(|practice| practice.starts_with(kind)).count();
    assert_eq!((of("race: "), of("wrong elsewhere: ")), (RACES, WRONG_ELSEWHERE));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
