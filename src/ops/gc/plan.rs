//! What is to become of each block: a plain value, made before anything is written.
//!
//! A block is named by its objects, not by how it is compressed, so it can be compressed anew, even without its base, and what
//! is compressed with it stays valid. Blocks are looked at from the ends of the chains backwards: whether a block
//! without living objects may go depends on those that need it.

use hashbrown::HashMap;

use super::mark::Live;
use crate::base::monitor::Monitor;
use crate::format::layer::Base;
use crate::model::id::{BlockId, ObjectKind};
use crate::ops::{Error, Result};
use crate::store::StoreError;
use crate::store::objects::{MAX_DEPTH, ObjectStore};

/// A block with living objects is taken apart when this share of it is dead, one part in eight: then copying costs at most
/// seven bytes for each that comes back.
const MIN_DEAD_SHARE: u64 = 8;
/// A layer is written anew for the sake of dead blocks if they are this share of it, one part in 50: below, writing the
/// tables and the file anew costs more than comes back.
const MIN_LAYER_SHARE: u64 = 50;

/// A block costs this many bytes beside its content: its row, its id and place as a base, and the place of an object.
const BLOCK_COST: u64 = 32 + 32 + 45 + 45;

/// What becomes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is, byte for byte.
    Keep,
    /// It is compressed anew with the base `Block::base`, or with none.
    Recompress,
    /// What lives in it goes to other blocks.
    Split,
    /// Nothing needs it.
    Drop,
}

/// A block in a plan.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its name.
    pub id: BlockId,
    /// What becomes of it.
    pub fate: Fate,
    /// The block that it is compressed with, as a place in [`Plan::blocks`]; after planning, the one that it is to be
    /// compressed with.
    pub base: Option<u32>,
    /// The block that it is compressed with now.
    pub old_base: Option<u32>,
    /// Where in that block the older version of the first byte is.
    pub at: i64,
    /// Its length in the file.
    pub stored_bytes: u64,
    /// Its length when it is decoded.
    pub raw_bytes: u64,
    live_bytes: u64,
}

/// A layer in a plan.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Where its blocks begin in [`Plan::blocks`].
    pub first: u32,
    /// How many it has.
    pub count: u32,
    /// Is it written anew?
    pub rewrite: bool,
    /// Length of its file.
    pub file_bytes: u64,
    /// How many objects it has.
    pub objects: u64,
}

impl Layer {
    /// The places of its blocks in [`Plan::blocks`].
    pub fn places(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.count
    }

    fn own<'a>(&self, blocks: &'a [Block]) -> &'a [Block] {
        blocks.get(self.first as usize..(self.first + self.count) as usize).unwrap_or_default()
    }
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// In order of the layers' numbers.
    pub layers: Vec<Layer>,
    /// All blocks, layer by layer.
    pub blocks: Vec<Block>,
    /// Bytes of files that nothing refers to, as they are stored; blocks are compressed as a whole, so those of which a part is
    /// dead are shared out by length.
    pub dead_bytes: u64,
}

/// How thoroughly.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Every block is compressed anew, and every dead byte goes.
    pub all: bool,
    /// Layers with fewer bytes of objects become one,
    pub merge_below: u64,
    /// if they have fewer objects as well.
    pub merge_fewer: u64,
}

/// Looks at all blocks and decides.
pub fn plan(objects: &ObjectStore, live: &Live, wish: Wish, monitor: &dyn Monitor) -> Result<Plan> {
    let mut plan = read(objects, live, monitor)?;
    decide(&mut plan.blocks, wish)?;
    plan.dead_bytes = plan.layers.iter().map(|layer| dead_bytes(layer, &plan.blocks)).sum();
    choose_layers(&mut plan, wish);
    Ok(plan)
}

/// The dead bytes of a layer; if all of it goes, those of its file.
fn dead_bytes(layer: &Layer, blocks: &[Block]) -> u64 {
    let own = layer.own(blocks);
    if own.iter().all(|block| block.fate == Fate::Drop) {
        layer.file_bytes
    } else {
        own.iter().map(Block::dead_bytes).sum()
    }
}

impl Block {
    /// Its dead bytes as they are stored.
    fn dead_bytes(&self) -> u64 {
        share(self.stored_bytes, self.raw_bytes - self.live_bytes, self.raw_bytes)
    }
}

/// The part of `whole` that `part` is of `of`.
pub fn share(whole: u64, part: u64, of: u64) -> u64 {
    let share = u128::from(whole) * u128::from(part) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(whole)
}

/// All blocks as they are.
fn read(objects: &ObjectStore, live: &Live, monitor: &dyn Monitor) -> Result<Plan> {
    let (mut blocks, mut layers) = (Vec::new(), Vec::new());
    let mut places: HashMap<BlockId, u32> = HashMap::new();
    let mut bases: Vec<Option<Base>> = Vec::new();
    for (number, (_, record)) in (0..).zip(objects.layers().layers()) {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let reader = objects.layers().reader(number)?;
        let first = blocks.len() as u32;
        let count = reader.footer().block_count;
        for (block, id) in (0..count).zip(reader.block_ids()?) {
            let row = reader.block(block)?;
            places.insert(*id, blocks.len() as u32);
            bases.push(row.base);
            blocks.push(Block {
                id: *id,
                fate: Fate::Keep,
                base: None,
                old_base: None,
                at: row.base.map_or(0, |base| i64::from(base.at)),
                stored_bytes: u64::from(row.stored_len),
                raw_bytes: u64::from(row.raw_len),
                live_bytes: 0,
            });
        }
        let tables = reader.tables()?;
        for row in tables.objects() {
            let row = row.map_err(|source| reader.wrong(source))?;
            if row.place.kind != ObjectKind::Block
                && live.contains(&row.id)
                && let Some(block) = blocks.get_mut((first + row.place.block) as usize)
            {
                block.live_bytes = (block.live_bytes + u64::from(row.place.len)).min(block.raw_bytes);
                // An empty object lives as well.
                block.fate = Fate::Split;
            }
        }
        let (file_bytes, objects) = (record.file_len, u64::from(record.object_count));
        layers.push(Layer { first, count, rewrite: false, file_bytes, objects });
    }
    for (block, base) in blocks.iter_mut().zip(bases) {
        let has_live = block.fate == Fate::Split;
        block.fate = if has_live { Fate::Keep } else { Fate::Drop };
        if let Some(Base { id, .. }) = base {
            let missing = || StoreError::Missing { kind: ObjectKind::Block, id: id.into() };
            block.old_base = Some(*places.get(&id).ok_or_else(missing)?);
            block.base = block.old_base;
        }
    }
    Ok(Plan { layers, blocks, dead_bytes: 0 })
}

/// Decides about every block; those that are needed come after those that need them.
fn decide(blocks: &mut [Block], wish: Wish) -> Result<()> {
    let depths = (0..blocks.len() as u32).map(|at| depth(blocks, at, |block| block.base));
    let depths: Vec<u32> = depths.collect::<Result<_>>()?;
    let mut order: Vec<u32> = (0..blocks.len() as u32).collect();
    order.sort_by_key(|at| std::cmp::Reverse(depths.get(*at as usize).copied()));
    let mut needed_by: HashMap<u32, Vec<u32>> = HashMap::new();
    for at in order {
        let Some(block) = blocks.get(at as usize).cloned() else { continue };
        let needing = needed_by.remove(&at).unwrap_or_default();
        let dead = block.raw_bytes - block.live_bytes;
        let is_whole = block.fate == Fate::Keep && (dead == 0 || !wish.all && dead * MIN_DEAD_SHARE < block.raw_bytes);
        let fate = match block.fate {
            Fate::Keep if is_whole => {
                if wish.all {
                    Fate::Recompress
                } else {
                    Fate::Keep
                }
            }
            _ if !needing.is_empty() && growth(blocks, &block, &needing) >= block.dead_bytes() + BLOCK_COST => {
                Fate::Keep
            }
            Fate::Keep => Fate::Split,
            fate => fate,
        };
        let stays = matches!(fate, Fate::Keep | Fate::Recompress);
        if !stays {
            // Those that need it are compressed with what it was compressed with itself.
            for other in &needing {
                if let Some(other) = blocks.get_mut(*other as usize) {
                    if other.fate == Fate::Keep {
                        other.fate = Fate::Recompress;
                    }
                    other.base = block.base;
                    other.at += block.at;
                }
            }
        }
        let mut heirs = if stays { Vec::new() } else { needing };
        // What lives in one that is taken apart is compressed with its base again.
        heirs.extend((fate != Fate::Drop).then_some(at));
        if let Some(base) = block.base {
            needed_by.entry(base).or_default().extend(heirs);
        }
        if let Some(slot) = blocks.get_mut(at as usize) {
            slot.fate = fate;
        }
    }
    Ok(())
}

/// How many blocks a block needs, by the bases that it has or had. It is counted, not believed: who needs whom decides what
/// may go.
pub fn depth(blocks: &[Block], at: u32, base: fn(&Block) -> Option<u32>) -> Result<u32> {
    let (mut depth, mut next) = (0, at);
    while let Some(base) = blocks.get(next as usize).and_then(base) {
        (depth, next) = (depth + 1, base);
        if depth > MAX_DEPTH {
            return Err(StoreError::Internal("blocks need each other in a circle".to_owned()).into());
        }
    }
    Ok(depth)
}

/// By how many bytes the blocks `needing` grow, about, if `block` goes.
fn growth(blocks: &[Block], block: &Block, needing: &[u32]) -> u64 {
    let grown = |other: &Block| {
        let anew = share(block.stored_bytes, other.raw_bytes, block.raw_bytes);
        if block.base.is_some() { anew } else { anew.saturating_sub(other.stored_bytes) }
    };
    needing.iter().filter_map(|at| blocks.get(*at as usize)).map(grown).sum()
}

/// Which layers are written anew: those of which enough goes or changes, and small ones if there are several.
fn choose_layers(plan: &mut Plan, wish: Wish) {
    let Plan { layers, blocks, .. } = plan;
    let raw_bytes = |layer: &Layer| layer.own(blocks).iter().map(|block| block.raw_bytes).sum::<u64>();
    let is_small = |layer: &Layer| layer.objects < wish.merge_fewer && raw_bytes(layer) < wish.merge_below;
    let several = layers.iter().filter(|layer| is_small(layer)).count() > 1;
    for layer in layers.iter_mut() {
        let own = layer.own(blocks);
        let goes = own.iter().filter(|block| matches!(block.fate, Fate::Drop | Fate::Split));
        let dead: u64 = goes.map(Block::dead_bytes).sum();
        let recompressed = own.iter().any(|block| block.fate == Fate::Recompress);
        let pays = dead * MIN_LAYER_SHARE >= layer.file_bytes || wish.all && dead > 0;
        layer.rewrite = recompressed || pays || several && is_small(layer);
    }
    // A layer that is not written anew keeps all of its blocks, and these their bases.
    keep_bases(plan);
}

/// Blocks that go nevertheless must not be needed by one that stays because its layer does.
fn keep_bases(plan: &mut Plan) {
    let mut waiting: Vec<u32> = Vec::new();
    for layer in plan.layers.iter().filter(|layer| !layer.rewrite) {
        waiting.extend(layer.places());
    }
    while let Some(at) = waiting.pop() {
        let Some(block) = plan.blocks.get_mut(at as usize) else { continue };
        (block.fate, block.base) = (Fate::Keep, block.old_base);
        if let Some(base) = block.base
            && plan.blocks.get(base as usize).is_some_and(|base| matches!(base.fate, Fate::Drop | Fate::Split))
        {
            waiting.push(base);
        }
    }
}
