//! What follows from an intent: it becomes a rollout, or is refused.

use std::collections::BTreeSet;

use super::acts::refusal;
use super::turn::Turn;
use crate::core::event::Event;
use crate::core::event::bundle::{self, Makeup, Part};
use crate::core::event::fact::Intent;
use crate::core::event::opening::{Opening, Refusal};
use crate::core::ids::{RolloutId, Scope, Service, Version};
use crate::core::planted::{Bug, planted};
use crate::core::policy::Concurrency;
use crate::core::state::rollout::Stage;
use crate::core::state::{Quarantine, State};

/// Rollouts that may wait behind one another.
pub const QUEUE_MAX: usize = 16;

/// Opens a rollout, or says why not.
pub fn intent(state: &State, intent: &Intent, trace: &Option<String>) -> Event {
    match open(state, intent, trace) {
        Ok((rollout, opening)) => Event::RolloutCreated { rollout, opening },
        Err(refusal) => {
            Event::IntentRefused { intent: intent.id.clone(), service: intent.service.clone(), refusal }
        }
    }
}

pub fn open(state: &State, intent: &Intent, trace: &Option<String>) -> Result<(RolloutId, Opening), Refusal> {
    let Intent { id, service, .. } = intent;
    if let Some((content, answer)) = state.intents.get(id).filter(|_| !planted(Bug::IntentTwice)) {
        // An answer is the first that follows from its intent.
        let seq = answer - 1;
        return Err(if *content == intent.content {
            refusal("E1014", format!("intent {id} was already received at seq {seq}; no effect"))
        } else {
            let (new, old) = (intent.content.short(), content.short());
            let message = format!(
                "intent {id} was received at seq {seq} with different content (hash {old}, now {new}); use a new id"
            );
            refusal("E1015", message)
        });
    }
    let (policy_name, policy) = match &intent.policy {
        Some(name) => state.policy_names.get_key_value(name).map(|(name, digest)| (name.as_str(), *digest)),
        None => state.default_policy(intent.kind, intent.significant),
    }
    .ok_or_else(|| {
        let known: Vec<&str> = state.policy_names.keys().map(String::as_str).collect();
        let known = known.join(", ");
        match &intent.policy {
            Some(name) => refusal("E3021", format!("policy {name} is not known; known: {known}")),
            None => {
                let kind = intent.kind.as_str();
                refusal("E3022", format!("no policy applies to changes of kind {kind}; name one of: {known}"))
            }
        }
    })?;
    let known = state.services.get(service);
    let from = intent.from.clone().or_else(|| known.and_then(|s| s.serving.clone())).ok_or_else(|| {
        let message = format!("change.from is missing, and what serves {service} now is not known; name it");
        refusal("E1030", message)
    })?;
    let busy = known.is_some_and(|s| s.active.is_some());
    let serves = known.filter(|_| !busy).and_then(|s| s.serving.as_ref());
    if from == intent.to || serves == Some(&intent.to) {
        return Err(refusal("E1031", format!("{} already serves {service}; nothing to roll out", intent.to)));
    }
    // What serves when its turn comes, where it has to wait, is asked about then.
    let from_makeup = match known.filter(|s| s.serving.as_ref() == Some(&from)) {
        Some(known) if intent.from_makeup.is_empty() => &known.makeup,
        _ => &intent.from_makeup,
    };
    if !busy
        && let Some(refusal) = several_parts(
            service,
            (&from, from_makeup),
            &intent.makeup,
            state.policies[&policy].parts_at_once,
        )
    {
        return Err(refusal);
    }
    if let Some(quarantine) = known.and_then(|s| s.quarantined.get(&intent.to))
        && intent.finding.is_none()
    {
        let (to, Quarantine { rollout, decision, why }) = (&intent.to, quarantine);
        let message = format!(
            "{rollout} took {to} back (decision {decision}: {why}); a new attempt needs what you found: sluice deploy {service} {to} --finding \"...\""
        );
        return Err(refusal("E1035", message));
    }
    let active = known.and_then(|s| s.active.as_ref()).and_then(|id| state.rollouts.get(id));
    let active = active.filter(|_| !planted(Bug::TwoActive));
    let waiting = known.map_or(0, |s| s.queue.len());
    let (mut behind, mut supersedes) = (None, Vec::new());
    if let (Some(active), Some(known)) = (active, known) {
        let ahead = known.queue.back().unwrap_or(&active.id);
        let same = std::iter::once(&active.id).chain(&known.queue);
        let same = same.filter_map(|id| state.rollouts.get(id)).find(|r| r.opening.to == intent.to);
        if let Some(same) = same {
            return Err(refusal(
                "E1032",
                format!("{} is already being rolled out by {}", intent.to, same.id),
            ));
        }
        match state.policies[&policy].concurrency {
            Concurrency::Refuse => {
                let message =
                    format!("{} is active on {service}, and the policy takes one at a time", active.id);
                return Err(refusal("E1033", message));
            }
            Concurrency::Supersede if known.serving.as_ref() == Some(&intent.to) => {
                let (to, id) = (&intent.to, &active.id);
                let message = format!("{to} is what {id} goes back to; to go back now: sluice rollback {id}");
                return Err(refusal("E1031", message));
            }
            // What is being taken back already is waited for, not superseded.
            Concurrency::Supersede => {
                let open = std::iter::once(&active.id).chain(&known.queue);
                let open = open.filter_map(|id| state.rollouts.get(id));
                let open = open.filter(|r| r.stage != Stage::RollingBack && r.superseded.is_none());
                supersedes.extend(open.map(|r| r.id.clone()));
            }
            Concurrency::Queue if waiting >= QUEUE_MAX => {
                return Err(refusal(
                    "E1034",
                    format!("{waiting} rollouts already wait on {service}; limit {QUEUE_MAX}"),
                ));
            }
            Concurrency::Queue => {}
        }
        behind = Some(ahead.clone());
    }
    let number = known.map_or(0, |s| s.number) + 1;
    let attempt = known.and_then(|s| s.attempts.get(&intent.to)).copied().unwrap_or(0) + 1;
    let rollout = RolloutId(format!("{service}-{number}"));
    let scopes: BTreeSet<&Scope> = intent.scopes.iter().chain(&state.policies[&policy].scopes).collect();
    let scopes: Vec<Scope> = scopes.into_iter().cloned().collect();
    let opening = Opening {
        intent: id.clone(),
        service: service.clone(),
        kind: intent.kind,
        from,
        to: intent.to.clone(),
        policy_name: policy_name.to_owned(),
        policy,
        by: intent.by.clone(),
        reason: intent.reason.clone(),
        attempt,
        finding: intent.finding.clone(),
        makeup: intent.makeup.clone(),
        from_makeup: from_makeup.clone(),
        behind,
        supersedes,
        blocked: state.blocked(&rollout, &scopes),
        scopes,
        engine: state.engine,
        traceparent: trace.clone(),
    };
    Ok((rollout, opening))
}

/// A difference between bundles that differ in several parts cannot be laid to one of them.
pub fn several_parts(
    service: &Service,
    (from, serves): (&Version, &Makeup),
    to: &Makeup,
    at_once: u8,
) -> Option<Refusal> {
    if to.parts.is_empty() || planted(Bug::SeveralParts) || usize::from(at_once) >= Part::ALL.len() {
        return None;
    }
    if serves.parts.is_empty() {
        let message = format!(
            "what {from}, which serves {service}, is made of is not known, so which parts would change cannot be told; name them: change.from_bundle"
        );
        return Some(refusal("E1037", message));
    }
    let changed = bundle::changed(&serves.parts, &to.parts);
    (changed.len() > usize::from(at_once)).then(|| {
        let (n, parts) = (changed.len(), changed.join(", "));
        let message = format!(
            "{n} parts would change at once: {parts}; a difference could not be laid to one of them. Roll them out one after another, or under a policy with parts_at_once: {n}"
        );
        refusal("E1036", message)
    })
}

/// Why a rollout whose turn has come is not begun: what came before it has changed what serves.
pub fn overtaken(turn: Turn) -> Option<String> {
    let Turn { state, rollout, policy, .. } = turn;
    let Opening { service, to, makeup, .. } = &rollout.opening;
    let known = state.services.get(service).filter(|_| state.turn_of(rollout))?;
    if planted(Bug::OvertakenBegins) {
        return None;
    }
    let serves = known.serving.as_ref()?;
    if serves == to {
        return Some(format!("{to} has come to serve {service} meanwhile; nothing is left to roll out"));
    }
    let at_once = policy.parts_at_once;
    several_parts(service, (serves, &known.makeup), makeup, at_once).map(|refusal| refusal.message)
}
