//! `gc`: giving back the space of what nothing refers to any more, and few layers instead of many.
//!
//! First everything that is referred to is found (`mark`), then a plan is made of what becomes of each block (`plan`), then
//! layers are written anew in steps (`rewrite`). New layers are durable before the one record that puts them in the place
//! of the old ones; from then on no index counts for the old ones; their files go when nobody can be reading them any more.

pub mod mark;
pub mod merge;
mod plan;
mod rewrite;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

use self::mark::{Live, Undoable, mark};
use self::plan::{Wish, plan};
use self::rewrite::rewrite;
use super::Result;
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::repo::{Repository, WriteLock};
use crate::store::objects::ObjectStore;
use crate::store::{operations, retired};

/// Blocks that had to wait for those that needed them are gone after the second round; a third is a reserve.
const MAX_ROUNDS: usize = 3;
/// The level of zstd for what is compressed thoroughly: source code at 41 MB/s on a thread.
const THOROUGH_LEVEL: i32 = 12;
/// `gc` leaves no two layers that are shorter than this share of a full one.
const MERGE_SHARE: u64 = 4;

/// What to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Only make a plan.
    pub dry_run: bool,
    /// Compress everything anew, slower and smaller.
    pub aggressive: bool,
    /// Give up what only `undo` could bring back.
    pub prune: bool,
    /// How long the files of replaced layers stay; the settings' time if not given.
    pub grace: Option<Duration>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// Was this a look only?
    pub dry_run: bool,
    /// Layers before.
    pub layers_before: u64,
    /// Layers after; of a look only, not known.
    pub layers_after: Option<u64>,
    /// Layers that were written anew, or would be.
    pub layers_rewritten: u64,
    /// Bytes of layer files before.
    pub bytes_before: u64,
    /// Bytes of layer files after; of a look only, not known.
    pub bytes_after: Option<u64>,
    /// Bytes that nothing refers to, as they are stored. What is compressed together is shared out by length.
    pub dead_bytes: u64,
    /// Bytes of the layers to be written anew.
    pub rewrite_bytes: u64,
    /// Bytes of files that were removed.
    pub freed_bytes: u64,
    /// Bytes of files of replaced layers that stay for now.
    pub waiting_bytes: u64,
    /// Seconds until they may go.
    pub grace_secs: u64,
}

/// Collects what nothing refers to.
pub fn gc(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("gc");
    let lock = (!options.dry_run).then(|| repo.lock_and_reclaim("gc")).transpose()?;
    monitor.begin("looking for what is referred to", None, None);
    let undo = if options.prune { Undoable::Nothing } else { Undoable::All };
    let live = mark(repo, &[], undo, monitor)?;
    monitor.end();
    let mut outcome = Outcome { dry_run: options.dry_run, ..Outcome::default() };
    (outcome.layers_before, outcome.bytes_before) = layers(repo);
    let settings = repo.settings();
    let wish = Wish {
        all: options.aggressive,
        merge_below: settings.layer_len / MERGE_SHARE,
        merge_fewer: settings.layer_objects() as u64 / MERGE_SHARE,
    };
    let grace = options.grace.unwrap_or(settings.grace);
    outcome.grace_secs = grace.as_secs();
    let Some(lock) = lock else {
        let plan = plan(&repo.objects(), &live, wish, monitor)?;
        let rewritten = || plan.layers.iter().filter(|layer| layer.rewrite);
        outcome.dead_bytes = plan.dead_bytes + pending_dead_bytes(&repo.objects(), &live);
        outcome.layers_rewritten = rewritten().count() as u64;
        outcome.rewrite_bytes = rewritten().map(|layer| layer.file_bytes).sum();
        outcome.waiting_bytes = waiting(repo)?;
        return Ok(outcome);
    };
    if options.prune {
        let ops: Vec<Op> = operations::list(&repo.journal().read())?.iter().map(operations::forget_op).collect();
        repo.commit(&lock, &[], ops)?;
    }
    let swept = sweep(repo, &lock, &live, wish, monitor)?;
    outcome.dead_bytes = swept.dead_bytes;
    outcome.layers_rewritten = swept.replaced;
    let (layers_after, bytes_after) = layers(repo);
    (outcome.layers_after, outcome.bytes_after) = (Some(layers_after), Some(bytes_after));
    outcome.freed_bytes = repo.reap(&lock, grace)?;
    outcome.waiting_bytes = waiting(repo)?;
    Ok(outcome)
}

/// What a sweep did.
#[derive(Debug, Clone, Copy)]
struct Swept {
    dead_bytes: u64,
    replaced: u64,
}

/// Rewrites until nothing is left to do.
fn sweep(repo: &Repository, lock: &WriteLock, live: &Live, wish: Wish, monitor: &dyn Monitor) -> Result<Swept> {
    let mut swept = Swept { dead_bytes: pending_dead_bytes(&repo.objects(), live), replaced: 0 };
    if repo.objects().pending().objects().iter().any(|row| !live.contains(&row.id)) {
        repo.move_pending(lock, repo.layer_options(), &|id| live.contains(id))?;
    }
    for round in 0..MAX_ROUNDS {
        let objects = repo.objects();
        // What was compressed anew once need not be again.
        let wish = Wish { all: wish.all && round == 0, ..wish };
        let plan = plan(&objects, live, wish, monitor)?;
        if round == 0 {
            swept.dead_bytes += plan.dead_bytes;
        }
        if plan.layers.iter().all(|layer| !layer.rewrite) {
            break;
        }
        let mut options = repo.layer_options();
        if wish.all {
            options.level = options.level.max(THOROUGH_LEVEL);
        }
        let done = rewrite(repo, lock, &objects, &plan, live, options, monitor)?;
        swept.replaced += done.replaced;
        if done.postponed == 0 {
            break;
        }
    }
    Ok(swept)
}

/// Number of layers, and bytes of their files.
fn layers(repo: &Repository) -> (u64, u64) {
    let objects = repo.objects();
    let layers = objects.layers().layers();
    (layers.len() as u64, layers.iter().map(|(_, record)| record.file_len).sum())
}

fn waiting(repo: &Repository) -> Result<u64> {
    Ok(retired::list(&repo.journal().read())?.iter().map(|retired| retired.file_len).sum())
}

/// Bytes that would come back if the checkpoints `leave_out` were gone, and those that are deleted could not come back.
pub fn dead_bytes(repo: &Repository, leave_out: &[u64], monitor: &dyn Monitor) -> Result<u64> {
    let live = mark(repo, leave_out, Undoable::ButDeletions, monitor)?;
    let objects = repo.objects();
    let plan = plan(&objects, &live, Wish { all: false, merge_below: 0, merge_fewer: 0 }, monitor)?;
    Ok(plan.dead_bytes + pending_dead_bytes(&objects, &live))
}

/// Bytes that nothing refers to and that are pending.
fn pending_dead_bytes(objects: &ObjectStore, live: &Live) -> u64 {
    let pending = objects.pending();
    let (mut dead, mut all) = (0u64, 0u64);
    for object in pending.objects() {
        let len = u64::from(object.place.len);
        all += len;
        dead += if live.contains(&object.id) { 0 } else { len };
    }
    plan::share(pending.stored_bytes(), dead, all)
}

/// Gives back what is dead at once, without waiting for readers. Gives how many bytes the files of the repository lost.
pub fn reclaim(repo: &Repository, lock: &WriteLock, monitor: &dyn Monitor) -> Result<u64> {
    let live = mark(repo, &[], Undoable::All, monitor)?;
    let bytes = |repo: &Repository| layers(repo).1 + repo.objects().pending().stored_bytes();
    let before = bytes(repo);
    sweep(repo, lock, &live, Wish { all: false, merge_below: 0, merge_fewer: 0 }, monitor)?;
    repo.reap(lock, Duration::ZERO)?;
    Ok(before.saturating_sub(bytes(repo)))
}
