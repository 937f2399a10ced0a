//! How a group of records becomes items of an ordered store, and items become records again.
//!
//! sled spends 7 to 15 us on an item whatever its size, and every byte of an item several times, so
//! records are gathered into pages. A page larger than one item is stored in parts: the key of the
//! first is the page's first sequence, the key of the others has the part's number behind it.

use std::ops::Range;

use super::envelope::Group;
use crate::core::ids::EventSeq;

/// Largest item in bytes. sled keeps up to 16 neighbouring items (19 while it merges) in one leaf, and
/// puts a leaf of 128 KiB or more in a file of its own that it never syncs: 20 * 6,400 stays below.
pub const PART_MAX: usize = 6_400;
/// Most items of one sled batch; with more its memory grows without bound.
pub const BATCH_ITEMS: usize = 256;
/// A group of this many bytes, and one record more, fits one batch however its records fall into pages:
/// at worst a page of 6,401 bytes takes two items and leaves its neighbour nearly empty, which makes
/// 3 * 512 KiB / 6,500 = 242 items, and the last record takes 11.
pub const GROUP_BYTES: usize = 512 << 10;

/// Cuts a group into pages of at most [`PART_MAX`] bytes; a record larger than that is a page alone.
pub fn cut(group: &Group) -> impl Iterator<Item = (EventSeq, Range<usize>)> + '_ {
    let ends = group.ends();
    let (mut record, mut start) = (0, 0);
    std::iter::from_fn(move || {
        let first = record;
        ends.get(first)?;
        record += 1;
        while record < ends.len() && ends[record] - start <= PART_MAX {
            record += 1;
        }
        let page = start..ends[record - 1];
        start = page.end;
        Some((group.start().seq + 1 + first as EventSeq, page))
    })
}

/// The items of all pages of a group, with their keys.
pub fn items(group: &Group) -> Vec<(Vec<u8>, &[u8])> {
    let mut items = Vec::new();
    for (first, page) in cut(group) {
        for (part, bytes) in group.bytes()[page].chunks(PART_MAX).enumerate() {
            let mut key = first.to_be_bytes().to_vec();
            key.extend((part > 0).then_some(part as u8));
            items.push((key, bytes));
        }
    }
    items
}

/// The page's first sequence and the part's number, 0 for the first.
///
/// Errors: a key that is none, by its length.
pub fn page_key(key: &[u8]) -> Result<(EventSeq, u8), String> {
    let (first, part) = match *key {
        [a, b, c, d, e, f, g, h] => ([a, b, c, d, e, f, g, h], 0),
        [a, b, c, d, e, f, g, h, part] => ([a, b, c, d, e, f, g, h], part),
        _ => return Err(format!("a page key has {} bytes", key.len())),
    };
    Ok((EventSeq::from_be_bytes(first), part))
}
