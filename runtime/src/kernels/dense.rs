//! Products of rows of blocks, `q8_0` and `q4_0`, with activations of int8 that have a scale for each 32 columns too.
//!
//! A sum runs in eight lanes. In a block lane l adds the products of columns 4l to 4l + 3, an exact integer that f32
//! holds; it is multiplied by the scale of the block times that of the activations, rounded, and added to the lane.
//! Blocks come in their order, then lanes are added in halves, 8 → 4 → 2 → 1. So instructions that add four
//! products of bytes to a lane of 32 bits give the bits of this file, in registers of any width.

use half::f16;
use sterna_ternary::packing::dense::BLOCK;
use sterna_ternary::packing::{q4_0, q8_0};

use super::float::f16_to_f32;

/// Lanes of a sum.
pub(super) const LANES: usize = 8;

/// Rows of blocks times tokens; the result beside it is (tokens, n).
#[derive(Debug, Clone, Copy)]
pub struct BlockProduct<'a> {
    /// Blocks of a row.
    pub blocks: usize,
    /// (n, blocks, bytes of a block)
    pub rows: &'a [u8],
    /// (tokens, blocks, 32), in ±127 and zero behind the last column.
    pub q: &'a [i8],
    /// (tokens, blocks)
    pub scales: &'a [f32],
}

impl<'a> BlockProduct<'a> {
    /// Rows, activations and their scales, one token or row after the other.
    ///
    /// # Panics
    /// If the lengths disagree.
    pub(super) fn checked<const BYTES: usize>(&self, y: &[f32]) -> Checked<'a, BYTES> {
        let blocks = self.blocks;
        assert!(blocks > 0);
        let (tokens, n) = (
            self.scales.len() / blocks,
            self.rows.len() / (blocks * BYTES),
        );
        assert_eq!(self.scales.len(), tokens * blocks);
        assert_eq!(self.q.len(), tokens * blocks * BLOCK);
        assert_eq!(self.rows.len(), n * blocks * BYTES);
        assert_eq!(y.len(), tokens * n);
        Checked {
            blocks,
            n,
            tokens,
            rows: self.rows.as_chunks().0,
            q: self.q.as_chunks().0,
            scales: self.scales,
        }
    }
}

/// A product whose lengths agree.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a, const BYTES: usize> {
    pub blocks: usize,
    pub n: usize,
    pub tokens: usize,
    rows: &'a [[u8; BYTES]],
    q: &'a [[i8; BLOCK]],
    scales: &'a [f32],
}

impl<'a, const BYTES: usize> Checked<'a, BYTES> {
    /// The blocks of a row.
    #[inline(always)]
    pub fn row(&self, r: usize) -> &'a [[u8; BYTES]] {
        &self.rows[r * self.blocks..][..self.blocks]
    }

    /// The codes and scales of a token.
    #[inline(always)]
    pub fn token(&self, t: usize) -> (&'a [[i8; BLOCK]], &'a [f32]) {
        let of_token = t * self.blocks..(t + 1) * self.blocks;
        (&self.q[of_token.clone()], &self.scales[of_token])
    }
}

/// The scale of a block of either packing.
#[inline(always)]
pub(super) fn scale<const BYTES: usize>(block: &[u8; BYTES]) -> f32 {
    f16_to_f32(f16::from_le_bytes([block[0], block[1]]))
}

/// The last columns of a row of numbers, then zeros.
#[inline(always)]
pub(super) fn padded<T: Copy + Default>(last: &[T]) -> [T; 16] {
    let mut padded = [T::default(); 16];
    padded[..last.len()].copy_from_slice(last);
    padded
}

/// The order in which lanes are added.
#[inline(always)]
pub(super) fn tree(mut lanes: [f32; LANES]) -> f32 {
    for half in [4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
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
    for r in 0..product.n {
        for t in 0..product.tokens {
            let mut lanes = [0f32; LANES];
            let (q, scales) = product.token(t);
            for ((block, q), s) in product.row(r).iter().zip(q).zip(scales) {
                let (codes, scale) = (codes(block), scale(block) * s);
                let fours = codes.as_chunks::<4>().0.iter().zip(q.as_chunks::<4>().0);
                for (lane, (codes, q)) in lanes.iter_mut().zip(fours) {
                    let products = codes.iter().zip(q).map(|(c, q)| c * i32::from(*q));
                    *lane += products.sum::<i32>() as f32 * scale;
                }
            }
            y[t * product.n + r] = tree(lanes);
        }
    }
}
