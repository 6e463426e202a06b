//! Planes of coded tables: `vpmaddubsw` of unsigned digits h with both bytes of the activations.
//!
//! Σ (2h − 15) q = 2 Σ h q − 15 Σ q. The sums of q over groups are known, so the second term takes
//! one `vpmaddwd` for sixteen groups. 16-bit lanes hold at most 15 · 128 · 8 = 15360 in magnitude.
//! The multiplier of the group takes the place of the ones with which `vpmaddwd` widens.
//!
//! The digits of a group of one row are unpacked once for four tokens. These meet all rows, mostly
//! from the second-level cache, before the next four, so that activations stay in the first-level
//! one.

use std::arch::x86_64::*;

use super::super::codes::{Int16, PlaneProduct};
use super::super::prefetch::Prefetch;
use super::registers::load;

/// Most tokens that are computed together.
const TOKENS: usize = 4;

#[target_feature(enable = "avx2")]
pub(super) fn plane4(product: PlaneProduct, sums: &mut [i64]) {
    let nibble = _mm256_set1_epi8(15);
    let digits = |bytes: &[u8; 64]| {
        let (halves, _) = bytes.as_chunks::<32>();
        let (first, second) = (load(&halves[0]), load(&halves[1]));
        [
            _mm256_and_si256(first, nibble),
            _mm256_and_si256(_mm256_srli_epi16::<4>(first), nibble),
            _mm256_and_si256(second, nibble),
            _mm256_and_si256(_mm256_srli_epi16::<4>(second), nibble),
        ]
    };
    match product.x[0].is_high() {
        true => plane::<64, 15, 1>(product, sums, digits),
        false => plane::<64, 15, 2>(product, sums, digits),
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn plane2(product: PlaneProduct, sums: &mut [i64]) {
    let low = _mm256_set1_epi8(3);
    let digits = |bytes: &[u8; 32]| {
        // What a 16-bit shift carries over is masked.
        let bytes = load(bytes);
        [
            _mm256_and_si256(bytes, low),
            _mm256_and_si256(_mm256_srli_epi16::<2>(bytes), low),
            _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low),
            _mm256_and_si256(_mm256_srli_epi16::<6>(bytes), low),
        ]
    };
    plane::<32, 3, 1>(product, sums, digits);
}

/// `LARGEST` is the largest odd digit, `PARTS` how many bytes of the activations count.
#[target_feature(enable = "avx2")]
#[inline]
fn plane<const BYTES: usize, const LARGEST: i64, const PARTS: usize>(
    product: PlaneProduct,
    sums: &mut [i64],
    digits: impl Fn(&[u8; BYTES]) -> [__m256i; 4] + Copy,
) {
    let (bytes, n) = product.checked::<BYTES>(sums);
    if n == 0 {
        return;
    }
    let tiles = sums.chunks_mut(TOKENS * n).zip(product.x.chunks(TOKENS));
    for (i, (sums, x)) in tiles.enumerate() {
        let tile = Tile {
            x,
            bytes,
            multipliers: product.multipliers,
            weight: product.weight,
            prefetches: i == 0,
        };
        match x.len() {
            1 => tile.rows::<LARGEST, PARTS, 1>(sums, digits),
            2 => tile.rows::<LARGEST, PARTS, 2>(sums, digits),
            3 => tile.rows::<LARGEST, PARTS, 3>(sums, digits),
            _ => tile.rows::<LARGEST, PARTS, TOKENS>(sums, digits),
        }
    }
}

/// Some tokens with all rows.
struct Tile<'a, const BYTES: usize> {
    x: &'a [Int16],
    bytes: &'a [[u8; BYTES]], // (rows, groups)
    multipliers: &'a [u8],    // (rows, groups)
    weight: i64,
    /// Whether these tokens are the first to read the rows.
    prefetches: bool,
}

impl<const BYTES: usize> Tile<'_, BYTES> {
    /// Adds the products to sums (T tokens, rows).
    #[target_feature(enable = "avx2")]
    #[inline]
    fn rows<const LARGEST: i64, const PARTS: usize, const T: usize>(
        &self,
        sums: &mut [i64],
        digits: impl Fn(&[u8; BYTES]) -> [__m256i; 4],
    ) {
        let (groups, n) = (self.x[0].groups(), sums.len() / T);
        let prefetch = Prefetch::of(1, 0);
        let x: [&Int16; T] = std::array::from_fn(|t| &self.x[t]);
        let q: [[_; PARTS]; T] =
            x.map(|x| std::array::from_fn(|part| &[&x.high, &x.low][part][..groups]));
        let group_sums: [[_; PARTS]; T] =
            x.map(|x| std::array::from_fn(|part| &x.group_sums[part][..groups.div_ceil(16)]));
        let rows = self.bytes.chunks_exact(groups);
        let rows = rows.zip(self.multipliers.chunks_exact(groups));
        for (r, (row, multipliers)) in rows.enumerate() {
            let mut wide = [[_mm256_setzero_si256(); PARTS]; T];
            for (g, (bytes, multiplier)) in row.iter().zip(multipliers).enumerate() {
                if self.prefetches && (g * BYTES).is_multiple_of(64) {
                    prefetch.after(bytes.as_ptr(), 0);
                }
                let digits = digits(bytes);
                let multiplier = _mm256_set1_epi16(i16::from(*multiplier));
                for t in 0..T {
                    for part in 0..PARTS {
                        let (q, _) = q[t][part][g].as_chunks::<32>();
                        let product = |i: usize| _mm256_maddubs_epi16(digits[i], load(&q[i]));
                        let first = _mm256_add_epi16(product(0), product(1));
                        let sum = _mm256_add_epi16(first, _mm256_add_epi16(product(2), product(3)));
                        let sum = _mm256_madd_epi16(sum, multiplier);
                        wide[t][part] = _mm256_add_epi32(wide[t][part], sum);
                    }
                }
            }
            let mut free = [[_mm256_setzero_si256(); PARTS]; T]; // Σ multiplier · Σ q
            for (i, multipliers) in multipliers.chunks(16).enumerate() {
                let mut sixteen = [0; 16];
                sixteen[..multipliers.len()].copy_from_slice(multipliers);
                // SAFETY: 16 bytes; the load may be unaligned.
                let bytes = unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) };
                let multipliers = _mm256_cvtepu8_epi16(bytes);
                for t in 0..T {
                    for part in 0..PARTS {
                        let sums = load(bytemuck::cast_ref::<_, [i8; 32]>(&group_sums[t][part][i]));
                        let sums = _mm256_madd_epi16(sums, multipliers);
                        free[t][part] = _mm256_add_epi32(free[t][part], sums);
                    }
                }
            }
            for t in 0..T {
                let mut sum = 0;
                for part in 0..PARTS {
                    let (wide, free) = (horizontal(wide[t][part]), horizontal(free[t][part]));
                    sum += [256, 1][part] * (2 * wide - LARGEST * free);
                }
                sums[t * n + r] += self.weight * sum;
            }
        }
    }
}

/// The sum of the lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn horizontal(sums: __m256i) -> i64 {
    let low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(sums));
    let high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(sums));
    let four = _mm256_add_epi64(low, high);
    let halves = (
        _mm256_castsi256_si128(four),
        _mm256_extracti128_si256::<1>(four),
    );
    let two = _mm_add_epi64(halves.0, halves.1);
    _mm_extract_epi64::<0>(two) + _mm_extract_epi64::<1>(two)
}
