//! `checkpoint`: saved points of the work tree, on no branch, made in one step.
//!
//! One file for each thing that can be done with them. A [`Repository`](crate::repo::Repository) may be used by many threads: each call
//! takes the writer lock for itself. In a repository in memory the same calls work and nothing is written.

pub mod create;
pub mod edit;
mod ignored;
pub mod list;
mod preview;
pub mod restore;
pub mod retention;
pub mod transfer;
pub mod watch;

use super::Result;
pub use super::session::get as session;
use crate::model::checkpoint::Checkpoint;
use crate::model::session::SessionId;
use crate::repo::RepoError;
use crate::store::journal::State;
use crate::store::{checkpoints, sessions};

/// The checkpoint with a number.
pub fn get(state: &State, number: u64) -> Result<Checkpoint> {
    checkpoints::get(state, number)?.ok_or_else(|| RepoError::UnknownCheckpoint { number }.into())
}

/// The number of the session that a checkpoint names; none if it came from elsewhere and that session is not here.
pub fn session_of(state: &State, checkpoint: &Checkpoint) -> Result<Option<SessionId>> {
    match &checkpoint.origin.session {
        Some(name) => match sessions::id_of(state, name)? {
            Some(id) if checkpoints::is_listed(state, id, checkpoint.number)? => Ok(Some(id)),
            _ => Ok(None),
        },
        None => Ok(None),
    }
}

#[cfg(test)]
mod bundle_tests;
#[cfg(test)]
mod tests;
