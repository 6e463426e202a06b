//! The float slots that the compiler does not vectorize well: the quantizer and rows in half precision.

use std::arch::x86_64::*;

use half::f16;
use sterna_ternary::quantize::{activation_scale, is_usable};

use super::super::float;

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

/// `float::gemv_f16` with the conversion of F16C, which is exact as well.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn gemv_f16(x: &[f32], rows: &[f16], y: &mut [f32]) {
    let k = x.len();
    assert_eq!(rows.len(), y.len() * k);
    let (fours, rest) = y.as_chunks_mut::<4>();
    let row = |r: usize| &rows[r * k..][..k];
    for (i, y) in fours.iter_mut().enumerate() {
        *y = dots_f16(x, [0, 1, 2, 3].map(|r| row(i * 4 + r)));
    }
    for (i, y) in rest.iter_mut().enumerate() {
        [*y] = dots_f16(x, [row(fours.len() * 4 + i)]);
    }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn dots_f16<const N: usize>(x: &[f32], rows: [&[f16]; N]) -> [f32; N] {
    let (chunks, tail) = x.as_chunks::<16>();
    let rows = rows.map(|row| row[..x.len()].as_chunks::<16>());
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (i, x) in chunks.iter().enumerate() {
        let (x, _) = x.as_chunks::<8>();
        for r in 0..N {
            let (row, _) = rows[r].0[i].as_chunks::<8>();
            for half in 0..2 {
                // SAFETY: eight values of two bytes.
                let v = unsafe { _mm_loadu_si128(row[half].as_ptr().cast()) };
                let product = _mm256_mul_ps(load(&x[half]), _mm256_cvtph_ps(v));
                sums[r][half] = _mm256_add_ps(sums[r][half], product);
            }
        }
    }
    let mut dots = [0.0; N];
    for r in 0..N {
        let mut lanes = [0f32; 16];
        // SAFETY: the two halves of 16 floats.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), sums[r][0]);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(8), sums[r][1]);
        }
        for (lane, (x, v)) in lanes.iter_mut().zip(tail.iter().zip(rows[r].1)) {
            *lane += x * float::f16_to_f32(*v);
        }
        dots[r] = float::tree(lanes);
    }
    dots
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: eight floats; the load may be unaligned.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}
