//! Keeps after the command on its way: all confirmed, refused, or silent for too long.
//!
//! Partial success is no success: a step begins, and a rollback is done, when everybody has confirmed. A rollback that
//! is not confirmed cannot be rolled back: its silence is named again and again, and the command sent again.

use super::conclusion::Choice;
use super::conclusion::{Alert, AlertKind, Reason};
use super::decide::made;
use super::event::Event;
use super::ids::{Actuator, CommandId, derived_id};
use super::judge;
use super::planted::{Bug, planted};
use super::policy::{Declared, OnDeadline, Policy};
use super::rollout::{Rollout, Sent, Stage};
use super::state::State;
use super::time::{Span, Timestamp};
use super::words;

/// How often the silence of a rollback is named.
pub const NAMED_EVERY: Span = Span::mins(5);

impl Policy {
    /// How long `actuator` may be silent.
    pub fn ack_within(&self, actuator: &Actuator) -> Span {
        let declared = self.declared.get(actuator).and_then(|declared| declared.ack_within);
        declared.unwrap_or(self.ack_timeout)
    }
}

impl Sent {
    fn heard(&self, actuator: &Actuator) -> Option<Timestamp> {
        self.progress.get(actuator).map(|(at, _)| *at)
    }

    /// When the command is sent to `actuator` again: as planned, unless it reports to be at work.
    fn next_send(&self, actuator: &Actuator, policy: &Policy) -> Timestamp {
        let every = policy.declared.get(actuator).and_then(|declared| declared.resend_every);
        let planned = match (every, self.sent_at.get(actuator)) {
            (Some(every), Some(at)) => at.plus(every),
            _ => self.resend_at,
        };
        let quiet_at = self.heard(actuator).map(|at| at.plus(policy.ack_within(actuator)));
        planned.max(quiet_at.unwrap_or_default())
    }

    /// When the time is over that a declared actuator has: from the command, its last sign of life, and a restart of
    /// the daemon, for what it said meanwhile may still be on its way. Time that a clock set forward skipped does not count.
    fn silent_at(&self, actuator: &Actuator, policy: &Policy) -> Timestamp {
        let from = self.issued_at.max(self.heard(actuator).unwrap_or_default()).max(self.restarted);
        from.plus(policy.ack_within(actuator)).plus(self.stepped)
    }

    /// How often the silence of `actuator` about a rollback has been named, and when it is next.
    fn naming(&self, actuator: &Actuator, silent_at: Timestamp) -> (u32, Timestamp) {
        match self.named.get(actuator) {
            Some((n, at)) => (n + 1, silent_at.max(at.plus(NAMED_EVERY))),
            None => (0, silent_at),
        }
    }

    /// Everything that may follow from the silence of somebody, and when.
    pub fn due<'a>(
        &'a self,
        policy: &'a Policy,
        rollout: &'a Rollout,
    ) -> impl Iterator<Item = Timestamp> + 'a {
        self.waiting.iter().flat_map(move |actuator| {
            let silent_at = policy.declared.contains_key(actuator).then(|| self.silent_at(actuator, policy));
            let named = silent_at.filter(|_| rollout.takes_back()).map(|at| self.naming(actuator, at).1);
            [Some(self.next_send(actuator, policy)), silent_at, named].into_iter().flatten()
        })
    }

    /// Those who have used up their time, for people.
    pub fn silent(&self, policy: &Policy, rollout: &Rollout, now: Timestamp) -> Vec<&Actuator> {
        let over = |actuator: &&Actuator| {
            if policy.declared.contains_key(*actuator) {
                return self.silent_at(actuator, policy) <= now;
            }
            rollout.alerts.contains_key(&AlertKind::ActuatorSilent((*actuator).clone()))
        };
        self.waiting.iter().filter(over).collect()
    }
}

impl Rollout {
    /// Whether the command on its way takes traffic back: there is nothing safer to go to.
    pub fn takes_back(&self) -> bool {
        self.stage == Stage::RollingBack || self.parked.is_some()
    }
}

/// What follows for the command on its way.
pub fn chase(state: &State, rollout: &Rollout, policy: &Policy) -> Option<Event> {
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
    if let Some((step, within)) = rollout.not_applied(policy, state.now) {
        let waiting = sent.waiting.clone();
        let because = Reason::NotApplied { waiting, within_ms: within.0 };
        let summary = words::reason(&because, &[]);
        if let Some(event) = alert(rollout, AlertKind::NotApplied(step), summary) {
            return Some(event);
        }
        if policy.on_deadline == OnDeadline::Rollback {
            return Some(back(state, rollout, policy, because));
        }
    }
    let again: Vec<Actuator> =
        sent.waiting.iter().filter(|a| sent.next_send(a, policy) <= state.now).cloned().collect();
    for actuator in &sent.waiting {
        let follows = match policy.declared.get(actuator) {
            Some(declared) => silence(state, rollout, policy, sent, (actuator, declared)),
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
            CommandId(derived_id(state.log, "command", state.last))
        } else {
            sent.command.id
        },
        attempt: sent.attempt + 1,
        actuators: if rollout.resend { sent.waiting.clone() } else { again },
    })
}

/// A declared actuator that has used up its time is named, and then what its policy says happens.
fn silence(
    state: &State,
    rollout: &Rollout,
    policy: &Policy,
    sent: &Sent,
    (actuator, declared): (&Actuator, &Declared),
) -> Option<Event> {
    let silent_at = sent.silent_at(actuator, policy);
    if silent_at > state.now || planted(Bug::SilentUnnamed) {
        return None;
    }
    let (what, within) = (words::asked(&sent.command), policy.ack_within(actuator));
    if rollout.takes_back() && !planted(Bug::BackTwice) {
        let (n, due) = sent.naming(actuator, silent_at);
        let (since, canary) = (state.now.since(sent.issued_at), &sent.command.canary);
        let summary = format!(
            "actuator {actuator} has not confirmed the rollback, {what}, for {since}; it may still send requests to \
             {canary}. The command is sent again"
        );
        let kind = AlertKind::RollbackUnconfirmed(actuator.clone(), n);
        return (due <= state.now).then(|| raised(rollout, kind, summary));
    }
    let acts = declared.on_silent == OnDeadline::Rollback && rollout.stage != Stage::Releasing;
    let then = if acts { "rolling back" } else { "the command is sent again" };
    let summary = format!("actuator {actuator} has not confirmed {what} within {within}; {then}");
    alert(rollout, AlertKind::ActuatorSilent(actuator.clone()), summary).or_else(|| {
        let because = Reason::NotApplied { waiting: vec![actuator.clone()], within_ms: within.0 };
        (acts && !planted(Bug::SilenceHolds)).then(|| back(state, rollout, policy, because))
    })
}

fn back(state: &State, rollout: &Rollout, policy: &Policy, because: Reason) -> Event {
    made(state, rollout, Choice::Rollback, vec![because], &judge::judge(rollout, policy, state.now))
}

/// As [`raised`], unless it was.
pub fn alert(rollout: &Rollout, kind: AlertKind, summary: String) -> Option<Event> {
    (!rollout.alerts.contains_key(&kind)).then(|| raised(rollout, kind, summary))
}

pub fn raised(rollout: &Rollout, kind: AlertKind, summary: String) -> Event {
    Event::AlertRaised { rollout: rollout.id.clone(), alert: Alert { kind, summary, reading: None } }
}
