//! Rows in the order of their keys: a sorted list in pieces, so that an insertion moves a few kilobytes at most.

use std::cmp::Ordering;

/// Rows in a piece before it is split: moving half of them costs less than finding the place.
const PIECE_LEN: usize = 512;

/// Row numbers, sorted by what the caller says.
#[derive(Debug, Default, Clone)]
pub(super) struct Order {
    /// No piece is empty.
    pieces: Vec<Vec<u32>>,
}

/// A place in an [`Order`]: before a row, or at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    piece: usize,
    at: usize,
}

impl Order {
    /// All of `rows`, which are sorted.
    pub fn from_sorted(rows: &[u32]) -> Self {
        // Half full, so that later insertions do not split at once.
        Self { pieces: rows.chunks(PIECE_LEN / 2).map(<[u32]>::to_vec).collect() }
    }

    /// The first place whose row is not less than what `cmp` compares with.
    pub fn lower_bound(&self, mut cmp: impl FnMut(u32) -> Ordering) -> Place {
        let mut is_less = |row: &u32| cmp(*row) == Ordering::Less;
        let piece = self.pieces.partition_point(|piece| piece.last().is_some_and(&mut is_less));
        let at = self.pieces.get(piece).map_or(0, |rows| rows.partition_point(is_less));
        Place { piece, at }
    }

    /// Puts a row where `cmp` says, which compares rows with it.
    pub fn insert(&mut self, row: u32, cmp: impl FnMut(u32) -> Ordering) {
        let mut place = self.lower_bound(cmp);
        if place.piece == self.pieces.len() {
            // Behind all others, as ascending keys are: the last piece is filled, not split in halves.
            if self.pieces.last().is_none_or(|piece| piece.len() >= PIECE_LEN) {
                self.pieces.push(Vec::with_capacity(PIECE_LEN));
            }
            place = Place { piece: self.pieces.len() - 1, at: self.pieces.last().map_or(0, Vec::len) };
        }
        let Some(rows) = self.pieces.get_mut(place.piece) else { return };
        rows.insert(place.at, row);
        if rows.len() > PIECE_LEN {
            let upper = rows.split_off(PIECE_LEN / 2);
            self.pieces.insert(place.piece + 1, upper);
        }
    }

    /// The row at a place.
    pub fn row(&self, place: Place) -> Option<u32> {
        self.pieces.get(place.piece)?.get(place.at).copied()
    }

    /// The place behind.
    pub fn next(&self, place: Place) -> Place {
        match self.pieces.get(place.piece) {
            Some(rows) if place.at + 1 < rows.len() => Place { at: place.at + 1, ..place },
            _ => Place { piece: place.piece + 1, at: 0 },
        }
    }

    /// The place before, if there is one.
    pub fn previous(&self, place: Place) -> Option<Place> {
        if let Some(at) = place.at.checked_sub(1) {
            return Some(Place { at, ..place });
        }
        let piece = place.piece.checked_sub(1)?;
        Some(Place { piece, at: self.pieces.get(piece)?.len() - 1 })
    }

    /// The end.
    pub fn end(&self) -> Place {
        Place { piece: self.pieces.len(), at: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_list(rows in prop::collection::vec(0u32..5000, 0..3000), bulk in 0usize..100) {
            let mut expected: Vec<u32> = rows.iter().take(bulk).copied().collect();
            expected.sort_unstable();
            let mut order = Order::from_sorted(&expected);
            for row in rows.iter().skip(bulk) {
                order.insert(*row, |other| other.cmp(row));
                expected.push(*row);
            }
            expected.sort_unstable();
            let mut place = order.lower_bound(|_| Ordering::Greater);
            let mut forward = Vec::new();
            while let Some(row) = order.row(place) {
                forward.push(row);
                place = order.next(place);
            }
            prop_assert_eq!(&forward, &expected);
            prop_assert_eq!(place, order.end());
            while let Some(before) = order.previous(place) {
                prop_assert_eq!(order.row(before), forward.pop());
                place = before;
            }
            prop_assert!(forward.is_empty());
            let middle = order.lower_bound(|row| row.cmp(&2500));
            prop_assert_eq!(order.row(middle), expected.iter().copied().find(|row| *row >= 2500));
        }
    }
}
