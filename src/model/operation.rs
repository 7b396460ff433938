//! What an operation changed, so that it can be taken back.

use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::id::CommitId;
use super::path::RepoPath;
use super::refs::{Head, RefKind, RefName};
use crate::base::clock::UnixNanos;

/// Operations that are kept. What belongs to older ones may be cleared away.
pub const OPERATIONS_KEPT: u64 = 100;

/// A branch or tag that an operation set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefStep {
    /// Branch or tag.
    pub kind: RefKind,
    /// Its name.
    pub name: RefName,
    /// Where it was; `None`: it did not exist.
    pub before: Option<CommitId>,
    /// Where it is; `None`: it was removed.
    pub after: Option<CommitId>,
}

/// What an operation did to the work tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkStep {
    /// Nothing.
    None,
    /// It was made what another commit says. What was there was stored in the commit before.
    Moved,
    /// Paths were overwritten or removed; the checkpoint has what was there.
    Replaced {
        /// Number of the checkpoint made before.
        saved: u64,
        /// The paths, with all below them; the root for everything.
        paths: Vec<RepoPath>,
        /// HEAD moved as well.
        moved: bool,
    },
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its number: rising, given once.
    pub number: u64,
    /// When.
    pub time_ns: UnixNanos,
    /// What it was, in a few words: `commit 3f2a91... first`.
    pub summary: String,
    /// Branches and tags.
    pub refs: Vec<RefStep>,
    /// Where HEAD pointed before and after, if that changed.
    pub head: Option<(Head, Head)>,
    /// A commit: the removals that it recorded are staged no more.
    pub committed: bool,
    /// The work tree.
    pub work: WorkStep,
    /// Checkpoints that were removed.
    pub dropped: Vec<Checkpoint>,
    /// The content of those has been cleared away, so they cannot come back.
    pub dropped_cleared: bool,
}

impl Operation {
    /// One that changed nothing yet. Its number is given when it is recorded.
    pub fn new(time_ns: UnixNanos, summary: String) -> Self {
        Self {
            number: 0,
            time_ns,
            summary,
            refs: Vec::new(),
            head: None,
            committed: false,
            work: WorkStep::None,
            dropped: Vec::new(),
            dropped_cleared: false,
        }
    }
}

/// An operation as people are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationLine {
    /// Its number.
    pub number: u64,
    /// When.
    pub time_ns: UnixNanos,
    /// What it was.
    pub summary: String,
}
