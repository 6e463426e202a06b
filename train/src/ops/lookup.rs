//! Products of activations with trits by lookup: one addition in place of four multiply-adds.
//!
//! Four trits have 81 values. For a *group* of four columns and one token all 81 sums ±a ±b ±c ±d
//! are computed once. Each row of the matrix then needs one addition per four weights: it adds the
//! entry that its four trits select. Their *code* is 27 d₀ + 9 d₁ + 3 d₂ + d₃ with d = trit + 1. An
//! entry holds the sums of many tokens side by side, so one code serves all of them. Four groups
//! are a *block*: their tables stay in the nearest caches during the pass over all rows.
//!
//! int8 activations are added exactly, in 16-bit lanes. Gradients are added in f32 lanes, in an
//! order that depends neither on the number of threads nor on the CPU. The backward pass multiplies
//! by the transposed trits.
//!
//! Matrix libraries multiply numbers and have no product with trits, so it is written here.

use std::ops::Range;

use sterna_ternary::scales::GROUP_COLUMNS;

use super::matmul::transposed;
use super::vectorized;

/// Columns of a group.
const COLUMNS: usize = 4;
/// Groups of a block.
const GROUPS: usize = 4;
/// 81 values of four trits, padded so that any seven bits are a valid index.
const ENTRIES: usize = 128;
/// Blocks whose sums fit into 16-bit lanes: an entry is at most 4 · 127, a block 4 entries.
const NARROW_BLOCKS: usize = 15;

/// The codes of a matrix of trits: one byte per four trits of a row.
pub(crate) struct TritCodes {
    rows: usize,
    columns: usize,
    /// (blocks, rows)
    codes: Vec<[u8; GROUPS]>,
}

impl TritCodes {
    /// Codes of trits (rows, columns), for products over the columns.
    pub fn new(trits: &[i8], rows: usize, columns: usize) -> TritCodes {
        TritCodes::of(rows, columns, |row, column| trits[row * columns + column])
    }

    /// Codes of the columns `some` of the matrix, transposed, for products over the rows.
    pub fn transposed(trits: &[i8], rows: usize, columns: usize, some: Range<usize>) -> TritCodes {
        TritCodes::of(some.len(), rows, |row, column| {
            trits[column * columns + some.start + row]
        })
    }

    /// Rows of the result.
    pub fn rows(&self) -> usize {
        self.rows
    }

    #[inline(always)]
    fn of(rows: usize, columns: usize, trit: impl Fn(usize, usize) -> i8) -> TritCodes {
        let code = |row, group: usize| {
            (0..COLUMNS).fold(0, |code, i| {
                let column = group * COLUMNS + i;
                let trit = if column < columns {
                    trit(row, column)
                } else {
                    0
                };
                3 * code + (trit + 1) as u8
            })
        };
        let mut codes = Vec::with_capacity(blocks(columns) * rows);
        for block in 0..blocks(columns) {
            let codes_of = |row| std::array::from_fn(|g| code(row, block * GROUPS + g));
            codes.extend((0..rows).map(codes_of));
        }
        TritCodes {
            rows,
            columns,
            codes,
        }
    }
}

fn blocks(columns: usize) -> usize {
    columns.div_ceil(COLUMNS * GROUPS)
}

/// The factors of the sums.
#[derive(Clone, Copy)]
pub(crate) enum Factors<'a> {
    /// One factor for all.
    One(f32),
    /// One factor per row (rows).
    Rows(&'a [f32]),
    /// One factor per row and group of columns (groups, rows).
    Groups(&'a [f32]),
}

/// Blocks in a group of columns that shares a factor.
const SPAN: usize = GROUP_COLUMNS / (COLUMNS * GROUPS);

impl Factors<'_> {
    /// Blocks whose sums can be added before they are multiplied by a factor.
    fn span(self) -> usize {
        match self {
            Factors::Groups(_) => SPAN,
            _ => usize::MAX,
        }
    }

    /// The factor of the sums over the group of columns that contains a block.
    #[inline(always)]
    fn inside(self, block: usize, row: usize, rows: usize) -> f32 {
        match self {
            Factors::Groups(factors) => factors[block / SPAN * rows + row],
            _ => 1.0,
        }
    }

    /// The factor of the sum over all columns. Padding rows after the last get the factor of the
    /// last.
    #[inline(always)]
    fn outside(self, row: usize) -> f32 {
        match self {
            Factors::One(factor) => factor,
            Factors::Rows(factors) => factors[row.min(factors.len() - 1)],
            Factors::Groups(_) => 1.0,
        }
    }
}

/// y[t][r] = Σ x[t][c] · trit[r][c] / divisors[t] · factor, for int8 activations x (tokens,
/// columns) and y (tokens, rows).
pub(crate) fn of_int8(
    codes: &TritCodes,
    x: &[i8],
    divisors: &[f32],
    factors: Factors,
    y: &mut [f32],
) {
    Scratch::<i16, 64>::new(codes).product(codes, x, Some(divisors), factors, y);
}

/// y[t][r] = Σ x[t][c] · trit[r][c] · factor, for x (tokens, columns) and y (tokens, rows).
pub(crate) fn of_floats(codes: &TritCodes, x: &[f32], factor: f32, y: &mut [f32]) {
    Scratch::<f32, 32>::new(codes).product(codes, x, None, Factors::One(factor), y);
}

/// A number that is added in the lanes of a vector.
trait Lane: Copy + Default + Send {
    /// Blocks whose sums it can hold.
    const BLOCKS: usize;
    fn of(x: f32) -> Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self) -> Self;
    fn to_f32(self) -> f32;
}

impl Lane for f32 {
    const BLOCKS: usize = usize::MAX;
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn plus(self, other: f32) -> f32 {
        self + other
    }
    #[inline(always)]
    fn minus(self) -> f32 {
        -self
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Lane for i16 {
    const BLOCKS: usize = NARROW_BLOCKS;
    #[inline(always)]
    fn of(x: f32) -> i16 {
        // x is an integer up to 127: adding 1.5 · 2²³ leaves it in the low bits, which converts
        // many at once.
        (x + 12_582_912.0).to_bits() as i16
    }
    #[inline(always)]
    fn plus(self, other: i16) -> i16 {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn minus(self) -> i16 {
        self.wrapping_neg()
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}

/// One number for each of `N` tokens, in whole cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Tokens<T, const N: usize>([T; N]);

impl<T: Lane, const N: usize> Tokens<T, N> {
    #[inline(always)]
    fn zero() -> Self {
        Tokens([T::default(); N])
    }

    #[inline(always)]
    fn plus(&self, other: &Self) -> Self {
        let mut sum = *self;
        for (a, b) in sum.0.iter_mut().zip(&other.0) {
            *a = a.plus(*b);
        }
        sum
    }
}

/// Working memory for `N` tokens.
struct Scratch<T, const N: usize> {
    rows: Vec<f32>,                       // (N, padded columns)
    panel: Vec<Tokens<f32, N>>,           // (padded columns): the same, transposed
    tables: Vec<[Tokens<T, N>; ENTRIES]>, // (GROUPS)
    sums: Vec<Tokens<T, N>>,              // (rows)
    wide: Vec<Tokens<f32, N>>,            // (rows, padded to four)
}

impl<T: Lane, const N: usize> Scratch<T, N> {
    fn new(codes: &TritCodes) -> Self {
        let padded = blocks(codes.columns) * GROUPS * COLUMNS;
        Scratch {
            rows: vec![0.0; N * padded],
            panel: vec![Tokens([0.0; N]); padded],
            tables: vec![[Tokens::zero(); ENTRIES]; GROUPS],
            sums: vec![Tokens::zero(); codes.rows],
            wide: vec![Tokens([0.0; N]); codes.rows.next_multiple_of(4)],
        }
    }

    /// The product for chunks of `N` tokens; x (tokens, columns), y (tokens, rows). Sums are
    /// divided by `divisors` (tokens) if there are some.
    fn product<X: Copy + Into<f32>>(
        &mut self,
        codes: &TritCodes,
        x: &[X],
        divisors: Option<&[f32]>,
        factors: Factors,
        y: &mut [f32],
    ) {
        let tokens = x.chunks(N * codes.columns);
        for (i, (x, y)) in tokens.zip(y.chunks_mut(N * codes.rows)).enumerate() {
            let mut by = [1.0; N];
            if let Some(divisors) = divisors {
                let divisors = &divisors[i * N..][..y.len() / codes.rows];
                by[..divisors.len()].copy_from_slice(divisors);
            }
            vectorized(
                #[inline(always)]
                || self.transpose_in(x, codes.columns),
            );
            vectorized(
                #[inline(always)]
                || self.add_up(codes, factors),
            );
            vectorized(
                #[inline(always)]
                || self.transpose_out(&by, factors, codes.rows, y),
            );
        }
    }

    #[inline(always)]
    fn transpose_in<X: Copy + Into<f32>>(&mut self, x: &[X], columns: usize) {
        let padded = self.panel.len();
        for (row, x) in self
            .rows
            .chunks_exact_mut(padded)
            .zip(x.chunks_exact(columns))
        {
            row.iter_mut()
                .zip(x)
                .for_each(|(row, x)| *row = (*x).into());
        }
        let missing = x.len() / columns * padded;
        self.rows[missing..].fill(0.0); // after the last token
        let (panel, _) = self.panel.as_chunks_mut::<4>();
        for (t, rows) in self.rows.chunks_exact(4 * padded).enumerate() {
            let rows: [&[[f32; 4]]; 4] =
                std::array::from_fn(|i| rows[i * padded..][..padded].as_chunks().0);
            for (c, panel) in panel.iter_mut().enumerate() {
                let block = transposed([rows[0][c], rows[1][c], rows[2][c], rows[3][c]]);
                for (column, block) in panel.iter_mut().zip(block) {
                    column.0[4 * t..][..4].copy_from_slice(&block);
                }
            }
        }
    }

    /// The sums of all rows, into `wide`.
    #[inline(always)]
    fn add_up(&mut self, codes: &TritCodes, factors: Factors) {
        self.sums.fill(Tokens::zero());
        self.wide.fill(Tokens([0.0; N]));
        let blocks = self.panel.as_chunks::<COLUMNS>().0.chunks_exact(GROUPS);
        let (last, mut held) = (blocks.len() - 1, 0);
        for (b, (groups, codes)) in blocks.zip(codes.codes.chunks_exact(codes.rows)).enumerate() {
            // 81 sums for each of the four groups of this block, of N tokens each.
            for (table, columns) in self.tables.iter_mut().zip(groups) {
                tabulate(columns, table);
            }
            let [t0, t1, t2, t3] = &self.tables[..] else {
                unreachable!("there are {GROUPS} tables");
            };
            // Each row adds one entry per group. A mask in place of a bounds check: codes are at
            // most 80.
            for (sum, code) in self.sums.iter_mut().zip(codes) {
                let [r0, r1, r2, r3] = code.map(|code| usize::from(code & 127));
                *sum = sum.plus(&t0[r0]).plus(&t1[r1]).plus(&t2[r2]).plus(&t3[r3]);
            }
            held += 1;
            // The sums move to f32 before 16 bits overflow and where the factor changes.
            if held == T::BLOCKS.min(factors.span()) || b == last {
                held = 0;
                for (row, (wide, sum)) in self.wide.iter_mut().zip(&mut self.sums).enumerate() {
                    let factor = factors.inside(b, row, codes.len());
                    for (wide, sum) in wide.0.iter_mut().zip(&sum.0) {
                        *wide += sum.to_f32() * factor;
                    }
                    *sum = Tokens::zero();
                }
            }
        }
    }

    #[inline(always)]
    fn transpose_out(&self, divisors: &[f32; N], factors: Factors, rows: usize, y: &mut [f32]) {
        let (wide, _) = self.wide.as_chunks::<4>();
        let divisors = divisors.as_chunks::<4>().0;
        for ((t, y), divisors) in y.chunks_mut(4 * rows).enumerate().zip(divisors) {
            // Four rows of four tokens, divided and multiplied, then transposed to (tokens, rows).
            let block = |r: usize| {
                let mut block = [[0.0; 4]; 4];
                for (i, (block, wide)) in block.iter_mut().zip(&wide[r]).enumerate() {
                    let factor = factors.outside(4 * r + i);
                    *block = wide.0.as_chunks().0[t];
                    block
                        .iter_mut()
                        .zip(divisors)
                        .for_each(|(x, d)| *x = *x / d * factor);
                }
                transposed(block)
            };
            let whole = rows / 4;
            for r in 0..whole {
                for (y, block) in y.chunks_exact_mut(rows).zip(block(r)) {
                    // A copy of constant length; others would be calls of memcpy.
                    y.as_chunks_mut().0[r] = block;
                }
            }
            if !rows.is_multiple_of(4) {
                for (y, block) in y.chunks_exact_mut(rows).zip(block(whole)) {
                    y[4 * whole..].copy_from_slice(&block[..rows % 4]);
                }
            }
        }
    }
}

/// All 81 sums of one group of columns, in the order of the codes.
#[inline(always)]
fn tabulate<T: Lane, const N: usize>(
    columns: &[Tokens<f32, N>; COLUMNS],
    table: &mut [Tokens<T, N>; ENTRIES],
) {
    let (high, low) = (
        pairs(&columns[0], &columns[1]),
        pairs(&columns[2], &columns[3]),
    );
    for (high, entries) in high.iter().zip(table.chunks_exact_mut(9)) {
        for (low, entry) in low.iter().zip(entries) {
            *entry = high.plus(low);
        }
    }
}

/// The nine sums ±a ±b, with 0 as the middle sign.
#[inline(always)]
fn pairs<T: Lane, const N: usize>(a: &Tokens<f32, N>, b: &Tokens<f32, N>) -> [Tokens<T, N>; 9] {
    let [a, b] = [signs(a), signs(b)];
    let mut sums = [Tokens::zero(); 9];
    for (a, sums) in a.iter().zip(sums.chunks_exact_mut(3)) {
        for (b, sum) in b.iter().zip(sums) {
            *sum = a.plus(b);
        }
    }
    sums
}

/// -x, 0 and x.
#[inline(always)]
fn signs<T: Lane, const N: usize>(x: &Tokens<f32, N>) -> [Tokens<T, N>; 3] {
    let mut signs = [Tokens::zero(); 3];
    for (t, x) in x.0.iter().enumerate() {
        let x = T::of(*x);
        (signs[0].0[t], signs[2].0[t]) = (x.minus(), x);
    }
    signs
}

#[cfg(test)]
mod tests {
    use sterna_ternary::Scaling;

    use super::*;

    /// Pseudo-random numbers from 0 to 1.
    fn noise(count: usize, seed: usize) -> Vec<f32> {
        let value = |i: usize| ((i + seed) as f32 * 12.9898).sin() * 43_758.547;
        (0..count).map(|i| value(i) - value(i).floor()).collect()
    }

    fn check(tokens: usize, rows: usize, columns: usize) {
        let trit = |x: &f32| (x * 3.0) as i8 - 1;
        let trits: Vec<i8> = noise(rows * columns, 1).iter().map(trit).collect();
        let mut q: Vec<i8> = noise(tokens * columns, 2)
            .iter()
            .map(|x| (x * 255.0) as i32 as u8 as i8)
            .map(|q| q.max(-127))
            .collect();
        q[..columns].fill(127);
        let divisors: Vec<f32> = noise(tokens, 3).iter().map(|x| x + 0.5).collect();

        let factors = noise(columns.div_ceil(GROUP_COLUMNS) * rows, 5);
        let codes = TritCodes::new(&trits, rows, columns);
        let mut y = vec![f32::NAN; tokens * rows];
        for scaling in Scaling::ALL {
            let by = match scaling {
                Scaling::Matrix => Factors::One(factors[0]),
                Scaling::Row => Factors::Rows(&factors[..rows]),
                Scaling::Group => Factors::Groups(&factors),
            };
            of_int8(&codes, &q, &divisors, by, &mut y);
            for (i, y) in y.iter().enumerate() {
                let (t, r) = (i / rows, i % rows);
                let product = |c: usize| q[t * columns + c] as i32 * trits[r * columns + c] as i32;
                let sum = |c: Range<usize>| c.map(product).sum::<i32>() as f32;
                let mut expected =
                    sum(0..columns) / divisors[t] * factors[scaling.index(r, 0, rows)];
                if scaling == Scaling::Group {
                    let term = |group: usize| {
                        let first = group * GROUP_COLUMNS;
                        let end = columns.min(first + GROUP_COLUMNS);
                        sum(first..end) * factors[scaling.index(r, first, rows)]
                    };
                    let groups = 0..columns.div_ceil(GROUP_COLUMNS);
                    expected = groups.map(term).fold(0.0, |a, b| a + b) / divisors[t];
                }
                let place = format!("{tokens} {rows} {columns} {scaling:?}: token {t}, row {r}");
                assert_eq!(*y, expected, "{place}");
            }
        }

        let dy = noise(tokens * rows, 4);
        let mut dx = vec![f32::NAN; tokens * columns];
        let transposed = TritCodes::transposed(&trits, rows, columns, 0..columns);
        of_floats(&transposed, &dy, 0.3, &mut dx);
        for (i, dx) in dx.iter().enumerate() {
            let (t, c) = (i / columns, i % columns);
            let products =
                (0..rows).map(|r| f64::from(dy[t * rows + r]) * f64::from(trits[r * columns + c]));
            let expected = products.sum::<f64>() * 0.3;
            let error = (f64::from(*dx) - expected).abs();
            assert!(
                error < 1e-6 * rows as f64,
                "{tokens} {rows} {columns}: {dx} {expected}"
            );
        }
    }

    #[test]
    fn sums_are_those_of_multiplication() {
        for (tokens, rows, columns) in [
            (1, 1, 1),
            (3, 5, 7),
            (64, 16, 16),
            (65, 9, 33),
            (31, 100, 1000),
            (130, 3, 259),
        ] {
            check(tokens, rows, columns);
        }
    }

    #[test]
    fn sums_of_the_longest_rows_do_not_overflow() {
        let columns = 5000;
        let (trits, q) = (vec![1; 2 * columns], vec![127; columns]);
        let mut y = [0.0; 2];
        let codes = TritCodes::new(&trits, 2, columns);
        of_int8(&codes, &q, &[1.0], Factors::One(1.0), &mut y);
        assert_eq!(y, [127.0 * columns as f32; 2]);
    }
}
