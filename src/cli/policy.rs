//! `sluice policy`: what a policy file says, and what is wrong with it.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::output::{self, Format};
use super::{CliError, Common, exit, policy_test};
use crate::core::event::code::Code;
use crate::core::ids::{Actuator, Digest};
use crate::core::policy::actuator::{Declared, Effective, OnDeadline, Run, Smoke};
use crate::core::policy::guardrail::{Guardrail, Judged, OnFail, Unless};
use crate::core::policy::segment::{OnSegmentFailure, Segment, SegmentKind, Test};
use crate::core::policy::windows::{Window, Windows};
use crate::core::policy::{Concurrency, Policy, Retry};
use crate::core::text::percent;
use crate::core::time::Span;
use crate::shell::policies::{self, Loaded};

#[derive(Subcommand)]
pub enum Verb {
    /// Check policy files; names every mistake and where it is
    #[command(before_help = "  $ sluice policy check policies/prompt.yaml")]
    Check {
        /// Policy files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Run scripted traffic under policies, and check what becomes of it
    #[command(before_help = "  $ sluice policy test policies/tests")]
    Test {
        /// Folder of test files, which end in .test
        folder: PathBuf,
        /// Number that the chances of the scripts are drawn from
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// Say in plain words what a policy file does, as made from its rules
    #[command(before_help = "  $ sluice policy explain policies/prompt.yaml")]
    Explain {
        /// Policy file
        file: PathBuf,
    },
    /// Show a policy that ships with sluice, or one of a folder, in words
    #[command(before_help = "  $ sluice policy show prompt-default")]
    Show {
        /// Its name
        name: String,
        /// Folder of policy files, beside the policies that ship with sluice
        #[arg(long, env = "SLUICE_POLICIES", value_name = "DIR")]
        policies: Option<PathBuf>,
    },
}

pub fn run(common: &Common, verb: Verb) -> Result<u8, CliError> {
    match verb {
        Verb::Check { files } => check(common, &files),
        Verb::Test { folder, seed } => policy_test::run(common, &folder, seed),
        Verb::Explain { file } => explain(common, &file),
        Verb::Show { name, policies } => show(common, &name, policies.as_deref()),
    }
}

fn check(common: &Common, files: &[PathBuf]) -> Result<u8, CliError> {
    let mut wrong = 0;
    let mut results = Vec::new();
    for file in files {
        let name = file.display().to_string();
        match policies::check(file) {
            Ok(Loaded { policy, source, .. }) => {
                let hash = Digest::of(source.as_bytes()).short();
                match common.output {
                    Format::Json | Format::Jsonl => {
                        results.push(json!({"file": name, "ok": true, "policy": policy.name, "hash": hash}));
                    }
                    Format::Plain => output::lines(&format!("{name}\tok\t{}\t{hash}", policy.name))?,
                    Format::Table => output::lines(&format!("ok  {name}: policy {} ({hash})", policy.name))?,
                }
            }
            Err(error) => {
                let error = CliError::policies(error);
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

fn explain(common: &Common, file: &Path) -> Result<u8, CliError> {
    say(common, &policies::check(file).map_err(CliError::policies)?)
}

fn show(common: &Common, name: &str, folder: Option<&Path>) -> Result<u8, CliError> {
    let known = policies::load(folder).map_err(CliError::policies)?;
    let Some(found) = known.iter().find(|known| known.policy.name == name) else {
        let names: Vec<&str> = known.iter().map(|known| known.policy.name.as_str()).collect();
        let error = CliError::new(exit::NOT_FOUND, Code::NotFound, format!("no policy {name}"));
        return Err(error.help(format!("there are: {}", names.join(", "))));
    };
    say(common, found)
}

fn say(common: &Common, Loaded { policy, source, .. }: &Loaded) -> Result<u8, CliError> {
    let hash = Digest::of(source.as_bytes()).short();
    match common.output {
        Format::Json | Format::Jsonl => {
            output::json(
                &json!({"name": policy.name, "hash": hash, "policy": policy, "source": source}).to_string(),
            )?;
        }
        Format::Plain => output::lines(source)?,
        Format::Table => output::lines(&in_words(policy, &hash))?,
    }
    Ok(exit::OK)
}

/// The policy as sentences, made from the rules themselves.
fn in_words(p: &Policy, hash: &str) -> String {
    let kinds: Vec<&str> = p.applies_to.iter().map(|kind| kind.as_str()).collect();
    let used = if kinds.is_empty() {
        "used when an intent names it".into()
    } else {
        let which = if p.significant { "significant changes of " } else { "" };
        format!("default for {which}{}", kinds.join(", "))
    };
    [format!("{} ({hash}), {used}\n", p.name), way(p), watch(p), waits(p), turn(p), confirmed(p)].concat()
}

/// By which steps, and what happens at the end of them.
fn way(p: &Policy) -> String {
    let timed = |what: String, span: Span| if span == Span::ZERO { what } else { format!("{what} {span}") };
    let steps: Vec<String> = (0..).zip(&p.steps).map(|(i, step)| timed(p.step_name(i), step.bake)).collect();
    let soak = if p.soak == Span::ZERO { String::new() } else { format!(", then watch for {}", p.soak) };
    let mut text = format!("Ramp {}{soak}.\n", steps.join(" → "));
    if let Some(segments) = &p.segments {
        text.extend(segments.named.iter().map(|part| format!("{}.\n", member(segments.kind, part))));
        if segments.on_failure == OnSegmentFailure::Alone {
            text +=
                "Take back only the region that fails, and ask; the first, or when a person says so, all.\n";
        }
    }
    if p.ab {
        text += "Decide at the horizon: the new version wins if every gate is met, else the old one stays.\n";
    }
    if p.release {
        text += "Give up the old one at the end.\n";
    }
    if p.keep_old != Span::ZERO {
        text +=
            &format!("Keep the old version for {} after that: so long it can be taken back.\n", p.keep_old);
    }
    text
}

/// What is watched meanwhile.
fn watch(p: &Policy) -> String {
    let guardrails = p.guardrails.iter().map(|g| format!("{}.\n", guardrail(p, g)));
    let slices = p.guardrails.iter().filter_map(|g| Some(format!("{}.\n", slices(g)?)));
    let conditions = p.conditions.iter().map(|condition| {
        let does = if condition.on == OnFail::Alert { "Alert" } else { "Hold, and alert," };
        format!("{does} as long as {}: {}.\n", condition.name, condition.when.text())
    });
    guardrails.chain(slices).chain(conditions).collect()
}

/// What else a promotion waits for, and how long.
fn waits(p: &Policy) -> String {
    let mut text = String::new();
    for (i, step) in (0..).zip(&p.steps).filter(|(_, step)| !step.min_samples.is_empty()) {
        let needs: Vec<String> =
            step.min_samples.iter().map(|(metric, n)| format!("{n} of {metric}")).collect();
        let name = p.step_name(i);
        text += &format!("Leave {name} with no fewer canary observations than {}.\n", needs.join(", "));
    }
    text.extend(p.approvals.iter().map(|a| {
        let others = if a.not_submitter { ", none of whom submitted the change" } else { "" };
        format!("Ask {} to approve before {}{others}.\n", people(a.by), a.before)
    }));
    if p.steps.iter().any(|step| step.deadline.is_some()) {
        let then = match p.on_deadline {
            OnDeadline::Hold => "hold and ask",
            OnDeadline::Rollback => "roll back",
        };
        text += &format!("Undecided at the deadline of a step: {then}.\n");
    }
    text.extend(p.windows.iter().flat_map(in_time));
    text
}

/// What runs beside it, and what may be tried again.
fn turn(p: &Policy) -> String {
    let mut text = String::new();
    if !p.scopes.is_empty() {
        let names: Vec<&str> = p.scopes.iter().map(|scope| scope.as_str()).collect();
        text += &format!("Have {} to itself while it runs.\n", names.join(", "));
    }
    text += match p.concurrency {
        Concurrency::Queue => "",
        Concurrency::Refuse => "Refused while another change of the service runs.\n",
        Concurrency::Supersede => "Take the place of another change of the service that runs or waits.\n",
    };
    if p.parts_at_once > 1 {
        text += &format!("Up to {} parts of a bundle may change at once.\n", p.parts_at_once);
    }
    text += match p.retry_after_rollback {
        Retry::NeedsFinding => {
            "After a rollback that nobody ordered, the version is tried again with a finding only.\n"
        }
        Retry::Allowed => "After a rollback that nobody ordered, the version may be tried again.\n",
    };
    text
}

/// On how much evidence, by whom, and how that is seen.
fn confirmed(p: &Policy) -> String {
    let e = &p.evidence;
    let mut text = format!(
        "Act on evidence of harm of {}x; promote on evidence of safety of {}x, to 100% of {}x.\n",
        e.rollback, e.promote, e.promote_last
    );
    let actuators: Vec<&str> = p.actuators.iter().map(|a| a.as_str()).collect();
    text += &format!("Carried out by {}, each to confirm within {}.\n", actuators.join(", "), p.ack_timeout);
    text.extend(p.declared.iter().map(|(name, declared)| format!("{}.\n", actuation(p, name, declared))));
    if let Some(Effective { within, after }) = p.effective {
        let from =
            if after == Span::ZERO { String::new() } else { format!(", counted from {after} after it") };
        text += &format!(
            "Promote nothing before telemetry shows the last confirmed share{from}; tell people if it has not within {within}. A \
             rollback is over when telemetry shows it.\n"
        );
    }
    text.extend(p.smoke.iter().map(|test| format!("{}.\n", tested(test))));
    text
}

/// `Send to router-eu on routers.eu, again every 10s; silent for 1m: named, and the step taken back`
fn actuation(p: &Policy, name: &Actuator, declared: &Declared) -> String {
    let on = declared.subject.as_ref().map(|subject| format!(" on {subject}")).unwrap_or_default();
    let again = declared.resend_every.map(|every| format!(", again every {every}")).unwrap_or_default();
    let then = match declared.on_silent {
        OnDeadline::Hold => "the step waits",
        OnDeadline::Rollback => "the step is taken back",
    };
    format!("Send to {name}{on}{again}; silent for {}: it is named, and {then}", p.ack_within(name))
}

/// `At every step run /usr/local/bin/golden --fast (golden-prompts), at most 10m: roll back if it fails`
fn tested(test: &Smoke) -> String {
    let at = if test.first { "At the first step" } else { "At every step" };
    let run = match &test.run {
        Run::Command(argv) => format!("run {}", argv.join(" ")),
        Run::Request(subject) => format!("ask {subject}"),
    };
    let then = match test.on_fail {
        OnDeadline::Hold => "hold",
        OnDeadline::Rollback => "roll back",
    };
    format!(
        "{at} {run} ({}), at most {}: {then} if it fails, no promotion before it has passed",
        test.name, test.timeout
    )
}

fn in_time(windows: &Windows) -> Vec<String> {
    let named = |reason: &str| if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let window = |w: &Window| format!("{} for {}, {}{}", w.cron, w.duration, w.tz, named(&w.reason));
    let all = |windows: &[Window]| windows.iter().map(window).collect::<Vec<_>>().join("; ");
    let mut said = Vec::new();
    if !windows.allow.is_empty() {
        said.push(format!("Start and promote only in a window: {}.\n", all(&windows.allow)));
    }
    if !windows.deny.is_empty() {
        said.push(format!("Start and promote nothing in: {}.\n", all(&windows.deny)));
    }
    said.extend(
        windows
            .freeze
            .iter()
            .map(|f| format!("Freeze from {} to {}, {}{}.\n", f.from, f.to, f.tz, named(&f.reason))),
    );
    said.push("Windows and freezes never keep a rollback from happening.\n".into());
    said
}

/// `cohort beta: plan is one of pro, team`
fn member(kind: SegmentKind, part: &Segment) -> String {
    let test = match &part.test {
        Test::In(values) => format!("is one of {}", values.join(", ")),
        Test::StartsWith(text) => format!("starts with {text}"),
        Test::EndsWith(text) => format!("ends with {text}"),
    };
    format!("{} {}: {} {test}", kind.as_str(), part.name, part.attribute)
}

fn people(n: u8) -> String {
    if n == 1 { "1 person".into() } else { format!("{n} people") }
}

/// What one slice of a guardrail can do.
fn slices(g: &Guardrail) -> Option<String> {
    let (tag, Judged { values, on_fail }) = (g.slices.as_ref()?, g.judged.as_ref()?);
    let does = if *on_fail == OnFail::Alert { "Alert" } else { "Hold, and alert," };
    Some(format!("{does} if {} fails in one {tag}: {}", g.name, values.join(", ")))
}

fn guardrail(p: &Policy, g: &Guardrail) -> String {
    let does = match g.on_fail {
        OnFail::Rollback => "Roll back",
        OnFail::Hold => "Hold",
        OnFail::Alert => "Alert",
    };
    let when = g.rule.kind().fails_when(&g.metric, g.better);
    let unless = g.unless.as_ref().map(|unless| match unless {
        Unless::Benefit { guardrail } => {
            let by = p.guardrails.iter().find(|g| g.name == *guardrail).and_then(|g| g.benefit);
            let by = percent(by.unwrap_or(0.0));
            format!("; hold instead once {guardrail} is shown to be more than {by} points better")
        }
        Unless::When { when } => format!("; hold instead as long as {}", when.text()),
    });
    let gates = if g.gates { "; no promotion until it is shown not to be" } else { "" };
    format!("{does} when {when}{}{gates}", unless.unwrap_or_default())
}
