//! Merging of small layers as they pile up: a little with each commit.
//!
//! Layers are sorted into tiers by size. When a tier has enough of them they become one, which belongs to the next tier or the
//! one after, so every byte is copied a few times at most, and there are a few layers for each tier however many commits were
//! made. Blocks are copied as they are; nothing is decoded.

use crate::base::monitor::Monitor;
use crate::format::layer::{BlockRow, ObjectRow};
use crate::model::id::LayerId;
use crate::ops::Result;
use crate::repo::{Repository, WriteLock};
use crate::store::StoreError;
use crate::store::objects::ObjectStore;

/// Layers up to this length are merged by the way; longer ones by `gc`. Copying and syncing eight of them takes about 60 ms.
const MAX_MERGED_BYTES: u64 = 8 << 20;
/// Layers of a tier that become one. Opening a layer takes 20 us, and an object that is in no index is looked for in each.
const LAYERS_PER_TIER: usize = 8;
/// Layers of one tier differ in length by less than this factor.
const TIER_RATIO: u64 = 8;
/// Layers below this length are one tier.
const FIRST_TIER_BYTES: u64 = 16 << 10;

/// The tier of a layer.
fn tier(file_len: u64) -> u32 {
    (file_len / FIRST_TIER_BYTES).checked_ilog(TIER_RATIO).map_or(0, |tier| tier + 1)
}

/// Merges the smallest layers, if there are many, and removes the files of those that were replaced long ago.
///
/// The commit that this follows is done: what goes wrong here is only said, and tried again next time.
pub fn maintain(repo: &Repository, lock: &WriteLock, monitor: &dyn Monitor) {
    if repo.settings().maintenance
        && let Err(error) = merge(repo, lock)
    {
        monitor.problem(&format!("small layers were not merged: {error}"));
    }
}

/// Merges the smallest layers, if there are many, and removes the files of those that were replaced long ago. Says whether
/// something was merged.
pub fn merge(repo: &Repository, lock: &WriteLock) -> Result<bool> {
    repo.reap(lock, repo.settings().grace)?;
    let objects = repo.objects();
    let mut tiers: Vec<Vec<(u32, LayerId, u64)>> = Vec::new();
    for (number, (id, record)) in (0..).zip(objects.layers().layers()) {
        if record.file_len <= MAX_MERGED_BYTES {
            let tier = tier(record.file_len) as usize;
            tiers.resize_with(tiers.len().max(tier + 1), Vec::new);
            if let Some(tier) = tiers.get_mut(tier) {
                tier.push((number, *id, record.file_len));
            }
        }
    }
    let Some(mut full) = tiers.into_iter().find(|tier| tier.len() >= LAYERS_PER_TIER) else { return Ok(false) };
    full.truncate(LAYERS_PER_TIER);
    let mut writer = repo.new_layer()?;
    let mut old = Vec::new();
    for (number, id, file_len) in full {
        match blocks_of(&objects, number) {
            Ok(blocks) => {
                for (row, stored, rows) in blocks {
                    writer.copy_block(&row, &stored, &rows)?;
                }
                old.push((id, file_len));
            }
            Err(StoreError::Disk(error)) => return Err(error.into()),
            // What is damaged stays as it is, for 'fsck --repair'.
            Err(_) => {}
        }
    }
    let merged = old.len() > 1;
    if merged {
        repo.replace_layers(lock, &[writer.seal()?], &old, Vec::new())?;
    }
    Ok(merged)
}

/// The blocks of a layer, each with its stored bytes and its objects. All of them are read before one is copied.
fn blocks_of(
    objects: &ObjectStore,
    layer: u32,
) -> std::result::Result<Vec<(BlockRow, Vec<u8>, Vec<ObjectRow>)>, StoreError> {
    let reader = objects.layers().reader(layer)?;
    let rows = reader.objects_by_place()?;
    let block = |rows: &[ObjectRow]| {
        let row = reader.block(rows.first().map_or(0, |row| row.place.block))?;
        Ok((row, reader.read_stored(&row)?, rows.to_vec()))
    };
    rows.chunk_by(|a, b| a.place.block == b.place.block).map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, file};

    #[test]
    fn tiers_grow_by_their_ratio() {
        let lens = [0, FIRST_TIER_BYTES - 1, FIRST_TIER_BYTES, 8 * FIRST_TIER_BYTES - 1, 8 * FIRST_TIER_BYTES];
        assert_eq!(lens.map(tier), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn many_commits_make_few_layers() {
        let repo = TestRepo::in_memory();
        let commits: Vec<_> = (0..100)
            .map(|number| {
                let id = repo.commit(&[("a", file(format!("{number}"))), ("b", file("same"))], "more");
                maintain(&repo, &repo.lock("test").unwrap(), &Silent);
                id
            })
            .collect();
        assert!(repo.objects().layers().layers().len() < 3 * LAYERS_PER_TIER);
        for (number, id) in commits.iter().enumerate() {
            assert_eq!(repo.stored(id, "a"), format!("{number}").as_bytes());
        }
    }
}
