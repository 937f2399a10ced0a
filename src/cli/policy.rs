//! `sluice policy`: what a policy file says, and what is wrong with it.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::output::{self, Format};
use super::{CliError, Common, exit};
use crate::core::ids::Digest;
use crate::core::policy::{Better, Guardrail, Margin, OnDeadline, OnFail, Policy, Rule};
use crate::core::time::Span;
use crate::wire::policy_file::{parse_policy, shipped};
use crate::wire::yaml::FILE_MAX;

#[derive(Subcommand)]
pub enum Verb {
    /// Check policy files; names every mistake and where it is
    #[command(before_help = "  $ sluice policy check policies/prompt.yaml")]
    Check {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show a policy that ships with sluice, or one of a folder, in words
    #[command(before_help = "  $ sluice policy show prompt-default")]
    Show {
        name: String,
        /// Look in this folder of policy files
        #[arg(long, env = "SLUICE_POLICIES", value_name = "DIR")]
        policies: Option<PathBuf>,
    },
}

pub fn run(common: &Common, verb: Verb) -> Result<u8, CliError> {
    match verb {
        Verb::Check { files } => check(common, &files),
        Verb::Show { name, policies } => show(common, &name, policies.as_deref()),
    }
}

/// Reads one policy file; the text is what its digest is taken of.
pub fn read(file: &Path) -> Result<(Policy, String), CliError> {
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file);
    // One byte more than is allowed, so that what is too large is seen to be.
    let read = opened.and_then(|file| file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| CliError::file(format!("reading {name}"), &error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        CliError::new(exit::USAGE, "E4006", format!("{name} is not text: {}", error.utf8_error()))
    })?;
    let policy = parse_policy(&text, &name).map_err(CliError::policy)?;
    Ok((policy, text))
}

fn check(common: &Common, files: &[PathBuf]) -> Result<u8, CliError> {
    let mut wrong = 0;
    let mut results = Vec::new();
    for file in files {
        let name = file.display().to_string();
        match read(file) {
            Ok((policy, text)) => {
                let hash = Digest::of(text.as_bytes()).short();
                match common.output {
                    Format::Json | Format::Jsonl => {
                        results.push(json!({"file": name, "ok": true, "policy": policy.name, "hash": hash}));
                    }
                    Format::Plain => output::lines(&format!("{name}\tok\t{}\t{hash}", policy.name))?,
                    Format::Table => output::lines(&format!("ok  {name}: policy {} ({hash})", policy.name))?,
                }
            }
            Err(error) => {
                wrong += 1;
                output::say(&error.text());
                results
                    .push(json!({"file": name, "ok": false, "code": error.code, "message": error.message}));
            }
        }
    }
    match common.output {
        Format::Json => output::json(&serde_json::Value::from(results).to_string())?,
        Format::Jsonl => results.iter().try_for_each(|result| output::json(&result.to_string()))?,
        Format::Table | Format::Plain => {}
    }
    Ok(if wrong > 0 { exit::CHECK_FAILED } else { exit::OK })
}

fn show(common: &Common, name: &str, folder: Option<&Path>) -> Result<u8, CliError> {
    let known = match folder {
        Some(folder) => in_folder(folder)?,
        None => shipped()
            .into_iter()
            .map(|(file, text)| Ok((parse_policy(text, file).map_err(CliError::policy)?, text.to_owned())))
            .collect::<Result<_, CliError>>()?,
    };
    let Some((policy, text)) = known.iter().find(|(policy, _)| policy.name == name) else {
        let names: Vec<&str> = known.iter().map(|(policy, _)| policy.name.as_str()).collect();
        let place =
            folder.map_or("among those that ship with sluice".into(), |f| format!("in {}", f.display()));
        let error = CliError::new(exit::NOT_FOUND, "E4004", format!("no policy {name} {place}"));
        return Err(error.help(format!("there are: {}", names.join(", "))));
    };
    let hash = Digest::of(text.as_bytes()).short();
    match common.output {
        Format::Json | Format::Jsonl => {
            output::json(
                &json!({"name": policy.name, "hash": hash, "policy": policy, "source": text}).to_string(),
            )?;
        }
        Format::Plain => output::lines(text)?,
        Format::Table => output::lines(&in_words(policy, &hash))?,
    }
    Ok(exit::OK)
}

fn in_folder(folder: &Path) -> Result<Vec<(Policy, String)>, CliError> {
    let failed = |error| CliError::file(format!("reading {}", folder.display()), &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

/// The policy as sentences, made from the rules themselves.
fn in_words(p: &Policy, hash: &str) -> String {
    let kinds: Vec<&str> = p.applies_to.iter().map(|kind| kind.as_str()).collect();
    let used = if kinds.is_empty() {
        "used when an intent names it".into()
    } else {
        format!("default for {}", kinds.join(", "))
    };
    let mut text = format!("{} ({hash}), {used}\n", p.name);
    let timed = |what: String, span: Span| if span == Span::ZERO { what } else { format!("{what} {span}") };
    let steps: Vec<String> = p.steps.iter().map(|step| timed(step.to.to_string(), step.bake)).collect();
    text += &format!(
        "Ramp {}{}.\n",
        steps.join(" → "),
        if p.soak == Span::ZERO { String::new() } else { format!(", then watch for {}", p.soak) }
    );
    text.extend(p.guardrails.iter().map(|g| format!("{}.\n", guardrail(g))));
    for step in p.steps.iter().filter(|step| !step.min_samples.is_empty()) {
        let needs: Vec<String> =
            step.min_samples.iter().map(|(metric, n)| format!("{n} of {metric}")).collect();
        text += &format!("Leave {} with no fewer canary observations than {}.\n", step.to, needs.join(", "));
    }
    text.extend(
        p.approvals.iter().map(|a| format!("Ask {} to approve before {}.\n", people(a.by), a.before)),
    );
    if p.steps.iter().any(|step| step.deadline.is_some()) {
        let then = match p.on_deadline {
            OnDeadline::Hold => "hold and ask",
            OnDeadline::Rollback => "roll back",
        };
        text += &format!("Undecided at the deadline of a step: {then}.\n");
    }
    let e = &p.evidence;
    text += &format!(
        "Act on evidence of harm of {}x; promote on evidence of safety of {}x, to 100% of {}x.\n",
        e.rollback, e.promote, e.promote_last
    );
    let actuators: Vec<&str> = p.actuators.iter().map(|a| a.as_str()).collect();
    text += &format!("Carried out by {}, each to confirm within {}.\n", actuators.join(", "), p.ack_timeout);
    text
}

fn people(n: u8) -> String {
    if n == 1 { "1 person".into() } else { format!("{n} people") }
}

/// A share in percent, without digits it does not have.
fn share(x: f64) -> f64 {
    (x * 100_000.0).round() / 1_000.0
}

fn guardrail(g: &Guardrail) -> String {
    let does = match g.on_fail {
        OnFail::Rollback => "Roll back",
        OnFail::Hold => "Hold",
        OnFail::Alert => "Alert",
    };
    let metric = &g.metric;
    let worse = match g.better {
        Better::Higher => "lower",
        Better::Lower => "higher",
    };
    let when = match g.rule {
        Rule::Proportion { margin: Margin::Points(by) } => {
            format!("{metric} is shown to be more than {} points {worse} than the baseline's", share(by))
        }
        Rule::Proportion { margin: Margin::Relative(by) } => {
            format!("{metric} is shown to be more than {}% {worse} than the baseline's", share(by))
        }
        Rule::Proportion { margin: Margin::Ratio { ratio, plus } } => {
            let sign = if g.better == Better::Higher { "-" } else { "+" };
            format!(
                "{metric} is shown to be {worse} than {ratio} times the baseline's {sign} {} points",
                share(plus)
            )
        }
        Rule::Mean { handicap } => {
            format!(
                "the mean of {metric} is shown to be more than {}% {worse} than the baseline's",
                share(handicap)
            )
        }
        Rule::Absolute { above, of_last } => {
            let bad = if g.better == Better::Higher { "not " } else { "" };
            format!("more than {}% of the last {of_last} canary requests are {bad}{metric}", share(above))
        }
    };
    let gates = if g.gates { "; no promotion until it is shown not to be" } else { "" };
    format!("{does} when {when}{gates}")
}
