//! Floor 6: one open repository.
//!
//! Opens and recovers it, takes the writer lock, resolves names, hands out the parts. It grows no verbs.

pub mod error;
pub mod init;
mod measured;
pub mod rebuild;
pub mod resolve;
pub mod settings;
pub mod trees;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use data_encoding::HEXLOWER;

use crate::base::clock;
use crate::base::disk::lock::{Lock, LockFailure, LockFile};
use crate::base::disk::{Dir, IoContext, ensure_dir, open_root, remove_leftovers, write_atomic};
use crate::base::memo::Memo;
use crate::base::metrics::Metrics;
use crate::base::pool::{self, Pools};
use crate::format::journal::Op;
use crate::format::layer;
use crate::format::manifest::Manifest;
use crate::model::checkpoint::{Area, Listed, Query};
use crate::model::id::{LayerId, ObjectId};
use crate::model::path::{CONTROL_DIR, RepoPath};
use crate::store::backend::{Backend, LocalBackend, MemoryBackend};
use crate::store::cache::BlockCache;
use crate::store::index::{ChunkIndex, LAYERS_PER_INDEX, Located};
use crate::store::journal::{Durability, Journal, State};
use crate::store::layer_reader::{file_name, id_of_file};
use crate::store::layer_writer::{LayerOptions, LayerWriter, SealedLayer};
use crate::store::layers::LayerSet;
use crate::store::objects::{ObjectStore, OldBlock};
use crate::store::pending::{MAX_PENDING_BYTES, PENDING_LAYER, Pending, pending_put_by};
use crate::store::retired::{self, Retired};
use crate::store::{StoreError, refs, worktable};
use crate::transform::chunker::Chunker;

pub use error::RepoError;
pub use settings::Settings;

/// The file that says what a repository is.
pub const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const JOURNAL_DIR: &str = "journal";
const LAYERS_DIR: &str = "layers";
const INDEX_DIR: &str = "index";
/// `format` is a page of text.
const MAX_FORMAT_BYTES: u64 = 64 << 10;

/// How often to look for commits of other processes: a person takes a twentieth of a second for at once.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An open repository and the work tree that it is used with.
#[derive(Debug)]
pub struct Repository {
    manifest: Manifest,
    settings: Settings,
    dir: Option<Arc<dyn Dir>>,
    work: Arc<dyn Dir>,
    skip: Option<RepoPath>,
    backend: Arc<dyn Backend>,
    journal: Journal,
    pools: Arc<Pools>,
    objects: RwLock<Arc<ObjectStore>>,
    trusts_folder_times: bool,
    metrics: Metrics,
    last_list: Memo<Query, Listed>,
    commits: (Mutex<u64>, Condvar),
    lock_file: Arc<LockFile>,
    /// Layers were begun whose commit is not known to have succeeded: the next lock looks at the disk again.
    unsettled: AtomicBool,
}

/// The right to change the repository. While it is held, nobody else changes it.
#[derive(Debug)]
pub struct WriteLock {
    _lock: Lock,
}

impl Repository {
    /// Opens the repository in `dir` for the work tree `work`.
    pub fn open(dir: Arc<dyn Dir>, work: Arc<dyn Dir>, settings: Settings) -> Result<Self, RepoError> {
        let manifest = read_manifest(dir.as_ref())?;
        let sub = |name: &str| dir.open_dir(OsStr::new(name)).on("open", dir.path().join(name));
        let backend = Arc::new(LocalBackend::new(sub(LAYERS_DIR)?));
        let journal = Journal::open(Some(sub(JOURNAL_DIR)?), manifest.id, settings.durability)?;
        let journal = journal.with_policy(settings.snapshots);
        if is_at_or_below(work.path(), dir.path()) {
            return Err(RepoError::WorkTreeInside { work: work.path().to_path_buf() });
        }
        let skip = path_within(dir.path(), work.path());
        Self::assemble(manifest, settings, Some(dir), work, skip, backend, journal)
    }

    /// A repository that lives in memory and vanishes with the process.
    pub fn in_memory(work: Arc<dyn Dir>, settings: Settings) -> Result<Self, RepoError> {
        let manifest = Manifest::new(init::random_id()?, settings.chunking);
        let journal = Journal::open(None, manifest.id, Durability::Memory)?.with_policy(settings.snapshots);
        Self::assemble(manifest, settings, None, work, None, Arc::new(MemoryBackend::default()), journal)
    }

    fn assemble(
        manifest: Manifest,
        settings: Settings,
        dir: Option<Arc<dyn Dir>>,
        work: Arc<dyn Dir>,
        skip: Option<RepoPath>,
        backend: Arc<dyn Backend>,
        journal: Journal,
    ) -> Result<Self, RepoError> {
        let pools = Arc::new(Pools::new(settings.io_threads, settings.cpu_threads));
        let objects = open_objects(&manifest, &settings, dir.as_ref(), &backend, &journal.read())?;
        let objects = RwLock::new(Arc::new(objects));
        let mark = format!("{}-{}", std::process::id(), HEXLOWER.encode(&init::random_id()?));
        let lock_file = LockFile::new(OsStr::new(LOCK_FILE), mark);
        let unsettled = AtomicBool::new(false);
        let trusts_folder_times = keeps_folder_times(work.path());
        let (metrics, commits) = (Metrics::default(), Default::default());
        Ok(Self {
            manifest,
            settings,
            dir,
            work,
            skip,
            backend,
            journal,
            pools,
            objects,
            trusts_folder_times,
            metrics,
            last_list: Memo::default(),
            commits,
            lock_file,
            unsettled,
        })
    }

    /// What is fixed about the repository.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How its files are cut.
    pub fn chunker(&self) -> Chunker {
        let chunker = Chunker::new(self.manifest.chunking);
        if self.has_bases() { chunker } else { chunker.without_arrays() }
    }

    /// May blocks be compressed with older ones? Not in repositories of the first version.
    pub fn has_bases(&self) -> bool {
        self.manifest.version != layer::VERSION_WITHOUT_BASES
    }

    /// The block to compress a new version with, which begins `shift` bytes behind the start of `older`; none if there is no
    /// such object in a layer, or enough blocks depend on each other already.
    pub fn old_block(&self, objects: &ObjectStore, older: &ObjectId, shift: i64) -> Option<OldBlock> {
        let located = if self.has_bases() { objects.find(older).ok()?? } else { return None };
        objects.old_block(&located, shift, self.settings.snapshot_interval).ok()?
    }

    /// How it is used.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The repository's folder; `None` in memory.
    pub fn dir(&self) -> Option<&Arc<dyn Dir>> {
        self.dir.as_ref()
    }

    /// The root of the work tree.
    pub fn work(&self) -> &Arc<dyn Dir> {
        &self.work
    }

    /// Do the times of folders tell when something in them comes or goes?
    pub fn trusts_folder_times(&self) -> bool {
        self.trusts_folder_times
    }

    /// The repository's own folder as a path in the work tree, if it lies there under another name than usual.
    pub fn skip(&self) -> Option<&RepoPath> {
        self.skip.as_ref()
    }

    /// Counts and times of operations by this handle.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The list of checkpoints that was asked for last.
    pub fn last_list(&self) -> &Memo<Query, Listed> {
        &self.last_list
    }

    /// The pools.
    pub fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Where layers are.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// All objects as of the last commit by this handle, or its opening.
    pub fn objects(&self) -> Arc<ObjectStore> {
        Arc::clone(&self.objects.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the writer lock. If others held it since, takes in what they committed, and removes what dead processes left.
    ///
    /// `verb` is what a process that waits in vain is told about this one.
    pub fn lock(&self, verb: &str) -> Result<WriteLock, RepoError> {
        self.lock_within(verb, self.settings.lock_patience)
    }

    /// The same without waiting: `None` if another process holds the lock.
    pub fn try_lock(&self, verb: &str) -> Result<Option<WriteLock>, RepoError> {
        match self.lock_within(verb, Duration::ZERO) {
            Err(RepoError::Locked { .. }) => Ok(None),
            locked => locked.map(Some),
        }
    }

    fn lock_within(&self, verb: &str, patience: Duration) -> Result<WriteLock, RepoError> {
        let dir = self.dir.as_deref();
        let note = format!("digstore {verb}, process {}", std::process::id());
        let lock = match self.lock_file.acquire(dir, &note, patience) {
            Ok(lock) => lock,
            Err(LockFailure::Held(holder)) => {
                return Err(RepoError::Locked { holder, waited: patience });
            }
            Err(LockFailure::Io(error)) => {
                return Err(error).on("lock", dir.map_or(Path::new(LOCK_FILE), |dir| dir.path()))?;
            }
        };
        if self.journal.is_poisoned() {
            return Err(StoreError::Poisoned.into());
        }
        if let Some(dir) = dir.filter(|_| !lock.is_undisturbed() || self.unsettled.load(Ordering::Relaxed)) {
            let changed = self.journal.refresh()?;
            let found = read_manifest(dir)?.version;
            if found != self.manifest.version {
                return Err(RepoError::Migrated { found, opened: self.manifest.version });
            }
            self.reclaim(dir)?;
            if self.unsettled.swap(false, Ordering::Relaxed) || changed {
                self.reload()?;
            }
            lock.settle();
        }
        Ok(WriteLock { _lock: lock })
    }

    /// Takes in what other processes committed, for a handle that goes on reading. Says whether anything changed.
    pub fn catch_up(&self) -> Result<bool, RepoError> {
        let changed = self.journal.catch_up()?;
        if changed {
            self.reload()?;
        }
        Ok(changed)
    }

    /// Removes temporary files, and layers that no journal record names. The lock holder knows that nobody writes them.
    fn reclaim(&self, dir: &dyn Dir) -> Result<(), RepoError> {
        self.backend.remove_leftovers()?;
        // An init that was stopped may have left its `format` unfinished.
        remove_leftovers(dir).on("clean", dir.path())?;
        for name in [JOURNAL_DIR, INDEX_DIR] {
            let sub = match dir.open_dir(OsStr::new(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && name == INDEX_DIR => {
                    ensure_dir(dir, OsStr::new(name), init::DIR_MODE)
                }
                opened => opened,
            };
            let sub = sub.on("open", dir.path().join(name))?;
            remove_leftovers(sub.as_ref()).on("clean", sub.path())?;
        }
        self.delete_strays()
    }

    fn delete_strays(&self) -> Result<(), RepoError> {
        for (name, _) in self.strays()? {
            self.backend.delete(&name)?;
        }
        Ok(())
    }

    /// Puts `new` layers in the place of `old` ones, together with other changes: one record. The old files stay for those
    /// who read them, until [`Repository::reap`] removes them.
    pub fn replace_layers(
        &self,
        lock: &WriteLock,
        new: &[SealedLayer],
        old: &[(LayerId, u64)],
        mut ops: Vec<Op>,
    ) -> Result<(), RepoError> {
        // What was rewritten without a change has the same name.
        for (id, file_len) in old.iter().filter(|(id, _)| new.iter().all(|layer| layer.id != *id)) {
            ops.push(refs::forget_layer_op(id));
            ops.push(retired::put_op(&Retired { id: *id, since: clock::now(), file_len: *file_len }));
        }
        self.commit_as_is(lock, new, ops)?;
        if new.is_empty() { self.reload() } else { Ok(()) }
    }

    /// Removes the files of layers that were replaced longer than `grace` ago. Gives how many bytes they had.
    pub fn reap(&self, lock: &WriteLock, grace: Duration) -> Result<u64, RepoError> {
        let (retired, live) = {
            let state = self.journal.read();
            let retired = retired::list(&state)?;
            if retired.is_empty() {
                return Ok(0);
            }
            (retired, refs::layers(&state)?)
        };
        let now = clock::now();
        let is_due = |retired: &&Retired| {
            let age = now.saturating_sub(retired.since);
            // After the clock was set back they stay until it has caught up; without a grace time nobody waits for that.
            grace.is_zero() || age >= 0 && u128::from(age.unsigned_abs()) >= grace.as_nanos()
        };
        let (mut freed, mut ops) = (0, Vec::new());
        for retired in retired.iter().filter(is_due) {
            ops.push(retired::forget_op(&retired.id));
            if live.binary_search_by(|(layer, _)| layer.cmp(&retired.id)).is_err() {
                self.backend.delete(&file_name(&retired.id))?;
                freed += retired.file_len;
            }
        }
        if !ops.is_empty() {
            self.commit_as_is(lock, &[], ops)?;
        }
        Ok(freed)
    }

    /// Layer files that the journal does not name, and their lengths.
    pub fn strays(&self) -> Result<Vec<(String, u64)>, RepoError> {
        let state = self.journal.read();
        let mut known: Vec<LayerId> = refs::layers(&state)?.into_iter().map(|(id, _)| id).collect();
        known.extend(retired::list(&state)?.into_iter().map(|retired| retired.id));
        known.sort_unstable();
        let mut strays = Vec::new();
        for name in self.backend.list()? {
            let is_known = id_of_file(&name).is_some_and(|id| known.binary_search(&id).is_ok());
            if !is_known && id_of_file(&name).is_some() {
                strays.push((name.clone(), self.backend.open(&name)?.map_or(0, |blob| blob.len())));
            }
        }
        Ok(strays)
    }

    /// Starts a layer.
    pub fn new_layer(&self) -> Result<LayerWriter, StoreError> {
        self.new_layer_with(self.objects(), self.layer_options())
    }

    /// How layers are written here.
    pub fn layer_options(&self) -> LayerOptions {
        let Settings { block_len, level, .. } = self.settings;
        LayerOptions { block_len, level, version: self.manifest.version }
    }

    /// Starts a layer whose bases are places in `stored`.
    pub fn new_layer_with(&self, stored: Arc<ObjectStore>, options: LayerOptions) -> Result<LayerWriter, StoreError> {
        self.unsettled.store(true, Ordering::Relaxed);
        LayerWriter::new(Arc::clone(&self.backend), self.manifest.id, Arc::clone(&self.pools), stored, options)
    }

    /// Commits metadata, together with new layers: the one way in which the repository changes.
    pub fn commit(&self, lock: &WriteLock, layers: &[SealedLayer], mut ops: Vec<Op>) -> Result<(), RepoError> {
        if ops.iter().any(worktable::ends_base) {
            ops.push(worktable::forget_base_op(&Area::WorkTree));
        }
        self.commit_as_is(lock, layers, ops)
    }

    /// The same for operations that change only what staging knows of the looks of files.
    pub fn commit_looks(&self, lock: &WriteLock, ops: Vec<Op>) -> Result<(), RepoError> {
        self.commit_as_is(lock, &[], ops)
    }

    fn commit_as_is(&self, _lock: &WriteLock, layers: &[SealedLayer], mut ops: Vec<Op>) -> Result<(), RepoError> {
        ops.extend(layers.iter().map(SealedLayer::op));
        // A layer may come back while the file of its like waits to be removed.
        for layer in layers {
            ops.extend(retired::forget_again_op(&self.journal.read(), &layer.id)?);
        }
        let pending: Vec<u32> = ops.iter().filter_map(pending_put_by).collect();
        self.journal.commit(ops)?;
        *pool::lock(&self.commits.0) += 1;
        self.commits.1.notify_all();
        for number in pending {
            self.objects().add_pending(&self.journal.read(), number)?;
        }
        if !layers.is_empty() {
            self.reload()?;
            // The commit is done, and an index is only derived: if there is no room for one, a later commit makes it.
            // With merging, eight small layers become one first.
            let least = if self.settings.maintenance { 2 * LAYERS_PER_INDEX } else { LAYERS_PER_INDEX };
            if self.objects().index().maintain(self.objects().layers(), least).unwrap_or(false) {
                self.reload()?;
            }
            self.unsettled.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes what the repository is to its `format` file: another version of itself. This handle goes on with the old one.
    pub fn write_manifest(&self, _lock: &WriteLock, manifest: &Manifest) -> Result<(), RepoError> {
        let Some(dir) = self.dir.as_deref() else { return Ok(()) };
        let path = dir.path().join(FORMAT_FILE);
        Ok(write_atomic(dir, OsStr::new(FORMAT_FILE), init::FILE_MODE, manifest.encode().as_bytes())
            .on("write", path)?)
    }

    /// Waits until something is committed, by this handle or by another process; at most `timeout`.
    pub fn wait_for_commit(&self, timeout: Duration) -> Result<(), RepoError> {
        let before = pool::lock(&self.commits.0);
        let count = *before;
        let step = timeout.min(LOOK_EVERY);
        let waited = self.commits.1.wait_timeout_while(before, step, |now| *now == count);
        drop(waited);
        self.journal.catch_up()?;
        Ok(())
    }

    /// Moves what is pending into a layer, if there is much of it.
    pub fn settle_pending(&self, lock: &WriteLock) -> Result<(), RepoError> {
        if self.objects().pending().stored_bytes() <= MAX_PENDING_BYTES {
            return Ok(());
        }
        self.move_pending(lock, self.layer_options(), &|_| true)
    }

    /// Moves those of the pending objects that are to be kept into a layer, and takes all of them out of the journal.
    pub fn move_pending(
        &self,
        lock: &WriteLock,
        options: LayerOptions,
        keep: &dyn Fn(&ObjectId) -> bool,
    ) -> Result<(), RepoError> {
        let objects = self.objects();
        let (rows, ops) = (objects.pending().objects(), objects.pending().clear_ops());
        if rows.is_empty() {
            return Ok(());
        }
        let mut layer = self.new_layer_with(Arc::clone(&objects), options)?;
        for object in rows.into_iter().filter(|row| keep(&row.id)) {
            // What was committed since is in a layer already.
            if !objects.contains(&object.id)? {
                let located = Located { layer: PENDING_LAYER, object };
                let older = objects.pending().older(&object.id);
                let base = older.and_then(|older| self.old_block(&objects, &older, 0));
                layer.add(object.id, object.place.kind, &objects.read_at(&located)?, base)?;
            }
        }
        let layers = if layer.object_count() > 0 { vec![layer.seal()?] } else { Vec::new() };
        self.replace_layers(lock, &layers, &[], ops)
    }

    /// Opens the layers that the journal names now.
    fn reload(&self) -> Result<(), RepoError> {
        let objects =
            open_objects(&self.manifest, &self.settings, self.dir.as_ref(), &self.backend, &self.journal.read())?;
        *self.objects.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(objects);
        Ok(())
    }
}

fn open_objects(
    manifest: &Manifest,
    settings: &Settings,
    dir: Option<&Arc<dyn Dir>>,
    backend: &Arc<dyn Backend>,
    state: &State,
) -> Result<ObjectStore, RepoError> {
    let layers = LayerSet::new(Arc::clone(backend), manifest.id, refs::layers(state)?);
    let index_dir = match dir.map(|dir| dir.open_dir(OsStr::new(INDEX_DIR))) {
        // All of the index may be deleted, and a copy of the files alone has no empty folders. The next writer makes it again.
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
        opened => opened.transpose().on("open", INDEX_DIR)?,
    };
    let index = ChunkIndex::open(index_dir, &layers)?;
    Ok(ObjectStore::new(layers, index, Arc::new(BlockCache::new(settings.cache_len)), Pending::load(state)?))
}

fn read_manifest(dir: &dyn Dir) -> Result<Manifest, RepoError> {
    let path = dir.path().join(FORMAT_FILE);
    let file = match dir.open(OsStr::new(FORMAT_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RepoError::NotARepository { path: dir.path().to_path_buf() });
        }
        opened => opened.on("open", &path)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FORMAT_BYTES).read_to_end(&mut bytes).on("read", &path)?;
    Ok(Manifest::decode(&bytes).map_err(StoreError::format(FORMAT_FILE))?)
}

/// `inner` as a path below `outer`; `None` if it is not, or is the usual folder, which is left out anyway.
fn path_within(inner: &Path, outer: &Path) -> Option<RepoPath> {
    use std::os::unix::ffi::OsStrExt;
    let inner = inner.canonicalize().ok()?;
    let relative = inner.strip_prefix(outer.canonicalize().ok()?).ok()?;
    if relative == Path::new(CONTROL_DIR) {
        return None;
    }
    RepoPath::parse(relative.as_os_str().as_bytes()).ok().filter(|path| !path.is_root())
}

/// Is this on a file system that changes a folder's times with every name that comes or goes? Of others, such as those over
/// a network, one cannot be sure.
#[cfg(target_os = "linux")]
fn keeps_folder_times(path: &Path) -> bool {
    // From linux/magic.h: ext2 to ext4, XFS, btrfs, tmpfs, F2FS, overlayfs; and ZFS.
    const TRUSTED: [rustix::fs::FsWord; 7] =
        [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x794c_7630, 0x2fc1_2fc1];
    rustix::fs::statfs(path).is_ok_and(|found| TRUSTED.contains(&found.f_type))
}

/// Is this on a file system that changes a folder's times with every name that comes or goes? Here nobody has looked.
#[cfg(not(target_os = "linux"))]
fn keeps_folder_times(_: &Path) -> bool {
    false
}

/// Is `inner` the folder `outer` or in it?
fn is_at_or_below(inner: &Path, outer: &Path) -> bool {
    let (Ok(inner), Ok(outer)) = (inner.canonicalize(), outer.canonicalize()) else { return false };
    inner.starts_with(outer)
}

/// The nearest folder at or above `start` that holds a repository, and the repository's folder.
pub fn discover(start: &Path) -> Result<(PathBuf, PathBuf), RepoError> {
    let absolute = start.canonicalize().on("find", start)?;
    for folder in absolute.ancestors() {
        let control = folder.join(CONTROL_DIR);
        if control.join(FORMAT_FILE).is_file() {
            return Ok((folder.to_path_buf(), control));
        }
    }
    Err(RepoError::NotFound { start: absolute })
}

/// Opens folders by path.
pub fn open_at(control: &Path, work: &Path, settings: Settings) -> Result<Repository, RepoError> {
    let dir = match open_root(control) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(RepoError::NotARepository { path: control.to_path_buf() });
        }
        opened => opened.on("open", control)?,
    };
    Repository::open(dir, open_root(work).on("open", work)?, settings)
}
