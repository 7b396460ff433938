//! `checkout`, `switch` and `restore`: making the work tree what a tree says.
//!
//! First a plan, a plain value, computed without changing anything; then its application. What is not stored is never
//! overwritten or removed unless forced, and then it is named. A run that was stopped half-way is completed by running
//! it again: files that are already as they should be are taken over.

pub mod apply;
pub mod plan;

use std::sync::Arc;

use serde::Serialize;

pub use self::plan::{Plan, Scope};
use super::capture::{What, first_unstored};
use super::checkpoint::create::save;
use super::compare::{WorkChange, work_changes};
use super::scan::Pair;
use super::{Error, Result};
use crate::base::clock;
use crate::base::disk::FileKind;
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::checkpoint::Area;
use crate::model::id::CommitId;
use crate::model::operation::{Operation, RefStep, WorkStep};
use crate::model::path::RepoPath;
use crate::model::refs::{Head, RefName};
use crate::model::scopes::Scopes;
use crate::model::tree::{Entry, Tree};
use crate::repo::{Repository, WriteLock, trees};
use crate::store::journal::State;
use crate::store::refs::{self, RefKind};
use crate::store::{operations, staging};
use crate::world::dirs::Folders;

/// A file that keeps changing is stored this often; then a forced checkout is refused, or its last changes would be lost.
const SAVES: usize = 3;

/// Which commit, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A branch, or any other revision; then HEAD is on no branch.
    pub revision: String,
    /// Make the work tree equal to the revision, whatever is lost.
    pub force: bool,
    /// Set the recorded modification times.
    pub set_times: bool,
    /// `revision` must be a branch.
    pub branch_only: bool,
    /// Make this branch at the revision and be on it.
    pub create: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Options {
    /// Is HEAD just to be on a new branch? Then the work tree stays as it is, as with git: nothing is looked at, and what was deleted
    /// does not come back.
    fn only_makes_branch(&self) -> bool {
        self.create.is_some() && self.revision == "HEAD" && !self.force && !self.set_times
    }
}

/// What was done to the work tree.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The commit that the work tree now has; none after restoring paths.
    pub commit: Option<CommitId>,
    /// The branch that HEAD is on.
    pub branch: Option<String>,
    /// Files and links written.
    pub written: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Folders made or given another mode.
    pub folders: u64,
    /// Files, links and folders removed.
    pub removed: u64,
    /// Paths that were right already.
    pub unchanged: u64,
    /// Local changes that were kept, because the revision has the same there as HEAD had.
    pub kept: Vec<RepoPath>,
    /// What was only in the work tree and is gone, by force.
    pub lost: Vec<RepoPath>,
    /// What could not be written or removed.
    pub failed: u64,
    /// Some of it because stored data is damaged.
    pub damaged: u64,
    /// What stands there still though it was to be replaced or removed, or was not made.
    pub left: Vec<RepoPath>,
    /// Was this a look only?
    pub dry_run: bool,
}

/// Makes the work tree what a revision says, and moves HEAD there.
pub fn checkout(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("checkout");
    let lock = (!options.dry_run).then(|| repo.lock("checkout")).transpose()?;
    let (commit, head) = destination(repo, options)?;
    let scope = Scope { paths: Scopes::everything(), force: options.force, moves_head: true };
    let make = || {
        let mut target = tree_entries(repo, Some(&commit))?.map(|entry| Ok(entry?));
        let plan = plan::make(repo, &mut target, &scope, monitor)?;
        if plan.conflicts.is_empty() {
            Ok(plan)
        } else {
            Err(Error::WouldLose { verb: "checkout", paths: plan.conflicts })
        }
    };
    let plan = if options.only_makes_branch() { Plan::default() } else { make()? };
    let Some(lock) = lock else { return Ok(plan.preview(Some(commit))) };
    let (mut ops, operation) = record(repo, options, &commit, &head)?;
    // What is stored nowhere and goes by force can be had back with `undo`.
    let (plan, operation) = save_lost(repo, &lock, plan, &make, operation, monitor)?;
    ops.extend(operations::record_ops(&repo.journal().read(), operation)?);
    ops.push(refs::head_op(&head));
    let mut outcome = apply::apply(repo, &lock, plan, options.set_times, ops, monitor)?;
    outcome.commit = Some(commit);
    if let Head::Branch(name) = head {
        outcome.branch = Some(name.to_string());
    }
    Ok(outcome)
}

/// Everything in a commit's tree; nothing for no commit.
pub fn tree_entries(repo: &Repository, commit: Option<&CommitId>) -> Result<trees::Entries> {
    Ok(trees::Entries::new(repo.objects(), repo.root_tree(commit)?))
}

/// What changes beside the work tree, and how it can be taken back.
fn record(repo: &Repository, options: &Options, commit: &CommitId, head: &Head) -> Result<(Vec<Op>, Operation)> {
    let mut ops = Vec::new();
    let as_branch = options.create.as_ref().map_or_else(String::new, |name| format!(" as new branch {name}"));
    let mut operation = Operation::new(clock::now(), format!("checkout of {}{as_branch}", options.revision));
    operation.work = if options.only_makes_branch() { WorkStep::None } else { WorkStep::Moved };
    operation.head = Some((refs::head(&repo.journal().read())?, head.clone()));
    if let Some(Head::Branch(name)) = options.create.as_ref().and(Some(head)) {
        ops.push(refs::set_op(RefKind::Branch, name, commit));
        operation.refs.push(RefStep { kind: RefKind::Branch, name: name.clone(), before: None, after: Some(*commit) });
    }
    Ok((ops, operation))
}

/// The work tree, and these paths of it even if they are ignored.
fn and_also(paths: &[RepoPath]) -> What<'_> {
    What { also: paths, ..What::of(&Area::WorkTree) }
}

/// Stores the work tree if the plan would lose some of it. The plan is made anew then: it would take memory from what stores, and what
/// changed meanwhile has to be stored as well.
fn save_lost(
    repo: &Repository,
    lock: &WriteLock,
    mut plan: Plan,
    make: &dyn Fn() -> Result<Plan>,
    mut operation: Operation,
    monitor: &dyn Monitor,
) -> Result<(Plan, Operation)> {
    let moved = operation.work == WorkStep::Moved;
    for attempt in 1.. {
        if plan.lost.is_empty() {
            break;
        }
        let (hidden, is_long) = (std::mem::take(&mut plan.hidden), plan.lost.len() > repo.settings().paths_at_once);
        drop(plan);
        if is_long {
            repo.give_back();
        }
        let saved = save(repo, lock, format!("before the {}", operation.summary), and_also(&hidden), monitor)?;
        operation.work = WorkStep::Replaced { saved: saved.number, paths: vec![RepoPath::root()], moved };
        plan = make()?;
        match first_unstored(repo, &plan.lost, &saved.unreadable)? {
            None => break,
            Some(path) if attempt == SAVES => return Err(Error::KeptChanging(path)),
            Some(_) => {}
        }
    }
    Ok((plan, operation))
}

/// The commit to go to and where HEAD will point.
fn destination(repo: &Repository, options: &Options) -> Result<(CommitId, Head)> {
    let state = repo.journal().read();
    if let Some(name) = &options.create {
        let name = RefName::parse(name)?;
        if refs::get(&state, RefKind::Branch, &name)?.is_some() {
            return Err(Error::RefExists { kind: "branch", name: name.to_string() });
        }
        return Ok((repo.resolve(&options.revision)?, Head::Branch(name)));
    }
    if let Ok(name) = RefName::parse(&options.revision)
        && let Some(id) = refs::get(&state, RefKind::Branch, &name)?
    {
        return Ok((id, Head::Branch(name)));
    }
    if options.branch_only {
        return Err(Error::NoSuchRef { kind: "branch", name: options.revision.clone() });
    }
    let id = repo.resolve(&options.revision)?;
    let head = refs::head(&state)?;
    // `checkout HEAD` stays on the branch.
    let stays = options.revision == "HEAD" && matches!(head, Head::Branch(_));
    Ok((id, if stays { head } else { Head::Detached(id) }))
}

/// Which paths to bring back, from where.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// These paths and what is below them.
    pub paths: Vec<RepoPath>,
    /// A revision; without one, what is staged.
    pub source: Option<String>,
    /// Change what is staged instead of the work tree; the source is HEAD unless given.
    pub staged: bool,
    /// Overwrite what is stored nowhere.
    pub force: bool,
    /// Set the recorded modification times.
    pub set_times: bool,
}

/// Brings paths back as they were. HEAD stays.
pub fn restore(repo: &Repository, options: &RestoreOptions, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("restore");
    let lock = repo.lock("restore")?;
    let scope = Scope { paths: Scopes::new(&options.paths), force: options.force, moves_head: false };
    let tree = source_tree(repo, options)?;
    check_paths(repo, options, tree.as_ref())?;
    if options.staged {
        return apply::unstage(repo, &lock, &tree.unwrap_or_default(), &scope.paths);
    }
    let mut plan = {
        let state = repo.journal().read();
        let mut target = restore_target(repo, &state, tree.as_ref(), &scope.paths);
        plan::make(repo, &mut target, &scope, monitor)?
    };
    let replaced = plan_folders_above(repo, tree.as_ref(), &scope, &mut plan, monitor)?;
    if !plan.conflicts.is_empty() {
        return Err(Error::WouldLose { verb: "restore", paths: plan.conflicts });
    }
    let mut ops = Vec::new();
    if plan.file_count() + plan.removals.len() + plan.folder_meta.len() > 0 {
        let saved = save(repo, &lock, "before a restore".to_owned(), and_also(&plan.lost), monitor)?;
        let mut operation = Operation::new(clock::now(), "restore of paths".to_owned());
        let paths = [options.paths.as_slice(), &replaced].concat();
        operation.work = WorkStep::Replaced { saved: saved.number, paths, moved: false };
        ops = operations::record_ops(&repo.journal().read(), operation)?;
    }
    apply::apply(repo, &lock, plan, options.set_times, ops, monitor)
}

/// Adds to a plan what is done about the folders above what is restored, where there are none: they are made as they were recorded,
/// and what is in the place of one goes, if that is allowed. Gives the paths of those.
fn plan_folders_above(
    repo: &Repository,
    tree: Option<&Arc<Tree>>,
    scope: &Scope,
    plan: &mut Plan,
    monitor: &dyn Monitor,
) -> Result<Vec<RepoPath>> {
    if plan.file_count() + plan.folders.len() == 0 {
        return Ok(Vec::new());
    }
    let state = repo.journal().read();
    let folders = plan::folders_above(&scope.paths, &mut |path| match tree {
        Some(tree) => Ok(trees::lookup(&repo.objects(), tree, path)?),
        None => Ok(staging::get(&state, path)?.and_then(|entry| plan::as_tree_entry(path, &entry))),
    })?;
    let (mut on_disk, mut replaced) = (Folders::new(Arc::clone(repo.work())), Vec::new());
    for (path, entry) in folders {
        // Below something that is no folder there is nothing.
        let stat = on_disk.stat(&path).unwrap_or(None);
        if stat.is_some_and(|stat| stat.kind == FileKind::Dir) {
            continue;
        }
        if let Some(stat) = stat {
            let pair =
                Pair { path: path.clone(), staged: staging::get(&state, &path)?, deleted: false, disk: Some(stat) };
            let is_stored = work_changes(repo, &[pair], monitor) == [WorkChange::Same];
            match (is_stored, scope.force) {
                (true, _) => {}
                (false, true) => plan.lost.push(path.clone()),
                (false, false) => plan.conflicts.push(path.clone()),
            }
            plan.removals.push(plan::Removal::new(path.clone(), &stat));
            replaced.push(path.clone());
        }
        plan.folders.push(path.clone());
        plan.folder_meta.push((path, entry));
    }
    plan.folders.sort_unstable();
    plan.folder_meta.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(replaced)
}

/// The tree that paths come from; none if they come from staging.
fn source_tree(repo: &Repository, options: &RestoreOptions) -> Result<Option<Arc<Tree>>> {
    match options.source.as_deref().or(options.staged.then_some("HEAD")) {
        Some("HEAD") if repo.head_commit()?.is_none() => Ok(Some(Arc::default())),
        Some(revision) => Ok(Some(repo.tree_of(&repo.resolve_point(revision)?)?)),
        None => Ok(None),
    }
}

/// Each path must be in the source, or be tracked: then it goes.
fn check_paths(repo: &Repository, options: &RestoreOptions, tree: Option<&Arc<Tree>>) -> Result<()> {
    let state = repo.journal().read();
    for path in options.paths.iter().filter(|path| !path.is_root()) {
        let in_source = match tree {
            Some(tree) => trees::lookup(&repo.objects(), tree, path)?.is_some(),
            None => false,
        };
        if !in_source && !staging::is_known(&state, path)? {
            let place = options.source.as_ref().map_or_else(|| "tracked".to_owned(), |source| format!("in {source}"));
            return Err(Error::NoSuchPath { path: path.clone(), place });
        }
    }
    Ok(())
}

/// What the paths are to become, in tree order, read as it is gone through.
fn restore_target<'a>(
    repo: &Repository,
    state: &'a State,
    tree: Option<&Arc<Tree>>,
    scopes: &'a Scopes,
) -> Box<dyn Iterator<Item = Result<(RepoPath, Entry)>> + 'a> {
    if let Some(tree) = tree {
        let entries = trees::Entries::new(repo.objects(), Arc::clone(tree)).within(scopes.clone());
        return Box::new(entries.map(|entry| Ok(entry?)));
    }
    let mut entries = staging::entries_in(state, scopes);
    let staged = std::iter::from_fn(move || entries.next().transpose());
    Box::new(staged.filter_map(|entry| match entry {
        Ok((path, entry)) => plan::as_tree_entry(&path, &entry).map(|entry| Ok((path, entry))),
        Err(error) => Some(Err(error.into())),
    }))
}
