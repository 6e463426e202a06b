//! The loops of [`lut`](super::super::lut) with an entry of a table, 32 tokens, in one register.

use std::arch::x86_64::*;

use super::super::lut::{Columns, Loops, Pass, fill_tables};
use super::super::sums::Sums;

pub(super) const LOOPS: &[Loops] = &[{
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn fill(columns: Columns, tables: &mut [i16]) {
        // SAFETY: this function is compiled for AVX-512 F and BW.
        unsafe { fill_tables::<__m512i>(columns, tables) }
    }
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn run(pass: Pass) {
        // SAFETY: this function is compiled for AVX-512 F and BW, and its caller has made the
        // ranks.
        unsafe { pass.run::<__m512i>() }
    }
    Loops {
        tokens: <__m512i as Sums>::TOKENS,
        fill_tables: fill,
        run,
    }
}];

impl Sums for __m512i {
    const TOKENS: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn widen([a, b]: [__m128i; 2]) -> Self {
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands.
        unsafe { _mm512_cvtepi8_epi16(_mm256_set_m128i(b, a)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const i16) -> Self {
        // SAFETY: the caller has AVX-512 F and BW, and gives a whole entry.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the caller has AVX-512 F and BW, and gives a whole entry.
        unsafe { _mm512_storeu_si512(to.cast(), self) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands.
        unsafe { _mm512_add_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands.
        unsafe { _mm512_sub_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn add_to(self, to: *mut i32) {
        let to = to.cast::<__m512i>();
        // SAFETY: the caller has AVX-512 F and BW, and gives 32 sums.
        unsafe {
            let low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(self));
            let high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64::<1>(self));
            _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), low));
            let to = to.add(1);
            _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), high));
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32) {
        // SAFETY: the caller has AVX-512 F and BW, and gives 32 sums.
        unsafe {
            let low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(self));
            let high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64::<1>(self));
            for (i, sums) in [low, high].into_iter().enumerate() {
                let to = to.add(16 * i);
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(scale));
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), scaled));
            }
        }
    }
}
