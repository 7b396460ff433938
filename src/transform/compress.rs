//! Compression of whole blocks.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

/// How a block's bytes are stored. The number is part of the layer format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// The levels that zstd takes and that are of use here.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
/// Ingest's level: higher ones cost more than the disk they save, measured on the kernel tree.
pub const DEFAULT_LEVEL: i32 = 3;

/// Blocks shorter than this are compressed without asking; a sample would be most of the block.
const SAMPLE_FROM_LEN: usize = 64 * 1024;
/// Three pieces of this size say whether a block shrinks.
const SAMPLE_LEN: usize = 4 * 1024;
/// Below one part in 32 saved, decoding costs more than the bytes are worth.
const MIN_GAIN_SHARE: usize = 32;

thread_local! {
    /// A context holds megabytes of tables; each thread keeps one.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses a block, or finds that it is not worth it.
pub fn compress(plain: &[u8], level: i32) -> io::Result<(Codec, Vec<u8>)> {
    if looks_incompressible(plain)? {
        return Ok((Codec::Raw, Vec::new()));
    }
    let packed = with_compressor(level, |compressor| compressor.compress(plain))?;
    if packed.len() + plain.len() / MIN_GAIN_SHARE < plain.len() {
        Ok((Codec::Zstd, packed))
    } else {
        Ok((Codec::Raw, Vec::new()))
    }
}

/// Do samples from the start, the middle and the end fail to shrink?
fn looks_incompressible(plain: &[u8]) -> io::Result<bool> {
    if plain.len() < SAMPLE_FROM_LEN {
        return Ok(false);
    }
    let starts = [0, (plain.len() - SAMPLE_LEN) / 2, plain.len() - SAMPLE_LEN];
    let sample: Vec<u8> = starts.iter().filter_map(|&at| plain.get(at..at + SAMPLE_LEN)).flatten().copied().collect();
    let packed = with_compressor(DEFAULT_LEVEL, |compressor| compressor.compress(&sample))?;
    Ok(packed.len() + sample.len() / MIN_GAIN_SHARE / 2 > sample.len())
}

fn with_compressor<T>(level: i32, run: impl FnOnce(&mut Compressor<'static>) -> io::Result<T>) -> io::Result<T> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let mut compressor = slot.take().map_or_else(|| Compressor::new(level), Ok)?;
        compressor.set_compression_level(level)?;
        let result = run(&mut compressor);
        *slot = Some(compressor);
        result
    })
}

/// Decodes a block to exactly `raw_len` bytes; anything else is an error. The caller bounds `raw_len`.
pub fn decompress(codec: Codec, stored: &[u8], raw_len: usize) -> io::Result<Vec<u8>> {
    let plain = match codec {
        Codec::Raw => stored.to_vec(),
        Codec::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| {
            let mut decompressor = slot.take().map_or_else(Decompressor::new, Ok)?;
            let result = decompressor.decompress(stored, raw_len);
            *slot = Some(decompressor);
            result
        })?,
    };
    if plain.len() == raw_len {
        Ok(plain)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "a block decodes to another length than recorded"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::chunker::tests::noise;

    #[test]
    fn blocks_round_trip_and_noise_stays_raw() {
        let text = b"the same line again and again\n".repeat(9000);
        let random = noise(1, 300_001);
        let half = [&random[..150_000], &text[..150_000]].concat();
        for (plain, codec) in [(&text, Codec::Zstd), (&random, Codec::Raw), (&half, Codec::Zstd)] {
            let (found, packed) = compress(plain, DEFAULT_LEVEL).unwrap();
            assert_eq!(found, codec);
            let stored = if found == Codec::Raw { plain } else { &packed };
            assert_eq!(&decompress(found, stored, plain.len()).unwrap(), plain);
            assert!(decompress(found, stored, plain.len() + 1).is_err());
            assert!(decompress(found, stored, plain.len() - 1).is_err());
        }
    }

    #[test]
    fn damaged_frames_are_errors() {
        let text = b"0123456789".repeat(10_000);
        let (_, packed) = compress(&text, DEFAULT_LEVEL).unwrap();
        assert!(decompress(Codec::Zstd, &packed[..packed.len() / 2], text.len()).is_err());
        assert!(decompress(Codec::Zstd, b"not zstd at all", text.len()).is_err());
    }
}
