//! `checkpoint watch`: a checkpoint each time the work tree, or a bundle, has changed and come to rest.

use std::time::{Duration, Instant};

use super::create::{self, create};
use crate::base::monitor::Monitor;
use crate::model::checkpoint::Area;
use crate::model::scopes::Scopes;
use crate::ops::scan::{list_bundle, walk_along, walk_bundle};
use crate::ops::{Error, Result};
use crate::repo::{RepoError, Repository};
use crate::world::walk::{Found, WalkEntry};

/// How to watch.
#[derive(Debug, Clone)]
pub struct Options {
    /// How each checkpoint is made.
    pub create: create::Options,
    /// How often to look.
    pub interval: Duration,
    /// End after so many checkpoints.
    pub max_count: Option<u64>,
}

/// Looking takes at most one part in this many of the time, whatever the interval asked for.
const MAX_LOOKING_SHARE: u32 = 10;
/// While it waits it asks this often whether to stop.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Watches until it is cancelled or has made as many checkpoints as wanted; `made` is told of each. Returns their number.
pub fn watch(
    repo: &Repository,
    options: &Options,
    monitor: &dyn Monitor,
    made: &mut dyn FnMut(&create::Outcome),
) -> Result<u64> {
    let wanted = create::Options { only_if_changed: true, ..options.create.clone() };
    let (mut count, mut stored, mut last) = (0, None, None);
    while !monitor.cancelled() && options.max_count.is_none_or(|max| count < max) {
        let start = Instant::now();
        let now = look(repo, options.create.area.as_ref(), monitor)?;
        let looking = start.elapsed();
        // At rest: twice the same. What was stored like this already is left alone.
        if last == Some(now) && stored != Some(now) {
            let outcome = match create(repo, &wanted, monitor) {
                // Somebody else is writing, to the repository or to the bundle; the next look is soon enough.
                Err(Error::Repo(RepoError::Locked { .. }) | Error::KeptChanging(_)) => {
                    wait(options.interval, monitor);
                    continue;
                }
                made => made?,
            };
            // If something changed while it was stored, the next look differs and starts anew.
            stored = (outcome.skipped != Some(create::Skipped::Recent)).then_some(now);
            if outcome.checkpoint.is_some() {
                count += 1;
                made(&outcome);
            }
        }
        last = Some(now);
        wait(options.interval.max(looking * MAX_LOOKING_SHARE), monitor);
    }
    Ok(count)
}

fn wait(time: Duration, monitor: &dyn Monitor) {
    let end = Instant::now() + time;
    while let Some(rest) = end.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
        && !monitor.cancelled()
    {
        std::thread::sleep(rest.min(ASK_EVERY));
    }
}

/// A number that changes when anything in the area looks different.
fn look(repo: &Repository, area: Option<&Area>, monitor: &dyn Monitor) -> Result<u32> {
    repo.catch_up()?;
    let state = repo.journal().read();
    match area {
        Some(Area::Bundle(path)) => Ok(sum(&mut walk_bundle(repo, path, &list_bundle(repo, path)?)?.0.into())),
        _ => walk_along(repo, &state, &Scopes::everything(), false, false, monitor, |found| Ok(sum(found))),
    }
}

fn sum(found: &mut Found) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    while let Some(WalkEntry { path, stat }) = found.pop() {
        hasher.update(path.as_bytes());
        hasher.update(&stat.mode.to_le_bytes());
        // The time and length of a folder say nothing that its entries do not say.
        if stat.kind != crate::base::disk::FileKind::Dir {
            for number in [stat.len, stat.mtime_ns as u64, stat.ctime_ns as u64, stat.ino] {
                hasher.update(&number.to_le_bytes());
            }
        }
    }
    hasher.finalize()
}
