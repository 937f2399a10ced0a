//! `sluice deploy`: submits one change.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};

use super::act::Who;
use super::client::{Answer, Client};
use super::output::{self, Format};
use super::wait::{self, Goal};
use super::{CliError, Common, exit, git};
use crate::core::event::bundle::Part;
use crate::core::event::code::Code;
use crate::core::event::fact::Intent;
use crate::core::policy::ChangeKind;
use crate::core::text::count;
use crate::shell::clock;
use crate::wire::intent::{INTENT_MAX, parse_intent};

#[derive(clap::Args)]
pub struct Args {
    /// What is changed
    #[arg(required_unless_present = "file")]
    service: Option<String>,
    /// The version that shall serve; for a prompt that is kept in Git, its file
    #[arg(required_unless_present_any = ["file", "bundle"])]
    to: Option<String>,
    /// A part of what shall serve, where several are rolled out as one: model, prompt, parameters, index, cache or
    /// judge. Repeatable; the version is the fingerprint of all
    #[arg(long, value_name = "PART=VERSION", value_parser = part, conflicts_with = "to")]
    bundle: Vec<(Part, String)>,
    /// A part of what serves now, as long as sluice did not bring it. Repeatable
    #[arg(long, value_name = "PART=VERSION", value_parser = part, conflicts_with = "from", requires = "bundle")]
    from_bundle: Vec<(Part, String)>,
    /// Roll out under the policy for significant changes of the kind
    #[arg(long)]
    significant: bool,
    /// The version that serves now [default: what the last completed rollout brought]
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,
    /// model, prompt, vector_store, cache or serving [default: what the version begins with, as in prompt@42]
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<ChangeKind>,
    /// The policy to run under [default: that of the kind]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Why; it is written to the log
    #[arg(short, long, value_name = "TEXT", required_unless_present = "file")]
    reason: Option<String>,
    /// What you found out about the last attempt, if a guardrail or a deadline took it back
    #[arg(long, value_name = "TEXT")]
    finding: Option<String>,
    /// What it shares with rollouts of other services, such as a vector database: one at a time has it. Repeatable
    #[arg(long = "scope", value_name = "NAME")]
    scopes: Vec<String>,
    #[command(flatten)]
    who: Who,
    /// Your own id of the request: submitting it again changes nothing
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Submit this intent (JSON, - for standard input) instead
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["service", "to", "bundle", "from_bundle", "significant", "from", "kind", "policy", "reason", "finding", "scopes", "id"])]
    file: Option<std::path::PathBuf>,
    /// Check the request and say what would happen, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until it has reached 100%; exit codes as in sluice wait
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this long, with exit code 12
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = wait::duration)]
    timeout: Option<Duration>,
}

fn kind(text: &str) -> Result<ChangeKind, String> {
    let kinds = ChangeKind::ALL;
    let found = kinds.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| format!("expected one of {}", kinds.map(ChangeKind::as_str).join(", ")))
}

pub async fn run(common: &Common, args: Args) -> Result<u8, CliError> {
    let (dry_run, wait, timeout) = (args.dry_run, args.wait, args.timeout);
    let body = intent(args)?;
    let client = common.client().await?;
    if dry_run {
        return check(common, &client, &body).await;
    }
    let answer = client.call("deploy", &body).await?;
    show(common, &answer)?;
    if wait {
        return wait::until(common, &client, answer.text("rollout"), &[Goal::Promoted], timeout, false).await;
    }
    Ok(exit::OK)
}

fn intent(args: Args) -> Result<Value, CliError> {
    if let Some(file) = &args.file {
        let failed = |error| CliError::file(format!("reading {}", file.display()), &error);
        let mut text = String::new();
        let limit = INTENT_MAX as u64 + 1;
        if file.as_os_str() == "-" {
            std::io::stdin().lock().take(limit).read_to_string(&mut text).map_err(failed)?;
        } else {
            std::fs::File::open(file)
                .map_err(failed)?
                .take(limit)
                .read_to_string(&mut text)
                .map_err(failed)?;
        }
        checked(&text)?;
        return serde_json::from_str(&text)
            .map_err(|error| CliError::usage(format!("{}: {error}", file.display())));
    }
    let to = args.to.unwrap_or_default();
    let kept = git::kept(&to)?;
    let to = kept.as_ref().map_or(to, |kept| kept.version.clone());
    let bundle = parts("--bundle", args.bundle)?;
    let from_bundle = parts("--from-bundle", args.from_bundle)?;
    let named = || match &kept {
        Some(_) => Some(ChangeKind::Prompt),
        None => ChangeKind::ALL.into_iter().find(|kind| to.split(['@', ':']).next() == Some(kind.as_str())),
    };
    let kind = args.kind.or_else(named).ok_or_else(|| {
        let what = if bundle.is_empty() { to.as_str() } else { "a bundle" };
        CliError::usage(format!("what kind of change {what} is cannot be told from its name"))
            .help(format!("add --kind {}", ChangeKind::ALL.map(ChangeKind::as_str).join("|")))
    })?;
    let mut body = json!({
        "service": args.service,
        "change": {"kind": kind.as_str()},
        "by": args.who.name()?,
        "reason": args.reason,
    });
    let change = &mut body["change"];
    if bundle.is_empty() {
        change["to"] = to.into();
    } else {
        change["bundle"] = bundle.into();
    }
    if !from_bundle.is_empty() {
        change["from_bundle"] = from_bundle.into();
    }
    if let Some(from) = args.from {
        change["from"] = from.into();
    }
    if let Some(kept) = kept {
        change["git"] = kept.body;
    }
    if args.significant {
        change["significant"] = true.into();
    }
    if !args.scopes.is_empty() {
        body["scopes"] = args.scopes.into();
    }
    for (field, value) in [("policy", args.policy), ("finding", args.finding), ("id", args.id)] {
        if let Some(value) = value {
            body[field] = value.into();
        }
    }
    Ok(body)
}

fn part(text: &str) -> Result<(Part, String), String> {
    let known = || Part::ALL.map(Part::as_str).join(", ");
    let (part, version) = text.split_once('=').ok_or("expected PART=VERSION")?;
    let found = Part::ALL.into_iter().find(|known| known.as_str() == part);
    Ok((found.ok_or_else(|| format!("no part {part}; known: {}", known()))?, version.to_owned()))
}

fn parts(option: &str, given: Vec<(Part, String)>) -> Result<serde_json::Map<String, Value>, CliError> {
    let mut parts = serde_json::Map::new();
    for (part, version) in given {
        if parts.insert(part.as_str().to_owned(), version.into()).is_some() {
            return Err(CliError::usage(format!("{option}: {} is there twice", part.as_str())));
        }
    }
    Ok(parts)
}

/// Reads an intent as the daemon will.
fn checked(text: &str) -> Result<Intent, CliError> {
    parse_intent(text.as_bytes(), None, None, None, clock::now())
        .map_err(|error| CliError::refused(error.code.as_str(), &error.message, None))
}

/// Says whether the request is well formed, which policy it would run under, and what it would wait for.
async fn check(common: &Common, client: &Client, body: &Value) -> Result<u8, CliError> {
    let intent = checked(&body.to_string())?;
    let policy = policy(client, &intent).await?;
    let open = client.call("ls", &json!({})).await?;
    let open = open.value["rollouts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ahead: Vec<&str> = open
        .iter()
        .filter(|r| r["service"] == intent.service.as_str() && r["ended_ms"].is_null())
        .filter_map(|r| r["rollout"].as_str())
        .collect();
    if common.output.is_json() {
        let would = json!({"ok": true, "dry_run": true, "intent": body, "policy": policy, "ahead": ahead});
        output::json(&would.to_string())?;
        return Ok(exit::OK);
    }
    let from = intent.from.as_ref().map_or("what serves now", |from| from.as_str());
    let Intent { to, service, .. } = &intent;
    let mut text =
        format!("would roll out {from} → {to} on {service} under policy {policy}; nothing was sent\n");
    if !ahead.is_empty() {
        text += &format!("would wait for {}: same service, one change at a time\n", ahead.join(", "));
    }
    output::lines(&text)?;
    Ok(exit::OK)
}

/// Name of the policy that the daemon would take.
async fn policy(client: &Client, intent: &Intent) -> Result<String, CliError> {
    let info = client.call("info", &json!({})).await?;
    let known = info.value["policies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (kind, wanted) = (intent.kind.as_str(), intent.policy.as_deref());
    let fits = |policy: &&Value| match wanted {
        Some(name) => policy["name"] == name,
        None => policy["applies_to"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind)),
    };
    // As the daemon: a kind without a policy for significant changes has one for all of them.
    let fitting: Vec<&Value> = known.iter().filter(fits).collect();
    let best = fitting.iter().find(|policy| policy["significant"] == intent.significant);
    let best = best.or(fitting.iter().find(|policy| wanted.is_some() || policy["significant"] == false));
    let name = |policy: &Value| policy["name"].as_str().unwrap_or_default().to_owned();
    best.map(|policy| name(policy)).ok_or_else(|| {
        let (code, message) = match wanted {
            Some(name) => (Code::NoSuchPolicy, format!("policy {name} is not known")),
            None => (Code::PolicyName, format!("no policy applies to changes of kind {kind}")),
        };
        let names: Vec<String> = known.iter().map(name).collect();
        CliError::new(exit::NOT_FOUND, code, message)
            .help(format!("name one with --policy: {}", names.join(", ")))
    })
}

fn show(common: &Common, answer: &Answer) -> Result<(), CliError> {
    let (rollout, state) = (answer.text("rollout"), answer.text("state"));
    let seq = answer.number("seq").unwrap_or_default();
    match common.output {
        Format::Json | Format::Jsonl => output::json(&answer.text),
        Format::Plain => output::lines(&format!("{rollout}\t{state}\t{seq}")),
        Format::Table => {
            let mut text = String::new();
            if !answer.text("plan").is_empty() {
                text += &format!("plan       {}\n", answer.text("plan"));
                let outlook = answer.value["outlook"].as_array().map(Vec::as_slice).unwrap_or_default();
                for sentence in outlook.iter().filter_map(Value::as_str) {
                    text += &format!("           {sentence}\n");
                }
            }
            let again = answer.value["duplicate"] == true;
            let did = if again { "known" } else { "accepted" };
            let note = if again { "; submitted before, no effect" } else { "" };
            text +=
                &format!("{did:<10} {rollout} (event {}), {}{note}\n", count(seq), state.replace('_', " "));
            if !answer.text("behind").is_empty() {
                text +=
                    &format!("behind     {}: same service, one change at a time\n", answer.text("behind"));
            }
            let waits = answer.value["waits"].as_array().map(Vec::as_slice).unwrap_or_default();
            for wait in waits.iter().filter(|wait| wait["scope"].is_string()) {
                let of = |field: &str| wait[field].as_str().unwrap_or_default().to_owned();
                text += &format!("behind     {}: both use {}, one at a time\n", of("rollout"), of("scope"));
            }
            text += &format!("next       sluice explain {rollout}  ·  sluice wait {rollout} --for promoted");
            output::lines(&text)
        }
    }
}
