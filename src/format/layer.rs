//! Layer files: header, blocks, tables, footer.

use super::object::{MAX_OBJECT_LEN, kind_from_number, kind_number};
use super::table::{MAX_FANOUT_BITS, bucket_of, bucket_range, fanout_bits, fanout_len, prefix_of, put_fanout};
use super::{FormatError, RepoId, check_features, check_start};
use crate::base::bytes::{ByteReader, DecodeError};
use crate::model::id::{BlockId, DIGEST_LEN, LayerId, ObjectId, ObjectKind};
use crate::transform::compress::Codec;
use crate::transform::filter::{Filter, Width};
use crate::transform::hash::{block_id, merkle_leaf, merkle_root, sha256};

/// Layers whose blocks stand alone and have no ids.
pub const VERSION_WITHOUT_BASES: u16 = 1;
/// Layers whose blocks have ids and may need an older block to be decoded.
pub const VERSION: u16 = 2;

const HEADER_MAGIC: &[u8; 8] = b"DIGLAYER";
const FOOTER_MAGIC: &[u8; 8] = b"DIGFOOT1";
/// Length of the header.
pub const HEADER_LEN: usize = 32;
/// Length of the footer.
pub const FOOTER_LEN: usize = 152;
/// Length of a row of the block table, of the first version and of the second.
const BLOCK_ROW_LENS: [usize; 2] = [24, 40];
/// Length of an object's place.
pub const PLACE_LEN: usize = 13;
/// No block decodes to more; an object lies in one block.
pub const MAX_BLOCK_LEN: u32 = MAX_OBJECT_LEN;

const WHAT: &str = "layer";
const BLOCK_KIND: u8 = kind_number(ObjectKind::Block);

fn invalid(why: impl Into<String>) -> FormatError {
    DecodeError::Invalid { what: "a layer", why: why.into() }.into()
}

fn block_row_len(version: u16) -> usize {
    let [first, second] = BLOCK_ROW_LENS;
    if version == VERSION_WITHOUT_BASES { first } else { second }
}

/// The first bytes of a layer.
pub fn encode_header(version: u16, repo: &RepoId) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    let parts = [HEADER_MAGIC.as_slice(), &version.to_le_bytes(), &[0; 6], repo];
    out.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    out
}

/// Checks the first bytes of a layer and says its version and which repository it belongs to.
pub fn decode_header(bytes: &[u8]) -> Result<(u16, RepoId), FormatError> {
    let mut reader = ByteReader::new("a layer", bytes);
    let version = check_start(&mut reader, HEADER_MAGIC, VERSION, WHAT)?;
    if reader.u16()? != 0 {
        return Err(invalid("a reserved field is used"));
    }
    check_features(reader.u32()?, WHAT)?;
    Ok((version, reader.array()?))
}

/// The block that another one needs to be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Which block. It may be in any layer of the repository.
    pub id: BlockId,
    /// How many blocks have to be decoded one after the other before this one can be, when it was written.
    pub depth: u8,
    /// Where in the base the older version of the block's first byte is; may lie outside.
    pub at: i32,
    /// Where in the base begins what serves as dictionary.
    pub from: u32,
    /// How much of it does.
    pub len: u32,
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
    /// What to undo then.
    pub filter: Filter,
    /// What is needed for it; `None` for a block that stands alone.
    pub base: Option<Base>,
}

impl BlockRow {
    /// How many blocks have to be decoded before this one.
    pub fn depth(&self) -> u8 {
        self.base.map_or(0, |base| base.depth)
    }
}

fn filter_number(filter: Filter) -> u8 {
    let width = |width: Width| width.bytes() as u8;
    match filter {
        Filter::None => 0,
        Filter::Group(of) => width(of),
        Filter::Difference(of) => DIFFERENCE + width(of),
    }
}

/// Added to the number of a grouping filter for one that takes differences first.
const DIFFERENCE: u8 = 16;

fn filter_from_number(number: u8) -> Option<Filter> {
    let grouped = Width::ALL.into_iter().flat_map(|width| [Filter::Group(width), Filter::Difference(width)]);
    grouped.chain([Filter::None]).find(|filter| filter_number(*filter) == number)
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

impl ObjectRow {
    /// Sorts objects as they lie in the file; one without bytes comes before the one that begins where it does.
    pub fn place_order(&self) -> (u32, u32, u32, ObjectId) {
        (self.place.block, self.place.offset, self.place.len, self.id)
    }
}

/// What the footer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The layer's version.
    pub version: u16,
    /// Number of blocks.
    pub block_count: u32,
    /// Number of rows in the object table: objects, and in the second version blocks as well.
    pub object_count: u32,
    /// Number of blocks elsewhere or here that blocks of this layer need.
    pub base_count: u32,
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
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[self.fanout_bits, 0]);
        out.extend_from_slice(&self.block_count.to_le_bytes());
        out.extend_from_slice(&self.object_count.to_le_bytes());
        out.extend_from_slice(&self.base_count.to_le_bytes());
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
        let version = check_start(&mut reader, FOOTER_MAGIC, VERSION, WHAT)?;
        let fanout_bits = reader.u8()?;
        reader.u8()?;
        let block_count = reader.u32()?;
        let object_count = reader.u32()?;
        let base_count = reader.u32()?;
        let blocks_end = reader.u64()?;
        let raw_bytes = reader.u64()?;
        reader.u64()?;
        let tables_digest = reader.array()?;
        let merkle_root = reader.array()?;
        let repo = reader.array()?;
        if version != VERSION_WITHOUT_BASES && reader.take(20)?.iter().any(|byte| *byte != 0) {
            return Err(invalid("its footer uses a reserved field"));
        } else if version == VERSION_WITHOUT_BASES {
            reader.take(20)?;
        }
        let crc = reader.u32()?;
        reader.finish()?;
        let covered = bytes.get(..FOOTER_LEN - 4).unwrap_or_default();
        if crc32fast::hash(covered) != crc {
            return Err(FormatError::Checksum("layer's footer"));
        }
        if fanout_bits > MAX_FANOUT_BITS {
            return Err(invalid("its fan-out is too wide"));
        }
        if base_count > if version == VERSION_WITHOUT_BASES { 0 } else { block_count } {
            return Err(invalid("it has too many bases"));
        }
        let footer = Self {
            version,
            block_count,
            object_count,
            base_count,
            fanout_bits,
            blocks_end,
            raw_bytes,
            tables_digest,
            merkle_root,
            repo,
        };
        Ok((LayerId::from_digest(sha256(&[bytes])), footer))
    }

    /// Number of objects, without the rows of whole blocks.
    pub fn stored_objects(&self) -> u32 {
        let blocks = if self.version == VERSION_WITHOUT_BASES { 0 } else { self.block_count };
        self.object_count.saturating_sub(blocks)
    }

    /// Bytes of all tables together.
    pub fn tables_len(&self) -> u64 {
        u64::from(self.block_count) * block_row_len(self.version) as u64
            + u64::from(self.base_count) * DIGEST_LEN as u64
            + fanout_len(self.fanout_bits) as u64
            + u64::from(self.object_count) * (DIGEST_LEN + PLACE_LEN) as u64
    }

    /// Length of the whole file; `None` if it does not fit a number.
    pub fn file_len(&self) -> Option<u64> {
        self.blocks_end.checked_add(self.tables_len())?.checked_add(FOOTER_LEN as u64)
    }
}

/// The rows of whole blocks: what objects lie in each says its id.
pub fn block_rows(blocks: &[BlockRow], objects: &mut [ObjectRow]) -> Vec<ObjectRow> {
    objects.sort_unstable_by_key(ObjectRow::place_order);
    let row = |of: &[ObjectRow]| {
        let block = of.first()?.place.block;
        let len = blocks.get(block as usize)?.raw_len;
        let place = Place { block, offset: 0, len, kind: ObjectKind::Block };
        Some(ObjectRow { id: block_id(of.iter().map(|row| &row.id)).into(), place })
    };
    objects.chunk_by(|a, b| a.place.block == b.place.block).filter_map(row).collect()
}

/// Builds tables and footer for blocks in order of writing and objects in any order. The first version has no place for
/// bases and filters.
pub fn encode_tables(
    version: u16,
    repo: RepoId,
    blocks: &[BlockRow],
    objects: &mut Vec<ObjectRow>,
    blocks_end: u64,
) -> (Vec<u8>, Footer) {
    if version != VERSION_WITHOUT_BASES {
        let rows = block_rows(blocks, objects);
        objects.extend(rows);
    }
    objects.sort_unstable_by_key(|row| (row.id, row.place.block));
    let mut bases: Vec<BlockId> = blocks.iter().filter_map(|block| Some(block.base?.id)).collect();
    bases.sort_unstable();
    bases.dedup();
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
        out.extend_from_slice(&[codec, filter_number(block.filter), block.depth(), 0]);
        if version != VERSION_WITHOUT_BASES {
            // Counted from one: zero is none.
            let base = block.base.and_then(|base| bases.binary_search(&base.id).ok()).map_or(0, |at| at as u32 + 1);
            out.extend_from_slice(&base.to_le_bytes());
            let (at, from, len) = block.base.map_or((0, 0, 0), |base| (base.at, base.from, base.len));
            out.extend_from_slice(&at.to_le_bytes());
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
        }
    }
    for base in &bases {
        out.extend_from_slice(base.digest());
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
        version,
        block_count: blocks.len() as u32,
        object_count: objects.len() as u32,
        base_count: bases.len() as u32,
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
    bases: &'a [[u8; DIGEST_LEN]],
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
        let blocks = reader.take(footer.block_count as usize * block_row_len(footer.version))?;
        let (bases, _) = reader.take(footer.base_count as usize * DIGEST_LEN)?.as_chunks();
        let fanout = reader.take(fanout_len(footer.fanout_bits))?;
        let (ids, _) = reader.take(footer.object_count as usize * DIGEST_LEN)?.as_chunks();
        let places = reader.take(footer.object_count as usize * PLACE_LEN)?;
        Ok(Self { all, blocks, bases, fanout, ids, places, footer })
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

    /// The ids of all blocks in order; in the first version they are not stored and are made here.
    pub fn block_ids(&self) -> Result<Vec<BlockId>, FormatError> {
        let mut ids = vec![BlockId::from_digest([0; DIGEST_LEN]); self.footer.block_count as usize];
        let rows = if self.footer.version == VERSION_WITHOUT_BASES {
            let blocks: Vec<BlockRow> =
                (0..self.footer.block_count).map(|n| self.block(n)).collect::<Result<_, _>>()?;
            block_rows(&blocks, &mut self.objects().collect::<Result<Vec<_>, _>>()?)
        } else {
            let rows = (0..self.footer.object_count).filter(|row| self.kind_number(*row) == Some(BLOCK_KIND));
            rows.map(|row| self.object(row)).collect::<Result<_, _>>()?
        };
        for row in rows {
            if let Some(slot) = ids.get_mut(row.place.block as usize) {
                *slot = BlockId::from_digest(*row.id.digest());
            }
        }
        Ok(ids)
    }

    fn kind_number(&self, row: u32) -> Option<u8> {
        self.places.get(row as usize * PLACE_LEN + PLACE_LEN - 1).copied()
    }

    /// A block's row, with its range checked against the file.
    pub fn block(&self, number: u32) -> Result<BlockRow, FormatError> {
        let row_len = block_row_len(self.footer.version);
        let at = number as usize * row_len;
        let row = self.blocks.get(at..at + row_len).ok_or_else(|| invalid("a block number is out of range"))?;
        let mut reader = ByteReader::new("a layer's block", row);
        let offset = reader.u64()?;
        let (stored_len, raw_len, crc) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let codec = match reader.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            other => return Err(invalid(format!("a block has the unknown codec {other}"))),
        };
        let filter = filter_from_number(reader.u8()?).ok_or_else(|| invalid("a block has an unknown filter"))?;
        let depth = reader.u8()?;
        if reader.u8()? != 0 {
            return Err(invalid(format!("block {number} uses a reserved field")));
        }
        let base = match self.footer.version {
            VERSION_WITHOUT_BASES => None,
            _ => match reader.u32()?.checked_sub(1) {
                None => None,
                Some(number) => {
                    let id = self.bases.get(number as usize).ok_or_else(|| invalid("a base is out of range"))?;
                    let (at, from, len) = (reader.u32()? as i32, reader.u32()?, reader.u32()?);
                    Some(Base { id: BlockId::from_digest(*id), depth, at, from, len })
                }
            },
        };
        if filter.needs_base() && base.is_none() {
            return Err(invalid(format!("block {number} has a filter that needs a base, and none")));
        }
        let end = offset.checked_add(u64::from(stored_len));
        if offset < HEADER_LEN as u64 || end.is_none_or(|end| end > self.footer.blocks_end) || raw_len > MAX_BLOCK_LEN {
            return Err(invalid(format!("block {number} lies outside the file or is too large")));
        }
        Ok(BlockRow { offset, stored_len, raw_len, crc, codec, filter, base })
    }

    /// Compares the tables with what the footer says of them: digest, order, ranges and Merkle root.
    pub fn verify(&self) -> Result<(), FormatError> {
        if sha256(&[self.all]) != self.footer.tables_digest {
            return Err(FormatError::Checksum("layer's tables"));
        }
        let blocks: Vec<BlockRow> = (0..self.footer.block_count).map(|n| self.block(n)).collect::<Result<_, _>>()?;
        let objects: Vec<ObjectRow> = self.objects().collect::<Result<_, _>>()?;
        let has_bases = self.footer.version != VERSION_WITHOUT_BASES;
        // What two layers held that became one may be there twice.
        if !objects.is_sorted_by(|a, b| a.id < b.id || a.id == b.id && has_bases) {
            return Err(invalid("its objects are out of order"));
        }
        for ObjectRow { id, place } in &objects {
            let raw_len = blocks.get(place.block as usize).map_or(0, |block| block.raw_len);
            if place.offset.checked_add(place.len).is_none_or(|end| end > raw_len) {
                return Err(invalid(format!("the {} {id} lies outside its block", place.kind)));
            }
        }
        if objects_root(objects.iter().copied()) != self.footer.merkle_root {
            return Err(FormatError::Checksum("layer's Merkle root"));
        }
        if has_bases { check_block_ids(&blocks, objects) } else { Ok(()) }
    }
}

/// Compares the rows of whole blocks with what lies in them.
fn check_block_ids(blocks: &[BlockRow], objects: Vec<ObjectRow>) -> Result<(), FormatError> {
    let (mut found, mut others): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|row| row.place.kind == ObjectKind::Block);
    found.sort_unstable_by_key(|row| row.place.block);
    if found == block_rows(blocks, &mut others) {
        Ok(())
    } else {
        Err(invalid("its blocks do not have the ids that it says"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Vec<u8>, Footer) {
        sample_of(VERSION)
    }

    fn sample_of(version: u16) -> (Vec<u8>, Footer) {
        let base = Base { id: BlockId::from_digest([7; 32]), depth: 3, at: -5, from: 6, len: 7 };
        let row = |offset, stored_len, raw_len, crc, codec| {
            let (filter, base) = (Filter::None, None);
            BlockRow { offset, stored_len, raw_len, crc, codec, filter, base }
        };
        let mut blocks = [row(32, 10, 30, 1, Codec::Zstd), row(42, 7, 7, 2, Codec::Raw)];
        if version != VERSION_WITHOUT_BASES {
            blocks[0].base = Some(base);
            blocks[0].filter = Filter::Difference(Width::Two);
        }
        let mut objects: Vec<ObjectRow> = (0..9u32)
            .map(|i| ObjectRow {
                id: ObjectId::from_digest(sha256(&[&i.to_le_bytes()])),
                place: Place { block: 0, offset: i * 3, len: 3, kind: ObjectKind::Chunk },
            })
            .collect();
        objects[8].place = Place { block: 1, offset: 0, len: 7, kind: ObjectKind::Commit };
        encode_tables(version, [9; 16], &blocks, &mut objects, 49)
    }

    #[test]
    fn golden_footer() {
        let (tables, footer) = sample();
        let bytes = footer.encode();
        assert_eq!((bytes.len(), tables.len() as u64), (FOOTER_LEN, footer.tables_len()));
        let (id, decoded) = Footer::decode(&bytes).unwrap();
        assert_eq!(decoded, footer);
        assert_eq!(id.short(), "8ce53b6b7242");
        let (_, first) = sample_of(VERSION_WITHOUT_BASES);
        assert_eq!(Footer::decode(&first.encode()).unwrap().0.short(), "54ec2f9ba6cd");
    }

    #[test]
    fn what_a_block_is_and_needs_is_read_back() {
        let (bytes, footer) = sample();
        let tables = Tables::new(&footer, &bytes).unwrap();
        let block = tables.block(0).unwrap();
        assert_eq!((block.filter, block.depth()), (Filter::Difference(Width::Two), 3));
        assert_eq!(block.base, Some(Base { id: BlockId::from_digest([7; 32]), depth: 3, at: -5, from: 6, len: 7 }));
        assert_eq!(tables.block(1).unwrap().base, None);
        let ids: Vec<ObjectId> = (0..8u32).map(|i| ObjectId::from_digest(sha256(&[&i.to_le_bytes()]))).collect();
        let row = tables.find(&block_id(ids.iter()).into()).unwrap().unwrap();
        assert_eq!(tables.object(row).unwrap().place, Place { block: 0, offset: 0, len: 30, kind: ObjectKind::Block });
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
        let header = encode_header(VERSION, &[5; 16]);
        assert_eq!(decode_header(&header).unwrap(), (VERSION, [5; 16]));
        let changed = |at: usize, to: u8| {
            let mut header = header;
            header[at] = to;
            decode_header(&header).unwrap_err()
        };
        assert!(matches!(changed(0, b'X'), FormatError::Foreign(_)));
        assert!(matches!(changed(8, 3), FormatError::Future { found: 3, .. }));
        assert!(matches!(changed(12, 1), FormatError::Feature { .. }));
        assert!(decode_header(b"").is_err());
    }

    proptest! {
        #[test]
        fn tables_of_anything_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 619..=619), id: [u8; 32]) {
            let (_, footer) = sample();
            prop_assert_eq!(footer.tables_len(), 619);
            let tables = Tables::new(&footer, &bytes).unwrap();
            let _ = tables.find(&ObjectId::from_digest(id));
            let _ = tables.block(0);
            let _ = tables.object(3);
            let _ = tables.verify();
        }
    }
}
