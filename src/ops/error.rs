//! What a verb can fail with.

use thiserror::Error;

use crate::base::disk::DiskError;
use crate::base::kind::ErrorKind;
use crate::format::FormatError;
use crate::model::path::{NameError, RepoPath, escape};
use crate::model::refs::RefNameError;
use crate::model::session::{SessionName, SessionNameError, Status};
use crate::repo::RepoError;
use crate::store::StoreError;

/// A failed verb. Every message names its subject; [`Error::hint`] says what to do next.
#[derive(Debug, Error)]
pub enum Error {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The repository could not be opened, locked or understood.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A path that cannot be in a repository.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name that cannot be a branch or tag.
    #[error(transparent)]
    RefName(#[from] RefNameError),
    /// A path that is not in the work tree or revision asked about.
    #[error("'{path}' is not {place}")]
    NoSuchPath {
        /// As asked for.
        path: RepoPath,
        /// "in the work tree", "tracked", "in HEAD".
        place: String,
    },
    /// An ignored path was named.
    #[error("'{0}' is ignored by a .digignore")]
    Ignored(RepoPath),
    /// The tree is the same as in HEAD.
    #[error("there is nothing to commit")]
    NothingToCommit,
    /// Files would be overwritten or removed whose content is not stored.
    #[error("{verb} would lose what is only in the work tree:{}", list(paths))]
    WouldLose {
        /// The verb, for the sentence.
        verb: &'static str,
        /// What would be lost.
        paths: Vec<RepoPath>,
    },
    /// A branch or tag exists already.
    #[error("the {kind} '{name}' exists already")]
    RefExists {
        /// "branch" or "tag".
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A branch or tag does not exist.
    #[error("there is no {kind} '{name}'")]
    NoSuchRef {
        /// "branch" or "tag".
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The branch that HEAD is on cannot be removed.
    #[error("'{0}' is the current branch")]
    CurrentBranch(String),
    /// A name that cannot be a session's.
    #[error(transparent)]
    SessionName(#[from] SessionNameError),
    /// A session that is not there.
    #[error("there is no session '{0}'")]
    NoSuchSession(SessionName),
    /// A session with this name is there already.
    #[error("the session '{0}' exists already")]
    SessionExists(SessionName),
    /// A session to which nothing can be added.
    #[error("the session '{name}' is not active: it is {status}")]
    SessionNotActive {
        /// Its name.
        name: SessionName,
        /// What it is instead.
        status: Status,
    },
    /// A key does not have the value that the caller took it to have.
    #[error("the key '{}' is not what was expected: it is {}", escape(key), shown(found.as_deref()))]
    Conflict {
        /// The key.
        key: Vec<u8>,
        /// Its value; none if it is not set.
        found: Option<Vec<u8>>,
    },
    /// A bundle, or a file that is to be lost by force, that did not hold still while it was read.
    #[error("'{0}' kept changing while it was read; nothing was changed")]
    KeptChanging(RepoPath),
    /// A proof that does not hold.
    #[error("the proof does not hold: {0}")]
    NotProven(String),
    /// The user stopped work that goes in steps.
    #[error("interrupted; the steps that were done stay done")]
    Stopped,
    /// Something about the request that no other variant says.
    #[error("{message}")]
    Refused {
        /// A whole sentence without its full stop.
        message: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// The user stopped the verb.
    #[error("interrupted; nothing was recorded")]
    Interrupted,
}

impl Error {
    /// Is it the journal that is damaged or missing, so that a repair makes it anew?
    pub fn is_journal(&self) -> bool {
        match self {
            Self::Repo(RepoError::Store(StoreError::JournalDamaged(_))) => true,
            Self::Repo(RepoError::Store(StoreError::Format { subject, source })) => {
                let is_newer = matches!(source, FormatError::Future { .. } | FormatError::Feature { .. });
                subject.starts_with("journal") && !is_newer
            }
            _ => false,
        }
    }
}

/// Paths named in a message; the rest is counted.
const PATHS_SHOWN: usize = 20;

fn list(paths: &[RepoPath]) -> String {
    let mut text: String = paths.iter().take(PATHS_SHOWN).map(|path| format!("\n  {path}")).collect();
    if let Some(more) = paths.len().checked_sub(PATHS_SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

/// Bytes of a value that are shown in a message.
const VALUE_SHOWN: usize = 80;

fn shown(value: Option<&[u8]>) -> String {
    match value {
        None => "not set".to_owned(),
        Some(value) if value.len() > VALUE_SHOWN => format!("a value of {} bytes", value.len()),
        Some(value) => format!("'{}'", escape(value)),
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Repo(error.into())
    }
}

impl Error {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::RefName(_) | Self::SessionName(_) => ErrorKind::Usage,
            Self::Conflict { .. } | Self::KeptChanging(_) => ErrorKind::Conflict,
            Self::Interrupted | Self::Stopped => ErrorKind::Interrupted,
            Self::NotProven(_) => ErrorKind::Corrupt,
            _ => ErrorKind::Failed,
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disk(_) => "disk",
            Self::Repo(error) => match error.kind() {
                ErrorKind::Corrupt => "corrupt",
                ErrorKind::Conflict => "locked",
                _ => "repository",
            },
            Self::Name(_) => "name",
            Self::RefName(_) => "ref-name",
            Self::NoSuchPath { .. } => "no-such-path",
            Self::Ignored(_) => "ignored",
            Self::NothingToCommit => "nothing-to-commit",
            Self::WouldLose { .. } => "would-lose",
            Self::RefExists { .. } => "ref-exists",
            Self::NoSuchRef { .. } => "no-such-ref",
            Self::CurrentBranch(_) => "current-branch",
            Self::SessionName(_) => "session-name",
            Self::NoSuchSession(_) => "no-such-session",
            Self::SessionExists(_) => "session-exists",
            Self::SessionNotActive { .. } => "session-not-active",
            Self::Conflict { .. } => "conflict",
            Self::KeptChanging(_) => "kept-changing",
            Self::Refused { .. } => "refused",
            Self::NotProven(_) => "not-proven",
            Self::Interrupted | Self::Stopped => "interrupted",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Disk(error) => disk_hint(error),
            Self::Repo(RepoError::Store(StoreError::Disk(error)) | RepoError::Disk(error)) => disk_hint(error),
            Self::Repo(error) => error.hint(),
            Self::NotProven(_) => Some("the proof, the root or the bytes are not the right ones; ask whoever made it"),
            Self::Stopped => Some("run it again to go on"),
            Self::Ignored(_) => Some("add it all the same with --force"),
            Self::NothingToCommit => Some("stage changes with 'digstore add', or use --allow-empty"),
            Self::WouldLose { verb: "restoring" | "undo", .. } => {
                Some("move these files away, or store them with 'digstore add' and 'digstore commit', and try again")
            }
            Self::WouldLose { .. } => {
                Some("store them with 'digstore add' and 'digstore commit', or give them up with --force")
            }
            Self::RefExists { .. } => Some("move it with --force"),
            Self::CurrentBranch(_) => Some("switch to another branch first"),
            Self::NoSuchSession(_) => Some("'digstore session list' shows what there is"),
            Self::SessionExists(_) => Some("choose another name, or take an orphan over with --resume"),
            Self::SessionNotActive { status: Status::Orphaned, .. } => {
                Some("take it over with 'digstore session begin --resume', or end or abort it")
            }
            Self::SessionNotActive { .. } => Some("what ended stays as it is; begin another session"),
            Self::Conflict { .. } => Some("read the value again and decide anew"),
            Self::KeptChanging(_) => Some("pause what writes to it, or unmount it if it is an image, and try again"),
            Self::Refused { hint, .. } => Some(hint),
            _ => None,
        }
    }
}

fn disk_hint(error: &DiskError) -> Option<&'static str> {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.source.kind() {
        StorageFull | QuotaExceeded => {
            Some("make room on the disk and run the command again; nothing that was recorded is lost")
        }
        PermissionDenied | ReadOnlyFilesystem => {
            Some("look at the permissions there; changing a repository needs more of them than reading it")
        }
        _ => None,
    }
}
