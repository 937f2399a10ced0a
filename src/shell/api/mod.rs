//! The one request handler. HTTP and the NATS micro service are thin over it, so that a verb means the same
//! everywhere.
//!
//! Whatever changes something is answered when it is durable; whatever reads never holds up the writer.

mod acts;
mod events;
mod freeze;

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tracing::{Instrument, info_span};

pub use events::Feed;

use super::intake::{self, Answer, Kind, Message};
use super::log::{LogError, Reader};
use super::writer::{Gone, News, Writer};
use super::{clock, observability};
use crate::core::event::Event;
use crate::core::event::code::Code;
use crate::core::event::decision::Decision;
use crate::core::event::rollout_spec::RolloutSpec;
use crate::core::event::verb::Verb;
use crate::core::ids::{EventSeq, IntentId, RolloutId};
use crate::core::rules::ENGINE;
use crate::core::state::State;
use crate::core::time::Timestamp;
use crate::core::words;
use crate::runner;
use crate::view::api::{VERBS, request};
use crate::view::error::ApiError;
use crate::view::events::{EventAnswer, EventRequest, EventsPage, EventsRequest};
use crate::view::evidence::{EvidenceAnswer, EvidenceRequest};
use crate::view::explain::{Explanation, ahead};
use crate::view::intake::{AckAnswer, DeployAnswer, TelemetryAnswer};
use crate::view::list::{ListAnswer, ListRequest};
use crate::view::plan::{self, PlanAnswer, PlanRequest};
use crate::view::rollout::{RolloutRequest, RolloutView};
use crate::view::{forecast, info};
use crate::wire::{names, outgoing};

/// What the daemon knows about itself.
#[derive(Clone, Debug)]
pub struct About {
    pub started: Timestamp,
    /// It works with a NATS server.
    pub nats: bool,
    /// Names, besides loopback ones and addresses, that HTTP clients may call it by.
    pub hosts: Vec<String>,
}

/// Who asks, and by which way.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Path or subject.
    pub source: String,
    pub content_type: Option<String>,
    /// The caller's own id of the message: makes a repetition harmless.
    pub message_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// The request handler over one writer.
pub struct Api {
    writer: Writer,
    pub about: About,
}

impl Api {
    pub fn new(writer: Writer, about: About) -> Api {
        Api { writer, about }
    }

    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Answers `verb` (one of [`VERBS`]) with the JSON object `body`; an empty body is an empty object.
    pub async fn call(&self, verb: &str, body: &[u8], caller: &Caller) -> Result<Value, ApiError> {
        match verb {
            "ls" => Ok(value(self.list(&request(verb, body)?))),
            "status" => Ok(value(self.status(&request(verb, body)?)?.as_ref())),
            "explain" => Ok(value(self.explain(&request(verb, body)?).await?)),
            "plan" => Ok(value(self.plan(request(verb, body)?).await?)),
            "freeze" | "unfreeze" => {
                Ok(value(self.freeze(verb == "freeze", request(verb, body)?, caller).await?))
            }
            "windows" => Ok(value(self.windows(request(verb, body)?).await?)),
            "deploy" => Ok(value(self.deploy(body, caller).await?)),
            "ack" => Ok(value(self.ack(body, None, caller).await?)),
            "events" => Ok(value(self.events(request(verb, body)?).await?)),
            "event" => Ok(value(self.event(request(verb, body)?).await?)),
            "evidence" => Ok(value(self.evidence(request(verb, body)?).await?)),
            "info" => {
                let InfoRequest {} = request(verb, body)?;
                Ok(value(self.info().await?))
            }
            _ => {
                let Some(act) = Verb::named(verb) else {
                    let names: Vec<&str> = VERBS.iter().map(|(name, _)| *name).collect();
                    let message = crate::wire::error::unknown("verb", verb, &names);
                    return Err(ApiError::new(Code::NoSuchPath, message));
                };
                Ok(value(self.act(act, request(verb, body)?, caller).await?))
            }
        }
    }

    /// `ls`: open rollouts, and ended ones.
    pub fn list(&self, request: &ListRequest) -> ListAnswer {
        ListAnswer::new(&self.writer.view(), request)
    }

    /// `status`: one rollout. Errors: E4004.
    pub fn status(&self, request: &RolloutRequest) -> Result<Arc<RolloutView>, ApiError> {
        Ok(self.writer.view().find(&request.rollout)?.clone())
    }

    /// `explain`: one rollout, and what lies ahead. Errors: E4004, E5021.
    pub async fn explain(&self, request: &RolloutRequest) -> Result<Explanation, ApiError> {
        let id = RolloutId(self.status(request)?.rollout.clone());
        let ahead = {
            let id = id.clone();
            self.writer.read(move |state, _| ahead(state, &id, clock::now())).await?
        };
        // Taken after the sentences, so that it is not older than they are.
        let rollout = self.status(request)?.as_ref().clone();
        Ok(Explanation { rollout, next: ahead.0, you_can: ahead.1 })
    }

    /// `plan`: what a rollout would take. Errors: E3021 and E3022 the policy, E5021.
    pub async fn plan(&self, request: PlanRequest) -> Result<PlanAnswer, ApiError> {
        self.writer.read(move |state, _| plan::answer(state, &request, clock::now())).await?
    }

    /// Takes in an intent: JSON, or a structured CloudEvent.
    pub async fn deploy(&self, body: &[u8], caller: &Caller) -> Result<DeployAnswer, ApiError> {
        let span = info_span!("intent", rollout = tracing::field::Empty);
        observability::continue_trace(&span, caller.traceparent.as_deref());
        let deploying = async {
            let message = message(body, None, caller)?;
            match intake::take(&self.writer, Kind::Intent, &message).await? {
                Answer::Recorded { answer, .. } => {
                    let Some(runner::Answer::Created { seq, rollout, spec }) = answer else {
                        unreachable!("an intent is refused or becomes a rollout");
                    };
                    tracing::Span::current().record("rollout", rollout.as_str());
                    self.deployed((seq, rollout, *spec), false).await
                }
                Answer::Refused { seq, code: Code::IntentAgain, .. } => self.deployed_before(seq).await,
                Answer::Refused { code, message, .. } => Err(ApiError::new(code, message)),
                Answer::Duplicate => {
                    Err(ApiError::new(Code::IntentAgain, "the intent was already received; no effect"))
                }
                Answer::Full { free } => Err(full(free)),
            }
        };
        deploying.instrument(span).await
    }

    /// The answer that the first of two equal intents got; `refused` is the event that refused the second.
    async fn deployed_before(&self, refused: EventSeq) -> Result<DeployAnswer, ApiError> {
        let first = self.writer.read(move |state, log| {
            let Event::IntentRefused { intent, .. } = log.read(refused)?.event else { return Ok(None) };
            first_answer(state, log, &intent)
        });
        match first.await?.map_err(unread)? {
            Some((seq, event)) => match event {
                Event::RolloutCreated { rollout, spec } => self.deployed((seq, rollout, spec), true).await,
                Event::IntentRefused { refusal, .. } => {
                    Err(ApiError::new(refusal.code(), words::refusal::text(&refusal)))
                }
                _ => Err(ApiError::new(Code::LogUnread, "the log has no answer to the intent")),
            },
            None => Err(ApiError::new(Code::LogUnread, "the log has no answer to the intent")),
        }
    }

    async fn deployed(
        &self,
        (seq, rollout, spec): (EventSeq, RolloutId, RolloutSpec),
        duplicate: bool,
    ) -> Result<DeployAnswer, ApiError> {
        let digest = spec.policy;
        // This read also waits until the view shows the rollout.
        let (service, from) = (spec.service.clone(), spec.from.clone());
        let plan = self.writer.read(move |state, _| {
            let policy = state.policies.get(&digest)?;
            let known = state.services.get(&service)?;
            let forecast = forecast::plan(policy, &known.series, Some(&from), clock::now());
            Some((plan::ramp(policy), plan::outlook(&forecast)))
        });
        let (plan, outlook) = plan.await?.unwrap_or_default();
        let view = self.writer.view().find(rollout.as_str())?.clone();
        Ok(DeployAnswer {
            ok: true,
            rollout: rollout.0,
            seq,
            state: view.state,
            plan,
            outlook,
            behind: spec.behind.map(|id| id.0),
            waits: view.waits.clone(),
            duplicate,
        })
    }

    /// Takes in an ack. `service` where the address names it.
    pub async fn ack(
        &self,
        body: &[u8],
        service: Option<&str>,
        caller: &Caller,
    ) -> Result<AckAnswer, ApiError> {
        match intake::take(&self.writer, Kind::Ack, &message(body, service, caller)?).await? {
            Answer::Recorded { seq, .. } => {
                self.settled().await?;
                Ok(AckAnswer { ok: true, seq: Some(seq), duplicate: false })
            }
            Answer::Duplicate => Ok(AckAnswer { ok: true, seq: None, duplicate: true }),
            Answer::Refused { code, message, .. } => Err(ApiError::new(code, message)),
            Answer::Full { free } => Err(full(free)),
        }
    }

    /// Takes in one telemetry message.
    pub async fn telemetry(
        &self,
        body: &[u8],
        service: Option<&str>,
        caller: &Caller,
    ) -> Result<TelemetryAnswer, ApiError> {
        let facts = intake::facts(Kind::Telemetry, &message(body, service, caller)?);
        let observations = |fact: &Event| match fact {
            Event::BatchReceived { columns, .. } => columns.observations(),
            _ => 0,
        };
        let observations = facts.iter().map(observations).sum();
        match intake::record(&self.writer, facts).await? {
            Answer::Recorded { seq, .. } => {
                Ok(TelemetryAnswer { ok: true, seq: Some(seq), observations, duplicate: false })
            }
            Answer::Duplicate => Ok(TelemetryAnswer { ok: true, seq: None, observations, duplicate: true }),
            Answer::Refused { code, message, .. } => Err(ApiError::new(code, message)),
            Answer::Full { free } => Err(full(free)),
        }
    }

    /// `events`: a page of the log. Errors: E5015 the limit, E4004 the rollout, E5090 the log.
    pub async fn events(&self, request: EventsRequest) -> Result<EventsPage, ApiError> {
        if !(1..=1000).contains(&request.limit) {
            let message = format!("limit must be 1-1000, got {}", request.limit);
            return Err(ApiError::new(Code::BadLimit, message));
        }
        let rollout = request.rollout.as_deref();
        let rollout = rollout.map(|name| self.writer.view().find(name).map(|r| RolloutId(r.rollout.clone())));
        let rollout = rollout.transpose()?;
        let (from, limit) = (request.from.max(1), request.limit as usize);
        self.read_log(move |log, last| {
            events::page(log, last, from, limit, events::SCAN_MAX, rollout.as_ref())
        })
        .await
    }

    /// `event`: one event. Errors: E4004, E5090.
    pub async fn event(&self, request: EventRequest) -> Result<EventAnswer, ApiError> {
        self.read_log(move |log, last| events::one(log, last, request.seq, request.why)).await
    }

    /// `evidence`: every factor behind an event. Errors: E4004, E5015 the event, E5090.
    pub async fn evidence(&self, request: EvidenceRequest) -> Result<EvidenceAnswer, ApiError> {
        let (last, log) = events::reader(&self.writer).await?;
        let work = tokio::task::spawn_blocking(move || events::evidence(&log, last, &request)).await;
        work.expect("working evidence out does not panic")
    }

    /// `info`: version, log and policies.
    pub async fn info(&self) -> Result<info::InfoAnswer, ApiError> {
        let (log, policies, head) =
            self.writer.read(|state, log| (state.log, info::policies(state), log.head())).await?;
        let head = head.map_err(unread)?;
        Ok(info::InfoAnswer {
            version: env!("CARGO_PKG_VERSION"),
            engine: ENGINE,
            log: log.to_string(),
            head: info::HeadView { seq: head.seq, hash: head.hash.to_string() },
            started_ms: self.about.started.0,
            nats: self.about.nats,
            policies,
        })
    }

    /// The decision at `news`, as it is published.
    pub async fn decision(
        &self,
        news: &News,
        rollout: &RolloutId,
        decision: &Decision,
    ) -> Result<outgoing::DecisionMessage, ApiError> {
        let (seq, at, rollout, decision) = (news.seq, news.at, rollout.clone(), decision.clone());
        let message =
            move |state: &State, _: &Reader| outgoing::decision_message(state, seq, at, &rollout, &decision);
        Ok(self.writer.read(message).await?)
    }

    /// Waits until the writer has shown everything that was answered so far.
    pub async fn settled(&self) -> Result<(), ApiError> {
        Ok(self.writer.read(|_, _| ()).await?)
    }

    /// Reads the log up to its durable end, on a thread of its own.
    async fn read_log<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader, EventSeq) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (last, log) = events::reader(&self.writer).await?;
        let read = tokio::task::spawn_blocking(move || read(&log, last)).await;
        read.expect("reading does not panic").map_err(unread)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct InfoRequest {}

fn value(answer: impl Serialize) -> Value {
    serde_json::to_value(answer).expect("answers have string keys")
}

/// What a caller says about a message ends up in the log, so it is checked like the rest.
fn message<'a>(
    body: &'a [u8],
    service: Option<&'a str>,
    caller: &'a Caller,
) -> Result<Message<'a>, ApiError> {
    if let Some(id) = &caller.message_id {
        names::visible("message id", id)?;
    }
    Ok(Message {
        body,
        content_type: caller.content_type.as_deref(),
        service,
        source: &caller.source,
        message_id: caller.message_id.as_deref(),
        traceparent: caller.traceparent.as_deref().filter(|text| names::is_traceparent(text)),
        delivery: None,
    })
}

fn trace(caller: &Caller) -> Option<String> {
    caller.traceparent.clone().filter(|text| names::is_traceparent(text))
}

fn first_answer(
    state: &State,
    log: &Reader,
    intent: &IntentId,
) -> Result<Option<(EventSeq, Event)>, LogError> {
    let Some((_, seq)) = state.intents.get(intent) else { return Ok(None) };
    Ok(Some((*seq, log.read(*seq)?.event)))
}

fn full(free: u64) -> ApiError {
    let free = crate::core::text::count(free);
    ApiError::new(
        Code::NotNow,
        format!("storage unavailable: {free} bytes free are kept for decisions; nothing was accepted"),
    )
}

impl From<Gone> for ApiError {
    fn from(gone: Gone) -> ApiError {
        ApiError::new(Code::NotNow, format!("{gone}; nothing was accepted"))
    }
}

/// What the log does not give.
pub fn unread(error: LogError) -> ApiError {
    let code = if matches!(error, LogError::NoSuchEvent { .. }) { Code::NotFound } else { Code::LogUnread };
    ApiError::new(code, error.to_string())
}
