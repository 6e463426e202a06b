//! Products with rows that are not ternary.
//!
//! A register holds the 16 lanes of a float sum, so tiles of numbers are four rows by four tokens.
//! Of blocks it holds four columns of 16 rows, and tiles are 16 rows by eight tokens.
//!
//! `vpdpbusd` wants unsigned codes, so those of `q8_0` are taken 128 higher and those of `q4_0`, 8
//! higher, as they lie; what that adds is the same for all rows and is subtracted beforehand. A
//! block of 16 rows and a token are eight `vpdpbusd`, two multiplications, a conversion and an
//! addition: 512 products in ten cycles where one multiplication of 64 bytes begins in a cycle.

use std::arch::x86_64::*;

use half::{bf16, f16};
use sterna_ternary::packing::{q4_0, q8_0};

use super::super::avx2::dense::{codes_of_q4_0, codes_of_q8_0};
use super::super::blocks::{self, Lanes, Panel, padded, scale_bits};
use super::super::dense::BlockProduct;
use super::super::prefetch::Prefetch;

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

/// The product of `float::gemm`, whose 16 lanes are a register here. Many tokens share rows that
/// were widened once: conversions would take turns with additions.
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
    let kept = if tiled > 4 { columns / 16 } else { 0 };
    let mut cache = vec![[_mm512_setzero_ps(); 4]; kept];
    let prefetch = Prefetch::of(4, columns * size_of::<T>());
    for r in (0..n).step_by(4) {
        let row = |i: usize| rows[(r + i).min(n - 1) * columns..][..columns].as_chunks::<16>();
        let rows = [row(0), row(1), row(2), row(3)];
        let start: *const u8 = rows[0].0.as_ptr().cast();
        let wide = |c: usize| {
            let bytes = 4 * size_of::<[T; 16]>();
            for line in (0..bytes).step_by(64) {
                prefetch.after(start, c * bytes + line);
            }
            let mut wide = [_mm512_setzero_ps(); 4];
            for (wide, row) in wide.iter_mut().zip(rows) {
                *wide = widen(&row.0[c]);
            }
            wide
        };
        // Zeros after the last column change no lane, as no lane is -0.
        let mut last = [_mm512_setzero_ps(); 4];
        for (last, row) in last.iter_mut().zip(rows) {
            *last = widen(&padded(row.1));
        }
        for (c, cached) in cache.iter_mut().enumerate() {
            *cached = wide(c);
        }
        for t in (0..tiled).step_by(4) {
            if kept > 0 {
                tile_of_numbers::<4>(x, columns, |c| cache[c], last, [r, t], n, y);
            } else {
                tile_of_numbers::<4>(x, columns, wide, last, [r, t], n, y);
            }
        }
        for t in tiled..tokens {
            tile_of_numbers::<1>(x, columns, wide, last, [r, t], n, y);
        }
    }
}

/// Four of `n` rows with some tokens, from `r` and `t` on: `wide` are 16 columns of them, `last`
/// the remaining ones, padded with zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn tile_of_numbers<const TOKENS: usize>(
    x: &[f32],
    columns: usize,
    wide: impl Fn(usize) -> [__m512; 4],
    last: [__m512; 4],
    [r, t]: [usize; 2],
    n: usize,
    y: &mut [f32],
) {
    let mut tokens = [x[t * columns..][..columns].as_chunks::<16>(); TOKENS];
    for (i, token) in tokens.iter_mut().enumerate() {
        *token = x[(t + i) * columns..][..columns].as_chunks();
    }
    let mut lanes = [[_mm512_setzero_ps(); 4]; TOKENS];
    for c in 0..columns / 16 {
        let wide = wide(c);
        for (lanes, token) in lanes.iter_mut().zip(&tokens) {
            add_products(lanes, single(&token.0[c]), wide);
        }
    }
    if !columns.is_multiple_of(16) {
        for (lanes, token) in lanes.iter_mut().zip(&tokens) {
            add_products(lanes, single(&padded(token.1)), last);
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

#[target_feature(enable = "avx512f")]
#[inline]
fn add_products(lanes: &mut [__m512; 4], x: __m512, wide: [__m512; 4]) {
    for (lane, wide) in lanes.iter_mut().zip(wide) {
        *lane = _mm512_add_ps(*lane, _mm512_mul_ps(x, wide));
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
    let sign = _mm512_set1_epi8(-128);
    let codes = |blocks: [&[u8; q8_0::BYTES]; 16]| {
        let mut pairs = [_mm512_setzero_si512(); 8];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let r = i / 4 * 8 + i % 4;
            let [low, high] = [blocks[r], blocks[r + 4]].map(|block| codes_of_q8_0(block));
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            *pair = _mm512_xor_si512(both, sign);
        }
        let [a, b, c, d, e, f, g, h] = pairs;
        let (below, above) = (transpose([a, b, c, d]), transpose([e, f, g, h]));
        let mut codes = pairs;
        for i in 0..4 {
            codes[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(below[i], above[i]);
            codes[4 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(below[i], above[i]);
        }
        codes
    };
    gemm::<{ q8_0::BYTES }, 7>(product, y, codes);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512dq")]
pub(super) fn gemm_q4_0(product: BlockProduct, y: &mut [f32]) {
    let mask = _mm512_set1_epi8(15);
    let codes = |blocks: [&[u8; q4_0::BYTES]; 16]| {
        let mut fours = [_mm512_setzero_si512(); 4];
        for (i, four) in fours.iter_mut().enumerate() {
            let of_rows = [0, 4, 8, 12].map(|r| codes_of_q4_0(blocks[r + i]));
            *four = _mm512_castsi128_si512(of_rows[0]);
            *four = _mm512_inserti32x4::<1>(*four, of_rows[1]);
            *four = _mm512_inserti32x4::<2>(*four, of_rows[2]);
            *four = _mm512_inserti32x4::<3>(*four, of_rows[3]);
        }
        let mut codes = [_mm512_setzero_si512(); 8];
        for (i, both) in transpose(fours).into_iter().enumerate() {
            codes[i] = _mm512_and_si512(both, mask);
            codes[4 + i] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask);
        }
        codes
    };
    gemm::<{ q4_0::BYTES }, 3>(product, y, codes);
}

/// 16 rows by eight tokens; `codes` are unsigned, 2^`EXCESS` above what they stand for.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512dq")]
#[inline]
fn gemm<const BYTES: usize, const EXCESS: u32>(
    product: BlockProduct,
    y: &mut [f32],
    codes: impl Fn([&[u8; BYTES]; 16]) -> [__m512i; 8] + Copy,
) {
    let lanes = Sixteen::<EXCESS, _> {
        codes,
        prefetch: Prefetch::of(16, product.blocks * BYTES),
    };
    // SAFETY: this function is compiled for AVX-512 F, BW, VL, DQ and VNNI.
    unsafe { blocks::product::<16, 8, BYTES, _>(product.checked(y), y, lanes) };
}

/// Sixteen rows; `codes` puts the codes of a block of each side by side, 2^`EXCESS` above what they
/// stand for.
#[derive(Clone, Copy)]
struct Sixteen<const EXCESS: u32, Codes> {
    codes: Codes,
    prefetch: Prefetch,
}

impl<const BYTES: usize, const EXCESS: u32, Codes> Lanes<16, BYTES> for Sixteen<EXCESS, Codes>
where
    Codes: Fn([&[u8; BYTES]; 16]) -> [__m512i; 8] + Copy,
{
    type Codes = __m512i;
    type Sums = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn prefetch(self, at: *const u8) {
        self.prefetch.after(at, 0);
    }

    #[inline(always)]
    unsafe fn unpack(self, blocks: [&[u8; BYTES]; 16]) -> Panel<__m512i, __m512> {
        Panel {
            codes: (self.codes)(blocks),
            // SAFETY: the caller has AVX-512 F, as the trait demands.
            scales: unsafe { scales(scale_bits(blocks)) },
        }
    }

    #[inline(always)]
    unsafe fn start(self, q_sum: i32) -> __m512i {
        // SAFETY: the caller has AVX-512 F, as the trait demands.
        unsafe {
            let excess = _mm512_slli_epi32::<EXCESS>(_mm512_set1_epi32(q_sum));
            _mm512_sub_epi32(_mm512_setzero_si512(), excess)
        }
    }

    #[inline(always)]
    unsafe fn dot(self, sums: __m512i, codes: __m512i, q: [i8; 4]) -> __m512i {
        let q = i32::from_le_bytes(q.map(|q| q as u8));
        // SAFETY: the caller has AVX-512 F and VNNI, as the trait demands.
        unsafe { _mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(q)) }
    }

    #[inline(always)]
    unsafe fn add(self, y: __m512, sums: __m512i, scales: __m512, scale: f32) -> __m512 {
        // SAFETY: the caller has AVX-512 F, as the trait demands.
        unsafe {
            let scales = _mm512_mul_ps(scales, _mm512_set1_ps(scale));
            _mm512_add_ps(y, _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales))
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: the caller has AVX-512 F, as the trait demands.
        unsafe { single(from) }
    }

    #[inline(always)]
    unsafe fn store(self, floats: __m512, to: &mut [f32; 16]) {
        // SAFETY: the caller has AVX-512 F; 16 floats, and the store may be unaligned.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), floats) };
    }
}

/// In each 128 bits, four numbers of 32 bits from four registers: number c of register r becomes
/// number r of register c.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let low = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
    let high = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
    [
        _mm512_unpacklo_epi64(low[0], low[1]),
        _mm512_unpackhi_epi64(low[0], low[1]),
        _mm512_unpacklo_epi64(high[0], high[1]),
        _mm512_unpackhi_epi64(high[0], high[1]),
    ]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn scales(bits: [u16; 16]) -> __m512 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits.map(|bits| bits as i16);
    let low = _mm_setr_epi16(a, b, c, d, e, f, g, h);
    _mm512_cvtph_ps(_mm256_set_m128i(
        _mm_setr_epi16(i, j, k, l, m, n, o, p),
        low,
    ))
}
