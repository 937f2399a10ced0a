//! Keeps after the command on its way: all confirmed, refused, or silent for too long.
//!
//! Partial success is no success: a step begins, and a rollback is done, when everybody has confirmed. A rollback that
//! is not confirmed cannot be rolled back: its silence is named again and again, and the command sent again.

use super::acts::refusal;
use super::alert::{alert, raised};
use super::conditions::observed;
use super::decision::made;
use super::readings::judge;
use super::turn::Turn;
use crate::core::event::Event;
use crate::core::event::alert::AlertKind;
use crate::core::event::decision::{Choice, Reason};
use crate::core::event::fact::Ack;
use crate::core::ids::{Actuator, CommandId};
use crate::core::planted::{Bug, planted};
use crate::core::policy::actuator::{Declared, OnDeadline};
use crate::core::state::State;
use crate::core::state::in_flight::Sent;
use crate::core::state::rollout::Stage;
use crate::core::words;

/// What follows for the command on its way.
pub fn chase(turn: Turn) -> Option<Event> {
    let Turn { state, rollout, policy, now } = turn;
    let sent = rollout.sent.as_ref()?;
    let id = rollout.id.clone();
    if sent.waiting.is_empty() {
        return Some(Event::CommandApplied { rollout: id, command: sent.command.id });
    }
    let what = words::asked(&sent.command);
    for (actuator, why) in &sent.rejected {
        let summary = format!("actuator {actuator} rejected {what}: {why}");
        if let Some(event) = alert(rollout, AlertKind::ActuatorRejected(actuator.clone()), summary) {
            return Some(event);
        }
    }
    if let Some((step, within)) = rollout.not_applied(policy, now) {
        let waiting = sent.waiting.clone();
        let because = Reason::NotApplied { waiting, within_ms: within.0 };
        let summary = words::reason(&because, &[]);
        if let Some(event) = alert(rollout, AlertKind::NotApplied(step), summary) {
            return Some(event);
        }
        if policy.on_deadline == OnDeadline::Rollback {
            return Some(back(turn, because));
        }
    }
    let again: Vec<Actuator> =
        sent.waiting.iter().filter(|a| sent.next_send(a, policy) <= now).cloned().collect();
    for actuator in &sent.waiting {
        let follows = match policy.declared.get(actuator) {
            Some(declared) => silence(turn, sent, (actuator, declared)),
            None if again.contains(actuator) && !rollout.resend => {
                let timeout = policy.ack_timeout;
                let summary =
                    format!("actuator {actuator} has not confirmed {what} within {timeout}; resending");
                alert(rollout, AlertKind::ActuatorSilent(actuator.clone()), summary)
            }
            None => None,
        };
        if follows.is_some() {
            return follows;
        }
    }
    (!again.is_empty() || rollout.resend).then(|| Event::CommandResent {
        rollout: id,
        command: if planted(Bug::DoubleCommandId) {
            CommandId::of(state.log, state.last)
        } else {
            sent.command.id
        },
        attempt: sent.attempt + 1,
        actuators: if rollout.resend { sent.waiting.clone() } else { again },
    })
}

/// A declared actuator that has used up its time is named, and then what its policy says happens.
fn silence(turn: Turn, sent: &Sent, (actuator, declared): (&Actuator, &Declared)) -> Option<Event> {
    let Turn { rollout, policy, now, .. } = turn;
    let silent_at = sent.silent_at(actuator, policy);
    if silent_at > now || planted(Bug::SilentUnnamed) {
        return None;
    }
    let (what, within) = (words::asked(&sent.command), policy.ack_within(actuator));
    if rollout.takes_back() && !planted(Bug::BackTwice) {
        let (n, due) = sent.naming(actuator, silent_at);
        let (since, canary) = (now.since(sent.issued_at), &sent.command.canary);
        let summary = format!(
            "actuator {actuator} has not confirmed the rollback, {what}, for {since}; it may still send requests to \
             {canary}. The command is sent again"
        );
        let kind = AlertKind::RollbackUnconfirmed(actuator.clone(), n);
        return (due <= now).then(|| raised(rollout, kind, summary));
    }
    let acts = declared.on_silent == OnDeadline::Rollback && rollout.stage != Stage::Releasing;
    let then = if acts { "rolling back" } else { "the command is sent again" };
    let summary = format!("actuator {actuator} has not confirmed {what} within {within}; {then}");
    alert(rollout, AlertKind::ActuatorSilent(actuator.clone()), summary).or_else(|| {
        let because = Reason::NotApplied { waiting: vec![actuator.clone()], within_ms: within.0 };
        (acts && !planted(Bug::SilenceHolds)).then(|| back(turn, because))
    })
}

fn back(turn: Turn, because: Reason) -> Event {
    made(turn, Choice::Rollback, vec![because], &judge(turn, &observed(turn)))
}

/// An acknowledgement that matched no open command of its service.
pub fn stray_ack(state: &State, ack: &Ack) -> Event {
    let service = &ack.service;
    let active =
        state.services.get(service).and_then(|s| s.active.as_ref()).and_then(|id| state.rollouts.get(id));
    let message = match active.and_then(|rollout| rollout.sent.as_ref()) {
        Some(sent) if sent.command.id == ack.command => {
            let names: Vec<&str> = sent.command.actuators.iter().map(|a| a.as_str()).collect();
            format!(
                "command {} is not for actuator {}; it is for {}",
                ack.command,
                ack.actuator,
                names.join(", ")
            )
        }
        Some(sent) => {
            format!("service {service} waits for command {}, not {}; no effect", sent.command.id, ack.command)
        }
        None => format!("service {service} waits for no confirmation; {} has no effect", ack.command),
    };
    Event::AckRefused {
        command: ack.command,
        actuator: ack.actuator.clone(),
        refusal: refusal("E2101", message),
    }
}
