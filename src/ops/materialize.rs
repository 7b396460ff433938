//! Writing stored files into a folder, fast: ordered by where their content lies, each block decoded once, every chunk
//! verified.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use rayon::prelude::*;

use super::compare::holds;
use super::{Error, Result};
use crate::base::disk::{Dir, DiskFile, Stat};
use crate::base::kind::ErrorKind;
use crate::base::meter::{Meter, Stage};
use crate::base::monitor::Monitor;
use crate::base::pool::lock;
use crate::model::id::{ChunkId, ObjectKind, RecipeId};
use crate::model::path::RepoPath;
use crate::model::recipe::{Piece, Recipe};
use crate::model::tree::{Content, Meta, Node};
use crate::repo::Repository;
use crate::store::StoreError;
use crate::store::cache::BlockCache;
use crate::store::index::Located;
use crate::store::objects::ObjectStore;
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::write::{Expect, NewFile, write_link};

/// A file or link to be written.
#[derive(Debug, Clone)]
pub struct FileWrite {
    /// Where.
    pub path: RepoPath,
    /// Mode and time.
    pub meta: Meta,
    /// File or link; a folder is not written here.
    pub node: Node,
    /// What may be replaced.
    pub expect: Expect,
}

/// How to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions<'a> {
    /// Set the recorded modification times.
    pub set_times: bool,
    /// Files that may be cloned instead.
    pub clones: Option<&'a Clones>,
}

/// A folder with copies of some files, each under its last name.
#[derive(Debug, Clone)]
pub struct Clones {
    /// The copies. What is in them is not believed.
    pub dir: Arc<dyn Dir>,
    /// The folder of the files that they are of.
    pub of: RepoPath,
}

/// Bits of a stored mode that are given to files: set-user-id and the like are never restored.
const RESTORED_MODE: u32 = 0o777;
/// Files written by one task at most, so that a block of tiny files does not keep one thread busy alone.
const FILES_PER_TASK: usize = 64;
/// Bytes of blocks kept for another task. Tasks go through the blocks in order, so that one comes soon or came before.
const SHARED_LEN: usize = 32 << 20;
/// If the cache for decoded blocks is short, no more than one part in this many of it.
const SHARED_SHARE: usize = 8;
/// From here on the parts of one file are written by several threads.
const PARALLEL_FROM_LEN: u64 = 16 << 20;

/// The mode that a file gets.
pub fn restored_mode(mode: u32) -> u32 {
    mode & RESTORED_MODE
}

/// Why a file was not written.
#[derive(Debug, Clone)]
pub struct Failure {
    /// One sentence.
    pub message: String,
    /// Damage, or something else.
    pub kind: ErrorKind,
}

/// A stat of the written file, or why it was not written.
pub type Written = std::result::Result<Stat, Failure>;

/// Writes files below `root`, no more at a time than the settings say, and hands each to `done` with what became of it, in the
/// order in which they come. `total` is how many there are, and their bytes. Folders that are not there are made.
pub fn write_files(
    repo: &Repository,
    root: &Arc<dyn Dir>,
    files: &mut dyn Iterator<Item = Result<FileWrite>>,
    total: (u64, u64),
    options: WriteOptions<'_>,
    monitor: &dyn Monitor,
    done: &mut dyn FnMut(FileWrite, Written) -> Result<()>,
) -> Result<()> {
    let (objects, meter) = (repo.objects(), repo.pools().meter());
    let writer = Writer {
        objects: &objects,
        meter,
        shared: BlockCache::new(SHARED_LEN.min(repo.settings().cache_len / SHARED_SHARE), Arc::default()),
        folders: Mutex::default(),
        root,
        options,
        monitor,
    };
    let at_once = repo.settings().paths_at_once.max(1);
    monitor.begin("writing files", Some(total.0), Some(total.1));
    let mut write_some = || -> Result<bool> {
        let some: Vec<FileWrite> = files.take(at_once).collect::<Result<_>>()?;
        if some.is_empty() {
            return Ok(false);
        }
        let written = repo.pools().cpu().install(|| writer.write_all(&some))?;
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        some.into_iter().zip(written).try_for_each(|(file, written)| done(file, written))?;
        Ok(true)
    };
    let result = loop {
        if total.0 > at_once as u64 {
            repo.give_back();
        }
        match write_some() {
            Ok(true) => {}
            Ok(false) if monitor.cancelled() => break Err(Error::Interrupted),
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    monitor.end();
    result
}

/// Bytes of a file; none of a link.
pub fn file_len(file: &FileWrite) -> u64 {
    if let Node::File { len, .. } = file.node { len } else { 0 }
}

/// Where a file's content begins: layer, block, position. Files without content come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Start(Option<(u32, u32)>, u32);

impl Start {
    fn block(&self) -> Option<(u32, u32)> {
        self.0
    }

    fn of(located: &Located) -> Self {
        Self(Some((located.layer, located.object.place.block)), located.object.place.offset)
    }
}

fn locate_all(objects: &ObjectStore, files: &[FileWrite]) -> Result<Vec<Start>> {
    let start = |file: &FileWrite| -> std::result::Result<Start, StoreError> {
        let Node::File { content, .. } = &file.node else { return Ok(Start::default()) };
        // What is missing is reported when the file is written, with its path.
        let located = match content {
            Content::Empty => None,
            Content::Chunk(id) => objects.find(&(*id).into())?,
            Content::Recipe(id) => match objects.recipe(id) {
                Ok(Recipe::Leaf(pieces)) => {
                    first_chunk(&pieces).map(|id| objects.find(&id.into())).transpose()?.flatten()
                }
                _ => None,
            },
        };
        Ok(located.as_ref().map(Start::of).unwrap_or_default())
    };
    Ok(files.par_iter().map(start).collect::<std::result::Result<_, _>>()?)
}

fn first_chunk(pieces: &[Piece]) -> Option<ChunkId> {
    pieces.iter().find_map(|piece| match piece {
        Piece::Chunk { id, .. } => Some(*id),
        Piece::Hole { .. } => None,
    })
}

struct Writer<'a> {
    objects: &'a ObjectStore,
    meter: &'a Meter,
    /// Blocks that a file of one task reaches into and that another task begins with.
    shared: BlockCache,
    /// Open folders of tasks that are done: the next task's are not far.
    folders: Mutex<Vec<Folders>>,
    root: &'a Arc<dyn Dir>,
    options: WriteOptions<'a>,
    monitor: &'a dyn Monitor,
}

/// A decoded block, and where it is from: layer and block.
type Block = ((u32, u32), Arc<Vec<u8>>);

/// What a task knows.
#[derive(Default)]
struct Task {
    /// The block that it begins with.
    first: Option<Block>,
    /// Chunks in it that are verified.
    sound: HashMap<ChunkId, Located>,
    /// The block that it came to last.
    last: Option<Block>,
}

/// Consecutive bytes of a block that go to consecutive bytes of a file, not yet written.
struct Run {
    block: Arc<Vec<u8>>,
    range: std::ops::Range<usize>,
    at: u64,
    /// Chunks among them that are not verified.
    doubtful: Vec<Located>,
}

impl Writer<'_> {
    /// Writes files, ordered by where their content lies. The results are in the order of `files`.
    fn write_all(&self, files: &[FileWrite]) -> Result<Vec<Written>> {
        let results: Mutex<Vec<Option<Written>>> = Mutex::new(vec![None; files.len()]);
        let record = |written: Vec<(usize, Written)>| {
            let mut results = lock(&results);
            for (at, written) in written {
                if let Some(slot) = results.get_mut(at) {
                    *slot = Some(written);
                }
            }
        };
        let (large, mut small): (Vec<usize>, Vec<usize>) =
            (0..files.len()).partition(|at| files.get(*at).is_some_and(|file| file_len(file) >= PARALLEL_FROM_LEN));
        let places = locate_all(self.objects, files)?;
        let place = |at: &usize| places.get(*at).copied().unwrap_or_default();
        small.sort_by_key(place);
        let tasks: Vec<&[usize]> = small
            .chunk_by(|a, b| place(a).block() == place(b).block())
            .flat_map(|group| group.chunks(FILES_PER_TASK))
            .collect();
        tasks.par_iter().with_max_len(1).for_each(|task| record(self.write_task(files, task)));
        for at in large {
            record(files.get(at).map(|file| (at, self.write_large(file))).into_iter().collect());
        }
        let unreached = || Err(Failure { message: "it was not reached".to_owned(), kind: ErrorKind::Failed });
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(results.into_iter().map(|written| written.unwrap_or_else(unreached)).collect())
    }

    fn write_task(&self, files: &[FileWrite], task: &[usize]) -> Vec<(usize, Written)> {
        if self.monitor.cancelled() {
            return Vec::new();
        }
        let open = lock(&self.folders).pop();
        let mut folders = open.unwrap_or_else(|| Folders::new(Arc::clone(self.root)));
        let mut state = self.look_ahead(task.iter().filter_map(|at| files.get(*at)));
        let mut written = Vec::with_capacity(task.len());
        for (file, at) in task.iter().filter_map(|at| Some((files.get(*at)?, *at))) {
            if self.monitor.cancelled() {
                break;
            }
            let result = self.write_small(file, &mut folders, &mut state);
            self.monitor.advance(1, file_len(file));
            self.meter.add_files(1, file_len(file));
            written.push((at, result.map_err(|error| failure(file, &error))));
        }
        lock(&self.folders).push(folders);
        written
    }

    /// Verifies, several at once, the chunks of files that have only one, if they are in the block that the first one is in.
    /// Whatever is wrong with one is told when it is written.
    fn look_ahead<'a>(&self, files: impl Iterator<Item = &'a FileWrite>) -> Task {
        let mut task = Task::default();
        if self.options.clones.is_some() {
            return task;
        }
        let locate = |file: &FileWrite| match file.node {
            Node::File { content: Content::Chunk(id), .. } => {
                Some((id, self.objects.locate(&id.into(), ObjectKind::Chunk).ok()?))
            }
            _ => None,
        };
        let key = |located: &Located| (located.layer, located.object.place.block);
        let mut chunks: Vec<(ChunkId, Located)> = files.filter_map(locate).collect();
        let Some(first) = chunks.first().map(|(_, located)| key(located)) else { return task };
        chunks.retain(|(_, located)| key(located) == first);
        let Ok(block) = self.block(first, false) else { return task };
        let located: Vec<Located> = chunks.iter().map(|(_, located)| *located).collect();
        let _busy = self.meter.time(Stage::Hash);
        if self.objects.verify(&located, &block).is_ok() {
            task.sound.extend(chunks);
        }
        task.first = Some((first, block));
        task
    }

    fn write_small(&self, file: &FileWrite, folders: &mut Folders, task: &mut Task) -> Result<Stat> {
        use crate::base::disk::IoContext;
        let shown = || self.root.path().join(file.path.as_os_str());
        let dir = folders.open_parent(&file.path, IfAbsent::Create).on("open the folder of", shown())?;
        let mtime = self.options.set_times.then_some(file.meta.mtime_ns);
        match &file.node {
            Node::Symlink { target } => {
                Ok(write_link(dir.as_ref(), file.path.file_name(), target, mtime, file.expect).on("write", shown())?)
            }
            Node::File { len, content } => {
                let mode = restored_mode(file.meta.mode);
                if let Some(new) = self.cloned(file, &dir, content, *len)? {
                    return Ok(new.finish(file.path.file_name(), mode, mtime, file.expect).on("write", shown())?);
                }
                let new = {
                    let _busy = self.meter.time(Stage::Restore);
                    NewFile::create(dir, mode).on("create", shown())?
                };
                let mut at = 0u64;
                let mut run = None;
                self.objects
                    .pieces(content, *len, &mut |piece| self.write_piece(new.file(), piece, &mut at, task, &mut run))?;
                self.flush(new.file(), &mut run)?;
                let _busy = self.meter.time(Stage::Restore);
                self.set_hole_at_end(new.file(), content, *len)?;
                Ok(new.finish(file.path.file_name(), mode, mtime, file.expect).on("write", shown())?)
            }
            Node::Dir { .. } => Err(StoreError::Internal(format!("{} is a folder", file.path)).into()),
        }
    }

    /// The file as a clone of a copy, if there is one and it holds what it should.
    fn cloned(&self, file: &FileWrite, dir: &Arc<dyn Dir>, content: &Content, len: u64) -> Result<Option<NewFile>> {
        use crate::base::disk::IoContext;
        let clones = self.options.clones.filter(|clones| file.path.parent().as_ref() == Some(&clones.of));
        let Some(Ok(copy)) = clones.map(|clones| clones.dir.open(OsStr::from_bytes(file.path.file_name()))) else {
            return Ok(None);
        };
        let shown = || self.root.path().join(file.path.as_os_str());
        let new = NewFile::create(Arc::clone(dir), restored_mode(file.meta.mode)).on("create", shown())?;
        if new.file().clone_of(&copy).is_err() {
            return Ok(None);
        }
        // Whatever is wrong with a copy, the file can be written from what is stored.
        let has_len = new.file().stat().is_ok_and(|stat| stat.len == len);
        let is_it = has_len && holds(self.objects, new.file().file(), content, len, &shown).unwrap_or(false);
        Ok(is_it.then_some(new))
    }

    /// A file may end in a hole, which no write would make.
    fn set_hole_at_end(&self, file: &dyn DiskFile, content: &Content, len: u64) -> std::result::Result<(), StoreError> {
        use crate::base::disk::IoContext;
        if matches!(content, Content::Recipe(_)) { Ok(file.set_len(len).on("extend", "a file")?) } else { Ok(()) }
    }

    fn write_piece(
        &self,
        file: &dyn DiskFile,
        piece: Piece,
        at: &mut u64,
        task: &mut Task,
        run: &mut Option<Run>,
    ) -> std::result::Result<(), StoreError> {
        let start = *at;
        *at += piece.len();
        let Piece::Chunk { id, len } = piece else { return Ok(()) };
        let (located, is_sound) = match task.sound.get(&id) {
            Some(located) => (*located, true),
            None => (self.objects.locate(&id.into(), ObjectKind::Chunk)?, false),
        };
        let place = located.object.place;
        let key = (located.layer, place.block);
        let known = task.first.iter().chain(&task.last).find(|(known, _)| *known == key);
        let block = match known {
            Some((_, block)) => Arc::clone(block),
            None => {
                let block = self.block(key, task.first.is_some())?;
                let place = if task.first.is_none() { &mut task.first } else { &mut task.last };
                *place = Some((key, Arc::clone(&block)));
                block
            }
        };
        if place.len != len {
            let why = "its length is not that in the recipe".to_owned();
            return Err(StoreError::Corrupt { kind: ObjectKind::Chunk, id: id.into(), why });
        }
        let range = place.offset as usize..place.offset as usize + len as usize;
        let doubtful = (!is_sound).then_some(located);
        if let Some(open) = run
            && Arc::ptr_eq(&open.block, &block)
            && open.range.end == range.start
            && open.at + open.range.len() as u64 == start
        {
            open.range.end = range.end;
            open.doubtful.extend(doubtful);
            return Ok(());
        }
        self.flush(file, run)?;
        *run = Some(Run { block, range, at: start, doubtful: Vec::from_iter(doubtful) });
        Ok(())
    }

    /// A block. The first one of a task is its own; one that a file reaches into is kept for the task that owns it.
    fn block(&self, key: (u32, u32), keep: bool) -> std::result::Result<Arc<Vec<u8>>, StoreError> {
        if let Some(block) = self.shared.get(key) {
            return Ok(block);
        }
        let block = self.objects.block_once(key.0, key.1)?;
        if keep {
            self.shared.put(key, &block);
        }
        Ok(block)
    }

    fn flush(&self, file: &dyn DiskFile, run: &mut Option<Run>) -> std::result::Result<(), StoreError> {
        use crate::base::disk::IoContext;
        let Some(run) = run.take() else { return Ok(()) };
        {
            let _busy = self.meter.time(Stage::Hash);
            self.objects.verify(&run.doubtful, &run.block)?;
        }
        let _busy = self.meter.time(Stage::Restore);
        Ok(file.write_at(run.block.get(run.range).unwrap_or_default(), run.at).on("write", "a file")?)
    }

    /// One file by several threads: each takes parts of the recipe.
    fn write_large(&self, file: &FileWrite) -> Written {
        let result = self.try_write_large(file);
        self.monitor.advance(1, 0);
        self.meter.add_files(1, file_len(file));
        result.map_err(|error| failure(file, &error))
    }

    fn try_write_large(&self, file: &FileWrite) -> Result<Stat> {
        use crate::base::disk::IoContext;
        let Node::File { len, content } = &file.node else {
            return Err(StoreError::Internal(format!("{} is not a file", file.path)).into());
        };
        let shown = || self.root.path().join(file.path.as_os_str());
        let dir = Folders::new(Arc::clone(self.root)).open_parent(&file.path, IfAbsent::Create).on("open", shown())?;
        let mode = restored_mode(file.meta.mode);
        let mtime = self.options.set_times.then_some(file.meta.mtime_ns);
        if let Some(new) = self.cloned(file, &dir, content, *len)? {
            return Ok(new.finish(file.path.file_name(), mode, mtime, file.expect).on("write", shown())?);
        }
        let new = NewFile::create(dir, mode).on("create", shown())?;
        let parts = self.parts(content, *len)?;
        parts.par_iter().with_max_len(1).try_for_each(|(content, len, start)| {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let (mut at, mut task, mut run) = (*start, Task::default(), None);
            self.objects.pieces(content, *len, &mut |piece| {
                self.write_piece(new.file(), piece, &mut at, &mut task, &mut run)?;
                self.monitor.advance(0, piece.len());
                Ok(())
            })?;
            Ok(self.flush(new.file(), &mut run)?)
        })?;
        new.file().set_len(*len).on("extend", shown())?;
        Ok(new.finish(file.path.file_name(), mode, mtime, file.expect).on("write", shown())?)
    }

    /// Consecutive parts of a file, each with its length and position.
    fn parts(&self, content: &Content, len: u64) -> Result<Vec<(Content, u64, u64)>> {
        let Content::Recipe(id) = content else { return Ok(vec![(*content, len, 0)]) };
        let Recipe::Branch(leaves) = self.objects.recipe(id)? else { return Ok(vec![(*content, len, 0)]) };
        let mut at = 0u64;
        let mut parts = Vec::with_capacity(leaves.len());
        for (leaf, leaf_len) in leaves {
            parts.push((Content::Recipe(leaf), leaf_len, at));
            at = at.checked_add(leaf_len).ok_or_else(|| too_long(id))?;
        }
        if at == len { Ok(parts) } else { Err(too_long(id).into()) }
    }
}

fn too_long(id: &RecipeId) -> StoreError {
    let why = "its parts do not have its length".to_owned();
    StoreError::Corrupt { kind: ObjectKind::Recipe, id: (*id).into(), why }
}

fn failure(file: &FileWrite, error: &Error) -> Failure {
    Failure { message: format!("cannot write {}: {error}", file.path), kind: error.kind() }
}
