//! What benches share.
#![allow(dead_code, reason = "each bench takes a part of it")]

use digstore::transform::chunker::Chunker;

/// Bytes that do not shrink, the same for the same seed: xorshift64*.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut word = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    (0..len.div_ceil(8)).flat_map(|_| word().to_le_bytes()).take(len).collect()
}

/// Text with the redundancy of source code.
pub fn text(seed: usize, len: usize) -> Vec<u8> {
    let words = ["static ", "int ", "return ", "struct device ", "*dev, ", "if (", ") {\n", "}\n", "0x", "unsigned "];
    let mut state = seed as u64 * 2 + 1;
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(words[(state >> 33) as usize % words.len()].as_bytes());
        out.extend_from_slice(format!("{:x}", state >> 50).as_bytes());
    }
    out.truncate(len);
    out
}

/// Into how many chunks the bytes are cut.
pub fn cut(chunker: &Chunker, mut rest: &[u8]) -> usize {
    let mut chunks = 0;
    while !rest.is_empty() {
        rest = rest.get(chunker.next_len(rest)..).unwrap_or_default();
        chunks += 1;
    }
    chunks
}
