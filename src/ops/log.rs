//! `log`: the commits that led to a revision, newest first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use hashbrown::HashSet;
use serde::Serialize;

use super::{Error, Result};
use crate::base::clock::UnixNanos;
use crate::base::monitor::Monitor;
use crate::model::commit::Commit;
use crate::model::id::{CommitId, TreeId};
use crate::model::path::RepoPath;
use crate::model::tree::Entry;
use crate::repo::trees::lookup;
use crate::repo::{RepoError, Repository};
use crate::store::objects::ObjectStore;
use crate::store::refs::{self, RefKind};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where to start; HEAD if not given.
    pub revision: Option<String>,
    /// At most this many commits.
    pub max_count: Option<usize>,
    /// Only commits that changed one of these; all if empty.
    pub paths: Vec<RepoPath>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Newest first; a commit always comes before its parents.
    pub commits: Vec<LogEntry>,
}

/// A commit as people want to see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Its id.
    pub id: CommitId,
    /// The root directory.
    pub tree: TreeId,
    /// What it follows.
    pub parents: Vec<CommitId>,
    /// Who made it.
    pub author: String,
    /// When, in nanoseconds since 1970.
    pub time_ns: UnixNanos,
    /// Minutes east of UTC where it was made.
    pub utc_offset_minutes: i16,
    /// What it is about.
    pub message: String,
    /// `HEAD`, branches and tags that stand for it.
    pub refs: Vec<String>,
}

/// The names that stand for each commit: `HEAD` first, then branches, then tags.
#[derive(Debug, Default)]
pub struct RefNames(BTreeMap<CommitId, Vec<String>>);

impl RefNames {
    /// Reads all names of a repository.
    pub fn read(repo: &Repository) -> Result<Self> {
        let state = repo.journal().read();
        let mut names: BTreeMap<CommitId, Vec<String>> = BTreeMap::new();
        if let Some(id) = refs::head_commit(&state)? {
            names.entry(id).or_default().push("HEAD".to_owned());
        }
        for kind in [RefKind::Branch, RefKind::Tag] {
            for (name, id) in refs::list(&state, kind)? {
                names.entry(id).or_default().push(name.as_str().to_owned());
            }
        }
        Ok(Self(names))
    }

    /// A commit together with its names.
    pub fn entry(&self, id: CommitId, commit: Commit) -> LogEntry {
        let Commit { tree, parents, author, time_ns, utc_offset_minutes, message } = commit;
        let refs = self.0.get(&id).cloned().unwrap_or_default();
        LogEntry { id, tree, parents, author, time_ns, utc_offset_minutes, message, refs }
    }
}

/// Lists commits.
pub fn log(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let start = repo.resolve(options.revision.as_deref().unwrap_or("HEAD"))?;
    let names = RefNames::read(repo)?;
    let objects = repo.objects();
    let limit = options.max_count.unwrap_or(usize::MAX);
    let mut history = History::new(&objects);
    history.push(start)?;
    let mut commits = Vec::new();
    while commits.len() < limit {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let Some((id, commit)) = history.next()? else { break };
        if options.paths.is_empty() || touches(&objects, &commit, &options.paths)? {
            commits.push(names.entry(id, commit));
        }
    }
    Ok(Outcome { commits })
}

/// Commits and all that led to them, newest first, each once.
pub struct History<'a> {
    objects: &'a ObjectStore,
    /// By time; those of the same time in the order in which they were found.
    waiting: BinaryHeap<(UnixNanos, Reverse<usize>, CommitId)>,
    /// Read when found, because their time decides their turn.
    commits: BTreeMap<CommitId, Commit>,
    seen: HashSet<CommitId>,
}

impl<'a> History<'a> {
    /// Starts with nothing.
    pub fn new(objects: &'a ObjectStore) -> Self {
        Self { objects, waiting: BinaryHeap::new(), commits: BTreeMap::new(), seen: HashSet::new() }
    }

    /// Adds a commit to start from.
    pub fn push(&mut self, id: CommitId) -> std::result::Result<(), RepoError> {
        if self.seen.insert(id) {
            let commit = self.objects.commit(&id)?;
            self.waiting.push((commit.time_ns, Reverse(self.seen.len()), id));
            self.commits.insert(id, commit);
        }
        Ok(())
    }

    /// The next commit.
    #[expect(clippy::should_implement_trait, reason = "each step can fail, and callers use `?` in a while loop")]
    pub fn next(&mut self) -> std::result::Result<Option<(CommitId, Commit)>, RepoError> {
        let Some((_, _, id)) = self.waiting.pop() else { return Ok(None) };
        let Some(commit) = self.commits.remove(&id) else { return Ok(None) };
        for parent in &commit.parents {
            self.push(*parent)?;
        }
        Ok(Some((id, commit)))
    }
}

/// Does a commit differ from its first parent at one of the paths?
fn touches(objects: &ObjectStore, commit: &Commit, paths: &[RepoPath]) -> Result<bool> {
    let new = objects.tree(&commit.tree)?;
    let old = match commit.parents.first() {
        Some(parent) => objects.tree(&objects.commit(parent)?.tree)?,
        None => std::sync::Arc::default(),
    };
    if new == old {
        return Ok(false);
    }
    for path in paths {
        let differs = path.is_root() || {
            let (a, b) = (lookup(objects, &old, path)?, lookup(objects, &new, path)?);
            !same(a.as_ref(), b.as_ref())
        };
        if differs {
            return Ok(true);
        }
    }
    Ok(false)
}

fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same_version(b),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, file, path};

    fn messages(repo: &TestRepo, options: &Options) -> Vec<String> {
        log(repo, options, &Silent).unwrap().commits.into_iter().map(|c| c.message).collect()
    }

    #[test]
    fn commits_come_newest_first_and_once() {
        let repo = TestRepo::in_memory();
        assert!(matches!(log(&repo, &Options::default(), &Silent), Err(Error::Repo(RepoError::NoCommits))));
        let base = repo.commit(&[("a", file("1"))], "base");
        let left = repo.commit_onto(&[("a", file("2"))], "left", vec![base]);
        let right = repo.commit_onto(&[("a", file("1")), ("b", file("3"))], "right", vec![base]);
        repo.commit_onto(&[("a", file("2")), ("b", file("3"))], "merge", vec![left, right]);
        repo.set_ref(RefKind::Tag, "v1", &left);
        assert_eq!(messages(&repo, &Options::default()), ["merge", "right", "left", "base"]);
        let one = Options { max_count: Some(1), revision: Some("v1".into()), ..Options::default() };
        let found = log(&repo, &one, &Silent).unwrap().commits;
        assert_eq!((found.len(), found[0].id, found[0].refs.clone()), (1, left, vec!["v1".to_owned()]));
        let head = &log(&repo, &Options::default(), &Silent).unwrap().commits[0];
        assert_eq!(head.refs, ["HEAD", "main"]);
    }

    #[test]
    fn paths_keep_the_commits_that_touch_them() {
        let repo = TestRepo::in_memory();
        repo.commit(&[("d/a", file("1")), ("b", file("1"))], "one");
        repo.commit(&[("d/a", file("1")), ("b", file("2"))], "two");
        repo.commit(&[("b", file("2"))], "three");
        let of = |paths: &[&str]| {
            let paths = paths.iter().map(|p| path(p)).collect();
            messages(&repo, &Options { paths, ..Options::default() })
        };
        assert_eq!(of(&["d/a"]), ["three", "one"]);
        assert_eq!(of(&["d"]), ["three", "one"]);
        assert_eq!(of(&["b"]), ["two", "one"]);
        assert_eq!(of(&["b", "d"]), ["three", "two", "one"]);
        assert_eq!(of(&["x"]), [""; 0]);
        assert_eq!(of(&[""]), ["three", "two", "one"]);
    }
}
