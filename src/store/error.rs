//! What can go wrong inside a repository.

use thiserror::Error;

use crate::base::disk::DiskError;
use crate::base::kind::ErrorKind;
use crate::format::FormatError;
use crate::model::id::{LayerId, ObjectId, ObjectKind};

/// A failure of the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file's bytes are not what they should be.
    #[error("{subject}: {source}")]
    Format {
        /// The file, relative to the repository.
        subject: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// Records that were committed cannot be read back.
    #[error("the journal is damaged: {0}")]
    JournalDamaged(String),
    /// An earlier write failed, so what is on disk is not known any more.
    #[error("an earlier write to the journal failed; open the repository again")]
    Poisoned,
    /// An object that something refers to is in no layer.
    #[error("the {kind} {} is missing", id.short())]
    Missing {
        /// What it should be.
        kind: ObjectKind,
        /// Its id.
        id: ObjectId,
    },
    /// An object's bytes do not have its id, or it is of another kind.
    #[error("the {kind} {} is damaged: {why}", id.short())]
    Corrupt {
        /// What it should be.
        kind: ObjectKind,
        /// Its id.
        id: ObjectId,
        /// What was found.
        why: String,
    },
    /// A block needs another one that cannot be had.
    #[error("block {block} of the layer {} needs a block that cannot be read: {why}", layer.short())]
    BrokenChain {
        /// Where the block is.
        layer: LayerId,
        /// Its number.
        block: u32,
        /// What is wrong with the other one.
        why: String,
    },
    /// A layer that the journal names is not there.
    #[error("the layer {} is missing", .0.short())]
    MissingLayer(LayerId),
    /// Compression or a thread failed; not a matter of the data.
    #[error("{0}")]
    Internal(String),
}

impl StoreError {
    /// A value of the journal that cannot be read.
    pub fn in_journal(source: FormatError) -> Self {
        Self::Format { subject: "journal".to_owned(), source }
    }

    /// Adds the file to a format error.
    pub fn format(subject: impl Into<String>) -> impl FnOnce(FormatError) -> Self {
        let subject = subject.into();
        move |source| Self::Format { subject, source }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk(_) | Self::Poisoned | Self::Internal(_) => ErrorKind::Failed,
            Self::Format { source: FormatError::Future { .. } | FormatError::Feature { .. }, .. } => ErrorKind::Failed,
            _ => ErrorKind::Corrupt,
        }
    }
}
