//! Registers of NEON: 32 bytes are two of them, the sums of their products one.

use std::arch::aarch64::*;

/// 32 bytes, or 16 numbers of 16 bits.
pub(in super::super) type Bytes = [uint8x16_t; 2];
/// Sums of 16 or of 32 bits.
pub(super) type Sum = int16x8_t;

/// Steps of 32 columns whose products a 16-bit lane of a sum holds: four of them in each step, at
/// most 256 in magnitude.
pub(super) const NARROW_STEPS: usize = 32;

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn zero() -> Sum {
    vdupq_n_s16(0)
}

#[target_feature(enable = "neon")]
#[inline]
pub(in super::super) fn splat(byte: i8) -> Bytes {
    [vdupq_n_u8(byte as u8); 2]
}

#[target_feature(enable = "neon")]
#[inline]
pub(in super::super) fn and(a: Bytes, b: Bytes) -> Bytes {
    [vandq_u8(a[0], b[0]), vandq_u8(a[1], b[1])]
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn min(a: Bytes, b: Bytes) -> Bytes {
    [vminq_u8(a[0], b[0]), vminq_u8(a[1], b[1])]
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn add(a: Bytes, b: Bytes) -> Bytes {
    [vaddq_u8(a[0], b[0]), vaddq_u8(a[1], b[1])]
}

/// Bytes, shifted.
#[target_feature(enable = "neon")]
#[inline]
pub(in super::super) fn shift_right<const BITS: i32>(bytes: Bytes) -> Bytes {
    bytes.map(|bytes| vshrq_n_u8::<BITS>(bytes))
}

/// Sixteen bytes for `tbl` to select from.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn table(bytes: [i8; 16]) -> Bytes {
    // SAFETY: 16 bytes.
    [vreinterpretq_u8_s8(unsafe { vld1q_s8(bytes.as_ptr()) }); 2]
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn shuffle(table: Bytes, places: Bytes) -> Bytes {
    [
        vqtbl1q_u8(table[0], places[0]),
        vqtbl1q_u8(table[1], places[1]),
    ]
}

/// Sixteen bytes as numbers of 16 bits.
#[target_feature(enable = "neon")]
#[inline]
pub(in super::super) fn numbers(bytes: [u8; 16]) -> Bytes {
    // SAFETY: 16 bytes.
    let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
    [vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes)].map(|wide| vreinterpretq_u8_u16(wide))
}

/// Four times four u64, rows and columns exchanged.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn exchange(rows: [Bytes; 4]) -> [Bytes; 4] {
    let [a, b, c, d] = rows.map(|row| row.map(|half| vreinterpretq_u64_u8(half)));
    let low = |i: usize| [vzip1q_u64(a[i], b[i]), vzip1q_u64(c[i], d[i])];
    let high = |i: usize| [vzip2q_u64(a[i], b[i]), vzip2q_u64(c[i], d[i])];
    [low(0), high(0), low(1), high(1)].map(|row| row.map(|half| vreinterpretq_u8_u64(half)))
}

#[target_feature(enable = "neon")]
#[inline]
pub(in super::super) fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> Bytes {
    const { assert!(size_of::<T>() == 1) };
    let bytes: *const u8 = bytes.as_ptr().cast();
    // SAFETY: 16 of 32 elements of one byte each; any alignment will do.
    unsafe { [vld1q_u8(bytes), vld1q_u8(bytes.add(16))] }
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn store([low, high]: Bytes, to: &mut [u64; 4]) {
    let to: *mut u8 = to.as_mut_ptr().cast();
    // SAFETY: 16 of 32 bytes each.
    unsafe {
        vst1q_u8(to, low);
        vst1q_u8(to.add(16), high);
    }
}

/// Adds products of unsigned digits and signed activations to 16-bit lanes.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn add_products(mut narrow: Sum, digits: Bytes, q: Bytes) -> Sum {
    for i in 0..2 {
        let (digits, q) = (vreinterpretq_s8_u8(digits[i]), vreinterpretq_s8_u8(q[i]));
        narrow = vmlal_s8(narrow, vget_low_s8(digits), vget_low_s8(q));
        narrow = vmlal_high_s8(narrow, digits, q);
    }
    narrow
}

/// Adds products of 16-bit numbers to 32-bit lanes.
#[target_feature(enable = "neon")]
#[inline]
pub(in super::super) fn add_number_products(mut wide: int32x4_t, a: Bytes, b: Bytes) -> int32x4_t {
    for i in 0..2 {
        let (a, b) = (vreinterpretq_s16_u8(a[i]), vreinterpretq_s16_u8(b[i]));
        wide = vmlal_s16(wide, vget_low_s16(a), vget_low_s16(b));
        wide = vmlal_high_s16(wide, a, b);
    }
    wide
}

/// Adds products of 16-bit numbers to 32-bit lanes.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn add_pairs(wide: Sum, a: Bytes, b: Bytes) -> Sum {
    vreinterpretq_s16_s32(add_number_products(vreinterpretq_s32_s16(wide), a, b))
}

/// Adds `factor` times the 16-bit lanes to 32-bit lanes.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn widen(wide: Sum, narrow: Sum, factor: i16) -> Sum {
    let wide = vmlal_n_s16(vreinterpretq_s32_s16(wide), vget_low_s16(narrow), factor);
    vreinterpretq_s16_s32(vmlal_high_n_s16(wide, narrow, factor))
}

/// The sums of the 32-bit lanes of four registers.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn four_sums(sums: [Sum; 4]) -> [i32; 4] {
    sums_of_four(sums.map(|sum| vreinterpretq_s32_s16(sum)))
}

/// The sums of the lanes of four registers.
#[target_feature(enable = "neon")]
#[inline]
pub(in super::super) fn sums_of_four([a, b, c, d]: [int32x4_t; 4]) -> [i32; 4] {
    let added = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
    let mut sums = [0; 4];
    // SAFETY: four lanes.
    unsafe { vst1q_s32(sums.as_mut_ptr(), added) };
    sums
}

/// The sum of the 32-bit lanes.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn horizontal(sums: Sum) -> i64 {
    vaddlvq_s32(vreinterpretq_s32_s16(sums))
}
