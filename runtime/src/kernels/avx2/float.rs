//! The float slot that the compiler does not vectorize well: the quantizer.

use std::arch::x86_64::*;

use sterna_ternary::quantize::{activation_scale, is_usable};

/// `quantize_activations`. The conversion rounds half to even as well, and packing saturates.
#[target_feature(enable = "avx2")]
pub(super) fn quantize(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len());
    let scale = activation_scale(x);
    if !is_usable(scale) {
        q.fill(0);
        return scale;
    }
    let ((x, rest), (q, rest_q)) = (x.as_chunks::<32>(), q.as_chunks_mut::<32>());
    for (x, q) in x.iter().zip(q) {
        quantize_chunk(x, scale, q);
    }
    let (mut last, mut last_q) = ([0.0; 32], [0; 32]);
    last[..rest.len()].copy_from_slice(rest);
    quantize_chunk(&last, scale, &mut last_q);
    rest_q.copy_from_slice(&last_q[..rest.len()]);
    scale
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
