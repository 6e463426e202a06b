//! Planes of coded tables: `vpdpbusd` of even digits 2h with the bytes of the activations.
//!
//! Digits count 2h − 15 or 2h − 3. The difference is known per lane beforehand, so the sum of a
//! group begins with it. Sums of a group fit 16 bits, so `vpdpwssd` adds them times the group's
//! multiplier.
//!
//! First plane: a register is a group of one row, its low four bits are columns 0 to 31 and 64 to
//! 95, its high four the others. Other planes: a register is two groups of one row, 32 columns of
//! each at a time. One token meets eight rows at once. Several tokens meet four, so that digits
//! serve up to four tokens.

use std::arch::x86_64::*;

use sterna_ternary::table::GROUP;

use super::super::codes::{Int16, PlaneProduct};
use super::super::prefetch::Prefetch;
use super::registers::whole;

/// Rows that are computed together, for one token and for several.
const ROWS: [usize; 2] = [8, 4];

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn plane4(product: PlaneProduct, sums: &mut [i64]) {
    match product.x[0].is_high() {
        true => plane::<64, 4>(product, sums, FirstPlane::<1>),
        false => plane::<64, 2>(product, sums, FirstPlane::<2>),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn plane2(product: PlaneProduct, sums: &mut [i64]) {
    plane::<32, 2>(product, sums, OtherPlane);
}

/// The product of a tile of `N` rows by `T` tokens.
trait PlaneTile<const BYTES: usize>: Copy {
    /// Σ multiplier · digit · q for each token and row.
    ///
    /// # Safety
    /// The CPU has the features of this module.
    unsafe fn sums<const N: usize, const T: usize>(
        self,
        x: [&Int16; T],
        rows: PlaneRows<BYTES>,
        prefetches: bool,
    ) -> [[i64; N]; T];
}

/// All rows and tokens in tiles of at most `T` tokens. Rows of a tile meet all tokens before the
/// next ones.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn plane<const BYTES: usize, const T: usize>(
    product: PlaneProduct,
    sums: &mut [i64],
    tile: impl PlaneTile<BYTES>,
) {
    let (bytes, n) = product.checked::<BYTES>(sums);
    let rows = PlaneRows {
        groups: product.x[0].groups(),
        bytes,
        multipliers: product.multipliers,
    };
    let mut add = |t: usize, r: usize, values: &[i64]| {
        for (sum, value) in sums[t * n + r..].iter_mut().zip(values) {
            *sum += product.weight * value;
        }
    };
    let together = ROWS[usize::from(product.x.len() > 1)];
    let tiled = n / together * together;
    for r in (0..tiled).step_by(together) {
        let rows = rows.part(r);
        if let [x] = product.x {
            // SAFETY: compiled for the same features.
            let [values] = unsafe { tile.sums::<{ ROWS[0] }, 1>([x], rows, true) };
            add(0, r, &values);
            continue;
        }
        let (whole, rest) = product.x.as_chunks::<T>();
        for (i, x) in whole.iter().enumerate() {
            // SAFETY: compiled for the same features.
            let values = unsafe { tile.sums::<{ ROWS[1] }, T>(x.each_ref(), rows, i == 0) };
            (0..T).for_each(|j| add(i * T + j, r, &values[j]));
        }
        for (i, x) in rest.iter().enumerate() {
            let is_first = whole.is_empty() && i == 0;
            // SAFETY: compiled for the same features.
            let [values] = unsafe { tile.sums::<{ ROWS[1] }, 1>([x], rows, is_first) };
            add(whole.len() * T + i, r, &values);
        }
    }
    for r in tiled..n {
        for (t, x) in product.x.iter().enumerate() {
            // SAFETY: compiled for the same features.
            let [values] = unsafe { tile.sums::<1, 1>([x], rows.part(r), false) };
            add(t, r, &values);
        }
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

    /// Prefetches where `rows` of them are computed together.
    fn prefetch(self, rows: usize) -> Prefetch {
        Prefetch::of(rows, self.groups * BYTES)
    }
}

/// The first plane with `PARTS` bytes of the activations.
#[derive(Clone, Copy)]
struct FirstPlane<const PARTS: usize>;

impl<const PARTS: usize> PlaneTile<64> for FirstPlane<PARTS> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn sums<const N: usize, const T: usize>(
        self,
        x: [&Int16; T],
        rows: PlaneRows<64>,
        prefetches: bool,
    ) -> [[i64; N]; T] {
        let (start, prefetch) = (rows.bytes.as_ptr().cast(), rows.prefetch(N));
        let mask = _mm512_set1_epi8(0x1e);
        let zero = _mm512_setzero_si512();
        let groups = rows.groups;
        let rows = rows.split::<N>();
        let parts = x.map(|x| {
            let mut parts = [(&x.high[..groups], &x.high_pairs[..groups]); PARTS];
            if let Some(low) = parts.get_mut(1) {
                *low = (&x.low[..groups], &x.low_pairs[..groups]);
            }
            parts
        });
        let mut wide = [[[zero; PARTS]; N]; T]; // of the high and of the low bytes
        for g in 0..groups {
            let mut q = [[[zero; 2]; PARTS]; T];
            let mut begin = [[zero; PARTS]; T];
            for t in 0..T {
                for (part, (bytes, pairs)) in parts[t].iter().enumerate() {
                    q[t][part] = quarters(&bytes[g]);
                    begin[t][part] = times(load_pairs(&pairs[g]), -15);
                }
            }
            for r in 0..N {
                if prefetches {
                    prefetch.after(start, (g * N + r) * 64);
                }
                // What a 16-bit shift carries over is masked.
                let bytes = whole(&rows[r].0[g]);
                let digits = [
                    _mm512_and_si512(_mm512_slli_epi16::<1>(bytes), mask),
                    _mm512_and_si512(_mm512_srli_epi16::<3>(bytes), mask),
                ];
                let multiplier = _mm512_set1_epi32(i32::from(rows[r].1[g]));
                for t in 0..T {
                    for part in 0..PARTS {
                        let q = q[t][part];
                        let sum = _mm512_dpbusd_epi32(begin[t][part], digits[0], q[0]);
                        let sum = _mm512_dpbusd_epi32(sum, digits[1], q[1]);
                        let wide = &mut wide[t][r][part];
                        *wide = _mm512_dpwssd_epi32(*wide, sum, multiplier);
                    }
                }
            }
        }
        let mut sums = [[0; N]; T];
        for t in 0..T {
            for r in 0..N {
                let low = wide[t][r].get(1).map_or(0, |low| horizontal(*low));
                sums[t][r] = 256 * horizontal(wide[t][r][0]) + low;
            }
        }
        sums
    }
}

/// A plane with two bits per value.
#[derive(Clone, Copy)]
struct OtherPlane;

impl PlaneTile<32> for OtherPlane {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn sums<const N: usize, const T: usize>(
        self,
        x: [&Int16; T],
        rows: PlaneRows<32>,
        prefetches: bool,
    ) -> [[i64; N]; T] {
        let (start, prefetch) = (rows.bytes.as_ptr().cast(), rows.prefetch(N));
        let mask = _mm512_set1_epi8(6);
        let zero = _mm512_setzero_si512();
        // Every 16-bit lane has two multipliers, the first for the lower half, the second for the
        // upper.
        let spread = _mm512_inserti64x4::<1>(
            _mm512_set1_epi32(0x8080_8000u32 as i32),
            _mm256_set1_epi32(0x8080_8001u32 as i32),
        );
        let groups = rows.groups;
        let rows = rows.split::<N>();
        let mut wide = [[zero; N]; T];
        for g in (0..groups).step_by(2) {
            let mut q = [[zero; 4]; T];
            let mut begin = [zero; T];
            for t in 0..T {
                let (high, pairs) = (&x[t].high[..groups], &x[t].high_pairs[..groups]);
                q[t] = runs(&high[g], high.get(g + 1).unwrap_or(&[0; GROUP]));
                begin[t] = times(pairs_of_two(&pairs[g], pairs.get(g + 1)), -3);
            }
            for r in 0..N {
                if prefetches {
                    prefetch.after(start, (g / 2 * N + r) * 64);
                }
                let (bytes, factors) = rows[r];
                let (bytes, factors) = match bytes[g..].first_chunk::<2>() {
                    Some(bytes) => (
                        whole(bytes.as_flattened().first_chunk().expect("twice 32 bytes")),
                        [factors[g], factors[g + 1]],
                    ),
                    None => {
                        // SAFETY: 32 bytes; the load may be unaligned.
                        let bytes = unsafe { _mm256_loadu_si256(bytes[g].as_ptr().cast()) };
                        (_mm512_zextsi256_si512(bytes), [factors[g], 0])
                    }
                };
                let both = _mm512_set1_epi16(i16::from_le_bytes(factors));
                let multipliers = _mm512_shuffle_epi8(both, spread);
                // What a 16-bit shift carries over is masked.
                let digits = [
                    _mm512_and_si512(_mm512_slli_epi16::<1>(bytes), mask),
                    _mm512_and_si512(_mm512_srli_epi16::<1>(bytes), mask),
                    _mm512_and_si512(_mm512_srli_epi16::<3>(bytes), mask),
                    _mm512_and_si512(_mm512_srli_epi16::<5>(bytes), mask),
                ];
                for t in 0..T {
                    let mut sum = begin[t];
                    for i in 0..4 {
                        sum = _mm512_dpbusd_epi32(sum, digits[i], q[t][i]);
                    }
                    wide[t][r] = _mm512_dpwssd_epi32(wide[t][r], sum, multipliers);
                }
            }
        }
        let mut sums = [[0; N]; T];
        for t in 0..T {
            for r in 0..N {
                sums[t][r] = 256 * horizontal(wide[t][r]);
            }
        }
        sums
    }
}

/// `factor` times the sums of neighbouring pairs: of four activations, or of eight.
#[target_feature(enable = "avx512bw")]
#[inline]
fn times(pairs: __m512i, factor: i16) -> __m512i {
    _mm512_madd_epi16(pairs, _mm512_set1_epi16(factor))
}

/// Sums over pairs of columns: of the first half of a group, then of the second.
#[target_feature(enable = "avx512f")]
#[inline]
fn load_pairs(pairs: &[[i16; 16]; 2]) -> __m512i {
    // SAFETY: 32 numbers of two bytes; the load may be unaligned.
    unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) }
}

/// Sums over pairs of columns in all four runs: of a group, then of the next one if there is one.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn pairs_of_two(a: &[[i16; 16]; 2], b: Option<&[[i16; 16]; 2]>) -> __m512i {
    let (a, b) = (load_pairs(a), load_pairs(b.unwrap_or(&[[0; 16]; 2])));
    _mm512_add_epi16(
        _mm512_shuffle_i64x2::<0x44>(a, b),
        _mm512_shuffle_i64x2::<0xee>(a, b),
    )
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

#[target_feature(enable = "avx512f")]
#[inline]
fn horizontal(sums: __m512i) -> i64 {
    let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
    let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(sums));
    _mm512_reduce_add_epi64(_mm512_add_epi64(low, high))
}
