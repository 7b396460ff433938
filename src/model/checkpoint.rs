//! A saved point: the work tree, or a sparse bundle in it, as it was on disk, with what its maker said of it.

use std::fmt;

use serde::Serialize;

use super::id::{CheckpointId, TreeId};
use super::path::RepoPath;
use super::session::SessionName;
use crate::base::clock::UnixNanos;

/// Bound on a message.
pub const MAX_MESSAGE_LEN: usize = 64 << 10;
/// Bound on the state document: it lives in the journal, where a record holds 16 MiB at most.
pub const MAX_STATE_LEN: usize = 4 << 20;
/// Bound on a tag, and on the kind of an automatic checkpoint.
pub const MAX_TAG_LEN: usize = 128;
/// Bound on tags of one checkpoint.
pub const MAX_TAGS: usize = 64;
/// Bound on annotations of one checkpoint.
pub const MAX_ANNOTATIONS: usize = 1000;

/// Bound on the bytes of all annotations together, for the same reason as that on the state document.
pub const MAX_ANNOTATIONS_LEN: usize = 4 << 20;

/// The highest number: what every program that reads JSON keeps exactly, 2 to the power of 53.
pub const MAX_NUMBER: u64 = 1 << 53;

/// Who or what asked for a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Somebody, by hand.
    Manual,
    /// A program, because of something of this kind.
    Automatic(String),
    /// A clock.
    Scheduled,
}

/// The kind of checkpoint that is made before work is overwritten.
pub const SAFETY: &str = "safety";

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => f.write_str("manual"),
            Self::Automatic(kind) => write!(f, "automatic: {kind}"),
            Self::Scheduled => f.write_str("scheduled"),
        }
    }
}

/// How much a remark matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it.
    Warning,
    /// Something is wrong.
    Critical,
}

/// A remark that was added later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Annotation {
    /// When.
    pub time_ns: UnixNanos,
    /// How much it matters.
    pub severity: Severity,
    /// What it says.
    pub text: String,
}

/// What of the disk checkpoints are made of. Each area has checkpoints, parents and records of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Area {
    /// All of the work tree that is not ignored.
    #[default]
    WorkTree,
    /// The sparse bundle at this path, ignored or not.
    Bundle(RepoPath),
}

impl Area {
    /// Everything in the area is at or below this path.
    pub fn root(&self) -> RepoPath {
        match self {
            Self::WorkTree => RepoPath::root(),
            Self::Bundle(path) => path.clone(),
        }
    }

    /// The area as it was, stored as this tree.
    pub fn held(&self, tree: TreeId) -> Held {
        match self {
            Self::WorkTree => Held::Tree(tree),
            Self::Bundle(path) => Held::Bundle { path: path.clone(), tree },
        }
    }
}

/// What a checkpoint holds of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// Nothing: only what its maker said.
    Nothing,
    /// The work tree.
    Tree(TreeId),
    /// A sparse bundle.
    Bundle {
        /// Where it was in the work tree.
        path: RepoPath,
        /// A tree with the bundle at its path, and nothing else.
        tree: TreeId,
    },
}

/// What never changes about a checkpoint; its id is the hash of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The session that it belongs to.
    pub session: Option<SessionName>,
    /// The checkpoint that the work tree was last equal to.
    pub parent: Option<CheckpointId>,
    /// When it was made.
    pub time_ns: UnixNanos,
    /// What it is about.
    pub message: String,
    /// Who or what asked for it.
    pub trigger: Trigger,
    /// A JSON document of its maker, as it was given.
    pub state: Option<String>,
    /// The disk.
    pub held: Held,
    /// Paths that differ from the parent.
    pub changed_paths: u64,
    /// Paths that could not be read; they are as the parent has them, or missing.
    pub unreadable_paths: u64,
}

/// A saved point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Its number in this repository: rising, given once.
    pub number: u64,
    /// Hash of `origin`: the same in every repository that it is brought to.
    pub id: CheckpointId,
    /// What never changes.
    #[serde(flatten)]
    pub origin: Origin,
    /// Sorted, each once.
    pub tags: Vec<String>,
    /// In order of time.
    pub annotations: Vec<Annotation>,
}

impl Checkpoint {
    /// Is there room for so many more bytes of annotations?
    pub fn has_room(&self, len: usize) -> bool {
        self.annotations.iter().map(|annotation| annotation.text.len()).sum::<usize>() + len <= MAX_ANNOTATIONS_LEN
    }

    /// The tree, if it holds one.
    pub fn tree(&self) -> Option<TreeId> {
        match self.origin.held {
            Held::Tree(tree) | Held::Bundle { tree, .. } => Some(tree),
            Held::Nothing => None,
        }
    }

    /// The bundle that it holds, if it holds one.
    pub fn bundle(&self) -> Option<&RepoPath> {
        match &self.origin.held {
            Held::Bundle { path, .. } => Some(path),
            _ => None,
        }
    }

    /// What of the disk its tree is of, if it holds one.
    pub fn area(&self) -> Option<Area> {
        match &self.origin.held {
            Held::Nothing => None,
            Held::Tree(_) => Some(Area::WorkTree),
            Held::Bundle { path, .. } => Some(Area::Bundle(path.clone())),
        }
    }

    /// The first line of the message.
    pub fn subject(&self) -> &str {
        self.origin.message.lines().next().unwrap_or_default()
    }
}

/// Which checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Only those of this session.
    pub session: Option<SessionName>,
    /// Only those with this tag.
    pub tag: Option<String>,
    /// Only those made at this time or later.
    pub since_ns: Option<UnixNanos>,
    /// Only those made before this time.
    pub until_ns: Option<UnixNanos>,
    /// Only those with a lower number: the next page after the one that ended there.
    pub before: Option<u64>,
    /// At most so many; all by default.
    pub max_count: Option<usize>,
}

/// A checkpoint in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: CheckpointId,
    /// Its session.
    pub session: Option<SessionName>,
    /// When it was made.
    pub time_ns: UnixNanos,
    /// First line of its message.
    pub subject: String,
    /// Who or what asked for it.
    pub trigger: Trigger,
    /// Its tags.
    pub tags: Vec<String>,
    /// It holds the work tree, or a bundle.
    pub has_tree: bool,
    /// The bundle that it holds, if it is of one.
    pub bundle: Option<RepoPath>,
    /// It has a state document.
    pub has_state: bool,
    /// Paths that differ from its parent.
    pub changed_paths: u64,
    /// Remarks added later.
    pub annotations: u64,
}

impl From<&Checkpoint> for Line {
    fn from(checkpoint: &Checkpoint) -> Self {
        let origin = &checkpoint.origin;
        Self {
            number: checkpoint.number,
            id: checkpoint.id,
            session: origin.session.clone(),
            time_ns: origin.time_ns,
            subject: checkpoint.subject().to_owned(),
            trigger: origin.trigger.clone(),
            tags: checkpoint.tags.clone(),
            has_tree: checkpoint.tree().is_some(),
            bundle: checkpoint.bundle().cloned(),
            has_state: origin.state.is_some(),
            changed_paths: origin.changed_paths,
            annotations: checkpoint.annotations.len() as u64,
        }
    }
}

/// Checkpoints, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// As many as were asked for.
    pub checkpoints: Vec<Line>,
    /// There are more; go on before the last number.
    pub more: bool,
}

/// Why a tag, or the kind of a trigger, cannot be used. `None` if it can.
pub fn tag_fault(tag: &str) -> Option<&'static str> {
    if tag.is_empty() {
        Some("it is empty")
    } else if tag.len() > MAX_TAG_LEN {
        Some("it is longer than 128 bytes")
    } else if tag.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Some("it has a space or a control character")
    } else {
        None
    }
}
