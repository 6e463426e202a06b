//! Some rows against one block of positions.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::cache::{BLOCK, Block, padded};
use crate::kernels::{self, Kernels, LANES, PanelProduct, Scores};

/// Most rows of a tile: each uses the keys of a block while these are in the first-level cache.
pub(super) const ROWS: usize = 16;

/// What a block says about each row.
pub(super) type Found = [kernels::SoftmaxBlock; ROWS];

/// Working memory.
#[derive(Debug, Default)]
pub(super) struct AttentionTile {
    scores: Vec<f32>,  // (rows, BLOCK), later the weights
    weights: Vec<i16>, // (rows, BLOCK)
    sums: Vec<f32>,    // (rows, padded head_dim): of weights times values
}

impl AttentionTile {
    /// Σ weight · value of a row.
    pub fn sums(&self, row: usize, head_dim: usize) -> &[f32] {
        &self.sums[row * padded(head_dim)..][..padded(head_dim)]
    }

    /// A block of floats for queries (rows, head_dim), of which each sees some of the positions.
    pub fn floats<T>(
        &mut self,
        kernels: &Kernels,
        product: fn(PanelProduct<f32, T>, &mut [f32]),
        block: Block<T>,
        q: &[f32],
        visible: &[Range<usize>],
    ) -> Found {
        let (d, seen) = self.resize(q.len(), visible);
        let scores = &mut self.scores[..visible.len() * BLOCK];
        product(keys(q, block.keys, d, seen), scores);
        let mut found = [kernels::SoftmaxBlock::EMPTY; ROWS];
        let rows = Scores {
            x: scores,
            used: seen,
            seen: visible,
        };
        (kernels.softmax_blocks)(rows, &mut found[..visible.len()]);
        let sums = &mut self.sums[..visible.len() * padded(d)];
        product(values(scores, block.values, visible), sums);
        found
    }

    /// A block of codes for queries (rows, head_dim) with one factor each.
    pub fn codes(
        &mut self,
        kernels: &Kernels,
        block: Block<i8>,
        q: &[i16],
        factors: &[f32],
        visible: &[Range<usize>],
    ) -> Found {
        let (d, seen) = self.resize(q.len(), visible);
        let scores = &mut self.scores[..visible.len() * BLOCK];
        let weights = &mut self.weights[..visible.len() * BLOCK];
        (kernels.panels_i8)(keys(q, block.keys, d, seen), scores);
        let mut found = [kernels::SoftmaxBlock::EMPTY; ROWS];
        let scales = block.scales.map(|scales| &scales[..seen]);
        let rows = Scores {
            x: scores,
            used: seen,
            seen: visible,
        };
        let blocks = &mut found[..visible.len()];
        (kernels.softmax_blocks_i8)(rows, factors, scales, weights, blocks);
        let sums = &mut self.sums[..visible.len() * padded(d)];
        (kernels.panels_i8)(values(weights, block.values, visible), sums);
        found
    }

    /// Makes room, and returns head_dim and the positions of the panels that any row sees.
    fn resize(&mut self, q: usize, visible: &[Range<usize>]) -> (usize, usize) {
        let d = q / visible.len();
        self.scores.resize(ROWS * BLOCK, 0.0);
        self.weights.resize(ROWS * BLOCK, 0);
        self.sums.resize(ROWS * padded(d), 0.0);
        (d, end(visible).next_multiple_of(LANES))
    }
}

/// Behind the last position that any row sees.
fn end(visible: &[Range<usize>]) -> usize {
    let ends = visible.iter().map(|visible| visible.end);
    ends.max().expect("a tile has rows")
}

/// Queries times the first `seen` keys.
fn keys<'a, X, T>(q: &'a [X], keys: &'a [T], d: usize, seen: usize) -> PanelProduct<'a, X, T> {
    PanelProduct {
        x: q,
        panels: &keys[..seen * d],
        depth: d,
        used: d,
    }
}

/// Weights times values. What a row does not see has the weight zero and is finite.
fn values<'a, X, T>(
    weights: &'a [X],
    values: &'a [T],
    visible: &[Range<usize>],
) -> PanelProduct<'a, X, T> {
    PanelProduct {
        x: weights,
        panels: values,
        depth: BLOCK,
        used: end(visible),
    }
}

/// A block in single precision.
#[derive(Debug, Default)]
pub(super) struct Converted {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Converted {
    /// The first `used` positions of a block.
    pub fn convert(&mut self, block: Block<f16>, d: usize, used: usize) -> Block<'_, f32> {
        self.keys.resize(self.keys.len().max(block.keys.len()), 0.0);
        self.values
            .resize(self.values.len().max(block.values.len()), 0.0);
        let seen = used.next_multiple_of(LANES) * d;
        block.keys[..seen].convert_to_f32_slice(&mut self.keys[..seen]);
        let values = &mut self.values[..block.values.len()];
        let (panel, seen) = (BLOCK * LANES, used * LANES);
        for (from, to) in block
            .values
            .chunks_exact(panel)
            .zip(values.chunks_exact_mut(panel))
        {
            from[..seen].convert_to_f32_slice(&mut to[..seen]);
        }
        Block {
            keys: &self.keys[..block.keys.len()],
            values: &self.values[..block.values.len()],
            scales: [&[]; 2],
        }
    }
}
