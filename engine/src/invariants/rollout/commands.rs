//! What is commanded, and who has confirmed it.

use uuid::Uuid;

use super::{Checked, Followed, ensure};
use crate::core::event::alert::AlertKind;
use crate::core::event::command::Command;
use crate::core::event::decision::Choice;
use crate::core::event::fact::{Ack, AckStatus};
use crate::core::ids::{Actuator, CommandId, Weight, derived_id};
use crate::core::policy::Policy;
use crate::core::policy::segment::Task;
use crate::core::time::{Span, Timestamp};
use crate::invariants::actuation::{Effect, Silence, Smokes};

impl Followed {
    pub fn ack(&mut self, at: Timestamp, ack: &Ack) {
        let Some(open) = self.open.as_ref().filter(|open| open.id == ack.command) else { return };
        if ack.status == AckStatus::Progress && open.actuators.contains(&ack.actuator) {
            self.silence.heard.insert(ack.actuator.clone(), at);
        }
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
        ensure(command.baseline == self.baseline && command.canary == self.spec.to, "I20", || {
            format!("{id} sets {} and {}", command.baseline, command.canary)
        })?;
        let (shares, task) = match (self.entering, self.choice) {
            (Some(step), _) => (shares(policy, step).1, policy.step(step).task),
            (None, Some(Choice::Complete)) => (Vec::new(), Some(Task::Release)),
            _ => (Vec::new(), None),
        };
        let said: Vec<_> =
            command.segments.iter().map(|own| (own.segment.name.as_str(), own.weight)).collect();
        ensure(said == shares, "I17", || format!("{id} sets {said:?}, its policy says {shares:?}"))?;
        ensure(command.task == task, "I17", || {
            format!("{id} asks for {:?}, its policy for {task:?}", command.task)
        })?;
        self.in_order(policy, command)?;
        self.tasked(command)?;
        self.comparable.issued(at);
        self.last = Some(command.clone());
        self.issued_at = at;
        self.silence = Silence::default();
        self.alerts.retain(|kind| !matches!(kind, AlertKind::RollbackUnconfirmed(..)));
        self.confirmed.clear();
        self.open = Some(command.clone());
        self.commands += 1;
        Ok(())
    }

    /// Segments are exposed one after another, the rest last; and one that goes back alone gives back its
    /// own share only.
    fn in_order(&self, policy: &Policy, command: &Command) -> Checked {
        let Some(segments) = &policy.segments else { return Ok(()) };
        let said: Vec<_> = command.segments.iter().map(|own| (&own.segment.name, own.weight)).collect();
        let in_order = said.iter().zip(&segments.named).all(|((name, _), segment)| **name == segment.name);
        let all_before = command.weight == Weight::ZERO
            || command.weight == Weight::FULL
            || said.len() == segments.named.len();
        ensure(in_order && all_before, "I39", || format!("{} exposes {said:?} out of order", self.id))?;
        let (Some(Some(returned)), true, Some(last)) = (self.returned, self.segment_taken_back, &self.last)
        else {
            return Ok(());
        };
        let failed = &segments.named[usize::from(returned)].name;
        let kept: Vec<_> = last.segments.iter().map(|own| (&own.segment.name, own.weight)).collect();
        // Those after it have begun only where its labels are slow.
        let kept: Vec<_> = kept.into_iter().take_while(|(name, _)| *name != failed).collect();
        ensure(said == kept && command.weight == Weight::ZERO, "I39", || {
            format!("{failed} goes back alone, {said:?} stay of {kept:?}")
        })
    }

    /// While something is being prepared nobody is served by it, and what served before is given up once, at the end.
    fn tasked(&mut self, command: &Command) -> Checked {
        let (id, task) = (&self.id, command.task);
        let prepares = matches!(task, Some(Task::Populate | Task::Start | Task::Shadow));
        let nobody = command.weight == Weight::ZERO && command.segments.is_empty();
        ensure(!prepares || nobody, "I40", || format!("{id} serves {} in {task:?}", command.weight))?;
        let over = self.choice == Some(Choice::Complete) && command.weight == Weight::FULL;
        let gives_up = task == Some(Task::Release);
        ensure(!gives_up || over && !self.released, "I40", || {
            format!("{id} gives up {} after {:?}", self.baseline, self.choice)
        })?;
        self.released |= gives_up;
        Ok(())
    }

    pub fn resent(&mut self, command: CommandId, actuators: &[Actuator]) -> Checked {
        // Of a rollback that telemetry does not show.
        if let Some(effect) = self.effect.as_mut().filter(|effect| effect.command == command) {
            ensure(std::mem::take(&mut effect.again) && effect.actuators == *actuators, "I45", || {
                format!("{command} was confirmed and is sent again")
            })?;
            return Ok(());
        }
        let open = self.open.as_ref().filter(|open| open.id == command);
        ensure(open.is_some(), "I15", || {
            format!("{} sends {command} again, open is {:?}", self.id, self.open)
        })?;
        let confirmed = actuators.iter().find(|actuator| self.confirmed.contains(*actuator));
        ensure(confirmed.is_none(), "I15", || {
            format!("{command} is sent again to {confirmed:?}, who confirmed")
        })
    }

    pub fn applied(&mut self, at: Timestamp, policy: &Policy, command: CommandId) -> Checked {
        let Some(open) = self.open.take_if(|open| open.id == command) else {
            return Err(("I17", format!("{} applies {command}, open is {:?}", self.id, self.open)));
        };
        let missing = open.actuators.iter().find(|actuator| !self.confirmed.contains(*actuator));
        ensure(missing.is_none(), "I17", || format!("{command} counts as applied without {missing:?}"))?;
        self.comparable.applied(at);
        self.weight = open.segments.iter().map(|segment| segment.weight).fold(open.weight, Weight::max);
        self.alerts.retain(|kind| {
            use AlertKind::{ActuatorRejected, ActuatorSilent, NotApplied, RollbackUnconfirmed};
            !matches!(kind, ActuatorSilent(_) | ActuatorRejected(_) | NotApplied(_) | RollbackUnconfirmed(..))
        });
        let back = self.takes_back();
        let about = if back { self.taken } else { self.entering };
        self.effect = about.and_then(|step| Effect::wanted(policy, &open, step, back, at));
        if let Some(step) = self.entering.take() {
            self.smoke = Smokes::begin(policy, step, self.segment_taken_back);
            self.applied = Some((at, step));
            self.first_applied.get_or_insert(at);
            self.unwatched = Span::ZERO;
            self.approvals.clear();
        }
        Ok(())
    }
}

/// The canary's share of everybody in no named segment once `step` is applied, and of each segment that has one.
pub(super) fn shares(policy: &Policy, step: u16) -> (Weight, Vec<(&str, Weight)>) {
    let (mut rest, mut shares) = (Weight::ZERO, Vec::<(&str, Weight)>::new());
    if step as usize == policy.steps.len() - 1 {
        return (Weight::FULL, shares);
    }
    let named = policy.segments.iter().flat_map(|segments| &segments.named);
    let named: Vec<&str> = named.map(|segment| segment.name.as_str()).collect();
    for step in &policy.steps[..=usize::from(step)] {
        match step.segment {
            None => rest = step.to,
            Some(i) => {
                shares.retain(|(name, _)| *name != named[usize::from(i)]);
                shares.push((named[usize::from(i)], step.to));
            }
        }
    }
    (rest, shares)
}
