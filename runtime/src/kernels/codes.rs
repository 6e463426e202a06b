//! Products with coded tables ([`sterna_ternary::table`]): 16-bit activations with planes of odd
//! digits, for several tokens at a time.
//!
//! The first plane is multiplied with all 16 bits. The other planes count sixteen times less, so
//! the high byte, which is the activation rounded to 8 bits, is enough for them: what is lost is
//! far below the rounding of the codes themselves. Where products are estimates only, the high byte
//! is enough for the first plane too. All sums are exact integers, so their order does not matter
//! and every table gives the same bits.

use sterna_ternary::planes::Planes;
use sterna_ternary::quantize::quantize_activations_int16;
use sterna_ternary::table::{GROUP, PLANE_BYTES, plane_weights};

/// One token's activations in 16 bits: x ≈ q / scale, q = 256 · high + low.
#[derive(Debug, Default)]
pub struct Int16 {
    pub(super) high: Vec<[i8; GROUP]>, // (groups), zero after the last column
    /// The low bytes; empty if the first plane is multiplied with the high byte only.
    pub(super) low: Vec<[i8; GROUP]>, // (groups)
    /// Sums over neighbours in the first and in the last 64 columns of a group: lane i adds columns
    /// 2 i and 2 i + 1 of both runs of 32.
    pub(super) high_pairs: Vec<[[i16; 16]; 2]>,
    pub(super) low_pairs: Vec<[[i16; 16]; 2]>,
    /// Sums of the high and of the low bytes over each group, zero after the last group.
    pub(super) group_sums: [Vec<[i16; 16]>; 2],
    scale: f32,
    high_norm: f64,
    norm: f64,
    high_error: f64,
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
        let (mut squares, mut high_squares, mut error_squares) = (0.0, 0.0, 0.0);
        for (x, high) in x.iter().zip(high) {
            let (x, high) = (
                f64::from(*x) * f64::from(self.scale),
                256.0 * f64::from(*high),
            );
            squares += x * x;
            high_squares += high * high;
            error_squares += (x - high) * (x - high);
        }
        let upwards = |squares: f64| squares.sqrt() * (1.0 + 1e-9);
        self.norm = upwards(squares);
        self.high_norm = upwards(high_squares);
        self.high_error = upwards(error_squares);
        self.high_pairs = self.high.iter().map(pairs).collect();
        self.low_pairs = self.low.iter().map(pairs).collect();
        self.group_sums = [group_sums(&self.high_pairs), group_sums(&self.low_pairs)];
    }

    /// The same, but all planes are multiplied with the high byte.
    pub fn fill_high(&mut self, x: &[f32]) {
        self.fill(x);
        self.low.clear();
        self.low_pairs.clear();
        self.group_sums[1].clear();
    }

    /// Factor between activations and integers.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// 256 · √Σ high², rounded up: the norm of what all planes but the first are multiplied with.
    pub fn high_norm(&self) -> f64 {
        self.high_norm
    }

    /// √Σ (x · scale)², rounded up.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// √Σ (x · scale − 256 · high)², rounded up.
    pub fn high_error(&self) -> f64 {
        self.high_error
    }

    pub(super) fn groups(&self) -> usize {
        self.high.len()
    }

    /// The sums of the high and of the low bytes over a group; zero where there are none.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn group_sums(&self, g: usize) -> [i32; 2] {
        [0, 1].map(|part| {
            let sums = self.group_sums[part].as_flattened();
            sums.get(g).map_or(0, |sum| i32::from(*sum))
        })
    }

    /// Whether the first plane is multiplied with the high byte only.
    pub(super) fn is_high(&self) -> bool {
        self.low.is_empty()
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

fn group_sums(pairs: &[[[i16; 16]; 2]]) -> Vec<[i16; 16]> {
    let mut sums = vec![[0; 16]; pairs.len().div_ceil(16)];
    for (sum, pairs) in sums.as_flattened_mut().iter_mut().zip(pairs) {
        *sum = pairs.as_flattened().iter().sum();
    }
    sums
}

/// Rows of a plane times tokens; the result beside it is (tokens, n).
#[derive(Debug, Clone, Copy)]
pub struct PlaneProduct<'a> {
    /// The tokens, at least one; the high bytes only of all of them or of none.
    pub x: &'a [Int16],
    /// (n, groups · bytes of the plane)
    pub rows: &'a [u8],
    /// (n, groups)
    pub multipliers: &'a [u8],
    /// How often a digit counts.
    pub weight: i64,
}

impl<'a> PlaneProduct<'a> {
    /// The rows' bytes by group, and the number of rows.
    ///
    /// # Panics
    /// If the lengths disagree.
    pub(super) fn checked<const BYTES: usize>(&self, sums: &[i64]) -> (&'a [[u8; BYTES]], usize) {
        let groups = self.x[0].groups();
        let is_high = self.x[0].is_high();
        assert!(
            self.x
                .iter()
                .all(|x| x.groups() == groups && x.is_high() == is_high)
        );
        let n = sums.len() / self.x.len();
        assert_eq!(sums.len(), n * self.x.len());
        assert_eq!(self.multipliers.len(), n * groups);
        assert_eq!(self.rows.len(), self.multipliers.len() * BYTES);
        (self.rows.as_chunks().0, n)
    }
}

/// Rows of all planes times tokens; the result beside it is (tokens, n).
#[derive(Debug, Clone, Copy)]
pub struct CodeProduct<'a> {
    /// The tokens, at least one; the high bytes only of all of them or of none.
    pub x: &'a [Int16],
    /// One to three planes, each (n, groups · bytes of the plane).
    pub planes: &'a [&'a [u8]],
    /// (n, groups)
    pub multipliers: &'a [u8],
    /// How often a code counts.
    pub weight: i64,
}

impl<'a> CodeProduct<'a> {
    /// The product of each plane.
    pub fn of_planes(self) -> impl Iterator<Item = PlaneProduct<'a>> {
        let weights = plane_weights(self.planes.len());
        (self.planes.iter().zip(weights)).map(move |(rows, weight)| PlaneProduct {
            x: self.x,
            rows,
            multipliers: self.multipliers,
            weight: self.weight * i64::from(weight),
        })
    }

    /// The number of rows.
    ///
    /// # Panics
    /// If the lengths disagree.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn checked(self, sums: &[i64]) -> usize {
        assert!((1..=PLANE_BYTES.len()).contains(&self.planes.len()));
        let rows = |(i, product): (usize, PlaneProduct)| match i {
            0 => product.checked::<{ PLANE_BYTES[0] }>(sums).1,
            _ => product.checked::<{ PLANE_BYTES[1] }>(sums).1,
        };
        let mut rows = self.of_planes().enumerate().map(rows);
        let n = rows.next().expect("one plane");
        rows.for_each(|more| assert_eq!(more, n));
        n
    }
}

pub(super) fn plane4(product: PlaneProduct, sums: &mut [i64]) {
    let digits = |bytes: &[u8; PLANE_BYTES[0]], i: usize| {
        let byte = bytes[i / 64 * 32 + i % 32];
        2 * i32::from(byte >> (i % 64 / 32 * 4) & 15) - 15
    };
    let q = |x: &Int16, g: usize, i: usize| {
        let low = x.low.get(g).map_or(0, |low| i32::from(low[i]));
        256 * i32::from(x.high[g][i]) + low
    };
    plane(product, sums, digits, q);
}

pub(super) fn plane2(product: PlaneProduct, sums: &mut [i64]) {
    let digits = |bytes: &[u8; PLANE_BYTES[1]], i: usize| {
        let byte = bytes[i % 32];
        2 * i32::from(byte >> (i / 32 * 2) & 3) - 3
    };
    let q = |x: &Int16, g: usize, i: usize| 256 * i32::from(x.high[g][i]);
    plane(product, sums, digits, q);
}

#[inline(always)]
fn plane<const BYTES: usize>(
    product: PlaneProduct,
    sums: &mut [i64],
    digit: impl Fn(&[u8; BYTES], usize) -> i32,
    q: impl Fn(&Int16, usize, usize) -> i32,
) {
    let (bytes, n) = product.checked::<BYTES>(sums);
    for (x, sums) in product.x.iter().zip(sums.chunks_exact_mut(n.max(1))) {
        let groups = x.groups();
        for (r, sum) in sums.iter_mut().enumerate() {
            let mut row = 0;
            for g in 0..groups {
                let bytes = &bytes[r * groups + g];
                let group: i32 = (0..GROUP).map(|i| digit(bytes, i) * q(x, g, i)).sum();
                row += i64::from(product.multipliers[r * groups + g]) * i64::from(group);
            }
            *sum += product.weight * row;
        }
    }
}

/// A row of a table in planes: [`Planes::decode`].
#[inline(always)]
pub(super) fn decode_planes(planes: &Planes, row: usize, values: &mut [f32]) {
    planes.decode(row, values);
}
