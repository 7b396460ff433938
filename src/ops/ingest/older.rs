//! The version of a file that is stored already: what of it stands where something new belongs.
//!
//! Both versions are followed side by side. A chunk that both have says how far they are shifted against each other; what
//! lies between two such is matched by position. Only a few leaves of the old recipe are held, however long the file.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::id::{ChunkId, ObjectId, RecipeId};
use crate::model::recipe::{MAX_LEAF_PIECES, Piece, Recipe};
use crate::model::tree::Content;
use crate::store::objects::ObjectStore;
use crate::store::pending::Counterpart;

/// Old pieces held ahead: a chunk is found again if no more than this lies between.
const AHEAD: usize = MAX_LEAF_PIECES;
/// Old pieces kept behind the place that has been reached, for content that was moved towards the end.
const BEHIND: usize = 64;

/// A piece of the old version.
struct OldPiece {
    /// `None` for a hole.
    id: Option<ChunkId>,
    len: u64,
    leaf: Option<RecipeId>,
}

/// The parts of a stored recipe, loaded one by one.
pub struct Leaves {
    objects: Arc<ObjectStore>,
    root: Option<RecipeId>,
    waiting: VecDeque<RecipeId>,
    /// Bytes of what was given out.
    len: u64,
}

impl Leaves {
    /// Those of a stored file; none if it has no recipe.
    pub fn new(objects: &Arc<ObjectStore>, content: Option<Content>) -> Self {
        let root = match content {
            Some(Content::Recipe(id)) => Some(id),
            _ => None,
        };
        Self { objects: Arc::clone(objects), root, waiting: root.into_iter().collect(), len: 0 }
    }

    /// Is none left?
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next part. What cannot be read is left out: it is of no use and no harm. All together are no longer than a file can be.
    pub fn next(&mut self) -> Option<(RecipeId, Vec<Piece>)> {
        loop {
            let id = self.waiting.pop_front()?;
            match self.objects.recipe(&id) {
                Ok(Recipe::Leaf(pieces)) => {
                    let end = pieces.iter().try_fold(self.len, |end, piece| end.checked_add(piece.len()));
                    self.len = end.filter(|end| i64::try_from(*end).is_ok())?;
                    return Some((id, pieces));
                }
                Ok(Recipe::Branch(parts)) if Some(id) == self.root => {
                    self.waiting.extend(parts.into_iter().map(|(part, _)| part));
                }
                _ => {}
            }
        }
    }
}

/// An old version, being followed.
pub struct Older {
    leaves: Leaves,
    pieces: VecDeque<OldPiece>,
    /// Bytes from the first of `pieces` to the place in the old version that has been reached.
    reached: u64,
}

impl Older {
    /// The stored content `before`, if there is one.
    pub fn new(objects: &Arc<ObjectStore>, before: Option<(Content, u64)>) -> Self {
        let leaves = Leaves::new(objects, before.map(|(content, _)| content));
        let whole = match before {
            Some((Content::Chunk(id), len)) => Some(OldPiece { id: Some(id), len, leaf: None }),
            _ => None,
        };
        Self { leaves, pieces: whole.into_iter().collect(), reached: 0 }
    }

    /// Loads recipes until `AHEAD` pieces lie before the place that has been reached.
    fn fill(&mut self) {
        while self.place().0 + AHEAD > self.pieces.len() {
            let Some((leaf, pieces)) = self.leaves.next() else { return };
            self.pieces.extend(pieces.iter().map(|piece| OldPiece {
                id: match piece {
                    Piece::Chunk { id, .. } => Some(*id),
                    Piece::Hole { .. } => None,
                },
                len: piece.len(),
                leaf: Some(leaf),
            }));
        }
    }

    /// The piece that has been reached, and how far it has.
    fn place(&self) -> (usize, u64) {
        let mut left = self.reached;
        for (at, piece) in self.pieces.iter().enumerate() {
            if left < piece.len {
                return (at, left);
            }
            left -= piece.len;
        }
        (self.pieces.len(), left)
    }

    /// Goes on by what the new version has there, and forgets what lies far behind.
    fn pass(&mut self, len: u64) {
        self.reached += len;
        let (at, _) = self.place();
        for _ in BEHIND..at {
            self.reached -= self.pieces.pop_front().map_or(0, |piece| piece.len);
        }
    }

    /// The new version has this piece, which is stored already or a hole.
    pub fn pass_known(&mut self, id: Option<&ChunkId>, len: u64) {
        if self.leaves.root.is_none() {
            return;
        }
        self.fill();
        let (at, _) = self.place();
        let is_it = |piece: &OldPiece| piece.id.is_some() && piece.id.as_ref() == id;
        // Mostly it is the next one.
        let found = match self.pieces.get(at) {
            Some(piece) if is_it(piece) => Some(at),
            _ => id.and_then(|_| self.pieces.iter().position(is_it)),
        };
        if let Some(found) = found {
            self.reached = self.pieces.iter().take(found).map(|piece| piece.len).sum();
        }
        self.pass(len);
    }

    /// The old chunk in whose place a new one of `len` bytes has come.
    pub fn pass_new(&mut self, len: u64) -> Option<Counterpart> {
        self.fill();
        // Most of the new one is opposite to its middle.
        let middle = self.reached + len / 2;
        let (mut start, mut found) = (0, None);
        for piece in &self.pieces {
            if start > middle && found.is_some() {
                break;
            }
            found = piece.id.map(|id| (id, start)).or(found);
            start += piece.len;
        }
        let reached = self.reached;
        self.pass(len);
        found.map(|(id, start)| Counterpart { id: id.into(), shift: reached as i64 - start as i64 })
    }

    /// The part of the old recipe that has been reached.
    pub fn leaf(&self) -> Option<ObjectId> {
        let (at, _) = self.place();
        let leaf = self.pieces.iter().take(at.max(1)).next_back().and_then(|piece| piece.leaf);
        leaf.map(ObjectId::from).or(self.root())
    }

    /// The old recipe as a whole.
    pub fn root(&self) -> Option<ObjectId> {
        self.leaves.root.map(ObjectId::from)
    }
}
