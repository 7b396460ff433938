//! Failures as people and programs see them, and exit codes.

use std::io;
use std::process::ExitCode;

use digstore::base::disk::DiskError;
use digstore::base::kind::ErrorKind;
use digstore::ops;
use digstore::repo::RepoError;
use digstore::store::StoreError;
use serde_json::json;
use thiserror::Error;

use super::config::ConfigError;
use super::render::printable;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// Done, but some inputs could not be read.
    Partial = 3,
    /// Stored data is damaged.
    Damaged = 4,
    Locked = 5,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Failure {
    #[error(transparent)]
    Ops(#[from] ops::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("{message}")]
    Usage { message: String, hint: &'static str },
}

impl From<RepoError> for Failure {
    fn from(error: RepoError) -> Self {
        Self::Ops(error.into())
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Ops(error.into())
    }
}

impl Failure {
    pub fn usage(message: impl Into<String>, hint: &'static str) -> Self {
        Self::Usage { message: message.into(), hint }
    }

    /// Arguments that were not understood, in the words of the parser: the reason, then how the command is used.
    pub fn arguments(said: &str) -> Self {
        let reason = said.split("\n\nUsage:").next().unwrap_or_default();
        let message = reason.trim().strip_prefix("error: ").unwrap_or(reason).to_owned();
        Self::Usage { message, hint: "see '--help' of the command" }
    }

    /// The reader of the output went away, as `head` does; nobody is left to tell.
    pub fn is_broken_pipe(&self) -> bool {
        let source = match self {
            Self::Output(error) => error,
            Self::Ops(ops::Error::Disk(error)) => &error.source,
            _ => return false,
        };
        source.kind() == io::ErrorKind::BrokenPipe
    }

    /// A layer that the journal named a moment ago is gone.
    pub fn is_missing_layer(&self) -> bool {
        matches!(self, Self::Ops(ops::Error::Repo(RepoError::Store(StoreError::MissingLayer(_)))))
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Ops(error) => match error.kind() {
                ErrorKind::Failed => Exit::Failed,
                ErrorKind::Usage => Exit::Usage,
                ErrorKind::Corrupt => Exit::Damaged,
                ErrorKind::Conflict => Exit::Locked,
                ErrorKind::Interrupted => Exit::Interrupted,
            },
            Self::Config(_) | Self::Usage { .. } => Exit::Usage,
            Self::Output(_) => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Ops(error) => error.code(),
            Self::Config(_) => "config",
            Self::Output(_) => "output",
            Self::Usage { .. } => "usage",
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Ops(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Output(_) => None,
            Self::Usage { hint, .. } => Some(hint),
        }
    }

    /// What stderr gets, for people or for programs.
    pub fn describe(&self, as_json: bool) -> String {
        if as_json {
            let error = json!({ "code": self.code(), "message": self.to_string(), "hint": self.hint() });
            return format!("{}\n", json!({ "schema": "digstore.error/1", "error": error, "exit": self.exit() as u8 }));
        }
        let hint = self.hint().map_or_else(String::new, |hint| format!("hint: {hint}\n"));
        format!("error: {}\n{hint}", printable(&self.to_string()))
    }
}
