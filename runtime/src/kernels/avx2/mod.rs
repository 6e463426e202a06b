//! AVX2: integer products with `vpmaddubsw` on unsigned digits (trit + 1) and signed activations, and for many
//! tokens with tables (see `lut`).
//!
//! Σ trit · q = Σ digit · q − Σ q. A pair of products is at most 2 · 2 · 128 = 512 in magnitude, so 63 of them
//! fit 16 bits for any int8, and 64 reach exactly -32768: sums stay in 16-bit lanes for at most 64 steps of
//! 32 columns and are then widened.
//!
//! `t5` reads a byte as an unsigned fraction of 256: nine times it is two digits, 3 d₀ + d₁, in the high byte
//! and the fraction of the next ones in the low byte. So even and odd bytes live in 16-bit lanes, one
//! `vpmaddubsw` with 9 steps to the next two digits, and `vpshufb` tells the two apart.
//!
//! One token: four rows at once, so that four streams are read. `i2` leaves every other code at its place, two
//! bits up: its products are four times as large and have sums of their own.
//!
//! Some tokens: four rows are unpacked to digits in the first-level cache once for all tokens, and tiles of
//! four rows by two tokens keep their sums in registers.

mod codes;
pub(super) mod dense;
mod float;
pub(super) mod groups;
pub(super) mod lut;
pub(super) mod panels;
mod shuffle;

use std::arch::x86_64::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::{Kernels, Shape};

super::float::compile_for!("avx2");

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx2",
    gemm_i2: |rows, q, q_sums, sums| {
        let shape = Shape::of(Packing::I2, rows, q, q_sums, sums);
        // SAFETY: as in `detect`; the shape was checked.
        unsafe { gemm_i2(shape, rows, q, q_sums, sums, lut::LOOPS) }
    },
    gemm_t5: |rows, q, q_sums, sums| {
        let shape = Shape::of(Packing::T5, rows, q, q_sums, sums);
        // SAFETY: as in `detect`; the shape was checked.
        unsafe { gemm_t5(shape, rows, q, q_sums, sums, lut::LOOPS) }
    },
    gemm_groups: |product, y| {
        let (tokens, rows) = product.shape(y);
        // SAFETY: as in `detect`; the shape was checked.
        unsafe { groups::gemm(product, tokens, rows, y) }
    },
    gemm_q8_0: |product, y| {
        // SAFETY: as in `detect`.
        unsafe { dense::gemm_q8_0(product, y) }
    },
    gemm_q4_0: |product, y| {
        // SAFETY: as in `detect`.
        unsafe { dense::gemm_q4_0(product, y) }
    },
    plane4: |x, rows, multipliers, weight, sums| {
        // SAFETY: as in `detect`.
        unsafe { codes::plane4(x, rows, multipliers, weight, sums) }
    },
    plane2: |x, rows, multipliers, weight, sums| {
        // SAFETY: as in `detect`.
        unsafe { codes::plane2(x, rows, multipliers, weight, sums) }
    },
    quantize: |x, q| {
        // SAFETY: as in `detect`.
        unsafe { float::quantize(x, q) }
    },
    quantize_int16: compiled::quantize_int16,
    sum: compiled::sum,
    dequantize: compiled::dequantize,
    quantize_blocks: compiled::quantize_blocks,
    gemm_f32: |x, columns, rows, y| {
        // SAFETY: as in `detect`.
        unsafe { dense::gemm_f32(x, columns, rows, y) }
    },
    gemm_f16: |x, columns, rows, y| {
        // SAFETY: as in `detect`.
        unsafe { dense::gemm_f16(x, columns, rows, y) }
    },
    gemm_bf16: |x, columns, rows, y| {
        // SAFETY: as in `detect`.
        unsafe { dense::gemm_bf16(x, columns, rows, y) }
    },
    panels_f32: |product, y| {
        // SAFETY: as in `detect`.
        unsafe { panels::panels_f32(product, y) }
    },
    panels_f16: |product, y| {
        // SAFETY: as in `detect`.
        unsafe { panels::panels_f16(product, y) }
    },
    panels_i8: |product, y| {
        // SAFETY: as in `detect`.
        unsafe { panels::panels_i8(product, y) }
    },
    softmax_block: compiled::softmax_block,
    softmax_block_i8: compiled::softmax_block_i8,
    merge: compiled::merge,
    quantize_i16: compiled::quantize_i16,
    rms_norm: compiled::rms_norm,
    silu_mul: compiled::silu_mul,
    relu2_mul: compiled::relu2_mul,
    gelu_tanh_mul: compiled::gelu_tanh_mul,
    rotate: compiled::rotate,
    add: compiled::add,
};

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<&'static Kernels> {
    let detected = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    detected.then_some(&KERNELS)
}

#[target_feature(enable = "avx2")]
pub(super) fn gemm_i2(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    loops: lut::Loops,
) {
    let (low, high) = (_mm256_set1_epi8(0b11), _mm256_set1_epi8(0b1100));
    if shape.tokens <= 3 {
        let add = |[once, four_times]: [__m256i; 2], codes: __m256i, q: &[[i8; 32]; 4]| {
            let upper = _mm256_srli_epi16::<4>(codes);
            let product =
                |codes, mask, q| _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), load(q));
            [
                add(
                    once,
                    [product(codes, low, &q[0]), product(upper, low, &q[2])],
                ),
                add(
                    four_times,
                    [product(codes, high, &q[1]), product(upper, high, &q[3])],
                ),
            ]
        };
        return singly(
            shape,
            rows,
            q,
            q_sums,
            sums,
            |shape, rows, q, q_sum, sums| {
                gemv::<4, 8>(shape, rows, q, q_sum, sums, add);
            },
        );
    }
    let digits = |codes| {
        // What a 16-bit shift carries over is masked.
        let codes = [
            codes,
            _mm256_srli_epi16::<2>(codes),
            _mm256_srli_epi16::<4>(codes),
            _mm256_srli_epi16::<6>(codes),
        ];
        let mut digits = codes;
        for digits in &mut digits {
            *digits = _mm256_and_si256(*digits, low);
        }
        digits
    };
    let ranks = |rows| lut::ranks_i2(rows);
    gemm::<4>(shape, rows, q, q_sums, sums, digits, ranks, loops);
}

#[target_feature(enable = "avx2")]
pub(super) fn gemm_t5(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    loops: lut::Loops,
) {
    if shape.tokens == 1 {
        let add = |[once, _]: [__m256i; 2], bytes: __m256i, q: &[[i8; 32]; 5]| {
            let digits = digits_t5(bytes);
            let product = |n: usize| _mm256_maddubs_epi16(digits[n], load(&q[n]));
            let sum = add(once, [product(0), product(1)]);
            let sum = add(sum, [product(2), product(3)]);
            [_mm256_add_epi16(sum, product(4)), _mm256_setzero_si256()]
        };
        return gemv::<5, 12>(shape, rows, q, q_sums[0], sums, add);
    }
    let digits = |bytes| digits_t5(bytes);
    let ranks = |rows| lut::ranks_t5(rows);
    gemm::<5>(shape, rows, q, q_sums, sums, digits, ranks, loops);
}

#[target_feature(enable = "avx2")]
#[inline]
fn digits_t5(bytes: __m256i) -> [__m256i; 5] {
    let (nine, three) = (_mm256_set1_epi16(9), _mm256_set1_epi16(3));
    let first = table([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0]);
    let second = table([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0]);
    let bytes = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    let even = _mm256_maddubs_epi16(bytes, nine);
    let odd = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(9 << 8));
    let two = high_bytes(even, odd);
    let (even, odd) = (
        _mm256_maddubs_epi16(even, nine),
        _mm256_maddubs_epi16(odd, nine),
    );
    let next_two = high_bytes(even, odd);
    let (even, odd) = (
        _mm256_maddubs_epi16(even, three),
        _mm256_maddubs_epi16(odd, three),
    );
    [
        _mm256_shuffle_epi8(first, two),
        _mm256_shuffle_epi8(second, two),
        _mm256_shuffle_epi8(first, next_two),
        _mm256_shuffle_epi8(second, next_two),
        high_bytes(even, odd),
    ]
}

/// The high bytes of 16-bit lanes, of `even` in even places.
#[target_feature(enable = "avx2")]
#[inline]
fn high_bytes(even: __m256i, odd: __m256i) -> __m256i {
    let odd_places = _mm256_set1_epi16(0xff00u16 as i16);
    _mm256_blendv_epi8(_mm256_srli_epi16::<8>(even), odd, odd_places)
}

/// Sixteen bytes for `vpshufb` to select from.
#[target_feature(enable = "avx2")]
#[inline]
fn table(bytes: [i8; 16]) -> __m256i {
    // SAFETY: 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
#[inline]
fn add(sum: __m256i, [a, b]: [__m256i; 2]) -> __m256i {
    _mm256_add_epi16(_mm256_add_epi16(sum, a), b)
}

/// Rows that are computed together.
const ROWS: usize = 4;
/// Steps of 32 columns that 16-bit lanes hold.
const NARROW_STEPS: usize = 64;

/// One token. A packing is `STEPS` digits a byte and `add`, which adds the products of a block to two sums, of
/// digits and of four times digits, whose 16-bit lanes hold `NARROW` blocks.
#[target_feature(enable = "avx2")]
#[inline]
fn gemv<const STEPS: usize, const NARROW: usize>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sum: i32,
    sums: &mut [i32],
    add: impl Fn([__m256i; 2], __m256i, &[[i8; 32]; STEPS]) -> [__m256i; 2] + Copy,
) {
    let (packed, _) = rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
    let (q, _) = q.as_chunks::<32>();
    let (q, _) = q.as_chunks::<STEPS>(); // (blocks, steps)
    let row = |r: usize| &packed[r * shape.blocks..][..shape.blocks];
    let (fours, rest) = sums.as_chunks_mut::<ROWS>();
    for (i, sums) in fours.iter_mut().enumerate() {
        let rows = [0, 1, 2, 3].map(|r| row(i * ROWS + r));
        *sums = dots::<STEPS, NARROW, ROWS>(rows, q, add).map(|sum| sum - q_sum);
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        let [dot] = dots::<STEPS, NARROW, 1>([row(fours.len() * ROWS + i)], q, add);
        *sum = dot - q_sum;
    }
}

/// Σ digit · q of each row.
#[target_feature(enable = "avx2")]
#[inline]
fn dots<const STEPS: usize, const NARROW: usize, const N: usize>(
    rows: [&[[u8; BLOCK_BYTES]]; N],
    q: &[[[i8; 32]; STEPS]],
    add: impl Fn([__m256i; 2], __m256i, &[[i8; 32]; STEPS]) -> [__m256i; 2] + Copy,
) -> [i32; N] {
    let rows = rows.map(|row| &row[..q.len()]);
    let distance = prefetch_distance(N, q.len() * BLOCK_BYTES);
    let near = is_near(distance);
    let (one, four) = (_mm256_set1_epi16(1), _mm256_set1_epi16(4));
    let mut wide = [_mm256_setzero_si256(); 4]; // four times the sums of N rows
    for first in (0..q.len()).step_by(NARROW) {
        let end = q.len().min(first + NARROW);
        let mut narrow = [[_mm256_setzero_si256(); 2]; N];
        for b in first..end {
            if N > 1 {
                for line in (0..N * BLOCK_BYTES).step_by(64) {
                    let offset = b * N * BLOCK_BYTES + line + distance;
                    prefetch_near(rows[0].as_ptr().cast(), offset, near);
                }
            }
            for r in 0..N {
                narrow[r] = add(narrow[r], load(&rows[r][b]), &q[b]);
            }
        }
        for (wide, [once, four_times]) in wide.iter_mut().zip(narrow) {
            *wide = _mm256_add_epi32(*wide, _mm256_madd_epi16(once, four));
            *wide = _mm256_add_epi32(*wide, _mm256_madd_epi16(four_times, one));
        }
    }
    let sums = four_sums(wide);
    std::array::from_fn(|r| sums[r] >> 2)
}

/// A few tokens, one after the other, while a few rows are in the first-level cache.
#[inline(always)]
pub(super) fn singly(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    gemv: impl Fn(Shape, &[u8], &[i8], i32, &mut [i32]),
) {
    let row_bytes = shape.blocks * BLOCK_BYTES;
    let q_row = q.len() / shape.tokens;
    for first in (0..shape.rows).step_by(8 * ROWS) {
        let n = (8 * ROWS).min(shape.rows - first);
        let rows = &rows[first * row_bytes..][..n * row_bytes];
        let part = Shape {
            tokens: 1,
            rows: n,
            ..shape
        };
        for (t, q_sum) in q_sums.iter().enumerate() {
            let q = &q[t * q_row..][..q_row];
            gemv(
                part,
                rows,
                q,
                *q_sum,
                &mut sums[t * shape.rows + first..][..n],
            );
        }
    }
}

/// Fewest rows that are worth a table of partial sums.
const TABLE_ROWS: usize = 192;
/// Fewest tokens, out of [`lut::TOKENS`], that are.
const TABLE_TOKENS: usize = 20;

/// How many of the tokens are left to tables: whole tiles, and the rest if it has as many as `fewest`.
pub(super) fn tokens_for_tables(shape: Shape, fewest: usize) -> usize {
    match shape.tokens % lut::TOKENS {
        _ if shape.rows < TABLE_ROWS => 0,
        rest if rest < fewest => shape.tokens - rest,
        _ => shape.tokens,
    }
}

/// Several tokens. A packing is `STEPS` digits a byte, `digits`: packed bytes to digits, and the ranks of [`lut`].
#[target_feature(enable = "avx2")]
#[inline]
#[allow(clippy::too_many_arguments)]
fn gemm<const STEPS: usize>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    digits: impl Fn(__m256i) -> [__m256i; STEPS] + Copy,
    ranks: impl Fn([__m256i; 4]) -> [__m256i; STEPS] + Copy,
    loops: lut::Loops,
) {
    let tokens = tokens_for_tables(shape, TABLE_TOKENS);
    let (q, rest_q) = q.split_at(q.len() / shape.tokens * tokens);
    let (sums, rest_sums) = sums.split_at_mut(shape.rows * tokens);
    if tokens > 0 {
        let shape = Shape { tokens, ..shape };
        lut::gemm(shape, rows, q, sums, ranks, loops, None);
    }
    if tokens < shape.tokens {
        let shape = Shape {
            tokens: shape.tokens - tokens,
            ..shape
        };
        tiles(shape, rows, rest_q, &q_sums[tokens..], rest_sums, digits);
    }
}

/// Some tokens: [`NARROW_STEPS`] steps of four rows are unpacked, then all tokens pass over them by twos.
#[target_feature(enable = "avx2")]
#[inline]
fn tiles<const STEPS: usize>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    unpack: impl Fn(__m256i) -> [__m256i; STEPS] + Copy,
) {
    let Shape {
        tokens,
        rows: n,
        blocks,
    } = shape;
    for (sums, q_sum) in sums.chunks_exact_mut(n).zip(q_sums) {
        sums.fill(-q_sum);
    }
    let (packed, _) = rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
    let (q, _) = q.as_chunks::<32>(); // (tokens, steps)
    let steps = blocks * STEPS;
    let mut digits = [[_mm256_setzero_si256(); NARROW_STEPS]; ROWS];
    for first in (0..n).step_by(ROWS) {
        let rows = ROWS.min(n - first);
        for first_block in (0..blocks).step_by(NARROW_STEPS / STEPS) {
            let end = blocks.min(first_block + NARROW_STEPS / STEPS);
            for r in 0..rows {
                let row = &packed[(first + r) * blocks..][first_block..end];
                for (b, packed) in row.iter().enumerate() {
                    digits[r][b * STEPS..][..STEPS].copy_from_slice(&unpack(load(packed)));
                }
            }
            let token = |t: usize| &q[t * steps..][first_block * STEPS..end * STEPS];
            for t in (0..tokens).step_by(2) {
                let second = (t + 1).min(tokens - 1);
                let tile = tile(&digits, token(t), token(second));
                for (t, tile) in [t, second].iter().zip(tile).take(tokens - t) {
                    let sums = &mut sums[t * n + first..][..rows];
                    for (sum, dot) in sums.iter_mut().zip(tile) {
                        *sum += dot;
                    }
                }
            }
        }
    }
}

/// Σ digit · q for four rows and two tokens over at most [`NARROW_STEPS`] steps.
#[target_feature(enable = "avx2")]
#[inline]
fn tile(
    digits: &[[__m256i; NARROW_STEPS]; ROWS],
    q0: &[[i8; 32]],
    q1: &[[i8; 32]],
) -> [[i32; ROWS]; 2] {
    let steps = q0.len().min(q1.len()).min(NARROW_STEPS);
    let mut narrow = [[_mm256_setzero_si256(); ROWS]; 2];
    for i in 0..steps {
        let q = [load(&q0[i]), load(&q1[i])];
        for r in 0..ROWS {
            for t in 0..2 {
                let products = _mm256_maddubs_epi16(digits[r][i], q[t]);
                narrow[t][r] = _mm256_add_epi16(narrow[t][r], products);
            }
        }
    }
    let mut sums = [[0; ROWS]; 2];
    for t in 0..2 {
        let mut wide = [_mm256_setzero_si256(); ROWS];
        for r in 0..ROWS {
            wide[r] = _mm256_madd_epi16(narrow[t][r], _mm256_set1_epi16(1));
        }
        sums[t] = four_sums(wide);
    }
    sums
}

/// How far prefetches run ahead of loads where `rows` neighbours are computed together.
///
/// Rows are too short for the hardware to see a stream in each, but all of them together are read from front
/// to back, and that is the order of the prefetches. The last row is then loaded before what lies in front of
/// it, so the distance is to the last row and some time further.
pub(super) fn prefetch_distance(rows: usize, row_bytes: usize) -> usize {
    /// What a core reads in twice the time that memory takes to answer.
    const LATENCY: usize = 4096;
    (rows - 1) * row_bytes + LATENCY
}

/// Asks for the cache line that lies `offset` bytes behind `start`, for the first-level cache.
#[inline(always)]
pub(super) fn prefetch_line(start: *const u8, offset: usize) {
    let at = start.wrapping_add(offset).cast();
    // SAFETY: a hint that reads nothing and accepts any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

/// The same for the first-level cache if it is `near`, else for the second-level one.
#[inline(always)]
pub(super) fn prefetch_near(start: *const u8, offset: usize, near: bool) {
    if near {
        prefetch_line(start, offset);
    } else {
        let at = start.wrapping_add(offset).cast();
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at) };
    }
}

/// Whether the first-level cache holds what lies between load and prefetch, and the activations.
pub(super) fn is_near(distance: usize) -> bool {
    distance <= 10 << 10
}

/// The sums of the lanes of four registers.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn four_sums([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let halves = (
        _mm256_castsi256_si128(pairs),
        _mm256_extracti128_si256::<1>(pairs),
    );
    let mut sums = [0; 4];
    let added = _mm_add_epi32(halves.0, halves.1);
    // SAFETY: four lanes; the store may be unaligned.
    unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), added) };
    sums
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 elements of one byte; the load may be unaligned.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}
