//! What is commanded, and who has confirmed it.

use uuid::Uuid;

use super::{Checked, Followed, ensure};
use crate::core::event::{Ack, AckStatus, AlertKind, Choice, Command};
use crate::core::exposure::Task;
use crate::core::ids::{Actuator, CommandId, Weight, derived_id};
use crate::core::policy::Policy;
use crate::core::time::{Span, Timestamp};

impl Followed {
    pub fn ack(&mut self, ack: &Ack) {
        let Some(open) = self.open.as_ref().filter(|open| open.id == ack.command) else { return };
        let whole = ack.done.is_none_or(|(done, of)| done >= of);
        if ack.status == AckStatus::Applied && whole && open.actuators.contains(&ack.actuator) {
            self.confirmed.insert(ack.actuator.clone());
        }
    }

    pub fn issued(&mut self, at: Timestamp, log: Uuid, policy: &Policy, command: &Command) -> Checked {
        let id = &self.id;
        let due = self.to_issue.take();
        ensure(due == Some((command.decision, command.weight)), "I15", || {
            format!("{id} owes the command of {due:?}, issued is {} of {}", command.weight, command.decision)
        })?;
        let derived = CommandId(derived_id(log, "command", command.decision));
        ensure(command.id == derived, "I15", || format!("the command is {}, not {derived}", command.id))?;
        ensure(command.actuators == policy.actuators, "I15", || {
            format!("{id} commands {:?}", command.actuators)
        })?;
        ensure(command.baseline == self.baseline && command.canary == self.opening.to, "I20", || {
            format!("{id} sets {} and {}", command.baseline, command.canary)
        })?;
        let (parts, task) = match (self.entering, self.choice) {
            (Some(step), _) => (shares(policy, step).1, policy.steps[usize::from(step)].task),
            (None, Some(Choice::Complete)) => (Vec::new(), Some(Task::Release)),
            _ => (Vec::new(), None),
        };
        let said: Vec<_> = command.parts.iter().map(|p| (p.segment.name.as_str(), p.weight)).collect();
        ensure(said == parts, "I17", || format!("{id} sets {said:?}, its policy says {parts:?}"))?;
        ensure(command.task == task, "I17", || {
            format!("{id} asks for {:?}, its policy for {task:?}", command.task)
        })?;
        self.issued_at = at;
        self.confirmed.clear();
        self.open = Some(command.clone());
        self.commands += 1;
        Ok(())
    }

    pub fn resent(&mut self, command: CommandId, actuators: &[Actuator]) -> Checked {
        let open = self.open.as_ref().filter(|open| open.id == command);
        ensure(open.is_some(), "I15", || {
            format!("{} sends {command} again, open is {:?}", self.id, self.open)
        })?;
        let confirmed = actuators.iter().find(|actuator| self.confirmed.contains(*actuator));
        ensure(confirmed.is_none(), "I15", || {
            format!("{command} is sent again to {confirmed:?}, who confirmed")
        })
    }

    pub fn applied(&mut self, at: Timestamp, command: CommandId) -> Checked {
        let Some(open) = self.open.take_if(|open| open.id == command) else {
            return Err(("I17", format!("{} applies {command}, open is {:?}", self.id, self.open)));
        };
        let missing = open.actuators.iter().find(|actuator| !self.confirmed.contains(*actuator));
        ensure(missing.is_none(), "I17", || format!("{command} counts as applied without {missing:?}"))?;
        self.weight = open.parts.iter().map(|part| part.weight).fold(open.weight, Weight::max);
        self.alerts.retain(|kind| {
            use AlertKind::{ActuatorRejected, ActuatorSilent, NotApplied};
            !matches!(kind, ActuatorSilent(_) | ActuatorRejected(_) | NotApplied(_))
        });
        if let Some(step) = self.entering.take() {
            self.applied = Some((at, step));
            self.first_applied.get_or_insert(at);
            self.unwatched = Span::ZERO;
            self.approvals.clear();
        }
        Ok(())
    }
}

/// The canary's share of everybody in no named part once `step` is applied, and of each part that has one.
pub(super) fn shares(policy: &Policy, step: u16) -> (Weight, Vec<(&str, Weight)>) {
    let (mut rest, mut shares) = (Weight::ZERO, Vec::<(&str, Weight)>::new());
    if step as usize == policy.steps.len() - 1 {
        return (Weight::FULL, shares);
    }
    let parts = policy.segments.iter().flat_map(|segments| &segments.parts);
    let parts: Vec<&str> = parts.map(|part| part.name.as_str()).collect();
    for step in &policy.steps[..=usize::from(step)] {
        match step.segment {
            None => rest = step.to,
            Some(i) => {
                shares.retain(|(name, _)| *name != parts[usize::from(i)]);
                shares.push((parts[usize::from(i)], step.to));
            }
        }
    }
    (rest, shares)
}
