//! Reading objects: found through the index, decoded once, verified always.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use hashbrown::HashMap;

use super::StoreError;
use super::cache::BlockCache;
use super::index::{ChunkIndex, Located};
use super::journal::State;
use super::layers::LayerSet;
use super::pending::{PENDING_LAYER, Pending};
use super::pieces::Pieces;
use crate::base::kind::ErrorKind;
use crate::base::meter::Stage;
use crate::format::FormatError;
use crate::format::layer::{Base, Place, VERSION_WITHOUT_BASES};
use crate::format::object::{decode_commit, decode_recipe, decode_tree};
use crate::model::commit::Commit;
use crate::model::id::{BlockId, ChunkId, CommitId, IdPrefix, ObjectId, ObjectKind, RecipeId, TreeId};
use crate::model::recipe::{Piece, Recipe};
use crate::model::tree::{Content, Tree};
use crate::transform::compress::Opposite;
use crate::transform::hash::sha256;
use crate::transform::lanes::sha256_each;

/// All objects of a repository, as of one moment.
#[derive(Debug)]
pub struct ObjectStore {
    layers: LayerSet,
    index: ChunkIndex,
    cache: Arc<BlockCache>,
    /// Blocks that others need. Reading goes through neighbours, which mostly need the same block or the next.
    bases: BlockCache,
    /// The blocks of layers of the first version, which do not store the ids of blocks; gathered when one is looked for.
    unnamed: OnceLock<HashMap<BlockId, (u32, u32)>>,
    pending: RwLock<Pending>,
    /// Trees are small, shared and read again and again while walking; the last ones are kept decoded.
    trees: Mutex<lru::LruCache<TreeId, Arc<Tree>>>,
}

/// Decoded trees kept; a walk needs one for each level, diff and checkout a few more.
const TREES_KEPT: std::num::NonZeroUsize = std::num::NonZeroUsize::new(256).unwrap();

/// Decoded blocks kept because others need them: a chain of the usual length for each of a few threads.
const BASES_LEN: usize = 32 << 20;
/// They may take this share of what the cache may.
const BASES_SHARE: usize = 8;
/// No chain is longer; a number of the format has no room for more.
pub const MAX_DEPTH: u32 = u8::MAX as u32;

/// A block that may become the base of a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldBlock {
    /// Its id.
    pub id: BlockId,
    /// Its length when it is decoded.
    pub len: u32,
    /// How many blocks have to be decoded before it.
    pub depth: u8,
    /// The layer's number.
    pub layer: u32,
    /// The block's number in it.
    pub block: u32,
    /// Where in it the older version of the next byte is; may lie outside.
    pub at: i64,
    /// Where in it the older versions of what is compressed with it begin and end.
    pub part: (u32, u32),
}

impl OldBlock {
    /// Is it the same block?
    pub fn is_same(&self, other: &Self) -> bool {
        (self.layer, self.block) == (other.layer, other.block)
    }

    /// The same block for more objects: the part spans those of both.
    pub fn and(self, other: &Self) -> Self {
        Self { part: (self.part.0.min(other.part.0), self.part.1.max(other.part.1)), ..self }
    }
}

/// Where in a base ends what lies opposite to a block of `raw_len` bytes, the first of which is opposite to `at`.
pub fn end_opposite(at: i64, raw_len: u32) -> u32 {
    u32::try_from(at.saturating_add(i64::from(raw_len)).max(0)).unwrap_or(u32::MAX)
}

/// An object's bytes within a decoded block.
#[derive(Debug, Clone)]
pub struct ObjectBytes {
    block: Arc<Vec<u8>>,
    place: Place,
}

impl std::ops::Deref for ObjectBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.place.bytes_in(&self.block).unwrap_or_default()
    }
}

impl ObjectStore {
    /// A store over layers, their index, and what is pending; blocks are kept in `cache`.
    pub fn new(layers: LayerSet, index: ChunkIndex, cache: Arc<BlockCache>, pending: Pending) -> Self {
        let trees = Mutex::new(lru::LruCache::new(TREES_KEPT));
        let bases = BlockCache::new((cache.capacity_bytes() / BASES_SHARE).min(BASES_LEN), Arc::default());
        Self { layers, index, cache, bases, unnamed: OnceLock::new(), pending: RwLock::new(pending), trees }
    }

    /// A store over layers alone, without index, cache or journal.
    #[cfg(test)]
    pub fn in_memory(
        backend: Arc<dyn super::backend::Backend>,
        repo: crate::format::RepoId,
        layers: Vec<(crate::model::id::LayerId, crate::format::staging::LayerRecord)>,
    ) -> Self {
        let layers = LayerSet::new(backend, repo, layers);
        let index = ChunkIndex::open(None, &layers).unwrap();
        Self::new(layers, index, Arc::new(BlockCache::new(0, Arc::default())), Pending::default())
    }

    /// What is pending.
    pub fn pending(&self) -> std::sync::RwLockReadGuard<'_, Pending> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a pending block that was committed.
    pub fn add_pending(&self, state: &State, number: u32) -> Result<(), StoreError> {
        self.pending.write().unwrap_or_else(PoisonError::into_inner).add_new(state, number)
    }

    /// The layers.
    pub fn layers(&self) -> &LayerSet {
        &self.layers
    }

    /// The index.
    pub fn index(&self) -> &ChunkIndex {
        &self.index
    }

    /// The block cache.
    pub fn cache(&self) -> &BlockCache {
        &self.cache
    }

    /// Keeps no decoded blocks: who goes on with a later state of the repository needs few of this one any more.
    pub fn forget_blocks(&self) {
        self.cache.clear();
        self.bases.clear();
    }

    /// In which layer an object is.
    pub fn find(&self, id: &ObjectId) -> Result<Option<Located>, StoreError> {
        self.index.find(&self.layers, id)
    }

    /// Is the object in a sealed layer?
    pub fn contains(&self, id: &ObjectId) -> Result<bool, StoreError> {
        Ok(self.find(id)?.is_some())
    }

    /// Which of many objects are in a sealed layer?
    pub fn contains_each(&self, ids: &[ObjectId]) -> Result<Vec<bool>, StoreError> {
        self.index.contains_each(&self.layers, ids)
    }

    /// Where an object is that must be there, pending or not. A damaged index cannot hide it.
    pub fn locate(&self, id: &ObjectId, kind: ObjectKind) -> Result<Located, StoreError> {
        match self.find(id) {
            Ok(Some(found)) => Ok(found),
            missed => match self.pending().find(id) {
                Some(object) => Ok(Located { layer: PENDING_LAYER, object }),
                None => self.search_layers(id, kind).map_err(|error| missed.err().unwrap_or(error)),
            },
        }
    }

    /// In which layer an object is that must be in one.
    pub fn locate_sealed(&self, id: &ObjectId, kind: ObjectKind) -> Result<Located, StoreError> {
        match self.find(id) {
            Ok(Some(found)) => Ok(found),
            missed => self.search_layers(id, kind).map_err(|error| missed.err().unwrap_or(error)),
        }
    }

    fn search_layers(&self, id: &ObjectId, kind: ObjectKind) -> Result<Located, StoreError> {
        ChunkIndex::search_layers(&self.layers, id).ok_or(StoreError::Missing { kind, id: *id })
    }

    /// A block as it is on the disk now, whatever is cached of it.
    pub fn decode_block(&self, layer: u32, block: u32) -> Result<Vec<u8>, StoreError> {
        let _busy = self.cache.meter().time(Stage::Decode);
        self.decode_chain(layer, block, usize::MAX, 0)
    }

    /// Decodes a block, or its first `wanted` bytes, after what it needs of others. `depth` is how many blocks wait for this
    /// one: layers that were tampered with may name each other in a circle.
    fn decode_chain(&self, layer: u32, block: u32, wanted: usize, depth: u32) -> Result<Vec<u8>, StoreError> {
        if layer == PENDING_LAYER {
            return self.pending().block(block);
        }
        let reader = self.layers.reader(layer)?;
        let row = reader.block(block)?;
        let Some(Base { id, at, from, len, .. }) = row.base else {
            return reader.read_start(block, Opposite::NONE, wanted);
        };
        let broken = |why: String| StoreError::BrokenChain { layer: reader.id(), block, why };
        if depth > MAX_DEPTH {
            return Err(broken("it needs more blocks than a chain can have".to_owned()));
        }
        // A filter looks at what lies opposite, zstd at its dictionary.
        let needed =
            if row.filter.needs_base() { end_opposite(i64::from(at), row.raw_len) } else { from.saturating_add(len) };
        let base = self.find_block(&id).and_then(|(layer, block)| self.base_at(layer, block, needed, depth + 1));
        let base = base.map_err(|error| match error {
            StoreError::BrokenChain { .. } | StoreError::MissingLayer(_) => error,
            error if error.kind() != ErrorKind::Corrupt => error,
            other => broken(other.to_string()),
        })?;
        reader.read_start(block, Opposite { bytes: &base, at, part: (from, len) }, wanted)
    }

    /// The first `wanted` bytes of a block, or more.
    fn base_at(&self, layer: u32, block: u32, wanted: u32, depth: u32) -> Result<Arc<Vec<u8>>, StoreError> {
        if let Some(found) = self.cache.get((layer, block)) {
            return Ok(found);
        }
        let wanted = match self.bases.get((layer, block)) {
            // No block that is whole is shorter than what is wanted of it, unless something is damaged.
            Some(found) if found.len() >= wanted as usize => return Ok(found),
            // Neighbours need more and more of it.
            Some(_) => usize::MAX,
            None => wanted as usize,
        };
        let decoded = Arc::new(self.decode_chain(layer, block, wanted, depth)?);
        self.bases.put((layer, block), &decoded);
        Ok(decoded)
    }

    /// A decoded block that others are to be compressed with, or its first `wanted` bytes.
    pub fn base_block(&self, old: &OldBlock, wanted: u32) -> Result<Arc<Vec<u8>>, StoreError> {
        // Places are those of one moment; the id says whether it is that one.
        let reader = self.layers.reader(old.layer)?;
        if reader.block_ids()?.get(old.block as usize) != Some(&old.id) {
            return Err(StoreError::Internal(format!("the block {} is at another place by now", old.id.short())));
        }
        let _busy = self.cache.meter().time(Stage::Decode);
        self.base_at(old.layer, old.block, wanted.min(old.len), 0)
    }

    /// Where the block with an id is.
    fn find_block(&self, id: &BlockId) -> Result<(u32, u32), StoreError> {
        let object = ObjectId::from(*id);
        let located = match self.find(&object) {
            Ok(Some(found)) => found,
            missed => match self.unnamed.get_or_init(|| self.unnamed_blocks()).get(id) {
                Some(place) => return Ok(*place),
                None => {
                    self.search_layers(&object, ObjectKind::Block).map_err(|error| missed.err().unwrap_or(error))?
                }
            },
        };
        Ok((located.layer, located.object.place.block))
    }

    fn unnamed_blocks(&self) -> HashMap<BlockId, (u32, u32)> {
        let mut found = HashMap::new();
        for layer in 0..self.layers.layers().len() as u32 {
            // A layer that cannot be read must not hide what is in others.
            let Ok(reader) = self.layers.reader(layer) else { continue };
            if reader.footer().version == VERSION_WITHOUT_BASES
                && let Ok(ids) = reader.block_ids()
            {
                found.extend(ids.iter().zip(0..).map(|(id, block)| (*id, (layer, block))));
            }
        }
        found
    }

    /// The block that holds an object, as a base for a new version of it, which begins `shift` bytes behind the start of the
    /// old one; none if the block's chain has `longest` blocks already.
    pub fn old_block(&self, located: &Located, shift: i64, longest: u8) -> Result<Option<OldBlock>, StoreError> {
        let (layer, block) = (located.layer, located.object.place.block);
        if layer == PENDING_LAYER {
            return Ok(None);
        }
        let reader = self.layers.reader(layer)?;
        let row = reader.block(block)?;
        let depth = row.depth();
        let id = reader.block_ids()?.get(block as usize).copied();
        let Place { offset, len, .. } = located.object.place;
        let (at, part) = (i64::from(offset) + shift, (offset, offset.saturating_add(len)));
        let old = |id| OldBlock { id, len: row.raw_len, depth, layer, block, at, part };
        Ok(id.filter(|_| depth.saturating_add(1) < longest).map(old))
    }

    /// A decoded block, from the cache or the layer.
    pub fn block(&self, layer: u32, block: u32) -> Result<Arc<Vec<u8>>, StoreError> {
        if let Some(found) = self.cache.get((layer, block)) {
            return Ok(found);
        }
        let decoded = Arc::new(self.decode_block(layer, block)?);
        self.cache.put((layer, block), &decoded);
        Ok(decoded)
    }

    /// A decoded block from the cache, or decoded now and not kept: for one pass over many blocks.
    pub fn block_once(&self, layer: u32, block: u32) -> Result<Arc<Vec<u8>>, StoreError> {
        match self.cache.get((layer, block)) {
            Some(found) => Ok(found),
            None => Ok(Arc::new(self.decode_block(layer, block)?)),
        }
    }

    /// An object's bytes within its decoded block, compared with its id.
    pub fn verified<'a>(&self, located: &Located, block: &'a [u8]) -> Result<&'a [u8], StoreError> {
        let sound =
            located.object.place.bytes_in(block).filter(|bytes| sha256(&[bytes]) == *located.object.id.digest());
        sound.ok_or_else(|| corrupt(located))
    }

    /// Compares the bytes of several objects within a decoded block with their ids.
    pub fn verify(&self, located: &[Located], block: &[u8]) -> Result<(), StoreError> {
        let bytes = located.iter().map(|located| located.object.place.bytes_in(block).ok_or_else(|| corrupt(located)));
        let digests = sha256_each(&bytes.collect::<Result<Vec<_>, _>>()?);
        let wrong = located.iter().zip(digests).find(|(located, digest)| digest != located.object.id.digest());
        wrong.map_or(Ok(()), |(located, _)| Err(corrupt(located)))
    }

    /// An object at a known place, its bytes compared with its id.
    pub fn read_at(&self, located: &Located) -> Result<ObjectBytes, StoreError> {
        let Located { layer, object } = located;
        let block = self.block(*layer, object.place.block)?;
        self.verified(located, &block)?;
        Ok(ObjectBytes { block, place: object.place })
    }

    /// An object's verified bytes.
    pub fn read(&self, id: &ObjectId, kind: ObjectKind) -> Result<ObjectBytes, StoreError> {
        self.read_at(&self.locate(id, kind)?)
    }

    /// A chunk's verified bytes.
    pub fn chunk(&self, id: &ChunkId) -> Result<ObjectBytes, StoreError> {
        self.read(&(*id).into(), ObjectKind::Chunk)
    }

    /// A directory.
    pub fn tree(&self, id: &TreeId) -> Result<Arc<Tree>, StoreError> {
        if let Some(tree) = crate::base::pool::lock(&self.trees).get(id) {
            return Ok(Arc::clone(tree));
        }
        let tree = Arc::new(self.decode((*id).into(), ObjectKind::Tree, decode_tree)?);
        crate::base::pool::lock(&self.trees).put(*id, Arc::clone(&tree));
        Ok(tree)
    }

    /// A commit.
    pub fn commit(&self, id: &CommitId) -> Result<Commit, StoreError> {
        self.decode((*id).into(), ObjectKind::Commit, decode_commit)
    }

    /// A recipe as stored.
    pub fn recipe(&self, id: &RecipeId) -> Result<Recipe, StoreError> {
        self.decode((*id).into(), ObjectKind::Recipe, decode_recipe)
    }

    fn decode<T>(
        &self,
        id: ObjectId,
        kind: ObjectKind,
        decode: fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<T, StoreError> {
        let located = self.locate(&id, kind)?;
        // The same bytes may have been stored as file content first; they are judged by what they decode to.
        decode(&self.read_at(&located)?).map_err(|error| StoreError::Corrupt { kind, id, why: error.to_string() })
    }

    /// Calls `visit` with each piece of a file in order. The lengths are checked against `len`.
    pub fn pieces(
        &self,
        content: &Content,
        len: u64,
        visit: &mut dyn FnMut(Piece) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut pieces = Pieces::new(self, content, len, 0..len)?;
        while let Some((_, piece)) = pieces.next()? {
            visit(piece)?;
        }
        Ok(())
    }

    /// All ids of a kind with a prefix, from all layers. Reads every table once, so it is for people's input only.
    pub fn find_by_prefix(&self, prefix: &IdPrefix, kind: ObjectKind) -> Result<Vec<ObjectId>, StoreError> {
        let mut found = Vec::new();
        for number in 0..self.layers.layers().len() as u32 {
            let reader = self.layers.reader(number)?;
            for (id, row) in reader.tables()?.ids().iter().zip(0..) {
                if prefix.matches(id) && reader.object(row)?.place.kind == kind {
                    found.push(ObjectId::from_digest(*id));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

fn corrupt(located: &Located) -> StoreError {
    let why = "its bytes do not have its id".to_owned();
    StoreError::Corrupt { kind: located.object.place.kind, id: located.object.id, why }
}
