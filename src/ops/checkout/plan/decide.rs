//! What becomes of a path: from what is wanted there, what is tracked, what is on disk, and what HEAD has.

use std::sync::Arc;

use super::{Plan, Removal, Scope};
use crate::base::disk::FileKind;
use crate::model::path::RepoPath;
use crate::model::staging::SeenStat;
use crate::model::tree::{Entry, Node, Tree};
use crate::ops::Result;
use crate::ops::compare::WorkChange;
use crate::ops::materialize::restored_mode;
use crate::ops::scan::Pair;
use crate::ops::status::is_version;
use crate::repo::trees;
use crate::store::objects::ObjectStore;

/// Decides path by path, and collects what follows.
pub(super) struct Planner<'a> {
    pub objects: &'a ObjectStore,
    pub head: Arc<Tree>,
    pub generation: u64,
    pub scope: &'a Scope,
    pub plan: Plan,
    /// Kept files and links where the target has folders; in the way if something in those folders has to be written.
    pub not_folders: Vec<RepoPath>,
    /// Folders that give way to a file or link: nothing in them can be kept.
    pub replaced: Vec<RepoPath>,
}

impl Planner<'_> {
    /// Decides about a path. `equals_target` says that what is on disk was found to be what is wanted.
    pub fn decide(&mut self, target: Option<Entry>, pair: Pair, change: WorkChange, equals_target: bool) -> Result<()> {
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
        // A folder is what is wanted whatever its mode is.
        let stays = untouched && (pair.deleted || change == WorkChange::Mode);
        if let Some(disk) = pair.disk.filter(|_| equals_target && !stays) {
            if matches!(target.node, Node::Dir { .. }) && restored_mode(disk.mode) != restored_mode(target.meta.mode) {
                if self.scope.force && change == WorkChange::Mode {
                    self.plan.lost.push(path.clone());
                }
                self.plan.folder_meta.push((path.clone(), target.clone()));
            }
            return self.plan.adopt(&path, &target, &disk);
        }
        if untouched && (pair.deleted || staged_only || (pair.disk.is_some() && change != WorkChange::Same)) {
            if matches!(target.node, Node::Dir { .. }) && pair.disk.is_some_and(|disk| disk.kind != FileKind::Dir) {
                self.not_folders.push(path.clone());
            }
            return self.plan.kept.push(path);
        }
        match (&pair.disk, &pair.staged, change) {
            (None, ..) => {}
            // Content that staging alone has would be forgotten when staging follows HEAD.
            (Some(_), Some(_), WorkChange::Same) if !(staged_only && self.scope.moves_head) => {}
            (Some(_), ..) if self.scope.force => self.plan.lost.push(path.clone()),
            // Only the mode of a tracked file differs; its content is stored.
            (Some(_), Some(_), WorkChange::Mode) => {}
            (Some(_), ..) => return self.plan.conflicts.push(path),
        }
        match &target.node {
            Node::Dir { .. } => {
                let in_the_way = pair.disk.as_ref().filter(|disk| disk.kind != FileKind::Dir);
                self.plan.removals.extend(in_the_way.map(|disk| Removal::new(path.clone(), disk)));
                self.plan.folders.push(path.clone());
                self.plan.folder_meta.push((path, target));
            }
            _ => {
                let (in_the_way, replaced) = match &pair.disk {
                    Some(disk) if disk.kind == FileKind::Dir => (Some(disk), None),
                    disk => (None, disk.as_ref()),
                };
                if let Some(disk) = in_the_way {
                    self.plan.removals.push(Removal::new(path.clone(), disk));
                    self.replaced.push(path.clone());
                }
                self.plan.add(&path, &target, replaced.map(SeenStat::from));
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
                    self.plan.removals.push(Removal::new(path, &disk));
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
                }
                self.plan.removals.push(Removal::new(path.clone(), &disk));
                self.plan.forgotten.push(path);
            }
        }
    }
}

/// The same version, folders by mode alone: their content has entries of its own.
fn same(a: &Entry, b: &Entry) -> bool {
    match (&a.node, &b.node) {
        (Node::Dir { .. }, Node::Dir { .. }) => a.meta.mode == b.meta.mode,
        _ => a.same_version(b),
    }
}
