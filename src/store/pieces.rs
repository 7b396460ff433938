//! The pieces of a stored file.

use std::ops::Range;
use std::vec::IntoIter;

use super::StoreError;
use super::objects::ObjectStore;
use crate::model::id::{ObjectKind, RecipeId};
use crate::model::recipe::{Piece, Recipe};
use crate::model::tree::Content;

/// The pieces of a file that overlap a range of its bytes, each with its position in the file. Only one leaf of its recipe is
/// in memory, so a file may have any length.
#[derive(Debug)]
pub struct Pieces<'a> {
    objects: &'a ObjectStore,
    range: Range<u64>,
    /// Leaves to come: where each begins, and its length.
    leaves: IntoIter<(u64, RecipeId, u64)>,
    /// Pieces to come of the last one, the first of which begins at `at`.
    pieces: IntoIter<Piece>,
    at: u64,
}

impl<'a> Pieces<'a> {
    /// Of a file of `len` bytes.
    ///
    /// # Errors
    /// A recipe that is missing, damaged, nested too deeply, or not one of `len` bytes.
    pub fn new(objects: &'a ObjectStore, content: &Content, len: u64, range: Range<u64>) -> Result<Self, StoreError> {
        let (mut leaves, mut pieces) = (Vec::new(), Vec::new());
        match content {
            Content::Empty => {}
            Content::Chunk(id) => pieces.push(Piece::Chunk { id: *id, len: u32::try_from(len).unwrap_or(u32::MAX) }),
            Content::Recipe(id) => match objects.recipe(id)? {
                Recipe::Leaf(found) => pieces = checked(id, found, len)?,
                Recipe::Branch(parts) => {
                    let mut at = 0u64;
                    for (part, part_len) in parts {
                        let next = at.checked_add(part_len).ok_or_else(|| wrong(id, "its length overflows"))?;
                        if overlap(&range, at, next) {
                            leaves.push((at, part, part_len));
                        }
                        at = next;
                    }
                    if at != len {
                        return Err(wrong(id, "its parts do not have its length"));
                    }
                }
            },
        }
        Ok(Self { objects, range, leaves: leaves.into_iter(), pieces: pieces.into_iter(), at: 0 })
    }

    /// The next one; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "each step can fail, and callers use `?` in a while loop")]
    pub fn next(&mut self) -> Result<Option<(u64, Piece)>, StoreError> {
        loop {
            for piece in self.pieces.by_ref() {
                let at = self.at;
                // Lengths were summed up without overflow when the leaf was read.
                self.at += piece.len();
                if overlap(&self.range, at, self.at) {
                    return Ok(Some((at, piece)));
                }
            }
            let Some((at, id, len)) = self.leaves.next() else { return Ok(None) };
            let Recipe::Leaf(pieces) = self.objects.recipe(&id)? else {
                return Err(wrong(&id, "it is nested too deeply"));
            };
            (self.pieces, self.at) = (checked(&id, pieces, len)?.into_iter(), at);
        }
    }
}

fn overlap(range: &Range<u64>, start: u64, end: u64) -> bool {
    start < range.end && end > range.start
}

/// The pieces of a leaf, if they have its length.
fn checked(id: &RecipeId, pieces: Vec<Piece>, len: u64) -> Result<Vec<Piece>, StoreError> {
    match pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.len())) {
        Some(sum) if sum == len => Ok(pieces),
        _ => Err(wrong(id, "its pieces do not have its length")),
    }
}

fn wrong(id: &RecipeId, why: &str) -> StoreError {
    StoreError::Corrupt { kind: ObjectKind::Recipe, id: (*id).into(), why: why.into() }
}
