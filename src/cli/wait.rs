//! `sluice wait`: blocks until a rollout gets somewhere. Made for scripts: the exit code says where it got, and
//! "sluice cannot be asked" is never mistaken for "the rollout failed".

use std::str::FromStr;
use std::time::Duration;

use serde_json::json;

use super::client::{Answer, Client};
use super::output::{self, Progress, time};
use super::rollouts::{headline, word};
use super::{CliError, Common, exit};
use crate::shell::clock;
use crate::view::rollout::{RolloutView, Standing};

/// How often the daemon is asked. It answers from memory.
const INTERVAL: Duration = Duration::from_millis(250);

#[derive(clap::Args)]
pub struct Args {
    /// Id, a suffix of it such as 118, or @last
    #[arg(value_name = "ID")]
    rollout: String,
    /// accepted, baking, step=N, holding, paused, promoted (100% reached), effective (telemetry
    /// shows the last command), soaked (completed) or terminal
    #[arg(long = "for", value_name = "STATE", value_delimiter = ',', required = true)]
    goals: Vec<Goal>,
    /// Give up after this long, with exit code 12
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Give up with exit code 13 when a person has to act
    #[arg(long, value_name = "hold", value_parser = ["hold"])]
    fail_on: Option<String>,
}

/// A place on a rollout's way. All but holding, paused and effective stay reached once they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Accepted,
    Baking,
    Step(u16),
    Holding,
    Paused,
    Promoted,
    Effective,
    Soaked,
    Terminal,
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Goal, String> {
        let step = text.strip_prefix("step=").map(|n| n.parse::<u16>().ok().filter(|n| *n > 0));
        Ok(match (text, step) {
            (_, Some(Some(n))) => Goal::Step(n),
            (_, Some(None)) => return Err("step=N takes the number of a step, from 1".into()),
            ("accepted", _) => Goal::Accepted,
            ("baking", _) => Goal::Baking,
            ("holding", _) => Goal::Holding,
            ("paused", _) => Goal::Paused,
            ("promoted", _) => Goal::Promoted,
            ("effective", _) => Goal::Effective,
            ("soaked" | "completed", _) => Goal::Soaked,
            ("terminal", _) => Goal::Terminal,
            _ => {
                return Err(
                    "expected accepted, baking, step=N, holding, paused, promoted, effective, soaked or terminal".into(),
                );
            }
        })
    }
}

impl Goal {
    fn reached(self, r: &RolloutView) -> bool {
        // A step counts from the moment all actuators have confirmed it.
        let step = r.step.unwrap_or(0);
        match self {
            Goal::Accepted => true,
            Goal::Baking => step > 0 || r.state == Standing::Completed,
            Goal::Step(n) => step >= n,
            Goal::Holding => r.state == Standing::Holding,
            Goal::Paused => r.state == Standing::Paused,
            // All of one cohort or region is not all.
            Goal::Promoted => r.weight >= 100.0 && (r.steps.is_empty() || usize::from(step) == r.steps.len()),
            // Of the command that was confirmed last; a policy that does not ask for it never shows it.
            Goal::Effective => r.unconfirmed.is_empty() && r.effective.as_ref().is_some_and(|e| e.shown),
            Goal::Soaked => r.state == Standing::Completed,
            Goal::Terminal => r.state.is_over(),
        }
    }
}

/// The exit code when waiting is over, `None` while it is not.
///
/// A rollout that was taken back or withdrawn says so whatever was waited for: a script must not read "terminal"
/// as "fine".
fn over(r: &RolloutView, goals: &[Goal], fail_on_hold: bool) -> Option<u8> {
    match r.state {
        Standing::RolledBack => Some(exit::ROLLED_BACK),
        Standing::Aborted | Standing::Superseded => Some(exit::ABORTED),
        _ if goals.iter().any(|goal| goal.reached(r)) => Some(exit::OK),
        Standing::Completed => Some(exit::CHECK_FAILED),
        Standing::Holding | Standing::Paused if fail_on_hold => Some(exit::NEEDS_HUMAN),
        _ => None,
    }
}

/// `90s`, `15m`, `4h`, `1h30m`
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it as 90s, 15m or 1h30m");
    let (mut total, mut digits) = (0_u64, String::new());
    let mut units = text.chars().peekable();
    while let Some(c) = units.next() {
        let factor_ms = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            'm' if units.next_if_eq(&'s').is_some() => 1,
            's' => 1_000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            _ => return Err(wrong()),
        };
        let n: u64 = std::mem::take(&mut digits).parse().map_err(|_| wrong())?;
        total = n.checked_mul(factor_ms).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
    }
    if text.is_empty() || !digits.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

pub async fn run(common: &Common, args: Args) -> Result<u8, CliError> {
    let client = common.client().await?;
    until(common, &client, &args.rollout, &args.goals, args.timeout, args.fail_on.is_some()).await
}

/// Waits for the first of `goals`, prints the outcome in one line, and returns its exit code.
pub async fn until(
    common: &Common,
    client: &Client,
    rollout: &str,
    goals: &[Goal],
    timeout: Option<Duration>,
    fail_on_hold: bool,
) -> Result<u8, CliError> {
    let start = clock::monotonic();
    let late = || timeout.is_some_and(|timeout| clock::monotonic() - start >= timeout);
    let mut progress = Progress::new(common.quiet);
    // The id in full: what is last, or what a suffix means, may change while we wait.
    let (mut answer, mut r) = ask(client, rollout).await?;
    let rollout = r.rollout.clone();
    let mut shown = None;
    let mut cut_off = false;
    loop {
        if let Some(exit) = over(&r, goals, fail_on_hold) {
            outcome(common, &answer, &r, exit)?;
            return Ok(exit);
        }
        if shown.replace((r.state, r.step)) != Some((r.state, r.step)) {
            progress.news(&line(&r));
        } else {
            progress.show(|| line(&r));
        }
        if late() {
            outcome(common, &answer, &r, exit::TIMED_OUT)?;
            return Ok(exit::TIMED_OUT);
        }
        tokio::time::sleep(INTERVAL).await;
        // A daemon that restarts is no reason to give up, but a reason to say so.
        loop {
            match ask(client, &rollout).await {
                Ok(asked) => {
                    if std::mem::take(&mut cut_off) {
                        progress.news("sluice is back");
                    }
                    (answer, r) = asked;
                    break;
                }
                Err(failure) if failure.exit == exit::UNKNOWN && !late() => {
                    if !std::mem::replace(&mut cut_off, true) {
                        progress.news(&format!("{}; still waiting", failure.message));
                    }
                    progress.show(|| format!("{rollout}: state unknown, sluice cannot be reached"));
                    tokio::time::sleep(INTERVAL).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

async fn ask(client: &Client, rollout: &str) -> Result<(Answer, RolloutView), CliError> {
    let answer = client.call("status", &json!({"rollout": rollout})).await?;
    let view = answer.read()?;
    Ok((answer, view))
}

fn line(r: &RolloutView) -> String {
    format!("{} {}: {}", r.rollout, headline(r), r.summary)
}

/// One sentence in which the waiting ends.
fn outcome(common: &Common, answer: &Answer, r: &RolloutView, exit: u8) -> Result<(), CliError> {
    if common.output.is_json() {
        return output::json(&answer.text);
    }
    let at = r.ended_ms.map(|ms| format!("{} ", time(ms))).unwrap_or_default();
    let state = word(r.state);
    let how = match exit {
        exit::TIMED_OUT => format!("is still {state} at {}%: {}", r.weight, r.summary),
        exit::CHECK_FAILED => format!("{state} without getting to what was waited for"),
        exit::NEEDS_HUMAN => format!("is {state} and waits for a person: {}", r.summary),
        _ if r.state.is_over() => {
            let decision = r.last_decision.as_ref().map(|d| format!(" (decision {})", d.seq));
            format!("{state}: {}{}", r.summary, decision.unwrap_or_default())
        }
        _ => format!("{state} at {}%: {}", r.weight, r.summary),
    };
    output::lines(&format!("{at}{} {how}", r.rollout))
}
