//! Keys and values that the repository keeps in its journal.

use super::FormatError;
use super::object::{MAX_CHUNK_LEN, entry_type};
use crate::base::bytes::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::model::id::{ChunkId, CommitId, LayerId, RecipeId, TreeId};
use crate::model::path::RepoPath;
use crate::model::refs::{Head, RefName};
use crate::model::staging::{SeenStat, StagedEntry, StagedNode};
use crate::model::tree::{Content, MAX_LINK_LEN, MODE_MASK, Meta};

/// Key of [`Head`].
pub const HEAD_KEY: &[u8] = b"H";
/// Key of the number of commits made in this repository.
pub const GENERATION_KEY: &[u8] = b"g";
/// Prefix of branches.
pub const BRANCH_PREFIX: &[u8] = b"b";
/// Prefix of tags.
pub const TAG_PREFIX: &[u8] = b"t";
/// Prefix of layers.
pub const LAYER_PREFIX: &[u8] = b"l";
/// Prefix of staging entries.
pub const STAGED_PREFIX: &[u8] = b"s";
/// Prefix of entries that say what was on disk where staging does not.
pub const WORK_PREFIX: &[u8] = b"w";
/// Key of the tree that the work tree was last stored as.
pub const WORK_BASE_KEY: &[u8] = b"W";
/// Key of the number of the checkpoint that the work tree was last equal to.
pub const WORK_PARENT_KEY: &[u8] = b"X";
/// Prefix of entries that say what was on disk of a bundle, by path.
pub const BUNDLE_PREFIX: &[u8] = b"B";
/// Prefix of the trees that bundles were last stored as, by the path of the bundle.
pub const BUNDLE_BASE_PREFIX: &[u8] = b"Z";
/// Prefix of the numbers of the checkpoints that bundles were last equal to, by the path of the bundle.
pub const BUNDLE_PARENT_PREFIX: &[u8] = b"Y";

const HEAD_BRANCH: u8 = 1;
const HEAD_DETACHED: u8 = 2;
const FLAG_RACY: u8 = 1;
const FLAG_SEEN_AS_RECORDED: u8 = 2;

/// A key: a prefix and what it is about.
pub fn key(prefix: &[u8], subject: &[u8]) -> Vec<u8> {
    [prefix, subject].concat()
}

/// Encodes what HEAD points to.
pub fn encode_head(head: &Head) -> Vec<u8> {
    match head {
        Head::Branch(name) => key(&[HEAD_BRANCH], name.as_str().as_bytes()),
        Head::Detached(id) => key(&[HEAD_DETACHED], id.digest()),
    }
}

/// Reads what HEAD points to.
pub fn decode_head(value: &[u8]) -> Result<Head, FormatError> {
    let mut reader = ByteReader::new("HEAD", value);
    match reader.u8()? {
        HEAD_BRANCH => {
            let name = reader.take(reader.remaining())?;
            let name = std::str::from_utf8(name).ok().and_then(|name| RefName::parse(name).ok());
            Ok(Head::Branch(name.ok_or_else(|| reader.invalid("a branch name is impossible"))?))
        }
        HEAD_DETACHED => Ok(Head::Detached(decode_commit_id(reader.take(reader.remaining())?)?)),
        other => Err(reader.invalid(format!("unknown type {other}")).into()),
    }
}

/// Reads the id of a tree.
pub fn decode_tree_id(value: &[u8]) -> Result<TreeId, FormatError> {
    let mut reader = ByteReader::new("the id of a tree", value);
    let id = TreeId::from_digest(reader.array()?);
    reader.finish()?;
    Ok(id)
}

/// Reads the id that a branch or tag holds.
pub fn decode_commit_id(value: &[u8]) -> Result<CommitId, FormatError> {
    let mut reader = ByteReader::new("a ref", value);
    let id = CommitId::from_digest(reader.array()?);
    reader.finish()?;
    Ok(id)
}

/// Reads a counter.
pub fn decode_counter(value: &[u8]) -> Result<u64, FormatError> {
    let mut reader = ByteReader::new("a counter", value);
    let number = reader.u64()?;
    reader.finish()?;
    Ok(number)
}

/// What the journal says of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRecord {
    /// Length of the file.
    pub file_len: u64,
    /// Number of objects.
    pub object_count: u32,
    /// Number of blocks.
    pub block_count: u32,
}

impl LayerRecord {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.file_len.to_le_bytes().to_vec();
        out.extend_from_slice(&self.object_count.to_le_bytes());
        out.extend_from_slice(&self.block_count.to_le_bytes());
        out
    }

    /// Reads key and value.
    pub fn decode(subject: &[u8], value: &[u8]) -> Result<(LayerId, Self), FormatError> {
        let id = LayerId::from_digest(ByteReader::new("a layer's key", subject).array()?);
        let mut reader = ByteReader::new("a layer's record", value);
        let record = Self { file_len: reader.u64()?, object_count: reader.u32()?, block_count: reader.u32()? };
        reader.finish()?;
        Ok((id, record))
    }
}

/// The key of a path's staging entry.
pub fn staged_key(path: &RepoPath) -> Vec<u8> {
    key(STAGED_PREFIX, &path.sort_key())
}

/// What the keys of a bundle's table have between their prefix and the path: no path has two zero bytes in a row.
pub fn bundle_table(bundle: &RepoPath) -> Vec<u8> {
    key(&bundle.sort_key(), &[0, 0])
}

/// The path at the end of a key.
pub fn path_of_key(subject: &[u8]) -> Result<RepoPath, FormatError> {
    RepoPath::from_sort_key(subject)
        .map_err(|why| DecodeError::Invalid { what: "a staging entry", why: why.to_string() }.into())
}

/// Encodes a staging entry.
pub fn encode_staged(entry: &StagedEntry) -> Vec<u8> {
    let StagedEntry { node, meta, seen, racy, generation } = entry;
    let (number, len, digest) = match node {
        StagedNode::Deleted => (entry_type::DELETED, 0, None),
        StagedNode::File { content: Content::Empty, .. } => (entry_type::EMPTY, 0, None),
        StagedNode::File { len, content: Content::Chunk(id) } => (entry_type::CHUNK, *len, Some(id.digest())),
        StagedNode::File { len, content: Content::Recipe(id) } => (entry_type::RECIPE, *len, Some(id.digest())),
        StagedNode::Symlink { .. } => (entry_type::SYMLINK, 0, None),
        StagedNode::Dir => (entry_type::DIR, 0, None),
    };
    let as_recorded = seen.len == len && seen.mtime_ns == meta.mtime_ns;
    let mut out = Vec::with_capacity(96);
    out.push(number);
    out.push(if *racy { FLAG_RACY } else { 0 } | if as_recorded { FLAG_SEEN_AS_RECORDED } else { 0 });
    put_varint(&mut out, *generation);
    put_varint(&mut out, u64::from(meta.mode));
    out.extend_from_slice(&meta.mtime_ns.to_le_bytes());
    if let Some(digest) = digest {
        put_varint(&mut out, len);
        out.extend_from_slice(digest);
    }
    if let StagedNode::Symlink { target } = node {
        put_bytes(&mut out, target);
    }
    if !as_recorded {
        put_varint(&mut out, seen.len);
        out.extend_from_slice(&seen.mtime_ns.to_le_bytes());
    }
    out.extend_from_slice(&seen.ctime_ns.to_le_bytes());
    put_varint(&mut out, seen.ino);
    out
}

/// Reads a staging entry.
pub fn decode_staged(value: &[u8]) -> Result<StagedEntry, FormatError> {
    let mut reader = ByteReader::new("a staging entry", value);
    let (number, flags) = (reader.u8()?, reader.u8()?);
    if flags & !(FLAG_RACY | FLAG_SEEN_AS_RECORDED) != 0 {
        return Err(reader.invalid("unknown flags").into());
    }
    let generation = reader.varint()?;
    let mode = reader.varint_max(u64::from(MODE_MASK))? as u32;
    let mtime_ns = reader.i64()?;
    let node = match number {
        entry_type::DELETED => StagedNode::Deleted,
        entry_type::EMPTY => StagedNode::File { len: 0, content: Content::Empty },
        entry_type::CHUNK => {
            let len = reader.varint_max(u64::from(MAX_CHUNK_LEN))?;
            StagedNode::File { len, content: Content::Chunk(ChunkId::from_digest(reader.array()?)) }
        }
        entry_type::RECIPE => {
            let len = reader.varint_max(i64::MAX as u64)?;
            StagedNode::File { len, content: Content::Recipe(RecipeId::from_digest(reader.array()?)) }
        }
        entry_type::SYMLINK => StagedNode::Symlink { target: reader.bytes(MAX_LINK_LEN)?.to_vec() },
        entry_type::DIR => StagedNode::Dir,
        other => return Err(reader.invalid(format!("unknown type {other}")).into()),
    };
    let (seen_len, seen_mtime) = if flags & FLAG_SEEN_AS_RECORDED != 0 {
        let len = if let StagedNode::File { len, .. } = &node { *len } else { 0 };
        (len, mtime_ns)
    } else {
        (reader.varint()?, reader.i64()?)
    };
    let seen = SeenStat { len: seen_len, mtime_ns: seen_mtime, ctime_ns: reader.i64()?, ino: reader.varint()? };
    reader.finish()?;
    Ok(StagedEntry { node, meta: Meta { mode, mtime_ns }, seen, racy: flags & FLAG_RACY != 0, generation })
}

/// Reads only the generation of a staging entry.
pub fn decode_generation(value: &[u8]) -> Result<u64, FormatError> {
    let mut reader = ByteReader::new("a staging entry", value);
    reader.take(2)?;
    Ok(reader.varint()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<StagedEntry> {
        let seen = SeenStat { len: 5, mtime_ns: 77, ctime_ns: -3, ino: u64::MAX };
        let nodes = [
            StagedNode::Deleted,
            StagedNode::File { len: 0, content: Content::Empty },
            StagedNode::File { len: 5, content: Content::Chunk(ChunkId::from_digest([1; 32])) },
            StagedNode::File { len: 1 << 41, content: Content::Recipe(RecipeId::from_digest([2; 32])) },
            StagedNode::Symlink { target: b"a/b".to_vec() },
            StagedNode::Dir,
        ];
        let entry = |(i, node)| StagedEntry {
            node,
            meta: Meta { mode: 0o755, mtime_ns: 77 },
            seen,
            racy: i == 2,
            generation: i as u64 * 1000,
        };
        nodes.into_iter().enumerate().map(entry).collect()
    }

    #[test]
    fn entries_round_trip_and_keep_their_bytes() {
        let encoded: Vec<Vec<u8>> = samples().iter().map(encode_staged).collect();
        for (bytes, entry) in encoded.iter().zip(samples()) {
            assert_eq!(decode_staged(bytes).unwrap(), entry);
            assert_eq!(decode_generation(bytes).unwrap(), entry.generation);
            assert!((0..bytes.len()).all(|end| decode_staged(&bytes[..end]).is_err()));
        }
        assert_eq!(crc32fast::hash(&encoded.concat()), 1836455723, "golden checksum of staging entries");
    }

    #[test]
    fn heads_round_trip() {
        let branch = Head::Branch(RefName::parse("feature/x").unwrap());
        for head in [branch, Head::Detached(CommitId::from_digest([3; 32]))] {
            assert_eq!(decode_head(&encode_head(&head)).unwrap(), head);
        }
        for bad in [&b""[..], b"\x01", b"\x01a b", b"\x02abc", b"\x03"] {
            assert!(decode_head(bad).is_err());
        }
    }

    #[test]
    fn the_tables_of_bundles_are_apart() {
        let path = |text: &str| RepoPath::parse(text.as_bytes()).unwrap();
        assert_eq!(bundle_table(&path("a/b")), b"a\0b\0\0");
        assert_eq!(bundle_table(&RepoPath::root()), b"\0\0");
        // One bundle in another, and both in a work tree that is a bundle: no table is part of another's.
        let tables = ["", "a", "a/x"].map(|bundle| bundle_table(&path(bundle)));
        for (number, table) in tables.iter().enumerate() {
            let entry = key(table, &path("a/x/0").sort_key());
            let others = tables.iter().enumerate().filter(|(other, _)| *other != number);
            assert!(others.into_iter().all(|(_, other)| !entry.starts_with(other)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = decode_staged(&bytes);
            let _ = decode_head(&bytes);
            let _ = path_of_key(&bytes);
        }
    }
}
