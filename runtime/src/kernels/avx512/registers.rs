//! Loads and fields of registers of 512 bits.

use std::arch::x86_64::*;

use super::super::avx2::registers::load;

/// The four codes of each byte.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(in super::super) fn fields(codes: __m512i) -> [__m512i; 4] {
    // What a 16-bit shift carries over is masked.
    let mask = _mm512_set1_epi8(3);
    [
        _mm512_and_si512(codes, mask),
        _mm512_and_si512(_mm512_srli_epi16::<2>(codes), mask),
        _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask),
        _mm512_and_si512(_mm512_srli_epi16::<6>(codes), mask),
    ]
}

/// 32 bytes, and 32 more above them.
///
/// # Safety
/// The caller has AVX2 and AVX-512 F.
#[inline(always)]
pub(super) unsafe fn pair<T: bytemuck::Pod>(low: &[T; 32], high: &[T; 32]) -> __m512i {
    // SAFETY: the caller has AVX2 and AVX-512 F.
    unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load(low)), load(high)) }
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(in super::super) fn whole(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes; the load may be unaligned.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
