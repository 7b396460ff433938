//! Layers that were replaced and whose files stay for a while.
//!
//! Someone who began to read before a layer was replaced goes on with the old files. What is retired is no part of the
//! repository any more: nothing is found in it, and no index counts for it.

use super::StoreError;
use super::journal::State;
use crate::base::bytes::{ByteReader, DecodeError};
use crate::base::clock::UnixNanos;
use crate::format::journal::Op;
use crate::model::id::LayerId;

/// Prefix of the records, by layer id.
const PREFIX: &[u8] = b"x";
/// None of them was replaced before this time.
const OLDEST: &[u8] = b"R";

/// A layer that was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// The layer.
    pub id: LayerId,
    /// When it was replaced.
    pub since: UnixNanos,
    /// Length of its file.
    pub file_len: u64,
}

fn key(id: &LayerId) -> Vec<u8> {
    [PREFIX, id.digest()].concat()
}

/// Records that a layer was replaced.
pub fn put_op(retired: &Retired) -> Op {
    let value = [retired.since.to_le_bytes(), retired.file_len.to_le_bytes()].concat();
    Op::Put(key(&retired.id), value)
}

/// Forgets about it: its file is gone, or it is a layer of the repository again.
pub fn forget_op(id: &LayerId) -> Op {
    Op::Delete(key(id))
}

/// The operation that forgets about a layer that is a part of the repository again, if it was replaced.
pub fn forget_again_op(state: &State, id: &LayerId) -> Result<Option<Op>, StoreError> {
    Ok(state.get(&key(id))?.map(|_| forget_op(id)))
}

/// No layer whose file is still there was replaced before this time; `None` if that is not known.
pub fn oldest(state: &State) -> Result<Option<UnixNanos>, StoreError> {
    let Some(value) = state.get(OLDEST)? else { return Ok(None) };
    let time = ByteReader::new("the time of the oldest retired layer", value).u64();
    Ok(Some(time.map_err(|error| StoreError::in_journal(error.into()))? as UnixNanos))
}

/// Records it; `None` to forget it, when there are no such layers.
pub fn oldest_op(time: Option<UnixNanos>) -> Op {
    time.map_or(Op::Delete(OLDEST.to_vec()), |time| Op::Put(OLDEST.to_vec(), time.to_le_bytes().to_vec()))
}

/// All of them, in order of their ids.
pub fn list(state: &State) -> Result<Vec<Retired>, StoreError> {
    let mut scan = state.scan(PREFIX)?;
    let mut found = Vec::new();
    while let Some((key, value)) = scan.next()? {
        found.push(decode(key, value).map_err(|error| StoreError::in_journal(error.into()))?);
    }
    Ok(found)
}

fn decode(key: &[u8], value: &[u8]) -> Result<Retired, DecodeError> {
    let mut id = ByteReader::new("a retired layer", key.get(PREFIX.len()..).unwrap_or_default());
    let mut reader = ByteReader::new("a retired layer", value);
    let id = LayerId::from_digest(id.array()?);
    Ok(Retired { id, since: reader.u64()? as UnixNanos, file_len: reader.u64()? })
}
