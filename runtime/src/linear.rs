//! Linear layers: int8 activations times trits, then scales; and those of full-precision models.
//!
//! Activations are quantized per token just before each linear layer: to int8, or to 16 bits for
//! models that were trained with float activations. A token in 16 bits is stored as two tokens in
//! int8, its high and its low digits: q = 256 · h + l. So kernels only know int8.
//!
//! With one scale per matrix or per row, the output is ((Σ trit · q) / s) · scale: the sum exact,
//! rounded to f32, divided by the activations' factor s, multiplied by the scale, the order of
//! transformers. With one scale per group of columns it is (Σ (Σ trit · q) · scale) / s: the inner
//! sum over a group exact, the outer one over the groups from the first to the last in f32
//! ([`crate::kernels::GroupProduct`]). The outer sums of high and low digits are apart, and 256
//! times the one plus the other is Σ before it is divided.
//!
//! Matrices of dense packings have no scales beside them. Plain numbers are multiplied with the
//! input as it is, in f32; blocks of `q8_0` and `q4_0` with int8 activations that have a scale for
//! each 32 columns.

use sterna_ternary::packing::dense::BLOCK;
use sterna_ternary::scales::{GROUP_COLUMNS, ScaleValues, Scaling};
use sterna_ternary::{Activations, Dense, Dtype, LinearType, Packing, quantize};

use crate::error::Location;
use crate::kernels::{BlockProduct, GroupProduct, QuantizedBlock};
use crate::model::{Linear, Model, RowFormat};
use crate::state::{Quantized, grow};
use crate::threads::Tile;
use crate::{Error, Result};

impl Model {
    /// Prepares the n rows of x for the linear layers of the model.
    pub(crate) fn quantize(
        &self,
        x: &[f32],
        n: usize,
        quantized: &mut Quantized,
        place: Location,
        tensor: &'static str,
    ) -> Result<()> {
        quantized.activations = self.file.activations;
        let is_finite = match self.file.packing {
            LinearType::Ternary(packing) => {
                self.quantize_for(packing, self.weights.has_groups, x, n, quantized)
            }
            LinearType::Dense(Dense::F16) => {
                grow(&mut quantized.x, x.len());
                quantized.x[..x.len()].copy_from_slice(x);
                x.iter().all(|x| x.is_finite())
            }
            LinearType::Dense(Dense::Q8_0 | Dense::Q4_0) => self.quantize_blocks(x, n, quantized),
        };
        match is_finite {
            true => Ok(()),
            false => Err(Error::NonFinite { place, tensor }),
        }
    }

    /// Quantizes the n rows of x to 16 bits for a matrix with one scale per group. False where x is
    /// not finite.
    pub(crate) fn quantize_finely(&self, x: &[f32], n: usize, quantized: &mut Quantized) -> bool {
        quantized.activations = Activations::Int16;
        self.quantize_for(Packing::I2, true, x, n, quantized)
    }

    /// Quantizes to int8 with a scale for each 32 columns. False where x is not finite.
    fn quantize_blocks(&self, x: &[f32], n: usize, quantized: &mut Quantized) -> bool {
        let columns = x.len() / n;
        let blocks = columns.div_ceil(BLOCK);
        grow(&mut quantized.blocks, n * blocks);
        let quantize = |t: usize, of_token: &mut [QuantizedBlock]| {
            (self.kernels.quantize_blocks)(&x[t * columns..][..columns], of_token);
        };
        let into = &mut quantized.blocks[..n * blocks];
        self.pool.chunks_mut(into, blocks, quantize);
        let mut blocks = quantized.blocks[..n * blocks].iter();
        blocks.all(|block| block.scale.is_finite())
    }

    /// Quantizes to the kind of activations that `quantized` has. False where x is not finite.
    fn quantize_for(
        &self,
        packing: Packing,
        has_groups: bool,
        x: &[f32],
        n: usize,
        quantized: &mut Quantized,
    ) -> bool {
        let columns = x.len() / n;
        let padded = packing.padded_columns(columns);
        let digits = quantized.activations.digits();
        grow(&mut quantized.q, n * digits * padded);
        grow(&mut quantized.scales, n);
        // One chunk per token: its high digits, then, for 16 bits, its low digits, each (padded).
        self.pool.zip_chunks_mut(
            (&mut quantized.q[..n * digits * padded], digits * padded),
            (&mut quantized.scales[..n], 1),
            |t, q, scale| {
                let x = &x[t * columns..][..columns];
                let (q, low) = q.split_at_mut(padded);
                let (q, padding) = q.split_at_mut(columns);
                padding.fill(0);
                scale[0] = match low {
                    [] => (self.kernels.quantize)(x, q),
                    low => {
                        let (low, padding) = low.split_at_mut(columns);
                        padding.fill(0);
                        (self.kernels.quantize_int16)(x, q, low)
                    }
                };
            },
        );
        let sum = self.kernels.sum;
        quantized.add_up(&self.pool, n * digits, padded, has_groups, sum);
        let mut scales = quantized.scales[..n].iter();
        scales.all(|scale| quantize::is_usable(*scale))
    }

    /// y = x · Wᵀ for several matrices with one input, in one region; each y is (n, rows).
    pub(crate) fn linear<const N: usize>(
        &self,
        n: usize,
        linears: [&Linear; N],
        quantized: &Quantized,
        y: [&mut [f32]; N],
        memory: &mut Vec<i32>,
    ) {
        let threads = self.pool.threads();
        let digits = quantized.activations.digits();
        let rows = y.iter().map(|y| y.len()).sum::<usize>() / n;
        let (height, width) = self.kernels.tile(n * digits, rows, threads);
        let groups = linears.iter().map(|l| l.groups()).max().unwrap_or(0);
        // Wider tiles where scales are per group: the scales of a few rows are short, scattered
        // reads.
        let width = if groups > 0 {
            width.max((rows / (8 * threads)).min(128) & !15)
        } else {
            width
        };
        // Working memory per thread: sums of a tile, and scales if there are any.
        let each = width * (height + groups);
        grow(memory, threads * each);
        self.pool.tiles_mut(
            n,
            (height / digits, width),
            y,
            &mut memory[..threads * each],
            |matrix, tile, memory| {
                let linear = linears[matrix];
                match &linear.rows {
                    RowFormat::Ternary {
                        packing,
                        scaling,
                        scales,
                        scales_dtype,
                    } => {
                        let scales = self.scales(scales, *scales_dtype);
                        match scaling {
                            Scaling::Group => {
                                self.by_groups(linear, scales, quantized, tile, memory);
                            }
                            Scaling::Matrix | Scaling::Row => {
                                let matrix = (linear, *packing, scales);
                                self.by_rows(matrix, quantized, tile, memory);
                            }
                        }
                    }
                    _ => self.dense(linear, quantized, tile, memory),
                }
            },
        );
    }

    /// Computes the tile of a matrix of a dense packing; `memory` has room for (tokens, rows).
    fn dense(
        &self,
        linear: &Linear,
        quantized: &Quantized,
        mut tile: Tile<f32>,
        memory: &mut [i32],
    ) {
        let (tokens, rows) = (tile.rows(), tile.columns());
        let (columns, blocks) = (linear.columns, linear.columns.div_ceil(BLOCK));
        let y = &mut memory[..tokens.len() * rows.len()];
        let y: &mut [f32] = bytemuck::cast_slice_mut(y);
        let bytes = self.rows(linear, rows.clone());
        let x = || &quantized.x[tokens.start * columns..tokens.end * columns];
        let product = || BlockProduct {
            blocks,
            rows: bytes,
            x: &quantized.blocks[tokens.start * blocks..tokens.end * blocks],
        };
        let kernels = self.kernels;
        match &linear.rows {
            RowFormat::Numbers(Dtype::F32) => {
                (kernels.gemm_f32)(x(), columns, bytemuck::cast_slice(bytes), y);
            }
            RowFormat::Numbers(Dtype::Bf16) => {
                (kernels.gemm_bf16)(x(), columns, bytemuck::cast_slice(bytes), y);
            }
            RowFormat::Numbers(_) => {
                (kernels.gemm_f16)(x(), columns, bytemuck::cast_slice(bytes), y)
            }
            RowFormat::Q8_0 => (kernels.gemm_q8_0)(product(), y),
            RowFormat::Q4_0 => (kernels.gemm_q4_0)(product(), y),
            RowFormat::Ternary { .. } => unreachable!("ternary rows have products of their own"),
        }
        for (t, y) in tokens.zip(y.chunks_exact(rows.len())) {
            tile.row(t).copy_from_slice(y);
        }
    }

    /// Computes the tile of a matrix with one scale, or one per row; `memory` has room for (tokens,
    /// digits, rows).
    fn by_rows(
        &self,
        (linear, packing, scales): (&Linear, Packing, ScaleValues),
        quantized: &Quantized,
        mut tile: Tile<f32>,
        memory: &mut [i32],
    ) {
        let (tokens, rows) = (tile.rows(), tile.columns());
        let digits = quantized.digits(&tokens);
        let padded = packing.padded_columns(linear.columns);
        let sums = &mut memory[..digits.len() * rows.len()];
        let gemm = self.kernels.gemm(packing);
        let q = &quantized.q[digits.start * padded..digits.end * padded];
        let packed = self.rows(linear, rows.clone());
        gemm(packed, q, &quantized.sums[digits], sums);
        let scales = match scales {
            ScaleValues::F32([scale]) => std::slice::from_ref(scale),
            ScaleValues::F32(scales) => &scales[rows.clone()],
            ScaleValues::F16(_) => unreachable!("only scales of groups are F16"),
        };
        let of_tokens = sums.chunks_exact(sums.len() / tokens.len());
        for (t, sums) in tokens.zip(of_tokens) {
            let (s, y) = (quantized.scales[t], tile.row(t));
            match (quantized.activations, scales) {
                (Activations::Int8, [scale]) => (self.kernels.dequantize)(sums, s, *scale, y),
                (Activations::Int8, scales) => dequantize_rows(sums, s, scales, y),
                (Activations::Int16, [scale]) => {
                    join(sums, y);
                    y.iter_mut().for_each(|y| *y = *y / s * scale);
                }
                (Activations::Int16, scales) => {
                    join(sums, y);
                    let scaled = y.iter_mut().zip(scales);
                    scaled.for_each(|(y, scale)| *y = *y / s * scale);
                }
            }
        }
    }

    /// Computes the tile of a matrix with one scale per group; `memory` has room for (tokens,
    /// digits, rows) and (groups, rows).
    fn by_groups(
        &self,
        linear: &Linear,
        all: ScaleValues, // (groups, all rows)
        quantized: &Quantized,
        mut tile: Tile<f32>,
        memory: &mut [i32],
    ) {
        let (tokens, rows) = (tile.rows(), tile.columns());
        let digits = quantized.digits(&tokens);
        let groups = linear.groups();
        let memory: &mut [f32] = bytemuck::cast_slice_mut(memory);
        let (scales, rest) = memory.split_at_mut(groups * rows.len());
        let sums = &mut rest[..digits.len() * rows.len()];
        for (g, scales) in scales.chunks_exact_mut(rows.len()).enumerate() {
            all.read(g * all.len() / groups + rows.start, scales);
        }
        let padded = groups * GROUP_COLUMNS;
        // The kernel adds scaled sums in f32: (tokens, digits, rows).
        let product = GroupProduct {
            groups,
            rows: self.rows(linear, rows),
            scales,
            q: &quantized.q[digits.start * padded..digits.end * padded],
            q_sums: &quantized.group_sums[digits.start * groups..digits.end * groups],
        };
        (self.kernels.gemm_groups)(product, sums);
        let of_tokens = sums.chunks_exact(sums.len() / tokens.len());
        for (t, sums) in tokens.zip(of_tokens) {
            let (s, y) = (quantized.scales[t], tile.row(t));
            let (high, low) = sums.split_at(y.len());
            match quantized.activations {
                Activations::Int8 => y.iter_mut().zip(high).for_each(|(y, h)| *y = h / s),
                Activations::Int16 => {
                    for (y, (h, l)) in y.iter_mut().zip(high.iter().zip(low)) {
                        *y = (256.0 * h + l) / s;
                    }
                }
            }
        }
    }
}

/// y = (sums / s) · scales.
fn dequantize_rows(sums: &[i32], s: f32, scales: &[f32], y: &mut [f32]) {
    for ((y, sum), scale) in y.iter_mut().zip(sums).zip(scales) {
        *y = *sum as f32 / s * scale;
    }
}

/// y = 256 · high + low of sums (2, rows), exact in f64 and then rounded.
fn join(sums: &[i32], y: &mut [f32]) {
    let (high, low) = sums.split_at(y.len());
    for (y, (high, low)) in y.iter_mut().zip(high.iter().zip(low)) {
        *y = (256.0 * f64::from(*high) + f64::from(*low)) as f32;
    }
}
