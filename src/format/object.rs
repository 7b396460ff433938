//! Trees, recipes and commits as bytes, and so their ids.

use super::FormatError;
use crate::base::bytes::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::model::commit::{Commit, MAX_AUTHOR_LEN, MAX_MESSAGE_LEN, MAX_PARENTS};
use crate::model::id::{ChunkId, CommitId, ObjectKind, RecipeId, TreeId};
use crate::model::path::MAX_NAME_LEN;
use crate::model::recipe::{MAX_BRANCH_PARTS, MAX_LEAF_PIECES, Piece, Recipe};
use crate::model::tree::{Content, Entry, MAX_LINK_LEN, MODE_MASK, Meta, Node, Tree};
use crate::transform::hash::sha256;

const TREE_MAGIC: &[u8; 8] = b"DIGTREE1";
const RECIPE_MAGIC: &[u8; 8] = b"DIGRECP1";
pub(super) const COMMIT_MAGIC: &[u8; 8] = b"DIGCOMM1";

/// Entry types, shared by trees and staging entries.
pub mod entry_type {
    /// A path that is gone; in staging only.
    pub const DELETED: u8 = 0;
    /// A file without bytes.
    pub const EMPTY: u8 = 1;
    /// A file of one chunk.
    pub const CHUNK: u8 = 2;
    /// A file with a recipe.
    pub const RECIPE: u8 = 3;
    /// A symbolic link.
    pub const SYMLINK: u8 = 4;
    /// A directory.
    pub const DIR: u8 = 5;
}

/// No chunk is longer, whatever a repository's parameters; the chunker's own limit.
pub const MAX_CHUNK_LEN: u32 = 16 << 20;
/// No object is longer: about five million entries in one directory.
pub const MAX_OBJECT_LEN: u32 = 256 << 20;
/// A tree entry has at least a name of one byte, a type, a mode and a time.
const MIN_ENTRY_LEN: usize = 5;

const PIECE_CHUNK: u8 = 1;
const PIECE_HOLE: u8 = 2;
const RECIPE_LEAF: u8 = 1;
const RECIPE_BRANCH: u8 = 2;

/// The number of a kind in a layer.
pub const fn kind_number(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Chunk => 1,
        ObjectKind::Recipe => 2,
        ObjectKind::Tree => 3,
        ObjectKind::Commit => 4,
        ObjectKind::Block => 5,
    }
}

/// The kind with a number.
pub fn kind_from_number(number: u8) -> Option<ObjectKind> {
    [ObjectKind::Chunk, ObjectKind::Recipe, ObjectKind::Tree, ObjectKind::Commit, ObjectKind::Block]
        .into_iter()
        .find(|kind| kind_number(*kind) == number)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn magic(reader: &mut ByteReader<'_>, magic: &[u8; 8], what: &'static str) -> Result<(), FormatError> {
    if reader.array::<8>()? == *magic { Ok(()) } else { Err(FormatError::Foreign(what)) }
}

/// Encodes a tree and finds its id.
pub fn encode_tree(tree: &Tree) -> (TreeId, Vec<u8>) {
    let mut out = TREE_MAGIC.to_vec();
    put_varint(&mut out, tree.entries().len() as u64);
    let mut last_mtime = 0i64;
    for entry in tree.entries() {
        put_bytes(&mut out, &entry.name);
        let (number, len, digest) = match &entry.node {
            Node::File { len, content: Content::Empty } => (entry_type::EMPTY, *len, None),
            Node::File { len, content: Content::Chunk(id) } => (entry_type::CHUNK, *len, Some(id.digest())),
            Node::File { len, content: Content::Recipe(id) } => (entry_type::RECIPE, *len, Some(id.digest())),
            Node::Symlink { .. } => (entry_type::SYMLINK, 0, None),
            Node::Dir { tree } => (entry_type::DIR, 0, Some(tree.digest())),
        };
        out.push(number);
        put_varint(&mut out, u64::from(entry.meta.mode));
        put_varint(&mut out, zigzag(entry.meta.mtime_ns.wrapping_sub(last_mtime)));
        last_mtime = entry.meta.mtime_ns;
        if matches!(number, entry_type::CHUNK | entry_type::RECIPE) {
            put_varint(&mut out, len);
        }
        if let Some(digest) = digest {
            out.extend_from_slice(digest);
        }
        if let Node::Symlink { target } = &entry.node {
            put_bytes(&mut out, target);
        }
    }
    (TreeId::from_digest(sha256(&[&out])), out)
}

/// Reads a tree.
pub fn decode_tree(bytes: &[u8]) -> Result<Tree, FormatError> {
    let mut reader = ByteReader::new("a tree", bytes);
    magic(&mut reader, TREE_MAGIC, "tree")?;
    let count = reader.varint_max((reader.remaining() / MIN_ENTRY_LEN) as u64)?;
    let mut entries = Vec::with_capacity(count as usize);
    let mut last_mtime = 0i64;
    for _ in 0..count {
        let name = reader.bytes(MAX_NAME_LEN)?.to_vec();
        let number = reader.u8()?;
        let mode = reader.varint_max(u64::from(MODE_MASK))? as u32;
        let mtime_ns = last_mtime.wrapping_add(unzigzag(reader.varint()?));
        last_mtime = mtime_ns;
        let node = match number {
            entry_type::EMPTY => Node::File { len: 0, content: Content::Empty },
            entry_type::CHUNK => {
                let len = reader.varint_max(u64::from(MAX_CHUNK_LEN))?;
                Node::File { len, content: Content::Chunk(ChunkId::from_digest(reader.array()?)) }
            }
            entry_type::RECIPE => {
                let len = reader.varint_max(i64::MAX as u64)?;
                Node::File { len, content: Content::Recipe(RecipeId::from_digest(reader.array()?)) }
            }
            entry_type::SYMLINK => Node::Symlink { target: reader.bytes(MAX_LINK_LEN)?.to_vec() },
            entry_type::DIR => Node::Dir { tree: TreeId::from_digest(reader.array()?) },
            other => return Err(reader.invalid(format!("unknown entry type {other}")).into()),
        };
        entries.push(Entry { name, meta: Meta { mode, mtime_ns }, node });
    }
    reader.finish()?;
    Tree::from_sorted(entries)
        .map_err(|why| FormatError::Decode(DecodeError::Invalid { what: "a tree", why: why.to_string() }))
}

/// Encodes a recipe and finds its id.
pub fn encode_recipe(recipe: &Recipe) -> (RecipeId, Vec<u8>) {
    let mut out = RECIPE_MAGIC.to_vec();
    match recipe {
        Recipe::Leaf(pieces) => {
            out.push(RECIPE_LEAF);
            put_varint(&mut out, pieces.len() as u64);
            for piece in pieces {
                match piece {
                    Piece::Chunk { id, len } => {
                        out.push(PIECE_CHUNK);
                        put_varint(&mut out, u64::from(*len));
                        out.extend_from_slice(id.digest());
                    }
                    Piece::Hole { len } => {
                        out.push(PIECE_HOLE);
                        put_varint(&mut out, *len);
                    }
                }
            }
        }
        Recipe::Branch(parts) => {
            out.push(RECIPE_BRANCH);
            put_varint(&mut out, parts.len() as u64);
            for (id, len) in parts {
                out.extend_from_slice(id.digest());
                put_varint(&mut out, *len);
            }
        }
    }
    (RecipeId::from_digest(sha256(&[&out])), out)
}

/// Reads a recipe.
pub fn decode_recipe(bytes: &[u8]) -> Result<Recipe, FormatError> {
    let mut reader = ByteReader::new("a recipe", bytes);
    magic(&mut reader, RECIPE_MAGIC, "recipe")?;
    let recipe = match reader.u8()? {
        RECIPE_LEAF => {
            let count = reader.varint_max(MAX_LEAF_PIECES as u64)?;
            let pieces = (0..count).map(|_| decode_piece(&mut reader)).collect::<Result<Vec<_>, _>>()?;
            Recipe::Leaf(pieces)
        }
        RECIPE_BRANCH => {
            // A part takes its digest and at least one byte of length.
            let fits = reader.remaining() / (crate::model::id::DIGEST_LEN + 1);
            let count = reader.varint_max(fits.min(MAX_BRANCH_PARTS) as u64)?;
            let mut parts = Vec::with_capacity(count as usize);
            for _ in 0..count {
                parts.push((RecipeId::from_digest(reader.array()?), reader.varint_max(i64::MAX as u64)?));
            }
            Recipe::Branch(parts)
        }
        other => return Err(reader.invalid(format!("unknown recipe type {other}")).into()),
    };
    reader.finish()?;
    Ok(recipe)
}

fn decode_piece(reader: &mut ByteReader<'_>) -> Result<Piece, DecodeError> {
    let piece = match reader.u8()? {
        PIECE_CHUNK => {
            let len = reader.varint_max(u64::from(MAX_CHUNK_LEN))? as u32;
            Piece::Chunk { len, id: ChunkId::from_digest(reader.array()?) }
        }
        PIECE_HOLE => Piece::Hole { len: reader.varint_max(i64::MAX as u64)? },
        other => return Err(reader.invalid(format!("unknown piece type {other}"))),
    };
    if piece.is_empty() { Err(reader.invalid("a piece is empty")) } else { Ok(piece) }
}

/// Encodes a commit and finds its id.
pub fn encode_commit(commit: &Commit) -> (CommitId, Vec<u8>) {
    let mut out = COMMIT_MAGIC.to_vec();
    out.extend_from_slice(commit.tree.digest());
    put_varint(&mut out, commit.parents.len() as u64);
    for parent in &commit.parents {
        out.extend_from_slice(parent.digest());
    }
    put_bytes(&mut out, commit.author.as_bytes());
    out.extend_from_slice(&commit.time_ns.to_le_bytes());
    out.extend_from_slice(&commit.utc_offset_minutes.to_le_bytes());
    put_bytes(&mut out, commit.message.as_bytes());
    (CommitId::from_digest(sha256(&[&out])), out)
}

/// Reads a commit.
pub fn decode_commit(bytes: &[u8]) -> Result<Commit, FormatError> {
    let mut reader = ByteReader::new("a commit", bytes);
    magic(&mut reader, COMMIT_MAGIC, "commit")?;
    let tree = TreeId::from_digest(reader.array()?);
    let count = reader.varint_max(MAX_PARENTS as u64)?;
    let mut parents = Vec::new();
    for _ in 0..count {
        parents.push(CommitId::from_digest(reader.array()?));
    }
    let author = reader.text(MAX_AUTHOR_LEN)?;
    let time_ns = reader.i64()?;
    let utc_offset_minutes = i16::from_le_bytes(reader.array()?);
    let message = reader.text(MAX_MESSAGE_LEN)?;
    reader.finish()?;
    Ok(Commit { tree, parents, author, time_ns, utc_offset_minutes, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn sample_tree() -> Tree {
        let file = |name: &[u8], mode, mtime_ns, len, content| Entry {
            name: name.to_vec(),
            meta: Meta { mode, mtime_ns },
            node: Node::File { len, content },
        };
        Tree::from_sorted(vec![
            file(b"a", 0o644, 1_700_000_000_123_456_789, 0, Content::Empty),
            file(b"b", 0o755, -5, 3, Content::Chunk(ChunkId::from_digest([1; 32]))),
            file(b"c\xff", 0o600, i64::MAX, 1 << 40, Content::Recipe(RecipeId::from_digest([2; 32]))),
            Entry {
                name: b"d".to_vec(),
                meta: Meta { mode: 0o777, mtime_ns: i64::MIN },
                node: Node::Symlink { target: b"../x".to_vec() },
            },
            Entry {
                name: vec![b'e'; 255],
                meta: Meta { mode: 0o7777, mtime_ns: 0 },
                node: Node::Dir { tree: TreeId::from_digest([3; 32]) },
            },
        ])
        .unwrap()
    }

    fn sample_recipe() -> Recipe {
        Recipe::Leaf(vec![
            Piece::Chunk { id: ChunkId::from_digest([4; 32]), len: MAX_CHUNK_LEN },
            Piece::Hole { len: 1 << 40 },
            Piece::Chunk { id: ChunkId::from_digest([5; 32]), len: 1 },
        ])
    }

    fn sample_commit() -> Commit {
        Commit {
            tree: TreeId::from_digest([6; 32]),
            parents: vec![CommitId::from_digest([7; 32]), CommitId::from_digest([8; 32])],
            author: "Zoë <z@example.org>".into(),
            time_ns: 1_700_000_000_000_000_001,
            utc_offset_minutes: -90,
            message: "Subject\n\nBody\n".into(),
        }
    }

    #[test]
    fn golden_ids() {
        assert_eq!(
            encode_tree(&sample_tree()).0.to_string(),
            "8b92befe58b965543b4870f7a7500d37f7191dedcd1f25d9a207241a0614dd3b"
        );
        assert_eq!(
            HEXLOWER.encode(&encode_tree(&Tree::default()).1),
            HEXLOWER.encode(b"DIGTREE1\0"),
            "the empty tree is its magic and a zero"
        );
        assert_eq!(
            encode_recipe(&sample_recipe()).0.to_string(),
            "a9118c9b47a6a77452cdc6be04978106697074fe8159059a2b6bd898045dd8ff"
        );
        assert_eq!(
            encode_commit(&sample_commit()).0.to_string(),
            "f518a7939f564d6b96483dbb9479fa7e3c01d2436507f519946ff3defc41d53d"
        );
    }

    #[test]
    fn objects_round_trip() {
        assert_eq!(decode_tree(&encode_tree(&sample_tree()).1).unwrap(), sample_tree());
        assert_eq!(decode_recipe(&encode_recipe(&sample_recipe()).1).unwrap(), sample_recipe());
        let branch = Recipe::Branch(vec![(RecipeId::from_digest([9; 32]), 1 << 30)]);
        assert_eq!(decode_recipe(&encode_recipe(&branch).1).unwrap(), branch);
        assert_eq!(decode_commit(&encode_commit(&sample_commit()).1).unwrap(), sample_commit());
    }

    #[test]
    fn cut_or_longer_input_is_refused() {
        let encoded =
            [encode_tree(&sample_tree()).1, encode_recipe(&sample_recipe()).1, encode_commit(&sample_commit()).1];
        for bytes in &encoded {
            for end in 0..bytes.len() {
                let cut = &bytes[..end];
                assert!(decode_tree(cut).is_err() && decode_recipe(cut).is_err() && decode_commit(cut).is_err());
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert!(
                decode_tree(&longer).is_err() && decode_recipe(&longer).is_err() && decode_commit(&longer).is_err()
            );
        }
    }

    #[test]
    fn hostile_trees_are_refused() {
        // What a hostile writer can build: the encoder does not check names, the decoder must.
        let raw = |names: &[&[u8]]| {
            let mut out = TREE_MAGIC.to_vec();
            put_varint(&mut out, names.len() as u64);
            for name in names {
                put_bytes(&mut out, name);
                out.extend_from_slice(&[entry_type::EMPTY, 0, 0]);
            }
            out
        };
        assert!(decode_tree(&raw(&[b"good"])).is_ok());
        for names in
            [&[&b".."[..]][..], &[b"."], &[b"/etc"], &[b"a/b"], &[b".DIGSTORE"], &[b"b", b"a"], &[b"a", b"a"], &[b""]]
        {
            assert!(decode_tree(&raw(names)).is_err(), "{names:?}");
        }
        let mut bomb = TREE_MAGIC.to_vec();
        put_varint(&mut bomb, u64::MAX >> 1);
        assert!(decode_tree(&bomb).is_err());
    }

    proptest! {
        #[test]
        fn zigzag_round_trips(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn decoders_survive_anything(mut bytes: Vec<u8>, magic in 0usize..3) {
            let start = [TREE_MAGIC, RECIPE_MAGIC, COMMIT_MAGIC][magic];
            let mut input = start.to_vec();
            input.append(&mut bytes);
            let _ = decode_tree(&input);
            let _ = decode_recipe(&input);
            let _ = decode_commit(&input);
        }
    }
}
