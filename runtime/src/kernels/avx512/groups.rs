//! Products with one scale per group ([`super::super::groups`]): eight rows at once, whose sums
//! over a block meet in one register, one lane per row. Many tokens use the tables of `avx2`.

use std::arch::x86_64::*;

use super::super::avx2;
use super::super::avx2::registers::load;
use super::super::groups::GroupProduct;
use super::super::prefetch::Prefetch;
use super::lut;
use super::registers::{fields, pair};

/// Rows that are computed together: a register is a block of one row below that of the fourth row
/// after it.
const ROWS: usize = 8;
/// Fewest tokens, out of those of a table, for which tables take less time.
const TABLE_TOKENS: usize = 20;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemm(product: GroupProduct, y: &mut [f32]) {
    let (tokens, rows) = product.shape(y);
    let done = avx2::groups::by_tables(product, y, TABLE_TOKENS, lut::LOOPS);
    let walk = Walk { product, rows };
    for first in (0..rows).step_by(ROWS) {
        for t in (done..tokens).step_by(2) {
            match tokens - t {
                1 => walk.tile::<1>(first, t, y),
                _ => walk.tile::<2>(first, t, y),
            }
        }
    }
}

struct Walk<'a> {
    product: GroupProduct<'a>,
    rows: usize,
}

impl Walk<'_> {
    /// Some rows with some tokens; y is (all tokens, all rows).
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn tile<const TOKENS: usize>(&self, first: usize, token: usize, y: &mut [f32]) {
        let GroupProduct { groups, scales, .. } = self.product;
        let there = (self.rows - first).min(ROWS);
        let lanes = 0xffu8 >> (ROWS - there);
        let (packed, _) = self.product.rows.as_chunks::<32>(); // (rows, groups)
        let row = |r: usize| &packed[(first + r.min(there - 1)) * groups..][..groups];
        let pairs = [0, 1, 2, 3].map(|r| [row(r), row(r + 4)]);
        let (q, _) = self.product.q.as_chunks::<32>();
        let (q, _) = q.as_chunks::<4>(); // (tokens, groups)
        let q: [_; TOKENS] = std::array::from_fn(|t| &q[(token + t) * groups..][..groups]);
        let start = pairs[0][0].as_ptr().cast();
        let prefetch = Prefetch::of(ROWS, groups * 32);
        let mut y_sums = [_mm256_setzero_ps(); TOKENS];
        for g in 0..groups {
            if token == 0 {
                for line in 0..ROWS / 2 {
                    prefetch.after(start, (g * ROWS / 2 + line) * 64);
                }
            }
            let mut sums = [[_mm512_setzero_si512(); 4]; TOKENS];
            for (i, [low, high]) in pairs.into_iter().enumerate() {
                // SAFETY: this function is compiled for AVX-512 F, and every CPU with it has AVX2.
                let digits = fields(unsafe { pair(&low[g], &high[g]) });
                for t in 0..TOKENS {
                    for (digits, q) in digits.into_iter().zip(&q[t][g]) {
                        let q = _mm512_broadcast_i64x4(load(q));
                        sums[t][i] = _mm512_dpbusd_epi32(sums[t][i], digits, q);
                    }
                }
            }
            let scales = &scales[g * self.rows + first..][..there];
            // SAFETY: `lanes` selects as many lanes as `scales` has elements.
            let scales = unsafe { _mm256_maskz_loadu_ps(lanes, scales.as_ptr()) };
            for t in 0..TOKENS {
                let q_sum = self.product.q_sums[(token + t) * groups + g];
                let sums = _mm256_sub_epi32(eight_sums(sums[t]), _mm256_set1_epi32(q_sum));
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scales);
                y_sums[t] = _mm256_add_ps(y_sums[t], scaled);
            }
        }
        for (t, y_sums) in y_sums.into_iter().enumerate() {
            let y = &mut y[(token + t) * self.rows + first..][..there];
            // SAFETY: `lanes` selects as many lanes as `y` has elements.
            unsafe { _mm256_mask_storeu_ps(y.as_mut_ptr(), lanes, y_sums) };
        }
    }
}

/// The sums of the lanes of halves of registers: of the lower halves, then of the upper ones.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
fn eight_sums([a, b, c, d]: [__m512i; 4]) -> __m256i {
    let two = |a, b| {
        let low = _mm512_unpacklo_epi32(a, b);
        _mm512_add_epi32(low, _mm512_unpackhi_epi32(a, b))
    };
    let (ab, cd) = (two(a, b), two(c, d));
    let low = _mm512_unpacklo_epi64(ab, cd);
    let quarters = _mm512_add_epi32(low, _mm512_unpackhi_epi64(ab, cd));
    let swapped = _mm512_shuffle_i64x2::<0b10_11_00_01>(quarters, quarters);
    let halves = _mm512_add_epi32(quarters, swapped);
    _mm512_castsi512_si256(_mm512_shuffle_i64x2::<0b00_00_10_00>(halves, halves))
}
