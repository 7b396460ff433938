//! The snapshot: all keys and values, sorted, searched where they lie.

use std::ops::Range;

use super::super::{FormatError, RepoId, VERSION, check_features, check_start};
use super::slots::{self, Search, Slot};
use super::{
    MAX_KEY_LEN, MAX_VALUE_LEN, SECTION_HEADER_LEN, SECTION_OFFSETS, SECTION_RECORDS, SECTION_SLOTS,
    SNAPSHOT_HEADER_LEN, SNAPSHOT_MAGIC,
};
use crate::base::bytes::{ByteReader, DecodeError, put_bytes};

/// Bytes of a snapshot that are checked before its reader is told to let them go. Mapping them again costs less than can be
/// measured: `status` of the kernel's tree, whose snapshot has 13 MB, takes the same time with 16 MiB.
const CHECKED_AT_ONCE: usize = 1 << 20;

/// What a snapshot's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The last batch that is in it.
    pub lsn: u64,
    /// Number of keys.
    pub key_count: u64,
    /// Number of sections.
    pub section_count: u16,
    /// Bytes between header and final checksum.
    pub body_len: u64,
}

impl SnapshotHeader {
    /// The header's bytes.
    pub fn encode(&self, repo: &RepoId) -> Vec<u8> {
        let mut out = SNAPSHOT_MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.section_count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(repo);
        out.extend_from_slice(&self.lsn.to_le_bytes());
        out.extend_from_slice(&self.key_count.to_le_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    fn decode(repo: &RepoId, file: &[u8]) -> Result<Self, FormatError> {
        let mut reader = ByteReader::new("a journal snapshot", file);
        check_start(&mut reader, SNAPSHOT_MAGIC, VERSION, "journal snapshot")?;
        let section_count = reader.u16()?;
        let features = reader.u32()?;
        let found: RepoId = reader.array()?;
        let (lsn, key_count, body_len) = (reader.u64()?, reader.u64()?, reader.u64()?);
        reader.u32()?;
        let crc = reader.u32()?;
        if crc32fast::hash(file.get(..SNAPSHOT_HEADER_LEN - 4).unwrap_or_default()) != crc {
            return Err(FormatError::Checksum("journal snapshot's header"));
        }
        check_features(features, "journal snapshot")?;
        if found != *repo {
            return Err(FormatError::OtherRepository("journal snapshot"));
        }
        if (reader.remaining() as u64).checked_sub(4) != Some(body_len) {
            return Err(reader.invalid("it has the wrong length").into());
        }
        Ok(Self { lsn, key_count, section_count, body_len })
    }
}

/// Where the parts of a checked snapshot file stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLayout {
    /// What the header says.
    pub header: SnapshotHeader,
    records: Range<usize>,
    offsets: Range<usize>,
    slots: Option<Range<usize>>,
}

impl SnapshotLayout {
    /// Checks header, checksum and sections of a whole file. `passed` is told which bytes of a long one have been read.
    pub fn open(repo: &RepoId, file: &[u8], passed: &mut dyn FnMut(Range<usize>)) -> Result<Self, FormatError> {
        let header = SnapshotHeader::decode(repo, file)?;
        let body = file.get(SNAPSHOT_HEADER_LEN..).unwrap_or_default();
        let (body, crc) = body.split_last_chunk::<4>().ok_or(DecodeError::Truncated { what: "a snapshot" })?;
        let (mut hasher, mut at) = (crc32fast::Hasher::new(), SNAPSHOT_HEADER_LEN);
        for part in body.chunks(CHECKED_AT_ONCE) {
            hasher.update(part);
            if part.len() == CHECKED_AT_ONCE {
                passed(at..at + part.len());
            }
            at += part.len();
        }
        if hasher.finalize() != u32::from_le_bytes(*crc) {
            return Err(FormatError::Checksum("journal snapshot"));
        }
        let mut reader = ByteReader::new("a journal snapshot", body);
        let mut layout = Self { header, records: 0..0, offsets: 0..0, slots: None };
        while reader.remaining() > 0 {
            let kind = reader.u8()?;
            let len = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
            let start = SNAPSHOT_HEADER_LEN + (body.len() - reader.remaining());
            let range = start..start + reader.take(len)?.len();
            match kind {
                SECTION_RECORDS => layout.records = range,
                SECTION_OFFSETS => layout.offsets = range,
                SECTION_SLOTS => layout.slots = Some(range),
                _ => {}
            }
        }
        let fits = header.key_count.checked_mul(size_of::<u64>() as u64) == Some(layout.offsets.len() as u64);
        if fits { Ok(layout) } else { Err(reader.invalid("its offsets do not fit its keys").into()) }
    }

    /// Where some rows stand in the file that this is the layout of: their records, and the offsets of these.
    pub fn rows(&self, file: &[u8], rows: Range<usize>) -> [Range<usize>; 2] {
        let offsets: &[[u8; 8]] = file.get(self.offsets.clone()).unwrap_or_default().as_chunks().0;
        let offset = |row: usize| offsets.get(row).map_or(self.records.len(), |at| u64::from_le_bytes(*at) as usize);
        let place = |row: usize| self.records.start.saturating_add(offset(row)).min(self.records.end);
        let entry = |row: usize| (self.offsets.start + row * size_of::<u64>()).min(self.offsets.end);
        [place(rows.start)..place(rows.end), entry(rows.start)..entry(rows.end)]
    }

    /// The snapshot in the file that this is the layout of.
    pub fn view<'a>(&self, file: &'a [u8]) -> SnapshotView<'a> {
        let part = |range: &Range<usize>| file.get(range.clone()).unwrap_or_default();
        SnapshotView {
            header: self.header,
            records: part(&self.records),
            offsets: part(&self.offsets).as_chunks().0,
            slots: self.slots.as_ref().map(|range| part(range).as_chunks().0),
        }
    }
}

/// A snapshot, searched where it lies.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotView<'a> {
    /// What the header says.
    pub header: SnapshotHeader,
    records: &'a [u8],
    offsets: &'a [[u8; 8]],
    slots: Option<&'a [Slot]>,
}

impl<'a> SnapshotView<'a> {
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
        let offset = self.offsets.get(row).ok_or_else(out_of_range)?;
        let mut reader = self.record_at(u64::from_le_bytes(*offset))?;
        Ok((reader.bytes(MAX_KEY_LEN)?, reader.bytes(MAX_VALUE_LEN)?))
    }

    fn record_at(&self, offset: u64) -> Result<ByteReader<'a>, FormatError> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.records.get(at..)).ok_or_else(out_of_range)?;
        Ok(ByteReader::new("a journal snapshot", rest))
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
        let Some(slots) = self.slots else { return self.get_by_halves(key) };
        let found = slots::search(slots, slots::hash(key), |offset| {
            let mut reader = self.record_at(offset)?;
            let is_it = reader.bytes(MAX_KEY_LEN)? == key;
            Ok::<_, FormatError>(if is_it { Some(reader.bytes(MAX_VALUE_LEN)?) } else { None })
        })?;
        match found {
            Search::Found(value) => Ok(Some(value)),
            Search::Absent => Ok(None),
            Search::Unknown => self.get_by_halves(key),
        }
    }

    fn get_by_halves(&self, key: &[u8]) -> Result<Option<&'a [u8]>, FormatError> {
        let row = self.lower_bound(key)?;
        if row == self.len() {
            return Ok(None);
        }
        let (found, value) = self.record(row)?;
        Ok((found == key).then_some(value))
    }
}

fn out_of_range() -> DecodeError {
    DecodeError::Invalid { what: "a journal snapshot", why: "a row is out of range".into() }
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
