//! What may be said of those who carry commands out, of what telemetry shows of it, and of smoke tests.

use std::collections::{BTreeMap, BTreeSet};

use super::segments::segment_of;
use super::{Checked, ensure};
use crate::core::event::command::{Command, Shown};
use crate::core::event::smoke::{SmokeAsk, SmokeOutcome, SmokeResult};
use crate::core::ids::{Actuator, CommandId, Metric, SmokeId, Version, Weight};
use crate::core::policy::Policy;
use crate::core::policy::actuator::OnDeadline;
use crate::core::telemetry::columns::Columns;
use crate::core::time::{Span, Timestamp};
use crate::invariants::kinds::kind;

/// Who has said nothing about the open command, and who has been told.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    pub heard: BTreeMap<Actuator, Timestamp>,
    /// Named as silent, and of a rollback how often and when last.
    pub announced: BTreeSet<Actuator>,
    pub told: BTreeMap<Actuator, (u32, Timestamp)>,
    /// Since the command: the last restart, and what a clock set forward skipped.
    pub restarted: Timestamp,
    pub skipped: Span,
}

impl Silence {
    /// When a declared actuator has used up its time.
    fn over(&self, policy: &Policy, who: &Actuator, issued: Timestamp) -> Option<Timestamp> {
        let declared = policy.declared.get(who)?;
        let within = declared.ack_within.unwrap_or(policy.ack_timeout);
        let heard = self.heard.get(who).copied().unwrap_or_default();
        [issued, self.restarted, heard].into_iter().max().map(|from| from.plus(within).plus(self.skipped))
    }

    /// At the end of a fact at `at`: whoever had used up their time by then has been named.
    pub fn all_announced<'a>(
        &self,
        policy: &Policy,
        waiting: impl Iterator<Item = &'a Actuator>,
        issued: Timestamp,
        (takes_back, at): (bool, Timestamp),
    ) -> Checked {
        for who in waiting {
            // At the very moment another fact may come before the one that time has passed.
            let Some(over) = self.over(policy, who, issued).filter(|over| *over < at) else {
                continue;
            };
            let named = match (takes_back, self.told.get(who)) {
                (false, _) => self.announced.contains(who),
                // A sign of life, or a restart, gives it its time again.
                (true, Some((_, last))) => at < last.plus(Span::mins(5)).max(over) || *last == at,
                (true, None) => false,
            };
            ensure(named, "I44", || {
                format!("{who} has been silent since {}, and nobody was told by {}", over.0, at.0)
            })?;
        }
        Ok(())
    }

    /// A declared actuator is named as silent: not before its time is over.
    pub fn silent(
        &mut self,
        policy: &Policy,
        who: &Actuator,
        (issued, at): (Timestamp, Timestamp),
    ) -> Checked {
        let over = self.over(policy, who, issued);
        ensure(over.is_none_or(|over| over <= at), "I44", || format!("{who} is called silent too early"))?;
        self.announced.insert(who.clone());
        Ok(())
    }

    /// The silence about a rollback is told the `n`th time.
    pub fn about_rollback(&mut self, who: &Actuator, n: u32, at: Timestamp) -> Checked {
        let before = self.told.insert(who.clone(), (n, at));
        let fits = before.map_or(n == 0, |(m, last)| n == m + 1 && at >= last.plus(Span::mins(5)));
        ensure(fits, "I44", || format!("{who} is named {n} times before, last {before:?}"))
    }

    /// Whether somebody was named whose silence rolls back.
    pub fn rolls_back(&self, policy: &Policy) -> bool {
        let rolls =
            |who: &Actuator| policy.declared.get(who).is_some_and(|d| d.on_silent == OnDeadline::Rollback);
        self.announced.iter().any(rolls)
    }
}

/// What telemetry has to show of a confirmed command: counted here from the messages themselves.
#[derive(Clone, Debug)]
pub struct Effect {
    pub command: CommandId,
    pub actuators: Vec<Actuator>,
    segment: Option<u16>,
    from: Weight,
    to: Weight,
    since: Timestamp,
    counts: BTreeMap<Metric, [u64; 2]>,
    pub announced: bool,
    /// Told of a rollback, and to be sent again.
    pub again: bool,
    pub shown: bool,
    /// A rollback against which no request spoke in a whole look.
    pub unopposed: bool,
}

impl Effect {
    /// Of the step that `command` brings about (`back`: takes back).
    pub fn wanted(
        policy: &Policy,
        command: &Command,
        step: u16,
        back: bool,
        at: Timestamp,
    ) -> Option<Effect> {
        policy.effective?;
        let own = policy.step(step);
        let before = usize::from(step).checked_sub(1).map(|i| &policy.steps[i]);
        let before = before.filter(|before| before.segment == own.segment).map_or(Weight::ZERO, |s| s.to);
        let (from, to) = if back { (own.to, Weight::ZERO) } else { (before, own.to) };
        (from != to).then(|| Effect {
            command: command.id,
            actuators: command.actuators.clone(),
            segment: own.segment,
            from,
            to,
            since: at,
            counts: BTreeMap::new(),
            announced: false,
            again: false,
            shown: false,
            unopposed: false,
        })
    }

    /// A clock set forward has skipped so much.
    pub fn skip(&mut self, by: Span) {
        self.since = self.since.plus(by);
    }

    pub fn anew(&mut self, at: Timestamp) {
        (self.since, self.counts) = (at, BTreeMap::new());
    }

    pub fn batch(
        &mut self,
        policy: &Policy,
        canary: &Version,
        baseline: &Version,
        at: Timestamp,
        columns: &Columns,
    ) {
        let Some(rules) = policy.effective.filter(|_| !self.shown) else { return };
        if at >= self.since.plus(rules.within) {
            self.anew(at);
        }
        let first = self.since.plus(rules.after);
        for sample in columns.samples().filter(|sample| sample.served_at >= first) {
            let tags = sample.tag.map_or("", |tag| columns.tags[tag as usize].as_str());
            let segment = segment_of(policy, tags).map(|i| i as u16);
            if policy.segments.is_none() || segment == self.segment {
                self.add(policy, canary, baseline, &columns.series[sample.series as usize], 1);
            }
        }
        let rest = self.segment.is_none();
        for sums in columns.aggregates.iter().filter(|sums| sums.from >= first && rest) {
            self.add(policy, canary, baseline, &columns.series[sums.series as usize], sums.n);
        }
    }

    fn add(
        &mut self,
        policy: &Policy,
        canary: &Version,
        baseline: &Version,
        series: &crate::core::telemetry::columns::Series,
        n: u64,
    ) {
        let metric = &series.metric;
        let mut rules =
            policy.guardrails.iter().filter(|g| g.metric == *metric || kind(&g.rule).of == Some(metric));
        if rules.clone().next().is_none() || !rules.all(|g| kind(&g.rule).of_requests) || n == 0 {
            return;
        }
        for (i, version) in [canary, baseline].into_iter().enumerate() {
            if series.version == *version {
                self.counts.entry(metric.clone()).or_default()[i] += n;
            }
        }
    }

    /// The counts are those of the messages, and the commanded share is twenty times as likely by them as one half-way there.
    pub fn shown(&mut self, said: &Shown) -> Checked {
        ensure(said.command == self.command && said.to == self.to && !self.shown, "I45", || {
            format!("{} is shown of {}, confirmed is {}", said.to, said.command, self.command)
        })?;
        let counted = self.counts.get(&said.metric).copied().unwrap_or_default();
        ensure(counted == [said.canary, said.requests - said.canary], "I45", || {
            format!("{} of {} {} are counted as {counted:?}", said.canary, said.requests, said.metric)
        })?;
        let [from, to] = [self.from, self.to].map(|weight| f64::from(weight.0) / 1e4);
        let half = to - (to - from) / 2.0;
        // Of nothing and all, a tenth of the way there is let pass.
        let share = if to > 0.0 && to < 1.0 { to } else { to - (to - half) / 10.0 };
        let likely = |p: f64| counted[0] as f64 * libm::log(p) + counted[1] as f64 * libm::log1p(-p);
        let times = likely(share) - likely(half);
        ensure(times >= libm::log(20.0) - 1e-6, "I45", || {
            format!("{} of {} show {}: by e^{times:.2} only", said.canary, said.requests, said.to)
        })?;
        self.shown = true;
        Ok(())
    }

    /// People are told that it is not shown.
    pub fn contradicted(
        &mut self,
        policy: &Policy,
        command: CommandId,
        at: Timestamp,
        back: bool,
    ) -> Checked {
        let over = policy.effective.is_some_and(|rules| at >= self.since.plus(rules.within));
        ensure(command == self.command && over && !self.shown && (back || !self.announced), "I45", || {
            format!("{command} is called not effective too early, twice, or late")
        })?;
        let canary = self.counts.values().map(|counts| counts[0]).max().unwrap_or(0);
        (self.announced, self.again, self.unopposed) = (true, back && canary > 0, back && canary == 0);
        self.anew(at);
        Ok(())
    }
}

/// The smoke tests of the step that was applied last.
#[derive(Clone, Debug, Default)]
pub struct Smokes {
    /// By name: the id under which it was asked for, and how it ended.
    tests: BTreeMap<String, (SmokeId, u32, Option<SmokeOutcome>)>,
    /// Names that are to be asked for before the next fact.
    pub owed: BTreeSet<String>,
}

impl Smokes {
    /// A step was applied.
    pub fn begin(policy: &Policy, step: u16, segment_taken_back: bool) -> Smokes {
        let now = policy.smoke.iter().filter(|test| !(segment_taken_back || test.first && step > 0));
        Smokes { tests: BTreeMap::new(), owed: now.map(|test| test.name.clone()).collect() }
    }

    pub fn restarted(&mut self) {
        let running = self.tests.iter().filter(|(_, (.., outcome))| outcome.is_none());
        self.owed.extend(running.map(|(name, _)| name.clone()));
    }

    pub fn asked(&mut self, policy: &Policy, ask: &SmokeAsk, step: u16) -> Checked {
        let declared = policy.smoke.iter().find(|test| test.name == ask.name);
        let fits = declared.is_some_and(|test| test.run == ask.run && test.timeout == ask.timeout);
        ensure(fits && ask.step == step && self.owed.remove(&ask.name), "I46", || {
            format!("smoke test {} is asked for and not due at step {step}", ask.name)
        })?;
        let before = self.tests.insert(ask.name.clone(), (ask.id, ask.attempt, None));
        let same = before.is_none_or(|(id, n, _)| id == ask.id && ask.attempt == n + 1);
        ensure(same, "I46", || {
            format!("smoke test {} is asked again as {}, was {before:?}", ask.name, ask.id)
        })
    }

    pub fn finished(&mut self, result: &SmokeResult) {
        let test = self.tests.values_mut().find(|(id, _, outcome)| *id == result.id && outcome.is_none());
        if let Some((_, _, outcome)) = test {
            *outcome = Some(result.outcome);
        }
    }

    /// The first that has not passed.
    pub fn open(&self) -> Option<&str> {
        let passed = |outcome: &Option<SmokeOutcome>| *outcome == Some(SmokeOutcome::Passed);
        let open =
            self.tests.iter().find(|(_, (.., outcome))| !passed(outcome)).map(|(name, _)| name.as_str());
        open.or(self.owed.first().map(String::as_str))
    }

    /// The first that failed and takes the canary back.
    pub fn failed(&self, policy: &Policy) -> Option<&str> {
        let back =
            |name: &str| policy.smoke.iter().any(|t| t.name == name && t.on_fail == OnDeadline::Rollback);
        let bad = |o: &Option<SmokeOutcome>| matches!(o, Some(SmokeOutcome::Failed | SmokeOutcome::TimedOut));
        self.tests
            .iter()
            .find(|(name, (.., outcome))| bad(outcome) && back(name))
            .map(|(name, _)| name.as_str())
    }
}
