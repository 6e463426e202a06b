//! Products with coded tables ([`sterna_ternary::table`]): 16-bit activations with planes of odd
//! digits.
//!
//! The first plane is multiplied with all 16 bits. The other planes count sixteen times less, so
//! the high byte, which is the activation rounded to 8 bits, is enough for them: what is lost is
//! far below the rounding of the codes themselves. All sums are exact integers, so their order does
//! not matter and every table gives the same bits.

use sterna_ternary::quantize::quantize_activations_int16;
use sterna_ternary::table::{GROUP, PLANE_BYTES};

/// One token's activations in 16 bits: x ≈ q / scale, q = 256 · high + low.
#[derive(Debug, Default)]
pub struct Int16 {
    pub(super) high: Vec<[i8; GROUP]>, // (groups), zero after the last column
    pub(super) low: Vec<[i8; GROUP]>,  // (groups)
    /// Sums over neighbours in the first and in the last 64 columns of a group: lane i adds columns
    /// 2 i and 2 i + 1 of both runs of 32.
    pub(super) high_pairs: Vec<[[i16; 16]; 2]>,
    pub(super) low_pairs: Vec<[[i16; 16]; 2]>,
    scale: f32,
    high_norm: f64,
}

impl Int16 {
    /// Quantizes finite activations.
    pub fn fill(&mut self, x: &[f32]) {
        for bytes in [&mut self.high, &mut self.low] {
            bytes.clear();
            bytes.resize(x.len().div_ceil(GROUP), [0; GROUP]);
        }
        let (high, low) = (self.high.as_flattened_mut(), self.low.as_flattened_mut());
        let (high, low) = (&mut high[..x.len()], &mut low[..x.len()]);
        self.scale = quantize_activations_int16(x, high, low);
        let squares: f64 = high.iter().map(|h| f64::from(*h).powi(2)).sum();
        self.high_norm = 256.0 * squares.sqrt() * (1.0 + 1e-9);
        self.high_pairs = self.high.iter().map(pairs).collect();
        self.low_pairs = self.low.iter().map(pairs).collect();
    }

    /// Factor between activations and integers.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// 256 · √Σ high², rounded up: the norm of what all planes but the first are multiplied with.
    pub fn high_norm(&self) -> f64 {
        self.high_norm
    }

    pub(super) fn groups(&self) -> usize {
        self.high.len()
    }
}

fn pairs(group: &[i8; GROUP]) -> [[i16; 16]; 2] {
    std::array::from_fn(|half| {
        std::array::from_fn(|i| {
            let at = |run: usize| half * 64 + run * 32 + 2 * i;
            let pair = |run: usize| i16::from(group[at(run)]) + i16::from(group[at(run) + 1]);
            pair(0) + pair(1)
        })
    })
}

/// Panics where the lengths of a [`super::Plane`]'s arguments disagree; gives the rows' bytes by
/// group.
pub(super) fn check<'a, const BYTES: usize>(
    x: &Int16,
    rows: &'a [u8],
    multipliers: &[u8],
    sums: &[i64],
) -> &'a [[u8; BYTES]] {
    assert_eq!(multipliers.len(), sums.len() * x.groups());
    assert_eq!(rows.len(), multipliers.len() * BYTES);
    rows.as_chunks().0
}

pub(super) fn plane4(x: &Int16, rows: &[u8], multipliers: &[u8], weight: i64, sums: &mut [i64]) {
    let digits = |bytes: &[u8; PLANE_BYTES[0]], i: usize| {
        let byte = bytes[i / 64 * 32 + i % 32];
        2 * i32::from(byte >> (i % 64 / 32 * 4) & 15) - 15
    };
    let q = |g: usize, i: usize| 256 * i32::from(x.high[g][i]) + i32::from(x.low[g][i]);
    plane(x, rows, multipliers, weight, sums, digits, q);
}

pub(super) fn plane2(x: &Int16, rows: &[u8], multipliers: &[u8], weight: i64, sums: &mut [i64]) {
    let digits = |bytes: &[u8; PLANE_BYTES[1]], i: usize| {
        let byte = bytes[i % 32];
        2 * i32::from(byte >> (i / 32 * 2) & 3) - 3
    };
    let q = |g: usize, i: usize| 256 * i32::from(x.high[g][i]);
    plane(x, rows, multipliers, weight, sums, digits, q);
}

#[inline(always)]
fn plane<const BYTES: usize>(
    x: &Int16,
    rows: &[u8],
    multipliers: &[u8],
    weight: i64,
    sums: &mut [i64],
    digit: impl Fn(&[u8; BYTES], usize) -> i32,
    q: impl Fn(usize, usize) -> i32,
) {
    let bytes = check::<BYTES>(x, rows, multipliers, sums);
    let groups = x.groups();
    for (r, sum) in sums.iter_mut().enumerate() {
        let mut row = 0;
        for g in 0..groups {
            let bytes = &bytes[r * groups + g];
            let group: i32 = (0..GROUP).map(|i| digit(bytes, i) * q(g, i)).sum();
            row += i64::from(multipliers[r * groups + g]) * i64::from(group);
        }
        *sum += weight * row;
    }
}
