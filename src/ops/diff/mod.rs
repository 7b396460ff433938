//! `diff`: what differs between two states: revisions, staging, the work tree.
//!
//! `sides` finds the paths, `text` makes unified diffs. Nothing here draws or changes anything.

mod sides;
mod text;

use rayon::prelude::*;
use serde::Serialize;

pub use self::sides::{FileChange, VersionInfo, VersionNode, changes_each};
use super::{Error, Result};
use crate::base::monitor::Monitor;
use crate::model::id::CommitId;
use crate::model::path::RepoPath;
use crate::repo::Repository;

/// Lines of context around a change, as everybody is used to.
const CONTEXT_LINES: usize = 3;

/// One of the two states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A commit by its name.
    Revision(String),
    /// A commit.
    Commit(CommitId),
    /// What the next commit will hold.
    Staging,
    /// The tracked files as they are on disk.
    WorkTree,
    /// All files on disk that are not ignored, as a checkpoint would hold them.
    Disk,
    /// Nothing at all.
    Empty,
}

/// What to compare, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state before.
    pub old: Side,
    /// The state after.
    pub new: Side,
    /// Only what is at or below these; everything if empty.
    pub paths: Vec<RepoPath>,
    /// Read the contents: count lines, make text, look for common chunks.
    pub content: bool,
    /// Unchanged lines shown around a change.
    pub context_lines: usize,
    /// Also folders that came or went together with what is in them.
    pub all_folders: bool,
}

impl Options {
    /// Everything that differs, with contents.
    pub fn new(old: Side, new: Side) -> Self {
        Self { old, new, paths: Vec::new(), content: true, context_lines: CONTEXT_LINES, all_folders: false }
    }
}

/// All differences.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// In tree order. Folders are named only if nothing in them tells the same.
    pub files: Vec<FileDiff>,
}

/// What differs at one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDiff {
    /// Where.
    pub path: RepoPath,
    /// `added`, `removed`, `modified`, `mode` (and nothing else), or `type` (a file became a link, say).
    pub change: &'static str,
    /// Permission bits before.
    pub old_mode: Option<u32>,
    /// Permission bits after.
    pub new_mode: Option<u32>,
    /// Length before, of a file or of a link's target.
    pub old_bytes: Option<u64>,
    /// Length after.
    pub new_bytes: Option<u64>,
    /// One of the versions is no text, or too long to be compared as text. False where contents were not asked for.
    pub is_binary: bool,
    /// Lines that only the new version has; none for binary files, or if contents were not asked for.
    pub added_lines: Option<u64>,
    /// Lines that only the old version has.
    pub removed_lines: Option<u64>,
    /// Of a binary file: the chunks that both stored versions have.
    pub chunks_in_common: Option<ChunksInCommon>,
    /// A unified diff with its two header lines, names escaped, bytes that are not UTF-8 as `\xNN`.
    pub hunks: Option<String>,
}

/// Chunks that two versions share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ChunksInCommon {
    /// How many different ones.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Compares two states.
pub fn diff(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let mut files = Vec::new();
    diff_each(repo, options, monitor, &mut |file| files.push(file))?;
    Ok(Outcome { files })
}

/// Compares two states, and hands on what differs in tree order. The text of all of it may be longer than memory: contents of no more than
/// may be in flight are compared at a time.
pub fn diff_each(
    repo: &Repository,
    options: &Options,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut(FileDiff),
) -> Result<()> {
    changes_each(repo, options, monitor, &mut |changes| describe_all(repo, &changes, options, monitor, each))
}

fn describe_all(
    repo: &Repository,
    changes: &[FileChange],
    options: &Options,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut(FileDiff),
) -> Result<()> {
    let (objects, most) = (repo.objects(), repo.settings().in_flight_len as u64);
    let describe = |change: &FileChange| {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        text::describe(repo, &objects, change, options, monitor)
    };
    let mut rest = changes;
    while !rest.is_empty() {
        let mut bytes = 0;
        let others = rest.iter().skip(1).take_while(|change| {
            bytes += text::compared_bytes(repo, change);
            bytes <= most
        });
        let (some, later) = rest.split_at(1 + others.count());
        rest = later;
        let described = if options.content && some.len() > 1 {
            repo.pools().cpu().install(|| some.par_iter().map(describe).collect::<Result<Vec<_>>>())?
        } else {
            some.iter().map(describe).collect::<Result<Vec<_>>>()?
        };
        described.into_iter().for_each(&mut *each);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
