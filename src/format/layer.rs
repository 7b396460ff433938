//! Layer files: header, blocks, tables, footer.

use super::object::{MAX_OBJECT_LEN, kind_from_number, kind_number};
use super::table::{MAX_FANOUT_BITS, bucket_of, bucket_range, fanout_bits, fanout_len, prefix_of, put_fanout};
use super::{FormatError, RepoId, VERSION, check_features, check_start};
use crate::base::bytes::{ByteReader, DecodeError};
use crate::model::id::{DIGEST_LEN, LayerId, ObjectId, ObjectKind};
use crate::transform::compress::Codec;
use crate::transform::hash::{merkle_leaf, merkle_root, sha256};

const HEADER_MAGIC: &[u8; 8] = b"DIGLAYER";
const FOOTER_MAGIC: &[u8; 8] = b"DIGFOOT1";
/// Length of the header.
pub const HEADER_LEN: usize = 32;
/// Length of the footer.
pub const FOOTER_LEN: usize = 152;
/// Length of a row of the block table.
pub const BLOCK_ROW_LEN: usize = 24;
/// Length of an object's place.
pub const PLACE_LEN: usize = 13;
/// No block decodes to more; an object lies in one block.
pub const MAX_BLOCK_LEN: u32 = MAX_OBJECT_LEN;

const WHAT: &str = "layer";

fn invalid(why: impl Into<String>) -> FormatError {
    DecodeError::Invalid { what: "a layer", why: why.into() }.into()
}

/// The first bytes of a layer.
pub fn encode_header(repo: &RepoId) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    let parts = [HEADER_MAGIC.as_slice(), &VERSION.to_le_bytes(), &[0; 6], repo];
    out.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    out
}

/// Checks the first bytes of a layer and says which repository it belongs to.
pub fn decode_header(bytes: &[u8]) -> Result<RepoId, FormatError> {
    let mut reader = ByteReader::new("a layer", bytes);
    check_start(&mut reader, HEADER_MAGIC, WHAT)?;
    if reader.u16()? != 0 {
        return Err(invalid("a reserved field is used"));
    }
    check_features(reader.u32()?, WHAT)?;
    Ok(reader.array()?)
}

/// Where a block is and how it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRow {
    /// Position in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub stored_len: u32,
    /// Bytes when decoded.
    pub raw_len: u32,
    /// CRC32 of the stored bytes.
    pub crc: u32,
    /// How to decode.
    pub codec: Codec,
}

/// Where an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the block.
    pub block: u32,
    /// Position in the decoded block.
    pub offset: u32,
    /// Length of the object.
    pub len: u32,
    /// What it is.
    pub kind: ObjectKind,
}

/// An object of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRow {
    /// Its id.
    pub id: ObjectId,
    /// Where it is.
    pub place: Place,
}

/// What the footer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Number of blocks.
    pub block_count: u32,
    /// Number of objects.
    pub object_count: u32,
    /// Width of the fan-out.
    pub fanout_bits: u8,
    /// Where blocks end and tables begin.
    pub blocks_end: u64,
    /// Sum of the decoded lengths of all blocks.
    pub raw_bytes: u64,
    /// SHA-256 of the tables.
    pub tables_digest: [u8; DIGEST_LEN],
    /// Root over the objects.
    pub merkle_root: [u8; DIGEST_LEN],
    /// The repository.
    pub repo: RepoId,
}

impl Footer {
    /// The footer's bytes; their SHA-256 is the layer's id.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FOOTER_MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[self.fanout_bits, 0]);
        out.extend_from_slice(&self.block_count.to_le_bytes());
        out.extend_from_slice(&self.object_count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.blocks_end.to_le_bytes());
        out.extend_from_slice(&self.raw_bytes.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.tables_digest);
        out.extend_from_slice(&self.merkle_root);
        out.extend_from_slice(&self.repo);
        out.extend_from_slice(&[0; 20]);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Reads a footer and the id that it gives its layer.
    pub fn decode(bytes: &[u8]) -> Result<(LayerId, Self), FormatError> {
        let mut reader = ByteReader::new("a layer's footer", bytes);
        check_start(&mut reader, FOOTER_MAGIC, WHAT)?;
        let fanout_bits = reader.u8()?;
        reader.u8()?;
        let block_count = reader.u32()?;
        let object_count = reader.u32()?;
        reader.u32()?;
        let blocks_end = reader.u64()?;
        let raw_bytes = reader.u64()?;
        reader.u64()?;
        let tables_digest = reader.array()?;
        let merkle_root = reader.array()?;
        let repo = reader.array()?;
        reader.take(20)?;
        let crc = reader.u32()?;
        reader.finish()?;
        let covered = bytes.get(..FOOTER_LEN - 4).unwrap_or_default();
        if crc32fast::hash(covered) != crc {
            return Err(FormatError::Checksum("layer's footer"));
        }
        if fanout_bits > MAX_FANOUT_BITS {
            return Err(invalid("its fan-out is too wide"));
        }
        let footer =
            Self { block_count, object_count, fanout_bits, blocks_end, raw_bytes, tables_digest, merkle_root, repo };
        Ok((LayerId::from_digest(sha256(&[bytes])), footer))
    }

    /// Bytes of all tables together.
    pub fn tables_len(&self) -> u64 {
        u64::from(self.block_count) * BLOCK_ROW_LEN as u64
            + fanout_len(self.fanout_bits) as u64
            + u64::from(self.object_count) * (DIGEST_LEN + PLACE_LEN) as u64
    }

    /// Length of the whole file; `None` if it does not fit a number.
    pub fn file_len(&self) -> Option<u64> {
        self.blocks_end.checked_add(self.tables_len())?.checked_add(FOOTER_LEN as u64)
    }
}

/// Builds tables and footer for blocks in order of writing and objects in any order.
pub fn encode_tables(
    repo: RepoId,
    blocks: &[BlockRow],
    objects: &mut [ObjectRow],
    blocks_end: u64,
) -> (Vec<u8>, Footer) {
    objects.sort_unstable_by_key(|row| row.id);
    let bits = fanout_bits(objects.len());
    let mut out = Vec::new();
    for block in blocks {
        out.extend_from_slice(&block.offset.to_le_bytes());
        out.extend_from_slice(&block.stored_len.to_le_bytes());
        out.extend_from_slice(&block.raw_len.to_le_bytes());
        out.extend_from_slice(&block.crc.to_le_bytes());
        let codec = match block.codec {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        };
        out.extend_from_slice(&[codec, 0, 0, 0]);
    }
    put_fanout(&mut out, bits, objects.iter().map(|row| prefix_of(row.id.digest())));
    for row in objects.iter() {
        out.extend_from_slice(row.id.digest());
    }
    for ObjectRow { place, .. } in objects.iter() {
        out.extend_from_slice(&place.block.to_le_bytes());
        out.extend_from_slice(&place.offset.to_le_bytes());
        out.extend_from_slice(&place.len.to_le_bytes());
        out.push(kind_number(place.kind));
    }
    let footer = Footer {
        block_count: blocks.len() as u32,
        object_count: objects.len() as u32,
        fanout_bits: bits,
        blocks_end,
        raw_bytes: blocks.iter().map(|block| u64::from(block.raw_len)).sum(),
        tables_digest: sha256(&[&out]),
        merkle_root: objects_root(objects.iter().copied()),
        repo,
    };
    (out, footer)
}

fn objects_root(objects: impl Iterator<Item = ObjectRow>) -> [u8; DIGEST_LEN] {
    merkle_root(objects.map(|row| merkle_leaf(row.id.digest(), kind_number(row.place.kind), row.place.len)).collect())
}

/// A layer's tables, searched where they lie.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    all: &'a [u8],
    blocks: &'a [u8],
    fanout: &'a [u8],
    ids: &'a [[u8; DIGEST_LEN]],
    places: &'a [u8],
    footer: &'a Footer,
}

impl<'a> Tables<'a> {
    /// Divides the bytes between blocks and footer.
    pub fn new(footer: &'a Footer, all: &'a [u8]) -> Result<Self, FormatError> {
        if all.len() as u64 != footer.tables_len() {
            return Err(invalid("its tables have the wrong length"));
        }
        let mut reader = ByteReader::new("a layer's tables", all);
        let blocks = reader.take(footer.block_count as usize * BLOCK_ROW_LEN)?;
        let fanout = reader.take(fanout_len(footer.fanout_bits))?;
        let (ids, _) = reader.take(footer.object_count as usize * DIGEST_LEN)?.as_chunks();
        let places = reader.take(footer.object_count as usize * PLACE_LEN)?;
        Ok(Self { all, blocks, fanout, ids, places, footer })
    }

    /// The row of an object, if the layer has it.
    pub fn find(&self, id: &ObjectId) -> Result<Option<u32>, FormatError> {
        let bucket = bucket_of(prefix_of(id.digest()), self.footer.fanout_bits);
        let range = bucket_range(self.fanout, bucket, self.footer.object_count)?;
        let rows = self.ids.get(range.clone()).unwrap_or_default();
        Ok(rows.iter().position(|row| row == id.digest()).map(|at| (range.start + at) as u32))
    }

    /// The object in a row.
    pub fn object(&self, row: u32) -> Result<ObjectRow, FormatError> {
        let id = self.ids.get(row as usize).ok_or_else(|| invalid("a row is out of range"))?;
        let at = row as usize * PLACE_LEN;
        let mut reader = ByteReader::new("a layer's object", self.places.get(at..at + PLACE_LEN).unwrap_or_default());
        let (block, offset, len) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let kind = kind_from_number(reader.u8()?).ok_or_else(|| invalid("an object has an unknown kind"))?;
        Ok(ObjectRow { id: ObjectId::from_digest(*id), place: Place { block, offset, len, kind } })
    }

    /// All ids in order.
    pub fn ids(&self) -> &'a [[u8; DIGEST_LEN]] {
        self.ids
    }

    /// All objects in order of their ids.
    pub fn objects(&self) -> impl Iterator<Item = Result<ObjectRow, FormatError>> + '_ {
        (0..self.footer.object_count).map(|row| self.object(row))
    }

    /// A block's row, with its range checked against the file.
    pub fn block(&self, number: u32) -> Result<BlockRow, FormatError> {
        let at = number as usize * BLOCK_ROW_LEN;
        let row = self.blocks.get(at..at + BLOCK_ROW_LEN).ok_or_else(|| invalid("a block number is out of range"))?;
        let mut reader = ByteReader::new("a layer's block", row);
        let offset = reader.u64()?;
        let (stored_len, raw_len, crc) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let codec = match reader.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            other => return Err(invalid(format!("a block has the unknown codec {other}"))),
        };
        if reader.u8()? != 0 {
            return Err(invalid("a block has an unknown filter"));
        }
        let end = offset.checked_add(u64::from(stored_len));
        if offset < HEADER_LEN as u64 || end.is_none_or(|end| end > self.footer.blocks_end) || raw_len > MAX_BLOCK_LEN {
            return Err(invalid(format!("block {number} lies outside the file or is too large")));
        }
        Ok(BlockRow { offset, stored_len, raw_len, crc, codec })
    }

    /// Compares the tables with what the footer says of them: digest, order, ranges and Merkle root.
    pub fn verify(&self) -> Result<(), FormatError> {
        if sha256(&[self.all]) != self.footer.tables_digest {
            return Err(FormatError::Checksum("layer's tables"));
        }
        let blocks: Vec<BlockRow> = (0..self.footer.block_count).map(|n| self.block(n)).collect::<Result<_, _>>()?;
        let objects: Vec<ObjectRow> = self.objects().collect::<Result<_, _>>()?;
        if !objects.is_sorted_by(|a, b| a.id < b.id) {
            return Err(invalid("its objects are out of order"));
        }
        for ObjectRow { id, place } in &objects {
            let raw_len = blocks.get(place.block as usize).map_or(0, |block| block.raw_len);
            if place.offset.checked_add(place.len).is_none_or(|end| end > raw_len) {
                return Err(invalid(format!("the {} {id} lies outside its block", place.kind)));
            }
        }
        if objects_root(objects.into_iter()) == self.footer.merkle_root {
            Ok(())
        } else {
            Err(FormatError::Checksum("layer's Merkle root"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Vec<u8>, Footer) {
        let blocks = [
            BlockRow { offset: 32, stored_len: 10, raw_len: 30, crc: 1, codec: Codec::Zstd },
            BlockRow { offset: 42, stored_len: 7, raw_len: 7, crc: 2, codec: Codec::Raw },
        ];
        let mut objects: Vec<ObjectRow> = (0..9u32)
            .map(|i| ObjectRow {
                id: ObjectId::from_digest(sha256(&[&i.to_le_bytes()])),
                place: Place { block: 0, offset: i * 3, len: 3, kind: ObjectKind::Chunk },
            })
            .collect();
        objects[8].place = Place { block: 1, offset: 0, len: 7, kind: ObjectKind::Commit };
        encode_tables([9; 16], &blocks, &mut objects, 49)
    }

    #[test]
    fn golden_footer() {
        let (tables, footer) = sample();
        let bytes = footer.encode();
        assert_eq!((bytes.len(), tables.len() as u64), (FOOTER_LEN, footer.tables_len()));
        let (id, decoded) = Footer::decode(&bytes).unwrap();
        assert_eq!(decoded, footer);
        assert_eq!(id.short(), "54ec2f9ba6cd");
    }

    #[test]
    fn every_object_is_found_and_others_are_not() {
        let (bytes, footer) = sample();
        let tables = Tables::new(&footer, &bytes).unwrap();
        tables.verify().unwrap();
        for i in 0..9u32 {
            let id = ObjectId::from_digest(sha256(&[&i.to_le_bytes()]));
            let row = tables.find(&id).unwrap().unwrap();
            assert_eq!(tables.object(row).unwrap().id, id);
        }
        assert_eq!(tables.find(&ObjectId::from_digest([3; 32])).unwrap(), None);
        assert_eq!(tables.block(1).unwrap().stored_len, 7);
        assert!(tables.block(2).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (bytes, footer) = sample();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(Tables::new(&footer, &damaged).unwrap().verify().is_err(), "byte {at}");
        }
        let encoded = footer.encode();
        for at in 0..encoded.len() {
            let mut damaged = encoded.clone();
            damaged[at] ^= 4;
            assert!(Footer::decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn headers_of_others_and_of_the_future_are_told_apart() {
        let header = encode_header(&[5; 16]);
        assert_eq!(decode_header(&header).unwrap(), [5; 16]);
        let changed = |at: usize, to: u8| {
            let mut header = header;
            header[at] = to;
            decode_header(&header).unwrap_err()
        };
        assert!(matches!(changed(0, b'X'), FormatError::Foreign(_)));
        assert!(matches!(changed(8, 2), FormatError::Future { found: 2, .. }));
        assert!(matches!(changed(12, 1), FormatError::Feature { .. }));
        assert!(decode_header(b"").is_err());
    }

    proptest! {
        #[test]
        fn tables_of_anything_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 465..=465), id: [u8; 32]) {
            let (_, footer) = sample();
            prop_assert_eq!(footer.tables_len(), 465);
            let tables = Tables::new(&footer, &bytes).unwrap();
            let _ = tables.find(&ObjectId::from_digest(id));
            let _ = tables.block(0);
            let _ = tables.object(3);
            let _ = tables.verify();
        }
    }
}
