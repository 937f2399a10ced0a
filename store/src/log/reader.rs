//! Reading the log: pages in order, and the envelopes in them with the chain checked.

use bytes::Bytes;

use super::sled_guard::guard;
use super::{Log, LogError, Place};
use crate::core::ids::EventSeq;
use crate::wire::envelope::{Envelope, EnvelopeError, FRAMING, Fault, Head, Record, header};
use crate::wire::pages;

/// Consecutive records, framed one after another.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub first: EventSeq,
    pub place: Place,
    pub bytes: Bytes,
}

pub type Chunks = Box<dyn Iterator<Item = Result<Chunk, LogError>> + Send>;

/// Reads a log that some [`super::Log`] has open. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Reader {
    pub(super) pages: sled::Tree,
}

/// A whole log, walked and found sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub events: u64,
    pub head: Head,
}

impl Reader {
    /// The pages from the one that holds `from` on: the fast way to replay. The chain is not checked;
    /// after an error the iterator ends.
    pub fn pages_from(&self, from: EventSeq) -> Result<Chunks, LogError> {
        let start = self.page_of(from)?.unwrap_or(from);
        let mut items = self.pages.range(start.to_be_bytes()..).peekable();
        let mut failed = false;
        Ok(Box::new(std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let page = next_page(&mut items).transpose();
            failed = matches!(page, Some(Err(_)));
            page
        })))
    }

    /// The events from `from` on, each checked to continue the chain. The first is checked against its
    /// predecessor. After an error the iterator ends.
    pub fn scan(&self, from: EventSeq) -> Result<Scan, LogError> {
        let end = self.head()?;
        let before = match from.checked_sub(1).filter(|before| *before > 0) {
            None => Some(Head::default()),
            Some(before) => self.head_at(before)?,
        };
        Ok(match before {
            Some(head) => Scan { until: end.seq, ..Scan::new(self.pages_from(from)?, head) },
            None => Scan::new(Box::new(std::iter::empty()), end),
        })
    }

    /// One event.
    pub fn read(&self, seq: EventSeq) -> Result<Envelope, LogError> {
        let found = self.find(seq, |record| record.envelope())?;
        let Some((place, byte, envelope)) = found else {
            return Err(LogError::NoSuchEvent { seq, last: self.head()?.seq });
        };
        envelope.map_err(|error| LogError::corrupt(seq, byte, error.into(), place))
    }

    /// The chain up to and with the event `seq`; `None` when the log has no such event.
    pub fn head_at(&self, seq: EventSeq) -> Result<Option<Head>, LogError> {
        Ok(self.find(seq, |record| record.head())?.map(|(_, _, head)| head))
    }

    /// The end of the log, from its last page. Default when the log is empty.
    pub fn head(&self) -> Result<Head, LogError> {
        let Some(page) = self.page_of(EventSeq::MAX)?.map(|first| self.page(first)).transpose()? else {
            return Ok(Head::default());
        };
        let (mut offset, mut head) = (0, before(&page)?);
        while offset < page.bytes.len() {
            head.accept(&page.bytes, &mut offset).map_err(|error| located(error, page.place))?;
        }
        Ok(head)
    }

    /// Walks the whole chain, payloads included, and names the first bad record.
    pub fn verify(&self) -> Result<Verified, LogError> {
        self.scan(1)?.verify()
    }

    /// Looks `seq` up by the framing alone, then checks the one record found.
    fn find<T>(
        &self,
        seq: EventSeq,
        take: impl Fn(&Record) -> T,
    ) -> Result<Option<(Place, usize, T)>, LogError> {
        let head = self.head()?;
        let Some(first) = self.page_of(seq)?.filter(|_| seq <= head.seq) else { return Ok(None) };
        let page = self.page(first)?;
        let mut offset = 0;
        while offset < page.bytes.len() {
            let byte = offset;
            let record = header(&page.bytes, &mut offset).map_err(|error| located(error, page.place))?;
            if record.seq == seq {
                if !record.is_sound() {
                    return Err(LogError::corrupt(seq, byte, Fault::Hash, page.place));
                }
                return Ok(Some((page.place, byte, take(&record))));
            }
        }
        Err(LogError::corrupt(seq, offset, Fault::Truncated { have: 0, need: FRAMING }, page.place))
    }

    /// The key of the page that would hold `seq`: the last that does not begin after it.
    fn page_of(&self, seq: EventSeq) -> Result<Option<EventSeq>, LogError> {
        // A part of a page sorts after the page's own key, and 0xff.. after all of its parts.
        let mut upper = [0xff; 10];
        upper[..8].copy_from_slice(&seq.to_be_bytes());
        let found = guard(|| self.pages.get_lt(upper))?;
        found.map(|(key, _)| page_key(&key).map(|(first, _)| first)).transpose()
    }

    fn page(&self, first: EventSeq) -> Result<Chunk, LogError> {
        let mut items = self.pages.scan_prefix(first.to_be_bytes()).peekable();
        next_page(&mut items)?.ok_or_else(|| LogError::damaged(format!("page {first} is gone")))
    }
}

type Items = std::iter::Peekable<sled::Iter>;

/// Joins a page's parts, which follow each other.
fn next_page(items: &mut Items) -> Result<Option<Chunk>, LogError> {
    let Some((key, value)) = guard(|| items.next().transpose())? else { return Ok(None) };
    let (first, part) = page_key(&key)?;
    let mut parts = vec![];
    loop {
        let due = parts.len() as u8 + 1;
        let more = guard(|| match items.peek() {
            Some(Ok((key, _))) => Ok(page_key(key).is_ok_and(|(page, part)| (page, part) == (first, due))),
            // The error itself is kept for the next call.
            Some(Err(_)) | None => Ok(false),
        })?;
        if !more {
            break;
        }
        parts.extend(guard(|| items.next().transpose())?.map(|(_, value)| value));
    }
    if part != 0 {
        return Err(LogError::damaged(format!("page {first} has no beginning")));
    }
    let bytes = if parts.is_empty() {
        Bytes::from_owner(value)
    } else {
        parts
            .iter()
            .fold(value.to_vec(), |mut whole, part| {
                whole.extend_from_slice(part);
                whole
            })
            .into()
    };
    Ok(Some(Chunk { first, place: Place::Page(first), bytes }))
}

fn page_key(key: &[u8]) -> Result<(EventSeq, u8), LogError> {
    pages::page_key(key).map_err(LogError::damaged)
}

/// The chain before a chunk's first record, as far as that record tells.
fn before(chunk: &Chunk) -> Result<Head, LogError> {
    let record = header(&chunk.bytes, &mut 0).map_err(|error| located(error, chunk.place))?;
    Ok(Head { seq: chunk.first.saturating_sub(1), ..record.before() })
}

fn located(error: EnvelopeError, place: Place) -> LogError {
    LogError::Corrupt { error, place }
}

/// Envelopes in order, out of the pages of a log or the blocks of an exported file.
pub struct Scan {
    chunks: Chunks,
    chunk: Option<Chunk>,
    /// Where the last record given out begins in the chunk, and where the next one does.
    byte: usize,
    offset: usize,
    head: Head,
    /// Records up to here were only needed to reach the first one asked for.
    skip: EventSeq,
    /// The log went on to here when the scan began. A damaged store may lose its way and call that the end.
    until: EventSeq,
    ended: bool,
    /// The log it reads, when nobody else keeps that open.
    pub(super) _holds: Option<Box<Log>>,
}

impl Scan {
    /// Yields what follows `head`; the chunks may begin before.
    pub(super) fn new(chunks: Chunks, head: Head) -> Scan {
        Scan {
            chunks,
            chunk: None,
            byte: 0,
            offset: 0,
            head,
            skip: head.seq,
            until: 0,
            ended: false,
            _holds: None,
        }
    }

    /// The chain up to the last envelope yielded.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Walks to the end.
    pub fn verify(mut self) -> Result<Verified, LogError> {
        let mut events = 0;
        for envelope in self.by_ref() {
            envelope?;
            events += 1;
        }
        Ok(Verified { events, head: self.head })
    }

    /// Reads the next record without decoding its event and hands it to `take`; `None` at the end.
    pub fn advance<T>(&mut self, take: impl FnOnce(&Record) -> T) -> Result<Option<T>, LogError> {
        while !self.ended {
            let chunk = match &self.chunk {
                Some(chunk) if self.offset < chunk.bytes.len() => chunk,
                _ => {
                    // Until there is a next chunk, an error or the end is final.
                    self.ended = true;
                    let Some(chunk) = self.chunks.next().transpose()? else {
                        let due = self.head.seq + 1;
                        let missing = Fault::Truncated { have: 0, need: FRAMING };
                        return match due <= self.until {
                            true => Err(LogError::corrupt(due, 0, missing, Place::Page(due))),
                            false => Ok(None),
                        };
                    };
                    (self.ended, self.offset) = (false, 0);
                    self.chunk.insert(chunk)
                }
            };
            let skipped = if chunk.first <= self.skip {
                let mut end = self.offset;
                header(&chunk.bytes, &mut end).ok().filter(|record| record.seq <= self.skip).map(|_| end)
            } else {
                None
            };
            if let Some(end) = skipped {
                self.offset = end;
                continue;
            }
            self.byte = self.offset;
            let record = self.head.accept(&chunk.bytes, &mut self.offset).map_err(|error| {
                self.ended = true;
                located(error, chunk.place)
            })?;
            return Ok(Some(take(&record)));
        }
        Ok(None)
    }
}

impl Iterator for Scan {
    type Item = Result<Envelope, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let envelope = self.advance(|record| record.envelope()).transpose()?;
        Some(envelope.and_then(|envelope| {
            envelope.map_err(|error| {
                self.ended = true;
                let place = self.chunk.as_ref().map_or(Place::Page(0), |chunk| chunk.place);
                LogError::corrupt(self.head.seq, self.byte, error.into(), place)
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Event;
    use crate::core::time::Timestamp;
    use crate::log::OpenOptions;
    use crate::wire::envelope::Group;

    /// A damaged store can end an iteration before its last page, and still find that page by its key.
    #[test]
    fn a_scan_that_ends_before_the_log_does_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
        let mut log = Log::open(dir.path(), &options).unwrap().log;
        let mut group = Group::default();
        for _ in 0..3 {
            group.push(&Event::TimePassed, Timestamp(1)).unwrap();
            log.append(&group).unwrap();
            group.appended();
        }
        let reader = log.reader();
        let scans = [1, 2, 3].map(|from| reader.scan(from).unwrap());
        reader.pages.remove(3u64.to_be_bytes()).unwrap().unwrap();
        for scan in scans {
            let error = scan.verify().unwrap_err();
            assert_eq!(error.seq(), Some(3));
            assert!(
                error.to_string().starts_with("log corrupt at seq 3, byte 0 of page 3: truncated"),
                "{error}"
            );
        }
        assert_eq!(reader.scan(1).unwrap().verify().unwrap().events, 2);
    }
}
