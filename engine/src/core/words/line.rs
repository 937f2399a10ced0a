//! One line of text per event: `log tail`, traces and test scenarios. Never wraps, never carries a control
//! character, always the same for the same event.

use crate::core::event::Event;
use crate::core::event::alert::AlertKind;
use crate::core::event::bundle::{self, Composition};
use crate::core::event::fact::AckStatus;
use crate::core::ids::{CommandId, EventSeq, Scope};
use crate::core::policy::actuator::Run;
use crate::core::text::{self, plain};
use crate::core::time::{Span, Timestamp};
use crate::core::words;

/// The event's own part of the line: kind, then what it says.
pub fn describe(event: &Event) -> String {
    let said = match event {
        Event::LogCreated { log, build } => format!("log {log} by {build}"),
        Event::DaemonStarted { build } => build.clone(),
        Event::EngineAdopted { engine } => format!("engine {engine}"),
        Event::ClockStepped { by } => format!("forward by {by}: not counted as watched"),
        Event::PolicyStored { digest, policy, .. } => format!("{} {}", policy.name, digest.short()),
        Event::IntentReceived { intent, .. } => {
            let from = intent.from.as_ref().map_or("?", |v| v.as_str());
            let finding = finding(&intent.finding);
            format!(
                "{} {} {from} -> {}{} by {}{}: {}{finding}",
                intent.id,
                intent.service,
                intent.to,
                made_of(&intent.composition),
                intent.by,
                scopes(&intent.scopes),
                intent.reason
            )
        }
        Event::BatchReceived { service, columns, .. } => {
            format!(
                "{service} {} observations in {} series",
                text::count(columns.observations()),
                columns.series.len()
            )
        }
        Event::AckReceived { ack, .. } => match &ack.status {
            AckStatus::Applied => {
                let done =
                    ack.done.map(|(done, of)| format!(", {} of {}", text::count(done), text::count(of)));
                let done = done.unwrap_or_default();
                format!("{} {} {} applied{done}", ack.service, short(&ack.command), ack.actuator)
            }
            AckStatus::Progress => {
                let done =
                    ack.done.map(|(done, of)| format!(": {} of {}", text::count(done), text::count(of)));
                format!(
                    "{} {} {} at work{}",
                    ack.service,
                    short(&ack.command),
                    ack.actuator,
                    done.unwrap_or_default()
                )
            }
            AckStatus::Rejected(why) => {
                format!("{} {} {} rejected: {why}", ack.service, short(&ack.command), ack.actuator)
            }
        },
        Event::OperatorActed { act, .. } => {
            let (verb, reason) = (act.verb.as_str(), &act.reason);
            format!("{} {verb} by {}@{}: {reason}", act.rollout, act.actor, act.host)
        }
        Event::InputRejected { rejection, .. } => {
            format!("{} {}: {}", rejection.source, rejection.code, rejection.message)
        }
        Event::TimePassed => String::new(),
        Event::WindowsComputed { policy, bounds } => {
            format!("{} {}: {}", policy.short(), if bounds.open { "open" } else { "closed" }, bounds.why)
        }
        Event::FreezeOrdered { order, .. } => {
            let (verb, scope) =
                (if order.freeze { "freeze" } else { "unfreeze" }, words::scope(order.service.as_ref()));
            format!("{verb} {scope} by {}@{}: {}", order.actor, order.host, order.reason)
        }
        Event::FreezeStarted { freeze } => {
            let ends =
                freeze.until.map_or(String::new(), |until| format!(", for {}", until.since(freeze.since)));
            format!("{} by {}{ends}", words::scope(freeze.service.as_ref()), freeze.by)
        }
        Event::FreezeEnded { service, by } => match by {
            Some(by) => format!("{} by {by}", words::scope(service.as_ref())),
            None => format!("{}: its time is over", words::scope(service.as_ref())),
        },
        Event::FreezeRefused { service, actor, refusal } => {
            format!(
                "{} by {actor}: {} {}",
                words::scope(service.as_ref()),
                refusal.code(),
                words::refusal::text(refusal)
            )
        }
        Event::IntentRefused { intent, refusal, .. } => {
            format!("{intent} {}: {}", refusal.code(), words::refusal::text(refusal))
        }
        Event::RolloutCreated { rollout, spec } => {
            let wait = spec.behind.as_ref().map(|id| format!(", behind {id}")).unwrap_or_default();
            let scopes = scopes(&spec.scopes);
            let blocked = spec.blocked.as_ref();
            let blocked = blocked.map(|b| format!(", behind {} for {}", b.by, b.scope)).unwrap_or_default();
            let names: Vec<&str> = spec.supersedes.iter().map(|id| id.as_str()).collect();
            let instead =
                if names.is_empty() { String::new() } else { format!(", in place of {}", names.join(", ")) };
            let attempt =
                if spec.attempt > 1 { format!(", attempt {}", spec.attempt) } else { String::new() };
            let policy = format!("{} {}", spec.policy_name, spec.policy.short());
            let finding = finding(&spec.finding);
            let changes = changes(&spec.from_composition, &spec.composition);
            format!(
                "{rollout} {} -> {}{changes} policy {policy}{attempt}{scopes}{wait}{blocked}{instead}{finding}",
                spec.from, spec.to
            )
        }
        Event::ActAccepted { rollout, verb, actor } => format!("{rollout} {} by {actor}", verb.as_str()),
        Event::ActRefused { rollout, verb, actor, refusal } => {
            format!(
                "{rollout} {} by {actor}: {} {}",
                verb.as_str(),
                refusal.code(),
                words::refusal::text(refusal)
            )
        }
        Event::ReferenceFrozen { rollout, guardrail, reference } => {
            // Counts and splits have nothing to learn from the baseline.
            if reference.n == 0 {
                return format!("{rollout} {guardrail} bets on which arm an event comes from");
            }
            let beyond = if let Some(cap) = reference.cap {
                format!(", values above {cap} count as {cap}")
            } else {
                reference.threshold.map(|at| format!(", threshold {at}")).unwrap_or_default()
            };
            let n = text::count(reference.n);
            format!("{rollout} {guardrail} baseline {:.4} from {n}{beyond}", reference.theta)
        }
        Event::CohortScored { rollout, guardrail, scored, .. } => {
            let e = &scored.evidence;
            let (b, c) = (&scored.baseline, &scored.canary);
            if scored.reference_only {
                format!("{rollout} {guardrail} {} baseline observations for the reference", text::count(b.n))
            } else {
                let (harm, safe) = (e.harm.ln(), e.safe.ln());
                format!(
                    "{rollout} {guardrail} canary {}/{} baseline {}/{} harm {harm:.3} safe {safe:.3}",
                    round(c.sum),
                    c.n,
                    round(b.sum),
                    b.n
                )
            }
        }
        Event::VerdictReached { rollout, reading } => format!("{rollout} {}", words::reading(reading)),
        Event::DecisionMade { rollout, decision } => {
            let choice = decision.choice.as_str().to_uppercase();
            format!("{rollout} {choice} {}: {}", words::moves(decision), words::decision(decision))
        }
        Event::CommandIssued { rollout, command } => {
            let names: Vec<&str> = command.actuators.iter().map(|a| a.as_str()).collect();
            let id = short(&command.id);
            let task = command.task.map(|task| format!("{}, ", task.as_str())).unwrap_or_default();
            let shares: String = command
                .segments
                .iter()
                .map(|part| format!("{} {}, ", part.segment.name, part.weight))
                .collect();
            let others = if command.segments.is_empty() { "" } else { "others " };
            let (to, weight) = (names.join(", "), command.weight);
            format!("{rollout} {id} {task}set {} = {shares}{others}{weight} to {to}", command.canary)
        }
        Event::CommandResent { rollout, command, attempt, actuators } => {
            let names: Vec<&str> = actuators.iter().map(|a| a.as_str()).collect();
            format!("{rollout} {} to {}, attempt {attempt}", short(command), names.join(", "))
        }
        Event::CommandApplied { rollout, command } => {
            format!("{rollout} {} confirmed by all", short(command))
        }
        Event::AckRefused { actuator, refusal, .. } => {
            format!("{actuator} {}: {}", refusal.code(), words::refusal::text(refusal))
        }
        Event::AlertRaised { rollout, alert } => {
            let kind = match alert.kind() {
                AlertKind::Guardrail(_) => "guardrail",
                AlertKind::Unjudgeable(_) => "unjudgeable",
                AlertKind::ActuatorSilent(_)
                | AlertKind::ActuatorRejected(_)
                | AlertKind::NotApplied(_)
                | AlertKind::RollbackUnconfirmed(..) => "actuator",
                AlertKind::NotEffective(..) => "effect",
                AlertKind::Smoke(_) => "smoke",
                AlertKind::Segment(_) => "segment",
                AlertKind::Overtaken => "overtaken",
                AlertKind::Condition(_) => "condition",
                AlertKind::Slice(..) => "slice",
                AlertKind::AboveCap(_) => "above_cap",
                AlertKind::Deadline(_) => "deadline",
            };
            format!("{rollout} {kind}: {}", words::alert::text(alert))
        }
        Event::EffectShown { rollout, effect } => {
            let (to, took) = (effect.to, Span(effect.took_ms));
            let share = effect.canary as f64 / effect.requests as f64 * 100.0;
            let (requests, metric) = (text::count(effect.requests), &effect.metric);
            let id = short(&effect.command);
            format!(
                "{rollout} {id} {to} effective after {took}: {share:.1}% of {requests} requests ({metric})"
            )
        }
        Event::SmokeAsked { rollout, ask } => {
            let run = match &ask.run {
                Run::Command(argv) => format!("run {}", argv.join(" ")),
                Run::Request(subject) => format!("ask {subject}"),
            };
            let again = if ask.attempt > 1 { format!(", attempt {}", ask.attempt) } else { String::new() };
            let id = &ask.id.to_string()[..8];
            format!("{rollout} {id} {}: {run}, within {}{again}", ask.name, ask.timeout)
        }
        Event::SmokeFinished { result } => {
            let (id, outcome, took) = (&result.id.to_string()[..8], result.outcome, Span(result.took_ms));
            let detail = result.detail.trim().replace('\n', " | ");
            let said = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            let (rollout, name) = (&result.rollout, &result.name);
            format!("{rollout} {id} {name} {} after {took}{said}", outcome.as_str().replace('_', " "))
        }
        Event::RolloutEnded { rollout, outcome } => {
            let outcome = serde_json::to_value(outcome).ok();
            format!("{rollout} {}", outcome.as_ref().and_then(|o| o.as_str()).unwrap_or(""))
        }
    };
    plain(format!("{:<16} {said}", event.kind()).trim_end())
}

/// A whole line: sequence, time since `start`, text.
pub fn line(seq: EventSeq, at: Timestamp, start: Timestamp, event: &Event) -> String {
    let ms = at.since(start).0;
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms as f64 / 1_000.0 % 60.0);
    format!("{seq:>6} {h:02}:{m:02}:{s:06.3} {}", describe(event))
}

/// `, scopes gateway, vector-db`
fn scopes(scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    if names.is_empty() { String::new() } else { format!(", scopes {}", names.join(", ")) }
}

/// ` (model opus-4.7, prompt p@12; prompts/refund.md 1a2b3c4d5e6f)`
fn made_of(composition: &Composition) -> String {
    let parts: Vec<String> =
        composition.parts.iter().map(|(part, version)| format!("{} {version}", part.as_str())).collect();
    let git = composition.git.as_ref().map(|git| format!("{} {}", git.path, bundle::range(None, git)));
    let said: Vec<String> = Some(parts.join(", ")).into_iter().filter(|p| !p.is_empty()).chain(git).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
}

/// What a rollout changes, as far as what serves is known.
fn changes(from: &Composition, to: &Composition) -> String {
    let known = !from.parts.is_empty() && !to.parts.is_empty();
    let parts = if known { words::listed(&bundle::changed(&from.parts, &to.parts)) } else { String::new() };
    let git = to.git.as_ref().map(|git| format!("{} {}", git.path, bundle::range(from.git.as_ref(), git)));
    let said: Vec<String> = Some(parts).into_iter().filter(|p| !p.is_empty()).chain(git).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
}

fn finding(finding: &Option<String>) -> String {
    finding.as_ref().map(|finding| format!("; found: {finding}")).unwrap_or_default()
}

/// The first eight digits of a command's id.
fn short(command: &CommandId) -> String {
    command.to_string()[..8].to_owned()
}

fn round(x: f64) -> String {
    if x == libm::floor(x) { format!("{x}") } else { format!("{x:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_shown_and_the_rest_is_left() {
        assert_eq!(plain("a\x1b]0;owned\x07"), r"a\x1b]0;owned\x07");
        assert_eq!(
            plain("\u{9b}2J \u{ad}\u{200b}\u{202e}txt\u{e0041}"),
            r"\u{9b}2J \u{ad}\u{200b}\u{202e}txt\u{e0041}"
        );
        assert_eq!(plain("größer → 東京 \\x"), "größer → 東京 \\x");
    }
}
