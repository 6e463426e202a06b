//! The float slot that the compiler does not vectorize well: the quantizer.

use std::arch::x86_64::*;

use super::super::float;

/// `quantize_activations`. The conversion rounds half to even as well, and packing saturates.
#[target_feature(enable = "avx2")]
pub(super) fn quantize(x: &[f32], q: &mut [i8]) -> f32 {
    float::quantize_with(x, q, |x, scale, q| quantize_chunk(x, scale, q))
}

#[target_feature(enable = "avx2")]
#[inline]
fn quantize_chunk(x: &[f32; 32], scale: f32, q: &mut [i8; 32]) {
    let scale = _mm256_set1_ps(scale);
    let mut codes = [_mm256_setzero_si256(); 4];
    for (codes, x) in codes.iter_mut().zip(x.as_chunks().0) {
        *codes = _mm256_cvtps_epi32(_mm256_mul_ps(load(x), scale));
    }
    let [a, b, c, d] = codes;
    // Packing works in halves of a register, which leaves fours of columns in this order.
    let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let packed = _mm256_permutevar8x32_epi32(packed, order);
    // SAFETY: 32 bytes; the store may be unaligned.
    unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), packed) };
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: eight floats; the load may be unaligned.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}
