//! The daemon beside the limit of the machine, both measured in this run: one table.
//!
//! A sample is one value of one metric of one request. Needs nats-server (`SLUICE_NATS_SERVER`, or on the path) and
//! `setpriv`. Environment: `SLUICE_BENCH_SECONDS` each flow of telemetry lasts (10), `SLUICE_BENCH_BREACHES` (250),
//! `SLUICE_BENCH_ROWS` the letters of the rows to measure (abcdef), `SLUICE_BENCH_SYNC` the broker's `sync_interval`.

#[path = "../../tests/support/mod.rs"]
mod support;

mod inside;
mod peer;
mod telemetry;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inside::{Inside, PlainFile};
use peer::{Peer, Sender, Sent};
use sluice::core::state::State;
use sluice::replay::Verifier;
use sluice::shell::clock;
use sluice::shell::log::{Log, OpenOptions};
use sluice::wire::envelope::header;
use support::{Daemon, NatsServer};
use telemetry::Pool;
use tempfile::TempDir;

const POLICY: &str = include_str!("../policy.yaml");
/// Samples in the log that is recovered after a kill.
const RECOVERED: f64 = 10e6;
const MB: f64 = 1024.0 * 1024.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// MessagePack columns, as sluice's own senders write them.
    Columns,
    Json,
}

impl Form {
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Columns => "application/msgpack",
            Form::Json => "application/json",
        }
    }
}

struct Settings {
    length: Duration,
    breaches: usize,
    rows: String,
    sync: String,
}

fn main() {
    if peer::be_echo() {
        return;
    }
    let var = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let number = |name: &str, usual: &str| var(name, usual).parse().unwrap_or_else(|e| panic!("{name}: {e}"));
    let settings = Settings {
        length: Duration::from_secs(number("SLUICE_BENCH_SECONDS", "10")),
        breaches: number("SLUICE_BENCH_BREACHES", "250") as usize,
        rows: var("SLUICE_BENCH_ROWS", "abcdef"),
        sync: var("SLUICE_BENCH_SYNC", "2m"),
    };
    println!(
        "a sample is one value of one metric of one request; messages of {}; the broker syncs its files: {}; load {}",
        telemetry::BATCH,
        settings.sync,
        load()
    );
    let mut table = Table(Vec::new());
    let has = |row: char| settings.rows.contains(row);
    let mut rate = 4e6;
    if has('a') {
        rate = ingest(&settings, &mut table);
    }
    if has('b') {
        latency(&settings, rate, &mut table);
    }
    if has('e') {
        recovery(&settings, &mut table);
    }
    println!("load {}", load());
    table.print();
}

/// A folder with the policies of the benchmark, beside what else is put there.
fn folder() -> TempDir {
    let dir = TempDir::new().expect("a temporary folder");
    let policies = dir.path().join("policies");
    fs::create_dir(&policies).expect("a folder");
    fs::write(policies.join("bench.yaml"), POLICY).expect("a policy");
    // Trips on what 16 samples can hold.
    let breach = POLICY.replace("name: bench", "name: breach").replace("of_last: 200", "of_last: 50");
    fs::write(policies.join("breach.yaml"), breach).expect("a policy");
    dir
}

fn broker(settings: &Settings) -> NatsServer {
    NatsServer::start_syncing(&settings.sync)
}

fn daemon(nats: &NatsServer, dir: &TempDir) -> Daemon {
    Daemon::start(Some(nats), Some(&dir.path().join("policies")))
}

/// a, c, d, f. Returns samples a second of columns.
fn ingest(settings: &Settings, table: &mut Table) -> f64 {
    let mut of_columns = 0.0;
    for (form, goal) in [(Form::Columns, 4e6), (Form::Json, 1e6)] {
        let pool = Arc::new(Pool::new(form));
        let flow = |url: &str| -> Sent {
            let peer = Peer::join(url);
            peer.start_rollouts("bench", &["bench".into()]);
            Sender::start(url, &pool, settings.length, None).finish()
        };
        let (mut file, mut log) = (0.0, 0.0);
        for plain in [true, false] {
            let (nats, dir) = (broker(settings), folder());
            let data = dir.path().join("data");
            let inside = if plain {
                Inside::start(&data, &nats.url(), |log| PlainFile::new(dir.path(), log))
            } else {
                Inside::start(&data, &nats.url(), |log| log)
            };
            *(if plain { &mut file } else { &mut log }) = flow(&nats.url()).rate();
            inside.stop();
        }
        let (nats, dir) = (broker(settings), folder());
        let mut daemon = daemon(&nats, &dir);
        let sent = flow(&nats.url());
        let resident = peak(daemon.pid());
        println!(
            "{form:?}: cpu seconds of daemon {:.2}, of {:.2} s; load {}",
            cpu(daemon.pid()),
            sent.seconds,
            load()
        );
        assert!(daemon.terminate().success());
        let verified = replay(&daemon.data(), sent);
        println!("{form:?}: {verified}");
        let what = format!("a. {form:?}, samples/s durable");
        let limit = format!("{} plain file", millions(file));
        table.row(
            &what,
            millions(sent.rate()),
            &limit,
            sent.rate() / file,
            &format!(">= {} M", goal / 1e6),
            sent.rate() >= goal,
        );
        let what = format!("a. {form:?}, both in one process");
        table.row(&what, millions(log), &limit, log / file, ">= 0.20 x", log / file >= 0.20);
        if form == Form::Columns {
            of_columns = sent.rate();
            let flat = replay_limit(&daemon.data(), dir.path());
            let (measured, limit) = (sent.samples as f64 / verified.seconds, sent.samples as f64 / flat);
            let goal = ">= 0.3 x, 10 M";
            table.row(
                "c. replay verified, samples/s",
                millions(measured),
                &format!("{} flat file", millions(limit)),
                measured / limit,
                goal,
                measured >= 0.3 * limit && measured >= 10e6,
            );
            let events = verified.events as f64;
            println!("c. {:.0} events/s", events / verified.seconds);
            let disk = size(&daemon.data().join("sled")) as f64 / sent.samples as f64;
            let encoded = pool.message_bytes();
            table.row(
                "d. bytes on disk of a sample",
                format!("{disk:.2} B"),
                &format!("{encoded:.2} B encoded"),
                disk / encoded,
                "<= 9 B",
                disk <= 9.0,
            );
        }
        let what = format!("f. resident at full flow, {form:?}");
        table.row(&what, format!("{:.0} MB", resident / MB), "-", 0.0, "<= 160 MB", resident <= 160.0 * MB);
    }
    of_columns
}

/// b, b'.
fn latency(settings: &Settings, rate: f64, table: &mut Table) {
    let (nats, dir) = (broker(settings), folder());
    let daemon = daemon(&nats, &dir);
    let peer = Peer::join(&nats.url());
    let services =
        |with: &str| -> Vec<String> { (0..settings.breaches).map(|i| format!("{with}-{i}")).collect() };
    let core = Quantiles::of(peer.echo(&nats.url(), settings.breaches * 2, false));
    let stream = Quantiles::of(peer.echo(&nats.url(), settings.breaches * 2, true));
    let disk = Quantiles::of(syncs(dir.path(), settings.breaches));
    println!("b. a group synced to a plain file: p50 {}, p99 {}", millis(disk.p50), millis(disk.p99));
    let idle = services("idle");
    peer.start_rollouts("breach", &idle);
    let breach = Quantiles::of(peer.breach(&idle));
    for (name, is, core, stream, goal) in
        [("p50", breach.p50, core.p50, stream.p50, 2.5), ("p99", breach.p99, core.p99, stream.p99, 3.0)]
    {
        let what = format!("b. breach to command, {name}");
        table.row(
            &what,
            millis(is),
            &format!("{} NATS echo", millis(core)),
            is / core,
            &format!("<= {goal} x"),
            is <= goal * core,
        );
        table.row(&what, millis(is), &format!("{} stream echo", millis(stream)), is / stream, "-", true);
    }
    peer.start_rollouts("bench", &["bench".into()]);
    let busy = services("busy");
    peer.start_rollouts("breach", &busy);
    let pool = Arc::new(Pool::new(Form::Columns));
    let sender = Sender::start(&nats.url(), &pool, Duration::from_secs(3600), Some(rate / 2.0));
    std::thread::sleep(Duration::from_secs(1));
    let core = Quantiles::of(peer.echo(&nats.url(), settings.breaches, false));
    let breach = Quantiles::of(peer.breach(&busy));
    let sent = sender.stop();
    println!("b'. beside {} samples/s; load {}", millions(sent.rate()), load());
    for (name, is, core, goal, met) in [
        ("p50", breach.p50, core.p50, "-", true),
        ("p99", breach.p99, core.p99, "<= 10 ms", breach.p99 <= 10.0),
    ] {
        let what = format!("b'. the same at half of a, {name}");
        table.row(&what, millis(is), &format!("{} NATS echo", millis(core)), is / core, goal, met);
    }
    drop(daemon);
}

/// What it takes to append as much as a decision to a plain file and to have it on disk; ms.
fn syncs(dir: &Path, n: usize) -> Vec<f64> {
    let mut file = File::create(dir.join("synced")).expect("a file");
    let sync = |_| {
        std::thread::sleep(Duration::from_millis(2));
        let write = || file.write_all(&[7; 2_400]).and_then(|()| file.sync_data()).expect("write");
        timed(write).1 * 1e3
    };
    (0..n).map(sync).collect()
}

/// e.
fn recovery(settings: &Settings, table: &mut Table) {
    let (nats, dir) = (broker(settings), folder());
    let mut daemon = daemon(&nats, &dir);
    let peer = Peer::join(&nats.url());
    peer.start_rollouts("bench", &["bench".into()]);
    let pool = Arc::new(Pool::new(Form::Columns));
    // At a rate it can hold, so that the last sample is sent at the end.
    let sent =
        Sender::start(&nats.url(), &pool, Duration::from_secs_f64(RECOVERED / 2e6), Some(2e6)).finish();
    daemon.kill9();
    let copy = dir.path().join("copy");
    copy_all(&daemon.data().join("sled"), &copy);
    let (_, open) = timed(|| sled::Config::new().path(&copy).open().expect("sled opens"));
    let (_, ready) = timed(|| {
        daemon.restart();
        let (status, _) = daemon.get("/readyz");
        assert_eq!(status, 200);
    });
    let what = format!("e. kill -9 to ready, {:.1} M samples", sent.samples as f64 / 1e6);
    table.row(
        &what,
        format!("{ready:.3} s"),
        &format!("{open:.3} s sled open"),
        ready / open,
        "<= 0.6 s",
        ready <= 0.6,
    );
}

struct Replayed {
    events: u64,
    seconds: f64,
    text: String,
}

impl std::fmt::Display for Replayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks the whole chain and decides everything again.
fn replay(data: &Path, sent: Sent) -> Replayed {
    let log = open(data);
    let mut verifier = Verifier::default();
    let (_, seconds) = timed(|| {
        for envelope in log.reader().scan(1).expect("scan") {
            let e = envelope.expect("a sound log");
            verifier.next(e.seq, e.at, &e.event).expect("the same conclusions");
        }
        verifier.settled().expect("nothing more to conclude");
    });
    let counts = verifier.counts;
    assert_eq!(counts.observations, sent.samples, "every sample that was sent is in the log");
    let text = format!(
        "all {} samples recorded; {} events, {} conclusions replayed and verified in {seconds:.2} s",
        counts.observations, counts.events, counts.conclusions
    );
    Replayed { events: counts.events, seconds, text }
}

/// Reads the same records from a flat file and folds them, nothing checked, nothing decided; seconds.
fn replay_limit(data: &Path, dir: &Path) -> f64 {
    let path = dir.join("flat");
    {
        let log = open(data);
        let mut file = std::io::BufWriter::new(File::create(&path).expect("a file"));
        for page in log.reader().pages_from(1).expect("pages") {
            file.write_all(&page.expect("a page").bytes).expect("write");
        }
        file.flush().expect("write");
    }
    let (_, seconds) = timed(|| {
        let (mut state, mut file) = (State::default(), File::open(&path).expect("the file"));
        let (mut bytes, mut start) = (Vec::new(), 0);
        loop {
            bytes.drain(..start);
            start = 0;
            if (&mut file).take(1 << 20).read_to_end(&mut bytes).expect("read") == 0 && bytes.is_empty() {
                break;
            }
            while let Ok(record) = header(&bytes, &mut start) {
                state.apply(record.seq, record.at, &record.event().expect("an event"));
            }
        }
    });
    seconds
}

fn open(data: &Path) -> Log {
    Log::open(data, &OpenOptions { create: false, ballast: 0, ..OpenOptions::default() })
        .expect("the log opens")
        .log
}

struct Quantiles {
    p50: f64,
    p99: f64,
}

impl Quantiles {
    fn of(mut took: Vec<f64>) -> Quantiles {
        took.sort_by(f64::total_cmp);
        Quantiles { p50: took[took.len() / 2], p99: took[took.len() * 99 / 100] }
    }
}

fn millions(rate: f64) -> String {
    format!("{:.2} M", rate / 1e6)
}

fn millis(ms: f64) -> String {
    format!("{ms:.3} ms")
}

/// Most memory a process has had, bytes.
fn peak(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
}

/// Seconds of CPU a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields[i].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(1).collect()
}

/// Bytes of disk a folder takes.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let meta = entry.metadata().expect("an entry");
            if meta.is_dir() { size(&entry.path()) } else { meta.blocks() * 512 }
        })
        .sum()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.metadata().expect("an entry").is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copy");
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start: Instant = clock::monotonic();
    let result = work();
    (result, (clock::monotonic() - start).as_secs_f64())
}

struct Table(Vec<[String; 6]>);

impl Table {
    fn row(&mut self, what: &str, measured: String, limit: &str, ratio: f64, goal: &str, met: bool) {
        let ratio = if ratio > 0.0 { format!("{ratio:.2}") } else { "-".into() };
        let met = if goal == "-" {
            "-"
        } else if met {
            "met"
        } else {
            "MISSED"
        };
        let row = [what.into(), measured, limit.into(), ratio, goal.into(), met.into()];
        println!("{}", row.join("  "));
        self.0.push(row);
    }

    fn print(&self) {
        println!();
        let head = ["what", "measured", "limit", "ratio", "goal", ""].map(str::to_owned);
        for [what, measured, limit, ratio, goal, met] in std::iter::once(&head).chain(&self.0) {
            println!("{what:<36} {measured:>10}  {limit:>22} {ratio:>6}  {goal:<14} {met}");
        }
    }
}
