//! What people do to a rollout, and what actuators answer: one request each, with who, where and the exact words.

use serde_json::{Value, json};

use super::client::{Answer, without_password};
use super::output::{self, Format};
use super::{CliError, Common, exit};
use crate::core::event::code::Code;
use crate::core::event::verb::Verb;
use crate::core::text::count;

#[derive(clap::Args)]
pub struct Args {
    /// Id, a suffix of it such as 118, or @last
    #[arg(value_name = "ID")]
    rollout: String,
    /// Why; it is written to the log
    #[arg(short, long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    who: Who,
    /// Only if nothing happened to the rollout after this event
    #[arg(long, value_name = "SEQ")]
    if_seq: Option<u64>,
    /// promote: go past gates that are not met; a failing rollback guardrail stays in force. claim: take it over.
    /// Marked as such for ever
    #[arg(long = "override", requires = "reason")]
    force: bool,
    /// Say what would happen, and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// Who acts.
#[derive(clap::Args)]
pub struct Who {
    /// Who you are [default: your user name]
    #[arg(long, env = "SLUICE_ACTOR", value_name = "NAME")]
    by: Option<String>,
}

impl Who {
    /// The name for the record.
    pub fn name(self) -> Result<String, CliError> {
        let user = || ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        self.by.or_else(user).filter(|name| !name.trim().is_empty()).ok_or_else(|| {
            CliError::usage("who is doing this is not known: there is no user name here")
                .help("name yourself: --by NAME, or set SLUICE_ACTOR; it is written to the log")
        })
    }
}

#[derive(clap::Args)]
pub struct AckArgs {
    /// Id of the command as it came, or how it begins, as log and status show it
    command: String,
    /// Which actuator confirms
    #[arg(long, value_name = "NAME")]
    actuator: String,
    /// Which service the command is for; else that of the open rollout whose command it is
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// It is not applied, and why
    #[arg(long, value_name = "WHY")]
    rejected: Option<String>,
    /// Say what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(common: &Common, verb: Verb, args: Args) -> Result<u8, CliError> {
    // The same rule as the daemon's, so that a forgotten reason is noticed before anything is sent.
    let reason = args.reason.unwrap_or_default();
    if let Some(what) = verb.lacks_reason(args.force, &reason) {
        let message = format!("{what} needs --reason TEXT (it is written to the log)");
        let error = CliError::new(exit::USAGE, Code::ReasonNeeded, message);
        return Err(error.help(format!("sluice {what} {} --reason \"...\"", args.rollout)));
    }
    let mut body = json!({
        "rollout": args.rollout,
        "actor": args.who.name()?,
        "host": host(),
        "args": arguments(),
        "reason": reason,
    });
    let optional = [
        ("if_seq", args.if_seq.map(Value::from)),
        ("override", args.force.then_some(Value::Bool(true))),
        ("dry_run", args.dry_run.then_some(Value::Bool(true))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let answer = common.client().await?.call(verb.as_str(), &body).await?;
    show(common, verb, args.dry_run, &answer)?;
    Ok(exit::OK)
}

fn show(common: &Common, verb: Verb, dry_run: bool, answer: &Answer) -> Result<(), CliError> {
    let (rollout, state) = (answer.text("rollout"), answer.text("state"));
    let seq = answer.number("seq").unwrap_or_default();
    match common.output {
        Format::Json | Format::Jsonl => output::json(&answer.text),
        Format::Plain => output::lines(&format!("{rollout}\t{}\t{state}\t{seq}", verb.as_str())),
        Format::Table => {
            let (verb, state) = (verb.as_str(), state.replace('_', " "));
            let decided = decided(&answer.value["decision"]);
            if dry_run {
                let would = decided.map(|decided| format!("\nwould decide {decided}")).unwrap_or_default();
                let text = format!("{verb} of {rollout} would be accepted; nothing was sent{would}");
                return output::lines(&format!("{text}\n{rollout} would be {state}"));
            }
            let mut text = format!("recorded   {verb} of {rollout}, event {}\n", count(seq));
            if let Some(decided) = decided {
                text += &format!("decided    {decided}\n");
            }
            if !answer.text("command").is_empty() {
                // Sent is not applied: the actuators have the last word.
                text += &format!("sent       command {}, not confirmed yet\n", answer.text("command"));
            }
            text += &format!("now        {rollout} is {state}\n");
            // A rollback is over when the actuators say so, not when it is recorded.
            let next = if verb == "rollback" { "wait {} --for terminal" } else { "status {}" };
            text += &format!("next       sluice {}", next.replace("{}", rollout));
            output::lines(&text)
        }
    }
}

/// `promote 25% → 50%: eval_pass shown within limits`
fn decided(decision: &Value) -> Option<String> {
    let choice = decision["decision"].as_str()?;
    let (from, to) = (decision["weight"]["from"].as_f64()?, decision["weight"]["to"].as_f64()?);
    let way = if from == to { format!("at {from}%") } else { format!("{from}% → {to}%") };
    Some(format!("{choice} {way}: {}", decision["summary"].as_str().unwrap_or_default()))
}

/// Which command is meant, and of which service: whole as it is given, else of those that nobody has confirmed yet.
async fn meant(common: &Common, args: &AckArgs) -> Result<(String, String), CliError> {
    let begins = &args.command;
    if let (Some(service), true) = (&args.service, uuid::Uuid::parse_str(begins).is_ok()) {
        return Ok((begins.clone(), service.clone()));
    }
    let answer = common.client().await?.call("ls", &json!({})).await?;
    let mut open: Vec<(String, String)> = Vec::new();
    for rollout in answer.value["rollouts"].as_array().into_iter().flatten() {
        let text = |name: &str| rollout[name].as_str().map(str::to_owned);
        open.extend(text("command").zip(text("service")));
    }
    let fits = |(command, service): &&(String, String)| {
        command.starts_with(begins.as_str()) && args.service.as_ref().is_none_or(|named| named == service)
    };
    match open.iter().filter(fits).collect::<Vec<_>>()[..] {
        [one] => Ok(one.clone()),
        [] => {
            let error =
                CliError::usage(format!("no command that begins with {begins} waits for a confirmation"));
            let waits: Vec<String> = open.iter().map(|(id, service)| format!("{id} of {service}")).collect();
            Err(error.help(match waits.is_empty() {
                true => {
                    "none waits; an older one is confirmed by its whole id, with --service SERVICE".into()
                }
                false => format!("what waits: {}", waits.join(", ")),
            }))
        }
        [..] => Err(CliError::usage(format!("several commands begin with {begins}; give more of its id"))),
    }
}

pub async fn ack(common: &Common, args: AckArgs) -> Result<u8, CliError> {
    let (command, service) = meant(common, &args).await?;
    let mut body = json!({
        "v": 1,
        "command": command,
        "actuator": args.actuator,
        "service": service,
        "status": if args.rejected.is_some() { "rejected" } else { "applied" },
    });
    if let Some(why) = &args.rejected {
        body["why"] = why.as_str().into();
    }
    if args.dry_run {
        let checked = crate::wire::ack::parse_ack(body.to_string().as_bytes(), None);
        checked.map_err(|error| CliError::refused(error.code.as_str(), &error.message, None))?;
        output::json(&body.to_string())?;
        return Ok(exit::OK);
    }
    let answer = common.client().await?.call("ack", &body).await?;
    if common.output.is_json() {
        output::json(&answer.text)?;
    } else {
        let did = if args.rejected.is_some() { "rejected" } else { "acked" };
        output::lines(&format!("{did} {command} for {}", args.actuator))?;
    }
    Ok(exit::OK)
}

/// The command line as given, without passwords in URLs.
pub fn arguments() -> Vec<String> {
    std::env::args_os().map(|arg| without_password(&arg.to_string_lossy())).collect()
}

/// The name of this machine.
pub fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let asked = || {
        std::process::Command::new("hostname").output().ok().and_then(|o| String::from_utf8(o.stdout).ok())
    };
    let name = kernel.or_else(asked).unwrap_or_default().trim().to_owned();
    if name.is_empty() { "unknown".into() } else { name }
}
