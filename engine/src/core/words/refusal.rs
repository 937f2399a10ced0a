//! Why something that was understood is not done, and what would be.

use super::{grounds, listed, reason, scope};
use crate::core::event::decision::Reason;
use crate::core::event::refusal::Refusal;
use crate::core::event::rollout_spec::Outcome;
use crate::core::ids::Weight;

/// A refusal in words: value, limit and the next command.
pub fn text(refusal: &Refusal) -> String {
    use Refusal as R;
    match refusal {
        R::NoRollout { rollout } => format!("no rollout {rollout}; see: sluice ls"),
        R::Over { rollout, outcome, at } => {
            let how = match outcome {
                Outcome::Completed => "completed",
                Outcome::RolledBack => "rolled back",
                Outcome::Aborted => "aborted",
                Outcome::Superseded => "was superseded",
            };
            format!("{rollout} {how} at seq {at}; nothing sent. Start a new rollout: sluice deploy")
        }
        R::WasRolledBack { rollout, at } => format!("{rollout} was rolled back at seq {at}; nothing sent"),
        R::Releasing { rollout } => format!(
            "{rollout} is complete and gives up what served before; nothing sent. Start a new rollout: sluice deploy"
        ),
        R::RollingBack { rollout, decision, .. } => {
            format!("{rollout} is already rolling back (decision {decision}); nothing sent")
        }
        R::RollbackNotShown { rollout } => format!(
            "{rollout} is rolled back, as its actuators say, and telemetry has to show it. Take their word for it: \
             sluice rollback {rollout} --override --reason \"...\""
        ),
        R::Moved { rollout, seen, moved } => {
            format!("{rollout} has moved since seq {seen}: see seq {moved}; nothing sent")
        }
        R::CompletedSince { rollout, at } => {
            format!("{rollout} has completed since: see seq {at}; nothing sent")
        }
        R::ClaimedAlready { rollout, by, seq } => format!("{by} has claimed {rollout} already, at seq {seq}"),
        R::ClaimedByAnother { rollout, by, seq } => format!(
            "{by} has claimed {rollout}, at seq {seq}. take it over: sluice claim {rollout} --override --reason \"...\""
        ),
        R::NoTraffic { rollout } => {
            format!("{rollout} has no traffic to roll back; use: sluice abort {rollout}")
        }
        R::HasTraffic { rollout } => {
            format!("{rollout} already has traffic; use: sluice rollback {rollout}")
        }
        R::AlreadyPaused { rollout } => format!("{rollout} is already paused"),
        R::NotPaused { rollout } => format!("{rollout} is not paused"),
        R::NoApprovalNeeded { rollout } => format!("the next step of {rollout} needs no approval"),
        R::OwnChange { rollout, by } => {
            format!("{by} submitted {rollout}; its next step needs the word of others")
        }
        R::ApprovedAlready { rollout, by } => {
            format!("{by} has already approved the next step of {rollout}")
        }
        R::NotConfirmed { rollout, verb } => {
            let verb = verb.as_str();
            format!("{verb} refused: not every actuator of {rollout} has confirmed the current step")
        }
        R::NotStarted { rollout, verb } => {
            format!("{} refused: {rollout}: it has not started", verb.as_str())
        }
        R::FullyExposed { rollout, verb } => {
            format!("{} refused: {rollout}: it already has all traffic", verb.as_str())
        }
        R::HarmShown { rollout } => format!("promote refused: {rollout} is being rolled back"),
        R::GateNotMet { rollout, at, gate } => format!(
            "promote refused: {rollout} at {at}: {}. override: sluice promote {rollout} --override --reason \"...\"",
            grounds(gate)
        ),
        R::Shut { rollout, at, gate } => {
            let at = at.map_or("before its first step".into(), |at: Weight| format!("at {at}"));
            let how = match &**gate {
                Reason::Frozen { service, .. } => {
                    let of = service.as_ref().map(|service| format!(" --service {service}"));
                    format!("end it: sluice unfreeze{} --reason \"...\"", of.unwrap_or_default())
                }
                _ => format!("override: sluice promote {rollout} --override --reason \"...\""),
            };
            format!("promote refused: {rollout} {at}: {}. {how}", reason(gate, &[]))
        }
        R::SkipsTooMuch { rollout, at, gate } => format!(
            "skip refused: {rollout} at {at}: {}. It passes bake time and sample minimum only",
            grounds(gate)
        ),
        R::AnotherActive { service, active } => format!(
            "{active} is active on {service}; nothing sent. Take that back first: sluice rollback {active}"
        ),
        R::OtherServes { rollout, service, serves, baseline } => {
            let serves = serves.as_ref().map_or("something else", |version| version.as_str());
            format!(
                "{rollout} completed, and {serves} has come to serve {service} since; nothing sent. To go back, \
                 roll {baseline} out: sluice deploy {service} {baseline}"
            )
        }
        R::NotKept { rollout, service, baseline, since, keep } => format!(
            "{rollout} completed {since} ago, and {baseline} was kept for {keep}; nothing sent. To go back, \
             roll {baseline} out: sluice deploy {service} {baseline}"
        ),
        R::IntentAgain { intent, seq } => {
            format!("intent {intent} was already received at seq {seq}; no effect")
        }
        R::IntentIdReused { intent, seq, before, now } => format!(
            "intent {intent} was received at seq {seq} with different content (hash {}, now {}); use a new id",
            before.short(),
            now.short()
        ),
        R::NoSuchPolicy { policy, known } => {
            format!("policy {policy} is not known; known: {}", listed(known))
        }
        R::NoPolicyFor { kind, known } => {
            format!("no policy applies to changes of kind {}; name one of: {}", kind.as_str(), listed(known))
        }
        R::FromUnknown { service } => {
            format!("change.from is missing, and what serves {service} now is not known; name it")
        }
        R::ServesAlready { service, to } => format!("{to} already serves {service}; nothing to roll out"),
        R::GoesBackTo { to, active } => {
            format!("{to} is what {active} goes back to; to go back now: sluice rollback {active}")
        }
        R::Quarantined { service, to, rollout, decision, why } => format!(
            "{rollout} took {to} back (decision {decision}: {}); a new attempt needs what you found: \
             sluice deploy {service} {to} --finding \"...\"",
            grounds(why)
        ),
        R::RollingOutAlready { to, by } => format!("{to} is already being rolled out by {by}"),
        R::OneAtATime { service, active } => {
            format!("{active} is active on {service}, and the policy takes one at a time")
        }
        R::QueueFull { service, waiting, limit } => {
            format!("{waiting} rollouts already wait on {service}; limit {limit}")
        }
        R::SeveralParts { changes } => {
            let (n, parts) = (changes.len(), listed(changes));
            format!(
                "{n} parts would change at once: {parts}; a difference could not be laid to one of them. \
                 Roll them out one after another, or under a policy with parts_at_once: {n}"
            )
        }
        R::PartsUnknown { service, from } => format!(
            "what {from}, which serves {service}, is made of is not known, so which parts would change cannot be \
             told; name them: change.from_bundle"
        ),
        R::FreezeOver { service } => {
            let scope = scope(service.as_ref());
            format!("the freeze of {scope} would be over before it begins; nothing is frozen by it")
        }
        R::FreezesFull { limit } => {
            format!("{limit} freezes are on; end one, or freeze everything: sluice freeze")
        }
        R::NotFrozen { service: Some(service) } => {
            format!("{service} is not frozen; there is no freeze to end")
        }
        R::NotFrozen { service: None } => "nothing is frozen; there is no freeze to end".into(),
        R::AllFrozen { service, by } => format!(
            "{service} has no freeze of its own; everything is frozen by {by}. End that: sluice unfreeze"
        ),
        R::OnlyOneFrozen { service } => format!(
            "there is no freeze of everything; {service} is frozen. End that: sluice unfreeze --service {service}"
        ),
        R::AckOfAnother { command, actuator, actuators } => {
            format!("command {command} is not for actuator {actuator}; it is for {}", listed(actuators))
        }
        R::OtherCommandWaits { service, waits, command } => {
            format!("service {service} waits for command {waits}, not {command}; no effect")
        }
        R::NothingWaits { service, command } => {
            format!("service {service} waits for no confirmation; {command} has no effect")
        }
        R::TooManySeries { service, metric, limit } => {
            format!("service {service}: more than {limit} series (version and metric); {metric} refused")
        }
    }
}
