//! What counts, and what it may show.

use std::collections::BTreeMap;
use std::ops::Range;

use super::comparable::{events, events_summed};
use super::{Checked, Followed, ensure, named, place};
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::bets::{INITIAL_STAKE, UNITS_PER_NAT};
use crate::core::evidence::block::EPOCH_CANARY;
use crate::core::evidence::label_bets;
use crate::core::evidence::reference::Reference;
use crate::core::evidence::score::{Evidence, Scored};
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{Metric, Version};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::{Count, Guardrail, OnFail, Rule, Unless};
use crate::core::telemetry::columns::{Columns, Series};
use crate::core::time::Timestamp;
use crate::invariants::kinds::kind;
use crate::invariants::segments::{is_tagged, segment_of};

/// One guardrail, as the events tell it.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    pub(super) verdict: Option<Verdict>,
    /// The step at which it was last shown safe.
    safe_at: Option<u16>,
    /// A benefit turned its failure into a hold.
    pub(super) excused: bool,
    /// A person promoted past its failure.
    pub(super) accepted: bool,
    cohort: Option<Timestamp>,
    baseline: u64,
    canary: u64,
    /// The segment that was last scored, and what has settled of it.
    pub(super) segment: Option<Option<u16>>,
    of_segment: [u64; 2],
    /// Settled at the step.
    pub(super) at_step: (u16, u64),
    referenced: bool,
    /// Baseline observations settled since the last reference, and how many of them wait for the other arm.
    gathered: u64,
    held: u64,
    /// Means only: values of the canary above the cap.
    pub(super) above_cap: u64,
    /// Who graded what was scored last, where it was one only, and the epoch of then.
    judge: Option<String>,
    /// Since then, a cohort of two judges went into the first reference: the other may have counted already.
    mixed: bool,
    epoch: u32,
    /// A benefit was shown.
    benefit: bool,
    /// Counts and splits only: the ratios bet on, and the evidence as last recorded.
    ratios: Vec<f64>,
    evidence: Option<Box<Evidence>>,
}

impl Followed {
    /// Returns whether a rollback is due by it.
    pub fn batch(&mut self, at: Timestamp, policy: &Policy, columns: &Columns) -> bool {
        let due = self.happened(at, policy, columns);
        if let Some(effect) = &mut self.effect {
            effect.batch(policy, &self.spec.to, &self.baseline, at, columns);
        }
        if self.first_applied.is_none() {
            return due;
        }
        self.pairs(policy, columns);
        let of = |series: &Series| (series.version.clone(), series.metric.clone());
        for (series, n) in columns.series.iter().zip(columns.counts()) {
            *self.received.entry(of(series)).or_default() += n;
        }
        for (series, n) in columns.series.iter().zip(self.standing_in(policy, columns)) {
            if series.version == self.spec.to {
                *self.standing.entry(series.metric.clone()).or_default() += n;
            }
        }
        let counts = |metric: &Metric| {
            let mut rules = policy.guardrails.iter().filter(|g| g.metric == *metric).map(|g| &g.rule);
            rules.any(|rule| matches!(rule, Rule::Count { .. }))
        };
        for sample in columns.samples() {
            let series = &columns.series[sample.series as usize];
            if counts(&series.metric) {
                *self.events.entry(of(series)).or_default() += events(sample.value);
            }
        }
        for sum in &columns.aggregates {
            let series = &columns.series[sum.series as usize];
            if counts(&series.metric) {
                *self.events.entry(of(series)).or_default() += events_summed(&sum.sums);
            }
        }
        self.latest(policy, columns);
        self.comparable.batch(policy, columns);
        self.grades(columns);
        self.serves(policy, columns);
        due
    }

    /// Counts the units that have answers of both arms.
    fn pairs(&mut self, policy: &Policy, columns: &Columns) {
        let paired = |metric: &Metric| {
            let mut rules = policy.guardrails.iter().filter(|g| g.metric == *metric).map(|g| &g.rule);
            rules.any(|rule| matches!(rule, Rule::Paired { .. }))
        };
        if columns.series.iter().any(|series| paired(&series.metric)) {
            for sample in columns.samples() {
                let series = &columns.series[sample.series as usize];
                let arm = [&self.baseline, &self.spec.to].iter().position(|v| **v == series.version);
                let unit = sample.unit.map(|unit| &columns.units[unit as usize]).filter(|u| !u.is_empty());
                let (Some(arm), Some(unit), true) = (arm, unit, paired(&series.metric)) else { continue };
                let (answers, pairs) = self.units.entry(series.metric.clone()).or_default();
                let answers = answers.entry(unit.clone()).or_default();
                let before = answers[0].min(answers[1]);
                answers[arm] += 1;
                *pairs += answers[0].min(answers[1]) - before;
            }
        }
    }

    /// Counts who graded what, by the second.
    fn grades(&mut self, columns: &Columns) {
        for sample in columns.samples() {
            let series = &columns.series[sample.series as usize];
            let tags = sample.tag.map_or("", |tag| &columns.tags[tag as usize]);
            let judge = tags.split(',').find_map(|tag| tag.strip_prefix("judge="));
            let of_arm = series.version == self.baseline || series.version == self.spec.to;
            if let (Some(judge), true) = (judge, of_arm) {
                let seconds = self.graded.entry(series.metric.clone()).or_default();
                let judges = seconds.entry(sample.served_at.0 / 1000).or_default();
                *judges.entry(judge.to_owned()).or_default() += 1;
            }
        }
    }

    /// Counts what was served, by segment and second.
    fn serves(&mut self, policy: &Policy, columns: &Columns) {
        // Samples come in runs of one series and second.
        let segments: Vec<Option<usize>> = columns.tags.iter().map(|tags| segment_of(policy, tags)).collect();
        let samples = columns
            .samples()
            .map(|s| ((s.series, s.served_at.0 / 1000, s.tag.and_then(|tag| segments[tag as usize])), 1));
        type Run = ((u32, u64, Option<usize>), u64);
        let mut runs: Vec<Run> = Vec::new();
        let sums = columns.aggregates.iter().map(|a| ((a.series, a.from.0 / 1000, None), a.n));
        for (key, n) in samples.chain(sums) {
            match runs.iter_mut().rev().take(8).find(|run| run.0 == key) {
                Some(run) => run.1 += n,
                None => runs.push((key, n)),
            }
        }
        for ((series, second, segment), n) in runs {
            let Series { version, metric, .. } = &columns.series[series as usize];
            *self
                .served
                .entry((version.clone(), metric.clone(), segment))
                .or_default()
                .entry(second)
                .or_default() += n;
        }
    }

    /// By series, the observations of a batch that do not come from a segment that was taken back.
    fn standing_in(&self, policy: &Policy, columns: &Columns) -> Vec<u64> {
        let mut counts = columns.counts();
        if let Some(returned) = self.returned {
            let gone: Vec<bool> = columns
                .tags
                .iter()
                .map(|tags| {
                    let segment = segment_of(policy, tags).map(|i| i as u16);
                    is_tagged(policy, tags) && place(segment) >= place(returned)
                })
                .collect();
            let gone = columns.samples().filter(|s| s.tag.is_some_and(|tag| gone[tag as usize]));
            gone.for_each(|sample| counts[sample.series as usize] -= 1);
        }
        counts
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
        ensure(!counted || reference.n + watched.held <= watched.gathered, "I20", || {
            let (gathered, held) = (watched.gathered, watched.held);
            let n = reference.n;
            format!(
                "the reference of {name} comes from {n} observations of {gathered}, of which {held} are still to be bet on"
            )
        })?;
        (watched.gathered, watched.referenced) = (watched.held, true);
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
        self.is_due(at, policy, guardrail, cohort, scored)?;
        let seconds = cohort.0 / 1000..cohort.plus(policy.evidence.cohort).0.div_ceil(1000);
        self.was_served(policy, guardrail, scored, &seconds)?;
        self.by_one_judge(policy, guardrail, scored, &seconds)?;
        self.of_its_segment(policy, guardrail, scored)?;
        self.adds_up(policy, guardrail, scored)?;
        self.has_come_in(guardrail, scored)?;
        self.forget(policy, counted(guardrail));
        Ok(())
    }

    /// A cohort is scored when it has settled, after those before it, and bet on where there is a reference.
    fn is_due(
        &mut self,
        at: Timestamp,
        policy: &Policy,
        guardrail: &Guardrail,
        cohort: Timestamp,
        scored: &Scored,
    ) -> Checked {
        let name = &guardrail.name;
        let watched = self.watched.entry(name.clone()).or_default();
        let settles = cohort.plus(policy.evidence.cohort).plus(guardrail.maturity);
        ensure(settles <= at, "I20", || format!("a cohort of {name} is scored {} early", settles.since(at)))?;
        let began = self.first_applied;
        ensure(began.is_some_and(|began| began <= cohort), "I20", || {
            format!("a cohort of {name} is from before the first step")
        })?;
        let step = self.step;
        ensure(step.is_some_and(|step| scored.step <= step), "I39", || {
            format!("a cohort of {name} is of step {}, the rollout is at {step:?}", scored.step)
        })?;
        let last = watched.cohort.replace(cohort);
        ensure(last.is_none_or(|last| last < cohort), "I20", || {
            format!("a cohort of {name} is scored after a younger one")
        })?;
        ensure(scored.reference_only != watched.referenced, "I20", || {
            format!("{name} is bet on without a reference, or not bet on with one")
        })
    }

    /// What was served in these seconds of a version; of one segment, or (`None`) of no named one.
    fn served_in(
        &self,
        version: &Version,
        metric: &Metric,
        segment: Option<usize>,
        seconds: &Range<u64>,
    ) -> u64 {
        let served = self.served.get(&(version.clone(), metric.clone(), segment));
        served.map_or(0, |served| served.range(seconds.clone()).map(|(_, n)| n).sum())
    }

    /// No more is compared than was served in the cohort, and may be compared.
    fn was_served(
        &self,
        policy: &Policy,
        guardrail: &Guardrail,
        scored: &Scored,
        seconds: &Range<u64>,
    ) -> Checked {
        let name = &guardrail.name;
        // A sample of a count stands for as many events as it says.
        let counts = matches!(guardrail.rule, Rule::Count { .. });
        for (version, n) in [(&self.baseline, scored.baseline.n), (&self.spec.to, scored.canary.n)] {
            // Where one segment is exposed, only it is compared.
            let segment = policy.step(scored.step).segment.map(usize::from);
            let served = self.served_in(version, counted(guardrail), segment, seconds);
            ensure(counts || n <= served, "I20", || {
                format!("a cohort of {name} has {n} observations of {version}, {served} were served in it")
            })?;
            self.comparable.check(guardrail, version, n, served, segment.is_some(), seconds)?;
        }
        Ok(())
    }

    /// A cohort is graded by one judge, and another begins an epoch.
    fn by_one_judge(
        &mut self,
        policy: &Policy,
        guardrail: &Guardrail,
        scored: &Scored,
        seconds: &Range<u64>,
    ) -> Checked {
        let (name, metric) = (&guardrail.name, counted(guardrail));
        let Some(graded) = self.graded.get(metric) else { return Ok(()) };
        let mut judges: BTreeMap<&str, u64> = BTreeMap::new();
        for (judge, n) in graded.range(seconds.clone()).flat_map(|(_, judges)| judges) {
            *judges.entry(judge).or_default() += n;
        }
        let (all, most) = (judges.values().sum::<u64>(), judges.values().max().copied().unwrap_or(0));
        let arms = [&self.baseline, &self.spec.to];
        let served: u64 = arms.iter().map(|version| self.served_in(version, metric, None, seconds)).sum();
        let n = scored.baseline.n + scored.canary.n;
        ensure(policy.segments.is_some() || n <= served.saturating_sub(all - most), "I50", || {
            format!(
                "a cohort of {name} has {n} of {served} observations, {all} graded, at most {most} by one judge"
            )
        })?;
        let only = (judges.len() == 1 && all == served).then(|| judges.keys().next()).flatten();
        let epoch = scored.evidence.harm.epoch;
        let watched = self.watched.entry(name.clone()).or_default();
        if let (Some(only), true) = (only, n > 0) {
            let another = watched.judge.replace((*only).to_owned()).is_some_and(|before| before != **only);
            let told = scored.reference_only || std::mem::take(&mut watched.mixed);
            ensure(!another || told || epoch > watched.epoch, "I50", || {
                format!("{name} is graded by {only} from now on, and epoch {epoch} goes on")
            })?;
            watched.epoch = epoch;
        } else if scored.reference_only && judges.len() > 1 {
            watched.mixed = true;
        }
        Ok(())
    }

    /// Counts what has settled: of this segment, at this step, in all.
    fn of_its_segment(&mut self, policy: &Policy, guardrail: &Guardrail, scored: &Scored) -> Checked {
        let name = &guardrail.name;
        let watched = self.watched.entry(name.clone()).or_default();
        watched.baseline += scored.baseline.n;
        watched.canary += scored.canary.n;
        watched.gathered += scored.baseline.n;
        watched.held = scored.evidence.open.n_a;
        let segment = policy.step(scored.step).segment;
        if watched.segment.replace(segment) != Some(segment) {
            watched.of_segment = [0; 2];
            watched.benefit = false;
        }
        watched.of_segment[0] += scored.baseline.n;
        watched.of_segment[1] += scored.canary.n;
        if watched.at_step.0 != scored.step {
            watched.at_step = (scored.step, 0);
        }
        watched.at_step.1 += scored.canary.n;
        watched.above_cap = u64::from(scored.evidence.capped[1]);
        watched.benefit |= scored.evidence.benefit_shown;
        let (shown, of_segment) =
            ([scored.evidence.baseline.n, scored.evidence.canary.n], watched.of_segment);
        ensure(shown[0] <= of_segment[0] && shown[1] <= of_segment[1], "I39", || {
            format!("{name} shows {shown:?} observations, of this segment {of_segment:?} settled")
        })
    }

    /// The evidence of counts and splits is what they come to; pairs are made of units.
    fn adds_up(&mut self, policy: &Policy, guardrail: &Guardrail, scored: &Scored) -> Checked {
        let name = &guardrail.name;
        let watched = self.watched.entry(name.clone()).or_default();
        if matches!(guardrail.rule, Rule::Count { .. } | Rule::Split) {
            let share = policy.step(scored.step).to.as_share();
            let before = watched.evidence.replace(Box::new(scored.evidence.clone()));
            if let Some(before) = before.filter(|_| !scored.reference_only) {
                let words = labels_words(guardrail, &watched.ratios, share, &before, scored);
                ensure(*words == *scored.evidence.harm.log_wealth, "I20", || {
                    format!("the evidence of {name} is not what its counts come to, rounded down")
                })?;
            }
        }
        let (Rule::Paired { .. }, Some((_, pairs))) = (&guardrail.rule, self.units.get(&guardrail.metric))
        else {
            return Ok(());
        };
        let n = watched.baseline;
        ensure(n <= *pairs, "I20", || format!("{n} pairs of {name}, its units make {pairs}"))
    }

    /// No more is bet on than has settled, and no more has settled than came in.
    fn has_come_in(&self, guardrail: &Guardrail, scored: &Scored) -> Checked {
        let name = &guardrail.name;
        let Some(Watched { baseline, canary, .. }) = self.watched.get(name) else { return Ok(()) };
        let bet = (scored.evidence.baseline.n, scored.evidence.canary.n);
        ensure(bet.0 <= *baseline && bet.1 <= *canary, "I20", || {
            format!("{name} bets on {bet:?} observations of {baseline} and {canary} settled")
        })?;
        for (version, total) in [(&self.baseline, baseline), (&self.spec.to, canary)] {
            let received = match guardrail.rule {
                Rule::Count { .. } => {
                    self.events.get(&(version.clone(), guardrail.metric.clone())).copied().unwrap_or(0)
                }
                _ => self.received_of(version, counted(guardrail)),
            };
            ensure(*total <= received, "I20", || {
                format!("{total} observations of {version} settled for {name}, {received} came in")
            })?;
        }
        Ok(())
    }

    /// Drops what every guardrail of a metric has looked at.
    fn forget(&mut self, policy: &Policy, metric: &Metric) {
        let scored = policy.guardrails.iter().filter(|g| kind(&g.rule).compared);
        let looked = scored.filter(|g| counted(g) == metric).map(|g| self.watched.get(&g.name)?.cohort);
        let Some(looked) = looked.min().flatten() else { return };
        for ((_, of, _), served) in &mut self.served {
            if of == metric {
                *served = served.split_off(&(looked.0 / 1000));
            }
        }
        self.comparable.forget(metric, looked.0 / 1000);
        if let Some(graded) = self.graded.get_mut(metric) {
            *graded = graded.split_off(&(looked.0 / 1000));
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
        // What must not happen counts from the first command on, confirmed or not.
        let happened = self.happened.get(name).map(|happened| happened.n);
        let received = happened.unwrap_or_else(|| self.received_of(&self.spec.to, counted(guardrail)));
        let level = self.safety_needed(policy);
        let counts = matches!(guardrail.rule, Rule::Count { .. });
        let shown = reading.excused.as_ref().is_none_or(|g| self.watched.get(g).is_some_and(|w| w.benefit));
        ensure(shown, "I18", || format!("{name} is excused by a benefit that was not shown"))?;
        let standing = self.standing.get(counted(guardrail)).copied().unwrap_or(0);
        let recent = matches!(guardrail.rule, Rule::Absolute { .. });
        ensure(!recent || reading.canary.n <= standing, "I39", || {
            let n = reading.canary.n;
            format!("{name} looks at {n} requests, {standing} are not of a segment that was taken back")
        })?;
        if reading.verdict == Verdict::Fail {
            self.fails_on_enough(guardrail)?;
            self.stops_on_enough(guardrail)?;
        }
        let segment = step.map(|step| policy.segment_index(step));
        let watched = self.watched.entry(name.clone()).or_default();
        let of_before = segment.is_some() && watched.segment.is_some() && segment != watched.segment;
        let passes = reading.verdict == Verdict::Pass && reading.kind.shows_safety();
        ensure(!(passes && of_before), "I39", || {
            format!("{name} passes at step {step:?} by what was shown of another segment")
        })?;
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
                return Ok(reading.on_fail_effective() == OnFail::Rollback);
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
}

/// The words of harm of a count or a split after a cohort, worked out from its counts.
fn labels_words(
    guardrail: &Guardrail,
    ratios: &[f64],
    share: f64,
    before: &Evidence,
    scored: &Scored,
) -> Vec<i64> {
    let floor = |nats: f64| (nats * UNITS_PER_NAT).floor() as i64;
    let reserve = 1.0 - INITIAL_STAKE;
    let (mut words, mut epoch) = (before.harm.log_wealth.to_vec(), before.harm.epoch);
    let mut begin = |words: &mut Vec<i64>| {
        epoch += 1;
        let j = f64::from(epoch);
        let injected = libm::log(reserve / (j * (j + 1.0)));
        for word in words {
            let held = *word as f64 / UNITS_PER_NAT;
            *word =
                floor(held.max(injected) + libm::log1p(libm::exp(held.min(injected) - held.max(injected))));
        }
    };
    let entered = scored.step != before.step;
    if entered {
        begin(&mut words);
    }
    let (a, b) = (scored.baseline.n as f64, scored.canary.n as f64);
    if share > 0.0 && share < 1.0 && a + b > 0.0 {
        let boundary = if let Rule::Count(Count { ratio }) = guardrail.rule { ratio } else { 1.0 };
        let t0 = label_bets::chance(boundary, 1.0 - share, share);
        for (word, ratio) in words.iter_mut().zip(ratios) {
            *word +=
                floor(label_bets::pay(t0, label_bets::chance(boundary * ratio, 1.0 - share, share), a, b));
        }
        let since = if entered { 0 } else { u64::from(before.epoch_canary) };
        if since + scored.canary.n >= EPOCH_CANARY {
            begin(&mut words);
        }
    }
    words
}

/// The metric whose observations a guardrail counts.
fn counted(guardrail: &Guardrail) -> &Metric {
    kind(&guardrail.rule).of.unwrap_or(&guardrail.metric)
}
