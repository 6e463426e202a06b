//! Serial f32 matrix product on strided slices, with the same bits on every CPU.
//!
//! Each output is one chain of fused multiply-adds over k in ascending order. It begins with what
//! is kept of the output, and between blocks of k it is stored there. So neither the width of
//! registers nor the sizes of blocks change a result. Matrix libraries promise no order of k:
//! theirs depends on the sizes of caches and on the instruction set. This is why it is written
//! here.
//!
//! The rest is the usual design (Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008): blocks of `b` are packed ([`mod@pack`]) in the order in which a tile of
//! outputs, held in registers ([`mod@tile`]), reads them. The tile reads `a` where it is, since it
//! broadcasts single values.

mod pack;
mod tile;

use std::cell::RefCell;

use pulp::{Simd, WithSimd};

use super::instructions::used;
pub(super) use pack::transposed;
use pack::{Line, pack, room};
use tile::{MOST_ROWS, Rows, tile};

/// Depth of a block: the values of k whose products are added while outputs are in registers.
const DEPTH: usize = 256;
/// Rows of `a` in a block; with [`DEPTH`] 112 KiB, which stay in the second-level cache while all
/// panels of `b` pass.
const ROWS: usize = 112;
/// Columns of `b` in a block; with [`DEPTH`] 512 KiB.
const COLUMNS: usize = 512;

/// A matrix in a slice: element (r, c) is at `start + r * row_stride + c * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<S> {
    pub data: S,
    pub start: usize,
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<S> Mat<S> {
    /// A whole row-major matrix.
    pub fn new(data: S, rows: usize, columns: usize) -> Self {
        Mat {
            data,
            start: 0,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// A row-major block whose rows are `row_stride` elements apart.
    pub fn block(data: S, start: usize, rows: usize, columns: usize, row_stride: usize) -> Self {
        Mat {
            data,
            start,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Mat {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// out = keep · out + a · b, with a (m, k), b (k, n) and a row-major out (m, n).
///
/// Each element is fma(a\[k\], b\[k\], …) over ascending k, from keep · out, or from 0 if `keep` is
/// 0 and `out` is then not read.
pub(crate) fn matmul(out: Mat<&mut [f32]>, keep: f32, a: Mat<&[f32]>, b: Mat<&[f32]>) {
    assert_eq!(
        (out.rows, out.columns, a.columns),
        (a.rows, b.columns, b.rows)
    );
    assert_eq!(out.column_stride, 1, "the output is row-major");
    used().dispatch(Product { out, keep, a, b });
}

struct Product<'a> {
    out: Mat<&'a mut [f32]>,
    keep: f32,
    a: Mat<&'a [f32]>,
    b: Mat<&'a [f32]>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    /// Tiles fill the registers: those of AVX-512, AVX2, NEON, and none.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 14, 2>(simd),
            8 => self.run::<S, 6, 2>(simd),
            4 => self.run::<S, 6, 4>(simd),
            _ => self.run::<S, 4, 4>(simd),
        }
    }
}

thread_local! {
    /// Working memory: the packed block of `b`.
    static ROOM: RefCell<Vec<Line>> = RefCell::default();
}

impl Product<'_> {
    /// The product in tiles of at most `R` rows and `V` registers of columns.
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(mut self, simd: S) {
        let a = self.a;
        let (m, n, k) = (a.rows, self.b.columns, a.columns);
        let starts_at_zero = self.keep == 0.0;
        if k == 0 || (!starts_at_zero && self.keep != 1.0) {
            self.scale_out();
        }
        // The memory is taken out of its cell, since a closure would be compiled for the baseline.
        let mut memory = ROOM.take();
        let width = V * S::F32_LANES;
        for first_column in (0..n).step_by(COLUMNS) {
            let columns = COLUMNS.min(n - first_column);
            for first_k in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - first_k);
                let b = room(&mut memory, columns.next_multiple_of(width) * depth);
                for (i, panel) in b.chunks_exact_mut(width * depth).enumerate() {
                    let first = first_column + i * width;
                    pack(self.b.t(), first, n, first_k, width, panel);
                }
                for first_row in (0..m).step_by(ROWS) {
                    let rows = ROWS.min(m - first_row);
                    // A panel of b stays in the nearest cache while all rows of the block use it.
                    let from_zero = starts_at_zero && first_k == 0;
                    for (i, b) in b.chunks_exact(width * depth).enumerate() {
                        for (first, rows) in spread::<R>(rows) {
                            let at = (first_row + first, first_column + i * width);
                            let operands = (rows_of(a, at.0, first_k), b);
                            self.tile::<S, R, V>(simd, at, rows, operands, from_zero);
                        }
                    }
                }
            }
        }
        ROOM.set(memory);
    }

    /// out = keep · out
    fn scale_out(&mut self) {
        let Mat { start, columns, .. } = self.out;
        for row in 0..self.out.rows {
            let row = &mut self.out.data[start + row * self.out.row_stride..][..columns];
            match self.keep == 0.0 {
                true => row.fill(0.0),
                false => row.iter_mut().for_each(|x| *x *= self.keep),
            }
        }
    }

    /// One tile of outputs. At the right edge it is computed in a copy of whole width.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        (row, column): (usize, usize),
        rows: usize,
        operands: (Rows, &[f32]),
        from_zero: bool,
    ) {
        let width = V * S::F32_LANES;
        let columns = width.min(self.out.columns - column);
        let stride = self.out.row_stride;
        let out = &mut self.out.data[self.out.start + row * stride + column..];
        if columns == width {
            return tile::<S, R, V>(simd, rows, operands, out, stride, from_zero);
        }
        let mut whole = [0.0; MOST_ROWS * 32];
        for (whole, out) in whole.chunks_mut(width).zip(out.chunks(stride)).take(rows) {
            whole[..columns].copy_from_slice(&out[..columns]);
        }
        tile::<S, R, V>(simd, rows, operands, &mut whole, width, from_zero);
        for (whole, out) in whole.chunks(width).zip(out.chunks_mut(stride)).take(rows) {
            out[..columns].copy_from_slice(&whole[..columns]);
        }
    }
}

/// A matrix from this row and k on.
#[inline(always)]
fn rows_of(a: Mat<&[f32]>, row: usize, k: usize) -> Rows<'_> {
    Rows {
        data: &a.data[a.start + row * a.row_stride + k * a.column_stride..],
        row_stride: a.row_stride,
        k_stride: a.column_stride,
    }
}

/// Divides rows into the fewest parts of at most `R`, as even as possible: first and number of
/// each.
#[inline(always)]
fn spread<const R: usize>(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let parts = rows.div_ceil(R);
    let (size, longer) = (rows / parts, rows % parts);
    (0..parts).map(move |i| (i * size + i.min(longer), size + usize::from(i < longer)))
}

#[cfg(test)]
mod tests {
    use super::super::instructions::SETS;
    use super::*;

    /// Numbers of mixed signs and sizes.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// An operand (rows, columns) in the middle of its slice, row-major or transposed.
    fn operand(data: &[f32], rows: usize, columns: usize, transposed: bool) -> Mat<&[f32]> {
        match transposed {
            false => Mat::block(data, 3, rows, columns, columns + 2),
            true => Mat::block(data, 3, columns, rows, rows + 2).t(),
        }
    }

    /// Compares every bit with the chain of the definition.
    fn check(set: pulp::Arch, m: usize, n: usize, k: usize) {
        let size = |rows: usize, columns: usize| 3 + (rows + 2) * (columns + 2);
        let (a, b, c) = (
            noise(size(m, k), 1),
            noise(size(k, n), 2),
            noise(size(m, n), 3),
        );
        for (case, keep) in [0.0, 1.0, 0.75, 0.0].into_iter().enumerate() {
            let a = operand(&a, m, k, case % 2 == 1);
            let b = operand(&b, k, n, case >= 2);
            let mut out = c.clone();
            let out_block = Mat::block(&mut out[..], 3, m, n, n + 2);
            let product = Product {
                out: out_block,
                keep,
                a,
                b,
            };
            set.dispatch(product);
            let at = |x: Mat<&[f32]>, r: usize, c: usize| {
                x.data[x.start + r * x.row_stride + c * x.column_stride]
            };
            for (i, (found, before)) in out.iter().zip(&c).enumerate() {
                let (row, column) = (i.wrapping_sub(3) / (n + 2), i.wrapping_sub(3) % (n + 2));
                let mut expected = *before;
                if row < m && column < n {
                    expected = if keep == 0.0 { 0.0 } else { keep * before };
                    for k in 0..k {
                        expected = at(a, row, k).mul_add(at(b, k, column), expected);
                    }
                }
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{m} {n} {k} {case} at {i}"
                );
            }
        }
    }

    #[test]
    fn every_instruction_set_computes_the_chain_of_the_definition() {
        for (_, set) in &*SETS {
            for (m, n, k) in [
                (1, 1, 1),
                (2, 3, 0),
                (3, 5, 2),
                (14, 32, 256),
                (15, 33, 257),
                (29, 95, 31),
                (113, 16, 300),
                (6, 513, 9),
                (7, 530, 258),
            ] {
                check(*set, m, n, k);
            }
        }
    }
}
