//! Operations on their way into the journal, encoded as they stand in a record.
//!
//! A million of them are recorded together when a tree of that size is staged. Here each takes its bytes and no allocation of
//! its own.

use super::Op;
use super::record::{OpSpan, put_op, read_op};
use crate::base::bytes::ByteReader;

/// Operations, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ops {
    bytes: Vec<u8>,
    count: u64,
}

/// An operation where it lies: the key, and the value that it gets, or `None` if it is removed.
pub type OpRef<'a> = (&'a [u8], Option<&'a [u8]>);

impl Ops {
    /// Adds an operation.
    pub fn push(&mut self, op: Op) {
        self.put((op.key(), op.value()));
    }

    /// Adds an operation that lies elsewhere.
    pub fn put(&mut self, (key, value): OpRef<'_>) {
        put_op(&mut self.bytes, key, value);
        self.count += 1;
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// As they stand in a record behind their count.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each begins, and where its parts stand.
    fn places(&self) -> impl Iterator<Item = (usize, OpSpan)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at;
            let (span, end) = span_at(&self.bytes, start)?;
            at = end;
            Some((start, span))
        })
    }

    /// Where the parts of each stand if the first begins at `base`.
    pub fn spans(&self, base: usize) -> impl Iterator<Item = OpSpan> {
        self.places().map(move |(_, span)| {
            let value = span.value.map(|(at, len)| (base + at, len));
            OpSpan { key_at: base + span.key_at, value, ..span }
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = OpRef<'_>> {
        self.places().filter_map(|(_, span)| op_in(&self.bytes, &span))
    }

    /// What is left of each key, in the order of the keys: of several operations on one, the last.
    pub fn sorted(&self) -> impl Iterator<Item = OpRef<'_>> {
        let at = |at: &usize| op_in(&self.bytes, &span_at(&self.bytes, *at)?.0);
        let mut starts: Vec<usize> = self.places().map(|(start, _)| start).collect();
        starts.sort_by_key(|start| at(start).map(|(key, _)| key));
        // The later one comes first here, and stays.
        starts.reverse();
        starts.dedup_by_key(|start| at(start).map(|(key, _)| key));
        starts.into_iter().rev().filter_map(move |start| at(&start))
    }
}

/// Where the parts of the operation stand that begins at a place, and where it ends; `None` if it is not there as a whole. What is too
/// long for the journal is refused by it, not here.
pub fn span_at(bytes: &[u8], at: usize) -> Option<(OpSpan, usize)> {
    let mut reader = ByteReader::new("operations", bytes.get(at..)?);
    let span = read_op(&mut reader, bytes.len(), [usize::MAX; 2]).ok()?;
    Some((span, bytes.len() - reader.remaining()))
}

/// The operation whose parts stand there.
pub fn op_in<'a>(bytes: &'a [u8], span: &OpSpan) -> Option<OpRef<'a>> {
    let part = |at: usize, len: usize| bytes.get(at..at + len);
    let value = match span.value {
        Some((at, len)) => Some(part(at, len)?),
        None => None,
    };
    Some((part(span.key_at, span.key_len)?, value))
}

impl Extend<Op> for Ops {
    fn extend<T: IntoIterator<Item = Op>>(&mut self, ops: T) {
        ops.into_iter().for_each(|op| self.push(op));
    }
}

impl FromIterator<Op> for Ops {
    fn from_iter<T: IntoIterator<Item = Op>>(ops: T) -> Self {
        let mut all = Self::default();
        all.extend(ops);
        all
    }
}

impl From<Vec<Op>> for Ops {
    fn from(ops: Vec<Op>) -> Self {
        ops.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn borrowed(op: &Op) -> OpRef<'_> {
        (op.key(), op.value())
    }

    proptest! {
        #[test]
        fn they_are_what_was_put_in(ops in prop::collection::vec(any_op(), 0..40)) {
            let all: Ops = ops.iter().cloned().collect();
            prop_assert_eq!(all.count(), ops.len() as u64);
            prop_assert!(all.iter().eq(ops.iter().map(borrowed)));
            let mut last = std::collections::BTreeMap::new();
            last.extend(ops.iter().map(borrowed));
            prop_assert!(all.sorted().eq(last));
        }
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let key = prop::collection::vec(0..3u8, 1..4);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..5));
        (key, value).prop_map(|(key, value)| match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        })
    }
}
