//! One rollout: where it stands and what it has seen. Facts and conclusions move it; nothing here chooses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::in_flight::InFlightCommand;
use super::smoke::{self, SmokeTest};
use crate::core::event::alert::{Alert, AlertKind, Objection};
use crate::core::event::command::Command;
use crate::core::event::decision::{Choice, Decision, Reason};
use crate::core::event::fact::Act;
use crate::core::event::rollout_spec::{Outcome, RolloutSpec};
use crate::core::event::verb::Verb;
use crate::core::evidence::monitor::GuardrailMonitor;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{Actuator, CommandId, EventSeq, RolloutId, SmokeId, Version, Weight, derived_id};
use crate::core::policy::Policy;
use crate::core::policy::actuator::Smoke;
use crate::core::policy::guardrail::Guardrail;
use crate::core::policy::segment::Task;
use crate::core::telemetry::arm::Arm;
use crate::core::time::{Span, Timestamp};

/// Where a rollout stands. A stage holds what is true in that stage, and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waits for another rollout of the same service.
    Queued,
    /// The command to enter `step` is in the log; not every actuator has confirmed it.
    Applying {
        step: u16,
    },
    Baking(Bake),
    /// At 100 %, guardrails armed.
    Soaking(Bake),
    RollingBack,
    /// Completed, and what served before is being given up.
    Releasing,
    Ended(Outcome),
}

/// A step being watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bake {
    pub step: u16,
    pub since: Timestamp,
    /// Time since then that does not count: the daemon was down, the clock was set forward, or a person had paused
    /// the rollout.
    pub unwatched: Span,
    /// Something other than time is in the way, as last announced.
    pub held: Option<Vec<Reason>>,
}

/// Somebody takes responsibility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub by: String,
    pub at: Timestamp,
    pub seq: EventSeq,
}

/// Moves that are remembered; older ones are of cohorts that have long settled.
const SHARE_CHANGES_MAX: usize = 64;
/// By how much the clocks of senders may differ from the log's.
const CLOCKS: Span = Span::secs(5);

/// All that is known of one open rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub id: RolloutId,
    pub spec: RolloutSpec,
    /// What served when it started: the arm it is compared with and goes back to.
    pub baseline: Version,
    pub stage: Stage,
    pub created: EventSeq,
    pub created_at: Timestamp,
    /// The last event that moved it: what `--if-seq` is compared with.
    pub moved: EventSeq,
    /// The last decision, with its sequence.
    pub last_choice: Option<Box<(EventSeq, Decision)>>,
    /// Aligned with the policy's guardrails.
    pub monitors: Vec<GuardrailMonitor>,
    /// When each step was applied.
    pub steps: Vec<(Timestamp, u16)>,
    /// When traffic was on its way from one share to another: the command, and its last confirmation.
    pub share_changes: VecDeque<(Timestamp, Option<Timestamp>)>,
    /// Share that the actuators last confirmed.
    pub weight: Weight,
    pub sent: Option<InFlightCommand>,
    /// The command of the last decision, until it is issued.
    pub to_issue: Option<Command>,
    pub paused: Option<(String, Timestamp)>,
    /// The segment that was taken back by itself; what comes next is a person's decision.
    pub segment_taken_back: Option<String>,
    /// Who approved the promotion out of the current step.
    pub approvals: BTreeSet<String>,
    /// Who takes responsibility for it.
    pub claimed: Option<Claim>,
    /// The newer rollout that takes its place.
    pub superseded: Option<RolloutId>,
    /// An accepted order of a person that no decision has carried out yet.
    pub order: Option<Act>,
    /// Raised once each. Those about actuators end with the command they were about.
    pub alerts: BTreeMap<AlertKind, Alert>,
    /// What telemetry has to show of the last command that was confirmed.
    pub effect: Option<Effect>,
    /// The tests of the current step.
    pub smoke: Vec<SmokeTest>,
    /// Set at a restart: commands not confirmed are sent again.
    pub resend: bool,
    /// The last restart or step of the clock: silence before it says nothing about the senders, and what they sent meanwhile may
    /// still be on its way.
    pub resumed: Timestamp,
    /// When what was sent while nobody watched has had time to arrive: no cohort settles before.
    pub caught_up: Timestamp,
}

/// How far apart two resends may grow.
const RESEND_MAX: Span = Span::mins(5);

impl Rollout {
    pub fn new(id: RolloutId, spec: RolloutSpec, policy: &Policy, seq: EventSeq, at: Timestamp) -> Rollout {
        let monitors = policy.guardrails.iter().map(GuardrailMonitor::new).collect();
        Rollout {
            id,
            baseline: spec.from.clone(),
            spec,
            stage: Stage::Queued,
            created: seq,
            created_at: at,
            moved: seq,
            last_choice: None,
            monitors,
            steps: Vec::new(),
            share_changes: VecDeque::new(),
            weight: Weight::ZERO,
            sent: None,
            to_issue: None,
            paused: None,
            segment_taken_back: None,
            approvals: BTreeSet::new(),
            claimed: None,
            superseded: None,
            order: None,
            alerts: BTreeMap::new(),
            effect: None,
            smoke: Vec::new(),
            resend: false,
            resumed: Timestamp::default(),
            caught_up: Timestamp::default(),
        }
    }

    /// The step being watched, if one is.
    pub fn bake(&self) -> Option<&Bake> {
        match &self.stage {
            Stage::Baking(bake) | Stage::Soaking(bake) => Some(bake),
            _ => None,
        }
    }

    pub fn bake_mut(&mut self) -> Option<&mut Bake> {
        match &mut self.stage {
            Stage::Baking(bake) | Stage::Soaking(bake) => Some(bake),
            _ => None,
        }
    }

    /// Index of the step that serves: the last one applied.
    pub fn serving_step(&self) -> Option<u16> {
        self.steps.last().map(|(_, step)| *step)
    }

    /// Since when a monitor has heard nothing of an arm; `None` before the first step.
    pub fn quiet_since(&self, policy: &Policy, monitor: &GuardrailMonitor, arm: Arm) -> Option<Timestamp> {
        let answers = |step: u16| {
            let step = policy.step(step);
            step.to > Weight::ZERO || step.task == Some(Task::Shadow)
        };
        let began = self.steps.iter().find(|(_, step)| answers(*step)).map(|(at, _)| *at)?;
        let last = if arm == Arm::Canary { monitor.last_canary } else { monitor.last_baseline };
        Some(last.unwrap_or(began).max(self.resumed))
    }

    /// When a cohort settles, at the earliest when what was sent while nobody watched has had one cohort's time to arrive.
    pub(super) fn settles(&self, policy: &Policy, guardrail: &Guardrail, start: Timestamp) -> Timestamp {
        let length = policy.evidence.cohort;
        start.plus(length).plus(guardrail.maturity).max(self.caught_up)
    }

    /// Index of the step whose traffic is, or is about to be, served.
    pub fn step(&self) -> Option<u16> {
        match &self.stage {
            Stage::Applying { step } => Some(*step),
            Stage::Baking(bake) | Stage::Soaking(bake) => Some(bake.step),
            _ => self.steps.last().map(|(_, step)| *step),
        }
    }

    /// Whether the command on its way takes traffic back: there is nothing safer to go to.
    pub fn takes_back(&self) -> bool {
        self.stage == Stage::RollingBack || self.segment_taken_back.is_some()
    }

    /// Whether guardrails can still change what happens.
    pub fn guardrails_active(&self) -> bool {
        matches!(self.stage, Stage::Applying { .. } | Stage::Baking(_) | Stage::Soaking(_))
    }

    /// Whether some traffic may have reached the canary.
    pub fn exposed(&self) -> bool {
        !self.steps.is_empty() || self.sent.is_some()
    }

    /// How long the current step has been watched at `now`.
    pub fn watched(&self, now: Timestamp) -> Span {
        let Some(bake) = self.bake() else { return Span::ZERO };
        let until = self.paused.as_ref().map_or(now, |(_, since)| (*since).max(bake.since));
        until.since(bake.since).minus(bake.unwatched)
    }

    /// The step that served a request at `served_at`, and when that step was applied.
    pub fn step_at(&self, served_at: Timestamp) -> Option<(Timestamp, u16)> {
        self.steps.iter().rev().find(|(since, _)| *since <= served_at).copied()
    }

    /// Whether the share was, or may have been, another than that of the step at some time from `from` to `to`: some
    /// actuators had followed a command, and some had not.
    pub fn share_in_flux(&self, from: Timestamp, to: Timestamp) -> bool {
        self.share_changes.iter().rev().any(|(issued, applied)| {
            to.plus(CLOCKS) >= *issued && applied.is_none_or(|applied| from <= applied.plus(CLOCKS))
        })
    }

    /// Whether what was served at `served_at` may be of this rollout, and not of an earlier one of the same version.
    pub fn began_by(&self, served_at: Timestamp) -> bool {
        served_at.plus(CLOCKS) >= self.created_at
    }

    /// The step on its way that was not applied in the time it has, and that time.
    pub fn not_applied(&self, policy: &Policy, now: Timestamp) -> Option<(u16, Span)> {
        let Stage::Applying { step } = self.stage else { return None };
        let within = policy.step(step).apply_within?;
        (self.sent.as_ref()?.issued_at.plus(within) <= now).then_some((step, within))
    }

    /// The next moment at which something may follow from time alone, after `now`.
    pub fn due(&self, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
        let mut times: Vec<Timestamp> = Vec::new();
        if self.guardrails_active() && !self.steps.is_empty() {
            for (monitor, guardrail) in self.monitors.iter().zip(&policy.guardrails) {
                times.extend(monitor.oldest().map(|start| self.settles(policy, guardrail, start)));
                for arm in [Arm::Canary, Arm::Baseline] {
                    times
                        .extend(self.quiet_since(policy, monitor, arm).map(|at| at.plus(policy.stale_after)));
                }
            }
        }
        if let (Some(bake), None) = (self.bake(), &self.paused) {
            let start = bake.since.plus(bake.unwatched);
            let step = policy.step(bake.step);
            match self.stage {
                Stage::Soaking(_) => times.push(start.plus(step.bake).plus(policy.soak)),
                _ => {
                    times.push(start.plus(step.bake));
                    times.extend(step.deadline.map(|deadline| start.plus(deadline)));
                }
            }
        }
        times.extend(self.sent.iter().flat_map(|sent| sent.due(policy, self.takes_back())));
        times.extend(self.effect.as_ref().and_then(|effect| effect.due(policy)));
        if let (Stage::Applying { step }, Some(sent)) = (&self.stage, &self.sent) {
            let within = policy.step(*step).apply_within;
            times.extend(within.map(|within| sent.issued_at.plus(within)));
        }
        times.into_iter().filter(|at| *at > now).min()
    }

    /// Whether a cohort has settled by `now` and waits to be scored: guardrail and start of the oldest.
    pub fn settled(&self, policy: &Policy, now: Timestamp) -> Option<(usize, Timestamp)> {
        let monitors = self.monitors.iter().zip(&policy.guardrails).enumerate();
        monitors
            .filter_map(|(i, (monitor, guardrail))| Some((i, guardrail, monitor.oldest()?)))
            .find(|(_, guardrail, start)| self.settles(policy, guardrail, *start) <= now)
            .map(|(i, _, start)| (i, start))
    }

    /// Folds a new command: it waits for every actuator.
    pub fn apply_issued(&mut self, command: &Command, policy: &Policy, at: Timestamp) {
        self.to_issue = None;
        if !matches!(self.share_changes.back(), Some((_, None))) {
            self.share_changes.push_back((at, None));
            if self.share_changes.len() > SHARE_CHANGES_MAX {
                self.share_changes.pop_front();
            }
        }
        // What was said of the command before ends with it, also where nobody had confirmed it.
        self.alerts.retain(|kind, _| !matches!(kind, AlertKind::RollbackUnconfirmed(..)));
        self.sent = Some(InFlightCommand {
            waiting: command.actuators.clone(),
            command: command.clone(),
            issued_at: at,
            attempt: 1,
            resend_at: at.plus(policy.ack_timeout),
            rejected: Vec::new(),
            progress: BTreeMap::new(),
            sent_at: policy
                .declared
                .iter()
                .filter(|(_, declared)| declared.resend_every.is_some())
                .map(|(actuator, _)| (actuator.clone(), at))
                .collect(),
            scheduled: 0,
            announced: BTreeMap::new(),
            restarted: Timestamp::default(),
            stepped: Span::ZERO,
        });
    }

    /// Folds a resend: the wait until the next one doubles, up to five minutes, but for those who have a time of their own.
    pub fn apply_resent(&mut self, attempt: u32, actuators: &[Actuator], policy: &Policy, at: Timestamp) {
        self.resend = false;
        let Some(sent) = &mut self.sent else {
            if let Some(effect) = &mut self.effect {
                effect.apply_resent(attempt);
            }
            return;
        };
        sent.attempt = attempt;
        let mut others = 0;
        for actuator in actuators {
            match sent.sent_at.get_mut(actuator) {
                Some(last) => *last = at,
                None => others += 1,
            }
        }
        if others == 0 {
            sent.scheduled += 1;
            return;
        }
        let wait = policy.ack_timeout.0 << (attempt - sent.scheduled).saturating_sub(1).min(16);
        sent.resend_at = at.plus(Span(wait).min(RESEND_MAX.max(policy.ack_timeout)));
    }

    /// Folds a confirmation (or refusal) of the command now on its way.
    pub fn apply_ack(&mut self, command: CommandId, actuator: &Actuator, refused: Option<Objection>) {
        let Some(sent) = self.sent.as_mut().filter(|sent| sent.command.id == command) else { return };
        match refused {
            Some(why) => {
                if !sent.rejected.iter().any(|(name, _)| name == actuator) {
                    sent.rejected.push((actuator.clone(), why));
                }
            }
            None => {
                sent.waiting.retain(|name| name != actuator);
                sent.rejected.retain(|(name, _)| name != actuator);
            }
        }
    }

    /// Folds that people are told of something that is told more than once.
    pub fn apply_alerted(&mut self, kind: &AlertKind, policy: &Policy, at: Timestamp) {
        match kind {
            AlertKind::RollbackUnconfirmed(actuator, n) => {
                self.alerts.retain(
                    |kind, _| !matches!(kind, AlertKind::RollbackUnconfirmed(other, _) if other == actuator),
                );
                if let Some(sent) = &mut self.sent {
                    sent.announced.insert(actuator.clone(), (*n, at));
                }
            }
            AlertKind::NotEffective(..) => {
                self.alerts.retain(|kind, _| !matches!(kind, AlertKind::NotEffective(..)));
                let back = self.stage == Stage::RollingBack;
                if let Some(effect) = &mut self.effect {
                    effect.apply_announced(policy, at, back);
                }
                // No request speaks against it, and none may ever come.
                self.effect.take_if(|effect| back && !effect.again);
            }
            _ => {}
        }
    }

    /// Folds that telemetry shows what was commanded.
    pub fn apply_shown(&mut self, at: Timestamp) {
        if let Some(effect) = &mut self.effect {
            effect.shown = Some(at);
        }
        self.alerts.retain(|kind, _| !matches!(kind, AlertKind::NotEffective(..)));
    }

    /// Folds that an actuator is at work.
    pub fn apply_progress(&mut self, actuator: &Actuator, done: Option<(u64, u64)>, at: Timestamp) {
        if let Some(sent) = &mut self.sent {
            sent.progress.insert(actuator.clone(), (at, done));
        }
    }

    /// All actuators have confirmed: the step begins, or the rollback is done.
    pub fn apply_applied(&mut self, policy: &Policy, seq: EventSeq, at: Timestamp) {
        let Some(sent) = self.sent.take() else { return };
        if let Some((_, applied @ None)) = self.share_changes.back_mut() {
            *applied = Some(at);
        }
        self.effect = self.effect_wanted(policy, &sent, at);
        self.smoke = self.smoke_tests(policy, &sent.command);
        self.weight = match self.stage {
            Stage::Applying { step } => policy.step(step).to,
            _ => sent.command.weight,
        };
        let about_actuators = |kind: &AlertKind| {
            use AlertKind::{
                ActuatorRejected, ActuatorSilent, NotApplied, NotEffective, RollbackUnconfirmed,
            };
            matches!(
                kind,
                ActuatorSilent(_)
                    | ActuatorRejected(_)
                    | NotApplied(_)
                    | RollbackUnconfirmed(..)
                    | NotEffective(..)
            )
        };
        self.alerts.retain(|kind, _| !about_actuators(kind));
        self.moved = seq;
        if let Stage::Applying { step } = self.stage {
            let segment = |step: u16| policy.segment_index(step);
            let begins = self.serving_step().is_some_and(|before| segment(before) != segment(step));
            if begins {
                // Requests that a clock ahead of the log's puts into the time from now on are of the part before.
                self.monitors.iter_mut().for_each(|monitor| monitor.drop_from(at));
            }
            self.steps.push((at, step));
            self.approvals.clear();
            let bake = Bake { step, since: at, unwatched: Span::ZERO, held: None };
            let last = usize::from(step) + 1 == policy.steps.len();
            self.stage = if last { Stage::Soaking(bake) } else { Stage::Baking(bake) };
        }
    }

    /// What is to be shown of the command that everybody has just confirmed, if it moves traffic and the policy asks.
    fn effect_wanted(&self, policy: &Policy, sent: &InFlightCommand, at: Timestamp) -> Option<Effect> {
        policy.effective?;
        let decision = &self.last_choice.as_ref()?.1;
        let share = |step: Option<u16>| step.map(|step| policy.step(step));
        let (segment, from, to) = match decision.choice {
            Choice::Promote => {
                let step = share(Some(decision.step.map_or(0, |step| step + 1)))?;
                (step.segment, decision.weight_from, step.to)
            }
            // Also when it was on its way: some may have applied it.
            Choice::Rollback => {
                let step = share(decision.step)?;
                (step.segment, step.to, Weight::ZERO)
            }
            Choice::Hold | Choice::Complete => return None,
        };
        (from != to).then(|| Effect {
            command: sent.command.clone(),
            segment,
            from,
            to,
            issued_at: sent.issued_at,
            attempt: sent.attempt,
            since: at,
            look: 0,
            counts: BTreeMap::new(),
            seen: None,
            announced: false,
            again: false,
            shown: None,
        })
    }

    /// Those who have used up their time, for people.
    pub fn silent(&self, policy: &Policy, now: Timestamp) -> Vec<&Actuator> {
        let Some(sent) = &self.sent else { return Vec::new() };
        let over = |actuator: &&Actuator| {
            if policy.declared.contains_key(*actuator) {
                return sent.silent_at(actuator, policy) <= now;
            }
            self.alerts.contains_key(&AlertKind::ActuatorSilent((*actuator).clone()))
        };
        sent.waiting.iter().filter(over).collect()
    }

    /// Folds an accepted act of a person.
    pub fn apply_act(&mut self, policy: &Policy, act: &Act, seq: EventSeq, at: Timestamp) {
        match act.verb {
            Verb::Note => return,
            Verb::Claim => {
                self.claimed = Some(Claim { by: act.actor.clone(), at, seq });
                return;
            }
            Verb::Pause => self.paused = Some((act.actor.clone(), at)),
            Verb::Resume => {
                if let Some((_, since)) = self.paused.take()
                    && let Some(bake) = self.bake_mut()
                {
                    bake.unwatched = bake.unwatched.plus(at.since(since.max(bake.since)));
                }
            }
            Verb::Approve => {
                self.approvals.insert(act.actor.clone());
            }
            Verb::Promote | Verb::Skip | Verb::Rollback | Verb::Abort => {
                if act.verb == Verb::Promote && act.force {
                    // Who promotes past a failing guardrail has seen it: it does not stop the rollout again.
                    for monitor in self.monitors.iter_mut().filter(|w| w.verdict == Some(Verdict::Fail)) {
                        monitor.accepted = Some(act.actor.clone());
                    }
                    for (monitor, guardrail) in self.monitors.iter_mut().zip(&policy.guardrails) {
                        let told = |value: &String| {
                            let kind = AlertKind::Slice(guardrail.name.clone(), value.clone());
                            self.alerts.contains_key(&kind)
                        };
                        for (_, part) in monitor.slices.iter_mut().filter(|(value, _)| told(value)) {
                            part.accepted = Some(act.actor.clone());
                        }
                    }
                }
                if self.stage == Stage::RollingBack {
                    // Confirmed, and somebody takes the actuators' word for it.
                    self.effect = None;
                } else {
                    self.order = Some(act.clone());
                }
            }
        }
        self.moved = seq;
    }

    /// Folds a restart of the daemon: whoever answers it has his time again.
    pub fn apply_restart(&mut self, policy: &Policy, at: Timestamp) {
        self.resend = self.sent.is_some();
        if let Some(sent) = self.sent.as_mut().filter(|_| !policy.declared.is_empty()) {
            sent.restarted = at;
        }
        if let Some(effect) = &mut self.effect {
            effect.look_again(at);
        }
        smoke::apply_restart(&mut self.smoke);
    }

    /// Folds that the clock was set forward. A clock that runs wrong is set again and again: nothing begins anew by it.
    pub fn apply_step(&mut self, policy: &Policy, by: Span) {
        if let Some(sent) = self.sent.as_mut().filter(|_| !policy.declared.is_empty()) {
            sent.stepped = sent.stepped.plus(by);
        }
        if let Some(effect) = &mut self.effect {
            effect.since = effect.since.plus(by);
        }
    }

    /// Folds that nobody watched for so long until `at`: the daemon was down, or the clock was set forward.
    pub fn apply_gap(&mut self, policy: &Policy, gap: Span, at: Timestamp) {
        self.resumed = at;
        // Of a daemon that restarts again and again, the times in between add up: else nothing would ever settle.
        let before = Timestamp(at.0.saturating_sub(gap.0));
        self.caught_up =
            if before < self.caught_up { self.caught_up.plus(gap) } else { at.plus(policy.evidence.cohort) };
        if self.paused.is_none()
            && let Some(bake) = self.bake_mut()
        {
            bake.unwatched = bake.unwatched.plus(gap);
        }
    }

    /// The tests of the step that `command` has brought about.
    fn smoke_tests(&self, policy: &Policy, command: &Command) -> Vec<SmokeTest> {
        let Stage::Applying { step } = self.stage else { return Vec::new() };
        // What was taken back is not tested.
        if self.segment_taken_back.is_some() {
            return Vec::new();
        }
        let test = |(i, smoke): (usize, &Smoke)| SmokeTest {
            id: SmokeId(derived_id(command.id.0, &smoke.name, command.decision)),
            test: i as u16,
            attempt: 0,
            to_ask: true,
            result: None,
        };
        policy.smoke.iter().enumerate().filter(|(_, smoke)| step == 0 || !smoke.first).map(test).collect()
    }
}
