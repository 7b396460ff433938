//! What the next commit will hold, and what each file looked like when it was last read.

use super::tree::{Content, Meta};
use crate::base::clock::UnixNanos;
use crate::base::disk::{FileKind, Stat};

/// What `lstat` said of a file when its content was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeenStat {
    /// Length in bytes.
    pub len: u64,
    /// Modification time.
    pub mtime_ns: UnixNanos,
    /// Time of the last change of the inode.
    pub ctime_ns: UnixNanos,
    /// Inode number.
    pub ino: u64,
}

impl From<&Stat> for SeenStat {
    fn from(stat: &Stat) -> Self {
        Self { len: stat.len, mtime_ns: stat.mtime_ns, ctime_ns: stat.ctime_ns, ino: stat.ino }
    }
}

/// A change made less than this before the content was recorded may share its timestamps with a later change.
/// Kernel timestamps advance with the timer tick, at most 10 ms apart.
pub const RACY_WINDOW_NS: i64 = 20_000_000;
/// The same where timestamps have whole seconds only (FAT has two), recognised by their zero fraction.
pub const COARSE_RACY_WINDOW_NS: i64 = 2_500_000_000;

/// Could a change right after `now` leave the stat as it is? Then the stat proves nothing and content must be compared.
pub fn is_racy(stat: &Stat, now: UnixNanos) -> bool {
    stat.mtime_ns.max(stat.ctime_ns).saturating_add(window_of(stat)) >= now
}

fn window_of(stat: &Stat) -> i64 {
    let coarse = stat.mtime_ns % 1_000_000_000 == 0 && stat.ctime_ns % 1_000_000_000 == 0;
    if coarse { COARSE_RACY_WINDOW_NS } else { RACY_WINDOW_NS }
}

/// When a further change of the file would show in its times for sure, if that is later than `now`.
pub fn grain_ends(stat: &Stat, now: UnixNanos) -> Option<UnixNanos> {
    // A time in the future says nothing about when it was set.
    let newest = [stat.mtime_ns, stat.ctime_ns].into_iter().filter(|time| *time <= now).max()?;
    Some(newest.saturating_add(window_of(stat))).filter(|end| *end >= now)
}

/// What a tracked path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StagedNode {
    /// A regular file.
    File {
        /// Length in bytes.
        len: u64,
        /// Its stored bytes.
        content: Content,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A directory, so that empty ones and modes are kept.
    Dir,
    /// Not there any more; kept until the commit that records it.
    Deleted,
}

impl StagedNode {
    /// Which kind of file this is on disk; `None` for a deletion.
    pub fn kind(&self) -> Option<FileKind> {
        match self {
            Self::File { .. } => Some(FileKind::File),
            Self::Symlink { .. } => Some(FileKind::Symlink),
            Self::Dir => Some(FileKind::Dir),
            Self::Deleted => None,
        }
    }
}

/// One tracked path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedEntry {
    /// What it is.
    pub node: StagedNode,
    /// Mode and time, as the next commit will record them.
    pub meta: Meta,
    /// What it looked like when last read or written.
    pub seen: SeenStat,
    /// The stat was too fresh to prove anything.
    pub racy: bool,
    /// The commit counter at which this becomes part of a commit. Above the repository's counter: staged, not committed.
    pub generation: u64,
}

impl StagedEntry {
    /// Does the file on disk look exactly as when it was recorded, so that its content need not be read?
    pub fn is_unchanged(&self, stat: &Stat) -> bool {
        !self.racy
            && self.node.kind() == Some(stat.kind)
            && self.seen == SeenStat::from(stat)
            && self.meta.mode == stat.mode
    }

    /// The same of whatever is there: folders have only a mode.
    pub fn looks_like(&self, stat: &Stat) -> bool {
        match self.node {
            StagedNode::Dir => stat.kind == FileKind::Dir && self.meta.mode == stat.mode,
            _ => self.is_unchanged(stat),
        }
    }

    /// The same file as `other` but for times.
    pub fn same_version(&self, other: &StagedEntry) -> bool {
        self.node == other.node
            && (self.meta.mode == other.meta.mode || matches!(self.node, StagedNode::Symlink { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mtime_ns: i64, ctime_ns: i64) -> Stat {
        Stat { kind: FileKind::File, mode: 0o644, len: 1, mtime_ns, ctime_ns, ino: 1, links: 1, allocated_bytes: 512 }
    }

    #[test]
    fn a_fresh_stat_is_racy_and_an_old_one_is_not() {
        let now = 10_000_000_000_123;
        assert!(is_racy(&stat(now, now), now));
        assert!(is_racy(&stat(now - RACY_WINDOW_NS, 5), now));
        assert!(is_racy(&stat(1, now - 1_000_000), now), "a restored mtime does not hide a fresh ctime");
        assert!(is_racy(&stat(now + 1_000_000_000, 1), now), "a clock ahead of ours proves nothing");
        assert!(!is_racy(&stat(now - RACY_WINDOW_NS - 1, 1), now));
        let whole_second = 9_998_000_000_000;
        assert!(is_racy(&stat(whole_second, whole_second), whole_second + 2_000_000_000));
        assert!(!is_racy(&stat(whole_second, whole_second), whole_second + 3_000_000_000));
    }

    #[test]
    fn the_grain_of_a_fresh_time_ends_whatever_the_other_time_says() {
        let now = 10_000_000_000_123;
        let end = Some(now - 5 + RACY_WINDOW_NS);
        assert_eq!(grain_ends(&stat(now - 5, 1), now), end);
        assert_eq!(grain_ends(&stat(now + 1_000_000_001, now - 5), now), end, "an mtime in the future");
        assert_eq!(grain_ends(&stat(now - RACY_WINDOW_NS - 1, 1), now), None);
        assert_eq!(grain_ends(&stat(now + 1, now + 1), now), None);
        let whole_second = 9_999_000_000_000;
        assert_eq!(grain_ends(&stat(whole_second, whole_second), now), Some(whole_second + COARSE_RACY_WINDOW_NS));
    }
}
