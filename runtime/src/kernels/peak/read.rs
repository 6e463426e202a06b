//! Reads of memory in several patterns, with the widest loads of this CPU.
//!
//! What reads fastest depends on the machine: how many streams its prefetchers follow, and whether
//! requests ahead of the loads help them. A pattern is a number of streams that are read in turn,
//! line by line, and what is requested ahead. Reading a line is a load and an exclusive or per
//! register, which is far faster than memory.

use std::hint::black_box;

/// A cache line of most machines.
pub type Line = [u8; 64];

/// A way to read memory.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// Slices that are read in turn.
    pub streams: usize,
    /// What is requested.
    pub ahead: Ahead,
}

/// What is requested ahead of the loads, in bytes of all streams together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing.
    Nothing,
    /// Lines for the first-level cache.
    Near,
    /// Lines for the second-level cache, further ahead.
    Far,
    /// Both.
    Both,
}

/// The patterns that are worth a trial.
pub const PATTERNS: [Pattern; 12] = {
    let all = [Ahead::Nothing, Ahead::Near, Ahead::Far, Ahead::Both];
    let mut patterns = [Pattern {
        streams: 1,
        ahead: Ahead::Nothing,
    }; 12];
    let mut i = 0;
    while i < 12 {
        patterns[i] = Pattern {
            streams: 1 << (i / 4),
            ahead: all[i % 4],
        };
        i += 1;
    }
    patterns
};

/// Bytes between the loads and the lines that are requested for the first-level cache.
const NEAR: usize = 6 << 10;
/// The same for the second-level cache.
const FAR: usize = 16 << 10;

impl Pattern {
    /// Reads slices of one length, at most four, in turn.
    ///
    /// # Panics
    /// If there are not as many slices as streams, or their lengths differ.
    pub fn read(self, streams: &[&[Line]]) {
        assert_eq!(streams.len(), self.streams);
        match *streams {
            [a] => self.ahead.read([a]),
            [a, b] => self.ahead.read([a, b]),
            [a, b, c, d] => self.ahead.read([a, b, c, d]),
            _ => unreachable!("patterns have 1, 2 or 4 streams"),
        }
    }
}

impl Ahead {
    fn read<const N: usize>(self, streams: [&[Line]; N]) {
        match self {
            Ahead::Nothing => read::<N, false, false>(streams),
            Ahead::Near => read::<N, true, false>(streams),
            Ahead::Far => read::<N, false, true>(streams),
            Ahead::Both => read::<N, true, true>(streams),
        }
    }
}

fn read<const N: usize, const NEAR: bool, const FAR: bool>(streams: [&[Line]; N]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: AVX-512 F was found.
        return unsafe { x86::avx512::<N, NEAR, FAR>(streams) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was found.
        return unsafe { x86::avx2::<N, NEAR, FAR>(streams) };
    }
    // The baseline of 64-bit Arm has NEON.
    fold::<N, NEAR, FAR, Line>(streams, [0; 64], |folded, line| {
        std::array::from_fn(|i| folded[i] ^ line[i])
    });
}

#[inline(always)]
fn fold<const N: usize, const NEAR_BY: bool, const FAR_OFF: bool, V: Copy>(
    streams: [&[Line]; N],
    zero: V,
    add: impl Fn(V, &Line) -> V,
) {
    let len = streams[0].len();
    assert!(streams.iter().all(|stream| stream.len() == len));
    let mut folded = [zero; N];
    for i in 0..len {
        for (folded, stream) in folded.iter_mut().zip(&streams) {
            let line = &stream[i];
            if NEAR_BY {
                prefetch::<true>(line, NEAR / N);
            }
            if FAR_OFF {
                prefetch::<false>(line, FAR / N);
            }
            *folded = add(*folded, line);
        }
    }
    black_box(folded);
}

/// Asks for the line `ahead` bytes after another: for the first-level cache if it is `IS_NEAR`,
/// else for the second-level one.
#[inline(always)]
fn prefetch<const IS_NEAR: bool>(line: &Line, ahead: usize) {
    let at = line.as_ptr().wrapping_byte_add(ahead);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that reads nothing and accepts any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match IS_NEAR {
            true => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
            false => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
        }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint that reads nothing and accepts any address.
    unsafe {
        use std::arch::asm;
        match IS_NEAR {
            true => asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags)),
            false => asm!("prfm pldl2keep, [{0}]", in(reg) at, options(nostack, preserves_flags)),
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _no_hint = at;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Line, fold};

    #[target_feature(enable = "avx512f")]
    pub fn avx512<const N: usize, const NEAR: bool, const FAR: bool>(streams: [&[Line]; N]) {
        fold::<N, NEAR, FAR, _>(streams, _mm512_setzero_si512(), |folded, line| {
            // SAFETY: 64 bytes; the load may be unaligned.
            let line = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
            _mm512_xor_si512(folded, line)
        });
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2<const N: usize, const NEAR: bool, const FAR: bool>(streams: [&[Line]; N]) {
        fold::<N, NEAR, FAR, _>(streams, [_mm256_setzero_si256(); 2], |folded, line| {
            let (halves, _) = line.as_chunks::<32>();
            std::array::from_fn(|i| {
                // SAFETY: 32 bytes; the load may be unaligned.
                let half = unsafe { _mm256_loadu_si256(halves[i].as_ptr().cast()) };
                _mm256_xor_si256(folded[i], half)
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_reads() {
        let lines = vec![[1; 64]; 64];
        for pattern in PATTERNS {
            pattern.read(&vec![&lines[..]; pattern.streams]);
        }
    }

    #[cfg(panic = "unwind")]
    #[test]
    fn streams_of_different_lengths_are_refused() {
        let lines = [[1; 64]; 2];
        let pattern = Pattern {
            streams: 2,
            ahead: Ahead::Both,
        };
        let read = || pattern.read(&[&lines, &lines[..1]]);
        assert!(std::panic::catch_unwind(read).is_err());
    }
}
