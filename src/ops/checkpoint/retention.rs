//! `checkpoint compact`: which checkpoints stay, and giving back the space of those that go.

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use super::edit::drop_ops;
use super::list::Line;
use super::session;
use crate::base::clock::{self, NANOS_PER_SEC, UnixNanos};
use crate::base::disk::IoContext;
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::checkpoint::Checkpoint;
use crate::model::operation::Operation;
use crate::model::path::RepoPath;
use crate::model::session::SessionName;
use crate::ops::Result;
use crate::ops::gc;
use crate::repo::{Repository, WriteLock};
use crate::store::checkpoints::{self, Listing};
use crate::store::{operations, snapshots, worktable};

/// An hour.
const HOUR_NS: i64 = 3600 * NANOS_PER_SEC;
/// A day.
const DAY_NS: i64 = 24 * HOUR_NS;

/// Which tags keep a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tagged {
    /// None does.
    #[default]
    None,
    /// Any does.
    Any,
    /// These do.
    Of(Vec<String>),
}

/// What stays: whatever at least one rule keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// So many of the newest.
    pub newest: Option<usize>,
    /// Tagged ones.
    pub tagged: Tagged,
    /// All of the last hour, then the newest of each hour for a day, then the newest of each day.
    pub thin: bool,
}

/// What to compact, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What stays. Without a rule nothing goes, and only dead space is given back.
    pub policy: Policy,
    /// Only checkpoints of this session.
    pub session: Option<SessionName>,
    /// Only say what would go.
    pub dry_run: bool,
    /// Remove the records only. The space is given back by the next compaction; until then `undo` brings them back.
    pub later: bool,
}

/// What went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// Removed checkpoints, the newest first.
    pub removed: Vec<Line>,
    /// Checkpoints that stayed.
    pub kept: u64,
    /// Bytes given back; of a look only, bytes that would be.
    pub freed_bytes: u64,
    /// The space was given back, or would be.
    pub freed: bool,
    /// Was this a look only?
    pub dry_run: bool,
}

impl Policy {
    /// Has it any rule?
    pub fn has_rules(&self) -> bool {
        self.newest.is_some() || self.tagged != Tagged::None || self.thin
    }

    /// The numbers of checkpoints that go. They are given the newest first.
    pub fn select(&self, all: &[Checkpoint], now: UnixNanos) -> Vec<u64> {
        if !self.has_rules() {
            return Vec::new();
        }
        // Those of a bundle are a row of their own.
        let mut rows: HashMap<Option<RepoPath>, (usize, HashSet<(i64, i64)>)> = HashMap::new();
        let keep = |checkpoint: &Checkpoint| {
            let (place, hours) = rows.entry(checkpoint.bundle().cloned()).or_default();
            let newest = self.newest.is_some_and(|newest| *place < newest);
            *place += 1;
            let tagged = match &self.tagged {
                Tagged::None => false,
                Tagged::Any => !checkpoint.tags.is_empty(),
                Tagged::Of(tags) => checkpoint.tags.iter().any(|tag| tags.contains(tag)),
            };
            let thin = self.thin && keeps_by_age(checkpoint.origin.time_ns, now, hours);
            (!(newest || tagged || thin)).then_some(checkpoint.number)
        };
        all.iter().filter_map(keep).collect()
    }
}

/// Is it the newest of its span? Called with the newest first. Spans are those of the clock, so that it does not matter
/// how often one compacts.
fn keeps_by_age(time_ns: UnixNanos, now: UnixNanos, spans: &mut HashSet<(i64, i64)>) -> bool {
    let age = now.saturating_sub(time_ns);
    let span = if age < HOUR_NS {
        return true;
    } else if age < DAY_NS {
        HOUR_NS
    } else {
        DAY_NS
    };
    spans.insert((span, time_ns.div_euclid(span)))
}

/// Removes checkpoints and gives their space back.
pub fn compact(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("checkpoint.compact");
    let lock = (!options.dry_run).then(|| repo.lock("checkpoint compact")).transpose()?;
    let (all, dropped) = {
        let state = repo.journal().read();
        let listing = match &options.session {
            Some(name) => Listing::Session(session(&state, name)?.id),
            None => Listing::All,
        };
        let all = checkpoints::all(&state, &listing)?;
        let numbers: HashSet<u64> = options.policy.select(&all, clock::now()).into_iter().collect();
        let dropped: Vec<Checkpoint> =
            all.iter().filter(|checkpoint| numbers.contains(&checkpoint.number)).cloned().collect();
        (all.len(), dropped)
    };
    let mut outcome = Outcome {
        removed: dropped.iter().map(Line::from).collect(),
        kept: (all - dropped.len()) as u64,
        freed: !options.later,
        dry_run: options.dry_run,
        ..Outcome::default()
    };
    let numbers: Vec<u64> = dropped.iter().map(|checkpoint| checkpoint.number).collect();
    let Some(lock) = lock else {
        if !options.later {
            outcome.freed_bytes = gc::dead_bytes(repo, &numbers, monitor)?;
        }
        return Ok(outcome);
    };
    if !dropped.is_empty() {
        let ops = drop_ops(&repo.journal().read(), dropped, !options.later)?;
        repo.commit(&lock, &[], ops)?;
    }
    if !options.later {
        forget_dropped(repo, &lock)?;
        forget_bundles(repo, &lock)?;
        outcome.freed_bytes = gc::reclaim(repo, &lock, monitor)?;
        forget_in_journal(repo, &lock)?;
        forget_snapshots(repo)?;
    }
    Ok(outcome)
}

/// The journal keeps two snapshots and the log since the older one, so it takes two to be rid of what was removed.
fn forget_in_journal(repo: &Repository, lock: &WriteLock) -> Result<()> {
    repo.journal().snapshot()?;
    let last = checkpoints::last_number(&repo.journal().read())?;
    repo.commit(lock, &[], vec![checkpoints::last_number_op(last)])?;
    Ok(repo.journal().snapshot()?)
}

/// Bundles whose last checkpoint is gone: what is known of their looks would keep all of their content.
fn forget_bundles(repo: &Repository, lock: &WriteLock) -> Result<()> {
    let ops = {
        let state = repo.journal().read();
        let mut ops = Vec::new();
        for (path, number) in worktable::bundles(&state)? {
            if checkpoints::get(&state, number)?.is_none() {
                ops.extend(worktable::forget_ops(&state, &path)?);
            }
        }
        ops
    };
    if !ops.is_empty() {
        repo.commit(lock, &[], ops)?;
    }
    Ok(())
}

fn forget_snapshots(repo: &Repository) -> Result<()> {
    let Some(dir) = repo.dir() else { return Ok(()) };
    let numbers: HashSet<u64> = checkpoints::numbers(&repo.journal().read())?.into_iter().collect();
    Ok(snapshots::prune(dir.as_ref(), &|number| numbers.contains(&number)).on("clean", dir.path())?)
}

/// What deletions kept for `undo` is given up.
fn forget_dropped(repo: &Repository, lock: &WriteLock) -> Result<()> {
    let kept = operations::list(&repo.journal().read())?;
    let held = kept.into_iter().filter(|operation| !operation.dropped.is_empty());
    let cleared = held.map(|operation| Operation { dropped: Vec::new(), dropped_cleared: true, ..operation });
    let ops: Vec<Op> = cleared.map(|operation| operations::update_op(&operation)).collect();
    if !ops.is_empty() {
        repo.commit(lock, &[], ops)?;
    }
    Ok(())
}
