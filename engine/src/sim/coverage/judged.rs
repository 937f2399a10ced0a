//! What evidence made of canaries whose truth is known.

use super::{Coverage, Seen};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::GuardrailKind;
use crate::core::policy::segment::Task;
use crate::sim::plan::{DEARER, Effect, Fault, OFTENER, Plan, SLOWER, ServicePlan, Truth};

/// The truth about a canary, and what evidence made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Of a proportion: of all that decides on a rollback.
    pub kind: GuardrailKind,
    /// `Same`: as good as the baseline. `Beyond`: worse by the limit or more.
    pub truth: Truth,
    /// Taken back by evidence of harm.
    pub harm: bool,
    /// Promoted to all traffic by evidence of safety; `None` where that was not asked for.
    pub full: Option<bool>,
}

impl Coverage {
    /// What became of rollouts whose truth is known and that no person promoted.
    pub fn judged(&self, plan: &Plan) -> Vec<Judged> {
        let truth = |seen: &Seen| {
            let policy = self.policies.get(&seen.spec.policy)?;
            let service = plan.services.iter().find(|s| s.name == seen.spec.service.as_str())?;
            let (a, b) = (service.versions.get(&seen.baseline)?, service.versions.get(&seen.spec.to)?);
            if a.breaks.is_some() || b.breaks.is_some() {
                return None;
            }
            let of = |segment| (of_segment(service, a, segment), of_segment(service, b, segment));
            let same = |segment| {
                let (a, b) = of(segment);
                a == b
            };
            // Where the segments come one after another, harm may come of those that have begun; what is shown at the end is
            // of the last.
            let (all_same, last) = match (&policy.segments, &service.segments) {
                (Some(_), Some(segments)) => {
                    ((0..=seen.reached).all(|segment| same(Some(segment))), Some(segments.names.len() - 1))
                }
                _ => (same(None), None),
            };
            if all_same {
                return Some(Truth::Same);
            }
            let ((pass_a, error_a), (pass_b, error_b)) = of(last);
            // The limits are 4 points of passes, and twice the errors and a point, where a policy waits for them.
            let [asks_passes, asks_errors] =
                [0, 1].map(|i| policy.guardrails.get(i).is_some_and(|g| g.gates));
            let passes = asks_passes && pass_b <= pass_a - 0.04;
            let errors = asks_errors && service.error * error_b >= 2.0 * service.error * error_a + 0.01;
            (passes || errors).then_some(Truth::Beyond)
        };
        let over = self.over.iter().map(|(_, seen)| (seen, Some(seen.full)));
        // Evidence that a segment ended by going back alone: it was not asked whether the canary is safe for all.
        let ended = self.ended.iter().map(|seen| (seen, None));
        let mut found: Vec<Judged> = Vec::new();
        for (seen, full) in over.chain(ended).filter(|(seen, _)| !seen.pushed) {
            let all = GuardrailKind::Proportion;
            found.extend(truth(seen).map(|truth| Judged { kind: all, truth, harm: seen.harm, full }));
            let Some(service) = plan.services.iter().find(|s| s.name == seen.spec.service.as_str()) else {
                continue;
            };
            let of = |version| service.versions.get(version);
            let (Some(a), Some(b)) = (of(&seen.baseline), of(&seen.spec.to)) else { continue };
            let policy = self.policies.get(&seen.spec.policy);
            for kind in service.kinds.some.iter().chain([&GuardrailKind::Mean]) {
                let labels = matches!(kind, GuardrailKind::Count | GuardrailKind::Split);
                // Under a wrong clock the log assigns requests to other steps than those that served them.
                if !(labels && plan.has(Fault::Clock)) {
                    let full = full.filter(|_| policy.is_some_and(|policy| asks_at_last(policy, *kind)));
                    let harm = seen.failed.contains(kind);
                    found.push(Judged { kind: *kind, truth: further(*kind, a, b), harm, full });
                }
            }
        }
        found
    }
}

/// How much better passes are, and by which factor errors more, with a version in one segment (`None`: in all
/// of it).
fn of_segment(service: &ServicePlan, effect: &Effect, segment: Option<usize>) -> (f64, f64) {
    let differs = match (effect.only, segment, &service.segments) {
        (Some(only), Some(segment), _) => f64::from(u8::from(only == segment)),
        (Some(only), None, Some(segments)) => segments.shares[only],
        _ => 1.0,
    };
    (effect.pass * differs, 1.0 + (effect.error - 1.0) * differs)
}

/// What is true of a canary of shift `b` against a baseline of shift `a`, as each kind's limit has it.
fn further(kind: GuardrailKind, baseline: &Effect, canary: &Effect) -> Truth {
    let (a, b) = (baseline.shift, canary.shift);
    let times = |factor: f64| ((1.0 + factor * b) / (1.0 + factor * a) - 1.0) / factor;
    let limits = match kind {
        GuardrailKind::Split => f64::from(u8::from((a > 1.0) != (b > 1.0))) * 2.0,
        GuardrailKind::Mean => (canary.cost / baseline.cost - 1.0) / DEARER,
        GuardrailKind::Quantile => times(SLOWER),
        GuardrailKind::Count => times(OFTENER),
        GuardrailKind::Missing => (b - a).abs(),
        GuardrailKind::Score | GuardrailKind::Paired => b - a,
        // Every policy has proportions, which are judged by themselves, and what is counted has no limit that is compared with.
        GuardrailKind::Proportion | GuardrailKind::Absolute | GuardrailKind::Stop => return Truth::Same,
    };
    match limits - 1.0 {
        over if over > 1e-9 => Truth::Beyond,
        over if over > -1e-9 => Truth::AtLimit,
        _ => Truth::Within,
    }
}

/// Whether a policy gives everybody the canary only when it is within the limit of this kind. Pairs of a shadow step
/// are asked about there, and with less.
fn asks_at_last(policy: &Policy, kind: GuardrailKind) -> bool {
    let shadow = policy.steps.iter().any(|step| step.task == Some(Task::Shadow));
    let gates = policy.guardrails.iter().any(|g| g.gates && g.profile().kind == kind);
    gates && kind.shows_safety() && !(shadow && kind == GuardrailKind::Paired)
}
