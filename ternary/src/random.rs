//! Pseudo-random 64-bit words with fixed output: SplitMix64, its finalizer, and a uniform number of
//! 53 bits.
//!
//! Data sets, synthetic models and weights must have the same bytes in every version of the
//! program. The crate `rand` does not promise this for its distributions, so these few lines are
//! our own. Algorithm: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
//! 2014, with the constants published by Sebastiano Vigna. It is not suitable for cryptography.

/// The golden ratio as a 64-bit fraction: the step of the state.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The SplitMix64 stream that starts from a state.
#[derive(Debug, Clone)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next word.
    #[expect(clippy::should_implement_trait, reason = "the stream never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        finalize(self.0)
    }
}

/// A bijection of words. Every input bit flips every output bit with a probability near one half.
pub fn finalize(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first word of the stream that starts from `x`: a hash of `x` that does not map 0 to 0.
pub fn mix(x: u64) -> u64 {
    finalize(x.wrapping_add(GOLDEN))
}

/// Uniform in [0, 1), from the upper 53 bits of a word: the precision of f64.
pub fn unit(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_splitmix64() {
        // The first words of the reference implementation from state 1234567.
        let mut stream = SplitMix64(1234567);
        let expected = [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
        ];
        assert_eq!([(); 3].map(|()| stream.next()), expected);
        assert_eq!(mix(1234567), expected[0]);
    }

    #[test]
    fn units_are_below_one() {
        assert_eq!(unit(0), 0.0);
        assert_eq!(unit(u64::MAX), 1.0 - f64::EPSILON / 2.0);
        assert_eq!(unit(1 << 63), 0.5);
    }
}
