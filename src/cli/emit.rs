//! `sluice emit`: telemetry by hand, or from a recorded file in its own rhythm.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::client::Client;
use super::output::{self, Progress};
use super::{CliError, Common, exit};
use crate::core::event::code::Code;
use crate::core::text::count;
use crate::shell::clock;
use crate::wire::error::shown;
use crate::wire::names::is_metric;
use crate::wire::telemetry::{MESSAGE_MAX, SAMPLES_MAX};

/// Samples that are due together are sent together, at most this long after the first.
const TICK: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub struct Args {
    /// What was measured
    service: String,
    /// The version that served; in a file, of the rows that name none
    #[arg(long = "as", value_name = "VERSION", required_unless_present = "file")]
    version: Option<String>,
    /// Its metrics: eval_pass=1, error=false, cost_usd=0.0139
    #[arg(value_name = "METRIC=VALUE", required_unless_present = "file", conflicts_with = "file")]
    metrics: Vec<String>,
    /// Whom it was served to
    #[arg(long, value_name = "UNIT", conflicts_with = "file")]
    unit: Option<String>,
    /// Send the rows of this file: CSV with a heading, or one JSON object a line; - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How much faster than recorded: 1x, 60x, or max
    #[arg(long, default_value = "1x", value_name = "SPEED", value_parser = speed, requires = "file")]
    speed: Speed,
    /// Send this column as this metric; only columns so named are sent. May be repeated
    #[arg(long, value_name = "COLUMN=METRIC", requires = "file")]
    map: Vec<String>,
    /// Check what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// How fast recorded time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    Times(f64),
    Max,
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let times = text.strip_suffix('x').unwrap_or(text).parse::<f64>().ok();
    let times = times.filter(|times| times.is_finite() && *times > 0.0);
    times.map(Speed::Times).ok_or_else(|| "expected a factor such as 60x, or max".into())
}

pub async fn run(common: &Common, args: Args) -> Result<u8, CliError> {
    let rows = match &args.file {
        Some(file) => recorded(&read(file)?, args.version.as_deref(), &args.map)?,
        None => vec![by_hand(&args)?],
    };
    // Of rows without a time only the order is known.
    if args.file.is_some() && args.speed != Speed::Max && rows.iter().any(|row| row.at_ms.is_none()) {
        return Err(CliError::usage(
            "a row has no time (served_at, ts or t_s), so there is no rhythm to keep",
        )
        .help("add --speed max to send all rows at once, in their order"));
    }
    let samples = rows.len() as u64;
    if !args.dry_run {
        let client = common.client().await?;
        send(common, &client, &args.service, rows, args.speed).await?;
    }
    let did = if args.dry_run { "would send" } else { "sent" };
    if common.output.is_json() {
        output::json(&json!({"ok": true, "samples": samples, "dry_run": args.dry_run}).to_string())?;
    } else {
        let noun = if samples == 1 { "sample" } else { "samples" };
        output::lines(&format!("{did} {} {noun} to {}", count(samples), args.service))?;
    }
    Ok(exit::OK)
}

/// One sample, ready but for its time.
#[derive(Debug, PartialEq)]
struct Row {
    /// Milliseconds on the recording's own clock.
    at_ms: Option<f64>,
    sample: Map<String, Value>,
}

fn by_hand(args: &Args) -> Result<Row, CliError> {
    let mut sample = Map::new();
    sample.insert("version".into(), args.version.as_deref().into());
    if let Some(unit) = &args.unit {
        sample.insert("unit".into(), unit.as_str().into());
    }
    for pair in &args.metrics {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            CliError::usage(format!("{}: a metric is given as NAME=VALUE", shown(pair)))
                .help("for example eval_pass=1")
        })?;
        sample.insert(
            metric_name(name)?,
            value_of(value).map_err(|why| CliError::usage(format!("{name}: {why}")))?,
        );
    }
    Ok(Row { at_ms: None, sample })
}

fn metric_name(name: &str) -> Result<String, CliError> {
    if is_metric(name) {
        return Ok(name.to_owned());
    }
    Err(CliError::usage(format!("{} is not a metric's name; use [a-z][a-z0-9_.]{{0,62}}", shown(name)))
        .help("give a column of a file a name: --map COLUMN=METRIC"))
}

fn value_of(text: &str) -> Result<Value, String> {
    match text {
        "true" | "True" | "TRUE" => return Ok(true.into()),
        "false" | "False" | "FALSE" => return Ok(false.into()),
        _ => {}
    }
    // Integers stay what they are; the daemon says which numbers it cannot keep.
    if let Ok(n) = text.parse::<i64>() {
        return Ok(n.into());
    }
    let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    number.map(Value::Number).ok_or_else(|| format!("{} is not a finite number, true or false", shown(text)))
}

fn read(file: &PathBuf) -> Result<String, CliError> {
    let failed = |error| CliError::file(format!("reading {}", file.display()), &error);
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(failed)?;
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let name = file.display();
        let failure = CliError::new(exit::USAGE, Code::FileUnread, format!("{name} is compressed"));
        return Err(failure.help(format!("zcat {name} | sluice emit SERVICE -f -")));
    }
    String::from_utf8(bytes).map_err(|error| {
        CliError::new(exit::USAGE, Code::FileUnread, format!("{}: {}", file.display(), error.utf8_error()))
    })
}

/// The rows of a file in the order of their times.
fn recorded(text: &str, version: Option<&str>, map: &[String]) -> Result<Vec<Row>, CliError> {
    let map: BTreeMap<&str, String> = map
        .iter()
        .map(|pair| {
            let (column, metric) = pair.split_once('=').ok_or_else(|| {
                CliError::usage(format!("--map {}: expected COLUMN=METRIC", shown(pair)))
                    .help("for example --map pass=eval_pass")
            })?;
            Ok((column, metric_name(metric)?))
        })
        .collect::<Result<_, CliError>>()?;
    let reading = Reading { version, map };
    let mut rows =
        if text.trim_start().starts_with('{') { reading.json_lines(text)? } else { reading.csv(text)? };
    if rows.is_empty() {
        return Err(CliError::new(exit::USAGE, Code::NothingInFile, "the file has no rows"));
    }
    // Stable: rows of one moment, and those without any, keep their order.
    rows.sort_by(|a, b| a.at_ms.unwrap_or(0.0).total_cmp(&b.at_ms.unwrap_or(0.0)));
    Ok(rows)
}

/// How the columns of a file are taken.
struct Reading<'a> {
    version: Option<&'a str>,
    /// Column to metric; empty: every other column is a metric of its own name.
    map: BTreeMap<&'a str, String>,
}

impl Reading<'_> {
    fn csv(&self, text: &str) -> Result<Vec<Row>, CliError> {
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        let broken = |error: csv::Error| {
            CliError::new(exit::USAGE, Code::FileUnread, format!("not a CSV file: {error}"))
        };
        let heads = csv.headers().map_err(broken)?.clone();
        if let Some(column) = self.map.keys().find(|column| !heads.iter().any(|head| head == **column)) {
            let found = heads.iter().map(shown).collect::<Vec<_>>().join(", ");
            return Err(CliError::usage(format!("--map: the file has no column {}", shown(column)))
                .help(format!("it has {found}")));
        }
        let mut rows = Vec::new();
        for record in csv.records() {
            let record = record.map_err(broken)?;
            let line = record.position().map_or(0, csv::Position::line);
            // An empty cell is a value that is not known, never a zero.
            let cells = heads.iter().zip(&record).filter(|(_, cell)| !cell.is_empty());
            rows.push(self.row(line, cells.map(|(head, cell)| (head, Value::from(cell))))?);
        }
        Ok(rows)
    }

    fn json_lines(&self, text: &str) -> Result<Vec<Row>, CliError> {
        let lines = text.lines().zip(1_u64..).filter(|(line, _)| !line.trim().is_empty());
        let row = |(text, line): (&str, u64)| {
            let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| at(line, &error))?;
            if fields.contains_key("m") {
                let why = "summed samples (m) have a time of their own and are not replayed";
                return Err(at(line, &why).help("send them as they are: POST /v1/telemetry?service=NAME"));
            }
            self.row(line, fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.as_str(), v.clone())))
        };
        lines.map(row).collect()
    }

    fn row<'a>(&self, line: u64, fields: impl Iterator<Item = (&'a str, Value)>) -> Result<Row, CliError> {
        let mut row = Row { at_ms: None, sample: Map::new() };
        row.sample.extend(self.version.map(|version| ("version".into(), version.into())));
        for (column, value) in fields {
            match column {
                "version" | "unit" | "tags" => drop(row.sample.insert(column.into(), value)),
                "served_at" | "ts" | "t_s" => {
                    let time = time_of(column, &value);
                    row.at_ms = Some(time.ok_or_else(|| {
                        at(line, &format!("{column}: {} is not a time", shown(&value.to_string())))
                    })?);
                }
                // Each sending is a message of its own.
                "id" => {}
                column => {
                    let name = match self.map.get(column) {
                        Some(name) => name.clone(),
                        None if self.map.is_empty() => metric_name(column)?,
                        None => continue,
                    };
                    let value = match &value {
                        Value::String(text) => value_of(text).map_err(|why| {
                            let failure = at(line, &format!("{column}: {why}"));
                            failure.help("send only some columns: --map COLUMN=METRIC")
                        })?,
                        _ => value,
                    };
                    row.sample.insert(name, value);
                }
            }
        }
        if !row.sample.contains_key("version") {
            return Err(at(line, &"no version").help("add a column version, or --as VERSION"));
        }
        Ok(row)
    }
}

fn at(line: u64, what: &dyn std::fmt::Display) -> CliError {
    CliError::new(exit::USAGE, Code::FileUnread, format!("line {line}: {what}"))
}

/// Milliseconds: `t_s` in seconds, else RFC 3339 (UTC where no zone is given) or milliseconds.
fn time_of(column: &str, value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok()).filter(|n| n.is_finite());
    match (column, number) {
        ("t_s", number) => number.map(|seconds| seconds * 1_000.0),
        (_, Some(ms)) => Some(ms),
        (_, None) => {
            let text = value.as_str()?;
            let time = text.parse::<jiff::Timestamp>().or_else(|_| format!("{text}Z").parse()).ok()?;
            Some(time.as_millisecond() as f64)
        }
    }
}

/// Sends the rows as they fall due. What is due together goes in one message, within its limits.
async fn send(
    common: &Common,
    client: &Client,
    service: &str,
    rows: Vec<Row>,
    speed: Speed,
) -> Result<(), CliError> {
    let total = rows.len() as u64;
    let first_ms = rows.first().and_then(|row| row.at_ms).unwrap_or(0.0);
    let start = clock::monotonic();
    let due = |row: &Row| match speed {
        Speed::Max => Duration::ZERO,
        Speed::Times(times) => {
            let seconds = (row.at_ms.unwrap_or(first_ms) - first_ms) / 1_000.0 / times;
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        }
    };
    let mut progress = Progress::new(common.quiet);
    let mut rows = rows.into_iter().peekable();
    let mut sent = 0;
    while let Some(next) = rows.peek() {
        let wait = due(next).saturating_sub(clock::monotonic() - start);
        if !wait.is_zero() {
            progress.show(|| sending(sent, total));
            tokio::time::sleep(wait.clamp(TICK, Duration::from_secs(1))).await;
            continue;
        }
        let elapsed = clock::monotonic() - start;
        let served_at = clock::now().0;
        let (mut lines, mut observations) = (String::new(), 0);
        while let Some(mut row) =
            rows.next_if(|row| due(row) <= elapsed && observations + row.sample.len() <= SAMPLES_MAX)
        {
            observations += row.sample.len();
            row.sample.insert("served_at".into(), served_at.into());
            lines += &Value::Object(row.sample).to_string();
            lines.push('\n');
            sent += 1;
            if lines.len() > MESSAGE_MAX / 2 {
                break;
            }
        }
        client.telemetry(service, lines).await?;
        progress.show(|| sending(sent, total));
    }
    Ok(())
}

fn sending(sent: u64, total: u64) -> String {
    format!("sent {} of {} samples", count(sent), count(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rows: &[Row]) -> Vec<String> {
        rows.iter().map(|row| Value::Object(row.sample.clone()).to_string()).collect()
    }

    #[test]
    fn a_csv_file_is_sent_in_the_order_of_its_times() {
        let text = "version,t_s,pass,latency_s,group\nb,2.5,1,0.5,x\na,1,0,,y\n";
        let map = ["pass=eval_pass".to_owned(), "latency_s=latency_s".into()];
        let rows = recorded(text, None, &map).unwrap();
        assert_eq!(rows.iter().map(|row| row.at_ms).collect::<Vec<_>>(), [Some(1_000.0), Some(2_500.0)]);
        assert_eq!(
            samples(&rows),
            [r#"{"eval_pass":0,"version":"a"}"#, r#"{"eval_pass":1,"latency_s":0.5,"version":"b"}"#]
        );
    }

    #[test]
    fn json_lines_keep_their_fields() {
        let text = "{\"ts\":\"2024-09-03T18:55:33\",\"error\":false,\"unit\":\"u1\",\"id\":\"x\"}\n\n{\"served_at\":5,\"error\":null}\n";
        let rows = recorded(text, Some("v@1"), &[]).unwrap();
        assert_eq!(rows[1].at_ms, Some(1_725_389_733_000.0));
        assert_eq!(
            samples(&rows),
            [r#"{"version":"v@1"}"#, r#"{"error":false,"unit":"u1","version":"v@1"}"#]
        );
    }

    #[test]
    fn a_bad_cell_is_named_by_line_and_column() {
        let message = |text: &str, map: &[String]| recorded(text, Some("v"), map).unwrap_err().message;
        assert_eq!(
            message("t_s,group\n1,west\n", &[]),
            "line 2: group: west is not a finite number, true or false"
        );
        assert_eq!(message("t_s,pass\nsoon,1\n", &[]), r#"line 2: t_s: "soon" is not a time"#);
        assert_eq!(
            message("t_s,pass\n1,nan\n", &[]),
            "line 2: pass: nan is not a finite number, true or false"
        );
        assert_eq!(message("t_s,pass\n", &[]), "the file has no rows");
        assert_eq!(message("a,b\n1\n", &["x=y".into()]), "--map: the file has no column x");
        assert_eq!(recorded("a\n1\n", None, &[]).unwrap_err().message, "line 2: no version");
    }

    #[test]
    fn speeds_are_factors() {
        assert_eq!(
            (speed("60x"), speed("0.5"), speed("max")),
            (Ok(Speed::Times(60.0)), Ok(Speed::Times(0.5)), Ok(Speed::Max))
        );
        for bad in ["0x", "-1x", "fast", "infx", ""] {
            assert!(speed(bad).is_err(), "{bad}");
        }
    }
}
