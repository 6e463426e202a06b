//! Ternary products with `vpmaddubsw`, on unsigned digits (trit + 1) and signed activations.
//!
//! Σ trit · q = Σ digit · q − Σ q. A pair of products is at most 2 · 2 · 128 = 512 in magnitude, so
//! 63 of them fit 16 bits for any int8, and 64 reach exactly -32768: sums stay in 16-bit lanes for
//! at most 64 steps of 32 columns and are then widened.
//!
//! `t5` reads a byte as an unsigned fraction of 256: nine times it is two digits, 3 d₀ + d₁, in the
//! high byte and the fraction of the next ones in the low byte. So even and odd bytes live in
//! 16-bit lanes, one `vpmaddubsw` with 9 steps to the next two digits, and `vpshufb` tells the two
//! apart.
//!
//! One token: four rows at once, so that four streams are read. `i2` leaves every other code at its
//! place, two bits up: its products are four times as large and have sums of their own.
//!
//! A few tokens of `i2`: the digits of one row go straight from their unpacking to the products of
//! up to eight tokens, whose sums stay in registers. The digits of `t5` take longer to unpack: those
//! of four rows go to the first-level cache once for all tokens, and tiles of four rows by two
//! tokens keep their sums in registers.

use std::arch::x86_64::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::super::prefetch::{Prefetch, prefetch_line};
use super::super::shape::{GemmShape, Operands};
use super::lut;
use super::registers::{four_sums, high_bytes, load, table};

/// [`Kernels::gemm_i2`](super::super::Kernels::gemm_i2)
#[target_feature(enable = "avx2")]
pub(super) fn gemm_i2(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let operands = Operands::of(Packing::I2, rows, q, q_sums, sums);
    product_i2(operands, sums, lut::NEAR);
}

/// The product for `i2`; `loops` are those of `lut` for the instruction set at hand.
#[target_feature(enable = "avx2")]
pub(in super::super) fn product_i2(operands: Operands, sums: &mut [i32], loops: &[lut::Loops]) {
    let (low, high) = (_mm256_set1_epi8(0b11), _mm256_set1_epi8(0b1100));
    if operands.shape.tokens == 1 {
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
        return gemv::<4, 8>(operands, sums, add);
    }
    let few = |operands: Operands, sums: &mut [i32]| rows(operands, sums, |codes| digits_i2(codes));
    let ranks = |rows| lut::ranks_i2(rows);
    gemm(operands, sums, TABLE_TOKENS, few, ranks, loops);
}

#[target_feature(enable = "avx2")]
#[inline]
pub(in super::super) fn digits_i2(codes: __m256i) -> [__m256i; 4] {
    let mask = _mm256_set1_epi8(3);
    // What a 16-bit shift carries over is masked.
    [
        _mm256_and_si256(codes, mask),
        _mm256_and_si256(_mm256_srli_epi16::<2>(codes), mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask),
        _mm256_and_si256(_mm256_srli_epi16::<6>(codes), mask),
    ]
}

/// [`Kernels::gemm_t5`](super::super::Kernels::gemm_t5)
#[target_feature(enable = "avx2")]
pub(super) fn gemm_t5(rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let operands = Operands::of(Packing::T5, rows, q, q_sums, sums);
    product_t5(operands, sums, lut::NEAR);
}

/// The product for `t5`; `loops` are those of `lut` for the instruction set at hand.
#[target_feature(enable = "avx2")]
pub(in super::super) fn product_t5(operands: Operands, sums: &mut [i32], loops: &[lut::Loops]) {
    if operands.shape.tokens == 1 {
        let add = |[once, _]: [__m256i; 2], bytes: __m256i, q: &[[i8; 32]; 5]| {
            let digits = digits_t5(bytes);
            let product = |n: usize| _mm256_maddubs_epi16(digits[n], load(&q[n]));
            let sum = add(once, [product(0), product(1)]);
            let sum = add(sum, [product(2), product(3)]);
            [_mm256_add_epi16(sum, product(4)), _mm256_setzero_si256()]
        };
        return gemv::<5, 12>(operands, sums, add);
    }
    let few =
        |operands: Operands, sums: &mut [i32]| tiles(operands, sums, |bytes| digits_t5(bytes));
    let ranks = |rows| lut::ranks_t5(rows);
    gemm(operands, sums, TABLE_TOKENS - 1, few, ranks, loops);
}

#[target_feature(enable = "avx2")]
#[inline]
pub(in super::super) fn digits_t5(bytes: __m256i) -> [__m256i; 5] {
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

#[target_feature(enable = "avx2")]
#[inline]
fn add(sum: __m256i, [a, b]: [__m256i; 2]) -> __m256i {
    _mm256_add_epi16(_mm256_add_epi16(sum, a), b)
}

/// Rows that are computed together.
const ROWS: usize = 4;
/// Rows between a load and the prefetch that runs ahead of it.
const AHEAD: usize = 8;
/// Steps of 32 columns that 16-bit lanes hold.
const NARROW_STEPS: usize = 64;

/// One token. A packing has `STEPS` digits per byte and `add`, which adds the products of a block
/// to two sums, of digits and of four times digits, whose 16-bit lanes hold `NARROW` blocks.
#[target_feature(enable = "avx2")]
#[inline]
fn gemv<const STEPS: usize, const NARROW: usize>(
    operands: Operands,
    sums: &mut [i32],
    add: impl Fn([__m256i; 2], __m256i, &[[i8; 32]; STEPS]) -> [__m256i; 2] + Copy,
) {
    let (shape, q_sum) = (operands.shape, operands.q_sums[0]);
    let (packed, _) = operands.rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
    let (q, _) = operands.q.as_chunks::<32>();
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
    let prefetch = Prefetch::of(N, q.len() * BLOCK_BYTES);
    let (one, four) = (_mm256_set1_epi16(1), _mm256_set1_epi16(4));
    let mut wide = [_mm256_setzero_si256(); 4]; // four times the sums of N rows
    for first in (0..q.len()).step_by(NARROW) {
        let end = q.len().min(first + NARROW);
        let mut narrow = [[_mm256_setzero_si256(); 2]; N];
        for b in first..end {
            if N > 1 {
                for line in (0..N * BLOCK_BYTES).step_by(64) {
                    prefetch.after(rows[0].as_ptr().cast(), b * N * BLOCK_BYTES + line);
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

/// Fewest rows that are worth a table of partial sums.
const TABLE_ROWS: usize = 192;
/// Fewest tokens that are: one less for `t5`, whose digits take longer to unpack.
pub(in super::super) const TABLE_TOKENS: usize = 11;
/// Most tokens, beyond those of short entries, that take less time without a longer entry.
const MORE_TOKENS: usize = 7;

/// How many of the tokens tables compute: those of whole entries, and the rest if it has as many as
/// `fewest`.
pub(in super::super) fn tokens_for_tables(
    shape: GemmShape,
    loops: &[lut::Loops],
    fewest: usize,
) -> usize {
    let [short, long] = [0, loops.len() - 1].map(|i| loops[i].tokens);
    let rest = shape.tokens % long;
    let whole = shape.tokens - rest;
    match rest {
        _ if shape.rows < TABLE_ROWS => 0,
        _ if rest < fewest => whole,
        _ if (short + 1..=short + MORE_TOKENS).contains(&rest) => whole + short,
        _ => shape.tokens,
    }
}

/// Several tokens: by tables from `fewest` on, and by `few` where there are less. A packing has
/// `UNITS` units of [`lut`] in a block, and their ranks.
#[target_feature(enable = "avx2")]
#[inline]
fn gemm<const UNITS: usize>(
    operands: Operands,
    sums: &mut [i32],
    fewest: usize,
    few: impl Fn(Operands, &mut [i32]),
    ranks: impl Fn([__m256i; 4]) -> [__m256i; UNITS] + Copy,
    loops: &[lut::Loops],
) {
    let tokens = tokens_for_tables(operands.shape, loops, fewest);
    let (sums, rest_sums) = sums.split_at_mut(operands.shape.rows * tokens);
    let [operands, rest] = operands.split_at(tokens);
    if tokens > 0 {
        lut::gemm(operands, sums, ranks, loops, None);
    }
    if rest.shape.tokens > 0 {
        few(rest, rest_sums);
    }
}

/// A few tokens of a packing whose digits take long to unpack: [`NARROW_STEPS`] steps of four rows
/// are unpacked, then all tokens pass over them by twos.
#[target_feature(enable = "avx2")]
#[inline]
fn tiles<const STEPS: usize>(
    operands: Operands,
    sums: &mut [i32],
    unpack: impl Fn(__m256i) -> [__m256i; STEPS] + Copy,
) {
    let Operands {
        shape,
        rows,
        q,
        q_sums,
    } = operands;
    let GemmShape {
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

/// Most tokens that meet the digits of a row together.
const TOKENS: usize = 8;
/// Steps of all these tokens that the first-level cache holds beside some rows: 28 KiB.
const NEAR_STEPS: usize = 28 << 5;

/// A few tokens of a packing whose digits are quickly unpacked, in the fewest tiles of at most
/// [`TOKENS`].
#[target_feature(enable = "avx2")]
#[inline]
fn rows<const STEPS: usize>(
    operands: Operands,
    sums: &mut [i32],
    unpack: impl Fn(__m256i) -> [__m256i; STEPS] + Copy,
) {
    let shape = operands.shape;
    let tiles = shape.tokens.div_ceil(TOKENS);
    let of_tile = shape.tokens.div_ceil(tiles);
    let q = operands.q.chunks(operands.q.len() / shape.tokens * of_tile);
    let of_tiles = q.zip(operands.q_sums.chunks(of_tile));
    for ((q, q_sums), sums) in of_tiles.zip(sums.chunks_mut(of_tile * shape.rows)) {
        let tile = Operands {
            shape: GemmShape {
                tokens: q_sums.len(),
                ..shape
            },
            q,
            q_sums,
            ..operands
        };
        match q_sums.len() {
            1 => row_tile::<1, STEPS>(tile, sums, unpack),
            2 => row_tile::<2, STEPS>(tile, sums, unpack),
            3 => row_tile::<3, STEPS>(tile, sums, unpack),
            4 => row_tile::<4, STEPS>(tile, sums, unpack),
            5 => row_tile::<5, STEPS>(tile, sums, unpack),
            6 => row_tile::<6, STEPS>(tile, sums, unpack),
            7 => row_tile::<7, STEPS>(tile, sums, unpack),
            _ => row_tile::<TOKENS, STEPS>(tile, sums, unpack),
        }
    }
}

/// `T` tokens. Digits go from their unpacking to the products of all tokens, whose sums stay in
/// registers while 16-bit lanes hold them. All rows meet the activations of as many columns, which
/// are in the first-level cache, before the next columns.
#[target_feature(enable = "avx2")]
#[inline]
fn row_tile<const T: usize, const STEPS: usize>(
    operands: Operands,
    sums: &mut [i32],
    unpack: impl Fn(__m256i) -> [__m256i; STEPS],
) {
    let GemmShape { rows, blocks, .. } = operands.shape;
    let (packed, _) = operands.rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
    let (q, _) = operands.q.as_chunks::<32>().0.as_chunks::<STEPS>(); // (tokens, blocks)
    for (sums, q_sum) in sums.chunks_exact_mut(rows).zip(operands.q_sums) {
        sums.fill(-q_sum);
    }
    // As many columns as the activations of all tokens leave in the first-level cache.
    let narrow_blocks = NARROW_STEPS / STEPS;
    let stretch = (NEAR_STEPS / T / NARROW_STEPS).max(1) * narrow_blocks;
    for first in (0..blocks).step_by(stretch) {
        let end = blocks.min(first + stretch);
        let q: [_; T] = std::array::from_fn(|t| &q[t * blocks..][first..end]);
        for (r, row) in packed.chunks_exact(blocks).enumerate() {
            let row = &row[first..end];
            let mut wide = [_mm256_setzero_si256(); TOKENS];
            for first in (0..row.len()).step_by(narrow_blocks) {
                let mut narrow = [_mm256_setzero_si256(); T];
                for b in first..row.len().min(first + narrow_blocks) {
                    prefetch_line(row[b].as_ptr(), AHEAD * blocks * BLOCK_BYTES);
                    let digits = unpack(load(&row[b]));
                    for t in 0..T {
                        for (digits, q) in digits.into_iter().zip(&q[t][b]) {
                            let products = _mm256_maddubs_epi16(digits, load(q));
                            narrow[t] = _mm256_add_epi16(narrow[t], products);
                        }
                    }
                }
                for (wide, narrow) in wide.iter_mut().zip(narrow) {
                    let sums = _mm256_madd_epi16(narrow, _mm256_set1_epi16(1));
                    *wide = _mm256_add_epi32(*wide, sums);
                }
            }
            let [a, b, c, d, e, f, g, h] = wide;
            let dots = [four_sums([a, b, c, d]), four_sums([e, f, g, h])];
            for (t, dot) in dots.as_flattened()[..T].iter().enumerate() {
                sums[t * rows + r] += dot;
            }
        }
    }
}
