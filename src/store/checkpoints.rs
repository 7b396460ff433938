//! Checkpoints in the journal.

use super::journal::State;
use super::{StoreError, counter, counter_op};
use crate::format::FormatError;
use crate::format::checkpoint::{
    CHECKPOINT_PREFIX, LAST_CHECKPOINT_KEY, by_id_key, by_session_prefix, by_tag_prefix, checkpoint_key,
    decode_checkpoint, encode_checkpoint, number_of_key,
};
use crate::format::journal::Op;
use crate::model::checkpoint::Checkpoint;
use crate::model::id::CheckpointId;
use crate::model::session::SessionId;

fn damaged(number: u64) -> impl FnOnce(FormatError) -> StoreError {
    move |source| StoreError::Format { subject: format!("checkpoint @{number}"), source }
}

/// The last number given; 0 before the first.
pub fn last_number(state: &State) -> Result<u64, StoreError> {
    counter(state, LAST_CHECKPOINT_KEY)
}

/// Sets the last number given.
pub fn last_number_op(number: u64) -> Op {
    counter_op(LAST_CHECKPOINT_KEY, number)
}

/// A checkpoint, if there is one with this number.
pub fn get(state: &State, number: u64) -> Result<Option<Checkpoint>, StoreError> {
    let value = state.get(&checkpoint_key(number))?;
    let checkpoint = value.map(|value| decode_checkpoint(value).map_err(damaged(number))).transpose()?;
    match checkpoint {
        Some(found) if found.number != number => {
            Err(StoreError::JournalDamaged(format!("at @{number} is the checkpoint @{}", found.number)))
        }
        found => Ok(found),
    }
}

/// The number of the checkpoint with an id.
pub fn number_of(state: &State, id: &CheckpointId) -> Result<Option<u64>, StoreError> {
    state.get(&by_id_key(id))?.map(|value| number_of_key(value).map_err(StoreError::in_journal)).transpose()
}

/// Is a checkpoint one of a session's own, and not one from elsewhere that names a session like it?
pub fn is_listed(state: &State, session: SessionId, number: u64) -> Result<bool, StoreError> {
    Ok(state.get(&[&by_session_prefix(session)[..], &number.to_be_bytes()].concat())?.is_some())
}

/// The numbers of all checkpoints, rising.
pub fn numbers(state: &State) -> Result<Vec<u64>, StoreError> {
    let mut scan = state.scan(CHECKPOINT_PREFIX)?;
    let mut found = Vec::new();
    while let Some((key, _)) = scan.next()? {
        found.push(number_of_key(key).map_err(StoreError::in_journal)?);
    }
    Ok(found)
}

/// Where a list of checkpoints is read from.
#[derive(Debug, Clone)]
pub enum Listing {
    /// All of them.
    All,
    /// Those of a session.
    Session(SessionId),
    /// Those with a tag.
    Tag(String),
}

impl Listing {
    fn prefix(&self) -> Vec<u8> {
        match self {
            Self::All => CHECKPOINT_PREFIX.to_vec(),
            Self::Session(id) => by_session_prefix(*id),
            Self::Tag(tag) => by_tag_prefix(tag),
        }
    }
}

/// Visits checkpoints by number, the highest first, until `visit` has had enough. `before` is the first not to show.
pub fn visit_back(
    state: &State,
    listing: &Listing,
    before: Option<u64>,
    visit: &mut dyn FnMut(Checkpoint) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let prefix = listing.prefix();
    let end = before.map(|number| [&prefix[..], &number.to_be_bytes()].concat());
    let mut scan = state.scan_back(&prefix, end.as_deref())?;
    while let Some((key, value)) = scan.next()? {
        let number = number_of_key(key).map_err(StoreError::in_journal)?;
        let checkpoint = match listing {
            Listing::All => Some(decode_checkpoint(value).map_err(damaged(number))?),
            _ => get(state, number)?,
        };
        let lost = || StoreError::JournalDamaged(format!("the checkpoint @{number} is listed, but not there"));
        if !visit(checkpoint.ok_or_else(lost)?)? {
            break;
        }
    }
    Ok(())
}

/// All checkpoints of a listing, the newest first.
pub fn all(state: &State, listing: &Listing) -> Result<Vec<Checkpoint>, StoreError> {
    let mut found = Vec::new();
    visit_back(state, listing, None, &mut |checkpoint| {
        found.push(checkpoint);
        Ok(true)
    })?;
    Ok(found)
}

fn index_keys(checkpoint: &Checkpoint, session: Option<SessionId>) -> Vec<Vec<u8>> {
    let number = checkpoint.number.to_be_bytes();
    let by_tag = checkpoint.tags.iter().map(|tag| [&by_tag_prefix(tag)[..], &number].concat());
    let by_session = session.map(|id| [&by_session_prefix(id)[..], &number].concat());
    by_tag.chain(by_session).collect()
}

/// The operations that record a checkpoint. `session` is the number of the session that it names, if that is here.
pub fn put_ops(checkpoint: &Checkpoint, session: Option<SessionId>) -> Vec<Op> {
    let mut ops = vec![
        Op::Put(checkpoint_key(checkpoint.number), encode_checkpoint(checkpoint)),
        Op::Put(by_id_key(&checkpoint.id), checkpoint.number.to_be_bytes().to_vec()),
    ];
    ops.extend(index_keys(checkpoint, session).into_iter().map(|key| Op::Put(key, Vec::new())));
    ops
}

/// The operations that remove a checkpoint.
pub fn delete_ops(checkpoint: &Checkpoint, session: Option<SessionId>) -> Vec<Op> {
    let mut ops = vec![Op::Delete(checkpoint_key(checkpoint.number)), Op::Delete(by_id_key(&checkpoint.id))];
    ops.extend(index_keys(checkpoint, session).into_iter().map(Op::Delete));
    ops
}
