//! What follows from an intent: it becomes a rollout, or is refused.

use std::collections::BTreeSet;

use super::turn::Turn;
use crate::core::event::Event;
use crate::core::event::alert::Overtaken;
use crate::core::event::bundle::{self, Composition, Part};
use crate::core::event::fact::Intent;
use crate::core::event::refusal::Refusal;
use crate::core::event::rollout_spec::RolloutSpec;
use crate::core::ids::{Digest, RolloutId, Scope, Service, Version};
use crate::core::policy::Concurrency;
use crate::core::state::rollout::Stage;
use crate::core::state::{Quarantine, State};

/// Rollouts that may wait behind one another.
pub const QUEUE_MAX: usize = 16;

/// Opens a rollout, or says why not.
pub fn intent(state: &State, intent: &Intent, trace: &Option<String>) -> Event {
    match open(state, intent, trace) {
        Ok((rollout, spec)) => Event::RolloutCreated { rollout, spec },
        Err(refusal) => {
            Event::IntentRefused { intent: intent.id.clone(), service: intent.service.clone(), refusal }
        }
    }
}

pub fn open(
    state: &State,
    intent: &Intent,
    trace: &Option<String>,
) -> Result<(RolloutId, RolloutSpec), Refusal> {
    let Intent { id, service, .. } = intent;
    if let Some((content, answer)) = state.intents.get(id) {
        // An answer is the first that follows from its intent.
        let seq = answer - 1;
        let (intent, before, now) = (id.clone(), *content, intent.content);
        return Err(match before == now {
            true => Refusal::IntentAgain { intent, seq },
            false => Refusal::IntentIdReused { intent, seq, before, now },
        });
    }
    let (policy_name, policy) = policy_for(state, intent)?;
    let known = state.services.get(service);
    let from = intent.from.clone().or_else(|| known.and_then(|s| s.serving.clone()));
    let from = from.ok_or_else(|| Refusal::FromUnknown { service: service.clone() })?;
    let busy = known.is_some_and(|s| s.active.is_some());
    let serves = known.filter(|_| !busy).and_then(|s| s.serving.as_ref());
    if from == intent.to || serves == Some(&intent.to) {
        return Err(Refusal::ServesAlready { service: service.clone(), to: intent.to.clone() });
    }
    // What serves when its turn comes, where it has to wait, is asked about then.
    let from_composition = match known.filter(|s| s.serving.as_ref() == Some(&from)) {
        Some(known) if intent.from_composition.is_empty() => &known.composition,
        _ => &intent.from_composition,
    };
    if !busy
        && let Some(refusal) = several_parts(
            service,
            (&from, from_composition),
            &intent.composition,
            state.policies[&policy].parts_at_once,
        )
    {
        return Err(refusal);
    }
    if let Some(quarantine) = known.and_then(|s| s.quarantined.get(&intent.to))
        && intent.finding.is_none()
    {
        let Quarantine { rollout, decision, why } = quarantine.clone();
        let (service, to, why) = (service.clone(), intent.to.clone(), Box::new(why));
        return Err(Refusal::Quarantined { service, to, rollout, decision, why });
    }
    let (behind, supersedes) = place_in_line(state, intent, policy)?;
    let number = known.map_or(0, |s| s.number) + 1;
    let attempt = known.and_then(|s| s.attempts.get(&intent.to)).copied().unwrap_or(0) + 1;
    let rollout = RolloutId(format!("{service}-{number}"));
    let scopes: BTreeSet<&Scope> = intent.scopes.iter().chain(&state.policies[&policy].scopes).collect();
    let scopes: Vec<Scope> = scopes.into_iter().cloned().collect();
    let spec = RolloutSpec {
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
        composition: intent.composition.clone(),
        from_composition: from_composition.clone(),
        behind,
        supersedes,
        blocked: state.blocked(&rollout, &scopes),
        scopes,
        engine: state.engine,
        traceparent: trace.clone(),
    };
    Ok((rollout, spec))
}

fn policy_for<'a>(state: &'a State, intent: &Intent) -> Result<(&'a str, Digest), Refusal> {
    let found = match &intent.policy {
        Some(name) => state.policy_names.get_key_value(name).map(|(name, digest)| (name.as_str(), *digest)),
        None => state.default_policy(intent.kind, intent.significant),
    };
    found.ok_or_else(|| {
        let known = state.policy_names.keys().cloned().collect();
        match intent.policy.clone() {
            Some(policy) => Refusal::NoSuchPolicy { policy, known },
            None => Refusal::NoPolicyFor { kind: intent.kind, known },
        }
    })
}

/// What a rollout waits behind where another of its service is under way, and which it takes back.
fn place_in_line(
    state: &State,
    intent: &Intent,
    policy: Digest,
) -> Result<(Option<RolloutId>, Vec<RolloutId>), Refusal> {
    let Some(known) = state.services.get(&intent.service) else { return Ok((None, Vec::new())) };
    let Some(active) = known.active.as_ref().and_then(|id| state.rollouts.get(id)) else {
        return Ok((None, Vec::new()));
    };
    let service = intent.service.clone();
    let open = || std::iter::once(&active.id).chain(&known.queue).filter_map(|id| state.rollouts.get(id));
    if let Some(same) = open().find(|r| r.spec.to == intent.to) {
        return Err(Refusal::RollingOutAlready { to: intent.to.clone(), by: same.id.clone() });
    }
    let waiting = known.queue.len();
    let supersedes = match state.policies[&policy].concurrency {
        Concurrency::Refuse => return Err(Refusal::OneAtATime { service, active: active.id.clone() }),
        Concurrency::Supersede if known.serving.as_ref() == Some(&intent.to) => {
            return Err(Refusal::GoesBackTo { to: intent.to.clone(), active: active.id.clone() });
        }
        // What is being taken back already is waited for, not superseded.
        Concurrency::Supersede => open()
            .filter(|r| r.stage != Stage::RollingBack && r.superseded.is_none())
            .map(|r| r.id.clone())
            .collect(),
        Concurrency::Queue if waiting >= QUEUE_MAX => {
            return Err(Refusal::QueueFull { service, waiting, limit: QUEUE_MAX });
        }
        Concurrency::Queue => Vec::new(),
    };
    Ok((Some(known.queue.back().unwrap_or(&active.id).clone()), supersedes))
}

/// A difference between bundles that differ in several parts cannot be laid to one of them.
pub fn several_parts(
    service: &Service,
    (from, serves): (&Version, &Composition),
    to: &Composition,
    at_once: u8,
) -> Option<Refusal> {
    if to.parts.is_empty() || usize::from(at_once) >= Part::ALL.len() {
        return None;
    }
    if serves.parts.is_empty() {
        return Some(Refusal::PartsUnknown { service: service.clone(), from: from.clone() });
    }
    let changes = bundle::changed(&serves.parts, &to.parts);
    (changes.len() > usize::from(at_once)).then_some(Refusal::SeveralParts { changes })
}

/// Why a rollout whose turn has come is not begun: what came before it has changed what serves.
pub fn overtaken(turn: Turn) -> Option<Overtaken> {
    let Turn { state, rollout, policy, .. } = turn;
    let RolloutSpec { service, to, composition, .. } = &rollout.spec;
    let known = state.services.get(service).filter(|_| state.turn_of(rollout))?;
    let serves = known.serving.as_ref()?;
    if serves == to {
        return Some(Overtaken::Serves { service: service.clone(), to: to.clone() });
    }
    let at_once = policy.parts_at_once;
    several_parts(service, (serves, &known.composition), composition, at_once).map(Overtaken::Refused)
}
