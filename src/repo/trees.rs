//! Walking and comparing stored trees.

use std::sync::Arc;

use super::{RepoError, Repository};
use crate::model::id::CommitId;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::tree::{Entry, Node, Tree};
use crate::store::objects::ObjectStore;

/// Deeper trees cannot be written to a disk: a path of one-letter names has this many parts at most.
pub const MAX_DEPTH: usize = 2048;

/// Something at a path that differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeChange {
    /// Where.
    pub path: RepoPath,
    /// What was there.
    pub old: Option<Entry>,
    /// What is there now.
    pub new: Option<Entry>,
}

impl Repository {
    /// The root tree of a commit; the empty tree for none.
    pub fn root_tree(&self, commit: Option<&CommitId>) -> Result<Arc<Tree>, RepoError> {
        match commit {
            Some(id) => {
                let objects = self.objects();
                Ok(objects.tree(&objects.commit(id)?.tree)?)
            }
            None => Ok(Arc::default()),
        }
    }
}

/// The entry at a path; `None` if there is none. The root has no entry.
pub fn lookup(objects: &ObjectStore, root: &Arc<Tree>, path: &RepoPath) -> Result<Option<Entry>, RepoError> {
    let mut names = path.names().peekable();
    let mut tree = Arc::clone(root);
    while let Some(name) = names.next() {
        let Some(entry) = tree.get(name) else { return Ok(None) };
        if names.peek().is_none() {
            return Ok(Some(entry.clone()));
        }
        let Node::Dir { tree: id } = entry.node else { return Ok(None) };
        tree = objects.tree(&id)?;
    }
    Ok(None)
}

/// Entries of a tree in tree order, read as they are reached; a folder comes before its content.
#[derive(Debug)]
pub struct Entries {
    objects: Arc<ObjectStore>,
    /// Folders on the way to the next entry, and how far they have been gone through.
    open: Vec<(RepoPath, Arc<Tree>, usize)>,
    scopes: Scopes,
}

impl Entries {
    /// Starts at the first entry.
    pub fn new(objects: Arc<ObjectStore>, root: Arc<Tree>) -> Self {
        Self::below(objects, &RepoPath::root(), root)
    }

    /// The same of a tree that stands at a path.
    pub fn below(objects: Arc<ObjectStore>, at: &RepoPath, tree: Arc<Tree>) -> Self {
        Self { objects, open: vec![(at.clone(), tree, 0)], scopes: Scopes::everything() }
    }

    /// Only those in scopes. No other folders are read than those that lead there.
    pub fn within(self, scopes: Scopes) -> Self {
        Self { scopes, ..self }
    }

    fn step(&mut self) -> Result<Option<(RepoPath, Entry)>, RepoError> {
        while let Some((at, tree, next)) = self.open.last_mut() {
            let Some(entry) = tree.entries().get(*next).cloned() else {
                self.open.pop();
                continue;
            };
            *next += 1;
            let too_deep = |at: &RepoPath| RepoError::TooDeep(at.to_string());
            let path = at.join(&entry.name).map_err(|_| too_deep(at))?;
            let is_within = self.scopes.contains(&path);
            if !is_within && !self.scopes.lead_below(&path) {
                continue;
            }
            if let Node::Dir { tree: id } = entry.node {
                if self.open.len() > MAX_DEPTH {
                    return Err(too_deep(&path));
                }
                self.open.push((path.clone(), self.objects.tree(&id)?, 0));
            }
            if is_within {
                return Ok(Some((path, entry)));
            }
        }
        Ok(None)
    }
}

impl Iterator for Entries {
    type Item = Result<(RepoPath, Entry), RepoError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// What differs in scopes between two trees, in tree order, each change as it is found. Equal subtrees are not read, nor those
/// outside of the scopes. Times do not count as a difference.
pub fn diff<E: From<RepoError>>(
    objects: &ObjectStore,
    old: &Tree,
    new: &Tree,
    scopes: &Scopes,
    each: &mut dyn FnMut(TreeChange) -> Result<(), E>,
) -> Result<(), E> {
    diff_level(objects, old, new, scopes, &RepoPath::root(), 0, each)
}

fn diff_level<E: From<RepoError>>(
    objects: &ObjectStore,
    old: &Tree,
    new: &Tree,
    scopes: &Scopes,
    at: &RepoPath,
    depth: usize,
    each: &mut dyn FnMut(TreeChange) -> Result<(), E>,
) -> Result<(), E> {
    if depth > MAX_DEPTH {
        return Err(RepoError::TooDeep(at.to_string()).into());
    }
    let mut names: Vec<&[u8]> = old.entries().iter().chain(new.entries()).map(|e| e.name.as_slice()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (a, b) = (old.get(name), new.get(name));
        let same = matches!((a, b), (Some(a), Some(b)) if a.same_version(b));
        if same {
            continue;
        }
        let path = at.join(name).map_err(|_| RepoError::TooDeep(at.to_string()))?;
        let is_within = scopes.contains(&path);
        if !is_within && !scopes.lead_below(&path) {
            continue;
        }
        // Two folders that differ below only are no change themselves.
        let is_dir = |entry: Option<&Entry>| matches!(entry, Some(Entry { node: Node::Dir { .. }, .. }));
        let folders_of_same_mode =
            is_dir(a) && is_dir(b) && a.map(|entry| entry.meta.mode) == b.map(|entry| entry.meta.mode);
        if is_within && !folders_of_same_mode {
            each(TreeChange { path: path.clone(), old: a.cloned(), new: b.cloned() })?;
        }
        if is_dir(a) || is_dir(b) {
            let below = |entry: Option<&Entry>| match entry {
                Some(Entry { node: Node::Dir { tree }, .. }) => objects.tree(tree).map_err(RepoError::from),
                _ => Ok(Arc::default()),
            };
            diff_level(objects, below(a)?.as_ref(), below(b)?.as_ref(), scopes, &path, depth + 1, each)?;
        }
    }
    Ok(())
}
