use super::super::{FormatError, RepoId};
use super::*;
use proptest::prelude::*;

fn ops() -> Vec<Op> {
    vec![Op::Put(b"key".to_vec(), vec![1, 2, 3]), Op::Delete(b"old".to_vec()), Op::Put(vec![0xff; 300], vec![])]
}

fn record(lsn: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_batch(&mut bytes, &mut Vec::new(), lsn, &ops().into());
    bytes
}

/// The record at the start of some bytes: its lsn and operations.
fn decode(rest: &[u8]) -> Result<Found<(u64, Vec<Op>)>, FormatError> {
    let mut spans = Vec::new();
    let bytes = |at: usize, len: usize| rest[at..at + len].to_vec();
    Ok(match read_record(rest, &mut spans)? {
        Found::Batch(lsn, whole) => {
            let op = |span: &OpSpan| match span.value {
                Some((at, len)) => Op::Put(bytes(span.key_at, span.key_len), bytes(at, len)),
                None => Op::Delete(bytes(span.key_at, span.key_len)),
            };
            Found::Batch((lsn, spans.iter().map(op).collect()), whole)
        }
        Found::End => Found::End,
        Found::Torn => Found::Torn,
    })
}

fn open<'a>(repo: &RepoId, file: &'a [u8]) -> Result<SnapshotView<'a>, FormatError> {
    Ok(SnapshotLayout::open(repo, file, &mut |_| ())?.view(file))
}

fn snapshot(repo: &RepoId, lsn: u64, rows: &[(&[u8], &[u8])]) -> Vec<u8> {
    let (mut records, mut offsets) = (Vec::new(), Vec::new());
    for (key, value) in rows {
        offsets.extend_from_slice(&(records.len() as u64).to_le_bytes());
        put_record(&mut records, key, value);
    }
    let mut body = section_header(SECTION_RECORDS, records.len() as u64).to_vec();
    body.append(&mut records);
    body.extend_from_slice(&section_header(9, 3));
    body.extend_from_slice(b"???");
    body.extend_from_slice(&section_header(SECTION_OFFSETS, offsets.len() as u64));
    body.append(&mut offsets);
    let header = SnapshotHeader { lsn, key_count: rows.len() as u64, section_count: 2, body_len: body.len() as u64 };
    [header.encode(repo), body.clone(), crc32fast::hash(&body).to_le_bytes().to_vec()].concat()
}

#[test]
fn golden_records() {
    let record = record(7);
    assert_eq!(crc32fast::hash(&record[..record.len() - 4]), 582241831, "golden checksum of a record");
    assert_eq!(crc32fast::hash(&encode_log_header(&[1; 16], 9)[..44]), 1622468634, "golden checksum of a log header");
    assert_eq!(record.len(), RECORD_OVERHEAD + 8 + 1 + 9 + 5 + 304);
    assert_eq!(decode(&record).unwrap(), Found::Batch((7, ops()), record.len()));
    assert_eq!(decode_log_header(&[1; 16], &encode_log_header(&[1; 16], 9)), Ok(9));
}

#[test]
fn a_record_cut_anywhere_is_torn_and_reserved_room_is_the_end() {
    let record = record(7);
    for end in 1..record.len() {
        assert_eq!(decode(&record[..end]).unwrap(), Found::Torn, "cut at {end}");
    }
    for end in [0, 3, 100] {
        assert_eq!(decode(&vec![0; end]).unwrap(), Found::End);
    }
    for at in 0..record.len() {
        let mut damaged = record.clone();
        damaged[at] ^= 1;
        assert!(!matches!(decode(&damaged), Ok(Found::Batch(..))), "byte {at}");
    }
}

#[test]
fn a_later_record_behind_damage_is_seen() {
    let (first, second) = (record(7), record(8));
    let mut log = [first.clone(), second].concat();
    log[20] ^= 1;
    assert_eq!(find_later_record(&log, 6), Some(first.len()));
    assert_eq!(find_later_record(&log[..first.len()], 6), None);
    assert_eq!(find_later_record(&log, 8), None);
}

#[test]
fn snapshots_are_searched_in_place() {
    let rows: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b""), (b"ba", b"3"), (b"d", b"4")];
    let file = snapshot(&[1; 16], 42, &rows);
    let view = open(&[1; 16], &file).unwrap();
    assert_eq!((view.header.lsn, view.len()), (42, 4));
    for (key, value) in rows {
        assert_eq!(view.get(key).unwrap(), Some(value));
    }
    for key in [&b""[..], b"c", b"e"] {
        assert_eq!(view.get(key).unwrap(), None);
    }
    assert_eq!(view.lower_bound(b"bz").unwrap(), 3);
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(open(&[1; 16], &damaged).is_err(), "byte {at}");
    }
    assert!(open(&[2; 16], &file).is_err());
}

proptest! {
    #[test]
    fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes);
        let _ = decode_log_header(&[0; 16], &bytes);
        let _ = open(&[0; 16], &bytes);
    }
}
