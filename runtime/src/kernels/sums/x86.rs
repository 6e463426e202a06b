//! Sums in registers of 128 and of 256 bits, and bytes of 16 tokens, with SSE2 and AVX2.

use std::arch::x86_64::*;

use super::Sums;

/// The bytes of 16 tokens.
pub(in super::super) type Sixteen = __m128i;

#[inline(always)]
pub(in super::super) fn no_bytes() -> Sixteen {
    // SAFETY: every x86-64 CPU has SSE2.
    unsafe { _mm_setzero_si128() }
}

/// Eight bytes, in the lower half.
#[inline(always)]
pub(in super::super) fn load_eight(bytes: &[i8; 8]) -> Sixteen {
    // SAFETY: every x86-64 CPU has SSE2; eight bytes.
    unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) }
}

/// The upper half, in the lower one.
#[inline(always)]
pub(in super::super) fn upper_half(bytes: Sixteen) -> Sixteen {
    // SAFETY: every x86-64 CPU has SSE2.
    unsafe { _mm_srli_si128::<8>(bytes) }
}

/// Bytes of a and b in turn: those of the lower halves, and those of the upper ones.
#[inline(always)]
pub(in super::super) fn interleave(a: Sixteen, b: Sixteen) -> [Sixteen; 2] {
    // SAFETY: every x86-64 CPU has SSE2.
    unsafe { [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)] }
}

/// Four rows of four sums, rows and columns exchanged.
#[inline(always)]
pub(in super::super) fn four_by_four(rows: [&[i32; 4]; 4]) -> [[i32; 4]; 4] {
    // SAFETY: every x86-64 CPU has SSE2; four lanes each, and the loads may be unaligned.
    unsafe {
        let [a, b, c, d] = rows.map(|row| _mm_loadu_si128(row.as_ptr().cast()));
        let (low0, low1) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
        let (high0, high1) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
        [
            _mm_unpacklo_epi64(low0, low1),
            _mm_unpackhi_epi64(low0, low1),
            _mm_unpacklo_epi64(high0, high1),
            _mm_unpackhi_epi64(high0, high1),
        ]
        .map(bytemuck::cast)
    }
}

impl Sums for __m256i {
    const TOKENS: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn widen([a, _]: [__m128i; 2]) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { _mm256_cvtepi8_epi16(a) }
    }

    #[inline(always)]
    unsafe fn load(from: *const i16) -> Self {
        // SAFETY: the caller has AVX2 and gives a whole entry.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the caller has AVX2 and gives a whole entry.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { _mm256_add_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { _mm256_sub_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn add_to(self, to: *mut i32) {
        // SAFETY: the caller has AVX2 and gives sixteen sums.
        unsafe {
            for (half, sums) in halves(self).into_iter().enumerate() {
                let to = to.add(8 * half).cast::<__m256i>();
                _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), sums));
            }
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32) {
        // SAFETY: the caller has AVX2 and gives sixteen sums.
        unsafe {
            for (half, sums) in halves(self).into_iter().enumerate() {
                let to = to.add(8 * half);
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(scale));
                _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), scaled));
            }
        }
    }
}

/// Sixteen sums in 32 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn halves(sums: __m256i) -> [__m256i; 2] {
    [
        _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums)),
        _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(sums)),
    ]
}

impl Sums for __m128i {
    const TOKENS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { _mm_setzero_si128() }
    }

    #[inline(always)]
    unsafe fn widen([a, _]: [__m128i; 2]) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { _mm_srai_epi16::<8>(_mm_unpacklo_epi8(a, a)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const i16) -> Self {
        // SAFETY: the caller gives a part of an entry, aligned.
        unsafe { _mm_load_si128(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the caller gives a part of an entry, aligned.
        unsafe { _mm_store_si128(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { _mm_add_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { _mm_sub_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn add_to(self, to: *mut i32) {
        // SAFETY: the caller gives eight sums, aligned.
        unsafe {
            for (half, sums) in quarters(self).into_iter().enumerate() {
                let to = to.add(4 * half).cast::<__m128i>();
                _mm_store_si128(to, _mm_add_epi32(_mm_load_si128(to), sums));
            }
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32) {
        // SAFETY: the caller gives eight sums, aligned.
        unsafe {
            for (half, sums) in quarters(self).into_iter().enumerate() {
                let to = to.add(4 * half);
                let scaled = _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(scale));
                _mm_store_ps(to, _mm_add_ps(_mm_load_ps(to), scaled));
            }
        }
    }
}

/// Eight sums in 32 bits.
#[target_feature(enable = "sse2")]
#[inline]
fn quarters(sums: __m128i) -> [__m128i; 2] {
    [
        _mm_srai_epi32::<16>(_mm_unpacklo_epi16(sums, sums)),
        _mm_srai_epi32::<16>(_mm_unpackhi_epi16(sums, sums)),
    ]
}
