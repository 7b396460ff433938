//! What is to be done about a work tree, path by path. Mostly that is to read files of which nothing is known, and there may be
//! a million of them: each takes its path and a few bytes.

use std::vec::IntoIter;

use super::Result;
use crate::base::bytes::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::model::path::RepoPath;
use crate::store::StoreError;

/// Work in order.
#[derive(Debug)]
pub struct Worklist<T> {
    /// For each piece a path and a file's length; an empty path stands for the next of the others.
    bytes: Vec<u8>,
    others: Vec<T>,
    count: usize,
}

/// A piece of work.
#[derive(Debug, PartialEq, Eq)]
pub enum Work<T> {
    /// A file of which nothing is known, and its length.
    NewFile(RepoPath, u64),
    /// Anything else.
    Other(T),
}

impl<T> Default for Worklist<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), others: Vec::new(), count: 0 }
    }
}

impl<T> Worklist<T> {
    /// Adds a file of which nothing is known. It is not the root.
    pub fn push_new_file(&mut self, path: &RepoPath, len: u64) {
        put_bytes(&mut self.bytes, path.as_bytes());
        put_varint(&mut self.bytes, len);
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

    /// All but the new files.
    pub fn others(&self) -> &[T] {
        &self.others
    }

    /// The lengths of the new files.
    pub fn new_lens(&self) -> impl Iterator<Item = u64> {
        let mut reader = ByteReader::new("a list of work", &self.bytes);
        std::iter::from_fn(move || {
            (reader.remaining() > 0).then(|| next(&mut reader).ok().flatten().map(|(_, len)| len))
        })
        .flatten()
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
                Some((path, len)) => Work::NewFile(RepoPath::parse(path)?, len),
                None => Work::Other(self.others.next().ok_or_else(|| StoreError::Internal("no work left".to_owned()))?),
            });
        }
        self.left -= count;
        self.at = self.bytes.len() - reader.remaining();
        Ok(Some(part))
    }
}

/// The next path and length; none if it is one of the others.
fn next<'a>(reader: &mut ByteReader<'a>) -> std::result::Result<Option<(&'a [u8], u64)>, DecodeError> {
    let path = reader.bytes(usize::MAX)?;
    if path.is_empty() { Ok(None) } else { Ok(Some((path, reader.varint()?))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_comes_out_in_parts_as_it_went_in() {
        let path = |number: u64| RepoPath::parse(format!("folder/{number}").as_bytes()).unwrap();
        for (count, at_once) in [(0u64, 3usize), (1, 1), (7, 3), (9, 3), (5, 100), (4, 0)] {
            let mut list = Worklist::default();
            for number in 0..count {
                if number % 3 == 1 { list.push(number) } else { list.push_new_file(&path(number), number << 30) }
            }
            assert_eq!((list.len() as u64, list.is_empty()), (count, count == 0));
            let is_other = |number: &u64| number % 3 == 1;
            assert!(list.others().iter().copied().eq((0..count).filter(is_other)));
            assert!(list.new_lens().eq((0..count).filter(|number| !is_other(number)).map(|number| number << 30)));
            let mut parts = list.into_parts(at_once);
            let mut all = Vec::new();
            while let Some(part) = parts.next().unwrap() {
                assert!(!part.is_empty() && part.len() <= at_once.max(1));
                all.extend(part);
            }
            let work = |number| {
                if is_other(&number) { Work::Other(number) } else { Work::NewFile(path(number), number << 30) }
            };
            assert!(all.into_iter().eq((0..count).map(work)));
        }
    }
}
