//! Ternary products with a scale for each 128 columns of a row: y = Σ over groups of (Σ trit · q) ·
//! scale.
//!
//! The inner sum, over a block of the packing `i2`, is an exact integer; it is converted to f32,
//! which is exact, multiplied by its scale and added to the sum of the groups before it. So there
//! is one order of operations, whether a kernel walks rows block by block, adds entries of tables
//! of partial sums, or computes one group of all rows after the other with the plain product of its
//! instruction set ([`by_groups`]).

use sterna_ternary::Packing;
use sterna_ternary::packing::BLOCK_BYTES;
use sterna_ternary::scales::GROUP_COLUMNS;

/// Rows of `i2` times tokens; the result beside it is (tokens, n).
#[derive(Debug, Clone, Copy)]
pub struct GroupProduct<'a> {
    /// Groups of a row.
    pub groups: usize,
    /// (n, groups · 32): packed rows.
    pub rows: &'a [u8],
    /// (groups, n)
    pub scales: &'a [f32],
    /// (tokens, groups · 128), zero after the last column.
    pub q: &'a [i8],
    /// (tokens, groups): Σ q.
    pub q_sums: &'a [i32],
}

impl GroupProduct<'_> {
    /// Tokens and rows.
    ///
    /// # Panics
    /// If the lengths disagree.
    pub(super) fn shape(&self, y: &[f32]) -> (usize, usize) {
        let groups = self.groups;
        assert!(groups > 0);
        let (tokens, n) = (self.q_sums.len() / groups, self.scales.len() / groups);
        assert!(tokens > 0 && n > 0);
        assert_eq!(self.q_sums.len(), tokens * groups);
        assert_eq!(self.q.len(), tokens * groups * GROUP_COLUMNS);
        assert_eq!(self.scales.len(), n * groups);
        assert_eq!(self.rows.len(), n * groups * BLOCK_BYTES);
        assert_eq!(y.len(), tokens * n);
        (tokens, n)
    }
}

/// The product by the definition of the packing.
pub(super) fn reference(product: GroupProduct, y: &mut [f32]) {
    let (_, n) = product.shape(y);
    let mut trits = [0; GROUP_COLUMNS];
    y.fill(0.0);
    for (r, row) in product
        .rows
        .chunks_exact(product.groups * BLOCK_BYTES)
        .enumerate()
    {
        for (g, block) in row.chunks_exact(BLOCK_BYTES).enumerate() {
            Packing::I2.read_row(block, &mut trits);
            let tokens = product.q.chunks_exact(product.groups * GROUP_COLUMNS);
            for (t, q) in tokens.enumerate() {
                let q = &q[g * GROUP_COLUMNS..][..GROUP_COLUMNS];
                let products = trits.iter().zip(q);
                let sum: i32 = products.map(|(t, q)| i32::from(*t) * i32::from(*q)).sum();
                y[t * n + r] += sum as f32 * product.scales[g * n + r];
            }
        }
    }
}

/// The product by one product of `gemm` for each group.
#[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
pub(super) fn by_groups(
    gemm: impl Fn(&[u8], &[i8], &[i32], &mut [i32]),
    product: GroupProduct,
    y: &mut [f32],
) {
    let (tokens, n) = product.shape(y);
    let groups = product.groups;
    let mut blocks = vec![0; n * BLOCK_BYTES];
    let mut q = vec![0; tokens * GROUP_COLUMNS];
    let (mut q_sums, mut sums) = (vec![0; tokens], vec![0; tokens * n]);
    y.fill(0.0);
    for (g, scales) in product.scales.chunks_exact(n).enumerate() {
        let rows = product.rows.chunks_exact(groups * BLOCK_BYTES);
        for (to, row) in blocks.chunks_exact_mut(BLOCK_BYTES).zip(rows) {
            to.copy_from_slice(&row[g * BLOCK_BYTES..][..BLOCK_BYTES]);
        }
        let of_tokens = product.q.chunks_exact(groups * GROUP_COLUMNS);
        for (to, token) in q.chunks_exact_mut(GROUP_COLUMNS).zip(of_tokens) {
            to.copy_from_slice(&token[g * GROUP_COLUMNS..][..GROUP_COLUMNS]);
        }
        for (to, token) in q_sums.iter_mut().zip(product.q_sums.chunks_exact(groups)) {
            *to = token[g];
        }
        gemm(&blocks, &q, &q_sums, &mut sums);
        for (y, sums) in y.chunks_exact_mut(n).zip(sums.chunks_exact(n)) {
            for ((y, sum), scale) in y.iter_mut().zip(sums).zip(scales) {
                *y += *sum as f32 * scale;
            }
        }
    }
}
