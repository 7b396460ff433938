//! Stored files as streams: piece by piece, verified, in bounded memory.
//!
//! Pieces are fetched a few megabytes ahead, each block decoded by one thread, so a large file comes as fast as all
//! threads can decode it and a small range reads no block that it does not need.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;

use rayon::prelude::*;

use super::Result;
use crate::model::id::ObjectKind;
use crate::model::recipe::Piece;
use crate::model::tree::Content;
use crate::repo::Repository;
use crate::store::StoreError;
use crate::store::index::Located;
use crate::store::objects::{ObjectBytes, ObjectStore};
use crate::store::pieces::Pieces;

/// Plain bytes fetched in one go: enough blocks to keep every thread busy, little beside the block cache.
const AHEAD_BYTES: u64 = 8 << 20;
/// Holes cost no bytes, so pieces are counted as well.
const AHEAD_PIECES: usize = 1024;
/// Zeros of holes are written from a buffer of this size.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A stretch of a file.
#[derive(Debug)]
pub enum Part {
    /// Verified bytes.
    Data {
        /// The chunk.
        bytes: ObjectBytes,
        /// What of it belongs to the stretch.
        range: Range<usize>,
    },
    /// This many zeros that occupy nothing.
    Zeros(u64),
}

impl Part {
    /// The bytes, if they are not just zeros.
    pub fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Data { bytes, range } => Some(bytes.get(range.clone()).unwrap_or_default()),
            Self::Zeros(_) => None,
        }
    }

    /// How many bytes of the file this is.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data { range, .. } => range.len() as u64,
            Self::Zeros(len) => *len,
        }
    }

    /// Is nothing left of it?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes it; zeros in bounded pieces.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut left = match self.data() {
            Some(data) => return out.write_all(data),
            None => self.len(),
        };
        while left > 0 {
            let step = left.min(ZEROS.len() as u64);
            out.write_all(ZEROS.get(..step as usize).unwrap_or_default())?;
            left -= step;
        }
        Ok(())
    }

    /// Copies as much as fits and drops it from the front.
    fn take(&mut self, into: &mut [u8]) -> usize {
        match self {
            Self::Data { bytes, range } => {
                let rest = bytes.get(range.clone()).unwrap_or_default();
                let len = rest.len().min(into.len());
                if let (Some(to), Some(from)) = (into.get_mut(..len), rest.get(..len)) {
                    to.copy_from_slice(from);
                }
                range.start += len;
                len
            }
            Self::Zeros(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(into.len());
                into.iter_mut().take(len).for_each(|byte| *byte = 0);
                *left -= len as u64;
                len
            }
        }
    }
}

/// Reads a range of a stored file.
#[derive(Debug)]
pub struct ContentReader<'a> {
    repo: &'a Repository,
    objects: &'a ObjectStore,
    pieces: Pieces<'a>,
    range: Range<u64>,
    ready: VecDeque<Part>,
    failure: Option<StoreError>,
}

impl<'a> ContentReader<'a> {
    /// Reads the bytes `range` of a file; the part of it beyond `len` is empty.
    pub fn new(
        repo: &'a Repository,
        objects: &'a ObjectStore,
        content: &Content,
        len: u64,
        range: Range<u64>,
    ) -> Result<Self> {
        let end = range.end.min(len);
        let range = range.start.min(end)..end;
        let pieces = Pieces::new(objects, content, len, range.clone())?;
        Ok(Self { repo, objects, pieces, range, ready: VecDeque::new(), failure: None })
    }

    /// Reads a whole file.
    pub fn whole(repo: &'a Repository, objects: &'a ObjectStore, content: &Content, len: u64) -> Result<Self> {
        Self::new(repo, objects, content, len, 0..len)
    }

    /// The next stretch; `None` at the end.
    pub fn next_part(&mut self) -> std::result::Result<Option<Part>, StoreError> {
        if self.ready.is_empty() {
            self.fetch()?;
        }
        Ok(self.ready.pop_front())
    }

    /// Why reading failed, after [`Read::read`] did.
    pub fn take_failure(&mut self) -> Option<StoreError> {
        self.failure.take()
    }

    /// Everything that is left, in memory; for files that are known to be small.
    pub fn into_vec(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity((self.range.end - self.range.start) as usize);
        while let Some(part) = self.next_part()? {
            match part.data() {
                Some(data) => bytes.extend_from_slice(data),
                None => bytes.resize(bytes.len() + part.len() as usize, 0),
            }
        }
        Ok(bytes)
    }

    /// Fetches the next pieces.
    fn fetch(&mut self) -> std::result::Result<(), StoreError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < AHEAD_BYTES && batch.len() < AHEAD_PIECES {
            let Some(piece) = self.pieces.next()? else { break };
            bytes += if matches!(piece.1, Piece::Chunk { .. }) { piece.1.len() } else { 0 };
            batch.push(piece);
        }
        let mut chunks = self.read_chunks(&batch)?.into_iter();
        for (at, piece) in batch {
            let from = self.range.start.saturating_sub(at);
            let to = piece.len().min(self.range.end.saturating_sub(at));
            let part = match piece {
                Piece::Hole { .. } => Part::Zeros(to.saturating_sub(from)),
                Piece::Chunk { .. } => {
                    let lost = || StoreError::Internal("a chunk was not fetched".to_owned());
                    Part::Data { bytes: chunks.next().ok_or_else(lost)?, range: from as usize..to as usize }
                }
            };
            self.ready.push_back(part);
        }
        Ok(())
    }

    /// The chunks among the pieces, in order. Neighbours in one block are one task, so no block is decoded twice.
    fn read_chunks(&self, batch: &[(u64, Piece)]) -> std::result::Result<Vec<ObjectBytes>, StoreError> {
        let mut blocks: Vec<Vec<Located>> = Vec::new();
        for (_, piece) in batch {
            let Piece::Chunk { id, len } = piece else { continue };
            let located = self.objects.locate(&(*id).into(), ObjectKind::Chunk)?;
            if located.object.place.len != *len {
                let why = format!("it has {} bytes where {len} are expected", located.object.place.len);
                return Err(StoreError::Corrupt { kind: ObjectKind::Chunk, id: (*id).into(), why });
            }
            let key = |located: &Located| (located.layer, located.object.place.block);
            match blocks.last_mut() {
                Some(block) if block.first().map(key) == Some(key(&located)) => block.push(located),
                _ => blocks.push(vec![located]),
            }
        }
        let read = |block: &Vec<Located>| block.iter().map(|located| self.objects.read_at(located)).collect();
        let read: Vec<Vec<ObjectBytes>> = if blocks.len() > 1 {
            self.repo.pools().cpu().install(|| blocks.par_iter().map(read).collect::<std::result::Result<_, _>>())?
        } else {
            blocks.iter().map(read).collect::<std::result::Result<_, _>>()?
        };
        Ok(read.into_iter().flatten().collect())
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(part) = self.ready.front_mut() {
                if !part.is_empty() {
                    return Ok(part.take(into));
                }
                self.ready.pop_front();
                continue;
            }
            if let Err(error) = self.fetch() {
                let message = error.to_string();
                self.failure = Some(error);
                return Err(io::Error::other(message));
            }
            if self.ready.is_empty() {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Node;
    use crate::ops::testing::{TestRepo, file};
    use crate::transform::chunker::tests::noise;

    #[test]
    fn any_range_and_any_buffer_give_the_same_bytes() {
        let mut plain = noise(1, 30_000);
        plain.extend_from_slice(&[0; 20_000]);
        plain.extend_from_slice(&noise(2, 1_234));
        let repo = TestRepo::in_memory();
        let commit = repo.commit(&[("big", file(&plain))], "one");
        let root = repo.root_tree(Some(&commit)).unwrap();
        let Node::File { len, content } = root.get(b"big").unwrap().node else { panic!("a file") };
        let objects = repo.objects();
        for (start, end) in
            [(0, len), (0, 1), (999, 1_001), (29_999, 30_001), (35_000, 36_000), (51_000, 99_999), (5, 5)]
        {
            let expected = &plain[start as usize..end.min(len) as usize];
            let reader = ContentReader::new(&repo, &objects, &content, len, start..end).unwrap();
            assert_eq!(reader.into_vec().unwrap(), expected);
            let mut reader = ContentReader::new(&repo, &objects, &content, len, start..end).unwrap();
            let mut small = [0; 77];
            let mut read = Vec::new();
            loop {
                match reader.read(&mut small).unwrap() {
                    0 => break,
                    got => read.extend_from_slice(&small[..got]),
                }
            }
            assert_eq!(read, expected);
        }
    }
}
