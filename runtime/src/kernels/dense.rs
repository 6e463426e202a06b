//! Products of rows of blocks, `q8_0` and `q4_0`, with activations of int8 that have a scale for
//! each 32 columns too.
//!
//! In a block the products of codes and activations add up to an exact integer that f32 holds; it
//! is multiplied by the scale of the block times that of the activations, rounded, and added to
//! what the blocks before gave. So rows can stand side by side, one in each lane of a register, and
//! an operation on floats serves as many rows as there are lanes.
//!
//! `blocks` does that, and here is the definition.

use half::f16;
use sterna_ternary::packing::dense::BLOCK;
use sterna_ternary::packing::{q4_0, q8_0};

use super::widen::f16_to_f32;

/// 32 columns of activations: x = q · scale.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub struct QuantizedBlock {
    /// Codes in ±127, zero after the last column.
    pub q: [i8; BLOCK],
    /// The scale.
    pub scale: f32,
    /// Σ q.
    pub sum: i32,
}

/// Rows of blocks times tokens; the result beside it is (tokens, n).
#[derive(Debug, Clone, Copy)]
pub struct BlockProduct<'a> {
    /// Blocks of a row.
    pub blocks: usize,
    /// (n, blocks, bytes of a block)
    pub rows: &'a [u8],
    /// (tokens, blocks)
    pub x: &'a [QuantizedBlock],
}

impl<'a> BlockProduct<'a> {
    /// Rows and activations, one row or token after the other.
    ///
    /// # Panics
    /// If the lengths disagree.
    pub(super) fn checked<const BYTES: usize>(&self, y: &[f32]) -> Checked<'a, BYTES> {
        let blocks = self.blocks;
        assert!(blocks > 0);
        let (tokens, n) = (self.x.len() / blocks, self.rows.len() / (blocks * BYTES));
        assert_eq!(self.x.len(), tokens * blocks);
        assert_eq!(self.rows.len(), n * blocks * BYTES);
        assert_eq!(y.len(), tokens * n);
        Checked {
            blocks,
            n,
            rows: self.rows.as_chunks().0,
            x: self.x,
        }
    }
}

/// A product whose lengths agree.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a, const BYTES: usize> {
    pub blocks: usize,
    pub n: usize,
    pub rows: &'a [[u8; BYTES]],
    pub x: &'a [QuantizedBlock],
}

pub(super) fn gemm_q8_0(product: BlockProduct, y: &mut [f32]) {
    let codes = |block: &[u8; q8_0::BYTES]| std::array::from_fn(|i| i32::from(block[2 + i] as i8));
    reference(product.checked(y), y, codes);
}

pub(super) fn gemm_q4_0(product: BlockProduct, y: &mut [f32]) {
    let codes = |block: &[u8; q4_0::BYTES]| {
        std::array::from_fn(|i| i32::from(block[2 + i % 16] >> (4 * (i / 16)) & 15) - 8)
    };
    reference(product.checked(y), y, codes);
}

/// The product by its definition.
fn reference<const BYTES: usize>(
    product: Checked<BYTES>,
    y: &mut [f32],
    codes: impl Fn(&[u8; BYTES]) -> [i32; BLOCK],
) {
    let Checked { blocks, n, .. } = product;
    for (row, r) in product.rows.chunks_exact(blocks).zip(0..) {
        for (x, t) in product.x.chunks_exact(blocks).zip(0..) {
            y[t * n + r] = row.iter().zip(x).fold(0.0, |y, (block, x)| {
                let products = codes(block).into_iter().zip(x.q);
                let sum: i32 = products.map(|(c, q)| c * i32::from(q)).sum();
                let scale = f16_to_f32(f16::from_le_bytes([block[0], block[1]]));
                y + sum as f32 * (scale * x.scale)
            });
        }
    }
}
