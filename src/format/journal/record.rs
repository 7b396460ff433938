//! The log: a header, then one record for each batch.

use super::super::{FormatError, RepoId, VERSION, check_features, check_start};
use super::{LOG_HEADER_LEN, LOG_MAGIC, MAX_KEY_LEN, MAX_PAYLOAD_LEN, MAX_VALUE_LEN, Ops, RECORD_OVERHEAD};
use crate::base::bytes::{ByteReader, DecodeError, put_bytes, put_varint};

const RECORD_BATCH: u8 = 1;
const RECORD_VERSION: u8 = 1;
const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;

/// Where an operation's key and value stand in the bytes of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpSpan {
    /// Start of the key.
    pub key_at: usize,
    /// Length of the key.
    pub key_len: usize,
    /// Start and length of the value; `None` if the key is removed.
    pub value: Option<(usize, usize)>,
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
    check_start(&mut reader, LOG_MAGIC, VERSION, "journal log")?;
    reader.u16()?;
    let features = reader.u32()?;
    let found: RepoId = reader.array()?;
    let base_lsn = reader.u64()?;
    reader.u32()?;
    let crc = reader.u32()?;
    if crc32fast::hash(bytes.get(..LOG_HEADER_LEN - 4).unwrap_or_default()) != crc {
        return Err(FormatError::Checksum("journal log's header"));
    }
    check_features(features, "journal log")?;
    if found == *repo { Ok(base_lsn) } else { Err(FormatError::OtherRepository("journal log")) }
}

/// Writes a batch, an atomic set of changes, as a record over `out`, and where its operations stand in it over `spans`.
pub fn encode_batch(out: &mut Vec<u8>, spans: &mut Vec<OpSpan>, lsn: u64, ops: &Ops) {
    out.clear();
    spans.clear();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[RECORD_BATCH, RECORD_VERSION]);
    out.extend_from_slice(&lsn.to_le_bytes());
    put_varint(out, ops.count());
    spans.extend(ops.spans(out.len()));
    out.extend_from_slice(ops.as_bytes());
    let payload_len = (out.len() - 6) as u32;
    if let Some(head) = out.first_chunk_mut::<4>() {
        *head = payload_len.to_le_bytes();
    }
    let crc = crc32fast::hash(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Appends an operation.
pub fn put_op(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    out.push(if value.is_some() { OP_PUT } else { OP_DELETE });
    put_bytes(out, key);
    if let Some(value) = value {
        put_bytes(out, value);
    }
}

/// What stands at a position of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    /// A whole record and the bytes that it takes.
    Batch(T, usize),
    /// Nothing more: the end of the file, or room reserved ahead.
    End,
    /// Something that is not a whole record.
    Torn,
}

/// Reads the record at the start of `rest`: gives its lsn, and over `spans` where its operations stand.
///
/// # Errors
/// A record that is whole but of a type or version that this program does not know.
pub fn read_record(rest: &[u8], spans: &mut Vec<OpSpan>) -> Result<Found<u64>, FormatError> {
    spans.clear();
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
    let lsn = reader.u64()?;
    read_ops(reader, covered.len(), spans)?;
    Ok(Found::Batch(lsn, whole))
}

/// Reads the operations of a record whose bytes without checksum are `covered_len` many.
fn read_ops(mut reader: ByteReader<'_>, covered_len: usize, spans: &mut Vec<OpSpan>) -> Result<(), DecodeError> {
    let count = reader.varint_max(reader.remaining() as u64)?;
    for _ in 0..count {
        spans.push(read_op(&mut reader, covered_len, [MAX_KEY_LEN, MAX_VALUE_LEN])?);
    }
    reader.finish()
}

/// Reads an operation from a reader that ends where `len` bytes end, and says where in these it stands.
pub(super) fn read_op(reader: &mut ByteReader<'_>, len: usize, longest: [usize; 2]) -> Result<OpSpan, DecodeError> {
    let [longest_key, longest_value] = longest;
    let kind = reader.u8()?;
    if kind != OP_PUT && kind != OP_DELETE {
        return Err(reader.invalid(format!("unknown operation {kind}")));
    }
    let key_len = reader.bytes(longest_key)?.len();
    let key_at = len - reader.remaining() - key_len;
    let value = match kind {
        OP_PUT => {
            let value_len = reader.bytes(longest_value)?.len();
            Some((len - reader.remaining() - value_len, value_len))
        }
        _ => None,
    };
    Ok(OpSpan { key_at, key_len, value })
}

/// Where in `tail` the next whole record with an lsn above `lsn` starts. If there is one, what precedes it is damage, not a torn end.
pub fn find_later_record(tail: &[u8], lsn: u64) -> Option<usize> {
    let mut spans = Vec::new();
    // Room that was made ahead is zeros to its end.
    let end = tail.len() - tail.iter().rev().take_while(|byte| **byte == 0).count();
    // A later record can only start where type and version stand, which is quick to see; checksums decide.
    (0..end.min(tail.len().saturating_sub(RECORD_OVERHEAD))).find(|at| {
        let at = *at;
        let rest = tail.get(at..).unwrap_or_default();
        rest.get(4..6) == Some(&[RECORD_BATCH, RECORD_VERSION])
            && matches!(read_record(rest, &mut spans), Ok(Found::Batch(found, _)) if found > lsn)
    })
}
