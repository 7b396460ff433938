//! What is wanted beside what is tracked and what is on disk, path by path.

use std::sync::Arc;

use rayon::prelude::*;

use super::Target;
use super::decide::Planner;
use crate::base::disk::{FileKind, Stat};
use crate::base::monitor::Monitor;
use crate::model::path::RepoPath;
use crate::model::tree::{Entry, Node};
use crate::ops::Result;
use crate::ops::compare::{WorkChange, same_content, work_changes};
use crate::ops::materialize::restored_mode;
use crate::ops::scan::{Pair, pair, walk_along};
use crate::ops::status::is_version;
use crate::repo::Repository;
use crate::store::objects::ObjectStore;
use crate::world::dirs::Folders;

/// What is on disk and not plainly right, and what is wanted there.
type Doubtful = (Option<Entry>, Pair);

/// Joins target with staging and disk, and decides on what differs: at once on what is not on disk, of which there may be a million
/// paths, on the rest when as much has come together as may be in memory.
pub(super) fn look(
    repo: &Repository,
    target: &mut Target<'_>,
    planner: &mut Planner<'_>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let (state, scope) = (repo.journal().read(), planner.scope);
    let mut ignored = Ignored { folders: Folders::new(Arc::clone(repo.work())), missing: None };
    let mut doubtful = Vec::new();
    let at_once = repo.settings().paths_at_once;
    let mut sort_out = |target: Option<Entry>, mut pair: Pair| {
        if target.is_some() && pair.disk.is_none() {
            pair.disk = ignored.stat(&pair.path);
            planner.plan.hidden.extend(pair.disk.map(|_| pair.path.clone()));
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
                if doubtful.len() < at_once {
                    return Ok(());
                }
                settle(repo, std::mem::take(&mut doubtful), planner, monitor)
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
        found.beside.problems().for_each(|problem| monitor.problem(problem));
        paired?;
        Ok(std::mem::take(&mut found.beside.leftovers))
    })?;
    while let Some((path, entry)) = wanted {
        sort_out(Some(entry), absent(path))?;
        wanted = target.next().transpose()?;
    }
    let in_scope = |(path, _): &(RepoPath, FileKind)| scope.paths.contains(path);
    planner.plan.leftovers.extend(leftovers.into_iter().filter(in_scope));
    settle(repo, doubtful, planner, monitor)
}

/// Compares what is on disk with what was recorded and what is wanted, on all processors, and decides.
fn settle(repo: &Repository, doubtful: Vec<Doubtful>, planner: &mut Planner<'_>, monitor: &dyn Monitor) -> Result<()> {
    let objects = planner.objects;
    let changes = work_changes(repo, &doubtful.iter().map(|(_, pair)| pair).collect::<Vec<_>>(), monitor);
    let equals: Vec<bool> = repo.pools().cpu().install(|| {
        let equals = |((target, pair), change): (&Doubtful, &WorkChange)| {
            target.as_ref().is_some_and(|target| equals_target(objects, repo, target, pair, *change))
        };
        doubtful.par_iter().zip(&changes).map(equals).collect()
    });
    for (((target, pair), change), equal) in doubtful.into_iter().zip(changes).zip(equals) {
        planner.decide(target, pair, change, equal)?;
    }
    Ok(())
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
        let stat = self.folders.stat(path).unwrap_or(None);
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
            disk.kind == FileKind::Symlink && folders.read_link(&pair.path).is_ok_and(|found| found == *link)
        }
    }
}
