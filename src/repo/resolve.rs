//! From what people write to the commit that it means.

use super::{RepoError, Repository};
use crate::model::id::{CommitId, ObjectId, ObjectKind};
use crate::model::refs::{RefName, Revision, RevisionBase};
use crate::store::refs::{self, RefKind};

impl Repository {
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
            RevisionBase::Checkpoint(number) => return Err(RepoError::UnknownCheckpoint { number: *number }),
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
