//! The data folder as it is: the manifest, the outcomes of each version, and when requests arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;

/// What is measured of a request, in the order of [`Outcome`].
pub const METRICS: [&str; 7] =
    ["eval_pass", "cost_usd", "latency_s", "error", "invalid_output", "output_chars", "feedback_down"];
pub const EVAL: usize = 0;

/// What one request measured. What its source did not record is not there, and never zero.
pub type Outcome = [Option<f64>; METRICS.len()];

pub type Row = BTreeMap<String, String>;

/// The folder that `SLUICE_DATA` names.
pub fn folder() -> PathBuf {
    std::env::var("SLUICE_DATA").expect("SLUICE_DATA names the data folder").into()
}

pub fn manifest() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).expect("manifest.json");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    manifest["scenarios"].as_array().expect("a list of scenarios").clone()
}

/// The rows of a CSV file, compressed or not.
pub fn rows(path: &Path) -> Vec<Row> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let input: Box<dyn std::io::Read> = match path.extension().and_then(|ext| ext.to_str()) {
        Some("gz") => Box::new(GzDecoder::new(file)),
        _ => Box::new(file),
    };
    csv::Reader::from_reader(input).deserialize().map(|row| row.expect("a row")).collect()
}

/// A recorded number, or none.
pub fn number(row: &Row, column: &str) -> Option<f64> {
    let text = row.get(column).filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{column}: {text} is no number")))
}

fn outcome(row: &Row) -> Outcome {
    [
        number(row, "pass"),
        number(row, "cost_usd"),
        number(row, "latency_s"),
        number(row, "error"),
        number(row, "invalid_output"),
        number(row, "output_chars"),
        number(row, "feedback").map(|vote| f64::from(u8::from(vote < 0.0))),
    ]
}

/// The outcomes of the two versions of a scenario. `paired`: the same index is the same case.
pub struct Arms {
    pub baseline: Vec<Outcome>,
    pub canary: Vec<Outcome>,
    pub paired: bool,
}

/// Reads the arms of a scenario. Cases are paired when each version answered each of them once.
pub fn arms(scenario: &Value) -> Arms {
    let text = |name: &str| scenario[name].as_str().expect(name).to_owned();
    let groups = scenario["groups"].as_array();
    let rows = rows(&folder().join(text("file")));
    let side = |version: &str, trials: &Value| -> Vec<(String, Outcome)> {
        let asked = |row: &&Row| {
            row["version"] == text(version)
                && groups.is_none_or(|groups| groups.iter().any(|group| group == row["group"].as_str()))
                && trials.as_array().is_none_or(|trials| {
                    trials.iter().any(|trial| trial.as_u64() == row["trial"].parse().ok())
                })
        };
        let named = |row: &Row| (format!("{}/{}", row["group"], row["case_id"]), outcome(row));
        rows.iter().filter(asked).map(named).collect()
    };
    let baseline = side("baseline", &scenario["baseline_trials"]);
    let canary = side("canary", &scenario["canary_trials"]);
    let once = |side: &[(String, Outcome)]| {
        let cases: BTreeSet<&String> = side.iter().map(|(case, _)| case).collect();
        (cases.len() == side.len() && side.iter().all(|(_, o)| o[EVAL].is_some())).then_some(side.to_vec())
    };
    if let (Some(mut a), Some(mut b)) = (once(&baseline), once(&canary)) {
        a.sort_by(|x, y| x.0.cmp(&y.0));
        b.sort_by(|x, y| x.0.cmp(&y.0));
        if a.iter().map(|(case, _)| case).eq(b.iter().map(|(case, _)| case)) {
            let outcomes = |side: Vec<(String, Outcome)>| side.into_iter().map(|(_, o)| o).collect();
            return Arms { baseline: outcomes(a), canary: outcomes(b), paired: true };
        }
    }
    let outcomes = |side: Vec<(String, Outcome)>| side.into_iter().map(|(_, o)| o).collect();
    Arms { baseline: outcomes(baseline), canary: outcomes(canary), paired: false }
}

/// When requests arrive, in milliseconds: a recorded hour of chat, again and again.
pub struct Arrivals(Vec<u64>);

const HOUR_MS: u64 = 3_600_000;

impl Arrivals {
    pub fn read() -> Arrivals {
        let rows = rows(&folder().join("load/azure-conversation.csv.gz"));
        let ms = |row: &Row| (number(row, "t_s").expect("t_s") * 1e3) as u64;
        let mut times: Vec<u64> = rows.iter().map(ms).filter(|at| *at < HOUR_MS).collect();
        times.sort_unstable();
        Arrivals(times)
    }

    pub fn at(&self, i: usize) -> u64 {
        (i / self.0.len()) as u64 * HOUR_MS + self.0[i % self.0.len()]
    }
}
