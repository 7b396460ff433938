//! What can go wrong with a repository as a whole.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::base::disk::DiskError;
use crate::base::kind::ErrorKind;
use crate::model::id::CommitId;
use crate::store::StoreError;

/// A failure to open, lock or understand a repository.
#[derive(Debug, Error)]
pub enum RepoError {
    /// Another process changed the format while this one had the repository open.
    #[error("the repository was brought to format {found} meanwhile; it was opened as format {opened}")]
    Migrated {
        /// Its format now.
        found: u16,
        /// The format that this process knows.
        opened: u16,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Something inside is wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No repository at or above a folder.
    #[error("there is no digstore repository in {} or any folder above it", start.display())]
    NotFound {
        /// Where the search began.
        start: PathBuf,
    },
    /// A folder that is not a repository.
    #[error("{} is not a digstore repository", path.display())]
    NotARepository {
        /// The folder.
        path: PathBuf,
    },
    /// The work tree is the repository's own folder.
    #[error("the work tree {} lies in the repository itself", work.display())]
    WorkTreeInside {
        /// The work tree.
        work: PathBuf,
    },
    /// Another process is changing the repository.
    #[error("the repository is locked by {holder}; waited {} s", waited.as_secs())]
    Locked {
        /// What the holder wrote about itself.
        holder: String,
        /// How long was waited.
        waited: Duration,
    },
    /// A revision that names nothing.
    #[error("'{revision}' is not a branch, a tag or the id of a commit")]
    UnknownRevision {
        /// As written.
        revision: String,
    },
    /// A revision that cannot be read.
    #[error("'{revision}' cannot be read as a revision")]
    BadRevision {
        /// As written.
        revision: String,
    },
    /// A number that no checkpoint has.
    #[error("there is no checkpoint @{number}")]
    UnknownCheckpoint {
        /// The number.
        number: u64,
    },
    /// A checkpoint that was made without the work tree.
    #[error("the checkpoint @{number} does not hold the work tree")]
    CheckpointWithoutTree {
        /// The number.
        number: u64,
    },
    /// A checkpoint where a commit is meant.
    #[error("@{number} is a checkpoint, not a commit: it is on no branch")]
    NotACommit {
        /// The number.
        number: u64,
    },
    /// A prefix of several ids.
    #[error("'{prefix}' is the start of {} commits: {}", candidates.len(), list(candidates))]
    AmbiguousRevision {
        /// As written.
        prefix: String,
        /// The commits.
        candidates: Vec<CommitId>,
    },
    /// More steps back than there are commits.
    #[error("'{revision}' goes back beyond the first commit")]
    BeyondRoot {
        /// As written.
        revision: String,
    },
    /// HEAD has no commit yet.
    #[error("there is no commit yet")]
    NoCommits,
    /// A tree that is deeper than paths can be.
    #[error("a folder in the tree of {0} is nested too deeply")]
    TooDeep(String),
}

fn list(candidates: &[CommitId]) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<String> = candidates.iter().take(SHOWN).map(CommitId::short).collect();
    if candidates.len() > SHOWN {
        shown.push("...".to_owned());
    }
    shown.join(", ")
}

impl RepoError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Locked { .. } => ErrorKind::Conflict,
            Self::BadRevision { .. } => ErrorKind::Usage,
            Self::TooDeep(_) => ErrorKind::Corrupt,
            _ => ErrorKind::Failed,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotFound { .. } | Self::NotARepository { .. } => {
                Some("make one with 'digstore init', or name one with --store DIR or -C DIR")
            }
            Self::Locked { .. } => Some("try again when it is done, or wait longer with --lock-timeout SECONDS"),
            Self::UnknownRevision { revision } if revision.contains(':') => {
                Some("'digstore cat REV:PATH' prints a file of a revision, 'digstore ls REV:PATH' lists a folder")
            }
            Self::UnknownRevision { .. } => {
                Some("'digstore log', 'digstore branch' and 'digstore tag' show what there is")
            }
            Self::UnknownCheckpoint { .. } => Some("'digstore checkpoint list' shows what there is"),
            Self::CheckpointWithoutTree { .. } => Some("'digstore checkpoint show' says what it holds"),
            Self::NotACommit { .. } => Some("go back to a checkpoint with 'digstore checkpoint restore @N'"),
            Self::WorkTreeInside { .. } => Some("go to the folder whose files are meant, or name it with -C DIR"),
            Self::BadRevision { .. } => {
                Some("write a branch, a tag, HEAD, HEAD~3 or the first digits of a commit's id")
            }
            Self::AmbiguousRevision { .. } => Some("write more digits"),
            Self::NoCommits => Some("add files with 'digstore add' and record them with 'digstore commit -m MESSAGE'"),
            Self::Store(error) if error.kind() == ErrorKind::Corrupt => {
                Some("'digstore fsck --full' lists what is damaged, 'digstore fsck --repair' mends what can be mended")
            }
            Self::Store(StoreError::Format { .. }) => Some("use a newer digstore for this repository"),
            _ => None,
        }
    }
}
