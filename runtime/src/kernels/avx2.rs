//! AVX2: integer products with `vpmaddubsw` on unsigned digits (trit + 1) and signed activations.
//!
//! Σ trit · q = Σ digit · q − Σ q. A pair of products is at most 2 · 2 · 128 = 512 in magnitude, so 63 of them
//! fit 16 bits for any int8, and 64 reach exactly -32768: sums stay in 16-bit lanes for at most 64 steps of
//! 32 columns and are then widened.
//!
//! `t5` reads a byte as an unsigned fraction of 256: three times it is a digit (0..3) in the high byte and the
//! fraction of the next digit in the low byte. So even and odd bytes live in 16-bit lanes, and one `vpmaddubsw`
//! with 3 steps to the next digit; the digit that stays in the high byte is multiplied by zero.
//!
//! One token: four rows at once, so that each load of activations serves four rows and four streams are read.
//! More tokens: four rows are unpacked to digits in the first-level cache once for all tokens, and tiles of
//! four rows by two tokens keep their sums in registers.

use std::arch::x86_64::*;

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

use super::{Kernels, Shape, float};

float::compile_for!("avx2");

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx2",
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
    gemv_f16: |x, rows, y| {
        // SAFETY: as in `detect`.
        unsafe { gemv_f16(x, rows, y) }
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
};

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<&'static Kernels> {
    let detected = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    detected.then_some(&KERNELS)
}

#[target_feature(enable = "avx2")]
fn gemm_i2(shape: Shape, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let mask = _mm256_set1_epi8(3);
    // The digit of a step is the low two bits of each byte; what a 16-bit shift carries over is masked.
    let step = |codes| (_mm256_and_si256(codes, mask), _mm256_srli_epi16::<2>(codes));
    gemm::<4, _>(shape, rows, q, q_sums, sums, |codes| codes, step);
}

#[target_feature(enable = "avx2")]
fn gemm_t5(shape: Shape, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &mut [i32]) {
    let sign = _mm256_set1_epi8(-128);
    let (low_byte, high_byte) = (_mm256_set1_epi16(0x0003), _mm256_set1_epi16(0x0300));
    let high_mask = _mm256_set1_epi16(0xff00u16 as i16);
    let start = |bytes| {
        let bytes = _mm256_xor_si256(bytes, sign);
        [
            _mm256_maddubs_epi16(bytes, low_byte),
            _mm256_maddubs_epi16(bytes, high_byte),
        ]
    };
    let step = |[even, odd]: [__m256i; 2]| {
        let digits = _mm256_blendv_epi8(_mm256_srli_epi16::<8>(even), odd, high_mask);
        (
            digits,
            [even, odd].map(|x| _mm256_maddubs_epi16(x, low_byte)),
        )
    };
    gemm::<5, _>(shape, rows, q, q_sums, sums, start, step);
}

/// Rows that are computed together.
const ROWS: usize = 4;
/// Steps of 32 columns that 16-bit lanes hold.
const NARROW_STEPS: usize = 64;

/// A packing is `STEPS` digits a byte, `start`: packed bytes to the state of the first step, and `step`: state to
/// (digits of 32 columns, state of the next step).
#[target_feature(enable = "avx2")]
#[inline]
fn gemm<const STEPS: usize, S: Copy>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    start: impl Fn(__m256i) -> S + Copy,
    step: impl Fn(S) -> (__m256i, S) + Copy,
) {
    if shape.tokens > 1 {
        return tiles::<STEPS, S>(shape, rows, q, q_sums, sums, start, step);
    }
    let row_bytes = shape.blocks * BLOCK_BYTES;
    let row = |r: usize| &rows[r * row_bytes..][..row_bytes];
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
#[target_feature(enable = "avx2")]
#[inline]
fn dots<const STEPS: usize, const N: usize, S: Copy>(
    rows: [&[u8]; N],
    q: &[i8],
    start: impl Fn(__m256i) -> S + Copy,
    step: impl Fn(S) -> (__m256i, S) + Copy,
) -> [i32; N] {
    let (q, _) = q.as_chunks::<32>();
    let rows = rows.map(|row| row.as_chunks::<BLOCK_BYTES>().0);
    let blocks = q.len() / STEPS;
    let rows = rows.map(|row| &row[..blocks]);
    let mut wide = [_mm256_setzero_si256(); N];
    for first in (0..blocks).step_by(NARROW_STEPS / STEPS) {
        let end = blocks.min(first + NARROW_STEPS / STEPS);
        let mut narrow = [_mm256_setzero_si256(); N];
        for b in first..end {
            let mut codes = rows.map(|row| start(load(&row[b])));
            prefetch(rows[0].as_ptr().cast(), b * N * BLOCK_BYTES);
            for q in &q[b * STEPS..][..STEPS] {
                let q = load(q);
                for r in 0..N {
                    let (digits, next) = step(codes[r]);
                    codes[r] = next;
                    narrow[r] = _mm256_add_epi16(narrow[r], _mm256_maddubs_epi16(digits, q));
                }
            }
        }
        for r in 0..N {
            wide[r] = _mm256_add_epi32(wide[r], widen(narrow[r]));
        }
    }
    wide.map(|sums| horizontal_sum(sums))
}

/// Many tokens: [`NARROW_STEPS`] steps of four rows are unpacked, then all tokens pass over them by twos.
#[target_feature(enable = "avx2")]
#[inline]
fn tiles<const STEPS: usize, S: Copy>(
    shape: Shape,
    rows: &[u8],
    q: &[i8],
    q_sums: &[i32],
    sums: &mut [i32],
    start: impl Fn(__m256i) -> S + Copy,
    step: impl Fn(S) -> (__m256i, S) + Copy,
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
                    let mut codes = start(load(packed));
                    for n in 0..STEPS {
                        (digits[r][b * STEPS + n], codes) = step(codes);
                    }
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
    narrow.map(|sums| four_sums(sums.map(|sums| widen(sums))))
}

/// Asks for the two cache lines that lie [`PREFETCH`] behind `offset` bytes from `start`.
///
/// Rows are too short for the hardware to see four streams; but rows computed together are neighbours, so
/// memory is read from front to back.
#[inline(always)]
pub(super) fn prefetch(start: *const u8, offset: usize) {
    let at = start.wrapping_add(offset + PREFETCH).cast();
    // SAFETY: a hint that reads nothing and accepts any address.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(at);
        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(64));
    }
}

/// Bytes between a load and the prefetch that runs ahead of it.
const PREFETCH: usize = 4096;

/// 16-bit sums to 32-bit sums of pairs.
#[target_feature(enable = "avx2")]
#[inline]
fn widen(narrow: __m256i) -> __m256i {
    _mm256_madd_epi16(narrow, _mm256_set1_epi16(1))
}

#[target_feature(enable = "avx2")]
#[inline]
fn horizontal_sum(sums: __m256i) -> i32 {
    four_sums([sums; 4])[0]
}

/// The sums of the lanes of four registers.
#[target_feature(enable = "avx2")]
#[inline]
fn four_sums([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let halves = (
        _mm256_castsi256_si128(pairs),
        _mm256_extracti128_si256::<1>(pairs),
    );
    let sums = _mm_add_epi32(halves.0, halves.1);
    [
        _mm_extract_epi32::<0>(sums),
        _mm_extract_epi32::<1>(sums),
        _mm_extract_epi32::<2>(sums),
        _mm_extract_epi32::<3>(sums),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 elements of one byte; the load may be unaligned.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// `float::gemv_f16` with the conversion of F16C, which is exact as well.
#[target_feature(enable = "avx2,f16c")]
fn gemv_f16(x: &[f32], rows: &[half::f16], y: &mut [f32]) {
    let k = x.len();
    assert_eq!(rows.len(), y.len() * k);
    let (fours, rest) = y.as_chunks_mut::<4>();
    let row = |r: usize| &rows[r * k..][..k];
    for (i, y) in fours.iter_mut().enumerate() {
        *y = dots_f16(x, [0, 1, 2, 3].map(|r| row(i * 4 + r)));
    }
    for (i, y) in rest.iter_mut().enumerate() {
        [*y] = dots_f16(x, [row(fours.len() * 4 + i)]);
    }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn dots_f16<const N: usize>(x: &[f32], rows: [&[half::f16]; N]) -> [f32; N] {
    let (chunks, tail) = x.as_chunks::<16>();
    let rows = rows.map(|row| row[..x.len()].as_chunks::<16>());
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (i, x) in chunks.iter().enumerate() {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 8 of the 16 floats of `x`.
                let x = unsafe { _mm256_loadu_ps(x.as_ptr().add(half * 8)) };
                // SAFETY: 8 of the 16 values of a chunk of the row.
                let v = unsafe { _mm_loadu_si128(rows[r].0[i].as_ptr().add(half * 8).cast()) };
                *sum = _mm256_add_ps(*sum, _mm256_mul_ps(x, _mm256_cvtph_ps(v)));
            }
        }
    }
    std::array::from_fn(|r| {
        let mut lanes = [0f32; 16];
        // SAFETY: the two halves of 16 floats.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), sums[r][0]);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(8), sums[r][1]);
        }
        for (lane, (x, v)) in lanes.iter_mut().zip(tail.iter().zip(rows[r].1)) {
            *lane += x * float::f16_to_f32(*v);
        }
        float::tree(lanes)
    })
}
