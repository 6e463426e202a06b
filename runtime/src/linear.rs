//! Linear layers: int8 activations times trits, then scales.
//!
//! Activations are quantized per token just before each linear layer. With one scale for the matrix, or one a row,
//! the output is ((Σ trit · q) / s) · scale: the sum exact, rounded to f32, divided by the activations' factor s,
//! multiplied by the scale, the order of transformers. With one scale a group of columns it is
//! (Σ (Σ trit · q) · scale) / s: the inner sum over a group exact, the outer one over the groups from the first to
//! the last in f32.
//!
//! For groups the same kernels compute one group after the other. Its packed bytes are one block of each row and
//! are copied together; its activations lie together already.

use sterna_ternary::packing::BLOCK_BYTES;
use sterna_ternary::quantize;
use sterna_ternary::scales::{GROUP_COLUMNS, Scaling};

use crate::error::Place;
use crate::forward::grow;
use crate::kernels;
use crate::model::{Linear, Model};
use crate::threads::Tile;
use crate::{Error, Result};

/// The input of a linear layer.
#[derive(Debug, Default)]
pub(crate) struct Quantized {
    q: Vec<i8>,       // (n, padded columns), zero behind the last column
    scales: Vec<f32>, // (n): x = q / scale
    sums: Vec<i32>,   // (n): Σ q
    grouped: Grouped,
}

/// The same for a model with a scale a group.
#[derive(Debug, Default)]
struct Grouped {
    q: Vec<i8>,     // (groups, n, columns of a group)
    sums: Vec<i32>, // (groups, n)
}

impl Quantized {
    /// Makes room for n tokens of at most `padded` columns, with groups if there are any.
    pub fn resize(&mut self, n: usize, padded: usize, has_groups: bool) {
        grow(&mut self.q, n * padded);
        grow(&mut self.scales, n);
        grow(&mut self.sums, n);
        if has_groups {
            grow(&mut self.grouped.q, n * padded);
            grow(&mut self.grouped.sums, n * padded / GROUP_COLUMNS);
        }
    }

    /// The sums of (n, padded) codes `q`, and of their groups if any are asked for.
    fn add_up(&mut self, n: usize, padded: usize, has_groups: bool, sum: fn(&[i8]) -> i32) {
        let tokens = self.q[..n * padded].chunks_exact(padded);
        if !has_groups {
            return self
                .sums
                .iter_mut()
                .zip(tokens)
                .for_each(|(s, q)| *s = sum(q));
        }
        for (t, q) in tokens.enumerate() {
            self.sums[t] = 0;
            for (g, q) in q.chunks_exact(GROUP_COLUMNS).enumerate() {
                let at = g * n + t;
                self.grouped.q[at * GROUP_COLUMNS..][..GROUP_COLUMNS].copy_from_slice(q);
                self.grouped.sums[at] = sum(q);
                self.sums[t] += self.grouped.sums[at];
            }
        }
    }
}

/// Memory of one thread for a tile of `height` tokens and `width` rows: its sums, and a block of each row.
fn scratch(height: usize, width: usize, has_groups: bool) -> usize {
    let blocks = width * BLOCK_BYTES / size_of::<i32>();
    height * width + if has_groups { blocks } else { 0 }
}

impl Model {
    /// Quantizes the n rows of x.
    pub(crate) fn quantize(
        &self,
        x: &[f32],
        n: usize,
        int8: &mut Quantized,
        place: Place,
        tensor: &'static str,
    ) -> Result<()> {
        let columns = x.len() / n;
        let padded = self.file.packing.padded_columns(columns);
        let q = &mut int8.q[..n * padded];
        self.pool.zip_chunks_mut(
            (&mut *q, padded),
            (&mut int8.scales[..n], 1),
            |t, q, scale| {
                let (q, padding) = q.split_at_mut(columns);
                scale[0] = (self.kernels.quantize)(&x[t * columns..][..columns], q);
                padding.fill(0);
            },
        );
        int8.add_up(n, padded, self.weights.has_groups, self.kernels.sum);
        match int8.scales[..n]
            .iter()
            .all(|scale| quantize::is_usable(*scale))
        {
            true => Ok(()),
            false => Err(Error::NonFinite { place, tensor }),
        }
    }

    /// y = x · Wᵀ for several matrices with one input, in one region; each y is (n, rows).
    pub(crate) fn linear<const N: usize>(
        &self,
        n: usize,
        linears: [&Linear; N],
        int8: &Quantized,
        y: [&mut [f32]; N],
        sums: &mut Vec<i32>,
    ) {
        let threads = self.pool.threads();
        let rows = y.iter().map(|y| y.len()).sum::<usize>() / n;
        let (height, width) = kernels::tile(n, rows, threads);
        let scratch = scratch(height, width, self.weights.has_groups);
        grow(sums, threads * scratch);
        let sums = &mut sums[..threads * scratch];
        self.pool
            .tiles_mut(n, (height, width), y, sums, |matrix, mut tile, sums| {
                let linear = linears[matrix];
                let (tokens, rows) = (tile.rows(), tile.columns());
                let (sums, rest) = sums.split_at_mut(tokens.len() * rows.len()); // (tokens, rows)
                if linear.scaling == Scaling::Group {
                    let blocks = &mut rest[..rows.len() * BLOCK_BYTES / size_of::<i32>()];
                    return self.groups(
                        linear,
                        n,
                        int8,
                        tile,
                        sums,
                        bytemuck::cast_slice_mut(blocks),
                    );
                }
                let padded = self.file.packing.padded_columns(linear.columns);
                let gemm = self.kernels.gemm(self.file.packing);
                let q = &int8.q[tokens.start * padded..tokens.end * padded];
                let q_sums = &int8.sums[tokens.clone()];
                gemm(self.rows(linear, rows.clone()), q, q_sums, sums);
                let scales = self.scales(linear);
                for (t, sums) in tokens.zip(sums.chunks_exact(rows.len())) {
                    let (s, y) = (int8.scales[t], tile.row(t));
                    match linear.scaling {
                        Scaling::Row => dequantize_rows(sums, s, &scales[rows.clone()], y),
                        _ => (self.kernels.dequantize)(sums, s, scales[0], y),
                    }
                }
            });
    }

    /// The tile of a matrix with a scale a group. `sums` is (tokens, rows), `blocks` has room for one of each row.
    fn groups(
        &self,
        linear: &Linear,
        n: usize,
        int8: &Quantized,
        mut tile: Tile<f32>,
        sums: &mut [i32],
        blocks: &mut [u8],
    ) {
        let (tokens, rows) = (tile.rows(), tile.columns());
        let gemm = self.kernels.gemm(self.file.packing);
        let packed = self.rows(linear, rows.clone());
        let scales = self.scales(linear); // (groups, all rows)
        let stride = scales.len() / linear.columns.div_ceil(GROUP_COLUMNS);
        for (g, scales) in scales.chunks_exact(stride).enumerate() {
            let of_rows = packed.chunks_exact(linear.row_bytes);
            for (to, row) in blocks.chunks_exact_mut(BLOCK_BYTES).zip(of_rows) {
                to.copy_from_slice(&row[g * BLOCK_BYTES..][..BLOCK_BYTES]);
            }
            let at = g * n + tokens.start..g * n + tokens.end;
            let q = &int8.grouped.q[at.start * GROUP_COLUMNS..at.end * GROUP_COLUMNS];
            gemm(blocks, q, &int8.grouped.sums[at], sums);
            for (t, sums) in tokens.clone().zip(sums.chunks_exact(rows.len())) {
                let y = tile.row(t);
                if g == 0 {
                    y.fill(0.0);
                }
                add_scaled(sums, &scales[rows.clone()], y);
            }
        }
        for t in tokens {
            tile.row(t).iter_mut().for_each(|y| *y /= int8.scales[t]);
        }
    }
}

/// y = (sums / s) · scales.
fn dequantize_rows(sums: &[i32], s: f32, scales: &[f32], y: &mut [f32]) {
    for ((y, sum), scale) in y.iter_mut().zip(sums).zip(scales) {
        *y = *sum as f32 / s * scale;
    }
}

/// y = y + sums · scales.
fn add_scaled(sums: &[i32], scales: &[f32], y: &mut [f32]) {
    for ((y, sum), scale) in y.iter_mut().zip(sums).zip(scales) {
        *y += *sum as f32 * scale;
    }
}
