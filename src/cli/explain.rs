//! `sluice explain`: every reason, what binds first, what happens next, and what you can do.

use serde_json::json;

use super::output::{self, Format, table, time};
use super::rollouts::{difference, effect, limit, percent, smoke, verdict, word};
use super::{CliError, Common, exit};
use crate::core::policy::OnFail;
use crate::core::verdict::Verdict;
use crate::core::words::count;
use crate::shell::api::{AccountView, CountView, EvidenceAnswer, FactorView};
use crate::view::{GateView, RolloutView, Standing};

#[derive(clap::Args)]
pub struct Args {
    /// Id, a suffix of it such as 118, or @last
    #[arg(default_value = "@last", value_name = "ID")]
    rollout: String,
    /// Show the evidence of every guardrail too
    #[arg(short, long)]
    evidence: bool,
    /// Work out again the evidence behind this event of the log, and show every factor
    #[arg(long, value_name = "SEQ", conflicts_with = "rollout")]
    event: Option<u64>,
    /// Of which guardrail, where the event speaks of several
    #[arg(long, value_name = "NAME", requires = "event")]
    guardrail: Option<String>,
}

pub async fn run(common: &Common, args: Args) -> Result<u8, CliError> {
    if let Some(seq) = args.event {
        let body = json!({"seq": seq, "guardrail": args.guardrail});
        let answer = common.client().await?.call("evidence", &body).await?;
        return factors(common.output, &answer.text, &answer.read()?);
    }
    let answer = common.client().await?.call("explain", &json!({"rollout": args.rollout})).await?;
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
        .filter(|g| g.on_fail == OnFail::Alert && g.verdict != Verdict::Pass && !r.state.is_over())
        .map(|g| g.text.clone())
        .collect();
    if !unmet.is_empty() {
        page += &format!("It is {} because\n", doing(r.state));
        for gate in &unmet {
            page += &format!("  {} {}\n", if gate.time { "…" } else { "✗" }, gate.text);
            let outlook = r.guardrails.iter().find(|g| g.text == gate.text).and_then(|g| g.outlook.as_ref());
            page.extend(outlook.map(|outlook| format!("    {outlook}\n")));
        }
    } else if !r.state.is_over() && !r.summary.is_empty() {
        page += &format!("  … {}\n", r.summary);
    }
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
    let armed = if r.weight > 0.0 { " Guardrails are armed." } else { " It has no traffic." };
    format!("{text}.{armed}\n")
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
    format!("\n{}", table(format, &heads, &rows))
}

/// Factors shown; all of them with `-o json`.
const FACTORS_SHOWN: usize = 20;

/// Every factor of the evidence behind an event, the latest last.
pub fn factors(format: Format, json: &str, e: &EvidenceAnswer) -> Result<u8, CliError> {
    if format.is_json() {
        output::json(json)?;
        return Ok(if e.verified { exit::OK } else { exit::MISMATCH });
    }
    let mut text = format!("{} {} at event {}\n", e.rollout, e.guardrail, count(e.seq));
    if !e.text.is_empty() {
        text += &format!("{}\n", e.text);
    }
    let b = &e.baseline;
    if b.n > 0 {
        let at = b.threshold.map(|at| format!(", threshold {at}")).unwrap_or_default();
        let cap = b.cap.map(|cap| format!(", values above {cap} count as {cap}")).unwrap_or_default();
        text += &format!("baseline taken to be {:.4} (from {}{at}{cap})\n", b.mean, count(b.n));
    }
    for (name, account) in [("harm", &e.harm), ("safety", &e.safe)] {
        text += &format!("\nevidence of {name}: {}\n", told(account));
        text.extend(
            account.bets.iter().map(|bet| format!("  bet on {:<8.5} holds {}\n", bet.size, times(bet.ln))),
        );
        if account.reserve > 0.0 {
            text += &format!("  in reserve    {:.4}\n", account.reserve);
        }
    }
    text += "\nby cohort: what each multiplied the evidence by\n";
    text += &list(format, &e.cohorts);
    if e.blocks.len() > 1 {
        text += "\nby block of the last cohort\n";
        text += &list(format, &e.blocks);
    }
    text += &match e.differs_at {
        None => "\nidentical to the record, word for word\n".to_owned(),
        Some(seq) => format!("\nDIFFERS from what event {} recorded\n", count(seq)),
    };
    output::lines(&text)?;
    Ok(if e.verified { exit::OK } else { exit::MISMATCH })
}

fn told(account: &AccountView) -> String {
    match account.need_ln {
        Some(_) => account.evidence.clone(),
        None => times(account.ln),
    }
}

fn times(ln: f64) -> String {
    format!("{:.4}x", libm::exp(ln))
}

fn list(format: Format, factors: &[FactorView]) -> String {
    let heads = [
        "EVENT",
        "SERVED",
        "STEP",
        "BASELINE SUM/N",
        "CANARY SUM/N",
        "HARM",
        "HARM SO FAR",
        "SAFE",
        "SAFE SO FAR",
        "",
    ];
    let arm = |arm: &CountView| format!("{}/{}", (arm.sum * 1e4).round() / 1e4, count(arm.n));
    let row = |f: &FactorView| {
        vec![
            f.seq.to_string(),
            time(f.served_ms),
            f.step.to_string(),
            arm(&f.baseline),
            arm(&f.canary),
            format!("{:.4}", f.harm),
            times(f.harm_ln),
            format!("{:.4}", f.safe),
            times(f.safe_ln),
            if f.epoch { "capital staked afresh".into() } else { String::new() },
        ]
    };
    let from = factors.len().saturating_sub(FACTORS_SHOWN);
    let rows: Vec<Vec<String>> = factors[from..].iter().map(row).collect();
    let earlier =
        if from > 0 { format!("({} earlier ones: -o json)\n", count(from as u64)) } else { String::new() };
    earlier + &table(format, &heads, &rows)
}
