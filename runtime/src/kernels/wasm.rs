//! WebAssembly with 128-bit vectors: products of bytes in 16-bit lanes, added in pairs to 32-bit
//! lanes. Values are found as in `neon`.
//!
//! A module with these instructions does not load where they are missing, so there is nothing to
//! detect: the table is there if the crate is compiled with `simd128`, and then the float slots of
//! the scalar table use vectors already.

use std::arch::wasm32::*;

use sterna_ternary::Packing;

use super::dot::{self, Multiply, Product, Unpack};
use super::slots::Kernels;
use super::{groups, scalar};

pub(super) static KERNELS: Kernels = Kernels {
    name: "simd128",
    gemm_i2: |rows, q, q_sums, sums| {
        let unpack = Unpack::<4, _, _> {
            bias: 1,
            start: load,
            step: step_i2,
        };
        gemm(Product::of(Packing::I2, rows, q, q_sums, sums), unpack);
    },
    gemm_t5: |rows, q, q_sums, sums| {
        let unpack = Unpack::<5, _, _> {
            bias: 0,
            start: load,
            step: step_t5,
        };
        gemm(Product::of(Packing::T5, rows, q, q_sums, sums), unpack);
    },
    gemm_groups: |product, y| groups::by_groups(KERNELS.gemm_i2, product, y),
    ..scalar::KERNELS
};

/// 32 columns.
type Bytes = [v128; 2];

/// The digit of a step is the low two bits of each byte.
#[inline]
fn step_i2([a, b]: Bytes) -> (Bytes, Bytes) {
    let mask = i8x16_splat(3);
    (
        [v128_and(a, mask), v128_and(b, mask)],
        [u8x16_shr(a, 2), u8x16_shr(b, 2)],
    )
}

#[inline]
fn step_t5([a, b]: Bytes) -> (Bytes, Bytes) {
    let (high, low) = (i8x16_splat(42), i8x16_splat(-42));
    // A comparison that holds is -1.
    let trits = |s| i8x16_sub(i8x16_lt(s, low), i8x16_gt(s, high));
    let thrice = |s| i8x16_add(s, i8x16_add(s, s));
    ([trits(a), trits(b)], [thrice(a), thrice(b)])
}

#[inline]
fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> Bytes {
    const { assert!(size_of::<T>() == 1) };
    let bytes = bytes.as_ptr().cast::<v128>();
    // SAFETY: 16 of the 32 bytes each; any alignment will do.
    unsafe { [v128_load(bytes), v128_load(bytes.add(1))] }
}

/// Four products of a value and an activation are at most 4 · 2 · 128 in magnitude, so they fit 16
/// bits.
#[inline]
fn dot32(sums: v128, [a0, a1]: Bytes, [b0, b1]: Bytes) -> v128 {
    let twos = |a, b| i16x8_add(i16x8_extmul_low_i8x16(a, b), i16x8_extmul_high_i8x16(a, b));
    let fours = i16x8_add(twos(a0, b0), twos(a1, b1));
    i32x4_add(sums, i32x4_extadd_pairwise_i16x8(fours))
}

fn gemm<const STEPS: usize>(
    product: Product,
    unpack: Unpack<
        STEPS,
        impl Fn(&[u8; 32]) -> Bytes + Copy,
        impl Fn(Bytes) -> (Bytes, Bytes) + Copy,
    >,
) {
    let multiply = Multiply {
        zero: i32x4_splat(0),
        load: load::<i8>,
        dot: dot32,
        sum: |sums| {
            let sums = i32x4_add(sums, i64x2_shuffle::<1, 0>(sums, sums));
            i32x4_extract_lane::<0>(sums) + i32x4_extract_lane::<1>(sums)
        },
    };
    dot::gemm::<2, _, _, _, _>(product, unpack, multiply);
}
