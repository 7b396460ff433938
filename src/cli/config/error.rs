//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use digstore::base::disk::DiskError;
use thiserror::Error;

/// Where in a file something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A configuration that cannot be used, read or written.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A key, section or profile entry that does not exist.
    #[error("{}unknown key '{key}'; the nearest known key is '{nearest}'", before(place))]
    UnknownKey {
        /// Where it was written, if in a file.
        place: Option<Place>,
        /// With its section.
        key: String,
        /// With its section.
        nearest: String,
    },
    /// A value that its key does not take, alone or beside the others.
    #[error("{}{key}: {message}", before(place))]
    BadValue {
        /// Where it was written, if in a file.
        place: Option<Place>,
        /// With its section.
        key: String,
        /// Half a sentence.
        message: String,
    },
    /// A profile that neither a file nor the program has.
    #[error("{}there is no profile '{name}'; known are {known}", before(place))]
    UnknownProfile {
        /// Where it was chosen, if in a file.
        place: Option<Place>,
        /// As chosen.
        name: String,
        /// All others.
        known: String,
    },
}

fn before(place: &Option<Place>) -> String {
    place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default()
}

impl ConfigError {
    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Disk(_) => None,
            Self::Syntax { .. } => Some("texts stand in quotes: name = \"Ada\"; digstore.toml.example shows every key"),
            Self::UnknownKey { .. } => Some("'digstore config' lists all keys"),
            Self::BadValue { place: Some(_), .. } => Some("change the line, or remove it to have the default"),
            Self::BadValue { place: None, .. } => Some("'digstore config' shows each key's value and what it means"),
            Self::UnknownProfile { .. } => Some("define it with a [profiles.NAME] table in digstore.toml"),
        }
    }
}
