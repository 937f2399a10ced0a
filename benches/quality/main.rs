//! Whether decisions are as good as promised: simulated streams, judged by the production engine as often as it can
//! be looked at, beside the goals. One table; the exit code tells of a goal missed by more than three standard errors.
//!
//! `cargo bench --bench quality -- [--runs N] [--json FILE] [--only PART]`, or what the comparison with other methods
//! and the pictures read: `--stream NAME --share Q` or `--trace NAME --share Q`, with `--requests N` of each, to standard output.

mod law;
mod scenario;
mod stream;
mod table;
mod wald;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use scenario::Scenario;
use stream::{At, Judge, Outcome, Request, Stream};
use table::{Met, Row};

struct Arguments {
    runs: u64,
    json: Option<String>,
    only: String,
    stream: Option<String>,
    trace: Option<String>,
    share: f64,
    requests: usize,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        runs: 1_000,
        json: None,
        only: String::new(),
        stream: None,
        trace: None,
        share: 0.05,
        requests: usize::MAX,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        // What `cargo bench` adds by itself.
        if name == "--bench" {
            continue;
        }
        let value = given.next().ok_or(format!("{name} lacks a value"))?;
        let number = |value: &str| value.parse::<f64>().map_err(|_| format!("{name}: {value} is no number"));
        match name.as_str() {
            "--runs" => arguments.runs = number(&value)?.max(1.0) as u64,
            "--json" => arguments.json = Some(value),
            "--only" => arguments.only = value,
            "--stream" => arguments.stream = Some(value),
            "--trace" => arguments.trace = Some(value),
            "--requests" => arguments.requests = number(&value)? as usize,
            "--share" => arguments.share = number(&value)?,
            _ => return Err(format!("{name} is no argument; see the head of benches/quality/main.rs")),
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let done = arguments().and_then(|arguments| match (&arguments.stream, &arguments.trace) {
        (Some(name), _) => find(name, arguments.share)
            .and_then(|scenario| {
                streams(&scenario, arguments.runs, arguments.requests).map_err(|e| e.to_string())
            })
            .map(|()| true),
        (_, Some(name)) => find(name, arguments.share)
            .and_then(|scenario| {
                traces(&scenario, arguments.runs, arguments.requests).map_err(|e| e.to_string())
            })
            .map(|()| true),
        _ => measure(&arguments).map_err(|e| e.to_string()),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("quality: {why}");
            ExitCode::from(2)
        }
    }
}

fn find(name: &str, share: f64) -> Result<Scenario, String> {
    let found = scenario::all().into_iter().find(|s| s.name == name && s.share == share);
    found.ok_or(format!("no stream is called {name:?} at a canary share of {share}"))
}

/// Runs every scenario, prints its lines as they come; whether all goals were met.
fn measure(arguments: &Arguments) -> io::Result<bool> {
    let mut json = arguments.json.as_ref().map(std::fs::File::create).transpose()?;
    println!("{}", Row::head());
    let (mut early, mut missed, mut asked) = (None, 0, 0);
    for scenario in scenario::all().iter().filter(|s| s.name.contains(&arguments.only)) {
        let runs = ((arguments.runs as f64 * scenario.weight) as u64).max(2);
        let outcomes = in_parallel(runs, |number| stream::run(scenario, number));
        for row in table::rows(scenario, &outcomes, &mut early) {
            println!("{}", row.line());
            asked += u32::from(row.limit.is_some());
            missed += u32::from(row.met() == Met::No);
            if let Some(json) = &mut json {
                writeln!(json, "{}", row.json())?;
            }
        }
    }
    println!(
        "{asked} lines with a limit, {missed} missed. allowed: the limit and 3 s.e., which is what counts as missed; met*: \
         above the limit, and allowed. The s.e. of a share is taken at its limit, where that is larger. Canary observations count from the first bet: the reference before it \
         takes 500 of the baseline (of p99 2,000, of pairs 50), and what the canary is sent meanwhile."
    );
    Ok(missed == 0)
}

/// `work(0)`, .. `work(runs - 1)` in that order, on every core. A result depends on its number alone.
fn in_parallel<T: Send>(runs: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, done) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut mine = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= runs {
                        break;
                    }
                    mine.push((number, work(number)));
                }
                done.lock().expect("no thread panicked").extend(mine);
            });
        }
    });
    let mut all = done.into_inner().expect("no thread panicked");
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Streams for other methods, cut after `requests`, with what the engine said of them: `b` for zeros and ones or `v` for
/// other values, then, little-endian, for each stream: u32 requests, i64 request and i64 canary observations at which harm
/// reached 20, the same for safety (-1: not among these requests), a byte for each request (bit 0: canary, bit 1: the
/// value if `b`), and for `v` the values as f64.
fn streams(scenario: &Scenario, runs: u64, requests: usize) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let binary = scenario.phases.iter().all(|p| stream::is_binary(p.baseline) && stream::is_binary(p.canary));
    out.write_all(if binary { b"b" } else { b"v" })?;
    for number in 0..runs {
        let mut stream = Stream::new(scenario, number);
        let all: Vec<Request> = stream.by_ref().take(requests).collect();
        out.write_all(&(all.len() as u32).to_le_bytes())?;
        let Outcome { harm, safe, .. } = stream::run(scenario, number);
        let number = |n: Option<u64>| n.map_or(-1, |n| n as i64);
        for at in [harm[0], safe[0]].map(|at| at.filter(|at| at.request <= requests as u64)) {
            out.write_all(&number(at.map(|at: At| at.request)).to_le_bytes())?;
            out.write_all(&number(at.map(|at| at.canary)).to_le_bytes())?;
        }
        for Request { canary, x, .. } in &all {
            let one = binary && *x >= 0.5;
            out.write_all(&[u8::from(*canary) | u8::from(one) << 1])?;
        }
        if !binary {
            for request in &all {
                out.write_all(&request.x.to_le_bytes())?;
            }
        }
    }
    out.flush()
}

/// The evidence of stream 0 to `runs - 1` after every block: stream, request, canary observations, ln harm, ln safe.
fn traces(scenario: &Scenario, runs: u64, requests: usize) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    writeln!(out, "stream,request,canary,ln_harm,ln_safe")?;
    for number in 0..runs {
        let mut stream = Stream::new(scenario, number);
        let mut judge = Judge::new(&scenario.guardrail, scenario.share, &stream.reference);
        let mut n = 0;
        for request in stream.by_ref().take(requests) {
            n += 1;
            if judge.take(n, request) {
                let e = &judge.monitor.evidence;
                writeln!(out, "{number},{n},{},{:.4},{:.4}", e.canary.n, e.harm.ln(), e.safe.ln())?;
            }
        }
    }
    out.flush()
}
