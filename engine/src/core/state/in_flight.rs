//! A command on its way to the actuators.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::event::alert::Objection;
use crate::core::event::command::Command;
use crate::core::ids::Actuator;
use crate::core::policy::Policy;
use crate::core::time::{Span, Timestamp};

/// How long until the silence of a declared actuator about a rollback is named again.
const ANNOUNCE_EVERY: Span = Span::mins(5);

/// A command on its way to the actuators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InFlightCommand {
    pub command: Command,
    pub issued_at: Timestamp,
    /// Who has not confirmed it.
    pub waiting: Vec<Actuator>,
    pub attempt: u32,
    /// When it is sent again.
    pub resend_at: Timestamp,
    /// Who refused it, and why.
    pub rejected: Vec<(Actuator, Objection)>,
    /// Who reported to be at work: when last, and how much is done of how much.
    pub progress: BTreeMap<Actuator, (Timestamp, Option<(u64, u64)>)>,
    /// When it was last sent to those who have a time of their own for that.
    pub sent_at: BTreeMap<Actuator, Timestamp>,
    /// How many of the attempts were to those only.
    pub scheduled: u32,
    /// Whose silence about a rollback was named: how often before, and when last.
    pub announced: BTreeMap<Actuator, (u32, Timestamp)>,
    /// The last restart of the daemon, and by how much the clock was set forward, since it was issued: of those who are declared.
    pub restarted: Timestamp,
    pub stepped: Span,
}

impl InFlightCommand {
    fn heard(&self, actuator: &Actuator) -> Option<Timestamp> {
        self.progress.get(actuator).map(|(at, _)| *at)
    }

    /// When the command is sent to `actuator` again: as planned, unless it reports to be at work.
    pub fn next_send(&self, actuator: &Actuator, policy: &Policy) -> Timestamp {
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
    pub fn silent_at(&self, actuator: &Actuator, policy: &Policy) -> Timestamp {
        let from = self.issued_at.max(self.heard(actuator).unwrap_or_default()).max(self.restarted);
        from.plus(policy.ack_within(actuator)).plus(self.stepped)
    }

    /// How often the silence of `actuator` about a rollback has been named, and when it is next.
    pub fn announcement(&self, actuator: &Actuator, silent_at: Timestamp) -> (u32, Timestamp) {
        match self.announced.get(actuator) {
            Some((n, at)) => (n + 1, silent_at.max(at.plus(ANNOUNCE_EVERY))),
            None => (0, silent_at),
        }
    }

    /// Everything that may follow from the silence of somebody, and when.
    pub fn due<'a>(&'a self, policy: &'a Policy, takes_back: bool) -> impl Iterator<Item = Timestamp> + 'a {
        self.waiting.iter().flat_map(move |actuator| {
            let silent_at = policy.declared.contains_key(actuator).then(|| self.silent_at(actuator, policy));
            let named = silent_at.filter(|_| takes_back).map(|at| self.announcement(actuator, at).1);
            [Some(self.next_send(actuator, policy)), silent_at, named].into_iter().flatten()
        })
    }
}
