//! Products with one scale per group ([`super::super::groups`]): four rows at once, whose sums over
//! a block meet in one register, one lane per row. Many tokens: tables, whose sums are scaled after
//! each block.

use std::arch::x86_64::*;

use super::super::groups::GroupProduct;
use super::super::prefetch::Prefetch;
use super::super::shape::{GemmShape, Operands};
use super::lut;
use super::registers::{four_sums, load};
use super::ternary::{TABLE_TOKENS, tokens_for_tables};

/// Rows that are computed together.
const ROWS: usize = 4;

#[target_feature(enable = "avx2")]
pub(super) fn gemm(product: GroupProduct, y: &mut [f32]) {
    let (tokens, rows) = product.shape(y);
    let done = by_tables(product, y, TABLE_TOKENS, lut::NEAR);
    for first in (0..rows).step_by(ROWS) {
        for t in (done..tokens).step_by(2) {
            match tokens - t {
                1 => tile::<1>(product, rows, first, t, y),
                _ => tile::<2>(product, rows, first, t, y),
            }
        }
    }
}

/// Computes as many of the first tokens by tables as pay for them, and returns their number.
#[target_feature(enable = "avx2")]
pub(in super::super) fn by_tables(
    product: GroupProduct,
    y: &mut [f32],
    fewest: usize,
    loops: &[lut::Loops],
) -> usize {
    let (tokens, rows) = product.shape(y);
    let shape = GemmShape {
        tokens,
        rows,
        blocks: product.groups,
    };
    let tokens = tokens_for_tables(shape, loops, fewest);
    if tokens > 0 {
        let operands = Operands {
            shape: GemmShape { tokens, ..shape },
            rows: product.rows,
            q: &product.q[..tokens * product.groups * 128],
            q_sums: &[], // tables hold sums of trits, which need no Σ q
        };
        let sums = bytemuck::cast_slice_mut(&mut y[..tokens * rows]);
        let ranks = |rows| lut::ranks_i2(rows);
        lut::gemm(operands, sums, ranks, loops, Some(product.scales));
    }
    tokens
}

/// Some rows with some tokens; y is (all tokens, all rows).
#[target_feature(enable = "avx2")]
fn tile<const TOKENS: usize>(
    product: GroupProduct,
    rows: usize,
    first: usize,
    token: usize,
    y: &mut [f32],
) {
    let groups = product.groups;
    let there = (rows - first).min(ROWS);
    let (packed, _) = product.rows.as_chunks::<32>(); // (rows, groups)
    let row = |r: usize| &packed[(first + r.min(there - 1)) * groups..][..groups];
    let packed = [0, 1, 2, 3].map(row);
    let (q, _) = product.q.as_chunks::<32>();
    let (q, _) = q.as_chunks::<4>(); // (tokens, groups)
    let q: [_; TOKENS] = std::array::from_fn(|t| &q[(token + t) * groups..][..groups]);
    let start = packed[0].as_ptr().cast();
    let prefetch = Prefetch::of(ROWS, groups * 32);
    let (low, ones) = (_mm256_set1_epi8(0b11), _mm256_set1_epi16(1));
    let mut y_sums = [[0f32; ROWS]; TOKENS];
    for g in 0..groups {
        if token == 0 {
            for line in 0..ROWS / 2 {
                prefetch.after(start, (g * ROWS / 2 + line) * 64);
            }
        }
        let mut sums = [[_mm256_setzero_si256(); ROWS]; TOKENS];
        for r in 0..ROWS {
            let codes = load(&packed[r][g]);
            // What a 16-bit shift carries over is masked.
            let digits = [
                codes,
                _mm256_srli_epi16::<2>(codes),
                _mm256_srli_epi16::<4>(codes),
                _mm256_srli_epi16::<6>(codes),
            ];
            for t in 0..TOKENS {
                let mut narrow = _mm256_setzero_si256();
                for (digits, q) in digits.into_iter().zip(&q[t][g]) {
                    let products = _mm256_maddubs_epi16(_mm256_and_si256(digits, low), load(q));
                    narrow = _mm256_add_epi16(narrow, products);
                }
                sums[t][r] = _mm256_madd_epi16(narrow, ones);
            }
        }
        let mut scales = [0.0; ROWS];
        scales[..there].copy_from_slice(&product.scales[g * rows + first..][..there]);
        for t in 0..TOKENS {
            let q_sum = product.q_sums[(token + t) * groups + g];
            let dots = four_sums(sums[t]);
            for r in 0..ROWS {
                y_sums[t][r] += (dots[r] - q_sum) as f32 * scales[r];
            }
        }
    }
    for (t, y_sums) in y_sums.iter().enumerate() {
        y[(token + t) * rows + first..][..there].copy_from_slice(&y_sums[..there]);
    }
}
