//! What has to be done to the work tree, found by looking only.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use rayon::prelude::*;

use super::Outcome;
use crate::base::disk::{Dir, FileKind, IoContext, Stat};
use crate::base::monitor::Monitor;
use crate::model::id::{CommitId, TreeId};
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{SeenStat, StagedEntry, StagedNode};
use crate::model::tree::{Entry, Node, Tree};
use crate::ops::compare::{WorkChange, same_content, work_changes};
use crate::ops::materialize::{Clones, FileWrite, restored_mode};
use crate::ops::scan::{Pair, pair, walk_along};
use crate::ops::status::is_version;
use crate::ops::{Error, Result};
use crate::repo::{Repository, trees};
use crate::store::StoreError;
use crate::store::objects::ObjectStore;
use crate::store::refs;
use crate::store::staging::{Encoded, Packed};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::write::Expect;

/// What a plan is about.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Paths and all below them.
    pub paths: Scopes,
    /// Nothing is too precious.
    pub force: bool,
    /// HEAD will have the target's tree: staging follows, and changes that concern neither side are kept.
    pub moves_head: bool,
}

/// Everything to be done, in an order that works: removals from the end, then folders, then files, then modes of folders.
#[derive(Debug, Default)]
pub struct Plan {
    /// Unfinished files of a checkout that was stopped. They go first, or their folders could not be removed.
    pub leftovers: Vec<(RepoPath, FileKind)>,
    /// Where copies of files to be written may be found.
    pub clones: Option<Clones>,
    /// Removed, deepest first.
    pub removals: Vec<(RepoPath, FileKind)>,
    /// What the files among the removals looked like when it was decided that they may go.
    pub expected: HashMap<RepoPath, Expect>,
    /// Folders to be there.
    pub folders: Vec<RepoPath>,
    /// Modes and times of folders, set last.
    pub folder_meta: Vec<(RepoPath, Entry)>,
    /// Files and links to be made where there is nothing. There may be a million of them.
    pub new_files: Packed,
    /// The bytes of these files.
    pub new_bytes: u64,
    /// Other files and links.
    pub writes: Vec<FileWrite>,
    /// Right already, but staging does not know: path, entry, what it looks like.
    pub adopted: Vec<(RepoPath, Entry, Stat)>,
    /// No longer tracked.
    pub forgotten: Vec<RepoPath>,
    /// Right already.
    pub unchanged: u64,
    /// Local changes that stay.
    pub kept: Vec<RepoPath>,
    /// What would be lost: not to be applied while this is not empty.
    pub conflicts: Vec<RepoPath>,
    /// What is lost by force.
    pub lost: Vec<RepoPath>,
    /// Staging follows.
    pub moves_head: bool,
}

impl Plan {
    /// Adds a file or link to be made where there is nothing.
    pub fn add_new(&mut self, path: &RepoPath, entry: &Entry) {
        self.new_bytes += if let Node::File { len, .. } = entry.node { len } else { 0 };
        self.new_files.push(path, &as_staged(entry));
    }

    /// Names of one file that change together must not look changed because the other one was.
    pub fn allow_for_hard_links(&mut self) {
        let mut inodes: HashMap<u64, u32> = HashMap::new();
        let written = self.writes.iter_mut().map(|file| &mut file.expect);
        let mut all: Vec<&mut Expect> = written.chain(self.expected.values_mut()).collect();
        for expect in &all {
            if let Expect::Seen(seen) = expect {
                *inodes.entry(seen.ino).or_default() += 1;
            }
        }
        for expect in &mut all {
            if let Expect::Seen(seen) = **expect
                && inodes.get(&seen.ino).is_some_and(|count| *count > 1)
            {
                **expect = Expect::SeenLinked(seen);
            }
        }
    }

    /// Puts in tree order what was decided at once and what was compared first, and gives back what memory is not needed.
    fn sort(&mut self) {
        self.folders.sort();
        self.folder_meta.sort_by(|a, b| a.0.cmp(&b.0));
        self.writes.sort_by(|a, b| a.path.cmp(&b.path));
        self.writes.shrink_to_fit();
        self.forgotten.sort();
        self.kept.sort();
    }

    /// What applying the plan would report.
    pub fn preview(self, commit: Option<CommitId>) -> Outcome {
        Outcome {
            commit,
            written: self.new_files.count() as u64 + self.writes.len() as u64,
            removed: self.removals.len() as u64,
            unchanged: self.unchanged,
            kept: self.kept,
            lost: self.lost,
            dry_run: true,
            ..Outcome::default()
        }
    }
}

/// A staging entry as the entry of a tree. A folder's tree is not known here and not needed: its content has entries of its own.
pub fn as_tree_entry(path: &RepoPath, staged: &StagedEntry) -> Option<Entry> {
    let node = match &staged.node {
        StagedNode::File { len, content } => Node::File { len: *len, content: *content },
        StagedNode::Symlink { target } => Node::Symlink { target: target.clone() },
        StagedNode::Dir => Node::Dir { tree: TreeId::from_digest([0; 32]) },
        StagedNode::Deleted => return None,
    };
    Some(Entry { name: path.file_name().to_vec(), meta: staged.meta, node })
}

/// The entry of a tree as what is staged, though it was not looked at.
pub fn as_staged(entry: &Entry) -> StagedEntry {
    let node = match &entry.node {
        Node::File { len, content } => StagedNode::File { len: *len, content: *content },
        Node::Symlink { target } => StagedNode::Symlink { target: target.clone() },
        Node::Dir { .. } => StagedNode::Dir,
    };
    StagedEntry { node, meta: entry.meta, seen: SeenStat::default(), racy: true, generation: 0 }
}

/// What is wanted, in tree order.
pub type Target<'a> = dyn Iterator<Item = Result<(RepoPath, Entry)>> + 'a;

/// What is on disk and not plainly right, and what is wanted there.
type Doubtful = (Option<Entry>, Pair);

/// Compares target, staging and disk.
pub fn make(repo: &Repository, target: &mut Target<'_>, scope: &Scope, monitor: &dyn Monitor) -> Result<Plan> {
    monitor.begin("comparing with the work tree", None, None);
    let objects = repo.objects();
    let mut planner = Planner {
        objects: &objects,
        head: repo.root_tree(repo.head_commit()?.as_ref())?,
        generation: refs::generation(&repo.journal().read())?,
        scope,
        plan: Plan { moves_head: scope.moves_head, ..Plan::default() },
        not_folders: Vec::new(),
        replaced: Vec::new(),
    };
    let doubtful = look(repo, target, &mut planner, monitor)?;
    let changes = work_changes(repo, &doubtful.iter().map(|(_, pair)| pair).collect::<Vec<_>>(), monitor);
    let equals: Vec<bool> = repo.pools().cpu().install(|| {
        let equals = |((target, pair), change): (&Doubtful, &WorkChange)| {
            target.as_ref().is_some_and(|target| equals_target(&objects, repo, target, pair, *change))
        };
        doubtful.par_iter().zip(&changes).map(equals).collect()
    });
    monitor.end();
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    for (((target, pair), change), equal) in doubtful.into_iter().zip(changes).zip(equals) {
        planner.decide(target, pair, change, equal)?;
    }
    planner.plan.sort();
    clear_replaced(repo, &mut planner)?;
    let Planner { mut plan, not_folders, .. } = planner;
    plan.removals.reverse();
    let in_the_way = in_the_way(not_folders, &plan);
    plan.conflicts.extend(in_the_way);
    plan.allow_for_hard_links();
    Ok(plan)
}

/// Those of the kept files and links in which something is to be made. None of them is inside of another.
fn in_the_way(mut not_folders: Vec<RepoPath>, plan: &Plan) -> Vec<RepoPath> {
    not_folders.sort();
    let keys: Vec<Vec<u8>> = not_folders.iter().map(RepoPath::sort_key).collect();
    let mut needed = vec![false; keys.len()];
    let mut mark = |path: &[u8]| {
        // In tree order, what is inside comes right behind.
        let at = keys.partition_point(|key| key.as_slice() <= path).checked_sub(1);
        let is_within = |key: &Vec<u8>| {
            path.strip_prefix(key.as_slice()).is_some_and(|rest| matches!(rest.first(), None | Some(0)))
        };
        if let Some(at) = at.filter(|at| keys.get(*at).is_some_and(is_within))
            && let Some(needed) = needed.get_mut(at)
        {
            *needed = true;
        }
    };
    if !keys.is_empty() {
        let known = plan.writes.iter().map(|file| &file.path).chain(&plan.folders);
        known.for_each(|path| mark(&path.sort_key()));
        plan.new_files.entries().for_each(|new| mark(new.sort_key()));
    }
    not_folders.into_iter().zip(needed).filter_map(|(path, needed)| needed.then_some(path)).collect()
}

/// A folder that gives way to a file takes along what is in it: untracked, ignored (which no walk shows), or new and
/// staged. What is not to be removed anyway is a conflict, or lost by force.
fn clear_replaced(repo: &Repository, planner: &mut Planner<'_>) -> Result<()> {
    let mut below = Vec::new();
    for folder in &planner.replaced {
        let shown = || repo.work().path().join(folder.as_os_str());
        let dir = Folders::new(Arc::clone(repo.work())).open(folder, IfAbsent::Fail).on("list", shown())?;
        list_below(dir.as_ref(), folder, &mut below)?;
    }
    let plan = &mut planner.plan;
    let settled: HashSet<&RepoPath> = plan.removals.iter().map(|(path, _)| path).chain(&plan.conflicts).collect();
    below.retain(|(path, _)| !settled.contains(path));
    drop(settled);
    if below.is_empty() {
        return Ok(());
    }
    for (path, kind) in below {
        match (kind, planner.scope.force) {
            (FileKind::Dir, _) => {}
            (_, true) => plan.lost.push(path.clone()),
            (_, false) => plan.conflicts.push(path.clone()),
        }
        plan.removals.push((path, kind));
    }
    plan.removals.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    plan.conflicts.sort_unstable();
    plan.lost.sort_unstable();
    Ok(())
}

fn list_below(dir: &dyn Dir, at: &RepoPath, into: &mut Vec<(RepoPath, FileKind)>) -> Result<()> {
    for item in dir.list().on("list", dir.path())? {
        let path = at.join(item.name.as_bytes())?;
        if item.kind == FileKind::Dir {
            let inside = dir.open_dir(&item.name).on("open", dir.path().join(&item.name))?;
            list_below(inside.as_ref(), &path, into)?;
        }
        into.push((path, item.kind));
    }
    Ok(())
}

/// Joins target with staging and disk, and decides at once on what is not on disk: there may be a million such paths. Gives
/// what is on disk and not plainly right.
fn look(
    repo: &Repository,
    target: &mut Target<'_>,
    planner: &mut Planner<'_>,
    monitor: &dyn Monitor,
) -> Result<Vec<Doubtful>> {
    let (state, scope) = (repo.journal().read(), planner.scope);
    let mut ignored = Ignored { folders: Folders::new(Arc::clone(repo.work())), missing: None };
    let mut doubtful = Vec::new();
    let mut sort_out = |target: Option<Entry>, mut pair: Pair| {
        if target.is_some() && pair.disk.is_none() {
            pair.disk = ignored.stat(&pair.path);
        }
        match (&target, &pair.staged) {
            (Some(target), Some(staged)) if is_version(target, staged) && pair.looks_unchanged() => {
                planner.plan.unchanged += 1;
                Ok(())
            }
            (_, staged) if pair.disk.is_none() => {
                let change = if staged.is_some() { WorkChange::Deleted } else { WorkChange::Same };
                planner.decide(target, pair, change, false)
            }
            _ => {
                doubtful.push((target, pair));
                Ok(())
            }
        }
    };
    let absent = |path| Pair { path, staged: None, deleted: false, disk: None };
    let mut wanted = target.next().transpose()?;
    let mut visit = |pair: Pair| {
        if !scope.paths.contains(&pair.path) {
            return Ok(());
        }
        while let Some((path, entry)) = wanted.take_if(|(path, _)| *path < pair.path) {
            sort_out(Some(entry), absent(path))?;
            wanted = target.next().transpose()?;
        }
        let entry = wanted.take_if(|(path, _)| *path == pair.path).map(|(_, entry)| entry);
        if entry.is_some() {
            wanted = target.next().transpose()?;
        }
        sort_out(entry, pair)
    };
    let leftovers = walk_along(repo, &state, &scope.paths, false, false, monitor, |found| {
        let paired = pair(&state, found, &scope.paths, &mut visit);
        found.beside.problems.iter().for_each(|problem| monitor.problem(problem));
        paired?;
        Ok(std::mem::take(&mut found.beside.leftovers))
    })?;
    while let Some((path, entry)) = wanted {
        sort_out(Some(entry), absent(path))?;
        wanted = target.next().transpose()?;
    }
    let in_scope = |(path, _): &(RepoPath, FileKind)| scope.paths.contains(path);
    planner.plan.leftovers.extend(leftovers.into_iter().filter(in_scope));
    Ok(doubtful)
}

/// Looks for ignored files, which are not in the walk and may be in the way.
struct Ignored {
    folders: Folders,
    /// A path at which there is nothing, so that there is nothing below it.
    missing: Option<RepoPath>,
}

impl Ignored {
    fn stat(&mut self, path: &RepoPath) -> Option<Stat> {
        if self.missing.as_ref().is_some_and(|missing| path.is_within(missing)) {
            return None;
        }
        let dir = self.folders.open_parent(path, IfAbsent::Fail);
        let stat = dir.and_then(|dir| dir.stat(OsStr::from_bytes(path.file_name()))).unwrap_or(None);
        self.missing = if stat.is_none() { Some(path.clone()) } else { None };
        stat
    }
}

/// Is what is on disk, though not known to staging, what is wanted?
fn equals_target(objects: &ObjectStore, repo: &Repository, target: &Entry, pair: &Pair, change: WorkChange) -> bool {
    let Some(disk) = &pair.disk else { return false };
    if change == WorkChange::Same && pair.staged.as_ref().is_some_and(|staged| !is_version(target, staged)) {
        return false;
    }
    match &target.node {
        Node::Dir { .. } => disk.kind == FileKind::Dir,
        Node::File { len, content } => {
            disk.kind == FileKind::File
                && disk.len == *len
                && disk.mode == restored_mode(target.meta.mode)
                && same_content(objects, repo.work(), &pair.path, content, *len).unwrap_or(false)
        }
        Node::Symlink { target: link } => {
            let mut folders = Folders::new(Arc::clone(repo.work()));
            let dir = folders.open_parent(&pair.path, IfAbsent::Fail);
            let name = OsStr::from_bytes(pair.path.file_name());
            disk.kind == FileKind::Symlink
                && dir.and_then(|dir| dir.read_link(name)).is_ok_and(|found| found.as_bytes() == link)
        }
    }
}

struct Planner<'a> {
    objects: &'a ObjectStore,
    head: Arc<Tree>,
    generation: u64,
    scope: &'a Scope,
    plan: Plan,
    /// Kept files and links where the target has folders; in the way if something in those folders has to be written.
    not_folders: Vec<RepoPath>,
    /// Folders that give way to a file or link: nothing in them can be kept.
    replaced: Vec<RepoPath>,
}

impl Planner<'_> {
    fn decide(&mut self, target: Option<Entry>, pair: Pair, change: WorkChange, equals_target: bool) -> Result<()> {
        let head = trees::lookup(self.objects, &self.head, &pair.path)?;
        let staged_only = pair.staged.as_ref().is_some_and(|staged| {
            staged.generation > self.generation && !head.as_ref().is_some_and(|head| is_version(head, staged))
        });
        match target {
            Some(target) => self.want(target, pair, change, equals_target, head, staged_only),
            None => self.do_not_want(pair, change, head, staged_only),
        }
        Ok(())
    }

    /// A path that is in the target.
    fn want(
        &mut self,
        target: Entry,
        pair: Pair,
        change: WorkChange,
        equals_target: bool,
        head: Option<Entry>,
        staged_only: bool,
    ) {
        let path = pair.path.clone();
        // Neither side of a move concerns this path: what the user did to it stays.
        let untouched =
            self.scope.moves_head && !self.scope.force && head.as_ref().is_some_and(|head| same(head, &target));
        if let Some(disk) = pair.disk.filter(|_| equals_target) {
            if matches!(target.node, Node::Dir { .. }) && restored_mode(disk.mode) != restored_mode(target.meta.mode) {
                self.plan.folder_meta.push((path.clone(), target.clone()));
            }
            return self.plan.adopted.push((path, target, disk));
        }
        if untouched && (pair.deleted || staged_only || (pair.disk.is_some() && change != WorkChange::Same)) {
            if matches!(target.node, Node::Dir { .. }) && pair.disk.is_some_and(|disk| disk.kind != FileKind::Dir) {
                self.not_folders.push(path.clone());
            }
            return self.plan.kept.push(path);
        }
        let expect = match (&pair.disk, &pair.staged, change) {
            (None, ..) => Expect::Absent,
            // Content that staging alone has would be forgotten when staging follows HEAD.
            (Some(disk), Some(_), WorkChange::Same) if !(staged_only && self.scope.moves_head) => {
                Expect::Seen(SeenStat::from(disk))
            }
            (Some(_), ..) if self.scope.force => {
                self.plan.lost.push(path.clone());
                Expect::Anything
            }
            // Only the mode of a tracked file differs; its content is stored.
            (Some(disk), Some(_), WorkChange::Mode) => Expect::Seen(SeenStat::from(disk)),
            (Some(_), ..) => return self.plan.conflicts.push(path),
        };
        let kind = pair.disk.map(|disk| disk.kind);
        match &target.node {
            Node::Dir { .. } => {
                if let Some(kind) = kind.filter(|kind| *kind != FileKind::Dir) {
                    self.plan.removals.push((path.clone(), kind));
                }
                self.plan.folders.push(path.clone());
                self.plan.folder_meta.push((path, target));
            }
            _ => {
                let in_the_way = kind.filter(|kind| *kind == FileKind::Dir);
                if let Some(kind) = in_the_way {
                    self.plan.removals.push((path.clone(), kind));
                    self.replaced.push(path.clone());
                }
                let expect = if in_the_way.is_some() { Expect::Absent } else { expect };
                if kind.is_none() {
                    return self.plan.add_new(&path, &target);
                }
                self.plan.writes.push(FileWrite { path, meta: target.meta, node: target.node, expect });
            }
        }
    }

    /// A path that is not in the target.
    fn do_not_want(&mut self, pair: Pair, change: WorkChange, head: Option<Entry>, staged_only: bool) {
        let path = pair.path;
        let is_dir = pair.disk.is_some_and(|disk| disk.kind == FileKind::Dir);
        match (&pair.staged, pair.disk) {
            (None, None) => self.plan.forgotten.push(path),
            // Not tracked: nobody's business, unless the tree is to be equal.
            (None, Some(disk)) => {
                if pair.deleted {
                    self.plan.forgotten.push(path.clone());
                }
                if self.scope.force && self.scope.moves_head {
                    if !is_dir {
                        self.plan.lost.push(path.clone());
                    }
                    self.plan.removals.push((path, disk.kind));
                }
            }
            // New and staged: it stays staged on the new HEAD.
            (Some(_), _) if head.is_none() && self.scope.moves_head && !self.scope.force => self.plan.kept.push(path),
            (Some(_), None) => self.plan.forgotten.push(path),
            (Some(_), Some(disk)) => {
                let stored = is_dir || (matches!(change, WorkChange::Same | WorkChange::Mode) && !staged_only);
                if !stored && !self.scope.force {
                    return self.plan.conflicts.push(path);
                }
                if !stored {
                    self.plan.lost.push(path.clone());
                } else if !is_dir && !self.scope.force {
                    self.plan.expected.insert(path.clone(), Expect::Seen(SeenStat::from(&disk)));
                }
                self.plan.removals.push((path.clone(), disk.kind));
                self.plan.forgotten.push(path);
            }
        }
    }
}

/// A file or link to be made where there is nothing.
pub fn new_file(entry: Encoded<'_>) -> Result<FileWrite> {
    let (path, staged) = (entry.path()?, entry.decode()?);
    let entry =
        as_tree_entry(&path, &staged).ok_or_else(|| StoreError::Internal(format!("nothing is to be at {path}")))?;
    Ok(FileWrite { path, meta: entry.meta, node: entry.node, expect: Expect::Absent })
}

/// The same version, folders by mode alone: their content has entries of its own.
fn same(a: &Entry, b: &Entry) -> bool {
    match (&a.node, &b.node) {
        (Node::Dir { .. }, Node::Dir { .. }) => a.meta.mode == b.meta.mode,
        _ => a.same_version(b),
    }
}
