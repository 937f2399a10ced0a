//! The log as the API reads it: pages of events, one event with its cause, and the live feed that resumes where
//! a reader left off.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::unread;
use crate::core::ids::{EventSeq, RolloutId};
use crate::evidence_trace::{EvidenceTraceError, Tracer, subject};
use crate::shell::log::{LogError, Reader};
use crate::shell::writer::{Gone, News, Writer};
use crate::view::error::ApiError;
use crate::view::events::{EventAnswer, EventView, EventsPage};
use crate::view::evidence::{EvidenceAnswer, EvidenceRequest};
use crate::wire::envelope::Envelope;
use crate::wire::events::name;

/// Records looked at for one page. More than one fact can lead to, so that every page gets on.
pub const SCAN_MAX: usize = 200_000;
/// Events of one group shown around an event.
const GROUP_MAX: usize = 1_000;
/// Events read back at once for a feed that has fallen behind.
const CHUNK: usize = 256;
const BATCH: &str = "batch.received";

/// The durable end of the log and a way to read up to it. Other threads may read on while the writer appends.
pub async fn reader(writer: &Writer) -> Result<(EventSeq, Reader), Gone> {
    writer.read(|state, log| (state.last, log.clone())).await
}

/// At most `limit` events from `from` on, up to `last`, out of about `scan_max` records.
pub fn page(
    log: &Reader,
    last: EventSeq,
    from: EventSeq,
    limit: usize,
    scan_max: usize,
    rollout: Option<&RolloutId>,
) -> Result<EventsPage, LogError> {
    let mut events: Vec<EventView> = Vec::new();
    // The last fact, while nothing of the rollout's has followed from it.
    let mut pending = None;
    let mut scan = log.scan(from)?;
    let mut seq = from.saturating_sub(1);
    let mut next = last + 1;
    for looked in 0.. {
        seq += 1;
        if events.len() >= limit || looked >= scan_max {
            next = pending.unwrap_or(seq);
            break;
        }
        let skips = |kind: u8| rollout.is_some() && name(kind) == Some(BATCH);
        let record = scan.advance(|record| (record.seq, (!skips(record.kind)).then(|| record.envelope())))?;
        let Some((found, envelope)) = record.filter(|(found, _)| *found <= last) else { break };
        seq = found;
        let Some(envelope) = envelope else {
            pending = Some(seq);
            continue;
        };
        let envelope = readable(seq, envelope)?;
        match rollout {
            Some(_) if envelope.event.is_fact() => pending = Some(seq),
            Some(id) if envelope.event.rollout() == Some(id) => {
                if let Some(fact) = pending.take() {
                    events.push(EventView::new(&log.read(fact)?, false));
                }
                if events.len() >= limit {
                    next = seq;
                    break;
                }
                events.push(EventView::new(&envelope, false));
            }
            Some(_) => {}
            None => events.push(EventView::new(&envelope, false)),
        }
    }
    Ok(EventsPage { events, next, last })
}

/// An envelope whose payload may be of a kind this build does not know.
fn readable(
    seq: EventSeq,
    envelope: Result<Envelope, crate::wire::events::PayloadError>,
) -> Result<Envelope, LogError> {
    envelope.map_err(|error| LogError::damaged(format!("event {seq} {error}")))
}

/// One event in full; with `why`, the group it belongs to: a fact and all that followed from it.
pub fn one(log: &Reader, last: EventSeq, seq: EventSeq, why: bool) -> Result<EventAnswer, LogError> {
    if seq > last {
        return Err(LogError::NoSuchEvent { seq, last });
    }
    let envelope = log.read(seq)?;
    let mut group = Vec::new();
    if why {
        for found in log.scan(seq.saturating_sub(GROUP_MAX as u64).max(1))? {
            let found = found?;
            let fact = found.event.is_fact();
            if found.seq > last || fact && found.seq > seq || group.len() >= 2 * GROUP_MAX {
                break;
            }
            if fact {
                group.clear();
            }
            group.push(EventView::new(&found, false));
        }
    }
    Ok(EventAnswer {
        event: EventView::new(&envelope, true),
        prev: envelope.prev.to_string(),
        hash: envelope.hash.to_string(),
        why: group,
    })
}

/// Works out the evidence behind the event `request.seq`.
pub fn evidence(log: &Reader, last: EventSeq, request: &EvidenceRequest) -> Result<EvidenceAnswer, ApiError> {
    if request.seq > last {
        return Err(EvidenceTraceError::NoEvent(request.seq).into());
    }
    let asked = log.read(request.seq).map_err(unread)?;
    let mut tracer = Tracer::new(subject(request.seq, &asked.event, request.guardrail.as_deref())?);
    for found in log.scan(1).map_err(unread)? {
        let found = found.map_err(unread)?;
        tracer.next(found.seq, found.at, &found.event);
        if found.seq >= request.seq {
            break;
        }
    }
    Ok(EvidenceAnswer::new(tracer.finish()))
}

/// Every durable event but telemetry, in order, each once. What the broadcast has dropped is read from the log.
pub struct Feed {
    writer: Writer,
    news: broadcast::Receiver<Arc<News>>,
    /// The first event not given out yet.
    next: EventSeq,
    /// Up to here the log is read before the broadcast is.
    until: Option<EventSeq>,
    ready: VecDeque<Arc<News>>,
}

impl Feed {
    /// From the event `from` on; from what comes next without one.
    pub async fn open(writer: &Writer, from: Option<EventSeq>) -> Result<Feed, Gone> {
        // Subscribed before the end is read: nothing falls between.
        let news = writer.follow();
        let (last, _) = reader(writer).await?;
        let next = from.unwrap_or(last + 1);
        let until = (next <= last).then_some(last);
        Ok(Feed { writer: writer.clone(), news, next, until, ready: VecDeque::new() })
    }

    /// The next event; waits for it.
    pub async fn next(&mut self) -> Result<Arc<News>, ApiError> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                return Ok(news);
            }
            if let Some(until) = self.until {
                let (_, log) = reader(&self.writer).await?;
                let next = self.next;
                let chunk = tokio::task::spawn_blocking(move || chunk(&log, next, until)).await;
                let (news, next) = chunk.expect("reading does not panic").map_err(unread)?;
                self.ready.extend(news);
                self.next = next;
                self.until = self.until.filter(|until| *until >= next);
                continue;
            }
            match self.news.recv().await {
                Ok(news) if news.seq < self.next => {}
                Ok(news) => {
                    self.next = news.seq + 1;
                    return Ok(news);
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.until = Some(reader(&self.writer).await?.0);
                }
                Err(broadcast::error::RecvError::Closed) => return Err(Gone.into()),
            }
        }
    }
}

/// Some of what is not telemetry in `next..=until`, and where to go on.
fn chunk(log: &Reader, next: EventSeq, until: EventSeq) -> Result<(Vec<Arc<News>>, EventSeq), LogError> {
    let mut scan = log.scan(next)?;
    let mut news = Vec::new();
    for _ in 0..SCAN_MAX {
        let record = scan
            .advance(|record| (record.seq, (name(record.kind) != Some(BATCH)).then(|| record.envelope())))?;
        let Some((seq, envelope)) = record.filter(|(seq, _)| *seq <= until) else {
            return Ok((news, until + 1));
        };
        if let Some(envelope) = envelope {
            let Envelope { seq, at, event, .. } = readable(seq, envelope)?;
            news.push(Arc::new(News { seq, at, event }));
        }
        if news.len() >= CHUNK {
            return Ok((news, seq + 1));
        }
    }
    let next = scan.head().seq + 1;
    Ok((news, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Event;
    use crate::core::event::rollout_spec::Outcome;
    use crate::core::time::Timestamp;
    use crate::shell::log::{Log, OpenOptions};
    use crate::wire::envelope::Group;

    /// A short look ends between a fact and what it led to: the fact begins the next page.
    #[test]
    fn a_page_that_stops_looking_loses_no_fact() {
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
        let mut log = Log::open(dir.path(), &options).unwrap().log;
        let mut group = Group::after(log.head());
        let id = RolloutId::from("a-1");
        let ended = |id: &str| Event::RolloutEnded { rollout: id.into(), outcome: Outcome::Aborted };
        let started = || Event::DaemonStarted { build: "b".into() };
        for event in [started(), started(), ended("b-1"), ended("b-1"), ended("a-1"), started(), ended("b-1")]
        {
            group.push(&event, Timestamp(1)).unwrap();
        }
        log.append(&group).unwrap();
        for scan_max in 4..=8 {
            let (mut seqs, mut from) = (Vec::new(), 1);
            while from <= 7 {
                let page = page(&log.reader(), 7, from, 10, scan_max, Some(&id)).unwrap();
                assert!(page.next > from, "page from {from} leads to {}", page.next);
                seqs.extend(page.events.iter().map(|event| event.seq));
                from = page.next;
            }
            assert_eq!(seqs, [2, 5], "{scan_max} records at a time");
        }
    }
}
