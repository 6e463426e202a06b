//! Coded tables: embedding and head with 8, 6 or 4 bits per value, split into bit planes.
//!
//! A row is divided into groups of 128 columns. A value is an odd integer o times a multiplier m of
//! its group, 0 to [`LARGEST_MULTIPLIER`], times the scale s of its row: x ≈ o · m · s. With B bits
//! o = 2u − (2ᴮ − 1), so codes are symmetric and all are used; a group of zeros has m = 0. Products
//! with integers are exact integers.
//!
//! The bits of u are stored in *planes*: the highest four bits, then two more, then the last two.
//! Each plane is a sum of odd digits, o = 16 (2h − 15) + 4 (2c − 3) + (2l − 3) for 8 bits. So the
//! product with the first plane estimates the product with the row, and the norm of the remaining
//! planes bounds the error (Cauchy–Schwarz). A row stores these norms, so a reader can skip
//! irrelevant rows after half of their bytes.
//!
//! In the first plane a group has 64 bytes. For j below 32, byte j holds column j in its low four
//! bits and column 32 + j in its high four bits; the next 32 bytes hold columns 64 to 127 in the
//! same way. In the other planes a group has 32 bytes. Byte j holds the columns j, 32 + j, 64 + j
//! and 96 + j, from its low bits up.

use crate::Dtype;

/// Columns that share a multiplier.
pub const GROUP: usize = 128;
/// Largest multiplier of a group.
pub const LARGEST_MULTIPLIER: u8 = 31;
/// Most columns of a coded table. The sums of products with 16-bit integers then fit the kernels'
/// accumulators.
pub const MOST_COLUMNS: usize = 1 << 18;
/// Bytes per group in each plane.
pub const PLANE_BYTES: [usize; 3] = [64, 32, 32];
/// Bits per digit in each plane.
const PLANE_BITS: [u32; 3] = [4, 2, 2];

/// Storage type of embedding and head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableType {
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Eight bits per value: three planes.
    Q8,
    /// Six bits per value: two planes.
    Q6,
    /// Four bits per value: one plane.
    Q4,
    /// Trits with one scale per 128 columns: [`crate::trits`].
    Ternary,
    /// Single precision in planes: [`crate::planes`].
    F32Planes,
    /// IEEE half precision in planes.
    F16Planes,
    /// bfloat16 in planes.
    Bf16Planes,
}

impl TableType {
    /// All types.
    pub const ALL: [TableType; 10] = [
        TableType::F32,
        TableType::F16,
        TableType::Bf16,
        TableType::Q8,
        TableType::Q6,
        TableType::Q4,
        TableType::Ternary,
        TableType::F32Planes,
        TableType::F16Planes,
        TableType::Bf16Planes,
    ];

    /// The name in headers and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            TableType::F32 => "f32",
            TableType::F16 => "f16",
            TableType::Bf16 => "bf16",
            TableType::Q8 => "q8",
            TableType::Q6 => "q6",
            TableType::Q4 => "q4",
            TableType::Ternary => "ternary",
            TableType::F32Planes => "f32_planes",
            TableType::F16Planes => "f16_planes",
            TableType::Bf16Planes => "bf16_planes",
        }
    }

    /// The type with that name.
    pub fn from_name(name: &str) -> Option<TableType> {
        TableType::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Number of planes of codes; 0 for types without codes.
    pub fn planes(self) -> usize {
        match self {
            TableType::F32 | TableType::F16 | TableType::Bf16 | TableType::Ternary => 0,
            TableType::Q8 => 3,
            TableType::F32Planes | TableType::F16Planes | TableType::Bf16Planes => 3,
            TableType::Q6 => 2,
            TableType::Q4 => 1,
        }
    }

    /// The type of the numbers of a table; none if it has only codes or trits.
    pub fn numbers(self) -> Option<Dtype> {
        match self {
            TableType::F32 | TableType::F32Planes => Some(Dtype::F32),
            TableType::F16 | TableType::F16Planes => Some(Dtype::F16),
            TableType::Bf16 | TableType::Bf16Planes => Some(Dtype::Bf16),
            TableType::Q8 | TableType::Q6 | TableType::Q4 | TableType::Ternary => None,
        }
    }

    /// Whether the table has numbers in planes: codes and a low plane.
    pub fn has_low_plane(self) -> bool {
        self.planes() > 0 && self.numbers().is_some()
    }

    /// The same numbers in planes; the type itself if it has no plain numbers.
    pub fn in_planes(self) -> TableType {
        match self {
            TableType::F32 => TableType::F32Planes,
            TableType::F16 => TableType::F16Planes,
            TableType::Bf16 => TableType::Bf16Planes,
            other => other,
        }
    }
}

/// Groups per row.
pub fn groups(columns: usize) -> usize {
    columns.div_ceil(GROUP)
}

/// The weight of each plane's digit in o. With three planes, the first plane's digit 2h − 15 counts
/// 16 times.
pub fn plane_weights(planes: usize) -> [i32; 3] {
    std::array::from_fn(|plane| {
        let below: u32 = PLANE_BITS[plane + 1..planes.max(plane + 1)].iter().sum();
        1 << below
    })
}

/// The largest o of a table with this number of planes: 2ᴮ − 1.
fn largest(planes: usize) -> i32 {
    let bits: u32 = PLANE_BITS[..planes].iter().sum();
    (1 << bits) - 1
}

/// One coded row.
#[derive(Debug, Clone, PartialEq)]
pub struct CodedRow {
    /// The bytes of each plane: [`PLANE_BYTES`] per group.
    pub planes: Vec<Vec<u8>>,
    /// One multiplier per group.
    pub multipliers: Vec<u8>,
    /// The scale s.
    pub scale: f32,
    /// For n = 1 up to the number of planes − 1: √Σ (m · contribution of the planes after the first
    /// n)², rounded up.
    pub remainders: Vec<f32>,
}

impl CodedRow {
    /// Encodes a row of finite values in `planes` planes.
    pub fn encode(x: &[f32], planes: usize) -> CodedRow {
        let largest = largest(planes);
        let absmax = |x: &[f32]| x.iter().fold(0f32, |m, x| m.max(x.abs()));
        let all = absmax(x);
        let finest = f64::from(largest) * f64::from(LARGEST_MULTIPLIER);
        let scale = ((f64::from(all) / finest) as f32).max(f32::MIN_POSITIVE);
        let mut row = CodedRow {
            planes: PLANE_BYTES[..planes]
                .iter()
                .map(|bytes| vec![0; bytes * groups(x.len())])
                .collect(),
            multipliers: Vec::with_capacity(groups(x.len())),
            scale,
            remainders: Vec::new(),
        };
        let mut remainders = Remainders::new(planes);
        for (g, group) in x.chunks(GROUP).enumerate() {
            let steps = f64::from(absmax(group)) / (f64::from(scale) * f64::from(largest));
            let multiplier = (steps.ceil() as u8).min(LARGEST_MULTIPLIER);
            row.multipliers.push(multiplier);
            let step = f64::from(scale) * f64::from(multiplier);
            for (i, x) in group.iter().enumerate() {
                let code = if multiplier == 0 {
                    0
                } else {
                    let halves = (f64::from(*x) / step + f64::from(largest)) / 2.0;
                    halves.round_ties_even().clamp(0.0, f64::from(largest)) as u32
                };
                row.put(g, i, code);
                remainders.add(code, multiplier);
            }
        }
        row.remainders = remainders.norms();
        row
    }

    /// Decodes the row.
    pub fn decode(&self, x: &mut [f32]) {
        let mut bits: [&[u8]; 3] = [&[]; 3];
        for (bits, plane) in bits.iter_mut().zip(&self.planes) {
            *bits = plane;
        }
        let codes = Codes {
            planes: self.planes.len(),
            bits,
            multipliers: &self.multipliers,
            scales: std::slice::from_ref(&self.scale),
            remainders: &self.remainders,
        };
        codes.decode(0, x);
    }

    /// What a plane adds to the value in column i, in scales.
    pub(crate) fn part(&self, plane: usize, i: usize) -> i32 {
        let (g, planes) = (i / GROUP, self.planes.len());
        let (byte, shift) = place(plane, i % GROUP);
        let bits = PLANE_BITS[plane];
        let mask = (1 << bits) - 1;
        let digit = i32::from(self.planes[plane][g * PLANE_BYTES[plane] + byte] >> shift) & mask;
        plane_weights(planes)[plane] * (2 * digit - mask) * i32::from(self.multipliers[g])
    }

    fn put(&mut self, g: usize, i: usize, code: u32) {
        let planes = self.planes.len();
        for (plane, bytes) in self.planes.iter_mut().enumerate() {
            let (byte, shift) = place(plane, i);
            bytes[g * PLANE_BYTES[plane] + byte] |= (digit(code, plane, planes) as u8) << shift;
        }
    }
}

/// The byte within a group and the shift within that byte where a plane stores column i.
fn place(plane: usize, i: usize) -> (usize, usize) {
    match plane {
        0 => (i / 64 * 32 + i % 32, i % 64 / 32 * 4),
        _ => (i % 32, i / 32 * 2),
    }
}

/// The digit of a code in a plane.
fn digit(code: u32, plane: usize, planes: usize) -> u32 {
    let below: u32 = PLANE_BITS[plane + 1..planes].iter().sum();
    (code >> below) & ((1 << PLANE_BITS[plane]) - 1)
}

/// Sums of squares of the contributions, to m · o, of the planes after the first n.
struct Remainders {
    planes: usize,
    squares: [f64; 3],
}

impl Remainders {
    fn new(planes: usize) -> Remainders {
        Remainders {
            planes,
            squares: [0.0; 3],
        }
    }

    fn add(&mut self, code: u32, multiplier: u8) {
        for known in 1..self.planes {
            let bits: u32 = PLANE_BITS[known..self.planes].iter().sum();
            let mask = (1 << bits) - 1;
            let rest = (2 * (code & mask)) as i32 - mask as i32;
            self.squares[known] += f64::from(i32::from(multiplier) * rest).powi(2);
        }
    }

    /// The norms, rounded up to f32.
    fn norms(&self) -> Vec<f32> {
        let upwards = |square: &f64| (square.sqrt() as f32).next_up();
        self.squares[1..self.planes].iter().map(upwards).collect()
    }
}

/// A coded table, used in place.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    /// Number of planes, 1 to 3.
    pub planes: usize,
    /// The bytes of each plane, (rows, groups · [`PLANE_BYTES`]); empty for absent planes.
    pub bits: [&'a [u8]; 3],
    /// (rows, groups)
    pub multipliers: &'a [u8],
    /// (rows)
    pub scales: &'a [f32],
    /// (rows, planes - 1)
    pub remainders: &'a [f32],
}

impl Codes<'_> {
    /// Decodes a row.
    ///
    /// # Panics
    /// If the row does not exist or `x` is longer than a row.
    pub fn decode(&self, row: usize, x: &mut [f32]) {
        let largest = largest(self.planes);
        for (g, x) in x.chunks_mut(GROUP).enumerate() {
            let step = self.scales[row] * f32::from(self.multiplier(row, g));
            for (i, x) in x.iter_mut().enumerate() {
                *x = (2 * self.code(row, g, i) as i32 - largest) as f32 * step;
            }
        }
    }

    /// A copy of a row.
    pub fn row(&self, row: usize) -> CodedRow {
        let groups = self.groups();
        let plane = |i: usize| {
            let bytes = groups * PLANE_BYTES[i];
            self.bits[i][row * bytes..][..bytes].to_vec()
        };
        CodedRow {
            planes: (0..self.planes).map(plane).collect(),
            multipliers: self.multipliers[row * groups..][..groups].to_vec(),
            scale: self.scales[row],
            remainders: self.remainders_of(row).to_vec(),
        }
    }

    /// The remainders of a row; none in a table with a low plane, whose norms are elsewhere.
    pub fn remainders_of(&self, row: usize) -> &[f32] {
        let each = self.remainders.len() / self.scales.len();
        &self.remainders[row * each..][..each]
    }

    /// Whether [`CodedRow::encode`] could have written this row of `columns` columns: its
    /// multipliers are in range and its remainders follow from the planes.
    pub fn is_consistent(&self, row: usize, columns: usize) -> bool {
        let mut remainders = Remainders::new(self.planes);
        for i in 0..columns {
            let (g, i) = (i / GROUP, i % GROUP);
            remainders.add(self.code(row, g, i), self.multiplier(row, g));
        }
        let stored = self.remainders_of(row);
        let mut multipliers = (0..self.groups()).map(|g| self.multiplier(row, g));
        multipliers.all(|m| m <= LARGEST_MULTIPLIER) && remainders.norms() == stored
    }

    /// Groups per row.
    pub fn groups(&self) -> usize {
        self.multipliers.len() / self.scales.len()
    }

    fn multiplier(&self, row: usize, g: usize) -> u8 {
        self.multipliers[row * self.groups() + g]
    }

    fn code(&self, row: usize, g: usize, i: usize) -> u32 {
        let mut code = 0;
        for (plane, bits) in PLANE_BITS.iter().enumerate().take(self.planes) {
            let (byte, shift) = place(plane, i);
            let at = (row * self.groups() + g) * PLANE_BYTES[plane] + byte;
            let digit = u32::from(self.bits[plane][at]) >> shift & ((1 << bits) - 1);
            code = code << bits | digit;
        }
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes<'a>(row: &'a CodedRow, bits: [&'a [u8]; 3]) -> Codes<'a> {
        Codes {
            planes: row.planes.len(),
            bits,
            multipliers: &row.multipliers,
            scales: std::slice::from_ref(&row.scale),
            remainders: &row.remainders,
        }
    }

    fn round_trip(x: &[f32], planes: usize) -> (CodedRow, Vec<f32>) {
        let row = CodedRow::encode(x, planes);
        let mut bits: [&[u8]; 3] = [&[]; 3];
        for (bits, plane) in bits.iter_mut().zip(&row.planes) {
            *bits = plane;
        }
        let mut y = vec![f32::NAN; x.len()];
        let mut codes = codes(&row, bits);
        codes.decode(0, &mut y);
        assert!(codes.is_consistent(0, x.len()));
        let wrong: Vec<f32> = row.remainders.iter().map(|r| r * 0.99).collect();
        codes.remainders = &wrong;
        assert!(planes == 1 || x.iter().all(|x| *x == 0.0) || !codes.is_consistent(0, x.len()));
        (row, y)
    }

    /// Values whose magnitude differs strongly between neighbouring groups.
    fn values(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * [1.0, 0.03, 7.0][i / GROUP % 3])
            .collect()
    }

    #[test]
    fn values_come_back_within_a_step() {
        for n in [1, 31, 127, 128, 129, 300, 2560] {
            let x = values(n);
            for (planes, largest) in [(1, 15.0), (2, 63.0), (3, 255.0)] {
                let (row, y) = round_trip(&x, planes);
                for (i, (x, y)) in x.iter().zip(&y).enumerate() {
                    let step = row.scale * f32::from(row.multipliers[i / GROUP]);
                    assert!((x - y).abs() <= step * 1.001, "{n} {planes} {i}: {x} {y}");
                    // A group's step is at most one multiplier above what its largest value needs.
                    assert!(step * largest <= 7.0 * (1.0 + 1.0 / 31.0), "{step}");
                }
            }
        }
    }

    #[test]
    fn coding_is_repeatable() {
        for planes in 1..=3 {
            let (first, y) = round_trip(&values(300), planes);
            let (_, again) = round_trip(&y, planes);
            let worst = y.iter().zip(&again).map(|(a, b)| (a - b).abs());
            assert!(worst.fold(0.0, f32::max) <= first.scale, "{planes}");
        }
    }

    #[test]
    fn zeros_stay_zeros_and_extremes_are_exact() {
        let mut x = vec![0.0; 256];
        assert_eq!(round_trip(&x, 3).1, x);
        x[200] = -3.5;
        let (row, y) = round_trip(&x, 3);
        assert_eq!(row.multipliers, [0, LARGEST_MULTIPLIER]);
        assert!(y[..128].iter().all(|y| *y == 0.0));
        assert!((y[200] + 3.5).abs() < 1e-6, "{}", y[200]);
        for tiny in [1e-40, f32::MIN_POSITIVE, f32::MAX] {
            let y = round_trip(&[tiny, -tiny], 3).1;
            assert!(y.iter().all(|y| y.is_finite()), "{tiny}: {y:?}");
        }
    }

    #[test]
    fn planes_add_up_and_remainders_bound_what_is_left_out() {
        let x = values(300);
        for planes in 1..=3 {
            let row = CodedRow::encode(&x, planes);
            let weights = plane_weights(planes);
            let digit = |plane: usize, i: usize| {
                let (byte, shift) = place(plane, i % GROUP);
                let at = i / GROUP * PLANE_BYTES[plane] + byte;
                let bits = PLANE_BITS[plane];
                let digit = i32::from(row.planes[plane][at]) >> shift & ((1 << bits) - 1);
                2 * digit - ((1 << bits) - 1)
            };
            let (_, y) = round_trip(&x, planes);
            let mut squares = [0f64; 3];
            for (i, y) in y.iter().enumerate() {
                let multiplier = i32::from(row.multipliers[i / GROUP]);
                let part = |plane: usize| weights[plane] * digit(plane, i);
                let odd: i32 = (0..planes).map(part).sum();
                assert_eq!(odd as f32 * (row.scale * multiplier as f32), *y);
                for (known, square) in squares.iter_mut().enumerate().take(planes).skip(1) {
                    let left: i32 = (known..planes).map(part).sum();
                    *square += f64::from(left * multiplier).powi(2);
                }
            }
            assert_eq!(row.remainders.len(), planes - 1);
            for (remainder, squares) in row.remainders.iter().zip(&squares[1..]) {
                let exact = squares.sqrt();
                assert!(
                    f64::from(*remainder) >= exact && f64::from(*remainder) < exact * 1.000_001
                );
            }
        }
    }
}
