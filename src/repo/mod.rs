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
mod write;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use data_encoding::HEXLOWER;

use crate::base::disk::lock::{Before, Lock, LockFailure, LockFile};
use crate::base::disk::{Dir, IoContext, open_root};
use crate::base::memo::Memo;
use crate::base::memory;
use crate::base::metrics::Metrics;
use crate::base::pool::Pools;
use crate::format::layer;
use crate::format::manifest::Manifest;
use crate::model::checkpoint::{Listed, Query};
use crate::model::id::ObjectId;
use crate::model::path::{CONTROL_DIR, RepoPath};
use crate::store::backend::{Backend, LocalBackend, MemoryBackend};
use crate::store::cache::BlockCache;
use crate::store::index::ChunkIndex;
use crate::store::journal::{Durability, Journal, State};
use crate::store::layers::LayerSet;
use crate::store::objects::{ObjectStore, OldBlock};
use crate::store::pending::Pending;
use crate::store::{StoreError, refs};
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
    /// The last batch of the journal that `objects` knows of.
    objects_lsn: AtomicU64,
    trusts_folder_times: bool,
    metrics: Metrics,
    last_list: Memo<Query, Listed>,
    commits: (Mutex<u64>, Condvar),
    lock_file: Arc<LockFile>,
    /// Layers that were begun and that no commit is known to have taken in: the next lock looks at the disk again.
    unsettled: AtomicU64,
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
        let backend = Arc::new(LocalBackend::new(sub(LAYERS_DIR)?, settings.write_len, settings.map_from));
        let journal = sub(JOURNAL_DIR).map_err(|error| match error.source.kind() {
            io::ErrorKind::NotFound => StoreError::JournalDamaged("its folder is missing".to_owned()).into(),
            _ => RepoError::from(error),
        })?;
        let journal = Journal::open(Some(journal), manifest.id, settings.durability)?;
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
        let cache = Arc::new(BlockCache::new(settings.cache_len, Arc::clone(pools.meter())));
        let (objects, lsn) = {
            let state = journal.read();
            (open_objects(&manifest, cache, dir.as_ref(), &backend, &state)?, state.lsn())
        };
        let (objects, objects_lsn) = (RwLock::new(Arc::new(objects)), AtomicU64::new(lsn));
        let mark = format!("{}-{}", std::process::id(), HEXLOWER.encode(&init::random_id()?));
        let lock_file = LockFile::new(OsStr::new(LOCK_FILE), mark);
        let unsettled = AtomicU64::new(0);
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
            objects_lsn,
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

    /// Gives back memory that is free, and pages of files that were read: between parts of work that does not fit otherwise.
    pub fn give_back(&self) {
        let objects = self.objects();
        objects.layers().pass_all();
        objects.index().pass_all();
        self.journal.read().pass_all();
        memory::give_back();
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
        let unsettled = self.unsettled.load(Ordering::Relaxed) > 0;
        if let Some(dir) = dir.filter(|_| lock.before() != Before::Ourselves || unsettled) {
            self.journal.refresh()?;
            let found = read_manifest(dir)?.version;
            if found != self.manifest.version {
                return Err(RepoError::Migrated { found, opened: self.manifest.version });
            }
            // Tools that copy files only leave out an index folder that is empty; cleaning up makes it again.
            let has_index = self.objects().index().has_dir();
            if lock.before() == Before::Unknown || unsettled || !has_index {
                self.reclaim(dir)?;
                self.unsettled.store(0, Ordering::Relaxed);
            }
            if unsettled || self.is_behind() || !has_index {
                self.reload()?;
            }
            lock.settle();
        }
        Ok(WriteLock { _lock: lock })
    }

    /// Takes the lock and removes what dead processes left, even if all that held it say that they left nothing.
    pub fn lock_and_reclaim(&self, verb: &str) -> Result<WriteLock, RepoError> {
        self.unsettle();
        self.lock(verb)
    }

    /// From now on there may be a file that nothing refers to.
    fn unsettle(&self) {
        self.unsettled.fetch_add(1, Ordering::Relaxed);
    }

    /// Says to whoever takes the lock next that nothing needs to be cleaned away. To be called last.
    fn leave_clean(&self) {
        if self.unsettled.load(Ordering::Relaxed) == 0 && !self.journal.is_poisoned() {
            self.lock_file.leave_clean();
        }
    }

    /// Takes in what other processes committed, for a handle that goes on reading. Says whether anything changed.
    pub fn catch_up(&self) -> Result<bool, RepoError> {
        self.journal.catch_up()?;
        let is_behind = self.is_behind();
        if is_behind {
            self.reload()?;
        }
        Ok(is_behind)
    }

    /// Is something in the journal that the objects at hand do not know of? It was read without them, or they could not be opened.
    fn is_behind(&self) -> bool {
        self.journal.read().lsn() != self.objects_lsn.load(Ordering::Relaxed)
    }

    /// Opens the layers that the journal names now.
    fn reload(&self) -> Result<(), RepoError> {
        let cache = Arc::new(BlockCache::new(self.settings.cache_len, Arc::clone(self.pools.meter())));
        let state = self.journal.read();
        let objects = open_objects(&self.manifest, cache, self.dir.as_ref(), &self.backend, &state)?;
        *self.objects.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(objects);
        self.objects_lsn.store(state.lsn(), Ordering::Relaxed);
        Ok(())
    }
}

fn open_objects(
    manifest: &Manifest,
    cache: Arc<BlockCache>,
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
    Ok(ObjectStore::new(layers, index, cache, Pending::load(state)?))
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
