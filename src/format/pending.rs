//! Pending blocks: few new objects, kept in the journal until a layer takes them.
//!
//! A layer costs a file, two renames' worth of syncing and a place in every lookup. What a checkpoint adds is often a
//! few kilobytes, which the journal's one write takes along.

use super::FormatError;
use super::object::{kind_from_number, kind_number};
use crate::base::bytes::{ByteReader, DecodeError, put_varint};
use crate::model::id::{ObjectId, ObjectKind};
use crate::transform::compress::Codec;

/// Prefix of pending blocks, by number.
pub const PENDING_PREFIX: &[u8] = b"p";
/// Key of the last number given, so that none is given twice.
pub const LAST_PENDING_KEY: &[u8] = b"Q";

/// Pending blocks whose objects know nothing of older versions.
const VERSION_WITHOUT_OLDER: u8 = 1;
const VERSION: u8 = 2;
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const WHAT: &str = "a pending block";

/// Largest pending block before compression: twice the most that is written at once (1 MiB, and what an object goes beyond it).
pub const MAX_PENDING_LEN: u32 = 4 << 20;

/// An object of a pending block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingObject {
    /// Its id.
    pub id: ObjectId,
    /// What it is.
    pub kind: ObjectKind,
    /// Where it begins in the decoded block.
    pub offset: u32,
    /// Its length.
    pub len: u32,
    /// An older version of it, which it is to be compressed with once it is in a layer.
    pub older: Option<ObjectId>,
}

/// A pending block, its objects known, its bytes not yet decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingBlock<'a> {
    /// What is in it, in order.
    pub objects: Vec<PendingObject>,
    /// How its bytes are stored.
    pub codec: Codec,
    /// Length of the decoded block.
    pub raw_len: u32,
    /// The stored bytes.
    pub stored: &'a [u8],
}

/// The key of a pending block.
pub fn pending_key(number: u32) -> Vec<u8> {
    [PENDING_PREFIX, &number.to_be_bytes()].concat()
}

/// The number of a pending block's key.
pub fn pending_number(key: &[u8]) -> Result<u32, FormatError> {
    let tail = key.last_chunk::<4>().ok_or(DecodeError::Truncated { what: WHAT })?;
    Ok(u32::from_be_bytes(*tail))
}

/// The value of a pending block.
pub fn encode_pending(block: &PendingBlock<'_>) -> Vec<u8> {
    let has_older = block.objects.iter().any(|object| object.older.is_some());
    let version = if has_older { VERSION } else { VERSION_WITHOUT_OLDER };
    let mut out = vec![version, if block.codec == Codec::Raw { CODEC_RAW } else { CODEC_ZSTD }];
    put_varint(&mut out, block.objects.len() as u64);
    for object in &block.objects {
        out.push(kind_number(object.kind));
        put_varint(&mut out, u64::from(object.len));
        out.extend_from_slice(object.id.digest());
        if has_older {
            out.push(u8::from(object.older.is_some()));
            out.extend(object.older.iter().flat_map(|older| *older.digest()));
        }
    }
    out.extend_from_slice(block.stored);
    out
}

/// Reads a pending block's list of objects.
pub fn decode_pending(value: &[u8]) -> Result<PendingBlock<'_>, FormatError> {
    let mut reader = ByteReader::new(WHAT, value);
    let version = reader.u8()?;
    if !(VERSION_WITHOUT_OLDER..=VERSION).contains(&version) {
        return Err(FormatError::Future {
            what: "pending block",
            found: u16::from(version),
            known: u16::from(VERSION),
        });
    }
    let codec = match reader.u8()? {
        CODEC_RAW => Codec::Raw,
        CODEC_ZSTD => Codec::Zstd,
        other => return Err(FormatError::Feature { what: "pending block", feature: format!("codec {other}") }),
    };
    let mut objects = Vec::new();
    let mut offset = 0u32;
    for _ in 0..reader.varint_max(reader.remaining() as u64)? {
        let kind = reader.u8()?;
        let kind = kind_from_number(kind).ok_or_else(|| reader.invalid(format!("unknown kind {kind}")))?;
        let len = reader.varint_max(u64::from(MAX_PENDING_LEN))? as u32;
        let id = ObjectId::from_digest(reader.array()?);
        let older = match if version == VERSION { reader.u8()? } else { 0 } {
            0 => None,
            1 => Some(ObjectId::from_digest(reader.array()?)),
            other => return Err(reader.invalid(format!("unknown mark {other}")).into()),
        };
        objects.push(PendingObject { id, kind, offset, len, older });
        offset += len;
        if offset > MAX_PENDING_LEN {
            return Err(reader.invalid("it is too large").into());
        }
    }
    Ok(PendingBlock { objects, codec, raw_len: offset, stored: reader.take(reader.remaining())? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: u32 = 2078097599;
    const GOLDEN_WITH_OLDER: u32 = 4273654526;

    #[test]
    fn a_block_round_trips_and_keeps_its_bytes() {
        let object = |n: u8, kind, offset, len| {
            let id = ObjectId::from_digest([n; 32]);
            PendingObject { id, kind, offset, len, older: None }
        };
        let mut objects = vec![object(1, ObjectKind::Chunk, 0, 300), object(2, ObjectKind::Tree, 300, 0)];
        for (older, golden) in [(None, GOLDEN), (Some(ObjectId::from_digest([7; 32])), GOLDEN_WITH_OLDER)] {
            objects[1].older = older;
            let block = PendingBlock { objects: objects.clone(), codec: Codec::Zstd, raw_len: 300, stored: b"stored" };
            let bytes = encode_pending(&block);
            assert_eq!(decode_pending(&bytes).unwrap(), block);
            assert!((0..bytes.len() - 6).all(|end| decode_pending(&bytes[..end]).is_err()));
            assert_eq!(crc32fast::hash(&bytes), golden, "golden checksum of a pending block");
        }
    }

    #[test]
    fn a_block_that_claims_too_much_is_refused() {
        let object = |n: u8| PendingObject {
            id: ObjectId::from_digest([n; 32]),
            kind: ObjectKind::Chunk,
            offset: 0,
            len: MAX_PENDING_LEN,
            older: None,
        };
        let block = PendingBlock { objects: (0..2).map(object).collect(), codec: Codec::Raw, raw_len: 0, stored: b"" };
        assert!(decode_pending(&encode_pending(&block)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = decode_pending(&bytes);
        }
    }
}
