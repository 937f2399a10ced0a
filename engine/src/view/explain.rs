//! `explain`: one rollout, what happens next to it, and what a person can do about it.

use schemars::JsonSchema;
use serde::Serialize;

use super::rollout::{RolloutView, WaitView};
use super::wait::waits;
use crate::core::decide::assessment::Assessment;
use crate::core::decide::turn::Turn;
use crate::core::decide::{gates, windows};
use crate::core::event::decision::{Gate, Reason};
use crate::core::event::rollout_spec::Outcome;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::RolloutId;
use crate::core::policy::Policy;
use crate::core::policy::actuator::OnDeadline;
use crate::core::policy::guardrail::OnFail;
use crate::core::state::State;
use crate::core::state::rollout::{Rollout, Stage};
use crate::core::time::Timestamp;
use crate::core::{text, words};
use crate::wire::time::rfc3339;

/// Answer to `explain`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Explanation {
    #[serde(flatten)]
    pub rollout: RolloutView,
    /// What happens next if nobody does anything, one sentence each.
    pub next: Vec<String>,
    /// What a person can do about it, as command lines.
    pub you_can: Vec<String>,
}

/// Sentences on what happens next, and command lines, about the rollout `id` at `now`.
pub fn ahead(state: &State, id: &RolloutId, now: Timestamp) -> (Vec<String>, Vec<String>) {
    let now = now.max(state.now);
    let Some(rollout) = state.rollouts.get(id) else {
        let ended = state.ended.iter().find(|ended| ended.id == *id);
        let mut can = vec![format!("sluice deploy {} VERSION --reason TEXT", service(id))];
        can.extend(ended.and_then(|ended| {
            let known = state.services.get(&ended.spec.service)?;
            let to = known.quarantined.contains_key(&ended.spec.to).then_some(&ended.spec.to)?;
            Some(format!(
                "sluice deploy {} {to} --finding TEXT --reason TEXT (the same version again)",
                service(id)
            ))
        }));
        let until = ended
            .filter(|ended| ended.outcome == Outcome::Completed)
            .map(|ended| ended.ended_at.plus(state.policies[&ended.spec.policy].keep_old));
        let idle =
            ended.and_then(|e| state.services.get(&e.spec.service)).is_some_and(|s| s.active.is_none());
        if let Some(until) = until.filter(|until| idle && now < *until) {
            can.push(format!("sluice rollback {id} --reason TEXT (until {})", clock_time(until, now)));
        }
        return (vec!["nothing: it is over".into()], can);
    };
    let now = now.max(state.now);
    let mut next = next(state, rollout, now);
    for WaitView { rollout, scope, since_ms } in waits(state, rollout) {
        let why = scope
            .map_or("same service, one change at a time".into(), |s| format!("both use {s}, one at a time"));
        next.push(format!("waits for {rollout} since {}: {why}", clock_time(Timestamp(since_ms), now)));
    }
    (next, you_can(state, rollout, now))
}

fn service(id: &RolloutId) -> &str {
    id.0.rsplit_once('-').map_or(id.as_str(), |(service, _)| service)
}

fn next(state: &State, rollout: &Rollout, now: Timestamp) -> Vec<String> {
    let policy = state.policy_of(rollout);
    let mut next = Vec::new();
    let unconfirmed = || {
        let waiting = rollout.sent.iter().flat_map(|sent| &sent.waiting);
        let waiting: Vec<&str> = waiting.map(|actuator| actuator.as_str()).collect();
        match waiting.as_slice() {
            [.., _, last] => format!("{} and {last} have", waiting[..waiting.len() - 1].join(", ")),
            _ => format!("{} has", waiting.concat()),
        }
    };
    if rollout.guardrails_active() {
        let watching = policy.guardrails.iter().filter(|g| g.on_fail == OnFail::Rollback);
        let names: Vec<&str> = watching.map(|g| g.name.as_str()).collect();
        match names.as_slice() {
            [] => {}
            [one] => next.push(format!("rolls back by itself if {one} is shown to be beyond its limit")),
            many => next
                .push(format!("rolls back by itself if any is shown beyond its limit: {}", many.join(", "))),
        }
    }
    match &rollout.stage {
        Stage::Queued if state.turn_of(rollout) && rollout.paused.is_none() => {
            let waits =
                windows::gates(Turn { state, rollout, policy, now }).into_iter().filter(|gate| !gate.met);
            let waits: Vec<String> = waits.map(|gate| until(&gate.reason, now)).collect();
            let once = if waits.is_empty() { String::new() } else { format!(", once {}", waits.join("; ")) };
            next.push(format!("starts by itself{once}"));
        }
        Stage::Queued => next.push(match &rollout.spec.behind {
            Some(_) if rollout.paused.is_some() => "starts after it is resumed".into(),
            Some(behind) => format!("starts by itself when {behind} and whatever is before it are over"),
            None if !rollout.spec.scopes.is_empty() => {
                let names: Vec<&str> = rollout.spec.scopes.iter().map(|scope| scope.as_str()).collect();
                format!("starts by itself as soon as it has {} to itself", names.join(", "))
            }
            None => "starts by itself".into(),
        }),
        Stage::Applying { step } => {
            let to = policy.step_name(*step);
            next.push(format!(
                "watches {to} as soon as {} confirmed; the command is sent again until then",
                unconfirmed()
            ));
        }
        Stage::RollingBack if rollout.sent.is_none() => {
            next.push("is over as soon as telemetry shows that the canary serves nothing any more".into());
            let rules = policy.effective.zip(rollout.effect.as_ref());
            next.extend(rules.map(|(rules, effect)| {
                let then = clock_time(effect.since.plus(rules.within), now);
                format!("else people are told at {then}, and the command is sent again if requests speak against it")
            }));
        }
        stage @ (Stage::RollingBack | Stage::Releasing) => {
            let shown = *stage == Stage::RollingBack && policy.effective.is_some();
            next.push(format!(
                "is over as soon as {} confirmed{}; the command is sent again until then",
                unconfirmed(),
                if shown { " and telemetry shows that the canary serves nothing any more" } else { "" }
            ));
        }
        Stage::Baking(_) | Stage::Soaking(_) => {
            next.push(promotion(state, rollout, now));
            next.extend(deadline(rollout, policy, now));
        }
        Stage::Ended(_) => {}
    }
    next
}

/// When the next promotion can come, and what else it waits for.
fn promotion(state: &State, rollout: &Rollout, now: Timestamp) -> String {
    let policy = state.policy_of(rollout);
    let Assessment { judgement, gates, .. } = Assessment::of(Turn { state, rollout, policy, now });
    let does = match rollout.step().map(|step| step + 1) {
        Some(next) if usize::from(next) < policy.steps.len() => {
            format!("promotes to {}", policy.step_name(next))
        }
        _ => "completes".into(),
    };
    let mut at = now;
    let mut waits = Vec::new();
    for Gate { reason, .. } in gates.iter().filter(|gate| !gate.met) {
        match reason {
            Reason::Bake { left_ms } => at = Timestamp(now.0 + left_ms),
            Reason::Guardrail { name } => {
                let needs = match judgement.readings.iter().find(|r| r.name == *name) {
                    Some(r) if r.verdict == Verdict::Fail => "no longer fails",
                    Some(r) if r.kind.profile().healthy.is_none() => "hears from the canary",
                    _ => "is shown to be within its limit",
                };
                waits.push(format!("{name} {needs}"));
            }
            Reason::Paused { by } => waits.push(format!("{by}'s pause is ended")),
            Reason::Effective { to, .. } => waits.push(format!("telemetry shows {to}")),
            Reason::Smoke { name, outcome: None, .. } => waits.push(format!("smoke test {name} has passed")),
            Reason::Slice { name } => waits.push(format!("somebody promotes past {name}")),
            Reason::Condition { name, known } => {
                let holds = if *known { "no longer holds" } else { "is known not to hold" };
                waits.push(format!("condition {name} {holds}"));
            }
            Reason::Samples { metric, have, need } => {
                waits.push(format!("{metric} has {} more observations", text::count(need - have)));
            }
            Reason::Approvals { have, need } => waits.push(match need - have {
                1 => "one more approves".into(),
                more => format!("{more} more approve"),
            }),
            reason @ (Reason::Window { .. } | Reason::Frozen { .. }) => waits.push(until(reason, now)),
            other => waits.push(words::reason(other, &judgement.readings)),
        }
    }
    let earliest = if rollout.paused.is_some() || at == now {
        String::new()
    } else {
        format!(" at {} at the earliest", clock_time(at, now))
    };
    if waits.is_empty() {
        format!("{does}{earliest}")
    } else {
        format!("{does}{earliest}, once {}", waits.join("; "))
    }
}

/// What ends a closed window or a freeze.
fn until(reason: &Reason, now: Timestamp) -> String {
    match reason {
        Reason::Window { turns: Some(opens), .. } => {
            format!("its change window opens at {}", clock_time(*opens, now))
        }
        Reason::Frozen { service, by, until, .. } => {
            let of = words::scope(service.as_ref());
            let or = until.map(|until| format!(", or {}", clock_time(until, now))).unwrap_or_default();
            format!("{by}'s freeze of {of} is ended{or}")
        }
        _ => "its change window opens".into(),
    }
}

fn deadline(rollout: &Rollout, policy: &Policy, now: Timestamp) -> Option<String> {
    let Stage::Baking(bake) = &rollout.stage else { return None };
    let deadline = policy.step(bake.step).deadline?;
    let left = deadline.minus(rollout.watched(now));
    let then = match policy.on_deadline {
        OnDeadline::Hold => "holds and asks for a person",
        OnDeadline::Rollback => "rolls back",
    };
    (left.0 > 0 && rollout.paused.is_none())
        .then(|| format!("{then} if it is not promoted by {}", clock_time(now.plus(left), now)))
}

/// `14:02:06 UTC`, with its date when that is not today's.
fn clock_time(at: Timestamp, now: Timestamp) -> String {
    let (at, now) = (rfc3339(at), rfc3339(now));
    match (at.get(..10), now.get(..10), at.get(11..19)) {
        (Some(day), Some(today), Some(time)) if day == today => format!("{time} UTC"),
        (Some(day), _, Some(time)) => format!("{day} {time} UTC"),
        _ => at,
    }
}

fn you_can(state: &State, rollout: &Rollout, now: Timestamp) -> Vec<String> {
    let turn = Turn { state, rollout, policy: state.policy_of(rollout), now };
    let id = &rollout.id;
    if rollout.stage == Stage::RollingBack && rollout.sent.is_none() {
        return vec![format!(
            "sluice rollback {id} --override --reason TEXT (take the actuators' word for it)"
        )];
    }
    if rollout.stage == Stage::RollingBack {
        // Nobody else can end it: the version is still served by whoever does not answer.
        let waiting =
            rollout.sent.iter().flat_map(|sent| sent.waiting.iter().map(|name| (name, &sent.command)));
        let by_hand = waiting.map(|(name, command)| {
            format!(
                "sluice ack {} --actuator {name} --service {} (once {} is at {} there, set by hand)",
                command.id, command.service, rollout.spec.to, command.weight
            )
        });
        let claim = rollout.claimed.is_none().then(|| format!("sluice claim {id}"));
        return by_hand.chain(claim).collect();
    }
    if matches!(rollout.stage, Stage::Ended(_)) {
        return Vec::new();
    }
    let mut can = Vec::new();
    can.push(if rollout.exposed() {
        format!("sluice rollback {id} --reason TEXT")
    } else {
        format!("sluice abort {id} --reason TEXT")
    });
    can.push(format!(
        "sluice {} {id} --reason TEXT",
        if rollout.paused.is_some() { "resume" } else { "pause" }
    ));
    if matches!(rollout.stage, Stage::Baking(_)) {
        if gates::approvals(turn).1 > 0 {
            can.push(format!("sluice approve {id} --reason TEXT"));
        }
        can.push(format!("sluice promote {id} --reason TEXT"));
        can.push(format!("sluice skip {id} --reason TEXT"));
    }
    if rollout.claimed.is_none() {
        can.push(format!("sluice claim {id}"));
    }
    let shut = |gate: &Gate| !gate.met && windows::shuts(gate);
    let gates: Vec<Gate> = Assessment::of(turn).gates.into_iter().filter(shut).collect();
    let frozen = gates.iter().any(|gate| matches!(gate.reason, Reason::Frozen { .. }));
    for gate in gates.iter().filter(|gate| !(frozen && matches!(gate.reason, Reason::Window { .. }))) {
        can.push(match &gate.reason {
            Reason::Frozen { service: Some(service), .. } => {
                format!("sluice unfreeze --service {service} --reason TEXT")
            }
            Reason::Frozen { .. } => "sluice unfreeze --reason TEXT".into(),
            _ => format!("sluice promote {id} --override --reason TEXT"),
        });
    }
    can
}
