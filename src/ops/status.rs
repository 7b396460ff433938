//! `status`: what is staged, what differs from it on disk, what is not tracked. Waits for no lock.

use std::sync::Arc;

use serde::Serialize;

use super::compare::{WorkChange, work_changes};
use super::scan::{Pair, pair, walk_along};
use super::{Error, Result};
use crate::base::clock::{self, UnixNanos};
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::id::CommitId;
use crate::model::path::RepoPath;
use crate::model::refs::Head;
use crate::model::scopes::Scopes;
use crate::model::staging::{SeenStat, StagedEntry, StagedNode, is_racy};
use crate::model::tree::{Entry, Node, Tree};
use crate::repo::{Repository, trees};
use crate::store::journal::Batch;
use crate::store::{refs, staging};

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only these paths and what is below them; none means everything.
    pub paths: Vec<RepoPath>,
}

/// How a staged path differs from HEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StagedChange {
    /// Not in HEAD.
    Added,
    /// Other content, kind or mode.
    Modified,
    /// In HEAD, and to go.
    Deleted,
}

/// A path and how it differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item<C> {
    /// Where.
    pub path: RepoPath,
    /// How.
    pub change: C,
}

/// The state of the work tree.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The branch that HEAD is on; none when detached.
    pub branch: Option<String>,
    /// The commit of HEAD; none before the first.
    pub head: Option<CommitId>,
    /// Differences between HEAD and what the next commit will hold.
    pub staged: Vec<Item<StagedChange>>,
    /// Differences between what is staged and the disk.
    pub changed: Vec<Item<WorkChange>>,
    /// Files that are not tracked; a folder in which nothing is tracked stands for its content.
    pub untracked: Vec<RepoPath>,
    /// Tracked paths looked at.
    pub tracked: u64,
    /// Paths that could not be looked at.
    pub unreadable: u64,
}

impl Outcome {
    /// Is there nothing to report?
    pub fn is_clean(&self) -> bool {
        self.staged.is_empty() && self.changed.is_empty() && self.untracked.is_empty()
    }
}

/// Compares HEAD, staging and disk.
pub fn status(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("status");
    let mut outcome = Outcome::default();
    let before = clock::now();
    let state = repo.journal().read();
    let generation = refs::generation(&state)?;
    if let Head::Branch(name) = refs::head(&state)? {
        outcome.branch = Some(name.to_string());
    }
    outcome.head = refs::head_commit(&state)?;
    let scopes = Scopes::or_everything(&options.paths);
    let objects = repo.objects();
    // Most trees have nothing staged: then no layer is opened, of which none may be in memory.
    let mut head_tree: Option<Arc<Tree>> = None;
    let at_once = repo.settings().paths_at_once;
    let mut doubtful: Vec<Pair> = Vec::new();
    let mut same = Vec::new();
    let mut visit = |pair: Pair| {
        if !scopes.contains(&pair.path) {
            return Ok(());
        }
        let staged_now = pair.staged.as_ref().is_some_and(|entry| entry.generation > generation);
        if staged_now || pair.deleted {
            let tree = match &mut head_tree {
                Some(tree) => tree,
                none => none.insert(repo.root_tree(outcome.head.as_ref())?),
            };
            let old = trees::lookup(&objects, tree, &pair.path)?;
            let change = staged_change(old.as_ref(), pair.staged.as_ref());
            outcome.staged.extend(change.map(|change| Item { path: pair.path.clone(), change }));
        }
        outcome.tracked += u64::from(pair.staged.is_some());
        match (&pair.staged, &pair.disk) {
            (None, Some(stat)) => note_untracked(&mut outcome.untracked, &pair, stat.kind),
            (Some(_), None) => outcome.changed.push(Item { path: pair.path, change: WorkChange::Deleted }),
            (Some(_), Some(_)) if !pair.looks_unchanged() => {
                doubtful.push(pair);
                if doubtful.len() >= at_once {
                    settle(repo, std::mem::take(&mut doubtful), &mut same, &mut outcome, monitor);
                }
            }
            _ => {}
        }
        Ok(())
    };
    let mut hidden = 0;
    let listed = walk_along(repo, &state, &scopes, false, true, monitor, |found| {
        let paired = pair(&state, found, &scopes, &mut visit);
        found.beside.left_out.iter().chain(&found.beside.remarks).for_each(|problem| monitor.problem(problem));
        hidden += found.beside.left_out.len() as u64;
        for (_, problem) in found.beside.unreadable.iter().filter(|(path, _)| scopes.contains(path)) {
            monitor.problem(problem);
            hidden += 1;
        }
        paired?;
        Ok(std::mem::take(&mut found.beside.listed))
    })?;
    outcome.unreadable += hidden;
    drop(state);
    settle(repo, doubtful, &mut same, &mut outcome, monitor);
    outcome.changed.sort_by(|a, b| a.path.cmp(&b.path));
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    remember(repo, same, listed, before);
    Ok(outcome)
}

/// Reads what does not look as it did, on all processors.
fn settle(repo: &Repository, doubtful: Vec<Pair>, same: &mut Vec<Pair>, outcome: &mut Outcome, monitor: &dyn Monitor) {
    let changes = work_changes(repo, &doubtful, monitor);
    for (pair, change) in doubtful.into_iter().zip(changes) {
        match change {
            WorkChange::Same => same.push(pair),
            WorkChange::Unreadable => outcome.unreadable += 1,
            _ => outcome.changed.push(Item { path: pair.path, change }),
        }
    }
}

/// Records the new looks of files that were read and are as they were, and what folders hold, so that the next call need
/// not read them.
///
/// Nobody waits for this: where another process is writing or nothing may be written, the next call reads them again.
fn remember(repo: &Repository, same: Vec<Pair>, listed: Vec<Op>, before: UnixNanos) {
    let proven = |pair: &Pair| pair.disk.is_some_and(|stat| !is_racy(&stat, before));
    let same: Vec<Pair> = same.into_iter().filter(proven).collect();
    if same.is_empty() && listed.is_empty() {
        return;
    }
    let Ok(Some(lock)) = repo.try_lock("status") else { return };
    let state = repo.journal().read();
    let fresh = |pair: Pair| {
        let (old, stat) = (pair.staged?, pair.disk?);
        // Another process may have staged something else since.
        let now = staging::get(&state, &pair.path).ok()??;
        let entry = StagedEntry { seen: SeenStat::from(&stat), racy: false, ..old.clone() };
        (now == old && entry != old).then(|| staging::put_op(&pair.path, &entry))
    };
    let mut ops: Batch = same.into_iter().filter_map(fresh).collect();
    ops.extend(listed);
    drop(state);
    if !ops.is_empty() {
        let _ = repo.commit_looks(&lock, ops);
    }
}

/// A folder comes before its content, so what lies in an untracked folder is recognised by the one noted last.
fn note_untracked(untracked: &mut Vec<RepoPath>, pair: &Pair, kind: crate::base::disk::FileKind) {
    if kind != crate::base::disk::FileKind::Other && !untracked.last().is_some_and(|last| pair.path.is_within(last)) {
        untracked.push(pair.path.clone());
    }
}

/// How a staging entry differs from the entry in HEAD; `None` if only in times.
pub fn staged_change(old: Option<&Entry>, staged: Option<&StagedEntry>) -> Option<StagedChange> {
    match (old, staged) {
        (None, Some(_)) => Some(StagedChange::Added),
        (Some(_), None) => Some(StagedChange::Deleted),
        (Some(old), Some(new)) if !is_version(old, new) => Some(StagedChange::Modified),
        _ => None,
    }
}

/// Is the staging entry the same version as the tree's entry? Folders are the same if their modes are.
pub fn is_version(entry: &Entry, staged: &StagedEntry) -> bool {
    let same_mode = entry.meta.mode == staged.meta.mode;
    match (&entry.node, &staged.node) {
        (Node::File { len: a, content: x }, StagedNode::File { len: b, content: y }) => same_mode && a == b && x == y,
        (Node::Symlink { target: a }, StagedNode::Symlink { target: b }) => a == b,
        (Node::Dir { .. }, StagedNode::Dir) => same_mode,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, file, path};

    #[test]
    fn without_a_staged_change_no_layer_is_opened() {
        let repo = TestRepo::on_disk();
        repo.commit(&[("a", file("1"))], "one");
        let repo = repo.reopen();
        for layer in std::fs::read_dir(repo.folder.path().join(".digstore/layers")).unwrap() {
            std::fs::remove_file(layer.unwrap().path()).unwrap();
        }
        let found = status(&repo, &Options::default(), &Silent).unwrap();
        assert_eq!(found.changed, [Item { path: path("a"), change: WorkChange::Deleted }]);
        repo.stage(&[("a", None)]);
        assert!(status(&repo, &Options::default(), &Silent).is_err());
    }
}
