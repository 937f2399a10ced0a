//! Freezes, which people begin and end, and what change windows say of a time.

use super::acts::bounded;
use super::{
    Api, ApiError, Caller, FreezeAnswer, FreezeRequest, OpeningView, WindowsAnswer, WindowsRequest, full,
    trace,
};
use crate::core::decide::windows::freezes;
use crate::core::event::Event;
use crate::core::event::fact::{FreezeOrder, Origin};
use crate::core::event::windows::Bounds;
use crate::core::ids::Service;
use crate::core::policy::windows::Windows;
use crate::core::time::{Span, Timestamp};
use crate::core::words;
use crate::shell::clock;
use crate::shell::intake::{self, Answer};
use crate::windows;
use crate::wire::error::shown;
use crate::wire::names;
use crate::wire::yaml::Scalar;

/// Openings that are told.
const OPENINGS: usize = 5;

impl Api {
    /// `freeze` and `unfreeze`. Errors: E0340 to E0342 what does not fit, E1017 the time, E4003 no reason.
    pub async fn freeze(
        &self,
        freeze: bool,
        request: FreezeRequest,
        caller: &Caller,
    ) -> Result<FreezeAnswer, ApiError> {
        let verb = if freeze { "freeze" } else { "unfreeze" };
        let field = |name: &str| format!("{verb}.{name}");
        if request.reason.trim().is_empty() {
            return Err(ApiError::new(
                "E4003",
                format!("{verb} needs --reason TEXT (it is written to the log)"),
            ));
        }
        let service = request.service.map(|service| names::label(&field("service"), &service).map(Service));
        let until = match &request.until {
            Some(_) if !freeze => {
                let message = format!("{}: an unfreeze takes effect at once", field("until"));
                return Err(ApiError::new("E1009", message));
            }
            until => until.as_deref().map(|text| until_when(&field("until"), text)).transpose()?,
        };
        bounded(&field("args"), &request.args)?;
        let host = match request.host.is_empty() {
            true => String::new(),
            false => names::prose(&field("host"), &request.host, names::BY_MAX)?,
        };
        let order = FreezeOrder {
            freeze,
            service: service.transpose()?,
            until,
            actor: names::prose(&field("actor"), &request.actor, names::BY_MAX)?,
            host,
            args: request.args,
            reason: names::prose(&field("reason"), &request.reason, names::REASON_MAX)?,
        };
        let (service, until_ms) = (order.service.as_ref().map(|s| s.0.clone()), until.map(|until| until.0));
        let origin = Origin { traceparent: trace(caller), ..Origin::default() };
        let receipt = self.writer.submit(Event::FreezeOrdered { order, origin }).await?;
        match intake::answer(receipt) {
            Answer::Recorded { seq, news, .. } => {
                // The view that the next reader gets shows it.
                self.settled().await?;
                let moved = news.iter().filter_map(|news| match &news.event {
                    Event::DecisionMade { rollout, .. } => Some(rollout.0.clone()),
                    _ => None,
                });
                Ok(FreezeAnswer { ok: true, verb, seq, service, until_ms, moved: moved.collect() })
            }
            Answer::Refused { code, message, .. } => Err(ApiError::new(&code, message)),
            Answer::Duplicate => Err(ApiError::new("E1021", "the order was already recorded")),
            Answer::Full { free } => Err(full(free)),
        }
    }

    /// `windows`: what those of the policy of a service's open rollout say. Errors: E1017 the time, E4004 nothing is open.
    pub async fn windows(&self, request: WindowsRequest) -> Result<WindowsAnswer, ApiError> {
        let service = names::label("windows.service", &request.service).map(Service)?;
        let at = request.at.as_deref().map(|text| moment("windows.at", text)).transpose()?;
        self.writer
            .read(move |state, _| {
                let active = state.services.get(&service).and_then(|known| known.active.as_ref());
                let rollout = active.and_then(|id| state.rollouts.get(id)).ok_or_else(|| {
                    ApiError::new(
                        "E4004",
                        format!("no rollout of {service} is open, so no policy is in force"),
                    )
                    .help(format!("ask about a policy: sluice windows why {service} --policy FILE"))
                })?;
                let policy = state.policy_of(rollout);
                let at = at.unwrap_or_else(clock::now).max(state.now);
                let mut answer = when(policy.name.clone(), policy.windows.as_ref(), at);
                if let Some(freeze) = freezes(state, &service, at).next() {
                    let ends =
                        freeze.until.map(|until| format!(" until {}", windows::moment_in(until, "UTC")));
                    let (scope, by) = (words::scope(freeze.service.as_ref()), &freeze.by);
                    let ends = ends.unwrap_or_else(|| " until somebody ends it".into());
                    answer.why = format!(
                        "{scope} is frozen by {by}{ends}: {}; by its windows: {}",
                        freeze.reason, answer.why
                    );
                    (answer.open, answer.turns_ms) = (false, None);
                }
                answer.service = Some(service.0);
                Ok(answer)
            })
            .await?
    }
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
pub fn opening(from: Timestamp, to: Option<Timestamp>, zone: &str) -> OpeningView {
    let lasts = to
        .map_or_else(|| ", without an end within 400 days".into(), |to| format!(", for {}", to.since(from)));
    let text = format!("{}{lasts}", windows::moment_in(from, zone));
    OpeningView { from_ms: from.0, to_ms: to.map(|to| to.0), text }
}

fn moment(field: &str, text: &str) -> Result<Timestamp, ApiError> {
    windows::moment(text).map_err(|why| ApiError::new("E1017", format!("{field} is {}; {why}", shown(text))))
}

/// A time, or how long from now.
fn until_when(field: &str, text: &str) -> Result<Timestamp, ApiError> {
    match Span::parse(text) {
        Ok(span) => Ok(clock::now().plus(span)),
        Err(_) => moment(field, text).map_err(|error| ApiError {
            message: format!("{}; or how long it lasts, such as 4h", error.message),
            ..error
        }),
    }
}
