//! What has to be done to the work tree, found by looking only.
//!
//! `look` lays what is wanted beside what is recorded and what is on disk, `decide` says what becomes of each path.

mod decide;
mod look;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use hashbrown::HashSet;

use self::decide::Planner;
use self::look::look;
use super::Outcome;
use crate::base::clock;
use crate::base::disk::{Dir, FileKind, IoContext, Stat};
use crate::base::monitor::Monitor;
use crate::model::id::{CommitId, TreeId};
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{SeenStat, StagedEntry, StagedNode, is_racy};
use crate::model::tree::{Entry, Meta, Node};
use crate::ops::materialize::{Clones, FileWrite};
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::store::StoreError;
use crate::store::refs;
use crate::store::staging::Packed;
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

/// Something that goes.
#[derive(Debug)]
pub struct Removal {
    /// Where.
    pub path: RepoPath,
    /// What it is.
    pub kind: FileKind,
    /// What it looked like when that was decided; a folder goes if it is empty.
    pub seen: Option<SeenStat>,
}

impl Removal {
    /// What stands there goes as it is now.
    pub fn new(path: RepoPath, stat: &Stat) -> Self {
        Self { path, kind: stat.kind, seen: Some(stat).filter(|stat| stat.kind != FileKind::Dir).map(SeenStat::from) }
    }
}

/// Everything to be done, in an order that works: removals from the end, then folders, then files, then modes of folders.
#[derive(Debug, Default)]
pub struct Plan {
    /// Unfinished files of a checkout that was stopped. They go first, or their folders could not be removed.
    pub leftovers: Vec<(RepoPath, FileKind)>,
    /// Where copies of files to be written may be found.
    pub clones: Option<Clones>,
    /// Removed, deepest first.
    pub removals: Vec<Removal>,
    /// Folders to be there.
    pub folders: Vec<RepoPath>,
    /// Modes and times of folders, set last.
    pub folder_meta: Vec<(RepoPath, Entry)>,
    /// Files and links to be written, each with what it replaces. There may be a million of them.
    files: Packed,
    /// Their bytes.
    pub bytes: u64,
    /// The inodes of what they replace.
    replaced: Vec<u64>,
    /// Files of several names among what is replaced or removed: when one name goes, the others look changed.
    linked: HashSet<u64>,
    /// Right already, but staging does not know: what it is to record.
    pub adopted: Packed,
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
    /// Those among them that no walk shows, because they are ignored.
    pub hidden: Vec<RepoPath>,
    /// Staging follows.
    pub moves_head: bool,
}

impl Plan {
    /// Adds a file or link to be written: over the file that looks like `replaced`, or where there is nothing.
    pub fn add(&mut self, path: &RepoPath, entry: &Entry, replaced: Option<SeenStat>) {
        self.bytes += if let Node::File { len, .. } = entry.node { len } else { 0 };
        self.replaced.extend(replaced.map(|seen| seen.ino));
        let (seen, racy) = (replaced.unwrap_or_default(), replaced.is_none());
        self.files.push(path, &StagedEntry { seen, racy, ..as_staged(entry) });
    }

    /// Adds something that is right already and looks like this.
    fn adopt(&mut self, path: &RepoPath, entry: &Entry, stat: &Stat) {
        self.adopted.push(path, &looking_like(entry, stat));
    }

    /// How many files and links are to be written.
    pub fn file_count(&self) -> usize {
        self.files.count()
    }

    /// Files and links to be written.
    pub fn files(&self) -> impl Iterator<Item = Result<FileWrite>> {
        self.files.entries().map(|entry| {
            let (path, staged) = (entry.path()?, entry.decode()?);
            let wanted = as_tree_entry(&path, &staged);
            let wanted = wanted.ok_or_else(|| StoreError::Internal(format!("nothing is to be at {path}")))?;
            let expect = if staged.racy { Expect::Absent } else { self.expect(staged.seen) };
            Ok(FileWrite { path, meta: wanted.meta, node: wanted.node, expect })
        })
    }

    /// What may go: the file that looked like this.
    pub fn expect(&self, seen: SeenStat) -> Expect {
        if self.linked.contains(&seen.ino) { Expect::SeenLinked(seen) } else { Expect::Seen(seen) }
    }

    /// Names of one file that change together must not look changed because the other one was.
    pub fn allow_for_hard_links(&mut self) {
        let removed = self.removals.iter().filter_map(|removal| removal.seen.map(|seen| seen.ino));
        let mut once = HashSet::new();
        self.linked = self.replaced.iter().copied().chain(removed).filter(|ino| !once.insert(*ino)).collect();
    }

    /// Puts in tree order what was decided at once and what was compared first.
    fn sort(&mut self) {
        self.folders.sort();
        self.folder_meta.sort_by(|a, b| a.0.cmp(&b.0));
        self.forgotten.sort();
        self.kept.sort();
    }

    /// An ignored file that is what is wanted is nobody's business.
    fn forget_what_stays_hidden(&mut self) {
        let lost: HashSet<&RepoPath> = if self.hidden.is_empty() { HashSet::new() } else { self.lost.iter().collect() };
        self.hidden.retain(|path| lost.contains(path));
    }

    /// What applying the plan would report.
    pub fn preview(self, commit: Option<CommitId>) -> Outcome {
        Outcome {
            commit,
            written: self.file_count() as u64,
            folders: self.folder_meta.len() as u64,
            removed: self.removals.len() as u64,
            unchanged: self.unchanged + self.adopted.count() as u64,
            kept: self.kept,
            lost: self.lost,
            dry_run: true,
            ..Outcome::default()
        }
    }
}

/// The folders above scopes in which `find` finds something, as it finds them, outermost first.
pub fn folders_above(
    scopes: &Scopes,
    find: &mut dyn FnMut(&RepoPath) -> Result<Option<Entry>>,
) -> Result<Vec<(RepoPath, Entry)>> {
    let mut above = BTreeSet::new();
    for scope in scopes.outermost() {
        if find(scope)?.is_some() {
            let folders = std::iter::successors(scope.parent(), RepoPath::parent);
            above.extend(folders.take_while(|folder| !folder.is_root()));
        }
    }
    let mut folders = Vec::new();
    for path in above {
        let entry = find(&path)?.filter(|entry| matches!(entry.node, Node::Dir { .. }));
        folders.extend(entry.map(|entry| (path, entry)));
    }
    Ok(folders)
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

/// The same of what was looked at. The mode of a link is what the system gives it.
pub fn looking_like(entry: &Entry, stat: &Stat) -> StagedEntry {
    let mode = if stat.kind == FileKind::Symlink { stat.mode } else { entry.meta.mode };
    let meta = Meta { mode, ..entry.meta };
    StagedEntry { meta, seen: SeenStat::from(stat), racy: is_racy(stat, clock::now()), ..as_staged(entry) }
}

/// What is wanted, in tree order.
pub type Target<'a> = dyn Iterator<Item = Result<(RepoPath, Entry)>> + 'a;

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
    look(repo, target, &mut planner, monitor)?;
    monitor.end();
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    planner.plan.sort();
    clear_replaced(repo, &mut planner)?;
    planner.plan.forget_what_stays_hidden();
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
        plan.folders.iter().for_each(|path| mark(&path.sort_key()));
        plan.files.entries().for_each(|file| mark(file.sort_key()));
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
    let settled: HashSet<&RepoPath> =
        plan.removals.iter().map(|removal| &removal.path).chain(&plan.conflicts).collect();
    below.retain(|removal| !settled.contains(&removal.path));
    drop(settled);
    if below.is_empty() {
        return Ok(());
    }
    for removal in below {
        match (removal.kind, planner.scope.force) {
            (FileKind::Dir, _) => {}
            (_, true) => {
                plan.lost.push(removal.path.clone());
                plan.hidden.push(removal.path.clone());
            }
            (_, false) => plan.conflicts.push(removal.path.clone()),
        }
        plan.removals.push(removal);
    }
    plan.removals.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    plan.conflicts.sort_unstable();
    plan.lost.sort_unstable();
    Ok(())
}

fn list_below(dir: &dyn Dir, at: &RepoPath, into: &mut Vec<Removal>) -> Result<()> {
    for item in dir.list().on("list", dir.path())? {
        let path = at.join(item.name.as_bytes())?;
        let Some(stat) = dir.stat(&item.name).on("look at", dir.path().join(&item.name))? else { continue };
        if item.kind == FileKind::Dir {
            let inside = dir.open_dir(&item.name).on("open", dir.path().join(&item.name))?;
            list_below(inside.as_ref(), &path, into)?;
        }
        into.push(Removal::new(path, &stat));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &RepoPath) -> Entry {
        Entry {
            name: path.file_name().to_vec(),
            meta: Meta { mode: 0, mtime_ns: 0 },
            node: Node::Symlink { target: b"x".to_vec() },
        }
    }

    fn paths() -> impl Strategy<Value = Vec<RepoPath>> {
        // Names with bytes around the slash, which sorts before them in a tree and not among bytes.
        let path = prop::collection::vec(prop::sample::select(vec!["a", "a!", "a-b", "b"]), 1..4);
        let parsed = path.prop_map(|names| RepoPath::parse(names.join("/").as_bytes()).unwrap());
        prop::collection::vec(parsed, 0..8)
    }

    proptest! {
        #[test]
        fn what_is_in_the_way_is_what_something_is_to_be_made_in(
            mut kept in paths(),
            new in paths(),
            written in paths(),
            folders in paths(),
        ) {
            kept.sort();
            kept.dedup();
            kept = kept.iter().filter(|one| !kept.iter().any(|other| other != *one && one.is_within(other))).cloned().collect();
            let needed = |one: &&RepoPath| {
                new.iter().chain(&written).chain(&folders).any(|path| path.is_within(one))
            };
            let expected: Vec<RepoPath> = kept.iter().filter(needed).cloned().collect();
            let mut plan = Plan { folders: folders.clone(), ..Plan::default() };
            new.iter().for_each(|path| plan.add(path, &file(path), None));
            written.iter().for_each(|path| plan.add(path, &file(path), Some(SeenStat::default())));
            kept.reverse();
            prop_assert_eq!(in_the_way(kept, &plan), expected);
        }
    }
}
