//! Products with panels: one register per row of a panel. An element of x is an operand that the
//! multiplication spreads itself, so sixteen rows of x at once cost no instruction beside their
//! products and sums; pairs of codes are spread by an instruction, and four rows are fastest.

use std::arch::x86_64::*;

use half::f16;

use super::super::panels::{LANES, Lanes, PanelProduct, product};
use super::super::prefetch::Prefetch;

#[target_feature(enable = "avx512f")]
pub(super) fn panels_f32(panels: PanelProduct<f32, f32>, y: &mut [f32]) {
    float(panels, y, |row: &[f32; LANES]| {
        // SAFETY: 16 floats; the load may be unaligned.
        unsafe { _mm512_loadu_ps(row.as_ptr()) }
    });
}

#[target_feature(enable = "avx512f")]
pub(super) fn panels_f16(panels: PanelProduct<f32, f16>, y: &mut [f32]) {
    float(panels, y, |row: &[f16; LANES]| {
        // SAFETY: 16 values of two bytes; the load may be unaligned.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(row.as_ptr().cast()) })
    });
}

#[target_feature(enable = "avx512f")]
#[inline]
fn float<T: Copy>(
    panels: PanelProduct<f32, T>,
    y: &mut [f32],
    load: impl Fn(&[T; LANES]) -> __m512 + Copy,
) {
    let prefetch = Prefetch::of(1, 0);
    let lanes = Lanes {
        zero: _mm512_setzero_ps(),
        prefetch: |at: *const _| prefetch.after(at as *const u8, 0),
        load,
        add: |sums, x: f32, row| _mm512_add_ps(sums, _mm512_mul_ps(_mm512_set1_ps(x), row)),
        store: |sums, y: &mut [f32; LANES]| store(sums, y),
    };
    product::<16, _, _, _, _>(panels.singly(y), y, lanes);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn panels_i8(panels: PanelProduct<i16, i8>, y: &mut [f32]) {
    let prefetch = Prefetch::of(1, 0);
    let lanes = Lanes {
        zero: _mm512_setzero_si512(),
        prefetch: |at: *const _| prefetch.after(at as *const u8, 0),
        load: |pairs: &[i8; 2 * LANES]| {
            // SAFETY: 32 bytes; the load may be unaligned.
            _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(pairs.as_ptr().cast()) })
        },
        add: |sums, x: [i16; 2], pairs| {
            _mm512_dpwssd_epi32(sums, _mm512_set1_epi32(bytemuck::cast(x)), pairs)
        },
        store: |sums, y: &mut [f32; LANES]| store(_mm512_cvtepi32_ps(sums), y),
    };
    product::<4, _, _, _, _>(panels.by_pairs(y), y, lanes);
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(sums: __m512, y: &mut [f32; LANES]) {
    // SAFETY: 16 floats; the store may be unaligned.
    unsafe { _mm512_storeu_ps(y.as_mut_ptr(), sums) };
}
