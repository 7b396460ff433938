//! Index files: prefixes of object ids, each with the layer and row where the whole id can be compared.

use super::table::{MAX_FANOUT_BITS, bucket_of, bucket_range, bucket_ranges, fanout_len, put_counts, touch};
use super::{FormatError, RepoId, VERSION, check_start};
use crate::base::bytes::{ByteReader, DecodeError};
use crate::model::id::{DIGEST_LEN, LayerId};

const MAGIC: &[u8; 8] = b"DIGINDEX";
/// Length of the header.
pub const HEADER_LEN: usize = 48;
/// Length of an entry.
pub const ENTRY_LEN: usize = 16;
const WHAT: &str = "index";
/// Entries with one prefix, on the average of those that are asked for together: an object may be in several layers.
const MAX_SAME_PREFIX: usize = 8;

/// Where an id with this prefix may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// The first eight bytes of the id.
    pub prefix: u64,
    /// Which layer of the index's list.
    pub layer: u32,
    /// Which row of that layer's object table.
    pub row: u32,
}

/// What an index says before its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexHeader {
    /// The layers that it covers.
    pub layers: Vec<LayerId>,
    /// Number of entries.
    pub entry_count: u32,
    /// Width of the fan-out.
    pub fanout_bits: u8,
}

fn header_crc(fixed: &[u8], list: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fixed);
    hasher.update(list);
    hasher.finalize()
}

/// Makes a file part by part: what it gives is to be written in that order.
pub struct Encoder {
    body_crc: crc32fast::Hasher,
}

impl Encoder {
    /// The bytes before the entries. `buckets` says how many entries fall into each bucket of the fan-out; they are a power of two.
    pub fn start(repo: &RepoId, layers: &[LayerId], buckets: &[u32]) -> (Self, Vec<u8>) {
        let bits = buckets.len().max(1).ilog2() as u8;
        let count: u64 = buckets.iter().map(|count| u64::from(*count)).sum();
        let list: Vec<u8> = layers.iter().flat_map(|id| *id.digest()).collect();
        let mut out = Vec::with_capacity(HEADER_LEN + list.len() + fanout_len(bits));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[bits, 0]);
        out.extend_from_slice(&(layers.len() as u32).to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(repo);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&header_crc(&out, &list).to_le_bytes());
        out.extend_from_slice(&list);
        let body = out.len();
        put_counts(&mut out, buckets);
        let mut body_crc = crc32fast::Hasher::new();
        body_crc.update(out.get(body..).unwrap_or_default());
        (Self { body_crc }, out)
    }

    /// The next entries, in ascending order.
    pub fn entries(&mut self, entries: &[IndexEntry]) -> Vec<u8> {
        let mut out = Vec::with_capacity(entries.len() * ENTRY_LEN);
        for entry in entries {
            out.extend_from_slice(&entry.prefix.to_le_bytes());
            out.extend_from_slice(&entry.layer.to_le_bytes());
            out.extend_from_slice(&entry.row.to_le_bytes());
        }
        self.body_crc.update(&out);
        out
    }

    /// The bytes behind the entries.
    pub fn end(self) -> [u8; 4] {
        self.body_crc.finalize().to_le_bytes()
    }
}

/// Reads header and list, and checks that the file has the length that they call for.
pub fn decode_header(repo: &RepoId, file: &[u8]) -> Result<IndexHeader, FormatError> {
    let mut reader = ByteReader::new("an index", file);
    check_start(&mut reader, MAGIC, VERSION, WHAT)?;
    let fanout_bits = reader.u8()?;
    reader.u8()?;
    let layer_count = reader.u32()?;
    let entry_count = reader.u64()?;
    if reader.array::<16>()? != *repo {
        return Err(FormatError::OtherRepository(WHAT));
    }
    reader.u32()?;
    let crc = reader.u32()?;
    let list = reader.take((layer_count as usize).saturating_mul(DIGEST_LEN))?;
    if header_crc(file.get(..HEADER_LEN - 4).unwrap_or_default(), list) != crc {
        return Err(FormatError::Checksum("index's header"));
    }
    let entry_count = u32::try_from(entry_count).map_err(|_| reader.invalid("it has too many entries"))?;
    let body_len = fanout_len(fanout_bits.min(MAX_FANOUT_BITS)) as u64 + u64::from(entry_count) * ENTRY_LEN as u64 + 4;
    if fanout_bits > MAX_FANOUT_BITS || reader.remaining() as u64 != body_len {
        return Err(DecodeError::Invalid { what: "an index", why: "it has the wrong length".into() }.into());
    }
    let (ids, _) = list.as_chunks::<DIGEST_LEN>();
    Ok(IndexHeader { layers: ids.iter().map(|id| LayerId::from_digest(*id)).collect(), entry_count, fanout_bits })
}

/// The entries of an index, searched where they lie.
#[derive(Debug, Clone, Copy)]
pub struct IndexView<'a> {
    body: &'a [u8],
    fanout: &'a [u8],
    entries: &'a [[u8; ENTRY_LEN]],
    fanout_bits: u8,
}

fn entry(bytes: &[u8; ENTRY_LEN]) -> IndexEntry {
    let (prefix, rest) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let (layer, rest) = rest.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    let (row, _) = rest.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    IndexEntry { prefix: u64::from_le_bytes(*prefix), layer: u32::from_le_bytes(*layer), row: u32::from_le_bytes(*row) }
}

impl<'a> IndexView<'a> {
    /// Divides a file whose header was read.
    pub fn new(header: &IndexHeader, file: &'a [u8]) -> Result<Self, FormatError> {
        let body = file.get(HEADER_LEN + header.layers.len() * DIGEST_LEN..).unwrap_or_default();
        let mut reader = ByteReader::new("an index", body);
        let fanout = reader.take(fanout_len(header.fanout_bits))?;
        let (entries, _) = reader.take(header.entry_count as usize * ENTRY_LEN)?.as_chunks();
        Ok(Self { body, fanout, entries, fanout_bits: header.fanout_bits })
    }

    /// All entries with a prefix; nearly always one or none.
    pub fn find(&self, prefix: u64) -> impl Iterator<Item = IndexEntry> + use<'a> {
        let bucket = bucket_of(prefix, self.fanout_bits);
        let range = bucket_range(self.fanout, bucket, self.entries.len() as u32).unwrap_or(0..0);
        let rows = self.entries.get(range).unwrap_or_default();
        rows.iter().map(entry).filter(move |entry| entry.prefix == prefix)
    }

    /// The entries of many prefixes, each with the number of the prefix; `None` if the fan-out is wrong, or if there are so many
    /// as damage alone explains.
    pub fn find_each(&self, prefixes: &[u64]) -> Option<Vec<(usize, IndexEntry)>> {
        let count = self.entries.len() as u32;
        let ranges = bucket_ranges(self.fanout, self.fanout_bits, count, prefixes.iter().copied())?;
        touch(self.entries, &ranges);
        let most = prefixes.len() * MAX_SAME_PREFIX;
        let asked = ranges.into_iter().zip(prefixes).enumerate();
        let found = asked.flat_map(|(number, (range, prefix))| {
            let rows = self.entries.get(range).unwrap_or_default().iter().map(entry);
            rows.filter(move |entry| entry.prefix == *prefix).map(move |entry| (number, entry))
        });
        let found: Vec<(usize, IndexEntry)> = found.take(most + 1).collect();
        (found.len() <= most).then_some(found)
    }

    /// All entries in order.
    pub fn entries(&self) -> impl Iterator<Item = IndexEntry> + use<'a> {
        self.entries.iter().map(entry)
    }

    /// Those from a prefix on.
    pub fn entries_from(&self, prefix: u64) -> impl Iterator<Item = IndexEntry> + use<'a> {
        let first = self.entries.partition_point(|bytes| entry(bytes).prefix < prefix);
        self.entries.get(first..).unwrap_or_default().iter().map(entry)
    }

    /// Compares fan-out and entries with their checksum.
    pub fn verify(&self) -> Result<(), FormatError> {
        let (covered, crc) = self.body.split_last_chunk::<4>().unwrap_or((&[], &[0; 4]));
        let sorted = self.entries().is_sorted();
        if crc32fast::hash(covered) == u32::from_le_bytes(*crc) && sorted {
            Ok(())
        } else {
            Err(FormatError::Checksum(WHAT))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::fanout_bits;
    use super::*;

    /// A whole file for entries in ascending order.
    fn encode(repo: &RepoId, layers: &[LayerId], entries: &[IndexEntry]) -> Vec<u8> {
        let bits = fanout_bits(entries.len());
        let mut buckets = vec![0; 1 << bits];
        entries.iter().for_each(|entry| buckets[bucket_of(entry.prefix, bits)] += 1);
        let (mut encoder, start) = Encoder::start(repo, layers, &buckets);
        let parts: Vec<u8> = entries.chunks(7).flat_map(|entries| encoder.entries(entries)).collect();
        [start, parts, encoder.end().to_vec()].concat()
    }

    fn sample() -> (Vec<IndexEntry>, Vec<u8>) {
        let mut entries: Vec<IndexEntry> = (0..500u32)
            .map(|i| IndexEntry { prefix: u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15), layer: i % 3, row: i })
            .collect();
        entries.push(IndexEntry { layer: 2, row: 9, ..entries[7] });
        entries.sort();
        let layers = [1u8, 2, 3].map(|n| LayerId::from_digest([n; 32]));
        let file = encode(&[4; 16], &layers, &entries);
        (entries, file)
    }

    #[test]
    fn entries_are_found_and_others_are_not() {
        let (entries, file) = sample();
        assert_eq!(crc32fast::hash(&file[..file.len() - 4]), 4157800554, "golden checksum of the sample index");
        let header = decode_header(&[4; 16], &file).unwrap();
        assert_eq!((header.layers.len(), header.entry_count), (3, 501));
        let view = IndexView::new(&header, &file).unwrap();
        view.verify().unwrap();
        for wanted in &entries {
            assert!(view.find(wanted.prefix).any(|found| found == *wanted));
        }
        assert_eq!(view.find(12345).count(), 0);
        let asked: Vec<u64> = [12345].into_iter().chain(entries.iter().map(|entry| entry.prefix)).collect();
        let one_by_one =
            asked.iter().enumerate().flat_map(|(n, prefix)| view.find(*prefix).map(move |entry| (n, entry)));
        assert!(view.find_each(&asked).unwrap().into_iter().eq(one_by_one));
        assert!(view.entries_from(entries[40].prefix).eq(entries[40..].iter().copied()));
        assert!(view.entries().eq(entries));
    }

    #[test]
    fn more_entries_with_one_prefix_than_layers_explain_are_no_answer() {
        let layers = [LayerId::from_digest([1; 32])];
        for (count, is_answer) in [(MAX_SAME_PREFIX, true), (MAX_SAME_PREFIX + 1, false)] {
            let entries: Vec<IndexEntry> =
                (0..count as u32).map(|row| IndexEntry { prefix: 7, layer: 0, row }).collect();
            let file = encode(&[4; 16], &layers, &entries);
            let view = IndexView::new(&decode_header(&[4; 16], &file).unwrap(), &file).unwrap();
            assert_eq!(view.find(7).count(), count);
            assert_eq!(view.find_each(&[7]).is_some(), is_answer);
        }
    }

    #[test]
    fn damage_is_noticed() {
        let (_, file) = sample();
        assert_eq!(decode_header(&[5; 16], &file), Err(FormatError::OtherRepository(WHAT)));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 2;
            let noticed = decode_header(&[4; 16], &damaged)
                .and_then(|header| IndexView::new(&header, &damaged)?.verify())
                .is_err();
            // One spare byte and one spare word are covered by the header's checksum as well.
            assert!(noticed, "byte {at}");
        }
        for end in 0..file.len() {
            assert!(decode_header(&[4; 16], &file[..end]).is_err());
        }
    }
}
