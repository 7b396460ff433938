//! `undo`: takes back the last operation that changed the work tree, a branch, a tag or the checkpoints.
//!
//! What is in the work tree is saved first, so an `undo` loses nothing either.

use serde::Serialize;

use super::capture::What;
use super::checkout::plan::{self, Scope};
use super::checkout::{apply, tree_entries};
use super::checkpoint::create::save;
use super::checkpoint::edit::bring_back_ops;
use super::checkpoint::restore::{Request, replace, target};
use super::{Error, Result};
use crate::base::kind::ErrorKind;
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::checkpoint::Area;
use crate::model::id::CommitId;
use crate::model::operation::{Operation, OperationLine, RefStep, WorkStep};
use crate::model::path::RepoPath;
use crate::model::refs::{Head, RefKind};
use crate::model::scopes::Scopes;
use crate::ops::add::removal;
use crate::repo::{Repository, WriteLock, trees};
use crate::store::{checkpoints, operations, refs, staging};

/// What to take back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Only say what would be taken back.
    pub dry_run: bool,
}

/// What was taken back.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The operation; of a look only, all that can be, the last first.
    pub operations: Vec<OperationLine>,
    /// Files and links written.
    pub written: u64,
    /// Files, links and folders removed.
    pub removed: u64,
    /// The checkpoint that holds what was in the work tree before; none if it was not touched.
    pub saved: Option<u64>,
    /// What could not be written or removed.
    pub failed: u64,
    /// Was this a look only?
    pub dry_run: bool,
}

fn line(operation: &Operation) -> OperationLine {
    let Operation { number, time_ns, summary, .. } = operation;
    OperationLine { number: *number, time_ns: *time_ns, summary: summary.clone() }
}

/// Takes back the last operation.
pub fn undo(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("undo");
    if options.dry_run {
        let operations = operations::list(&repo.journal().read())?.iter().map(line).collect();
        return Ok(Outcome { operations, dry_run: true, ..Outcome::default() });
    }
    let lock = repo.lock("undo")?;
    let operation = operations::last(&repo.journal().read())?.ok_or_else(|| Error::Refused {
        message: "there is nothing to undo".to_owned(),
        hint: "'digstore log' and 'digstore checkpoint list' show what one can go back to",
    })?;
    if let Some(message) = lost(repo, &operation)? {
        // It is out of the way of those before it.
        repo.commit(&lock, &[], vec![operations::forget_op(&operation)])?;
        let hint = "'digstore undo' once more takes back what was done before it; 'compact --later' keeps the space";
        return Err(Error::Refused { message, hint });
    }
    check(repo, &operation)?;
    let mut outcome = Outcome { operations: vec![line(&operation)], ..Outcome::default() };
    let mut ops = Vec::new();
    ops.extend(operation.refs.iter().map(back));
    ops.extend(operation.head.iter().map(|(before, _)| refs::head_op(before)));
    if operation.committed {
        ops.extend(uncommit_ops(repo, &operation, monitor)?);
    }
    ops.extend(bring_back_ops(&repo.journal().read(), &operation.dropped)?);
    match operation.work.clone() {
        WorkStep::None => repo.commit(&lock, &[], with_forgetting(ops, &operation))?,
        WorkStep::Moved => {
            let ops = with_forgetting(ops, &operation);
            move_back(repo, &lock, &operation, false, ops, &mut outcome, monitor)?;
        }
        WorkStep::Replaced { saved, paths, moved } => {
            if moved {
                // What is there now is saved by this, so going back may overwrite it.
                save(repo, &lock, "before an undo".to_owned(), What::of(&Area::WorkTree), monitor)?;
                move_back(repo, &lock, &operation, true, std::mem::take(&mut ops), &mut outcome, monitor)?;
            }
            put_back(repo, &lock, (saved, paths, &operation), ops, &mut outcome, monitor)?;
        }
    }
    Ok(outcome)
}

fn with_forgetting(mut ops: Vec<Op>, operation: &Operation) -> Vec<Op> {
    ops.push(operations::forget_op(operation));
    ops
}

/// Why the operation can never be taken back; `None` if it can.
fn lost(repo: &Repository, operation: &Operation) -> Result<Option<String>> {
    let why = match operation.work {
        _ if operation.dropped_cleared => "its space was given back".to_owned(),
        WorkStep::Replaced { saved, .. } if checkpoints::get(&repo.journal().read(), saved)?.is_none() => {
            format!("checkpoint @{saved}, which held what was there, is gone")
        }
        _ => match head_elsewhere(repo, operation)? {
            Some(why) => why,
            None => return Ok(None),
        },
    };
    Ok(Some(format!("the {} cannot be undone: {why}", operation.summary)))
}

/// Why HEAD is not where the operation left it, though that did not move it: what moved it since was forgotten.
fn head_elsewhere(repo: &Repository, operation: &Operation) -> Result<Option<String>> {
    let head = refs::head(&repo.journal().read())?;
    let elsewhere = |RefStep { kind, name, before, .. }: &RefStep| {
        let is_head = *kind == RefKind::Branch && head == Head::Branch(name.clone());
        match operation.committed {
            true => (!is_head).then(|| format!("it was made on '{name}', and HEAD is elsewhere")),
            false => (is_head && before.is_none()).then(|| format!("HEAD is on '{name}'")),
        }
    };
    Ok(operation.refs.iter().filter(|_| operation.head.is_none()).find_map(elsewhere))
}

/// Nothing may have changed since that the operation did not do.
fn check(repo: &Repository, operation: &Operation) -> Result<()> {
    let refused = |message: String, hint| Err(Error::Refused { message, hint });
    let state = repo.journal().read();
    for RefStep { kind, name, after, .. } in &operation.refs {
        if refs::get(&state, *kind, name)? != *after {
            return refused(
                format!("'{name}' was changed since the {}", operation.summary),
                "move it yourself with 'digstore branch -f' or 'digstore tag -f'",
            );
        }
    }
    if let Some((_, after)) = &operation.head
        && refs::head(&state)? != *after
    {
        let message = format!("HEAD was moved since the {}", operation.summary);
        return refused(message, "go back with 'digstore checkout'");
    }
    Ok(())
}

fn back(step: &RefStep) -> Op {
    match &step.before {
        Some(id) => refs::set_op(step.kind, &step.name, id),
        None => refs::delete_op(step.kind, &step.name),
    }
}

/// What a commit recorded is staged again: also the removal of what it does not have any more, unless that was staged anew since.
fn uncommit_ops(repo: &Repository, operation: &Operation, monitor: &dyn Monitor) -> Result<Vec<Op>> {
    let before = match operation.refs.first() {
        Some(step) => step.before,
        None => commit_before(repo, operation)?,
    };
    let state = repo.journal().read();
    let generation = refs::generation(&state)?;
    let is_gone = |path: &RepoPath| Ok::<_, Error>(staging::get(&state, path)?.is_none());
    let mut removals = Vec::new();
    let mut compare = || {
        let (old, new) = (repo.root_tree(before.as_ref())?, repo.root_tree(repo.head_commit()?.as_ref())?);
        trees::diff(&repo.objects(), &old, &new, &Scopes::everything(), &mut |change| {
            if change.new.is_none() && is_gone(&change.path)? {
                removals.push(removal(&change.path, true, generation));
            }
            Ok::<_, Error>(())
        })
    };
    // Whoever lost the newest commit gets away from it by an undo: staging has all that was in it.
    let compared = compare().or_else(|error| match error.kind() {
        ErrorKind::Corrupt => {
            removals.clear();
            tree_entries(repo, before.as_ref())?.try_for_each(|entry| {
                let (path, _) = entry?;
                if is_gone(&path)? {
                    removals.push(removal(&path, true, generation));
                }
                Ok(())
            })
        }
        _ => Err(error),
    });
    match compared {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let text = format!("what the {} removed is not known any more, and not staged: {error}", operation.summary);
            monitor.problem(&text);
        }
        compared => compared?,
    }
    removals.push(refs::generation_op(generation.saturating_sub(1)));
    Ok(removals)
}

/// The commit that HEAD stood for before the operation.
fn commit_before(repo: &Repository, operation: &Operation) -> Result<Option<CommitId>> {
    match &operation.head {
        Some((Head::Detached(id), _)) => Ok(Some(*id)),
        Some((Head::Branch(name), _)) => Ok(refs::get(&repo.journal().read(), RefKind::Branch, name)?),
        None => Ok(repo.head_commit()?),
    }
}

/// Makes the work tree and staging what the commit before says.
fn move_back(
    repo: &Repository,
    lock: &WriteLock,
    operation: &Operation,
    force: bool,
    ops: Vec<Op>,
    outcome: &mut Outcome,
    monitor: &dyn Monitor,
) -> Result<()> {
    let commit = commit_before(repo, operation)?;
    let mut target = tree_entries(repo, commit.as_ref())?.map(|entry| Ok(entry?));
    let scope = Scope { paths: Scopes::everything(), force, moves_head: true };
    let plan = plan::make(repo, &mut target, &scope, monitor)?;
    if !plan.conflicts.is_empty() {
        return Err(Error::WouldLose { verb: "undo", paths: plan.conflicts });
    }
    let done = apply::apply(repo, lock, plan, false, ops, monitor)?;
    outcome.written += done.written;
    outcome.removed += done.removed;
    outcome.failed += done.failed;
    Ok(())
}

/// Makes paths what the checkpoint made before the operation says.
fn put_back(
    repo: &Repository,
    lock: &WriteLock,
    (number, paths, operation): (u64, Vec<RepoPath>, &Operation),
    ops: Vec<Op>,
    outcome: &mut Outcome,
    monitor: &dyn Monitor,
) -> Result<()> {
    let target = target(repo, number)?;
    let request =
        Request { target, number, paths, set_times: false, reason: "before an undo".to_owned(), summary: None };
    let (done, mut ops) = replace(repo, lock, request, ops, monitor)?;
    // What was done by half can be taken back again.
    if done.failed == 0 {
        ops.push(operations::forget_op(operation));
    }
    repo.commit(lock, &[], ops)?;
    outcome.written += done.written;
    outcome.removed += done.removed;
    outcome.failed += done.failed;
    outcome.saved = done.saved;
    Ok(())
}
