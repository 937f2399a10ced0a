//! `sluice replay`: recorded history decided again, to prove it or to try another policy on it.

use std::path::PathBuf;

use serde_json::json;

use super::output::{self, Format};
use super::{CliError, exit};
use crate::core::event::code::Code;
use crate::core::text::{count, plain};
use crate::evidence_trace::{EvidenceTraceError, Tracer, subject};
use crate::replay::{Comparison, Counts, Divergence, Step, Verifier, WhatIf};
use crate::shell::policies;
use crate::view::evidence::EvidenceAnswer;
use crate::wire::time::rfc3339;

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["verify", "policy", "explain"]))]
pub struct Args {
    /// Only this rollout: its id, or a suffix of it
    #[arg(value_name = "ID")]
    pub rollout: Option<String>,
    /// Decide everything again with the recorded policies; any difference is an error
    #[arg(long)]
    pub verify: bool,
    /// Decide with this policy instead, and show where the two part
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Work out again the evidence behind this event, and show every factor
    #[arg(long, value_name = "SEQ")]
    pub explain: Option<u64>,
    /// Of which guardrail, where the event speaks of several
    #[arg(long, value_name = "NAME", requires = "explain")]
    pub guardrail: Option<String>,
    #[command(flatten)]
    pub history: super::log::HistoryArgs,
}

/// Replays and compares.
pub fn run(format: Format, args: Args) -> Result<u8, CliError> {
    match (&args.policy, args.explain) {
        (Some(file), _) => what_if(format, &args, file),
        (None, Some(seq)) => explain(format, &args, seq),
        (None, None) => verify(format, &args),
    }
}

/// The factors behind one event, from a history that no daemon serves.
fn explain(format: Format, args: &Args, seq: u64) -> Result<u8, CliError> {
    let wrong = |error: EvidenceTraceError| CliError::new(exit::NOT_FOUND, Code::NotFound, error.to_string());
    let mut asked = None;
    for envelope in args.history.open()?.scan()? {
        let e = envelope?;
        if e.seq == seq {
            asked = Some(e.event);
            break;
        }
    }
    let event = asked.ok_or(EvidenceTraceError::NoEvent(seq)).map_err(wrong)?;
    let mut tracer = Tracer::new(subject(seq, &event, args.guardrail.as_deref()).map_err(wrong)?);
    for envelope in args.history.open()?.scan()? {
        let e = envelope?;
        tracer.next(e.seq, e.at, &e.event);
        if e.seq >= seq {
            break;
        }
    }
    let answer = EvidenceAnswer::new(tracer.finish());
    let text = serde_json::to_string(&answer).expect("evidence is made of finite numbers and strings");
    super::explain::factors(format, &text, &answer)
}

fn verify(format: Format, args: &Args) -> Result<u8, CliError> {
    let mut verifier = Verifier::default();
    let result = fold(&mut verifier, args)?;
    let Counts { events, conclusions, decisions, observations } = verifier.counts;
    match result {
        Ok(()) => {
            let digest = verifier.state.digest();
            if format.is_json() {
                let answer = json!({
                    "ok": true, "events": events, "observations": observations, "conclusions": conclusions,
                    "decisions": decisions, "state": digest.to_string(),
                });
                output::json(&answer.to_string())?;
            } else {
                output::lines(&format!(
                    "ok  {} events with {} observations: {} decisions and {} other conclusions identical byte for byte, state {}",
                    count(events),
                    count(observations),
                    count(decisions),
                    count(conclusions - decisions),
                    digest.short()
                ))?;
            }
            Ok(exit::OK)
        }
        Err(divergence) => Err(differs(divergence)),
    }
}

fn fold(verifier: &mut Verifier, args: &Args) -> Result<Result<(), Divergence>, CliError> {
    if args.rollout.is_some() {
        return Err(CliError::usage("--verify decides the whole log again; it takes no rollout id"));
    }
    for envelope in args.history.open()?.scan()? {
        let e = envelope?;
        if let Err(divergence) = verifier.next(e.seq, e.at, &e.event) {
            return Ok(Err(divergence));
        }
    }
    Ok(verifier.settled())
}

/// The message of a replay that does not match.
pub fn differs(divergence: Divergence) -> CliError {
    let message = format!("replay differs from the record\n{}", divergence.sides());
    CliError::new(exit::MISMATCH, Code::ReplayDiffers, message).help(
        "inputs are the same; an engine that decides differently must have another number: sluice version",
    )
}

fn what_if(format: Format, args: &Args, file: &std::path::Path) -> Result<u8, CliError> {
    let loaded = policies::read(file).map_err(CliError::policies)?;
    let name = loaded.policy.name.clone();
    let mut what_if = WhatIf::new(loaded.policy, &loaded.source);
    for envelope in args.history.open()?.scan()? {
        let e = envelope?;
        what_if.next(e.at, &e.event);
    }
    let mut comparisons = what_if.compare();
    if let Some(wanted) = &args.rollout {
        comparisons.retain(|c| c.rollout.0 == *wanted || c.rollout.0.ends_with(&format!("-{wanted}")));
        if comparisons.is_empty() {
            return Err(CliError::new(
                exit::NOT_FOUND,
                Code::NotFound,
                format!("no rollout {wanted} in this history"),
            ));
        }
    }
    if format.is_json() {
        let rollouts: Vec<_> = comparisons.iter().map(comparison_json).collect();
        output::json(&json!({ "policy": name, "rollouts": rollouts }).to_string())?;
    } else {
        output::lines(&told(&name, &comparisons))?;
    }
    Ok(exit::OK)
}

fn told(policy: &str, comparisons: &[Comparison]) -> String {
    let mut out = format!(
        "{} rollout{} under {policy}, on the recorded telemetry\n",
        comparisons.len(),
        if comparisons.len() == 1 { "" } else { "s" }
    );
    for c in comparisons {
        match c.parted() {
            None => out.push_str(&format!("  {:<24} the same {} decisions\n", c.rollout, c.recorded.len())),
            Some(i) => {
                out.push_str(&format!("  {:<24} parts at decision {}\n", c.rollout, i + 1));
                let side = |step: Option<&Step>| step.map_or("no decision".to_owned(), told_step);
                out.push_str(&format!("    RECORDED  {}\n", side(c.recorded.get(i))));
                out.push_str(&format!("    REPLAYED  {}\n", side(c.replayed.get(i))));
            }
        }
    }
    out.push_str("Beyond the point where they part, the other policy would have sent other traffic: the record does not show it.\n");
    out
}

fn told_step(step: &Step) -> String {
    let choice = step.choice.as_str().to_uppercase();
    format!("{} {choice} to {}: {}", rfc3339(step.at), step.to, plain(&step.summary))
}

fn comparison_json(c: &Comparison) -> serde_json::Value {
    let steps = |steps: &[Step]| -> Vec<_> {
        let step = |s: &Step| {
            json!({
                "at": rfc3339(s.at), "decision": s.choice, "weight": s.to.as_percent(), "summary": s.summary,
            })
        };
        steps.iter().map(step).collect()
    };
    json!({
        "rollout": c.rollout, "parted_at": c.parted(),
        "recorded": steps(&c.recorded), "replayed": steps(&c.replayed),
    })
}
