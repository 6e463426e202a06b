//! Loads, and sums and selections within registers of 256 bits.

use std::arch::x86_64::*;

/// The high bytes of 16-bit lanes, of `even` in even places.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn high_bytes(even: __m256i, odd: __m256i) -> __m256i {
    let odd_places = _mm256_set1_epi16(0xff00u16 as i16);
    _mm256_blendv_epi8(_mm256_srli_epi16::<8>(even), odd, odd_places)
}

/// Sixteen bytes for `vpshufb` to select from.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn table(bytes: [i8; 16]) -> __m256i {
    // SAFETY: 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// The sums of the lanes of four registers.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn four_sums([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let halves = (
        _mm256_castsi256_si128(pairs),
        _mm256_extracti128_si256::<1>(pairs),
    );
    let mut sums = [0; 4];
    let added = _mm_add_epi32(halves.0, halves.1);
    // SAFETY: four lanes; the store may be unaligned.
    unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), added) };
    sums
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load<T: bytemuck::Pod>(bytes: &[T; 32]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 elements of one byte; the load may be unaligned.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}
