//! Reading a band of a sparse bundle beside what was last stored of it.
//!
//! Few chunks of a changed band have changed. They alone are kept; the others are hashed where they were read, in a buffer
//! that stays in the processor's cache, and dropped.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::dispatch::info;
use super::hashed::ReadInfo;
use crate::model::path::RepoPath;
use crate::model::recipe::Piece;
use crate::model::tree::Content;
use crate::store::objects::ObjectStore;
use crate::transform::chunker::{BAND_CHUNK_LEN, ZERO_BLOCK_LEN, is_zero};
use crate::transform::hash::chunk_id;
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::read;

/// Bytes read at a time; they are hashed while they are in the cache nearest to the core. Whole zero blocks.
const WINDOW_LEN: usize = 4 * ZERO_BLOCK_LEN;

/// A band that was read.
#[derive(Debug)]
pub struct Band {
    /// Its pieces, as a cutter of bands gives them.
    pub pieces: Vec<BandPiece>,
    /// Bytes of the chunks that are not where they were.
    pub fresh: Vec<u8>,
}

/// A piece, and where its bytes are in [`Band::fresh`] if it has to be stored.
#[derive(Debug)]
pub struct BandPiece {
    /// The piece.
    pub piece: Piece,
    /// `None`: it is a hole, or the chunk that was stored of this place before.
    pub fresh: Option<Range<usize>>,
}

/// What was stored of a band: its chunks by their place.
#[derive(Debug)]
pub struct Before<'a> {
    objects: &'a ObjectStore,
    pieces: Vec<(u64, Piece)>,
}

impl<'a> Before<'a> {
    /// The pieces of a stored file, given its length; none, if they cannot be read.
    pub fn of(objects: &'a ObjectStore, stored: Option<(Content, u64)>) -> Self {
        let (mut pieces, mut at) = (Vec::new(), 0u64);
        if let Some((content, len)) = stored {
            let visited = objects.pieces(&content, len, &mut |piece| {
                pieces.push((at, piece));
                at += piece.len();
                Ok(())
            });
            if visited.is_err() {
                pieces.clear();
            }
        }
        Self { objects, pieces }
    }

    /// Is this the piece that was at this place, and is it in a layer still?
    fn has(&self, at: u64, found: &Piece) -> bool {
        let place = self.pieces.binary_search_by_key(&at, |(start, _)| *start).ok();
        let is_there = place.and_then(|place| self.pieces.get(place)).is_some_and(|(_, piece)| piece == found);
        match found {
            Piece::Chunk { id, .. } => is_there && self.objects.contains(&(*id).into()).unwrap_or(false),
            Piece::Hole { .. } => is_there,
        }
    }
}

/// Reads a band; `None` if it changed meanwhile.
pub fn read_band(folders: &mut Folders, path: &RepoPath, before: &Before<'_>) -> io::Result<Option<(Band, ReadInfo)>> {
    let dir = folders.open_parent(path, IfAbsent::Fail)?;
    let (file, stat) = read::open(dir.as_ref(), path)?;
    let mut reader = Reader { before, band: Band { pieces: Vec::new(), fresh: Vec::new() }, hole: 0, at: 0 };
    let mut window = vec![0; WINDOW_LEN];
    while let Some((start, end)) = read::next_blocks(&file, reader.at, stat.len)? {
        reader.skip(start - reader.at);
        while reader.at < end {
            let len = (end - reader.at).min(WINDOW_LEN as u64) as usize;
            let Some(room) = window.get_mut(..len) else { break };
            file.read_exact_at(room, reader.at)?;
            room.chunks(ZERO_BLOCK_LEN).for_each(|block| reader.block(block));
        }
    }
    reader.skip(stat.len - reader.at);
    reader.end_hole();
    Ok(info(&file, stat)?.map(|info| (reader.band, info)))
}

struct Reader<'a> {
    before: &'a Before<'a>,
    band: Band,
    /// Zeros before `at` that are no piece yet.
    hole: u64,
    at: u64,
}

impl Reader<'_> {
    fn skip(&mut self, len: u64) {
        self.hole += len;
        self.at += len;
    }

    fn end_hole(&mut self) {
        let len = std::mem::take(&mut self.hole);
        if len > 0 {
            self.band.pieces.push(BandPiece { piece: Piece::Hole { len }, fresh: None });
        }
    }

    fn block(&mut self, block: &[u8]) {
        if is_zero(block) {
            return self.skip(block.len() as u64);
        }
        self.end_hole();
        for chunk in block.chunks(BAND_CHUNK_LEN as usize) {
            let piece = Piece::Chunk { id: chunk_id(chunk), len: chunk.len() as u32 };
            let fresh = (!self.before.has(self.at, &piece)).then(|| {
                let start = self.band.fresh.len();
                self.band.fresh.extend_from_slice(chunk);
                start..self.band.fresh.len()
            });
            self.band.pieces.push(BandPiece { piece, fresh });
            self.at += chunk.len() as u64;
        }
    }
}
