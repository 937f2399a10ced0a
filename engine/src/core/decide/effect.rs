//! What follows from what telemetry shows of the last command.

use super::alert::raised;
use super::turn::Turn;
use crate::core::event::Event;
use crate::core::event::alert::AlertKind;
use crate::core::event::command::Shown;
use crate::core::event::decision::Gate;
use crate::core::planted::{Bug, planted};
use crate::core::state::effect::Effect;
use crate::core::state::rollout::Stage;
use crate::core::{text, words};

/// The gate of the command that was confirmed last.
pub fn gate(turn: Turn) -> Option<Gate> {
    let effect = turn.rollout.effect.as_ref()?;
    let met = effect.is_shown() || planted(Bug::LiarPromoted);
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
    if effect.over(policy) > now || effect.named && !takes_back {
        return None;
    }
    let summary = contradiction(turn, effect);
    Some(raised(rollout, AlertKind::NotEffective(effect.command.id, effect.look), summary))
}

/// `router-eu confirmed 25%, telemetry shows 5.1% of 12,004 requests (error) in the 10m since`
fn contradiction(turn: Turn, effect: &Effect) -> String {
    let Turn { rollout, policy, now, .. } = turn;
    let names: Vec<&str> = effect.command.actuators.iter().map(|a| a.as_str()).collect();
    let (names, asked, over) = (names.join(", "), words::asked(&effect.command), now.since(effect.since));
    let seen = match effect.requests(policy) {
        Some((metric, canary, requests)) => {
            let share = canary as f64 / requests as f64 * 100.0;
            format!("telemetry shows {share:.1}% of {} requests ({metric}) in {over}", text::count(requests))
        }
        None => format!("telemetry shows no request in {over}"),
    };
    let canary = effect.requests(policy).map_or(0, |(_, canary, _)| canary);
    let then = match rollout.stage {
        Stage::RollingBack if canary > 0 => "; the command is sent again",
        Stage::RollingBack => "; no request speaks against it, and it is taken as done",
        _ => "; nothing is promoted before it is shown",
    };
    format!("{names} confirmed {asked}, {seen}{then}")
}
