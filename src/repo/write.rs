//! How a repository changes: layers come and go, and one record says so.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{FORMAT_FILE, INDEX_DIR, JOURNAL_DIR, LOOK_EVERY, RepoError, Repository, Settings, WriteLock, init};
use crate::base::clock::{self, UnixNanos};
use crate::base::disk::{Dir, IoContext, ensure_dir, remove_leftovers, write_atomic};
use crate::base::meter::Stage;
use crate::base::pool;
use crate::format::journal::Op;
use crate::format::manifest::Manifest;
use crate::model::checkpoint::Area;
use crate::model::id::{LayerId, ObjectId};
use crate::store::index::{LAYERS_PER_INDEX, Located};
use crate::store::journal::Batch;
use crate::store::layer_reader::{file_name, id_of_file};
use crate::store::layer_writer::{LayerOptions, LayerWriter, SealedLayer};
use crate::store::objects::ObjectStore;
use crate::store::pending::{MAX_PENDING_BYTES, PENDING_LAYER, pending_put_by};
use crate::store::retired::{self, Retired};
use crate::store::{StoreError, refs, worktable};

/// How often the list of replaced layers is gone through within the time that their files stay.
const REAPS_PER_GRACE: i64 = 8;

impl Repository {
    /// Removes temporary files, and layers that no journal record names. The lock holder knows that nobody writes them.
    pub(super) fn reclaim(&self, dir: &dyn Dir) -> Result<(), RepoError> {
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
        let since = clock::now();
        for (id, file_len) in old.iter().filter(|(id, _)| new.iter().all(|layer| layer.id != *id)) {
            ops.push(refs::forget_layer_op(id));
            ops.push(retired::put_op(&Retired { id: *id, since, file_len: *file_len }));
        }
        if !old.is_empty() && retired::oldest(&self.journal.read())?.is_none() {
            ops.push(retired::oldest_op(Some(since)));
        }
        self.commit_as_is(lock, new, ops.into())?;
        if new.is_empty() { self.reload() } else { Ok(()) }
    }

    /// Removes the files of layers that were replaced longer than `grace` ago. Gives how many bytes they had.
    ///
    /// They are many where commits are quick, and their list is not gone through with each of them: a file may stay longer by
    /// an eighth of the time.
    pub fn reap(&self, lock: &WriteLock, grace: Duration) -> Result<u64, RepoError> {
        let grace = i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX);
        let now = clock::now();
        // After the clock was set back they stay until it has caught up; without a grace time nobody waits for that.
        let is_due = |since: UnixNanos| grace == 0 || now.saturating_sub(since) >= grace;
        let (due, later, live) = {
            let state = self.journal.read();
            if retired::oldest(&state)?.is_some_and(|oldest| !is_due(oldest)) {
                return Ok(0);
            }
            let retired = retired::list(&state)?;
            if retired.is_empty() {
                return Ok(0);
            }
            let (due, later): (Vec<_>, Vec<_>) = retired.into_iter().partition(|retired| is_due(retired.since));
            (due, later, refs::layers(&state)?)
        };
        let oldest = later.iter().map(|retired| retired.since).min();
        let soon = now.saturating_sub(grace - grace / REAPS_PER_GRACE);
        let (mut freed, mut ops) = (0, vec![retired::oldest_op(oldest.map(|oldest| oldest.max(soon)))]);
        for retired in &due {
            ops.push(retired::forget_op(&retired.id));
            if live.binary_search_by(|(layer, _)| layer.cmp(&retired.id)).is_err() {
                self.backend.delete(&file_name(&retired.id))?;
                freed += retired.file_len;
            }
        }
        self.commit_as_is(lock, &[], ops.into())?;
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

    /// Changes to be committed together, of which no more are in memory than the settings say.
    pub fn batch(&self) -> Batch {
        self.journal.batch(self.settings.paths_at_once)
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
        self.unsettle();
        LayerWriter::new(Arc::clone(&self.backend), self.manifest.id, Arc::clone(&self.pools), stored, options)
    }

    /// Commits metadata, together with new layers: the one way in which the repository changes.
    pub fn commit(&self, lock: &WriteLock, layers: &[SealedLayer], ops: impl Into<Batch>) -> Result<(), RepoError> {
        let mut ops = ops.into();
        if worktable::ends_base(&ops) {
            ops.push(worktable::forget_base_op(&Area::WorkTree));
        }
        self.commit_as_is(lock, layers, ops)
    }

    /// The same for operations that change only what staging knows of the looks of files.
    pub fn commit_looks(&self, lock: &WriteLock, ops: Batch) -> Result<(), RepoError> {
        self.commit_as_is(lock, &[], ops)
    }

    fn commit_as_is(&self, _lock: &WriteLock, layers: &[SealedLayer], mut ops: Batch) -> Result<(), RepoError> {
        ops.extend(layers.iter().map(SealedLayer::op));
        // A layer may come back while the file of its like waits to be removed.
        for layer in layers {
            ops.extend(retired::forget_again_op(&self.journal.read(), &layer.id)?);
        }
        let pending: Vec<u32> = ops.ops().iter().filter_map(pending_put_by).collect();
        {
            let _busy = self.pools.meter().time(Stage::Commit);
            // What it may have left is looked for when the lock is taken again.
            self.journal.commit(ops).inspect_err(|_| self.unsettle())?;
        }
        for number in pending {
            self.objects().add_pending(&self.journal.read(), number)?;
        }
        if !layers.is_empty() {
            self.reload()?;
            // The commit is done, and an index is only derived: if there is no room for one, a later commit makes it.
            // With merging, eight small layers become one first.
            let least = if self.settings.maintenance { 2 * LAYERS_PER_INDEX } else { LAYERS_PER_INDEX };
            let maintained = self.objects().index().maintain(self.objects().layers(), least);
            if let Ok(true) = maintained {
                self.reload()?;
            }
            if maintained.is_err() {
                self.unsettle();
            }
            // Others may still be written.
            let settled = layers.len() as u64;
            let less = |unsettled: u64| Some(unsettled.saturating_sub(settled));
            let _ = self.unsettled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
        self.objects_lsn.store(self.journal.read().lsn(), Ordering::Relaxed);
        // Who waits for a commit may read at once what came with it.
        *pool::lock(&self.commits.0) += 1;
        self.commits.1.notify_all();
        Ok(())
    }

    /// Writes what the repository is to its `format` file: another version of itself. This handle goes on with the old one.
    pub fn write_manifest(&self, _lock: &WriteLock, manifest: &Manifest) -> Result<(), RepoError> {
        let Some(dir) = self.dir.as_deref() else { return Ok(()) };
        let path = dir.path().join(FORMAT_FILE);
        Ok(write_atomic(dir, OsStr::new(FORMAT_FILE), init::FILE_MODE, manifest.encode().as_bytes())
            .on("write", path)?)
    }

    /// Waits until something is committed by this handle, or until it is time to look for commits of other processes, or for
    /// `timeout`; and takes in what they committed.
    pub fn wait_for_commit(&self, timeout: Duration) -> Result<(), RepoError> {
        let before = pool::lock(&self.commits.0);
        let count = *before;
        let step = timeout.min(LOOK_EVERY);
        let waited = self.commits.1.wait_timeout_while(before, step, |now| *now == count);
        drop(waited);
        self.catch_up()?;
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
}
