//! Products with rows that are not ternary: numbers, the lanes of whose sums are two registers, and
//! blocks.
//!
//! `vpmaddubsw` wants one unsigned factor: the codes of a block lose their sign, and the
//! activations take it. A pair of products is at most 2 · 128 · 127 in magnitude, which 16 bits
//! hold. Codes of `q4_0` lie unsigned and are so small that 16 bits hold the sums of a block. Tiles
//! of blocks are eight rows by four tokens.

use std::arch::x86_64::*;

use half::{bf16, f16};
use sterna_ternary::packing::{q4_0, q8_0};

use super::super::blocks::{self, Lanes, Panel, padded, scale_bits};
use super::super::dense::BlockProduct;
use super::super::prefetch::Prefetch;
use super::registers::load;
use super::shuffle::{eight_by_eight, transpose};

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

/// Some rows with some tokens, from `r` and `t` on; after the last row, that row is repeated.
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
        // Zeros after the last column change no lane, as no lane is -0.
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
    let lanes = Q8 {
        prefetch: Prefetch::of(8, product.blocks * q8_0::BYTES),
    };
    // SAFETY: this function is compiled for AVX2 and F16C.
    unsafe { blocks::product::<8, 4, { q8_0::BYTES }, _>(product.checked(y), y, lanes) };
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn gemm_q4_0(product: BlockProduct, y: &mut [f32]) {
    let lanes = Q4 {
        prefetch: Prefetch::of(8, product.blocks * q4_0::BYTES),
    };
    // SAFETY: this function is compiled for AVX2 and F16C.
    unsafe { blocks::product::<8, 4, { q4_0::BYTES }, _>(product.checked(y), y, lanes) };
}

/// Eight rows of `q8_0`: signed codes, sums of 32 bits.
#[derive(Clone, Copy)]
struct Q8 {
    prefetch: Prefetch,
}

impl Lanes<8, { q8_0::BYTES }> for Q8 {
    type Codes = __m256i;
    type Sums = __m256i;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn prefetch(self, at: *const u8) {
        self.prefetch.after(at, 0);
    }

    #[inline(always)]
    unsafe fn unpack(self, blocks: [&[u8; q8_0::BYTES]; 8]) -> Panel<__m256i, __m256> {
        // SAFETY: the caller has AVX2 and F16C, as the trait demands.
        unsafe {
            Panel {
                codes: columns_of_q8_0(blocks),
                scales: scales(scale_bits(blocks)),
            }
        }
    }

    #[inline(always)]
    unsafe fn start(self, _: i32) -> __m256i {
        // SAFETY: the caller has AVX2 and F16C, as the trait demands.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn dot(self, sums: __m256i, codes: __m256i, q: [i8; 4]) -> __m256i {
        // SAFETY: the caller has AVX2 and F16C, as the trait demands.
        unsafe {
            let q = _mm256_sign_epi8(four(q), codes);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), q);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn add(self, y: __m256, sums: __m256i, scales: __m256, scale: f32) -> __m256 {
        // SAFETY: the caller has AVX2 and F16C, as the trait demands.
        unsafe { add_scaled(y, sums, scales, scale) }
    }

    #[inline(always)]
    unsafe fn load(self, from: &[f32; 8]) -> __m256 {
        // SAFETY: the caller has AVX2; eight floats, and the load may be unaligned.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(self, floats: __m256, to: &mut [f32; 8]) {
        // SAFETY: the caller has AVX2; eight floats, and the store may be unaligned.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), floats) };
    }
}

/// Eight rows of `q4_0`: codes 8 above what they stand for, sums of 16 bits in two lanes for each
/// row.
#[derive(Clone, Copy)]
struct Q4 {
    prefetch: Prefetch,
}

impl Lanes<8, { q4_0::BYTES }> for Q4 {
    type Codes = __m256i;
    type Sums = __m256i;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn prefetch(self, at: *const u8) {
        self.prefetch.after(at, 0);
    }

    #[inline(always)]
    unsafe fn unpack(self, blocks: [&[u8; q4_0::BYTES]; 8]) -> Panel<__m256i, __m256> {
        // SAFETY: the caller has AVX2 and F16C, as the trait demands.
        unsafe {
            Panel {
                codes: columns_of_q4_0(blocks),
                scales: scales(scale_bits(blocks)),
            }
        }
    }

    /// Half of what an excess of 8 adds, for each of the two lanes that `add` joins. A lane ends as
    /// its Σ (code − 4) q − 4 Σ q of the other one: at most 15 · 16 · 127, which 16 bits hold.
    #[inline(always)]
    unsafe fn start(self, q_sum: i32) -> __m256i {
        // SAFETY: the caller has AVX2 and F16C, as the trait demands.
        unsafe { _mm256_set1_epi16((-4 * q_sum) as i16) }
    }

    #[inline(always)]
    unsafe fn dot(self, sums: __m256i, codes: __m256i, q: [i8; 4]) -> __m256i {
        // SAFETY: the caller has AVX2 and F16C, as the trait demands.
        unsafe { _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, four(q))) }
    }

    #[inline(always)]
    unsafe fn add(self, y: __m256, sums: __m256i, scales: __m256, scale: f32) -> __m256 {
        // SAFETY: the caller has AVX2 and F16C, as the trait demands.
        unsafe {
            let sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
            add_scaled(y, sums, scales, scale)
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: &[f32; 8]) -> __m256 {
        // SAFETY: the caller has AVX2; eight floats, and the load may be unaligned.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(self, floats: __m256, to: &mut [f32; 8]) {
        // SAFETY: the caller has AVX2; eight floats, and the store may be unaligned.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), floats) };
    }
}

/// Four activations in every lane.
#[target_feature(enable = "avx2")]
#[inline]
fn four(q: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes(q.map(|q| q as u8)))
}

/// y + sums · (scales · scale).
#[target_feature(enable = "avx2")]
#[inline]
fn add_scaled(y: __m256, sums: __m256i, scales: __m256, scale: f32) -> __m256 {
    let scales = _mm256_mul_ps(scales, _mm256_set1_ps(scale));
    _mm256_add_ps(y, _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scales))
}

/// The codes of eight blocks, four columns a register.
#[target_feature(enable = "avx2")]
#[inline]
fn columns_of_q8_0(blocks: [&[u8; q8_0::BYTES]; 8]) -> [__m256i; 8] {
    let mut rows = [_mm256_setzero_si256(); 8];
    for (row, block) in rows.iter_mut().zip(blocks) {
        *row = codes_of_q8_0(block);
    }
    eight_by_eight(rows)
}

/// The codes of eight blocks, four columns a register.
#[target_feature(enable = "avx2")]
#[inline]
fn columns_of_q4_0(blocks: [&[u8; q4_0::BYTES]; 8]) -> [__m256i; 8] {
    let mask = _mm256_set1_epi8(15);
    let mut pairs = [_mm256_setzero_si256(); 4];
    for (r, pair) in pairs.iter_mut().enumerate() {
        let [low, high] = [blocks[r], blocks[r + 4]].map(|block| codes_of_q4_0(block));
        *pair = _mm256_set_m128i(high, low);
    }
    let mut codes = [_mm256_setzero_si256(); 8];
    for (i, both) in transpose(pairs).into_iter().enumerate() {
        codes[i] = _mm256_and_si256(both, mask);
        codes[4 + i] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
    }
    codes
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn codes_of_q8_0(block: &[u8; q8_0::BYTES]) -> __m256i {
    let (_, codes) = block
        .split_last_chunk::<32>()
        .expect("a block has 32 codes");
    load(codes)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn codes_of_q4_0(block: &[u8; q4_0::BYTES]) -> __m128i {
    // SAFETY: 16 bytes after the scale; the load may be unaligned.
    unsafe { _mm_loadu_si128(block[2..].as_ptr().cast()) }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn scales(bits: [u16; 8]) -> __m256 {
    let [a, b, c, d, e, f, g, h] = bits.map(|bits| bits as i16);
    _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, e, f, g, h))
}
