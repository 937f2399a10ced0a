//! One stored record: an event with its place in the chain.
//!
//! ```text
//! length u32 | format u8 | kind u8 | version u8 | sequence u64 | recorded at u64 | previous hash 32 |
//! payload | hash 32
//! ```
//! Integers are little endian; `length` counts everything after itself; `hash` is BLAKE3 of the header (all before the
//! payload, the length included) and of the payload's own BLAKE3 hash, so that a chain verifies where a payload has been
//! archived and only its hash is left. Records follow each other without gaps, in a page of the log as in
//! an exported file. Every format to come keeps the length first, the format byte after it and the
//! hash, made alike, last, so that a damaged record is told from one of the future.
//!
//! Invariant: [`Head::accept`] lets a record through only if it continues the chain.
//! Not here: where records are kept (`shell::log`), what a payload holds (`events`).

use std::fmt;

use super::events::{self, PayloadError};
use crate::core::event::Event;
use crate::core::ids::{Digest, EventSeq};
use crate::core::text::count;
use crate::core::time::Timestamp;

/// The envelope format this build writes, and the newest it reads.
pub const FORMAT: u8 = 1;
/// Largest record in bytes, framing included. A larger one would leave the pages whose durability is
/// known, so whoever makes events splits them.
pub const RECORD_MAX: usize = 64 * 1024;
const HEADER: usize = 4 + 3 + 8 + 8 + 32;
const HASH: usize = 32;
/// Bytes around a payload.
pub const FRAMING: usize = HEADER + HASH;

/// The end of a chain: what the next record must continue. The default is an empty log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub seq: EventSeq,
    pub at: Timestamp,
    pub hash: Digest,
}

/// One stored event.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    pub seq: EventSeq,
    /// When it was recorded; never before its predecessor.
    pub at: Timestamp,
    pub prev: Digest,
    pub hash: Digest,
    pub event: Event,
}

/// A record whose payload has not been decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: u8,
    pub version: u8,
    pub seq: EventSeq,
    pub at: Timestamp,
    pub prev: Digest,
    pub hash: Digest,
    pub payload: &'a [u8],
    /// The whole record as stored.
    pub bytes: &'a [u8],
}

/// What is wrong with a record, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeError {
    /// The sequence the record should have by its place or, out of context, the one it claims;
    /// 0 when it is too short to claim any.
    pub seq: EventSeq,
    /// Where the record begins in the bytes given.
    pub byte: usize,
    pub fault: Fault,
}

/// What can be wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("hash mismatch")]
    Hash,
    #[error("previous-hash mismatch")]
    Previous,
    #[error("truncated, {have} of {need} bytes are there")]
    Truncated { have: usize, need: usize },
    #[error("length {0} is outside {FRAMING} to {RECORD_MAX}")]
    Length(usize),
    #[error("the record there is numbered {0}")]
    Sequence(EventSeq),
    #[error("recorded {0} ms before its predecessor")]
    Time(u64),
    #[error("uses envelope format {0}; this build reads 1 to {FORMAT}")]
    Format(u8),
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

impl Fault {
    /// Whether the record is sound but of another build than this one.
    pub fn is_from_the_future(&self) -> bool {
        matches!(
            self,
            Fault::Format(_)
                | Fault::Payload(
                    PayloadError::Version { .. } | PayloadError::Kind(_) | PayloadError::Engine(_)
                )
        )
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seq = count(self.seq);
        if self.fault.is_from_the_future() {
            return write!(f, "seq {seq} {}", self.fault);
        }
        write!(f, "log corrupt at seq {seq}, byte {}: {}", count(self.byte as u64), self.fault)
    }
}

impl std::error::Error for EnvelopeError {}

/// Appends the record of `event` to `out` and returns its hash.
///
/// Errors: [`TooLarge`] when it would exceed [`RECORD_MAX`]; `out` is as before then.
pub fn encode(
    event: &Event,
    seq: EventSeq,
    at: Timestamp,
    prev: Digest,
    out: &mut Vec<u8>,
) -> Result<Digest, TooLarge> {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, FORMAT, 0, 0]);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&at.0.to_le_bytes());
    out.extend_from_slice(&prev.0);
    let (kind, version) = events::encode(event, out).expect("events are made of encodable types");
    let bytes = out.len() - start + HASH;
    if bytes > RECORD_MAX {
        out.truncate(start);
        return Err(TooLarge { kind: event.kind(), bytes });
    }
    out[start..start + 4].copy_from_slice(&(bytes as u32 - 4).to_le_bytes());
    out[start + 5..start + 7].copy_from_slice(&[kind, version]);
    let hash = hash(&out[start..]);
    out.extend_from_slice(&hash.0);
    Ok(hash)
}

/// The hash that ends a record. `bytes`: the record up to there, at least its header.
pub fn hash(bytes: &[u8]) -> Digest {
    let (header, payload) = bytes.split_at(HEADER);
    let mut hashed = [0; HEADER + HASH];
    hashed[..HEADER].copy_from_slice(header);
    hashed[HEADER..].copy_from_slice(&Digest::of(payload).0);
    Digest::of(&hashed)
}

/// An event that does not fit a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} event takes {bytes} bytes in the log, the limit is {RECORD_MAX}")]
pub struct TooLarge {
    pub kind: &'static str,
    pub bytes: usize,
}

/// Reads the framing of the record at `offset` and moves `offset` behind it. The hash is not checked.
pub fn header<'a>(bytes: &'a [u8], offset: &mut usize) -> Result<Record<'a>, EnvelopeError> {
    let rest = bytes.get(*offset..).unwrap_or_default();
    let u64_at = |at: usize| rest.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")));
    let fault = |fault| EnvelopeError { seq: u64_at(7).unwrap_or(0), byte: *offset, fault };
    let have = rest.len();
    if have < HEADER {
        return Err(fault(Fault::Truncated { have, need: FRAMING }));
    }
    let need = 4 + u32::from_le_bytes(rest[..4].try_into().expect("4 bytes")) as usize;
    if !(FRAMING..=RECORD_MAX).contains(&need) {
        return Err(fault(Fault::Length(need)));
    }
    if have < need {
        return Err(fault(Fault::Truncated { have, need }));
    }
    let bytes = &rest[..need];
    let digest = |at: usize| Digest(bytes[at..at + HASH].try_into().expect("32 bytes"));
    if bytes[4] != FORMAT {
        // Only a sound record of another format deserves to be called that.
        let sound = hash(&bytes[..need - HASH]) == digest(need - HASH);
        return Err(fault(if sound { Fault::Format(bytes[4]) } else { Fault::Hash }));
    }
    let record = Record {
        kind: bytes[5],
        version: bytes[6],
        seq: u64_at(7).expect("HEADER bytes"),
        at: Timestamp(u64_at(15).expect("HEADER bytes")),
        prev: digest(23),
        hash: digest(need - HASH),
        payload: &bytes[HEADER..need - HASH],
        bytes,
    };
    *offset += need;
    Ok(record)
}

/// Reads and checks the record at `offset`, decodes its event, and moves `offset` behind it.
pub fn decode(bytes: &[u8], offset: &mut usize) -> Result<Envelope, EnvelopeError> {
    let byte = *offset;
    let record = header(bytes, offset)?;
    let fault = |fault| EnvelopeError { seq: record.seq, byte, fault };
    if !record.is_sound() {
        return Err(fault(Fault::Hash));
    }
    record.envelope().map_err(|error| fault(error.into()))
}

impl Record<'_> {
    /// Whether the hash is that of the bytes.
    pub fn is_sound(&self) -> bool {
        hash(&self.bytes[..self.bytes.len() - HASH]) == self.hash
    }

    /// Decodes the payload.
    pub fn event(&self) -> Result<Event, PayloadError> {
        events::decode(self.kind, self.version, self.payload)
    }

    /// Decodes the payload and keeps the record's place in the chain.
    pub fn envelope(&self) -> Result<Envelope, PayloadError> {
        let Record { seq, at, prev, hash, .. } = *self;
        Ok(Envelope { seq, at, prev, hash, event: self.event()? })
    }

    /// The chain up to and with this record.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, at: self.at, hash: self.hash }
    }

    /// The chain before this record, as far as the record tells.
    pub fn before(&self) -> Head {
        Head { seq: self.seq.wrapping_sub(1), at: Timestamp(0), hash: self.prev }
    }
}

impl Head {
    /// Reads the record at `offset`, checks that it continues the chain, and moves both behind it.
    /// On an error neither moves, and the error names the sequence that was due.
    pub fn accept<'a>(&mut self, bytes: &'a [u8], offset: &mut usize) -> Result<Record<'a>, EnvelopeError> {
        let byte = *offset;
        // Behind the last number there is is 0, which no record has: a file may claim to begin anywhere.
        let seq = self.seq.wrapping_add(1);
        let due = |fault| EnvelopeError { seq, byte, fault };
        let mut end = byte;
        let record = header(bytes, &mut end).map_err(|error| due(error.fault))?;
        let fault = if !record.is_sound() {
            Some(Fault::Hash)
        } else if record.prev != self.hash {
            Some(Fault::Previous)
        } else if record.seq != seq || seq == 0 {
            Some(Fault::Sequence(record.seq))
        } else if record.at < self.at {
            Some(Fault::Time(self.at.0 - record.at.0))
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(due(fault));
        }
        *self = record.head();
        *offset = end;
        Ok(record)
    }
}

/// Records on their way into the log: encoded one after another, appended together, reused.
#[derive(Clone, Debug, Default)]
pub struct Group {
    start: Head,
    head: Head,
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`.
    ends: Vec<usize>,
}

impl Group {
    /// An empty group that continues the log after `head`.
    pub fn after(head: Head) -> Group {
        Group { start: head, head, ..Group::default() }
    }

    /// Encodes `event` as the next record, recorded at `at`, and returns its sequence. The time in the
    /// log never goes back: a time before the last record's counts as the last record's.
    pub fn push(&mut self, event: &Event, at: Timestamp) -> Result<EventSeq, TooLarge> {
        let (seq, at) = (self.head.seq + 1, at.max(self.head.at));
        let hash = encode(event, seq, at, self.head.hash, &mut self.bytes)?;
        self.head = Head { seq, at, hash };
        self.ends.push(self.bytes.len());
        Ok(seq)
    }

    /// Takes over a record as it is stored elsewhere.
    ///
    /// Errors: when it does not continue the chain.
    pub fn push_stored(&mut self, record: &Record) -> Result<(), EnvelopeError> {
        self.head.accept(record.bytes, &mut 0)?;
        self.bytes.extend_from_slice(record.bytes);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// Empties the group after it was appended; what comes next continues where it ended.
    pub fn appended(&mut self) {
        self.start = self.head;
        self.bytes.clear();
        self.ends.clear();
    }

    /// The chain before the first record of the group.
    pub fn start(&self) -> Head {
        self.start
    }

    /// The chain with all records of the group.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The records, framed one after another.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each record ends in [`Group::bytes`].
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }
}

#[cfg(test)]
mod tests;
