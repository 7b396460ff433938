//! `mv`: rename in the work tree and in the next commit.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde::Serialize;

use super::add::removal;
use super::{Error, Result};
use crate::base::disk::{FileKind, IoContext};
use crate::base::monitor::Monitor;
use crate::model::path::RepoPath;
use crate::model::staging::{SeenStat, StagedEntry, StagedNode};
use crate::model::tree::Meta;
use crate::repo::{Repository, trees};
use crate::store::{refs, staging};
use crate::world::dirs::{Folders, IfAbsent};

/// What to move.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tracked paths.
    pub from: Vec<RepoPath>,
    /// A new name, or a folder to move into.
    pub to: RepoPath,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// A path that moved.
#[derive(Debug, Clone, Serialize)]
pub struct Move {
    /// Where it was.
    pub from: RepoPath,
    /// Where it is.
    pub to: RepoPath,
}

/// What was moved.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The moves, in order.
    pub moved: Vec<Move>,
    /// Was this a look only?
    pub dry_run: bool,
}

/// Renames tracked paths. Nothing is overwritten.
pub fn mv(repo: &Repository, options: &Options, _monitor: &dyn Monitor) -> Result<Outcome> {
    let lock = (!options.dry_run).then(|| repo.lock("mv")).transpose()?;
    let mut outcome = Outcome { moved: plan(repo, options)?, dry_run: options.dry_run };
    let Some(lock) = lock else { return Ok(outcome) };
    let done = std::mem::take(&mut outcome.moved);
    for step in done {
        rename(repo, &step)?;
        // One batch a move: if a later one fails, staging tells the truth about the earlier ones.
        let ops = record(repo, &step)?;
        repo.commit(&lock, &[], ops)?;
        outcome.moved.push(step);
    }
    Ok(outcome)
}

/// Checks all moves before the first is made.
fn plan(repo: &Repository, options: &Options) -> Result<Vec<Move>> {
    let state = repo.journal().read();
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let mut kind_of = |path: &RepoPath| {
        if path.is_root() {
            return Some(FileKind::Dir);
        }
        folders.stat(path).ok().flatten().map(|stat| stat.kind)
    };
    let into_folder = kind_of(&options.to) == Some(FileKind::Dir);
    let mut moves = Vec::new();
    for from in &options.from {
        let refused = |message: String, hint| Err(Error::Refused { message, hint });
        if from.is_root() || !staging::is_tracked(&state, from)? {
            return Err(Error::NoSuchPath { path: from.clone(), place: "tracked".to_owned() });
        }
        let to = if into_folder { options.to.join(from.file_name())? } else { options.to.clone() };
        if options.from.len() > 1 && !into_folder {
            return refused(
                format!("'{}' is not a folder", options.to),
                "several paths can only be moved into a folder",
            );
        }
        if to.is_within(from) {
            return refused(format!("'{from}' cannot be moved into itself"), "choose another name");
        }
        if kind_of(&to).is_some() {
            return refused(format!("'{to}' exists already"), "remove it first, or choose another name");
        }
        moves.push(Move { from: from.clone(), to });
    }
    Ok(moves)
}

fn rename(repo: &Repository, step: &Move) -> Result<()> {
    let shown = || repo.work().path().join(step.to.as_os_str());
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let source = folders.open_parent(&step.from, IfAbsent::Fail).on("open the folder of", shown())?;
    let target = folders.open_parent(&step.to, IfAbsent::Fail).on("open the folder of", shown())?;
    let (from, to) = (OsStr::from_bytes(step.from.file_name()), OsStr::from_bytes(step.to.file_name()));
    Ok(source.rename_new_into(from, target.as_ref(), to).on("rename to", shown())?)
}

/// Staging follows: the entries move with their content, the old paths go.
fn record(repo: &Repository, step: &Move) -> Result<Vec<crate::format::journal::Op>> {
    let state = repo.journal().read();
    let head = repo.root_tree(repo.head_commit()?.as_ref())?;
    let generation = refs::generation(&state)? + 1;
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let mut ops = Vec::new();
    for path in staging::missing_folders(&state, &step.to)? {
        let Some(stat) = folders.stat(&path).on("look at", repo.work().path().join(path.as_os_str()))? else {
            continue;
        };
        let meta = Meta { mode: stat.mode, mtime_ns: stat.mtime_ns };
        let seen = SeenStat::from(&stat);
        let entry = StagedEntry { node: StagedNode::Dir, meta, seen, racy: false, generation };
        ops.push(staging::put_op(&path, &entry));
    }
    for (path, entry) in staging::entries_within(&state, &step.from)? {
        let in_head = trees::lookup(&repo.objects(), &head, &path)?.is_some();
        ops.push(removal(&path, in_head, generation));
        if entry.node == StagedNode::Deleted {
            continue;
        }
        let below = path.as_bytes().get(step.from.as_bytes().len()..).unwrap_or_default();
        let to = RepoPath::parse(&[step.to.as_bytes(), below].concat())?;
        // A rename changes the change time, nothing else: an entry that was right before is right again.
        let seen = match folders.stat(&to) {
            Ok(Some(stat)) if stat.mtime_ns == entry.seen.mtime_ns && stat.len == entry.seen.len => {
                SeenStat::from(&stat)
            }
            _ => entry.seen,
        };
        ops.push(staging::put_op(&to, &StagedEntry { seen, generation, ..entry }));
    }
    Ok(ops)
}
