//! From what people write to the commit that it means.

use std::sync::Arc;

use super::{RepoError, Repository};
use crate::model::id::{CommitId, ObjectId, ObjectKind, TreeId};
use crate::model::refs::{RefName, Revision, RevisionBase};
use crate::model::tree::Tree;
use crate::store::checkpoints;
use crate::store::refs::{self, RefKind};

/// A stored state of the work tree that can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A commit.
    Commit(CommitId),
    /// A checkpoint and its tree.
    Checkpoint(u64, TreeId),
}

impl Repository {
    /// The commit or checkpoint that a revision names.
    pub fn resolve_point(&self, text: &str) -> Result<Point, RepoError> {
        let checkpoint = Revision::parse(text).and_then(|revision| match revision {
            Revision { base: RevisionBase::Checkpoint(number), generations: 0 } => Some(number),
            _ => None,
        });
        let Some(number) = checkpoint else { return self.resolve(text).map(Point::Commit) };
        let found = checkpoints::get(&self.journal().read(), number)?;
        let found = found.ok_or(RepoError::UnknownCheckpoint { number })?;
        let tree = found.tree().ok_or(RepoError::CheckpointWithoutTree { number })?;
        Ok(Point::Checkpoint(number, tree))
    }

    /// The tree of a commit or checkpoint.
    pub fn tree_of(&self, point: &Point) -> Result<Arc<Tree>, RepoError> {
        match point {
            Point::Commit(id) => self.root_tree(Some(id)),
            Point::Checkpoint(_, tree) => Ok(self.objects().tree(tree)?),
        }
    }

    /// The commit that a revision names.
    pub fn resolve(&self, text: &str) -> Result<CommitId, RepoError> {
        let revision = Revision::parse(text).ok_or_else(|| RepoError::BadRevision { revision: text.to_owned() })?;
        let mut id = self.resolve_base(&revision)?;
        let objects = self.objects();
        for _ in 0..revision.generations {
            let beyond = || RepoError::BeyondRoot { revision: text.to_owned() };
            id = *objects.commit(&id)?.parents.first().ok_or_else(beyond)?;
        }
        Ok(id)
    }

    fn resolve_base(&self, revision: &Revision) -> Result<CommitId, RepoError> {
        let name = match &revision.base {
            RevisionBase::Head => return self.head_commit()?.ok_or(RepoError::NoCommits),
            RevisionBase::Checkpoint(number) => return Err(RepoError::NotACommit { number: *number }),
            RevisionBase::Name(name) => name,
        };
        if let Ok(ref_name) = RefName::parse(name) {
            let state = self.journal().read();
            for kind in [RefKind::Branch, RefKind::Tag] {
                if let Some(id) = refs::get(&state, kind, &ref_name)? {
                    return Ok(id);
                }
            }
        }
        let unknown = || RepoError::UnknownRevision { revision: name.clone() };
        let prefix = revision.id_prefix().ok_or_else(unknown)?;
        let digest = |id: ObjectId| CommitId::from_digest(*id.digest());
        let candidates = self.objects().find_by_prefix(&prefix, ObjectKind::Commit)?;
        match candidates.as_slice() {
            [] => Err(unknown()),
            [one] => Ok(digest(*one)),
            many => {
                let candidates = many.iter().copied().map(digest).collect();
                Err(RepoError::AmbiguousRevision { prefix: name.clone(), candidates })
            }
        }
    }

    /// The commit of HEAD; `None` before the first one.
    pub fn head_commit(&self) -> Result<Option<CommitId>, RepoError> {
        Ok(refs::head_commit(&self.journal().read())?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::base::disk::open_root;
    use crate::format::object::{encode_commit, encode_tree};
    use crate::model::commit::Commit;
    use crate::model::id::IdPrefix;
    use crate::model::tree::Tree;
    use crate::repo::Settings;

    #[test]
    fn the_start_of_an_id_names_a_commit_unless_two_begin_so() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repository::in_memory(open_root(folder.path()).unwrap(), Settings::default()).unwrap();
        let lock = repo.lock("test").unwrap();
        let mut layer = repo.new_layer().unwrap();
        let (tree, bytes) = encode_tree(&Tree::default());
        layer.add(tree.into(), ObjectKind::Tree, &bytes, None).unwrap();
        // Among a few hundred ids, two begin with the same 16 bits.
        let mut by_start: HashMap<String, CommitId> = HashMap::new();
        let (first, second) = (0..)
            .find_map(|number| {
                let commit = Commit {
                    tree,
                    parents: Vec::new(),
                    author: String::new(),
                    time_ns: 0,
                    utc_offset_minutes: 0,
                    message: format!("{number}"),
                };
                let (id, bytes) = encode_commit(&commit);
                layer.add(id.into(), ObjectKind::Commit, &bytes, None).unwrap();
                by_start.insert(id.to_string()[..IdPrefix::MIN_HEX_LEN].to_owned(), id).map(|other| (other, id))
            })
            .unwrap();
        repo.commit(&lock, &[layer.seal().unwrap()], Vec::new()).unwrap();
        let start = &first.to_string()[..IdPrefix::MIN_HEX_LEN];
        match repo.resolve(start) {
            Err(RepoError::AmbiguousRevision { candidates, .. }) => {
                assert!(candidates.contains(&first) && candidates.contains(&second));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(repo.resolve(&first.to_string()).unwrap(), first);
        assert_eq!(repo.resolve(&second.short()).unwrap(), second);
        assert!(matches!(repo.resolve("0123456789abcdef"), Err(RepoError::UnknownRevision { .. })));
        assert!(matches!(repo.resolve("012"), Err(RepoError::UnknownRevision { .. })));
    }
}
