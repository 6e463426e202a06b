//! Causal attention with grouped heads and rotary positions, in blocks of queries.
//!
//! Memory holds the scores of one block of queries against all keys up to its last query, never a
//! matrix (tokens, tokens). The forward pass keeps the logarithm of the sum of exponentials of each
//! query; the backward pass computes the probabilities again from it (the idea of FlashAttention,
//! Dao et al. 2022). Queries and keys are rotated here, and their gradients are rotated back.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use sterna_ternary::Config;

use super::math::{dot, exp, exp_sum, max};
use super::matmul::{Mat, matmul};
use super::{Saved, tensor_like, values, vectorized, with_values};
use crate::timers::{Part, timer};

/// Queries of one block.
const BLOCK: usize = 32;

/// Tables of cosines and sines, each (positions, head_dim / 2).
pub struct RopeTable {
    /// Cosines of the angles.
    pub cos: Vec<f32>,
    /// Sines of the angles.
    pub sin: Vec<f32>,
}

/// How the flat tensors divide into sequences and heads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Tokens of one sequence. The number of sequences follows from the length of the tensors.
    pub context: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// The shape of a model's attention over sequences of `context` tokens.
    pub fn new(config: &Config, context: usize) -> AttentionShape {
        AttentionShape {
            context,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    pub(super) fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// The start of each token's document (tokens): the first position of its sequence that the token
/// attends to. Within a sequence these positions never decrease.
pub type DocumentStarts = Arc<Vec<u32>>;

/// q (tokens, heads · head_dim), k and v (tokens, kv_heads · head_dim) to (tokens, heads ·
/// head_dim).
///
/// Without `starts` a token attends to all tokens before it in its sequence, and to itself.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: AttentionShape,
    rope: &Arc<RopeTable>,
    starts: Option<&DocumentStarts>,
) -> Result<Tensor> {
    q.apply_op3(
        k,
        v,
        Op {
            shape,
            rope: rope.clone(),
            starts: starts.cloned(),
            saved: Saved::new(),
        },
    )
}

struct Op {
    shape: AttentionShape,
    rope: Arc<RopeTable>,
    starts: Option<DocumentStarts>,
    saved: Saved<Rotated>,
}

impl Op {
    /// Pairs of a query and a key that it attends to, over all heads, times the width of a head,
    /// for this number of query values.
    fn pairs(&self, q: usize) -> usize {
        let tokens = q / self.shape.q_width();
        let hidden = self.starts.iter().flat_map(|starts| starts.iter());
        let hidden: usize = hidden.map(|start| *start as usize).sum();
        (tokens * (self.shape.context + 1) / 2 - hidden) * self.shape.q_width()
    }
}

struct Rotated {
    /// Rotated and divided by √head_dim; its gradient is divided as it is rotated back.
    q: Vec<f32>,
    k: Vec<f32>,
    /// log Σ exp(score) of each (sequence, head, position).
    log_sums: Vec<f32>,
}

/// The direction of a rotation, and a factor of its result.
#[derive(Clone, Copy)]
enum Turn {
    /// By the angle of the position.
    Forward(f32),
    /// By the negative angle.
    Back(f32),
}

/// Rotates every head of every token.
fn rotate(x: &mut [f32], width: usize, shape: &AttentionShape, rope: &RopeTable, turn: Turn) {
    let half = shape.head_dim / 2;
    let (sign, factor) = match turn {
        Turn::Forward(factor) => (1.0, factor),
        Turn::Back(factor) => (-1.0, factor),
    };
    vectorized(
        #[inline(always)]
        || {
            for (token, x) in x.chunks_exact_mut(width).enumerate() {
                let start = token % shape.context * half;
                let (cos, sin) = (
                    &rope.cos[start..start + half],
                    &rope.sin[start..start + half],
                );
                for head in x.chunks_exact_mut(shape.head_dim) {
                    let (low, high) = head.split_at_mut(half);
                    for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                        let (x, y, s) = (*a, *b, s * sign);
                        *a = (x * c - y * s) * factor;
                        *b = (y * c + x * s) * factor;
                    }
                }
            }
        },
    );
}

/// One block of queries of one head of one sequence, with the offsets of its parts in the flat
/// tensors.
struct Block {
    /// First element of its queries, of its first key, and of its log sums.
    q: usize,
    k: usize,
    log_sum: usize,
    /// Number of queries, and of keys up to the last query.
    queries: usize,
    keys: usize,
    /// Its first token in the batch, and the position of its first key in the sequence.
    token: usize,
    first_key: usize,
}

impl Block {
    /// The keys that query `i` attends to, counted from the first key of the block.
    #[inline(always)]
    fn seen(&self, i: usize, starts: Option<&[u32]>) -> Range<usize> {
        let start = starts.map_or(0, |starts| starts[self.token + i] as usize - self.first_key);
        start..self.keys - self.queries + i + 1
    }
}

/// Calls `f` for each block of each head of each sequence.
fn for_each_block(
    shape: &AttentionShape,
    starts: Option<&[u32]>,
    tokens: usize,
    mut f: impl FnMut(&Block),
) {
    let group = shape.heads / shape.kv_heads;
    for sequence in 0..tokens / shape.context {
        for head in 0..shape.heads {
            for first in (0..shape.context).step_by(BLOCK) {
                let queries = BLOCK.min(shape.context - first);
                let token = sequence * shape.context + first;
                let first_key = starts.map_or(0, |starts| starts[token] as usize);
                let key = sequence * shape.context + first_key;
                f(&Block {
                    q: token * shape.q_width() + head * shape.head_dim,
                    k: key * shape.kv_width() + head / group * shape.head_dim,
                    log_sum: (sequence * shape.heads + head) * shape.context + first,
                    queries,
                    keys: first + queries - first_key,
                    token,
                    first_key,
                });
            }
        }
    }
}

/// Turns the scores of a block (queries, keys) into probabilities in place, and writes the log sum
/// of each query.
#[inline(always)]
fn causal_softmax(scores: &mut [f32], block: &Block, starts: Option<&[u32]>, log_sums: &mut [f32]) {
    let rows = scores.chunks_exact_mut(block.keys).zip(log_sums);
    for (i, (row, log_sum)) in rows.enumerate() {
        let Range { start, end } = block.seen(i, starts);
        row[..start].fill(0.0);
        row[end..].fill(0.0);
        let seen = &mut row[start..end];
        let max = max(seen);
        let sum = exp_sum(seen, max);
        let inverse = 1.0 / sum;
        seen.iter_mut().for_each(|x| *x *= inverse);
        *log_sum = max + libm::logf(sum);
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = &self.shape;
        // Two products forward, five backward, each with two operations per pair and width.
        let _timer = timer(
            Part::Attention,
            4 * self.pairs(q_layout.shape().elem_count()),
        );
        let (mut q, mut k) = (values(q, q_layout)?.to_vec(), values(k, k_layout)?.to_vec());
        let v = values(v, v_layout)?;
        let (q_width, kv_width, head_dim) = (shape.q_width(), shape.kv_width(), shape.head_dim);
        rotate(
            &mut q,
            q_width,
            shape,
            &self.rope,
            Turn::Forward(shape.scale()),
        );
        rotate(&mut k, kv_width, shape, &self.rope, Turn::Forward(1.0));
        let tokens = q.len() / q_width;
        // q, k and v are flat: (tokens, heads · head_dim) and (tokens, kv_heads · head_dim). The
        // blocks below are views into them with the full width as row stride.
        let mut out = vec![0.0; q.len()];
        let mut log_sums = vec![0.0; tokens * shape.heads];
        let mut scores = vec![0.0; BLOCK * shape.context];
        let starts = self.starts.as_ref().map(|starts| &starts[..]);
        for_each_block(shape, starts, tokens, |b| {
            let scores = &mut scores[..b.queries * b.keys];
            // scores (queries, keys) = q kᵀ
            let queries = Mat::block(&q[..], b.q, b.queries, head_dim, q_width);
            let keys = Mat::block(&k[..], b.k, b.keys, head_dim, kv_width);
            matmul(
                Mat::new(&mut *scores, b.queries, b.keys),
                0.0,
                queries,
                keys.t(),
            );
            let log_sums = &mut log_sums[b.log_sum..b.log_sum + b.queries];
            vectorized(
                #[inline(always)]
                || causal_softmax(scores, b, starts, log_sums),
            );
            // out (queries, head_dim) = probabilities · v
            let out = Mat::block(&mut out[..], b.q, b.queries, head_dim, q_width);
            let values = Mat::block(v, b.k, b.keys, head_dim, kv_width);
            matmul(out, 0.0, Mat::new(&*scores, b.queries, b.keys), values);
        });
        self.saved.set(Rotated { q, k, log_sums });
        Ok((CpuStorage::F32(out), Shape::from((tokens, q_width))))
    }

    /// With P the probabilities: dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - Σ dO O), dQ = dS K, dK = dSᵀ
    /// Q.
    ///
    /// P is computed again from the rotated q and k and the log sums of the forward pass.
    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let shape = &self.shape;
        let _timer = timer(Part::Attention, 10 * self.pairs(q.elem_count()));
        let Rotated {
            q: q_rotated,
            k: k_rotated,
            log_sums,
        } = self.saved.take()?;
        let (q_width, kv_width, head_dim) = (shape.q_width(), shape.kv_width(), shape.head_dim);
        let mut dq = vec![0.0; q_rotated.len()];
        let mut dk = vec![0.0; k_rotated.len()];
        let mut dv = vec![0.0; k_rotated.len()];
        // Room for P and dS of one block, (queries, keys).
        let mut p = vec![0.0; BLOCK * shape.context];
        let mut ds = p.clone();
        let starts = self.starts.as_ref().map(|starts| &starts[..]);
        let mut backward = |v: &[f32], out: &[f32], dout: &[f32]| {
            for_each_block(shape, starts, q_rotated.len() / q_width, |b| {
                let (p, ds) = (&mut p[..b.queries * b.keys], &mut ds[..b.queries * b.keys]);
                // Views of this head: queries and dO (queries, head_dim), keys and values (keys,
                // head_dim).
                let queries = Mat::block(&q_rotated[..], b.q, b.queries, head_dim, q_width);
                let keys = Mat::block(&k_rotated[..], b.k, b.keys, head_dim, kv_width);
                let values = Mat::block(v, b.k, b.keys, head_dim, kv_width);
                let douts = Mat::block(dout, b.q, b.queries, head_dim, q_width);
                // p holds the scores at first, and ds holds dP.
                matmul(Mat::new(&mut *p, b.queries, b.keys), 0.0, queries, keys.t());
                matmul(
                    Mat::new(&mut *ds, b.queries, b.keys),
                    0.0,
                    douts,
                    values.t(),
                );
                vectorized(
                    #[inline(always)]
                    || {
                        for i in 0..b.queries {
                            // Per query: Σ dO O, then P and dS in place, 0 for keys that it does
                            // not attend to.
                            let at = b.q + i * q_width;
                            let row = at..at + head_dim;
                            let sum = dot(&out[row.clone()], &dout[row]);
                            let log_sum = log_sums[b.log_sum + i];
                            let Range { start, end } = b.seen(i, starts);
                            let (p, ds) = (
                                &mut p[i * b.keys..][..b.keys],
                                &mut ds[i * b.keys..][..b.keys],
                            );
                            for hidden in [0..start, end..b.keys] {
                                p[hidden.clone()].fill(0.0);
                                ds[hidden].fill(0.0);
                            }
                            for (p, ds) in p[start..end].iter_mut().zip(&mut ds[start..end]) {
                                *p = exp(*p - log_sum);
                                *ds = *p * (*ds - sum);
                            }
                        }
                    },
                );
                let (p, ds) = (
                    Mat::new(&*p, b.queries, b.keys),
                    Mat::new(&*ds, b.queries, b.keys),
                );
                // Several query heads share a key head, so its gradients are added over the heads
                // and blocks; each query is in one block only.
                let head = |start, data| Mat::block(data, start, b.keys, head_dim, kv_width);
                matmul(head(b.k, &mut dv[..]), 1.0, p.t(), douts);
                matmul(head(b.k, &mut dk[..]), 1.0, ds.t(), queries);
                let dq = Mat::block(&mut dq[..], b.q, b.queries, head_dim, q_width);
                matmul(dq, 0.0, ds, keys);
            });
        };
        let dout = dout.contiguous()?;
        with_values(v, |v| {
            with_values(out, |out| with_values(&dout, |dout| backward(v, out, dout)))
        })???;
        rotate(
            &mut dq,
            q_width,
            shape,
            &self.rope,
            Turn::Back(shape.scale()),
        );
        rotate(&mut dk, kv_width, shape, &self.rope, Turn::Back(1.0));
        Ok((
            Some(tensor_like(dq, q)?),
            Some(tensor_like(dk, k)?),
            Some(tensor_like(dv, v)?),
        ))
    }
}
