//! Causal attention over a KV cache: y = softmax(q · k / √head_dim) · v, over all positions up to
//! the query's or over a window of the last ones.
//!
//! The query heads that share a kv head, for all tokens at hand, are the rows of one product: each
//! key and value is loaded once for all of them. Positions are cut at multiples of [`BLOCK`]. A row
//! gets from each block the largest score, the sum of weights relative to it, and the weighted sum
//! of values; a row's blocks are merged in their order, as in "FlashAttention" (Dao et al. 2022).
//! So the bits of a result depend neither on the rows computed with it nor on which thread computed
//! which block.
//!
//! Threads take some tokens of a sequence and one kv head, over all blocks. Where that is too much
//! for one thread, since few tokens follow a long cache, threads take single blocks: all blocks of
//! one kv head before those of the next one. A thread that takes the blocks of a head from the
//! first one on merges them as it goes; the caller merges what is left. In both cases the tokens of
//! all sequences are one region.
//!
//! An int8 cache is multiplied in integers: queries and weights are quantized to 16 bits.

mod merged;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use crate::cache::{AnyBlock, BLOCK, KvCache, padded};
use crate::kernels::{self, Kernels, LARGEST};
use crate::state::grow;
use crate::threads::Pool;
use merged::Merged;
use tile::{AttentionTile, Converted};

/// The next tokens of some sequences.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub kernels: &'static Kernels,
    pub layer: usize,
    pub heads: usize,
    /// Scores are divided by the root of this.
    pub query_pre_attn_scalar: f32,
    /// Positions that a token sees, itself included; all of them if there is none.
    pub window: Option<usize>,
    pub sequences: &'a [Sequence<'a>],
}

/// The queries of consecutive tokens at the end of a cache, which already holds their keys and
/// values.
#[derive(Clone, Copy)]
pub(crate) struct Sequence<'a> {
    pub cache: &'a KvCache,
    pub q: &'a [f32], // (tokens, heads, head_dim)
}

/// Working memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    threads: Vec<Scratch>,
    partials: Vec<f32>, // those of every sequence
    kinds: Vec<Kind>,   // of each partial result
    merged: Merged,
}

/// Working memory of a thread.
#[derive(Debug, Default)]
struct Scratch {
    rows: QueryRows,
    tiles: Tiles,
    merged: Merged,
    head: Option<TakenHead>,
}

/// The kv head whose single blocks a thread took last. Its queries are still prepared.
#[derive(Debug, PartialEq)]
struct TakenHead {
    job: usize,
    kv_head: usize,
    /// The block before which all are merged.
    merged_to: usize,
}

/// What the partial results of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
enum Kind {
    /// Those of the block.
    #[default]
    Block,
    /// Those of all blocks so far, merged.
    Merged,
}

#[derive(Debug, Default)]
struct Tiles {
    tile: AttentionTile,
    converted: Converted,
}

/// The queries of a piece.
#[derive(Debug, Default)]
struct QueryRows {
    q: Vec<f32>,       // (rows, head_dim), times log₂ e / √query_pre_attn_scalar
    codes: Vec<i16>,   // (rows, head_dim)
    factors: Vec<f32>, // (rows)
}

/// A sequence, its result, and room for the partial results of its blocks if threads take single
/// blocks.
struct Job<'a> {
    sequence: Sequence<'a>,
    y: &'a mut [f32],        // (tokens, heads, head_dim)
    partials: &'a mut [f32], // (kv_heads, blocks, rows, padded head_dim + 3)
    kinds: &'a mut [Kind],   // (kv_heads, blocks)
}

/// What one thread computes at a time.
struct Piece<'a> {
    queries: Queries<'a>,
    out: Out<'a>,
}

/// Some tokens of a sequence, with the heads that read one kv head.
#[derive(Clone)]
struct Queries<'a> {
    sequence: Sequence<'a>,
    kv_head: usize,
    tokens: Range<usize>,
}

enum Out<'a> {
    /// The result of each token, (group, head_dim).
    Whole(Vec<&'a mut [f32]>),
    /// Partial results.
    Block(Partial<'a>),
}

/// The partial results of a block.
struct Partial<'a> {
    job: usize,
    block: usize,
    numbers: &'a mut [f32], // (rows, padded head_dim + 3)
    kind: &'a mut Kind,
}

/// Most tokens whose blocks are shared out among threads.
const FEW: usize = 16;
/// Most tokens that a thread takes at a time.
const TOKENS: usize = 32;
/// Fewest rows for which a block in half precision is converted once.
const CONVERT: usize = 16;

impl Attention<'_> {
    /// Fills `y` (tokens, heads, head_dim), one sequence after the other.
    pub fn compute(&self, pool: &Pool, memory: &mut Memory, mut y: &mut [f32]) {
        // A piece costs at most a quarter of a thread's share, so that threads end together.
        let cost: usize = self.sequences.iter().map(|s| self.cost(s)).sum();
        let share = (cost * self.kv_heads()).div_ceil(4 * pool.threads());
        let partials = |sequence: &Sequence| match self.in_blocks(sequence, share) {
            true => self.blocks(sequence).len() * self.kv_heads(),
            false => 0,
        };
        let partials_len = |sequence: &Sequence| partials(sequence) * self.block_len(sequence);
        grow(
            &mut memory.partials,
            self.sequences.iter().map(partials_len).sum(),
        );
        grow(&mut memory.kinds, self.sequences.iter().map(partials).sum());
        memory.threads.resize_with(pool.threads(), Scratch::default);
        for thread in &mut memory.threads {
            thread.head = None;
        }

        // Each sequence gets its part of y, and memory for partial results if it is cut into
        // blocks.
        let (mut numbers, mut kinds) = (&mut memory.partials[..], &mut memory.kinds[..]);
        let jobs = self.sequences.iter().map(|sequence| Job {
            sequence: *sequence,
            y: y.split_off_mut(..sequence.q.len())
                .expect("y is as long as the queries"),
            partials: numbers
                .split_off_mut(..partials_len(sequence))
                .expect("they were made as long as needed"),
            kinds: kinds
                .split_off_mut(..partials(sequence))
                .expect("they were made as long as needed"),
        });
        let mut jobs: Vec<Job> = jobs.collect();
        let mut pieces = Vec::new();
        for (i, job) in jobs.iter_mut().enumerate() {
            match job.partials {
                [] => self.push_tokens(&mut pieces, job, share),
                _ => self.push_blocks(&mut pieces, i, job),
            }
        }
        // One region for all pieces; then the caller merges the sequences that were cut into
        // blocks.
        pool.chunks_mut_with(&mut pieces, 1, &mut memory.threads, |_, piece, scratch| {
            self.piece(&mut piece[0], &mut scratch[0]);
        });
        for job in jobs.iter_mut().filter(|job| !job.partials.is_empty()) {
            self.merge(job, &mut memory.merged);
        }
    }

    /// The cost of a sequence for each kv head.
    fn cost(&self, sequence: &Sequence) -> usize {
        self.tokens(sequence) * self.blocks(sequence).len()
    }

    /// Whether a sequence is cut into blocks, since a piece should cost no more than `share`.
    fn in_blocks(&self, sequence: &Sequence, share: usize) -> bool {
        let few = self.tokens(sequence) <= FEW && self.blocks(sequence).len() > 1;
        few && self.cost(sequence) > share
    }

    /// Pieces of some tokens and all blocks; those of a kv head lie beside each other.
    fn push_tokens<'a>(&self, pieces: &mut Vec<Piece<'a>>, job: &'a mut Job, share: usize) {
        let sequence = job.sequence;
        let (kv_heads, tokens) = (self.kv_heads(), self.tokens(&sequence));
        let height = (share / self.blocks(&sequence).len()).clamp(1, TOKENS);
        let tiles = tokens.div_ceil(height);
        let mut y: Vec<Vec<&mut [f32]>> = Vec::new(); // (kv_heads, tiles)
        y.resize_with(kv_heads * tiles, || Vec::with_capacity(height));
        let heads = job.y.chunks_exact_mut(self.group() * self.head_dim());
        for (i, heads) in heads.enumerate() {
            let (t, kv_head) = (i / kv_heads, i % kv_heads);
            y[kv_head * tiles + t / height].push(heads);
        }
        pieces.extend(y.into_iter().enumerate().map(|(i, y)| {
            let start = i % tiles * height;
            let queries = Queries {
                sequence,
                kv_head: i / tiles,
                tokens: start..start + y.len(),
            };
            let out = Out::Whole(y);
            Piece { queries, out }
        }));
    }

    /// Pieces of all tokens and one block; those of a kv head follow each other.
    fn push_blocks<'a>(&self, pieces: &mut Vec<Piece<'a>>, index: usize, job: &'a mut Job) {
        let sequence = job.sequence;
        let (tokens, blocks) = (self.tokens(&sequence), self.blocks(&sequence));
        let numbers = job.partials.chunks_exact_mut(self.block_len(&sequence));
        let partials = numbers.zip(&mut *job.kinds).enumerate();
        pieces.extend(partials.map(|(i, (numbers, kind))| {
            let queries = Queries {
                sequence,
                kv_head: i / blocks.len(),
                tokens: 0..tokens,
            };
            let out = Out::Block(Partial {
                job: index,
                block: blocks.start + i % blocks.len(),
                numbers,
                kind,
            });
            Piece { queries, out }
        }));
    }

    fn piece(&self, Piece { queries, out }: &mut Piece, scratch: &mut Scratch) {
        match out {
            Out::Whole(y) => self.whole(queries, y, scratch),
            Out::Block(partial) => self.partial(queries, partial, scratch),
        }
    }

    /// The results of some tokens and a kv head.
    fn whole(&self, queries: &Queries, y: &mut [&mut [f32]], scratch: &mut Scratch) {
        let (d, kernels) = (self.head_dim(), self.kernels);
        let Scratch {
            rows,
            tiles,
            merged,
            head,
        } = scratch;
        *head = None;
        self.prepare(rows, queries);
        merged.clear(queries.tokens.len() * self.group(), padded(d));
        for block in self.blocks_of(&queries.sequence, queries.tokens.clone()) {
            self.block(queries, rows, block, tiles, |row, x, sums| {
                merged.add(kernels, row, x, sums);
            });
        }
        let y = y.iter_mut().flat_map(|y| y.chunks_exact_mut(d));
        y.enumerate().for_each(|(row, y)| merged.finish(row, y));
    }

    /// The partial results of a block: merged with those of the blocks before, if this thread has
    /// them all.
    fn partial(&self, queries: &Queries, partial: &mut Partial, scratch: &mut Scratch) {
        let (width, kernels) = (padded(self.head_dim()), self.kernels);
        let Scratch {
            rows,
            tiles,
            merged,
            head,
        } = scratch;
        let first = self.blocks(&queries.sequence).start;
        let of_head = |head: &TakenHead| (head.job, head.kv_head) == (partial.job, queries.kv_head);
        let head = match head.take_if(|head| of_head(head)) {
            Some(known) => head.insert(known),
            None => {
                self.prepare(rows, queries);
                merged.clear(queries.tokens.len() * self.group(), width);
                head.insert(TakenHead {
                    job: partial.job,
                    kv_head: queries.kv_head,
                    merged_to: first,
                })
            }
        };
        // Sums of values weighted by the softmax, then the three numbers of a `SoftmaxBlock`.
        let len = width + 3;
        if head.merged_to == partial.block {
            self.block(queries, rows, partial.block, tiles, |row, x, sums| {
                merged.add(kernels, row, x, sums);
            });
            for (row, numbers) in partial.numbers.chunks_exact_mut(len).enumerate() {
                merged.save(row, numbers);
            }
            head.merged_to += 1;
            *partial.kind = Kind::Merged;
        } else {
            self.block(queries, rows, partial.block, tiles, |row, x, sums| {
                let (to_sums, to_x) = partial.numbers[row * len..][..len].split_at_mut(width);
                to_sums.copy_from_slice(sums);
                to_x.copy_from_slice(&[x.max, x.sum, x.factor]);
            });
            *partial.kind = Kind::Block;
        }
    }

    /// Fills y of a sequence from the partial results of its blocks.
    fn merge(&self, job: &mut Job, merged: &mut Merged) {
        let Job {
            sequence,
            y,
            partials,
            kinds,
        } = job;
        let (d, group) = (self.head_dim(), self.group());
        let (len, block_len) = (padded(d) + 3, self.block_len(sequence));
        let blocks = self.blocks(sequence);
        for (i, y) in y.chunks_exact_mut(d).enumerate() {
            let (t, head) = (i / self.heads, i % self.heads);
            let (kv_head, row) = (head / group, t * group + head % group);
            let of_head = kv_head * blocks.len()..(kv_head + 1) * blocks.len();
            let numbers = |block: usize| {
                let at = (of_head.start + block - blocks.start) * block_len + row * len;
                &partials[at..at + len]
            };
            // The blocks of a row are merged in their order: only then are the bits always the
            // same. A thread has merged some of the first ones.
            merged.clear(1, padded(d));
            let kinds = &kinds[of_head.clone()];
            let done = kinds.iter().rposition(|kind| *kind == Kind::Merged);
            let done = done.map(|i| blocks.start + i);
            if let Some(block) = done {
                merged.restore(0, numbers(block));
            }
            let mut left = self.blocks_of(sequence, t..t + 1);
            left.start = left.start.max(done.map_or(0, |block| block + 1));
            for block in left {
                let (sums, x) = numbers(block).split_at(len - 3);
                let x = kernels::SoftmaxBlock {
                    max: x[0],
                    sum: x[1],
                    factor: x[2],
                };
                merged.add(self.kernels, 0, x, sums);
            }
            merged.finish(0, y);
        }
    }

    /// Fills `rows` with some queries.
    fn prepare(&self, rows: &mut QueryRows, queries: &Queries) {
        let Queries {
            sequence: Sequence { cache, q },
            kv_head,
            tokens,
        } = queries.clone();
        let d = self.head_dim();
        let group = self.group() * d;
        let scale = std::f32::consts::LOG2_E / self.query_pre_attn_scalar.sqrt();
        let q = |t: usize| &q[t * self.heads * d + kv_head * group..][..group];
        if let AnyBlock::Q8(_) = cache.block(self.layer, kv_head, 0) {
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
        queries: &Queries,
        rows: &QueryRows,
        index: usize,
        Tiles { tile, converted }: &mut Tiles,
        mut out: impl FnMut(usize, kernels::SoftmaxBlock, &[f32]),
    ) {
        let (d, group, kernels) = (self.head_dim(), self.group(), self.kernels);
        let Queries {
            sequence,
            kv_head,
            tokens,
        } = queries;
        // Positions of the block that a row sees; their ends never fall from row to row.
        let visible = |row: usize| {
            let positions = self.positions(sequence, tokens.start + row / group);
            let in_block = |position: usize| position.saturating_sub(index * BLOCK).min(BLOCK);
            in_block(positions.start)..in_block(positions.end)
        };
        let n = tokens.len() * group;
        let mut block = sequence.cache.block(self.layer, *kv_head, index);
        if let AnyBlock::F16(half) = block
            && n >= CONVERT
        {
            block = AnyBlock::F32(converted.convert(half, d, visible(n - 1).end));
        }
        for start in (0..n).step_by(tile::ROWS) {
            let part = start..n.min(start + tile::ROWS);
            let mut seen = [const { 0..0 }; tile::ROWS];
            for (seen, row) in seen.iter_mut().zip(part.clone()) {
                *seen = visible(row);
            }
            let seen = &seen[..part.len()];
            if seen.iter().all(Range::is_empty) {
                continue;
            }
            let at = part.start * d..part.end * d;
            let found = match block {
                AnyBlock::F32(block) => {
                    tile.floats(kernels, kernels.panels_f32, block, &rows.q[at], seen)
                }
                AnyBlock::F16(block) => {
                    tile.floats(kernels, kernels.panels_f16, block, &rows.q[at], seen)
                }
                AnyBlock::Q8(block) => {
                    let factors = &rows.factors[part.clone()];
                    tile.codes(kernels, block, &rows.codes[at], factors, seen)
                }
            };
            for (i, row) in part.enumerate().filter(|(i, _)| !seen[*i].is_empty()) {
                out(row, found[i], tile.sums(i, d));
            }
        }
    }

    /// Of every cache.
    fn head_dim(&self) -> usize {
        self.sequences[0].cache.head_dim()
    }

    /// Of every cache.
    fn kv_heads(&self) -> usize {
        self.sequences[0].cache.kv_heads()
    }

    /// Query heads of a kv head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads()
    }

    fn tokens(&self, sequence: &Sequence) -> usize {
        sequence.q.len() / (self.heads * self.head_dim())
    }

    /// Blocks that any token sees.
    fn blocks(&self, sequence: &Sequence) -> Range<usize> {
        self.blocks_of(sequence, 0..self.tokens(sequence))
    }

    /// Blocks that any of some tokens sees.
    fn blocks_of(&self, sequence: &Sequence, tokens: Range<usize>) -> Range<usize> {
        let first = self.positions(sequence, tokens.start).start;
        let end = self.positions(sequence, tokens.end - 1).end;
        first / BLOCK..end.div_ceil(BLOCK)
    }

    /// Positions that a token sees, its own included.
    fn positions(&self, sequence: &Sequence, token: usize) -> Range<usize> {
        let end = sequence.cache.len() + token + 1;
        end.saturating_sub(self.window.unwrap_or(end))..end
    }

    /// Partial results of a block.
    fn block_len(&self, sequence: &Sequence) -> usize {
        self.tokens(sequence) * self.group() * (padded(self.head_dim()) + 3)
    }
}
