//! Products with rows that are not ternary: numbers, the lanes of whose sums are two registers, and blocks.
//!
//! `vpmaddubsw` wants one unsigned factor: the codes of a block lose their sign, and the activations take it. A pair of
//! products is at most 2 · 128 · 127 in magnitude, which 16 bits hold. A token alone meets four rows at once,
//! several meet in tiles of two rows by four tokens.

use std::arch::x86_64::*;

use half::{bf16, f16};
use sterna_ternary::packing::{q4_0, q8_0};

use super::super::dense::{BlockProduct, Checked, padded, tree};
use super::{load, prefetch_distance, prefetch_line};

#[target_feature(enable = "avx2,f16c")]
pub(super) fn gemm_f32(x: &[f32], columns: usize, rows: &[f32], y: &mut [f32]) {
    gemm_numbers(x, columns, rows, y, |v| singles(v));
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn gemm_bf16(x: &[f32], columns: usize, rows: &[bf16], y: &mut [f32]) {
    gemm_numbers(x, columns, rows, y, |v| {
        // SAFETY: 16 values of two bytes; the load may be unaligned.
        let v = unsafe { _mm256_loadu_si256(v.as_ptr().cast()) };
        let halves = [_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v)];
        let wide = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v)));
        [wide(halves[0]), wide(halves[1])]
    });
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn gemm_f16(x: &[f32], columns: usize, rows: &[f16], y: &mut [f32]) {
    gemm_numbers(x, columns, rows, y, |v| {
        // SAFETY: 16 values of two bytes; the load may be unaligned.
        let v = unsafe { _mm256_loadu_si256(v.as_ptr().cast()) };
        let halves = [_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v)];
        [_mm256_cvtph_ps(halves[0]), _mm256_cvtph_ps(halves[1])]
    });
}

#[target_feature(enable = "avx2")]
#[inline]
fn singles(v: &[f32; 16]) -> [__m256; 2] {
    // SAFETY: 16 floats; the loads may be unaligned.
    unsafe {
        [
            _mm256_loadu_ps(v.as_ptr()),
            _mm256_loadu_ps(v[8..].as_ptr()),
        ]
    }
}

/// The product of `float::gemm`, whose 16 lanes are two registers here.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn gemm_numbers<T: Copy + Default>(
    x: &[f32],
    columns: usize,
    rows: &[T],
    y: &mut [f32],
    widen: impl Fn(&[T; 16]) -> [__m256; 2] + Copy,
) {
    let (tokens, n) = (x.len() / columns, rows.len() / columns);
    assert!(x.len() == tokens * columns && rows.len() == n * columns);
    assert_eq!(y.len(), tokens * n);
    let tiled = tokens / 2 * 2;
    for r in (0..n).step_by(2) {
        for t in (0..tiled).step_by(2) {
            tile_of_numbers::<T, 2, 2>(x, columns, rows, [r, t], y, widen);
        }
    }
    for t in tiled..tokens {
        for r in (0..n).step_by(4) {
            tile_of_numbers::<T, 4, 1>(x, columns, rows, [r, t], y, widen);
        }
    }
}

/// Some rows with some tokens, from `r` and `t` on; behind the last row it is repeated.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn tile_of_numbers<T: Copy + Default, const ROWS: usize, const TOKENS: usize>(
    x: &[f32],
    columns: usize,
    rows: &[T],
    [r, t]: [usize; 2],
    y: &mut [f32],
    widen: impl Fn(&[T; 16]) -> [__m256; 2] + Copy,
) {
    let n = rows.len() / columns;
    let mut tile = [rows[r * columns..][..columns].as_chunks::<16>(); ROWS];
    for (i, row) in tile.iter_mut().enumerate() {
        *row = rows[(r + i).min(n - 1) * columns..][..columns].as_chunks();
    }
    let mut tokens = [x[t * columns..][..columns].as_chunks::<16>(); TOKENS];
    for (i, token) in tokens.iter_mut().enumerate() {
        *token = x[(t + i) * columns..][..columns].as_chunks();
    }
    let mut lanes = [[[_mm256_setzero_ps(); 2]; ROWS]; TOKENS];
    for c in 0..columns / 16 {
        let mut wide = [[_mm256_setzero_ps(); 2]; ROWS];
        for (wide, row) in wide.iter_mut().zip(&tile) {
            *wide = widen(&row.0[c]);
        }
        for (lanes, token) in lanes.iter_mut().zip(&tokens) {
            let x = singles(&token.0[c]);
            for (lanes, wide) in lanes.iter_mut().zip(wide) {
                add_products(lanes, x, wide);
            }
        }
    }
    if !columns.is_multiple_of(16) {
        // Zeros behind the last column change no lane, as none is -0.
        for (lanes, token) in lanes.iter_mut().zip(&tokens) {
            let x = singles(&padded(token.1));
            for (lanes, row) in lanes.iter_mut().zip(&tile) {
                add_products(lanes, x, widen(&padded(row.1)));
            }
        }
    }
    let there = (n - r).min(ROWS);
    for (i, lanes) in lanes.iter().enumerate() {
        let y = &mut y[(t + i) * n + r..][..there];
        for (y, lanes) in y.iter_mut().zip(lanes) {
            *y = halves(*lanes);
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_products(lanes: &mut [__m256; 2], x: [__m256; 2], v: [__m256; 2]) {
    lanes[0] = _mm256_add_ps(lanes[0], _mm256_mul_ps(x[0], v[0]));
    lanes[1] = _mm256_add_ps(lanes[1], _mm256_mul_ps(x[1], v[1]));
}

/// Lanes added in halves, 16 → 8 → 4 → 2 → 1.
#[target_feature(enable = "avx2")]
#[inline]
fn halves([low, high]: [__m256; 2]) -> f32 {
    let eight = _mm256_add_ps(low, high);
    let (low, high) = (
        _mm256_castps256_ps128(eight),
        _mm256_extractf128_ps::<1>(eight),
    );
    let four = _mm_add_ps(low, high);
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn gemm_q8_0(product: BlockProduct, y: &mut [f32]) {
    gemm(product.checked(y), y, |block: &[u8; q8_0::BYTES]| {
        let (_, codes) = block
            .split_last_chunk::<32>()
            .expect("a block has 32 codes");
        load(codes)
    });
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn gemm_q4_0(product: BlockProduct, y: &mut [f32]) {
    gemm(product.checked(y), y, |block: &[u8; q4_0::BYTES]| {
        // SAFETY: 16 bytes behind the scale; the load may be unaligned.
        let bytes = unsafe { _mm_loadu_si128(block[2..].as_ptr().cast()) };
        let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
        let codes = _mm256_and_si256(both, _mm256_set1_epi8(15));
        _mm256_sub_epi8(codes, _mm256_set1_epi8(8))
    });
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn gemm<const BYTES: usize>(
    product: Checked<BYTES>,
    y: &mut [f32],
    codes: impl Fn(&[u8; BYTES]) -> __m256i + Copy,
) {
    let Checked { n, tokens, .. } = product;
    let tiled = tokens / 4 * 4;
    for r in (0..n).step_by(2).filter(|_| tiled > 0) {
        for t in (0..tiled).step_by(4) {
            tile::<BYTES, 2, 4>(product, r, t, y, codes);
        }
    }
    for t in tiled..tokens {
        for r in (0..n).step_by(4) {
            tile::<BYTES, 4, 1>(product, r, t, y, codes);
        }
    }
}

/// Some rows with some tokens, from `r` and `t` on; behind the last row it is repeated.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn tile<const BYTES: usize, const ROWS: usize, const TOKENS: usize>(
    product: Checked<BYTES>,
    r: usize,
    t: usize,
    y: &mut [f32],
    codes: impl Fn(&[u8; BYTES]) -> __m256i + Copy,
) {
    let Checked { n, blocks, .. } = product;
    let mut rows = [product.row(r); ROWS];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = product.row((r + i).min(n - 1));
    }
    let mut tokens = [product.token(t); TOKENS];
    for (i, token) in tokens.iter_mut().enumerate() {
        *token = product.token(t + i);
    }
    let start = rows[0].as_ptr().cast();
    let distance = prefetch_distance(ROWS, blocks * BYTES);
    let mut lanes = [[_mm256_setzero_ps(); ROWS]; TOKENS];
    for b in 0..blocks {
        if t == 0 {
            for line in (0..ROWS * BYTES).step_by(64) {
                prefetch_line(start, b * ROWS * BYTES + line + distance);
            }
        }
        for (i, row) in rows.iter().enumerate() {
            let (w, scale) = (codes(&row[b]), scale(&row[b]));
            let magnitudes = _mm256_abs_epi8(w);
            for (lanes, (q, scales)) in lanes.iter_mut().zip(tokens) {
                let q = _mm256_sign_epi8(load(&q[b]), w);
                let pairs = _mm256_maddubs_epi16(magnitudes, q);
                let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps(scales[b]));
                let products = _mm256_mul_ps(_mm256_cvtepi32_ps(fours), scale);
                lanes[i] = _mm256_add_ps(lanes[i], products);
            }
        }
    }
    let there = (n - r).min(ROWS);
    for (i, lanes) in lanes.iter().enumerate() {
        let y = &mut y[(t + i) * n + r..][..there];
        for (y, lanes) in y.iter_mut().zip(lanes) {
            let mut sums = [0.0; 8];
            // SAFETY: eight floats; the store may be unaligned.
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), *lanes) };
            *y = tree(sums);
        }
    }
}

/// The scale of a block in all lanes.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn scale<const BYTES: usize>(block: &[u8; BYTES]) -> __m256 {
    let half = i16::from_le_bytes([block[0], block[1]]);
    _mm256_cvtph_ps(_mm_set1_epi16(half))
}
