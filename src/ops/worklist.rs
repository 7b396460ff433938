//! What is to be done about a work tree, path by path. There may be a million of them: of most, whatever is needed besides can be
//! looked up when their turn comes, and until then each takes its path and a few bytes.

use std::vec::IntoIter;

use super::Result;
use crate::base::bytes::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::model::path::RepoPath;
use crate::store::StoreError;

/// Work in order.
#[derive(Debug)]
pub struct Worklist<T> {
    /// For each piece a path, and 0 or one more than a file's length; an empty path stands for the next of the others.
    bytes: Vec<u8>,
    others: Vec<T>,
    count: usize,
}

/// A piece of work.
#[derive(Debug, PartialEq, Eq)]
pub enum Work<T> {
    /// A path; if it is a file to be read, its length.
    Plain(RepoPath, Option<u64>),
    /// Anything else.
    Other(T),
}

impl<T> Default for Worklist<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), others: Vec::new(), count: 0 }
    }
}

impl<T> Worklist<T> {
    /// Adds a path that is not the root. Of a file to be read it takes the length.
    pub fn push_plain(&mut self, path: &RepoPath, len: Option<u64>) {
        put_bytes(&mut self.bytes, path.as_bytes());
        put_varint(&mut self.bytes, len.map_or(0, |len| len.saturating_add(1)));
        self.count += 1;
    }

    /// Adds anything else.
    pub fn push(&mut self, other: T) {
        put_bytes(&mut self.bytes, &[]);
        self.others.push(other);
        self.count += 1;
    }

    /// How much there is.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All that are not plain.
    pub fn others(&self) -> &[T] {
        &self.others
    }

    /// The lengths of the files to be read.
    pub fn file_lens(&self) -> impl Iterator<Item = u64> {
        let mut reader = ByteReader::new("a list of work", &self.bytes);
        std::iter::repeat_with(move || next(&mut reader).ok().flatten()).take(self.count).filter_map(|plain| plain?.1)
    }

    /// Goes through it, some at a time.
    pub fn into_parts(self, at_once: usize) -> Parts<T> {
        Parts { at_once: at_once.max(1), left: self.count, at: 0, bytes: self.bytes, others: self.others.into_iter() }
    }
}

/// Parts of a list of work.
#[derive(Debug)]
pub struct Parts<T> {
    bytes: Vec<u8>,
    at: usize,
    others: IntoIter<T>,
    left: usize,
    at_once: usize,
}

impl<T> Parts<T> {
    /// The next part; none if nothing is left.
    pub fn next(&mut self) -> Result<Option<Vec<Work<T>>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut reader = ByteReader::new("a list of work", self.bytes.get(self.at..).unwrap_or_default());
        let count = self.left.min(self.at_once);
        let mut part = Vec::with_capacity(count);
        for _ in 0..count {
            part.push(match next(&mut reader).map_err(|error| StoreError::Internal(error.to_string()))? {
                Some((path, len)) => Work::Plain(RepoPath::parse(path)?, len),
                None => Work::Other(self.others.next().ok_or_else(|| StoreError::Internal("no work left".to_owned()))?),
            });
        }
        self.left -= count;
        self.at = self.bytes.len() - reader.remaining();
        Ok(Some(part))
    }
}

/// A path and perhaps a length.
type Plain<'a> = (&'a [u8], Option<u64>);

/// The next plain piece of work; none if it is one of the others.
fn next<'a>(reader: &mut ByteReader<'a>) -> std::result::Result<Option<Plain<'a>>, DecodeError> {
    let path = reader.bytes(usize::MAX)?;
    Ok(if path.is_empty() { None } else { Some((path, reader.varint()?.checked_sub(1))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_comes_out_in_parts_as_it_went_in() {
        let path = |number: u64| RepoPath::parse(format!("folder/{number}").as_bytes()).unwrap();
        for (count, at_once) in [(0u64, 3usize), (1, 1), (7, 3), (9, 3), (5, 100), (4, 0)] {
            let is_other = |number: &u64| number % 4 == 1;
            let len = |number: u64| (number % 4 > 1).then_some(number << 30);
            let mut list = Worklist::default();
            for number in 0..count {
                if is_other(&number) { list.push(number) } else { list.push_plain(&path(number), len(number)) }
            }
            assert_eq!((list.len() as u64, list.is_empty()), (count, count == 0));
            assert!(list.others().iter().copied().eq((0..count).filter(is_other)));
            assert!(list.file_lens().eq((0..count).filter_map(len)));
            let mut parts = list.into_parts(at_once);
            let mut all = Vec::new();
            while let Some(part) = parts.next().unwrap() {
                assert!(!part.is_empty() && part.len() <= at_once.max(1));
                all.extend(part);
            }
            let work = |number| {
                if is_other(&number) { Work::Other(number) } else { Work::Plain(path(number), len(number)) }
            };
            assert!(all.into_iter().eq((0..count).map(work)));
        }
    }
}
