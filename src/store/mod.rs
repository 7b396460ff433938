//! Floor 5, inside the repository: layers of objects, their index, the journal.
//!
//! This room reads and writes the repository's own folder and nothing else. It never looks at a work tree, knows no
//! verb, and takes locks from its caller instead of making them.

pub mod backend;
pub mod cache;
pub mod checkpoints;
pub mod error;
pub mod folders;
pub mod index;
pub mod journal;
pub mod layer_reader;
pub mod layer_writer;
pub mod layers;
pub mod objects;
pub mod operations;
pub mod pending;
pub mod pieces;
pub mod refs;
pub mod retired;
pub mod sessions;
pub mod snapshots;
pub mod staging;
pub mod worktable;

pub use error::StoreError;

use journal::State;

use crate::format::journal::Op;
use crate::format::staging::decode_counter;

/// A number that the journal keeps under a key of its own; 0 before it was set.
fn counter(state: &State, key: &[u8]) -> Result<u64, StoreError> {
    state.get(key)?.map_or(Ok(0), |value| decode_counter(value).map_err(StoreError::in_journal))
}

/// Sets such a number.
fn counter_op(key: &[u8], number: u64) -> Op {
    Op::Put(key.to_vec(), number.to_le_bytes().to_vec())
}
