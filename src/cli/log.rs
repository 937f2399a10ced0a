//! `sluice log`: the record itself. `tail` and `show` ask a running sluice; what reads or moves the whole log opens
//! the data folder, or an export, and needs nobody to hold it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Answer, Client};
use super::output::{self, Format, Progress};
use super::{CliError, Common, exit};
use crate::core::event::code::Code;
use crate::core::ids::EventSeq;
use crate::core::text::count;
use crate::core::words::line;
use crate::invariants::{Checker, Violation};
use crate::shell::log::{Export, History, Log, OpenOptions, Verified, export, import};
use crate::wire::time::rfc3339;

/// Events asked for at a time.
const PAGE: u64 = 500;
/// How often a followed log is asked for more.
const INTERVAL: Duration = Duration::from_millis(250);
/// What comes every second or minute would drown everything else: telemetry, what was scored of it, and time.
const ROUTINE: [&str; 3] = ["batch.received", "cohort.scored", "time.passed"];
/// Pages looked back through for them.
const LOOK_BACK: usize = 10;
/// Events shown before what comes new.
const BACK: u64 = 20;

#[derive(Subcommand)]
pub enum Verb {
    /// Follow the log: what was decided, sent, confirmed and ordered
    #[command(before_help = "  $ sluice log tail --rollout 118")]
    Tail(TailArgs),
    /// Show one event in full
    #[command(before_help = "  $ sluice log show 48913 --why")]
    Show {
        /// Number of the event
        #[arg(value_name = "SEQ")]
        seq: EventSeq,
        /// Show what led to it, too
        #[arg(long)]
        why: bool,
    },
    /// Walk the whole hash chain and name the first bad record
    #[command(before_help = "  $ sluice log verify")]
    Verify(HistoryArgs),
    /// Write the log, or a part, to one file that can be checked and replayed anywhere
    #[command(before_help = "  $ sluice log export incident.sluice --from 47010 --to 48919")]
    Export(ExportArgs),
    /// Make a data folder of an exported file
    #[command(before_help = "  $ sluice log import all.sluice --data ./restored")]
    Import {
        /// The exported file
        file: PathBuf,
        /// The new folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

/// Which recorded history to open.
#[derive(clap::Args, Clone, Debug)]
pub struct HistoryArgs {
    /// The log's folder; no sluice may be running on it
    #[arg(long, env = "SLUICE_DATA", default_value = "./sluice-data", value_name = "DIR")]
    pub data: PathBuf,
    /// An exported file instead
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl HistoryArgs {
    /// Opens the folder or the file.
    pub fn open(&self) -> Result<History, CliError> {
        let path = self.file.as_deref().unwrap_or(&self.data);
        // Opening makes sure that writes reach the disk; a file does not need that, an empty one least of all.
        if self.file.is_none() && !path.is_dir() {
            return Err(crate::shell::log::LogError::NoLog(path.to_owned()).into());
        }
        Ok(History::open(path)?)
    }
}

#[derive(clap::Args)]
pub struct TailArgs {
    /// Start at this event [default: the last 20]
    #[arg(long, value_name = "SEQ")]
    from: Option<EventSeq>,
    /// Stop at the end instead of waiting for more
    #[arg(long)]
    until_end: bool,
    /// Only this rollout: its id, a suffix of it, or @last
    #[arg(long, value_name = "ID")]
    rollout: Option<String>,
    /// Telemetry, the scores of each minute and ticks too
    #[arg(short, long)]
    all: bool,
    /// Read this folder instead of asking a running sluice
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct ExportArgs {
    /// Where to; - for standard output
    file: PathBuf,
    /// The log's folder; no sluice may be running on it
    #[arg(long, env = "SLUICE_DATA", default_value = "./sluice-data", value_name = "DIR")]
    data: PathBuf,
    /// First event
    #[arg(long, default_value_t = 1, value_name = "SEQ")]
    from: EventSeq,
    /// Last event [default: the newest]
    #[arg(long, value_name = "SEQ")]
    to: Option<EventSeq>,
}

pub async fn run(common: &Common, verb: Verb) -> Result<u8, CliError> {
    match verb {
        Verb::Tail(args) => match &args.data {
            Some(data) => tail_folder(common, &args, data),
            None => tail(common, args).await,
        },
        Verb::Show { seq, why } => show(common, seq, why).await,
        Verb::Verify(history) => verify(common, &history),
        Verb::Export(args) => write_export(common, &args),
        Verb::Import { file, data } => {
            let options = OpenOptions::default();
            let done = import(&file, &data, &options)?;
            report(common, &done, &format!("imported into {}", data.display()))
        }
    }
}

async fn tail(common: &Common, args: TailArgs) -> Result<u8, CliError> {
    let client = common.client().await?;
    let mut from = match args.from {
        Some(from) => from,
        // Of one rollout everything is of interest.
        None if args.rollout.is_some() => 1,
        None => {
            let head = client.call("ls", &json!({})).await?.number("seq").unwrap_or(0);
            start(&client, head, args.all).await?
        }
    };
    loop {
        let answer = page(&client, from, args.rollout.as_deref()).await?;
        let events = answer.value["events"].as_array().ok_or_else(|| CliError::answer("it has no events"))?;
        let mut told = events.iter().filter(|event| told(args.all, event["kind"].as_str()));
        told.try_for_each(|event| print(common.output, event))?;
        let next = answer.number("next").unwrap_or(from);
        // A page may hold nothing that was asked for and still not be the last.
        if next > from {
            from = next;
        } else if args.until_end {
            return Ok(exit::OK);
        } else {
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

fn told(all: bool, kind: Option<&str>) -> bool {
    all || kind.is_none_or(|kind| !ROUTINE.contains(&kind))
}

/// Where the last [`BACK`] events that are told begin. Looks back a few pages, no further.
async fn start(client: &Client, head: EventSeq, all: bool) -> Result<EventSeq, CliError> {
    let (mut from, mut found) = (head + 1, Vec::new());
    for _ in 0..LOOK_BACK {
        let before = from.saturating_sub(PAGE).max(1);
        let answer = page(client, before, None).await?;
        let events = answer.value["events"].as_array().ok_or_else(|| CliError::answer("it has no events"))?;
        let told = events.iter().filter(|event| told(all, event["kind"].as_str()));
        let seqs = told.filter_map(|event| event["seq"].as_u64()).filter(|seq| *seq < from);
        found.splice(0..0, seqs);
        from = before;
        if found.len() as u64 >= BACK || from == 1 {
            break;
        }
    }
    let skip = found.len().saturating_sub(BACK as usize);
    Ok(found.get(skip).copied().unwrap_or(from))
}

async fn page(client: &Client, from: EventSeq, rollout: Option<&str>) -> Result<Answer, CliError> {
    let mut body = json!({"from": from, "limit": PAGE});
    if let Some(rollout) = rollout {
        body["rollout"] = rollout.into();
    }
    client.call("events", &body).await
}

fn print(format: Format, event: &Value) -> Result<(), CliError> {
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    match format {
        Format::Json | Format::Jsonl => output::json(&event.to_string()),
        Format::Plain => {
            output::lines(&format!("{}\t{}\t{}\t{}", event["seq"], text("at"), text("kind"), text("text")))
        }
        Format::Table => {
            let seq = count(event["seq"].as_u64().unwrap_or_default());
            output::lines(&format!("{seq:>9} {} {}", text("at"), text("text")))
        }
    }
}

/// The same lines from a folder.
fn tail_folder(common: &Common, args: &TailArgs, data: &Path) -> Result<u8, CliError> {
    let log = open(data)?;
    // Without a beginning, all is read and the end is shown: of a whole rollout, or the last few.
    let keep = if args.from.is_none() && args.rollout.is_none() { BACK as usize } else { usize::MAX };
    let mut shown = VecDeque::new();
    for envelope in log.reader().scan(args.from.unwrap_or(1).max(1))? {
        let envelope = envelope?;
        let event = &envelope.event;
        let wanted =
            |id: &str| event.rollout().is_some_and(|r| r.0 == id || r.0.ends_with(&format!("-{id}")));
        if !told(args.all, Some(event.kind())) || args.rollout.as_deref().is_some_and(|id| !wanted(id)) {
            continue;
        }
        if shown.len() == keep {
            shown.pop_front();
        }
        shown.push_back(json!({
            "seq": envelope.seq,
            "at": rfc3339(envelope.at),
            "at_ms": envelope.at.0,
            "kind": event.kind(),
            "text": line::describe(event),
            "event": event,
        }));
    }
    shown.iter().try_for_each(|event| print(common.output, event))?;
    Ok(exit::OK)
}

async fn show(common: &Common, seq: EventSeq, why: bool) -> Result<u8, CliError> {
    let answer = common.client().await?.call("event", &json!({"seq": seq, "why": why})).await?;
    if common.output.is_json() {
        output::json(&answer.text)?;
        return Ok(exit::OK);
    }
    // What led to it comes first: a chain reads downwards, as the log does.
    let led = answer.value["why"].as_array().map(Vec::as_slice).unwrap_or_default();
    for event in led.iter().filter(|event| event["seq"].as_u64().is_some_and(|other| other < seq)) {
        print(common.output, event)?;
    }
    print(common.output, &answer.value)?;
    if !why {
        let whole = serde_json::to_string_pretty(&answer.value["event"]).map_err(CliError::answer)?;
        output::lines(&whole)?;
    }
    Ok(exit::OK)
}

fn verify(common: &Common, args: &HistoryArgs) -> Result<u8, CliError> {
    let history = args.open()?;
    let total = match &history {
        History::Folder(log) => log.head().seq,
        History::File(export) => export.last - export.first + 1,
    };
    let mut scan = history.scan()?;
    let mut progress = Progress::new(common.quiet);
    let mut events = 0;
    // What begins in the middle says too little about what came before.
    let mut invariants = (scan.head().seq == 0).then(Checker::default);
    for envelope in scan.by_ref() {
        let e = envelope?;
        if let Some(invariants) = &mut invariants {
            invariants.next(e.seq, e.at, &e.event).map_err(broken)?;
        }
        events += 1;
        // Looking at the clock costs as much as a record.
        if events % 4_096 == 0 {
            progress.show(|| format!("verifying {} of {} events", count(events), count(total)));
        }
    }
    drop(progress);
    let what = match invariants {
        Some(_) => "hash chain intact, every invariant holds",
        None => "hash chain intact",
    };
    report(common, &Verified { events, head: scan.head() }, what)
}

fn broken(violation: Violation) -> CliError {
    let help = "the log is what was written, but sluice should never have written it: please report it, with the \
                output of `sluice log show` for this event";
    CliError::new(exit::CHECK_FAILED, Code::PromiseBroken, violation.to_string()).help(help)
}

fn report(common: &Common, done: &Verified, what: &str) -> Result<u8, CliError> {
    let Verified { events, head } = done;
    match common.output {
        Format::Json | Format::Jsonl => {
            let body = json!({"ok": true, "events": events, "head": {"seq": head.seq, "at_ms": head.at.0, "hash": head.hash}});
            output::json(&body.to_string())?;
        }
        Format::Plain => output::lines(&format!("{events}\t{}\t{}", head.seq, head.hash))?,
        Format::Table => {
            output::lines(&format!("ok  {} events, {what}, head {}", count(*events), head.hash.short()))?
        }
    }
    Ok(exit::OK)
}

fn open(data: &Path) -> Result<Log, CliError> {
    let options = OpenOptions { create: false, ballast: 0, ..OpenOptions::default() };
    Ok(Log::open(data, &options)?.log)
}

fn write_export(common: &Common, args: &ExportArgs) -> Result<u8, CliError> {
    let log = open(&args.data)?;
    let range = args.from..=args.to.unwrap_or(EventSeq::MAX);
    if range.is_empty() {
        return Err(CliError::usage(format!("--from {} is after --to {}", range.start(), range.end())));
    }
    if args.file.as_os_str() == "-" {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        export(&log.reader(), log.id(), range, &mut out)?;
        return Ok(exit::OK);
    }
    let name = args.file.display().to_string();
    if args.file.is_file() {
        let error = CliError::new(
            exit::REFUSED,
            Code::FileUnread,
            format!("{name} exists; an export does not replace a file"),
        );
        return Err(error.help("choose another name, or remove it first"));
    }
    let created = !args.file.exists();
    let failed = |error: std::io::Error| CliError::file(format!("writing {name}"), &error);
    let file = File::options().write(true).create(true).truncate(true).open(&args.file).map_err(failed)?;
    let mut out = std::io::BufWriter::new(file);
    let done = export(&log.reader(), log.id(), range, &mut out).map_err(CliError::from).and_then(|done| {
        out.flush().map_err(failed)?;
        // What is no file of its own, a pipe or a device, cannot be synced.
        if created { out.get_ref().sync_all().map_err(failed).map(|()| done) } else { Ok(done) }
    });
    if done.is_err() && created {
        // Half an export must not lie around as a whole one. The first error says more than a second.
        let _ = std::fs::remove_file(&args.file);
    }
    let done = done?;
    // Read back: a backup nobody has read is none.
    if created {
        Export::open(&args.file)?.scan().verify()?;
    }
    report(common, &done, &format!("written to {name} and read back"))
}
