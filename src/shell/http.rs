//! The API over HTTP, with server-sent events, metrics and probes. Loopback only: there is no authentication yet.
//!
//! Every answer is JSON (streams and metrics excepted), errors included. What a browser could be tricked into
//! sending is refused: foreign hosts, foreign origins, bodies that are not declared as what they are.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::{counter, gauge};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use super::api::{Api, Caller, Feed};
use super::observability;
use super::slow_reader::MustRead;
use super::writer::{Gone, News};
use crate::core::event::Event;
use crate::core::event::code::Code;
use crate::core::event::verb::Verb;
use crate::core::ids::EventSeq;
use crate::core::policy::ChangeKind;
use crate::core::text;
use crate::view::act::ActRequest;
use crate::view::api::request;
use crate::view::error::ApiError;
use crate::view::events::{EventRequest, EventsRequest, FollowLine};
use crate::view::evidence::EvidenceRequest;
use crate::view::list::ListRequest;
use crate::view::plan::PlanRequest;
use crate::view::rollout::RolloutRequest;
use crate::view::windows::WindowsRequest;
use crate::wire::ack::ACK_MAX;
use crate::wire::error::{inert, shown};
use crate::wire::intent::{self, INTENT_MAX, media_type};
use crate::wire::telemetry::{self, MESSAGE_MAX};

/// Connections at a time, streams included; more wait to be accepted. Half of the files that a process may usually
/// open: the log needs some too.
const CONNECTIONS_MAX: usize = 512;
/// Longest wait for the whole head of a request, from the beginning of the connection or from the last answer on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what it is sent, and the bytes that the system keeps for it meanwhile (twice
/// that, as the system counts); by itself Linux goes up to 4 MiB.
const READ_WITHIN: Duration = Duration::from_secs(10);
const SEND_BUFFER: u32 = 128 * 1024;
/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1_024;
/// A comment this often keeps a silent stream open, and shows that it is.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const ACT_MAX: usize = 64 * 1024;
/// Bytes of what axum says about a path or a query.
const SAID_MAX: usize = 256;

/// A listener for [`serve`].
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart need not wait for the connections of the process before.
    socket.set_reuseaddr(true)?;
    // Each connection has what its listener has.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown`, then ends the streams and answers what is under way.
///
/// Errors: the listener is not on a loopback address.
pub async fn serve(
    mut listener: TcpListener,
    api: Arc<Api>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        let code = Code::HttpFailed;
        let message =
            format!("HTTP has no authentication yet, so it listens on loopback only; got {address} ({code})");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let (stop, stopping) = watch::channel(false);
    let service = TowerToHyperService::new(router(Context { api, stopping: stopping.clone() }));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let open = gauge!("sluice_http_connections");
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            let place = room.clone().acquire_owned().await.expect("never closed");
            // Errors of one connection are passed over, those of the process are waited out.
            (place, Listener::accept(&mut listener).await.0)
        };
        let (place, stream) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept => accepted,
        };
        let (open, mut stopping) = (open.clone(), stopping.clone());
        let connection =
            http.serve_connection(TokioIo::new(MustRead::new(stream, READ_WITHIN)), service.clone());
        open.increment(1.0);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            // The result holds a lock, which must not outlive this line.
            let told = async { drop(stopping.wait_for(|stopping| *stopping).await) };
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = told => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                debug!(%error, "a connection broke off");
            }
            open.decrement(1.0);
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(true);
    // All places are free again: all connections have ended.
    let _all = room.acquire_many(CONNECTIONS_MAX as u32).await.expect("never closed");
    Ok(())
}

#[derive(Clone)]
struct Context {
    api: Arc<Api>,
    /// True from the beginning of the shutdown on.
    stopping: watch::Receiver<bool>,
}

fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/intents", post(intents))
        .route("/v1/telemetry", post(telemetry_in))
        .route("/v1/acks", post(acks))
        .route("/v1/rollouts", get(rollouts))
        .route("/v1/rollouts/{id}", get(rollout))
        .route("/v1/rollouts/{id}/explain", get(explain))
        .route("/v1/rollouts/{id}/{verb}", post(act))
        .route("/v1/services/{service}/plan", get(plan))
        .route("/v1/services/{service}/windows", get(windows))
        .route("/v1/freeze", post(freeze))
        .route("/v1/unfreeze", post(unfreeze))
        .route("/v1/events", get(events))
        .route("/v1/events/{seq}", get(event))
        .route("/v1/events/{seq}/evidence", get(evidence))
        .route("/v1/info", get(info))
        .route("/v1/decisions", get(decisions))
        .route("/v1/follow", get(follow))
        .route("/metrics", get(metrics_text))
        .route("/livez", get(async || json(&Health { ok: true })))
        .route("/readyz", get(ready))
        .fallback(async |request: Request| {
            let path = shown(request.uri().path());
            Failed(ApiError::new(Code::NoSuchPath, format!("not found: {path}")))
        })
        .method_not_allowed_fallback(async |request: Request| {
            let path = shown(request.uri().path());
            Failed(ApiError::new(Code::Method, format!("{} is not for {path}", request.method())))
        })
        .layer(from_fn_with_state(context.clone(), guard))
        .with_state(context)
}

/// Turns away what a browser may have been tricked into; counts.
async fn guard(State(context): State<Context>, request: Request, next: Next) -> Response {
    let response = match admit(&context.api.about.hosts, request.method(), request.headers()) {
        Ok(()) => in_json(next.run(request).await).await,
        Err(error) => Failed(error).into_response(),
    };
    counter!("sluice_http_requests_total", "status" => response.status().as_str().to_owned()).increment(1);
    response
}

/// What axum says in plain text about a path or a query it could not read, as our own error.
async fn in_json(response: Response) -> Response {
    let plain = text(response.headers(), &header::CONTENT_TYPE).is_some_and(|t| t.starts_with("text/plain"));
    if response.status() != StatusCode::BAD_REQUEST || !plain {
        return response;
    }
    let said = to_bytes(response.into_body(), ACT_MAX).await.unwrap_or_default();
    // It may quote what came in.
    Failed(ApiError::new(Code::BadPath, inert(&String::from_utf8_lossy(&said), SAID_MAX))).into_response()
}

fn admit(hosts: &[String], method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let authority = text(headers, &header::HOST).unwrap_or_default();
    let host = host_of(authority);
    let known = host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
    if !known {
        let host = shown(host);
        return Err(ApiError::new(
            Code::HostName,
            format!("host {host} is not this machine's; call sluice by a loopback address"),
        ));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let same = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        if same.is_none_or(|(_, of)| !of.eq_ignore_ascii_case(authority)) {
            return Err(ApiError::new(Code::CrossSite, "cross-site request refused"));
        }
    }
    if method == Method::POST {
        let given = media_type(text(headers, &header::CONTENT_TYPE));
        let accepted = intent::CONTENT_TYPES.iter().chain(&telemetry::CONTENT_TYPES);
        if !accepted.into_iter().any(|accepted| *accepted == given) {
            return Err(ApiError::new(Code::NotJson, "use Content-Type: application/json"));
        }
    }
    Ok(())
}

/// The name or address in a Host header, without the port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn caller(headers: &HeaderMap, source: &str) -> Caller {
    let owned = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Caller {
        source: source.to_owned(),
        content_type: owned("content-type"),
        message_id: owned("idempotency-key"),
        traceparent: owned("traceparent"),
    }
}

/// The whole body, of at most `limit` bytes.
async fn body(what: &str, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => {
            let limit = text::count(limit as u64);
            Err(ApiError::new(Code::TooLarge, format!("{what}: body exceeds the {limit}-byte limit")))
        }
        Ok(Err(error)) => {
            Err(ApiError::new(Code::NotReadable, format!("{what}: the body broke off: {error}")))
        }
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            Err(ApiError::new(Code::BodySlow, format!("{what}: no whole body within {seconds} s")))
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.to_string() == "length limit exceeded" {
            return true;
        }
        source = error.source();
    }
    false
}

/// An error on its way out as a response.
struct Failed(ApiError);

impl std::convert::From<ApiError> for Failed {
    fn from(error: ApiError) -> Failed {
        Failed(error)
    }
}

impl std::convert::From<Gone> for Failed {
    fn from(gone: Gone) -> Failed {
        Failed(gone.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Failed(error) = self;
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, json(&error.body())).into_response()
    }
}

type Answer = Result<Response, Failed>;

fn json(answer: &impl Serialize) -> Response {
    let body = serde_json::to_vec(answer).expect("answers have string keys");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[derive(Serialize)]
struct Health {
    ok: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    service: Option<String>,
}

async fn intents(State(c): State<Context>, headers: HeaderMap, given: Body) -> Answer {
    let bytes = body("intent", given, INTENT_MAX).await?;
    Ok(json(&c.api.deploy(&bytes, &caller(&headers, "/v1/intents")).await?))
}

async fn telemetry_in(
    State(c): State<Context>,
    Query(Of { service }): Query<Of>,
    headers: HeaderMap,
    given: Body,
) -> Answer {
    let bytes = body("telemetry", given, MESSAGE_MAX).await?;
    let caller = caller(&headers, "/v1/telemetry");
    Ok(json(&c.api.telemetry(&bytes, service.as_deref(), &caller).await?))
}

async fn acks(
    State(c): State<Context>,
    Query(Of { service }): Query<Of>,
    headers: HeaderMap,
    given: Body,
) -> Answer {
    let bytes = body("ack", given, ACK_MAX).await?;
    Ok(json(&c.api.ack(&bytes, service.as_deref(), &caller(&headers, "/v1/acks")).await?))
}

async fn rollouts(State(c): State<Context>, Query(request): Query<ListRequest>) -> Answer {
    Ok(json(&c.api.list(&request)))
}

async fn rollout(State(c): State<Context>, Path(rollout): Path<String>) -> Answer {
    Ok(json(c.api.status(&RolloutRequest { rollout })?.as_ref()))
}

async fn explain(State(c): State<Context>, Path(rollout): Path<String>) -> Answer {
    Ok(json(&c.api.explain(&RolloutRequest { rollout }).await?))
}

/// Query of evidence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceOf {
    guardrail: Option<String>,
}

async fn evidence(
    State(c): State<Context>,
    Path(seq): Path<EventSeq>,
    Query(EvidenceOf { guardrail }): Query<EvidenceOf>,
) -> Answer {
    Ok(json(&c.api.evidence(EvidenceRequest { seq, guardrail }).await?))
}

/// Query of a plan.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanOf {
    policy: Option<String>,
    kind: Option<ChangeKind>,
    #[serde(default)]
    significant: bool,
}

async fn plan(
    State(c): State<Context>,
    Path(service): Path<String>,
    Query(PlanOf { policy, kind, significant }): Query<PlanOf>,
) -> Answer {
    Ok(json(&c.api.plan(PlanRequest { service, policy, kind, significant }).await?))
}

/// Query of windows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsOf {
    at: Option<String>,
}

async fn windows(
    State(c): State<Context>,
    Path(service): Path<String>,
    Query(WindowsOf { at }): Query<WindowsOf>,
) -> Answer {
    Ok(json(&c.api.windows(WindowsRequest { service, at }).await?))
}

async fn freeze(State(c): State<Context>, headers: HeaderMap, given: Body) -> Answer {
    let bytes = body("freeze", given, ACT_MAX).await?;
    Ok(json(&c.api.freeze(true, request("freeze", &bytes)?, &caller(&headers, "/v1/freeze")).await?))
}

async fn unfreeze(State(c): State<Context>, headers: HeaderMap, given: Body) -> Answer {
    let bytes = body("unfreeze", given, ACT_MAX).await?;
    Ok(json(&c.api.freeze(false, request("unfreeze", &bytes)?, &caller(&headers, "/v1/unfreeze")).await?))
}

async fn act(
    State(c): State<Context>,
    Path((rollout, verb)): Path<(String, String)>,
    headers: HeaderMap,
    given: Body,
) -> Answer {
    let Some(verb) = Verb::named(&verb) else {
        let verb = shown(&verb);
        return Err(Failed(ApiError::new(Code::NoSuchPath, format!("not found: there is no verb {verb}"))));
    };
    let bytes = body(verb.as_str(), given, ACT_MAX).await?;
    let mut request: ActRequest = request(verb.as_str(), &bytes)?;
    if let Some(named) = request.rollout.replace(rollout.clone()).filter(|named| *named != rollout) {
        let (verb, named, rollout) = (verb.as_str(), shown(&named), shown(&rollout));
        let message = format!("{verb}.rollout: {named} does not match the path's {rollout}");
        return Err(Failed(ApiError::new(Code::NamesDiffer, message)));
    }
    let caller = caller(&headers, "/v1/rollouts");
    Ok(json(&c.api.act(verb, request, &caller).await?))
}

async fn events(State(c): State<Context>, Query(request): Query<EventsRequest>) -> Answer {
    Ok(json(&c.api.events(request).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    #[serde(default)]
    why: bool,
}

async fn event(
    State(c): State<Context>,
    Path(seq): Path<EventSeq>,
    Query(Why { why }): Query<Why>,
) -> Answer {
    Ok(json(&c.api.event(EventRequest { seq, why }).await?))
}

async fn info(State(c): State<Context>) -> Answer {
    Ok(json(&c.api.info().await?))
}

/// Ready when the writer answers.
async fn ready(State(c): State<Context>) -> Answer {
    c.api.settled().await?;
    Ok(json(&Health { ok: true }))
}

async fn metrics_text() -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], observability::metrics_text()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    from: Option<EventSeq>,
}

#[derive(Clone, Copy)]
enum Stream {
    Decisions,
    Everything,
}

/// Decisions as they are published, each with its log sequence as id.
async fn decisions(
    State(c): State<Context>,
    Query(From { from }): Query<From>,
    headers: HeaderMap,
) -> Answer {
    let feed = Feed::open(c.api.writer(), start(from, &headers)?).await?;
    Ok(stream(c, feed, Stream::Decisions))
}

/// Every durable event but telemetry, one line each.
async fn follow(State(c): State<Context>, Query(From { from }): Query<From>, headers: HeaderMap) -> Answer {
    let feed = Feed::open(c.api.writer(), start(from, &headers)?).await?;
    Ok(stream(c, feed, Stream::Everything))
}

/// Where a stream begins: after the last event the client got, or where it asks for.
fn start(from: Option<EventSeq>, headers: &HeaderMap) -> Result<Option<EventSeq>, ApiError> {
    match text(headers, &HeaderName::from_static("last-event-id")).filter(|id| !id.is_empty()) {
        None => Ok(from.map(|from| from.max(1))),
        Some(id) => match id.parse::<EventSeq>() {
            Ok(id) => Ok(Some(id.saturating_add(1))),
            Err(_) => {
                let id = shown(id);
                Err(ApiError::new(Code::BadPath, format!("Last-Event-ID {id} is not the number of an event")))
            }
        },
    }
}

fn frame(seq: EventSeq, name: Option<&str>, data: &impl Serialize) -> sse::Event {
    let data = serde_json::to_string(data).expect("answers have string keys");
    let event = sse::Event::default().id(seq.to_string()).data(data);
    match name {
        Some(name) => event.event(name),
        None => event,
    }
}

/// What a stream shows of an event; nothing for what it leaves out.
async fn show(of: Stream, api: &Api, news: &News) -> Result<Option<sse::Event>, ApiError> {
    match (of, &news.event) {
        (Stream::Decisions, Event::DecisionMade { rollout, decision }) => {
            let message = api.decision(news, rollout, decision).await?;
            Ok(Some(frame(news.seq, Some(decision.choice.as_str()), &message)))
        }
        (Stream::Decisions, _) => Ok(None),
        (Stream::Everything, _) => {
            Ok(Some(frame(news.seq, None, &FollowLine::new(news.seq, news.at, &news.event))))
        }
    }
}

/// The feed as server-sent events, until the daemon stops. A stream that breaks is taken up again by its client
/// where it ended.
fn stream(context: Context, feed: Feed, of: Stream) -> Response {
    let events = stream::unfold((context, feed), move |(mut context, mut feed)| async move {
        loop {
            let next = async {
                let news = feed.next().await?;
                show(of, &context.api, &news).await
            };
            let shown = tokio::select! {
                _ = context.stopping.wait_for(|stopping| *stopping) => return None,
                shown = next => shown,
            };
            match shown {
                Ok(Some(event)) => return Some((Ok::<_, Infallible>(event), (context, feed))),
                Ok(None) => {}
                Err(error) => {
                    warn!(%error, "a stream of events ends early");
                    return None;
                }
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}
