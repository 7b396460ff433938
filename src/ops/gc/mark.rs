//! What is referred to: from HEAD, branches, tags, staging, checkpoints, the operations that can be undone, and what is known
//! of the looks of files.

use hashbrown::HashSet;

use crate::base::monitor::Monitor;
use crate::model::checkpoint::{Area, Checkpoint};
use crate::model::id::{ObjectId, ObjectKind, TreeId};
use crate::model::refs::Head;
use crate::model::staging::StagedNode;
use crate::ops::Result;
use crate::ops::reach::{Reference, content_reference, reach, stored_references};
use crate::repo::Repository;
use crate::store::checkpoints::{self, Listing};
use crate::store::{operations, refs, staging, worktable};

/// What is referred to.
#[derive(Debug)]
pub struct Live {
    ids: HashSet<ObjectId>,
}

impl Live {
    /// Is the object referred to?
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.ids.contains(id)
    }
}

/// What of that which only `undo` could bring back counts as referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undoable {
    /// All of it.
    All,
    /// Not the deleted checkpoints.
    ButDeletions,
    /// Nothing.
    Nothing,
}

/// Finds what is referred to, without the checkpoints `leave_out`.
pub fn mark(repo: &Repository, leave_out: &[u64], undo: Undoable, monitor: &dyn Monitor) -> Result<Live> {
    let objects = repo.objects();
    let ids = reach(roots(repo, leave_out, undo)?, monitor, &mut |reference| stored_references(&objects, reference))?;
    Ok(Live { ids })
}

/// What everything is reached from, without the checkpoints `leave_out`.
pub fn roots(repo: &Repository, leave_out: &[u64], undo: Undoable) -> Result<Vec<Reference>> {
    let leave_out: HashSet<u64> = leave_out.iter().copied().collect();
    let state = repo.journal().read();
    let mut commits = refs::tips(&state)?;
    let bundles = worktable::bundles(&state)?;
    let areas: Vec<Area> = bundles.into_iter().map(|(path, _)| Area::Bundle(path)).chain([Area::WorkTree]).collect();
    let mut trees: Vec<TreeId> = Vec::new();
    for area in &areas {
        trees.extend(worktable::base(&state, area)?);
    }
    for operation in operations::list(&state)?.into_iter().filter(|_| undo != Undoable::Nothing) {
        commits.extend(operation.refs.iter().flat_map(|step| [step.before, step.after]).flatten());
        for head in operation.head.iter().flat_map(|(before, after)| [before, after]) {
            commits.extend(if let Head::Detached(id) = head { Some(*id) } else { None });
        }
        if undo == Undoable::All {
            trees.extend(operation.dropped.iter().filter_map(Checkpoint::tree));
        }
    }
    checkpoints::visit_back(&state, &Listing::All, None, &mut |checkpoint| {
        trees.extend(checkpoint.tree().filter(|_| !leave_out.contains(&checkpoint.number)));
        Ok(true)
    })?;
    let commits = commits.into_iter().map(|id| (id.into(), ObjectKind::Commit));
    let mut roots: Vec<Reference> = commits.chain(trees.into_iter().map(|id| (id.into(), ObjectKind::Tree))).collect();
    let tables = areas.iter().map(|area| worktable::entries(&state, area)).chain([staging::entries(&state)]);
    for entries in tables {
        let mut entries = entries?;
        while let Some((_, entry)) = entries.next()? {
            roots.extend(match &entry.node {
                StagedNode::File { content, .. } => content_reference(content),
                _ => None,
            });
        }
    }
    Ok(roots)
}
