//! The streams and consumers sluice keeps its messages in: made when missing, refused when they differ.
//!
//! The three inbound streams are work queues: they hold what sluice has not made durable yet, and nothing
//! else. So a bound that refuses new messages (`discard: new`) can only be reached while sluice is behind, the
//! publisher is told, and no message that waits is ever pushed out by another. With limits instead, a stream
//! full of recorded acks would refuse the ack of a rollback. The record of what came in is sluice's log.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, ReplayPolicy, pull};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageErrorKind, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{Context, ErrorCode};

use super::BusError;
use crate::core::event::fact::Inbound;
use crate::core::time::Span;
use crate::wire::outgoing::ROOT;
use crate::wire::telemetry::MESSAGE_MAX;

/// The durable consumer of each inbound stream.
pub const CONSUMER: &str = "sluice";
/// Where decisions, commands, alerts and refusals go.
pub const OUT: &str = "SLUICE_OUT";
/// Retries of a publisher within this time store nothing twice; the longest that all brokers allow for free.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// A message that sluice has neither confirmed nor refused after this long is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Delivered and not confirmed. Well above what the writer holds, so that the disk is never waited for twice.
const ACK_PENDING_MAX: i64 = 8_192;
const DAY: Duration = Duration::from_secs(86_400);

/// The name of an inbound stream.
pub fn name(stream: Inbound) -> &'static str {
    match stream {
        Inbound::Intents => "SLUICE_INTENTS",
        Inbound::Telemetry => "SLUICE_TELEMETRY",
        Inbound::Acks => "SLUICE_ACKS",
    }
}

/// The configuration of an inbound stream. Sizes in bytes; brokers set them aside, so they stay modest.
pub(super) fn inbound(stream: Inbound) -> Config {
    let (word, max_bytes, max_age) = match stream {
        // 256 of the largest; a kilobyte each is usual.
        Inbound::Intents => ("intent", 64 << 20, Duration::ZERO),
        // Five minutes at 7 MB/s. After a day it says nothing about a canary any more.
        Inbound::Telemetry => ("telemetry", 2 << 30, DAY),
        Inbound::Acks => ("ack", 64 << 20, Duration::ZERO),
    };
    Config {
        name: name(stream).into(),
        subjects: vec![format!("{ROOT}.{word}.*")],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_bytes,
        max_age,
        // An operator may have to throw a backlog of telemetry away, never an intent or an ack.
        deny_purge: stream != Inbound::Telemetry,
        ..common()
    }
}

/// The configuration of the outbound stream: a week to look back, for those who were away.
pub(super) fn out() -> Config {
    let subjects = ["decision.>", "command.>", "alert.*", "rejected"];
    Config {
        name: OUT.into(),
        subjects: subjects.iter().map(|s| format!("{ROOT}.{s}")).collect(),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_bytes: 512 << 20,
        max_age: DAY * 7,
        deny_purge: true,
        ..common()
    }
}

fn common() -> Config {
    Config {
        storage: StorageType::File,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: MESSAGE_MAX as i32,
        num_replicas: 1,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        deny_delete: true,
        ..Config::default()
    }
}

fn consumer() -> pull::Config {
    pull::Config {
        durable_name: Some(CONSUMER.into()),
        description: Some("what sluice has recorded".into()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        replay_policy: ReplayPolicy::Instant,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: ACK_PENDING_MAX,
        ..pull::Config::default()
    }
}

/// What [`ensure`] found.
pub(super) struct Ensured {
    pub info: Info,
    /// The stream was missing and has been made.
    pub created: bool,
}

/// Finds the stream, or makes it with `first` as the sequence of its first message.
///
/// Errors: [`BusError::Drift`] when it differs from `wanted`, [`BusError::NoJetStream`], [`BusError::Api`].
pub(super) async fn ensure(js: &Context, wanted: Config, first: u64) -> Result<Ensured, BusError> {
    let failed = |doing| {
        let what = wanted.name.clone();
        move |source: async_nats::Error| BusError::Api { doing, what, source }
    };
    let found = match js.get_stream(&wanted.name).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                let config = Config { first_sequence: (first > 1).then_some(first), ..wanted.clone() };
                let stream = js.create_stream(config).await.map_err(|error| match error.kind() {
                    CreateStreamErrorKind::JetStreamUnavailable => BusError::NoJetStream,
                    _ => failed("create stream")(error.into()),
                })?;
                // Older servers leave out what they do not know: compare the echo as well.
                let info = stream.cached_info().clone();
                compare(&wanted, &info.config)?;
                return Ok(Ensured { info, created: true });
            }
            GetStreamErrorKind::JetStream(e) if no_jetstream(e.error_code()) => {
                return Err(BusError::NoJetStream);
            }
            _ => return Err(failed("look up stream")(error.into())),
        },
    };
    compare(&wanted, &found.config)?;
    Ok(Ensured { info: found, created: false })
}

fn no_jetstream(code: ErrorCode) -> bool {
    [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT].contains(&code)
}

/// When the broker took in the message with this sequence, in nanoseconds since 1970; nothing when the stream does
/// not have it any more. Asks the stream's leader: a follower may not have it yet.
///
/// Errors: [`BusError::Api`].
pub(super) async fn published(js: &Context, stream: &str, seq: u64) -> Result<Option<i128>, BusError> {
    let failed = |source: async_nats::Error| BusError::Api {
        doing: "look up message",
        what: format!("{seq} of stream {stream}"),
        source,
    };
    let handle = js.get_stream_no_info(stream).await.map_err(|e| failed(e.into()))?;
    match handle.get_raw_message(seq).await {
        Ok(message) => Ok(Some(message.time.unix_timestamp_nanos())),
        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// Finds sluice's consumer of a stream, or makes it.
///
/// Errors: as [`ensure`].
pub(super) async fn ensure_consumer(js: &Context, stream: &str) -> Result<PullConsumer, BusError> {
    let failed = |source: async_nats::Error| BusError::Api {
        doing: "look up or create consumer",
        what: format!("{CONSUMER} of {stream}"),
        source,
    };
    let handle = js.get_stream_no_info(stream).await.map_err(|e| failed(e.into()))?;
    let wanted = consumer();
    let found =
        handle.get_or_create_consumer(CONSUMER, wanted.clone()).await.map_err(|e| failed(e.into()))?;
    let what = format!("consumer {CONSUMER} of {stream}");
    let drift = Drift { what: &what, fix: "remove it and start sluice, which makes it again" };
    let have = &found.cached_info().config;
    drift.same("ack_policy", &have.ack_policy, &wanted.ack_policy)?;
    drift.same("deliver_policy", &have.deliver_policy, &wanted.deliver_policy)?;
    drift.same("replay_policy", &have.replay_policy, &wanted.replay_policy)?;
    drift.same("max_deliver", &have.max_deliver, &wanted.max_deliver)?;
    drift.same("filter_subject", &have.filter_subject, &wanted.filter_subject)?;
    drift.same("filter_subjects", &have.filter_subjects, &wanted.filter_subjects)?;
    drift.same("headers_only", &have.headers_only, &wanted.headers_only)?;
    drift.same("rate_limit", &have.rate_limit, &wanted.rate_limit)?;
    drift.same("inactive_threshold", &have.inactive_threshold, &wanted.inactive_threshold)?;
    drift.at_least("ack_wait", have.ack_wait >= ACK_WAIT, span(have.ack_wait), span(ACK_WAIT))?;
    let (pending, enough) =
        (have.max_ack_pending, have.max_ack_pending >= ACK_PENDING_MAX || have.max_ack_pending < 0);
    drift.at_least("max_ack_pending", enough, pending, ACK_PENDING_MAX)?;
    Ok(found)
}

/// Whether a stream does what sluice relies on. Free to choose are replicas, placement, compression and
/// descriptions, and every bound may be wider. A smaller `max_bytes` is a choice as well: inbound streams then
/// refuse earlier, and say so.
fn compare(wanted: &Config, found: &Config) -> Result<(), BusError> {
    let what = format!("stream {}", wanted.name);
    let fix = "set it back, or remove the stream and start sluice, which makes it again";
    let drift = Drift { what: &what, fix };
    let sorted = |config: &Config| {
        let mut subjects = config.subjects.clone();
        subjects.sort();
        subjects.join(", ")
    };
    drift.same("subjects", &sorted(found), &sorted(wanted))?;
    drift.same("retention", &found.retention, &wanted.retention)?;
    drift.same("discard", &found.discard, &wanted.discard)?;
    drift.same("storage", &found.storage, &wanted.storage)?;
    drift.same("no_ack", &found.no_ack, &wanted.no_ack)?;
    drift.same("sealed", &found.sealed, &wanted.sealed)?;
    drift.same("mirror", &found.mirror.is_some(), &false)?;
    drift.same("sources", &found.sources.as_ref().is_some_and(|s| !s.is_empty()), &false)?;
    drift.same("subject_transform", &found.subject_transform.is_some(), &false)?;
    let unbounded = |max: i64| max <= 0;
    drift.at_least("max_msgs", unbounded(found.max_messages), found.max_messages, -1)?;
    let per_subject = found.max_messages_per_subject;
    drift.at_least("max_msgs_per_subject", unbounded(per_subject), per_subject, -1)?;
    let size = found.max_message_size;
    let enough = size <= 0 || size >= wanted.max_message_size;
    drift.at_least("max_msg_size", enough, size, wanted.max_message_size)?;
    let age = found.max_age;
    let enough = age.is_zero() || (!wanted.max_age.is_zero() && age >= wanted.max_age);
    drift.at_least("max_age", enough, span(age), span(wanted.max_age))?;
    let window = found.duplicate_window;
    drift.at_least("duplicate_window", window >= DUPLICATE_WINDOW, span(window), span(DUPLICATE_WINDOW))?;
    if found.max_bytes > 0 && found.max_bytes < wanted.max_bytes {
        tracing::warn!(
            stream = wanted.name,
            max_bytes = found.max_bytes,
            usual = wanted.max_bytes,
            "small stream"
        );
    }
    Ok(())
}

/// A duration for people; zero means no limit in every place it is used here.
fn span(duration: Duration) -> String {
    if duration.is_zero() { "no limit".into() } else { Span(duration.as_millis() as u64).to_string() }
}

struct Drift<'a> {
    what: &'a str,
    fix: &'static str,
}

impl Drift<'_> {
    fn same<T: PartialEq + std::fmt::Debug>(
        &self,
        field: &'static str,
        found: &T,
        wanted: &T,
    ) -> Result<(), BusError> {
        self.check(field, found == wanted, format!("{found:?}"), format!("{wanted:?}"))
    }

    fn at_least(
        &self,
        field: &'static str,
        enough: bool,
        found: impl ToString,
        wanted: impl std::fmt::Display,
    ) -> Result<(), BusError> {
        self.check(field, enough, found.to_string(), format!("at least {wanted}"))
    }

    fn check(
        &self,
        field: &'static str,
        fine: bool,
        found: String,
        expected: String,
    ) -> Result<(), BusError> {
        let (what, fix) = (self.what.to_owned(), self.fix);
        if fine { Ok(()) } else { Err(BusError::Drift { what, field, found, expected, fix }) }
    }
}
