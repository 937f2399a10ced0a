//! What people and programs see of the state and of the log: the snapshot that the writer publishes, and the answers of
//! the API, which the CLI reads too. Pure; every sentence comes from `core::words`.

pub mod act;
pub mod api;
mod ended;
pub mod error;
pub mod events;
pub mod evidence;
pub mod explain;
pub mod forecast;
pub mod freeze;
mod guardrail;
pub mod info;
pub mod intake;
pub mod list;
mod open;
pub mod plan;
pub mod rollout;
mod wait;
pub mod windows;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::ids::{EventSeq, RolloutId};
use crate::core::state::State;
use crate::core::time::Timestamp;
use rollout::RolloutView;

/// Everything that is shown, as of one event.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub seq: EventSeq,
    pub at: Timestamp,
    /// Open rollouts, then ended ones, newest first in each.
    pub rollouts: Vec<Arc<RolloutView>>,
    pub freezes: Vec<FreezeView>,
}

/// What a person has frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FreezeView {
    /// `null`: everything.
    pub service: Option<String>,
    pub by: String,
    pub reason: String,
    pub since_ms: u64,
    pub until_ms: Option<u64>,
}

/// The snapshot of `state` at `now`, which may be later than its last event.
pub fn view(state: &State, now: Timestamp) -> View {
    let mut views = Views::default();
    views.follow(state, now, state.rollouts.keys());
    views.view(state, now)
}

/// A view that is kept up to date: what changed is drawn anew, and in turn a few of the others, for time passes for
/// all of them. With hundreds of rollouts open, drawing all at once takes longer than a decision.
#[derive(Debug, Default)]
pub struct Views {
    open: BTreeMap<RolloutId, (EventSeq, Arc<RolloutView>)>,
    /// Newest first.
    ended: VecDeque<Arc<RolloutView>>,
    /// The last one that was drawn in turn.
    turn: Option<RolloutId>,
}

impl Views {
    /// Draws the rollouts in `changed` as they are now, and whatever has ended since the last call.
    pub fn follow<'a>(
        &mut self,
        state: &State,
        now: Timestamp,
        changed: impl IntoIterator<Item = &'a RolloutId>,
    ) {
        let now = now.max(state.now);
        for id in changed {
            match state.rollouts.get(id) {
                Some(rollout) => {
                    let view = Arc::new(open::view(state, rollout, now));
                    if self.open.insert(id.clone(), (rollout.created, view)).is_none() {
                        // A completed one that is taken back is open again.
                        self.ended.retain(|ended| ended.rollout != id.0);
                    }
                }
                None => drop(self.open.remove(id)),
            }
        }
        let shown = self.ended.front().map_or(0, |newest| newest.seq);
        let fresh = state.ended.iter().rev().take_while(|ended| ended.ended > shown).count();
        for ended in state.ended.iter().skip(state.ended.len() - fresh) {
            self.ended.push_front(Arc::new(ended::view(state, ended)));
        }
        self.ended.truncate(state.ended.len());
    }

    /// Draws the next `n` open rollouts in turn; after as many calls as it takes, all have been drawn.
    pub fn turn(&mut self, state: &State, now: Timestamp, n: usize) {
        let last = self.turn.take().unwrap_or_default();
        let (before, after) = (
            state.rollouts.range(..=&last),
            state.rollouts.range((Bound::Excluded(&last), Bound::Unbounded)),
        );
        let ids: Vec<RolloutId> = after.chain(before).take(n).map(|(id, _)| id.clone()).collect();
        self.follow(state, now, &ids);
        self.turn = ids.last().cloned();
    }

    /// Everything as last drawn.
    pub fn view(&self, state: &State, now: Timestamp) -> View {
        let mut open: Vec<_> = self.open.values().collect();
        open.sort_unstable_by_key(|(created, _)| std::cmp::Reverse(*created));
        let rollouts = open.into_iter().map(|(_, view)| view).chain(&self.ended).cloned().collect();
        let freezes = state.freezes.iter().map(|freeze| FreezeView {
            service: freeze.service.as_ref().map(|service| service.0.clone()),
            by: freeze.by.clone(),
            reason: freeze.reason.clone(),
            since_ms: freeze.since.0,
            until_ms: freeze.until.map(|until| until.0),
        });
        View { seq: state.last, at: now.max(state.now), rollouts, freezes: freezes.collect() }
    }
}

impl View {
    /// Finds a rollout by id, unique suffix (`118`), or `@last`.
    pub fn find(&self, name: &str) -> Result<&Arc<RolloutView>, NotFound> {
        if name == "@last" {
            return self.rollouts.iter().max_by_key(|r| r.created_ms).ok_or(NotFound::None);
        }
        if let Some(exact) = self.rollouts.iter().find(|r| r.rollout == name) {
            return Ok(exact);
        }
        let suffix = format!("-{name}");
        let found: Vec<_> = self.rollouts.iter().filter(|r| r.rollout.ends_with(&suffix)).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(NotFound::Unknown(name.to_owned())),
            many => Err(NotFound::Ambiguous(
                name.to_owned(),
                many.iter().map(|r| r.rollout.clone()).collect::<Vec<_>>().join(", "),
            )),
        }
    }
}

/// Why a name leads to no rollout.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    #[error("there is no rollout yet; start one: sluice deploy SERVICE VERSION")]
    None,
    #[error("no rollout {0}; see: sluice ls")]
    Unknown(String),
    #[error("{0} is ambiguous: {1}")]
    Ambiguous(String, String),
}
