//! `sluice windows`, `freeze` and `unfreeze`: when something may move forward, and the button that stops everything.

use std::path::PathBuf;

use serde_json::json;

use super::act::{Who, arguments, host};
use super::output::{self, Format, time};
use super::{CliError, Common, exit};
use crate::core::text::count;
use crate::shell::{clock, policies};
use crate::view::windows::{WindowsAnswer, when};
use crate::windows;

#[derive(clap::Args)]
pub struct FreezeArgs {
    /// Only this service; else everything
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// When it ends by itself: a time with its zone, or how long it lasts
    #[arg(long, value_name = "TIME|DURATION")]
    until: Option<String>,
    /// Why; it is written to the log
    #[arg(short, long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    who: Who,
}

#[derive(clap::Args)]
pub struct UnfreezeArgs {
    /// The freeze of this service; else the one of everything
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Why; it is written to the log
    #[arg(short, long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    who: Who,
}

#[derive(clap::Args)]
pub struct Args {
    /// Service, or: why SERVICE
    #[arg(num_args = 0..=2, value_name = "[why] SERVICE")]
    words: Vec<String>,
    /// At this time, with its zone; now, when left out
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// By the windows of this policy file, without a daemon
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

pub async fn freeze(common: &Common, args: FreezeArgs) -> Result<u8, CliError> {
    let FreezeArgs { service, until, reason, who } = args;
    order(common, "freeze", service, until, reason, who).await
}

pub async fn unfreeze(common: &Common, args: UnfreezeArgs) -> Result<u8, CliError> {
    let UnfreezeArgs { service, reason, who } = args;
    order(common, "unfreeze", service, None, reason, who).await
}

async fn order(
    common: &Common,
    verb: &str,
    service: Option<String>,
    until: Option<String>,
    reason: String,
    who: Who,
) -> Result<u8, CliError> {
    let body = json!({
        "service": service, "until": until, "reason": reason,
        "actor": who.name()?, "host": host(), "args": arguments(),
    });
    let answer = common.client().await?.call(verb, &body).await?;
    let scope = service.as_deref().unwrap_or("everything");
    let seq = answer.number("seq").unwrap_or_default();
    match common.output {
        Format::Json | Format::Jsonl => output::json(&answer.text)?,
        Format::Plain => output::lines(&format!("{verb}\t{scope}\t{seq}"))?,
        Format::Table => {
            let mut text = format!("recorded   {verb} of {scope}, event {}\n", count(seq));
            if verb == "freeze" {
                text += &match answer.number("until_ms") {
                    Some(until) => format!("ends       {}, or by: ", time(until)),
                    None => "ends       by: ".into(),
                };
                let of = service.map(|service| format!(" --service {service}")).unwrap_or_default();
                text += &format!("sluice unfreeze{of} --reason TEXT\n");
                text += "meanwhile  nothing starts or is promoted; guardrails stay armed, rollbacks happen";
            } else {
                let moved = answer.value["moved"].as_array().map_or(0, Vec::len);
                text += &format!(
                    "decided    on {moved} rollout{} that had waited",
                    if moved == 1 { "" } else { "s" }
                );
            }
            output::lines(&text)?;
        }
    }
    Ok(exit::OK)
}

pub async fn run(common: &Common, args: Args) -> Result<u8, CliError> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let (why, service) = match (words.as_slice(), &args.policy) {
        (["why", service], _) => (true, Some(*service)),
        (["why"], Some(_)) => (true, None),
        ([service], _) => (args.at.is_some(), Some(*service)),
        ([], Some(_)) => (args.at.is_some(), None),
        _ => {
            let error = CliError::usage("windows needs a service, or --policy FILE");
            return Err(error.help("sluice windows SERVICE\nsluice windows why SERVICE --at TIME"));
        }
    };
    let (text, answer) = match (&args.policy, service) {
        (Some(file), _) => {
            let at = args.at.as_deref().map(windows::moment).transpose();
            let at = at.map_err(|why| CliError::usage(format!("--at: {why}")))?.unwrap_or_else(clock::now);
            let policy = policies::read(file).map_err(CliError::policies)?.policy;
            let answer = when(policy.name, policy.windows.as_ref(), at);
            (serde_json::to_string(&answer).map_err(CliError::answer)?, answer)
        }
        (None, service) => {
            let body = json!({"service": service, "at": args.at});
            let answer = common.client().await?.call("windows", &body).await?;
            let read: WindowsAnswer = answer.read()?;
            (answer.text, read)
        }
    };
    match common.output {
        Format::Json | Format::Jsonl => output::json(&text)?,
        Format::Plain => {
            output::lines(&format!("{}\t{}", if answer.open { "open" } else { "closed" }, answer.why))?
        }
        Format::Table => output::lines(&page(&answer, why))?,
    }
    Ok(exit::OK)
}

/// The verdict, and unless only that was asked for, the next openings.
fn page(answer: &WindowsAnswer, why: bool) -> String {
    let of = answer.service.as_ref().map(|service| format!("{service}, ")).unwrap_or_default();
    let could = if answer.open { "could be promoted" } else { "could not be promoted" };
    let mut text =
        format!("{of}policy {}: {could} at {}: {}\n", answer.policy, time(answer.at_ms), answer.why);
    if !answer.open {
        text += "a rollback is possible at any time\n";
    }
    if !why {
        text.extend(answer.openings.iter().map(|opening| format!("  open  {}\n", opening.text)));
    }
    text
}
