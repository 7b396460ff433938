//! `checkpoint restore`: the work tree, or a bundle, as a checkpoint has it, after what is there now was saved.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use super::create::save;
use super::{get, session_of};
use crate::base::clock;
use crate::base::disk::{FileKind, Stat};
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::bundle::BANDS_NAME;
use crate::model::checkpoint::Area;
use crate::model::id::TreeId;
use crate::model::operation::{Operation, WorkStep};
use crate::model::path::RepoPath;
use crate::model::recipe::Piece;
use crate::model::scopes::Scopes;
use crate::model::session::{EventKind, Status};
use crate::model::staging::{SeenStat, StagedEntry, StagedNode, is_racy};
use crate::model::tree::{Entry, Node, Tree};
use crate::ops::capture::{What, looks_like, nothing, record};
use crate::ops::checkout::apply::carry_out;
use crate::ops::checkout::plan::Plan;
use crate::ops::materialize::{Clones, FileWrite, Written};
use crate::ops::scan::walk_bundle;
use crate::ops::status::is_version;
use crate::ops::{Error, Result, diff};
use crate::repo::trees::{self, TreeChange};
use crate::repo::{RepoError, Repository, WriteLock};
use crate::store::sessions::{self, Appender};
use crate::store::{operations, snapshots, staging, worktable};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::ignore::{FILE_NAME, MAX_FILE_BYTES, Rules};
use crate::world::write::Expect;

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
    /// Files and links written.
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

fn preview(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let number = options.number;
    if let (tree, Area::Bundle(path)) = target(repo, number)? {
        return preview_bundle(repo, options, &tree, &path);
    }
    let sides = diff::Options::new(diff::Side::Disk, diff::Side::Revision(format!("@{number}")));
    let sides = diff::Options { paths: options.paths.clone(), content: false, ..sides };
    let changes = diff::changes(repo, &sides, monitor)?;
    let then = repo.tree_of(&repo.resolve_point(&format!("@{number}"))?)?;
    let mut folders = Folders::new(Arc::clone(repo.work()));
    for path in options.paths.iter().filter(|path| !path.is_root()) {
        let name = OsStr::from_bytes(path.file_name());
        let on_disk = folders.open_parent(path, IfAbsent::Fail).and_then(|dir| dir.stat(name)).unwrap_or(None);
        if on_disk.is_none() && trees::lookup(&repo.objects(), &then, path)?.is_none() {
            return Err(unknown(path, number));
        }
    }
    let written = changes.iter().filter(|change| change.new.is_some()).count() as u64;
    let removed = changes.iter().filter(|change| change.new.is_none()).count() as u64;
    Ok(Outcome { number, written, removed, dry_run: true, ..Outcome::default() })
}

/// Bands that do not look as when they were last stored count as different; they are not read.
fn preview_bundle(repo: &Repository, options: &Options, tree: &TreeId, bundle: &RepoPath) -> Result<Outcome> {
    let (state, objects) = (repo.journal().read(), repo.objects());
    let area = Area::Bundle(bundle.clone());
    let (walked, _) = walk_bundle(repo, bundle)?;
    let mut on_disk: HashMap<RepoPath, Stat> =
        walked.entries.into_iter().map(|entry| (entry.path, entry.stat)).collect();
    let scopes = Scopes::or_everything(&options.paths);
    on_disk.retain(|path, _| scopes.contains(path));
    let mut outcome = Outcome { number: options.number, dry_run: true, ..Outcome::default() };
    trees::visit(&objects, objects.tree(tree)?.as_ref(), &RepoPath::root(), &mut |path, entry| {
        if path.is_within(bundle) && scopes.contains(&path) {
            let stat = on_disk.remove(&path);
            let known = match worktable::get(&state, &area, &path)? {
                Some(known) => Some(known),
                None => staging::get(&state, &path)?,
            };
            let is_same = |stat: &Stat, known: &StagedEntry| looks_like(known, stat) && is_version(entry, known);
            let stays = stat.zip(known).is_some_and(|(stat, known)| is_same(&stat, &known));
            outcome.written += u64::from(!stays);
        }
        Ok(())
    })?;
    outcome.removed = on_disk.len() as u64;
    Ok(outcome)
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
    /// What the operation is called; none if it is not one to be undone.
    pub summary: Option<String>,
}

/// Saves what is there, replaces it, and gives what is to be recorded in one batch with `ops`.
pub fn replace(
    repo: &Repository,
    lock: &WriteLock,
    request: Request,
    mut ops: Vec<Op>,
    monitor: &dyn Monitor,
) -> Result<(Outcome, Vec<Op>)> {
    let (target, area) = &request.target;
    let saved = save(repo, lock, request.reason.clone(), What::of(area), monitor)?;
    let objects = repo.objects();
    let (now, then) = (objects.tree(&saved.tree)?, objects.tree(target)?);
    let root = area.root();
    let scopes = Scopes::or_everything(&request.paths);
    let mut changes = trees::diff(&objects, &now, &then)?;
    // Folders that lead to a bundle are no part of it.
    changes.retain(|change| scopes.contains(&change.path) && change.path.is_within(&root));
    if request.summary.is_some() {
        check_paths(repo, &request, &now, &then)?;
    }
    let unsaved = Scopes::new(&saved.unreadable);
    let in_danger: Vec<RepoPath> =
        changes.iter().map(|change| &change.path).filter(|path| unsaved.contains(path)).cloned().collect();
    if !in_danger.is_empty() {
        return Err(Error::WouldLose { verb: "restoring", paths: in_danger });
    }
    let kept = if *area == Area::WorkTree { left_out(repo, &then, &changes)? } else { HashSet::new() };
    changes.retain(|change| !kept.contains(&change.path));
    let looks = Looks::of(repo, area, &changes)?;
    let mut plan = plan(changes, &looks);
    plan.clones = clones(repo, area, request.number)?;
    plan.leftovers = saved.leftovers.into_iter().filter(|(path, _)| scopes.contains(path)).collect();
    let in_the_way = in_the_way(repo, &plan);
    if !in_the_way.is_empty() {
        return Err(Error::WouldLose { verb: "restoring", paths: in_the_way });
    }
    let (done, written) = carry_out(repo, &plan, request.set_times, monitor)?;
    ops.extend(looks.ops_after(&plan, &written));
    let whole = request.paths.is_empty() || request.paths.iter().any(|path| root.is_within(path));
    let is_whole = whole && done.failed == 0;
    ops.extend(is_whole.then(|| worktable::parent_op(area, request.number)));
    // What stays though the target does not have it makes the disk more than the target.
    let equals_target = is_whole && kept.is_empty();
    ops.push(if equals_target { worktable::base_op(area, target) } else { worktable::forget_base_op(area) });
    let paths = if whole { vec![root] } else { request.paths };
    if let Some(summary) = request.summary
        && done.written + done.removed > 0
    {
        let work = WorkStep::Replaced { saved: saved.number, paths, moved: false };
        let operation = Operation { work, ..Operation::new(clock::now(), summary) };
        ops.extend(operations::record_ops(&repo.journal().read(), operation)?);
    }
    let outcome = Outcome {
        number: request.number,
        saved: Some(saved.number),
        written: done.written,
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

fn unknown(path: &RepoPath, number: u64) -> Error {
    Error::NoSuchPath { path: path.clone(), place: format!("in @{number}") }
}

/// Every path asked for must be on one of the two sides, or it was a mistake.
fn check_paths(repo: &Repository, request: &Request, now: &Arc<Tree>, then: &Arc<Tree>) -> Result<()> {
    let objects = repo.objects();
    for path in request.paths.iter().filter(|path| !path.is_root()) {
        let is_known = trees::lookup(&objects, then, path)?.is_some() || trees::lookup(&objects, now, path)?.is_some();
        if !is_known {
            return Err(unknown(path, request.number));
        }
    }
    Ok(())
}

/// Files where something is to be written, though nothing was saved there: ignored ones.
fn in_the_way(repo: &Repository, plan: &Plan) -> Vec<RepoPath> {
    let goes: HashSet<&RepoPath> = plan.removals.iter().map(|(path, _)| path).collect();
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let absent = plan.writes.iter().filter(|file| file.expect == Expect::Absent).map(|file| &file.path);
    let new_folders = plan.folders.iter();
    let mut found = Vec::new();
    for path in absent.chain(new_folders).filter(|path| !goes.contains(path)) {
        let name = OsStr::from_bytes(path.file_name());
        let stat = folders.open_parent(path, IfAbsent::Fail).and_then(|dir| dir.stat(name)).unwrap_or(None);
        let is_folder = stat.is_some_and(|stat| stat.kind == FileKind::Dir) && plan.folders.contains(path);
        if stat.is_some() && !is_folder {
            found.push(path.clone());
        }
    }
    found
}

/// Paths that would go, but that the target's own ignore rules leave out: when it was made they may have been there.
fn left_out(repo: &Repository, then: &Arc<Tree>, changes: &[TreeChange]) -> Result<HashSet<RepoPath>> {
    let mut rules: HashMap<RepoPath, Rules> = HashMap::new();
    let mut found: HashSet<RepoPath> = HashSet::new();
    for change in changes.iter().filter(|change| change.new.is_none()) {
        let Some(folder) = change.path.parent() else { continue };
        let is_dir = matches!(&change.old, Some(Entry { node: Node::Dir { .. }, .. }));
        let inside_ignored = found.contains(&folder);
        if inside_ignored || rules_of(repo, then, &folder, &mut rules)?.ignores(&change.path, is_dir) {
            found.insert(change.path.clone());
        }
    }
    Ok(found)
}

/// The ignore rules that hold in a folder of a tree.
fn rules_of(
    repo: &Repository,
    tree: &Arc<Tree>,
    folder: &RepoPath,
    known: &mut HashMap<RepoPath, Rules>,
) -> Result<Rules> {
    if let Some(rules) = known.get(folder) {
        return Ok(rules.clone());
    }
    let above = match folder.parent().filter(|_| !folder.is_root()) {
        Some(parent) => rules_of(repo, tree, &parent, known)?,
        None => Rules::default(),
    };
    let objects = repo.objects();
    let file = folder.join(FILE_NAME.as_bytes())?;
    let rules = match trees::lookup(&objects, tree, &file)?.map(|entry| entry.node) {
        Some(Node::File { len, content }) if len <= MAX_FILE_BYTES => {
            let mut text = Vec::new();
            objects.pieces(&content, len, &mut |piece| {
                if let Piece::Chunk { id, .. } = piece {
                    text.extend_from_slice(&objects.chunk(&id)?);
                }
                Ok(())
            })?;
            // Rules that cannot be read leave nothing out.
            above.with(folder, &text).unwrap_or_else(|_| above.clone())
        }
        _ => above,
    };
    known.insert(folder.clone(), rules.clone());
    Ok(rules)
}

/// What is recorded of the paths that change.
struct Looks<'a> {
    area: &'a Area,
    work: HashMap<RepoPath, StagedEntry>,
    staged: HashMap<RepoPath, StagedEntry>,
}

impl<'a> Looks<'a> {
    fn of(repo: &Repository, area: &'a Area, changes: &[TreeChange]) -> Result<Self> {
        let state = repo.journal().read();
        let mut looks = Self { area, work: HashMap::new(), staged: HashMap::new() };
        for TreeChange { path, .. } in changes {
            if let Some(entry) = worktable::get(&state, area, path)? {
                looks.work.insert(path.clone(), entry);
            }
            if let Some(entry) = staging::get(&state, path)?.filter(|entry| entry.node != StagedNode::Deleted) {
                looks.staged.insert(path.clone(), entry);
            }
        }
        Ok(looks)
    }

    /// What the file at a path looked like when it was saved.
    fn seen(&self, path: &RepoPath) -> SeenStat {
        self.work.get(path).or(self.staged.get(path)).map(|entry| entry.seen).unwrap_or_default()
    }

    fn op(&self, path: &RepoPath, new: Option<&StagedEntry>) -> Option<Op> {
        record(self.area, path, new, self.work.get(path), self.staged.get(path))
    }

    /// What to record when the plan was carried out.
    fn ops_after(&self, plan: &Plan, written: &[Written]) -> Vec<Op> {
        let mut ops: Vec<Op> = plan.removals.iter().filter_map(|(path, _)| self.op(path, None)).collect();
        for (path, entry) in &plan.folder_meta {
            let new = StagedEntry { node: StagedNode::Dir, meta: entry.meta, ..nothing() };
            ops.extend(self.op(path, Some(&new)));
        }
        for (file, written) in plan.writes.iter().zip(written) {
            // What could not be written looks like nothing that is known, and is read by the next checkpoint.
            let Ok(stat) = written else { continue };
            let node = match &file.node {
                Node::File { len, content } => StagedNode::File { len: *len, content: *content },
                Node::Symlink { target } => StagedNode::Symlink { target: target.clone() },
                Node::Dir { .. } => continue,
            };
            let racy = is_racy(stat, clock::now());
            let mut meta = file.meta;
            meta.mode = stat.mode;
            let new = StagedEntry { node, meta, seen: SeenStat::from(stat), racy, generation: 0 };
            ops.extend(self.op(&file.path, Some(&new)));
        }
        ops
    }
}

fn kind_of(entry: &Entry) -> FileKind {
    match entry.node {
        Node::File { .. } => FileKind::File,
        Node::Symlink { .. } => FileKind::Symlink,
        Node::Dir { .. } => FileKind::Dir,
    }
}

/// From what differs to what has to be done. The work tree is known to be the old side.
fn plan(changes: Vec<TreeChange>, looks: &Looks<'_>) -> Plan {
    let mut plan = Plan::default();
    for TreeChange { path, old, new } in changes {
        let old_kind = old.as_ref().map(kind_of);
        let Some(new) = new else {
            if let Some(kind) = old_kind {
                if kind != FileKind::Dir {
                    plan.expected.insert(path.clone(), Expect::Seen(looks.seen(&path)));
                }
                plan.removals.push((path, kind));
            }
            continue;
        };
        let same_kind = old_kind == Some(kind_of(&new));
        let replaced_kind =
            old_kind.filter(|kind| !same_kind && (*kind == FileKind::Dir || kind_of(&new) == FileKind::Dir));
        plan.removals.extend(replaced_kind.map(|kind| (path.clone(), kind)));
        if kind_of(&new) == FileKind::Dir {
            if !same_kind {
                plan.folders.push(path.clone());
            }
            plan.folder_meta.push((path, new));
            continue;
        }
        let expect = match (old_kind, replaced_kind) {
            (None, _) | (_, Some(_)) => Expect::Absent,
            _ => Expect::Seen(looks.seen(&path)),
        };
        plan.writes.push(FileWrite { path, meta: new.meta, node: new.node, expect });
    }
    plan.removals.reverse();
    plan.allow_for_hard_links();
    plan
}
