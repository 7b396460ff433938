//! Where hashed content arrives, in path order: what is known is dropped, what is new goes into layers.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::band::{Band, BandPiece};
use super::hashed::{Done, Job, ReadInfo};
use super::older::Older;
use super::{Captured, IngestStats, Source};
use crate::base::monitor::Monitor;
use crate::base::pool::Spare;
use crate::format::journal::Op;
use crate::format::object::encode_recipe;
use crate::model::id::{ChunkId, ObjectId, ObjectKind, RecipeId};
use crate::model::recipe::{Piece, Recipe, ends_leaf};
use crate::model::tree::Content;
use crate::ops::Result;
use crate::repo::{Repository, WriteLock};
use crate::store::StoreError;
use crate::store::layer_writer::{LayerWriter, SealedLayer};
use crate::store::objects::ObjectStore;
use crate::store::pending::{Batch, Counterpart};
use crate::transform::cutter::{Part, chunk_ranges};

/// So many sealed layers are committed while what refers to them is still being read: each of them is open, and is asked whether
/// it has a chunk. 8 GiB of new content at the usual length; what is interrupted later finds them again.
pub(super) const LAYERS_AT_ONCE: usize = 16;

/// New layers, being written and written.
pub struct Sink<'a> {
    repo: &'a Repository,
    lock: &'a WriteLock,
    objects: Arc<ObjectStore>,
    writer: Option<LayerWriter>,
    sealed: Vec<SealedLayer>,
    /// A full layer is synced while the next one fills.
    sealing: Option<Sealing>,
    /// Set while what arrived is little enough to be pending.
    batch: Option<Batch>,
    /// What is pending counts as stored.
    takes_pending: bool,
    /// Only these are stored, even if something with their ids is there already.
    wanted: Option<hashbrown::HashSet<ObjectId>>,
    healed: u64,
    stats: IngestStats,
}

/// A full layer that is being made durable, and what is in it.
struct Sealing {
    thread: Option<JoinHandle<std::result::Result<SealedLayer, StoreError>>>,
    ids: hashbrown::HashSet<ObjectId>,
}

impl Sealing {
    fn start(mut writer: LayerWriter) -> std::result::Result<Self, StoreError> {
        let ids = writer.take_ids();
        let thread = std::thread::Builder::new().name("digstore-seal".to_owned()).spawn(move || writer.seal());
        let thread = thread.map_err(|error| StoreError::Internal(format!("cannot start a thread: {error}")))?;
        Ok(Self { thread: Some(thread), ids })
    }

    fn wait(mut self) -> std::result::Result<SealedLayer, StoreError> {
        let sealed = self.thread.take().map(JoinHandle::join);
        sealed
            .and_then(|joined| joined.ok())
            .ok_or_else(|| StoreError::Internal("sealing a layer panicked".to_owned()))?
    }
}

impl Drop for Sealing {
    /// Whoever gives up leaves nothing behind that goes on writing when the lock is somebody else's.
    fn drop(&mut self) {
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<'a> Sink<'a> {
    /// An empty sink; no file is made before something new arrives.
    ///
    /// What is pending does not count as stored: commits refer to objects in layers only.
    pub fn new(repo: &'a Repository, lock: &'a WriteLock) -> Self {
        let (objects, stats) = (repo.objects(), IngestStats::default());
        Self {
            repo,
            lock,
            objects,
            writer: None,
            sealed: Vec::new(),
            sealing: None,
            batch: None,
            takes_pending: false,
            wanted: None,
            healed: 0,
            stats,
        }
    }

    /// One whose objects stay pending in the journal if they are few. End it with [`Sink::finish_small`].
    pub fn small(repo: &'a Repository, lock: &'a WriteLock) -> Self {
        Self { batch: Some(Batch::default()), takes_pending: true, ..Self::new(repo, lock) }
    }

    /// One that takes only the objects `wanted`, in the place of damaged ones.
    pub fn healing(repo: &'a Repository, lock: &'a WriteLock, wanted: hashbrown::HashSet<ObjectId>) -> Self {
        Self { wanted: Some(wanted), ..Self::new(repo, lock) }
    }

    /// How many of the wanted objects have come.
    pub fn healed(&self) -> u64 {
        self.healed
    }

    /// Is the object in the repository or in one of the new layers?
    fn is_known(&self, id: &ObjectId) -> std::result::Result<bool, StoreError> {
        Ok(self.is_fresh(id)? || self.are_stored(&[*id])?.contains(&true))
    }

    /// Which of these are stored, and need not come again?
    fn are_stored(&self, ids: &[ObjectId]) -> std::result::Result<Vec<bool>, StoreError> {
        match &self.wanted {
            Some(wanted) => Ok(ids.iter().map(|id| !wanted.contains(id)).collect()),
            None => self.objects.contains_each(ids),
        }
    }

    /// Is the object pending or in one of the new layers?
    fn is_fresh(&self, id: &ObjectId) -> std::result::Result<bool, StoreError> {
        if self.batch.as_ref().is_some_and(|batch| batch.contains(id))
            || self.takes_pending && self.objects.pending().find(id).is_some()
            || self.writer.as_ref().is_some_and(|writer| writer.contains(id))
            || self.sealing.as_ref().is_some_and(|sealing| sealing.ids.contains(id))
        {
            return Ok(true);
        }
        for layer in &self.sealed {
            if layer.reader.find(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stores an object if it is new; says whether it was. `older` is an earlier version of it, if there is one: then what
    /// differs is stored.
    pub fn add(
        &mut self,
        id: ObjectId,
        kind: ObjectKind,
        bytes: &[u8],
        older: Option<ObjectId>,
    ) -> std::result::Result<bool, StoreError> {
        if self.is_known(&id)? {
            return Ok(false);
        }
        self.add_new(id, kind, bytes, older.map(|id| Counterpart { id, shift: 0 }))?;
        Ok(true)
    }

    fn add_new(
        &mut self,
        id: ObjectId,
        kind: ObjectKind,
        bytes: &[u8],
        older: Option<Counterpart>,
    ) -> std::result::Result<(), StoreError> {
        self.healed += u64::from(self.wanted.is_some());
        let older = older.filter(|_| self.repo.has_bases());
        if let Some(batch) = &mut self.batch {
            if batch.add(id, kind, bytes, older) {
                return Ok(());
            }
            // It has become too much: all of it goes into a layer.
            let batch = self.batch.take().unwrap_or_default();
            for (id, kind, bytes, older) in batch.objects() {
                self.add_to_layer(id, kind, bytes, older)?;
            }
        }
        self.add_to_layer(id, kind, bytes, older)
    }

    fn add_to_layer(
        &mut self,
        id: ObjectId,
        kind: ObjectKind,
        bytes: &[u8],
        older: Option<Counterpart>,
    ) -> std::result::Result<(), StoreError> {
        let settings = self.repo.settings();
        if self.writer.as_ref().is_some_and(|writer| settings.fill_layer(writer.plain_bytes(), writer.object_count())) {
            self.seal_in_background()?;
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let layer = self.repo.new_layer_with(Arc::clone(&self.objects), self.repo.layer_options())?;
                self.writer.insert(layer)
            }
        };
        // The block of an older version, if it may serve once more. That it cannot be read is no reason to fail.
        let base = older.and_then(|Counterpart { id, shift }| self.repo.old_block(writer.stored(), &id, shift));
        writer.add(id, kind, bytes, base)?;
        Ok(())
    }

    fn count_known(&mut self) {
        self.stats.chunks_known += 1;
        self.repo.pools().meter().add_chunk(false);
    }

    fn add_chunk(
        &mut self,
        id: ChunkId,
        is_stored: bool,
        bytes: &[u8],
        older: &mut Older,
    ) -> std::result::Result<(), StoreError> {
        let len = bytes.len() as u64;
        if is_stored || self.is_fresh(&id.into())? {
            self.count_known();
            older.pass_known(Some(&id), len);
        } else {
            self.stats.chunks_new += 1;
            self.repo.pools().meter().add_chunk(true);
            self.stats.new_bytes += len;
            self.add_new(id.into(), ObjectKind::Chunk, bytes, older.pass_new(len))?;
        }
        Ok(())
    }

    fn seal_in_background(&mut self) -> std::result::Result<(), StoreError> {
        self.wait_for_sealing()?;
        self.sealing = self.writer.take().map(Sealing::start).transpose()?;
        Ok(())
    }

    fn wait_for_sealing(&mut self) -> std::result::Result<(), StoreError> {
        self.sealed.extend(self.sealing.take().map(Sealing::wait).transpose()?);
        Ok(())
    }

    /// Commits the layers that are sealed, if they are many. Nobody may be in the middle of asking which objects are stored.
    pub fn commit_sealed(&mut self) -> Result<()> {
        // What heals takes the place of other layers, and is committed with that.
        if self.sealed.len() < LAYERS_AT_ONCE || self.wanted.is_some() {
            return Ok(());
        }
        self.stats.stored_bytes += stored_bytes(&self.sealed);
        self.repo.commit(self.lock, &std::mem::take(&mut self.sealed), Vec::new())?;
        // The cache of the new state must not come on top of that of the old one.
        std::mem::replace(&mut self.objects, self.repo.objects()).forget_blocks();
        Ok(())
    }

    /// Seals what is open. The layers are durable then, but belong to the repository only once they are committed.
    pub fn finish(mut self) -> std::result::Result<(Vec<SealedLayer>, IngestStats), StoreError> {
        let last = self.writer.take().map(LayerWriter::seal).transpose()?;
        self.wait_for_sealing()?;
        self.sealed.extend(last);
        self.stats.stored_bytes += stored_bytes(&self.sealed);
        Ok((self.sealed, self.stats))
    }

    /// The same where few objects stay pending: also gives the operations that store those.
    pub fn finish_small(mut self) -> std::result::Result<(Vec<SealedLayer>, Vec<Op>, IngestStats), StoreError> {
        let batch = self.batch.take().unwrap_or_default();
        let (ops, batch_bytes) = batch.ops(&self.repo.journal().read(), self.repo.settings().level)?;
        let (layers, mut stats) = self.finish()?;
        stats.stored_bytes += batch_bytes;
        Ok((layers, ops, stats))
    }
}

fn stored_bytes(layers: &[SealedLayer]) -> u64 {
    layers.iter().map(|layer| layer.reader.file_len()).sum()
}

/// Collects the pieces of one file into stored recipes.
#[derive(Default)]
struct RecipeBuilder {
    pieces: Vec<Piece>,
    pieces_len: u64,
    leaves: Vec<(RecipeId, u64)>,
    len: u64,
}

impl RecipeBuilder {
    fn push(&mut self, piece: Piece, older: &Older, sink: &mut Sink<'_>) -> std::result::Result<(), StoreError> {
        self.pieces.push(piece);
        self.pieces_len += piece.len();
        self.len += piece.len();
        if ends_leaf(self.pieces.len(), &piece) { self.flush(older, sink) } else { Ok(()) }
    }

    fn flush(&mut self, older: &Older, sink: &mut Sink<'_>) -> std::result::Result<(), StoreError> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let (id, bytes) = encode_recipe(&Recipe::Leaf(std::mem::take(&mut self.pieces)));
        sink.add(id.into(), ObjectKind::Recipe, &bytes, older.leaf())?;
        self.leaves.push((id, std::mem::take(&mut self.pieces_len)));
        Ok(())
    }

    fn finish(mut self, older: &Older, sink: &mut Sink<'_>) -> std::result::Result<Content, StoreError> {
        if self.leaves.is_empty() {
            match self.pieces.as_slice() {
                [] => return Ok(Content::Empty),
                [Piece::Chunk { id, .. }] => return Ok(Content::Chunk(*id)),
                _ => {}
            }
        }
        self.flush(older, sink)?;
        if let [(only, _)] = self.leaves.as_slice() {
            return Ok(Content::Recipe(*only));
        }
        let (id, bytes) = encode_recipe(&Recipe::Branch(self.leaves));
        sink.add(id.into(), ObjectKind::Recipe, &bytes, older.root())?;
        Ok(Content::Recipe(id))
    }
}

/// The files of one ingest: results so far, and the recipe of the file that is arriving in parts.
pub struct Files {
    sources: Arc<Vec<Source>>,
    results: Vec<Option<std::result::Result<Captured, String>>>,
    open: RecipeBuilder,
    /// What was stored of the file that is arriving.
    older: Option<Older>,
    /// Where buffers go that are stored.
    spare: Arc<Spare>,
}

impl Files {
    /// Room for the results of all sources.
    pub fn new(sources: Arc<Vec<Source>>, spare: Arc<Spare>) -> Self {
        let results = vec![None; sources.len()];
        Self { sources, results, open: RecipeBuilder::default(), older: None, spare }
    }

    fn older_of(&self, file: usize, sink: &Sink<'_>) -> Older {
        Older::new(&sink.objects, self.sources.get(file).and_then(|source| source.before))
    }

    /// What was stored of the file that is arriving; put it back until the file ends.
    fn take_older(&mut self, file: usize, sink: &Sink<'_>) -> Older {
        self.older.take().unwrap_or_else(|| self.older_of(file, sink))
    }

    /// The results in order. A file without one was not reached.
    pub fn finish(self) -> Vec<std::result::Result<Captured, String>> {
        let unreached = || Err("it was not reached".to_owned());
        self.results.into_iter().map(|result| result.unwrap_or_else(unreached)).collect()
    }

    /// Stores a finished job. Jobs come in path order.
    pub fn store(&mut self, job: Job<Done>, sink: &mut Sink<'_>, monitor: &dyn Monitor) -> Result<()> {
        sink.commit_sealed()?;
        self.store_work(job.work, sink, monitor)
    }

    fn store_work(&mut self, work: Done, sink: &mut Sink<'_>, monitor: &dyn Monitor) -> Result<()> {
        match work {
            Done::Small { buffer, files, grown } => {
                let ids = files.iter().filter_map(|(_, read)| read.as_ref().ok()?.1.map(ObjectId::from));
                let mut stored = sink.are_stored(&ids.collect::<Vec<_>>())?.into_iter();
                for (file, read) in files {
                    let captured = match read {
                        Err(why) => Err(why),
                        Ok((range, id, info)) => {
                            let content = match id {
                                None => Content::Empty,
                                Some(id) => {
                                    let bytes = buffer.get(range).unwrap_or_default();
                                    let is_stored = stored.next().unwrap_or(false);
                                    sink.add_chunk(id, is_stored, bytes, &mut self.older_of(file, sink))?;
                                    Content::Chunk(id)
                                }
                            };
                            Ok((content, info))
                        }
                    };
                    let advanced = captured.as_ref().map_or(0, |(_, info)| info.stat.len);
                    self.finish_file(file, captured, sink);
                    monitor.advance(1, advanced);
                }
                self.spare.give(buffer);
                grown.into_iter().try_for_each(|file| self.store_work(file, sink, monitor))?;
            }
            Done::Parts { file, parts, end } => {
                let mut older = self.take_older(file, sink);
                for (part, ids) in parts {
                    monitor.advance(0, self.store_part(&part, &ids, &mut older, sink)?);
                }
                self.older = Some(older);
                if let Some(info) = end {
                    self.end_file(file, Ok(info), sink)?;
                    monitor.advance(1, 0);
                }
            }
            Done::Band { file, band, info } => {
                let len = info.stat.len;
                let mut older = self.take_older(file, sink);
                self.store_band(&band, &mut older, sink)?;
                self.older = Some(older);
                self.end_file(file, Ok(info), sink)?;
                monitor.advance(1, len);
            }
            Done::End { file, info } => {
                self.end_file(file, info, sink)?;
                monitor.advance(1, 0);
            }
            Done::Again => {
                self.open = RecipeBuilder::default();
                self.older = None;
            }
        }
        Ok(())
    }

    fn store_part(&mut self, part: &Part, ids: &[ChunkId], older: &mut Older, sink: &mut Sink<'_>) -> Result<u64> {
        match part {
            Part::Hole(len) => {
                older.pass_known(None, *len);
                self.open.push(Piece::Hole { len: *len }, older, sink)?;
                Ok(*len)
            }
            Part::Data { bytes, start, ends } => {
                let stored = sink.are_stored(&ids.iter().map(|id| (*id).into()).collect::<Vec<_>>())?;
                for (range, (id, is_stored)) in chunk_ranges(*start, ends).zip(ids.iter().zip(stored)) {
                    let len = range.len() as u32;
                    sink.add_chunk(*id, is_stored, bytes.get(range).unwrap_or_default(), older)?;
                    self.open.push(Piece::Chunk { id: *id, len }, older, sink)?;
                }
                Ok((bytes.len() - start) as u64)
            }
        }
    }

    fn store_band(&mut self, band: &Band, older: &mut Older, sink: &mut Sink<'_>) -> Result<()> {
        let fresh = band.pieces.iter().filter_map(|BandPiece { piece, fresh }| match (piece, fresh) {
            (Piece::Chunk { id, .. }, Some(_)) => Some(ObjectId::from(*id)),
            _ => None,
        });
        let mut stored = sink.are_stored(&fresh.collect::<Vec<_>>())?.into_iter();
        for BandPiece { piece, fresh } in &band.pieces {
            match (piece, fresh) {
                (Piece::Chunk { id, .. }, Some(range)) => {
                    let is_stored = stored.next().unwrap_or(false);
                    sink.add_chunk(*id, is_stored, band.fresh.get(range.clone()).unwrap_or_default(), older)?;
                }
                (Piece::Chunk { id, len }, None) => {
                    sink.count_known();
                    older.pass_known(Some(id), u64::from(*len));
                }
                (Piece::Hole { len }, _) => older.pass_known(None, *len),
            }
            self.open.push(*piece, older, sink)?;
        }
        Ok(())
    }

    fn end_file(
        &mut self,
        file: usize,
        info: std::result::Result<ReadInfo, String>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let recipe = std::mem::take(&mut self.open);
        let older = self.take_older(file, sink);
        self.older = None;
        let captured = match info {
            Err(why) => Err(why),
            Ok(info) => Ok((recipe.finish(&older, sink)?, info)),
        };
        self.finish_file(file, captured, sink);
        Ok(())
    }

    fn finish_file(
        &mut self,
        file: usize,
        captured: std::result::Result<(Content, ReadInfo), String>,
        sink: &mut Sink<'_>,
    ) {
        if let Ok((_, info)) = &captured {
            sink.stats.files += 1;
            sink.stats.bytes += info.stat.len;
            sink.repo.pools().meter().add_files(1, info.stat.len);
        }
        if let Some(slot) = self.results.get_mut(file) {
            *slot = Some(captured.map(|(content, ReadInfo { stat, racy, has_xattrs })| Captured {
                content,
                stat,
                racy,
                has_xattrs,
            }));
        }
    }
}
