//! `t5`: five weights per byte, 1.6 bits per weight. Fastest where memory bandwidth is the
//! bottleneck.
//!
//! A block is 160 columns in 32 bytes. Byte j (0..32) holds the trits of columns j, 32 + j, 64 + j,
//! 96 + j and 128 + j. With digits d₀ … d₄ = trit + 1 and v = 81 d₀ + 27 d₁ + 9 d₂ + 3 d₃ + d₄
//! (0..243), the byte is ⌈256 v / 243⌉ xor 0x80.
//!
//! As a signed number s, the byte is v as a fraction of the full circle, centred on the all-zero
//! trits: the first trit is +1 if s > 42, -1 if s < -42 and 0 if not; 3 s (mod 256) moves the next
//! trit to the same position. A kernel needs neither division nor table: two comparisons and two
//! additions per trit. The ceiling keeps each digit exact. 13 of the 256 byte values are never
//! written.

pub(super) const BLOCK_COLUMNS: usize = 160;
const LANES: usize = 32;

/// Values of s whose first trit is 0. The first trit is +1 above this range and -1 below it.
const MIDDLE: std::ops::RangeInclusive<i8> = -42..=42;

fn encode(digits: [u8; 5]) -> u8 {
    let v = digits.iter().fold(0u32, |v, d| v * 3 + u32::from(*d));
    ((v * 256).div_ceil(243) as u8) ^ 0x80
}

fn decode(byte: u8) -> [i8; 5] {
    let mut s = byte as i8;
    [(); 5].map(|()| {
        let trit = i8::from(s > *MIDDLE.end()) - i8::from(s < *MIDDLE.start());
        s = s.wrapping_mul(3);
        trit
    })
}

pub(super) fn pack_block(trits: &[i8], bytes: &mut [u8]) {
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = encode(std::array::from_fn(|n| (trits[n * LANES + j] + 1) as u8));
    }
}

/// Unpacks a block. Returns false if it contains a byte that [`encode`] never returns.
pub(super) fn unpack_block(bytes: &[u8], trits: &mut [i8]) -> bool {
    let mut valid = true;
    for (j, byte) in bytes.iter().enumerate() {
        let decoded = decode(*byte);
        for (n, trit) in decoded.into_iter().enumerate() {
            trits[n * LANES + j] = trit;
        }
        valid &= encode(decoded.map(|t| (t + 1) as u8)) == *byte;
    }
    valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_243_bytes_decode_to_what_they_encode() {
        let mut seen = std::collections::HashSet::new();
        for v in 0..243u32 {
            let digits = [81, 27, 9, 3, 1].map(|p| (v / p % 3) as u8);
            let byte = encode(digits);
            assert!(seen.insert(byte));
            assert_eq!(decode(byte).map(|t| (t + 1) as u8), digits, "v = {v}");
        }
    }

    #[test]
    fn zero_trits_are_the_zero_byte_rounded_up() {
        assert_eq!(encode([1; 5]), 0x00);
        assert_eq!(encode([0; 5]), 0x80);
        assert_eq!(encode([2; 5]), 0x7f);
    }
}
