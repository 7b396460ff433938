//! A file as an ordered list of pieces.

use super::id::{ChunkId, RecipeId};

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A stored chunk.
    Chunk {
        /// The bytes.
        id: ChunkId,
        /// How many; never 0.
        len: u32,
    },
    /// Zeros that occupy nothing; never 0 of them.
    Hole {
        /// How many.
        len: u64,
    },
}

impl Piece {
    /// Bytes of the file that this piece covers.
    pub fn len(&self) -> u64 {
        match self {
            Self::Chunk { len, .. } => u64::from(*len),
            Self::Hole { len } => *len,
        }
    }

    /// A piece always covers something; here for completeness beside `len`.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A stored recipe: pieces, or, for large files, recipes of consecutive parts.
///
/// Parts end at places chosen by the chunk ids themselves, so two versions of a large file share most of their parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// Pieces in order.
    Leaf(Vec<Piece>),
    /// Leaves in order, each with the bytes it covers.
    Branch(Vec<(RecipeId, u64)>),
}

/// A part never has more pieces than this; the bound for decoders as well.
pub const MAX_LEAF_PIECES: usize = 1024;
/// A part is not ended before this many pieces, so that parts stay worth their own object.
pub const MIN_LEAF_PIECES: usize = 64;
/// Parts of one file: enough for 16 TiB of smallest chunks, and the bound for decoders.
pub const MAX_BRANCH_PARTS: usize = 1 << 20;

/// Does a part of `pieces` pieces end after `last`? True for one chunk in 256, beyond the minimum.
pub fn ends_leaf(pieces: usize, last: &Piece) -> bool {
    let chosen = matches!(last, Piece::Chunk { id, .. } if id.digest()[0] == 0);
    pieces >= MAX_LEAF_PIECES || (pieces >= MIN_LEAF_PIECES && chosen)
}
