//! Products with rows that are not ternary.
//!
//! A register holds the 16 lanes of a float sum, so tiles of numbers are four rows by four tokens. Of blocks it holds one
//! of each of two rows, and the activations twice: tiles are four pairs of rows by one token, or two by four.
//! `vpdpbusd` wants unsigned codes, so those of `q8_0` are taken 128 higher and those of `q4_0`, 8 higher, as they lie;
//! what that adds is the same for all rows and is subtracted beforehand.

use std::arch::x86_64::*;

use half::{bf16, f16};
use sterna_ternary::packing::{q4_0, q8_0};

use super::super::dense::{BlockProduct, Checked, padded, tree};
use super::{is_near, load, prefetch_distance, prefetch_near};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemm_f32(x: &[f32], columns: usize, rows: &[f32], y: &mut [f32]) {
    gemm_numbers(x, columns, rows, y, |v| single(v));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemm_bf16(x: &[f32], columns: usize, rows: &[bf16], y: &mut [f32]) {
    gemm_numbers(x, columns, rows, y, |v| {
        // SAFETY: 16 values of two bytes; the load may be unaligned.
        let v = unsafe { _mm256_loadu_si256(v.as_ptr().cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(v)))
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn gemm_f16(x: &[f32], columns: usize, rows: &[f16], y: &mut [f32]) {
    gemm_numbers(x, columns, rows, y, |v| {
        // SAFETY: 16 values of two bytes; the load may be unaligned.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(v.as_ptr().cast()) })
    });
}

#[target_feature(enable = "avx512f")]
#[inline]
fn single(v: &[f32; 16]) -> __m512 {
    // SAFETY: 16 floats; the load may be unaligned.
    unsafe { _mm512_loadu_ps(v.as_ptr()) }
}

/// The product of `float::gemm`, whose 16 lanes are a register here.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn gemm_numbers<T: Copy + Default>(
    x: &[f32],
    columns: usize,
    rows: &[T],
    y: &mut [f32],
    widen: impl Fn(&[T; 16]) -> __m512 + Copy,
) {
    let (tokens, n) = (x.len() / columns, rows.len() / columns);
    assert!(x.len() == tokens * columns && rows.len() == n * columns);
    assert_eq!(y.len(), tokens * n);
    let tiled = tokens / 4 * 4;
    for r in (0..n).step_by(4) {
        for t in (0..tiled).step_by(4) {
            tile_of_numbers::<T, 4>(x, columns, rows, [r, t], y, widen);
        }
        for t in tiled..tokens {
            tile_of_numbers::<T, 1>(x, columns, rows, [r, t], y, widen);
        }
    }
}
/// Four rows with some tokens, from `r` and `t` on; behind the last row it is repeated.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn tile_of_numbers<T: Copy + Default, const TOKENS: usize>(
    x: &[f32],
    columns: usize,
    rows: &[T],
    [r, t]: [usize; 2],
    y: &mut [f32],
    widen: impl Fn(&[T; 16]) -> __m512 + Copy,
) {
    let n = rows.len() / columns;
    let row = |i: usize| rows[(r + i).min(n - 1) * columns..][..columns].as_chunks::<16>();
    let rows = [row(0), row(1), row(2), row(3)];
    let mut tokens = [x[t * columns..][..columns].as_chunks::<16>(); TOKENS];
    for (i, token) in tokens.iter_mut().enumerate() {
        *token = x[(t + i) * columns..][..columns].as_chunks();
    }
    let mut lanes = [[_mm512_setzero_ps(); 4]; TOKENS];
    for c in 0..columns / 16 {
        let mut wide = [_mm512_setzero_ps(); 4];
        for (wide, row) in wide.iter_mut().zip(&rows) {
            *wide = widen(&row.0[c]);
        }
        for (lanes, token) in lanes.iter_mut().zip(&tokens) {
            let x = single(&token.0[c]);
            for (lane, wide) in lanes.iter_mut().zip(wide) {
                *lane = _mm512_add_ps(*lane, _mm512_mul_ps(x, wide));
            }
        }
    }
    if !columns.is_multiple_of(16) {
        // Zeros behind the last column change no lane, as none is -0.
        for (lanes, token) in lanes.iter_mut().zip(&tokens) {
            let x = single(&padded(token.1));
            for (lane, row) in lanes.iter_mut().zip(&rows) {
                *lane = _mm512_add_ps(*lane, _mm512_mul_ps(x, widen(&padded(row.1))));
            }
        }
    }
    let there = (n - r).min(4);
    for (i, lanes) in lanes.iter().enumerate() {
        let y = &mut y[(t + i) * n + r..][..there];
        for (y, lanes) in y.iter_mut().zip(lanes) {
            *y = halves(*lanes);
        }
    }
}

/// Lanes added in halves, 16 → 8 → 4 → 2 → 1.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn halves(lanes: __m512) -> f32 {
    let (low, high) = (
        _mm512_castps512_ps256(lanes),
        _mm512_extractf32x8_ps::<1>(lanes),
    );
    let eight = _mm256_add_ps(low, high);
    let (low, high) = (
        _mm256_castps256_ps128(eight),
        _mm256_extractf128_ps::<1>(eight),
    );
    let four = _mm_add_ps(low, high);
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512dq")]
pub(super) fn gemm_q8_0(product: BlockProduct, y: &mut [f32]) {
    gemm(product.checked(y), y, 128, |a: &[u8; q8_0::BYTES], b| {
        let codes = |block: &[u8; q8_0::BYTES]| {
            let (_, codes) = block
                .split_last_chunk::<32>()
                .expect("a block has 32 codes");
            load(codes)
        };
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(codes(a)), codes(b));
        _mm512_xor_si512(both, _mm512_set1_epi8(-128))
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512dq")]
pub(super) fn gemm_q4_0(product: BlockProduct, y: &mut [f32]) {
    gemm(product.checked(y), y, 8, |a: &[u8; q4_0::BYTES], b| {
        // SAFETY: 16 bytes behind each scale; the loads may be unaligned.
        let bytes = [a, b].map(|x| unsafe { _mm_loadu_si128(x[2..].as_ptr().cast()) });
        let twice = bytes.map(|x| _mm256_broadcastsi128_si256(x));
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(twice[0]), twice[1]);
        let shifted = _mm512_srlv_epi64(both, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
        _mm512_and_si512(shifted, _mm512_set1_epi8(15))
    });
}

/// `codes` of a block of each of two rows are unsigned, `excess` above what they stand for.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512dq")]
#[inline]
fn gemm<const BYTES: usize>(
    product: Checked<BYTES>,
    y: &mut [f32],
    excess: u8,
    codes: impl Fn(&[u8; BYTES], &[u8; BYTES]) -> __m512i + Copy,
) {
    let Checked { n, tokens, .. } = product;
    let tiled = tokens / 4 * 4;
    for r in (0..n).step_by(4).filter(|_| tiled > 0) {
        for t in (0..tiled).step_by(4) {
            tile::<BYTES, 2, 4>(product, [r, t], y, excess, codes);
        }
    }
    for t in tiled..tokens {
        for r in (0..n).step_by(8) {
            tile::<BYTES, 4, 1>(product, [r, t], y, excess, codes);
        }
    }
}

/// Some pairs of rows with some tokens, from `r` and `t` on; behind the last row it is repeated.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512dq")]
#[inline]
fn tile<const BYTES: usize, const PAIRS: usize, const TOKENS: usize>(
    product: Checked<BYTES>,
    [r, t]: [usize; 2],
    y: &mut [f32],
    excess: u8,
    codes: impl Fn(&[u8; BYTES], &[u8; BYTES]) -> __m512i + Copy,
) {
    let Checked { n, blocks, .. } = product;
    let mut rows = [[product.row(r); 2]; PAIRS];
    for (i, row) in rows.as_flattened_mut().iter_mut().enumerate() {
        *row = product.row((r + i).min(n - 1));
    }
    let mut tokens = [product.token(t); TOKENS];
    for (i, token) in tokens.iter_mut().enumerate() {
        *token = product.token(t + i);
    }
    let start = rows[0][0].as_ptr().cast();
    let distance = prefetch_distance(2 * PAIRS, blocks * BYTES);
    let near = is_near(distance);
    let excess = _mm512_set1_epi8(excess as i8);
    let mut lanes = [[_mm512_setzero_ps(); PAIRS]; TOKENS];
    for b in 0..blocks {
        if t == 0 {
            for line in (0..2 * PAIRS * BYTES).step_by(64) {
                prefetch_near(start, b * 2 * PAIRS * BYTES + line + distance, near);
            }
        }
        let mut q = [_mm512_setzero_si512(); TOKENS];
        let mut less = q;
        for (i, (token, _)) in tokens.iter().enumerate() {
            q[i] = _mm512_broadcast_i64x4(load(&token[b]));
            less[i] = _mm512_sub_epi32(less[i], _mm512_dpbusd_epi32(less[i], excess, q[i]));
        }
        for (p, pair) in rows.iter().enumerate() {
            let w = codes(&pair[0][b], &pair[1][b]);
            let scale = scales(&pair[0][b], &pair[1][b]);
            for (i, (_, of_token)) in tokens.iter().enumerate() {
                let fours = _mm512_dpbusd_epi32(less[i], w, q[i]);
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(of_token[b]));
                let products = _mm512_mul_ps(_mm512_cvtepi32_ps(fours), scale);
                lanes[i][p] = _mm512_add_ps(lanes[i][p], products);
            }
        }
    }
    let there = (n - r).min(2 * PAIRS);
    for (i, lanes) in lanes.iter().enumerate() {
        let y = &mut y[(t + i) * n + r..][..there];
        for (y, lanes) in y.chunks_mut(2).zip(lanes) {
            let mut sums = [[0.0; 8]; 2];
            // SAFETY: 16 floats; the store may be unaligned.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().cast(), *lanes) };
            for (y, sums) in y.iter_mut().zip(sums) {
                *y = tree(sums);
            }
        }
    }
}

/// The scale of the one block in the lower lanes, of the other in the upper ones.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn scales<const BYTES: usize>(a: &[u8; BYTES], b: &[u8; BYTES]) -> __m512 {
    let half = |x: &[u8; BYTES]| _mm_set1_epi16(i16::from_le_bytes([x[0], x[1]]));
    _mm512_cvtph_ps(_mm256_set_m128i(half(b), half(a)))
}
