//! `layer list` and `layer show`: the files that hold the objects.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::{Error, Result};
use crate::base::monitor::Monitor;
use crate::model::id::{BlockId, IdPrefix, LayerId};
use crate::repo::Repository;
use crate::store::layers::LayerSet;
use crate::transform::compress::Codec;

/// All layers.
#[derive(Debug, Clone, Serialize)]
pub struct ListOutcome {
    /// In order of their ids.
    pub layers: Vec<LayerInfo>,
}

/// A layer in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// Its id.
    pub id: LayerId,
    /// Length of the file.
    pub file_bytes: u64,
    /// Number of objects.
    pub objects: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// Bytes of its blocks when decoded.
    pub plain_bytes: u64,
}

/// Lists the layers.
pub fn list(repo: &Repository, monitor: &dyn Monitor) -> Result<ListOutcome> {
    let objects = repo.objects();
    let mut layers = Vec::new();
    for ((id, record), number) in objects.layers().layers().iter().zip(0..) {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        layers.push(LayerInfo {
            id: *id,
            file_bytes: record.file_len,
            objects: record.object_count,
            blocks: record.block_count,
            plain_bytes: objects.layers().reader(number)?.footer().raw_bytes,
        });
    }
    Ok(ListOutcome { layers })
}

/// Which layer to show.
#[derive(Debug, Clone)]
pub struct ShowOptions {
    /// Its id, or the start of it.
    pub id: String,
}

/// One layer.
#[derive(Debug, Clone, Serialize)]
pub struct ShowOutcome {
    /// Its id.
    pub id: LayerId,
    /// Length of the file.
    pub file_bytes: u64,
    /// Number of objects.
    pub objects: u32,
    /// Bytes of its blocks when decoded.
    pub plain_bytes: u64,
    /// The repository that it belongs to, in hex.
    pub repository: String,
    /// Root of the Merkle tree over its objects, in hex.
    pub merkle_root: String,
    /// SHA-256 of its tables, in hex.
    pub tables_digest: String,
    /// Bytes of its tables.
    pub tables_bytes: u64,
    /// Width of the table that speeds up searching.
    pub fanout_bits: u8,
    /// Objects of each kind.
    pub kinds: BTreeMap<String, KindCount>,
    /// Its blocks in order.
    pub blocks: Vec<BlockInfo>,
}

/// Objects of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct KindCount {
    /// How many.
    pub count: u64,
    /// Bytes of them, decoded.
    pub plain_bytes: u64,
}

/// A block of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockInfo {
    /// Its place among the blocks.
    pub number: u32,
    /// `raw` or `zstd`.
    pub codec: &'static str,
    /// Position in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub stored_bytes: u64,
    /// Bytes when decoded.
    pub plain_bytes: u64,
    /// Number of objects in it.
    pub objects: u64,
    /// CRC32 of the stored bytes.
    pub crc32: u32,
    /// What was done to the bytes before they were compressed: `none`, `group2` or `difference2`, or with 4 or 8.
    pub filter: String,
    /// The block that it needs to be decoded.
    pub base: Option<BlockId>,
    /// How many blocks have to be decoded before it.
    pub depth: u8,
}

/// Shows a layer.
pub fn show(repo: &Repository, options: &ShowOptions, monitor: &dyn Monitor) -> Result<ShowOutcome> {
    let objects = repo.objects();
    let number = find(objects.layers(), &options.id)?;
    let reader = objects.layers().reader(number)?;
    let footer = reader.footer();
    let mut kinds: BTreeMap<String, KindCount> = BTreeMap::new();
    let mut in_block = vec![0u64; footer.block_count as usize];
    for place in reader.stored_objects()?.iter().map(|object| object.place) {
        let kind = kinds.entry(place.kind.to_string()).or_default();
        kind.count += 1;
        kind.plain_bytes += u64::from(place.len);
        if let Some(count) = in_block.get_mut(place.block as usize) {
            *count += 1;
        }
    }
    let mut blocks = Vec::with_capacity(in_block.len());
    for (number, objects) in (0..).zip(in_block) {
        let row = reader.block(number)?;
        let codec = match row.codec {
            Codec::Raw => "raw",
            Codec::Zstd => "zstd",
        };
        let (stored_bytes, plain_bytes) = (u64::from(row.stored_len), u64::from(row.raw_len));
        blocks.push(BlockInfo {
            number,
            codec,
            offset: row.offset,
            stored_bytes,
            plain_bytes,
            objects,
            crc32: row.crc,
            filter: row.filter.to_string(),
            base: row.base.map(|base| base.id),
            depth: row.depth(),
        });
    }
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    Ok(ShowOutcome {
        id: reader.id(),
        file_bytes: reader.file_len(),
        objects: footer.stored_objects(),
        plain_bytes: footer.raw_bytes,
        repository: HEXLOWER.encode(&footer.repo),
        merkle_root: HEXLOWER.encode(&footer.merkle_root),
        tables_digest: HEXLOWER.encode(&footer.tables_digest),
        tables_bytes: footer.tables_len(),
        fanout_bits: footer.fanout_bits,
        kinds,
        blocks,
    })
}

/// The place of the layer whose id starts with `text`.
fn find(layers: &LayerSet, text: &str) -> Result<u32> {
    const HINT: &str = "'digstore layer list' shows their ids; four digits or more are enough where they are unique";
    let shown = text.escape_debug();
    let refused = |message: String| Error::Refused { message, hint: HINT };
    let prefix = IdPrefix::parse(text).ok_or_else(|| refused(format!("'{shown}' is not the start of a layer's id")))?;
    let mut found = layers.layers().iter().zip(0..).filter(|((id, _), _)| prefix.matches(id.digest()));
    match (found.next(), found.next()) {
        (Some((_, number)), None) => Ok(number),
        (None, _) => Err(refused(format!("no layer's id starts with '{shown}'"))),
        (Some(_), Some(_)) => Err(refused(format!("'{shown}' is the start of {} layers", 2 + found.count()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, file};
    use crate::transform::chunker::tests::noise;

    #[test]
    fn layers_are_listed_and_shown() {
        let repo = TestRepo::in_memory();
        assert!(list(&repo, &Silent).unwrap().layers.is_empty());
        repo.commit(&[("a", file("x")), ("b", file(noise(1, 12_000)))], "one");
        repo.commit(&[("a", file("y"))], "two");
        let layers = list(&repo, &Silent).unwrap().layers;
        assert_eq!(layers.len(), 2);
        let big = layers.iter().max_by_key(|layer| layer.objects).unwrap();
        let options = ShowOptions { id: big.id.short() };
        let shown = show(&repo, &options, &Silent).unwrap();
        let ShowOutcome { id, file_bytes, objects, plain_bytes, .. } = shown;
        let shown_blocks = shown.blocks.len() as u32;
        assert_eq!(LayerInfo { id, file_bytes, objects, plain_bytes, blocks: shown_blocks }, *big);
        assert_eq!(shown.kinds["chunk"], KindCount { count: 13, plain_bytes: 12_001 });
        assert_eq!((shown.kinds["tree"].count, shown.kinds["commit"].count, shown.kinds["recipe"].count), (1, 1, 1));
        assert_eq!(shown.blocks.iter().map(|b| b.objects).sum::<u64>(), u64::from(big.objects));
        assert_eq!(shown.blocks.iter().map(|b| b.plain_bytes).sum::<u64>(), big.plain_bytes);
        for bad in ["", "xyz", "abc"] {
            assert!(show(&repo, &ShowOptions { id: bad.into() }, &Silent).is_err(), "{bad}");
        }
    }
}
