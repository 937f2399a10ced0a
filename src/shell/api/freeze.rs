//! Freezes, which people begin and end, and what change windows say of a time.

use super::{Api, Caller, full, trace};
use crate::core::event::Event;
use crate::core::event::code::Code;
use crate::core::event::fact::Origin;
use crate::core::ids::Service;
use crate::core::state::State;
use crate::shell::clock;
use crate::shell::intake::{self, Answer};
use crate::shell::log::Reader;
use crate::view::error::ApiError;
use crate::view::freeze::{FreezeAnswer, FreezeRequest, verb};
use crate::view::windows::{WindowsAnswer, WindowsRequest, answer, moment};
use crate::wire::names;

impl Api {
    /// `freeze` and `unfreeze`. Errors: E0340 to E0342 what does not fit, E1017 the time, E4003 no reason.
    pub async fn freeze(
        &self,
        freeze: bool,
        request: FreezeRequest,
        caller: &Caller,
    ) -> Result<FreezeAnswer, ApiError> {
        let order = request.order(freeze, clock::now())?;
        let (service, until_ms) =
            (order.service.as_ref().map(|s| s.0.clone()), order.until.map(|until| until.0));
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
                Ok(FreezeAnswer {
                    ok: true,
                    verb: verb(freeze),
                    seq,
                    service,
                    until_ms,
                    moved: moved.collect(),
                })
            }
            Answer::Refused { code, message, .. } => Err(ApiError::new(code, message)),
            Answer::Duplicate => Err(ApiError::new(Code::RolloutOver, "the order was already recorded")),
            Answer::Full { free } => Err(full(free)),
        }
    }

    /// `windows`: what those of the policy of a service's open rollout say. Errors: E1017 the time, E4004 nothing is open.
    pub async fn windows(&self, request: WindowsRequest) -> Result<WindowsAnswer, ApiError> {
        let service = names::label("windows.service", &request.service).map(Service)?;
        let at = request.at.as_deref().map(|text| moment("windows.at", text)).transpose()?;
        let answer = move |state: &State, _: &Reader| {
            answer(state, &service, at.unwrap_or_else(clock::now).max(state.now))
        };
        self.writer.read(answer).await?
    }
}
