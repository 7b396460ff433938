//! A point in history.

use super::id::{CommitId, TreeId};
use crate::base::clock::UnixNanos;

/// A recorded state of the tree, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The root directory.
    pub tree: TreeId,
    /// The commits that this one follows; none for the first.
    pub parents: Vec<CommitId>,
    /// Who made it, usually `Name <mail>`.
    pub author: String,
    /// When it was made.
    pub time_ns: UnixNanos,
    /// Minutes east of UTC where it was made; for display only.
    pub utc_offset_minutes: i16,
    /// What it is about.
    pub message: String,
}

/// Bound on text in a commit, for writers and decoders.
pub const MAX_MESSAGE_LEN: usize = 1 << 20;
/// Bound on an author line.
pub const MAX_AUTHOR_LEN: usize = 4096;
/// Bound on parents of one commit.
pub const MAX_PARENTS: usize = 64;

impl Commit {
    /// The first line of the message.
    pub fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}
