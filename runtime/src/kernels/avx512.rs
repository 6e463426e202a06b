//! AVX-512 with VNNI: `vpdpbusd` adds four products of unsigned digits and signed activations to 32-bit lanes.
//! Digits are found as in `avx2`.
//!
//! Two blocks of a row fill one register; where their number is odd the upper half of the last one is empty.
//! An empty half meets activations of zero, so its digits do not matter.

use std::arch::x86_64::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::avx2::prefetch;
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
    gemm::<4, _>(shape, rows, q, q_sums, sums, |codes| codes, step);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn gemm_t5(shape: Shape, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let sign = _mm512_set1_epi8(-128);
    let (low_byte, high_byte) = (_mm512_set1_epi16(0x0003), _mm512_set1_epi16(0x0300));
    let high_mask = _mm512_set1_epi16(0xff00u16 as i16);
    let start = |bytes| {
        let bytes = _mm512_xor_si512(bytes, sign);
        [
            _mm512_maddubs_epi16(bytes, low_byte),
            _mm512_maddubs_epi16(bytes, high_byte),
        ]
    };
    let step = |[even, odd]: [__m512i; 2]| {
        let even_digits = _mm512_srli_epi16::<8>(even);
        // even_digits | (odd & high_mask)
        let digits = _mm512_ternarylogic_epi32::<0xf8>(even_digits, odd, high_mask);
        (
            digits,
            [even, odd].map(|x| _mm512_maddubs_epi16(x, low_byte)),
        )
    };
    gemm::<5, _>(shape, rows, q, q_sums, sums, start, step);
}

/// Rows that are computed together.
const ROWS: usize = 4;
/// Tokens that are computed together.
const TOKENS: usize = 4;
/// Steps of 32 columns that are unpacked at a time: four rows of digits are 15 KiB.
const CACHED_STEPS: usize = 120;

/// A packing is `STEPS` digits a byte, `start`: packed bytes to the state of the first step, and `step`: state to
/// (digits of 2 × 32 columns, state of the next step).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn gemm<const STEPS: usize, S: Copy>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    start: impl Fn(__m512i) -> S + Copy,
    step: impl Fn(S) -> (__m512i, S) + Copy,
) {
    if shape.tokens > 1 {
        return tiles::<STEPS, S>(shape, rows, q, q_sums, sums, start, step);
    }
    let (packed, _) = rows.as_chunks::<BLOCK_BYTES>();
    let row = |r: usize| &packed[r * shape.blocks..][..shape.blocks];
    let (fours, rest) = sums.as_chunks_mut::<ROWS>();
    for (i, sums) in fours.iter_mut().enumerate() {
        let rows = [0, 1, 2, 3].map(|r| row(i * ROWS + r));
        *sums = dots::<STEPS, ROWS, S>(rows, q, start, step).map(|sum| sum - q_sums[0]);
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        let [dot] = dots::<STEPS, 1, S>([row(fours.len() * ROWS + i)], q, start, step);
        *sum = dot - q_sums[0];
    }
}

/// Σ digit · q of each row for one token.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn dots<const STEPS: usize, const N: usize, S: Copy>(
    rows: [&[[u8; BLOCK_BYTES]]; N],
    q: &[i8],
    start: impl Fn(__m512i) -> S + Copy,
    step: impl Fn(S) -> (__m512i, S) + Copy,
) -> [i32; N] {
    let (q, _) = q.as_chunks::<32>();
    let (q, _) = q.as_chunks::<STEPS>(); // (blocks, steps)
    let rows = rows.map(|row| &row[..q.len()]);
    let mut sums = [_mm512_setzero_si512(); N];
    for b in (0..q.len() & !1).step_by(2) {
        let mut codes = rows.map(|row| start(pair(&row[b], &row[b + 1])));
        prefetch(rows[0].as_ptr().cast(), b * N * BLOCK_BYTES);
        prefetch(rows[0].as_ptr().cast(), (b + 1) * N * BLOCK_BYTES);
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
        let mut codes = rows.map(|row| start(single(&row[last])));
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
fn tiles<const STEPS: usize, S: Copy>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    start: impl Fn(__m512i) -> S + Copy,
    step: impl Fn(S) -> (__m512i, S) + Copy,
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
    // Digits in the order of columns, 32 a step.
    let mut digits = [[[0u8; 32]; CACHED_STEPS]; ROWS];
    for first in (0..n).step_by(ROWS) {
        let rows = ROWS.min(n - first);
        for first_block in (0..blocks).step_by(CACHED_STEPS / STEPS) {
            let end = blocks.min(first_block + CACHED_STEPS / STEPS);
            for r in 0..rows {
                let row = &packed[(first + r) * blocks..][first_block..end];
                let (digits, _) = digits[r].as_chunks_mut::<STEPS>();
                for (packed, digits) in row.chunks(2).zip(digits.chunks_mut(2)) {
                    let mut codes = start(match packed {
                        [one, two] => pair(one, two),
                        rest => single(&rest[0]),
                    });
                    for n in 0..STEPS {
                        let (digit, next) = step(codes);
                        codes = next;
                        store(_mm512_castsi512_si256(digit), &mut digits[0][n]);
                        if let Some(second) = digits.get_mut(1) {
                            store(_mm512_extracti64x4_epi64::<1>(digit), &mut second[n]);
                        }
                    }
                }
            }
            let token = |t: usize| &q[t * steps..][first_block * STEPS..end * STEPS];
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
    digits: &[[[u8; 32]; CACHED_STEPS]; ROWS],
    q: [&[[i8; 32]]; TOKENS],
) -> [[i32; ROWS]; TOKENS] {
    let steps = q[0].len();
    let digits = digits
        .each_ref()
        .map(|digits| digits[..steps].as_chunks::<2>());
    let q = q.map(|q| q[..steps].as_chunks::<2>());
    let mut sums = [[_mm512_setzero_si512(); ROWS]; TOKENS];
    for i in 0..steps / 2 {
        let q = q.map(|(pairs, _)| whole(&pairs[i]));
        for r in 0..ROWS {
            let digits = whole(&digits[r].0[i]);
            for t in 0..TOKENS {
                sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], digits, q[t]);
            }
        }
    }
    if steps % 2 == 1 {
        for r in 0..ROWS {
            let digits = single(&digits[r].1[0]);
            for t in 0..TOKENS {
                sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], digits, single(&q[t].1[0]));
            }
        }
    }
    sums.map(|sums| sums.map(|sums| _mm512_reduce_add_epi32(sums)))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn whole<T: bytemuck::Pod>(bytes: &[[T; 32]; 2]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 64 elements of one byte each; the load may be unaligned.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
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
fn store(digits: __m256i, to: &mut [u8; 32]) {
    // SAFETY: the 32 bytes of the array; the store may be unaligned.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), digits) };
}
