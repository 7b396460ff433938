//! Floor 4: every byte on disk.
//!
//! One module a file kind holds the type, its encoding, its decoding and its tests; nothing else in the crate computes
//! an offset. No file is opened here and no name is known. `docs/FORMAT.md` is the page that this room implements.
//! Decoders never index, unwrap or allocate on a length that they have not bounded.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

pub mod bundle;
pub mod checkpoint;
pub mod folder;
pub mod index;
pub mod journal;
pub mod layer;
pub mod manifest;
pub mod object;
pub mod operation;
pub mod pending;
pub mod proof;
pub mod session;
pub mod staging;
pub mod table;

use thiserror::Error;

use crate::base::bytes::DecodeError;

/// Why bytes are not what they should be. Whoever read them adds which file or object it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Too short, or a value that the format does not allow.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It does not begin like a file of this kind.
    #[error("this is not a {0} of digstore")]
    Foreign(&'static str),
    /// Written by a later version.
    #[error("this {what} has format version {found}; this program reads up to {known}")]
    Future {
        /// The kind of file.
        what: &'static str,
        /// Its version.
        found: u16,
        /// The newest version known here.
        known: u16,
    },
    /// It needs something that this program does not know.
    #[error("this {what} needs the feature {feature}, which this program does not have")]
    Feature {
        /// The kind of file.
        what: &'static str,
        /// Name or bits of the feature.
        feature: String,
    },
    /// A checksum differs.
    #[error("the checksum of the {0} is wrong")]
    Checksum(&'static str),
    /// It belongs to another repository.
    #[error("this {0} belongs to another repository")]
    OtherRepository(&'static str),
}

/// A repository's random id; every file carries it.
pub type RepoId = [u8; 16];

/// The version of every kind of file that has had only one.
pub const VERSION: u16 = 1;

/// Reads the start that binary headers share: magic and version, which it gives.
fn check_start(
    reader: &mut crate::base::bytes::ByteReader<'_>,
    magic: &[u8; 8],
    known: u16,
    what: &'static str,
) -> Result<u16, FormatError> {
    if reader.array::<8>().map_err(|_| FormatError::Foreign(what))? != *magic {
        return Err(FormatError::Foreign(what));
    }
    let found = reader.u16()?;
    if found == 0 || found > known { Err(FormatError::Future { what, found, known }) } else { Ok(found) }
}

/// Checks the bits of required features: none exist yet.
fn check_features(bits: u32, what: &'static str) -> Result<(), FormatError> {
    if bits == 0 { Ok(()) } else { Err(FormatError::Feature { what, feature: format!("{bits:#x}") }) }
}
