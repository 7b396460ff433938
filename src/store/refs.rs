//! HEAD, branches, tags and the generation, in the journal.

use super::journal::State;
use super::{StoreError, counter, counter_op};
use crate::format::journal::Op;
use crate::format::staging::{
    BRANCH_PREFIX, GENERATION_KEY, HEAD_KEY, LAYER_PREFIX, LayerRecord, TAG_PREFIX, decode_commit_id, decode_head,
    encode_head, key,
};
use crate::model::id::{CommitId, LayerId};
use crate::model::refs::{DEFAULT_BRANCH, Head, RefName};

pub use crate::model::refs::RefKind;

fn prefix(kind: RefKind) -> &'static [u8] {
    match kind {
        RefKind::Branch => BRANCH_PREFIX,
        RefKind::Tag => TAG_PREFIX,
    }
}

/// Where HEAD points; a new repository's is the default branch.
pub fn head(state: &State) -> Result<Head, StoreError> {
    match state.get(HEAD_KEY)? {
        Some(value) => decode_head(value).map_err(StoreError::in_journal),
        None => {
            RefName::parse(DEFAULT_BRANCH).map(Head::Branch).map_err(|error| StoreError::Internal(error.to_string()))
        }
    }
}

/// The commit that a name stands for.
pub fn get(state: &State, kind: RefKind, name: &RefName) -> Result<Option<CommitId>, StoreError> {
    let value = state.get(&key(prefix(kind), name.as_str().as_bytes()))?;
    value.map(|value| decode_commit_id(value).map_err(StoreError::in_journal)).transpose()
}

/// All names of a kind, sorted.
pub fn list(state: &State, kind: RefKind) -> Result<Vec<(RefName, CommitId)>, StoreError> {
    let mut scan = state.scan(prefix(kind))?;
    let mut found = Vec::new();
    while let Some((key, value)) = scan.next()? {
        let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.and_then(|name| RefName::parse(name).ok());
        let name = name.ok_or_else(|| StoreError::JournalDamaged("a ref has an impossible name".to_owned()))?;
        found.push((name, decode_commit_id(value).map_err(StoreError::in_journal)?));
    }
    Ok(found)
}

/// The commit that HEAD stands for; `None` before the first one.
pub fn head_commit(state: &State) -> Result<Option<CommitId>, StoreError> {
    match head(state)? {
        Head::Branch(name) => get(state, RefKind::Branch, &name),
        Head::Detached(id) => Ok(Some(id)),
    }
}

/// The commits that have a name: that of HEAD first, then those of branches and tags; one may come several times.
pub fn tips(state: &State) -> Result<Vec<CommitId>, StoreError> {
    let mut tips: Vec<CommitId> = head_commit(state)?.into_iter().collect();
    for kind in [RefKind::Branch, RefKind::Tag] {
        tips.extend(list(state, kind)?.into_iter().map(|(_, id)| id));
    }
    Ok(tips)
}

/// Number of commits made in this repository.
pub fn generation(state: &State) -> Result<u64, StoreError> {
    counter(state, GENERATION_KEY)
}

/// The layers that belong to the repository, in order of their ids.
pub fn layers(state: &State) -> Result<Vec<(LayerId, LayerRecord)>, StoreError> {
    let mut scan = state.scan(LAYER_PREFIX)?;
    let mut found = Vec::new();
    while let Some((key, value)) = scan.next()? {
        found.push(LayerRecord::decode(key.get(1..).unwrap_or_default(), value).map_err(StoreError::in_journal)?);
    }
    Ok(found)
}

/// Sets a branch or tag.
pub fn set_op(kind: RefKind, name: &RefName, id: &CommitId) -> Op {
    Op::Put(key(prefix(kind), name.as_str().as_bytes()), id.digest().to_vec())
}

/// Removes a branch or tag.
pub fn delete_op(kind: RefKind, name: &RefName) -> Op {
    Op::Delete(key(prefix(kind), name.as_str().as_bytes()))
}

/// Moves HEAD.
pub fn head_op(head: &Head) -> Op {
    Op::Put(HEAD_KEY.to_vec(), encode_head(head))
}

/// Sets the number of commits.
pub fn generation_op(generation: u64) -> Op {
    counter_op(GENERATION_KEY, generation)
}

/// Ends a layer's being part of the repository.
pub fn forget_layer_op(id: &LayerId) -> Op {
    Op::Delete(key(LAYER_PREFIX, id.digest()))
}

/// Makes a layer part of the repository.
pub fn layer_op(id: &LayerId, record: &LayerRecord) -> Op {
    Op::Put(key(LAYER_PREFIX, id.digest()), record.encode())
}
