//! Dense packings: rows of full-precision models, the baselines for ternary models.
//!
//! `f16` rounds nothing: each matrix is stored in the narrowest of F16, BF16 and F32 that
//! represents all of its values exactly, row by row without padding, and is multiplied in f32.
//! [`q8_0`] and [`q4_0`] are the blocks of GGUF, bit for bit: 32 columns share a scale, and the
//! input of a layer is rounded to int8 with one scale per 32 columns
//! ([`crate::quantize::quantize_blocks`]).

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

pub use super::q8_0::BLOCK;
use super::{q4_0, q8_0};
use crate::Dtype;

/// A packing of linear layers that are not ternary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dense {
    /// F16, BF16 or F32 per matrix: the narrowest exact type.
    F16,
    /// Eight bits per weight and one f16 scale per 32 weights.
    Q8_0,
    /// Four bits per weight and one f16 scale per 32 weights.
    Q4_0,
}

impl Dense {
    /// All dense packings.
    pub const ALL: [Dense; 3] = [Dense::F16, Dense::Q8_0, Dense::Q4_0];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Dense::F16 => "f16",
            Dense::Q8_0 => "q8_0",
            Dense::Q4_0 => "q4_0",
        }
    }

    /// The packing with that name.
    pub fn from_name(name: &str) -> Option<Dense> {
        Dense::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bytes of a block of [`BLOCK`] columns. None for plain numbers.
    pub fn block_bytes(self) -> Option<usize> {
        match self {
            Dense::F16 => None,
            Dense::Q8_0 => Some(q8_0::BYTES),
            Dense::Q4_0 => Some(q4_0::BYTES),
        }
    }

    /// Type that the runtime converts the input of a linear layer to.
    pub fn activations(self) -> &'static str {
        match self {
            Dense::F16 => "f32",
            Dense::Q8_0 | Dense::Q4_0 => "int8, a scale for each 32",
        }
    }

    /// Packs a row into exactly `columns.div_ceil(32)` blocks, with zeros after the last column.
    /// Returns false if a scale is not finite in f16.
    ///
    /// # Panics
    /// If `bytes` has another length, or the packing is `f16`, which has no blocks.
    pub fn pack_row(self, x: &[f32], bytes: &mut [u8]) -> bool {
        let size = self.block_bytes().expect("a packing of blocks");
        assert_eq!(bytes.len(), x.len().div_ceil(BLOCK) * size);
        let mut is_finite = true;
        for (x, bytes) in x.chunks(BLOCK).zip(bytes.chunks_exact_mut(size)) {
            let mut block = [0.0; BLOCK];
            block[..x.len()].copy_from_slice(x);
            let whole = "a chunk is a block";
            match self {
                Dense::Q8_0 => q8_0::encode(&block, bytes.try_into().expect(whole)),
                _ => q4_0::encode(&block, bytes.try_into().expect(whole)),
            }
            is_finite &= f16::from_le_bytes([bytes[0], bytes[1]]).is_finite();
        }
        is_finite
    }
}

/// The values of a dense matrix, used in place, row by row.
#[derive(Debug, Clone, Copy)]
pub enum DenseRows<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// Blocks of `q8_0`.
    Q8_0(&'a [[u8; q8_0::BYTES]]),
    /// Blocks of `q4_0`.
    Q4_0(&'a [[u8; q4_0::BYTES]]),
}

impl<'a> DenseRows<'a> {
    /// Rows of plain numbers. None if the type is U8.
    pub(crate) fn of_numbers(dtype: Dtype, bytes: &'a [u8]) -> Option<DenseRows<'a>> {
        match dtype {
            Dtype::F32 => Some(DenseRows::F32(bytemuck::cast_slice(bytes))),
            Dtype::F16 => Some(DenseRows::F16(bytemuck::cast_slice(bytes))),
            Dtype::Bf16 => Some(DenseRows::Bf16(bytemuck::cast_slice(bytes))),
            Dtype::U8 => None,
        }
    }

    /// The type in reports.
    pub fn name(self) -> &'static str {
        match self {
            DenseRows::F32(_) => "f32",
            DenseRows::F16(_) => "f16",
            DenseRows::Bf16(_) => "bf16",
            DenseRows::Q8_0(_) => "q8_0",
            DenseRows::Q4_0(_) => "q4_0",
        }
    }

    /// Decodes row `row`; the length of `x` is the number of columns.
    ///
    /// # Panics
    /// If the row does not exist or has another number of columns.
    pub fn decode(self, row: usize, x: &mut [f32]) {
        let columns = x.len();
        let numbers = row * columns..(row + 1) * columns;
        let blocks = columns.div_ceil(BLOCK);
        let blocks = row * blocks..(row + 1) * blocks;
        match self {
            DenseRows::F32(v) => x.copy_from_slice(&v[numbers]),
            DenseRows::F16(v) => v[numbers].convert_to_f32_slice(x),
            DenseRows::Bf16(v) => v[numbers].convert_to_f32_slice(x),
            DenseRows::Q8_0(v) => decode(&v[blocks], x, q8_0::decode),
            DenseRows::Q4_0(v) => decode(&v[blocks], x, q4_0::decode),
        }
    }
}

fn decode<const N: usize>(
    blocks: &[[u8; N]],
    x: &mut [f32],
    decode: impl Fn(&[u8; N]) -> [f32; BLOCK],
) {
    for (block, x) in blocks.iter().zip(x.chunks_mut(BLOCK)) {
        x.copy_from_slice(&decode(block)[..x.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(columns: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * [1.0, 0.03][i / 40 % 2];
        (0..columns).map(value).collect()
    }

    fn blocks(packing: Dense, bytes: &[u8]) -> DenseRows<'_> {
        match packing {
            Dense::Q8_0 => DenseRows::Q8_0(bytes.as_chunks().0),
            _ => DenseRows::Q4_0(bytes.as_chunks().0),
        }
    }

    #[test]
    fn every_width_comes_back_within_a_step() {
        for (packing, steps) in [(Dense::Q8_0, 127.0), (Dense::Q4_0, 8.0)] {
            for columns in (1..100).chain([2560, 2570]) {
                let size = packing.block_bytes().unwrap();
                let x = values(2 * columns);
                let mut bytes = Vec::new();
                for x in x.chunks(columns) {
                    let mut row = vec![9; columns.div_ceil(BLOCK) * size];
                    assert!(packing.pack_row(x, &mut row));
                    bytes.extend(row);
                }
                for (row, x) in x.chunks(columns).enumerate() {
                    let mut back = vec![f32::NAN; columns];
                    blocks(packing, &bytes).decode(row, &mut back);
                    for (x, back) in x.chunks(BLOCK).zip(back.chunks(BLOCK)) {
                        let step = x.iter().fold(0f32, |m, x| m.max(x.abs())) / steps * 1.01;
                        let worst = x.iter().zip(back).map(|(x, y)| (x - y).abs());
                        assert!(worst.fold(0.0, f32::max) <= step, "{packing:?} {columns}");
                    }
                }
            }
        }
    }

    #[test]
    fn scales_beyond_f16_are_told() {
        for packing in [Dense::Q8_0, Dense::Q4_0] {
            let mut bytes = vec![0; packing.block_bytes().unwrap()];
            assert!(packing.pack_row(&[500_000.0; 7], &mut bytes));
            assert!(!packing.pack_row(&[1e10; 7], &mut bytes));
        }
    }
}
