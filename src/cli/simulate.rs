//! `sluice simulate`: the same core, ledger and wire formats through made-up trouble, every promise checked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::error::CliError;
use super::{Common, exit, output};
use crate::core::policy::guardrail::GuardrailKind;
use crate::core::text::count;
use crate::sim::coverage::rare::Rare;
use crate::sim::history::{History, run};
use crate::sim::minimize::shortest;
use crate::sim::plan::{EVENTS_MIN, Fault, Plan, Truth};

/// Events of a history that counts as long.
const LONG: u64 = 1_000;
/// Histories of the usual size after which every rare state must have been reached.
const ENOUGH: u64 = 2_000;

#[derive(clap::Args)]
pub struct Args {
    /// Seeds to run, one history each
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = range, conflicts_with = "seed")]
    seeds: Range<u64>,
    /// One seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Kinds of trouble that may happen, separated by commas; each seed meets a random part of them [default: all]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    faults: Option<Vec<Fault>>,
    /// Events that a history goes on for, if it does not end refusing a damaged disk; a short one meets its trouble more closely. Part of what a seed stands for
    #[arg(long, value_name = "N", default_value_t = EVENTS_MIN, value_parser = clap::value_parser!(u64).range(100..=100_000))]
    events: u64,
    /// Of the things that happen from outside, only these, by number: 3,17,20-40
    #[arg(long, value_name = "LIST", requires = "seed")]
    only: Option<String>,
    /// Print one line per event
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Look for the shortest history that still fails
    #[arg(long)]
    minimize: bool,
    /// Histories at a time [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let expected = || format!("{text} is no range of seeds; use A..B, for example 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(expected)?;
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from < to => Ok(from..to),
        _ => Err(expected()),
    }
}

impl Args {
    fn plan(&self, seed: u64) -> Plan {
        Plan::draw(seed, self.events, self.faults.as_deref().unwrap_or(Fault::ALL))
    }

    /// The command that runs one seed again.
    fn again(&self, seed: u64) -> String {
        let faults = self.faults.as_ref().map(|faults| {
            let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
            format!(" --faults {}", names.join(","))
        });
        let size =
            if self.events == EVENTS_MIN { String::new() } else { format!(" --events {}", self.events) };
        format!("sluice simulate --seed {seed}{size}{}", faults.unwrap_or_default())
    }
}

/// Everything that a range of seeds came to.
#[derive(Default)]
struct Sum {
    histories: u64,
    events: u64,
    /// Histories of at least [`LONG`] events; the others ended early, refusing a damaged disk.
    long: u64,
    rare: BTreeMap<Rare, u64>,
    /// By the truth: judged, taken back by evidence of harm, promoted to all traffic by evidence of safety.
    judged: BTreeMap<(GuardrailKind, Truth), [u64; 4]>,
    failed: Vec<History>,
    failures: u64,
}

impl Sum {
    fn add(&mut self, history: History) {
        self.histories += 1;
        self.events += history.events;
        self.long += u64::from(history.events >= LONG);
        history.rare.iter().for_each(|state| *self.rare.entry(*state).or_default() += 1);
        for judged in &history.judged {
            let of = self.judged.entry((judged.kind, judged.truth)).or_default();
            of[0] += 1;
            of[1] += u64::from(judged.harm);
            of[2] += u64::from(judged.full.is_some());
            of[3] += u64::from(judged.full == Some(true));
        }
        if history.failure.is_some() {
            self.failures += 1;
            self.failed.push(history);
            // The lowest seeds, whatever finished first.
            self.failed.sort_by_key(|history| history.seed);
            self.failed.truncate(5);
        }
    }

    fn missing(&self) -> Vec<Rare> {
        Rare::ALL.iter().copied().filter(|state| !self.rare.contains_key(state)).collect()
    }

    /// Shares that evidence got wrong: what it is about, how many of how many, and whether that is within the
    /// twentieth that policies allow by three standard errors.
    fn wrong(&self) -> Vec<(String, u64, u64, bool)> {
        let of = |kind, truths: &[Truth]| {
            let found = truths.iter().filter_map(|truth| self.judged.get(&(kind, *truth)));
            found.fold([0; 4], |sum, of| std::array::from_fn(|i| sum[i] + of[i]))
        };
        let mut wrong = Vec::new();
        let mut share = |what: String, [n, k]: [u64; 2]| {
            let allowed = 0.05 * n as f64;
            // One more: a few rollouts prove nothing.
            let within = k as f64 <= allowed + 3.0 * (allowed * 0.95).sqrt() + 1.0;
            wrong.push((what, k, n, within));
        };
        let all = GuardrailKind::Proportion;
        let [n, harm, ..] = of(all, &[Truth::Same]);
        share("healthy canaries taken back by evidence of harm".into(), [n, harm]);
        let [_, _, n, full] = of(all, &[Truth::Beyond]);
        share("canaries beyond a limit given all traffic".into(), [n, full]);
        use GuardrailKind::{Count, Mean, Missing, Paired, Quantile, Score, Split};
        for kind in [Mean, Score, Quantile, Paired, Count, Split, Missing] {
            let name = kind.name();
            // Exactly at its limit a canary is allowed to neither fail nor be shown safe.
            let [n, failed, ..] = of(kind, &[Truth::Within, Truth::AtLimit]);
            share(format!("{name}: canaries within the limit that failed by it"), [n, failed]);
            if kind.shows_safety() && kind != Mean {
                let [_, _, n, full] = of(kind, &[Truth::Beyond, Truth::AtLimit]);
                share(format!("{name}: canaries not within the limit given all traffic"), [n, full]);
            }
        }
        wrong
    }
}

pub fn main(common: &Common, args: &Args) -> Result<u8, CliError> {
    match args.seed {
        Some(seed) => one(common, args, seed),
        None => many(common, args),
    }
}

fn one(common: &Common, args: &Args, seed: u64) -> Result<u8, CliError> {
    let plan = args.plan(seed);
    let skip = match &args.only {
        None => BTreeSet::new(),
        Some(list) => {
            let only = numbers(list)?;
            (0..plan.stimuli.len()).filter(|i| !only.contains(i)).collect()
        }
    };
    let history = run(&plan, &skip, args.trace);
    if args.trace {
        output::lines(&history.trace.join("\n"))?;
    }
    if common.output.is_json() {
        output::json(
            &json!({
                "seed": seed, "events": history.events, "head": history.head.to_string(),
                "failure": history.failure.as_ref().map(ToString::to_string),
            })
            .to_string(),
        )?;
    } else if history.failure.is_none() {
        output::lines(&format!(
            "seed {seed}: {} events, head {}",
            count(history.events),
            history.head.short()
        ))?;
    }
    if history.failure.is_none() {
        return Ok(exit::OK);
    }
    explain(args, &plan, &history)?;
    Ok(exit::CHECK_FAILED)
}

/// Says what broke, by what, and how to see it again.
fn explain(args: &Args, plan: &Plan, history: &History) -> Result<(), CliError> {
    let Some(violation) = &history.failure else { return Ok(()) };
    let faults: Vec<&str> = plan.faults.iter().map(|fault| fault.name()).collect();
    output::lines(&format!("seed {}: {violation}\n  trouble: {}", plan.seed, faults.join(", ")))?;
    let again = args.again(plan.seed);
    if !args.minimize {
        return output::lines(&format!("  again:    {again} --trace\n  shortest: {again} --minimize"));
    }
    let (kept, history) = shortest(plan, history);
    let violation = history.failure.as_ref().expect("it still fails");
    output::lines(&format!(
        "  shortest: {} of {} things happen: {violation}",
        kept.len(),
        plan.stimuli.len()
    ))?;
    for i in &kept {
        let (at, stimulus) = &plan.stimuli[*i];
        output::lines(&format!("    {i:>5}  {:>9.3} s  {stimulus:?}", *at as f64 / 1e3))?;
    }
    output::lines(&format!("  again:    {again} --only {} --trace", list(&kept)))
}

fn many(common: &Common, args: &Args) -> Result<u8, CliError> {
    let threads =
        args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let (next, sum) = (AtomicU64::new(args.seeds.start), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.seeds.end {
                        return;
                    }
                    let history = run(&args.plan(seed), &BTreeSet::new(), false);
                    sum.lock().expect("no thread panics").add(history);
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no thread panics");
    let all = args.faults.is_none() && args.events >= EVENTS_MIN && sum.histories >= ENOUGH;
    let missing = if all { sum.missing() } else { Vec::new() };
    let wrong = sum.wrong();
    let fine = sum.failures == 0 && missing.is_empty() && wrong.iter().all(|(.., within)| *within);
    report(common, args, &sum, &missing, &wrong)?;
    Ok(if fine { exit::OK } else { exit::CHECK_FAILED })
}

fn report(
    common: &Common,
    args: &Args,
    sum: &Sum,
    missing: &[Rare],
    wrong: &[(String, u64, u64, bool)],
) -> Result<(), CliError> {
    if common.output.is_json() {
        let rare: BTreeMap<&str, u64> =
            Rare::ALL.iter().map(|s| (s.name(), sum.rare.get(s).copied().unwrap_or(0))).collect();
        let failed: Vec<_> = sum
            .failed
            .iter()
            .map(|h| json!({"seed": h.seed, "failure": h.failure.as_ref().map(ToString::to_string)}))
            .collect();
        let wrong: Vec<_> = wrong
            .iter()
            .map(|(what, k, n, within)| json!({"what": what, "k": k, "n": n, "within": within}))
            .collect();
        return output::json(
            &json!({
                "histories": sum.histories, "long": sum.long, "events": sum.events, "failures": sum.failures, "failed": failed,
                "states": rare, "statistics": wrong,
            })
            .to_string(),
        );
    }
    for state in Rare::ALL {
        let n = sum.rare.get(state).copied().unwrap_or(0);
        output::lines(&format!("{:>9}  {}", count(n), state.name()))?;
    }
    for (what, k, n, within) in wrong {
        let word = if *within { "within 1 in 20" } else { "MORE THAN 1 IN 20" };
        output::lines(&format!("{:>9}  of {} {what}: {word}", count(*k), count(*n)))?;
    }
    for history in &sum.failed {
        explain(args, &args.plan(history.seed), history)?;
    }
    for state in missing {
        output::lines(&format!("never reached: {}", state.name()))?;
    }
    let reached = Rare::ALL.len() - sum.missing().len();
    output::lines(&format!(
        "{} histories ({} of at least {} events), {} events, {reached} of {} rare states, {} broken promises",
        count(sum.histories),
        count(sum.long),
        count(LONG),
        count(sum.events),
        Rare::ALL.len(),
        count(sum.failures),
    ))
}

/// `3,17,20-40`
fn numbers(list: &str) -> Result<BTreeSet<usize>, CliError> {
    let wrong = || CliError::usage(format!("--only {list}: use numbers and ranges, for example 3,17,20-40"));
    let mut all = BTreeSet::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) =
            (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
        all.extend(from..=to);
    }
    Ok(all)
}

fn list(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == *n => *end = *n,
            _ => runs.push((*n, *n)),
        }
    }
    let run =
        |(from, to): &(usize, usize)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Without the size the same seed is another history.
    #[test]
    fn the_command_that_shows_a_failure_again_names_the_size_and_the_faults() {
        let again = |line: &[&str]| Line::parse_from(line).args.again(17);
        assert_eq!(again(&["simulate"]), "sluice simulate --seed 17");
        assert_eq!(
            again(&["simulate", "--seeds", "0..20", "--events", "200", "--faults", "bus,clock"]),
            "sluice simulate --seed 17 --events 200 --faults bus,clock"
        );
    }
}
