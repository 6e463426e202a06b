//! Working memory of the forward pass. It belongs to a [`crate::Model`], is used by one pass at a
//! time and grows to the largest batch seen, so a pass that is not larger than an earlier one
//! allocates nothing here.

use std::ops::Range;

use sterna_ternary::Activations;
use sterna_ternary::scales::GROUP_COLUMNS;

use crate::attention;
use crate::kernels::QuantizedBlock;
use crate::kernels::codes::Int16;
use crate::rotary::Angles;
use crate::threads::Pool;

/// Working memory for n tokens; it grows to the largest batch seen.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub x: Vec<f32>,      // (n, hidden): the residual stream
    pub normed: Vec<f32>, // (n, hidden): x after a norm; the output of o_proj and down_proj
    pub q: Vec<f32>,      // (n, heads, head_dim)
    pub k: Vec<f32>,      // (n, kv_heads, head_dim)
    pub v: Vec<f32>,      // (n, kv_heads, head_dim)
    pub attn: Vec<f32>,   // (n, heads, head_dim)
    pub gate: Vec<f32>,   // (n, intermediate)
    pub up: Vec<f32>,     // (n, intermediate)
    /// Rotary angles: for layers without a window, and for layers with one.
    pub angles: [Angles; 2],
    pub attention: attention::Memory,
    pub linear: LinearState,
    pub head: HeadState,
}

impl State {
    pub fn resize(
        &mut self,
        n: usize,
        hidden: usize,
        heads: usize,
        kv: usize,
        intermediate: usize,
    ) {
        for (buffer, width) in [
            (&mut self.x, hidden),
            (&mut self.normed, hidden),
            (&mut self.q, heads),
            (&mut self.k, kv),
            (&mut self.v, kv),
            (&mut self.attn, heads),
            (&mut self.gate, intermediate),
            (&mut self.up, intermediate),
        ] {
            grow(buffer, n * width);
        }
    }
}

/// Working memory of linear layers.
#[derive(Debug, Default)]
pub(crate) struct LinearState {
    pub normed: Vec<f32>, // (n, columns): the input after the layer's own norm
    pub quantized: Quantized,
    pub sums: Vec<i32>, // (threads, working memory of a linear layer)
}

/// The input of linear layers, as these want it.
#[derive(Debug, Default)]
pub(crate) struct Quantized {
    pub activations: Activations,
    pub x: Vec<f32>,          // (n, columns), where the matrices are plain numbers
    pub q: Vec<i8>,           // (n, digits, padded columns), zero after the last column
    pub scales: Vec<f32>,     // (n): x = q / scale
    pub sums: Vec<i32>,       // (n, digits): Σ q
    pub group_sums: Vec<i32>, // (n, digits, groups): the same of each group
    pub blocks: Vec<QuantizedBlock>, // (n, blocks), where the matrices are blocks
}

impl Quantized {
    /// The rows of digits of some tokens.
    pub fn digits(&self, tokens: &Range<usize>) -> Range<usize> {
        let digits = self.activations.digits();
        tokens.start * digits..tokens.end * digits
    }

    /// The sums of `count` rows of digits, (count, padded), and of their groups if any are asked
    /// for.
    pub fn add_up(
        &mut self,
        pool: &Pool,
        count: usize,
        padded: usize,
        has_groups: bool,
        sum: fn(&[i8]) -> i32,
    ) {
        grow(&mut self.sums, count);
        let (q, sums) = (&self.q[..count * padded], &mut self.sums[..count]);
        let row = |i: usize| &q[i * padded..][..padded];
        if !has_groups {
            return pool.chunks_mut(sums, 1, |i, total| total[0] = sum(row(i)));
        }
        let groups = padded / GROUP_COLUMNS;
        grow(&mut self.group_sums, count * groups);
        let of_groups = (&mut self.group_sums[..count * groups], groups);
        pool.zip_chunks_mut((sums, 1), of_groups, |i, total, sums| {
            for (s, q) in sums.iter_mut().zip(row(i).chunks_exact(GROUP_COLUMNS)) {
                *s = sum(q);
            }
            total[0] = sums.iter().sum();
        });
    }
}

/// Working memory of the head.
#[derive(Debug, Default)]
pub(crate) struct HeadState {
    pub x: Vec<Int16>, // (tokens)
    /// (blocks of rows, tokens, rows of a block): the planes so far, or `kernels::screen::DROPPED`
    pub sums: Vec<i64>,
    pub best: Vec<Best>,      // (blocks of rows, tokens)
    pub forced: Vec<u64>,     // (blocks of rows, tokens), a bit for each row
    pub quantized: Quantized, // x for a ternary head
    pub memory: Vec<i32>,     // (threads, working memory of a linear layer)
    /// Bytes of the table that were read since the state was made.
    pub bytes: usize,
    /// Whether the low plane was announced to be read whole.
    pub is_announced: bool,
    /// How many more passes expect to need most of the planes after the first, as a screened pass
    /// did. That decides how they are computed, not what comes out.
    pub passes_of_much: usize,
}

/// The row of a block with the largest sum so far, and that.
pub(crate) type Best = (f64, usize);

/// Lengthens a buffer to `len` elements; one that is longer stays as it is.
pub(crate) fn grow<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}
