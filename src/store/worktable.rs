//! What checkpoints know of the looks of the work tree and of each bundle that has checkpoints of its own, and the tree that
//! each was last stored as, its base.
//!
//! The table of the work tree holds only paths for which staging's entry is not what was on disk: changed, new and missing
//! ones. Staging and this table together say what the work tree was when its base was stored, so whatever changes staging
//! forgets the base. The table of a bundle says it alone. Entries stay true as long as the files look the same.

use super::journal::{Batch, State};
use super::staging::{self, Entries};
use super::{StoreError, counter_op};
use crate::format::journal::Op;
use crate::format::staging::{
    BUNDLE_BASE_PREFIX, BUNDLE_PARENT_PREFIX, BUNDLE_PREFIX, STAGED_PREFIX, WORK_BASE_KEY, WORK_PARENT_KEY,
    WORK_PREFIX, bundle_table, decode_counter, decode_staged, decode_tree_id, encode_staged, key, path_of_key,
};
use crate::model::checkpoint::Area;
use crate::model::id::TreeId;
use crate::model::path::RepoPath;
use crate::model::staging::StagedEntry;

/// What the keys of an area's table begin with.
fn table(area: &Area) -> (&'static [u8], Vec<u8>) {
    match area {
        Area::WorkTree => (WORK_PREFIX, Vec::new()),
        Area::Bundle(path) => (BUNDLE_PREFIX, bundle_table(path)),
    }
}

fn entry_key(area: &Area, path: &RepoPath) -> Vec<u8> {
    let (prefix, rest) = table(area);
    [prefix, &rest, &path.sort_key()].concat()
}

fn parent_key(area: &Area) -> Vec<u8> {
    match area {
        Area::WorkTree => WORK_PARENT_KEY.to_vec(),
        Area::Bundle(path) => key(BUNDLE_PARENT_PREFIX, &path.sort_key()),
    }
}

fn base_key(area: &Area) -> Vec<u8> {
    match area {
        Area::WorkTree => WORK_BASE_KEY.to_vec(),
        Area::Bundle(path) => key(BUNDLE_BASE_PREFIX, &path.sort_key()),
    }
}

/// The tree that the area was last stored as; `None` if what is known does not add up to one.
pub fn base(state: &State, area: &Area) -> Result<Option<TreeId>, StoreError> {
    state.get(&base_key(area))?.map(|value| decode_tree_id(value).map_err(StoreError::in_journal)).transpose()
}

/// Sets the base.
pub fn base_op(area: &Area, tree: &TreeId) -> Op {
    Op::Put(base_key(area), tree.digest().to_vec())
}

/// Forgets the base.
pub fn forget_base_op(area: &Area) -> Op {
    Op::Delete(base_key(area))
}

/// The number of the checkpoint that the area was last equal to.
pub fn parent(state: &State, area: &Area) -> Result<Option<u64>, StoreError> {
    state.get(&parent_key(area))?.map(|value| decode_counter(value).map_err(StoreError::in_journal)).transpose()
}

/// Sets the number of the checkpoint that the area is equal to.
pub fn parent_op(area: &Area, number: u64) -> Op {
    counter_op(&parent_key(area), number)
}

/// Does a batch change staging, so that the work tree has no base any more?
pub fn ends_base(batch: &Batch) -> bool {
    batch.touches(STAGED_PREFIX)
}

/// Sets a path's entry.
pub fn put_op(area: &Area, path: &RepoPath, entry: &StagedEntry) -> Op {
    Op::Put(entry_key(area, path), encode_staged(entry))
}

/// Removes a path's entry: staging is right about it.
pub fn delete_op(area: &Area, path: &RepoPath) -> Op {
    Op::Delete(entry_key(area, path))
}

/// A path's entry.
pub fn get(state: &State, area: &Area, path: &RepoPath) -> Result<Option<StagedEntry>, StoreError> {
    state.get(&entry_key(area, path))?.map(|value| decode_staged(value).map_err(StoreError::in_journal)).transpose()
}

/// What is recorded of a path's looks: in the area's table, or else in staging.
pub fn known(state: &State, area: &Area, path: &RepoPath) -> Result<Option<StagedEntry>, StoreError> {
    match get(state, area, path)? {
        Some(entry) => Ok(Some(entry)),
        None => staging::get(state, path),
    }
}

/// Starts at the first entry of an area, in tree order.
pub fn entries<'a>(state: &'a State, area: &Area) -> Result<Entries<'a>, StoreError> {
    let (prefix, rest) = table(area);
    Entries::within(state, prefix, &rest, &area.root())
}

/// The bundles that something is recorded of, with the numbers of the checkpoints that they were last equal to.
pub fn bundles(state: &State) -> Result<Vec<(RepoPath, u64)>, StoreError> {
    let mut found = Vec::new();
    let mut scan = state.scan(BUNDLE_PARENT_PREFIX)?;
    while let Some((key, value)) = scan.next()? {
        let subject = key.get(BUNDLE_PARENT_PREFIX.len()..).unwrap_or_default();
        let path = path_of_key(subject).map_err(StoreError::in_journal)?;
        found.push((path, decode_counter(value).map_err(StoreError::in_journal)?));
    }
    Ok(found)
}

/// Forgets everything that is recorded of a bundle: its next checkpoint reads all of it.
pub fn forget_ops(state: &State, bundle: &RepoPath) -> Result<Vec<Op>, StoreError> {
    let area = Area::Bundle(bundle.clone());
    let mut ops = vec![Op::Delete(parent_key(&area)), forget_base_op(&area)];
    let mut entries = entries(state, &area)?;
    while let Some((path, _)) = entries.next()? {
        ops.push(delete_op(&area, &path));
    }
    Ok(ops)
}
