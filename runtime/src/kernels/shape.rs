//! The arguments of a ternary matrix product, checked.

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;

/// The sizes that the arguments of a [`Gemm`] imply.
#[derive(Clone, Copy)]
pub(super) struct GemmShape {
    pub tokens: usize,
    pub rows: usize,
    /// Blocks of a row, each [`sterna_ternary::packing::BLOCK_BYTES`] long.
    pub blocks: usize,
}

impl GemmShape {
    /// # Panics
    /// If the lengths of the arguments disagree.
    pub fn of(packing: Packing, rows: &[u8], q: &[i8], q_sums: &[i32], sums: &[i32]) -> GemmShape {
        let tokens = q_sums.len();
        assert!(tokens > 0 && sums.len().is_multiple_of(tokens));
        let shape = GemmShape {
            tokens,
            rows: sums.len() / tokens,
            blocks: q.len() / tokens / packing.block_columns(),
        };
        assert_eq!(q.len(), tokens * shape.blocks * packing.block_columns());
        assert_eq!(rows.len(), shape.rows * shape.blocks * BLOCK_BYTES);
        shape
    }
}

/// The arguments of a [`Gemm`](super::Gemm) but its result. Their lengths agree.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub shape: GemmShape,
    pub rows: &'a [u8],    // (rows, blocks · bytes of a block)
    pub q: &'a [i8],       // (tokens, padded columns)
    pub q_sums: &'a [i32], // (tokens)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<'a> Operands<'a> {
    /// # Panics
    /// If the lengths of the arguments disagree.
    pub fn of(
        packing: Packing,
        rows: &'a [u8],
        q: &'a [i8],
        q_sums: &'a [i32],
        sums: &[i32],
    ) -> Operands<'a> {
        Operands {
            shape: GemmShape::of(packing, rows, q, q_sums, sums),
            rows,
            q,
            q_sums,
        }
    }

    /// The product with the first `tokens` tokens, and that with the others.
    pub fn split_at(self, tokens: usize) -> [Operands<'a>; 2] {
        let (q, rest_q) = self.q.split_at(self.q.len() / self.shape.tokens * tokens);
        let (q_sums, rest_q_sums) = self.q_sums.split_at(tokens);
        let part = |tokens, q, q_sums| Operands {
            shape: GemmShape {
                tokens,
                ..self.shape
            },
            q,
            q_sums,
            ..self
        };
        let rest = self.shape.tokens - tokens;
        [part(tokens, q, q_sums), part(rest, rest_q, rest_q_sums)]
    }
}
