//! `checkpoint restore`: the work tree, or a bundle, as a checkpoint has it, after what is there now was saved.

use serde::Serialize;

use super::create::save;
use super::ignored::{LeftOut, in_the_way};
use super::preview::{check_paths, preview};
use super::{get, session_of};
use crate::base::clock;
use crate::base::disk::FileKind;
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::bundle::BANDS_NAME;
use crate::model::checkpoint::Area;
use crate::model::id::TreeId;
use crate::model::operation::{Operation, WorkStep};
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::session::{EventKind, Status};
use crate::model::staging::{SeenStat, StagedEntry, StagedNode, is_racy};
use crate::model::tree::{Entry, Meta, Node};
use crate::ops::capture::{What, nothing, record};
use crate::ops::checkout::apply::carry_out;
use crate::ops::checkout::plan::{Plan, Removal, folders_above};
use crate::ops::materialize::{Clones, FileWrite, Written};
use crate::ops::{Error, Result};
use crate::repo::trees::{self, TreeChange};
use crate::repo::{RepoError, Repository, WriteLock};
use crate::store::journal::Batch;
use crate::store::sessions::{self, Appender};
use crate::store::{operations, snapshots, staging, worktable};

/// What to restore.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The checkpoint.
    pub number: u64,
    /// Only these paths and what is below them; all that the checkpoint is of if empty.
    pub paths: Vec<RepoPath>,
    /// Set the recorded modification times.
    pub set_times: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was restored.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The checkpoint that the work tree, or a part of it, is now equal to.
    pub number: u64,
    /// The checkpoint that holds what was there before; none for a look only.
    pub saved: Option<u64>,
    /// Files and links written; of the work tree also folders made or given another mode.
    pub written: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Files, links and folders removed.
    pub removed: u64,
    /// What could not be written or removed.
    pub failed: u64,
    /// Some of it because stored data is damaged.
    pub damaged: u64,
    /// Was this a look only?
    pub dry_run: bool,
}

/// Restores the work tree, a folder or a file.
pub fn restore(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("checkpoint.restore");
    check_paths(repo, options)?;
    if options.dry_run {
        return preview(repo, options, monitor);
    }
    let lock = repo.lock("checkpoint restore")?;
    let number = options.number;
    let request = Request {
        target: target(repo, number)?,
        number,
        paths: options.paths.clone(),
        set_times: options.set_times,
        reason: format!("before restoring @{number}"),
        summary: Some(format!("restore of checkpoint @{number}")),
    };
    let ops = session_event(repo, number)?;
    let (outcome, ops) = replace(repo, &lock, request, ops, monitor)?;
    repo.commit(&lock, &[], ops)?;
    Ok(outcome)
}

/// The tree of a checkpoint, and what it is of.
pub fn target(repo: &Repository, number: u64) -> Result<(TreeId, Area)> {
    let checkpoint = get(&repo.journal().read(), number)?;
    let target = checkpoint.tree().zip(checkpoint.area());
    Ok(target.ok_or(RepoError::CheckpointWithoutTree { number })?)
}

/// The event that tells the checkpoint's session, if that is at work here.
fn session_event(repo: &Repository, number: u64) -> Result<Vec<Op>> {
    let state = repo.journal().read();
    let Some(id) = session_of(&state, &get(&state, number)?)? else { return Ok(Vec::new()) };
    if sessions::get(&state, id)?.is_none_or(|session| session.status != Status::Active) {
        return Ok(Vec::new());
    }
    let mut events = Appender::new(&state, id, clock::now())?;
    events.append(&EventKind::Restored { number });
    Ok(events.ops())
}

/// A tree, or part of it, that is to be put in the place of what is there.
pub struct Request {
    /// The tree, and what it is of.
    pub target: (TreeId, Area),
    /// The checkpoint that holds it.
    pub number: u64,
    /// Only these paths; the whole area if empty.
    pub paths: Vec<RepoPath>,
    /// Set the recorded modification times.
    pub set_times: bool,
    /// What the checkpoint made before is about.
    pub reason: String,
    /// What the operation is called; none if it is not one to be undone, but takes one back.
    pub summary: Option<String>,
}

/// Saves what is there, replaces it, and gives what is to be recorded in one batch with `ops`.
pub fn replace(
    repo: &Repository,
    lock: &WriteLock,
    request: Request,
    ops_before: Vec<Op>,
    monitor: &dyn Monitor,
) -> Result<(Outcome, Batch)> {
    let (target, area) = &request.target;
    let saved = save(repo, lock, request.reason.clone(), What::of(area), monitor)?;
    let objects = repo.objects();
    let (now, then) = (objects.tree(&saved.tree)?, objects.tree(target)?);
    let root = area.root();
    let scopes = Scopes::or_everything(&request.paths);
    let unsaved = Scopes::new(&saved.unreadable);
    let mut in_danger = Vec::new();
    let mut left_out = LeftOut::new(repo, &then);
    let looks = Looks { repo, area };
    let (mut plan, mut folders, mut replaced) = (Plan::default(), 0, Vec::new());
    for (path, new) in folders_above(&scopes, &mut |path| Ok(trees::lookup(&objects, &then, path)?))? {
        let change = TreeChange { old: trees::lookup(&objects, &now, &path)?, new: Some(new), path };
        let is_there = change.old.as_ref().is_some_and(|old| kind_of(old) == FileKind::Dir);
        if !is_there && change.path.is_within(&root) {
            folders += 1;
            replaced.extend(change.old.as_ref().map(|_| change.path.clone()));
            add_to(&mut plan, change, &looks)?;
        }
    }
    if request.summary.is_none() {
        // To take back a restore is also to take away the folders that it made above a path; they go if nothing else is in them.
        for (path, old) in folders_above(&scopes, &mut |path| Ok(trees::lookup(&objects, &now, path)?))? {
            if path.is_within(&root) && trees::lookup(&objects, &then, &path)?.is_none() {
                add_to(&mut plan, TreeChange { path, old: Some(old), new: None }, &looks)?;
            }
        }
    }
    trees::diff(&objects, &now, &then, &scopes, &mut |change| {
        // Folders that lead to a bundle are no part of it.
        if !change.path.is_within(&root) {
            return Ok(());
        }
        if unsaved.contains(&change.path) {
            in_danger.push(change.path.clone());
        }
        if *area == Area::WorkTree {
            if let (Some(old), None) = (&change.old, &change.new)
                && left_out.has(&change.path, kind_of(old) == FileKind::Dir)?
            {
                return Ok(());
            }
            folders += u64::from(is_other_folder(&change));
        }
        add_to(&mut plan, change, &looks)
    })?;
    if !in_danger.is_empty() {
        return Err(Error::WouldLose { verb: "restoring", paths: in_danger });
    }
    plan.removals.reverse();
    plan.allow_for_hard_links();
    plan.clones = clones(repo, area, request.number)?;
    plan.leftovers = saved.leftovers.into_iter().filter(|(path, _)| scopes.contains(path)).collect();
    let in_the_way = in_the_way(repo, &plan);
    if !in_the_way.is_empty() {
        return Err(Error::WouldLose { verb: "restoring", paths: in_the_way });
    }
    let mut ops = repo.batch();
    ops.extend(ops_before);
    // Before those of what is written: it may stand where something else was removed.
    looks.ops_beside(&plan, &mut ops)?;
    let done = carry_out(repo, &plan, request.set_times, monitor, &mut |file, written| {
        Ok(looks.op_of(&file, &written)?.map_or(Ok(()), |op| ops.record(op))?)
    })?;
    let whole = request.paths.is_empty() || request.paths.iter().any(|path| root.is_within(path));
    let is_whole = whole && done.failed == 0;
    ops.extend(is_whole.then(|| worktable::parent_op(area, request.number)));
    // What stays though the target does not have it makes the disk more than the target.
    let equals_target = is_whole && left_out.found.is_empty();
    ops.push(if equals_target { worktable::base_op(area, target) } else { worktable::forget_base_op(area) });
    let paths = if whole { vec![root] } else { [request.paths, replaced].concat() };
    if let Some(summary) = request.summary
        && done.written + done.removed + folders > 0
    {
        let work = WorkStep::Replaced { saved: saved.number, paths, moved: false };
        let operation = Operation { work, ..Operation::new(clock::now(), summary) };
        ops.extend(operations::record_ops(&repo.journal().read(), operation)?);
    }
    let outcome = Outcome {
        number: request.number,
        saved: Some(saved.number),
        written: done.written + folders,
        written_bytes: done.written_bytes,
        removed: done.removed,
        failed: done.failed,
        damaged: done.damaged,
        dry_run: false,
    };
    Ok((outcome, ops))
}

/// Where clones of the bands are, if the checkpoint has a snapshot.
fn clones(repo: &Repository, area: &Area, number: u64) -> Result<Option<Clones>> {
    let (Area::Bundle(path), Some(dir)) = (area, repo.dir()) else { return Ok(None) };
    let Some(dir) = snapshots::open(dir.as_ref(), number) else { return Ok(None) };
    Ok(Some(Clones { dir, of: path.join(BANDS_NAME.as_bytes())? }))
}

/// What is recorded of paths. Nothing of it changes while the lock is held, so it is looked up when it is needed.
struct Looks<'a> {
    repo: &'a Repository,
    area: &'a Area,
}

impl Looks<'_> {
    fn work(&self, path: &RepoPath) -> Result<Option<StagedEntry>> {
        Ok(worktable::get(&self.repo.journal().read(), self.area, path)?)
    }

    fn staged(&self, path: &RepoPath) -> Result<Option<StagedEntry>> {
        let staged = staging::get(&self.repo.journal().read(), path)?;
        Ok(staged.filter(|entry| entry.node != StagedNode::Deleted))
    }

    /// What the file at a path looked like when it was saved.
    fn seen(&self, path: &RepoPath) -> Result<SeenStat> {
        let known = self.work(path)?.map_or_else(|| self.staged(path), |work| Ok(Some(work)))?;
        Ok(known.map(|entry| entry.seen).unwrap_or_default())
    }

    fn removal(&self, path: RepoPath, kind: FileKind) -> Result<Removal> {
        let seen = if kind == FileKind::Dir { None } else { Some(self.seen(&path)?) };
        Ok(Removal { path, kind, seen })
    }

    fn op(&self, path: &RepoPath, new: Option<&StagedEntry>) -> Result<Option<Op>> {
        Ok(record(self.area, path, new, self.work(path)?.as_ref(), self.staged(path)?.as_ref()))
    }

    /// What to record of a file that was written. What could not be looks like nothing that is known, and is read by the next
    /// checkpoint.
    fn op_of(&self, file: &FileWrite, written: &Written) -> Result<Option<Op>> {
        let Ok(stat) = written else { return Ok(None) };
        let node = match &file.node {
            Node::File { len, content } => StagedNode::File { len: *len, content: *content },
            Node::Symlink { target } => StagedNode::Symlink { target: target.clone() },
            Node::Dir { .. } => return Ok(None),
        };
        let meta = Meta { mode: stat.mode, ..file.meta };
        let racy = is_racy(stat, clock::now());
        let new = StagedEntry { node, meta, seen: SeenStat::from(stat), racy, generation: 0 };
        self.op(&file.path, Some(&new))
    }

    /// What to record of the rest of a plan.
    fn ops_beside(&self, plan: &Plan, ops: &mut Batch) -> Result<()> {
        for Removal { path, .. } in &plan.removals {
            self.op(path, None)?.map_or(Ok(()), |op| ops.record(op))?;
        }
        for (path, entry) in &plan.folder_meta {
            let new = StagedEntry { node: StagedNode::Dir, meta: entry.meta, ..nothing() };
            self.op(path, Some(&new))?.map_or(Ok(()), |op| ops.record(op))?;
        }
        Ok(())
    }
}

/// Is there to be a folder where none is, or one with another mode?
fn is_other_folder(change: &TreeChange) -> bool {
    let mode = |entry: &Entry| (kind_of(entry) == FileKind::Dir).then_some(entry.meta.mode);
    let (old, new) = (change.old.as_ref().and_then(mode), change.new.as_ref().and_then(mode));
    new.is_some() && old != new
}

fn kind_of(entry: &Entry) -> FileKind {
    match entry.node {
        Node::File { .. } => FileKind::File,
        Node::Symlink { .. } => FileKind::Symlink,
        Node::Dir { .. } => FileKind::Dir,
    }
}

/// From what differs to what has to be done. The work tree is known to be the old side.
fn add_to(plan: &mut Plan, change: TreeChange, looks: &Looks<'_>) -> Result<()> {
    let TreeChange { path, old, new } = change;
    let old_kind = old.as_ref().map(kind_of);
    let Some(new) = new else {
        if let Some(kind) = old_kind {
            plan.removals.push(looks.removal(path, kind)?);
        }
        return Ok(());
    };
    let same_kind = old_kind == Some(kind_of(&new));
    let replaced_kind =
        old_kind.filter(|kind| !same_kind && (*kind == FileKind::Dir || kind_of(&new) == FileKind::Dir));
    if let Some(kind) = replaced_kind {
        plan.removals.push(looks.removal(path.clone(), kind)?);
    }
    if kind_of(&new) == FileKind::Dir {
        if !same_kind {
            plan.folders.push(path.clone());
        }
        plan.folder_meta.push((path, new));
        return Ok(());
    }
    let is_replaced = old_kind.is_some() && replaced_kind.is_none();
    let replaced = if is_replaced { Some(looks.seen(&path)?) } else { None };
    plan.add(&path, &new, replaced);
    Ok(())
}
