//! What is referred to: from HEAD, branches, tags, staging, checkpoints, the operations that can be undone, and what is known
//! of the looks of files.

use hashbrown::HashSet;

use crate::base::monitor::Monitor;
use crate::format::table::prefix_of;
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
    /// Chunks refer to nothing, and there are many: the first bytes of their ids do, a quarter of the memory. Whatever has the same
    /// ones stays as well; among a billion chunks that is not one by chance.
    chunks: HashSet<u64>,
}

impl Live {
    /// Is the object referred to? What is not may be taken for it, but not the other way round.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.chunks.contains(&prefix_of(id.digest())) || self.ids.contains(id)
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
    let mut chunks = HashSet::new();
    let mut leads_on = |(id, kind): &Reference| {
        if *kind == ObjectKind::Chunk {
            chunks.insert(prefix_of(id.digest()));
        }
        *kind != ObjectKind::Chunk
    };
    let mut waiting = Vec::new();
    roots(repo, leave_out, undo, &mut |root| waiting.extend(Some(root).filter(&mut leads_on)))?;
    let ids = reach(waiting, monitor, &mut |reference| {
        let mut found = stored_references(&objects, reference)?;
        found.retain(&mut leads_on);
        Ok(found)
    })?;
    Ok(Live { ids, chunks })
}

/// Calls `root` with everything from which the rest is reached, without the checkpoints `leave_out`.
pub fn roots(repo: &Repository, leave_out: &[u64], undo: Undoable, root: &mut dyn FnMut(Reference)) -> Result<()> {
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
    commits.chain(trees.into_iter().map(|id| (id.into(), ObjectKind::Tree))).for_each(&mut *root);
    let tables = areas.iter().map(|area| worktable::entries(&state, area)).chain([staging::entries(&state)]);
    for entries in tables {
        let mut entries = entries?;
        while let Some((_, entry)) = entries.next()? {
            if let StagedNode::File { content, .. } = &entry.node {
                content_reference(content).into_iter().for_each(&mut *root);
            }
        }
    }
    Ok(())
}
