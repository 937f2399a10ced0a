//! The command line: arguments in, one request or one look at a log, words and an exit code out.
//!
//! Data goes to standard output, everything said about it to standard error. A verb means the same here as in the
//! API, the messages and the log. Exit codes are in `exit`, and nowhere else.

mod act;
mod client;
pub mod demo;
mod deploy;
mod emit;
mod error;
mod exit;
mod explain;
mod git;
mod log;
mod output;
mod plan;
mod policy;
mod policy_test;
pub mod replay;
mod rollouts;
pub mod serve;
pub mod simulate;
mod wait;
mod windows;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use client::{Client, Target};
use error::CliError;
use output::Format;

use crate::core::event::code::Code;
use crate::core::event::verb::Verb as Act;

#[derive(Parser)]
#[command(
    name = "sluice",
    version,
    about = "Brings a change to an AI system into production a little at a time, and takes it back when it does harm",
    before_help = "  $ sluice demo",
    after_help = exit::HELP,
    subcommand_required = true,
    arg_required_else_help = true,
    infer_long_args = false
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(clap::Args)]
pub struct Common {
    #[command(flatten)]
    target: Target,
    /// How to print what was found
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true,
        help = "How to print: table, json (the API's answer, unchanged), jsonl or plain (tab-separated)"
    )]
    output: Format,
    /// Say less on standard error
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl Common {
    async fn client(&self) -> Result<Client, CliError> {
        Client::connect(&self.target).await
    }
}

#[derive(Subcommand)]
enum Verb {
    /// List rollouts: where each stands, and what is in its way
    #[command(before_help = "  $ sluice ls")]
    Ls(rollouts::ListArgs),
    /// Show one rollout: its plan, its position and every guardrail
    #[command(before_help = "  $ sluice status support-bot-118")]
    Status(rollouts::StatusArgs),
    /// Say why a rollout stands where it stands, and what happens next
    #[command(before_help = "  $ sluice explain 118")]
    Explain(explain::Args),
    /// Wait until a rollout gets somewhere; the exit code says where it got
    #[command(before_help = "  $ sluice wait 118 --for promoted --timeout 4h")]
    Wait(wait::Args),
    /// Say how long a rollout would take at the traffic of late, and what would shorten it
    #[command(before_help = "  $ sluice plan support-bot --kind model")]
    Plan(plan::Args),
    /// Submit a change: a new model version, prompt, index, cache or serving stack
    #[command(
        visible_alias = "submit",
        before_help = "  $ sluice deploy support-bot prompt@42 --reason \"shorter refund flow\""
    )]
    Deploy(deploy::Args),
    // What people do to a rollout has its words in the table of `Act`.
    Promote(act::Args),
    Pause(act::Args),
    Resume(act::Args),
    Rollback(act::Args),
    Abort(act::Args),
    Approve(act::Args),
    Note(act::Args),
    /// Let nothing move forward, of one service or at all; rollbacks still happen
    #[command(before_help = "  $ sluice freeze --reason \"the data centre is on fire\" --until 4h")]
    Freeze(windows::FreezeArgs),
    /// End a freeze
    #[command(before_help = "  $ sluice unfreeze --reason \"it is out\"")]
    Unfreeze(windows::UnfreezeArgs),
    /// Say when a service may move forward, and why (not) at a time
    #[command(
        before_help = "  $ sluice windows support-bot\n  $ sluice windows why support-bot --at \"2026-12-24 15:00 Europe/Berlin\""
    )]
    Windows(windows::Args),
    Claim(act::Args),
    Skip(act::Args),
    /// Confirm a command as an actuator does
    #[command(
        before_help = "  $ sluice ack 0190a0b0-0000-7000-8000-000000000001 --actuator router-us --service support-bot"
    )]
    Ack(act::AckArgs),
    /// Send telemetry: one sample, or a recorded file at the speed of your choice
    #[command(
        before_help = "  $ sluice emit support-bot --as prompt@42 eval_pass=1 cost_usd=0.0139\n  $ sluice emit support-bot -f day.csv --speed 60x"
    )]
    Emit(emit::Args),
    /// Look at the log: follow it, show one event, check it, move it
    #[command(before_help = "  $ sluice log tail", subcommand_required = true, arg_required_else_help = true)]
    Log {
        #[command(subcommand)]
        verb: log::Verb,
    },
    /// Decide recorded history again, and compare
    #[command(before_help = "  $ sluice replay --verify")]
    Replay(replay::Args),
    /// Check and show policies
    #[command(
        before_help = "  $ sluice policy check policies/prompt.yaml",
        subcommand_required = true,
        arg_required_else_help = true
    )]
    Policy {
        #[command(subcommand)]
        verb: policy::Verb,
    },
    /// Run the daemon
    #[command(before_help = "  $ sluice serve --nats nats://127.0.0.1:4222")]
    Serve(serve::Args),
    /// Watch a good and a bad change roll out, simulated, in under a minute
    #[command(before_help = "  $ sluice demo")]
    Demo(demo::Args),
    /// Drive the rules, the log and the formats through made-up trouble, and check every promise
    #[command(before_help = "  $ sluice simulate --seeds 0..1000\n  $ sluice simulate --seed 17 --trace")]
    Simulate(simulate::Args),
    /// Print the version of sluice and of its rules
    #[command(before_help = "  $ sluice version")]
    Version,
    /// Print completions for a shell
    #[command(
        before_help = "  $ sluice completions bash > ~/.local/share/bash-completion/completions/sluice"
    )]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

/// Runs what the command line asks for, says what went wrong, and returns the exit code.
pub fn main() -> ExitCode {
    let ended = parse().and_then(|cli| {
        let runtime = tokio::runtime::Runtime::new()
            .map_err(|error| CliError::new(exit::BUG, Code::Fault, format!("cannot start: {error}")))?;
        runtime.block_on(run(cli))
    });
    let exit = ended.unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            // Where nobody can be told, the exit code still says it.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{}", failure.text());
        }
        failure.exit
    });
    ExitCode::from(exit)
}

/// The whole command line, with its words.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|verb| match Act::named(verb.get_name()).map(Act::spec) {
        Some(act) => verb.about(act.help).before_help(format!("  $ {}", act.example)),
        None => verb,
    })
}

fn parse() -> Result<Cli, CliError> {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| {
        use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Nothing;
        if !error.use_stderr() || error.kind() == Nothing {
            let exit = if error.kind() == Nothing { exit::USAGE } else { exit::OK };
            return match error.print() {
                Ok(()) => CliError::silent(exit),
                Err(error) => CliError::output(&error),
            };
        }
        let text = error.render().to_string();
        let (message, help) = text.trim_end().split_once("\n\n").unwrap_or((text.trim_end(), ""));
        let help = help.lines().map(str::trim).filter(|line| !line.is_empty());
        let help: Vec<&str> = help.map(|line| line.strip_prefix("tip: ").unwrap_or(line)).collect();
        CliError::usage(message.strip_prefix("error: ").unwrap_or(message)).help(help.join("\n"))
    })
}

async fn run(cli: Cli) -> Result<u8, CliError> {
    match cli.verb {
        // These end in their own way when they are interrupted.
        Verb::Serve(args) => return serve::run(cli.common.target, args).await,
        Verb::Demo(args) => return demo::run(args),
        Verb::Simulate(args) => return simulate::main(&cli.common, &args),
        _ => {}
    }
    tokio::select! {
        // First: who is interrupted before it listens says nothing.
        biased;
        _ = tokio::signal::ctrl_c() => {
            let message = "interrupted. What was sent stays sent, and rollouts keep running";
            Err(CliError::new(exit::INTERRUPTED, Code::Interrupted, message))
        }
        ended = client_verb(&cli.common, cli.verb) => ended,
    }
}

async fn client_verb(common: &Common, verb: Verb) -> Result<u8, CliError> {
    match verb {
        Verb::Ls(args) => rollouts::list(common, args).await,
        Verb::Status(args) => rollouts::status(common, args).await,
        Verb::Explain(args) => explain::run(common, args).await,
        Verb::Plan(args) => plan::run(common, args).await,
        Verb::Wait(args) => wait::run(common, args).await,
        Verb::Deploy(args) => deploy::run(common, args).await,
        Verb::Promote(args) => act::run(common, Act::Promote, args).await,
        Verb::Pause(args) => act::run(common, Act::Pause, args).await,
        Verb::Resume(args) => act::run(common, Act::Resume, args).await,
        Verb::Rollback(args) => act::run(common, Act::Rollback, args).await,
        Verb::Abort(args) => act::run(common, Act::Abort, args).await,
        Verb::Approve(args) => act::run(common, Act::Approve, args).await,
        Verb::Note(args) => act::run(common, Act::Note, args).await,
        Verb::Freeze(args) => windows::freeze(common, args).await,
        Verb::Unfreeze(args) => windows::unfreeze(common, args).await,
        Verb::Windows(args) => windows::run(common, args).await,
        Verb::Claim(args) => act::run(common, Act::Claim, args).await,
        Verb::Skip(args) => act::run(common, Act::Skip, args).await,
        Verb::Ack(args) => act::ack(common, args).await,
        Verb::Emit(args) => emit::run(common, args).await,
        Verb::Log { verb } => log::run(common, verb).await,
        Verb::Replay(args) => replay::run(common.output, args),
        Verb::Policy { verb } => policy::run(common, verb),
        Verb::Version => version(common),
        Verb::Completions { shell } => completions(shell),
        Verb::Serve(_) | Verb::Demo(_) | Verb::Simulate(_) => unreachable!("run by the caller"),
    }
}

fn version(common: &Common) -> Result<u8, CliError> {
    let (version, engine) = (env!("CARGO_PKG_VERSION"), crate::core::rules::ENGINE);
    if common.output.is_json() {
        output::json(&serde_json::json!({"version": version, "engine": engine}).to_string())?;
    } else {
        output::lines(&format!("sluice {version}, rules version {engine}"))?;
    }
    Ok(exit::OK)
}

fn completions(shell: clap_complete::Shell) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "sluice", &mut script);
    output::raw(&script)?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_verbs_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_is_offered_with_its_words() {
        let command = command();
        let of = |name: &str| command.get_subcommands().find(|verb| verb.get_name() == name);
        for verb in Act::ALL {
            let about = of(verb.as_str()).and_then(|found| found.get_about()).map(ToString::to_string);
            assert_eq!(about.as_deref(), Some(verb.spec().help));
        }
        let silent: Vec<&str> = command
            .get_subcommands()
            .filter(|verb| verb.get_about().is_none())
            .map(|v| v.get_name())
            .collect();
        assert!(silent.is_empty(), "without a word of help: {silent:?}");
    }
}
