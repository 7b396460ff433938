//! The journal's log and snapshots.

use super::{FormatError, RepoId, VERSION, check_features, check_start};
use crate::base::bytes::{ByteReader, DecodeError, put_bytes, put_varint};

const LOG_MAGIC: &[u8; 8] = b"DIGLOG01";
const SNAPSHOT_MAGIC: &[u8; 8] = b"DIGSNAP1";
/// Length of a log's header.
pub const LOG_HEADER_LEN: usize = 48;
/// Length of a snapshot's header.
pub const SNAPSHOT_HEADER_LEN: usize = 64;
/// Bytes of a record besides its payload: length, type, version, checksum.
pub const RECORD_OVERHEAD: usize = 10;
/// Largest payload of a record; what is larger goes into a snapshot.
pub const MAX_PAYLOAD_LEN: usize = 16 << 20;
/// Longest key: a path and its prefix.
pub const MAX_KEY_LEN: usize = 8 << 10;
/// Longest value.
pub const MAX_VALUE_LEN: usize = MAX_PAYLOAD_LEN;
/// Bytes before a section: type and length.
pub const SECTION_HEADER_LEN: usize = 9;
/// Section of keys and values.
pub const SECTION_RECORDS: u8 = 1;
/// Section of offsets into the records.
pub const SECTION_OFFSETS: u8 = 2;

const RECORD_BATCH: u8 = 1;
const RECORD_VERSION: u8 = 1;
const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Set a key.
    Put(Vec<u8>, Vec<u8>),
    /// Remove a key, whether it is there or not.
    Delete(Vec<u8>),
}

impl Op {
    /// The key that is changed.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Upper bound of the bytes that this takes in a record.
    pub fn encoded_len(&self) -> usize {
        const LENGTHS: usize = 12;
        match self {
            Self::Put(key, value) => key.len() + value.len() + LENGTHS,
            Self::Delete(key) => key.len() + LENGTHS,
        }
    }
}

/// An atomic set of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its number; one more than that of the batch before.
    pub lsn: u64,
    /// The changes, in order.
    pub ops: Vec<Op>,
}

/// The header of a log that follows the state at `base_lsn`.
pub fn encode_log_header(repo: &RepoId, base_lsn: u64) -> Vec<u8> {
    let mut out = LOG_MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(repo);
    out.extend_from_slice(&base_lsn.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

/// Reads a log's header and gives its base lsn.
pub fn decode_log_header(repo: &RepoId, bytes: &[u8]) -> Result<u64, FormatError> {
    let mut reader = ByteReader::new("a journal log", bytes);
    check_start(&mut reader, LOG_MAGIC, "journal log")?;
    reader.u16()?;
    check_features(reader.u32()?, "journal log")?;
    let found: RepoId = reader.array()?;
    let base_lsn = reader.u64()?;
    reader.u32()?;
    let crc = reader.u32()?;
    if crc32fast::hash(bytes.get(..LOG_HEADER_LEN - 4).unwrap_or_default()) != crc {
        return Err(FormatError::Checksum("journal log's header"));
    }
    if found == *repo { Ok(base_lsn) } else { Err(FormatError::OtherRepository("journal log")) }
}

/// A batch as a record.
pub fn encode_batch(lsn: u64, ops: &[Op]) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&[RECORD_BATCH, RECORD_VERSION]);
    out.extend_from_slice(&lsn.to_le_bytes());
    put_varint(&mut out, ops.len() as u64);
    for op in ops {
        match op {
            Op::Put(key, value) => {
                out.push(OP_PUT);
                put_bytes(&mut out, key);
                put_bytes(&mut out, value);
            }
            Op::Delete(key) => {
                out.push(OP_DELETE);
                put_bytes(&mut out, key);
            }
        }
    }
    let payload_len = (out.len() - 6) as u32;
    if let Some(head) = out.first_chunk_mut::<4>() {
        *head = payload_len.to_le_bytes();
    }
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

/// What stands at a position of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A whole record and the bytes that it takes.
    Batch(Batch, usize),
    /// Nothing more: the end of the file, or room reserved ahead.
    End,
    /// Something that is not a whole record.
    Torn,
}

/// Reads the record at the start of `rest`.
///
/// # Errors
/// A record that is whole but of a type or version that this program does not know.
pub fn decode_record(rest: &[u8]) -> Result<Found, FormatError> {
    let mut reader = ByteReader::new("a journal record", rest);
    let Ok(len) = reader.u32() else {
        return Ok(if rest.iter().all(|&b| b == 0) { Found::End } else { Found::Torn });
    };
    if len == 0 {
        return Ok(Found::End);
    }
    let whole = len as usize + RECORD_OVERHEAD;
    let Some((covered, crc)) = rest.get(..whole).and_then(<[u8]>::split_last_chunk::<4>) else {
        return Ok(Found::Torn);
    };
    if len as usize > MAX_PAYLOAD_LEN || crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return Ok(Found::Torn);
    }
    let mut reader = ByteReader::new("a journal record", covered);
    reader.u32()?;
    let (kind, version) = (reader.u8()?, reader.u8()?);
    if (kind, version) != (RECORD_BATCH, RECORD_VERSION) {
        let feature = format!("record type {kind} version {version}");
        return Err(FormatError::Feature { what: "journal", feature });
    }
    Ok(Found::Batch(decode_batch(&mut reader)?, whole))
}

fn decode_batch(reader: &mut ByteReader<'_>) -> Result<Batch, DecodeError> {
    let lsn = reader.u64()?;
    let count = reader.varint_max(reader.remaining() as u64)?;
    let mut ops = Vec::new();
    for _ in 0..count {
        ops.push(match reader.u8()? {
            OP_PUT => Op::Put(reader.bytes(MAX_KEY_LEN)?.to_vec(), reader.bytes(MAX_VALUE_LEN)?.to_vec()),
            OP_DELETE => Op::Delete(reader.bytes(MAX_KEY_LEN)?.to_vec()),
            other => return Err(reader.invalid(format!("unknown operation {other}"))),
        });
    }
    reader.clone().finish()?;
    Ok(Batch { lsn, ops })
}

/// Does a whole record with an lsn above `lsn` start anywhere in `tail`? If so, what precedes it is damage, not a torn end.
pub fn has_later_record(tail: &[u8], lsn: u64) -> bool {
    // A later record can only start where type and version stand, which is quick to see; checksums decide.
    (0..tail.len().saturating_sub(RECORD_OVERHEAD)).any(|at| {
        let rest = tail.get(at..).unwrap_or_default();
        rest.get(4..6) == Some(&[RECORD_BATCH, RECORD_VERSION])
            && matches!(decode_record(rest), Ok(Found::Batch(batch, _)) if batch.lsn > lsn)
    })
}

/// What a snapshot's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The last batch that is in it.
    pub lsn: u64,
    /// Number of keys.
    pub key_count: u64,
    /// Bytes between header and final checksum.
    pub body_len: u64,
}

/// Sections that a snapshot has.
const SECTION_COUNT: u16 = 2;

impl SnapshotHeader {
    /// The header's bytes.
    pub fn encode(&self, repo: &RepoId) -> Vec<u8> {
        let mut out = SNAPSHOT_MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&SECTION_COUNT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(repo);
        out.extend_from_slice(&self.lsn.to_le_bytes());
        out.extend_from_slice(&self.key_count.to_le_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }
}

/// A snapshot, searched where it lies.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotView<'a> {
    /// What the header says.
    pub header: SnapshotHeader,
    records: &'a [u8],
    offsets: &'a [[u8; 8]],
}

impl<'a> SnapshotView<'a> {
    /// Checks header, checksum and sections of a whole file.
    pub fn open(repo: &RepoId, file: &'a [u8]) -> Result<Self, FormatError> {
        let header = Self::decode_header(repo, file)?;
        let body = file.get(SNAPSHOT_HEADER_LEN..).unwrap_or_default();
        let (body, crc) = body.split_last_chunk::<4>().ok_or(DecodeError::Truncated { what: "a snapshot" })?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(FormatError::Checksum("journal snapshot"));
        }
        Self::divide(header, body)
    }

    /// The same without the checksum, for a file that passed it before.
    pub fn reopen(header: SnapshotHeader, file: &'a [u8]) -> Result<Self, FormatError> {
        let body = file.get(SNAPSHOT_HEADER_LEN..).unwrap_or_default();
        Self::divide(header, body.split_last_chunk::<4>().map_or(&[][..], |(body, _)| body))
    }

    fn decode_header(repo: &RepoId, file: &[u8]) -> Result<SnapshotHeader, FormatError> {
        let mut reader = ByteReader::new("a journal snapshot", file);
        check_start(&mut reader, SNAPSHOT_MAGIC, "journal snapshot")?;
        reader.u16()?;
        check_features(reader.u32()?, "journal snapshot")?;
        let found: RepoId = reader.array()?;
        let header = SnapshotHeader { lsn: reader.u64()?, key_count: reader.u64()?, body_len: reader.u64()? };
        reader.u32()?;
        let crc = reader.u32()?;
        if crc32fast::hash(file.get(..SNAPSHOT_HEADER_LEN - 4).unwrap_or_default()) != crc {
            return Err(FormatError::Checksum("journal snapshot's header"));
        }
        if found != *repo {
            return Err(FormatError::OtherRepository("journal snapshot"));
        }
        if (reader.remaining() as u64).checked_sub(4) != Some(header.body_len) {
            return Err(reader.invalid("it has the wrong length").into());
        }
        Ok(header)
    }

    fn divide(header: SnapshotHeader, body: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = ByteReader::new("a journal snapshot", body);
        let (mut records, mut offsets) = (&[][..], &[][..]);
        while reader.remaining() > 0 {
            let kind = reader.u8()?;
            let len = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
            match (kind, reader.take(len)?) {
                (SECTION_RECORDS, section) => records = section,
                (SECTION_OFFSETS, section) => offsets = section,
                _ => {}
            }
        }
        let (offsets, rest) = offsets.as_chunks::<8>();
        if !rest.is_empty() || offsets.len() as u64 != header.key_count {
            return Err(reader.invalid("its offsets do not fit its keys").into());
        }
        Ok(Self { header, records, offsets })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Has it no keys?
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Key and value in a row.
    pub fn record(&self, row: usize) -> Result<(&'a [u8], &'a [u8]), FormatError> {
        let wrong = || DecodeError::Invalid { what: "a journal snapshot", why: "a row is out of range".into() };
        let offset = u64::from_le_bytes(*self.offsets.get(row).ok_or_else(wrong)?);
        let rest = usize::try_from(offset).ok().and_then(|at| self.records.get(at..)).ok_or_else(wrong)?;
        let mut reader = ByteReader::new("a journal snapshot", rest);
        Ok((reader.bytes(MAX_KEY_LEN)?, reader.bytes(MAX_VALUE_LEN)?))
    }

    /// The first row whose key is not below `key`.
    pub fn lower_bound(&self, key: &[u8]) -> Result<usize, FormatError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(middle)?.0 < key { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, FormatError> {
        let row = self.lower_bound(key)?;
        if row == self.len() {
            return Ok(None);
        }
        let (found, value) = self.record(row)?;
        Ok((found == key).then_some(value))
    }
}

/// Encodes a key and its value for section 1.
pub fn put_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    put_bytes(out, key);
    put_bytes(out, value);
}

/// The type and length before a section.
pub fn section_header(kind: u8, len: u64) -> [u8; SECTION_HEADER_LEN] {
    let mut out = [kind; SECTION_HEADER_LEN];
    out.iter_mut().skip(1).zip(len.to_le_bytes()).for_each(|(to, from)| *to = from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ops() -> Vec<Op> {
        vec![Op::Put(b"key".to_vec(), vec![1, 2, 3]), Op::Delete(b"old".to_vec()), Op::Put(vec![0xff; 300], vec![])]
    }

    pub fn snapshot(repo: &RepoId, lsn: u64, rows: &[(&[u8], &[u8])]) -> Vec<u8> {
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
        let header = SnapshotHeader { lsn, key_count: rows.len() as u64, body_len: body.len() as u64 };
        [header.encode(repo), body.clone(), crc32fast::hash(&body).to_le_bytes().to_vec()].concat()
    }

    #[test]
    fn golden_records() {
        let record = encode_batch(7, &ops());
        assert_eq!(crc32fast::hash(&record[..record.len() - 4]), 582241831, "golden checksum of a record");
        assert_eq!(
            crc32fast::hash(&encode_log_header(&[1; 16], 9)[..44]),
            1622468634,
            "golden checksum of a log header"
        );
        assert_eq!(record.len(), RECORD_OVERHEAD + 8 + 1 + 9 + 5 + 304);
        assert_eq!(decode_record(&record).unwrap(), Found::Batch(Batch { lsn: 7, ops: ops() }, record.len()));
        assert_eq!(decode_log_header(&[1; 16], &encode_log_header(&[1; 16], 9)), Ok(9));
    }

    #[test]
    fn a_record_cut_anywhere_is_torn_and_reserved_room_is_the_end() {
        let record = encode_batch(7, &ops());
        for end in 1..record.len() {
            assert_eq!(decode_record(&record[..end]).unwrap(), Found::Torn, "cut at {end}");
        }
        for end in [0, 3, 100] {
            assert_eq!(decode_record(&vec![0; end]).unwrap(), Found::End);
        }
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            assert!(!matches!(decode_record(&damaged), Ok(Found::Batch(..))), "byte {at}");
        }
    }

    #[test]
    fn a_later_record_behind_damage_is_seen() {
        let (first, second) = (encode_batch(7, &ops()), encode_batch(8, &ops()));
        let mut log = [first.clone(), second].concat();
        log[20] ^= 1;
        assert!(has_later_record(&log, 6));
        assert!(!has_later_record(&log[..first.len()], 6));
        assert!(!has_later_record(&log, 8));
    }

    #[test]
    fn snapshots_are_searched_in_place() {
        let rows: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b""), (b"ba", b"3"), (b"d", b"4")];
        let file = snapshot(&[1; 16], 42, &rows);
        let view = SnapshotView::open(&[1; 16], &file).unwrap();
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
            assert!(SnapshotView::open(&[1; 16], &damaged).is_err(), "byte {at}");
        }
        assert!(SnapshotView::open(&[2; 16], &file).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = decode_record(&bytes);
            let _ = decode_log_header(&[0; 16], &bytes);
            let _ = SnapshotView::open(&[0; 16], &bytes);
        }
    }
}
