//! A portable file with the same records as the log.
//!
//! ```text
//! header   magic 8 | format u8 | log id 16 | first u64 | last u64 | hash before the first 32 |
//!          hash of the last 32 | BLAKE3 of these
//! block    'B' | first u64 | raw length u32 | packed length u32 | packed | BLAKE3 of the block so far
//! trailer  'E' | events u64 | BLAKE3 of the trailer so far
//! ```
//! Integers are little endian. A block holds about 1 MiB of consecutive records (`wire::envelope`) as
//! one zstd frame; each can be read without the others. The trailer ends the file, so that a shorter
//! one is noticed; the records' own chain ends at the header's last hash.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use uuid::Uuid;

use super::{Chunk, Log, LogError, OpenOptions, Place, Reader, Scan, Verified};
use crate::core::ids::{Digest, EventSeq};
use crate::core::time::Timestamp;
use crate::wire::envelope::{Fault, Group, Head, RECORD_MAX, header};

const MAGIC: &[u8; 8] = b"SLUICELG";
const FORMAT: u8 = 1;
const HEADER: usize = 8 + 1 + 16 + 8 + 8 + 32 + 32 + 32;
const BLOCK: u8 = b'B';
const END: u8 = b'E';
/// Records are gathered up to this size; the last one may pass it.
const BLOCK_TARGET: usize = 1 << 20;
const BLOCK_MAX: usize = BLOCK_TARGET + RECORD_MAX;

/// Writes the events of `range` (clipped to the log) to `out`, each checked on the way.
pub fn export(
    reader: &Reader,
    log: Uuid,
    range: RangeInclusive<EventSeq>,
    out: &mut dyn Write,
) -> Result<Verified, LogError> {
    let (first, last) = (*range.start().max(&1), reader.head()?.seq.min(*range.end()));
    if first > last {
        return Err(LogError::Empty { path: None });
    }
    let before = reader.head_at(first - 1)?.unwrap_or_default();
    let end = reader.head_at(last)?.unwrap_or_default();
    let mut out = Out(out);
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(MAGIC);
    header.push(FORMAT);
    header.extend_from_slice(log.as_bytes());
    header.extend_from_slice(&first.to_le_bytes());
    header.extend_from_slice(&last.to_le_bytes());
    header.extend_from_slice(&before.hash.0);
    header.extend_from_slice(&end.hash.0);
    out.hashed(header)?;

    let mut scan = reader.scan(first)?;
    let mut raw = Vec::with_capacity(BLOCK_MAX);
    let mut block_first = first;
    while scan.head().seq < last && scan.advance(|record| raw.extend_from_slice(record.bytes))?.is_some() {
        if raw.len() >= BLOCK_TARGET || scan.head().seq == last {
            out.block(block_first, &raw)?;
            raw.clear();
            block_first = scan.head().seq + 1;
        }
    }
    let head = scan.head();
    let events = last - first + 1;
    let mut trailer = vec![END];
    trailer.extend_from_slice(&events.to_le_bytes());
    out.hashed(trailer)?;
    out.flush()?;
    Ok(Verified { events, head })
}

struct Out<'a>(&'a mut dyn Write);

impl Out<'_> {
    fn block(&mut self, first: EventSeq, raw: &[u8]) -> Result<(), LogError> {
        let packed = compress_to_vec(raw, CompressionLevel::Fastest);
        let mut block = Vec::with_capacity(packed.len() + 64);
        block.push(BLOCK);
        block.extend_from_slice(&first.to_le_bytes());
        block.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        block.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        block.extend_from_slice(&packed);
        self.hashed(block)
    }

    /// Writes `bytes` and their hash.
    fn hashed(&mut self, mut bytes: Vec<u8>) -> Result<(), LogError> {
        let hash = Digest::of(&bytes);
        bytes.extend_from_slice(&hash.0);
        self.0.write_all(&bytes).map_err(|cause| LogError::io("writing the export", cause))
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.0.flush().map_err(|cause| LogError::io("writing the export", cause))
    }
}

/// An exported file, opened: its header is sound.
pub struct Export {
    input: BufReader<File>,
    pub log: Uuid,
    pub first: EventSeq,
    pub last: EventSeq,
    /// Hash of the record before the first, zero when that is seq 1.
    pub before: Digest,
    pub head: Digest,
}

impl Export {
    pub fn open(path: &Path) -> Result<Export, LogError> {
        let reading = |cause| LogError::io("reading the export", cause);
        let mut input = BufReader::new(File::open(path).map_err(reading)?);
        let mut bytes = Vec::with_capacity(HEADER);
        input.by_ref().take(HEADER as u64).read_to_end(&mut bytes).map_err(reading)?;
        let not = |why| LogError::NotAnExport { path: path.to_owned(), why };
        if bytes.is_empty() {
            return Err(LogError::Empty { path: Some(path.to_owned()) });
        }
        if !bytes.starts_with(MAGIC) {
            return Err(not("it does not begin as one"));
        }
        let Some((body, hash)) = bytes.split_at_checked(HEADER - 32).filter(|_| bytes.len() == HEADER) else {
            return Err(not("its header is cut short"));
        };
        if Digest::of(body).0 != hash {
            return Err(not("its header is damaged (hash mismatch in bytes 0 to 136)"));
        }
        if body[8] != FORMAT {
            return Err(LogError::Format { found: u32::from(body[8]), newest: u32::from(FORMAT) });
        }
        let u64_at = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("8 bytes"));
        let digest = |at: usize| Digest(body[at..at + 32].try_into().expect("32 bytes"));
        // The first event of a log is 1; one event follows the last.
        let (first, last) = (u64_at(25), u64_at(33));
        if first == 0 || last < first || last == EventSeq::MAX {
            return Err(not("its header names no range of events"));
        }
        Ok(Export {
            log: Uuid::from_slice(&body[9..25]).expect("16 bytes"),
            first,
            last,
            before: digest(41),
            head: digest(73),
            input,
        })
    }

    /// The events, each checked to continue the chain. The end of the file is checked as well.
    pub fn scan(self) -> Scan {
        let before = self.start();
        Scan::new(Box::new(self.chunks()), before)
    }

    /// The chain before the first record.
    fn start(&self) -> Head {
        Head { seq: self.first - 1, at: Timestamp(0), hash: self.before }
    }

    /// The blocks, unpacked. After an error the iterator ends.
    pub fn chunks(self) -> impl Iterator<Item = Result<Chunk, LogError>> + Send {
        let mut blocks = Blocks { byte: HEADER as u64, head: self.start(), ended: false, export: self };
        std::iter::from_fn(move || {
            if blocks.ended {
                return None;
            }
            let next = blocks.next().transpose();
            blocks.ended = !matches!(next, Some(Ok(_)));
            next
        })
    }
}

struct Blocks {
    export: Export,
    /// Offset of the next block in the file.
    byte: u64,
    /// The chain before the next block.
    head: Head,
    ended: bool,
}

impl Blocks {
    fn next(&mut self) -> Result<Option<Chunk>, LogError> {
        let place = Place::Block(self.byte);
        let start = self.head;
        let cut = |why| LogError::Cut { seq: start.seq, why };
        let bad = |fault| LogError::corrupt(start.seq + 1, 0, fault, place);
        let mut bytes = vec![];
        self.read(&mut bytes, 1)?;
        match bytes.first() {
            None => return Err(cut("the file ends without a trailer")),
            Some(&END) => return self.trailer(bytes, place).map(|()| None),
            Some(&BLOCK) => {}
            Some(_) => return Err(bad(Fault::Hash)),
        }
        self.read(&mut bytes, 16)?;
        if bytes.len() < 17 {
            return Err(cut("the file ends within a block"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize;
        let first = u64::from_le_bytes(bytes[1..9].try_into().expect("8 bytes"));
        let (raw, packed) = (u32_at(9), u32_at(13));
        // Compression that gains nothing costs three bytes per 128 KiB and a small header.
        if raw > BLOCK_MAX || packed > BLOCK_MAX + BLOCK_MAX / 64 {
            return Err(bad(Fault::Hash));
        }
        self.read(&mut bytes, packed + 32)?;
        if bytes.len() < 17 + packed + 32 {
            return Err(cut("the file ends within a block"));
        }
        let (block, hash) = bytes.split_at(17 + packed);
        let sound = Digest::of(block).0 == hash;
        let records = unpack(&block[17..], raw);
        // The chain tells how far a damaged block still reads, which locates the damage. A sound block
        // is walked by whoever reads it.
        if !sound || records.len() != raw || first != start.seq + 1 {
            let (mut head, mut offset) = (start, 0);
            while offset < records.len() {
                head.accept(&records, &mut offset).map_err(|error| LogError::Corrupt { error, place })?;
            }
            return Err(bad(Fault::Hash));
        }
        self.byte += bytes.len() as u64;
        let mut offset = 0;
        while offset < records.len() {
            let last = header(&records, &mut offset).map_err(|error| LogError::Corrupt { error, place })?;
            self.head = last.head();
        }
        Ok(Some(Chunk { first, place, bytes: records.into() }))
    }

    fn trailer(&mut self, mut bytes: Vec<u8>, place: Place) -> Result<(), LogError> {
        let cut = |why| LogError::Cut { seq: self.head.seq, why };
        let export = &mut self.export;
        let reading = |cause| LogError::io("reading the export", cause);
        export.input.by_ref().take(8 + 32 + 1).read_to_end(&mut bytes).map_err(reading)?;
        if bytes.len() < 1 + 8 + 32 {
            return Err(cut("the file ends within its trailer"));
        }
        let events = u64::from_le_bytes(bytes[1..9].try_into().expect("8 bytes"));
        let sound = bytes.len() == 41 && Digest::of(&bytes[..9]).0 == bytes[9..41];
        if !sound || events != (self.head.seq + 1).wrapping_sub(export.first) {
            return Err(LogError::corrupt(self.head.seq + 1, 0, Fault::Hash, place));
        }
        if (self.head.seq, self.head.hash) != (export.last, export.head) {
            return Err(cut("it does not end where its header says"));
        }
        Ok(())
    }

    fn read(&mut self, bytes: &mut Vec<u8>, more: usize) -> Result<(), LogError> {
        let read = self.export.input.by_ref().take(more as u64).read_to_end(bytes);
        read.map(drop).map_err(|cause| LogError::io("reading the export", cause))
    }
}

/// Unpacks one frame, as far as it can be; at most `raw` bytes and one more.
fn unpack(packed: &[u8], raw: usize) -> Vec<u8> {
    let mut records = Vec::with_capacity(raw);
    if let Ok(decoder) = StreamingDecoder::new(packed) {
        // What is missing after an error is missed by the caller, who knows the length.
        let _ = decoder.take(raw as u64 + 1).read_to_end(&mut records);
    }
    records
}

/// Makes a data folder of an exported file that begins with seq 1. `dir` must be empty or not exist.
pub fn import(path: &Path, dir: &Path, options: &OpenOptions) -> Result<Verified, LogError> {
    let export = Export::open(path)?;
    if export.first != 1 {
        return Err(LogError::NotFromTheStart(export.first));
    }
    let mut entries = match fs::read_dir(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(|cause| LogError::io("reading the folder", cause))?),
    };
    if entries.as_mut().and_then(Iterator::next).is_some() {
        return Err(LogError::NotEmpty(dir.to_owned()));
    }
    // Under another name until it is whole: half an import must not pass for a log.
    let mut staging = dir.as_os_str().to_owned();
    staging.push(".importing");
    let staging = PathBuf::from(staging);
    let failed = |cause| LogError::io("creating the data folder", cause);
    fs::create_dir(&staging).map_err(failed)?;
    let options = OpenOptions { create: true, log_id: Some(export.log), ..options.clone() };
    let imported = fill(export, &staging, &options);
    if imported.is_err() {
        fs::remove_dir_all(&staging).map_err(failed)?;
    } else {
        fs::rename(&staging, dir).map_err(failed)?;
        super::sync_parent(dir).map_err(failed)?;
    }
    imported
}

fn fill(export: Export, dir: &Path, options: &OpenOptions) -> Result<Verified, LogError> {
    let mut log = Log::open(dir, options)?.log;
    let mut group = Group::after(log.head());
    let mut scan = export.scan();
    while let Some(pushed) = scan.advance(|record| group.push_stored(record))? {
        pushed.expect("the scan has checked the chain");
        if group.bytes().len() >= super::GROUP_BYTES {
            log.append(&group)?;
            group.appended();
        }
    }
    log.append(&group)?;
    let head = group.head();
    log.close()?;
    Ok(Verified { events: head.seq, head })
}

/// Recorded history to read: a data folder that no daemon holds, or an exported file.
pub enum History {
    Folder(Box<Log>),
    File(Export),
}

impl History {
    /// Opens either; a folder is not created.
    pub fn open(path: &Path) -> Result<History, LogError> {
        if path.is_dir() {
            let options = OpenOptions { create: false, ballast: 0, ..OpenOptions::default() };
            return Ok(History::Folder(Box::new(Log::open(path, &options)?.log)));
        }
        Export::open(path).map(History::File)
    }

    pub fn log_id(&self) -> Uuid {
        match self {
            History::Folder(log) => log.id(),
            History::File(export) => export.log,
        }
    }

    /// All events, each checked to continue the chain; a folder stays open as long as the scan lives.
    /// A history without events is an error.
    pub fn scan(self) -> Result<Scan, LogError> {
        match self {
            History::Folder(log) if log.head().seq == 0 => Err(LogError::Empty { path: None }),
            History::Folder(log) => {
                let mut scan = log.reader().scan(1)?;
                scan._holds = Some(log);
                Ok(scan)
            }
            History::File(export) => Ok(export.scan()),
        }
    }

    /// Walks the whole chain, payloads included, and names the first bad record.
    pub fn verify(self) -> Result<Verified, LogError> {
        self.scan()?.verify()
    }
}
