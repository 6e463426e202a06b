//! Tables in planes: embedding and head without any rounding, read like codes of eight bits.
//!
//! The high planes are the code of a value with eight bits, o · m · s, as in [`crate::table`]. A
//! reader estimates products with them and bounds the error: a row stores the norms of what the
//! first planes lack. The *low plane* makes the value exact. It is read only for rows that can
//! still matter, and for the embedding of a token.
//!
//! Numbers of one sign are ordered like their bits as f32, of which the last 13 (F16) or 16 (BF16)
//! are zero. The low plane stores a *correction*: what is added to the other bits of p = o · m · s
//! to get those of the value. A correction has one byte for F16 and BF16 and three for F32. A value
//! whose correction does not fit, or whose sign is not that of p, is an *exception*: its correction
//! is the lowest integer, and the value stands in the list of its row, in the order of columns.
//! These are mostly values near zero: about 0.5 % of a normal distribution in BF16 or F32 and 5 %
//! in F16.
//!
//! The low plane of a row holds the lowest byte of each correction, column by column, then (F32)
//! the second bytes and the third bytes.

use half::{bf16, f16};

use crate::table::{CodedRow, Codes, GROUP, PLANE_BYTES};
use crate::{Dtype, TableType};

/// Number of norms per row.
pub const NORMS: usize = 4;

/// A type of numbers that a table in planes can hold.
trait Number: bytemuck::Pod {
    /// Bytes of a correction.
    const CORRECTION: usize;
    /// Bits at the end of an f32 that are zero in numbers of the type.
    const ZEROS: u32;
    /// The nearest number of the type.
    fn from_f32(x: f32) -> Self;
    /// The value.
    fn to_f32(self) -> f32;
}

macro_rules! number {
    ($type:ty, $correction:literal, $zeros:literal) => {
        impl Number for $type {
            const CORRECTION: usize = $correction;
            const ZEROS: u32 = $zeros;
            fn from_f32(x: f32) -> $type {
                <$type>::from_f32(x)
            }
            fn to_f32(self) -> f32 {
                <$type>::to_f32(self)
            }
        }
    };
}

number!(f16, 1, 13);
number!(bf16, 1, 16);

impl Number for f32 {
    const CORRECTION: usize = 3;
    const ZEROS: u32 = 0;
    fn from_f32(x: f32) -> f32 {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
}

/// Bytes of a correction to numbers of a type.
pub(crate) fn correction_bytes(number: Dtype) -> usize {
    match number {
        Dtype::F32 => f32::CORRECTION,
        Dtype::F16 | Dtype::Bf16 | Dtype::U8 => f16::CORRECTION,
    }
}

/// The correction of an exception.
const fn lowest<N: Number>() -> i32 {
    -1 << (8 * N::CORRECTION - 1)
}

/// One row in planes.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaneRow {
    /// The high planes, without remainders.
    pub code: CodedRow,
    /// For n from 0 to 3: √Σ (x / s − what the first n planes hold)², rounded up.
    pub norms: [f32; NORMS],
    /// The low plane.
    pub low: Vec<u8>,
    /// The exceptions as little-endian numbers of the type.
    pub exceptions: Vec<u8>,
}

impl PlaneRow {
    /// Encodes a row of finite values, rounded to the type of numbers of `table`.
    ///
    /// # Panics
    /// If `table` is not a type of planes.
    pub fn encode(x: &[f32], table: TableType) -> PlaneRow {
        match table {
            TableType::F32Planes => encode::<f32>(x),
            TableType::F16Planes => encode::<f16>(x),
            TableType::Bf16Planes => encode::<bf16>(x),
            other => panic!("{} has no low plane", other.name()),
        }
    }
}

fn encode<N: Number>(x: &[f32]) -> PlaneRow {
    let x: Vec<f32> = x.iter().map(|x| N::from_f32(*x).to_f32()).collect();
    let mut code = CodedRow::encode(&x, 3);
    code.remainders.clear();
    let mut p = vec![0.0; x.len()];
    code.decode(&mut p);
    let norms = norms(&code, &x);
    let (columns, lowest) = (x.len(), lowest::<N>());
    let mut low = vec![0; columns * N::CORRECTION];
    let mut exceptions = Vec::new();
    for (i, (x, p)) in x.iter().zip(&p).enumerate() {
        let p = p + 0.0; // a group of zeros has p = -0
        let own = |x: f32| (x.to_bits() >> N::ZEROS) as i32;
        let mut correction = own(*x).wrapping_sub(own(p));
        let fits = lowest + 1..-lowest;
        if x.is_sign_negative() != p.is_sign_negative() || !fits.contains(&correction) {
            exceptions.extend(bytemuck::bytes_of(&N::from_f32(*x)));
            correction = lowest;
        }
        let runs = low.chunks_exact_mut(columns);
        for (byte, run) in correction.to_le_bytes().iter().zip(runs) {
            run[i] = *byte;
        }
    }
    PlaneRow {
        code,
        norms,
        low,
        exceptions,
    }
}

/// [`PlaneRow::norms`] of a row of values and its code.
fn norms(code: &CodedRow, x: &[f32]) -> [f32; NORMS] {
    let mut squares = [0f64; NORMS];
    for (i, x) in x.iter().enumerate() {
        let mut rest = f64::from(*x) / f64::from(code.scale);
        squares[0] += rest * rest;
        for (known, square) in squares[1..].iter_mut().enumerate() {
            rest -= f64::from(code.part(known, i));
            *square += rest * rest;
        }
    }
    // The quotient has a rounding error of at most 2⁻⁴⁰: no value is above 2¹³ scales.
    let slack = (x.len() as f64).sqrt() * 1e-12;
    squares.map(|square| ((square.sqrt() * (1.0 + 1e-9) + slack) as f32).next_up())
}

/// Exceptions of all rows, used in place.
#[derive(Debug, Clone, Copy)]
pub enum Numbers<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// bfloat16.
    Bf16(&'a [bf16]),
}

/// A table in planes, used in place.
#[derive(Debug, Clone, Copy)]
pub struct Planes<'a> {
    /// The high planes, without remainders.
    pub codes: Codes<'a>,
    /// (rows, [`NORMS`]): see [`PlaneRow::norms`]
    pub norms: &'a [f32],
    /// (rows, bytes of a correction, columns)
    pub low: &'a [u8],
    /// The exceptions of all rows, one row after the other.
    pub exceptions: Numbers<'a>,
    /// (rows): where the exceptions of each row end.
    pub ends: &'a [u32],
}

impl Planes<'_> {
    /// Decodes a row.
    ///
    /// # Panics
    /// If the row does not exist or `x` is not as long as a row.
    #[inline(always)]
    pub fn decode(&self, row: usize, x: &mut [f32]) {
        match self.exceptions {
            Numbers::F32(all) => self.decode_as(row, all, x),
            Numbers::F16(all) => self.decode_as(row, all, x),
            Numbers::Bf16(all) => self.decode_as(row, all, x),
        }
    }

    #[inline(always)]
    fn decode_as<N: Number>(&self, row: usize, exceptions: &[N], x: &mut [f32]) {
        let (columns, groups) = (x.len(), self.codes.groups());
        assert_eq!(columns.div_ceil(GROUP), groups);
        let low = &self.low[row * columns * N::CORRECTION..][..columns * N::CORRECTION];
        let mut exceptions = exceptions[self.exceptions_of(row)].iter();
        let (whole, rest) = x.as_chunks_mut::<GROUP>();
        // The bytes of the corrections of a group, the unused ones anything.
        let bytes = |g: usize| {
            let run = |i: usize| &low[(i % N::CORRECTION) * columns + g * GROUP..];
            [run(0), run(1), run(2)]
        };
        for (g, x) in whole.iter_mut().enumerate() {
            let low = bytes(g).map(|run| run.first_chunk().expect("the row has a whole group"));
            self.decode_group(
                row * groups + g,
                self.codes.scales[row],
                low,
                &mut exceptions,
                x,
            );
        }
        if !rest.is_empty() {
            let (mut low, mut values) = ([[0; GROUP]; 3], [0.0; GROUP]);
            for (low, run) in low.iter_mut().zip(bytes(whole.len())) {
                low[..rest.len()].copy_from_slice(&run[..rest.len()]);
            }
            let at = row * groups + whole.len();
            let low = low.each_ref();
            self.decode_group(
                at,
                self.codes.scales[row],
                low,
                &mut exceptions,
                &mut values,
            );
            rest.copy_from_slice(&values[..rest.len()]);
        }
    }

    /// Decodes the group `at`, counted over all rows.
    #[inline(always)]
    fn decode_group<'e, N: Number>(
        &self,
        at: usize,
        scale: f32,
        low: [&[u8; GROUP]; 3],
        exceptions: &mut impl Iterator<Item = &'e N>,
        x: &mut [f32; GROUP],
    ) {
        let [high, middle, last] = self.codes.bits;
        let high = &high.as_chunks::<{ PLANE_BYTES[0] }>().0[at];
        let middle = &middle.as_chunks::<{ PLANE_BYTES[1] }>().0[at];
        let last = &last.as_chunks::<{ PLANE_BYTES[2] }>().0[at];
        let step = scale * f32::from(self.codes.multipliers[at]);
        let correction = |i: usize| match N::CORRECTION {
            1 => i32::from(low[0][i] as i8),
            _ => i32::from_le_bytes([0, low[0][i], low[1][i], low[2][i]]) >> 8,
        };
        for (run, x) in x.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let high = &high.as_chunks::<32>().0[run / 2];
            let mut code = [0u8; 32];
            for (j, code) in code.iter_mut().enumerate() {
                let four = high[j] >> (run % 2 * 4) & 15;
                let two = middle[j] >> (run * 2) & 3;
                *code = four << 4 | two << 2 | last[j] >> (run * 2) & 3;
            }
            for (j, (x, code)) in x.iter_mut().zip(code).enumerate() {
                // Zero is added so that a group of zeros has no -0.
                let p = (2 * i32::from(code) - 255) as f32 * step + 0.0;
                let added = (correction(32 * run + j) as u32) << N::ZEROS;
                let bits = p.to_bits().wrapping_add(added);
                *x = f32::from_bits(bits >> N::ZEROS << N::ZEROS);
            }
        }
        // Eight values at a time, as few are exceptions: their highest byte is 0x80.
        let (highest, _) = low[N::CORRECTION - 1].as_chunks::<8>();
        for (i, eight) in highest.iter().enumerate() {
            if has_0x80(u64::from_le_bytes(*eight)) {
                for i in 8 * i..8 * (i + 1) {
                    if correction(i) == lowest::<N>() {
                        // A row of a damaged file may have too few.
                        x[i] = exceptions.next().map_or(0.0, |x| x.to_f32());
                    }
                }
            }
        }
    }

    /// A copy of a row of `columns` columns.
    pub fn row(&self, row: usize, columns: usize) -> PlaneRow {
        let len = self.low.len() / self.ends.len();
        debug_assert!(len.is_multiple_of(columns));
        let range = self.exceptions_of(row);
        PlaneRow {
            code: self.codes.row(row),
            norms: self.norms_of(row),
            low: self.low[row * len..][..len].to_vec(),
            exceptions: match self.exceptions {
                Numbers::F32(all) => bytemuck::cast_slice(&all[range]).to_vec(),
                Numbers::F16(all) => bytemuck::cast_slice(&all[range]).to_vec(),
                Numbers::Bf16(all) => bytemuck::cast_slice(&all[range]).to_vec(),
            },
        }
    }

    /// The norms of a row: see [`PlaneRow::norms`].
    #[inline]
    pub fn norms_of(&self, row: usize) -> [f32; NORMS] {
        self.norms.as_chunks().0[row]
    }

    /// The type of the table.
    pub fn table_type(&self) -> TableType {
        match self.exceptions {
            Numbers::F32(_) => TableType::F32Planes,
            Numbers::F16(_) => TableType::F16Planes,
            Numbers::Bf16(_) => TableType::Bf16Planes,
        }
    }

    /// Bytes of the low plane of a row and of its exceptions.
    pub fn low_bytes(&self, row: usize) -> usize {
        let number = match self.exceptions {
            Numbers::F32(_) => size_of::<f32>(),
            Numbers::F16(_) | Numbers::Bf16(_) => size_of::<f16>(),
        };
        self.low.len() / self.ends.len() + self.exceptions_of(row).len() * number
    }

    /// Whether [`PlaneRow::encode`] could have written this row of `columns` columns: it is what
    /// its values are encoded to.
    pub fn is_consistent(&self, row: usize, columns: usize) -> bool {
        let mut x = vec![0.0; columns];
        self.decode(row, &mut x);
        x.iter().all(|x| x.is_finite())
            && PlaneRow::encode(&x, self.table_type()) == self.row(row, columns)
    }

    /// The places of the exceptions of a row.
    pub fn exceptions_of(&self, row: usize) -> std::ops::Range<usize> {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[row] as usize
    }
}

/// Whether any byte is 0x80.
#[inline(always)]
fn has_0x80(bytes: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let x = bytes ^ (0x80 * ONES); // zero where a byte was 0x80
    x.wrapping_sub(ONES) & !x & (0x80 * ONES) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{SplitMix64, unit};

    const TYPES: [TableType; 3] = [
        TableType::F32Planes,
        TableType::F16Planes,
        TableType::Bf16Planes,
    ];

    /// Rows as one table.
    struct Owned {
        code: CodedRow,
        norms: Vec<f32>,
        low: Vec<u8>,
        exceptions: Vec<u8>,
        ends: Vec<u32>,
        scales: Vec<f32>,
        table: TableType,
    }

    impl Owned {
        fn of(rows: &[PlaneRow], table: TableType) -> Owned {
            let mut all = Owned {
                code: rows[0].code.clone(),
                norms: Vec::new(),
                low: Vec::new(),
                exceptions: Vec::new(),
                ends: Vec::new(),
                scales: Vec::new(),
                table,
            };
            let width = table.numbers().unwrap().bytes();
            all.code.planes.iter_mut().for_each(Vec::clear);
            all.code.multipliers.clear();
            for row in rows {
                for (all, plane) in all.code.planes.iter_mut().zip(&row.code.planes) {
                    all.extend(plane);
                }
                all.code.multipliers.extend(&row.code.multipliers);
                all.scales.push(row.code.scale);
                all.norms.extend(row.norms);
                all.low.extend(&row.low);
                all.exceptions.extend(&row.exceptions);
                all.ends.push((all.exceptions.len() / width) as u32);
            }
            all
        }

        fn planes(&self) -> Planes<'_> {
            let bytes = &self.exceptions[..];
            Planes {
                codes: Codes {
                    planes: 3,
                    bits: [0, 1, 2].map(|i| &self.code.planes[i][..]),
                    multipliers: &self.code.multipliers,
                    scales: &self.scales,
                    remainders: &[],
                },
                norms: &self.norms,
                low: &self.low,
                exceptions: match self.table {
                    TableType::F32Planes => Numbers::F32(bytemuck::cast_slice(bytes)),
                    TableType::F16Planes => Numbers::F16(bytemuck::cast_slice(bytes)),
                    _ => Numbers::Bf16(bytemuck::cast_slice(bytes)),
                },
                ends: &self.ends,
            }
        }
    }

    fn rounded(x: f32, table: TableType) -> f32 {
        match table {
            TableType::F16Planes => f16::from_f32(x).to_f32(),
            TableType::Bf16Planes => bf16::from_f32(x).to_f32(),
            _ => x,
        }
    }

    fn normal(random: &mut SplitMix64) -> f32 {
        ((0..12).map(|_| unit(random.next())).sum::<f64>() - 6.0) as f32
    }

    /// Rows of every kind: normal, equal, zero, tiny, subnormal, huge, of all magnitudes at once.
    fn rows(columns: usize) -> Vec<Vec<f32>> {
        let mut random = SplitMix64(5);
        let mut row = |f: &mut dyn FnMut(f32, usize) -> f32| -> Vec<f32> {
            (0..columns).map(|i| f(normal(&mut random), i)).collect()
        };
        vec![
            row(&mut |x, _| 0.02 * x),
            row(&mut |_, _| 0.5),
            row(&mut |_, _| 0.0),
            row(&mut |_, _| -0.0),
            row(&mut |x, i| if i % 3 == 0 { 0.0 } else { x }),
            row(&mut |x, i| if i == columns / 2 { 60_000.0 } else { 1e-7 * x }),
            row(&mut |x, _| 1e-6 * x),
            row(&mut |x, _| 1e-42 * x),
            row(&mut |x, _| if x > 0.0 { 65_504.0 } else { -65_504.0 }),
            row(&mut |x, i| x * 2f32.powi(15 - (i % 40) as i32)),
            row(&mut |x, i| {
                if (i / GROUP).is_multiple_of(2) {
                    0.0
                } else {
                    3.0 * x
                }
            }),
        ]
    }

    #[test]
    fn every_value_comes_back_bit_for_bit() {
        for table in TYPES {
            for columns in [1, 31, 127, 128, 129, 300] {
                let mut rows = rows(columns);
                if table != TableType::F16Planes {
                    rows.push(vec![3.3e38; columns]);
                    rows.push(vec![-f32::MIN_POSITIVE; columns]);
                }
                let encoded: Vec<PlaneRow> = rows
                    .iter()
                    .map(|row| PlaneRow::encode(row, table))
                    .collect();
                let owned = Owned::of(&encoded, table);
                let planes = owned.planes();
                for (r, row) in rows.iter().enumerate() {
                    let mut x = vec![f32::NAN; columns];
                    planes.decode(r, &mut x);
                    for (i, (x, row)) in x.iter().zip(row).enumerate() {
                        let expected = rounded(*row, table);
                        assert_eq!(
                            x.to_bits(),
                            expected.to_bits(),
                            "{table:?} {columns} {r} {i}"
                        );
                    }
                    assert_eq!(planes.row(r, columns), encoded[r]);
                    assert!(planes.is_consistent(r, columns), "{table:?} {columns} {r}");
                }
            }
        }
    }

    #[test]
    fn exceptions_are_few() {
        let mut random = SplitMix64(6);
        let x: Vec<f32> = (0..1 << 16).map(|_| 0.02 * normal(&mut random)).collect();
        for (table, most) in TYPES.into_iter().zip([0.008, 0.06, 0.008]) {
            let row = PlaneRow::encode(&x, table);
            let width = table.numbers().unwrap().bytes();
            let share = (row.exceptions.len() / width) as f64 / x.len() as f64;
            assert!(share < most && share > most / 4.0, "{table:?}: {share}");
            assert_eq!(row.low.len() / x.len() + 1, width);
        }
    }

    #[test]
    fn norms_bound_what_planes_lack() {
        for table in TYPES {
            for row in rows(300) {
                let encoded = PlaneRow::encode(&row, table);
                let (code, mut rest) = (&encoded.code, Vec::new());
                let values = row.iter().map(|x| f64::from(rounded(*x, table)));
                rest.extend(values.map(|x| x / f64::from(code.scale)));
                for (known, norm) in encoded.norms.into_iter().enumerate() {
                    let exact = rest.iter().map(|x| x * x).sum::<f64>().sqrt();
                    assert!(
                        f64::from(norm) >= exact,
                        "{table:?} {known}: {norm} {exact}"
                    );
                    assert!(
                        f64::from(norm) <= exact * 1.000_001 + 1e-9,
                        "{norm} {exact}"
                    );
                    if known < 3 {
                        for (i, rest) in rest.iter_mut().enumerate() {
                            *rest -= f64::from(code.part(known, i));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn changed_rows_are_noticed_and_decoded_without_panic() {
        for table in TYPES {
            let row: Vec<f32> = rows(200)[0].clone();
            let good = Owned::of(&[PlaneRow::encode(&row, table)], table);
            let check = |bad: Owned| {
                assert!(!bad.planes().is_consistent(0, 200), "{table:?}");
            };
            for at in [0, 77, good.low.len() - 1] {
                let mut bad = Owned::of(&[PlaneRow::encode(&row, table)], table);
                bad.low[at] ^= 0x80;
                check(bad);
            }
            let mut bad = Owned::of(&[PlaneRow::encode(&row, table)], table);
            bad.norms[3] = 0.0;
            check(bad);
            let mut bad = Owned::of(&[PlaneRow::encode(&row, table)], table);
            bad.low.fill(0x80);
            check(bad);
            let mut bad = Owned::of(&[PlaneRow::encode(&row, table)], table);
            bad.scales[0] = f32::MAX;
            check(bad);
        }
    }
}
