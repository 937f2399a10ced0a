//! What may be said about one rollout.

mod absolute;
mod commands;
mod comparable;
mod decisions;
mod evidence;
mod stop;

use std::collections::{BTreeMap, BTreeSet};

use absolute::Latest;
use comparable::Comparable;
use evidence::Watched;
use stop::Happened;

use super::actuation::{Effect, Silence, Smokes};
use super::{Checked, ensure};
use crate::core::event::alert::{Alert, AlertKind};
use crate::core::event::command::{Command, Shown};
use crate::core::event::decision::Choice;
use crate::core::event::fact::Act;
use crate::core::event::rollout_spec::{Outcome, RolloutSpec};
use crate::core::event::verb::Verb;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{Actuator, EventSeq, Metric, RolloutId, Version, Weight};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::{Guardrail, OnFail};
use crate::core::time::{Span, Timestamp};

/// One open rollout, as the events tell it.
#[derive(Clone, Debug)]
pub struct Followed {
    pub id: RolloutId,
    pub spec: RolloutSpec,
    pub created: EventSeq,
    baseline: Version,
    /// The step last promoted to, and the one last applied with the time it was.
    step: Option<u16>,
    applied: Option<(Timestamp, u16)>,
    first_applied: Option<Timestamp>,
    /// The step that begins when the open command is applied.
    entering: Option<u16>,
    /// When the last command was issued.
    issued_at: Timestamp,
    /// A segment was taken back by itself, and no person has said how to go on.
    segment_taken_back: bool,
    /// That segment (an index; `None` in it: the rest), until the rollout moves on.
    returned: Option<Option<u16>>,
    /// Some segment was taken back by itself at some time.
    returned_once: bool,
    /// What served before has been given up.
    released: bool,
    weight: Weight,
    unwatched: Span,
    paused: Option<Timestamp>,
    approvals: BTreeSet<String>,
    /// A newer one takes its place.
    pub superseded: bool,
    claimed: bool,
    order: Option<Act>,
    /// The last event that a person's view had to include.
    moved: EventSeq,
    /// The last decision that asks for a command, until that is issued.
    to_issue: Option<(EventSeq, Weight)>,
    open: Option<Command>,
    /// The last that was issued, open or not.
    last: Option<Command>,
    confirmed: BTreeSet<Actuator>,
    choice: Option<Choice>,
    /// Whether a person ordered that.
    ordered: bool,
    commands: u32,
    /// Observations recorded by version and metric since the first step was applied.
    received: BTreeMap<(Version, Metric), u64>,
    /// Of counts: the events that these stand for.
    events: BTreeMap<(Version, Metric), u64>,
    /// Of metrics that somebody grades: observations by the second in which they were served and by who graded them.
    graded: BTreeMap<Metric, BTreeMap<u64, BTreeMap<String, u64>>>,
    /// By absolute guard.
    latest: BTreeMap<String, Latest>,
    /// By guardrail, what must not happen.
    happened: BTreeMap<String, Happened>,
    /// When it was created, and since when silence says something about the senders.
    began: Timestamp,
    resumed: Timestamp,
    /// Those of the canary that no segment has sent that was taken back, since the last one was.
    standing: BTreeMap<Metric, u64>,
    /// The same by the second in which they were served, as far back as some guardrail has not looked at them.
    served: BTreeMap<(Version, Metric, Option<usize>), BTreeMap<u64, u64>>,
    /// Of metrics that are compared in pairs: how often each unit answered in each arm, and the pairs that these can make.
    units: BTreeMap<Metric, (BTreeMap<String, [u64; 2]>, u64)>,
    comparable: Comparable,
    watched: BTreeMap<String, Watched>,
    alerts: BTreeSet<AlertKind>,
    /// Slices that fail and hold, and that nobody has promoted past: guardrail and value.
    slices: BTreeSet<(String, String)>,
    silence: Silence,
    effect: Option<Effect>,
    pub smoke: Smokes,
    /// The step that the last rollback was decided at.
    taken: Option<u16>,
}

impl Followed {
    pub fn new(id: &RolloutId, spec: &RolloutSpec, created: EventSeq, began: Timestamp) -> Followed {
        Followed {
            id: id.clone(),
            baseline: spec.from.clone(),
            spec: spec.clone(),
            created,
            step: None,
            applied: None,
            first_applied: None,
            entering: None,
            issued_at: Timestamp::default(),
            segment_taken_back: false,
            returned: None,
            returned_once: false,
            released: false,
            weight: Weight::ZERO,
            unwatched: Span::ZERO,
            paused: None,
            approvals: BTreeSet::new(),
            superseded: false,
            claimed: false,
            order: None,
            moved: created,
            to_issue: None,
            open: None,
            last: None,
            confirmed: BTreeSet::new(),
            choice: None,
            ordered: false,
            commands: 0,
            received: BTreeMap::new(),
            events: BTreeMap::new(),
            graded: BTreeMap::new(),
            latest: BTreeMap::new(),
            happened: BTreeMap::new(),
            began,
            resumed: Timestamp::default(),
            standing: BTreeMap::new(),
            served: BTreeMap::new(),
            units: BTreeMap::new(),
            comparable: Comparable::default(),
            watched: BTreeMap::new(),
            alerts: BTreeSet::new(),
            slices: BTreeSet::new(),
            silence: Silence::default(),
            effect: None,
            smoke: Smokes::default(),
            taken: None,
        }
    }

    /// The step it was last promoted to.
    pub fn step(&self) -> Option<u16> {
        self.step
    }

    /// Whether an order to promote past what is in the way waits to be carried out.
    pub fn forced(&self) -> bool {
        self.order.as_ref().is_some_and(|act| act.verb == Verb::Promote && act.force)
    }

    /// Whether its last decision is `choice`, and somebody's order.
    pub fn by_person(&self, choice: Choice) -> bool {
        self.choice == Some(choice) && self.ordered
    }

    pub fn baseline(&self) -> &Version {
        &self.baseline
    }

    /// What is left of it when it has completed: it can still be taken back, and be it for nothing that was seen.
    pub fn kept(&self, seq: EventSeq) -> Followed {
        Followed {
            step: self.step,
            weight: self.weight,
            baseline: self.baseline.clone(),
            moved: seq,
            commands: self.commands,
            ..Followed::new(&self.id, &self.spec, self.created, self.began)
        }
    }

    /// Time that nobody watched. A pause counts by itself.
    fn unwatched(&mut self, span: Span) {
        if self.paused.is_none() {
            self.unwatched = self.unwatched.plus(span);
        }
    }

    /// The daemon was away until `at`.
    pub fn restarted(&mut self, away: Span, at: Timestamp) {
        self.unwatched(away);
        self.silence.restarted = at;
        self.resumed = at;
        self.effect.iter_mut().for_each(|effect| effect.anew(at));
        self.smoke.restarted();
    }

    /// The clock was set forward.
    pub fn stepped(&mut self, by: Span, at: Timestamp) {
        self.resumed = at;
        self.unwatched(by);
        self.silence.skipped = self.silence.skipped.plus(by);
        self.effect.iter_mut().for_each(|effect| effect.skip(by));
    }

    /// At the end of what a fact at `at` led to.
    pub fn settled(&self, policy: &Policy, at: Timestamp) -> Checked {
        if let Some(open) = &self.open {
            let waiting = open.actuators.iter().filter(|who| !self.confirmed.contains(*who));
            let when = (self.takes_back(), at);
            self.silence.all_announced(policy, waiting, self.issued_at, when)?;
        }
        let owed = self.smoke.owed.first();
        ensure(owed.is_none(), "I46", || format!("{} does not ask for smoke test {owed:?}", self.id))
    }

    /// Whether the open command takes traffic back.
    fn takes_back(&self) -> bool {
        self.choice == Some(Choice::Rollback) || self.segment_taken_back
    }

    pub fn shown(&mut self, said: &Shown) -> Checked {
        match &mut self.effect {
            Some(effect) => effect.shown(said),
            None => Err(("I45", format!("{} is effective, and nothing was to be shown", self.id))),
        }
    }

    fn watched_for(&self, now: Timestamp) -> Span {
        let Some((since, _)) = self.applied else { return Span::ZERO };
        let until = self.paused.map_or(now, |paused| paused.max(since));
        until.since(since).minus(self.unwatched)
    }

    pub fn accepted(&mut self, seq: EventSeq, at: Timestamp, policy: &Policy, act: &Act) -> Checked {
        if let Some(seen) = act.if_seq {
            ensure(act.verb == Verb::Note || seen >= self.moved, "I33", || {
                format!("{} knew {} up to seq {seen}, it moved at {}", act.actor, self.id, self.moved)
            })?;
        }
        match act.verb {
            Verb::Note => return Ok(()),
            Verb::Pause => {
                ensure(self.paused.is_none(), "I33", || format!("{} was paused", self.id))?;
                self.paused = Some(at);
            }
            Verb::Resume => {
                let since = self.paused.take();
                ensure(since.is_some(), "I33", || format!("{} was not paused", self.id))?;
                if let (Some(since), Some((applied, _))) = (since, self.applied) {
                    self.unwatched = self.unwatched.plus(at.since(since.max(applied)));
                }
            }
            Verb::Approve => {
                let fresh = self.approvals.insert(act.actor.clone());
                ensure(fresh, "I33", || format!("{} had approved", act.actor))?;
            }
            Verb::Claim => {
                let taken = std::mem::replace(&mut self.claimed, true);
                return ensure(!taken || act.force, "I33", || format!("{} was claimed", self.id));
            }
            // Confirmed, and not shown: somebody takes it as done.
            Verb::Rollback if act.force && self.choice == Some(Choice::Rollback) && self.open.is_none() => {
                self.effect = None;
            }
            Verb::Promote | Verb::Skip | Verb::Rollback | Verb::Abort => {
                ensure(self.choice != Some(Choice::Rollback), "I16", || {
                    format!("{} accepted after the rollback of {}", act.verb.as_str(), self.id)
                })?;
                if act.verb == Verb::Promote {
                    let failing = self.failing(policy, OnFail::Rollback);
                    ensure(failing.is_none(), "I18", || format!("promoted past {failing:?}"))?;
                    let unshown =
                        self.effect.as_ref().is_some_and(|effect| effect.announced && !effect.shown);
                    ensure(act.force || !unshown, "I45", || {
                        format!("{} is promoted past what telemetry does not show", self.id)
                    })?;
                    let open = self.smoke.open().filter(|_| self.step.is_some());
                    ensure(act.force || open.is_none(), "I46", || {
                        format!("{} is promoted past smoke test {open:?}", self.id)
                    })?;
                    ensure(act.force || self.slices.is_empty(), "I47", || {
                        format!("{} is promoted past slices {:?}", self.id, self.slices)
                    })?;
                    for watched in self.watched.values_mut().filter(|w| w.verdict == Some(Verdict::Fail)) {
                        watched.accepted |= act.force;
                    }
                    self.slices.clear();
                }
                self.order = Some(act.clone());
            }
        }
        self.moved = seq;
        Ok(())
    }

    /// What a guardrail's failing does, trade-off and acceptance weighed.
    fn on_fail_effective(&self, guardrail: &Guardrail) -> OnFail {
        match self.watched.get(&guardrail.name) {
            Some(w) if w.accepted => OnFail::Alert,
            Some(w) if w.excused => OnFail::Hold,
            _ => guardrail.on_fail,
        }
    }

    fn failing<'a>(&self, policy: &'a Policy, on_fail: OnFail) -> Option<&'a str> {
        let fails =
            |g: &&Guardrail| self.watched.get(&g.name).is_some_and(|w| w.verdict == Some(Verdict::Fail));
        let found = policy.guardrails.iter().filter(|g| self.on_fail_effective(g) == on_fail).find(fails);
        found.map(|g| g.name.as_str())
    }

    /// Returns whether a rollback is due by it.
    pub fn alerted(
        &mut self,
        at: Timestamp,
        policy: &Policy,
        alert: &Alert,
    ) -> Result<bool, (&'static str, String)> {
        let kind = alert.kind();
        let fresh = self.alerts.insert(kind.clone());
        ensure(fresh, "I24", || format!("{} raises {kind:?} twice", self.id))?;
        let back = self.takes_back();
        match &kind {
            AlertKind::ActuatorSilent(who) => {
                let when = (self.issued_at, at);
                self.silence.silent(policy, who, when)?;
                return Ok(self.entering.is_some() && !back && self.silence.rolls_back(policy));
            }
            AlertKind::RollbackUnconfirmed(who, n) => {
                ensure(back, "I44", || format!("{} takes nothing back", self.id))?;
                self.silence.about_rollback(who, *n, at)?;
            }
            AlertKind::NotEffective(command, _) => match &mut self.effect {
                Some(effect) => {
                    effect.contradicted(policy, *command, at, self.choice == Some(Choice::Rollback))?
                }
                None => return Err(("I45", format!("{} has nothing to show", self.id))),
            },
            AlertKind::Slice(name, value) => {
                let guardrail = named(policy, name)?;
                let judged = guardrail.judged.as_ref().filter(|judged| judged.values.contains(value));
                let judged = judged.map(|judged| judged.on_fail);
                // No find needs less than the level itself, and then all of the family are found.
                let least = libm::log(policy.evidence.rollback) - 1e-9;
                let shown = alert.reading().is_some_and(|r| r.harm_ln >= least);
                ensure(judged.is_some() && shown, "I47", || {
                    format!("{} names slice {value} of {name}: {:?}", self.id, alert.reading())
                })?;
                if judged == Some(OnFail::Hold) {
                    self.slices.insert((name.clone(), value.clone()));
                }
            }
            AlertKind::AboveCap(name) => {
                let above = self.watched.get(name).map_or(0, |watched| watched.above_cap);
                ensure(above > 0, "I49", || {
                    format!("{} tells of values of {name} above its cap, there are none", self.id)
                })?;
            }
            _ => {}
        }
        Ok(false)
    }

    pub fn ended(&self, policy: &Policy, outcome: Outcome) -> Checked {
        let seen = self.effect.as_ref().is_none_or(|effect| effect.shown || effect.unopposed);
        ensure(outcome == Outcome::Completed || seen, "I45", || {
            format!("{} ends {outcome:?}, and telemetry does not show it", self.id)
        })?;
        let back =
            self.choice == Some(Choice::Rollback) && self.open.is_none() && self.weight == Weight::ZERO;
        let fits = match outcome {
            Outcome::Completed => {
                let given_up = self.released == policy.release;
                self.choice == Some(Choice::Complete) && self.open.is_none() && given_up
            }
            Outcome::RolledBack => back && !self.superseded,
            Outcome::Superseded => self.superseded && (back || self.commands == 0),
            Outcome::Aborted => {
                let ordered = self.order.as_ref().is_some_and(|act| act.verb == Verb::Abort);
                self.commands == 0 && (ordered || self.alerts.contains(&AlertKind::Overtaken))
            }
        };
        ensure(fits, "I17", || format!("{} ends {outcome:?} after {:?}", self.id, self.choice))
    }
}

/// Where a segment comes in the order of segments; the rest comes last.
fn place(segment: Option<u16>) -> u16 {
    segment.unwrap_or(u16::MAX)
}

fn named<'a>(policy: &'a Policy, name: &str) -> Result<&'a Guardrail, (&'static str, String)> {
    let found = policy.guardrails.iter().find(|g| g.name == name);
    found.ok_or_else(|| ("I11", format!("the policy has no guardrail {name}")))
}
