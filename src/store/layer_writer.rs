//! A layer being written: objects in, a sealed file out.
//!
//! Objects are gathered into blocks in the order of arrival, file content apart from metadata. A block has one base at
//! most, so one that has a base is closed when an object with another base arrives. A full block is
//! compressed on the pool while the next one fills; finished blocks are written in order, so the same objects give the
//! same file, whatever the number of threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use hashbrown::HashSet;

use super::StoreError;
use super::backend::{Backend, Upload};
use super::layer_reader::{LayerReader, file_name};
use super::objects::{ObjectStore, OldBlock, end_opposite};
use super::refs;
use crate::base::meter::Stage;
use crate::base::pool::{Pools, Spare};
use crate::format::RepoId;
use crate::format::journal::Op;
use crate::format::layer::{self, Base, BlockRow, HEADER_LEN, ObjectRow, Place, encode_header, encode_tables};
use crate::format::object::MAX_OBJECT_LEN;
use crate::model::id::{LayerId, ObjectId, ObjectKind};
use crate::transform::compress::{Codec, Opposite, Packed, compress, compress_alone};
use crate::transform::filter::Filter;

/// How layers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerOptions {
    /// A block is closed when it holds this many bytes.
    pub block_len: usize,
    /// The level of zstd.
    pub level: i32,
    /// The version of the layer; the first has no bases.
    pub version: u16,
}

/// A block that has taken its number and is not written yet.
const UNWRITTEN: BlockRow =
    BlockRow { offset: 0, stored_len: 0, raw_len: 0, crc: 0, codec: Codec::Raw, filter: Filter::None, base: None };

/// Blocks being compressed or waiting to be written, for each thread: enough to keep all busy while one is slow.
const BLOCKS_IN_FLIGHT_PER_THREAD: usize = 3;

/// The plain block and what came of it.
type Compressed = (Arc<Vec<u8>>, std::io::Result<Packed>);

/// A block that is being compressed.
struct InFlight {
    number: u32,
    base: Option<OldBlock>,
    receiver: Receiver<Compressed>,
}

/// Gathers objects into one layer file.
pub struct LayerWriter {
    backend: Arc<dyn Backend>,
    repo: RepoId,
    pools: Arc<Pools>,
    /// Where bases are read.
    stored: Arc<ObjectStore>,
    options: LayerOptions,
    upload: Box<dyn Upload>,
    position: u64,
    blocks: Vec<BlockRow>,
    objects: Vec<ObjectRow>,
    ids: HashSet<ObjectId>,
    content: OpenBlock,
    metadata: OpenBlock,
    in_flight: VecDeque<InFlight>,
    /// Plain blocks that are written.
    spare: Spare,
    next_block: u32,
    plain_bytes: u64,
}

/// A block being filled; its number is given when its first object arrives, so that places are known at once.
#[derive(Default)]
struct OpenBlock {
    number: Option<u32>,
    bytes: Vec<u8>,
    base: Option<OldBlock>,
}

/// A layer that is durable and visible, but not yet named in the journal.
#[derive(Debug, Clone)]
pub struct SealedLayer {
    /// Its id.
    pub id: LayerId,
    /// The layer, open.
    pub reader: Arc<LayerReader>,
}

impl SealedLayer {
    /// The journal operation that makes it part of the repository.
    pub fn op(&self) -> Op {
        refs::layer_op(&self.id, &self.reader.record())
    }
}

impl LayerWriter {
    /// Starts a layer.
    pub fn new(
        backend: Arc<dyn Backend>,
        repo: RepoId,
        pools: Arc<Pools>,
        stored: Arc<ObjectStore>,
        options: LayerOptions,
    ) -> Result<Self, StoreError> {
        let mut upload = backend.create()?;
        // Those in flight, and the two that are open.
        let spare = Spare::new(options.block_len, pools.cpu_threads() * BLOCKS_IN_FLIGHT_PER_THREAD + 2);
        upload.append(&encode_header(options.version, &repo))?;
        Ok(Self {
            backend,
            repo,
            pools,
            stored,
            options,
            upload,
            position: HEADER_LEN as u64,
            blocks: Vec::new(),
            objects: Vec::new(),
            ids: HashSet::new(),
            content: OpenBlock::default(),
            metadata: OpenBlock::default(),
            in_flight: VecDeque::new(),
            spare,
            next_block: 0,
            plain_bytes: 0,
        })
    }

    /// Does this layer hold the object already?
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.ids.contains(id)
    }

    /// Where bases are read.
    pub fn stored(&self) -> &ObjectStore {
        &self.stored
    }

    /// The ids so far, taken out: no object may be added any more.
    pub fn take_ids(&mut self) -> HashSet<ObjectId> {
        std::mem::take(&mut self.ids)
    }

    /// Bytes of objects so far.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Bytes of the file so far; blocks in flight are not in it.
    pub fn written_bytes(&self) -> u64 {
        self.position
    }

    /// Number of objects so far.
    pub fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// Adds an object whose id is the hash of `bytes`. Says whether it was new to this layer. `base` is the block that holds
    /// an older version of it.
    pub fn add(
        &mut self,
        id: ObjectId,
        kind: ObjectKind,
        bytes: &[u8],
        base: Option<OldBlock>,
    ) -> Result<bool, StoreError> {
        if bytes.len() > MAX_OBJECT_LEN as usize {
            let why = format!("it has {} bytes, more than an object may have", bytes.len());
            return Err(StoreError::Corrupt { kind, id, why });
        }
        if !self.ids.insert(id) {
            return Ok(false);
        }
        let base = base.filter(|_| self.options.version != layer::VERSION_WITHOUT_BASES);
        let open = if kind == ObjectKind::Chunk { &self.content } else { &self.metadata };
        let is_full = open.bytes.len() + bytes.len() > self.options.block_len;
        // What has no base goes with its neighbours, and a block without base takes the first that comes.
        let differs = matches!((&open.base, &base), (Some(one), Some(other)) if !one.is_same(other));
        if !open.bytes.is_empty() && (is_full || differs) {
            self.close_block(kind)?;
        }
        let next = self.next_block;
        let open = if kind == ObjectKind::Chunk { &mut self.content } else { &mut self.metadata };
        let block = *open.number.get_or_insert_with(|| {
            open.bytes = self.spare.take(bytes.len());
            next
        });
        if block == next {
            self.next_block += 1;
        }
        let before = open.bytes.len() as i64;
        open.base = match (open.base, base) {
            (Some(open), Some(base)) => Some(open.and(&base)),
            (open, base) => open.or(base.map(|base| OldBlock { at: base.at - before, ..base })),
        };
        let place = Place { block, offset: open.bytes.len() as u32, len: bytes.len() as u32, kind };
        open.bytes.extend_from_slice(bytes);
        self.objects.push(ObjectRow { id, place });
        self.plain_bytes += bytes.len() as u64;
        Ok(true)
    }

    /// Sends the open block to be compressed.
    fn close_block(&mut self, kind: ObjectKind) -> Result<(), StoreError> {
        let open = if kind == ObjectKind::Chunk { &mut self.content } else { &mut self.metadata };
        let OpenBlock { number: Some(number), bytes, base } = std::mem::take(open) else { return Ok(()) };
        self.compress_block(number, Arc::new(bytes), base)
    }

    fn compress_block(&mut self, number: u32, bytes: Arc<Vec<u8>>, base: Option<OldBlock>) -> Result<(), StoreError> {
        let (sender, receiver) = sync_channel(1);
        let level = self.options.level;
        let (stored, meter) = (Arc::clone(&self.stored), Arc::clone(self.pools.meter()));
        let plain_only = self.options.version == layer::VERSION_WITHOUT_BASES;
        self.pools.cpu().spawn_fifo(move || {
            // What is new can be stored even if what was there before is damaged.
            let base = base.and_then(|old| {
                let (from, len) = dictionary_part(&old);
                let needed = end_opposite(old.at, bytes.len() as u32).max(from + len);
                Some((stored.base_block(&old, needed).ok()?, old, (from, len)))
            });
            let base =
                base.as_ref().map(|(block, old, part)| Opposite { bytes: block, at: narrow(old.at), part: *part });
            let busy = meter.time(Stage::Compress);
            let packed = if plain_only { compress_alone(&bytes, level) } else { compress(&bytes, base, level) };
            drop(busy);
            // Nobody listens any more if the writer was given up; then the block is of no use either.
            let _ = sender.send((bytes, packed));
        });
        self.in_flight.push_back(InFlight { number, base, receiver });
        while self.in_flight.len() > self.pools.cpu_threads() * BLOCKS_IN_FLIGHT_PER_THREAD {
            self.write_oldest()?;
        }
        Ok(())
    }

    /// Takes over a block of another layer as it is. Objects that are here already come again: a block is named by all of
    /// its objects.
    pub fn copy_block(&mut self, row: &BlockRow, stored: &[u8], objects: &[ObjectRow]) -> Result<(), StoreError> {
        // Blocks are written in the order of their numbers as far as possible: reading goes in that order.
        while !self.in_flight.is_empty() {
            self.write_oldest()?;
        }
        let number = self.take_block(objects);
        self.plain_bytes += u64::from(row.raw_len);
        self.write_block(number, *row, stored)
    }

    /// Takes over the objects of a block, compressed anew. `plain` is the decoded block.
    pub fn recompress_block(
        &mut self,
        plain: Arc<Vec<u8>>,
        objects: &[ObjectRow],
        base: Option<OldBlock>,
    ) -> Result<(), StoreError> {
        let number = self.take_block(objects);
        self.plain_bytes += plain.len() as u64;
        let base = base.filter(|_| self.options.version != layer::VERSION_WITHOUT_BASES);
        self.compress_block(number, plain, base)
    }

    fn take_block(&mut self, objects: &[ObjectRow]) -> u32 {
        let block = self.next_block;
        self.next_block += 1;
        for ObjectRow { id, place } in objects {
            self.ids.insert(*id);
            self.objects.push(ObjectRow { id: *id, place: Place { block, ..*place } });
        }
        block
    }

    /// Waits for the oldest block in flight and writes it.
    fn write_oldest(&mut self) -> Result<(), StoreError> {
        let Some(InFlight { number, base, receiver }) = self.in_flight.pop_front() else { return Ok(()) };
        let internal = |why: String| StoreError::Internal(format!("cannot compress a block: {why}"));
        let (plain, packed) = receiver.recv().map_err(|error| internal(error.to_string()))?;
        let Packed { codec, filter, uses_base, bytes } = packed.map_err(|error| internal(error.to_string()))?;
        let stored = if codec == Codec::Raw { &plain } else { &bytes };
        let base = base.filter(|_| uses_base);
        let base = base.map(|old| {
            let (from, len) = dictionary_part(&old);
            Base { id: old.id, depth: old.depth.saturating_add(1), at: narrow(old.at), from, len }
        });
        let raw_len = plain.len() as u32;
        let row = BlockRow { raw_len, crc: crc32fast::hash(stored), codec, filter, base, ..UNWRITTEN };
        self.write_block(number, row, stored)?;
        if let Some(plain) = Arc::into_inner(plain) {
            self.spare.give(plain);
        }
        Ok(())
    }

    /// Appends a block's stored bytes; its place in the file is set here.
    fn write_block(&mut self, number: u32, row: BlockRow, stored: &[u8]) -> Result<(), StoreError> {
        let busy = self.pools.meter().time(Stage::Store);
        self.upload.append(stored)?;
        drop(busy);
        // Content and metadata blocks take numbers when they open and arrive when they close, so rows may come out of turn.
        let at = number as usize;
        if self.blocks.len() <= at {
            self.blocks.resize(at + 1, UNWRITTEN);
        }
        if let Some(slot) = self.blocks.get_mut(at) {
            *slot = BlockRow { offset: self.position, stored_len: stored.len() as u32, ..row };
        }
        self.position += stored.len() as u64;
        Ok(())
    }

    /// Completes the file: blocks, tables, footer, sync, rename, sync of the folder, footer read back.
    pub fn seal(mut self) -> Result<SealedLayer, StoreError> {
        // The next layer may be filling already, and has these for itself.
        self.spare = Spare::new(0, 0);
        self.ids = HashSet::new();
        self.close_block(ObjectKind::Chunk)?;
        self.close_block(ObjectKind::Tree)?;
        while !self.in_flight.is_empty() {
            self.write_oldest()?;
        }
        let pools = Arc::clone(&self.pools);
        let _busy = pools.meter().time(Stage::Store);
        let (tables, footer) =
            encode_tables(self.options.version, self.repo, &self.blocks, &mut self.objects, self.position);
        let footer = footer.encode();
        self.upload.append(&tables)?;
        self.upload.append(&footer)?;
        let id = LayerId::from_digest(crate::transform::hash::sha256(&[&footer]));
        self.upload.finish(&file_name(&id))?;
        let reader = LayerReader::open(self.backend.as_ref(), &self.repo, id)?;
        Ok(SealedLayer { id, reader: Arc::new(reader) })
    }
}

/// The dictionary reaches this far beyond the older versions of what is compressed with it: neighbours resemble each other. With
/// whole blocks of 512 KiB as dictionaries a point release of the kernel took a third more processor time.
const DICTIONARY_MARGIN: u32 = 16 << 10;

/// Where the dictionary begins in an old block, and how long it is.
fn dictionary_part(old: &OldBlock) -> (u32, u32) {
    let from = old.part.0.saturating_sub(DICTIONARY_MARGIN);
    let end = old.part.1.saturating_add(DICTIONARY_MARGIN).min(old.len);
    (from, end.saturating_sub(from))
}

/// A place in a block. One so far outside that the number does not hold it is of no use either way.
fn narrow(at: i64) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::backend::MemoryBackend;
    use crate::transform::chunker::tests::noise;
    use crate::transform::hash::chunk_id;

    const OPTIONS: LayerOptions = LayerOptions { block_len: 10_000, level: 3, version: layer::VERSION };

    fn write(threads: usize, objects: &[(ObjectKind, Vec<u8>)]) -> (MemoryBackend, SealedLayer) {
        let backend = MemoryBackend::default();
        let pools = Arc::new(Pools::new(threads, threads));
        let stored = Arc::new(ObjectStore::in_memory(Arc::new(backend.clone()), [1; 16], Vec::new()));
        let mut writer = LayerWriter::new(Arc::new(backend.clone()), [1; 16], pools, stored, OPTIONS).unwrap();
        for (kind, bytes) in objects {
            writer.add(chunk_id(bytes).into(), *kind, bytes, None).unwrap();
        }
        (backend, writer.seal().unwrap())
    }

    fn objects() -> Vec<(ObjectKind, Vec<u8>)> {
        (0..200u64)
            .map(|i| {
                let kind = if i % 7 == 0 { ObjectKind::Tree } else { ObjectKind::Chunk };
                let bytes = if i % 2 == 0 { noise(i, i as usize * 97) } else { vec![i as u8; i as usize * 53] };
                (kind, bytes)
            })
            .chain([(ObjectKind::Chunk, noise(99, 50_000)), (ObjectKind::Chunk, Vec::new())])
            .collect()
    }

    #[test]
    fn the_same_objects_give_the_same_layer_whatever_the_threads() {
        let ids: Vec<LayerId> = [1, 2, 5].map(|threads| write(threads, &objects()).1.id).to_vec();
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert_ne!(write(1, &objects()[1..]).1.id, ids[0]);
    }

    #[test]
    fn what_was_added_is_read_back() {
        let (_, sealed) = write(2, &objects());
        sealed.reader.tables().unwrap().verify().unwrap();
        for (kind, bytes) in objects() {
            let row = sealed.reader.find(&chunk_id(&bytes).into()).unwrap().unwrap();
            let place = sealed.reader.object(row).unwrap().place;
            if !bytes.is_empty() {
                assert_eq!(place.kind, kind);
            }
            let block = sealed.reader.read_start(place.block, Opposite::NONE, usize::MAX).unwrap();
            assert_eq!(&block[place.offset as usize..][..place.len as usize], bytes);
        }
    }

    #[test]
    fn an_empty_layer_is_a_layer() {
        let (_, sealed) = write(1, &[]);
        sealed.reader.tables().unwrap().verify().unwrap();
        assert_eq!(sealed.reader.find(&chunk_id(b"").into()).unwrap(), None);
    }

    #[test]
    fn an_object_comes_once() {
        let twice = [objects(), objects()].concat();
        assert_eq!(write(2, &twice).1.id, write(2, &objects()).1.id);
    }
}
