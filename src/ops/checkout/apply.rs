//! Carrying out a plan.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use hashbrown::HashSet;

use super::plan::{Plan, Removal, as_staged, folders_above, looking_like};
use super::{Error, Outcome, Result};
use crate::base::disk::{FileKind, IoContext, Stat, is_leftover};
use crate::base::kind::ErrorKind;
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{StagedEntry, StagedNode};
use crate::model::tree::{Entry, Tree};
use crate::ops::add::removal;
use crate::ops::materialize::{FileWrite, WriteOptions, Written, file_len, restored_mode, write_files};
use crate::ops::status::is_version;
use crate::repo::trees::{self, lookup};
use crate::repo::{Repository, WriteLock};
use crate::store::journal::Batch;
use crate::store::staging::Encoded;
use crate::store::{refs, staging};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::write::remove;

/// Applies a plan without conflicts, then records staging and `ops` in one batch.
pub fn apply(
    repo: &Repository,
    lock: &WriteLock,
    plan: Plan,
    set_times: bool,
    ops: Vec<Op>,
    monitor: &dyn Monitor,
) -> Result<Outcome> {
    let generation = refs::generation(&repo.journal().read())?;
    let mut recorder = Recorder { generation, moves_head: plan.moves_head, ops: repo.batch() };
    recorder.ops.extend(ops);
    let mut outcome =
        carry_out(repo, &plan, set_times, monitor, &mut |file, written| recorder.written(file, &written))?;
    for (path, entry) in &plan.folder_meta {
        recorder.record(path, entry, None)?;
    }
    outcome.unchanged += plan.adopted.count() as u64;
    for entry in plan.adopted.entries() {
        recorder.put(&entry.path()?, entry.decode()?)?;
    }
    if plan.moves_head {
        plan.forgotten.iter().try_for_each(|path| recorder.ops.record(staging::delete_op(path)))?;
    }
    outcome.folders = plan.folder_meta.len() as u64;
    outcome.kept = plan.kept;
    let left: HashSet<RepoPath> = outcome.left.iter().cloned().collect();
    outcome.lost = plan.lost.into_iter().filter(|path| !left.contains(path)).collect();
    if !recorder.ops.is_empty() {
        repo.commit(lock, &[], recorder.ops)?;
    }
    Ok(outcome)
}

/// Does to the work tree what a plan says, and records nothing. What was written goes to `done`.
pub fn carry_out(
    repo: &Repository,
    plan: &Plan,
    set_times: bool,
    monitor: &dyn Monitor,
    done: &mut dyn FnMut(FileWrite, Written) -> Result<()>,
) -> Result<Outcome> {
    let mut outcome = Outcome { unchanged: plan.unchanged, ..Outcome::default() };
    let mut folders = Folders::new(Arc::clone(repo.work()));
    remove_all(plan, &mut folders, &mut outcome, monitor)?;
    for path in &plan.folders {
        let shown = || repo.work().path().join(path.as_os_str());
        folders.open(path, IfAbsent::Create).on("create", shown())?;
    }
    let total = (plan.file_count() as u64, plan.bytes);
    let options = WriteOptions { set_times, clones: plan.clones.as_ref() };
    write_files(repo, repo.work(), &mut plan.files(), total, options, monitor, &mut |file, written| {
        note(&file, &written, &mut outcome, monitor);
        done(file, written)
    })?;
    set_folder_meta(repo, &plan.folder_meta, set_times, &mut outcome, monitor);
    Ok(outcome)
}

fn remove_all(plan: &Plan, folders: &mut Folders, outcome: &mut Outcome, monitor: &dyn Monitor) -> Result<()> {
    let abandoned = |(path, _): &&(RepoPath, FileKind)| is_leftover(OsStr::from_bytes(path.file_name()));
    for (path, kind) in plan.leftovers.iter().filter(abandoned) {
        // Nobody asked for these to go and nobody sees them; the next checkout tries again.
        let _ = folders.open_parent(path, IfAbsent::Fail).and_then(|dir| remove(dir.as_ref(), path, *kind));
    }
    for Removal { path, kind, seen } in &plan.removals {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let removed = folders.open_parent(path, IfAbsent::Fail).and_then(|dir| {
            let name = OsStr::from_bytes(path.file_name());
            match seen.map(|seen| plan.expect(seen)) {
                Some(expect) if !expect.allows(dir.stat(name)?.as_ref()) => {
                    Err(io::Error::other("it was changed meanwhile; it was left as it is"))
                }
                _ => remove(dir.as_ref(), path, *kind),
            }
        });
        match removed {
            Ok(removed) => outcome.removed += u64::from(removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                monitor.problem(&format!("cannot remove {path}: {error}"));
                outcome.failed += 1;
                outcome.left.push(path.clone());
            }
        }
    }
    // Handles of folders that are gone must not be used again.
    *folders = Folders::new(Arc::clone(folders.root()));
    Ok(())
}

fn note(file: &FileWrite, written: &Written, outcome: &mut Outcome, monitor: &dyn Monitor) {
    match written {
        Ok(_) => {
            outcome.written += 1;
            outcome.written_bytes += file_len(file);
        }
        Err(failure) => {
            monitor.problem(&failure.message);
            outcome.failed += 1;
            outcome.left.push(file.path.clone());
            outcome.damaged += u64::from(failure.kind == ErrorKind::Corrupt);
        }
    }
}

/// Modes last and deepest first: a folder that may not be written to gets its mode when nothing is left to do in it.
fn set_folder_meta(
    repo: &Repository,
    entries: &[(RepoPath, Entry)],
    set_times: bool,
    outcome: &mut Outcome,
    monitor: &dyn Monitor,
) {
    let mut folders = Folders::new(Arc::clone(repo.work()));
    for (path, entry) in entries.iter().rev() {
        let name = OsStr::from_bytes(path.file_name());
        let set = folders.open_parent(path, IfAbsent::Fail).and_then(|dir| {
            let mode = restored_mode(entry.meta.mode);
            if dir.stat(name)?.is_some_and(|stat| stat.mode != mode) {
                dir.set_mode(name, mode)?;
            }
            if set_times { dir.set_mtime(name, entry.meta.mtime_ns) } else { Ok(()) }
        });
        if let Err(error) = set {
            monitor.problem(&format!("cannot set the mode of {path}: {error}"));
            outcome.failed += 1;
        }
    }
}

/// Collects staging entries for what is on disk now.
struct Recorder {
    generation: u64,
    moves_head: bool,
    ops: Batch,
}

impl Recorder {
    fn written(&mut self, file: FileWrite, written: &Written) -> Result<()> {
        let FileWrite { path, meta, node, .. } = file;
        let entry = Entry { name: path.file_name().to_vec(), meta, node };
        self.record(&path, &entry, written.as_ref().ok())
    }

    /// A file that could not be written gets an entry that matches nothing, so that `status` shows it.
    fn record(&mut self, path: &RepoPath, entry: &Entry, stat: Option<&Stat>) -> Result<()> {
        self.put(path, stat.map_or_else(|| as_staged(entry), |stat| looking_like(entry, stat)))
    }

    fn put(&mut self, path: &RepoPath, staged: StagedEntry) -> Result<()> {
        if !self.moves_head {
            return Ok(());
        }
        let staged = StagedEntry { generation: self.generation, ..staged };
        Ok(self.ops.record(staging::put_op(path, &staged))?)
    }
}

/// Makes staging what a tree says in scopes, without touching the work tree.
pub fn unstage(repo: &Repository, lock: &WriteLock, tree: &Arc<Tree>, scopes: &Scopes) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut ops = repo.batch();
    let objects = repo.objects();
    let head = repo.root_tree(repo.head_commit()?.as_ref())?;
    {
        let state = repo.journal().read();
        let generation = refs::generation(&state)?;
        let in_head = |path: &RepoPath| lookup(&objects, &head, path);
        let put = |path: &RepoPath, entry: &Entry| -> Result<Op> {
            let as_head = in_head(path)?.is_some_and(|head| head.same_version(entry));
            let generation = if as_head { generation } else { generation + 1 };
            Ok(staging::put_op(path, &StagedEntry { generation, ..as_staged(entry) }))
        };
        let remove = |staged: &Encoded<'_>| -> Result<Op> {
            let path = staged.path()?;
            Ok(removal(&path, in_head(&path)?.is_some(), generation + 1))
        };
        // The folders above that are staged as something else, or not at all.
        for (folder, entry) in folders_above(scopes, &mut |path| Ok(lookup(&objects, tree, path)?))? {
            if staging::get(&state, &folder)?.is_none_or(|entry| entry.node != StagedNode::Dir) {
                ops.record(put(&folder, &entry)?)?;
                outcome.written += 1;
            }
        }
        let mut all_staged = staging::entries_in(&state, scopes);
        let mut staged = all_staged.next_encoded()?;
        for target in trees::Entries::new(Arc::clone(&objects), Arc::clone(tree)).within(scopes.clone()) {
            let (path, entry) = target?;
            while let Some(only_staged) = staged.filter(|staged| staged.cmp_path(&path).is_lt()) {
                ops.record(remove(&only_staged)?)?;
                outcome.removed += 1;
                staged = all_staged.next_encoded()?;
            }
            let mut is_there = false;
            if let Some(same_path) = staged.filter(|staged| staged.cmp_path(&path).is_eq()) {
                is_there = is_version(&entry, &same_path.decode()?);
                staged = all_staged.next_encoded()?;
            }
            if !is_there {
                ops.record(put(&path, &entry)?)?;
                outcome.written += 1;
            }
        }
        while let Some(only_staged) = staged {
            ops.record(remove(&only_staged)?)?;
            outcome.removed += 1;
            staged = all_staged.next_encoded()?;
        }
    }
    if !ops.is_empty() {
        repo.commit(lock, &[], ops)?;
    }
    Ok(outcome)
}
