//! Products with panels: two registers per row of a panel, four rows of x at once.

use std::arch::x86_64::*;

use half::f16;

use super::super::panels::{LANES, Lanes, PanelProduct, product};
use super::super::prefetch::Prefetch;

#[target_feature(enable = "avx2")]
pub(crate) fn panels_f32(panels: PanelProduct<f32, f32>, y: &mut [f32]) {
    let load = |row: &[f32; LANES]| {
        let (halves, _) = row.as_chunks::<8>();
        // SAFETY: eight floats each; the loads may be unaligned.
        [0, 1].map(|i| unsafe { _mm256_loadu_ps(halves[i].as_ptr()) })
    };
    float(panels, y, load);
}

#[target_feature(enable = "avx2,f16c")]
pub(crate) fn panels_f16(panels: PanelProduct<f32, f16>, y: &mut [f32]) {
    let load = |row: &[f16; LANES]| {
        let (halves, _) = row.as_chunks::<8>();
        // SAFETY: eight values of two bytes each; the loads may be unaligned.
        [0, 1].map(|i| _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves[i].as_ptr().cast()) }))
    };
    float(panels, y, load);
}

#[target_feature(enable = "avx2")]
#[inline]
fn float<T: Copy>(
    panels: PanelProduct<f32, T>,
    y: &mut [f32],
    load: impl Fn(&[T; LANES]) -> [__m256; 2] + Copy,
) {
    let prefetch = Prefetch::of(1, 0);
    let lanes = Lanes {
        zero: [_mm256_setzero_ps(); 2],
        prefetch: |at: *const _| prefetch.after(at as *const u8, 0),
        load,
        add: |sums: [__m256; 2], x: f32, row: [__m256; 2]| {
            let x = _mm256_set1_ps(x);
            [
                _mm256_add_ps(sums[0], _mm256_mul_ps(x, row[0])),
                _mm256_add_ps(sums[1], _mm256_mul_ps(x, row[1])),
            ]
        },
        store: |sums: [__m256; 2], y: &mut [f32; LANES]| store(sums, y),
    };
    product::<4, _, _, _, _>(panels.singly(y), y, lanes);
}

#[target_feature(enable = "avx2")]
pub(crate) fn panels_i8(panels: PanelProduct<i16, i8>, y: &mut [f32]) {
    pairs(panels, y, |sums, x, pairs| {
        _mm256_add_epi32(sums, _mm256_madd_epi16(x, pairs))
    });
}

/// `add` adds the products of 16 numbers, in pairs, to eight sums.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn pairs(
    panels: PanelProduct<i16, i8>,
    y: &mut [f32],
    add: impl Fn(__m256i, __m256i, __m256i) -> __m256i + Copy,
) {
    let prefetch = Prefetch::of(1, 0);
    let lanes = Lanes {
        zero: [_mm256_setzero_si256(); 2],
        prefetch: |at: *const _| prefetch.after(at as *const u8, 0),
        load: |pairs: &[i8; 2 * LANES]| {
            let (halves, _) = pairs.as_chunks::<16>();
            [0, 1].map(|i| {
                // SAFETY: 16 bytes; the load may be unaligned.
                let bytes = unsafe { _mm_loadu_si128(halves[i].as_ptr().cast()) };
                _mm256_cvtepi8_epi16(bytes)
            })
        },
        add: |sums: [__m256i; 2], x: [i16; 2], pairs: [__m256i; 2]| {
            let x = _mm256_set1_epi32(bytemuck::cast(x));
            [add(sums[0], x, pairs[0]), add(sums[1], x, pairs[1])]
        },
        store: |sums: [__m256i; 2], y: &mut [f32; LANES]| {
            store(sums.map(|sums| _mm256_cvtepi32_ps(sums)), y);
        },
    };
    product::<4, _, _, _, _>(panels.by_pairs(y), y, lanes);
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(sums: [__m256; 2], y: &mut [f32; LANES]) {
    let (halves, _) = y.as_chunks_mut::<8>();
    for (y, sums) in halves.iter_mut().zip(sums) {
        // SAFETY: eight floats; the store may be unaligned.
        unsafe { _mm256_storeu_ps(y.as_mut_ptr(), sums) };
    }
}
