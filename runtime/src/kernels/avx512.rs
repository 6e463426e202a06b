//! AVX-512 with VNNI: `vpdpbusd` adds four products of unsigned digits and signed activations to 32-bit lanes.
//!
//! Two blocks of a row fill one register; where their number is odd the upper half of the last one is empty.
//! An empty half meets activations of zero, so its digits do not matter.

use std::arch::x86_64::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::{Kernels, Shape, float};

float::compile_for!("avx512f,avx512bw,avx512vl,avx512dq");

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx512",
    gemm_i2: |rows, q, q_sums, sums| {
        let shape = Shape::of(Packing::I2, rows, q, q_sums, sums);
        // SAFETY: as in `detect`; the shape was checked.
        unsafe { gemm_i2(shape, rows, q, q_sums, sums) }
    },
    gemm_t5: |rows, q, q_sums, sums| {
        let shape = Shape::of(Packing::T5, rows, q, q_sums, sums);
        // SAFETY: as in `detect`; the shape was checked.
        unsafe { gemm_t5(shape, rows, q, q_sums, sums) }
    },
    quantize: compiled::quantize,
    gemv_f32: compiled::gemv_f32,
    gemv_bf16: compiled::gemv_bf16,
    gemv_i8: compiled::gemv_i8,
    weighted_sum_f32: compiled::weighted_sum_f32,
    weighted_sum_f16: compiled::weighted_sum_f16,
    rms_norm: compiled::rms_norm,
    softmax: compiled::softmax,
    silu_mul: compiled::silu_mul,
    relu2_mul: compiled::relu2_mul,
    rotate: compiled::rotate,
    add: compiled::add,
    ..super::avx2::KERNELS
};

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<&'static Kernels> {
    let detected = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni");
    (detected && super::avx2::detect().is_some()).then_some(&KERNELS)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn gemm_i2(shape: Shape, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let mask = _mm512_set1_epi8(3);
    let step = |codes| (_mm512_and_si512(codes, mask), _mm512_srli_epi16::<2>(codes));
    gemm::<4>(shape, rows, q, q_sums, sums, step);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn gemm_t5(shape: Shape, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let (low, high) = (_mm512_set1_epi8(-42), _mm512_set1_epi8(42));
    let (zero, one) = (_mm512_setzero_si512(), _mm512_set1_epi8(1));
    let step = |s| {
        let digits = _mm512_mask_blend_epi8(_mm512_cmpge_epi8_mask(s, low), zero, one);
        let digits = _mm512_mask_add_epi8(digits, _mm512_cmpgt_epi8_mask(s, high), digits, one);
        (digits, _mm512_add_epi8(s, _mm512_add_epi8(s, s)))
    };
    gemm::<5>(shape, rows, q, q_sums, sums, step);
}

/// Rows that are computed together.
const ROWS: usize = 4;
/// Tokens that are computed together.
const TOKENS: usize = 4;
/// Steps of 2 × 32 columns that are unpacked at a time: four rows are 8 KiB.
const CACHED_STEPS: usize = 32;

/// A packing is `STEPS` digits a byte and `step`: packed bytes to (digits, bytes for the next step).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn gemm<const STEPS: usize>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    step: impl Fn(__m512i) -> (__m512i, __m512i) + Copy,
) {
    if shape.tokens > 1 {
        return tiles::<STEPS>(shape, rows, q, q_sums, sums, step);
    }
    let (packed, _) = rows.as_chunks::<BLOCK_BYTES>();
    let row = |r: usize| &packed[r * shape.blocks..][..shape.blocks];
    let (fours, rest) = sums.as_chunks_mut::<ROWS>();
    for (i, sums) in fours.iter_mut().enumerate() {
        let rows = [0, 1, 2, 3].map(|r| row(i * ROWS + r));
        *sums = dots::<STEPS, ROWS>(rows, q, step).map(|sum| sum - q_sums[0]);
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        let [dot] = dots::<STEPS, 1>([row(fours.len() * ROWS + i)], q, step);
        *sum = dot - q_sums[0];
    }
}

/// Σ digit · q of each row for one token.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn dots<const STEPS: usize, const N: usize>(
    rows: [&[[u8; BLOCK_BYTES]]; N],
    q: &[i8],
    step: impl Fn(__m512i) -> (__m512i, __m512i) + Copy,
) -> [i32; N] {
    let (q, _) = q.as_chunks::<32>();
    let (q, _) = q.as_chunks::<STEPS>(); // (blocks, steps)
    let rows = rows.map(|row| &row[..q.len()]);
    let mut sums = [_mm512_setzero_si512(); N];
    for b in (0..q.len() & !1).step_by(2) {
        let mut codes = rows.map(|row| pair(&row[b], &row[b + 1]));
        for n in 0..STEPS {
            let q = pair(&q[b][n], &q[b + 1][n]);
            for r in 0..N {
                let (digits, next) = step(codes[r]);
                codes[r] = next;
                sums[r] = _mm512_dpbusd_epi32(sums[r], digits, q);
            }
        }
    }
    if let Some(last) = q.len().checked_sub(1).filter(|last| last % 2 == 0) {
        let mut codes = rows.map(|row| single(&row[last]));
        for q in &q[last] {
            let q = single(q);
            for r in 0..N {
                let (digits, next) = step(codes[r]);
                codes[r] = next;
                sums[r] = _mm512_dpbusd_epi32(sums[r], digits, q);
            }
        }
    }
    sums.map(|sums| _mm512_reduce_add_epi32(sums))
}

/// Many tokens: a stretch of four rows is unpacked, then all tokens pass over it by fours.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn tiles<const STEPS: usize>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    step: impl Fn(__m512i) -> (__m512i, __m512i) + Copy,
) {
    let Shape { tokens, rows: n, blocks } = shape;
    for (sums, q_sum) in sums.chunks_exact_mut(n).zip(q_sums) {
        sums.fill(-q_sum);
    }
    let (packed, _) = rows.as_chunks::<BLOCK_BYTES>(); // (rows, blocks)
    let (q, _) = q.as_chunks::<32>(); // (tokens, steps)
    let steps = blocks * STEPS;
    // Digits in the order of columns: step n of blocks b and b + 1 lies where their activations do.
    let mut digits = [[[0u8; 32]; 2 * CACHED_STEPS]; ROWS];
    for first in (0..n).step_by(ROWS) {
        let rows = ROWS.min(n - first);
        for start in (0..blocks).step_by(2 * CACHED_STEPS / STEPS) {
            let end = blocks.min(start + 2 * CACHED_STEPS / STEPS);
            for r in 0..rows {
                let row = &packed[(first + r) * blocks..][start..end];
                for (b, pair_of_blocks) in row.chunks(2).enumerate() {
                    let mut codes = match pair_of_blocks {
                        [one, two] => pair(one, two),
                        rest => single(&rest[0]),
                    };
                    for n in 0..STEPS {
                        let (digit, next) = step(codes);
                        codes = next;
                        store(digit, &mut digits[r], (2 * b * STEPS + n, (2 * b + 1) * STEPS + n));
                    }
                }
            }
            let token = |t: usize| &q[t * steps..][start * STEPS..end * STEPS];
            for t in (0..tokens).step_by(TOKENS) {
                let index: [usize; TOKENS] = std::array::from_fn(|i| (t + i).min(tokens - 1));
                let tile = tile(&digits, index.map(token));
                for (t, tile) in index.iter().zip(tile).take(tokens - t) {
                    let sums = &mut sums[t * n + first..][..rows];
                    for (sum, dot) in sums.iter_mut().zip(tile) {
                        *sum += dot;
                    }
                }
            }
        }
    }
}

/// Σ digit · q for four rows and four tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn tile(
    digits: &[[[u8; 32]; 2 * CACHED_STEPS]; ROWS],
    q: [&[[i8; 32]]; TOKENS],
) -> [[i32; ROWS]; TOKENS] {
    let steps = q[0].len().min(2 * CACHED_STEPS);
    let q = q.map(|q| &q[..steps]);
    let mut sums = [[_mm512_setzero_si512(); ROWS]; TOKENS];
    for i in (0..steps & !1).step_by(2) {
        let q = q.map(|q| pair(&q[i], &q[i + 1]));
        for r in 0..ROWS {
            let digits = pair(&digits[r][i], &digits[r][i + 1]);
            for t in 0..TOKENS {
                sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], digits, q[t]);
            }
        }
    }
    if let Some(last) = steps.checked_sub(1).filter(|last| last % 2 == 0) {
        let q = q.map(|q| single(&q[last]));
        for r in 0..ROWS {
            let digits = single(&digits[r][last]);
            for t in 0..TOKENS {
                sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], digits, q[t]);
            }
        }
    }
    sums.map(|sums| sums.map(|sums| _mm512_reduce_add_epi32(sums)))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn pair<T: bytemuck::Pod>(low: &[T; 32], high: &[T; 32]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 elements of one byte each; the loads may be unaligned.
    let high = unsafe { _mm256_loadu_si256(high.as_ptr().cast()) };
    _mm512_inserti64x4::<1>(single(low), high)
}

/// 32 bytes below 32 bytes of zero.
#[target_feature(enable = "avx512f")]
#[inline]
fn single<T: bytemuck::Pod>(low: &[T; 32]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 elements of one byte; the load may be unaligned.
    let low = unsafe { _mm256_loadu_si256(low.as_ptr().cast()) };
    _mm512_zextsi256_si512(low)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(digits: __m512i, row: &mut [[u8; 32]; 2 * CACHED_STEPS], (low, high): (usize, usize)) {
    // SAFETY: both stores write the 32 bytes of one array; they may be unaligned.
    unsafe { _mm256_storeu_si256(row[low].as_mut_ptr().cast(), _mm512_castsi512_si256(digits)) };
    // The last block of an odd number has no second half.
    if let Some(high) = row.get_mut(high) {
        let digits = _mm512_extracti64x4_epi64::<1>(digits);
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(high.as_mut_ptr().cast(), digits) };
    }
}
