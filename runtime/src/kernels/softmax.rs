//! Attention between its two products, one query and one block of positions at a time.
//!
//! The exponential is taken to base two, of scores that were multiplied by log₂ e beforehand. Sums
//! run in the 16 lanes of `float`. A query sees a range of the positions of a block: earlier ones
//! may have left its window, later ones come after it. Weights are relative to the block's largest
//! score; [`merge`] joins the results of blocks.

use std::ops::Range;

use super::float::tree;
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

/// x = 2^(x - max) for the scores that are seen, zero for the others.
///
/// # Panics
/// Unless x is a multiple of 16 long.
#[inline(always)]
pub(super) fn softmax_block(x: &mut [f32], seen: Range<usize>) -> SoftmaxBlock {
    let fill_others = |x: &mut [f32], with| {
        x[..seen.start].fill(with);
        x[seen.end..].fill(with);
    };
    fill_others(x, f32::NEG_INFINITY);
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    assert!(rest.is_empty());
    let max = max(chunks);
    let mut lanes = [0f32; LANES];
    for x in chunks {
        for l in 0..LANES {
            x[l] = exp2(x[l] - max);
            lanes[l] += x[l];
        }
    }
    // With an infinite maximum, what was filled in is not zero.
    fill_others(x, 0.0);
    SoftmaxBlock {
        max,
        sum: tree(lanes),
        factor: 1.0,
    }
}

/// The same for a cache of int8 codes. `x` are sums of products of codes, scores are x · key_scales
/// · factor; the value scales are multiplied into the weights, which are quantized to 16 bits
/// relative to the largest.
///
/// # Panics
/// Unless all slices are equally long, a multiple of 16.
#[inline(always)]
pub(super) fn softmax_block_i8(
    x: &mut [f32],
    seen: Range<usize>,
    factor: f32,
    [key_scales, value_scales]: [&[f32]; 2],
    weights: &mut [i16],
) -> SoftmaxBlock {
    assert!(x.len() == key_scales.len() && x.len() == value_scales.len());
    assert!(x.len() == weights.len());
    for (x, scale) in x.iter_mut().zip(key_scales) {
        *x *= scale * factor;
    }
    let block = softmax_block(x, seen);
    for (x, scale) in x.iter_mut().zip(value_scales) {
        *x *= scale;
    }
    let max = max(x.as_chunks().0);
    let max = if max > SMALLEST { max } else { SMALLEST };
    let to_code = LARGEST / max;
    for (weight, x) in weights.iter_mut().zip(x) {
        *weight = code(*x * to_code);
    }
    SoftmaxBlock {
        factor: max / LARGEST,
        ..block
    }
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
fn max(chunks: &[[f32; LANES]]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for x in chunks {
        for l in 0..LANES {
            lanes[l] = larger(x[l], lanes[l]);
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
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
