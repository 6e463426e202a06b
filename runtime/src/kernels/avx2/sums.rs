//! Sums of as many tokens as an entry of a table has, in registers.

use std::arch::x86_64::*;

/// One 16-bit number for each token of an entry, in registers.
///
/// # Safety
/// Every function of this trait may be called only on a CPU that has the instruction set of the
/// implementing type: AVX2 for registers of at most 256 bits, AVX-512 F and BW for those of 512.
pub(in super::super) trait Sums: Copy {
    /// Tokens of an entry: 16 or 32.
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

impl Sums for [__m256i; 2] {
    const TOKENS: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { [Sums::zero(); 2] }
    }

    #[inline(always)]
    unsafe fn widen([a, b]: [__m128i; 2]) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { [Sums::widen([a, a]), Sums::widen([b, b])] }
    }

    #[inline(always)]
    unsafe fn load(from: *const i16) -> Self {
        // SAFETY: the caller has AVX2 and gives a whole entry.
        unsafe { [Sums::load(from), Sums::load(from.add(16))] }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: the caller has AVX2 and gives a whole entry.
        unsafe {
            self[0].store(to);
            self[1].store(to.add(16));
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { [self[0].add(other[0]), self[1].add(other[1])] }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2, as the trait demands.
        unsafe { [self[0].sub(other[0]), self[1].sub(other[1])] }
    }

    #[inline(always)]
    unsafe fn add_to(self, to: *mut i32) {
        // SAFETY: the caller has AVX2 and gives 32 sums.
        unsafe {
            self[0].add_to(to);
            self[1].add_to(to.add(16));
        }
    }

    #[inline(always)]
    unsafe fn add_scaled_to(self, scale: f32, to: *mut f32) {
        // SAFETY: the caller has AVX2 and gives 32 sums.
        unsafe {
            self[0].add_scaled_to(scale, to);
            self[1].add_scaled_to(scale, to.add(16));
        }
    }
}
