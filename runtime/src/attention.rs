//! Causal attention over a KV cache: y = softmax(q · k / √head_dim) · v.
//!
//! The query heads that share a kv head, of one token or of many, are the rows of one product: what is loaded of
//! a key or a value serves them all. Positions are cut at multiples of [`BLOCK`]. A row gets from each block
//! the largest score, the sum of weights relative to it, and the weighted sum of values; a row's blocks are
//! merged in their order, as in "FlashAttention" (Dao et al. 2022). So the bits of a result depend neither on
//! the rows computed with it nor on who computed which block.
//!
//! Many tokens: threads take some tokens of a kv head, over all blocks. A few: threads take blocks, as they
//! lie in memory, and the caller merges what they found.
//!
//! An int8 cache is multiplied in integers: queries and weights are quantized to 16 bits.

mod merged;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use crate::cache::{AnyBlock, BLOCK, KvCache, padded};
use crate::kernels::{self, Kernels, LARGEST};
use crate::threads::Pool;
use merged::Merged;
use tile::{Converted, Tile};

/// The queries of tokens that follow each other behind a cache, which holds their keys and values already.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub kernels: &'static Kernels,
    pub cache: &'a KvCache,
    pub layer: usize,
    pub heads: usize,
    pub q: &'a [f32], // (tokens, heads, head_dim)
}

/// Working memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    threads: Vec<Scratch>,
    rows: Vec<Rows>,    // (kv_heads)
    partials: Vec<f32>, // (blocks, kv_heads, rows, padded head_dim + 3)
    merged: Merged,
}

/// Working memory of a thread.
#[derive(Debug, Default)]
struct Scratch {
    rows: Rows,
    tile: Tile,
    converted: Converted,
    merged: Merged,
}

/// The queries of some tokens that read one kv head.
#[derive(Debug, Default)]
struct Rows {
    kv_head: usize,
    tokens: Range<usize>,
    q: Vec<f32>,       // (rows, head_dim), times 1 / √head_dim · log₂ e
    codes: Vec<i16>,   // (rows, head_dim)
    factors: Vec<f32>, // (rows)
}

/// Most tokens whose blocks are shared out among threads.
const FEW: usize = 16;
/// Most tokens that a thread takes at a time.
const TOKENS: usize = 32;
/// Most blocks that a thread takes at a time.
const RUN: usize = 8;
/// Fewest rows for which a block in half precision is converted once.
const CONVERT: usize = 16;

impl Attention<'_> {
    /// Fills `y` (tokens, heads, head_dim).
    pub fn compute(&self, pool: &Pool, memory: &mut Memory, y: &mut [f32]) {
        assert_eq!(self.q.len(), y.len());
        memory.threads.resize_with(pool.threads(), Scratch::default);
        if self.tokens() <= FEW && self.blocks() > 1 {
            self.by_blocks(pool, memory, y);
        } else {
            self.by_tokens(pool, memory, y);
        }
    }

    fn by_tokens(&self, pool: &Pool, memory: &mut Memory, y: &mut [f32]) {
        let (d, group) = (self.cache.head_dim(), self.group());
        let n = self.tokens();
        let pieces = n * self.cache.kv_heads() / (4 * pool.threads());
        let tile = (pieces.clamp(1, TOKENS), group * d);
        let scratch = &mut memory.threads[..pool.threads()];
        pool.tiles_mut(n, tile, [y], scratch, |_, mut tile, scratch| {
            let scratch = &mut scratch[0];
            let tokens = tile.rows();
            let mut rows = std::mem::take(&mut scratch.rows);
            let mut merged = std::mem::take(&mut scratch.merged);
            self.prepare(
                &mut rows,
                tile.columns().start / (group * d),
                tokens.clone(),
            );
            merged.clear(tokens.len() * group, padded(d));
            for block in 0..self.positions(tokens.end - 1).div_ceil(BLOCK) {
                self.block(&rows, block, scratch, |row, x, sums| {
                    merged.add(self.kernels, row, x, sums);
                });
            }
            for t in tokens.clone() {
                for (h, y) in tile.row(t).chunks_exact_mut(d).enumerate() {
                    merged.finish((t - tokens.start) * group + h, y);
                }
            }
            (scratch.rows, scratch.merged) = (rows, merged);
        });
    }

    fn by_blocks(&self, pool: &Pool, memory: &mut Memory, y: &mut [f32]) {
        let (d, group, n) = (self.cache.head_dim(), self.group(), self.tokens());
        let kv_heads = self.cache.kv_heads();
        let pieces = self.blocks() * kv_heads;
        let run = (pieces / (4 * pool.threads())).clamp(1, RUN);
        let len = padded(d) + 3;
        let piece_len = n * group * len;
        memory.rows.resize_with(kv_heads, Rows::default);
        for (kv_head, rows) in memory.rows.iter_mut().enumerate() {
            self.prepare(rows, kv_head, 0..n);
        }
        let needed = memory.partials.len().max(pieces * piece_len);
        memory.partials.resize(needed, 0.0);
        let (partials, rows) = (&mut memory.partials[..pieces * piece_len], &memory.rows);
        let scratch = &mut memory.threads[..pool.threads()];
        pool.chunks_mut_with(
            partials,
            run * piece_len,
            scratch,
            |i, partials, scratch| {
                for (piece, partials) in (i * run..).zip(partials.chunks_exact_mut(piece_len)) {
                    let (block, rows) = (piece / kv_heads, &rows[piece % kv_heads]);
                    self.block(rows, block, &mut scratch[0], |row, x, sums| {
                        let (to_sums, to_x) = partials[row * len..][..len].split_at_mut(len - 3);
                        to_sums.copy_from_slice(sums);
                        to_x.copy_from_slice(&[x.max, x.sum, x.factor]);
                    });
                }
            },
        );
        for (i, y) in y.chunks_exact_mut(d).enumerate() {
            let (t, head) = (i / self.heads, i % self.heads);
            let (kv_head, row) = (head / group, t * group + head % group);
            memory.merged.clear(1, padded(d));
            for block in 0..self.positions(t).div_ceil(BLOCK) {
                let at = (block * kv_heads + kv_head) * piece_len + row * len;
                let (sums, x) = partials[at..at + len].split_at(len - 3);
                let x = kernels::Block {
                    max: x[0],
                    sum: x[1],
                    factor: x[2],
                };
                memory.merged.add(self.kernels, 0, x, sums);
            }
            memory.merged.finish(0, y);
        }
    }

    /// Fills `rows` with the queries of some tokens.
    fn prepare(&self, rows: &mut Rows, kv_head: usize, tokens: Range<usize>) {
        let d = self.cache.head_dim();
        let group = self.group() * d;
        let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
        let q = |t: usize| &self.q[t * self.heads * d + kv_head * group..][..group];
        (rows.kv_head, rows.tokens) = (kv_head, tokens.clone());
        if let AnyBlock::Q8(_) = self.cache.block(self.layer, kv_head, 0) {
            // Their products with int8, summed over a head, fit 32 bits.
            let largest = LARGEST.min((i32::MAX as usize / 127 / d) as f32);
            rows.codes.resize(tokens.len() * group, 0);
            rows.factors.clear();
            for (t, codes) in tokens.zip(rows.codes.chunks_exact_mut(group)) {
                for (q, codes) in q(t).chunks_exact(d).zip(codes.chunks_exact_mut(d)) {
                    let factor = (self.kernels.quantize_i16)(q, scale, largest, codes);
                    rows.factors.push(factor);
                }
            }
        } else {
            rows.q.clear();
            for t in tokens {
                rows.q.extend(q(t).iter().map(|q| q * scale));
            }
        }
    }

    /// Passes rows over one block; `out` gets what each row that sees a part of it found.
    fn block(
        &self,
        rows: &Rows,
        index: usize,
        scratch: &mut Scratch,
        mut out: impl FnMut(usize, kernels::Block, &[f32]),
    ) {
        let (d, group, kernels) = (self.cache.head_dim(), self.group(), self.kernels);
        // Positions of the block that a row sees.
        let visible = |row: usize| {
            let positions = self.positions(rows.tokens.start + row / group);
            positions.saturating_sub(index * BLOCK).min(BLOCK)
        };
        let Scratch {
            tile, converted, ..
        } = scratch;
        let n = rows.tokens.len() * group;
        let mut block = self.cache.block(self.layer, rows.kv_head, index);
        if let AnyBlock::F16(half) = block
            && n >= CONVERT
        {
            block = AnyBlock::F32(converted.convert(half, d, visible(n - 1)));
        }
        for start in (0..n).step_by(tile::ROWS) {
            let part = start..n.min(start + tile::ROWS);
            let mut lens = [0; tile::ROWS];
            for (len, row) in lens.iter_mut().zip(part.clone()) {
                *len = visible(row);
            }
            let lens = &lens[..part.len()];
            if lens.ends_with(&[0]) {
                continue;
            }
            let at = part.start * d..part.end * d;
            let found = match block {
                AnyBlock::F32(block) => {
                    tile.floats(kernels, kernels.panels_f32, block, &rows.q[at], lens)
                }
                AnyBlock::F16(block) => {
                    tile.floats(kernels, kernels.panels_f16, block, &rows.q[at], lens)
                }
                AnyBlock::Q8(block) => {
                    let factors = &rows.factors[part.clone()];
                    tile.codes(kernels, block, &rows.codes[at], factors, lens)
                }
            };
            for (i, row) in part.enumerate().filter(|(i, _)| lens[*i] > 0) {
                out(row, found[i], tile.sums(i, d));
            }
        }
    }

    fn tokens(&self) -> usize {
        self.q.len() / (self.heads * self.cache.head_dim())
    }

    /// Query heads of a kv head.
    fn group(&self) -> usize {
        self.heads / self.cache.kv_heads()
    }

    /// Positions that a token sees, itself included.
    fn positions(&self, token: usize) -> usize {
        self.cache.len() + token + 1
    }

    /// Blocks that any token sees.
    fn blocks(&self) -> usize {
        self.positions(self.tokens() - 1).div_ceil(BLOCK)
    }
}
