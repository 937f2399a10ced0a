//! `sluice explain`: every reason, what binds first, what happens next, and what you can do.

use serde_json::json;

use super::output::{self, Format, table, time};
use super::rollouts::{difference, effect, limit, percent, smoke, verdict, word};
use super::{CliError, Common, exit};
use crate::core::event::code::Code;
use crate::core::evidence::verdict::Verdict;
use crate::core::policy::guardrail::OnFail;
use crate::core::text::{count, digits};
use crate::view::evidence::{
    AccountView, CountView, EvidenceAnswer, FactorView, MoveView, PooledEvidenceView, RankView,
};
use crate::view::rollout::{GateView, RolloutView, Standing};

#[derive(clap::Args)]
pub struct Args {
    /// Id, a suffix of it such as 118, or @last; with --evidence, a number is an event of the log
    #[arg(default_value = "@last", value_name = "ID|EVENT")]
    about: String,
    /// Of a rollout: show the evidence of every guardrail too. Of an event: work out again the evidence behind it, and
    /// show every factor
    #[arg(short, long)]
    evidence: bool,
    /// The same as EVENT --evidence
    #[arg(long, value_name = "SEQ", conflicts_with = "about", hide = true)]
    event: Option<u64>,
    /// Of which guardrail, where the event speaks of several; of which slice: 'NAME[TAG=VALUE]'
    #[arg(long, value_name = "NAME")]
    guardrail: Option<String>,
}

impl Args {
    fn event(&self) -> Option<u64> {
        self.event.or_else(|| self.about.parse().ok().filter(|_| self.evidence))
    }
}

pub async fn run(common: &Common, args: Args) -> Result<u8, CliError> {
    if let Some(seq) = args.event() {
        let body = json!({"seq": seq, "guardrail": args.guardrail});
        let answer = common.client().await?.call("evidence", &body).await;
        let answer = answer.map_err(|error| {
            let of_rollout = format!(
                "with --evidence a number is an event of the log; a rollout is named in full: SERVICE-{seq}"
            );
            if error.code == Code::NotFound.as_str() && args.event.is_none() {
                error.help(of_rollout)
            } else {
                error
            }
        })?;
        return factors(common.output, &answer.text, &answer.read()?);
    }
    if args.guardrail.is_some() {
        return Err(CliError::usage(
            "--guardrail is for the evidence of one event: sluice explain EVENT --evidence",
        ));
    }
    let answer = common.client().await?.call("explain", &json!({"rollout": args.about})).await;
    let answer = answer.map_err(|error| match args.about.parse::<u64>() {
        Ok(seq) if error.code == Code::NotFound.as_str() => {
            error.help(format!("of event {seq} of the log: sluice explain {seq} --evidence"))
        }
        _ => error,
    })?;
    if common.output.is_json() {
        output::json(&answer.text)?;
        return Ok(exit::OK);
    }
    let rollout: RolloutView = answer.read()?;
    let Ahead { next, you_can } = answer.read()?;
    let mut text = page(&rollout, &next, &you_can);
    if args.evidence {
        text += &evidence(common.output, &rollout);
    }
    output::lines(&text)?;
    Ok(exit::OK)
}

/// What the daemon says about what comes.
#[derive(serde::Deserialize)]
struct Ahead {
    #[serde(default)]
    next: Vec<String>,
    #[serde(default)]
    you_can: Vec<String>,
}

/// The page, from the same sentences that the API, the log and the messages carry.
fn page(r: &RolloutView, next: &[String], you_can: &[String]) -> String {
    let mut page = header(r);
    let (met, unmet): (Vec<&GateView>, Vec<&GateView>) = r.gates.iter().partition(|gate| gate.met);
    let advisory: Vec<String> = r
        .guardrails
        .iter()
        .filter(|g| g.on_fail == OnFail::Alert && advises(r.state, g.verdict))
        .map(|g| g.text.clone())
        .collect();
    if !unmet.is_empty() {
        page += &format!("It is {} because\n", doing(r.state));
        for gate in &unmet {
            page += &format!("  {} {}\n", if gate.time { "…" } else { "✗" }, gate.text);
            for g in r.guardrails.iter().filter(|g| g.text == gate.text) {
                page.extend(g.meaning.iter().chain(&g.outlook).map(|sentence| format!("    {sentence}\n")));
            }
        }
    } else if !r.state.is_over() && !r.summary.is_empty() {
        page += &format!("  … {}\n", r.summary);
    }
    page.extend(r.meaning.iter().map(|sentence| format!("{sentence}\n")));
    page.extend(advisory.iter().map(|text| format!("  ? {text} (advisory: it never stops a rollout)\n")));
    let met: Vec<&str> =
        met.iter().filter(|gate| !advisory.contains(&gate.text)).map(|gate| short(r, gate)).collect();
    if !met.is_empty() {
        page += &format!("Not in the way: {}\n", met.join(", "));
    }
    page.extend(r.effective.iter().map(|e| format!("  {}", effect(e))));
    page.extend(r.smoke.iter().map(|test| format!("  {}", smoke(test))));
    page.extend(r.alerts.iter().map(|alert| format!("  ! {alert}\n")));
    page.extend(r.claimed_by.iter().map(|by| format!("Claimed by {by}\n")));
    if !next.is_empty() {
        page += "What happens next\n";
        page.extend(next.iter().map(|sentence| format!("  {sentence}\n")));
    }
    if !you_can.is_empty() {
        page += &format!("You can: {}\n", you_can.join(" · "));
    }
    let decision =
        r.last_decision.as_ref().map(|d| format!("decision {} ({}), ", count(d.seq), d.choice.as_str()));
    page + &format!("{}policy {} ({})\n", decision.unwrap_or_default(), r.policy, r.policy_hash)
}

fn header(r: &RolloutView) -> String {
    let mut text = format!("{} is {}", r.rollout, word(r.state));
    if r.state.is_over() {
        let at = r.ended_ms.map(|ms| format!(" since {}", time(ms))).unwrap_or_default();
        return format!("{text}{at}: {}\n", r.summary);
    }
    text += &format!(" at {}", percent(r.weight));
    if let Some(step) = r.step {
        text += &format!(" (step {step} of {})", r.steps.len());
    }
    if let Some(since) = r.since_ms {
        text += &format!(", at this step since {}", time(since));
    }
    if let (Standing::RollingBack, Some(decision)) = (r.state, &r.last_decision) {
        return format!("{text}: {}\n", decision.summary);
    }
    let traffic = match (r.weight > 0.0, r.state, r.unconfirmed.as_slice()) {
        (true, ..) => "Guardrails are armed.".into(),
        (false, Standing::Applying, []) => "It may already have traffic.".into(),
        (false, Standing::Applying, waiting) => {
            format!("It may already have traffic: not confirmed by {}.", waiting.join(", "))
        }
        _ => "It has no traffic.".into(),
    };
    format!("{text}. {traffic}\n")
}

/// Whether what an advisory guardrail says is worth a line: while gates are weighed, and what it found in the end.
fn advises(state: Standing, verdict: Verdict) -> bool {
    match state {
        Standing::Baking | Standing::Holding | Standing::Paused | Standing::Soaking => {
            verdict != Verdict::Pass
        }
        Standing::Completed => verdict == Verdict::Fail,
        _ => false,
    }
}

fn doing(state: Standing) -> &'static str {
    match state {
        Standing::Soaking => "soaking",
        Standing::Paused => "paused",
        Standing::Baking => "baking",
        _ => "holding",
    }
}

/// A met gate in short: the guardrail's name, or its text.
fn short<'a>(r: &'a RolloutView, gate: &'a GateView) -> &'a str {
    r.guardrails.iter().find(|g| g.text == gate.text).map_or(&gate.text, |g| &g.name)
}

fn evidence(format: Format, r: &RolloutView) -> String {
    let heads = [
        "GUARDRAIL",
        "VERDICT",
        "DIFFERENCE [RANGE]",
        "LIMIT",
        "CANARY",
        "BASELINE",
        "NOT SETTLED",
        "LATE",
        "EVIDENCE OF HARM",
        "OF SAFETY",
    ];
    let rows: Vec<Vec<String>> = r
        .guardrails
        .iter()
        .map(|g| {
            vec![
                g.name.clone(),
                verdict(g.verdict),
                difference(g),
                limit(g),
                count(g.canary.n),
                count(g.baseline.n),
                count(g.waiting),
                count(g.late),
                g.harm_evidence.clone(),
                g.safe_evidence.clone(),
            ]
        })
        .collect();
    let said: String = r
        .guardrails
        .iter()
        .filter(|g| !g.meaning.is_empty())
        .map(|g| format!("{}: {}\n", g.name, g.meaning.join(" ")))
        .collect();
    format!("\n{}{}{said}", table(format, &heads, &rows), if said.is_empty() { "" } else { "\n" })
}

/// Factors shown; all of them with `-o json`.
const FACTORS_SHOWN: usize = 20;

/// Every factor of the evidence behind an event, the latest last.
pub fn factors(format: Format, json: &str, e: &EvidenceAnswer) -> Result<u8, CliError> {
    let exit = if e.verified { exit::OK } else { exit::MISMATCH };
    if format.is_json() {
        output::json(json)?;
    } else {
        output::lines(&evidence_page(format, e))?;
    }
    Ok(exit)
}

fn evidence_page(format: Format, e: &EvidenceAnswer) -> String {
    let mut text = format!("{} {} at event {}\n", e.rollout, e.guardrail, count(e.seq));
    if !e.text.is_empty() {
        text += &format!("{}\n", e.text);
    }
    if !e.others.is_empty() {
        text += &format!("Judged with it: {}; --guardrail NAME shows one\n", e.others.join(", "));
    }
    if let Some(seq) = e.failed_at.filter(|seq| *seq < e.seq) {
        text += &format!("It has failed since event {}; a failure stays, whatever follows.\n", count(seq));
    }
    text.extend(e.meaning.iter().map(|sentence| format!("  {sentence}\n")));
    // An advisory guardrail has no part in it.
    let part = |t: &&PooledEvidenceView| {
        t.recorded_ln.is_some() || t.parts.iter().any(|part| part.guardrail == e.guardrail)
    };
    text.extend(e.together.iter().filter(part).map(|together| weighed(format, e, together)));
    if !e.slices.is_empty() {
        text += &ranked(format, &e.slices);
    }
    let b = &e.baseline;
    if b.n > 0 {
        let at = b.threshold.map(|at| format!(", threshold {}", digits(at))).unwrap_or_default();
        let cap =
            b.cap.map(digits).map(|cap| format!(", values above {cap} count as {cap}")).unwrap_or_default();
        text += &format!("\nbaseline taken to be {:.4} (from {}{at}{cap})\n", b.mean, count(b.n));
    }
    let accounts = [
        ("evidence of harm", Some(&e.harm)),
        ("  of more missing than the limit allows", e.above.as_ref()),
        ("  of less missing than the limit allows", e.below.as_ref()),
        ("evidence of safety", e.safe.as_ref()),
        ("evidence of the benefit that a trade-off asks for", e.benefit.as_ref()),
        ("evidence of more values above the cap than may be", e.above_cap.as_ref()),
    ];
    for (name, account) in accounts {
        let Some(account) = account.filter(|a| !a.bets.is_empty() || e.above.is_some()) else { continue };
        let average = if account.bets.is_empty() { ", the average of two sides" } else { "" };
        text += &format!("\n{name}: {}{average}\n", told(account));
        text.extend(
            account.bets.iter().map(|bet| format!("  bet on {:<8.5} holds {}\n", bet.size, capital(bet.ln))),
        );
        if account.reserve > 0.0 {
            text += &format!("  in reserve    {:.4}\n", account.reserve);
        }
    }
    if !e.cohorts.is_empty() {
        text += "\nby cohort of requests: what each multiplied the evidence by\n";
        text += &list(format, e, &e.cohorts);
    }
    if e.blocks.len() > 1 {
        text += "\nby block of the last cohort\n";
        text += &list(format, e, &e.blocks);
    }
    text += &match (&e.difference, e.differs_at) {
        (Some(difference), Some(seq)) => {
            format!("\nDIFFERS from what event {} recorded\n{difference}\n", count(seq))
        }
        _ => "\nidentical to the record, word for word\n".to_owned(),
    };
    text
}

/// The weighted average that decides on a rollback, part by part.
fn weighed(format: Format, e: &EvidenceAnswer, together: &PooledEvidenceView) -> String {
    let rows: Vec<Vec<String>> = together
        .parts
        .iter()
        .map(|part| {
            let carries = if part.carries { "carries most of it: fails" } else { "" };
            let excused = if part.excused { "excused: holds" } else { "" };
            vec![
                part.guardrail.clone(),
                format!("{:.4}", part.weight),
                times(part.ln),
                capital(part.share_ln),
                [carries, excused].into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join("; "),
            ]
        })
        .collect();
    let heads = ["GUARDRAIL", "WEIGHT", "EVIDENCE OF HARM", "WEIGHT TIMES EVIDENCE", ""];
    let mut text = format!(
        "\nthe rollback guardrails together: {}\n{}",
        together.evidence,
        table(format, &heads, &rows)
    );
    text += &format!("sum {}, worked out again", capital(together.ln));
    text += &together.recorded_ln.map(|ln| format!("; recorded {}", capital(ln))).unwrap_or_default();
    text += "\n";
    if let Some(rest) = together.rest_ln {
        text += &format!("sum without those that are excused {}\n", capital(rest));
    }
    let own = together.parts.iter().find(|part| part.guardrail == e.guardrail);
    if own.is_some_and(|part| part.weight < 1.0) {
        text += &format!("{} by itself: {}\n", e.guardrail, e.harm.evidence);
    }
    text
}

/// Slices that are judged together, by rank.
fn ranked(format: Format, slices: &[RankView]) -> String {
    let m = slices.len();
    let rows = slices.iter().enumerate().map(|(i, slice)| {
        let found = if slice.found { "found: beyond its limit" } else { "" };
        vec![(i + 1).to_string(), slice.slice.clone(), slice.evidence.clone(), found.into()]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let heads = ["RANK", "SLICE", "EVIDENCE OF HARM", ""];
    let first = slices.iter().position(|slice| !slice.found).unwrap_or(m);
    format!(
        "\n{m} slices are judged together: the first k are found if the k-th has what k of them need; found: {first}\n{}",
        table(format, &heads, &rows)
    )
}

fn told(account: &AccountView) -> String {
    match account.need_ln {
        Some(_) => account.evidence.clone(),
        None => times(account.ln),
    }
}

/// Evidence; below 1x there is none.
fn times(ln: f64) -> String {
    if ln <= 0.0 { "none".into() } else { capital(ln) }
}

fn capital(ln: f64) -> String {
    match libm::exp(ln) {
        _ if ln > MILLION_LN => "over 1,000,000x".into(),
        times if times < 1_000.0 => format!("{times:.4}x"),
        times => format!("{}x", count(times as u64)),
    }
}

fn factor(times: f64) -> String {
    if times > 1e6 { "over 1,000,000".into() } else { format!("{times:.4}") }
}

const MILLION_LN: f64 = 13.815_510_557_964_274;

fn list(format: Format, e: &EvidenceAnswer, factors: &[FactorView]) -> String {
    let mut heads = vec!["EVENT", "SERVED", "STEP", "BASELINE SUM/N", "CANARY SUM/N"];
    type Secondary = fn(&FactorView) -> Option<MoveView>;
    let beside: [(Secondary, [&str; 2]); 3] = [
        (|f| f.above, ["MORE MISSING", "SO FAR"]),
        (|f| f.below, ["LESS MISSING", "SO FAR"]),
        (|f| f.benefit, ["BENEFIT", "SO FAR"]),
    ];
    let shown = |of: &Secondary| factors.iter().any(|f| of(f).is_some());
    heads.extend(["HARM", "HARM SO FAR"]);
    if e.safe.is_some() {
        heads.extend(["SAFE", "SAFE SO FAR"]);
    }
    let beside: Vec<_> = beside.into_iter().filter(|(of, _)| shown(of)).collect();
    heads.extend(beside.iter().flat_map(|(_, heads)| *heads));
    heads.push("");
    let arm = |arm: &CountView| format!("{}/{}", (arm.sum * 1e4).round() / 1e4, count(arm.n));
    let row = |f: &FactorView| {
        let mut row = vec![
            f.seq.to_string(),
            time(f.served_ms),
            f.step.to_string(),
            arm(&f.baseline),
            arm(&f.canary),
            factor(f.harm),
            times(f.harm_ln),
        ];
        if e.safe.is_some() {
            row.extend([factor(f.safe), times(f.safe_ln)]);
        }
        for (of, _) in &beside {
            let moved = of(f);
            row.push(moved.map(|moved| factor(moved.times)).unwrap_or_default());
            row.push(moved.map(|moved| times(moved.ln)).unwrap_or_default());
        }
        let notes = [(f.epoch, "capital staked afresh"), (f.anew, "another segment: safety anew")];
        row.push(
            notes.into_iter().filter(|(is, _)| *is).map(|(_, said)| said).collect::<Vec<_>>().join("; "),
        );
        row
    };
    let from = factors.len().saturating_sub(FACTORS_SHOWN);
    let rows: Vec<Vec<String>> = factors[from..].iter().map(row).collect();
    let earlier =
        if from > 0 { format!("({} earlier ones: -o json)\n", count(from as u64)) } else { String::new() };
    earlier + &table(format, &heads, &rows)
}
