//! Compression of whole blocks: alone, with an older block as dictionary, or as numbers.

use std::cell::RefCell;
use std::io;

use zstd::zstd_safe::{
    CCtx, DCtx, InBuffer, OutBuffer, ResetDirective, SafeResult, compress_bound, get_error_name, get_frame_content_size,
};

use super::filter::{Filter, Width};

/// How a block's bytes are stored. The number is part of the layer format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    Raw,
    /// One zstd frame, or, of filtered bytes, several.
    Zstd,
}

/// The levels that zstd takes and that are of use here.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
/// Ingest's level: higher ones cost more than the disk they save, measured on the kernel tree.
pub const DEFAULT_LEVEL: i32 = 3;

/// Blocks shorter than this are compressed without asking; a sample would be most of the block.
const SAMPLE_FROM_LEN: usize = 64 * 1024;
/// Three pieces of this size say whether a block shrinks, and how.
const SAMPLE_LEN: usize = 4 * 1024;
/// Below one part in 32 saved, decoding costs more than the bytes are worth.
const MIN_GAIN_SHARE: usize = 32;
/// What begins like this is taken by zstd for a dictionary with tables instead of plain content.
const DICTIONARY_MAGIC: [u8; 4] = 0xec30_a437_u32.to_le_bytes();

thread_local! {
    /// A context holds megabytes of tables; each thread keeps one, and for compressing also room for the result, of which
    /// nobody knows how long it gets.
    static COMPRESSOR: RefCell<Option<(CCtx<'static>, Vec<u8>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// A block as it is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// How.
    pub codec: Codec,
    /// What was done before.
    pub filter: Filter,
    /// Does decoding need the base?
    pub uses_base: bool,
    /// The stored bytes; empty for a block that is stored as it is.
    pub bytes: Vec<u8>,
}

impl Packed {
    const RAW: Self = Self { codec: Codec::Raw, filter: Filter::None, uses_base: false, bytes: Vec::new() };
}

/// An older block, and where in it the older version of the first byte is. That may lie outside.
#[derive(Debug, Clone, Copy)]
pub struct Opposite<'a> {
    /// The older block.
    pub bytes: &'a [u8],
    /// The place.
    pub at: i32,
    /// The part of the block that serves as dictionary: where it begins, and how long it is.
    pub part: (u32, u32),
}

impl<'a> Opposite<'a> {
    /// No block.
    pub const NONE: Opposite<'static> = Opposite { bytes: &[], at: 0, part: (0, 0) };

    /// All of a block, from its first byte on.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, part: (0, u32::try_from(bytes.len()).unwrap_or(u32::MAX)) }
    }

    /// The part that serves as dictionary, as zstd takes it for plain content: without its first byte, if it looks like a
    /// dictionary made by zstd.
    fn dictionary(&self) -> &'a [u8] {
        let (from, len) = (self.part.0 as usize, self.part.1 as usize);
        let part = self.bytes.get(from..from.saturating_add(len)).unwrap_or_default();
        if part.starts_with(&DICTIONARY_MAGIC) { part.get(1..).unwrap_or_default() } else { part }
    }

    /// What lies opposite to the bytes from `start` on.
    fn from(&self, start: usize) -> Self {
        Self { at: i32::try_from(i64::from(self.at) + start as i64).unwrap_or(i32::MAX), ..*self }
    }

    /// What lies opposite to `len` bytes; zeros where there is nothing.
    fn aligned(&self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let skipped = usize::try_from(-i64::from(self.at)).unwrap_or(0);
        let from = self.bytes.get(usize::try_from(self.at).unwrap_or(0)..).unwrap_or_default();
        let places = out.get_mut(skipped..).unwrap_or_default();
        places.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        out
    }
}

/// Compresses a block, or finds that it is not worth it. `base` is an older version of it, if there is one.
pub fn compress(plain: &[u8], base: Option<Opposite<'_>>, level: i32) -> io::Result<Packed> {
    let filter = choose_filter(plain, base)?;
    if filter != Filter::None {
        let aligned = base.filter(|_| filter.needs_base()).map(|base| base.aligned(plain.len())).unwrap_or_default();
        let bytes = encode_planes(filter, &filter.apply(plain, &aligned), plane_level(level))?;
        let packed = Packed { codec: Codec::Zstd, filter, uses_base: filter.needs_base(), bytes };
        return Ok(if is_worth_it(packed.bytes.len(), plain.len()) { packed } else { Packed::RAW });
    }
    let Some(base) = base.filter(|base| !base.dictionary().is_empty()) else { return compress_alone(plain, level) };
    let bytes = encode(plain, base.dictionary(), level)?;
    let packed = Packed { codec: Codec::Zstd, filter: Filter::None, uses_base: true, bytes };
    Ok(if is_worth_it(packed.bytes.len(), plain.len()) { packed } else { Packed::RAW })
}

/// The same without base and filter.
pub fn compress_alone(plain: &[u8], level: i32) -> io::Result<Packed> {
    let (codec, bytes) = compress_plain(plain, level)?;
    Ok(Packed { codec, bytes, ..Packed::RAW })
}

/// The same for bytes of which only the codec is recorded; they are empty for what is to be stored as it is.
pub fn compress_plain(plain: &[u8], level: i32) -> io::Result<(Codec, Vec<u8>)> {
    if !shrinks(plain)? {
        return Ok((Codec::Raw, Vec::new()));
    }
    let bytes = encode(plain, &[], level)?;
    Ok(if is_worth_it(bytes.len(), plain.len()) { (Codec::Zstd, bytes) } else { (Codec::Raw, Vec::new()) })
}

fn is_worth_it(packed_len: usize, plain_len: usize) -> bool {
    packed_len + plain_len / MIN_GAIN_SHARE < plain_len
}

/// Where samples are taken: at the start, in the middle and at the end, at places divisible by eight.
fn sample_starts(len: usize) -> [usize; 3] {
    let last = len.saturating_sub(SAMPLE_LEN);
    [0, (last / 2) & !7, last & !7]
}

/// Pieces of a block; none of one that is short.
fn sample(plain: &[u8]) -> Vec<u8> {
    if plain.len() < SAMPLE_FROM_LEN {
        return Vec::new();
    }
    sample_starts(plain.len()).iter().filter_map(|&at| plain.get(at..at + SAMPLE_LEN)).flatten().copied().collect()
}

/// Do samples shrink?
fn shrinks(plain: &[u8]) -> io::Result<bool> {
    let sample = sample(plain);
    if sample.is_empty() {
        return Ok(true);
    }
    let packed = encode(&sample, &[], DEFAULT_LEVEL)?;
    Ok(packed.len() + sample.len() / MIN_GAIN_SHARE / 2 <= sample.len())
}

/// The filter with which a sample shrinks most, if it gains enough over none.
fn choose_filter(plain: &[u8], base: Option<Opposite<'_>>) -> io::Result<Filter> {
    let sample = sample(plain);
    if sample.is_empty() || is_text(&sample) {
        return Ok(Filter::None);
    }
    let alone = encode(&sample, &[], SAMPLE_LEVEL)?.len();
    if base.is_none() && alone >= sample.len() && is_noise(&sample) {
        return Ok(Filter::None);
    }
    let mut best = (alone, Filter::None);
    for width in Width::ALL {
        let filter = Filter::Group(width);
        let len = encode_planes(filter, &filter.apply(&sample, &[]), SAMPLE_LEVEL)?.len();
        // Wider elements of the same numbers come close, so they must be better by as much again.
        best = if is_better(len, best.0) { (len, filter) } else { best };
    }
    if let Some(base) = base {
        // What shrinks with the old version as dictionary needs no filter.
        let len = encode(&sample, base.dictionary(), SAMPLE_LEVEL)?.len();
        best = if len <= best.0 { (len, Filter::None) } else { best };
        let starts = sample_starts(plain.len());
        let older: Vec<u8> = starts.iter().flat_map(|start| base.from(*start).aligned(SAMPLE_LEN)).collect();
        for width in [Width::Two, Width::Four] {
            let filter = Filter::Difference(width);
            let len = encode_planes(filter, &filter.apply(&sample, &older), SAMPLE_LEVEL)?.len();
            best = if is_better(len, best.0) { (len, filter) } else { best };
        }
    }
    Ok(best.1)
}

/// Samples are compared at the fastest level; what they are compared for is the same at every level.
const SAMPLE_LEVEL: i32 = 1;
/// A filter must make a sample smaller than this part of what it is without: decoding takes twice as long with it.
const FILTER_GAIN: (usize, usize) = (31, 32);

fn is_better(len: usize, best: usize) -> bool {
    len * FILTER_GAIN.1 < best * FILTER_GAIN.0
}

/// In noise every byte is about as frequent at each place of an element: the most frequent one of a sample of 12 KiB comes less
/// than this often among the 1,536 at one of eight places. Exponents of numbers come hundreds of times.
const MAX_NOISE_COUNT: u16 = 48;

/// Is every byte about as frequent as any other, wherever in an element of eight bytes it stands?
fn is_noise(sample: &[u8]) -> bool {
    let mut counts = [[0u16; 256]; 8];
    for element in sample.as_chunks::<8>().0 {
        for (counts, byte) in counts.iter_mut().zip(element) {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    counts.iter().flatten().all(|count| *count < MAX_NOISE_COUNT)
}

/// Of bytes of text nearly all are printable.
const MIN_TEXT_SHARE: (usize, usize) = (15, 16);

fn is_text(sample: &[u8]) -> bool {
    let printable = sample.iter().filter(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t')).count();
    printable * MIN_TEXT_SHARE.1 >= sample.len() * MIN_TEXT_SHARE.0
}

/// In planes of numbers nothing comes again, and all that is gained is gained by codes for single bytes, which level 1 finds as well:
/// of 1 GiB of 16-bit weights it leaves 907 MB in 2.9 s of processor time, level 3 910 MB in 5.8 s.
fn plane_level(level: i32) -> i32 {
    if level <= DEFAULT_LEVEL { SAMPLE_LEVEL } else { level }
}

/// A frame for each plane: the codes that suit one do not suit another, and zstd makes one set for up to 128 KiB.
fn encode_planes(filter: Filter, filtered: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut frames = Vec::new();
    for plane in filtered.chunks(filter.plane_len(filtered.len()).max(1)) {
        encode_onto(&mut frames, plane, &[], level)?;
    }
    Ok(frames)
}

fn encode(plain: &[u8], dictionary: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    encode_onto(&mut out, plain, dictionary, level)?;
    Ok(out)
}

/// Appends one frame.
fn encode_onto(out: &mut Vec<u8>, plain: &[u8], dictionary: &[u8], level: i32) -> io::Result<()> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let (context, room) = match slot {
            Some(kept) => kept,
            None => slot.insert((CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?, Vec::new())),
        };
        room.clear();
        room.reserve(compress_bound(plain.len()));
        done(context.compress_using_dict(room, plain, dictionary, level))?;
        out.extend_from_slice(room);
        Ok(())
    })
}

fn done(result: SafeResult) -> io::Result<usize> {
    result.map_err(|code| io::Error::new(io::ErrorKind::InvalidData, get_error_name(code)))
}

/// Decodes a block to exactly `raw_len` bytes; anything else is an error. The caller bounds `raw_len`.
///
/// The base is [`Opposite::NONE`] for a block that was compressed without one.
pub fn decompress(
    codec: Codec,
    filter: Filter,
    stored: &[u8],
    raw_len: usize,
    base: Opposite<'_>,
) -> io::Result<Vec<u8>> {
    let filtered = match codec {
        Codec::Raw => stored.to_vec(),
        Codec::Zstd => {
            let dictionary = if filter == Filter::None { whole_dictionary(&base)? } else { &[] };
            let mut out = Vec::with_capacity(raw_len);
            with_decompressor(|context| done(context.decompress_using_dict(&mut out, stored, dictionary)))?;
            out
        }
    };
    if filtered.len() == raw_len {
        let aligned = if filter.needs_base() { base.aligned(raw_len) } else { Vec::new() };
        Ok(filter.undo(filtered, &aligned))
    } else {
        Err(wrong("a block decodes to another length than recorded"))
    }
}

/// A part of a block beyond this share of it, three quarters, is not worth decoding apart: streaming copies once more.
const MAX_START_SHARE: (usize, usize) = (3, 4);

/// Decodes the first `wanted` bytes of a block, or more: all of it, if that is as quick.
pub fn decompress_start(
    codec: Codec,
    filter: Filter,
    stored: &[u8],
    raw_len: usize,
    base: Opposite<'_>,
    wanted: usize,
) -> io::Result<Vec<u8>> {
    // Of a frame that names its length no more memory is taken than that.
    let is_bounded = || get_frame_content_size(stored).is_ok_and(|len| len == Some(raw_len as u64));
    let is_short = wanted * MAX_START_SHARE.1 < raw_len * MAX_START_SHARE.0;
    if !is_short || codec == Codec::Raw || filter != Filter::None || !is_bounded() {
        return decompress(codec, filter, stored, raw_len, base);
    }
    let dictionary = whole_dictionary(&base)?;
    let mut start = Vec::with_capacity(wanted);
    with_decompressor(|context| {
        done(context.reset(ResetDirective::SessionAndParameters))?;
        done(context.load_dictionary(dictionary))?;
        let mut output = OutBuffer::around(&mut start);
        let mut input = InBuffer::around(stored);
        while output.pos() < output.capacity() {
            let before = (input.pos(), output.pos());
            done(context.decompress_stream(&mut output, &mut input))?;
            if before == (input.pos(), output.pos()) {
                return Err(wrong("a block decodes to another length than recorded"));
            }
        }
        // What is decoded next has another dictionary.
        done(context.reset(ResetDirective::SessionAndParameters))
    })?;
    Ok(start)
}

/// The dictionary of a block; an error if its base does not reach so far.
fn whole_dictionary<'a>(base: &Opposite<'a>) -> io::Result<&'a [u8]> {
    let (from, len) = base.part;
    if base.bytes.len() < from as usize + len as usize {
        return Err(wrong("a block needs more of its base than there is"));
    }
    Ok(base.dictionary())
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn with_decompressor<T>(run: impl FnOnce(&mut DCtx<'static>) -> io::Result<T>) -> io::Result<T> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?),
        };
        run(context)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::chunker::tests::noise;

    fn round_trip(plain: &[u8], base: Option<&[u8]>) -> Packed {
        round_trip_at(plain, base, 0)
    }

    fn round_trip_at(plain: &[u8], base: Option<&[u8]>, at: i32) -> Packed {
        let base = base.map(|bytes| Opposite { at, ..Opposite::whole(bytes) });
        let packed = compress(plain, base, DEFAULT_LEVEL).unwrap();
        let stored = if packed.codec == Codec::Raw { plain } else { &packed.bytes };
        let base = if packed.uses_base { base.unwrap() } else { Opposite::NONE };
        let decode = |len| decompress(packed.codec, packed.filter, stored, len, base);
        assert_eq!(decode(plain.len()).unwrap(), plain);
        assert!(decode(plain.len() + 1).is_err());
        assert!(decode(plain.len() - 1).is_err());
        packed
    }

    #[test]
    fn blocks_round_trip_and_noise_stays_raw() {
        let text = b"the same line again and again\n".repeat(9000);
        let random = noise(1, 300_001);
        let half = [&random[..150_000], &text[..150_000]].concat();
        for (plain, codec) in [(&text, Codec::Zstd), (&random, Codec::Raw), (&half, Codec::Zstd)] {
            assert_eq!(round_trip(plain, None).codec, codec);
        }
    }

    #[test]
    fn a_changed_block_costs_what_changed() {
        for base in [noise(1, 300_000), [&DICTIONARY_MAGIC[..], &noise(2, 1_000)].concat()] {
            let plain = [&base[..400], b"changed", &base[500..]].concat();
            let packed = round_trip(&plain, Some(&base));
            assert!(packed.uses_base && packed.bytes.len() < 150, "{} bytes", packed.bytes.len());
            assert!(decompress(packed.codec, packed.filter, &packed.bytes, plain.len(), Opposite::NONE).is_err());
        }
        let packed = round_trip(&noise(3, 5_000), Some(&noise(4, 5_000)));
        assert_eq!(packed, Packed::RAW, "a base that is of no use is not used");
    }

    #[test]
    fn numbers_are_found_and_grouped() {
        let weights = |seed| -> Vec<u8> {
            let noise = noise(seed, 400_000);
            noise.as_chunks::<2>().0.iter().flat_map(|[a, b]| [*a, 0x3c + (b & 3)]).collect()
        };
        let old = weights(1);
        let packed = round_trip(&old, None);
        assert_eq!((packed.codec, packed.filter), (Codec::Zstd, Filter::Group(Width::Two)));
        let tuned: Vec<u8> = old
            .as_chunks::<2>()
            .0
            .iter()
            .zip(noise(7, 400_000))
            .flat_map(|(old, change)| u16::from_le_bytes(*old).wrapping_add(u16::from(change & 15)).to_le_bytes())
            .collect();
        let packed = round_trip(&tuned, Some(&old));
        assert_eq!((packed.uses_base, packed.filter), (true, Filter::Difference(Width::Two)));
        assert!(packed.bytes.len() * 3 < tuned.len());
        for (at, start) in [(-4_000, 0), (-5, 1_000), (6_000, 0), (i32::MAX, 0), (i32::MIN, 0)] {
            let packed = round_trip_at(&tuned[start..], Some(&old), at);
            assert!(!packed.uses_base || at.abs() < 10_000);
        }
        let packed = round_trip_at(&tuned[6_000..], Some(&old), 6_000);
        assert_eq!((packed.uses_base, packed.filter), (true, Filter::Difference(Width::Two)));
    }

    #[test]
    fn a_start_is_decoded_without_the_rest() {
        let base = noise(5, 300_000);
        let plain = [&base[..100_000], b"new", &b"some text ".repeat(20_000), &base[100_000..150_000]].concat();
        let other = b"a text without base ".repeat(15_000);
        for (plain, base) in
            [(&plain, Opposite::whole(&base)), (&other, Opposite::NONE), (&plain, Opposite::whole(&base))]
        {
            let packed = compress(plain, Some(base), DEFAULT_LEVEL).unwrap();
            let decode =
                |wanted| decompress_start(packed.codec, packed.filter, &packed.bytes, plain.len(), base, wanted);
            for wanted in [0, 1, 70_000, 131_072, 131_073, 200_000, plain.len() - 1, plain.len(), plain.len() + 1] {
                let start = decode(wanted).unwrap();
                assert!(start.len() == plain.len() || start.len() >= wanted && wanted < plain.len(), "{wanted}");
                assert_eq!(start, plain[..start.len()]);
            }
            let cut = &packed.bytes[..packed.bytes.len() / 20];
            assert!(decompress_start(packed.codec, packed.filter, cut, plain.len(), base, 200_000).is_err());
        }
    }

    #[test]
    fn damaged_frames_are_errors() {
        let text = b"0123456789".repeat(10_000);
        let packed = compress(&text, None, DEFAULT_LEVEL).unwrap().bytes;
        let decode = |stored: &[u8]| decompress(Codec::Zstd, Filter::None, stored, text.len(), Opposite::NONE);
        assert!(decode(&packed[..packed.len() / 2]).is_err());
        assert!(decode(b"not zstd at all").is_err());
    }
}
