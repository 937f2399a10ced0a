//! `sluice explain`: every reason, what binds first, what happens next, and what you can do.

use serde_json::json;

use super::output::{self, Format, table, time};
use super::rollouts::{difference, limit, percent, verdict, word};
use super::{CliError, Common, exit};
use crate::core::policy::OnFail;
use crate::core::verdict::Verdict;
use crate::core::words::count;
use crate::view::{GateView, RolloutView, Standing};

#[derive(clap::Args)]
pub struct Args {
    /// Id, a suffix of it such as 118, or @last
    #[arg(default_value = "@last", value_name = "ID")]
    rollout: String,
    /// Show the evidence of every guardrail too
    #[arg(short, long)]
    evidence: bool,
}

pub async fn run(common: &Common, args: Args) -> Result<u8, CliError> {
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
        page.extend(
            unmet.iter().map(|gate| format!("  {} {}\n", if gate.time { "…" } else { "✗" }, gate.text)),
        );
    } else if !r.state.is_over() && !r.summary.is_empty() {
        page += &format!("  … {}\n", r.summary);
    }
    page.extend(advisory.iter().map(|text| format!("  ? {text} (advisory: it never stops a rollout)\n")));
    let met: Vec<&str> =
        met.iter().filter(|gate| !advisory.contains(&gate.text)).map(|gate| short(r, gate)).collect();
    if !met.is_empty() {
        page += &format!("Not in the way: {}\n", met.join(", "));
    }
    page.extend(r.alerts.iter().map(|alert| format!("  ! {alert}\n")));
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
