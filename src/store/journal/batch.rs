//! A batch that need not fit in memory: of many operations, some at a time are sorted and written to a file that has no name.
//! So long a batch is committed as a snapshot, which is written in the order of the keys anyway.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::StoreError;
use super::{Journal, check};
use crate::base::disk::seq::SeqWriter;
use crate::base::disk::{Dir, DiskFile, IoContext, temp_name};
use crate::format::journal::{Op, Ops, op_in, put_op, span_at};

/// Bytes that are read at a time from each of the sorted parts.
const READ_LEN: usize = if cfg!(test) { 8 } else { 16 << 10 };

/// Operations to be committed together.
#[derive(Debug, Default)]
pub struct Batch {
    ops: Ops,
    spill: Option<Spill>,
}

/// What is not in memory.
#[derive(Debug)]
struct Spill {
    dir: Arc<dyn Dir>,
    /// So many operations stay in memory.
    at_once: u64,
    file: Option<Box<dyn DiskFile>>,
    /// Where each sorted part stands in the file, in the order in which they came.
    runs: Vec<Range<u64>>,
    /// The first bytes of the keys in it.
    tables: Vec<u8>,
}

/// An operation, wherever it is from.
pub(super) type AnyOp<'a> = (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>);

impl Journal {
    /// A batch of which at most so many operations are in memory, if they are added by [`Batch::record`]. A journal in memory
    /// has no such limit.
    pub fn batch(&self, at_once: usize) -> Batch {
        let spill = |dir: &Arc<dyn Dir>| Spill {
            dir: Arc::clone(dir),
            at_once: at_once.max(1) as u64,
            file: None,
            runs: Vec::new(),
            tables: Vec::new(),
        };
        Batch { ops: Ops::default(), spill: self.dir.as_ref().map(spill) }
    }
}

impl Batch {
    /// Adds an operation, one of many. What must be looked at when it is committed is added by [`Self::push`], behind these.
    pub fn record(&mut self, op: Op) -> Result<(), StoreError> {
        if let Some(spill) = &mut self.spill
            && self.ops.count() >= spill.at_once
        {
            spill.take_in(&self.ops)?;
            self.ops = Ops::default();
        }
        self.ops.push(op);
        Ok(())
    }

    /// Adds an operation.
    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && !self.is_spilled()
    }

    /// Those in memory: all that were not added by [`Self::record`], and the last of the others.
    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Are there any beside those in memory?
    pub(super) fn is_spilled(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| !spill.runs.is_empty())
    }

    /// Does a key begin with this prefix of one byte?
    pub fn touches(&self, prefix: &[u8]) -> bool {
        let spilled = self.spill.iter().flat_map(|spill| &spill.tables).any(|table| prefix == [*table]);
        spilled || self.ops.iter().any(|(key, _)| key.starts_with(prefix))
    }

    /// What is left of each key, in the order of the keys: of several operations on one, the last.
    pub(super) fn sorted(&self) -> Result<Sorted<'_>, StoreError> {
        let file = self.spill.as_ref().and_then(|spill| Some((spill, spill.file.as_ref()?)));
        let runs = file.into_iter().flat_map(|(spill, file)| spill.runs.iter().map(|run| Run::new(file.file(), run)));
        let mut sources: Vec<Source<'_>> = runs.map(|run| Box::new(run) as Source<'_>).collect();
        sources.push(Box::new(self.ops.sorted().map(|(key, value)| Ok((key.into(), value.map(Cow::from))))));
        Sorted::new(sources)
    }
}

impl Spill {
    /// Writes operations behind the others.
    fn take_in(&mut self, ops: &Ops) -> Result<(), StoreError> {
        check(ops)?;
        let path = self.dir.path();
        let file = match &self.file {
            Some(file) => file,
            None => {
                let name = temp_name();
                let file = self.dir.create(&name, 0o600).on("create", path.join(&name))?;
                // Nobody else needs it, and without a name it goes with this process.
                self.dir.remove_file(&name).on("remove", path.join(&name))?;
                self.file.insert(file)
            }
        };
        let start = self.runs.last().map_or(0, |run| run.end);
        let mut out = SeqWriter::new(file.as_ref(), start);
        for (key, value) in ops.sorted() {
            out.write_with(|buffer| put_op(buffer, key, value)).on("write to", path)?;
            // They are sorted, so that a table's keys stand together.
            let table = key.first().copied().unwrap_or_default();
            if self.tables.last() != Some(&table) {
                self.tables.push(table);
            }
        }
        let end = out.finish().on("write to", path)?;
        self.runs.push(start..end);
        Ok(())
    }
}

type Source<'a> = Box<dyn Iterator<Item = Result<AnyOp<'a>, StoreError>> + 'a>;

/// The next operation of a source: its key, the source's number, and the value.
type Head<'a> = (Reverse<Cow<'a, [u8]>>, usize, Option<Cow<'a, [u8]>>);

/// Operations from several sorted sources; of one key, the last source's.
pub(super) struct Sorted<'a> {
    sources: Vec<Source<'a>>,
    /// One of each source that has any left. The first has the least key, and of those the last source.
    heads: BinaryHeap<Head<'a>>,
}

impl<'a> Sorted<'a> {
    fn new(sources: Vec<Source<'a>>) -> Result<Self, StoreError> {
        let mut sorted = Self { sources, heads: BinaryHeap::new() };
        (0..sorted.sources.len()).try_for_each(|source| sorted.advance(source))?;
        Ok(sorted)
    }

    fn advance(&mut self, source: usize) -> Result<(), StoreError> {
        if let Some((key, value)) = self.sources.get_mut(source).and_then(Iterator::next).transpose()? {
            self.heads.push((Reverse(key), source, value));
        }
        Ok(())
    }

    /// The next operation. Not an iterator, because reading may fail.
    pub fn next(&mut self) -> Result<Option<AnyOp<'a>>, StoreError> {
        let Some((Reverse(key), source, value)) = self.heads.pop() else { return Ok(None) };
        self.advance(source)?;
        while let Some((_, older, _)) = self.heads.peek().filter(|(Reverse(other), ..)| *other == key) {
            let older = *older;
            self.heads.pop();
            self.advance(older)?;
        }
        Ok(Some((key, value)))
    }
}

/// Reads a sorted part.
struct Run<'a> {
    file: &'a File,
    /// What of it is not read yet.
    rest: Range<u64>,
    buffer: Vec<u8>,
    /// What of the buffer was given out.
    used: usize,
}

impl<'a> Run<'a> {
    fn new(file: &'a File, range: &Range<u64>) -> Self {
        Self { file, rest: range.clone(), buffer: Vec::new(), used: 0 }
    }

    /// Takes the next operation out of the buffer, if it is there as a whole.
    fn take(&mut self) -> Option<AnyOp<'a>> {
        let (span, end) = span_at(&self.buffer, self.used)?;
        let (key, value) = op_in(&self.buffer, &span)?;
        self.used = end;
        Some((key.to_vec().into(), value.map(|value| value.to_vec().into())))
    }

    fn read_on(&mut self) -> Result<(), StoreError> {
        self.buffer.drain(..self.used);
        self.used = 0;
        // An operation that is longer than the buffer gets twice the room each time.
        let len = (self.rest.end - self.rest.start).min(READ_LEN.max(self.buffer.len()) as u64) as usize;
        let kept = self.buffer.len();
        self.buffer.resize(kept + len, 0);
        let new = self.buffer.get_mut(kept..).unwrap_or_default();
        self.file.read_exact_at(new, self.rest.start).on("read", "what is to be recorded")?;
        self.rest.start += len as u64;
        Ok(())
    }
}

impl<'a> Iterator for Run<'a> {
    type Item = Result<AnyOp<'a>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(op) = self.take() {
                return Some(Ok(op));
            }
            if self.rest.is_empty() {
                let is_whole = self.used == self.buffer.len();
                let broken = || Err(StoreError::Internal("what is to be recorded cannot be read back".to_owned()));
                return (!is_whole).then(broken);
            }
            if let Err(error) = self.read_on() {
                return Some(Err(error));
            }
        }
    }
}

impl Extend<Op> for Batch {
    fn extend<T: IntoIterator<Item = Op>>(&mut self, ops: T) {
        self.ops.extend(ops);
    }
}

impl FromIterator<Op> for Batch {
    fn from_iter<T: IntoIterator<Item = Op>>(ops: T) -> Self {
        Self { ops: ops.into_iter().collect(), spill: None }
    }
}

impl From<Vec<Op>> for Batch {
    fn from(ops: Vec<Op>) -> Self {
        ops.into_iter().collect()
    }
}
