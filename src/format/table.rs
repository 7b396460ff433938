//! The fan-out that layers and the index put in front of sorted ids.
//!
//! Entry `i` counts the ids whose first `bits` bits, as a number, are below `i`. Ids are uniform, so a bucket holds a
//! few ids whatever their number, and a lookup touches two cache lines.

use super::FormatError;
use crate::base::bytes::DecodeError;

/// Ids a bucket is meant to hold.
const BUCKET_IDS: u32 = 4;
/// The widest fan-out: 64 MiB of it, for some seventy million ids.
pub const MAX_FANOUT_BITS: u8 = 24;

/// The fan-out width for a number of ids.
pub fn fanout_bits(count: usize) -> u8 {
    let buckets = (count as u64 / u64::from(BUCKET_IDS)).max(1);
    (buckets.ilog2() as u8).min(MAX_FANOUT_BITS)
}

/// Bytes that a fan-out takes.
pub fn fanout_len(bits: u8) -> usize {
    ((1usize << bits) + 1) * size_of::<u32>()
}

/// Which bucket the first eight bytes of an id fall into.
pub fn bucket_of(prefix: u64, bits: u8) -> usize {
    prefix.checked_shr(64 - u32::from(bits)).unwrap_or(0) as usize
}

/// The first eight bytes of a digest, as a number that sorts like the digest.
pub fn prefix_of(digest: &[u8; 32]) -> u64 {
    let (head, _) = digest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*head)
}

/// Appends the fan-out for prefixes in any order.
pub fn put_fanout(out: &mut Vec<u8>, bits: u8, prefixes: impl Iterator<Item = u64>) {
    let mut buckets = vec![0; 1 << bits];
    for prefix in prefixes {
        if let Some(count) = buckets.get_mut(bucket_of(prefix, bits)) {
            *count += 1;
        }
    }
    put_counts(out, &buckets);
}

/// The same if it is known how many rows fall into each bucket.
pub fn put_counts(out: &mut Vec<u8>, buckets: &[u32]) {
    let mut before = 0u32;
    out.extend_from_slice(&before.to_le_bytes());
    for count in buckets {
        before = before.saturating_add(*count);
        out.extend_from_slice(&before.to_le_bytes());
    }
}

/// The range of rows in a bucket, checked against the number of rows.
pub fn bucket_range(fanout: &[u8], bucket: usize, count: u32) -> Result<std::ops::Range<usize>, FormatError> {
    let wrong = || FormatError::Decode(DecodeError::Invalid { what: "a table", why: "its fan-out is wrong".into() });
    let at = bucket.checked_mul(4).ok_or_else(wrong)?;
    let pair = fanout.get(at..at + 8).ok_or_else(wrong)?;
    let (start, end) = pair.split_at(4);
    let number = |bytes: &[u8]| bytes.try_into().map_or(u32::MAX, u32::from_le_bytes);
    let (start, end) = (number(start), number(end));
    if start <= end && end <= count { Ok(start as usize..end as usize) } else { Err(wrong()) }
}

/// The ranges of the buckets that many prefixes fall into; `None` if one is wrong. No read waits for another, so memory answers
/// several at a time.
pub fn bucket_ranges(
    fanout: &[u8],
    bits: u8,
    count: u32,
    prefixes: impl Iterator<Item = u64>,
) -> Option<Vec<std::ops::Range<usize>>> {
    prefixes.map(|prefix| bucket_range(fanout, bucket_of(prefix, bits), count).ok()).collect()
}

/// Reads the first and the last row of each range, for the sake of having them in the cache when they are compared: comparing
/// takes turns that are not foreseen, and would wait for each range in turn.
pub fn touch<const N: usize>(rows: &[[u8; N]], ranges: &[std::ops::Range<usize>]) {
    let byte = |row: usize| rows.get(row).and_then(|row| row.first()).copied().unwrap_or_default();
    let both = |range: &std::ops::Range<usize>| byte(range.start) ^ byte(range.end.saturating_sub(1));
    std::hint::black_box(ranges.iter().fold(0, |sum, range| sum ^ both(range)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_is_in_its_bucket() {
        for (count, bits) in [(0usize, 0u8), (1, 0), (3, 1), (1000, 8), (1000, 3)] {
            let mut prefixes: Vec<u64> = (0..count as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            prefixes.sort_unstable();
            let mut fanout = Vec::new();
            put_fanout(&mut fanout, bits, prefixes.iter().copied());
            assert_eq!(fanout.len(), fanout_len(bits));
            for (row, prefix) in prefixes.iter().enumerate() {
                let range = bucket_range(&fanout, bucket_of(*prefix, bits), count as u32).unwrap();
                assert!(range.contains(&row));
            }
            assert!(bucket_range(&fanout, 1 << bits, count as u32).is_err());
            let each = bucket_ranges(&fanout, bits, count as u32, prefixes.iter().copied()).unwrap();
            assert!(each.iter().enumerate().all(|(row, range)| range.contains(&row)));
            let none = bucket_ranges(&fanout, bits, 0, prefixes.iter().copied());
            assert_eq!(none.is_some(), prefixes.is_empty());
        }
    }

    #[test]
    fn widths_fit_counts() {
        assert_eq!(fanout_bits(0), 0);
        assert_eq!(fanout_bits(80_000), 14);
        assert_eq!(fanout_bits(usize::MAX), MAX_FANOUT_BITS);
    }
}
