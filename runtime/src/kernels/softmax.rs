//! Attention between its two products, some rows of queries and one block of positions at a time.
//!
//! The exponential is taken to base two, of scores that were multiplied by log₂ e beforehand. Sums
//! run in the 16 lanes of `float`. A query sees a range of the positions of a block: earlier ones
//! may have left its window, later ones come after it. Weights are relative to the block's largest
//! score; [`merge`] joins the results of blocks.
//!
//! All rows pass through one step before the next one: the steps of a row wait for each other,
//! those of several rows do not.

use std::ops::Range;

use super::float::{in_halves, tree};
use super::panels::LANES;

/// The result of a block of positions, beside its weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftmaxBlock {
    /// The largest score.
    pub max: f32,
    /// Σ 2^(score - max).
    pub sum: f32,
    /// A weight is what the slot wrote times this.
    pub factor: f32,
}

impl SoftmaxBlock {
    /// The result of no position.
    pub const EMPTY: SoftmaxBlock = SoftmaxBlock {
        max: f32::NEG_INFINITY,
        sum: 0.0,
        factor: 0.0,
    };
}

/// Rows of scores, all equally long, of which the first `used` count.
#[derive(Debug)]
pub struct Scores<'a> {
    /// (rows, positions)
    pub x: &'a mut [f32],
    /// A multiple of 16.
    pub used: usize,
    /// (rows): the positions that each row sees, at most `used`.
    pub seen: &'a [Range<usize>],
}

impl Scores<'_> {
    /// # Panics
    /// If lengths disagree.
    #[inline(always)]
    fn width(&self, blocks: &[SoftmaxBlock]) -> usize {
        let rows = self.seen.len();
        assert!(rows > 0 && self.x.len().is_multiple_of(rows) && blocks.len() == rows);
        assert!(self.used.is_multiple_of(LANES) && self.used <= self.x.len() / rows);
        assert!(self.seen.iter().all(|seen| seen.end <= self.used));
        self.x.len() / rows
    }
}

/// x = 2^(x - max) for the scores that are seen, zero for the others that are used.
///
/// # Panics
/// If lengths disagree.
#[inline(always)]
pub(super) fn softmax_blocks(scores: Scores, blocks: &mut [SoftmaxBlock]) {
    let width = scores.width(blocks);
    let Scores { x, used, seen } = scores;
    for ((x, seen), block) in x.chunks_exact_mut(width).zip(seen).zip(&mut *blocks) {
        block.max = seen_max(&mut x[..used], seen);
    }
    for ((x, seen), block) in x.chunks_exact_mut(width).zip(seen).zip(blocks) {
        block.sum = exponentials(&mut x[..used], seen, block.max);
        block.factor = 1.0;
    }
}

/// The same for a cache of int8 codes. The scores are sums of products of codes times key scale
/// times the factor of their row; the value scales are multiplied into the weights (rows,
/// positions), which are quantized to 16 bits relative to the largest of the row.
///
/// # Panics
/// If lengths disagree.
#[inline(always)]
pub(super) fn softmax_blocks_i8(
    scores: Scores,
    factors: &[f32],
    [key_scales, value_scales]: [&[f32]; 2],
    weights: &mut [i16],
    blocks: &mut [SoftmaxBlock],
) {
    let width = scores.width(blocks);
    let Scores { x, used, seen } = scores;
    assert!(used == key_scales.len() && used == value_scales.len());
    assert!(x.len() == weights.len() && factors.len() == blocks.len());
    let rows = x.chunks_exact_mut(width).zip(seen);
    for (((x, seen), factor), block) in rows.zip(factors).zip(&mut *blocks) {
        for (x, scale) in x[..used].iter_mut().zip(key_scales) {
            *x *= scale * factor;
        }
        block.max = seen_max(&mut x[..used], seen);
    }
    for ((x, seen), block) in x.chunks_exact_mut(width).zip(seen).zip(&mut *blocks) {
        block.sum = exponentials(&mut x[..used], seen, block.max);
    }
    for (x, block) in x.chunks_exact_mut(width).zip(&mut *blocks) {
        for (x, scale) in x[..used].iter_mut().zip(value_scales) {
            *x *= scale;
        }
        let max = max(&x[..used]);
        block.factor = if max > SMALLEST { max } else { SMALLEST };
    }
    let weights = weights.chunks_exact_mut(width);
    for ((x, weights), block) in x.chunks_exact(width).zip(weights).zip(blocks) {
        let to_code = LARGEST / block.factor;
        for (weight, x) in weights[..used].iter_mut().zip(x) {
            *weight = code(*x * to_code);
        }
        block.factor /= LARGEST;
    }
}

/// The largest score that is seen; the others become −∞.
#[inline(always)]
fn seen_max(x: &mut [f32], seen: &Range<usize>) -> f32 {
    fill_others(x, seen, f32::NEG_INFINITY);
    max(x)
}

/// x = 2^(x - max), and their sum.
#[inline(always)]
fn exponentials(x: &mut [f32], seen: &Range<usize>, max: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    for x in x.as_chunks_mut().0 {
        let x: &mut [f32; LANES] = x;
        for l in 0..LANES {
            x[l] = exp2(x[l] - max);
            lanes[l] += x[l];
        }
    }
    // With an infinite maximum, what was filled in is not zero.
    fill_others(x, seen, 0.0);
    tree(lanes)
}

#[inline(always)]
fn fill_others(x: &mut [f32], seen: &Range<usize>, with: f32) {
    x[..seen.start].fill(with);
    x[seen.end..].fill(with);
}

/// y = y · a + x · b.
#[inline(always)]
pub(super) fn merge(y: &mut [f32], x: &[f32], [a, b]: [f32; 2]) {
    assert_eq!(y.len(), x.len());
    for (y, x) in y.iter_mut().zip(x) {
        *y = *y * a + x * b;
    }
}

/// Quantizes x · scale to codes in ±`largest` and returns the factor f, x · scale ≈ q · f.
///
/// The factor is NaN or infinite if x holds a NaN or an infinity.
#[inline(always)]
pub(super) fn quantize_i16(x: &[f32], scale: f32, largest: f32, q: &mut [i16]) -> f32 {
    assert_eq!(x.len(), q.len());
    // Bit patterns of absolute values order like the values, with infinity and NaN on top.
    let absmax = x
        .iter()
        .fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff));
    let absmax = f32::from_bits(absmax);
    let absmax = if absmax < SMALLEST { SMALLEST } else { absmax };
    let to_code = largest / absmax;
    for (q, x) in q.iter_mut().zip(x) {
        *q = code(x * to_code);
    }
    absmax / largest * scale
}

/// The largest 16-bit code.
pub(crate) const LARGEST: f32 = 32767.0;
/// Below this a maximum is taken for zero: its reciprocal would overflow.
const SMALLEST: f32 = 1e-30;
/// Adding 1.5 · 2²³ leaves an integer in the low bits of the sum, rounded half to even.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn code(x: f32) -> i16 {
    (x + ROUND).to_bits() as i16
}

/// The largest number; a NaN is passed over here and comes back through [`exp2`].
#[inline(always)]
fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            lanes[l] = larger(x[l], lanes[l]);
        }
    }
    in_halves(lanes, larger)
}

/// 2ˣ within 2 units in the last place for x ≤ 0; 0 below -100, NaN for NaN.
///
/// x = n + r with |r| ≤ ½, then a polynomial of r, fitted to the least relative error, times 2ⁿ.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(crate) fn exp2(x: f32) -> f32 {
    let rounded = x + ROUND;
    let r = x - (rounded - ROUND);
    let mut p = 1.535_336_2e-4;
    p = p * r + 1.339_887_4e-3;
    p = p * r + 9.618_437e-3;
    p = p * r + 5.550_332_4e-2;
    p = p * r + 2.402_264_8e-1;
    p = p * r + 6.931_472e-1;
    p = p * r + 1.0;
    let power = f32::from_bits((rounded.to_bits().wrapping_add(127)) << 23);
    // The power is meaningless where it is not used, or times NaN.
    if x < -100.0 { 0.0 } else { p * power }
}
