//! Keeps after the command on its way: all confirmed, refused, or silent for too long.
//!
//! Partial success is no success: a step begins, and a rollback is done, when everybody has confirmed. A rollback that
//! is not confirmed cannot be rolled back: its silence is named again and again, and the command sent again.

use super::alert::{alert, raised};
use super::conditions::observed;
use super::decision::decision_event;
use super::readings::judge;
use super::turn::Turn;
use crate::core::event::Event;
use crate::core::event::alert::Alert;
use crate::core::event::decision::{Choice, Reason};
use crate::core::event::fact::Ack;
use crate::core::event::refusal::Refusal;
use crate::core::ids::Actuator;
use crate::core::policy::actuator::{Declared, OnDeadline};
use crate::core::state::State;
use crate::core::state::in_flight::InFlightCommand;
use crate::core::state::rollout::Stage;

/// What follows for the command on its way.
pub fn follow_up(turn: Turn) -> Option<Event> {
    let Turn { rollout, policy, now, .. } = turn;
    let sent = rollout.sent.as_ref()?;
    let id = rollout.id.clone();
    if sent.waiting.is_empty() {
        return Some(Event::CommandApplied { rollout: id, command: sent.command.id });
    }
    for (actuator, why) in &sent.rejected {
        let (actuator, asked, why) = (actuator.clone(), sent.command.asked(), why.clone());
        if let Some(event) = alert(rollout, Alert::ActuatorRejected { actuator, asked, why }) {
            return Some(event);
        }
    }
    if let Some((step, within)) = rollout.not_applied(policy, now) {
        let waiting = sent.waiting.clone();
        if let Some(event) = alert(rollout, Alert::NotApplied { step, waiting: waiting.clone(), within }) {
            return Some(event);
        }
        if policy.on_deadline == OnDeadline::Rollback {
            return Some(back(turn, Reason::NotApplied { waiting, within_ms: within.0 }));
        }
    }
    let again: Vec<Actuator> =
        sent.waiting.iter().filter(|a| sent.next_send(a, policy) <= now).cloned().collect();
    for actuator in &sent.waiting {
        let follows = match policy.declared.get(actuator) {
            Some(declared) => silence(turn, sent, (actuator, declared)),
            None if again.contains(actuator) && !rollout.resend => {
                let (actuator, asked, within) = (actuator.clone(), sent.command.asked(), policy.ack_timeout);
                alert(rollout, Alert::ActuatorSilent { actuator, asked, within, on_silent: None })
            }
            None => None,
        };
        if follows.is_some() {
            return follows;
        }
    }
    (!again.is_empty() || rollout.resend).then(|| Event::CommandResent {
        rollout: id,
        command: sent.command.id,
        attempt: sent.attempt + 1,
        actuators: if rollout.resend { sent.waiting.clone() } else { again },
    })
}

/// A declared actuator that has used up its time is named, and then what its policy says happens.
fn silence(
    turn: Turn,
    sent: &InFlightCommand,
    (actuator, declared): (&Actuator, &Declared),
) -> Option<Event> {
    let Turn { rollout, policy, now, .. } = turn;
    let silent_at = sent.silent_at(actuator, policy);
    if silent_at > now {
        return None;
    }
    let (asked, within) = (sent.command.asked(), policy.ack_within(actuator));
    if rollout.takes_back() {
        let (before, due) = sent.announcement(actuator, silent_at);
        let (since, canary) = (now.since(sent.issued_at), sent.command.canary.clone());
        let actuator = actuator.clone();
        let unconfirmed = Alert::RollbackUnconfirmed { actuator, asked, canary, since, before };
        return (due <= now).then(|| raised(rollout, unconfirmed));
    }
    let acts = declared.on_silent == OnDeadline::Rollback && rollout.stage != Stage::Releasing;
    let on_silent = Some(if acts { OnDeadline::Rollback } else { OnDeadline::Hold });
    let silent = Alert::ActuatorSilent { actuator: actuator.clone(), asked, within, on_silent };
    alert(rollout, silent).or_else(|| {
        let because = Reason::NotApplied { waiting: vec![actuator.clone()], within_ms: within.0 };
        acts.then(|| back(turn, because))
    })
}

fn back(turn: Turn, because: Reason) -> Event {
    decision_event(turn, Choice::Rollback, vec![because], &judge(turn, &observed(turn)))
}

/// An acknowledgement that matched no open command of its service.
pub fn stray_ack(state: &State, ack: &Ack) -> Event {
    let service = ack.service.clone();
    let active =
        state.services.get(&service).and_then(|s| s.active.as_ref()).and_then(|id| state.rollouts.get(id));
    let (command, actuator) = (ack.command, ack.actuator.clone());
    let refusal = match active.and_then(|rollout| rollout.sent.as_ref()).map(|sent| &sent.command) {
        Some(sent) if sent.id == command => {
            let (actuator, actuators) = (actuator.clone(), sent.actuators.clone());
            Refusal::AckOfAnother { command, actuator, actuators }
        }
        Some(sent) => Refusal::OtherCommandWaits { service, waits: sent.id, command },
        None => Refusal::NothingWaits { service, command },
    };
    Event::AckRefused { command, actuator, refusal }
}
