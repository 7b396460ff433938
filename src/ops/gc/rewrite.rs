//! Carries a plan out: new layers with what stays, then one record that puts them in the place of the old ones.
//!
//! It goes in steps, each of which leaves a sound repository, so that work that was interrupted is not lost. Until the layers
//! that need a block have been written anew, the block stays whatever its fate; a next plan finds it again.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::mark::Live;
use super::plan::{Block, Fate, Plan, depth};
use crate::base::monitor::Monitor;
use crate::format::layer::ObjectRow;
use crate::model::id::LayerId;
use crate::ops::{Error, Result};
use crate::repo::{Repository, WriteLock};
use crate::store::StoreError;
use crate::store::index::Located;
use crate::store::layer_reader::LayerReader;
use crate::store::layer_writer::{LayerOptions, LayerWriter, SealedLayer};
use crate::store::objects::{MAX_DEPTH, ObjectStore, OldBlock};

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Old layers that were replaced.
    pub replaced: u64,
    /// Blocks that have to wait for another round.
    pub postponed: u64,
}

/// Writes the layers anew that the plan says.
pub fn rewrite(
    repo: &Repository,
    lock: &WriteLock,
    objects: &Arc<ObjectStore>,
    plan: &Plan,
    live: &Live,
    options: LayerOptions,
    monitor: &dyn Monitor,
) -> Result<Done> {
    let mut order: Vec<usize> = (0..plan.layers.len()).filter(|at| is_rewritten(plan, *at)).collect();
    // Those that need others first: then what they needed can go with its own layer.
    let deepest = |at: &usize| blocks_of(plan, *at).map(|block| old_depth(&plan.blocks, block)).max();
    order.sort_by_cached_key(|at| std::cmp::Reverse(deepest(at)));
    let total = order.iter().filter_map(|at| plan.layers.get(*at)).map(|layer| layer.file_bytes).sum();
    monitor.begin("rewriting layers", Some(order.len() as u64), Some(total));
    let needed = needed_from_elsewhere(objects, plan)?;
    let mut step =
        Step { repo, lock, objects, plan, live, options, needed, writer: None, old: Vec::new(), done: Done::default() };
    for at in order {
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        step.layer(at)?;
        monitor.advance(1, plan.layers.get(at).map_or(0, |layer| layer.file_bytes));
    }
    step.commit()?;
    monitor.end();
    Ok(step.done)
}

fn is_rewritten(plan: &Plan, layer: usize) -> bool {
    plan.layers.get(layer).is_some_and(|layer| layer.rewrite)
}

fn blocks_of(plan: &Plan, layer: usize) -> std::ops::Range<u32> {
    plan.layers.get(layer).map_or(0..0, |layer| layer.first..layer.first + layer.count)
}

/// For each block, the layers other than its own of which a block is compressed with it as things are on the disk.
fn needed_from_elsewhere(objects: &ObjectStore, plan: &Plan) -> Result<HashMap<u32, HashSet<usize>>> {
    let mut places = HashMap::new();
    for at in 0..plan.layers.len() {
        let reader = objects.layers().reader(at as u32)?;
        places.extend(reader.block_ids()?.iter().copied().zip(blocks_of(plan, at)));
    }
    let mut needed: HashMap<u32, HashSet<usize>> = HashMap::new();
    for at in 0..plan.layers.len() {
        let own = blocks_of(plan, at);
        let reader = objects.layers().reader(at as u32)?;
        for number in 0..own.end - own.start {
            let base = reader.block(number)?.base.and_then(|base| places.get(&base.id).copied());
            if let Some(base) = base.filter(|base| !own.contains(base)) {
                needed.entry(base).or_default().insert(at);
            }
        }
    }
    Ok(needed)
}

/// How many blocks a block needs as things are on the disk; planning has found that there is no circle.
fn old_depth(blocks: &[Block], at: u32) -> u32 {
    let next = |at: &u32| blocks.get(*at as usize).and_then(|block| block.old_base);
    std::iter::successors(next(&at), next).take(MAX_DEPTH as usize).count() as u32
}

/// Stands in for the layer of a block that could not go yet.
const FOR_NOW: usize = usize::MAX;

/// Layers on their way to being replaced.
struct Step<'a> {
    repo: &'a Repository,
    lock: &'a WriteLock,
    objects: &'a Arc<ObjectStore>,
    plan: &'a Plan,
    live: &'a Live,
    options: LayerOptions,
    needed: HashMap<u32, HashSet<usize>>,
    writer: Option<LayerWriter>,
    old: Vec<(LayerId, u64)>,
    done: Done,
}

impl Step<'_> {
    fn layer(&mut self, at: usize) -> Result<()> {
        let reader = self.objects.layers().reader(at as u32)?;
        // What has to stay for now keeps what it needs, which may lie before it.
        for place in blocks_of(self.plan, at).filter(|place| self.is_postponed(*place)).collect::<Vec<_>>() {
            self.keep_chain(place);
        }
        let rows = reader.objects_by_place()?;
        for rows in rows.chunk_by(|a, b| a.place.block == b.place.block) {
            let number = rows.first().map_or(0, |row| row.place.block);
            self.block(at, number, rows)?;
        }
        // From here on nothing of it counts: its blocks are in the new layer with the bases that they have there.
        for layers in self.needed.values_mut() {
            layers.remove(&at);
        }
        self.old.push((reader.id(), reader.file_len()));
        if self.writer.as_ref().is_some_and(|writer| writer.plain_bytes() >= self.repo.settings().layer_len) {
            self.commit()?;
        }
        Ok(())
    }

    fn block(&mut self, layer: usize, number: u32, rows: &[ObjectRow]) -> Result<()> {
        let place = blocks_of(self.plan, layer).start + number;
        let Some(block) = self.plan.blocks.get(place as usize) else { return Ok(()) };
        let fate = if self.is_postponed(place) {
            self.done.postponed += 1;
            Fate::Keep
        } else {
            block.fate
        };
        match fate {
            Fate::Drop => Ok(()),
            Fate::Keep => {
                let reader = self.objects.layers().reader(layer as u32)?;
                let row = reader.block(number)?;
                let stored = reader.read_stored(&row)?;
                Ok(self.writer()?.copy_block(&row, &stored, rows)?)
            }
            Fate::Recompress => {
                let plain = self.objects.block_once(layer as u32, number)?;
                for object in rows {
                    self.objects.verified(&Located { layer: layer as u32, object: *object }, &plain)?;
                }
                let base = self.base(block)?;
                Ok(self.writer()?.recompress_block(plain, rows, base)?)
            }
            Fate::Split => {
                let plain = self.objects.block_once(layer as u32, number)?;
                let base = self.base(block)?;
                for object in rows.iter().filter(|row| self.live.contains(&row.id)) {
                    let located = Located { layer: layer as u32, object: *object };
                    if self.is_elsewhere(&located)? {
                        continue;
                    }
                    let bytes = self.objects.verified(&located, &plain)?;
                    let at = |base: OldBlock| OldBlock { at: base.at + i64::from(object.place.offset), ..base };
                    self.writer()?.add(object.id, object.place.kind, bytes, base.map(at))?;
                }
                Ok(())
            }
        }
    }

    /// Would a block go that is still needed?
    fn is_postponed(&self, place: u32) -> bool {
        let goes = |block: &Block| matches!(block.fate, Fate::Drop | Fate::Split);
        self.plan.blocks.get(place as usize).is_some_and(goes)
            && self.needed.get(&place).is_some_and(|layers| !layers.is_empty())
    }

    /// A block that has to stay for now keeps those that it needs.
    fn keep_chain(&mut self, place: u32) {
        let mut next = self.plan.blocks.get(place as usize).and_then(|block| block.old_base);
        while let Some(base) = next {
            self.needed.entry(base).or_default().insert(FOR_NOW);
            next = self.plan.blocks.get(base as usize).and_then(|block| block.old_base);
        }
    }

    /// What a block is to be compressed with, unless the chain would be too long.
    fn base(&self, block: &Block) -> Result<Option<OldBlock>> {
        let Some(base) = block.base else { return Ok(None) };
        let layer = self.plan.layers.partition_point(|layer| layer.first <= base).saturating_sub(1);
        let number = base - blocks_of(self.plan, layer).start;
        let depth = depth(&self.plan.blocks, base)?;
        let id = self.objects.layers().reader(layer as u32)?.block_ids()?.get(number as usize).copied();
        let fits =
            u8::try_from(depth).ok().filter(|depth| depth.saturating_add(1) < self.repo.settings().snapshot_interval);
        // All of it: what it was compressed with before may have been another part of another block.
        let whole = self.plan.blocks.get(base as usize).map_or(0, |base| base.raw_bytes as u32);
        let (layer, at, part) = (layer as u32, block.at, (0, whole));
        let old = |id, depth| OldBlock { id, len: whole, depth, layer, block: number, at, part };
        Ok(id.zip(fits).map(|(id, depth)| old(id, depth)))
    }

    /// Is an object that would be moved also where it stays?
    fn is_elsewhere(&self, located: &Located) -> Result<bool> {
        let Some(found) = self.objects.find(&located.object.id)? else { return Ok(false) };
        let place = blocks_of(self.plan, found.layer as usize).start + found.object.place.block;
        let stays = self.plan.blocks.get(place as usize).map(|block| block.fate);
        Ok(found != *located && matches!(stays, Some(Fate::Keep | Fate::Recompress)))
    }

    fn writer(&mut self) -> Result<&mut LayerWriter> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.repo.new_layer_with(Arc::clone(self.objects), self.options)?,
        };
        Ok(self.writer.insert(writer))
    }

    /// Every block of the layers as they will be finds the one that it needs. A plan that is wrong ends here, not in a loss.
    fn check_bases(&self, new: &[SealedLayer], old: &[(LayerId, u64)]) -> Result<()> {
        let mut readers: Vec<Arc<LayerReader>> = new.iter().map(|layer| Arc::clone(&layer.reader)).collect();
        let now = self.repo.objects();
        for (number, (id, _)) in (0..).zip(now.layers().layers()) {
            if old.iter().all(|(gone, _)| gone != id) {
                readers.push(now.layers().reader(number)?);
            }
        }
        let mut ids = HashSet::new();
        for reader in &readers {
            ids.extend(reader.block_ids()?.iter().copied());
        }
        for reader in &readers {
            for block in 0..reader.footer().block_count {
                if let Some(base) = reader.block(block)?.base
                    && !ids.contains(&base.id)
                {
                    let why = format!("gc would remove the block {}, which another one needs", base.id.short());
                    return Err(StoreError::Internal(why).into());
                }
            }
        }
        Ok(())
    }

    /// Ends the step: what was written takes the place of what it was written from.
    fn commit(&mut self) -> Result<()> {
        let new = match self.writer.take() {
            Some(writer) if writer.object_count() > 0 => vec![writer.seal()?],
            _ => Vec::new(),
        };
        let old = std::mem::take(&mut self.old);
        if old.is_empty() {
            return Ok(());
        }
        self.check_bases(&new, &old)?;
        self.done.replaced += old.len() as u64;
        Ok(self.repo.replace_layers(self.lock, &new, &old, Vec::new())?)
    }
}
