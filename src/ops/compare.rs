//! Is a file on disk what is stored? Reads the file, stores nothing.

use std::borrow::Borrow;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::Result;
use super::scan::Pair;
use crate::base::disk::{Dir, FileKind, IoContext};
use crate::base::monitor::Monitor;
use crate::model::path::RepoPath;
use crate::model::recipe::Piece;
use crate::model::staging::StagedNode;
use crate::model::tree::Content;
use crate::repo::Repository;
use crate::store::StoreError;
use crate::store::objects::ObjectStore;
use crate::transform::chunker::is_zero;
use crate::transform::hash::chunk_id;
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::read;

/// Holes are compared in pieces of this size.
const HOLE_STEP: u64 = 1 << 20;

/// Does the regular file at `path` below `root` have exactly this content? Reads up to the first difference.
pub fn same_content(
    objects: &ObjectStore,
    root: &Arc<dyn Dir>,
    path: &RepoPath,
    content: &Content,
    len: u64,
) -> Result<bool> {
    let shown = || root.path().join(path.as_os_str());
    let dir = Folders::new(Arc::clone(root)).open_parent(path, IfAbsent::Fail).on("open", shown())?;
    let (file, stat) = read::open(dir.as_ref(), path).on("read", shown())?;
    if stat.len != len {
        return Ok(false);
    }
    let is_same = holds(objects, &file, content, len, &shown)?;
    Ok(is_same && read::is_same(&file, &stat).on("read", shown())?)
}

/// Does an open file of this length hold exactly this content? Reads up to the first difference.
pub fn holds(
    objects: &ObjectStore,
    file: &File,
    content: &Content,
    len: u64,
    shown: &dyn Fn() -> PathBuf,
) -> Result<bool> {
    let (mut at, mut buffer) = (0u64, Vec::new());
    // An unequal piece ends the visit through an error that never leaves this function.
    let mut differs = false;
    let visited = objects.pieces(content, len, &mut |piece| {
        let mut rest = piece.len();
        while rest > 0 {
            let step = if matches!(piece, Piece::Hole { .. }) { rest.min(HOLE_STEP) } else { rest };
            buffer.clear();
            read::append_range(file, at, step as usize, &mut buffer).on("read", shown())?;
            differs |= match piece {
                Piece::Chunk { id, .. } => chunk_id(&buffer) != id,
                Piece::Hole { .. } => !is_zero(&buffer),
            };
            if differs {
                return Err(StoreError::Internal("the contents differ".to_owned()));
            }
            at += step;
            rest -= step;
        }
        Ok(())
    });
    match visited {
        _ if differs => Ok(false),
        Ok(()) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// How a tracked path differs from what is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkChange {
    /// It is not.
    Same,
    /// Other content.
    Modified,
    /// Other permission bits, same content.
    Mode,
    /// Another kind of file.
    Type,
    /// Gone from disk.
    Deleted,
    /// On disk, not tracked.
    Untracked,
    /// It could not be read.
    Unreadable,
}

/// Compares pairs whose looks do not settle it, in parallel.
pub fn work_changes<P: Borrow<Pair> + Sync>(repo: &Repository, pairs: &[P], monitor: &dyn Monitor) -> Vec<WorkChange> {
    if pairs.is_empty() {
        // An unchanged tree needs no threads to compare with.
        return Vec::new();
    }
    let objects = repo.objects();
    repo.pools().cpu().install(|| {
        let compared =
            pairs.par_iter().with_max_len(1).map(Borrow::borrow).map(|pair| match work_change(&objects, repo, pair) {
                Ok(change) => change,
                Err(error) => {
                    monitor.problem(&format!("cannot compare {}: {error}", pair.path));
                    WorkChange::Unreadable
                }
            });
        compared.collect()
    })
}

fn work_change(objects: &ObjectStore, repo: &Repository, pair: &Pair) -> Result<WorkChange> {
    let (staged, disk) = match (&pair.staged, &pair.disk) {
        (Some(staged), Some(disk)) => (staged, disk),
        (Some(_), None) => return Ok(WorkChange::Deleted),
        (None, Some(_)) => return Ok(WorkChange::Untracked),
        (None, None) => return Ok(WorkChange::Same),
    };
    if pair.looks_unchanged() {
        return Ok(WorkChange::Same);
    }
    if staged.node.kind() != Some(disk.kind) {
        return Ok(WorkChange::Type);
    }
    let same = match &staged.node {
        // Lengths differ: nothing needs to be read.
        StagedNode::File { len, .. } if *len != disk.len => false,
        StagedNode::File { len, content } => same_content(objects, repo.work(), &pair.path, content, *len)?,
        StagedNode::Symlink { target } => {
            let shown = || repo.work().path().join(pair.path.as_os_str());
            Folders::new(Arc::clone(repo.work())).read_link(&pair.path).on("read", shown())? == *target
        }
        StagedNode::Dir | StagedNode::Deleted => true,
    };
    Ok(match (same, disk.kind) {
        (false, _) => WorkChange::Modified,
        (true, FileKind::File | FileKind::Dir) if staged.meta.mode != disk.mode => WorkChange::Mode,
        (true, _) => WorkChange::Same,
    })
}
