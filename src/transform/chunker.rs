//! Cutting: by content, or at fixed places.
//!
//! Cut points are part of the format: the same bytes are cut at the same places for ever, so the crate's version is
//! pinned and the golden tests below fix its cuts. A cut depends on nothing but the bytes since the cut before it, so
//! any window that holds `max_len` bytes, or all that are left, gives the same answer.
//!
//! Bands of a sparse bundle are cut at fixed places: a write inside a disk image moves nothing, so cuts need not follow
//! the content, and a sector that changes should cost one short chunk.

use std::ops::RangeInclusive;

use fastcdc::v2020::{self, Normalization};
use serde::{Deserialize, Serialize};

/// Zeros are looked for in blocks of this size, aligned in the file.
pub const ZERO_BLOCK_LEN: usize = 64 * 1024;

/// Bytes that the rolling hash depends on: each is shifted on by the next.
const HASH_LEN: usize = u64::BITS as usize;

/// Shortest lengths that the algorithm takes.
pub const MIN_LENS: RangeInclusive<u32> = v2020::MINIMUM_MIN as u32..=v2020::MINIMUM_MAX as u32;
/// Mean lengths that the algorithm takes.
pub const AVG_LENS: RangeInclusive<u32> = v2020::AVERAGE_MIN as u32..=v2020::AVERAGE_MAX as u32;
/// Greatest lengths that the algorithm takes. A file that is one chunk is no longer either.
pub const MAX_LENS: RangeInclusive<u32> = v2020::MAXIMUM_MIN as u32..=v2020::MAXIMUM_MAX as u32;

/// How a repository cuts its files; recorded in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkParams {
    /// No chunk but the last of a stretch is shorter.
    pub min_len: u32,
    /// About the mean length.
    pub avg_len: u32,
    /// No chunk is longer.
    pub max_len: u32,
    /// Files up to this length are one chunk.
    pub whole_len: u32,
}

impl Default for ChunkParams {
    /// 64 KiB on average: small enough to find moved content, large enough that a table row costs under 0.1 %.
    fn default() -> Self {
        Self::with_average(64 * 1024)
    }
}

impl ChunkParams {
    /// The usual proportions around an average: a quarter and four times, whole files up to the average.
    pub fn with_average(avg_len: u32) -> Self {
        Self { min_len: avg_len / 4, avg_len, max_len: avg_len.saturating_mul(4), whole_len: avg_len }
    }

    /// Checks what the algorithm needs; its own crate checks in debug builds only.
    pub fn check(&self) -> Result<(), String> {
        let Self { min_len, avg_len, max_len, whole_len } = *self;
        let limits = [("min_len", min_len, MIN_LENS), ("avg_len", avg_len, AVG_LENS), ("max_len", max_len, MAX_LENS)];
        for (name, value, lens) in limits {
            if !lens.contains(&value) || !value.is_multiple_of(2) {
                let (least, most) = lens.into_inner();
                return Err(format!("{name} is {value}; it must be even and between {least} and {most}"));
            }
        }
        if min_len >= avg_len || avg_len >= max_len {
            return Err("min_len, avg_len and max_len must ascend".to_owned());
        }
        if whole_len > *MAX_LENS.end() {
            return Err(format!("whole_len is {whole_len}; it must be at most {}", MAX_LENS.end()));
        }
        Ok(())
    }
}

/// Length of the chunks of a band.
pub const BAND_CHUNK_LEN: u32 = 16 * 1024;

/// Finds cut points.
#[derive(Debug, Clone, Copy)]
pub struct Chunker {
    params: ChunkParams,
    rule: Rule,
    finds_arrays: bool,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Where a rolling hash of the content says so.
    Content { mask_s: u64, mask_l: u64 },
    /// After `max_len` bytes.
    Fixed,
}

impl Chunker {
    /// A chunker for checked parameters.
    pub fn new(params: ChunkParams) -> Self {
        let (mask_s, mask_l) = v2020::select_masks(params.avg_len as usize, Normalization::Level1);
        Self { params, rule: Rule::Content { mask_s, mask_l }, finds_arrays: true }
    }

    /// The same, with arrays of numbers cut by their content as well, as in repositories of the first version.
    pub fn without_arrays(self) -> Self {
        Self { finds_arrays: false, ..self }
    }

    /// Are arrays of numbers cut at fixed places?
    pub fn finds_arrays(&self) -> bool {
        self.finds_arrays
    }

    /// The length of the pieces of an array: whole elements of every usual width.
    pub fn array_len(&self) -> u64 {
        u64::from(self.params.avg_len & !7).max(8)
    }

    /// The chunker for bands.
    pub fn of_bands() -> Self {
        let len = BAND_CHUNK_LEN;
        let params = ChunkParams { min_len: len, avg_len: len, max_len: len, whole_len: len };
        Self { params, rule: Rule::Fixed, finds_arrays: false }
    }

    /// The parameters.
    pub fn params(&self) -> &ChunkParams {
        &self.params
    }

    /// The length of the next chunk of `window`, which must hold `max_len` bytes or all that are left of the stretch.
    pub fn next_len(&self, window: &[u8]) -> usize {
        let ChunkParams { min_len, avg_len, max_len, .. } = self.params;
        let (min, avg, max) = (min_len as usize, avg_len as usize, max_len as usize);
        match self.rule {
            Rule::Content { mask_s, mask_l } => {
                v2020::cut(window, min, avg, max, mask_s, mask_l, mask_s << 1, mask_l << 1).1
            }
            Rule::Fixed => window.len().min(max),
        }
    }

    /// Of a chunk that was cut so somewhere: would it be again, in this window? It depends on the byte behind it as well. May say
    /// `false` of a few that would.
    pub fn ends_at(&self, window: &[u8], len: usize) -> bool {
        let ChunkParams { min_len, avg_len, max_len, .. } = self.params;
        let Rule::Content { mask_s, mask_l } = self.rule else { return false };
        // A pair of bytes is looked at together.
        let Some(last) = len.checked_sub(HASH_LEN).and_then(|from| window.get(from..len + 2)) else { return false };
        if len == max_len as usize {
            return true;
        }
        if len < min_len as usize + HASH_LEN || len > max_len as usize {
            return false;
        }
        let mask = if len < avg_len as usize { mask_s } else { mask_l };
        v2020::cut(last, 0, last.len(), last.len(), mask, mask, mask << 1, mask << 1).1 == HASH_LEN
    }
}

/// Are all bytes zero? Returns at the first that is not.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Wide words first: 16 bytes a step is enough to run at memory speed.
    let (head, words) = bytes.as_chunks::<16>();
    head.iter().all(|word| u128::from_ne_bytes(*word) == 0) && words.iter().all(|&b| b == 0)
}

/// Golden cut points, and helpers that other tests borrow.
#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::transform::hash::sha256;

    /// Bytes that any language makes from a seed: xorshift64*, high bytes.
    pub fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        (0..len)
            .map(|_| {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
            })
            .collect()
    }

    fn cuts(params: ChunkParams, mut bytes: &[u8]) -> Vec<usize> {
        let chunker = Chunker::new(params);
        let mut lens = Vec::new();
        while !bytes.is_empty() {
            let len = chunker.next_len(bytes);
            lens.push(len);
            bytes = &bytes[len..];
        }
        lens
    }

    fn digest(lens: &[usize]) -> String {
        let text = lens.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        data_encoding::HEXLOWER.encode(&sha256(&[text.as_bytes()])[..6])
    }

    #[test]
    fn golden_cut_points() {
        let odd = ChunkParams { min_len: 1000, avg_len: 5000, max_len: 30_002, whole_len: 0 };
        let periodic: Vec<u8> = (0..1_000_003usize).map(|i| (i % 251) as u8).collect();
        let zeros = vec![0u8; 1_000_001];
        let cases: [(&str, ChunkParams, Vec<u8>); 7] = [
            ("default", ChunkParams::default(), noise(1, 3_000_017)),
            ("small", ChunkParams::with_average(4096), noise(2, 300_001)),
            ("odd", odd, noise(3, 500_009)),
            ("periodic", ChunkParams::default(), periodic),
            ("zeros", ChunkParams::default(), zeros),
            ("one", ChunkParams::default(), vec![7]),
            ("at-min", ChunkParams::default(), noise(4, 16 * 1024)),
        ];
        let found: Vec<String> = cases
            .iter()
            .map(|(name, params, bytes)| {
                let lens = cuts(*params, bytes);
                assert_eq!(lens.iter().sum::<usize>(), bytes.len());
                format!("{name} {} {}", lens.len(), digest(&lens))
            })
            .collect();
        let expected = include_str!("golden_cuts.txt");
        assert_eq!(found.join("\n"), expected.trim(), "cut points are part of the format and must never change");
    }

    #[test]
    fn a_window_of_max_len_gives_the_same_cuts() {
        let bytes = noise(9, 2_000_003);
        let params = ChunkParams::with_average(8192);
        let chunker = Chunker::new(params);
        let mut at = 0;
        let mut lens = Vec::new();
        while at < bytes.len() {
            let end = bytes.len().min(at + params.max_len as usize);
            let len = chunker.next_len(&bytes[at..end]);
            lens.push(len);
            at += len;
        }
        assert_eq!(lens, cuts(params, &bytes));
    }

    #[test]
    fn a_cut_is_recognised_by_the_bytes_around_it() {
        let params = ChunkParams::with_average(4096);
        let chunker = Chunker::new(params);
        let bytes = noise(11, 2_000_000);
        let (mut at, mut cuts, mut recognised, mut forced) = (0, 0, 0, 0);
        while bytes.len() - at > params.max_len as usize + 2 {
            let window = &bytes[at..];
            let len = chunker.next_len(window);
            forced += usize::from(len == params.max_len as usize);
            cuts += 1;
            recognised += usize::from(chunker.ends_at(window, len));
            for before in [len - 1, len / 2] {
                assert!(!chunker.ends_at(window, before), "{before} of {len}");
            }
            assert!(!chunker.ends_at(&window[..len + 1], len), "the byte behind is not there");
            at += len;
        }
        assert!(forced > 0 && recognised * 100 > cuts * 95, "{recognised} of {cuts}, {forced} forced");
        let mut window = bytes[..params.max_len as usize + 2].to_vec();
        let len = chunker.next_len(&window);
        window[len] ^= 0x55;
        assert_eq!(chunker.ends_at(&window, len), chunker.next_len(&window) == len, "the byte behind counts");
        assert!(!Chunker::of_bands().ends_at(&bytes, BAND_CHUNK_LEN as usize));
    }

    #[test]
    fn bad_parameters_are_refused() {
        let good = ChunkParams::default();
        assert!(good.check().is_ok());
        for bad in [
            ChunkParams { min_len: 0, ..good },
            ChunkParams { avg_len: 65_537, ..good },
            ChunkParams { min_len: good.max_len, ..good },
            ChunkParams { max_len: u32::MAX, ..good },
            ChunkParams { whole_len: u32::MAX, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn zeros_are_recognised() {
        let mut bytes = vec![0u8; 1003];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in [0, 500, 1002] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
            bytes[at] = 0;
        }
    }
}
