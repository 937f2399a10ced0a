//! Telemetry of one rollout: which arm, cohort and segment each sample belongs to.

use super::batch::{Batch, Part, Routes, part_named, value_of};
use super::rollout::{Rollout, Stage};
use crate::core::evidence::ingest::Receipt;
use crate::core::evidence::kind::{Profile, Scope};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::Guardrail;
use crate::core::telemetry::cohort::{position_key, unit_key};
use crate::core::telemetry::columns::Columns;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::time::{Span, Timestamp};

/// The tag by which samples say who graded them: a model, a prompt, a set of cases, each with its version.
const JUDGE: &str = "judge";

/// Where a request belongs: its cohort, whether the step had not warmed up, and the segment the step is about.
#[derive(Clone, Copy)]
struct Moment {
    cohort: Timestamp,
    cold: bool,
    segment: Option<u16>,
    /// The share of traffic was changing hands.
    in_flux: bool,
}

/// A guardrail that a series feeds, by its index.
struct Fed {
    guardrail: usize,
    role: Role,
    scope: Scope,
    needs_share: bool,
}

/// What a batch is to the guardrails of one rollout, looked up once.
struct Lookup<'a> {
    policy: &'a Policy,
    batch: &'a Batch<'a>,
    routes: &'a Routes,
    /// By series.
    feeds: Vec<Vec<Fed>>,
    units: Vec<Option<u64>>,
    /// By tag set.
    judges: Vec<Option<u64>>,
    /// For each guardrail with slices: the value of its tag, by tag set.
    slices: Vec<Vec<Option<&'a str>>>,
    /// The part of the traffic that was taken back, and whether it is still on its way.
    segment_taken_back: Part,
    goes_back: bool,
}

impl<'a> Lookup<'a> {
    fn of(rollout: &Rollout, policy: &'a Policy, batch: &'a Batch, routes: &'a Routes) -> Lookup<'a> {
        let Columns { series, units, tags, .. } = batch.columns;
        let feeds = series.iter().zip(&routes.arms).map(|(series, arm)| {
            let role = |g: &Guardrail| match g.compares().and_then(|kind| kind.requests()) {
                _ if g.metric == series.metric => Some(Role::Value),
                requests => requests.filter(|of| **of == series.metric).map(|_| Role::Request),
            };
            let fed = |(guardrail, g): (usize, &Guardrail)| {
                let Profile { scope, needs_share, .. } = *g.profile();
                Some(Fed { guardrail, role: role(g)?, scope, needs_share })
            };
            arm.map_or(Vec::new(), |_| policy.guardrails.iter().enumerate().filter_map(fed).collect())
        });
        let slices = policy.guardrails.iter().map(|g| match &g.slices {
            Some(tag) => tags.iter().map(|tags| value_of(tags, tag)).collect(),
            None => Vec::new(),
        });
        let segment_taken_back = rollout.segment_taken_back.as_deref().map(|name| part_named(policy, name));
        Lookup {
            policy,
            batch,
            routes,
            feeds: feeds.collect(),
            units: units.iter().map(|u| (!u.is_empty()).then(|| unit_key(u))).collect(),
            judges: tags.iter().map(|tags| value_of(tags, JUDGE).map(unit_key)).collect(),
            slices: slices.collect(),
            goes_back: segment_taken_back.is_some() && matches!(rollout.stage, Stage::Applying { .. }),
            segment_taken_back,
        }
    }

    /// What the canary still serves in a part that was taken back, and in those after it, says nothing about the others.
    /// Nor does, while it goes back, what nobody says the place of.
    fn is_gone(&self, part: Part) -> bool {
        let place = |part: Option<u16>| part.unwrap_or(u16::MAX);
        let gone = |part| {
            self.segment_taken_back.is_some_and(|segment_taken_back| place(part) >= place(segment_taken_back))
        };
        part.map_or(self.goes_back, gone)
    }

    /// Whether what was served in `part` until `served_to` is something to a guardrail. Before the first step it is of no moment.
    fn counts(
        &self,
        rollout: &Rollout,
        fed: &Fed,
        (served_to, moment): (Timestamp, Option<Moment>),
        part: Part,
    ) -> bool {
        let of_step = |moment: Moment| {
            let divided = self.policy.segments.is_some();
            let elsewhere = divided && part.flatten() != moment.segment;
            !(moment.cold || elsewhere || moment.in_flux && fed.needs_share)
        };
        match fed.scope {
            Scope::Step => moment.is_some_and(of_step),
            Scope::Exposed => moment.is_some() && !self.is_gone(part),
            Scope::Rollout => rollout.began_by(served_to),
        }
    }

    fn receipt(&self, rollout: &Rollout, fed: &Fed, cohort: Timestamp) -> Receipt<'a> {
        let (guardrail, now) = (&self.policy.guardrails[fed.guardrail], self.batch.at);
        let settled = rollout.settles(self.policy, guardrail, cohort) <= now;
        Receipt { guardrail, length: self.policy.evidence.cohort, now, settled }
    }
}

impl Rollout {
    /// Where a request served at `served_at` belongs. Buckets are counted from when its step was applied.
    fn moment(&self, served_at: Timestamp, to: Timestamp, policy: &Policy) -> Option<Moment> {
        let (since, step) = self.step_at(served_at)?;
        let (offset, length) = (served_at.since(since), policy.evidence.cohort);
        let cohort = since.plus(Span(offset.0 - offset.0 % length.0.max(1)));
        let segment = policy.segment_index(step);
        let in_flux =
            policy.guardrails.iter().any(|g| g.profile().needs_share) && self.share_in_flux(served_at, to);
        Some(Moment { cohort, cold: offset < policy.evidence.warm_up, segment, in_flux })
    }

    /// Takes in a batch. Returns whether it is news: to what is counted as it comes, or that the last command is seen
    /// to be followed.
    pub fn observe(&mut self, policy: &Policy, batch: &Batch) -> bool {
        if !self.guardrails_active() && self.effect.is_none() {
            return false;
        }
        let routes = Routes::of([&self.spec.to, &self.baseline], policy, batch.columns);
        let mut news = false;
        if self.guardrails_active() {
            let lookup = Lookup::of(self, policy, batch, &routes);
            news |= self.observe_samples(&lookup);
            news |= self.observe_sums(&lookup);
        }
        if let Some(effect) = &mut self.effect {
            news |= effect.observe(policy, batch, &routes);
        }
        news
    }

    fn observe_samples(&mut self, lookup: &Lookup) -> bool {
        let Lookup { policy, batch, routes, .. } = lookup;
        // Samples come in runs of the same moment: the cohort of the last one is nearly always the next one's.
        let (mut known_for, mut known) = (None, None);
        let mut fired = false;
        for (index, sample) in batch.samples.iter().enumerate() {
            let Some(arm) = routes.arm(sample.series) else { continue };
            if known_for != Some(sample.served_at) {
                let at = sample.served_at;
                (known_for, known) = (Some(at), self.moment(at, at, policy));
            }
            let cohort = known.map_or(sample.served_at, |moment| moment.cohort);
            let part = routes.part(sample.tag);
            let mut observation = Observation {
                arm,
                served_at: sample.served_at,
                cohort,
                unit: sample.unit.and_then(|unit| lookup.units[unit as usize]),
                judge: sample.tag.and_then(|tag| *lookup.judges.get(tag as usize)?),
                place: position_key(batch.seq, index as u32),
                value: sample.value,
                role: Role::Value,
            };
            let feeds = &lookup.feeds[sample.series as usize];
            for fed in feeds {
                if !lookup.counts(self, fed, (sample.served_at, known), part) {
                    continue;
                }
                observation.role = fed.role;
                let receipt = lookup.receipt(self, fed, cohort);
                let monitor = &mut self.monitors[fed.guardrail];
                fired |= monitor.observe(&receipt, observation);
                let slice = sample.tag.and_then(|tag| *lookup.slices[fed.guardrail].get(tag as usize)?);
                if let Some(slice) = slice {
                    monitor.observe_slice(&receipt, observation, slice);
                }
            }
        }
        fired
    }

    fn observe_sums(&mut self, lookup: &Lookup) -> bool {
        let Lookup { policy, batch, routes, .. } = lookup;
        let mut fired = false;
        for (index, aggregate) in batch.columns.aggregates.iter().enumerate().filter(|(_, a)| a.n > 0) {
            let Some(arm) = routes.arm(aggregate.series) else { continue };
            let moment = self.moment(aggregate.from, aggregate.to, policy);
            let cohort = moment.map_or(aggregate.from, |moment| moment.cohort);
            // Sums have no tags: they are of all segments together, of which some have more of the canary than others.
            let mixed = policy.segments.is_some();
            let mut observation = Observation {
                arm,
                served_at: aggregate.from,
                cohort,
                unit: None,
                judge: None,
                place: position_key(batch.seq, batch.columns.n + index as u32),
                value: 0.0,
                role: Role::Value,
            };
            for fed in &lookup.feeds[aggregate.series as usize] {
                if mixed && fed.scope == Scope::Step && moment.is_some() {
                    self.monitors[fed.guardrail].leave_out(arm, batch.at, aggregate.n);
                    continue;
                }
                if !lookup.counts(self, fed, (aggregate.to, moment), None) {
                    continue;
                }
                observation.role = fed.role;
                let receipt = lookup.receipt(self, fed, cohort);
                let summed = (aggregate.n, &aggregate.sums);
                fired |= self.monitors[fed.guardrail].observe_sums(&receipt, observation, summed);
            }
        }
        fired
    }
}
