//! The float loops, written once and compiled for each instruction set.
//!
//! A sum runs in 16 lanes: lane i adds elements i, i + 16, i + 32, … in that order, then lanes are
//! added in halves, 16 → 8 → 4 → 2 → 1. Products are rounded before they are added: rustc never
//! contracts the two, so every instruction set gives the same bits. Vector registers of 4, 8 or 16
//! floats all divide the 16 lanes.

use half::{bf16, f16};
use sterna_ternary::packing::dense::BLOCK;

use super::dense::QuantizedBlock;
use super::widen::f16_to_f32;

const LANES: usize = 16;

#[inline(always)]
pub(super) fn quantize(x: &[f32], q: &mut [i8]) -> f32 {
    sterna_ternary::quantize::quantize_activations(x, q)
}

/// The same with `codes`, which rounds N numbers times a scale half to even, saturating.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn quantize_with<const N: usize>(
    x: &[f32],
    q: &mut [i8],
    codes: impl Fn(&[f32; N], f32, &mut [i8; N]),
) -> f32 {
    use sterna_ternary::quantize::{activation_scale, is_usable};

    assert_eq!(x.len(), q.len());
    let scale = activation_scale(x);
    if !is_usable(scale) {
        q.fill(0);
        return scale;
    }
    let ((x, rest), (q, rest_q)) = (x.as_chunks::<N>(), q.as_chunks_mut::<N>());
    for (x, q) in x.iter().zip(q) {
        codes(x, scale, q);
    }
    let (mut last, mut last_q) = ([0.0; N], [0; N]);
    last[..rest.len()].copy_from_slice(rest);
    codes(&last, scale, &mut last_q);
    rest_q.copy_from_slice(&last_q[..rest.len()]);
    scale
}

#[inline(always)]
pub(super) fn quantize_int16(x: &[f32], high: &mut [i8], low: &mut [i8]) -> f32 {
    sterna_ternary::quantize::quantize_activations_int16(x, high, low)
}

#[inline(always)]
pub(super) fn sum(q: &[i8]) -> i32 {
    q.iter().map(|q| i32::from(*q)).sum()
}

/// The order of transformers: divided first.
#[inline(always)]
pub(super) fn dequantize(sums: &[i32], s: f32, scale: f32, y: &mut [f32]) {
    assert_eq!(sums.len(), y.len());
    for (y, sum) in y.iter_mut().zip(sums) {
        *y = *sum as f32 / s * scale;
    }
}

#[inline(always)]
pub(super) fn quantize_blocks(x: &[f32], blocks: &mut [QuantizedBlock]) {
    assert_eq!(x.len().div_ceil(BLOCK), blocks.len());
    for (x, block) in x.chunks(BLOCK).zip(blocks) {
        let mut padded = [0.0; BLOCK];
        padded[..x.len()].copy_from_slice(x);
        let scale = std::slice::from_mut(&mut block.scale);
        sterna_ternary::quantize::quantize_blocks(&padded, &mut block.q, scale);
        block.sum = sum(&block.q);
    }
}

#[inline(always)]
pub(super) fn gemm_f32(x: &[f32], columns: usize, rows: &[f32], y: &mut [f32]) {
    gemm::<_, 2, 2>(x, columns, rows, y, |v: &[f32; LANES]| *v);
}

#[inline(always)]
pub(super) fn gemm_f16(x: &[f32], columns: usize, rows: &[f16], y: &mut [f32]) {
    gemm::<_, 2, 2>(x, columns, rows, y, |v: &[f16; LANES]| v.map(f16_to_f32));
}

#[inline(always)]
pub(super) fn gemm_bf16(x: &[f32], columns: usize, rows: &[bf16], y: &mut [f32]) {
    gemm::<_, 2, 2>(x, columns, rows, y, widen_bf16);
}

#[inline(always)]
pub(super) fn widen_bf16(v: &[bf16; LANES]) -> [f32; LANES] {
    v.map(|v| f32::from_bits(u32::from(v.to_bits()) << 16))
}

/// y (tokens, rows) of x (tokens, columns) and rows (rows, columns).
///
/// A token alone meets four rows at a time, so that the additions of one need not wait for each
/// other; several meet in tiles of `ROWS` by `TOKENS`, so that what is loaded and widened serves
/// several products.
#[inline(always)]
pub(super) fn gemm<T: Copy + Default, const ROWS: usize, const TOKENS: usize>(
    x: &[f32],
    columns: usize,
    rows: &[T],
    y: &mut [f32],
    widen: impl Fn(&[T; LANES]) -> [f32; LANES] + Copy,
) {
    let (tokens, n) = (x.len() / columns, rows.len() / columns);
    assert!(x.len() == tokens * columns && rows.len() == n * columns);
    assert_eq!(y.len(), tokens * n);
    let token = |t: usize| &x[t * columns..][..columns];
    let row = |r: usize| &rows[r * columns..][..columns];
    let tiled = tokens / TOKENS * TOKENS;
    for r in (0..n).step_by(ROWS).filter(|_| tiled > 0) {
        // Behind the last row it is repeated.
        let tile: [&[T]; ROWS] = std::array::from_fn(|i| row((r + i).min(n - 1)));
        for t in (0..tiled).step_by(TOKENS) {
            let dots = dots(
                std::array::from_fn::<_, TOKENS, _>(|i| token(t + i)),
                tile,
                widen,
            );
            for (i, dots) in dots.into_iter().enumerate() {
                let there = (n - r).min(ROWS);
                y[(t + i) * n + r..][..there].copy_from_slice(&dots[..there]);
            }
        }
    }
    for (t, y) in (tiled..tokens).zip(y[tiled * n..].chunks_exact_mut(n.max(1))) {
        let (fours, rest) = y.as_chunks_mut::<4>();
        let left = fours.len() * 4;
        for (i, y) in fours.iter_mut().enumerate() {
            [*y] = dots([token(t)], [0, 1, 2, 3].map(|r| row(4 * i + r)), widen);
        }
        for (i, y) in rest.iter_mut().enumerate() {
            [[*y]] = dots([token(t)], [row(left + i)], widen);
        }
    }
}

/// The products of every row with every token, (tokens, rows).
#[inline(always)]
fn dots<T: Copy + Default, const ROWS: usize, const TOKENS: usize>(
    tokens: [&[f32]; TOKENS],
    rows: [&[T]; ROWS],
    widen: impl Fn(&[T; LANES]) -> [f32; LANES] + Copy,
) -> [[f32; ROWS]; TOKENS] {
    let mut lanes = [[[0f32; LANES]; ROWS]; TOKENS];
    let columns = tokens[0].len();
    let tokens = tokens.map(|x| x[..columns].as_chunks::<LANES>());
    let rows = rows.map(|row| row[..columns].as_chunks::<LANES>());
    for i in 0..columns / LANES {
        let wide = rows.map(|row| widen(&row.0[i]));
        for (lanes, x) in lanes.iter_mut().zip(tokens) {
            for (lanes, wide) in lanes.iter_mut().zip(&wide) {
                add_products(lanes, &x.0[i], wide);
            }
        }
    }
    for (lanes, x) in lanes.iter_mut().zip(tokens) {
        for (lanes, row) in lanes.iter_mut().zip(rows) {
            let mut last = [T::default(); LANES];
            last[..row.1.len()].copy_from_slice(row.1);
            for ((lane, x), v) in lanes.iter_mut().zip(x.1).zip(widen(&last)) {
                *lane += x * v;
            }
        }
    }
    lanes.map(|lanes| lanes.map(tree))
}

#[inline(always)]
fn add_products(lanes: &mut [f32; LANES], x: &[f32; LANES], v: &[f32; LANES]) {
    for l in 0..LANES {
        lanes[l] += x[l] * v[l];
    }
}

/// The fixed order in which lanes are added.
#[inline(always)]
pub(super) fn tree(lanes: [f32; LANES]) -> f32 {
    in_halves(lanes, |a, b| a + b)
}

/// Joins lanes in halves, 16 → 8 → 4 → 2 → 1.
///
/// Each half has a type of its own: from a loop over them the compiler makes branches.
#[inline(always)]
pub(super) fn in_halves(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let lanes: [f32; 8] = std::array::from_fn(|l| join(lanes[l], lanes[l + 8]));
    let lanes: [f32; 4] = std::array::from_fn(|l| join(lanes[l], lanes[l + 4]));
    let lanes: [f32; 2] = std::array::from_fn(|l| join(lanes[l], lanes[l + 2]));
    join(lanes[0], lanes[1])
}

#[inline(always)]
pub(super) fn rms_norm(x: &mut [f32], weight: &[f32], eps: f32) -> f32 {
    assert_eq!(x.len(), weight.len());
    let [[squares]] = dots([&*x], [&*x], |v: &[f32; LANES]| *v);
    let factor = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for (x, w) in x.iter_mut().zip(weight) {
        *x = *x * factor * w;
    }
    factor
}

#[inline(always)]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[inline(always)]
pub(super) fn relu2_mul(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.iter_mut().zip(up) {
        // Written so that a NaN stays one.
        let relu = if *gate < 0.0 { 0.0 } else { *gate };
        *gate = relu * relu * up;
    }
}

/// (1 + tanh u) / 2 is the sigmoid of 2u.
#[inline(always)]
pub(super) fn gelu_tanh_mul(gate: &mut [f32], up: &[f32]) {
    /// 2 √(2/π)
    const TWICE_ROOT: f32 = 1.595_769;
    assert_eq!(gate.len(), up.len());
    for (gate, up) in gate.iter_mut().zip(up) {
        let g = *gate;
        let twice_u = TWICE_ROOT * (g + 0.044715 * (g * g * g));
        *gate = g / (1.0 + exp(-twice_u)) * up;
    }
}

#[inline(always)]
pub(super) fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = x.split_at_mut(x.len() / 2);
    assert!(first.len() == second.len() && first.len() == cos.len() && cos.len() == sin.len());
    for i in 0..first.len() {
        let (a, b) = (first[i], second[i]);
        first[i] = a * cos[i] - b * sin[i];
        second[i] = b * cos[i] + a * sin[i];
    }
}

#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// eˣ within 2 units in the last place; 0 below -104, infinite above 88.73, NaN for NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, then a polynomial of r (Cephes `expf`) times 2ⁿ.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding 1.5 · 2²³ leaves an integer in the low bits of the sum, rounded half to even.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -105.0 { -105.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let n_f32 = rounded - ROUND;
    // ln 2 in two parts, the first with so few bits that its product with n is exact.
    let r = x - n_f32 * 0.693_359_375 - n_f32 * -2.121_944_4e-4;
    let mut p = 1.987_569_15e-4;
    p = p * r + 1.398_199_95e-3;
    p = p * r + 8.333_451_9e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_55e-1;
    p = p * r + 5.000_000_1e-1;
    let y = p * (r * r) + r + 1.0;
    // 2ⁿ in two factors, so that results near the ends of the range do not overflow on the way.
    let half = n >> 1;
    y * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}
