//! The loops of `avx2::lut` with an entry of a table, 32 tokens, in one register.

use std::arch::x86_64::*;

use super::super::avx2::lut::{Columns, Loops, Narrow, Pass, Sums, Wide, fill_tables};

pub(super) const LOOPS: Loops = {
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn fill(columns: Columns, tables: &mut [Narrow]) {
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
        fill_tables: fill,
        run,
    }
};

impl Sums for __m512i {
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
    unsafe fn load(from: &Narrow) -> Self {
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands. An entry is aligned to its
        // 64 bytes.
        unsafe { _mm512_load_si512(from.0.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut Narrow) {
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands. An entry is aligned to its
        // 64 bytes.
        unsafe { _mm512_store_si512(to.0.as_mut_ptr().cast(), self) };
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
    unsafe fn add_to(self, to: &mut Wide) {
        let to = to.0.as_mut_ptr().cast::<__m512i>();
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands. These are halves of sums
        // that are aligned to 64 bytes.
        unsafe {
            let low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(self));
            let high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64::<1>(self));
            _mm512_store_si512(to, _mm512_add_epi32(_mm512_load_si512(to), low));
            let to = to.add(1);
            _mm512_store_si512(to, _mm512_add_epi32(_mm512_load_si512(to), high));
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: &mut Wide) {
        let to = to.0.as_mut_ptr().cast::<f32>();
        // SAFETY: the caller has AVX-512 F and BW, as the trait demands. These are quarters of sums
        // that are aligned to 64 bytes.
        unsafe {
            let low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(self));
            let high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64::<1>(self));
            for (i, sums) in [low, high].into_iter().enumerate() {
                let to = to.add(16 * i);
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(scale));
                _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), scaled));
            }
        }
    }
}
