//! `windows`: what change windows and freezes say of a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use crate::core::decide::windows::freezes;
use crate::core::event::code::Code;
use crate::core::event::windows::Bounds;
use crate::core::ids::Service;
use crate::core::policy::windows::Windows;
use crate::core::state::State;
use crate::core::time::Timestamp;
use crate::core::words;
use crate::windows;
use crate::wire::error::shown;

/// Openings that are told.
const OPENINGS: usize = 5;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowsRequest {
    pub service: String,
    /// A time with its zone: `2026-12-24T15:00Z` or `2026-12-24 15:00 Europe/Berlin`. Now, when left out.
    pub at: Option<String>,
}

/// Answer to `windows`: whether a promotion could happen at a time, and why.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WindowsAnswer {
    pub service: Option<String>,
    pub policy: String,
    pub at_ms: u64,
    /// Nothing but evidence, time served and approvals would be in the way.
    pub open: bool,
    /// Which window or freeze says so, and when it next changes.
    pub why: String,
    /// When it opens, or closes, if that is known.
    pub turns_ms: Option<u64>,
    /// The next times at which the windows are open, as far as known now.
    pub openings: Vec<OpeningView>,
}

/// A time at which the windows are open.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OpeningView {
    pub from_ms: u64,
    /// `null`: without an end within 400 days.
    pub to_ms: Option<u64>,
    pub text: String,
}

/// What those of the policy of the open rollout of `service` say of `at`, and a freeze. Errors: E4004 nothing is open.
pub fn answer(state: &State, service: &Service, at: Timestamp) -> Result<WindowsAnswer, ApiError> {
    let active = state.services.get(service).and_then(|known| known.active.as_ref());
    let rollout = active.and_then(|id| state.rollouts.get(id)).ok_or_else(|| {
        ApiError::new(Code::NotFound, format!("no rollout of {service} is open, so no policy is in force"))
            .help(format!("ask about a policy: sluice windows why {service} --policy FILE"))
    })?;
    let policy = state.policy_of(rollout);
    let mut answer = when(policy.name.clone(), policy.windows.as_ref(), at);
    if let Some(freeze) = freezes(state, service, at).next() {
        let ends = freeze.until.map(|until| format!(" until {}", windows::moment_in(until, "UTC")));
        let (scope, by) = (words::scope(freeze.service.as_ref()), &freeze.by);
        let ends = ends.unwrap_or_else(|| " until somebody ends it".into());
        answer.why =
            format!("{scope} is frozen by {by}{ends}: {}; by its windows: {}", freeze.reason, answer.why);
        (answer.open, answer.turns_ms) = (false, None);
    }
    answer.service = Some(service.0.clone());
    Ok(answer)
}

/// What the windows of a policy say of `at`.
pub fn when(policy: String, windows: Option<&Windows>, at: Timestamp) -> WindowsAnswer {
    let free = || Bounds {
        from: at,
        until: at,
        open: true,
        why: "the policy has no change windows".into(),
        turns: None,
    };
    let Bounds { open, why, turns, .. } = windows.map_or_else(free, |windows| windows::bounds(windows, at));
    let zone = windows.map_or("UTC", zone_of);
    let openings = windows.map(|windows| windows::openings(windows, at, OPENINGS)).unwrap_or_default();
    let openings = openings.into_iter().map(|(from, to)| opening(from, to, zone)).collect();
    WindowsAnswer { service: None, policy, at_ms: at.0, open, why, turns_ms: turns.map(|at| at.0), openings }
}

fn zone_of(windows: &Windows) -> &str {
    let of_windows = windows.allow.iter().chain(&windows.deny).map(|window| &window.tz);
    of_windows.chain(windows.freeze.iter().map(|freeze| &freeze.tz)).next().map_or("UTC", String::as_str)
}

/// One opening in words.
fn opening(from: Timestamp, to: Option<Timestamp>, zone: &str) -> OpeningView {
    let lasts = to
        .map_or_else(|| ", without an end within 400 days".into(), |to| format!(", for {}", to.since(from)));
    let text = format!("{}{lasts}", windows::moment_in(from, zone));
    OpeningView { from_ms: from.0, to_ms: to.map(|to| to.0), text }
}

/// A time with its zone. Errors: E1017.
pub fn moment(field: &str, text: &str) -> Result<Timestamp, ApiError> {
    windows::moment(text)
        .map_err(|why| ApiError::new(Code::NotATime, format!("{field} is {}; {why}", shown(text))))
}
