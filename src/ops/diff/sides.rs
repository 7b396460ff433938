//! The two states as lists in tree order, and what differs between them.

use std::io;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rayon::prelude::*;

use super::{Options, Side};
use crate::base::disk::{FileKind, Stat};
use crate::base::kind::ErrorKind;
use crate::base::monitor::Monitor;
use crate::model::checkpoint::Area;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{StagedEntry, StagedNode};
use crate::model::tree::{Content, Entry, Node, Tree};
use crate::ops::compare::same_content;
use crate::ops::scan::walk_tree;
use crate::ops::{Error, Result};
use crate::repo::resolve::Point;
use crate::repo::{Repository, trees};
use crate::store::{refs, staging, worktable};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::walk::WalkEntry;

/// What is at a path in one of the states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub node: VersionNode,
}

/// What kind of thing is at a path, and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionNode {
    /// A file whose bytes are stored.
    File {
        /// Length in bytes.
        len: u64,
        /// The stored bytes.
        content: Content,
    },
    /// A file of the work tree whose bytes are not known to be stored.
    OnDisk {
        /// Length in bytes.
        len: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A directory.
    Dir,
}

impl VersionNode {
    /// Is it a regular file, wherever its bytes are?
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File { .. } | Self::OnDisk { .. })
    }

    /// Length of a file or of a link's target.
    pub fn len_bytes(&self) -> Option<u64> {
        match self {
            Self::File { len, .. } | Self::OnDisk { len } => Some(*len),
            Self::Symlink { target } => Some(target.len() as u64),
            Self::Dir => None,
        }
    }

    /// The same kind of thing?
    pub fn same_type(&self, other: &Self) -> bool {
        (self.is_file() && other.is_file()) || std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl VersionInfo {
    /// Times aside, and the mode of links, which they do not really have.
    pub fn same_version(&self, other: &Self) -> bool {
        self.node == other.node && (self.mode == other.mode || matches!(self.node, VersionNode::Symlink { .. }))
    }
}

impl From<&Entry> for VersionInfo {
    fn from(entry: &Entry) -> Self {
        let node = match &entry.node {
            Node::File { len, content } => VersionNode::File { len: *len, content: *content },
            Node::Symlink { target } => VersionNode::Symlink { target: target.clone() },
            Node::Dir { .. } => VersionNode::Dir,
        };
        Self { mode: entry.meta.mode, node }
    }
}

/// A staged path as a version; `None` for a deletion.
fn of_staged(entry: &StagedEntry) -> Option<VersionInfo> {
    let node = match &entry.node {
        StagedNode::File { len, content } => VersionNode::File { len: *len, content: *content },
        StagedNode::Symlink { target } => VersionNode::Symlink { target: target.clone() },
        StagedNode::Dir => VersionNode::Dir,
        StagedNode::Deleted => return None,
    };
    Some(VersionInfo { mode: entry.meta.mode, node })
}

/// A path whose version is not the same in both states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Where.
    pub path: RepoPath,
    /// What was there.
    pub old: Option<VersionInfo>,
    /// What is there now.
    pub new: Option<VersionInfo>,
}

type Listing = Vec<(RepoPath, VersionInfo)>;

/// A side whose name was looked up.
enum State {
    Stored(Option<Point>),
    Staging,
    WorkTree,
    Disk,
}

fn state_of(repo: &Repository, side: &Side) -> Result<State> {
    Ok(match side {
        Side::Revision(revision) => State::Stored(Some(repo.resolve_point(revision)?)),
        Side::Commit(id) => State::Stored(Some(Point::Commit(*id))),
        Side::Empty => State::Stored(None),
        Side::Staging => State::Staging,
        Side::WorkTree => State::WorkTree,
        Side::Disk => State::Disk,
    })
}

/// What differs, in tree order, settled: files on disk that look changed were read.
pub fn changes(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Vec<FileChange>> {
    let (old, new) = (state_of(repo, &options.old)?, state_of(repo, &options.new)?);
    let scopes = Scopes::or_everything(&options.paths);
    let mut found = match (&old, &new) {
        (State::Stored(old), State::Stored(new)) => between_trees(repo, old.as_ref(), new.as_ref())?,
        (State::Stored(old), State::Staging) if *old == repo.head_commit()?.map(Point::Commit) => staged(repo)?,
        _ => join(list(repo, &old, &scopes, monitor)?, list(repo, &new, &scopes, monitor)?),
    };
    found.retain(|change| scopes.contains(&change.path));
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    let settled = repo
        .pools()
        .cpu()
        .install(|| found.into_par_iter().map(|change| settle(repo, change, monitor)).collect::<Result<Vec<_>>>())?;
    Ok(without_obvious_folders(settled.into_iter().flatten().collect()))
}

fn tree(repo: &Repository, point: Option<&Point>) -> Result<Arc<Tree>> {
    Ok(point.map_or_else(|| Ok(Arc::default()), |point| repo.tree_of(point))?)
}

fn between_trees(repo: &Repository, old: Option<&Point>, new: Option<&Point>) -> Result<Vec<FileChange>> {
    let changes = trees::diff(&repo.objects(), tree(repo, old)?.as_ref(), tree(repo, new)?.as_ref())?;
    let version = |entry: &Option<Entry>| entry.as_ref().map(VersionInfo::from);
    let changes = changes.into_iter();
    Ok(changes
        .map(|change| FileChange { old: version(&change.old), new: version(&change.new), path: change.path })
        .collect())
}

/// HEAD against staging: everything that is not staged is as in HEAD, so only the rest is looked up.
fn staged(repo: &Repository) -> Result<Vec<FileChange>> {
    let root = repo.root_tree(repo.head_commit()?.as_ref())?;
    let objects = repo.objects();
    let state = repo.journal().read();
    let generation = refs::generation(&state)?;
    let mut entries = staging::entries(&state)?;
    let mut found = Vec::new();
    while let Some((path, entry)) = entries.next()? {
        if entry.generation <= generation {
            continue;
        }
        let old = trees::lookup(&objects, &root, &path)?.as_ref().map(VersionInfo::from);
        found.extend(compare(path, old, of_staged(&entry)));
    }
    Ok(found)
}

fn compare(path: RepoPath, old: Option<VersionInfo>, new: Option<VersionInfo>) -> Option<FileChange> {
    let same = match (&old, &new) {
        (Some(old), Some(new)) => old.same_version(new),
        (None, None) => true,
        _ => false,
    };
    (!same).then_some(FileChange { path, old, new })
}

fn list(repo: &Repository, state: &State, scopes: &Scopes, monitor: &dyn Monitor) -> Result<Listing> {
    match state {
        State::Stored(point) => {
            let mut listing = Vec::new();
            let root = tree(repo, point.as_ref())?;
            for entry in trees::Entries::new(repo.objects(), root) {
                let (path, entry) = entry?;
                listing.push((path, VersionInfo::from(&entry)));
            }
            Ok(listing)
        }
        State::Staging => {
            let state = repo.journal().read();
            let mut entries = staging::entries(&state)?;
            let mut listing = Vec::new();
            while let Some((path, entry)) = entries.next()? {
                listing.extend(of_staged(&entry).map(|version| (path, version)));
            }
            Ok(listing)
        }
        State::WorkTree => list_work(repo, scopes, monitor),
        State::Disk => list_disk(repo, scopes, monitor),
    }
}

/// Tracked paths as they are on disk. What looks as when it was last read keeps its stored content.
fn list_work(repo: &Repository, scopes: &Scopes, monitor: &dyn Monitor) -> Result<Listing> {
    let state = repo.journal().read();
    let walked = walk_tree(repo, &state, scopes, monitor)?;
    walked.problems.iter().for_each(|problem| monitor.problem(problem));
    let unreadable = Scopes::new(&walked.unreadable);
    let mut on_disk = walked.entries.iter().peekable();
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let mut entries = staging::entries(&state)?;
    let mut listing = Vec::new();
    while let Some((path, entry)) = entries.next()? {
        let Some(version) = of_staged(&entry) else { continue };
        while on_disk.next_if(|found| found.path < path).is_some() {}
        let stat = on_disk.next_if(|found| found.path == path).map(|found| found.stat);
        let version = match stat {
            Some(stat) if entry.is_unchanged(&stat) => Some(version),
            Some(stat) => look(&mut folders, &path, &stat, monitor),
            // Not known to be gone.
            None if unreadable.contains(&path) => Some(version),
            None => None,
        };
        listing.extend(version.map(|version| (path, version)));
    }
    Ok(listing)
}

/// Everything on disk that a checkpoint would hold, tracked or not.
fn list_disk(repo: &Repository, scopes: &Scopes, monitor: &dyn Monitor) -> Result<Listing> {
    let state = repo.journal().read();
    let walked = walk_tree(repo, &state, scopes, monitor)?;
    walked.problems.iter().for_each(|problem| monitor.problem(problem));
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let mut listing = Vec::new();
    for WalkEntry { path, stat } in walked.entries {
        let known = worktable::known(&state, &Area::WorkTree, &path)?;
        let version = match known.filter(|entry| entry.is_unchanged(&stat)) {
            Some(entry) => of_staged(&entry),
            None => look(&mut folders, &path, &stat, monitor),
        };
        listing.extend(version.map(|version| (path, version)));
    }
    Ok(listing)
}

/// What is on disk, its bytes not yet read.
fn look(folders: &mut Folders, path: &RepoPath, stat: &Stat, monitor: &dyn Monitor) -> Option<VersionInfo> {
    let node = match stat.kind {
        FileKind::File => VersionNode::OnDisk { len: stat.len },
        FileKind::Dir => VersionNode::Dir,
        FileKind::Other => return None,
        FileKind::Symlink => {
            let name = std::ffi::OsStr::from_bytes(path.file_name());
            match folders.open_parent(path, IfAbsent::Fail).and_then(|dir| dir.read_link(name)) {
                Ok(target) => VersionNode::Symlink { target: target.as_bytes().to_vec() },
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => {
                    monitor.problem(&format!("cannot read the link {path}: {error}"));
                    return None;
                }
            }
        }
    };
    Some(VersionInfo { mode: stat.mode, node })
}

/// Goes through two lists in step.
fn join(old: Listing, new: Listing) -> Vec<FileChange> {
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    let mut found = Vec::new();
    loop {
        let path = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) => a.min(b).clone(),
            (Some((path, _)), None) | (None, Some((path, _))) => path.clone(),
            (None, None) => return found,
        };
        let (a, b) = (take(&mut old, &path), take(&mut new, &path));
        found.extend(compare(path, a, b));
    }
}

fn take(list: &mut Peekable<std::vec::IntoIter<(RepoPath, VersionInfo)>>, path: &RepoPath) -> Option<VersionInfo> {
    list.next_if(|(candidate, _)| candidate == path).map(|(_, version)| version)
}

/// Reads a file on disk that has the length of its stored version: only its bytes tell whether it changed.
fn settle(repo: &Repository, mut change: FileChange, monitor: &dyn Monitor) -> Result<Option<FileChange>> {
    let (Some(old), Some(new)) = (&change.old, &mut change.new) else { return Ok(Some(change)) };
    let (VersionNode::File { len, content }, VersionNode::OnDisk { len: found }) = (&old.node, &new.node) else {
        return Ok(Some(change));
    };
    if len != found || monitor.cancelled() {
        return Ok(Some(change));
    }
    match same_content(&repo.objects(), repo.work(), &change.path, content, *len) {
        Ok(true) => new.node = old.node.clone(),
        Ok(false) => {}
        Err(error) if error.kind() == ErrorKind::Corrupt => return Err(error),
        Err(error) => {
            monitor.problem(&format!("cannot compare {}: {error}", change.path));
            return Ok(None);
        }
    }
    let same = old.same_version(new);
    Ok((!same).then_some(change))
}

/// Leaves out folders that came or went together with something in them.
fn without_obvious_folders(changes: Vec<FileChange>) -> Vec<FileChange> {
    let mut kept: Vec<FileChange> = Vec::with_capacity(changes.len());
    for change in changes {
        if kept.last().is_some_and(|last| is_obvious(last, &change)) {
            kept.pop();
        }
        kept.push(change);
    }
    kept
}

fn is_obvious(folder: &FileChange, next: &FileChange) -> bool {
    let is_dir = |version: &Option<VersionInfo>| matches!(version, Some(VersionInfo { node: VersionNode::Dir, .. }));
    let came = folder.old.is_none() && is_dir(&folder.new) && next.new.is_some();
    let went = folder.new.is_none() && is_dir(&folder.old) && next.old.is_some();
    (came || went) && next.path.is_within(&folder.path)
}
