//! The first plane of coded tables: `vpdpbusd` of digits 2h with both bytes of the activations.
//!
//! A register is a whole group of one row: its low four bits are columns 0 to 31 and 64 to 95, its high four the
//! others. Sums of a group begin at −15 Σ q, so that digits count 2h − 15, and are multiplied by the group's
//! multiplier in 32-bit lanes.

use std::arch::x86_64::*;

use super::super::avx2::prefetch_line;
use super::super::codes::{Int16, check};
use super::whole;

const ROWS: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn plane4(x: &Int16, rows: &[u8], multipliers: &[u8], weight: i64, sums: &mut [i64]) {
    let bytes = check::<64>(x, rows, multipliers, sums);
    let groups = x.groups();
    let (fours, rest) = sums.as_chunks_mut::<ROWS>();
    let whole = fours.len() * ROWS * groups;
    let rows = |r: usize| r * ROWS * groups..(r + 1) * ROWS * groups;
    for (i, sums) in fours.iter_mut().enumerate() {
        some_rows(x, &bytes[rows(i)], &multipliers[rows(i)], weight, sums);
    }
    let rest_bytes = bytes[whole..].chunks_exact(groups);
    let rest_multipliers = multipliers[whole..].chunks_exact(groups);
    for (sum, (bytes, multipliers)) in rest.iter_mut().zip(rest_bytes.zip(rest_multipliers)) {
        some_rows(x, bytes, multipliers, weight, std::array::from_mut(sum));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn some_rows<const N: usize>(
    x: &Int16,
    bytes: &[[u8; 64]],
    multipliers: &[u8],
    weight: i64,
    sums: &mut [i64; N],
) {
    let groups = x.groups();
    let mask = _mm512_set1_epi8(0x1e);
    let rows: [&[[u8; 64]]; N] = std::array::from_fn(|r| &bytes[r * groups..][..groups]);
    let factors: [&[u8]; N] = std::array::from_fn(|r| &multipliers[r * groups..][..groups]);
    let mut wide = [[_mm512_setzero_si512(); 2]; N]; // of the high and of the low bytes
    for (g, (high, low)) in x.high.iter().zip(&x.low).enumerate().take(groups) {
        let q = [quarters(high), quarters(low)];
        let begin = [free_of_offset(q[0]), free_of_offset(q[1])];
        for r in 0..N {
            if N > 1 {
                prefetch_line(rows[0].as_ptr().cast(), (g * N + r) * 64);
            }
            // What a 16-bit shift carries over is masked.
            let bytes = whole(&rows[r][g]);
            let even = _mm512_and_si512(_mm512_slli_epi16::<1>(bytes), mask);
            let odd = _mm512_and_si512(_mm512_srli_epi16::<3>(bytes), mask);
            let multiplier = _mm512_set1_epi32(i32::from(factors[r][g]));
            for part in 0..2 {
                let sum = _mm512_dpbusd_epi32(begin[part], even, q[part][0]);
                let sum = _mm512_dpbusd_epi32(sum, odd, q[part][1]);
                let sum = _mm512_mullo_epi32(sum, multiplier);
                wide[r][part] = _mm512_add_epi32(wide[r][part], sum);
            }
        }
    }
    for (sum, [high, low]) in sums.iter_mut().zip(wide) {
        *sum += weight * (256 * horizontal(high) + horizontal(low));
    }
}

/// The quarters of a group that belong to the low and to the high four bits.
#[target_feature(enable = "avx512f")]
#[inline]
fn quarters(q: &[i8; 128]) -> [__m512i; 2] {
    let (halves, _) = q.as_chunks::<64>();
    // SAFETY: 64 bytes each; the loads may be unaligned.
    let (first, second) = unsafe {
        (
            _mm512_loadu_si512(halves[0].as_ptr().cast()),
            _mm512_loadu_si512(halves[1].as_ptr().cast()),
        )
    };
    [
        _mm512_shuffle_i64x2::<0x44>(first, second),
        _mm512_shuffle_i64x2::<0xee>(first, second),
    ]
}

/// −15 Σ q of each lane.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn free_of_offset([even, odd]: [__m512i; 2]) -> __m512i {
    let (zero, fifteen) = (_mm512_setzero_si512(), _mm512_set1_epi8(15));
    let sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, fifteen, even), fifteen, odd);
    _mm512_sub_epi32(zero, sum)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn horizontal(sums: __m512i) -> i64 {
    let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
    let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(sums));
    _mm512_reduce_add_epi64(_mm512_add_epi64(low, high))
}
