//! Where the stored version of a large file was cut.
//!
//! A chunk that stands where it stood ends where it ended. That it does is found out by hashing it, which has to be done in any
//! case, so what did not change is not searched for cuts once more. Lengths of chunks tell how far the versions are shifted.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::older::Leaves;
use crate::model::id::ChunkId;
use crate::model::recipe::{MAX_LEAF_PIECES, Piece};
use crate::model::tree::Content;
use crate::store::objects::ObjectStore;
use crate::transform::chunker::{BAND_CHUNK_LEN, Chunker};

/// So many chunks in a row that are not what they were: the versions are shifted. So many in a row of the same lengths tell how
/// far; a length is worth about 16 bits.
const RUN: usize = 3;
/// Rows that are searched for in the old version, from the last of a window backwards.
const TRIES: usize = 8;
/// Old pieces loaded beyond the place reached, when the shift is searched for: 64 MB may have been taken out.
const AHEAD: usize = MAX_LEAF_PIECES;
/// Old pieces held, those behind the place reached included; about 50 bytes each.
const MOST: usize = 4 * MAX_LEAF_PIECES;

/// A chunk, in a place of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Placed {
    /// Where it begins.
    pub at: u64,
    /// How long it is.
    pub len: u32,
}

/// Whether a chunk is where the older version lets expect it.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// The bytes.
    pub place: Placed,
    /// What they were.
    pub id: ChunkId,
    /// By how much the versions were thought to be shifted.
    shift: i64,
}

/// A piece of the old version.
struct Old {
    /// Where it begins there.
    at: u64,
    piece: Piece,
    /// It is a chunk that may have been cut by its content, and not at a fixed place.
    by_content: bool,
}

/// The cuts of an older version, followed beside a new one.
pub struct OldCuts {
    leaves: Leaves,
    /// Lengths of chunks that are cut at fixed places. One that is shorter only comes behind such.
    fixed: [u64; 2],
    /// In order.
    pieces: VecDeque<Old>,
    /// Where the next one begins that is not loaded.
    loaded: u64,
    /// What has to be added to a place in the old version to have that in the new one.
    shift: i64,
    is_lost: bool,
    /// Expected chunks in a row that were others.
    wrong: usize,
    /// The last cuts of the new version.
    recent: Vec<Placed>,
}

impl OldCuts {
    /// Those of stored content, if it has a recipe. The new version is cut by `chunker`.
    pub fn new(objects: &Arc<ObjectStore>, content: Option<Content>, chunker: &Chunker) -> Self {
        let leaves = Leaves::new(objects, content);
        let is_lost = leaves.is_empty();
        let fixed = [u64::from(BAND_CHUNK_LEN), chunker.array_len()];
        Self { leaves, fixed, pieces: VecDeque::new(), loaded: 0, shift: 0, is_lost, wrong: 0, recent: Vec::new() }
    }

    /// Is there anything to expect?
    pub fn are_known(&self) -> bool {
        !self.leaves.is_empty() || !self.pieces.is_empty()
    }

    fn load(&mut self) -> bool {
        let Some((_, pieces)) = self.leaves.next() else { return false };
        let is_fixed = |piece: &Piece| self.fixed.contains(&piece.len());
        for piece in pieces {
            let is_behind_fixed = self.pieces.back().is_some_and(|before| is_fixed(&before.piece));
            self.pieces.push_back(Old { at: self.loaded, piece, by_content: !is_behind_fixed && !is_fixed(&piece) });
            self.loaded += piece.len();
        }
        let surplus = self.pieces.len().saturating_sub(MOST);
        self.pieces.drain(..surplus);
        true
    }

    /// The chunks of the old version that lie wholly in this part of the new one, if the shift is still what it was.
    pub fn within(&mut self, part: Range<u64>) -> Vec<Expected> {
        let shift = self.shift;
        let [start, end] = [part.start, part.end].map(|at| at.saturating_add_signed(-shift));
        if self.is_lost {
            return Vec::new();
        }
        while self.loaded < end && self.load() {}
        let first = self.pieces.partition_point(|old| old.at < start);
        let inside = self.pieces.range(first..).take_while(|old| old.at + old.piece.len() <= end);
        let chunks = inside.filter_map(|old| match old.piece {
            Piece::Chunk { id, len } if old.by_content => {
                Some(Expected { place: Placed { at: old.at.checked_add_signed(shift)?, len }, id, shift })
            }
            _ => None,
        });
        chunks.collect()
    }

    /// Learns what was found where chunks were expected, and where the new version was cut up to `reached`.
    pub fn follow(&mut self, found: &[(Expected, ChunkId)], cuts: &[Placed], reached: u64) {
        for (expected, id) in found.iter().filter(|(expected, _)| expected.shift == self.shift) {
            self.wrong = if expected.id == *id { 0 } else { self.wrong + 1 };
        }
        self.is_lost |= self.wrong >= RUN;
        self.recent.extend(cuts);
        if self.is_lost && self.are_known() {
            self.search(reached);
        }
        self.recent.drain(..self.recent.len().saturating_sub(RUN - 1));
    }

    /// Looks for the last cuts in the old version.
    fn search(&mut self, reached: u64) {
        let place = reached.saturating_add_signed(-self.shift);
        while self.pieces.iter().rev().take_while(|old| old.at >= place).count() < AHEAD && self.load() {}
        let same = |(new, old): (&Placed, &Old)| matches!(old.piece, Piece::Chunk { len, .. } if len == new.len);
        let is_same = |new: &[Placed], old: &[Old]| new.iter().zip(old).all(same);
        let old = &*self.pieces.make_contiguous();
        for new in self.recent.windows(RUN).rev().take(TRIES) {
            let [first, rest @ ..] = new else { continue };
            let is_row = new.is_sorted_by(|one, next| one.at + u64::from(one.len) == next.at);
            if !is_row || rest.iter().all(|next| next.len == first.len) {
                // Cuts at the greatest length, or at fixed places, are alike everywhere.
                continue;
            }
            if let Some([start, ..]) = old.windows(RUN).find(|old| is_same(new, old)) {
                (self.shift, self.is_lost, self.wrong) = (first.at as i64 - start.at as i64, false, 0);
                return;
            }
        }
    }
}
