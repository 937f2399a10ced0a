//! A rollout that is over, and how it ended.

use super::guardrail;
use super::rollout::{DecisionRef, EffectView, RolloutView, Standing, meaning};
use crate::core::event::rollout_spec::Outcome;
use crate::core::state::{Ended, State};
use crate::core::words;

/// `ended` as it stays.
pub fn view(state: &State, ended: &Ended) -> RolloutView {
    let o = &ended.spec;
    let policy = state.policies.get(&o.policy);
    let decision = ended.decision.as_ref();
    let (standing, weight) = match ended.outcome {
        Outcome::Completed => (Standing::Completed, 100.0),
        Outcome::RolledBack => (Standing::RolledBack, 0.0),
        Outcome::Aborted => (Standing::Aborted, 0.0),
        Outcome::Superseded => (Standing::Superseded, 0.0),
    };
    RolloutView {
        state: standing,
        weight,
        step: decision.and_then(|(_, d)| d.step).map(|step| step + 1),
        claimed_by: ended.claimed.as_ref().map(|claim| claim.by.clone()),
        superseded_by: ended.superseded.as_ref().map(|id| id.0.clone()),
        ended_ms: Some(ended.ended_at.0),
        seq: ended.ended,
        summary: match (decision, &ended.superseded) {
            (Some((_, d)), _) => words::decision(d),
            (None, Some(by)) => format!("{by} took its place before any traffic"),
            (None, None) => {
                let overtaken = ended.overtaken.as_ref().map(words::alert::overtaken);
                overtaken.unwrap_or_else(|| "withdrawn before any traffic".into())
            }
        },
        meaning: policy.map(|p| meaning(p, o, decision.map(|(_, d)| d))).unwrap_or_default(),
        guardrails: decision.map(|(_, d)| guardrail::last(policy, &d.readings)).unwrap_or_default(),
        last_decision: decision.map(|(seq, decision)| DecisionRef::new(*seq, decision)),
        effective: ended.effective.map(|at| EffectView {
            shown: true,
            at_ms: Some(at.0),
            weight,
            requests: 0,
            canary: 0,
            metric: None,
        }),
        ..RolloutView::new(&ended.id, &ended.baseline, o, ended.created_at)
    }
}
