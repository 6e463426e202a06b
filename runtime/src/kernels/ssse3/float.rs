//! Float slots that the compiler does not vectorize well: the quantizer, and products with numbers
//! in half precision, which lie 16 in two registers.

use std::arch::x86_64::*;

use half::f16;

use super::super::float;
use super::super::panels::{self, LANES, PanelProduct};

/// `quantize_activations`. The conversion rounds half to even as well, and packing saturates.
#[target_feature(enable = "ssse3")]
pub(super) fn quantize(x: &[f32], q: &mut [i8]) -> f32 {
    float::quantize_with(x, q, |x, scale, q| quantize_chunk(x, scale, q))
}

#[target_feature(enable = "ssse3")]
#[inline]
fn quantize_chunk(x: &[f32; 16], scale: f32, q: &mut [i8; 16]) {
    let scale = _mm_set1_ps(scale);
    let [a, b, c, d] = [0, 4, 8, 12].map(|i| {
        // SAFETY: four floats; the load may be unaligned.
        let x = unsafe { _mm_loadu_ps(x[i..].as_ptr()) };
        _mm_cvtps_epi32(_mm_mul_ps(x, scale))
    });
    let packed = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
    // SAFETY: 16 bytes; the store may be unaligned.
    unsafe { _mm_storeu_si128(q.as_mut_ptr().cast(), packed) };
}

#[target_feature(enable = "ssse3")]
pub(super) fn gemm_f16(x: &[f32], columns: usize, rows: &[f16], y: &mut [f32]) {
    float::gemm::<_, 2, 2>(x, columns, rows, y, |v| widen(v));
}

#[target_feature(enable = "ssse3")]
pub(super) fn panels_f16(product: PanelProduct<f32, f16>, y: &mut [f32]) {
    panels::float(product, y, |v| widen(v));
}

/// [`f16_to_f32`](super::super::widen::f16_to_f32) of 16 numbers.
#[target_feature(enable = "ssse3")]
#[inline]
fn widen(halves: &[f16; LANES]) -> [f32; LANES] {
    let zero = _mm_setzero_si128();
    let from: *const __m128i = halves.as_ptr().cast();
    // SAFETY: eight numbers of two bytes each; the loads may be unaligned.
    let [a, b] = [0, 1].map(|i| unsafe { _mm_loadu_si128(from.add(i)) });
    let wide = [
        _mm_unpacklo_epi16(a, zero),
        _mm_unpackhi_epi16(a, zero),
        _mm_unpacklo_epi16(b, zero),
        _mm_unpackhi_epi16(b, zero),
    ];
    let mut floats = [0.0; LANES];
    for (to, wide) in floats.as_chunks_mut::<4>().0.iter_mut().zip(wide) {
        let magnitude = _mm_slli_epi32::<13>(_mm_and_si128(wide, _mm_set1_epi32(0x7fff)));
        let sign = _mm_slli_epi32::<16>(_mm_and_si128(wide, _mm_set1_epi32(0x8000)));
        // Moved by the difference of the two exponent biases, 112.
        let power = _mm_castsi128_ps(_mm_set1_epi32((112 + 127) << 23));
        let finite = _mm_castps_si128(_mm_mul_ps(_mm_castsi128_ps(magnitude), power));
        // Infinity and NaN have all bits of the exponent.
        let is_special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff << 13));
        let exponent = _mm_and_si128(is_special, _mm_set1_epi32(0x7f80_0000));
        let bits = _mm_or_si128(_mm_or_si128(finite, exponent), sign);
        // SAFETY: four floats; the store may be unaligned.
        unsafe { _mm_storeu_ps(to.as_mut_ptr(), _mm_castsi128_ps(bits)) };
    }
    floats
}
