//! The two states in tree order, gone through in step, and what differs between them.

use std::io;
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
use crate::ops::scan::walk_along;
use crate::ops::{Error, Result};
use crate::repo::resolve::Point;
use crate::repo::{Repository, trees};
use crate::store::{StoreError, journal, refs, staging, worktable};
use crate::world::dirs::Folders;
use crate::world::walk::{Found, WalkEntry};

/// Changes that are settled together, by all threads.
const CHANGES_AT_ONCE: usize = if cfg!(test) { 3 } else { 1024 };

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

/// What differs, in tree order, settled: files on disk that look changed were read. Some are handed on at a time, while the rest is
/// looked for.
pub fn changes_each(
    repo: &Repository,
    options: &Options,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut(Vec<FileChange>) -> Result<()>,
) -> Result<()> {
    let (old, new) = (state_of(repo, &options.old)?, state_of(repo, &options.new)?);
    let scopes = Scopes::or_everything(&options.paths);
    let view = View { repo, journal: &repo.journal().read(), scopes: &scopes, monitor };
    let all_folders = options.all_folders;
    let mut differing = Differing { view: &view, all_folders, waiting: Vec::new(), last: None, each };
    match (&old, &new) {
        (State::Stored(old), State::Stored(new)) => between_trees(&view, old.as_ref(), new.as_ref(), &mut differing),
        (State::Stored(old), State::Staging) if *old == repo.head_commit()?.map(Point::Commit) => {
            staged(&view, &mut differing)
        }
        // The disk is walked, and the other state is read along.
        (State::WorkTree | State::Disk, _) => {
            join(&view, &new, &old, &mut |path, new, old| differing.add(FileChange { path, old, new }))
        }
        _ => join(&view, &old, &new, &mut |path, old, new| differing.add(FileChange { path, old, new })),
    }?;
    differing.finish()
}

/// Where the states are looked up.
struct View<'a> {
    repo: &'a Repository,
    journal: &'a journal::State,
    scopes: &'a Scopes,
    monitor: &'a dyn Monitor,
}

/// Takes what may differ, in tree order.
struct Differing<'a> {
    view: &'a View<'a>,
    all_folders: bool,
    waiting: Vec<FileChange>,
    /// Handed on unless it is a folder and what comes next says as much.
    last: Option<FileChange>,
    each: &'a mut dyn FnMut(Vec<FileChange>) -> Result<()>,
}

impl Differing<'_> {
    fn add(&mut self, change: FileChange) -> Result<()> {
        let same = match (&change.old, &change.new) {
            (Some(old), Some(new)) => old.same_version(new),
            (None, None) => true,
            _ => false,
        };
        if same || !self.view.scopes.contains(&change.path) {
            return Ok(());
        }
        self.waiting.push(change);
        if self.waiting.len() < CHANGES_AT_ONCE { Ok(()) } else { self.hand_on() }
    }

    fn hand_on(&mut self) -> Result<()> {
        let View { repo, monitor, .. } = *self.view;
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let settle = |change| settle(repo, change, monitor);
        let settled: Vec<Option<FileChange>> =
            repo.pools().cpu().install(|| waiting.into_par_iter().map(settle).collect::<Result<_>>())?;
        let mut kept: Vec<FileChange> = self.last.take().into_iter().collect();
        for change in settled.into_iter().flatten() {
            if !self.all_folders && kept.last().is_some_and(|last| is_obvious(last, &change)) {
                kept.pop();
            }
            kept.push(change);
        }
        self.last = kept.pop();
        (self.each)(kept)
    }

    fn finish(mut self) -> Result<()> {
        self.hand_on()?;
        (self.each)(self.last.into_iter().collect())
    }
}

fn tree(repo: &Repository, point: Option<&Point>) -> Result<Arc<Tree>> {
    Ok(point.map_or_else(|| Ok(Arc::default()), |point| repo.tree_of(point))?)
}

fn between_trees(
    view: &View<'_>,
    old: Option<&Point>,
    new: Option<&Point>,
    differing: &mut Differing<'_>,
) -> Result<()> {
    let version = |entry: &Option<Entry>| entry.as_ref().map(VersionInfo::from);
    let repo = view.repo;
    let (old, new) = (tree(repo, old)?, tree(repo, new)?);
    trees::diff(&repo.objects(), &old, &new, view.scopes, &mut |change| {
        differing.add(FileChange { old: version(&change.old), new: version(&change.new), path: change.path })
    })
}

/// HEAD against staging: everything that is not staged is as in HEAD, so only the rest is looked up.
fn staged(view: &View<'_>, differing: &mut Differing<'_>) -> Result<()> {
    let root = view.repo.root_tree(view.repo.head_commit()?.as_ref())?;
    let objects = view.repo.objects();
    let generation = refs::generation(view.journal)?;
    let mut entries = staging::entries_in(view.journal, view.scopes);
    while let Some(entry) = entries.next_encoded()? {
        if entry.generation()? > generation {
            let (path, entry) = (entry.path()?, entry.decode()?);
            let old = trees::lookup(&objects, &root, &path)?.as_ref().map(VersionInfo::from);
            differing.add(FileChange { path, old, new: of_staged(&entry) })?;
        }
    }
    Ok(())
}

/// Goes through two states in step: `visit` takes the version of `one`, then that of `other`. `one` is not on disk.
fn join(
    view: &View<'_>,
    one: &State,
    other: &State,
    visit: &mut dyn FnMut(RepoPath, Option<VersionInfo>, Option<VersionInfo>) -> Result<()>,
) -> Result<()> {
    let mut listed = recorded(view, one)?;
    let mut next = listed.next().transpose()?;
    each_version(view, other, &mut |found, hides| {
        let is_before = |path: &RepoPath| found.as_ref().is_none_or(|(found, _)| path < found);
        while let Some((path, before)) = next.take_if(|(path, _)| is_before(path)) {
            // What could not be looked at is not known to be gone.
            if !hides(&path) {
                visit(path, Some(before), None)?;
            }
            next = listed.next().transpose()?;
        }
        let Some((path, version)) = found else { return Ok(()) };
        let same = next.take_if(|(same, _)| *same == path).map(|(_, same)| same);
        if same.is_some() {
            next = listed.next().transpose()?;
        }
        visit(path, same, Some(version))
    })
}

type Recorded<'a> = Box<dyn Iterator<Item = Result<(RepoPath, VersionInfo)>> + 'a>;

/// The paths of a state that is not on disk, in tree order.
fn recorded<'a>(view: &View<'a>, state: &State) -> Result<Recorded<'a>> {
    Ok(match state {
        State::Stored(point) => {
            let tree = tree(view.repo, point.as_ref())?;
            let entries = trees::Entries::new(view.repo.objects(), tree).within(view.scopes.clone());
            Box::new(entries.map(|entry| {
                let (path, entry) = entry?;
                Ok((path, VersionInfo::from(&entry)))
            }))
        }
        State::Staging => {
            let mut entries = staging::entries_in(view.journal, view.scopes);
            let next = move || entries.next().map_err(Error::from).transpose();
            Box::new(std::iter::from_fn(next).filter_map(|entry| {
                let of = |(path, entry)| of_staged(&entry).map(|version| (path, version));
                entry.map(of).transpose()
            }))
        }
        State::WorkTree | State::Disk => {
            return Err(StoreError::Internal("the disk is not read along".to_owned()).into());
        }
    })
}

/// Takes a path and its version, and what tells whether a path before it could not be looked at; no path when there are no more.
type Visit<'a> = dyn FnMut(Option<(RepoPath, VersionInfo)>, &dyn Fn(&RepoPath) -> bool) -> Result<()> + 'a;

/// All paths of a state, in tree order.
fn each_version(view: &View<'_>, state: &State, visit: &mut Visit<'_>) -> Result<()> {
    let View { repo, journal, scopes, monitor } = *view;
    let on_disk: fn(&View<'_>, &mut Found, &mut Visit<'_>) -> Result<()> = match state {
        State::WorkTree => each_tracked,
        State::Disk => each_on_disk,
        State::Stored(_) | State::Staging => {
            recorded(view, state)?.try_for_each(|version| visit(Some(version?), &|_| false))?;
            return visit(None, &|_| false);
        }
    };
    walk_along(repo, journal, scopes, false, false, monitor, |found| {
        let visited = on_disk(view, found, visit);
        found.beside.problems().for_each(|problem| monitor.problem(problem));
        visited
    })
}

/// Tracked paths as they are on disk. What looks as when it was last read keeps its stored content.
fn each_tracked(view: &View<'_>, found: &mut Found, visit: &mut Visit<'_>) -> Result<()> {
    let mut folders = Folders::new(Arc::clone(view.repo.work()));
    let mut entries = staging::entries_in(view.journal, view.scopes);
    while let Some((path, entry)) = entries.next()? {
        let Some(version) = of_staged(&entry) else { continue };
        while found.peek().is_some_and(|found| found.path < path) {
            found.pop();
        }
        let is_there = found.peek().is_some_and(|found| found.path == path);
        let version = match if is_there { found.pop() } else { None } {
            Some(found) if entry.is_unchanged(&found.stat) => Some(version),
            Some(found) => look(&mut folders, &path, &found.stat, view.monitor),
            // Not known to be gone.
            None if found.hides(&path) => Some(version),
            None => None,
        };
        if let Some(version) = version {
            visit(Some((path, version)), &|_| false)?;
        }
    }
    while found.pop().is_some() {}
    visit(None, &|_| false)
}

/// Everything on disk that a checkpoint would hold, tracked or not.
fn each_on_disk(view: &View<'_>, found: &mut Found, visit: &mut Visit<'_>) -> Result<()> {
    let mut folders = Folders::new(Arc::clone(view.repo.work()));
    while let Some(WalkEntry { path, stat }) = found.pop() {
        let known = worktable::known(view.journal, &Area::WorkTree, &path)?;
        let version = match known.filter(|entry| entry.is_unchanged(&stat)) {
            Some(entry) => of_staged(&entry),
            None => look(&mut folders, &path, &stat, view.monitor),
        };
        if let Some(version) = version {
            visit(Some((path, version)), &|path| found.hides(path))?;
        }
    }
    visit(None, &|path| found.hides(path))
}

/// What is on disk, its bytes not yet read.
fn look(folders: &mut Folders, path: &RepoPath, stat: &Stat, monitor: &dyn Monitor) -> Option<VersionInfo> {
    let node = match stat.kind {
        FileKind::File => VersionNode::OnDisk { len: stat.len },
        FileKind::Dir => VersionNode::Dir,
        FileKind::Other => return None,
        FileKind::Symlink => match folders.read_link(path) {
            Ok(target) => VersionNode::Symlink { target },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                monitor.problem(&format!("cannot read the link {path}: {error}"));
                return None;
            }
        },
    };
    Some(VersionInfo { mode: stat.mode, node })
}

/// Reads a file on disk that has the length of its stored version: only its bytes tell whether it changed.
fn settle(repo: &Repository, mut change: FileChange, monitor: &dyn Monitor) -> Result<Option<FileChange>> {
    let (Some(old), Some(new)) = (&mut change.old, &mut change.new) else { return Ok(Some(change)) };
    let (stored, on_disk) = if matches!(old.node, VersionNode::OnDisk { .. }) { (new, old) } else { (old, new) };
    let (VersionNode::File { len, content }, VersionNode::OnDisk { len: found }) = (&stored.node, &on_disk.node) else {
        return Ok(Some(change));
    };
    if len != found || monitor.cancelled() {
        return Ok(Some(change));
    }
    match same_content(&repo.objects(), repo.work(), &change.path, content, *len) {
        Ok(true) => on_disk.node = stored.node.clone(),
        Ok(false) => {}
        Err(error) if error.kind() == ErrorKind::Corrupt => return Err(error),
        Err(error) => {
            monitor.problem(&format!("cannot compare {}: {error}", change.path));
            return Ok(None);
        }
    }
    let same = stored.same_version(on_disk);
    Ok((!same).then_some(change))
}

/// Is this a folder that came or went together with what is in it?
fn is_obvious(folder: &FileChange, next: &FileChange) -> bool {
    let is_dir = |version: &Option<VersionInfo>| matches!(version, Some(VersionInfo { node: VersionNode::Dir, .. }));
    let came = folder.old.is_none() && is_dir(&folder.new) && next.new.is_some();
    let went = folder.new.is_none() && is_dir(&folder.old) && next.old.is_some();
    (came || went) && next.path.is_within(&folder.path)
}
