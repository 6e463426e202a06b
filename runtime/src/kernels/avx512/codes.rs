//! Planes of coded tables: `vpdpbusd` of even digits 2h with the bytes of the activations.
//!
//! Digits count 2h − 15 or 2h − 3. The difference is known per lane beforehand, so the sum of a
//! group begins with it. Sums of a group fit 16 bits, so `vpdpwssd` adds them times the group's
//! multiplier.
//!
//! First plane: a register is a group of one row, its low four bits are columns 0 to 31 and 64 to
//! 95, its high four the others. Other planes: a register is two groups of one row, 32 columns of
//! each at a time. Four rows meet one token or several at once; digits serve up to four tokens.
//!
//! The first two planes of one token at once: u = 4h + c has six bits. A code counts 2u − 63, which
//! does not fit the 16 bits of a group's sum, but u − 31 does; the sum of the activations is
//! subtracted after the last group. Eight `vpdpbusd` for 256 columns replace twelve.

use std::arch::x86_64::*;

use sterna_ternary::table::GROUP;

use super::super::avx2::registers::load;
use super::super::codes::{CodeProduct, Int16, PlaneProduct};
use super::super::prefetch::Prefetch;
use super::registers::whole;

/// Rows that are computed together.
const ROWS: usize = 4;

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

/// All planes of at least two, for one token.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn one(product: CodeProduct, sums: &mut [i64]) {
    product.checked(sums);
    let mut planes = product.of_planes();
    let first = [planes.next(), planes.next()].map(|plane| plane.expect("two planes"));
    match product.x[0].is_high() {
        true => first_two::<1>(first, sums),
        false => first_two::<2>(first, sums),
    }
    planes.for_each(|rest| plane2(rest, sums));
}

/// The first two planes with `PARTS` bytes of one token's activations.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn first_two<const PARTS: usize>([four, two]: [PlaneProduct; 2], sums: &mut [i64]) {
    let (x, weight, n) = (&four.x[0], two.weight, sums.len());
    let (four, two) = (PlaneRows::of(four, sums), PlaneRows::of(two, sums));
    let (tiles, rest) = sums.as_chunks_mut::<ROWS>();
    for (r, sums) in (0..n).step_by(ROWS).zip(tiles) {
        let dots = tile_of_two::<ROWS, PARTS>(x, four.part(r), two.part(r));
        for (sum, dot) in sums.iter_mut().zip(dots) {
            *sum += weight * dot;
        }
    }
    for (r, sum) in (n / ROWS * ROWS..).zip(rest) {
        let [dot] = tile_of_two::<1, PARTS>(x, four.part(r), two.part(r));
        *sum += weight * dot;
    }
}

/// Σ multiplier · ((2u − 63) · 256 high + 4 (2h − 15) · low) for each of `N` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn tile_of_two<const N: usize, const PARTS: usize>(
    x: &Int16,
    four: PlaneRows<64>,
    two: PlaneRows<32>,
) -> [i64; N] {
    let groups = x.groups();
    let prefetches = [four.prefetch(N), two.prefetch(N)];
    let starts = [four.bytes.as_ptr().cast::<u8>(), two.bytes.as_ptr().cast()];
    let (four, two) = (four.split::<N>(), two.split::<N>());
    // 32 · 127 · 8 and 30 · 128 · 8 fit 16 bits.
    let mut parts = [(&x.high[..groups], &x.high_pairs[..groups], -31); PARTS];
    if let Some(low) = parts.get_mut(1) {
        *low = (&x.low[..groups], &x.low_pairs[..groups], -30);
    }
    let (of_four, of_two) = (_mm512_set1_epi8(0x3c), _mm512_set1_epi8(0x03));
    // From which bit a 32-bit lane's c is turned to bit 0: columns 0 to 31 and 64 to 95, and the
    // others.
    let turns = |low: i32, high: i32| {
        let (low, high) = (_mm256_set1_epi32(low), _mm256_set1_epi32(high));
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    };
    let turns = [turns(0, 4), turns(2, 6)];
    let zero = _mm512_setzero_si512();
    let mut wide = [[zero; PARTS]; N];
    for g in 0..groups {
        let mut q = [[zero; 2]; PARTS];
        let mut begin = [zero; PARTS];
        for (part, (bytes, pairs, least)) in parts.into_iter().enumerate() {
            q[part] = quarters(&bytes[g]);
            begin[part] = times(load_pairs(&pairs[g]), least);
        }
        for r in 0..N {
            prefetches[0].after(starts[0], (g * N + r) * 64);
            if r % 2 == 0 {
                prefetches[1].after(starts[1], (g * N + r) * 32);
            }
            // What a 16-bit shift or a turn carries over is masked.
            let bytes = whole(&four[r].0[g]);
            let fours = [
                _mm512_and_si512(_mm512_slli_epi16::<2>(bytes), of_four),
                _mm512_and_si512(_mm512_srli_epi16::<2>(bytes), of_four),
            ];
            let both = _mm512_broadcast_i64x4(load(&two[r].0[g]));
            // 4h | (c & 3)
            let join = |four, turn| {
                let two = _mm512_rorv_epi32(both, turn);
                _mm512_ternarylogic_epi32::<0xf8>(four, two, of_two)
            };
            let codes = [join(fours[0], turns[0]), join(fours[1], turns[1])];
            let multiplier = _mm512_set1_epi32(i32::from(four[r].1[g]));
            for part in 0..PARTS {
                let digits = [codes, fours][part];
                let sum = _mm512_dpbusd_epi32(begin[part], digits[0], q[part][0]);
                let sum = _mm512_dpbusd_epi32(sum, digits[1], q[part][1]);
                wide[r][part] = _mm512_dpwssd_epi32(wide[r][part], sum, multiplier);
            }
        }
    }
    let mut sums = [0; N];
    for (sum, (wide, (_, multipliers))) in sums.iter_mut().zip(wide.into_iter().zip(four)) {
        let low = wide.get(1).map_or(0, |low| horizontal(*low));
        let q = times_group_sums(multipliers, &x.group_sums[0]);
        *sum = 2 * (256 * horizontal(wide[0]) + low) - 256 * q;
    }
    sums
}

/// Σ multiplier · sum of a group's activations.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn times_group_sums(multipliers: &[u8], group_sums: &[[i16; 16]]) -> i64 {
    let mut total = _mm256_setzero_si256();
    for (multipliers, sums) in multipliers.chunks(16).zip(group_sums) {
        let there = u16::MAX >> (16 - multipliers.len());
        // SAFETY: no more bytes than there are, and 16 sums; loads may be unaligned.
        let (multipliers, sums) = unsafe {
            let multipliers = _mm_maskz_loadu_epi8(there, multipliers.as_ptr().cast());
            let sums = _mm256_loadu_si256(sums.as_ptr().cast());
            (_mm256_cvtepu8_epi16(multipliers), sums)
        };
        total = _mm256_add_epi32(total, _mm256_madd_epi16(multipliers, sums));
    }
    horizontal(_mm512_zextsi256_si512(total))
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
    let n = sums.len() / product.x.len();
    let rows = PlaneRows::of(product, sums);
    let mut add = |t: usize, r: usize, values: &[i64]| {
        for (sum, value) in sums[t * n + r..].iter_mut().zip(values) {
            *sum += product.weight * value;
        }
    };
    let tiled = n / ROWS * ROWS;
    for r in (0..tiled).step_by(ROWS) {
        let rows = rows.part(r);
        if let [x] = product.x {
            // The loop below does the same, but would ask each time whether to prefetch.
            // SAFETY: compiled for the same features.
            let [values] = unsafe { tile.sums::<ROWS, 1>([x], rows, true) };
            add(0, r, &values);
            continue;
        }
        let (whole, rest) = product.x.as_chunks::<T>();
        for (i, x) in whole.iter().enumerate() {
            // SAFETY: compiled for the same features.
            let values = unsafe { tile.sums::<ROWS, T>(x.each_ref(), rows, i == 0) };
            (0..T).for_each(|j| add(i * T + j, r, &values[j]));
        }
        for (i, x) in rest.iter().enumerate() {
            let is_first = whole.is_empty() && i == 0;
            // SAFETY: compiled for the same features.
            let [values] = unsafe { tile.sums::<ROWS, 1>([x], rows, is_first) };
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
    /// The rows of a product, which must fit its sums.
    #[inline(always)]
    fn of(product: PlaneProduct<'a>, sums: &[i64]) -> Self {
        PlaneRows {
            groups: product.x[0].groups(),
            bytes: product.checked::<BYTES>(sums).0,
            multipliers: product.multipliers,
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
        let mut add = |r: usize, bytes, factors, q: &[[__m512i; 4]; T], begin: &[__m512i; T]| {
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
        };
        let pairs = rows.map(|(bytes, multipliers)| {
            let (bytes, multipliers) = (bytes.as_chunks::<2>().0, multipliers.as_chunks::<2>().0);
            (&bytes[..groups / 2], &multipliers[..groups / 2])
        });
        let x = x.map(|x| (&x.high[..groups], &x.high_pairs[..groups]));
        let x_pairs = x.map(|(high, pairs)| {
            let (high, pairs) = (high.as_chunks::<2>().0, pairs.as_chunks::<2>().0);
            (&high[..groups / 2], &pairs[..groups / 2])
        });
        for g in 0..groups / 2 {
            let q = x_pairs.map(|(high, _)| runs(&high[g][0], &high[g][1]));
            let begin = x_pairs.map(|(_, pairs)| {
                let [a, b] = &pairs[g];
                times(pairs_of_two(a, Some(b)), -3)
            });
            for (r, (bytes, multipliers)) in pairs.into_iter().enumerate() {
                if prefetches {
                    prefetch.after(start, (g * N + r) * 64);
                }
                let bytes = bytes[g].as_flattened().first_chunk();
                let bytes = whole(bytes.expect("twice 32 bytes"));
                add(r, bytes, multipliers[g], &q, &begin);
            }
        }
        if groups % 2 == 1 {
            let g = groups - 1;
            let q = x.map(|(high, _)| runs(&high[g], &[0; GROUP]));
            let begin = x.map(|(_, pairs)| times(pairs_of_two(&pairs[g], None), -3));
            for (r, (bytes, multipliers)) in rows.into_iter().enumerate() {
                let bytes = _mm512_zextsi256_si512(load(&bytes[g]));
                add(r, bytes, [multipliers[g], 0], &q, &begin);
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
