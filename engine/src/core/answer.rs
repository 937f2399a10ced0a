//! Answers to what comes from outside: an intent becomes a rollout or is refused, an act is accepted or refused, a
//! confirmation that nothing waits for is refused. What an accepted act leads to is decided in `decide`.

use std::collections::BTreeSet;

use super::conclusion::{Opening, Outcome, Reason, Refusal};
use super::event::Event;
use super::fact::{Ack, Act, FreezeOrder, Intent, Verb};
use super::ids::{RolloutId, Scope, Service, Version};
use super::judge;
use super::makeup::{self, Makeup, Part};
use super::planted::{Bug, planted};
use super::policy::Concurrency;
use super::reading::GuardrailReading;
use super::rollout::{Bake, Claim, Rollout, Stage};
use super::state::{Ended, Quarantine, State};
use super::time::Span;
use super::verdict::Verdict;
use super::windows::{self, FREEZES_MAX, Freeze};
use super::words;

/// Rollouts that may wait behind one another.
pub const QUEUE_MAX: usize = 16;

fn refusal(code: &str, message: String) -> Refusal {
    Refusal { code: code.to_owned(), message }
}

/// Opens a rollout, or says why not.
pub fn intent(state: &State, intent: &Intent, trace: &Option<String>) -> Event {
    match open(state, intent, trace) {
        Ok((rollout, opening)) => Event::RolloutCreated { rollout, opening },
        Err(refusal) => {
            Event::IntentRefused { intent: intent.id.clone(), service: intent.service.clone(), refusal }
        }
    }
}

fn open(state: &State, intent: &Intent, trace: &Option<String>) -> Result<(RolloutId, Opening), Refusal> {
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
fn several_parts(
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
    let changed = makeup::changed(&serves.parts, &to.parts);
    (changed.len() > usize::from(at_once)).then(|| {
        let (n, parts) = (changed.len(), changed.join(", "));
        let message = format!(
            "{n} parts would change at once: {parts}; a difference could not be laid to one of them. Roll them out one after another, or under a policy with parts_at_once: {n}"
        );
        refusal("E1036", message)
    })
}

/// Why a rollout whose turn has come is not begun: what came before it has changed what serves.
pub fn overtaken(state: &State, rollout: &Rollout) -> Option<String> {
    let Opening { service, to, makeup, .. } = &rollout.opening;
    let known = state.services.get(service).filter(|_| state.turn_of(rollout))?;
    if planted(Bug::OvertakenBegins) {
        return None;
    }
    let serves = known.serving.as_ref()?;
    if serves == to {
        return Some(format!("{to} has come to serve {service} meanwhile; nothing is left to roll out"));
    }
    let at_once = state.policy_of(rollout).parts_at_once;
    several_parts(service, (serves, &known.makeup), makeup, at_once).map(|refusal| refusal.message)
}

/// Accepts what a person asks for, or says why not.
pub fn act(state: &State, act: &Act) -> Event {
    let (rollout, verb, actor) = (act.rollout.clone(), act.verb, act.actor.clone());
    match check_act(state, act) {
        Ok(()) => Event::ActAccepted { rollout, verb, actor },
        Err(refusal) => Event::ActRefused { rollout, verb, actor, refusal },
    }
}

fn check_act(state: &State, act: &Act) -> Result<(), Refusal> {
    let (id, verb) = (&act.rollout, act.verb.as_str());
    let Some(rollout) = state.rollouts.get(id) else {
        let Some(ended) = state.ended.iter().rev().find(|ended| ended.id == *id) else {
            return Err(refusal("E4004", format!("no rollout {id}; see: sluice ls")));
        };
        if act.verb == Verb::Note {
            return Ok(());
        }
        let how = match ended.outcome {
            Outcome::Completed => "completed",
            Outcome::RolledBack => "rolled back",
            Outcome::Aborted => "aborted",
            Outcome::Superseded => "was superseded",
        };
        let at = ended.ended;
        if act.verb == Verb::Rollback && ended.outcome == Outcome::Completed {
            return check_undo(state, ended, act);
        }
        if act.verb == Verb::Rollback && ended.outcome == Outcome::RolledBack {
            return Err(refusal("E1022", format!("{id} was rolled back at seq {at}; nothing sent")));
        }
        let message = format!("{id} {how} at seq {at}; nothing sent. Start a new rollout: sluice deploy");
        return Err(refusal("E1021", message));
    };
    if let Some(seen) = act.if_seq.filter(|seen| *seen < rollout.moved && !planted(Bug::StaleView)) {
        let message = format!("{id} has moved since seq {seen}: see seq {}; nothing sent", rollout.moved);
        return Err(refusal("E0313", message));
    }
    let policy = state.policy_of(rollout);
    match (act.verb, &rollout.stage) {
        (Verb::Note, _) => Ok(()),
        (Verb::Claim, _) => match &rollout.claimed {
            Some(Claim { by, seq, .. }) if *by == act.actor => {
                Err(refusal("E0323", format!("{by} has claimed {id} already, at seq {seq}")))
            }
            Some(Claim { by, seq, .. }) if !act.force => {
                let message = format!(
                    "{by} has claimed {id}, at seq {seq}. take it over: sluice claim {id} --override --reason \"...\""
                );
                Err(refusal("E0323", message))
            }
            _ => Ok(()),
        },
        (Verb::Promote, Stage::RollingBack) if planted(Bug::PromotesAfterRollback) => Ok(()),
        (_, Stage::Releasing) => {
            let message = format!(
                "{id} is complete and gives up what served before; nothing sent. Start a new rollout: sluice deploy"
            );
            Err(refusal("E1021", message))
        }
        // Confirmed by all, and telemetry does not show it: somebody who knows better takes it as done.
        (Verb::Rollback, Stage::RollingBack) if act.force && rollout.sent.is_none() => Ok(()),
        (Verb::Rollback, Stage::RollingBack) if rollout.sent.is_none() => {
            let message = format!(
                "{id} is rolled back, as its actuators say, and telemetry has to show it. Take their word for it: \
                 sluice rollback {id} --override --reason \"...\""
            );
            Err(refusal("E1022", message))
        }
        (_, Stage::RollingBack) => {
            let seq = rollout.last_choice.as_ref().map_or(0, |last| last.0);
            let code = if act.verb == Verb::Rollback { "E1022" } else { "E1021" };
            Err(refusal(code, format!("{id} is already rolling back (decision {seq}); nothing sent")))
        }
        (Verb::Rollback, _) if !rollout.exposed() => {
            Err(refusal("E0314", format!("{id} has no traffic to roll back; use: sluice abort {id}")))
        }
        (Verb::Rollback, _) => Ok(()),
        (Verb::Abort, _) if rollout.exposed() => {
            Err(refusal("E0315", format!("{id} already has traffic; use: sluice rollback {id}")))
        }
        (Verb::Abort, _) => Ok(()),
        (Verb::Pause, _) if rollout.paused.is_some() => {
            Err(refusal("E0316", format!("{id} is already paused")))
        }
        (Verb::Resume, _) if rollout.paused.is_none() => Err(refusal("E0317", format!("{id} is not paused"))),
        (Verb::Pause | Verb::Resume, _) => Ok(()),
        (Verb::Approve, Stage::Baking(_)) => match judge::approvals(rollout, policy) {
            (_, 0) => Err(refusal("E0318", format!("the next step of {id} needs no approval"))),
            _ if act.actor == rollout.opening.by
                && judge::not_submitter(rollout, policy)
                && !planted(Bug::SubmitterCounts) =>
            {
                let message = format!("{} submitted {id}; its next step needs the word of others", act.actor);
                Err(refusal("E0324", message))
            }
            _ if rollout.approvals.contains(&act.actor) => {
                Err(refusal("E0319", format!("{} has already approved the next step of {id}", act.actor)))
            }
            _ => Ok(()),
        },
        (Verb::Promote, Stage::Baking(bake)) => check_promote(state, rollout, bake, act),
        (Verb::Promote, Stage::Queued) if state.turn_of(rollout) && rollout.paused.is_none() => {
            past_shut(state, rollout, act, "before its first step")
        }
        (Verb::Skip, Stage::Baking(bake)) => check_skip(state, rollout, bake),
        (Verb::Promote | Verb::Skip | Verb::Approve, Stage::Applying { .. }) => {
            let message =
                format!("{verb} refused: not every actuator of {id} has confirmed the current step");
            Err(refusal("E0320", message))
        }
        (Verb::Promote | Verb::Skip | Verb::Approve, stage) => {
            let why = match stage {
                Stage::Soaking(_) => "it already has all traffic",
                _ => "it has not started",
            };
            Err(refusal("E0321", format!("{verb} refused: {id}: {why}")))
        }
    }
}

/// A completed rollout can be taken back while what served before is kept, and nothing has come in between.
fn check_undo(state: &State, ended: &Ended, act: &Act) -> Result<(), Refusal> {
    let Ended { id, opening, baseline, .. } = ended;
    let (service, keep) = (&opening.service, state.policies[&opening.policy].keep_old);
    if keep == Span::ZERO {
        let at = ended.ended;
        let message = format!("{id} completed at seq {at}; nothing sent. Start a new rollout: sluice deploy");
        return Err(refusal("E1021", message));
    }
    if act.if_seq.is_some_and(|seen| seen < ended.ended) {
        let message = format!("{id} has completed since: see seq {}; nothing sent", ended.ended);
        return Err(refusal("E0313", message));
    }
    let known = &state.services[service];
    if let Some(active) = &known.active {
        let message = format!(
            "{active} is active on {service}; nothing sent. Take that back first: sluice rollback {active}"
        );
        return Err(refusal("E0322", message));
    }
    let of_service = |e: &&Ended| e.opening.service == *service && e.outcome == Outcome::Completed;
    let newest = state.ended.iter().rev().find(of_service).is_some_and(|newest| newest.id == *id);
    let again = format!("roll {baseline} out: sluice deploy {service} {baseline}");
    if !newest || known.serving.as_ref() != Some(&opening.to) {
        let serves = known.serving.as_ref().map_or("something else", |version| version.as_str());
        let message = format!(
            "{id} completed, and {serves} has come to serve {service} since; nothing sent. To go back, {again}"
        );
        return Err(refusal("E0322", message));
    }
    let since = state.now.since(ended.ended_at);
    if since >= keep && !planted(Bug::KeepsForEver) {
        let message = format!(
            "{id} completed {since} ago, and {baseline} was kept for {keep}; nothing sent. To go back, {again}"
        );
        return Err(refusal("E0322", message));
    }
    Ok(())
}

/// A person may skip time, sample counts and what is undecided. Past anything else they must say so.
fn check_promote(state: &State, rollout: &Rollout, bake: &Bake, act: &Act) -> Result<(), Refusal> {
    let policy = state.policy_of(rollout);
    let id = &rollout.id;
    let judgement = judge::judge(rollout, policy, state.now);
    if judgement.harm {
        let message = format!("promote refused: {id} is being rolled back");
        return Err(refusal("E0312", message));
    }
    let at = policy.steps[usize::from(bake.step)].to;
    past_shut(state, rollout, act, &format!("at {at}"))?;
    let gates = judge::gates(state, rollout, &judgement.readings, state.now);
    let serious = |gate: &&judge::Gate| match &gate.reason {
        Reason::Guardrail { name } => {
            let of = |r: &&GuardrailReading| r.name == *name;
            !gate.met && judgement.readings.iter().find(of).is_some_and(|r| r.verdict != Verdict::Undecided)
        }
        Reason::Approvals { .. }
        | Reason::Segment { .. }
        | Reason::Slice { .. }
        | Reason::Smoke { .. }
        | Reason::Condition { known: true, .. } => !gate.met,
        // Not shown yet is undecided; not shown in its time is not.
        Reason::Effective { .. } => !gate.met && rollout.effect.as_ref().is_some_and(|effect| effect.named),
        _ => false,
    };
    match gates.iter().find(serious) {
        Some(gate) if !act.force => {
            let why = words::reason(&gate.reason, &judgement.readings);
            let at = policy.step_name(bake.step);
            let message = format!(
                "promote refused: {id} at {at}: {why}. override: sluice promote {id} --override --reason \"...\""
            );
            Err(refusal("E0312", message))
        }
        _ => Ok(()),
    }
}

/// Past a closed window a person must say so. A freeze stands until somebody ends it.
fn past_shut(state: &State, rollout: &Rollout, act: &Act, at: &str) -> Result<(), Refusal> {
    let id = &rollout.id;
    for gate in windows::gates(state, rollout, state.now).iter().filter(|gate| !gate.met) {
        let why = words::reason(&gate.reason, &[]);
        let how = match &gate.reason {
            Reason::Frozen { service, .. } => {
                let of = service.as_ref().map(|service| format!(" --service {service}")).unwrap_or_default();
                format!("end it: sluice unfreeze{of} --reason \"...\"")
            }
            _ if act.force => continue,
            _ => format!("override: sluice promote {id} --override --reason \"...\""),
        };
        return Err(refusal("E0312", format!("promote refused: {id} {at}: {why}. {how}")));
    }
    Ok(())
}

/// Begins or ends a freeze, or says why not.
pub fn freeze(state: &State, order: &FreezeOrder) -> Event {
    let FreezeOrder { service, until, actor, reason, .. } = order;
    let refuse = |code: &str, message: String| Event::FreezeRefused {
        service: service.clone(),
        actor: actor.clone(),
        refusal: refusal(code, message),
    };
    let scope = words::scope(service.as_ref());
    if order.freeze {
        if until.is_some_and(|until| until <= state.now) {
            return refuse(
                "E0340",
                format!("the freeze of {scope} would be over before it begins; nothing is frozen by it"),
            );
        }
        let known = state.freezes.iter().any(|freeze| freeze.service == *service);
        if !known && state.freezes.len() >= FREEZES_MAX {
            return refuse(
                "E0341",
                format!("{FREEZES_MAX} freezes are on; end one, or freeze everything: sluice freeze"),
            );
        }
        let (service, by, reason) = (service.clone(), actor.clone(), reason.clone());
        return Event::FreezeStarted {
            freeze: Freeze { service, by, reason, since: state.now, until: *until },
        };
    }
    if state.freezes.iter().any(|freeze| freeze.service == *service) {
        return Event::FreezeEnded { service: service.clone(), by: Some(actor.clone()) };
    }
    let all = state.freezes.iter().find(|freeze| freeze.service.is_none());
    let one = state.freezes.iter().find_map(|freeze| freeze.service.as_ref());
    let message = match (service, all, one) {
        (Some(_), Some(all), _) => {
            let by = &all.by;
            format!(
                "{scope} has no freeze of its own; everything is frozen by {by}. End that: sluice unfreeze"
            )
        }
        (None, None, Some(one)) => {
            format!(
                "there is no freeze of everything; {one} is frozen. End that: sluice unfreeze --service {one}"
            )
        }
        (Some(_), ..) => format!("{scope} is not frozen; there is no freeze to end"),
        _ => "nothing is frozen; there is no freeze to end".into(),
    };
    refuse("E0342", message)
}

/// Skipping passes the bake time and the sample minimum, and nothing else.
fn check_skip(state: &State, rollout: &Rollout, bake: &Bake) -> Result<(), Refusal> {
    let (id, policy) = (&rollout.id, state.policy_of(rollout));
    let judgement = judge::judge(rollout, policy, state.now);
    let gates = judge::gates(state, rollout, &judgement.readings, state.now);
    let passable = |reason: &Reason| matches!(reason, Reason::Samples { .. } | Reason::Bake { .. });
    match gates.iter().find(|gate| !gate.met && !passable(&gate.reason)) {
        Some(_) if planted(Bug::SkipsGuardrail) => Ok(()),
        Some(gate) => {
            let why = words::reason(&gate.reason, &judgement.readings);
            let at = policy.step_name(bake.step);
            let message =
                format!("skip refused: {id} at {at}: {why}. It passes bake time and sample minimum only");
            Err(refusal("E0325", message))
        }
        None => Ok(()),
    }
}

/// An acknowledgement that matched no open command of its service.
pub fn stray_ack(state: &State, ack: &Ack) -> Event {
    let service = &ack.service;
    let active =
        state.services.get(service).and_then(|s| s.active.as_ref()).and_then(|id| state.rollouts.get(id));
    let message = match active.and_then(|rollout| rollout.sent.as_ref()) {
        Some(sent) if sent.command.id == ack.command => {
            let names: Vec<&str> = sent.command.actuators.iter().map(|a| a.as_str()).collect();
            format!(
                "command {} is not for actuator {}; it is for {}",
                ack.command,
                ack.actuator,
                names.join(", ")
            )
        }
        Some(sent) => {
            format!("service {service} waits for command {}, not {}; no effect", sent.command.id, ack.command)
        }
        None => format!("service {service} waits for no confirmation; {} has no effect", ack.command),
    };
    Event::AckRefused {
        command: ack.command,
        actuator: ack.actuator.clone(),
        refusal: refusal("E2101", message),
    }
}
