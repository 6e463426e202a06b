//! Planes of coded tables: `vpdpbusd` of even digits 2h with the bytes of the activations.
//!
//! Sums of a group begin at −15 Σ q or −3 Σ q, so that digits count 2h − 15 or 2h − 3. They fit 16
//! bits, so `vpmaddwd` multiplies them by the group's multiplier.
//!
//! First plane: a register is a group of one row, its low four bits are columns 0 to 31 and 64 to
//! 95, its high four the others. Other planes: a register is two groups of one row, 32 columns of
//! each at a time.

use std::arch::x86_64::*;

use sterna_ternary::table::GROUP;

use super::super::codes::{Int16, check};
use super::super::prefetch::{is_near, prefetch_distance, prefetch_near};
use super::registers::whole;

const ROWS: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn plane4(x: &Int16, rows: &[u8], multipliers: &[u8], weight: i64, sums: &mut [i64]) {
    let rows = PlaneRows::of(x, check::<64>(x, rows, multipliers, sums), multipliers);
    let (fours, rest) = sums.as_chunks_mut::<ROWS>();
    let fours_len = fours.len() * ROWS;
    for (i, sums) in fours.iter_mut().enumerate() {
        first_plane(x, rows.part(i * ROWS), weight, sums);
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        first_plane(
            x,
            rows.part(fours_len + i),
            weight,
            std::array::from_mut(sum),
        );
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn plane2(x: &Int16, rows: &[u8], multipliers: &[u8], weight: i64, sums: &mut [i64]) {
    let rows = PlaneRows::of(x, check::<32>(x, rows, multipliers, sums), multipliers);
    let (fours, rest) = sums.as_chunks_mut::<ROWS>();
    let fours_len = fours.len() * ROWS;
    for (i, sums) in fours.iter_mut().enumerate() {
        other_plane(x, rows.part(i * ROWS), weight, sums);
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        other_plane(
            x,
            rows.part(fours_len + i),
            weight,
            std::array::from_mut(sum),
        );
    }
}

/// Some rows of a plane.
#[derive(Clone, Copy)]
struct PlaneRows<'a, const BYTES: usize> {
    groups: usize,
    bytes: &'a [[u8; BYTES]], // (rows, groups)
    multipliers: &'a [u8],    // (rows, groups)
}

impl<'a, const BYTES: usize> PlaneRows<'a, BYTES> {
    fn of(x: &Int16, bytes: &'a [[u8; BYTES]], multipliers: &'a [u8]) -> Self {
        PlaneRows {
            groups: x.groups(),
            bytes,
            multipliers,
        }
    }

    /// The rows from `first` on.
    #[inline(always)]
    fn part(self, first: usize) -> Self {
        PlaneRows {
            bytes: &self.bytes[first * self.groups..],
            multipliers: &self.multipliers[first * self.groups..],
            ..self
        }
    }

    /// The bytes and multipliers of the first `N`.
    #[inline(always)]
    fn split<const N: usize>(self) -> [(&'a [[u8; BYTES]], &'a [u8]); N] {
        let mut rows = [(self.bytes, self.multipliers); N];
        for (r, (bytes, multipliers)) in rows.iter_mut().enumerate() {
            *bytes = &bytes[r * self.groups..][..self.groups];
            *multipliers = &multipliers[r * self.groups..][..self.groups];
        }
        rows
    }

    /// How far prefetches run ahead when `rows` of them are computed together.
    fn distance(self, rows: usize) -> usize {
        prefetch_distance(rows, self.groups * BYTES)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn first_plane<const N: usize>(x: &Int16, rows: PlaneRows<64>, weight: i64, sums: &mut [i64; N]) {
    let (start, distance) = (rows.bytes.as_ptr().cast(), rows.distance(N));
    let near = is_near(distance);
    let mask = _mm512_set1_epi8(0x1e);
    let groups = rows.groups;
    let rows = rows.split::<N>();
    let mut wide = [[_mm512_setzero_si512(); 2]; N]; // of the high and of the low bytes
    for (g, (high, low)) in x.high.iter().zip(&x.low).enumerate().take(groups) {
        let q = [quarters(high), quarters(low)];
        let begin = [free_of_offset::<15>(&q[0]), free_of_offset::<15>(&q[1])];
        for r in 0..N {
            if N > 1 {
                prefetch_near(start, (g * N + r) * 64 + distance, near);
            }
            // What a 16-bit shift carries over is masked.
            let bytes = whole(&rows[r].0[g]);
            let digits = [
                _mm512_and_si512(_mm512_slli_epi16::<1>(bytes), mask),
                _mm512_and_si512(_mm512_srli_epi16::<3>(bytes), mask),
            ];
            let multiplier = _mm512_set1_epi32(i32::from(rows[r].1[g]));
            for part in 0..2 {
                let sum = _mm512_dpbusd_epi32(begin[part], digits[0], q[part][0]);
                let sum = _mm512_dpbusd_epi32(sum, digits[1], q[part][1]);
                let sum = _mm512_madd_epi16(sum, multiplier);
                wide[r][part] = _mm512_add_epi32(wide[r][part], sum);
            }
        }
    }
    for (sum, [high, low]) in sums.iter_mut().zip(wide) {
        *sum += weight * (256 * horizontal(high) + horizontal(low));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn other_plane<const N: usize>(x: &Int16, rows: PlaneRows<32>, weight: i64, sums: &mut [i64; N]) {
    let (start, distance) = (rows.bytes.as_ptr().cast(), rows.distance(N));
    let near = is_near(distance);
    let mask = _mm512_set1_epi8(6);
    // Of two multipliers in every 16-bit lane, the first for the lower half, the second for the
    // upper.
    let spread = _mm512_inserti64x4::<1>(
        _mm512_set1_epi32(0x8080_8000u32 as i32),
        _mm256_set1_epi32(0x8080_8001u32 as i32),
    );
    let groups = rows.groups;
    let rows = rows.split::<N>();
    let mut wide = [_mm512_setzero_si512(); N];
    for g in (0..groups).step_by(2) {
        let second = x.high[..groups].get(g + 1).unwrap_or(&[0; GROUP]);
        let q = runs(&x.high[g], second);
        let begin = free_of_offset::<3>(&q);
        for r in 0..N {
            if N > 1 {
                prefetch_near(start, (g / 2 * N + r) * 64 + distance, near);
            }
            let (bytes, multipliers) = rows[r];
            let (bytes, multipliers) = match bytes[g..].first_chunk::<2>() {
                Some(bytes) => (
                    whole(bytes.as_flattened().first_chunk().expect("twice 32 bytes")),
                    [multipliers[g], multipliers[g + 1]],
                ),
                None => {
                    // SAFETY: 32 bytes; the load may be unaligned.
                    let bytes = unsafe { _mm256_loadu_si256(bytes[g].as_ptr().cast()) };
                    (_mm512_zextsi256_si512(bytes), [multipliers[g], 0])
                }
            };
            let multiplier = _mm512_set1_epi16(i16::from_le_bytes(multipliers));
            let multiplier = _mm512_shuffle_epi8(multiplier, spread);
            // What a 16-bit shift carries over is masked.
            let digits = [
                _mm512_and_si512(_mm512_slli_epi16::<1>(bytes), mask),
                _mm512_and_si512(_mm512_srli_epi16::<1>(bytes), mask),
                _mm512_and_si512(_mm512_srli_epi16::<3>(bytes), mask),
                _mm512_and_si512(_mm512_srli_epi16::<5>(bytes), mask),
            ];
            let mut sum = begin;
            for i in 0..4 {
                sum = _mm512_dpbusd_epi32(sum, digits[i], q[i]);
            }
            wide[r] = _mm512_add_epi32(wide[r], _mm512_madd_epi16(sum, multiplier));
        }
    }
    for (sum, wide) in sums.iter_mut().zip(wide) {
        *sum += weight * 256 * horizontal(wide);
    }
}

/// The columns of a group that belong to the low and to the high four bits.
#[target_feature(enable = "avx512f")]
#[inline]
fn quarters(q: &[i8; GROUP]) -> [__m512i; 2] {
    let [first, second] = halves(q);
    [
        _mm512_shuffle_i64x2::<0x44>(first, second),
        _mm512_shuffle_i64x2::<0xee>(first, second),
    ]
}

/// Runs of 32 columns of two groups.
#[target_feature(enable = "avx512f")]
#[inline]
fn runs(a: &[i8; GROUP], b: &[i8; GROUP]) -> [__m512i; 4] {
    let (a, b) = (halves(a), halves(b));
    [
        _mm512_shuffle_i64x2::<0x44>(a[0], b[0]),
        _mm512_shuffle_i64x2::<0xee>(a[0], b[0]),
        _mm512_shuffle_i64x2::<0x44>(a[1], b[1]),
        _mm512_shuffle_i64x2::<0xee>(a[1], b[1]),
    ]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn halves(q: &[i8; GROUP]) -> [__m512i; 2] {
    let (halves, _) = q.as_chunks::<64>();
    // SAFETY: 64 bytes each; the loads may be unaligned.
    unsafe {
        [
            _mm512_loadu_si512(halves[0].as_ptr().cast()),
            _mm512_loadu_si512(halves[1].as_ptr().cast()),
        ]
    }
}

/// −`LARGEST` · Σ q of each lane.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn free_of_offset<const LARGEST: i8>(q: &[__m512i]) -> __m512i {
    let largest = _mm512_set1_epi8(LARGEST);
    let mut sum = _mm512_setzero_si512();
    for q in q {
        sum = _mm512_dpbusd_epi32(sum, largest, *q);
    }
    _mm512_sub_epi32(_mm512_setzero_si512(), sum)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn horizontal(sums: __m512i) -> i64 {
    let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
    let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(sums));
    _mm512_reduce_add_epi64(_mm512_add_epi64(low, high))
}
