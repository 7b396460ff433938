//! A file as holes and chunks, from windows of any size.
//!
//! Zero blocks (64 KiB, aligned in the file) are holes; what lies between is cut by content, each stretch afresh, and arrays
//! of numbers at fixed places. The result depends on the bytes alone, not on how they are fed.

use std::collections::VecDeque;
use std::ops::Range;

use super::chunker::{Chunker, ZERO_BLOCK_LEN, is_zero};
use super::tensors::read_head;

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Zeros.
    Hole(u64),
    /// Bytes, and where they are cut: each number is the end of a chunk.
    Data {
        /// From `start` on, whole chunks, back to back. What is before is of no meaning.
        bytes: Vec<u8>,
        /// Where the first chunk begins.
        start: usize,
        /// Ends of the chunks in `bytes`; the last is its length.
        ends: Vec<usize>,
    },
}

/// Where chunks lie that begin at `start` and end at `ends`.
pub fn chunk_ranges(start: usize, ends: &[usize]) -> impl Iterator<Item = Range<usize>> {
    std::iter::once(start).chain(ends.iter().copied()).zip(ends).map(|(start, end)| start..*end)
}

/// Cuts one file.
#[derive(Debug)]
pub struct Cutter {
    chunker: Chunker,
    /// From `start` on, bytes of the current stretch that are not cut yet.
    pending: Vec<u8>,
    start: usize,
    /// How many of `pending` were looked at for zero blocks; the end of `pending[..scanned]` is a block's edge.
    scanned: usize,
    /// Zeros before `pending`; given out when data follows or the file ends, so that they come in one piece.
    hole: u64,
    /// Where `pending[start..]` begins in the file.
    at: u64,
    /// Arrays in the file, each cut for itself; unknown as long as not enough of the file has come.
    arrays: Option<Vec<Range<u64>>>,
    /// Chunks that were cut so before: where each begins, and its length.
    proven: VecDeque<(u64, usize)>,
}

impl Cutter {
    /// A cutter at the start of a file.
    pub fn new(chunker: Chunker) -> Self {
        let arrays = if chunker.finds_arrays() { None } else { Some(Vec::new()) };
        Self { chunker, pending: Vec::new(), start: 0, scanned: 0, hole: 0, at: 0, arrays, proven: VecDeque::new() }
    }

    /// How many bytes wait for the next window, at most; those of a file's header, before it is known where its arrays are, may be
    /// more.
    pub fn most_waiting(&self) -> usize {
        let array_len = usize::try_from(self.chunker.array_len()).unwrap_or(usize::MAX);
        array_len.max(self.chunker.params().max_len as usize)
    }

    /// Of the window that comes next, each of these bytes, a place in the file and a length, in order, are a chunk of a file that was
    /// cut by the same rules. What is a chunk here and begins there then ends there, without being looked at.
    pub fn expect(&mut self, proven: impl Iterator<Item = (u64, usize)>) {
        self.proven = proven.collect();
    }

    /// Takes the next bytes of the file: those from `start` on. They must begin where the last ones ended, and be whole blocks but
    /// for the last of the file. Gives out whole chunks.
    ///
    /// What waits is written before them if there is room for [it](Self::most_waiting); else they are copied behind it.
    pub fn feed(&mut self, window: Vec<u8>, start: usize, parts: &mut Vec<Part>) {
        let waiting = self.pending.get(self.start..).unwrap_or_default();
        let mut window = window;
        match start.checked_sub(waiting.len()).and_then(|from| Some((from, window.get_mut(from..start)?))) {
            Some((from, room)) => {
                room.copy_from_slice(waiting);
                self.scanned = from + (self.scanned - self.start);
                (self.pending, self.start) = (window, from);
            }
            None => {
                self.pending.drain(..self.start);
                (self.scanned, self.start) = (self.scanned - self.start, 0);
                self.pending.extend_from_slice(window.get(start..).unwrap_or_default());
            }
        }
        self.scan(parts);
    }

    /// Zeros that need not be read: whole blocks, or up to the end of the file.
    pub fn skip(&mut self, len: u64, parts: &mut Vec<Part>) {
        self.end_stretch(parts);
        self.hole += len;
        self.at += len;
    }

    /// Finds zero blocks in what is new, and cuts.
    fn scan(&mut self, parts: &mut Vec<Part>) {
        while self.scanned < self.pending.len() {
            let end = self.pending.len().min(self.scanned + ZERO_BLOCK_LEN);
            let block = self.pending.get(self.scanned..end).unwrap_or_default();
            if !is_zero(block) {
                self.scanned = end;
                continue;
            }
            let len = block.len();
            self.end_stretch(parts);
            self.hole += len as u64;
            self.at += len as u64;
            self.start += len;
            self.scanned = self.start;
        }
        self.cut(false, parts);
    }

    /// The end of the file.
    pub fn finish(&mut self, parts: &mut Vec<Part>) {
        self.end_stretch(parts);
        self.flush_hole(parts);
    }

    fn flush_hole(&mut self, parts: &mut Vec<Part>) {
        let len = std::mem::take(&mut self.hole);
        if len > 0 {
            parts.push(Part::Hole(len));
        }
    }

    fn end_stretch(&mut self, parts: &mut Vec<Part>) {
        self.cut(true, parts);
        self.scanned = self.start;
    }

    /// Cuts as long as the next cut cannot depend on bytes that are not there yet.
    fn cut(&mut self, at_end: bool, parts: &mut Vec<Part>) {
        // What was not looked at for zeros may turn out to be a hole, and a cut must not reach into it.
        let known = self.scanned.min(self.pending.len());
        if !self.looks_at_head(known, at_end) {
            return;
        }
        let mut ends = Vec::new();
        let start = self.start;
        let mut end = start;
        let mut proven = std::mem::take(&mut self.proven);
        while let Some(window) = self.pending.get(end..known)
            && !window.is_empty()
            && let at = self.at + (end - start) as u64
            && let Some(len) = self.next_len(at, next_proven(&mut proven, at), window, at_end)
        {
            end += len;
            ends.push(end);
        }
        self.proven = proven;
        if end == start {
            return;
        }
        self.flush_hole(parts);
        self.at += (end - start) as u64;
        // The shorter of the two is copied: much may follow that is cut by holes.
        if self.pending.len() - end > end - start {
            let bytes = self.pending.get(start..end).unwrap_or_default().to_vec();
            ends.iter_mut().for_each(|end| *end -= start);
            self.start = end;
            return parts.push(Part::Data { bytes, start: 0, ends });
        }
        let rest = self.pending.split_off(end);
        let bytes = std::mem::replace(&mut self.pending, rest);
        self.start = 0;
        self.scanned -= end;
        parts.push(Part::Data { bytes, start, ends });
    }

    /// Finds out where arrays are, from the first bytes of the file; `false` if more of them are needed.
    fn looks_at_head(&mut self, known: usize, at_end: bool) -> bool {
        if self.arrays.is_none() {
            // What begins with a hole is no file of arrays.
            let head = if self.at == 0 { self.pending.get(self.start..known).unwrap_or_default() } else { &[] };
            let Some(arrays) = read_head(head, at_end || self.at > 0) else { return false };
            let least = u64::from(self.chunker.params().avg_len);
            self.arrays = Some(arrays.into_iter().filter(|array| array.end - array.start >= least).collect());
        }
        true
    }

    /// The length of the chunk that begins at `at` in the file, if it does not depend on what is not there yet.
    fn next_len(&self, at: u64, proven: Option<usize>, window: &[u8], at_end: bool) -> Option<usize> {
        let arrays = self.arrays.as_deref().unwrap_or_default();
        let next = arrays.partition_point(|array| array.end <= at);
        let within = |end: u64| window.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        match arrays.get(next) {
            Some(array) if array.start <= at => {
                let step = self.chunker.array_len();
                let len = within(array.end.min(at + (step - (at - array.start) % step)));
                // The last piece that is there may be the start of one.
                (at_end || len < window.len()).then_some(len)
            }
            array => {
                let limit = array.map_or(window.len(), |array| within(array.start));
                let stretch = window.get(..limit).unwrap_or(window);
                if let Some(len) = proven.filter(|len| self.chunker.ends_at(stretch, *len)) {
                    return Some(len);
                }
                let is_known = at_end || limit < window.len() || limit >= self.chunker.params().max_len as usize;
                is_known.then(|| self.chunker.next_len(stretch))
            }
        }
    }
}

/// The length of the proven chunk that begins at `at`; forgets those before.
fn next_proven(proven: &mut VecDeque<(u64, usize)>, at: u64) -> Option<usize> {
    while proven.front().is_some_and(|(start, _)| *start < at) {
        proven.pop_front();
    }
    proven.front().filter(|(start, _)| *start == at).map(|(_, len)| *len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::chunker::ChunkParams;
    use crate::transform::chunker::tests::noise;

    /// Holes and chunk lengths, with neighbouring parts joined.
    fn shape(parts: &[Part]) -> (Vec<i64>, Vec<u8>) {
        let (mut lens, mut all) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::Hole(len) => {
                    lens.push(-(*len as i64));
                    all.resize(all.len() + *len as usize, 0);
                }
                Part::Data { bytes, start, ends } => {
                    lens.extend(chunk_ranges(*start, ends).map(|range| range.len() as i64));
                    assert_eq!(ends.last(), Some(&bytes.len()));
                    all.extend_from_slice(&bytes[*start..]);
                }
            }
        }
        (lens, all)
    }

    fn cut(file: &[u8], window: usize) -> (Vec<i64>, Vec<u8>) {
        cut_with_room(file, window, 0)
    }

    fn cut_with_room(file: &[u8], window: usize, room: usize) -> (Vec<i64>, Vec<u8>) {
        let mut cutter = Cutter::new(Chunker::new(ChunkParams::default()));
        let mut parts = Vec::new();
        for piece in file.chunks(window) {
            cutter.feed([&vec![1; room], piece].concat(), room, &mut parts);
        }
        cutter.finish(&mut parts);
        shape(&parts)
    }

    fn sample() -> Vec<u8> {
        let zeros = |blocks: usize| vec![0; blocks * ZERO_BLOCK_LEN];
        let mut file = zeros(1);
        file.extend(noise(1, 5 * ZERO_BLOCK_LEN));
        file.extend(zeros(3));
        file.extend(noise(2, 10 * ZERO_BLOCK_LEN + 100));
        file.extend(zeros(2));
        file.extend(noise(3, 1000));
        file.extend(vec![0; 2 * ZERO_BLOCK_LEN + 77]);
        file
    }

    #[test]
    fn parts_do_not_depend_on_windows() {
        let file = sample();
        let (lens, all) = cut(&file, usize::MAX);
        assert_eq!(all, file);
        assert_eq!(lens.iter().filter(|len| **len < 0).count(), 4);
        for window in [1, 2, 3, 7, 100] {
            // With enough room for what waits, with little and with none.
            for room in [0, 1_000, ChunkParams::default().max_len as usize] {
                let found = cut_with_room(&file, window * ZERO_BLOCK_LEN, room);
                assert_eq!(found, (lens.clone(), file.clone()), "{window} {room}");
            }
        }
    }

    #[test]
    fn skipped_zeros_are_as_good_as_read_ones() {
        let file = sample();
        let mut cutter = Cutter::new(Chunker::new(ChunkParams::default()));
        let mut parts = Vec::new();
        for block in file.chunks(ZERO_BLOCK_LEN) {
            if is_zero(block) {
                cutter.skip(block.len() as u64, &mut parts);
            } else {
                cutter.feed(block.to_vec(), 0, &mut parts);
            }
        }
        cutter.finish(&mut parts);
        assert_eq!(shape(&parts), cut(&file, usize::MAX));
    }

    #[test]
    fn arrays_are_cut_at_fixed_places_however_they_are_fed() {
        let step = ChunkParams::default().avg_len as usize;
        let header = format!(
            r#"{{"small":{{"data_offsets":[0,100]}},"a":{{"data_offsets":[100,{}]}},"b":{{"data_offsets":[{},{}]}}}}"#,
            100 + 3 * step + 8,
            200 + 3 * step,
            200 + 9 * step
        );
        let mut file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        let start = file.len() + 100;
        file.extend(noise(5, 100 + 3 * step + 8));
        file.extend(noise(6, 92 + 6 * step + 3 * step + 5));
        let (lens, all) = cut(&file, usize::MAX);
        assert_eq!(all, file);
        let step = step as i64;
        let expected = [start as i64, step, step, step, 8, 92, step, step, step, step, step, step];
        assert_eq!(lens[..12], expected, "what is behind the last array is cut by content");
        for window in [1, 2, 5] {
            assert_eq!(cut(&file, window * ZERO_BLOCK_LEN), (lens.clone(), file.clone()), "{window}");
        }
        let plain = Cutter::new(Chunker::new(ChunkParams::default()).without_arrays());
        let mut parts = Vec::new();
        let mut cutter = plain;
        cutter.feed(file.clone(), 0, &mut parts);
        cutter.finish(&mut parts);
        assert_ne!(shape(&parts).0, lens);
    }

    /// Cuts `file`, told of all chunks that another file has.
    fn cut_beside(file: &[u8], other: &[u8], window: usize) -> (Vec<i64>, Vec<u8>) {
        let mut cutter = Cutter::new(Chunker::new(ChunkParams::default()));
        let (mut parts, mut old, mut at) = (Vec::new(), Vec::new(), 0);
        for len in cut(other, usize::MAX).0 {
            old.extend((len > 0).then_some((at, len as usize)));
            at += len.unsigned_abs() as usize;
        }
        for start in (0..file.len()).step_by(window) {
            let end = file.len().min(start + window);
            let inside = old.iter().filter(|(at, len)| *at >= start && at + len <= end);
            let proven = inside.filter(|(at, len)| file[*at..at + len] == other[*at..at + len]);
            cutter.expect(proven.map(|(at, len)| (*at as u64, *len)));
            cutter.feed(file[start..end].to_vec(), 0, &mut parts);
        }
        cutter.finish(&mut parts);
        shape(&parts)
    }

    #[test]
    fn what_is_known_of_another_version_changes_no_cut() {
        let other = sample();
        let (lens, _) = cut(&other, usize::MAX);
        let mut edited = vec![other.clone(), other[..other.len() - 2 * ZERO_BLOCK_LEN].to_vec(), vec![7; other.len()]];
        // Around every cut: a byte, a block of zeros, an array that begins there.
        let mut at = 0;
        for len in lens {
            at += len.unsigned_abs() as usize;
            for place in [at.saturating_sub(40), at - 1, at, at + 1] {
                let mut file = other.clone();
                file.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 0x55);
                edited.push(file);
            }
            let mut file = other.clone();
            let block = at / ZERO_BLOCK_LEN * ZERO_BLOCK_LEN;
            file.iter_mut().skip(block).take(ZERO_BLOCK_LEN).for_each(|byte| *byte = 0);
            edited.push(file);
        }
        for window in [ZERO_BLOCK_LEN, 5 * ZERO_BLOCK_LEN, usize::MAX / 2] {
            for file in &edited {
                assert_eq!(cut_beside(file, &other, window), cut(file, usize::MAX));
            }
        }
        // The same where the new version has arrays and the old one has not, and the reverse.
        let step = ChunkParams::default().avg_len as usize;
        let header = format!(r#"{{"a":{{"data_offsets":[1000,{}]}}}}"#, 1000 + 9 * step);
        let with_array = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &noise(9, 20 * step)].concat();
        let mut without = with_array.clone();
        without[8] = b'x';
        for window in [5 * ZERO_BLOCK_LEN, usize::MAX / 2] {
            assert_eq!(cut_beside(&with_array, &without, window), cut(&with_array, usize::MAX));
            assert_eq!(cut_beside(&without, &with_array, window), cut(&without, usize::MAX));
            assert_ne!(cut(&without, usize::MAX).0, cut(&with_array, usize::MAX).0);
        }
    }

    #[test]
    fn a_proven_chunk_is_not_searched() {
        let file = noise(12, 40 * ZERO_BLOCK_LEN);
        let lens = cut(&file, usize::MAX).0;
        let first = lens[0] as usize;
        // Not true, but it ends where the rule says: who looked would find the first cut.
        let both = first + lens[1] as usize;
        let chunker = Chunker::new(ChunkParams::default());
        assert!(both < chunker.params().max_len as usize && chunker.ends_at(&file, both));
        let mut cutter = Cutter::new(chunker);
        let mut parts = Vec::new();
        cutter.expect([(0, both)].into_iter());
        cutter.feed(file, 0, &mut parts);
        cutter.finish(&mut parts);
        assert_eq!(shape(&parts).0[..2], [both as i64, lens[2]]);
    }

    #[test]
    fn empty_and_all_zero_files() {
        assert_eq!(cut(&[], 100), (vec![], vec![]));
        assert_eq!(cut(&vec![0; 300_000], 2 * ZERO_BLOCK_LEN).0, [-300_000]);
    }
}
