//! The API as a NATS micro service: `sluice.v1.api.<verb>`, found by `nats micro ls`.
//!
//! An error is the JSON body and, for clients that look only there, the service error headers.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::service::endpoint::Endpoint;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Request, ServiceExt};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::sync::Semaphore;
use tracing::warn;

use super::api::{Api, Caller};
use crate::view::api::VERBS;
use crate::wire::outgoing::ROOT;

/// Requests answered at a time; more wait in the client.
const REQUESTS_MAX: u32 = 64;

/// Why the service cannot be offered.
#[derive(Debug, thiserror::Error)]
#[error("the NATS service cannot be offered: {0}")]
pub struct MicroError(#[source] async_nats::Error);

/// Offers the service until `shutdown`; then answers what has come in and leaves. Without a connection the
/// leaving waits for one: the caller limits how long.
pub async fn serve(
    client: Client,
    api: Arc<Api>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), MicroError> {
    let service = client
        .service_builder()
        .description("brings changes to AI systems into production a little at a time")
        .start("sluice", env!("CARGO_PKG_VERSION"))
        .await
        .map_err(MicroError)?;
    let group = service.group(format!("{ROOT}.api"));
    let mut endpoints: Vec<_> = Vec::with_capacity(VERBS.len());
    for (verb, what) in VERBS {
        let metadata = HashMap::from([("description".to_owned(), what.to_owned())]);
        let endpoint: Endpoint =
            group.endpoint_builder().name(verb).metadata(metadata).add(verb).await.map_err(MicroError)?;
        endpoints.push(endpoint.map(move |request| (verb, request)));
    }
    let mut requests = select_all(endpoints);
    let slots = Arc::new(Semaphore::new(REQUESTS_MAX as usize));
    let mut shutdown = std::pin::pin!(shutdown);
    let mut service = Some(service);
    loop {
        let next = tokio::select! {
            () = &mut shutdown, if service.is_some() => {
                // The endpoints end once what has come in is read.
                if let Some(service) = service.take() {
                    service.stop().await.map_err(MicroError)?;
                }
                continue;
            }
            next = requests.next() => next,
        };
        let Some((verb, request)) = next else { break };
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let api = api.clone();
        tokio::spawn(async move {
            answer(&api, verb, request).await;
            drop(slot);
        });
    }
    let _idle = slots.acquire_many(REQUESTS_MAX).await;
    Ok(())
}

async fn answer(api: &Api, verb: &str, request: Request) {
    let header = |name: &str| {
        let headers = request.message.headers.as_ref()?.iter();
        let mut found = headers.filter(|(key, _)| key.to_string().eq_ignore_ascii_case(name));
        found.find_map(|(_, values)| values.first().map(|value| value.as_str().to_owned()))
    };
    let caller = Caller {
        source: request.message.subject.to_string(),
        content_type: header("Content-Type"),
        message_id: header("Nats-Msg-Id"),
        traceparent: header("traceparent"),
    };
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/json");
    let body = match api.call(verb, &request.message.payload, &caller).await {
        Ok(body) => body.to_string(),
        Err(error) => {
            headers.insert(NATS_SERVICE_ERROR, format!("{} {}", error.code, error.message));
            headers.insert(NATS_SERVICE_ERROR_CODE, error.status.to_string());
            serde_json::to_string(&error.body()).expect("an error is strings")
        }
    };
    if let Err(error) = request.respond_with_headers(Ok(body.into()), headers).await {
        warn!(%error, verb, "a request was answered and the answer not sent");
    }
}
