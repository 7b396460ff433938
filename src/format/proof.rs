//! Proofs that a file, or a range of its bytes, is in a commit: JSON, checked without a repository.
//!
//! A proof holds the objects on the way from the root to the file: the commit, the folders, the recipe. Each is named by
//! its hash in the one before, so whoever trusts the root's id need trust nothing else. The chunks of a range are in the
//! proof as well; those of a whole file are only listed by the recipe.

use std::ops::Range;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use super::FormatError;
use super::object::{COMMIT_MAGIC, decode_commit, decode_recipe, decode_tree};
use crate::base::bytes::DecodeError;
use crate::model::commit::Commit;
use crate::model::id::{ChunkId, ObjectId, TreeId};
use crate::model::path::RepoPath;
use crate::model::recipe::{Piece, Recipe};
use crate::model::tree::{Content, Node};
use crate::transform::hash::sha256;

/// The only version so far.
const VERSION: u32 = 1;
/// Larger proofs are not read: a range of 64 MiB and all objects on the way to it fit.
pub const MAX_PROOF_LEN: usize = 256 << 20;

/// A proof as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The format's version.
    pub digstore_proof: u32,
    /// The commit's id, or that of a checkpoint's tree, in hex.
    pub root: String,
    /// Names from the root to the file, each in base64.
    pub path: Vec<String>,
    /// First byte and the one after the last; none for the whole file.
    pub range: Option<(u64, u64)>,
    /// Objects on the way, in base64: the commit, the folders, the recipe and those of its parts that are needed.
    pub objects: Vec<String>,
    /// With a range: the chunks that overlap it, in base64.
    pub chunks: Vec<String>,
}

/// What a proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The commit; none if the root is a checkpoint's tree.
    pub commit: Option<Commit>,
    /// The file.
    pub path: RepoPath,
    /// Its mode.
    pub mode: u32,
    /// Its length in bytes.
    pub len: u64,
    /// What of it is proven.
    pub range: Range<u64>,
    /// The pieces that the range lies in, each with its place in the file.
    pub pieces: Vec<(u64, Piece)>,
    /// The bytes of the range, if they are in the proof.
    pub data: Option<Vec<u8>>,
}

fn invalid(why: impl ToString) -> FormatError {
    DecodeError::Invalid { what: "a proof", why: why.to_string() }.into()
}

impl Proof {
    /// A proof to be filled.
    pub fn new(root: &ObjectId, path: &RepoPath, range: Option<Range<u64>>) -> Self {
        Self {
            digstore_proof: VERSION,
            root: root.to_string(),
            path: path.names().map(|name| BASE64.encode(name)).collect(),
            range: range.map(|range| (range.start, range.end)),
            objects: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// Adds an object on the way.
    pub fn push_object(&mut self, bytes: &[u8]) {
        self.objects.push(BASE64.encode(bytes));
    }

    /// Adds a chunk of the range.
    pub fn push_chunk(&mut self, bytes: &[u8]) {
        self.chunks.push(BASE64.encode(bytes));
    }

    /// The text.
    pub fn encode(&self) -> String {
        // Strings and numbers alone cannot fail to become text.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a proof; it is not checked yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct VersionOnly {
            digstore_proof: u32,
        }
        let VersionOnly { digstore_proof } =
            serde_json::from_slice(bytes).map_err(|_| FormatError::Foreign("proof"))?;
        if digstore_proof != VERSION {
            let found = u16::try_from(digstore_proof).unwrap_or(u16::MAX);
            return Err(FormatError::Future { what: "proof", found, known: VERSION as u16 });
        }
        serde_json::from_slice(bytes).map_err(invalid)
    }

    /// Follows the proof from `root` on, which the caller trusts.
    pub fn verify(&self, root: &ObjectId) -> Result<Proven, FormatError> {
        if HEXLOWER.encode(root.digest()) != self.root {
            return Err(invalid(format!("it is about {}, not about {root}", self.root.escape_debug())));
        }
        let mut way = Way { objects: self.objects.iter() };
        let first = way.next(root)?;
        let (commit, mut tree_bytes) = if first.starts_with(COMMIT_MAGIC) {
            let commit = decode_commit(&first)?;
            let tree = way.next(&commit.tree.into())?;
            (Some(commit), tree)
        } else {
            (None, first)
        };
        let mut path = RepoPath::root();
        let mut names = self.path.iter().peekable();
        let (mode, len, content) = loop {
            let name = BASE64.decode(names.next().ok_or_else(|| invalid("it names no file"))?.as_bytes());
            let name = name.map_err(invalid)?;
            path = path.join(&name).map_err(invalid)?;
            let tree = decode_tree(&tree_bytes)?;
            let entry = tree.get(&name).ok_or_else(|| invalid(format!("'{path}' is not in it")))?;
            match (&entry.node, names.peek()) {
                (Node::Dir { tree }, Some(_)) => tree_bytes = way.next(&TreeId::into(*tree))?,
                (Node::File { len, content }, None) => break (entry.meta.mode, *len, *content),
                _ => return Err(invalid(format!("'{path}' is no file"))),
            }
        };
        let range = self.range.map_or(0..len, |(start, end)| start..end);
        if range.start > range.end || range.end > len {
            return Err(invalid(format!("its range lies outside the file, which has {len} bytes")));
        }
        let pieces = way.pieces(&content, len, &range)?;
        if way.objects.next().is_some() {
            return Err(invalid("it holds more objects than it needs"));
        }
        let data = self.range.map(|_| self.data(&pieces, &range)).transpose()?;
        Ok(Proven { commit, path, mode, len, range, pieces, data })
    }

    /// The bytes of the range, from the chunks in the proof.
    fn data(&self, pieces: &[(u64, Piece)], range: &Range<u64>) -> Result<Vec<u8>, FormatError> {
        let mut chunks = self.chunks.iter();
        let mut data = Vec::new();
        for (at, piece) in pieces {
            let from = range.start.saturating_sub(*at) as usize;
            let to = piece.len().min(range.end - at) as usize;
            match piece {
                Piece::Hole { .. } if data.len() + (to - from) > MAX_PROOF_LEN => {
                    return Err(invalid("its range is too long"));
                }
                Piece::Hole { .. } => data.resize(data.len() + (to - from), 0),
                Piece::Chunk { id, len } => {
                    let chunk = chunks.next().ok_or_else(|| invalid("a chunk is not in it"))?;
                    let chunk = BASE64.decode(chunk.as_bytes()).map_err(invalid)?;
                    check(&chunk, &ObjectId::from(*id))?;
                    if chunk.len() != *len as usize {
                        return Err(invalid("a chunk does not have the length in the recipe"));
                    }
                    data.extend_from_slice(chunk.get(from..to).unwrap_or_default());
                }
            }
        }
        if chunks.next().is_some() {
            return Err(invalid("it holds more chunks than it needs"));
        }
        Ok(data)
    }
}

/// Does a chunk have this id?
pub fn is_chunk(bytes: &[u8], id: &ChunkId) -> bool {
    sha256(&[bytes]) == *id.digest()
}

fn check(bytes: &[u8], id: &ObjectId) -> Result<(), FormatError> {
    if sha256(&[bytes]) == *id.digest() {
        Ok(())
    } else {
        Err(invalid(format!("an object does not have the id {}", id.short())))
    }
}

/// The objects of a proof, each taken by the id that the one before gave it.
struct Way<'a> {
    objects: std::slice::Iter<'a, String>,
}

impl Way<'_> {
    fn next(&mut self, id: &ObjectId) -> Result<Vec<u8>, FormatError> {
        let text = self.objects.next().ok_or_else(|| invalid(format!("the object {} is not in it", id.short())))?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(invalid)?;
        check(&bytes, id)?;
        Ok(bytes)
    }

    /// The pieces that overlap the range; the proof holds those parts of the recipe that do.
    fn pieces(&mut self, content: &Content, len: u64, range: &Range<u64>) -> Result<Vec<(u64, Piece)>, FormatError> {
        let mut found = Vec::new();
        match content {
            Content::Empty if len == 0 => {}
            Content::Chunk(id) => {
                let piece = Piece::Chunk { id: *id, len: u32::try_from(len).map_err(invalid)? };
                found.extend(overlaps(0, len, range).then_some((0, piece)));
            }
            Content::Recipe(id) => match decode_recipe(&self.next(&(*id).into())?)? {
                Recipe::Leaf(pieces) => take(0, len, pieces, range, &mut found)?,
                Recipe::Branch(parts) => {
                    let mut at = 0u64;
                    for (part, part_len) in parts {
                        if overlaps(at, part_len, range) {
                            let Recipe::Leaf(pieces) = decode_recipe(&self.next(&part.into())?)? else {
                                return Err(invalid("a recipe is nested too deeply"));
                            };
                            take(at, part_len, pieces, range, &mut found)?;
                        }
                        at = at.checked_add(part_len).ok_or_else(|| invalid("a recipe's length overflows"))?;
                    }
                    if at != len {
                        return Err(invalid("a recipe does not have the length of the file"));
                    }
                }
            },
            Content::Empty => return Err(invalid("an empty file has a length")),
        }
        Ok(found)
    }
}

/// Do `len` bytes at `at` overlap the range?
pub fn overlaps(at: u64, len: u64, range: &Range<u64>) -> bool {
    at < range.end && at.saturating_add(len) > range.start
}

/// Takes those of the pieces from `at` on that overlap the range; together they must have `len` bytes.
fn take(
    at: u64,
    len: u64,
    pieces: Vec<Piece>,
    range: &Range<u64>,
    found: &mut Vec<(u64, Piece)>,
) -> Result<(), FormatError> {
    let mut next = at;
    for piece in pieces {
        let piece_len = piece.len();
        found.extend(overlaps(next, piece_len, range).then_some((next, piece)));
        next = next.checked_add(piece_len).ok_or_else(|| invalid("a recipe's length overflows"))?;
    }
    if next - at == len { Ok(()) } else { Err(invalid("a recipe does not have the length that it should")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_files_and_later_versions_are_told_apart() {
        let proof = Proof::new(&ObjectId::from_digest([1; 32]), &RepoPath::parse(b"a/b").unwrap(), Some(1..2));
        assert_eq!(Proof::decode(proof.encode().as_bytes()).unwrap(), proof);
        let later = proof.encode().replace("\"digstore_proof\": 1", "\"digstore_proof\": 2");
        assert!(matches!(Proof::decode(later.as_bytes()), Err(FormatError::Future { found: 2, .. })));
        assert!(matches!(Proof::decode(b"{}"), Err(FormatError::Foreign(_))));
        assert!(proof.verify(&ObjectId::from_digest([1; 32])).is_err(), "it holds nothing");
        assert!(proof.verify(&ObjectId::from_digest([2; 32])).unwrap_err().to_string().contains("not about"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Proof::decode(&bytes);
        }
    }
}
