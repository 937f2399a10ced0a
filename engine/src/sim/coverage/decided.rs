//! What verdicts and decisions tell of a rollout.

use super::{Coverage, Seen};
use crate::core::event::decision::{Choice, Decision, Reason};
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{RolloutId, Weight};
use crate::core::policy::guardrail::{GuardrailKind, Rule};
use crate::core::policy::segment::Task;
use crate::core::time::Timestamp;
use crate::sim::coverage::rare::Rare;

impl Seen {
    /// By harm: what failed, and what the rollout was doing.
    fn harmed(&mut self, d: &Decision) -> Vec<Rare> {
        let failing =
            |kind: GuardrailKind| d.readings.iter().any(|r| r.kind == kind && r.verdict == Verdict::Fail);
        let harm = failing(GuardrailKind::Proportion);
        self.harm |= harm;
        let found = [
            (failing(GuardrailKind::Absolute), Rare::Crash),
            (harm, Rare::Harm),
            (self.paused, Rare::HarmPaused),
            (!self.confirmed, Rare::HarmApplying),
            (self.weight == Weight::FULL && self.confirmed, Rare::HarmSoaking),
        ];
        found.into_iter().filter_map(|(is, state)| is.then_some(state)).collect()
    }
}

impl Coverage {
    pub(super) fn verdict(&mut self, id: &RolloutId, reading: &GuardrailReading) {
        let Some(seen) = self.open.get_mut(id) else { return };
        let rare = &mut self.rare;
        rare.extend(match reading.verdict {
            Verdict::Stale => Some(Rare::Stale),
            Verdict::NoData => Some(Rare::NoData),
            Verdict::SourceBroken => Some(Rare::SourceBroken),
            _ => None,
        });
        if reading.verdict == Verdict::Fail {
            seen.failed.insert(reading.kind);
        }
        if reading.kind == GuardrailKind::Paired && seen.task == Some(Task::Shadow) && seen.confirmed {
            rare.extend(match reading.verdict {
                Verdict::Pass => Some(Rare::ShadowShown),
                Verdict::Fail => Some(Rare::ShadowFailed),
                _ => None,
            });
        }
        rare.extend(match (reading.kind, reading.verdict) {
            (_, Verdict::Fail) if reading.excused.is_some() => Some(Rare::Excused),
            (GuardrailKind::Quantile, Verdict::Fail) => Some(Rare::QuantileFails),
            (GuardrailKind::Score, Verdict::Fail) => Some(Rare::ScoreFails),
            (GuardrailKind::Count, Verdict::Fail) => Some(Rare::CountFails),
            (GuardrailKind::Paired, Verdict::Pass) => Some(Rare::PairPasses),
            (GuardrailKind::Split, Verdict::Fail) => Some(Rare::SplitFails),
            (GuardrailKind::Missing, Verdict::Fail) => Some(Rare::MissingFails),
            (GuardrailKind::Stop, Verdict::Fail) => Some(Rare::StopFails),
            (GuardrailKind::Stop, Verdict::NoData | Verdict::Stale | Verdict::SourceBroken) => {
                Some(Rare::StopUnheard)
            }
            _ => None,
        });
        self.readings(std::slice::from_ref(reading));
    }

    pub(super) fn decided(&mut self, id: &RolloutId, now: Timestamp, d: &Decision) {
        let shut = self.shut(id, now);
        let Some(seen) = self.open.get_mut(id) else { return };
        let policy = self.policies.get(&seen.spec.policy);
        let rare = &mut self.rare;
        let by = d.actor.is_some();
        seen.back = d.choice == Choice::Rollback;
        let about = |reason: &Reason| match reason {
            Reason::NotApplied { .. } => Some(Rare::SilenceBack),
            Reason::Smoke { .. } => Some(Rare::SmokeFailed),
            _ => None,
        };
        rare.extend(d.because.first().and_then(about).filter(|_| seen.back));
        seen.begun |= d.choice == Choice::Promote;
        rare.extend((shut && d.choice == Choice::Rollback && !by).then_some(Rare::HarmShut));
        let passed = d.choice == Choice::Promote
            && d.because.iter().any(|reason| matches!(reason, Reason::Window { .. }));
        rare.extend(passed.then_some(Rare::WindowPassed));
        match d.choice {
            Choice::Promote if d.step.is_none() => {
                seen.baseline = d.baseline.clone();
                rare.extend(seen.spec.behind.is_some().then_some(Rare::NextInLine));
            }
            Choice::Promote if by => {
                let met = d.readings.iter().all(|r| r.verdict == Verdict::Pass);
                rare.insert(if met { Rare::PromotedByPerson } else { Rare::Overridden });
            }
            Choice::Promote => {
                rare.insert(Rare::Promoted);
                let steps = policy.map_or(0, |policy| policy.steps.len());
                seen.full |= d.step.is_some_and(|step| usize::from(step) + 2 == steps);
            }
            Choice::Hold => drop(rare.insert(Rare::Held)),
            Choice::Complete => {}
            Choice::Rollback if by => drop(rare.insert(Rare::RolledBackByPerson)),
            Choice::Rollback if matches!(d.because.first(), Some(Reason::Deadline { .. })) => {
                rare.insert(Rare::Deadline);
            }
            Choice::Rollback => rare.extend(seen.harmed(d)),
        }
        self.readings(&d.readings);
        self.exposed(id, d);
    }

    /// Nothing of the rollout may move forward: its windows are closed, or a freeze is on.
    fn shut(&self, id: &RolloutId, now: Timestamp) -> bool {
        let Some(Seen { spec, .. }) = self.open.get(id) else { return false };
        let window = self.windows.get(&spec.policy);
        window.is_some_and(|(open, until)| !open && *until > now)
            || self.frozen.contains(&None)
            || self.frozen.contains(&Some(spec.service.clone()))
    }

    fn readings(&mut self, readings: &[GuardrailReading]) {
        for reading in readings {
            if reading.accepted.is_some() {
                self.rare.insert(Rare::Accepted);
            }
            if reading.late > 0 {
                self.rare.insert(Rare::LateSample);
            }
            if reading.epoch > 1 {
                self.rare.insert(Rare::Epoch);
            }
        }
    }

    /// What a decision says of segments, A/B and tasks.
    fn exposed(&mut self, id: &RolloutId, d: &Decision) {
        let Some(seen) = self.open.get_mut(id) else { return };
        let Some(policy) = self.policies.get(&seen.spec.policy) else { return };
        let rare = &mut self.rare;
        let by = d.actor.is_some();
        let automatic = d.is_automatic();
        let segment = |step: u16| policy.steps.get(usize::from(step)).and_then(|step| step.segment);
        let split = |reason: &Reason| {
            let of = |name: &str| policy.guardrails.iter().any(|g| g.name == name && g.rule == Rule::Split);
            matches!(reason, Reason::Guardrail { name } if of(name))
        };
        match d.choice {
            Choice::Promote => {
                let next = d.step.map_or(0, |step| step + 1);
                if let (Some(segments), Some(step)) = (&policy.segments, d.step) {
                    rare.extend((segment(next) != segment(step)).then_some(Rare::SegmentNext));
                    rare.extend((seen.segment_taken_back && by).then_some(Rare::SegmentAgain));
                    seen.reached = segment(next).map_or(segments.named.len(), usize::from);
                }
                rare.extend((policy.ab && d.step == Some(0) && !by).then_some(Rare::AbWon));
                (seen.step, seen.segment_taken_back) = (Some(next), false);
            }
            Choice::Rollback => {
                rare.extend(seen.at_work().then_some(Rare::TaskCalledOff));
                let late = matches!(d.because.first(), Some(Reason::NotApplied { .. }));
                rare.extend(late.then_some(Rare::NotAppliedBack));
                if policy.ab && automatic && !late {
                    let deadline = matches!(d.because.first(), Some(Reason::Deadline { .. }));
                    rare.insert(if deadline { Rare::AbKept } else { Rare::AbHarm });
                }
                if policy.segments.is_some() && automatic {
                    rare.insert(if d.back_to.is_some() { Rare::SegmentAlone } else { Rare::SegmentAll });
                }
                if let Some(back) = d.back_to {
                    // The evidence begins anew.
                    self.ended.push(seen.clone());
                    (seen.step, seen.segment_taken_back, seen.harm) = (Some(back), true, false);
                    seen.reached = segment(back).map_or(seen.reached, usize::from);
                    seen.failed.clear();
                }
            }
            Choice::Hold => {
                rare.extend((policy.ab && d.because.iter().any(split)).then_some(Rare::AbSplit));
                let waits = |reason: &Reason| matches!(reason, Reason::Segment { .. });
                rare.extend(d.because.iter().any(waits).then_some(Rare::SegmentWaits));
            }
            Choice::Complete => {}
        }
    }
}
