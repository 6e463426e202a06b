//! Registers of NEON, whose sums have 32 bits, since `sdot` adds four products to each lane.

use std::arch::aarch64::*;

pub(super) use super::super::plain::registers::{
    Bytes, add_number_products as add_pairs, and, load, numbers, shift_right, splat,
    sums_of_four as four_sums,
};
use super::super::sdot;

/// Sums of 32 bits.
pub(super) type Sum = int32x4_t;

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn zero() -> Sum {
    vdupq_n_s32(0)
}

/// Adds products of unsigned digits and signed activations.
#[target_feature(enable = "neon,dotprod")]
#[inline]
pub(super) fn add_products(mut sums: Sum, digits: Bytes, q: Bytes) -> Sum {
    for i in 0..2 {
        let (digits, q) = (vreinterpretq_s8_u8(digits[i]), vreinterpretq_s8_u8(q[i]));
        sums = sdot(sums, digits, q);
    }
    sums
}

/// Adds `factor` times the other sums.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn widen(sums: Sum, others: Sum, factor: i16) -> Sum {
    vmlaq_n_s32(sums, others, i32::from(factor))
}

/// The sum of the lanes.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn horizontal(sums: Sum) -> i64 {
    vaddlvq_s32(sums)
}
