//! A journal made anew from what can be read of the old one and from the layers, for when it does not open.
//!
//! Layers say which commits there are. What only the journal knew and can no longer be read is lost: names of branches and
//! tags, staging, sessions, checkpoints. The old files are set aside, not removed.

use std::ffi::OsStr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use super::error::RepoError;
use super::{INDEX_DIR, JOURNAL_DIR, LAYERS_DIR, LOCK_FILE, Settings, read_manifest};
use crate::base::disk::lock::{LockFailure, LockFile};
use crate::base::disk::{Dir, IoContext};
use crate::format::RepoId;
use crate::format::journal::Op;
use crate::format::staging::LayerRecord;
use crate::model::commit::Commit;
use crate::model::id::{CommitId, LayerId, ObjectKind};
use crate::model::path::RepoPath;
use crate::model::refs::{DEFAULT_BRANCH, Head, RefName};
use crate::model::staging::{SeenStat, StagedEntry, StagedNode};
use crate::model::tree::{Entry, Node};
use crate::repo::trees;
use crate::store::backend::{Backend, LocalBackend};
use crate::store::cache::BlockCache;
use crate::store::index::ChunkIndex;
use crate::store::journal::{self, Durability, Journal, State};
use crate::store::layer_reader::{LayerReader, file_name, id_of_file};
use crate::store::layers::LayerSet;
use crate::store::objects::ObjectStore;
use crate::store::pending::Pending;
use crate::store::refs::{self, RefKind};
use crate::store::{StoreError, retired, staging};

/// Branches of commits to which no name leads begin like this; the short id of the commit follows.
const RECOVERED: &str = "recovered-";

/// What was found and made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Keys that could be read of the old journal.
    pub salvaged_keys: u64,
    /// Layers that the old journal did not name, as far as it could be read.
    pub layers_found: u64,
    /// Branches made for commits that no name leads to.
    pub branches: Vec<String>,
}

/// Makes the journal of the repository in `dir` anew, under the lock. Does nothing to one that opens after all.
pub fn rebuild(dir: &Arc<dyn Dir>, settings: &Settings) -> Result<Option<Rebuilt>, RepoError> {
    let manifest = read_manifest(dir.as_ref())?;
    let lock_file = Arc::new(LockFile::new(OsStr::new(LOCK_FILE), format!("repair-{}", std::process::id())));
    let note = format!("digstore fsck --repair, process {}", std::process::id());
    let _lock =
        lock_file.acquire(Some(dir.as_ref()), &note, settings.lock_patience).map_err(|failure| match failure {
            LockFailure::Held(holder) => RepoError::Locked { holder, waited: settings.lock_patience },
            LockFailure::Io(source) => {
                crate::base::disk::DiskError { action: "lock", path: dir.path().to_path_buf(), source }.into()
            }
        })?;
    let sub = |name: &str| {
        crate::base::disk::ensure_dir(dir.as_ref(), OsStr::new(name), super::init::DIR_MODE)
            .on("open", dir.path().join(name))
    };
    let (journal_dir, layers_dir) = (sub(JOURNAL_DIR)?, sub(LAYERS_DIR)?);
    sub(INDEX_DIR)?;
    if Journal::open(Some(Arc::clone(&journal_dir)), manifest.id, Durability::Strict).is_ok() {
        // What was wrong was wrong for a moment only, or somebody else has mended it.
        return Ok(None);
    }
    let state = journal::salvage(journal_dir.as_ref(), &manifest.id)?;
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(layers_dir, settings.write_len, settings.map_from));
    let mut outcome = Rebuilt { salvaged_keys: count(&state)?, ..Rebuilt::default() };
    let (layers, mut ops) = find_layers(&backend, &manifest.id, &state)?;
    outcome.layers_found = ops.len() as u64;
    let set = LayerSet::new(backend, manifest.id, layers);
    let index = ChunkIndex::open(None, &set)?;
    let cache = Arc::new(BlockCache::new(settings.cache_len, Arc::default()));
    let objects = Arc::new(ObjectStore::new(set, index, cache, Pending::load(&state)?));
    name_commits(&objects, &state, &mut ops, &mut outcome)?;
    complete_staging(&objects, &state, &mut ops)?;
    journal::rewrite(journal_dir.as_ref(), &manifest.id, &state, &ops.into())?;
    Ok(Some(outcome))
}

fn count(state: &State) -> Result<u64, StoreError> {
    let mut scan = state.scan(b"")?;
    let mut keys = 0;
    while scan.next()?.is_some() {
        keys += 1;
    }
    Ok(keys)
}

/// All sound layers, and the operations that name those which the journal does not.
fn find_layers(
    backend: &Arc<dyn Backend>,
    repo: &RepoId,
    state: &State,
) -> Result<(Vec<(LayerId, LayerRecord)>, Vec<Op>), RepoError> {
    let mut layers = refs::layers(state)?;
    let mut known: HashSet<LayerId> = layers.iter().map(|(id, _)| *id).collect();
    known.extend(retired::list(state)?.into_iter().map(|retired| retired.id));
    let mut ops = Vec::new();
    for id in backend.list()?.iter().filter_map(|name| id_of_file(name)).filter(|id| !known.contains(id)) {
        let sound = LayerReader::open(backend.as_ref(), repo, id).and_then(|reader| {
            reader.tables()?.verify().map_err(|source| reader.wrong(source))?;
            Ok(reader)
        });
        match sound {
            Ok(reader) => {
                let record = reader.record();
                ops.push(refs::layer_op(&id, &record));
                layers.push((id, record));
            }
            Err(StoreError::Disk(error)) => return Err(error.into()),
            // No journal names it and it cannot be read: without this, the next writer would remove it as a leftover.
            Err(_) => drop(backend.set_aside(&file_name(&id))?),
        }
    }
    layers.sort_unstable_by_key(|(id, _)| *id);
    Ok((layers, ops))
}

/// Gives names to commits that none leads to.
fn name_commits(
    objects: &Arc<ObjectStore>,
    state: &State,
    ops: &mut Vec<Op>,
    outcome: &mut Rebuilt,
) -> Result<(), RepoError> {
    let commits = all_commits(objects)?;
    let mut reached = HashSet::new();
    let mut waiting = refs::tips(state)?;
    let has_names = !waiting.is_empty();
    while let Some(id) = waiting.pop() {
        if reached.insert(id) {
            waiting.extend(commits.get(&id).into_iter().flat_map(|commit| commit.parents.iter().copied()));
        }
    }
    let parents: HashSet<CommitId> = commits.values().flat_map(|commit| commit.parents.iter().copied()).collect();
    let is_lost_head = |id: &&CommitId| !reached.contains(*id) && !parents.contains(*id);
    let mut heads: Vec<CommitId> = commits.keys().filter(is_lost_head).copied().collect();
    heads.sort_unstable_by_key(|id| (commits.get(id).map(|commit| std::cmp::Reverse(commit.time_ns)), *id));
    for (place, id) in heads.iter().enumerate() {
        let is_main = place == 0 && !has_names;
        let name = if is_main { DEFAULT_BRANCH.to_owned() } else { format!("{RECOVERED}{}", id.short()) };
        let name = RefName::parse(&name).map_err(|error| StoreError::Internal(error.to_string()))?;
        ops.push(refs::set_op(RefKind::Branch, &name, id));
        if is_main {
            ops.push(refs::head_op(&Head::Branch(name.clone())));
            let generation = commits.len() as u64;
            ops.push(refs::generation_op(generation));
            stage(objects, id, generation, &|_, _| Ok(false), ops)?;
        }
        outcome.branches.push(name.to_string());
    }
    Ok(())
}

fn all_commits(objects: &ObjectStore) -> Result<HashMap<CommitId, Commit>, RepoError> {
    let mut commits = HashMap::new();
    for number in 0..objects.layers().layers().len() as u32 {
        // A layer that is named and cannot be read is for the check that follows.
        let Ok(rows) = objects.layers().reader(number).and_then(|reader| reader.stored_objects()) else { continue };
        for row in rows.into_iter().filter(|row| row.place.kind == ObjectKind::Commit) {
            let id = CommitId::from_digest(*row.id.digest());
            if let Ok(commit) = objects.commit(&id) {
                commits.insert(id, commit);
            }
        }
    }
    Ok(commits)
}

/// Stages anew what HEAD has and staging has lost: what is in no list of tracked paths would never be missed.
fn complete_staging(objects: &Arc<ObjectStore>, state: &State, ops: &mut Vec<Op>) -> Result<(), RepoError> {
    let Some(head) = refs::head_commit(state)? else { return Ok(()) };
    let generation = refs::generation(state)?;
    let is_known = |path: &RepoPath, node: &StagedNode| {
        let entry = staging::get(state, path)?;
        Ok(entry.is_some_and(|entry| entry.generation > generation || entry.node == *node))
    };
    stage(objects, &head, generation, &is_known, ops)
}

/// Staging as it is after a checkout of a commit, but for what is known; nothing is known of the looks of files.
fn stage(
    objects: &Arc<ObjectStore>,
    id: &CommitId,
    generation: u64,
    is_known: &dyn Fn(&RepoPath, &StagedNode) -> Result<bool, StoreError>,
    ops: &mut Vec<Op>,
) -> Result<(), RepoError> {
    let Ok(root) = objects.commit(id).and_then(|commit| objects.tree(&commit.tree)) else { return Ok(()) };
    for entry in trees::Entries::new(Arc::clone(objects), root) {
        let (path, Entry { meta, node, .. }) = match entry {
            Ok(entry) => entry,
            Err(RepoError::Disk(error)) => return Err(error.into()),
            // What cannot be read of the tree is not staged; the check that follows says what it is.
            Err(_) => return Ok(()),
        };
        let node = match node {
            Node::Dir { .. } => StagedNode::Dir,
            Node::Symlink { target } => StagedNode::Symlink { target },
            Node::File { len, content } => StagedNode::File { len, content },
        };
        if is_known(&path, &node)? {
            continue;
        }
        let staged = StagedEntry { node, meta, seen: SeenStat::default(), racy: true, generation };
        ops.push(staging::put_op(&path, &staged));
    }
    Ok(())
}
