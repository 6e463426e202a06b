//! The digits of `t5`. With b = B ⊕ 128, a digit is the integer part of 3 b / 256, and the next b
//! is the rest.

use std::arch::aarch64::*;

use super::registers::Bytes;

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn digits_t5(bytes: Bytes) -> [Bytes; 5] {
    let mut rest = bytes.map(|bytes| veorq_u8(bytes, vdupq_n_u8(128)));
    let mut digits = [bytes; 5];
    for digits in &mut digits {
        for i in 0..2 {
            (digits[i], rest[i]) = times(rest[i], 3);
        }
    }
    digits
}

/// The rank of the first four digits of each byte, the integer part of 81 b / 256, and the fifth
/// digit.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn four_and_fifth(bytes: Bytes) -> [Bytes; 2] {
    let [mut four, mut fifth] = [bytes; 2];
    for i in 0..2 {
        let rest;
        (four[i], rest) = times(veorq_u8(bytes[i], vdupq_n_u8(128)), 81);
        (fifth[i], _) = times(rest, 3);
    }
    [four, fifth]
}

/// The high and the low bytes of the products with `factor`.
#[target_feature(enable = "neon")]
#[inline]
pub(in super::super) fn times(bytes: uint8x16_t, factor: u8) -> (uint8x16_t, uint8x16_t) {
    let low = vreinterpretq_u8_u16(vmull_u8(vget_low_u8(bytes), vdup_n_u8(factor)));
    let high = vreinterpretq_u8_u16(vmull_high_u8(bytes, vdupq_n_u8(factor)));
    (vuzp2q_u8(low, high), vuzp1q_u8(low, high))
}
