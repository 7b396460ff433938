//! The shape of the Merkle tree over a layer's objects. Hashing is the floor above's; this is only who pairs with whom.

/// Folds a row of node values upwards until one is left. A node without a partner moves up unchanged.
///
/// Returns `None` for an empty row.
pub fn fold<T: Copy>(mut row: Vec<T>, pair: impl Fn(&T, &T) -> T) -> Option<T> {
    while row.len() > 1 {
        row = row
            .chunks(2)
            .filter_map(|two| match two {
                [left, right] => Some(pair(left, right)),
                [alone] => Some(*alone),
                _ => None,
            })
            .collect();
    }
    row.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_fold_left_to_right() {
        let join = |a: &u64, b: &u64| a * 10 + b;
        assert_eq!(fold(Vec::new(), join), None);
        assert_eq!(fold(vec![1], join), Some(1));
        assert_eq!(fold(vec![1, 2], join), Some(12));
        assert_eq!(fold(vec![1, 2, 3], join), Some(123));
        assert_eq!(fold(vec![1, 2, 3, 4], join), Some(12 * 10 + 34));
    }
}
