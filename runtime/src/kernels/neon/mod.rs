//! NEON, alone ([`plain`]) and with the dot products (`sdot`) and matrix products (`smmla`) of
//! later CPUs.
//!
//! One token with `sdot` is multiplied with rows along registers ([`dot`]). There `i2` gives digits
//! (trit + 1) with a shift and a mask; `t5` gives trits with two comparisons and a multiplication
//! by three, as the packing defines them. Several tokens with `sdot` or `smmla` are multiplied with
//! rows in lanes ([`digits`]). Planes of heads and products with one scale per group use `sdot`
//! too ([`dotprod`]).
//!
//! NEON is part of every 64-bit Arm, so the float slots of the scalar table use it already. The
//! intrinsics of `sdot` and `smmla` are not stable, hence the assembly.
//!
//! Emulation proves the sums of these tables, not their speed: the sizes of tiles follow from the
//! number of registers, and the numbers of tokens from counts of instructions.

mod digits;
mod dotprod;
mod float;
mod plain;

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use sterna_ternary::Packing;

use super::compile::slot;
use super::dot::{self, Multiply, Product, Unpack};
use super::scalar;
use super::slots::Kernels;

/// What all tables share.
const COMMON: Kernels = Kernels {
    gemm_f16: float::gemm_f16,
    panels_f16: float::panels_f16,
    ..scalar::TABLE
};

/// A table whose products are those of `$gemm`, which wants the target features `$features`.
macro_rules! table {
    ($table:ident, $name:literal, $features:literal, $gemm:ident) => {
        static $table: Kernels = Kernels {
            name: $name,
            gemm_i2: |rows, q, q_sums, sums| {
                #[target_feature(enable = $features)]
                fn gemm_i2(product: Product) {
                    let unpack = Unpack::<4, _, _> {
                        bias: 1,
                        start: |bytes: &[u8; 32]| load(bytes),
                        step: |codes| step_i2(codes),
                    };
                    $gemm(product, unpack, |bytes| digits_i2(bytes));
                }
                let product = Product::of(Packing::I2, rows, q, q_sums, sums);
                // SAFETY: only a table calls this, and `detect` hands it out only where it found
                // `$features`.
                unsafe { gemm_i2(product) }
            },
            gemm_t5: |rows, q, q_sums, sums| {
                #[target_feature(enable = $features)]
                fn gemm_t5(product: Product) {
                    let unpack = Unpack::<5, _, _> {
                        bias: 0,
                        start: |bytes: &[u8; 32]| load(bytes),
                        step: |s| step_t5(s),
                    };
                    $gemm(product, unpack, |bytes| digits_t5(bytes));
                }
                let product = Product::of(Packing::T5, rows, q, q_sums, sums);
                // SAFETY: only a table calls this, and `detect` hands it out only where it found
                // `$features`.
                unsafe { gemm_t5(product) }
            },
            gemm_groups: slot!(dotprod::groups::gemm(product, y)),
            plane4: slot!(dotprod::codes::plane4(product, sums)),
            plane2: slot!(dotprod::codes::plane2(product, sums)),
            ..COMMON
        };
    };
}

table!(DOTPROD, "neon-dotprod", "neon,dotprod", gemm_dotprod);
table!(I8MM, "neon-i8mm", "neon,dotprod,i8mm", gemm_i8mm);

/// The tables that this CPU runs, slowest first.
pub(super) fn detect() -> impl Iterator<Item = &'static Kernels> {
    let dotprod = is_aarch64_feature_detected!("dotprod");
    let i8mm = dotprod && is_aarch64_feature_detected!("i8mm");
    [(true, &plain::KERNELS), (dotprod, &DOTPROD), (i8mm, &I8MM)]
        .into_iter()
        .filter_map(|(detected, table)| detected.then_some(table))
}

/// 32 columns.
type Bytes = [int8x16_t; 2];

/// The digit of a step is the low two bits of each byte; copies of the sign never come down that
/// far.
#[target_feature(enable = "neon")]
#[inline]
fn step_i2([a, b]: Bytes) -> (Bytes, Bytes) {
    let mask = vdupq_n_s8(3);
    (
        [vandq_s8(a, mask), vandq_s8(b, mask)],
        [vshrq_n_s8::<2>(a), vshrq_n_s8::<2>(b)],
    )
}

#[target_feature(enable = "neon")]
#[inline]
fn step_t5([a, b]: Bytes) -> (Bytes, Bytes) {
    let (high, low, three) = (vdupq_n_s8(42), vdupq_n_s8(-42), vdupq_n_s8(3));
    // A comparison that holds is -1.
    let trits = |s| vreinterpretq_s8_u8(vsubq_u8(vcltq_s8(s, low), vcgtq_s8(s, high)));
    (
        [trits(a), trits(b)],
        [vmulq_s8(a, three), vmulq_s8(b, three)],
    )
}

#[target_feature(enable = "neon")]
#[inline]
fn digits_i2(codes: int8x16_t) -> [int8x16_t; 4] {
    let (codes, mask) = (vreinterpretq_u8_s8(codes), vdupq_n_u8(3));
    [
        vandq_u8(codes, mask),
        vandq_u8(vshrq_n_u8::<2>(codes), mask),
        vandq_u8(vshrq_n_u8::<4>(codes), mask),
        vshrq_n_u8::<6>(codes),
    ]
    .map(|digits| vreinterpretq_s8_u8(digits))
}

/// As `plain` does, for 16 bytes.
#[target_feature(enable = "neon")]
#[inline]
fn digits_t5(bytes: int8x16_t) -> [int8x16_t; 5] {
    let mut rest = veorq_u8(vreinterpretq_u8_s8(bytes), vdupq_n_u8(128));
    [bytes; 5].map(|_| {
        let digits;
        (digits, rest) = plain::times(rest, 3);
        vreinterpretq_s8_u8(digits)
    })
}

#[target_feature(enable = "neon")]
#[inline]
fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> Bytes {
    const { assert!(size_of::<T>() == 1) };
    let bytes = bytes.as_ptr().cast();
    // SAFETY: 16 of the 32 bytes each; any alignment will do.
    unsafe { [vld1q_s8(bytes), vld1q_s8(bytes.add(16))] }
}

/// Two products of a value and an activation are at most 2 · 2 · 128 in magnitude, so they fit 16
/// bits.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn smlal(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    vpadalq_s16(sums, vmlal_high_s8(low, a, b))
}

/// `sums[i]` += Σ `a[4 i + c]` · `b[4 i + c]` over four c.
#[target_feature(enable = "neon,dotprod")]
#[inline]
pub(super) fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes registers only; the function has the feature.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inlateout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// `sums[2 i + j]` += Σ `a[8 i + c]` · `b[8 j + c]` over eight c.
#[target_feature(enable = "neon,i8mm")]
#[inline]
pub(super) fn smmla(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes registers only; the function has the feature.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inlateout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

#[target_feature(enable = "neon,dotprod")]
#[inline]
fn gemm_dotprod<const STEPS: usize>(
    product: Product,
    unpack: Unpack<
        STEPS,
        impl Fn(&[u8; 32]) -> Bytes + Copy,
        impl Fn(Bytes) -> (Bytes, Bytes) + Copy,
    >,
    digits: impl Fn(int8x16_t) -> [int8x16_t; STEPS] + Copy,
) {
    if product.tokens() == 1 {
        return gemv(product, unpack);
    }
    let (operands, sums) = product.into_operands();
    digits::gemm_dotprod(operands, sums, digits);
}

#[target_feature(enable = "neon,dotprod,i8mm")]
#[inline]
fn gemm_i8mm<const STEPS: usize>(
    product: Product,
    unpack: Unpack<
        STEPS,
        impl Fn(&[u8; 32]) -> Bytes + Copy,
        impl Fn(Bytes) -> (Bytes, Bytes) + Copy,
    >,
    digits: impl Fn(int8x16_t) -> [int8x16_t; STEPS] + Copy,
) {
    if product.tokens() == 1 {
        return gemv(product, unpack);
    }
    let (operands, sums) = product.into_operands();
    digits::gemm_i8mm(operands, sums, digits);
}

/// One token with `sdot`.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn gemv<const STEPS: usize>(
    product: Product,
    unpack: Unpack<
        STEPS,
        impl Fn(&[u8; 32]) -> Bytes + Copy,
        impl Fn(Bytes) -> (Bytes, Bytes) + Copy,
    >,
) {
    let multiply = Multiply {
        zero: vdupq_n_s32(0),
        load: |q: &[i8; 32]| load(q),
        dot: |sums, a: Bytes, b: Bytes| sdot(sdot(sums, a[0], b[0]), a[1], b[1]),
        sum: |sums| vaddvq_s32(sums),
    };
    dot::gemv(product, unpack, multiply);
}

/// (low of a, low of b) and (high of a, high of b).
#[target_feature(enable = "neon")]
#[inline]
fn halves(a: int8x16_t, b: int8x16_t) -> Bytes {
    let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
    [
        vreinterpretq_s8_s64(vzip1q_s64(a, b)),
        vreinterpretq_s8_s64(vzip2q_s64(a, b)),
    ]
}
