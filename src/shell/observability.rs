//! How the daemon is watched: its own log on standard error, traces over OTLP, metrics for Prometheus.
//!
//! Everything about rollouts is in the durable log; what is here may be lost.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::broadcast;
use tracing::{Span, error, info, info_span, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::writer::{News, Writer};
use crate::core::event::Event;
use crate::core::ids::RolloutId;
use crate::core::rules::ENGINE;
use crate::core::words::line;
use crate::wire::names::is_traceparent;

/// Bounds of `sluice_log_append_seconds`: from a fast SSD's sync to the point where the log gives up.
const APPEND_BUCKETS: [f64; 11] = [0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0];
/// How often recorded values are folded into their buckets when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why the daemon cannot be watched as asked for.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error("RUST_LOG does not parse: {0}; for example RUST_LOG=info,sluice=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error(
        "traces cannot be exported to {endpoint}: {source}; correct or unset OTEL_EXPORTER_OTLP_ENDPOINT"
    )]
    Exporter { endpoint: String, source: ExporterBuildError },
    #[error("logging is already set up: {0}")]
    Twice(#[from] TryInitError),
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] BuildError),
}

/// The log and the exporter of traces; to be shut down last.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Sets up logging on standard error (as JSON lines when `json`) and, where the environment asks for it, traces.
/// `env` reads one environment variable: `RUST_LOG` and the standard `OTEL_` ones.
///
/// Must be called on a thread that is not asynchronous: the exporter makes its own.
pub fn init(json: bool, env: &dyn Fn(&str) -> Option<String>) -> Result<Telemetry, ObserveError> {
    let filter = match env("RUST_LOG").filter(|text| !text.is_empty()) {
        Some(text) => EnvFilter::try_new(text)?,
        None => EnvFilter::new("info"),
    };
    let provider = traces_endpoint(env).map(|endpoint| exporter(endpoint, env)).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        // What is exported does not depend on what is logged.
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("sluice"));
        layer.with_filter(EnvFilter::new("off,sluice=info"))
    });
    let text =
        (!json).then(|| fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr));
    let lines = json.then(|| fmt::layer().json().with_writer(std::io::stderr));
    let log = text.map(Layer::boxed).or(lines.map(Layer::boxed)).map(|layer| layer.with_filter(filter));
    tracing_subscriber::registry().with(traces).with(log).try_init()?;
    Ok(Telemetry { provider })
}

impl Telemetry {
    /// Sends the spans that still wait. Blocks for some seconds at most: call it where blocking is allowed.
    pub fn shutdown(self) {
        if let Some(Err(error)) = self.provider.map(|provider| provider.shutdown()) {
            warn!(%error, "not every trace was exported");
        }
    }
}

/// Where traces go; `None` when nothing asks for them.
fn traces_endpoint(env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| {
        set("OTEL_EXPORTER_OTLP_ENDPOINT").map(|base| format!("{}/v1/traces", base.trim_end_matches('/')))
    })
}

fn exporter(
    endpoint: String,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<SdkTracerProvider, ObserveError> {
    // The HTTP client wants a TLS provider even for plain HTTP. An error only says that one is set already.
    let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(&endpoint)
        .build()
        .map_err(|source| ObserveError::Exporter { endpoint, source })?;
    let mut resource = Resource::builder();
    if env("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("sluice");
    }
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

/// Makes `span` part of the trace that `traceparent` (W3C) names. Without one, or without an exporter, it is left
/// as it is.
pub fn continue_trace(span: &Span, traceparent: Option<&str>) {
    if let Some(context) = traceparent.and_then(span_context) {
        // It fails when nothing exports traces, and then there is nothing to continue.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    }
}

fn span_context(text: &str) -> Option<SpanContext> {
    let [_, trace, span, flags] = text.split('-').collect::<Vec<_>>()[..] else { return None };
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    is_traceparent(text).then(|| SpanContext::new(trace, span, flags, true, TraceState::default()))
}

/// Tells the log what happens to rollouts from now on, and gives each decision a span in the trace of its intent.
/// Ends with `shutdown`, when everything that has happened by then is told.
pub fn narrate(writer: Writer, shutdown: impl Future<Output = ()> + Send) -> impl Future<Output = ()> + Send {
    let mut news = writer.follow();
    async move {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let next = tokio::select! {
                biased;
                next = news.recv() => next,
                () = &mut shutdown => return,
            };
            match next {
                Ok(news) => tell(&writer, &news).await,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    warn!(missed, "too many events to log each; all are in the durable log");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

async fn tell(writer: &Writer, news: &News) {
    let text = line::describe(&news.event);
    match &news.event {
        Event::DecisionMade { rollout, decision } => {
            let choice = decision.choice.as_str();
            let span = info_span!("decision", %rollout, choice, seq = news.seq);
            continue_trace(&span, trace_of(writer, rollout).await.as_deref());
            span.in_scope(|| info!(seq = news.seq, "{text}"));
        }
        Event::AlertRaised { .. } | Event::CommandResent { .. } => warn!(seq = news.seq, "{text}"),
        Event::InputRejected { .. }
        | Event::IntentRefused { .. }
        | Event::AckRefused { .. }
        | Event::FreezeRefused { .. }
        | Event::ActRefused { .. } => warn!(seq = news.seq, "{text}"),
        Event::CohortScored { .. } | Event::ReferenceFrozen { .. } | Event::TimePassed => {
            tracing::debug!(seq = news.seq, "{text}");
        }
        _ => info!(seq = news.seq, "{text}"),
    }
}

/// The trace that the rollout's intent came with.
async fn trace_of(writer: &Writer, rollout: &RolloutId) -> Option<String> {
    let id = rollout.clone();
    let spec = writer.read(move |state, _| {
        let open = state.rollouts.get(&id).map(|rollout| &rollout.spec);
        let ended = || state.ended.iter().rev().find(|ended| ended.id == id).map(|ended| &ended.spec);
        open.or_else(ended).and_then(|spec| spec.traceparent.clone())
    });
    spec.await.ok().flatten()
}

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to record metrics, once per process; later calls do nothing.
pub fn install_metrics() -> Result<(), ObserveError> {
    static ONCE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _once = ONCE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if METRICS.get().is_some() {
        return Ok(());
    }
    let append = Matcher::Full("sluice_log_append_seconds".into());
    let handle =
        PrometheusBuilder::new().set_buckets_for_metric(append, &APPEND_BUCKETS)?.install_recorder()?;
    describe();
    let version = env!("CARGO_PKG_VERSION");
    gauge!("sluice_build_info", "version" => version, "engine" => ENGINE.to_string()).set(1.0);
    let upkeep = METRICS.get_or_init(|| handle).clone();
    let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    });
    if let Err(error) = thread {
        error!(%error, "metrics that nobody scrapes will use more and more memory");
    }
    Ok(())
}

/// All metrics in Prometheus' text format; empty before [`install_metrics`].
pub fn metrics_text() -> String {
    METRICS.get().map(PrometheusHandle::render).unwrap_or_default()
}

fn describe() {
    describe_gauge!("sluice_build_info", "version of sluice and of its rules; always 1");
    describe_gauge!("sluice_rollouts_open", "rollouts that are not over");
    describe_gauge!("sluice_disk_free_bytes", Unit::Bytes, "free space where the log is");
    describe_counter!("sluice_decisions_total", "decisions by choice");
    describe_counter!("sluice_rejected_total", "inputs that were refused and recorded so");
    describe_counter!("sluice_duplicates_total", "inputs that had been recorded before");
    describe_counter!("sluice_alerts_total", "alerts raised");
    describe_counter!("sluice_commands_resent_total", "commands sent again for want of a confirmation");
    describe_counter!("sluice_log_bytes_total", Unit::Bytes, "bytes appended to the log");
    describe_histogram!(
        "sluice_log_append_seconds",
        Unit::Seconds,
        "time to make one group of events durable"
    );
    describe_counter!("sluice_http_requests_total", "HTTP requests by status");
    describe_gauge!("sluice_http_connections", "HTTP connections that are open");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_exported_only_where_the_environment_asks_for_it() {
        let endpoint = |vars: &[(&str, &str)]| {
            traces_endpoint(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
        };
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x");
        assert_eq!(endpoint(&[]), None);
        assert_eq!(endpoint(&[base]), Some("http://c:4318/v1/traces".into()));
        assert_eq!(endpoint(&[base, own]), Some("http://t:1/x".into()));
        assert_eq!(endpoint(&[base, ("OTEL_SDK_DISABLED", "TRUE")]), None);
    }
}
