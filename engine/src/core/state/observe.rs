//! Telemetry of one rollout: which arm, cohort and segment each sample belongs to.

use super::rollout::{Rollout, Stage};
use crate::core::evidence::ingest::Receipt;
use crate::core::ids::{EventSeq, RolloutId, Version};
use crate::core::planted::{Bug, planted};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::Guardrail;
use crate::core::telemetry::arm::Arm;
use crate::core::telemetry::cohort::{position_key, unit_key};
use crate::core::telemetry::columns::Columns;
use crate::core::telemetry::observation::{Observation, Role};
use crate::core::time::{Span, Timestamp};

/// What a series feeds: an arm of these guardrails.
type Fed = (Arm, Vec<(usize, Role)>);

/// The tag by which samples say who graded them: a model, a prompt, a set of cases, each with its version.
const JUDGE: &str = "judge";

/// Where a request belongs: its cohort, whether the step had not warmed up, and the segment the step is about.
#[derive(Clone, Copy)]
struct Moment {
    cohort: Timestamp,
    cold: bool,
    segment: Option<u16>,
    /// The share of traffic was changing hands.
    moves: bool,
}

impl Rollout {
    fn arm_of(&self, version: &Version) -> Option<Arm> {
        if *version == self.opening.to {
            Some(Arm::Canary)
        } else if *version == self.baseline {
            Some(Arm::Baseline)
        } else {
            None
        }
    }

    /// Where a request served at `served_at` belongs. Buckets are counted from when its step was applied.
    fn moment(&self, served_at: Timestamp, to: Timestamp, policy: &Policy) -> Option<Moment> {
        let (since, step) = self.step_at(served_at)?;
        let (offset, length) = (served_at.since(since), policy.evidence.cohort);
        let cohort = since.plus(Span(offset.0 - offset.0 % length.0.max(1)));
        let segment = policy.segment_index(step);
        let moves = policy.guardrails.iter().any(|g| g.profile().needs_share)
            && self.moves(served_at, to)
            && !planted(Bug::MovingCounts);
        Some(Moment { cohort, cold: offset < policy.evidence.warm_up, segment, moves })
    }

    /// Takes in a batch. Returns whether an absolute guard has news by it.
    pub fn observe(&mut self, policy: &Policy, seq: EventSeq, now: Timestamp, columns: &Columns) -> bool {
        if self.steps.is_empty() || !self.armed() {
            return false;
        }
        // Which guardrails each series of the batch feeds, looked up once.
        let targets: Vec<Option<Fed>> = columns
            .series
            .iter()
            .map(|series| {
                let arm = self.arm_of(&series.version)?;
                let role = |g: &Guardrail| match g.compares().and_then(|kind| kind.requests()) {
                    _ if g.metric == series.metric => Some(Role::Value),
                    requests => requests.filter(|of| **of == series.metric).map(|_| Role::Request),
                };
                let fed = policy.guardrails.iter().enumerate().filter_map(|(i, g)| Some((i, role(g)?)));
                let fed: Vec<_> = fed.collect();
                (!fed.is_empty()).then_some((arm, fed))
            })
            .collect();
        let units: Vec<Option<u64>> =
            columns.units.iter().map(|u| (!u.is_empty()).then(|| unit_key(u))).collect();
        let judges: Vec<Option<u64>> =
            columns.tags.iter().map(|tags| value_of(tags, JUDGE).map(unit_key)).collect();
        // For each guardrail with slices: the value of its tag, by tag set.
        let slices: Vec<Vec<Option<&str>>> = policy
            .guardrails
            .iter()
            .map(|g| match &g.slices {
                Some(tag) => columns.tags.iter().map(|tags| value_of(tags, tag)).collect(),
                None => Vec::new(),
            })
            .collect();
        // To which part of the traffic the samples of each tag set say that they belong: to a named one, or to the rest.
        let members: Vec<Option<Option<u16>>> = policy.segments.as_ref().map_or(Vec::new(), |segments| {
            let part = |tags: &String| {
                let name = value_of(tags, segments.kind.as_str())?;
                Some(part_named(policy, name))
            };
            columns.tags.iter().map(part).collect()
        });
        let divided = policy.segments.is_some();
        // What the canary still serves in a part that was taken back, and in those after it, says nothing about the others.
        // Nor does, while it goes back, what nobody says the place of.
        let parked = self.parked.as_deref().map(|name| part_named(policy, name));
        let goes_back = parked.is_some() && matches!(self.stage, Stage::Applying { .. });
        let gone = |member: Option<Option<u16>>| {
            let place = |part: Option<u16>| part.unwrap_or(u16::MAX);
            let gone = |part| parked.is_some_and(|parked| place(part) >= place(parked));
            member.map_or(goes_back, gone) && !planted(Bug::StragglersCount)
        };
        let length = policy.evidence.cohort;
        let receipt = |rollout: &Self, i: usize, cohort| {
            let guardrail = &policy.guardrails[i];
            let settled = rollout.settles(policy, guardrail, cohort) <= now;
            Receipt { guardrail, length, now, settled }
        };
        // Samples come in runs of the same moment: the cohort of the last one is nearly always the next one's.
        let (mut known_for, mut known) = (None, None);
        let mut fired = false;
        for (index, sample) in columns.samples().enumerate() {
            let Some((arm, fed)) = &targets[sample.series as usize] else { continue };
            if known_for != Some(sample.served_at) {
                let at = if planted(Bug::ArrivalOrder) { now } else { sample.served_at };
                (known_for, known) = (Some(sample.served_at), self.moment(at, at, policy));
            }
            let Some(Moment { cohort, cold, segment, moves }) = known else { continue };
            let member = || sample.tag.and_then(|tag| *members.get(tag as usize)?);
            let elsewhere = divided && member().flatten() != segment && !planted(Bug::MixesSegments);
            let wrong = planted(Bug::WrongArm) && *arm == Arm::Baseline && index % 8 == 7;
            let mut observation = Observation {
                arm: if wrong { Arm::Canary } else { *arm },
                served_at: sample.served_at,
                cohort,
                unit: sample.unit.and_then(|unit| units[unit as usize]),
                judge: sample.tag.and_then(|tag| *judges.get(tag as usize)?),
                place: position_key(seq, index as u32),
                value: sample.value,
                role: Role::Value,
            };
            for (i, role) in fed {
                let guardrail = &policy.guardrails[*i];
                let absolute = guardrail.compares().is_none();
                let unclear = moves && guardrail.profile().needs_share;
                if absolute && gone(member()) || !absolute && (cold || elsewhere || unclear) {
                    continue;
                }
                observation.role = *role;
                let receipt = receipt(self, *i, cohort);
                let watch = &mut self.watches[*i];
                fired |= watch.observe(&receipt, observation);
                let slice = sample.tag.and_then(|tag| *slices[*i].get(tag as usize)?);
                if let Some(slice) = slice {
                    watch.observe_slice(&receipt, observation, slice);
                }
            }
        }
        for (index, aggregate) in columns.aggregates.iter().enumerate().filter(|(_, a)| a.n > 0) {
            let Some((arm, fed)) = &targets[aggregate.series as usize] else { continue };
            let moment = self.moment(aggregate.from, aggregate.to, policy);
            let Some(Moment { cohort, cold, moves, .. }) = moment else { continue };
            // Sums have no tags: they are of all segments together, of which some have more of the canary than others.
            let elsewhere = divided && !planted(Bug::MixesSegments);
            let wrong = planted(Bug::WrongArm) && *arm == Arm::Baseline && aggregate.n % 8 == 7;
            let mut observation = Observation {
                arm: if wrong { Arm::Canary } else { *arm },
                served_at: aggregate.from,
                cohort,
                unit: None,
                judge: None,
                place: position_key(seq, columns.n + index as u32),
                value: 0.0,
                role: Role::Value,
            };
            for (i, role) in fed {
                let guardrail = &policy.guardrails[*i];
                let absolute = guardrail.compares().is_none();
                if elsewhere && !absolute {
                    self.watches[*i].leave_out(*arm, now, aggregate.n);
                    continue;
                }
                let unclear = moves && guardrail.profile().needs_share;
                if absolute && gone(None) || !absolute && (cold || elsewhere || unclear) {
                    continue;
                }
                observation.role = *role;
                let receipt = receipt(self, *i, cohort);
                let summed = (aggregate.n, &aggregate.sums);
                fired |= self.watches[*i].observe_sums(&receipt, observation, summed);
            }
        }
        fired
    }
}

/// A segment by name; `None`: whoever is in no named one.
fn part_named(policy: &Policy, name: &str) -> Option<u16> {
    let parts = policy.segments.as_ref().map_or(&[][..], |segments| &segments.named);
    parts.iter().position(|part| part.name == name).map(|i| i as u16)
}

/// The value of `tag` in a set written `key=value,key=value`.
fn value_of<'a>(tags: &'a str, tag: &str) -> Option<&'a str> {
    tags.split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == tag)
        .map(|(_, value)| value)
}

/// The rollout that telemetry is about counts what it has to see. Returns whether it has news.
pub fn observe(
    rollout: &mut Rollout,
    policy: &Policy,
    now: Timestamp,
    columns: &Columns,
) -> Option<RolloutId> {
    let arms = [&rollout.opening.to, &rollout.baseline];
    let effect = rollout.effect.as_mut()?;
    effect.observe(policy, arms, now, columns).then(|| rollout.id.clone())
}
