//! SHA-256 of several messages at once.
//!
//! The SHA instructions of one message wait for each other; those of other messages fit between them. So up to four
//! messages advance together, block by block, and a message that ends gives its lane to the next: their lengths may differ.
//! Without SHA instructions one is hashed after the other.

use sha2::{Digest, Sha256};

use crate::model::id::DIGEST_LEN;

/// The digests of all messages, in their order.
pub fn sha256_each(messages: &[&[u8]]) -> Vec<[u8; DIGEST_LEN]> {
    #[cfg(target_arch = "x86_64")]
    if messages.len() > 1 && x86::is_available() {
        return x86::sha256_each(messages);
    }
    messages.iter().map(|message| Sha256::digest(message).into()).collect()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi8, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use super::DIGEST_LEN;

    /// Messages that advance together. Two hide half of the waiting; with more than four there are no registers left.
    const LANES: usize = 4;
    const BLOCK_LEN: usize = 64;
    /// Padding: a bit, zeros, and the message's length in bits in the last eight bytes.
    const LENGTH_LEN: usize = 8;

    type State = [u32; 8];
    type Block = [u8; BLOCK_LEN];

    /// The first 32 bits of the fractional parts of the square roots of the first eight primes (FIPS 180-4, 5.3.3).
    const START: State =
        [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

    /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
    const SCHEDULED: [[[u32; 4]; 4]; 3] = [
        [
            [0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5],
            [0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5],
            [0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3],
            [0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174],
        ],
        [
            [0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc],
            [0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da],
            [0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7],
            [0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967],
        ],
        [
            [0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13],
            [0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85],
            [0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3],
            [0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070],
        ],
    ];
    /// The last of them: their rounds need no further words.
    const LAST: [[u32; 4]; 4] = [
        [0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5],
        [0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3],
        [0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208],
        [0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2],
    ];

    /// Are the instructions there?
    pub fn is_available() -> bool {
        std::arch::is_x86_feature_detected!("sha")
            && std::arch::is_x86_feature_detected!("sse4.1")
            && std::arch::is_x86_feature_detected!("ssse3")
    }

    /// A message on its way.
    struct Lane<'a> {
        /// Its place among the messages.
        at: usize,
        state: State,
        /// Whole blocks that are still to be done.
        blocks: &'a [Block],
        /// What is behind them.
        rest: &'a [u8],
        len: usize,
    }

    impl<'a> Lane<'a> {
        fn new(at: usize, message: &'a [u8]) -> Self {
            let (blocks, rest) = message.as_chunks();
            Self { at, state: START, blocks, rest, len: message.len() }
        }

        /// Its next blocks, which count as done.
        fn take(&mut self, steps: usize) -> Work<'_> {
            let (now, later) = self.blocks.split_at(steps.min(self.blocks.len()));
            self.blocks = later;
            (&mut self.state, now)
        }

        /// The last blocks: what is left, and the padding.
        fn finish(mut self) -> [u8; DIGEST_LEN] {
            let mut last = [0u8; 2 * BLOCK_LEN];
            last.iter_mut().zip(self.rest.iter().chain(&[0x80])).for_each(|(to, from)| *to = *from);
            let len = if self.rest.len() + 1 + LENGTH_LEN > BLOCK_LEN { 2 * BLOCK_LEN } else { BLOCK_LEN };
            let bits = (self.len as u64).wrapping_mul(8).to_be_bytes();
            last.iter_mut().skip(len - LENGTH_LEN).zip(bits).for_each(|(to, from)| *to = from);
            let (blocks, _) = last.as_chunks::<BLOCK_LEN>();
            run([(&mut self.state, blocks.get(..len / BLOCK_LEN).unwrap_or(blocks))]);
            let mut digest = [0; DIGEST_LEN];
            let words = self.state.iter().flat_map(|word| word.to_be_bytes());
            digest.iter_mut().zip(words).for_each(|(to, from)| *to = from);
            digest
        }
    }

    pub fn sha256_each(messages: &[&[u8]]) -> Vec<[u8; DIGEST_LEN]> {
        let mut digests = vec![[0; DIGEST_LEN]; messages.len()];
        let mut waiting = messages.iter().enumerate();
        let mut lanes: Vec<Lane<'_>> = Vec::with_capacity(LANES);
        loop {
            while lanes.len() < LANES
                && let Some((at, message)) = waiting.next()
            {
                lanes.push(Lane::new(at, message));
            }
            let Some(steps) = lanes.iter().map(|lane| lane.blocks.len()).min() else { return digests };
            advance(&mut lanes, steps);
            let mut at = 0;
            while let Some(lane) = lanes.get(at) {
                if !lane.blocks.is_empty() {
                    at += 1;
                    continue;
                }
                let lane = lanes.swap_remove(at);
                if let Some(digest) = digests.get_mut(lane.at) {
                    *digest = lane.finish();
                }
            }
        }
    }

    /// Does the next blocks of all lanes.
    fn advance(lanes: &mut [Lane<'_>], steps: usize) {
        match lanes {
            [a, b, c, d] => run([a, b, c, d].map(|lane| lane.take(steps))),
            [a, b, c] => run([a, b, c].map(|lane| lane.take(steps))),
            [a, b] => run([a, b].map(|lane| lane.take(steps))),
            [a] => run([a.take(steps)]),
            _ => {}
        }
    }

    /// A state, and the blocks that are to go into it.
    type Work<'a> = (&'a mut State, &'a [Block]);

    fn run<const N: usize>(work: [Work<'_>; N]) {
        // SAFETY: `sha256_each` is only called where `is_available` has found the instructions; nothing else is asked for,
        // and no pointer is involved.
        #[expect(unsafe_code, reason = "the argument is above")]
        unsafe {
            compress(work);
        }
    }

    /// Takes the blocks into the states, as many as the shortest list has.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn compress<const N: usize>(work: [Work<'_>; N]) {
        let mut packed = [(_mm_set_epi64x(0, 0), _mm_set_epi64x(0, 0)); N];
        packed.iter_mut().zip(&work).for_each(|(packed, (state, _))| *packed = pack(state));
        let steps = work.iter().map(|(_, blocks)| blocks.len()).min().unwrap_or(0);
        for step in 0..steps {
            let before = packed;
            let mut words = [[_mm_set_epi64x(0, 0); 4]; N];
            for (words, (_, blocks)) in words.iter_mut().zip(&work) {
                if let Some(block) = blocks.get(step) {
                    *words = load(block);
                }
            }
            // Words are named by their place modulo four, so that all of them stay in registers.
            for constants in &SCHEDULED {
                rounds::<N, 0, true>(&mut packed, &mut words, constants[0]);
                rounds::<N, 1, true>(&mut packed, &mut words, constants[1]);
                rounds::<N, 2, true>(&mut packed, &mut words, constants[2]);
                rounds::<N, 3, true>(&mut packed, &mut words, constants[3]);
            }
            rounds::<N, 0, false>(&mut packed, &mut words, LAST[0]);
            rounds::<N, 1, false>(&mut packed, &mut words, LAST[1]);
            rounds::<N, 2, false>(&mut packed, &mut words, LAST[2]);
            rounds::<N, 3, false>(&mut packed, &mut words, LAST[3]);
            for ((abef, cdgh), before) in packed.iter_mut().zip(before) {
                *abef = _mm_add_epi32(*abef, before.0);
                *cdgh = _mm_add_epi32(*cdgh, before.1);
            }
        }
        work.into_iter().zip(packed).for_each(|((state, _), packed)| *state = unpack(packed));
    }

    /// Four rounds of every lane, with the words at `AT`; if `NEXT`, these are replaced by those that come sixteen rounds later.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    #[inline]
    fn rounds<const N: usize, const AT: usize, const NEXT: bool>(
        packed: &mut [(__m128i, __m128i); N],
        words: &mut [[__m128i; 4]; N],
        constants: [u32; 4],
    ) {
        let [a, b, c, d] = constants.map(u32::cast_signed);
        let constants = _mm_set_epi32(d, c, b, a);
        for ((abef, cdgh), words) in packed.iter_mut().zip(words) {
            let [first, second, third, fourth] =
                [words[AT], words[(AT + 1) % 4], words[(AT + 2) % 4], words[(AT + 3) % 4]];
            let sum = _mm_add_epi32(first, constants);
            *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
            *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(sum));
            if NEXT {
                let sum = _mm_add_epi32(_mm_sha256msg1_epu32(first, second), _mm_alignr_epi8::<4>(fourth, third));
                words[AT] = _mm_sha256msg2_epu32(sum, fourth);
            }
        }
    }

    /// The words of a block, each turned to the processor's order of bytes.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn load(block: &Block) -> [__m128i; 4] {
        let turned = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
        let mut words = [turned; 4];
        let (quads, _) = block.as_chunks::<16>();
        for (words, quad) in words.iter_mut().zip(quads) {
            let both = u128::from_le_bytes(*quad);
            *words = _mm_shuffle_epi8(_mm_set_epi64x((both >> 64) as i64, both as i64), turned);
        }
        words
    }

    /// The state in the order that the instructions want: a, b, e, f and c, d, g, h.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn pack(state: &State) -> (__m128i, __m128i) {
        let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
        (_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h))
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn unpack((abef, cdgh): (__m128i, __m128i)) -> State {
        let word = |words: __m128i| {
            [
                _mm_extract_epi32::<3>(words),
                _mm_extract_epi32::<2>(words),
                _mm_extract_epi32::<1>(words),
                _mm_extract_epi32::<0>(words),
            ]
            .map(i32::cast_unsigned)
        };
        let ([a, b, e, f], [c, d, g, h]) = (word(abef), word(cdgh));
        [a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::chunker::tests::noise;
    use proptest::prelude::*;

    fn one_by_one(messages: &[&[u8]]) -> Vec<[u8; DIGEST_LEN]> {
        messages.iter().map(|message| Sha256::digest(message).into()).collect()
    }

    #[test]
    fn every_length_around_a_block_is_padded_as_it_should_be() {
        let bytes = noise(1, 300);
        let messages: Vec<&[u8]> = (0..bytes.len()).map(|len| &bytes[..len]).collect();
        assert_eq!(sha256_each(&messages), one_by_one(&messages));
        for count in 0..9 {
            assert_eq!(sha256_each(&messages[100..100 + count]), one_by_one(&messages[100..100 + count]));
        }
    }

    proptest! {
        #[test]
        fn many_messages_have_the_digests_of_each(lens in proptest::collection::vec(0usize..5_000, 0..20), seed: u64) {
            let bytes = noise(seed, 5_000);
            let messages: Vec<&[u8]> = lens.iter().map(|len| &bytes[bytes.len() - len..]).collect();
            prop_assert_eq!(sha256_each(&messages), one_by_one(&messages));
        }
    }
}
