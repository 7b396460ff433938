//! The journal's log and snapshots.
//!
//! [`record`] is the log: a header and one record a batch. [`snapshot`] is the sorted file that is searched where it
//! lies, with the help of the hash [`slots`] where a file has them.

pub mod ops;
pub mod record;
pub mod slots;
pub mod snapshot;

pub use ops::{OpRef, Ops, op_in, span_at};
pub use record::{
    Found, OpSpan, decode_log_header, encode_batch, encode_log_header, find_later_record, put_op, read_record,
};
pub use snapshot::{SnapshotHeader, SnapshotLayout, SnapshotView, put_record, section_header};

const LOG_MAGIC: &[u8; 8] = b"DIGLOG01";
const SNAPSHOT_MAGIC: &[u8; 8] = b"DIGSNAP1";
/// Length of a log's header.
pub const LOG_HEADER_LEN: usize = 48;
/// Length of a snapshot's header.
pub const SNAPSHOT_HEADER_LEN: usize = 64;
/// Bytes of a record besides its payload: length, type, version, checksum.
pub const RECORD_OVERHEAD: usize = 10;
/// Largest payload of a record; what is larger goes into a snapshot.
pub const MAX_PAYLOAD_LEN: usize = 16 << 20;
/// Longest key: a path and its prefix.
pub const MAX_KEY_LEN: usize = 8 << 10;
/// Longest value.
pub const MAX_VALUE_LEN: usize = MAX_PAYLOAD_LEN;
/// Bytes before a section: type and length.
pub const SECTION_HEADER_LEN: usize = 9;
/// Section of keys and values.
pub const SECTION_RECORDS: u8 = 1;
/// Section of offsets into the records.
pub const SECTION_OFFSETS: u8 = 2;
/// Section of hash slots; a snapshot without it is searched by halves.
pub const SECTION_SLOTS: u8 = 3;

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Set a key.
    Put(Vec<u8>, Vec<u8>),
    /// Remove a key, whether it is there or not.
    Delete(Vec<u8>),
}

impl Op {
    /// The key that is changed.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// The value that is set; `None` if the key is removed.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Put(_, value) => Some(value),
            Self::Delete(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
