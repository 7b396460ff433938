//! The tables at the end of a layer, searched where they lie.

use std::ops::Range;

use super::{
    BLOCK_KIND, Base, BlockRow, Footer, HEADER_LEN, MAX_BLOCK_LEN, ObjectRow, PLACE_LEN, Place, VERSION_WITHOUT_BASES,
    block_row_len, block_rows, filter_from_number, invalid, objects_root,
};
use crate::base::bytes::ByteReader;
use crate::format::FormatError;
use crate::format::object::kind_from_number;
use crate::format::table::{bucket_of, bucket_range, bucket_ranges, fanout_len, prefix_of, touch};
use crate::model::id::{BlockId, DIGEST_LEN, ObjectId, ObjectKind};
use crate::transform::compress::Codec;
use crate::transform::hash::sha256;

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

    /// The rows of those of many objects that the layer has, each with the number of the object; `None` if the fan-out is wrong.
    pub fn find_each(&self, ids: &[ObjectId]) -> Option<Vec<(usize, u32)>> {
        let prefixes = ids.iter().map(|id| prefix_of(id.digest()));
        let ranges = bucket_ranges(self.fanout, self.footer.fanout_bits, self.footer.object_count, prefixes)?;
        touch(self.ids, &ranges);
        let asked = ranges.into_iter().zip(ids).enumerate();
        let found = asked.filter_map(|(number, (range, id))| {
            let at = self.ids.get(range.clone())?.iter().position(|row| row == id.digest())?;
            Some((number, (range.start + at) as u32))
        });
        Some(found.collect())
    }

    /// Whether each of these rows holds the object beside it; `None` if one of them cannot be read.
    pub fn hold_each(&self, asked: &[(u32, ObjectId)]) -> Option<Vec<bool>> {
        let rows: Vec<Range<usize>> = asked.iter().map(|(row, _)| *row as usize..*row as usize + 1).collect();
        touch(self.ids, &rows);
        touch(self.places.as_chunks::<PLACE_LEN>().0, &rows);
        asked.iter().map(|(row, id)| Some(self.object(*row).ok()?.id == *id)).collect()
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
    if found != block_rows(blocks, &mut others) {
        return Err(invalid("its blocks do not have the ids that it says"));
    }
    // Sorted by place by now. An id says what a block is only if its objects fill it.
    for of in others.chunk_by(|a, b| a.place.block == b.place.block) {
        let end = of.iter().try_fold(0, |end, row| (row.place.offset == end).then(|| end + row.place.len));
        let block = of.first().map_or(0, |row| row.place.block);
        if end != blocks.get(block as usize).map(|block| block.raw_len) {
            return Err(invalid(format!("the objects of its block {block} do not fill it")));
        }
    }
    Ok(())
}
