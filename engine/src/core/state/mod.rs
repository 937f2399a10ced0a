//! Everything the log has established so far, and what follows from it without a decision.

pub mod admission;
pub mod agenda;
pub mod batch;
pub mod dedup;
pub mod effect;
pub mod in_flight;
pub mod observe;
pub mod rollout;
pub mod smoke;

mod apply;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{CommandId, Digest, EventSeq, IntentId, RolloutId, Scope, Service, Version};
use super::policy::{ChangeKind, Policy};
use super::time::Timestamp;
use crate::core::event::alert::Overtaken;
use crate::core::event::bundle::Composition;
use crate::core::event::decision::{Decision, Grounds};
use crate::core::event::fact::{Ack, Act, FreezeOrder, Intent};
use crate::core::event::rollout_spec::{Blocked, Outcome, RolloutSpec};
use crate::core::event::windows::{Bounds, Freeze};
use crate::core::policy::windows::Windows;
use crate::core::state::agenda::Agenda;
use crate::core::state::dedup::DeliveryLog;
use crate::core::state::rollout::{Claim, Rollout, Stage};
use crate::core::telemetry::columns::Series;
use crate::core::telemetry::rates::Seen;
use crate::msgpack;

/// Ended rollouts that are still listed; older ones are found in the log.
pub const ENDED_MAX: usize = 1_000;
/// Series (version and metric) a service may send.
pub const SERIES_MAX: usize = 1_000;

/// The fold of the log: everything a decision may depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub log: Uuid,
    /// The rules by which conclusions follow from here on; 0 until some are adopted.
    pub engine: u32,
    /// Sequence and time of the last event folded.
    pub last: EventSeq,
    pub now: Timestamp,
    pub policies: BTreeMap<Digest, Policy>,
    /// The newest policy of each name.
    pub policy_names: BTreeMap<String, Digest>,
    pub services: BTreeMap<Service, ServiceState>,
    /// Open rollouts.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// Open rollouts that name a scope, in the order in which they came. The first has it.
    pub scopes: BTreeMap<Scope, Vec<RolloutId>>,
    /// The last [`ENDED_MAX`], oldest first.
    pub ended: VecDeque<Ended>,
    /// Every intent ever accepted or refused: what it said and where it stands.
    pub intents: BTreeMap<IntentId, (Digest, EventSeq)>,
    pub intake: DeliveryLog,
    /// What the windows of the policies in use say, as last worked out.
    pub windows: BTreeMap<Digest, Bounds>,
    /// Freezes that are on: at most one for everything and one a service.
    pub freezes: Vec<Freeze>,
    /// The fact that waits to be answered.
    pub pending: Option<PendingInput>,
    /// Rollouts that the last fact may have changed. Not part of the stored state.
    #[serde(skip)]
    pub agenda: Agenda,
}

/// What is known of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Rollouts so far.
    pub number: u64,
    pub active: Option<RolloutId>,
    pub queue: VecDeque<RolloutId>,
    /// What serves when no rollout is active.
    pub serving: Option<Version>,
    /// What that is made of, as far as it is known.
    pub composition: Composition,
    /// Attempts per version.
    pub attempts: BTreeMap<Version, u32>,
    /// Versions that a guardrail or a deadline took back, until they complete.
    pub quarantined: BTreeMap<Version, Quarantine>,
    /// The last commands issued, newest last, at most 32: a late or repeated confirmation of one is
    /// nothing to complain of.
    pub commands: VecDeque<CommandId>,
    /// Series seen, and what they have been like.
    pub series: BTreeMap<Series, Seen>,
}

/// Why a version may not be tried again as if nothing had been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The last rollout that was taken back, and the decision.
    pub rollout: RolloutId,
    pub decision: EventSeq,
    /// What made it.
    pub why: Grounds,
}

/// A fact that asks for an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingInput {
    /// With the trace context it came with.
    Intent(Box<Intent>, Option<String>),
    Act(Act),
    Ack(Ack),
    Freeze(FreezeOrder),
}

/// What is kept of a rollout that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub id: RolloutId,
    pub spec: RolloutSpec,
    pub baseline: Version,
    pub outcome: Outcome,
    pub created: EventSeq,
    pub created_at: Timestamp,
    pub ended: EventSeq,
    pub ended_at: Timestamp,
    /// The decision that ended it, with its sequence.
    pub decision: Option<(EventSeq, Decision)>,
    pub superseded: Option<RolloutId>,
    pub claimed: Option<Claim>,
    /// Why it was not begun when its turn came.
    pub overtaken: Option<Overtaken>,
    /// When telemetry had shown what its last command asked for.
    pub effective: Option<Timestamp>,
}

impl State {
    /// The policy that a rollout was created under.
    pub fn policy_of(&self, rollout: &Rollout) -> &Policy {
        &self.policies[&rollout.spec.policy]
    }

    /// The default policy of a change kind: the first by name that applies to it.
    /// A kind without a policy for significant changes has one for all of them.
    pub fn default_policy(&self, kind: ChangeKind, significant: bool) -> Option<(&str, Digest)> {
        let of = |significant: bool| {
            self.policy_names.iter().find(|(_, digest)| {
                let policy = &self.policies[digest];
                policy.significant == significant && policy.applies_to.contains(&kind)
            })
        };
        let found = if significant { of(true).or_else(|| of(false)) } else { of(false) };
        found.map(|(name, digest)| (name.as_str(), *digest))
    }

    /// The scope that the rollout waits for, and who has it: all scopes are taken at once, in the order in which
    /// rollouts were created, so that no two can wait for each other.
    pub fn blocked(&self, id: &RolloutId, scopes: &[Scope]) -> Option<Blocked> {
        let first = |scope| self.scopes.get(scope)?.first().filter(|first| *first != id);
        scopes.iter().find_map(|scope| Some(Blocked { scope: scope.clone(), by: first(scope)?.clone() }))
    }

    /// The next moment at which a `TimePassed` fact is needed.
    pub fn due(&self) -> Option<Timestamp> {
        let rollouts = self.rollouts.values().filter_map(|rollout| self.due_of(rollout));
        rollouts.chain(self.freeze_due()).min()
    }

    /// The same of one rollout; also when its windows have to be worked out again.
    pub fn due_of(&self, rollout: &Rollout) -> Option<Timestamp> {
        let windows = self.needs_windows(rollout).then(|| self.windows.get(&rollout.spec.policy));
        let windows = windows.flatten().map(|bounds| bounds.until).filter(|until| *until > self.now);
        rollout.due(self.policy_of(rollout), self.now).into_iter().chain(windows).min()
    }

    /// The next moment at which a freeze is over by itself.
    pub fn freeze_due(&self) -> Option<Timestamp> {
        self.freezes.iter().filter_map(|freeze| freeze.until).filter(|until| *until > self.now).min()
    }

    /// A policy among those of `rollouts` whose windows have to be worked out for `now`.
    pub fn windows_wanted<'a>(
        &self,
        rollouts: impl IntoIterator<Item = &'a RolloutId>,
        now: Timestamp,
    ) -> Option<(Digest, &Windows)> {
        rollouts.into_iter().filter_map(|id| self.rollouts.get(id)).find_map(|rollout| {
            let digest = rollout.spec.policy;
            let known = self.windows.get(&digest).is_some_and(|bounds| now < bounds.until);
            let windows = self.policies[&digest].windows.as_ref().filter(|_| !known);
            windows.filter(|_| self.needs_windows(rollout)).map(|windows| (digest, windows))
        })
    }

    /// Whether some forward move is left that windows could keep from happening: of the one whose turn it is.
    fn needs_windows(&self, rollout: &Rollout) -> bool {
        let moves = matches!(rollout.stage, Stage::Queued | Stage::Applying { .. } | Stage::Baking(_));
        moves && self.turn_of(rollout) && self.policies[&rollout.spec.policy].windows.is_some()
    }

    /// Whether a rollout is the one that moves, of its service and of each of its scopes.
    pub fn turn_of(&self, rollout: &Rollout) -> bool {
        let service = self.services.get(&rollout.spec.service);
        let free = self.blocked(&rollout.id, &rollout.spec.scopes).is_none();
        free && service.is_some_and(|service| service.active.as_ref() == Some(&rollout.id))
    }

    /// What may follow from an act on one rollout follows from this part as well: its service, and whoever shares a scope
    /// with it. For a dry run.
    pub fn part_of(&self, id: &RolloutId) -> State {
        let ended = self.ended.iter().find(|ended| ended.id == *id).map(|ended| &ended.spec);
        let rollout = self.rollouts.get(id);
        let service = rollout.map(|rollout| &rollout.spec).or(ended).map(|spec| &spec.service);
        let scopes = rollout.map_or(&[][..], |rollout| &rollout.spec.scopes);
        // One of those that share a scope may have it.
        let beside = |rollout: &&Rollout| {
            let shares = rollout.spec.scopes.iter().any(|scope| scopes.contains(scope));
            shares || Some(&rollout.spec.service) == service
        };
        let rollouts = self.rollouts.values().filter(beside);
        State {
            log: self.log,
            engine: self.engine,
            last: self.last,
            now: self.now,
            policies: self.policies.clone(),
            policy_names: self.policy_names.clone(),
            services: rollouts
                .clone()
                .map(|rollout| &rollout.spec.service)
                .chain(service)
                .filter_map(|name| self.services.get_key_value(name))
                .map(|(name, service)| (name.clone(), service.clone()))
                .collect(),
            windows: self.windows.clone(),
            freezes: self.freezes.clone(),
            scopes: self.scopes.clone(),
            rollouts: rollouts.map(|rollout| (rollout.id.clone(), rollout.clone())).collect(),
            ended: self.ended.iter().filter(|ended| Some(&ended.spec.service) == service).cloned().collect(),
            // What has come in before is no question of a rehearsal.
            intents: BTreeMap::new(),
            intake: DeliveryLog::default(),
            pending: None,
            agenda: Agenda::default(),
        }
    }

    /// The state whose stored form is `bytes`; `None` where this build cannot read it.
    pub fn stored(bytes: &[u8]) -> Option<State> {
        msgpack::from_slice(bytes).ok()
    }

    /// BLAKE3 of the state in its stored form.
    pub fn digest(&self) -> Digest {
        Digest::of(&rmp_serde::to_vec_named(self).expect("the state is made of storable types"))
    }
}
