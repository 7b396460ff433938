//! Listings of the work tree's folders, kept so that an unchanged folder need not be listed again.
//!
//! A folder's times change whenever a name in it comes, goes or becomes another file. While they are as they were before
//! it was listed, the list holds; what the names stand for is looked at each time.

use super::StoreError;
use super::journal::State;
use crate::base::disk::Stat;
use crate::format::folder::{Name, decode_folder, folder_key};
use crate::format::journal::Op;
use crate::model::path::RepoPath;
use crate::model::staging::SeenStat;

/// What is in a folder, if it looks as it did when it was last listed.
pub fn get<'a>(state: &'a State, path: &RepoPath, now: &Stat) -> Result<Option<Vec<Name<'a>>>, StoreError> {
    let Some(value) = state.get(&folder_key(path))? else { return Ok(None) };
    decode_folder(value, &SeenStat::from(now)).map_err(StoreError::in_journal)
}

/// Forgets a listing: the folder is gone.
pub fn delete_op(path: &RepoPath) -> Op {
    Op::Delete(folder_key(path))
}
