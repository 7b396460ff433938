//! Objects that are in the journal and not yet in a layer.

use std::sync::Arc;

use hashbrown::HashMap;

use super::journal::State;
use super::{StoreError, counter, counter_op};
use crate::format::journal::{Op, OpRef};
use crate::format::layer::{ObjectRow, Place};
use crate::format::pending::{
    LAST_PENDING_KEY, PENDING_PREFIX, PendingBlock, PendingObject, decode_pending, encode_pending, pending_key,
    pending_number,
};
use crate::model::id::{ObjectId, ObjectKind};
use crate::transform::compress::{Codec, Opposite, compress_plain, decompress};
use crate::transform::filter::Filter;

/// More than this at once, before compression, is worth a layer of its own.
pub const MAX_BATCH_LEN: usize = 1 << 20;
/// With more than this pending, a layer takes it all. Opening a repository reads all of it, and the checkpoint that goes
/// beyond it pays for the layer: with 4 MiB such a checkpoint of a bundle took 101 ms where others took 52, with 1 MiB about 70.
pub const MAX_PENDING_BYTES: u64 = 1 << 20;

/// Stands in for a layer's number where the object is pending.
pub const PENDING_LAYER: u32 = u32::MAX;

/// What is pending, as of one moment.
#[derive(Debug, Default)]
pub struct Pending {
    rows: HashMap<ObjectId, Place>,
    older: HashMap<ObjectId, ObjectId>,
    blocks: HashMap<u32, Stored>,
    stored_bytes: u64,
}

#[derive(Debug)]
struct Stored {
    codec: Codec,
    raw_len: u32,
    bytes: Arc<[u8]>,
}

impl Pending {
    /// Reads what is pending.
    pub fn load(state: &State) -> Result<Self, StoreError> {
        let mut pending = Self::default();
        let mut scan = state.scan(PENDING_PREFIX)?;
        while let Some((key, value)) = scan.next()? {
            pending.add(pending_number(key).map_err(StoreError::in_journal)?, value)?;
        }
        Ok(pending)
    }

    /// Takes in a block that was put since.
    pub fn add_new(&mut self, state: &State, number: u32) -> Result<(), StoreError> {
        match state.get(&pending_key(number))? {
            Some(value) => self.add(number, value),
            None => Ok(()),
        }
    }

    fn add(&mut self, number: u32, value: &[u8]) -> Result<(), StoreError> {
        let PendingBlock { objects, codec, raw_len, stored } = decode_pending(value).map_err(StoreError::in_journal)?;
        for PendingObject { id, kind, offset, len, older } in objects {
            self.older.extend(older.map(|older| (id, older)));
            self.rows.insert(id, Place { block: number, offset, len, kind });
        }
        self.stored_bytes += stored.len() as u64;
        self.blocks.insert(number, Stored { codec, raw_len, bytes: stored.into() });
        Ok(())
    }

    /// Where an object is.
    pub fn find(&self, id: &ObjectId) -> Option<ObjectRow> {
        self.rows.get(id).map(|place| ObjectRow { id: *id, place: *place })
    }

    /// The older version of an object, if one is known.
    pub fn older(&self, id: &ObjectId) -> Option<ObjectId> {
        self.older.get(id).copied()
    }

    /// Bytes of all blocks as they are stored.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// All objects, in the order in which they came.
    pub fn objects(&self) -> Vec<ObjectRow> {
        let mut rows: Vec<ObjectRow> =
            self.rows.iter().map(|(id, place)| ObjectRow { id: *id, place: *place }).collect();
        rows.sort_unstable_by_key(|row| (row.place.block, row.place.offset, row.id));
        rows
    }

    /// Decodes a block.
    pub fn block(&self, number: u32) -> Result<Vec<u8>, StoreError> {
        let wrong = |why: String| StoreError::JournalDamaged(format!("pending block {number}: {why}"));
        let Stored { codec, raw_len, bytes } =
            self.blocks.get(&number).ok_or_else(|| wrong("it is not there".to_owned()))?;
        decompress(*codec, Filter::None, bytes, *raw_len as usize, Opposite::NONE)
            .map_err(|error| wrong(error.to_string()))
    }

    /// The operations that take everything out of the journal.
    pub fn clear_ops(&self) -> Vec<Op> {
        self.blocks.keys().map(|number| Op::Delete(pending_key(*number))).collect()
    }
}

/// The older version of a new object, and how far behind its start the new one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counterpart {
    /// What is stored.
    pub id: ObjectId,
    /// Bytes.
    pub shift: i64,
}

/// Few new objects, gathered to become a pending block.
#[derive(Debug, Default)]
pub struct Batch {
    objects: Vec<PendingObject>,
    /// For each object, how far behind the start of its older version it begins; only a layer has a place for that.
    shifts: Vec<i64>,
    bytes: Vec<u8>,
    known: hashbrown::HashSet<ObjectId>,
}

impl Batch {
    /// Is the object in it?
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.known.contains(id)
    }

    /// Adds an object that is not in it yet; `false` if there is no room.
    pub fn add(&mut self, id: ObjectId, kind: ObjectKind, bytes: &[u8], older: Option<Counterpart>) -> bool {
        if self.bytes.len() + bytes.len() > MAX_BATCH_LEN {
            return false;
        }
        let (offset, len) = (self.bytes.len() as u32, bytes.len() as u32);
        self.objects.push(PendingObject { id, kind, offset, len, older: older.map(|older| older.id) });
        self.bytes.extend_from_slice(bytes);
        self.shifts.push(older.map_or(0, |older| older.shift));
        self.known.insert(id);
        true
    }

    /// The objects in order of arrival.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, ObjectKind, &[u8], Option<Counterpart>)> {
        self.objects.iter().zip(&self.shifts).map(|(PendingObject { id, kind, offset, len, older }, shift)| {
            let (start, end) = (*offset as usize, (*offset + *len) as usize);
            let older = older.map(|id| Counterpart { id, shift: *shift });
            (*id, *kind, self.bytes.get(start..end).unwrap_or_default(), older)
        })
    }

    /// The operations that put it into the journal, and the bytes that it takes there; none for an empty batch.
    pub fn ops(self, state: &State, level: i32) -> Result<(Vec<Op>, u64), StoreError> {
        if self.objects.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let internal = |error: std::io::Error| StoreError::Internal(format!("cannot compress a block: {error}"));
        let (codec, packed) = compress_plain(&self.bytes, level).map_err(internal)?;
        let stored = if codec == Codec::Raw { &self.bytes } else { &packed };
        let block = PendingBlock { objects: self.objects, codec, raw_len: self.bytes.len() as u32, stored };
        let value = encode_pending(&block);
        let last = counter(state, LAST_PENDING_KEY)?;
        let number = last.wrapping_add(1);
        let len = value.len() as u64;
        let ops = vec![Op::Put(pending_key(number as u32), value), counter_op(LAST_PENDING_KEY, number)];
        Ok((ops, len))
    }
}

/// The number of the pending block that an operation puts, if it does.
pub fn pending_put_by(op: OpRef<'_>) -> Option<u32> {
    match op {
        (key, Some(_)) if key.starts_with(PENDING_PREFIX) => pending_number(key).ok(),
        _ => None,
    }
}
