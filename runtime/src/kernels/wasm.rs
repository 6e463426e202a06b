//! WebAssembly with 128-bit vectors. There is a product of 16-bit pairs (`i32x4.dot_i16x8_s`), and
//! none of bytes.
//!
//! One token with `i2`: a 16-bit lane of packed bytes holds four codes of an even and four of an
//! odd byte. A mask leaves a code where it is, as code · 4ⁿ, and the activation beside it is
//! multiplied with 4³⁻ⁿ beforehand, so that every product counts 64 times, and nothing is shifted
//! but the odd bytes. Planes of tables are read in the same way. With `t5` and several tokens,
//! values become bytes as in `neon`.
//!
//! A module with these instructions does not load where they are missing, so there is nothing to
//! detect: the table is there if the crate is compiled with `simd128`, and then the float slots of
//! the scalar table use vectors already.

use std::arch::wasm32::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;
use sterna_ternary::table::{GROUP, PLANE_BYTES};

use super::codes::{Int16, PlaneProduct};
use super::dot::{self, Multiply, Product, Unpack};
use super::shape::GemmShape;
use super::slots::Kernels;
use super::{groups, scalar};

pub(super) static KERNELS: Kernels = Kernels {
    name: "simd128",
    gemm_i2,
    gemm_t5,
    gemm_groups: |product, y| groups::by_groups(gemm_i2, product, y),
    plane4,
    plane2,
    ..scalar::KERNELS
};

/// 32 columns.
type Bytes = [v128; 2];

/// Activations beside the codes of 16 bytes with four codes each: those of the even bytes, then
/// those of the odd ones.
type Wide4 = [[v128; 4]; 2];
/// The same of 16 bytes with two codes each.
type Wide2 = [[v128; 2]; 2];

#[inline]
fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> Bytes {
    const { assert!(size_of::<T>() == 1) };
    let bytes = bytes.as_ptr().cast::<v128>();
    // SAFETY: 16 of the 32 bytes each; any alignment will do.
    unsafe { [v128_load(bytes), v128_load(bytes.add(1))] }
}

#[inline]
fn sum_lanes(sums: v128) -> i32 {
    let sums = i32x4_add(sums, i64x2_shuffle::<1, 0>(sums, sums));
    i32x4_extract_lane::<0>(sums) + i32x4_extract_lane::<1>(sums)
}

#[inline]
fn dot(sums: v128, a: v128, b: v128) -> v128 {
    i32x4_add(sums, i32x4_dot_i16x8(a, b))
}

/// Even and odd bytes, as numbers of 16 bits with a sign.
#[inline]
fn even_and_odd(bytes: v128) -> [v128; 2] {
    [i16x8_shr(i16x8_shl(bytes, 8), 8), i16x8_shr(bytes, 8)]
}

/// Activations of a block of `i2`, for both halves of its 32 bytes.
#[inline]
fn wide4(q: &[[i8; 32]; 4]) -> [Wide4; 2] {
    let mut wide = [[[i16x8_splat(0); 4]; 2]; 2];
    for (n, q) in q.iter().enumerate() {
        for (half, bytes) in load(q).into_iter().enumerate() {
            let [even, odd] = even_and_odd(bytes);
            wide[half][0][n] = i16x8_shl(even, 2 * (3 - n as u32));
            wide[half][1][n] = i16x8_shl(odd, 2 * (3 - n as u32));
        }
    }
    wide
}

/// 64 · Σ code · q over the four codes of each of 16 bytes, added to the lanes, for some rows. A
/// lane grows by at most 8 · 2 · 192 · 128, less than 2¹⁹. Activations are loaded once for all rows.
#[inline]
fn add_codes4<const N: usize>(sums: &mut [v128; N], bytes: [v128; N], [even, odd]: &Wide4) {
    let high = bytes.map(|bytes| u16x8_shr(bytes, 8));
    for n in 0..4 {
        let mask = i16x8_splat(3 << (2 * n));
        for r in 0..N {
            sums[r] = dot(sums[r], v128_and(bytes[r], mask), even[n]);
        }
        for r in 0..N {
            sums[r] = dot(sums[r], v128_and(high[r], mask), odd[n]);
        }
    }
}

/// Most blocks whose products a lane can add.
const MOST_BLOCKS: usize = 1 << 11;

fn gemm_i2(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let shape = GemmShape::of(Packing::I2, rows, q, q_sums, sums);
    if shape.tokens > 1 || shape.blocks > MOST_BLOCKS {
        let unpack = Unpack::<4, _, _> {
            bias: 1,
            start: load,
            step: step_i2,
        };
        return gemm(Product::of(Packing::I2, rows, q, q_sums, sums), unpack);
    }
    let (q, _) = q.as_chunks::<32>().0.as_chunks();
    let wide: Vec<[Wide4; 2]> = q.iter().map(wide4).collect();
    let rows = rows.as_chunks::<BLOCK_BYTES>().0;
    let row = |r: usize| &rows[r * shape.blocks..][..shape.blocks];
    let (fours, rest) = sums.as_chunks_mut::<4>();
    for (i, sums) in fours.iter_mut().enumerate() {
        let rows = [0, 1, 2, 3].map(|r| row(4 * i + r));
        *sums = dots(rows, &wide).map(|sum| sum - q_sums[0]);
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        let [dot] = dots([row(fours.len() * 4 + i)], &wide);
        *sum = dot - q_sums[0];
    }
}

/// Σ code · q of each row.
#[inline]
fn dots<const N: usize>(rows: [&[[u8; BLOCK_BYTES]]; N], wide: &[[Wide4; 2]]) -> [i32; N] {
    let rows = rows.map(|row| &row[..wide.len()]);
    let mut sums = [i32x4_splat(0); N];
    for (b, wide) in wide.iter().enumerate() {
        let bytes = rows.map(|row| load(&row[b]));
        for (half, wide) in wide.iter().enumerate() {
            add_codes4(&mut sums, bytes.map(|bytes| bytes[half]), wide);
        }
    }
    sums.map(|sums| sum_lanes(i32x4_shr(sums, 6)))
}

fn gemm_t5(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let shape = GemmShape::of(Packing::T5, rows, q, q_sums, sums);
    if shape.tokens > 1 {
        let unpack = Unpack::<5, _, _> {
            bias: 0,
            start: load,
            step: step_t5,
        };
        return gemm(Product::of(Packing::T5, rows, q, q_sums, sums), unpack);
    }
    let (q, _) = q.as_chunks::<32>().0.as_chunks::<5>();
    let rows = rows.as_chunks::<BLOCK_BYTES>().0;
    for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(shape.blocks)) {
        let mut total = i32x4_splat(0);
        for (block, q) in row.iter().zip(q) {
            total = i32x4_add(total, i32x4_extadd_pairwise_i16x8(trits_by_q(block, q)));
        }
        *sum = sum_lanes(total);
    }
}

/// Σ trit · q over a block of `t5` in lanes of 16 bits. Activations of trits +1 are added in pairs,
/// and those of trits -1 taken away: ten pairs of at most 256 in magnitude.
#[inline]
fn trits_by_q(block: &[u8; BLOCK_BYTES], q: &[[i8; 32]; 5]) -> v128 {
    let (high, low) = (i8x16_splat(42), i8x16_splat(-42));
    let mut state = load(block);
    let mut sums = i16x8_splat(0);
    for q in q {
        for (s, q) in state.iter_mut().zip(load(q)) {
            let (plus, minus) = (i8x16_gt(*s, high), i8x16_lt(*s, low));
            sums = i16x8_add(sums, i16x8_extadd_pairwise_i8x16(v128_and(plus, q)));
            sums = i16x8_sub(sums, i16x8_extadd_pairwise_i8x16(v128_and(minus, q)));
            *s = i8x16_add(*s, i8x16_add(*s, *s));
        }
    }
    sums
}

/// Activations of a group beside the first plane: 16 bits where there are low bytes.
#[inline]
fn wide2(x: &Int16, g: usize) -> [Wide2; 4] {
    let mut wide = [[[i16x8_splat(0); 2]; 2]; 4];
    for run in 0..4 {
        // Columns 32 · run and on are code run % 2 of the bytes of half run / 2.
        let part = |bytes: &[i8; GROUP]| load(&bytes.as_chunks::<32>().0[run]);
        let low = x.low.get(g).map_or([i16x8_splat(0); 2], part);
        for (i, (high, low)) in part(&x.high[g]).into_iter().zip(low).enumerate() {
            let [low_even, low_odd] = even_and_odd(low);
            let high_odd = v128_and(high, i16x8_splat(-256));
            let quarter = &mut wide[run / 2 * 2 + i];
            quarter[0][run % 2] = i16x8_add(i16x8_shl(high, 8), low_even);
            quarter[1][run % 2] = i16x8_add(high_odd, low_odd);
        }
    }
    wide
}

/// Σ q of a group, where the sums of high and low bytes are those of [`Int16`].
fn group_sum(x: &Int16, g: usize) -> i32 {
    let of = |sums: &[[i16; 16]]| sums.as_flattened().get(g).map_or(0, |sum| i32::from(*sum));
    256 * of(&x.group_sums[0]) + of(&x.group_sums[1])
}

fn plane4(product: PlaneProduct, sums: &mut [i64]) {
    /// Σ (2 code − 15) · q of a group.
    #[inline]
    fn group(bytes: &[u8; PLANE_BYTES[0]], (wide, sum): &([Wide2; 4], i32)) -> i32 {
        let mask = i16x8_splat(15);
        let [first, second] = bytes.as_chunks::<32>().0 else {
            unreachable!("a plane has 64 bytes for a group");
        };
        let ([a, b], [c, d]) = (load(first), load(second));
        let mut sums = i32x4_splat(0);
        for (bytes, [even, odd]) in [a, b, c, d].into_iter().zip(wide) {
            sums = dot(sums, v128_and(bytes, mask), even[0]);
            sums = dot(sums, v128_and(u16x8_shr(bytes, 4), mask), even[1]);
            sums = dot(sums, v128_and(u16x8_shr(bytes, 8), mask), odd[0]);
            sums = dot(sums, u16x8_shr(bytes, 12), odd[1]);
        }
        2 * sum_lanes(sums) - 15 * sum
    }
    plane(product, sums, |x, g| (wide2(x, g), group_sum(x, g)), group);
}

fn plane2(product: PlaneProduct, sums: &mut [i64]) {
    /// 256 · Σ (2 code − 3) · high of a group.
    #[inline]
    fn group(bytes: &[u8; PLANE_BYTES[1]], (wide, sum): &([Wide4; 2], i32)) -> i32 {
        let [a, b] = load(bytes);
        let mut sums = [i32x4_splat(0)];
        add_codes4(&mut sums, [a], &wide[0]);
        add_codes4(&mut sums, [b], &wide[1]);
        256 * (2 * sum_lanes(i32x4_shr(sums[0], 6)) - 3 * sum)
    }
    let of = |x: &Int16, g: usize| {
        let (runs, _) = x.high[g].as_chunks::<32>().0.as_chunks();
        let sum = i32::from(x.group_sums[0].as_flattened()[g]);
        (wide4(&runs[0]), sum)
    };
    plane(product, sums, of, group);
}

/// A plane of a table: `wide` prepares a token's activations of a group, `group` multiplies.
#[inline]
fn plane<const BYTES: usize, W>(
    product: PlaneProduct,
    sums: &mut [i64],
    wide: impl Fn(&Int16, usize) -> W,
    group: impl Fn(&[u8; BYTES], &W) -> i32,
) {
    let (bytes, n) = product.checked::<BYTES>(sums);
    for (x, sums) in product.x.iter().zip(sums.chunks_exact_mut(n.max(1))) {
        let wide: Vec<W> = (0..x.groups()).map(|g| wide(x, g)).collect();
        let rows = bytes.chunks_exact(wide.len());
        let multipliers = product.multipliers.chunks_exact(wide.len());
        for ((sum, row), multipliers) in sums.iter_mut().zip(rows).zip(multipliers) {
            let groups = row.iter().zip(&wide).zip(multipliers);
            let row: i64 = groups
                .map(|((bytes, wide), m)| i64::from(*m) * i64::from(group(bytes, wide)))
                .sum();
            *sum += product.weight * row;
        }
    }
}

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
        sum: sum_lanes,
    };
    dot::gemm::<2, _, _, _, _>(product, unpack, multiply);
}
