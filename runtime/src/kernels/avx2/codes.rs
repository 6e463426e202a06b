//! Planes of coded tables: `vpmaddubsw` of unsigned digits h with both bytes of the activations.
//!
//! Σ (2h − 15) q = 2 Σ h q − 15 Σ q. The second sum is known per pair of columns beforehand, so it
//! is taken off in the 16-bit lanes: these hold at most 15 · 128 · 8 = 15360 in magnitude, twice
//! that before. The multiplier of the group costs nothing: it takes the place of the ones with
//! which `vpmaddwd` widens.

use std::arch::x86_64::*;

use super::super::codes::{Int16, PlaneProduct};
use super::super::prefetch::Prefetch;
use super::registers::load;

const ROWS: usize = 4;

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

/// `LARGEST` is the largest odd digit, `PARTS` how many bytes of the activations count. Four rows
/// meet all tokens before the next four.
#[target_feature(enable = "avx2")]
#[inline]
fn plane<const BYTES: usize, const LARGEST: i16, const PARTS: usize>(
    product: PlaneProduct,
    sums: &mut [i64],
    digits: impl Fn(&[u8; BYTES]) -> [__m256i; 4] + Copy,
) {
    let (bytes, n) = product.checked::<BYTES>(sums);
    let PlaneProduct {
        x: tokens,
        multipliers,
        weight,
        ..
    } = product;
    let groups = tokens[0].groups();
    for r in (0..n).step_by(ROWS) {
        for (t, x) in tokens.iter().enumerate() {
            let sums = &mut sums[t * n + r..][..ROWS.min(n - r)];
            let part = r * groups..(r + sums.len()) * groups;
            let (bytes, multipliers) = (&bytes[part.clone()], &multipliers[part]);
            if let Ok(sums) = <&mut [i64; ROWS]>::try_from(&mut *sums) {
                some_rows::<BYTES, LARGEST, PARTS, ROWS>(
                    x,
                    bytes,
                    multipliers,
                    weight,
                    sums,
                    digits,
                );
                continue;
            }
            let rows = bytes
                .chunks_exact(groups)
                .zip(multipliers.chunks_exact(groups));
            for (sum, (bytes, multipliers)) in sums.iter_mut().zip(rows) {
                let sum = std::array::from_mut(sum);
                some_rows::<BYTES, LARGEST, PARTS, 1>(x, bytes, multipliers, weight, sum, digits);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn some_rows<const BYTES: usize, const LARGEST: i16, const PARTS: usize, const N: usize>(
    x: &Int16,
    bytes: &[[u8; BYTES]],
    multipliers: &[u8],
    weight: i64,
    sums: &mut [i64; N],
    digits: impl Fn(&[u8; BYTES]) -> [__m256i; 4],
) {
    let groups = x.groups();
    let rows: [&[[u8; BYTES]]; N] = std::array::from_fn(|r| &bytes[r * groups..][..groups]);
    let factors: [&[u8]; N] = std::array::from_fn(|r| &multipliers[r * groups..][..groups]);
    let prefetch = Prefetch::of(N, groups * BYTES);
    let mut wide = [[_mm256_setzero_si256(); PARTS]; N]; // of the high and of the low bytes
    let mut parts = [(&x.high[..groups], &x.high_pairs[..groups]); PARTS];
    if let Some(low) = parts.get_mut(1) {
        *low = (&x.low[..groups], &x.low_pairs[..groups]);
    }
    for g in 0..groups {
        let mut q = [&[][..]; PARTS];
        let mut taken = [_mm256_setzero_si256(); PARTS];
        for (part, (bytes, pairs)) in parts.iter().enumerate() {
            q[part] = bytes[g].as_chunks::<32>().0;
            taken[part] = digit_free::<LARGEST>(&pairs[g]);
        }
        for r in 0..N {
            if N > 1 && (r * BYTES).is_multiple_of(64) {
                prefetch.after(rows[0].as_ptr().cast(), (g * N + r) * BYTES);
            }
            let digits = digits(&rows[r][g]);
            let multiplier = _mm256_set1_epi16(i16::from(factors[r][g]));
            for part in 0..PARTS {
                let mut products = [_mm256_setzero_si256(); 4];
                for i in 0..4 {
                    products[i] = _mm256_maddubs_epi16(digits[i], load(&q[part][i]));
                }
                let first = _mm256_add_epi16(products[0], products[1]);
                let sum = _mm256_add_epi16(first, _mm256_add_epi16(products[2], products[3]));
                let sum = _mm256_sub_epi16(_mm256_add_epi16(sum, sum), taken[part]);
                wide[r][part] = _mm256_add_epi32(wide[r][part], _mm256_madd_epi16(sum, multiplier));
            }
        }
    }
    for (sum, wide) in sums.iter_mut().zip(wide) {
        let low = wide.get(1).map_or(0, |low| horizontal(*low));
        *sum += weight * (256 * horizontal(wide[0]) + low);
    }
}

/// What the digits' offset adds: `LARGEST` times the sums of pairs.
#[target_feature(enable = "avx2")]
#[inline]
fn digit_free<const LARGEST: i16>(pairs: &[[i16; 16]; 2]) -> __m256i {
    let (first, second) = (pairs[0].as_ptr().cast(), pairs[1].as_ptr().cast());
    // SAFETY: 16 numbers of two bytes each; the loads may be unaligned.
    let (first, second) = unsafe { (_mm256_loadu_si256(first), _mm256_loadu_si256(second)) };
    _mm256_mullo_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(LARGEST))
}

#[target_feature(enable = "avx2")]
#[inline]
fn horizontal(sums: __m256i) -> i64 {
    let mut lanes = [0i32; 8];
    // SAFETY: eight lanes; the store may be unaligned.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
    lanes.iter().map(|lane| i64::from(*lane)).sum()
}
