//! Answers to what comes from outside: an intent becomes a rollout or is refused, an act is accepted or refused, a
//! confirmation that nothing waits for is refused. What an accepted act leads to is decided in `decide`.

use super::event::{Ack, Act, Event, FreezeOrder, Intent, Opening, Outcome, Reason, Refusal, Verb};
use super::evidence::GuardrailReading;
use super::ids::RolloutId;
use super::judge;
use super::planted::{Bug, planted};
use super::policy::Concurrency;
use super::rollout::{Bake, Rollout, Stage};
use super::state::State;
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
        None => state.default_policy(intent.kind),
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
    if from == intent.to {
        return Err(refusal("E1031", format!("{} already serves {service}; nothing to roll out", intent.to)));
    }
    let active = known.and_then(|s| s.active.as_ref()).and_then(|id| state.rollouts.get(id));
    let active = active.filter(|_| !planted(Bug::TwoActive));
    let waiting = known.map_or(0, |s| s.queue.len());
    let mut behind = None;
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
        if state.policies[&policy].concurrency == Concurrency::Refuse {
            let message = format!("{} is active on {service}, and the policy takes one at a time", active.id);
            return Err(refusal("E1033", message));
        }
        if waiting >= QUEUE_MAX {
            return Err(refusal(
                "E1034",
                format!("{waiting} rollouts already wait on {service}; limit {QUEUE_MAX}"),
            ));
        }
        behind = Some(ahead.clone());
    }
    let number = known.map_or(0, |s| s.number) + 1;
    let attempt = known.and_then(|s| s.attempts.get(&intent.to)).copied().unwrap_or(0) + 1;
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
        behind,
        traceparent: trace.clone(),
    };
    Ok((RolloutId(format!("{service}-{number}")), opening))
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
        };
        let at = ended.ended;
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
        (Verb::Promote, Stage::RollingBack) if planted(Bug::PromotesAfterRollback) => Ok(()),
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
            _ if rollout.approvals.contains(&act.actor) => {
                Err(refusal("E0319", format!("{} has already approved the next step of {id}", act.actor)))
            }
            _ => Ok(()),
        },
        (Verb::Promote, Stage::Baking(bake)) => check_promote(state, rollout, bake, act),
        (Verb::Promote, Stage::Queued) if state.turn_of(rollout) && rollout.paused.is_none() => {
            past_shut(state, rollout, act, "before its first step")
        }
        (Verb::Promote | Verb::Approve, Stage::Applying { .. }) => {
            let message =
                format!("{verb} refused: not every actuator of {id} has confirmed the current step");
            Err(refusal("E0320", message))
        }
        (Verb::Promote | Verb::Approve, stage) => {
            let why = match stage {
                Stage::Soaking(_) => "it already has all traffic",
                _ => "it has not started",
            };
            Err(refusal("E0321", format!("{verb} refused: {id}: {why}")))
        }
    }
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
        Reason::Approvals { .. } => !gate.met,
        _ => false,
    };
    match gates.iter().find(serious) {
        Some(gate) if !act.force => {
            let why = words::reason(&gate.reason, &judgement.readings);
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
