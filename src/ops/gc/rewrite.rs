//! Carries a plan out: new layers with what stays, then one record that puts them in the place of the old ones.
//!
//! It goes in steps, each of which leaves a sound repository, so that work that was interrupted is not lost. Until the layers
//! that need a block have been written anew, the block stays whatever its fate; a next plan finds it again.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::mark::Live;
use super::plan::{Block, Fate, Layer, Plan, depth};
use crate::base::monitor::Monitor;
use crate::format::layer::ObjectRow;
use crate::model::id::BlockId;
use crate::ops::{Error, Result};
use crate::repo::{Repository, WriteLock};
use crate::store::StoreError;
use crate::store::index::Located;
use crate::store::layer_reader::LayerReader;
use crate::store::layer_writer::{LayerOptions, LayerWriter, SealedLayer};
use crate::store::objects::{ObjectStore, OldBlock};

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
    let deepest = |at: &usize| {
        let depths = blocks_of(plan, *at).map(|block| depth(&plan.blocks, block, |block| block.old_base));
        depths.collect::<Result<Vec<u32>>>().map(|depths| depths.into_iter().max())
    };
    let depths: HashMap<usize, Option<u32>> = order.iter().map(|at| Ok((*at, deepest(at)?))).collect::<Result<_>>()?;
    order.sort_by_key(|at| std::cmp::Reverse(depths.get(at).copied()));
    let total = order.iter().filter_map(|at| plan.layers.get(*at)).map(|layer| layer.file_bytes).sum();
    monitor.begin("rewriting layers", Some(order.len() as u64), Some(total));
    let mut step = Step {
        repo,
        lock,
        objects,
        plan,
        live,
        options,
        needed: needed_from_elsewhere(plan),
        counts: Counts::of(plan),
        writer: None,
        old: Vec::new(),
        done: Done::default(),
    };
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
    plan.layers.get(layer).map_or(0..0, Layer::places)
}

/// The layer of the block at a place, and its number there.
fn layer_of(plan: &Plan, place: u32) -> (usize, u32) {
    let layer = plan.layers.partition_point(|layer| layer.first <= place).saturating_sub(1);
    (layer, place - blocks_of(plan, layer).start)
}

/// For each block, the layers other than its own of which a block is compressed with it as things are on the disk.
fn needed_from_elsewhere(plan: &Plan) -> HashMap<u32, HashSet<usize>> {
    let mut needed: HashMap<u32, HashSet<usize>> = HashMap::new();
    for at in 0..plan.layers.len() {
        let own = blocks_of(plan, at);
        let bases = own.clone().filter_map(|place| plan.blocks.get(place as usize)?.old_base);
        for base in bases.filter(|base| !own.contains(base)) {
            needed.entry(base).or_default().insert(at);
        }
    }
    needed
}

/// How often each block is there, and how many blocks are compressed with it.
struct Counts(HashMap<BlockId, (i64, i64)>);

impl Counts {
    fn of(plan: &Plan) -> Self {
        let mut counts: HashMap<BlockId, (i64, i64)> = HashMap::new();
        for block in &plan.blocks {
            counts.entry(block.id).or_default().0 += 1;
            if let Some(base) = block.old_base.and_then(|base| plan.blocks.get(base as usize)) {
                counts.entry(base.id).or_default().1 += 1;
            }
        }
        Self(counts)
    }

    /// Adds the blocks of a layer, or takes them away; gives the ids whose counts have changed.
    fn count(&mut self, layer: &LayerReader, by: i64) -> Result<Vec<BlockId>> {
        let mut touched = Vec::new();
        for (block, id) in (0..).zip(layer.block_ids()?) {
            self.0.entry(*id).or_default().0 += by;
            touched.push(*id);
            if let Some(base) = layer.block(block)?.base {
                self.0.entry(base.id).or_default().1 += by;
                touched.push(base.id);
            }
        }
        Ok(touched)
    }
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
    counts: Counts,
    writer: Option<LayerWriter>,
    old: Vec<Arc<LayerReader>>,
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
        self.old.push(reader);
        let settings = self.repo.settings();
        if self.writer.as_ref().is_some_and(|writer| settings.fill_layer(writer.plain_bytes(), writer.object_count())) {
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
        let Some(old) = self.plan.blocks.get(base as usize) else { return Ok(None) };
        let depth = depth(&self.plan.blocks, base, |block| block.base)?;
        let depth = u8::try_from(depth).ok();
        let fits = depth.filter(|depth| depth.saturating_add(1) < self.repo.settings().snapshot_interval);
        let (layer, number) = layer_of(self.plan, base);
        let (layer, at, id) = (layer as u32, block.at, old.id);
        let len = u32::try_from(old.raw_bytes).unwrap_or(u32::MAX);
        // All of it: what it was compressed with before may have been another part of another block.
        Ok(fits.map(|depth| OldBlock { id, len, depth, layer, block: number, at, part: (0, len) }))
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
    fn check_bases(&mut self, new: &[SealedLayer], old: &[Arc<LayerReader>]) -> Result<()> {
        let mut touched = Vec::new();
        for layer in new {
            touched.extend(self.counts.count(&layer.reader, 1)?);
        }
        for layer in old {
            touched.extend(self.counts.count(layer, -1)?);
        }
        let is_lost =
            |id: &&BlockId| matches!(self.counts.0.get(*id), Some((copies, needed)) if *copies < 1 && *needed > 0);
        match touched.iter().find(is_lost) {
            None => Ok(()),
            Some(id) => {
                let why = format!("gc would remove the block {}, which another one needs", id.short());
                Err(StoreError::Internal(why).into())
            }
        }
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
        let old: Vec<_> = old.iter().map(|layer| (layer.id(), layer.file_len())).collect();
        Ok(self.repo.replace_layers(self.lock, &new, &old, Vec::new())?)
    }
}
