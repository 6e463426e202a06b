//! Products with panels of int8: four registers of sums per row of x, two rows at once.

use std::arch::x86_64::*;

use super::super::panels::{LANES, Lanes, PanelProduct, product};
use super::super::prefetch::Prefetch;

#[target_feature(enable = "ssse3")]
pub(super) fn panels_i8(panels: PanelProduct<i16, i8>, y: &mut [f32]) {
    let prefetch = Prefetch::of(1, 0);
    let lanes = Lanes {
        zero: [_mm_setzero_si128(); 4],
        prefetch: |at: *const _| prefetch.after(at as *const u8, 0),
        load: |pairs: &[i8; 2 * LANES]| {
            let from: *const __m128i = pairs.as_ptr().cast();
            // SAFETY: 16 of 32 bytes each; the loads may be unaligned.
            let [a, b] = [0, 1].map(|i| unsafe { _mm_loadu_si128(from.add(i)) });
            [
                _mm_unpacklo_epi8(a, a),
                _mm_unpackhi_epi8(a, a),
                _mm_unpacklo_epi8(b, b),
                _mm_unpackhi_epi8(b, b),
            ]
            .map(|doubled| _mm_srai_epi16::<8>(doubled))
        },
        add: |mut sums: [__m128i; 4], x: [i16; 2], pairs: [__m128i; 4]| {
            let x = _mm_set1_epi32(bytemuck::cast(x));
            for (sum, pairs) in sums.iter_mut().zip(pairs) {
                *sum = _mm_add_epi32(*sum, _mm_madd_epi16(x, pairs));
            }
            sums
        },
        store: |sums: [__m128i; 4], y: &mut [f32; LANES]| {
            for (y, sums) in y.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
                // SAFETY: four floats; the store may be unaligned.
                unsafe { _mm_storeu_ps(y.as_mut_ptr(), _mm_cvtepi32_ps(sums)) };
            }
        },
    };
    product::<2, _, _, _, _>(panels.by_pairs(y), y, lanes);
}
