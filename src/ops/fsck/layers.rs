//! The first pass: layers as files.

use rayon::prelude::*;

use super::{Damage, Found, Outcome, Owner, stop_if_cancelled};
use crate::base::disk::DiskError;
use crate::base::monitor::Monitor;
use crate::format::layer::ObjectRow;
use crate::model::id::{DIGEST_LEN, ObjectId};
use crate::ops::Result;
use crate::repo::Repository;
use crate::store::StoreError;
use crate::store::objects::ObjectStore;
use crate::transform::lanes::sha256_each;

/// What reading one block brought.
struct BlockCheck {
    stored_bytes: u64,
    plain_bytes: u64,
    damaged: Vec<(ObjectId, String)>,
}

/// Checks every layer; what is damaged goes into `found`.
pub(super) fn check(
    repo: &Repository,
    objects: &ObjectStore,
    full: bool,
    outcome: &mut Outcome,
    found: &mut Found,
    monitor: &dyn Monitor,
) -> Result<()> {
    let layers = objects.layers();
    let total: u64 = layers.layers().iter().map(|(_, record)| record.file_len).sum();
    monitor.begin("checking layers", Some(layers.layers().len() as u64), full.then_some(total));
    for number in 0..layers.layers().len() as u32 {
        stop_if_cancelled(monitor)?;
        outcome.layers += 1;
        let checked = layers.reader(number).and_then(|reader| {
            reader.tables()?.verify().map_err(|source| reader.wrong(source))?;
            Ok(reader)
        });
        match checked {
            Ok(reader) => {
                outcome.objects += u64::from(reader.footer().stored_objects());
                if full {
                    check_blocks(repo, objects, number, outcome, &mut found.damage, monitor)?;
                }
            }
            // A disk that does not answer says nothing about the data.
            Err(StoreError::Disk(error)) => return Err(error.into()),
            Err(error) => {
                outcome.add(error.to_string(), None, Owner::default());
                found.bad_layers.extend(layers.layers().get(number as usize).map(|(id, _)| *id));
            }
        }
        monitor.advance(1, 0);
    }
    monitor.end();
    check_pending(objects, full, outcome, &mut found.damage)
}

/// What is in the journal and in no layer yet. The journal's own checksums were right, or it would not be open.
fn check_pending(objects: &ObjectStore, full: bool, outcome: &mut Outcome, damage: &mut Damage) -> Result<()> {
    let rows = objects.pending().objects();
    outcome.objects += rows.len() as u64;
    if !full {
        return Ok(());
    }
    for rows in rows.chunk_by(|a, b| a.place.block == b.place.block) {
        let number = rows.first().map_or(0, |row| row.place.block);
        outcome.blocks_read += 1;
        let block = objects.pending().block(number);
        outcome.bytes_hashed += block.as_ref().map_or(0, |block| block.len() as u64);
        damage.extend(damaged_in(block, rows)?);
    }
    Ok(())
}

/// Decodes every block once and hashes every object in it.
fn check_blocks(
    repo: &Repository,
    objects: &ObjectStore,
    layer: u32,
    outcome: &mut Outcome,
    damage: &mut Damage,
    monitor: &dyn Monitor,
) -> Result<()> {
    let reader = objects.layers().reader(layer)?;
    let rows = reader.objects_by_place()?;
    let blocks: Vec<&[ObjectRow]> = rows.chunk_by(|a, b| a.place.block == b.place.block).collect();
    let checked: Vec<std::result::Result<BlockCheck, DiskError>> = repo.pools().cpu().install(|| {
        let check = |rows: &&[ObjectRow]| {
            if monitor.cancelled() {
                return Ok(BlockCheck { stored_bytes: 0, plain_bytes: 0, damaged: Vec::new() });
            }
            let checked = check_block(objects, layer, rows)?;
            monitor.advance(0, checked.stored_bytes);
            Ok(checked)
        };
        blocks.par_iter().with_max_len(1).map(check).collect()
    });
    stop_if_cancelled(monitor)?;
    for block in checked {
        let block = block?;
        outcome.blocks_read += 1;
        outcome.bytes_hashed += block.plain_bytes;
        for (id, why) in block.damaged {
            if !damage.contains_key(&id) {
                damage.insert(id, why);
            }
        }
    }
    Ok(())
}

fn check_block(objects: &ObjectStore, layer: u32, rows: &[ObjectRow]) -> std::result::Result<BlockCheck, DiskError> {
    let number = rows.first().map_or(0, |row| row.place.block);
    let row = objects.layers().reader(layer).and_then(|reader| reader.block(number));
    let stored_bytes = row.map_or(0, |block| u64::from(block.stored_len));
    let block = objects.decode_block(layer, number);
    let plain_bytes = block.as_ref().map_or(0, |block| block.len() as u64);
    Ok(BlockCheck { stored_bytes, plain_bytes, damaged: damaged_in(block, rows)? })
}

/// The objects of a block that are not what their ids say.
fn damaged_in(
    block: std::result::Result<Vec<u8>, StoreError>,
    rows: &[ObjectRow],
) -> std::result::Result<Vec<(ObjectId, String)>, DiskError> {
    let block = match block {
        Ok(block) => block,
        Err(StoreError::Disk(error)) => return Err(error),
        Err(error) => {
            let why = error.to_string();
            return Ok(rows.iter().map(|row| (row.id, why.clone())).collect());
        }
    };
    // What does not lie within the block is wrong whatever its digest.
    let digests =
        sha256_each(&rows.iter().map(|row| row.place.bytes_in(&block).unwrap_or_default()).collect::<Vec<_>>());
    let is_sound = |(row, digest): &(&ObjectRow, [u8; DIGEST_LEN])| {
        row.place.bytes_in(&block).is_some() && digest == row.id.digest()
    };
    let wrong = |(row, _): (&ObjectRow, _)| {
        (row.id, format!("the {} {} is damaged: its bytes do not have its id", row.place.kind, row.id.short()))
    };
    Ok(rows.iter().zip(digests).filter(|row| !is_sound(row)).map(wrong).collect())
}
