//! `fsck`: is everything there, and is it what its name says?
//!
//! Two passes, and a look at the logs of sessions between them. The first goes through the layers as files: footers, tables, Merkle roots, and with `full` every block
//! and the hash of every object. The second goes from the refs and staging through commits, trees and recipes to the
//! chunks, so that damage found in the first is reported as paths and commits. Both go on after damage.

mod history;
mod layers;
mod repair;
mod sessions;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

pub use self::repair::Repair;

use super::{Error, Result};
use crate::base::disk::{Dir, IoContext, is_temp_name};
use crate::base::monitor::Monitor;
use crate::model::id::{CommitId, LayerId, ObjectId};
use crate::model::path::RepoPath;
use crate::repo::Repository;

/// How thoroughly to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Read and hash every stored byte; else only tables, commits, trees and recipes.
    pub full: bool,
}

/// Something that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong, as a sentence without its full stop.
    pub problem: String,
    /// The file that cannot be restored because of it.
    pub path: Option<RepoPath>,
    /// The newest commit that has the file so; `None` for staging and for what belongs to no file.
    pub commit: Option<CommitId>,
    /// The newest checkpoint that has it so, where no commit does.
    pub checkpoint: Option<u64>,
}

/// What a file that is checked belongs to.
#[derive(Debug, Clone, Copy, Default)]
struct Owner {
    commit: Option<CommitId>,
    checkpoint: Option<u64>,
}

/// What was checked and found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// Was every stored byte read?
    pub full: bool,
    /// Layers opened.
    pub layers: u64,
    /// Objects that the layers' tables list.
    pub objects: u64,
    /// Blocks read and decoded, with `full`.
    pub blocks_read: u64,
    /// Bytes hashed, with `full`.
    pub bytes_hashed: u64,
    /// Commits that refs lead to.
    pub commits: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Sessions whose logs were read and compared with their state.
    pub sessions: u64,
    /// Folders in them, each version once.
    pub trees: u64,
    /// Files in them, once in each version of their folder, and staged ones.
    pub files: u64,
    /// Layers and temporary files that a killed process left behind. They are no damage; the next change removes them.
    pub leftovers: u64,
    /// Bytes of the leftovers.
    pub leftover_bytes: u64,
    /// What was repaired before; none if that was not asked for.
    pub repair: Option<Repair>,
    /// All findings, even those that are not listed.
    pub damaged: u64,
    /// The first findings: layers first, then paths from the newest commit back.
    pub findings: Vec<Finding>,
}

/// More are counted, not listed: the loss of one layer can damage a million paths.
const MAX_FINDINGS: usize = 10_000;

impl Outcome {
    /// Was damage found?
    pub fn is_damaged(&self) -> bool {
        self.damaged > 0
    }

    fn add(&mut self, problem: String, path: Option<RepoPath>, owner: Owner) {
        self.damaged += 1;
        if self.findings.len() < MAX_FINDINGS {
            let Owner { commit, checkpoint } = owner;
            self.findings.push(Finding { problem, path, commit, checkpoint });
        }
    }
}

/// Objects that the first pass found damaged, and how.
type Damage = HashMap<ObjectId, String>;

/// Checks a repository. Changes nothing and takes no lock.
///
/// If another process changed it meanwhile, as a compaction does, what was found is looked for once more.
pub fn fsck(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let (outcome, _) = check(repo, options, monitor)?;
    if outcome.is_damaged() && repo.catch_up()? { Ok(check(repo, options, monitor)?.0) } else { Ok(outcome) }
}

/// Checks every byte, repairs what can be, and checks again. `other`: a repository that may have what is lost here.
pub fn repair(repo: &Repository, other: Option<&Repository>, monitor: &dyn Monitor) -> Result<Outcome> {
    let lock = repo.lock_and_reclaim("fsck --repair")?;
    let options = Options { full: true };
    let (outcome, found) = check(repo, &options, monitor)?;
    if !outcome.is_damaged() {
        return Ok(Outcome { repair: Some(Repair::default()), ..outcome });
    }
    let repaired = repair::repair(repo, &lock, &found, other, monitor)?;
    let (outcome, _) = check(repo, &options, monitor)?;
    Ok(Outcome { repair: Some(repaired), ..outcome })
}

/// What the check of the layers found, for the passes that follow.
#[derive(Debug, Default)]
struct Found {
    /// Damaged objects.
    damage: Damage,
    /// Layers that cannot be read at all.
    bad_layers: HashSet<LayerId>,
}

fn check(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<(Outcome, Found)> {
    let objects = repo.objects();
    let mut outcome = Outcome { full: options.full, ..Outcome::default() };
    // Counted first: what another process seals from now on is no leftover.
    count_leftovers(repo, &mut outcome)?;
    let mut found = Found::default();
    layers::check(repo, &objects, options.full, &mut outcome, &mut found, monitor)?;
    for name in objects.index().verify() {
        let problem =
            format!("the index file {name} is damaged; it is only derived, and nothing is lost if it is removed");
        outcome.add(problem, None, Owner::default());
    }
    sessions::check(repo, &mut outcome, monitor)?;
    history::check(repo, &objects, &found.damage, &mut outcome, monitor)?;
    Ok((outcome, found))
}

fn count_leftovers(repo: &Repository, outcome: &mut Outcome) -> Result<()> {
    let strays = repo.strays()?;
    outcome.leftovers = strays.len() as u64;
    outcome.leftover_bytes = strays.iter().map(|(_, len)| len).sum();
    let Some(dir) = repo.dir() else { return Ok(()) };
    count_temporary(dir.as_ref(), outcome)?;
    for item in dir.list().on("list", dir.path())? {
        if item.kind == crate::base::disk::FileKind::Dir {
            let sub = dir.open_dir(&item.name).on("open", dir.path().join(&item.name))?;
            count_temporary(sub.as_ref(), outcome)?;
        }
    }
    Ok(())
}

fn count_temporary(dir: &dyn Dir, outcome: &mut Outcome) -> Result<()> {
    for item in dir.list().on("list", dir.path())? {
        // A live writer may rename it meanwhile.
        if is_temp_name(&item.name)
            && let Some(stat) = dir.stat(&item.name).on("look at", dir.path().join(&item.name))?
        {
            outcome.leftovers += 1;
            outcome.leftover_bytes += stat.len;
        }
    }
    Ok(())
}

fn stop_if_cancelled(monitor: &dyn Monitor) -> Result<()> {
    if monitor.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
