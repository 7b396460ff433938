//! Layer files: header, blocks, tables, footer.
//!
//! What is written here is never changed in place. The footer holds digests of all tables, and the layer's id is the
//! digest of its footer.

mod tables;
#[cfg(test)]
mod tests;

pub use tables::Tables;

use super::object::{MAX_OBJECT_LEN, kind_number};
use super::table::{MAX_FANOUT_BITS, fanout_bits, fanout_len, prefix_of, put_fanout};
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

impl Place {
    /// The object's bytes in its decoded block; `None` if they do not lie within it.
    pub fn bytes_in<'a>(&self, block: &'a [u8]) -> Option<&'a [u8]> {
        block.get(self.offset as usize..)?.get(..self.len as usize)
    }
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
