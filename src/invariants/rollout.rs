//! What may be said about one rollout.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::carried_out::{Effect, Silence, Smokes};
use super::{Checked, ensure};
use crate::core::bets::{INITIAL_STAKE, WORD};
use crate::core::columns::{Columns, Series};
use crate::core::effect::Shown;
use crate::core::event::{
    Ack, AckStatus, Act, Alert, AlertKind, Choice, Command, Decision, Opening, Outcome, Verb,
};
use crate::core::evidence::{EPOCH_CANARY, Evidence, GuardrailReading, Scored};
use crate::core::exposure::{OnSegmentFailure, Task};
use crate::core::ids::{Actuator, CommandId, EventSeq, Metric, RolloutId, Version, Weight, derived_id};
use crate::core::labels;
use crate::core::policy::{Guardrail, OnDeadline, OnFail, Policy, Rule, Unless};
use crate::core::reference::Reference;
use crate::core::time::{Span, Timestamp};
use crate::core::verdict::Verdict;

/// One open rollout, as the events tell it.
#[derive(Clone, Debug)]
pub struct Followed {
    pub id: RolloutId,
    pub opening: Opening,
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
    /// A part of the traffic was taken back by itself, and no person has said how to go on.
    parked: bool,
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
    confirmed: BTreeSet<Actuator>,
    choice: Option<Choice>,
    /// Whether a person ordered that.
    ordered: bool,
    commands: u32,
    /// Observations recorded by version and metric since the first step was applied.
    received: BTreeMap<(Version, Metric), u64>,
    /// The same by the second in which they were served, as far back as some guardrail has not looked at them.
    served: BTreeMap<(Version, Metric, Option<usize>), BTreeMap<u64, u64>>,
    /// Of metrics that are compared in pairs: how often each unit answered in each arm, and the pairs that these can make.
    units: BTreeMap<Metric, (BTreeMap<String, [u64; 2]>, u64)>,
    watched: BTreeMap<String, Watched>,
    alerts: BTreeSet<AlertKind>,
    silence: Silence,
    effect: Option<Effect>,
    pub smoke: Smokes,
    /// The step that the last rollback was decided at.
    taken: Option<u16>,
}

/// One guardrail, as the events tell it.
#[derive(Clone, Debug, Default)]
struct Watched {
    verdict: Option<Verdict>,
    /// The step at which it was last shown safe.
    safe_at: Option<u16>,
    /// A benefit turned its failure into a hold.
    excused: bool,
    /// A person promoted past its failure.
    accepted: bool,
    cohort: Option<Timestamp>,
    baseline: u64,
    canary: u64,
    /// Settled at the step.
    at_step: (u16, u64),
    referenced: bool,
    /// Baseline observations scored since the last reference.
    gathered: u64,
    /// A benefit was shown.
    benefit: bool,
    /// Counts and splits only: the ratios bet on, and the evidence as last recorded.
    ratios: Vec<f64>,
    evidence: Option<Box<Evidence>>,
}

impl Followed {
    pub fn new(id: &RolloutId, opening: &Opening, created: EventSeq) -> Followed {
        Followed {
            id: id.clone(),
            baseline: opening.from.clone(),
            opening: opening.clone(),
            created,
            step: None,
            applied: None,
            first_applied: None,
            entering: None,
            issued_at: Timestamp::default(),
            parked: false,
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
            confirmed: BTreeSet::new(),
            choice: None,
            ordered: false,
            commands: 0,
            received: BTreeMap::new(),
            served: BTreeMap::new(),
            units: BTreeMap::new(),
            watched: BTreeMap::new(),
            alerts: BTreeSet::new(),
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
            ..Followed::new(&self.id, &self.opening, self.created)
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
        self.effect.iter_mut().for_each(|effect| effect.anew(at));
        self.smoke.restarted();
    }

    /// The clock was set forward.
    pub fn stepped(&mut self, by: Span) {
        self.unwatched(by);
        self.silence.skipped = self.silence.skipped.plus(by);
        self.effect.iter_mut().for_each(|effect| effect.skip(by));
    }

    /// At the end of what a fact at `at` led to.
    pub fn settled(&self, policy: &Policy, at: Timestamp) -> Checked {
        if let Some(open) = &self.open {
            let waiting = open.actuators.iter().filter(|who| !self.confirmed.contains(*who));
            let when = (self.takes_back(), at);
            self.silence.all_named(policy, waiting, self.issued_at, when)?;
        }
        let owed = self.smoke.owed.first();
        ensure(owed.is_none(), "I46", || format!("{} does not ask for smoke test {owed:?}", self.id))
    }

    /// Whether the open command takes traffic back.
    fn takes_back(&self) -> bool {
        self.choice == Some(Choice::Rollback) || self.parked
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

    pub fn batch(&mut self, at: Timestamp, policy: &Policy, columns: &Columns) {
        if let Some(effect) = &mut self.effect {
            effect.batch(policy, &self.opening.to, &self.baseline, at, columns);
        }
        if self.first_applied.is_none() {
            return;
        }
        let paired = |metric: &Metric| {
            let mut rules = policy.guardrails.iter().filter(|g| g.metric == *metric).map(|g| &g.rule);
            rules.any(|rule| matches!(rule, Rule::Paired { .. }))
        };
        if columns.series.iter().any(|series| paired(&series.metric)) {
            for sample in columns.samples() {
                let series = &columns.series[sample.series as usize];
                let arm = [&self.baseline, &self.opening.to].iter().position(|v| **v == series.version);
                let unit = sample.unit.map(|unit| &columns.units[unit as usize]).filter(|u| !u.is_empty());
                let (Some(arm), Some(unit), true) = (arm, unit, paired(&series.metric)) else { continue };
                let (answers, pairs) = self.units.entry(series.metric.clone()).or_default();
                let answers = answers.entry(unit.clone()).or_default();
                let before = answers[0].min(answers[1]);
                answers[arm] += 1;
                *pairs += answers[0].min(answers[1]) - before;
            }
        }
        let of = |series: &Series| (series.version.clone(), series.metric.clone());
        for (series, n) in columns.series.iter().zip(columns.counts()) {
            *self.received.entry(of(series)).or_default() += n;
        }
        // Samples come in runs of one series and second.
        let parts: Vec<Option<usize>> = columns.tags.iter().map(|tags| part(policy, tags)).collect();
        let samples = columns
            .samples()
            .map(|s| ((s.series, s.served_at.0 / 1000, s.tag.and_then(|tag| parts[tag as usize])), 1));
        type Run = ((u32, u64, Option<usize>), u64);
        let mut runs: Vec<Run> = Vec::new();
        let sums = columns.aggregates.iter().map(|a| ((a.series, a.from.0 / 1000, None), a.n));
        for (key, n) in samples.chain(sums) {
            match runs.iter_mut().rev().take(8).find(|run| run.0 == key) {
                Some(run) => run.1 += n,
                None => runs.push((key, n)),
            }
        }
        for ((series, second, part), n) in runs {
            let (version, metric) = of(&columns.series[series as usize]);
            *self.served.entry((version, metric, part)).or_default().entry(second).or_default() += n;
        }
    }

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
                    let unshown = self.effect.as_ref().is_some_and(|effect| effect.named && !effect.shown);
                    ensure(act.force || !unshown, "I45", || {
                        format!("{} is promoted past what telemetry does not show", self.id)
                    })?;
                    let open = self.smoke.open().filter(|_| self.step.is_some());
                    ensure(act.force || open.is_none(), "I46", || {
                        format!("{} is promoted past smoke test {open:?}", self.id)
                    })?;
                    for watched in self.watched.values_mut().filter(|w| w.verdict == Some(Verdict::Fail)) {
                        watched.accepted |= act.force;
                    }
                }
                self.order = Some(act.clone());
            }
        }
        self.moved = seq;
        Ok(())
    }

    /// What a guardrail's failing does, trade-off and acceptance weighed.
    fn does(&self, guardrail: &Guardrail) -> OnFail {
        match self.watched.get(&guardrail.name) {
            Some(w) if w.accepted => OnFail::Alert,
            Some(w) if w.excused => OnFail::Hold,
            _ => guardrail.on_fail,
        }
    }

    fn failing<'a>(&self, policy: &'a Policy, on_fail: OnFail) -> Option<&'a str> {
        let fails =
            |g: &&Guardrail| self.watched.get(&g.name).is_some_and(|w| w.verdict == Some(Verdict::Fail));
        let found = policy.guardrails.iter().filter(|g| self.does(g) == on_fail).find(fails);
        found.map(|g| g.name.as_str())
    }

    pub fn reference(&mut self, policy: &Policy, name: &str, reference: &Reference) -> Checked {
        let guardrail = named(policy, name)?;
        let received = self.received_of(&self.baseline, counted(guardrail));
        let needs = match guardrail.rule {
            // Their bets know the split, and nothing of the baseline.
            Rule::Count { .. } | Rule::Split => 0,
            Rule::Paired { .. } => 20,
            _ => u64::from(policy.evidence.reference_min).min(512),
        };
        ensure(reference.n >= needs, "I19", || {
            format!("the reference of {name} comes from {} observations", reference.n)
        })?;
        ensure(reference.n <= received, "I20", || {
            format!("the reference of {name} comes from {} of {received} observations", reference.n)
        })?;
        let watched = self.watched.entry(name.to_owned()).or_default();
        // A histogram counts for the reference before a threshold makes it count for the score.
        let counted = !matches!(guardrail.rule, Rule::Quantile { .. });
        ensure(!counted || reference.n <= watched.gathered, "I20", || {
            let gathered = watched.gathered;
            format!("the reference of {name} comes from {} observations, {gathered} are scored", reference.n)
        })?;
        (watched.gathered, watched.referenced) = (0, true);
        watched.ratios.clone_from(&reference.harm_grid);
        Ok(())
    }

    fn received_of(&self, version: &Version, metric: &Metric) -> u64 {
        self.received.get(&(version.clone(), metric.clone())).copied().unwrap_or(0)
    }

    pub fn scored(
        &mut self,
        at: Timestamp,
        policy: &Policy,
        name: &str,
        cohort: Timestamp,
        scored: &Scored,
    ) -> Checked {
        let guardrail = named(policy, name)?;
        let arms = [(self.baseline.clone(), scored.baseline.n), (self.opening.to.clone(), scored.canary.n)];
        let watched = self.watched.entry(name.to_owned()).or_default();
        let settles = cohort.plus(policy.evidence.cohort).plus(guardrail.maturity);
        ensure(settles <= at, "I20", || format!("a cohort of {name} is scored {} early", settles.since(at)))?;
        let began = self.first_applied;
        ensure(began.is_some_and(|began| began <= cohort), "I20", || {
            format!("a cohort of {name} is from before the first step")
        })?;
        let last = watched.cohort.replace(cohort);
        ensure(last.is_none_or(|last| last < cohort), "I20", || {
            format!("a cohort of {name} is scored after a younger one")
        })?;
        ensure(scored.reference_only != watched.referenced, "I20", || {
            format!("{name} is bet on without a reference, or not bet on with one")
        })?;
        let seconds = cohort.0 / 1000..cohort.plus(policy.evidence.cohort).0.div_ceil(1000);
        // A sample of a count stands for as many events as it says.
        let counts = matches!(guardrail.rule, Rule::Count { .. });
        for (version, n) in arms.iter().filter(|_| !counts) {
            // Where one part of the traffic is exposed, only it is compared.
            let part = policy.steps[usize::from(scored.step)].segment.map(usize::from);
            let served = self.served.get(&(version.clone(), counted(guardrail).clone(), part));
            let served = served.map_or(0, |served| served.range(seconds.clone()).map(|(_, n)| n).sum());
            ensure(*n <= served, "I20", || {
                format!("a cohort of {name} has {n} observations of {version}, {served} were served in it")
            })?;
        }
        watched.baseline += scored.baseline.n;
        watched.canary += scored.canary.n;
        watched.gathered += scored.baseline.n;
        watched.benefit |= scored.evidence.benefit_shown;
        if matches!(guardrail.rule, Rule::Count { .. } | Rule::Split) {
            let share = policy.steps[usize::from(scored.step)].to.as_share();
            let before = watched.evidence.replace(Box::new(scored.evidence.clone()));
            if let Some(before) = before.filter(|_| !scored.reference_only) {
                let words = labels_words(guardrail, &watched.ratios, share, &before, scored);
                ensure(words == scored.evidence.harm.words, "I20", || {
                    format!("the evidence of {name} is not what its counts come to, rounded down")
                })?;
            }
        }
        if let (Rule::Paired { .. }, Some((_, pairs))) = (&guardrail.rule, self.units.get(&guardrail.metric))
        {
            let n = watched.baseline;
            ensure(n <= *pairs, "I20", || format!("{n} pairs of {name}, its units make {pairs}"))?;
        }
        if watched.at_step.0 != scored.step {
            watched.at_step = (scored.step, 0);
        }
        watched.at_step.1 += scored.canary.n;
        let (baseline, canary) = (watched.baseline, watched.canary);
        let bet = (scored.evidence.baseline.n, scored.evidence.canary.n);
        ensure(bet.0 <= baseline && bet.1 <= canary, "I20", || {
            format!("{name} bets on {bet:?} observations of {baseline} and {canary} settled")
        })?;
        for ((version, _), total) in arms.into_iter().zip([baseline, canary]) {
            let received = if counts { total } else { self.received_of(&version, counted(guardrail)) };
            ensure(total <= received, "I20", || {
                format!("{total} observations of {version} settled for {name}, {received} came in")
            })?;
        }
        self.forget(policy, counted(guardrail));
        Ok(())
    }

    /// Drops what every guardrail of a metric has looked at.
    fn forget(&mut self, policy: &Policy, metric: &Metric) {
        let scored = policy.guardrails.iter().filter(|g| !matches!(g.rule, Rule::Absolute { .. }));
        let looked = scored.filter(|g| counted(g) == metric).map(|g| self.watched.get(&g.name)?.cohort);
        let Some(looked) = looked.min().flatten() else { return };
        for ((_, of, _), served) in &mut self.served {
            if of == metric {
                *served = served.split_off(&(looked.0 / 1000));
            }
        }
    }

    /// Returns whether a rollback is due by it.
    pub fn verdict(
        &mut self,
        policy: &Policy,
        reading: &GuardrailReading,
    ) -> Result<bool, (&'static str, String)> {
        let guardrail = named(policy, &reading.name)?;
        let (name, step) = (&reading.name, self.applied.map(|(_, step)| step));
        let received = self.received_of(&self.opening.to, counted(guardrail));
        let level = self.safety_needed(policy);
        let counts = matches!(guardrail.rule, Rule::Count { .. });
        let shown = reading.excused.as_ref().is_none_or(|g| self.watched.get(g).is_some_and(|w| w.benefit));
        ensure(shown, "I18", || format!("{name} is excused by a benefit that was not shown"))?;
        let watched = self.watched.entry(name.clone()).or_default();
        ensure(watched.verdict != Some(Verdict::Fail), "I16", || format!("{name} had failed for good"))?;
        watched.verdict = Some(reading.verdict);
        match reading.verdict {
            Verdict::Pass if !reading.kind.shows_safety() => {
                ensure(reading.canary.n > 0 && received > 0, "I19", || format!("{name} passes on nothing"))?;
                watched.safe_at = step;
            }
            Verdict::Pass => {
                let need = libm::log(level);
                ensure(reading.safe_need_ln == need, "I18", || {
                    format!("{name} passes at {} nats, the policy asks for {need}", reading.safe_need_ln)
                })?;
                let shown = reading.safe_ln >= need;
                ensure(shown || watched.safe_at == step && reading.harm_ln <= 0.0, "I19", || {
                    format!("{name} passes with evidence of {} nats of {need}", reading.safe_ln)
                })?;
                // A canary that reports no events has been heard of.
                let some = reading.canary.n > 0 || counts && received > 0;
                ensure(reading.blocks > 0 && some, "I19", || format!("{name} passes on nothing"))?;
                watched.safe_at = step;
            }
            Verdict::Fail => {
                // A split is broken by a canary that gets nobody.
                let others = matches!(guardrail.rule, Rule::Split) && reading.baseline.n > 0;
                ensure(received > 0 || others, "I19", || format!("{name} fails on nothing"))?;
                // A trade-off turns a rollback into a hold; what it rests on has been shown.
                if let Some(shows) = &reading.excused {
                    let named = matches!(&guardrail.unless, Some(Unless::Benefit { guardrail }) if guardrail == shows);
                    ensure(named, "I18", || format!("{name} is excused by {shows}"))?;
                    watched.excused = true;
                }
                if let Some(text) = &reading.excused_when {
                    let named =
                        matches!(&guardrail.unless, Some(Unless::When { when }) if when.text() == text);
                    ensure(named, "I18", || format!("{name} is excused as long as {text}"))?;
                    watched.excused = true;
                }
                return Ok(reading.does() == OnFail::Rollback);
            }
            _ => {}
        }
        Ok(false)
    }

    /// The e-value that the next promotion needs of each gate.
    fn safety_needed(&self, policy: &Policy) -> f64 {
        let next = self.applied.map_or(0, |(_, step)| usize::from(step) + 1);
        if next + 1 >= policy.steps.len() { policy.evidence.promote_last } else { policy.evidence.promote }
    }

    /// Returns whether it takes the canary back.
    pub fn decided(
        &mut self,
        seq: EventSeq,
        at: Timestamp,
        policy: &Policy,
        decision: &Decision,
    ) -> Result<bool, (&'static str, String)> {
        let id = self.id.clone();
        ensure(decision.policy == self.opening.policy, "I11", || {
            let (is, was) = (decision.policy.short(), self.opening.policy.short());
            format!("{id} began under policy {was} and is decided under {is}")
        })?;
        let over = matches!(self.choice, Some(Choice::Rollback | Choice::Complete));
        ensure(!over, "I16", || format!("{id} is over, and then {:?}", decision.choice))?;
        ensure(decision.inputs == (self.created, seq - 1), "I18", || {
            format!("{id} is decided from {:?}, it began at {}", decision.inputs, self.created)
        })?;
        ensure(self.to_issue.is_none(), "I15", || format!("{id} owes a command of its last decision"))?;
        ensure(decision.canary == self.opening.to, "I20", || format!("{id} decides on {}", decision.canary))?;
        let ordered = self.order.take();
        let actor = ordered.as_ref().map(|act| act.actor.clone());
        ensure(decision.actor == actor, "I33", || {
            format!("{id} is decided by {:?}, ordered was it by {actor:?}", decision.actor)
        })?;
        match decision.choice {
            Choice::Promote => {
                self.promoted(at, policy, decision, ordered.as_ref())?;
                (self.entering, self.parked) = (self.step, false);
            }
            Choice::Rollback => {
                ensure(decision.weight_to == Weight::ZERO, "I21", || {
                    format!("{id} is taken back to {}", decision.weight_to)
                })?;
                let alone = self.alone(policy).filter(|_| ordered.is_none() && !self.superseded);
                ensure(decision.back_to == alone, "I21", || {
                    format!("{id} goes back to step {:?}, its policy says {alone:?}", decision.back_to)
                })?;
                // An excuse by a condition ends with it.
                let lapsed = |g: &Guardrail| {
                    let failed = self.watched.get(&g.name).is_some_and(|w| w.verdict == Some(Verdict::Fail));
                    failed && matches!(g.unless, Some(Unless::When { .. })) && g.on_fail == OnFail::Rollback
                };
                let failing =
                    self.failing(policy, OnFail::Rollback).is_some() || policy.guardrails.iter().any(lapsed);
                let late = policy.on_deadline == OnDeadline::Rollback
                    && (self.late(at, policy) || self.unapplied(at, policy));
                let silent = self.open.is_some() && !self.parked && self.silence.rolls_back(policy);
                let smoke = self.smoke.failed(policy).is_some();
                let some = failing || late || self.superseded || silent || smoke;
                ensure(ordered.is_some() || some, "I18", || format!("{id} is taken back for nothing"))?;
                ensure(!decision.because.is_empty(), "I18", || {
                    format!("{id} is taken back without a reason")
                })?;
                self.open = None;
                self.entering = None;
                self.taken = self.step;
                (self.effect, self.smoke) = (None, Smokes::default());
                if let Some(step) = alone {
                    (self.moved, self.parked) = (seq, true);
                    (self.step, self.entering) = (alone, alone);
                    self.to_issue = Some((seq, shares(policy, step).0));
                    self.watched.clear();
                    self.alerts.clear();
                    self.approvals.clear();
                    return Ok(true);
                }
            }
            Choice::Complete => {
                let last = policy.steps.len() as u16 - 1;
                let soaked = self.applied.is_some_and(|(_, step)| step == last);
                let need = policy.steps[usize::from(last)].bake.plus(policy.soak);
                ensure(soaked && self.watched_for(at) >= need, "I34", || {
                    format!("{id} completes after {} of {need}", self.watched_for(at))
                })?;
                let failing = self.failing(policy, OnFail::Rollback);
                ensure(failing.is_none(), "I19", || format!("{id} completes although {failing:?} fails"))?;
                self.is_sound()?;
            }
            Choice::Hold => return Ok(false),
        }
        self.moved = seq;
        self.choice = Some(decision.choice);
        self.to_issue = match (decision.choice, self.entering) {
            (Choice::Promote, Some(step)) => Some((seq, shares(policy, step).0)),
            (Choice::Complete, _) if !policy.release => None,
            _ => Some((seq, decision.weight_to)),
        };
        self.ordered = ordered.is_some();
        Ok(decision.choice == Choice::Rollback)
    }

    fn late(&self, at: Timestamp, policy: &Policy) -> bool {
        let step = self.applied.and_then(|(_, step)| policy.steps.get(usize::from(step)));
        step.and_then(|step| step.deadline).is_some_and(|deadline| self.watched_for(at) >= deadline)
    }

    /// Whether the step on its way was not confirmed in the time it has.
    fn unapplied(&self, at: Timestamp, policy: &Policy) -> bool {
        let within = self.entering.and_then(|step| policy.steps.get(usize::from(step))?.apply_within);
        self.open.is_some() && within.is_some_and(|within| self.issued_at.plus(within) <= at)
    }

    /// Where a failure takes back only the part of the traffic that the rollout is at: the last step of the part before.
    fn alone(&self, policy: &Policy) -> Option<u16> {
        policy.segments.as_ref().filter(|segments| segments.on_failure == OnSegmentFailure::Alone)?;
        let own = policy.steps.get(usize::from(self.step?))?.segment;
        (0..self.step?).rev().find(|step| policy.steps[usize::from(*step)].segment != own)
    }

    fn promoted(
        &mut self,
        at: Timestamp,
        policy: &Policy,
        decision: &Decision,
        ordered: Option<&Act>,
    ) -> Checked {
        let id = &self.id;
        let next = self.step.map_or(0, |step| step + 1);
        ensure(decision.step == self.step, "I17", || {
            format!("{id} stands at step {:?} and is promoted from {:?}", self.step, decision.step)
        })?;
        let to = policy.steps.get(usize::from(next)).map(|step| step.to);
        ensure(to == Some(decision.weight_to), "I17", || {
            format!("{id} goes to {}, step {next} is {to:?}", decision.weight_to)
        })?;
        let Some(current) = self.step else {
            self.baseline = decision.baseline.clone();
            self.step = Some(next);
            return Ok(());
        };
        ensure(self.applied.map(|(_, step)| step) == self.step, "I17", || {
            format!("{id} leaves step {current}, which was not applied")
        })?;
        let failing = self.failing(policy, OnFail::Rollback);
        ensure(failing.is_none(), "I19", || format!("{id} is promoted although {failing:?} fails"))?;
        let smoke = self.smoke.failed(policy);
        ensure(smoke.is_none(), "I46", || format!("{id} is promoted although smoke test {smoke:?} failed"))?;
        match ordered.map(|act| act.verb) {
            Some(Verb::Promote) => {}
            other => self.gates(at, policy, current, other == Some(Verb::Skip))?,
        }
        self.step = Some(next);
        (self.effect, self.smoke) = (None, Smokes::default());
        Ok(())
    }

    /// What was commanded is what is served, and the tests of the step have passed.
    fn is_sound(&self) -> Checked {
        let unshown = self.effect.as_ref().filter(|effect| !effect.shown);
        ensure(unshown.is_none(), "I45", || {
            format!("{} moves on, and telemetry does not show {unshown:?}", self.id)
        })?;
        let open = self.smoke.open();
        ensure(open.is_none(), "I46", || {
            format!("{} moves on, and smoke test {open:?} has not passed", self.id)
        })
    }

    /// Everything that an automatic promotion needs, and all but time and counts what one by skipping does.
    fn gates(&self, at: Timestamp, policy: &Policy, current: u16, skip: bool) -> Checked {
        let id = &self.id;
        ensure(self.paused.is_none(), "I18", || format!("{id} is promoted while it is paused"))?;
        ensure(!self.parked, "I18", || format!("{id} is promoted although a part was taken back"))?;
        self.is_sound()?;
        let step = &policy.steps[usize::from(current)];
        let watched = self.watched_for(at);
        ensure(skip || watched >= step.bake, "I34", || {
            format!("{id} is promoted after {watched} of {}", step.bake)
        })?;
        for guardrail in &policy.guardrails {
            let name = &guardrail.name;
            let verdict = self.watched.get(name).and_then(|w| w.verdict);
            let absolute = matches!(guardrail.rule, Rule::Absolute { .. });
            // Without traffic only a copy of it can show anything.
            let paired = matches!(guardrail.rule, Rule::Paired { .. });
            let in_shadow = policy.steps.iter().any(|step| step.task == Some(Task::Shadow));
            let can_show = match step.to {
                Weight::ZERO => step.task == Some(Task::Shadow) && paired,
                _ => !(paired && in_shadow),
            };
            let needed = guardrail.on_fail != OnFail::Alert && (absolute || guardrail.gates) && can_show;
            let passes = verdict == Some(Verdict::Pass) || self.does(guardrail) == OnFail::Alert;
            ensure(!needed || passes, "I19", || format!("{id} is promoted while {name} says {verdict:?}"))?;
            ensure(verdict != Some(Verdict::Fail) || self.does(guardrail) == OnFail::Alert, "I19", || {
                format!("{id} is promoted although {name} fails")
            })?;
        }
        for (metric, need) in &step.min_samples {
            let of = policy.guardrails.iter().filter(|g| g.metric == *metric);
            let settled = of.filter_map(|g| self.watched.get(&g.name)).map(|w| w.at_step);
            let have = settled.filter(|(step, _)| *step == current).map(|(_, n)| n).max().unwrap_or(0);
            ensure(skip || have >= *need, "I19", || {
                format!("{id} is promoted with {have} of {need} {metric}")
            })?;
        }
        let next = policy.steps[usize::from(current) + 1].to;
        let between = |before: Weight| step.to < before && before <= next;
        let asked: Vec<_> = policy.approvals.iter().filter(|a| between(a.before)).collect();
        let need = asked.iter().map(|a| usize::from(a.by)).max();
        let others = asked.iter().any(|a| a.not_submitter);
        let have = self.approvals.iter().filter(|by| !others || **by != self.opening.by).count();
        ensure(need.is_none_or(|need| have >= need), "I18", || {
            format!("{id} is promoted with {have} of {need:?} approvals")
        })
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
        self.silence = Silence::default();
        self.confirmed.clear();
        self.open = Some(command.clone());
        self.commands += 1;
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
        self.weight = open.parts.iter().map(|part| part.weight).fold(open.weight, Weight::max);
        self.alerts.retain(|kind| {
            use AlertKind::{ActuatorRejected, ActuatorSilent, NotApplied, RollbackUnconfirmed};
            !matches!(kind, ActuatorSilent(_) | ActuatorRejected(_) | NotApplied(_) | RollbackUnconfirmed(..))
        });
        let back = self.takes_back();
        let about = if back { self.taken } else { self.entering };
        self.effect = about.and_then(|step| Effect::wanted(policy, &open, step, back, at));
        if let Some(step) = self.entering.take() {
            self.smoke = Smokes::begin(policy, step, self.parked);
            self.applied = Some((at, step));
            self.first_applied.get_or_insert(at);
            self.unwatched = Span::ZERO;
            self.approvals.clear();
        }
        Ok(())
    }

    /// Returns whether a rollback is due by it.
    pub fn alerted(
        &mut self,
        at: Timestamp,
        policy: &Policy,
        alert: &Alert,
    ) -> Result<bool, (&'static str, String)> {
        let fresh = self.alerts.insert(alert.kind.clone());
        ensure(fresh, "I24", || format!("{} raises {:?} twice", self.id, alert.kind))?;
        let back = self.takes_back();
        match &alert.kind {
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
            _ => {}
        }
        Ok(false)
    }

    pub fn ended(&self, outcome: Outcome) -> Checked {
        let seen = self.effect.as_ref().is_none_or(|effect| effect.shown || effect.unopposed);
        ensure(outcome == Outcome::Completed || seen, "I45", || {
            format!("{} ends {outcome:?}, and telemetry does not show it", self.id)
        })?;
        let back =
            self.choice == Some(Choice::Rollback) && self.open.is_none() && self.weight == Weight::ZERO;
        let fits = match outcome {
            Outcome::Completed => self.choice == Some(Choice::Complete) && self.open.is_none(),
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

/// The canary's share of everybody in no named part once `step` is applied, and of each part that has one.
fn shares(policy: &Policy, step: u16) -> (Weight, Vec<(&str, Weight)>) {
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

/// To which part of the traffic samples of these tags belong.
pub fn part(policy: &Policy, tags: &str) -> Option<usize> {
    let segments = policy.segments.as_ref()?;
    let prefix = format!("{}=", segments.kind.as_str());
    let name = tags.split(',').find_map(|tag| tag.strip_prefix(&prefix))?;
    segments.parts.iter().position(|part| part.name == name)
}

/// The words of harm of a count or a split after a cohort, worked out from its counts.
fn labels_words(
    guardrail: &Guardrail,
    ratios: &[f64],
    share: f64,
    before: &Evidence,
    scored: &Scored,
) -> Vec<i64> {
    let floor = |nats: f64| (nats * WORD).floor() as i64;
    let reserve = 1.0 - INITIAL_STAKE;
    let (mut words, mut epoch) = (before.harm.words.clone(), before.harm.epoch);
    let mut begin = |words: &mut Vec<i64>| {
        epoch += 1;
        let j = f64::from(epoch);
        let injected = libm::log(reserve / (j * (j + 1.0)));
        for word in words {
            let held = *word as f64 / WORD;
            *word =
                floor(held.max(injected) + libm::log1p(libm::exp(held.min(injected) - held.max(injected))));
        }
    };
    let entered = scored.step != before.step;
    if entered {
        begin(&mut words);
    }
    let (a, b) = (scored.baseline.n as f64, scored.canary.n as f64);
    if share < 1.0 && a + b > 0.0 {
        let boundary = if let Rule::Count { ratio } = guardrail.rule { ratio } else { 1.0 };
        let t0 = labels::chance(boundary, 1.0 - share, share);
        for (word, ratio) in words.iter_mut().zip(ratios) {
            *word += floor(labels::pay(t0, labels::chance(boundary * ratio, 1.0 - share, share), a, b));
        }
        let since = if entered { 0 } else { before.epoch_canary };
        if since + scored.canary.n >= EPOCH_CANARY {
            begin(&mut words);
        }
    }
    words
}

/// The metric whose observations a guardrail counts.
fn counted(guardrail: &Guardrail) -> &Metric {
    match &guardrail.rule {
        Rule::Missing { of, .. } => of,
        _ => &guardrail.metric,
    }
}

fn named<'a>(policy: &'a Policy, name: &str) -> Result<&'a Guardrail, (&'static str, String)> {
    let found = policy.guardrails.iter().find(|g| g.name == name);
    found.ok_or_else(|| ("I11", format!("the policy has no guardrail {name}")))
}
