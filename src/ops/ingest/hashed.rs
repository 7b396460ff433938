//! What travels through the pipeline, and the hashing on its way.

use std::ops::Range;

use super::band::Band;
use crate::base::disk::Stat;
use crate::base::pool::BudgetGuard;
use crate::model::id::ChunkId;
use crate::transform::chunker::Chunker;
use crate::transform::cutter::{Cutter, Part, chunk_ranges};
use crate::transform::hash::chunk_ids;

/// How reading a file ended.
#[derive(Debug, Clone)]
pub struct ReadInfo {
    /// What it looked like before and after.
    pub stat: Stat,
    /// The stat is too fresh to prove anything later.
    pub racy: bool,
    /// It has extended attributes.
    pub has_xattrs: bool,
}

/// A piece of work and the budget that it holds.
pub struct Job<T> {
    /// The work.
    pub work: T,
    /// Given back when the work is stored.
    pub _held: Held,
}

/// What a job holds of the bytes that may be in flight.
pub struct Held {
    /// Of the share that huge files have.
    pub _share: Option<BudgetGuard>,
    /// Of the whole.
    pub _all: BudgetGuard,
}

/// Bytes that were read.
pub enum Raw {
    /// Whole files that are one chunk each, in one buffer.
    Small {
        /// All bytes.
        buffer: Vec<u8>,
        /// For each file its number and its bytes, or a sentence.
        files: Vec<(usize, Result<(Range<usize>, ReadInfo), String>)>,
    },
    /// A whole file that is to be cut.
    Whole {
        /// The file's number.
        file: usize,
        /// Its bytes.
        bytes: Vec<u8>,
        /// How it was read.
        info: ReadInfo,
    },
    /// Part of a file, cut already.
    Parts {
        /// The file's number.
        file: usize,
        /// Cut bytes and holes.
        parts: Vec<Part>,
        /// Of each chunk in its order the id, if it is known already; those at the end that are not may be left out.
        ids: Vec<Option<ChunkId>>,
    },
    /// The end of a file that came in parts.
    End {
        /// The file's number.
        file: usize,
        /// How reading ended.
        info: Result<ReadInfo, String>,
    },
    /// What came of this file so far is void; it is read again.
    Again,
}

/// Bytes with their ids.
pub enum Done {
    /// See [`Raw::Small`].
    Small {
        /// All bytes.
        buffer: Vec<u8>,
        /// For each file its number, its bytes and their id.
        files: Vec<(usize, Result<(Range<usize>, Option<ChunkId>, ReadInfo), String>)>,
        /// Files that grew beyond one chunk since they were counted among the small ones.
        grown: Vec<Done>,
    },
    /// See [`Raw::Parts`] and [`Raw::Whole`].
    Parts {
        /// The file's number.
        file: usize,
        /// Cut bytes and holes, with the ids of the chunks in order.
        parts: Vec<(Part, Vec<ChunkId>)>,
        /// Given with the last parts of a file that was read whole.
        end: Option<ReadInfo>,
    },
    /// A band.
    Band {
        /// The file's number.
        file: usize,
        /// What was read.
        band: Band,
        /// How it was read.
        info: ReadInfo,
    },
    /// See [`Raw::End`].
    End {
        /// The file's number.
        file: usize,
        /// How reading ended.
        info: Result<ReadInfo, String>,
    },
    /// See [`Raw::Again`].
    Again,
}

/// Cuts what is not cut yet, and hashes.
pub fn hash(raw: Raw, chunker: Chunker) -> Done {
    match raw {
        Raw::Small { buffer, files } => {
            let (mut hashed, mut grown) = (Vec::with_capacity(files.len()), Vec::new());
            let is_small =
                |range: &Range<usize>| !range.is_empty() && range.len() <= chunker.params().whole_len as usize;
            let ranges = files.iter().filter_map(|(_, read)| read.as_ref().ok()).map(|(range, _)| range);
            let contents: Vec<&[u8]> = ranges
                .filter(|range| is_small(range))
                .map(|range| buffer.get(range.clone()).unwrap_or_default())
                .collect();
            let mut ids = chunk_ids(&contents).into_iter();
            for (file, read) in files {
                match read {
                    Ok((range, info)) if range.len() > chunker.params().whole_len as usize => {
                        let bytes = buffer.get(range).unwrap_or_default().to_vec();
                        grown.push(Done::Parts { file, parts: whole_parts(bytes, chunker), end: Some(info) });
                    }
                    Ok((range, info)) => {
                        let id = if is_small(&range) { ids.next() } else { None };
                        hashed.push((file, Ok((range, id, info))));
                    }
                    Err(why) => hashed.push((file, Err(why))),
                }
            }
            Done::Small { buffer, files: hashed, grown }
        }
        Raw::Whole { file, bytes, info } => Done::Parts { file, parts: whole_parts(bytes, chunker), end: Some(info) },
        Raw::Parts { file, parts, ids } => Done::Parts { file, parts: with_ids(parts, ids), end: None },
        Raw::End { file, info } => Done::End { file, info },
        Raw::Again => Done::Again,
    }
}

/// The parts of a whole file.
fn whole_parts(bytes: Vec<u8>, chunker: Chunker) -> Vec<(Part, Vec<ChunkId>)> {
    let mut parts = Vec::new();
    if bytes.len() <= chunker.params().whole_len as usize {
        let ends = vec![bytes.len()];
        parts.extend((!bytes.is_empty()).then_some(Part::Data { bytes, start: 0, ends }));
    } else {
        let mut cutter = Cutter::new(chunker);
        cutter.feed(bytes, 0, &mut parts);
        cutter.finish(&mut parts);
    }
    with_ids(parts, Vec::new())
}

fn with_ids(parts: Vec<Part>, known: Vec<Option<ChunkId>>) -> Vec<(Part, Vec<ChunkId>)> {
    let chunks = |part| -> Vec<&[u8]> {
        match part {
            &Part::Hole(_) => Vec::new(),
            Part::Data { bytes, start, ends } => {
                chunk_ranges(*start, ends).map(|range| bytes.get(range).unwrap_or_default()).collect()
            }
        }
    };
    let of_parts: Vec<Vec<&[u8]>> = parts.iter().map(chunks).collect();
    let counts: Vec<usize> = of_parts.iter().map(Vec::len).collect();
    let known = known.into_iter().chain(std::iter::repeat(None));
    let all: Vec<(&[u8], Option<ChunkId>)> = of_parts.concat().into_iter().zip(known).collect();
    let unknown: Vec<&[u8]> = all.iter().filter(|(_, id)| id.is_none()).map(|(bytes, _)| *bytes).collect();
    let mut hashed = chunk_ids(&unknown).into_iter();
    let mut ids = all.into_iter().filter_map(|(_, id)| id.or_else(|| hashed.next()));
    let ids: Vec<Vec<ChunkId>> = counts.into_iter().map(|count| ids.by_ref().take(count).collect()).collect();
    parts.into_iter().zip(ids).collect()
}
