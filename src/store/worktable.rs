//! What checkpoints know of the work tree: where it differs from staging, and the tree that it was last stored as.
//!
//! The table holds only paths for which staging's entry is not what was on disk: changed, new and missing ones. Staging
//! and this table together say what the work tree was when the base was stored. Whatever changes staging forgets the base;
//! the entries stay true as long as the files look the same.

use super::journal::State;
use super::staging::Entries;
use super::{StoreError, counter_op};
use crate::format::journal::Op;
use crate::format::staging::{
    STAGED_PREFIX, WORK_BASE_KEY, WORK_PARENT_KEY, WORK_PREFIX, decode_counter, decode_staged, decode_tree_id,
    encode_staged, key,
};
use crate::model::id::TreeId;
use crate::model::path::RepoPath;
use crate::model::staging::StagedEntry;

fn work_key(path: &RepoPath) -> Vec<u8> {
    key(WORK_PREFIX, &path.sort_key())
}

/// The tree that the work tree was last stored as; `None` if what is known does not add up to one.
pub fn base(state: &State) -> Result<Option<TreeId>, StoreError> {
    state.get(WORK_BASE_KEY)?.map(|value| decode_tree_id(value).map_err(StoreError::in_journal)).transpose()
}

/// Sets the base.
pub fn base_op(tree: &TreeId) -> Op {
    Op::Put(WORK_BASE_KEY.to_vec(), tree.digest().to_vec())
}

/// Forgets the base.
pub fn forget_base_op() -> Op {
    Op::Delete(WORK_BASE_KEY.to_vec())
}

/// The number of the checkpoint that the work tree was last equal to.
pub fn parent(state: &State) -> Result<Option<u64>, StoreError> {
    state.get(WORK_PARENT_KEY)?.map(|value| decode_counter(value).map_err(StoreError::in_journal)).transpose()
}

/// Sets the number of the checkpoint that the work tree is equal to.
pub fn parent_op(number: u64) -> Op {
    counter_op(WORK_PARENT_KEY, number)
}

/// Does the operation change staging, so that the base is none any more?
pub fn ends_base(op: &Op) -> bool {
    op.key().starts_with(STAGED_PREFIX)
}

/// Sets a path's entry.
pub fn put_op(path: &RepoPath, entry: &StagedEntry) -> Op {
    Op::Put(work_key(path), encode_staged(entry))
}

/// Removes a path's entry: staging is right about it.
pub fn delete_op(path: &RepoPath) -> Op {
    Op::Delete(work_key(path))
}

/// A path's entry.
pub fn get(state: &State, path: &RepoPath) -> Result<Option<StagedEntry>, StoreError> {
    state.get(&work_key(path))?.map(|value| decode_staged(value).map_err(StoreError::in_journal)).transpose()
}

/// Starts at the first entry, in tree order.
pub fn entries(state: &State) -> Result<Entries<'_>, StoreError> {
    Entries::under(state, WORK_PREFIX)
}
