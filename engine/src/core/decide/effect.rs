//! What follows from what telemetry shows of the last command.

use super::alert::raised;
use super::turn::Turn;
use crate::core::event::Event;
use crate::core::event::alert::{Alert, NotEffective};
use crate::core::event::command::Shown;
use crate::core::event::decision::Gate;
use crate::core::state::rollout::Stage;

/// The gate of the command that was confirmed last.
pub fn gate(turn: Turn) -> Option<Gate> {
    let effect = turn.rollout.effect.as_ref()?;
    let met = effect.is_shown();
    Some(Gate { met, time: false, reason: effect.reason(turn.policy) })
}

/// What follows from what telemetry shows of the command that was confirmed last.
pub fn next(turn: Turn) -> Option<Event> {
    let Turn { rollout, policy, now, .. } = turn;
    let effect = rollout.effect.as_ref().filter(|effect| !effect.is_shown())?;
    let rollout_id = || rollout.id.clone();
    let requests = effect.requests(policy);
    if let Some((metric, canary, requests)) = requests.filter(|_| effect.shows(policy)) {
        let shown = Shown {
            command: effect.command.id,
            to: effect.to,
            metric: metric.clone(),
            canary,
            requests,
            took_ms: now.since(effect.issued_at).0,
        };
        return Some(Event::EffectShown { rollout: rollout_id(), effect: shown });
    }
    if effect.again {
        return Some(Event::CommandResent {
            rollout: rollout_id(),
            command: effect.command.id,
            attempt: effect.attempt + 1,
            actuators: effect.command.actuators.clone(),
        });
    }
    let takes_back = rollout.stage == Stage::RollingBack;
    if effect.over(policy) > now || effect.announced && !takes_back {
        return None;
    }
    let contradicted = NotEffective {
        command: effect.command.id,
        look: effect.look,
        actuators: effect.command.actuators.clone(),
        asked: effect.command.asked(),
        seen: requests.map(|(metric, canary, requests)| (metric.clone(), canary, requests)),
        over: now.since(effect.since),
        takes_back,
    };
    Some(raised(rollout, Alert::NotEffective(contradicted)))
}
