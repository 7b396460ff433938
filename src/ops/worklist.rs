//! What is to be done about a work tree, path by path. There may be a million of them: of most, whatever is needed besides can be
//! looked up when their turn comes, and until then each takes its path and a few bytes.

use std::vec::IntoIter;

use super::Result;
use crate::base::bytes::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::model::path::RepoPath;
use crate::store::StoreError;

const AS_IT_IS: u64 = 0;
const GONE: u64 = 1;
const FIRST_LEN: u64 = 2;

/// Work in order.
#[derive(Debug)]
pub struct Worklist<T> {
    /// For each piece a path, and [`AS_IT_IS`], [`GONE`] or a file's length after these; an empty path stands for the next of the
    /// others.
    bytes: Vec<u8>,
    others: Vec<T>,
    count: usize,
}

/// A piece of work.
#[derive(Debug, PartialEq, Eq)]
pub enum Work<T> {
    /// A path; if it is a file to be read, its length.
    Plain(RepoPath, Option<u64>),
    /// A path at which nothing is any more.
    Gone(RepoPath),
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
        self.put(path, len.map_or(AS_IT_IS, |len| len.saturating_add(FIRST_LEN)));
    }

    /// Adds a path, not the root, at which nothing is any more.
    pub fn push_gone(&mut self, path: &RepoPath) {
        self.put(path, GONE);
    }

    fn put(&mut self, path: &RepoPath, number: u64) {
        put_bytes(&mut self.bytes, path.as_bytes());
        put_varint(&mut self.bytes, number);
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

    /// The lengths of the files to be read.
    pub fn file_lens(&self) -> impl Iterator<Item = u64> {
        let mut reader = ByteReader::new("a list of work", &self.bytes);
        std::iter::repeat_with(move || next(&mut reader).ok().flatten())
            .take(self.count)
            .filter_map(|known| known?.1.checked_sub(FIRST_LEN))
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
                Some((path, GONE)) => Work::Gone(RepoPath::parse(path)?),
                Some((path, number)) => Work::Plain(RepoPath::parse(path)?, number.checked_sub(FIRST_LEN)),
                None => Work::Other(self.others.next().ok_or_else(|| StoreError::Internal("no work left".to_owned()))?),
            });
        }
        self.left -= count;
        self.at = self.bytes.len() - reader.remaining();
        Ok(Some(part))
    }
}

/// The next path and its number; none if it is one of the others.
fn next<'a>(reader: &mut ByteReader<'a>) -> std::result::Result<Option<(&'a [u8], u64)>, DecodeError> {
    let path = reader.bytes(usize::MAX)?;
    Ok(if path.is_empty() { None } else { Some((path, reader.varint()?)) })
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
                match number % 5 {
                    _ if is_other(&number) => list.push(number),
                    3 => list.push_gone(&path(number)),
                    _ => list.push_plain(&path(number), len(number)),
                }
            }
            assert_eq!((list.len() as u64, list.is_empty()), (count, count == 0));
            assert!(list.file_lens().eq((0..count).filter(|number| number % 5 != 3).filter_map(len)));
            let mut parts = list.into_parts(at_once);
            let mut all = Vec::new();
            while let Some(part) = parts.next().unwrap() {
                assert!(!part.is_empty() && part.len() <= at_once.max(1));
                all.extend(part);
            }
            let work = |number| match number % 5 {
                _ if is_other(&number) => Work::Other(number),
                3 => Work::Gone(path(number)),
                _ => Work::Plain(path(number), len(number)),
            };
            assert!(all.into_iter().eq((0..count).map(work)));
        }
    }
}
