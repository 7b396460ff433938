//! `rm`: remove paths from the work tree and from the next commit.

use std::sync::Arc;

use serde::Serialize;

use super::add::removal;
use super::compare::{WorkChange, work_changes};
use super::scan::Pair;
use super::{Error, Result};
use crate::base::disk::{FileKind, IoContext, Stat};
use crate::base::monitor::Monitor;
use crate::model::path::RepoPath;
use crate::model::staging::{SeenStat, StagedNode};
use crate::repo::{Repository, trees};
use crate::store::{refs, staging};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::write::{Expect, remove};

/// What to remove.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Tracked paths, and all that is tracked below them if `recursive`.
    pub paths: Vec<RepoPath>,
    /// Folders too.
    pub recursive: bool,
    /// From the next commit only; the work tree stays.
    pub cached: bool,
    /// Even if the content is stored nowhere.
    pub force: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// Paths that are no longer tracked.
    pub removed: Vec<RepoPath>,
    /// Was this a look only?
    pub dry_run: bool,
}

/// Removes tracked paths.
pub fn rm(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let lock = (!options.dry_run).then(|| repo.lock("rm")).transpose()?;
    let pairs = tracked_pairs(repo, options)?;
    if !options.cached && !options.force {
        let lost = only_here(repo, &pairs, monitor)?;
        if !lost.is_empty() {
            return Err(Error::WouldLose { verb: "rm", paths: lost });
        }
    }
    let removed = pairs.iter().map(|pair| pair.path.clone()).collect();
    let outcome = Outcome { removed, dry_run: options.dry_run };
    let Some(lock) = lock else { return Ok(outcome) };
    let head = repo.root_tree(repo.head_commit()?.as_ref())?;
    let generation = refs::generation(&repo.journal().read())? + 1;
    let mut ops = Vec::new();
    let (mut folders, mut failure) = (Folders::new(Arc::clone(repo.work())), None);
    // Content before its folder; a folder with something untracked in it stays.
    for pair in pairs.iter().rev() {
        if let Some(stat) = pair.disk.filter(|_| !options.cached)
            && let Err(error) = remove_seen(repo, &mut folders, &pair.path, &stat)
        {
            failure.get_or_insert(error);
            continue;
        }
        let in_head = trees::lookup(&repo.objects(), &head, &pair.path)?.is_some();
        ops.push(removal(&pair.path, in_head, generation));
    }
    repo.commit(&lock, &[], ops)?;
    failure.map_or(Ok(outcome), Err)
}

/// Removes what looks as it did when it was compared.
fn remove_seen(repo: &Repository, folders: &mut Folders, path: &RepoPath, seen: &Stat) -> Result<()> {
    let shown = || repo.work().path().join(path.as_os_str());
    let now = folders.stat(path).on("look at", shown())?;
    // When one of several names goes, the change time of the others moves.
    let expect = if seen.links > 1 { Expect::SeenLinked } else { Expect::Seen };
    if seen.kind != FileKind::Dir && !expect(SeenStat::from(seen)).allows(now.as_ref()) {
        let message = format!("'{path}' was changed meanwhile; it was left as it is");
        return Err(Error::Refused { message, hint: "what else was to be removed is; look at 'digstore status'" });
    }
    let dir = folders.open_parent(path, IfAbsent::Fail).on("open the folder of", shown())?;
    remove(dir.as_ref(), path, seen.kind).on("remove", shown())?;
    Ok(())
}

/// What is tracked at and below the paths, beside what is on disk there.
fn tracked_pairs(repo: &Repository, options: &Options) -> Result<Vec<Pair>> {
    let state = repo.journal().read();
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let mut pairs: Vec<Pair> = Vec::new();
    for scope in &options.paths {
        let entries = staging::entries_within(&state, scope)?;
        let mut entries = entries.into_iter().filter(|(_, entry)| entry.node != StagedNode::Deleted).peekable();
        let Some((first, entry)) = entries.peek() else {
            return Err(Error::NoSuchPath { path: scope.clone(), place: "tracked".to_owned() });
        };
        if (first != scope || entry.node == StagedNode::Dir) && !options.recursive {
            return Err(Error::Refused {
                message: format!("'{scope}' is a folder"),
                hint: "remove it and all that is tracked in it with --recursive",
            });
        }
        for (path, entry) in entries {
            let disk = folders.stat(&path).unwrap_or(None);
            pairs.push(Pair { path, staged: Some(entry), deleted: false, disk });
        }
    }
    pairs.sort_by(|a, b| a.path.cmp(&b.path));
    pairs.dedup_by(|a, b| a.path == b.path);
    Ok(pairs)
}

/// Paths whose content on disk, or in staging, is in no commit.
fn only_here(repo: &Repository, pairs: &[Pair], monitor: &dyn Monitor) -> Result<Vec<RepoPath>> {
    let head = repo.root_tree(repo.head_commit()?.as_ref())?;
    let changes = work_changes(repo, pairs, monitor);
    let mut lost = Vec::new();
    for (pair, change) in pairs.iter().zip(changes) {
        let (Some(staged), Some(disk)) = (&pair.staged, pair.disk) else { continue };
        if disk.kind == FileKind::Dir {
            continue;
        }
        let committed = trees::lookup(&repo.objects(), &head, &pair.path)?
            .is_some_and(|entry| super::status::is_version(&entry, staged));
        if !committed || !matches!(change, WorkChange::Same | WorkChange::Mode) {
            lost.push(pair.path.clone());
        }
    }
    Ok(lost)
}
