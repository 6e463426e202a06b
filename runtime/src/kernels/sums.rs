//! Sums of as many tokens as an entry of a table of [`lut`](super::lut) has, in registers.

use std::arch::x86_64::*;

/// One 16-bit number for each token of an entry, in registers.
///
/// # Safety
/// Every function of this trait may be called only on a CPU that has the instruction set of the
/// implementing type: SSE2 for registers of 128 bits, AVX2 for those of 256, AVX-512 F and BW for
/// those of 512. Addresses are aligned to 16 bytes.
pub(super) trait Sums: Copy {
    /// Tokens of an entry: 16 or 32, or 8 in a part of it.
    const TOKENS: usize;

    /// All sums zero.
    unsafe fn zero() -> Self;
    /// The bytes of the first and of the last 16 tokens, as 16-bit numbers.
    unsafe fn widen(bytes: [__m128i; 2]) -> Self;
    /// Reads the sums of an entry.
    unsafe fn load(from: *const i16) -> Self;
    /// Writes the sums of an entry.
    unsafe fn store(self, to: *mut i16);
    /// The sums of lanes, modulo 2¹⁶.
    unsafe fn add(self, other: Self) -> Self;
    /// The differences of lanes, modulo 2¹⁶.
    unsafe fn sub(self, other: Self) -> Self;
    /// Adds the lanes to as many 32-bit sums.
    unsafe fn add_to(self, to: *mut i32);
    /// Adds the lanes, as f32 times `scale`, to as many sums in f32.
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32);
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

/// Two registers, or twice as many.
impl<S: Sums> Sums for [S; 2] {
    const TOKENS: usize = 2 * S::TOKENS;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instruction set, as the trait demands.
        unsafe { [S::zero(); 2] }
    }

    #[inline(always)]
    unsafe fn widen([a, b]: [__m128i; 2]) -> Self {
        let second = match S::TOKENS {
            // SAFETY: every x86-64 CPU has SSE2.
            8 => unsafe { _mm_srli_si128::<8>(a) },
            _ => b,
        };
        // SAFETY: the caller has the instruction set, as the trait demands.
        unsafe { [S::widen([a, a]), S::widen([second, second])] }
    }

    #[inline(always)]
    unsafe fn load(from: *const i16) -> Self {
        // SAFETY: the caller has the instruction set and gives a whole entry.
        unsafe { [S::load(from), S::load(from.add(S::TOKENS))] }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the caller has the instruction set and gives a whole entry.
        unsafe {
            self[0].store(to);
            self[1].store(to.add(S::TOKENS));
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has the instruction set, as the trait demands.
        unsafe { [self[0].add(other[0]), self[1].add(other[1])] }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has the instruction set, as the trait demands.
        unsafe { [self[0].sub(other[0]), self[1].sub(other[1])] }
    }

    #[inline(always)]
    unsafe fn add_to(self, to: *mut i32) {
        // SAFETY: the caller has the instruction set and gives as many sums.
        unsafe {
            self[0].add_to(to);
            self[1].add_to(to.add(S::TOKENS));
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32) {
        // SAFETY: the caller has the instruction set and gives as many sums.
        unsafe {
            self[0].add_scaled_to(scale, to);
            self[1].add_scaled_to(scale, to.add(S::TOKENS));
        }
    }
}
