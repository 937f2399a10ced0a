//! What people do to a rollout: checked, recorded (or only rehearsed), and told with what it led to.

use std::sync::Arc;

use tracing::{Instrument, info_span};

use super::{Api, Caller, full, trace};
use crate::core::event::Event;
use crate::core::event::code::Code;
use crate::core::event::decision::Decision;
use crate::core::event::fact::Origin;
use crate::core::event::verb::Verb;
use crate::core::ids::{EventSeq, RolloutId};
use crate::core::state::State;
use crate::core::time::Timestamp;
use crate::runner::Runner;
use crate::shell::intake::{self, Answer};
use crate::shell::writer::{News, Outcome, Receipt};
use crate::shell::{clock, observability};
use crate::view::act::{ActAnswer, ActRequest};
use crate::view::error::ApiError;
use crate::view::rollout::RolloutView;
use crate::view::view;
use crate::wire::outgoing;

impl Api {
    /// What a person does to a rollout.
    pub async fn act(&self, verb: Verb, request: ActRequest, caller: &Caller) -> Result<ActAnswer, ApiError> {
        let dry_run = request.dry_run;
        let act = request.act(verb, &self.writer.view())?;
        let id = act.rollout.clone();
        let span = info_span!("act", verb = verb.as_str(), rollout = %id, actor = act.actor, dry_run);
        observability::continue_trace(&span, caller.traceparent.as_deref());
        let origin = Origin { traceparent: trace(caller), ..Origin::default() };
        let fact = Event::OperatorActed { act, origin };
        let acting = async {
            if dry_run {
                return self.rehearse(verb, id, fact).await;
            }
            let receipt = self.writer.submit(fact).await?;
            let done = acted(&id, receipt)?;
            let told = {
                let id = id.clone();
                // This read also waits until the view shows what was done.
                self.writer.read(move |state, _| done.told(state, &id)).await?
            };
            let view = self.writer.view().find(id.as_str())?.clone();
            Ok(told.answer(verb, &view, false))
        };
        acting.instrument(span).await
    }

    /// Plays the act on a copy of what it could touch: the rollouts of its service.
    async fn rehearse(&self, verb: Verb, id: RolloutId, fact: Event) -> Result<ActAnswer, ApiError> {
        let part = {
            let id = id.clone();
            self.writer.read(move |state, _| state.part_of(&id)).await?
        };
        let mut runner = Runner::new(part);
        let mut news = Vec::new();
        let now = clock::now();
        let taken = runner.take(now, fact, &mut |seq, at, event| {
            news.push(Arc::new(News { seq, at, event: event.clone() }));
        });
        let done = acted(&id, Receipt { outcome: Outcome::Taken(taken), news })?;
        let view = view(&runner.state, now);
        Ok(done.told(&runner.state, &id).answer(verb, view.find(id.as_str())?, true))
    }
}

/// An accepted act: its event, and what it led to.
struct Acted {
    seq: EventSeq,
    decision: Option<(EventSeq, Timestamp, Decision)>,
    command: Option<String>,
}

fn acted(id: &RolloutId, receipt: Receipt) -> Result<Acted, ApiError> {
    match intake::answer(receipt) {
        Answer::Recorded { seq, news, .. } => {
            let mut acted = Acted { seq, decision: None, command: None };
            for news in news.iter().filter(|news| news.event.rollout() == Some(id)) {
                match &news.event {
                    Event::DecisionMade { decision, .. } => {
                        acted.decision = Some((news.seq, news.at, decision.as_ref().clone()));
                    }
                    Event::CommandIssued { command, .. } => acted.command = Some(command.id.to_string()),
                    _ => {}
                }
            }
            Ok(acted)
        }
        Answer::Refused { code, message, .. } => {
            let refused = ApiError::new(code, message);
            // Those name what to do already.
            let told = matches!(
                code,
                Code::NoTraffic
                    | Code::HasTraffic
                    | Code::NotTakenBack
                    | Code::RolloutOver
                    | Code::RolledBackAlready
                    | Code::NotFound
            );
            Err(if told { refused } else { refused.help(format!("sluice explain {id}")) })
        }
        Answer::Duplicate => {
            Err(ApiError::new(Code::RolloutOver, "the act was already recorded; nothing sent"))
        }
        Answer::Full { free } => Err(full(free)),
    }
}

impl Acted {
    fn told(self, state: &State, id: &RolloutId) -> Told {
        let message = |(seq, at, decision)| outgoing::decision_message(state, seq, at, id, &decision);
        Told { seq: self.seq, decision: self.decision.map(message), command: self.command }
    }
}

/// An accepted act as it is published.
struct Told {
    seq: EventSeq,
    decision: Option<outgoing::DecisionMessage>,
    command: Option<String>,
}

impl Told {
    fn answer(self, verb: Verb, view: &RolloutView, dry_run: bool) -> ActAnswer {
        let summary = self.decision.as_ref().map_or_else(|| view.summary.clone(), |d| d.summary.clone());
        ActAnswer {
            ok: true,
            rollout: view.rollout.clone(),
            verb: verb.as_str(),
            seq: self.seq,
            state: view.state,
            summary,
            decision: self.decision,
            command: self.command,
            dry_run,
        }
    }
}
