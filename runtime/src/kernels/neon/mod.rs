//! NEON, alone and with the dot products (`sdot`) and matrix products (`smmla`) of later CPUs.
//!
//! `i2` gives digits (trit + 1) with a shift and a mask; `t5` gives trits with two comparisons and
//! a multiplication by three, as the packing defines them. All are signed bytes, so `sdot` and
//! `smmla` serve. `smmla` multiplies two rows with two tokens, eight columns at a time: halves of
//! neighbouring rows, and of neighbouring tokens, are put into one register.
//!
//! NEON is part of every 64-bit Arm, so the float slots of the scalar table use it already. The
//! intrinsics of `sdot` and `smmla` are not stable, hence the assembly.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use sterna_ternary::Packing;

use super::dot::{self, CACHED_STEPS, Multiply, Product, Unpack, UnpackedRows};
use super::slots::Kernels;
use super::{groups, scalar};

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
                    $gemm(product, unpack);
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
                    $gemm(product, unpack);
                }
                let product = Product::of(Packing::T5, rows, q, q_sums, sums);
                // SAFETY: only a table calls this, and `detect` hands it out only where it found
                // `$features`.
                unsafe { gemm_t5(product) }
            },
            gemm_groups: |product, y| groups::by_groups($table.gemm_i2, product, y),
            ..scalar::KERNELS
        };
    };
}

table!(NEON, "neon", "neon", gemm_neon);
table!(DOTPROD, "neon-dotprod", "neon,dotprod", gemm_dotprod);
table!(I8MM, "neon-i8mm", "neon,dotprod,i8mm", gemm_i8mm);

/// The tables that this CPU runs, slowest first.
pub(super) fn detect() -> impl Iterator<Item = &'static Kernels> {
    let dotprod = is_aarch64_feature_detected!("dotprod");
    let i8mm = dotprod && is_aarch64_feature_detected!("i8mm");
    [(true, &NEON), (dotprod, &DOTPROD), (i8mm, &I8MM)]
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

#[target_feature(enable = "neon")]
#[inline]
fn gemm_neon<const STEPS: usize>(
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
        dot: |sums, a: Bytes, b: Bytes| smlal(smlal(sums, a[0], b[0]), a[1], b[1]),
        sum: |sums| vaddvq_s32(sums),
    };
    dot::gemm::<2, _, _, _, _>(product, unpack, multiply);
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
) {
    let multiply = Multiply {
        zero: vdupq_n_s32(0),
        load: |q: &[i8; 32]| load(q),
        dot: |sums, a: Bytes, b: Bytes| sdot(sdot(sums, a[0], b[0]), a[1], b[1]),
        sum: |sums| vaddvq_s32(sums),
    };
    dot::gemm::<4, _, _, _, _>(product, unpack, multiply);
}

/// One token as with `sdot`, more in tiles of eight rows by four tokens.
#[target_feature(enable = "neon,dotprod,i8mm")]
#[inline]
fn gemm_i8mm<const STEPS: usize>(
    product: Product,
    unpack: Unpack<
        STEPS,
        impl Fn(&[u8; 32]) -> Bytes + Copy,
        impl Fn(Bytes) -> (Bytes, Bytes) + Copy,
    >,
) {
    if product.tokens() == 1 {
        return gemm_dotprod(product, unpack);
    }
    let arrange = |cache: &mut UnpackedRows<Bytes, 8>, steps: usize| {
        for [first, second] in cache.as_chunks_mut::<2>().0 {
            for (first, second) in first.iter_mut().zip(second).take(steps) {
                let (a, b) = (*first, *second);
                (*first, *second) = (halves(a[0], b[0]), halves(a[1], b[1]));
            }
        }
    };
    let tile = |cache: &UnpackedRows<Bytes, 8>, q: [&[[i8; 32]]; 4]| {
        let steps = q[0].len().min(CACHED_STEPS);
        let q = q.map(|q| &q[..steps]);
        let mut sums = [[vdupq_n_s32(0); 4]; 2]; // (token pairs, row pairs)
        for i in 0..steps {
            let q = q.map(|q| load(&q[i]));
            for half in 0..2 {
                let [low, high] = halves(q[0][half], q[1][half]);
                let [low2, high2] = halves(q[2][half], q[3][half]);
                for r in 0..4 {
                    let [a, b] = cache[2 * r + half][i];
                    sums[0][r] = smmla(smmla(sums[0][r], a, low), b, high);
                    sums[1][r] = smmla(smmla(sums[1][r], a, low2), b, high2);
                }
            }
        }
        let mut dots = [[0; 8]; 4];
        for ([first, second], sums) in dots.as_chunks_mut().0.iter_mut().zip(sums) {
            for (pair, sums) in sums.into_iter().enumerate() {
                first[2 * pair] = vgetq_lane_s32::<0>(sums);
                second[2 * pair] = vgetq_lane_s32::<1>(sums);
                first[2 * pair + 1] = vgetq_lane_s32::<2>(sums);
                second[2 * pair + 1] = vgetq_lane_s32::<3>(sums);
            }
        }
        dots
    };
    dot::tiles(product, unpack, [vdupq_n_s8(0); 2], arrange, tile);
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
