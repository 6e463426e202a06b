//! Products with rows of blocks, four rows in the lanes of a register by four tokens; signs and
//! sums are those of `avx2`.

use std::arch::x86_64::*;

use half::f16;
use sterna_ternary::packing::{q4_0, q8_0};

use super::super::blocks::{self, Lanes, Panel, scale_bits};
use super::super::dense::BlockProduct;
use super::super::prefetch::Prefetch;
use super::super::widen::f16_to_f32;

#[target_feature(enable = "ssse3")]
pub(super) fn gemm_q8_0(product: BlockProduct, y: &mut [f32]) {
    let lanes = Blocks::<false>(Prefetch::of(4, product.blocks * q8_0::BYTES));
    // SAFETY: this function is compiled for SSSE3.
    unsafe { blocks::product::<4, 4, { q8_0::BYTES }, _>(product.checked(y), y, lanes) };
}

#[target_feature(enable = "ssse3")]
pub(super) fn gemm_q4_0(product: BlockProduct, y: &mut [f32]) {
    let lanes = Blocks::<true>(Prefetch::of(4, product.blocks * q4_0::BYTES));
    // SAFETY: this function is compiled for SSSE3.
    unsafe { blocks::product::<4, 4, { q4_0::BYTES }, _>(product.checked(y), y, lanes) };
}

/// Four rows of signed codes with sums of 32 bits, or of codes 8 above what they stand for with
/// sums of 16 bits in two lanes for each row.
#[derive(Clone, Copy)]
struct Blocks<const IS_UNSIGNED: bool>(Prefetch);

impl<const BYTES: usize, const IS_UNSIGNED: bool> Lanes<4, BYTES> for Blocks<IS_UNSIGNED> {
    type Codes = __m128i;
    type Sums = __m128i;
    type Floats = __m128;

    #[inline(always)]
    unsafe fn prefetch(self, at: *const u8) {
        self.0.after(at, 0);
    }

    #[inline(always)]
    unsafe fn unpack(self, blocks: [&[u8; BYTES]; 4]) -> Panel<__m128i, __m128> {
        let [a, b, c, d] = scale_bits(blocks).map(|bits| f16_to_f32(f16::from_bits(bits)));
        // SAFETY: the caller has SSSE3, as the trait demands.
        unsafe {
            Panel {
                codes: if IS_UNSIGNED {
                    nibbles(blocks.map(|block| sixteen(block, 2)))
                } else {
                    let [first, second] =
                        [2, 18].map(|at| transpose(blocks.map(|block| sixteen(block, at))));
                    let ([a, b, c, d], [e, f, g, h]) = (first, second);
                    [a, b, c, d, e, f, g, h]
                },
                scales: _mm_setr_ps(a, b, c, d),
            }
        }
    }

    /// What an excess of 8 adds, half of it for each of the two lanes that `add` joins.
    #[inline(always)]
    unsafe fn start(self, q_sum: i32) -> __m128i {
        let start = if IS_UNSIGNED { (-4 * q_sum) as i16 } else { 0 };
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { _mm_set1_epi16(start) }
    }

    #[inline(always)]
    unsafe fn dot(self, sums: __m128i, codes: __m128i, q: [i8; 4]) -> __m128i {
        // SAFETY: the caller has SSSE3, as the trait demands.
        unsafe {
            let q = _mm_set1_epi32(i32::from_le_bytes(q.map(|q| q as u8)));
            if IS_UNSIGNED {
                _mm_add_epi16(sums, _mm_maddubs_epi16(codes, q))
            } else {
                let pairs = _mm_maddubs_epi16(_mm_abs_epi8(codes), _mm_sign_epi8(q, codes));
                _mm_add_epi32(sums, _mm_madd_epi16(pairs, _mm_set1_epi16(1)))
            }
        }
    }

    #[inline(always)]
    unsafe fn add(self, y: __m128, sums: __m128i, scales: __m128, scale: f32) -> __m128 {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe {
            let sums = match IS_UNSIGNED {
                true => _mm_madd_epi16(sums, _mm_set1_epi16(1)),
                false => sums,
            };
            let scales = _mm_mul_ps(scales, _mm_set1_ps(scale));
            _mm_add_ps(y, _mm_mul_ps(_mm_cvtepi32_ps(sums), scales))
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: &[f32; 4]) -> __m128 {
        // SAFETY: every x86-64 CPU has SSE2; four floats, and the load may be unaligned.
        unsafe { _mm_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(self, floats: __m128, to: &mut [f32; 4]) {
        // SAFETY: every x86-64 CPU has SSE2; four floats, and the store may be unaligned.
        unsafe { _mm_storeu_ps(to.as_mut_ptr(), floats) };
    }
}

/// Sixteen bytes of a block, from `at` on.
#[target_feature(enable = "ssse3")]
#[inline]
fn sixteen<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> __m128i {
    let bytes: &[u8; 16] = block[at..].first_chunk().expect("a block is longer");
    // SAFETY: 16 bytes; the load may be unaligned.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The codes of four rows of 16 bytes, the low four bits before the high ones.
#[target_feature(enable = "ssse3")]
#[inline]
fn nibbles(rows: [__m128i; 4]) -> [__m128i; 8] {
    let mask = _mm_set1_epi8(15);
    let mut codes = [mask; 8];
    for (i, both) in transpose(rows).into_iter().enumerate() {
        codes[i] = _mm_and_si128(both, mask);
        codes[4 + i] = _mm_and_si128(_mm_srli_epi16::<4>(both), mask);
    }
    codes
}

/// Number c of 32 bits of register r becomes number r of register c.
#[target_feature(enable = "ssse3")]
#[inline]
fn transpose([a, b, c, d]: [__m128i; 4]) -> [__m128i; 4] {
    let low = [_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d)];
    let high = [_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d)];
    [
        _mm_unpacklo_epi64(low[0], low[1]),
        _mm_unpackhi_epi64(low[0], low[1]),
        _mm_unpacklo_epi64(high[0], high[1]),
        _mm_unpackhi_epi64(high[0], high[1]),
    ]
}
