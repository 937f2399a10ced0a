use super::*;

fn started(n: u64) -> Event {
    Event::DaemonStarted { build: format!("build {n}") }
}

/// `n` records, and where each begins.
fn chain(n: u64) -> (Vec<u8>, Vec<usize>) {
    let mut group = Group::after(Head::default());
    for i in 1..=n {
        group.push(&started(i), Timestamp(1_000 + i)).unwrap();
    }
    let starts = std::iter::once(0).chain(group.ends().iter().copied()).take(n as usize).collect();
    (group.bytes().to_vec(), starts)
}

/// Walks all of `bytes`; the first error, as people read it.
fn walk(bytes: &[u8]) -> Result<Head, EnvelopeError> {
    let (mut head, mut offset) = (Head::default(), 0);
    while offset < bytes.len() {
        let seq = head.seq + 1;
        let byte = offset;
        let record = head.accept(bytes, &mut offset)?;
        record.event().map_err(|error| EnvelopeError { seq, byte, fault: error.into() })?;
    }
    Ok(head)
}

/// Makes the hash of the record at `start` right again.
fn rehash(bytes: &mut [u8], start: usize) {
    let end = start + 4 + u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap()) as usize;
    let hash = hash(&bytes[start..end - HASH]);
    bytes[end - HASH..end].copy_from_slice(&hash.0);
}

#[test]
fn records_read_back_one_after_another() {
    let (bytes, starts) = chain(3);
    let (mut offset, mut prev) = (0, Digest::default());
    for (i, start) in starts.iter().enumerate() {
        assert_eq!(offset, *start);
        let envelope = decode(&bytes, &mut offset).unwrap();
        let seq = i as u64 + 1;
        assert_eq!((envelope.seq, envelope.at, envelope.prev), (seq, Timestamp(1_000 + seq), prev));
        assert_eq!(envelope.event, started(seq));
        prev = envelope.hash;
    }
    assert_eq!(offset, bytes.len());
    assert_eq!(walk(&bytes).unwrap().hash, prev);
}

/// The bytes of format 1, for ever.
#[test]
fn the_layout_is_fixed() {
    let mut bytes = vec![];
    let hash = encode(&Event::TimePassed, 2, Timestamp(3), Digest([7; 32]), &mut bytes).unwrap();
    let mut expected = vec![84, 0, 0, 0, 1, 9, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
    expected.extend_from_slice(&[7; 32]);
    let mut hashed = expected.clone();
    expected.push(0x80);
    hashed.extend_from_slice(blake3::hash(&[0x80]).as_bytes());
    expected.extend_from_slice(blake3::hash(&hashed).as_bytes());
    assert_eq!(bytes, expected);
    assert_eq!(hash.0, expected[expected.len() - 32..]);
}

#[test]
fn every_changed_bit_is_found_in_its_record() {
    let (bytes, starts) = chain(3);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let error = walk(&damaged).unwrap_err();
            let record = starts.partition_point(|start| *start <= at);
            assert_eq!(
                (error.seq, error.byte),
                (record as u64, starts[record - 1]),
                "byte {at} bit {bit}: {error}"
            );
        }
    }
}

#[test]
fn a_cut_is_found_unless_it_is_between_records() {
    let (bytes, starts) = chain(3);
    for end in 1..bytes.len() {
        let record = starts.partition_point(|start| *start < end) as u64;
        match walk(&bytes[..end]) {
            Ok(head) => assert!(starts.contains(&end) && head.seq == record, "cut at {end}"),
            Err(error) => assert_eq!(error.seq, record, "cut at {end}: {error}"),
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let (bytes, starts) = chain(12);
    let record =
        |seq: usize| bytes[starts[seq - 1]..starts.get(seq).copied().unwrap_or(bytes.len())].to_vec();
    let joined = |seqs: &[usize]| seqs.iter().flat_map(|seq| record(*seq)).collect::<Vec<_>>();
    let changed = |seq: usize, at: usize, to: u8| {
        let mut all = bytes.clone();
        all[starts[seq - 1] + at] = to;
        rehash(&mut all, starts[seq - 1]);
        all
    };
    let said = |bytes: &[u8]| walk(bytes).unwrap_err().to_string();

    assert_eq!(said(&joined(&[1, 2, 4, 3])), "log corrupt at seq 3, byte 204: previous-hash mismatch");
    assert_eq!(said(&joined(&[1, 2, 2])), "log corrupt at seq 3, byte 204: previous-hash mismatch");
    assert_eq!(said(&joined(&[2])), "log corrupt at seq 1, byte 0: previous-hash mismatch");
    assert_eq!(said(&changed(2, 7, 9)), "log corrupt at seq 2, byte 102: the record there is numbered 9");
    assert_eq!(
        said(&changed(2, 15, 0)),
        "log corrupt at seq 2, byte 102: recorded 233 ms before its predecessor"
    );
    assert_eq!(said(&changed(7, 6, 99)), "seq 7 uses event version 99; this build reads 1 to 1");
    assert_eq!(said(&changed(7, 4, 2)), "seq 7 uses envelope format 2; this build reads 1 to 1");
    assert_eq!(
        said(&changed(7, 5, 99)),
        "seq 7 is of kind 99, which this build does not know; use a newer sluice"
    );
    assert_eq!(
        said(&bytes[..bytes.len() - 7]),
        "log corrupt at seq 12, byte 1,124: truncated, 96 of 103 bytes are there"
    );
    assert_eq!(said(&[255; 200]), "log corrupt at seq 1, byte 0: length 4294967299 is outside 87 to 65536");
}

#[test]
fn a_record_above_the_limit_leaves_the_group_as_it_was() {
    let mut group = Group::after(Head::default());
    group.push(&started(1), Timestamp(1)).unwrap();
    let before = group.clone();
    let error =
        group.push(&Event::DaemonStarted { build: "x".repeat(RECORD_MAX) }, Timestamp(2)).unwrap_err();
    assert_eq!(error.to_string(), "a daemon.started event takes 65635 bytes in the log, the limit is 65536");
    assert_eq!((group.bytes(), group.head(), group.len()), (before.bytes(), before.head(), 1));
    // The payload around the text: a map, a name, a 16-bit length.
    let most = RECORD_MAX - FRAMING - (1 + 6 + 3);
    assert!(group.push(&Event::DaemonStarted { build: "x".repeat(most) }, Timestamp(2)).is_ok());
    assert_eq!(group.bytes().len() - before.bytes().len(), RECORD_MAX);
}

/// Recorded time stands still while the clock is behind it.
#[test]
fn recorded_time_never_goes_back() {
    let mut group = Group::after(Head::default());
    for at in [5, 3, 7] {
        group.push(&Event::TimePassed, Timestamp(at)).unwrap();
    }
    assert_eq!(walk(group.bytes()).unwrap().at, Timestamp(7));
    let mut offset = group.ends()[0];
    assert_eq!(decode(group.bytes(), &mut offset).unwrap().at, Timestamp(5));
}

#[test]
fn nothing_follows_the_last_number_there_is() {
    let last = Head { seq: u64::MAX, ..Head::default() };
    for seq in [0, 1, u64::MAX] {
        let mut bytes = vec![];
        encode(&Event::TimePassed, seq, Timestamp(1), last.hash, &mut bytes).unwrap();
        let (mut head, mut offset) = (last, 0);
        let error = head.accept(&bytes, &mut offset).unwrap_err();
        assert_eq!((error.fault, head, offset), (Fault::Sequence(seq), last, 0));
    }
}
