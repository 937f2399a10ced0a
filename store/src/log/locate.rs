//! Where a store that does not open is damaged. sled often only says that it is.
//!
//! It keeps three kinds of files, each with checksums: `conf`, snapshots of its page table (`snap.*`), and `db`: segments
//! of 512 KiB, each a header and then messages one after another. These are walked by the checksums alone, and the
//! first place where they do not match is named. Reads only, and only after opening or reading has failed: what was
//! damaged may since have been overwritten with zeros, for sled takes it for a torn end; then the place is where
//! what can be read ends.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::LogError;
use crate::core::text::count;

const SEGMENT: usize = 512 << 10;
const SEGMENT_HEADER: usize = 20;
/// Closer to the end of a segment no message begins.
const MESSAGE_HEADER_MAX: usize = 32;
const SNAPSHOT_TAIL: usize = 8 + 4;
/// Kinds of messages: padding to the end of a segment, and the last kind there is.
const CAP: u8 = 2;
const KIND_MAX: u8 = 11;

/// Adds the place to an error that has none.
pub fn located(error: LogError, store: &Path) -> LogError {
    match error {
        LogError::Damaged { why, place: None } => LogError::Damaged { why, place: Some(place(store)) },
        other => other,
    }
}

/// The first place whose checksum does not match, in words.
fn place(store: &Path) -> String {
    let place = small_file(store).or_else(|| data(&store.join("db")));
    place.unwrap_or_else(|| "its files, which cannot be read".into())
}

/// The settings, and the snapshots.
fn small_file(store: &Path) -> Option<String> {
    let mut names: Vec<_> =
        fs::read_dir(store).ok()?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort();
    for name in names {
        let name = name.to_string_lossy();
        let tail = match &*name {
            "conf" => 4,
            name if name.starts_with("snap.") => SNAPSHOT_TAIL,
            _ => continue,
        };
        let bytes = fs::read(store.join(&*name)).ok()?;
        let sound = bytes.len().checked_sub(tail).is_some_and(|body| {
            let check = bytes[bytes.len() - 4..].try_into().expect("4 bytes");
            crc32(&[&bytes[..body]]) == u32::from_le_bytes(check)
        });
        if !sound {
            return Some(format!("sled/{name}, bytes 0 to {}", count(bytes.len() as u64)));
        }
    }
    None
}

/// How far a segment reads.
struct Extent {
    /// Which it is in the order of writing.
    number: u64,
    /// Where the last sound message ends.
    end: usize,
    /// It reads to its end.
    full: bool,
    /// What follows is something, and not sound.
    torn: bool,
}

fn data(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    let mut extents = Vec::new();
    let mut segment = vec![0; SEGMENT];
    for at in (0..bytes as usize).step_by(SEGMENT) {
        segment.resize(SEGMENT.min(bytes as usize - at), 0);
        file.read_exact_at(&mut segment, at as u64).ok()?;
        extents.extend(extent(&segment, at));
        segment.resize(SEGMENT, 0);
    }
    let newest = extents.iter().map(|extent| extent.number).max().unwrap_or(0);
    // Only the newest segment may end anywhere, and what it was written over may follow.
    let older = || extents.iter().filter(|extent| extent.number < newest);
    let torn = older().find(|extent| extent.torn);
    let hole = || older().find(|extent| !extent.full);
    if let Some(extent) = torn.or_else(hole) {
        return Some(format!("sled/db, byte {}", count(extent.end as u64)));
    }
    let end = extents.iter().find(|extent| extent.number == newest).map_or(0, |extent| extent.end);
    Some(format!("sled/db, which reads up to byte {} of {}", count(end as u64), count(bytes)))
}

/// `None` where nothing was ever written.
fn extent(segment: &[u8], at: usize) -> Option<Extent> {
    if segment.iter().all(|byte| *byte == 0) {
        return None;
    }
    let header = segment.get(..SEGMENT_HEADER)?;
    let check = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
    if check != !crc32(&[&header[4..]]) {
        return Some(Extent { number: 0, end: at, full: false, torn: true });
    }
    let lsn = u64::from_le_bytes(header[4..12].try_into().expect("8 bytes")) ^ (u64::MAX >> 1);
    let number = lsn / SEGMENT as u64;
    let mut offset = SEGMENT_HEADER;
    while offset + MESSAGE_HEADER_MAX <= SEGMENT {
        match message(&segment[offset.min(segment.len())..], number) {
            Some((_, CAP)) => return Some(Extent { number, end: at + offset, full: true, torn: false }),
            Some((length, _)) => offset += length,
            None => {
                let torn = segment.get(offset..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0));
                return Some(Extent { number, end: at + offset, full: false, torn });
            }
        }
    }
    Some(Extent { number, end: at + offset, full: true, torn: false })
}

/// Length and kind of the message that `bytes` begin with, when it is sound and of this segment:
/// crc 4 | kind 1 | length | segment | page | body, the three numbers in 1 to 9 bytes.
fn message(bytes: &[u8], number: u64) -> Option<(usize, u8)> {
    let (check, kind) = (bytes.get(..4)?, *bytes.get(4)?);
    let mut body = 5;
    let length = usize::try_from(varint(bytes, &mut body)?).ok()?;
    let segment = varint(bytes, &mut body)?;
    varint(bytes, &mut body)?;
    let end = body.checked_add(length).filter(|_| (1..=KIND_MAX).contains(&kind) && segment == number)?;
    let computed = !crc32(&[bytes.get(body..end)?, &bytes[4..body]]);
    (computed == u32::from_le_bytes(check.try_into().expect("4 bytes"))).then_some((end, kind))
}

/// SQLite 4's integers, as sled writes them.
fn varint(bytes: &[u8], offset: &mut usize) -> Option<u64> {
    let first = *bytes.get(*offset)?;
    let byte = |i: usize| bytes.get(*offset + i).map(|byte| u64::from(*byte));
    let (value, size) = match first {
        0..=240 => (u64::from(first), 1),
        241..=248 => (240 + 256 * (u64::from(first) - 241) + byte(1)?, 2),
        249 => (2_288 + 256 * byte(1)? + byte(2)?, 3),
        _ => {
            let n = usize::from(first) - 247;
            let value = (1..=n).rev().try_fold(0_u64, |sum, i| Some(sum << 8 | byte(i)?))?;
            (value, n + 1)
        }
    };
    *offset += size;
    Some(value)
}

/// CRC-32 of ISO-HDLC over the parts, one after another.
fn crc32(parts: &[&[u8]]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)];
    !parts.iter().copied().flatten().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No false alarm: all of a store that is sound checks, however it came to be.
    #[test]
    fn a_sound_store_reads_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0_u64..3 {
            let db = sled::Config::new().path(dir.path()).flush_every_ms(None).open().unwrap();
            for i in 0..600 {
                db.insert((i * (round + 1)).to_be_bytes(), vec![i as u8; (i * 37 % 6_000) as usize]).unwrap();
                db.flush().unwrap();
            }
            drop(db);
            assert_eq!(small_file(dir.path()), None);
            let bytes = fs::metadata(dir.path().join("db")).unwrap().len();
            let said = data(&dir.path().join("db")).unwrap();
            assert!(bytes > 2 << 20 && said.starts_with("sled/db, which reads up to byte "), "{said}");
        }
    }

    #[test]
    fn the_checksum_is_the_common_one() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }
}
