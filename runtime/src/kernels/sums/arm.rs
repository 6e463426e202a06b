//! Sums in registers of 128 bits, and bytes of 16 tokens, with NEON.

use std::arch::aarch64::*;

use super::Sums;

/// The bytes of 16 tokens.
pub(in super::super) type Sixteen = int8x16_t;

#[inline(always)]
pub(in super::super) fn no_bytes() -> Sixteen {
    // SAFETY: every 64-bit Arm has NEON.
    unsafe { vdupq_n_s8(0) }
}

/// Eight bytes, in the lower half.
#[inline(always)]
pub(in super::super) fn load_eight(bytes: &[i8; 8]) -> Sixteen {
    // SAFETY: every 64-bit Arm has NEON; eight bytes.
    unsafe { vcombine_s8(vld1_s8(bytes.as_ptr()), vdup_n_s8(0)) }
}

/// The upper half, in the lower one.
#[inline(always)]
pub(in super::super) fn upper_half(bytes: Sixteen) -> Sixteen {
    // SAFETY: every 64-bit Arm has NEON.
    unsafe { vextq_s8::<8>(bytes, bytes) }
}

/// Bytes of a and b in turn: those of the lower halves, and those of the upper ones.
#[inline(always)]
pub(in super::super) fn interleave(a: Sixteen, b: Sixteen) -> [Sixteen; 2] {
    // SAFETY: every 64-bit Arm has NEON.
    unsafe { [vzip1q_s8(a, b), vzip2q_s8(a, b)] }
}

/// Four rows of four sums, rows and columns exchanged.
#[inline(always)]
pub(in super::super) fn four_by_four(rows: [&[i32; 4]; 4]) -> [[i32; 4]; 4] {
    // SAFETY: every 64-bit Arm has NEON; four lanes each.
    unsafe {
        let [a, b, c, d] = rows.map(|row| vld1q_s32(row.as_ptr()));
        let pairs = [vtrn1q_s32(a, b), vtrn2q_s32(a, b)];
        let more = [vtrn1q_s32(c, d), vtrn2q_s32(c, d)];
        let mut columns = [[0; 4]; 4];
        for i in 0..2 {
            let (pair, next) = (
                vreinterpretq_s64_s32(pairs[i]),
                vreinterpretq_s64_s32(more[i]),
            );
            let halves = [vzip1q_s64(pair, next), vzip2q_s64(pair, next)];
            for (half, column) in halves.into_iter().enumerate() {
                vst1q_s32(
                    columns[2 * half + i].as_mut_ptr(),
                    vreinterpretq_s32_s64(column),
                );
            }
        }
        columns
    }
}

impl Sums for int16x8_t {
    const TOKENS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: every 64-bit Arm has NEON.
        unsafe { vdupq_n_s16(0) }
    }

    #[inline(always)]
    unsafe fn widen([a, _]: [Sixteen; 2]) -> Self {
        // SAFETY: every 64-bit Arm has NEON.
        unsafe { vmovl_s8(vget_low_s8(a)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const i16) -> Self {
        // SAFETY: the caller gives a part of an entry.
        unsafe { vld1q_s16(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the caller gives a part of an entry.
        unsafe { vst1q_s16(to, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: every 64-bit Arm has NEON.
        unsafe { vaddq_s16(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: every 64-bit Arm has NEON.
        unsafe { vsubq_s16(self, other) }
    }

    #[inline(always)]
    unsafe fn add_to(self, to: *mut i32) {
        // SAFETY: the caller gives eight sums.
        unsafe {
            vst1q_s32(to, vaddw_s16(vld1q_s32(to), vget_low_s16(self)));
            let to = to.add(4);
            vst1q_s32(to, vaddw_high_s16(vld1q_s32(to), self));
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32) {
        // SAFETY: the caller gives eight sums.
        unsafe {
            let halves = [vmovl_s16(vget_low_s16(self)), vmovl_high_s16(self)];
            for (half, sums) in halves.into_iter().enumerate() {
                let to = to.add(4 * half);
                let scaled = vmulq_n_f32(vcvtq_f32_s32(sums), scale);
                vst1q_f32(to, vaddq_f32(vld1q_f32(to), scaled));
            }
        }
    }
}
