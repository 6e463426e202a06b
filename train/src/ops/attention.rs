//! Causal attention with grouped heads and rotary positions, in blocks of queries.
//!
//! The scores of a block of queries against all keys before them exist at a time, never (tokens, tokens).
//! Forward keeps the log of each row's sum of exponentials; backward makes the probabilities again from it
//! (the idea of FlashAttention, Dao et al. 2022). Queries and keys are rotated here, and their gradients
//! are rotated back.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use sterna_ternary::Config;

use super::math::{dot, exp, max};
use super::matmul::{Mat, matmul};
use super::{Saved, tensor_like, values, vectorized, with_values};

/// Queries whose scores exist at a time.
const BLOCK: usize = 64;

/// cos and sin, each (positions, head_dim / 2).
pub struct RopeTable {
    /// Cosines of the angles.
    pub cos: Vec<f32>,
    /// Sines of the angles.
    pub sin: Vec<f32>,
}

/// What the flat tensors mean.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Tokens of one sequence; the batch is as many sequences as fit.
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

/// Where each token's document starts: the first position of its sequence that the token may look at. Never
/// falls within a sequence. (tokens)
pub type DocumentStarts = Arc<Vec<u32>>;

/// q (tokens, heads · head_dim), k and v (tokens, kv_heads · head_dim) to (tokens, heads · head_dim). Without
/// `starts` a token looks at all before it.
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

struct Rotated {
    q: Vec<f32>,
    k: Vec<f32>,
    /// log Σ exp(score) for each (sequence, head, position).
    log_sums: Vec<f32>,
}

/// Rotates every head of every token, forwards or, with `back`, by the negative angle.
fn rotate(x: &mut [f32], width: usize, shape: &AttentionShape, rope: &RopeTable, back: bool) {
    let half = shape.head_dim / 2;
    let sign = if back { -1.0 } else { 1.0 };
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
                        *a = x * c - y * s;
                        *b = y * c + x * s;
                    }
                }
            }
        },
    );
}

/// One block of queries of one head of one sequence: where its parts lie in the flat tensors.
struct Block {
    /// First element of the block's queries, of the keys that the first of them sees, and of the log sums.
    q: usize,
    k: usize,
    log_sum: usize,
    /// Queries in the block and keys up to its last query.
    queries: usize,
    keys: usize,
    /// Its first token, and the position of the first key.
    token: usize,
    first_key: usize,
}

impl Block {
    /// The keys that query `i` sees.
    #[inline(always)]
    fn seen(&self, i: usize, starts: Option<&[u32]>) -> Range<usize> {
        let start = starts.map_or(0, |starts| starts[self.token + i] as usize - self.first_key);
        start..self.keys - self.queries + i + 1
    }
}

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

/// Scores of a block to probabilities in place; returns each row's log sum through `log_sums`.
#[inline(always)]
fn causal_softmax(scores: &mut [f32], block: &Block, starts: Option<&[u32]>, log_sums: &mut [f32]) {
    let rows = scores.chunks_exact_mut(block.keys).zip(log_sums);
    for (i, (row, log_sum)) in rows.enumerate() {
        let Range { start, end } = block.seen(i, starts);
        row[..start].fill(0.0);
        row[end..].fill(0.0);
        let seen = &mut row[start..end];
        let max = max(seen);
        let mut lanes = [0f32; 8];
        for (j, x) in seen.iter_mut().enumerate() {
            *x = exp(*x - max);
            lanes[j % 8] += *x;
        }
        let sum: f32 = lanes.iter().sum();
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
        let (mut q, mut k) = (values(q, q_layout)?.to_vec(), values(k, k_layout)?.to_vec());
        let v = values(v, v_layout)?;
        let (q_width, kv_width, head_dim) = (shape.q_width(), shape.kv_width(), shape.head_dim);
        rotate(&mut q, q_width, shape, &self.rope, false);
        rotate(&mut k, kv_width, shape, &self.rope, false);
        let tokens = q.len() / q_width;
        let mut out = vec![0.0; q.len()];
        let mut log_sums = vec![0.0; tokens * shape.heads];
        let mut scores = vec![0.0; BLOCK * shape.context];
        let starts = self.starts.as_ref().map(|starts| &starts[..]);
        for_each_block(shape, starts, tokens, |b| {
            let scores = &mut scores[..b.queries * b.keys];
            let queries = Mat::block(&q[..], b.q, b.queries, head_dim, q_width);
            let keys = Mat::block(&k[..], b.k, b.keys, head_dim, kv_width);
            matmul(
                Mat::new(&mut *scores, b.queries, b.keys),
                0.0,
                shape.scale(),
                queries,
                keys.t(),
            );
            let log_sums = &mut log_sums[b.log_sum..b.log_sum + b.queries];
            vectorized(
                #[inline(always)]
                || causal_softmax(scores, b, starts, log_sums),
            );
            let out = Mat::block(&mut out[..], b.q, b.queries, head_dim, q_width);
            let values = Mat::block(v, b.k, b.keys, head_dim, kv_width);
            matmul(out, 0.0, 1.0, Mat::new(&*scores, b.queries, b.keys), values);
        });
        self.saved.set(Rotated { q, k, log_sums });
        Ok((CpuStorage::F32(out), Shape::from((tokens, q_width))))
    }

    /// With P the probabilities: dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - Σ dO O), dQ = dS K, dK = dSᵀ Q.
    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let shape = &self.shape;
        let Rotated {
            q: q_rotated,
            k: k_rotated,
            log_sums,
        } = self.saved.take()?;
        let (q_width, kv_width, head_dim) = (shape.q_width(), shape.kv_width(), shape.head_dim);
        let mut dq = vec![0.0; q_rotated.len()];
        let mut dk = vec![0.0; k_rotated.len()];
        let mut dv = vec![0.0; k_rotated.len()];
        let mut p = vec![0.0; BLOCK * shape.context];
        let mut ds = p.clone();
        let starts = self.starts.as_ref().map(|starts| &starts[..]);
        let mut backward = |v: &[f32], out: &[f32], dout: &[f32]| {
            for_each_block(shape, starts, q_rotated.len() / q_width, |b| {
                let (p, ds) = (&mut p[..b.queries * b.keys], &mut ds[..b.queries * b.keys]);
                let queries = Mat::block(&q_rotated[..], b.q, b.queries, head_dim, q_width);
                let keys = Mat::block(&k_rotated[..], b.k, b.keys, head_dim, kv_width);
                let values = Mat::block(v, b.k, b.keys, head_dim, kv_width);
                let douts = Mat::block(dout, b.q, b.queries, head_dim, q_width);
                matmul(
                    Mat::new(&mut *p, b.queries, b.keys),
                    0.0,
                    shape.scale(),
                    queries,
                    keys.t(),
                );
                matmul(
                    Mat::new(&mut *ds, b.queries, b.keys),
                    0.0,
                    1.0,
                    douts,
                    values.t(),
                );
                vectorized(
                    #[inline(always)]
                    || {
                        for i in 0..b.queries {
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
                let head = |start, data| Mat::block(data, start, b.keys, head_dim, kv_width);
                matmul(head(b.k, &mut dv[..]), 1.0, 1.0, p.t(), douts);
                matmul(head(b.k, &mut dk[..]), 1.0, shape.scale(), ds.t(), queries);
                let dq = Mat::block(&mut dq[..], b.q, b.queries, head_dim, q_width);
                matmul(dq, 0.0, shape.scale(), ds, keys);
            });
        };
        let dout = dout.contiguous()?;
        with_values(v, |v| {
            with_values(out, |out| with_values(&dout, |dout| backward(v, out, dout)))
        })???;
        rotate(&mut dq, q_width, shape, &self.rope, true);
        rotate(&mut dk, kv_width, shape, &self.rope, true);
        Ok((
            Some(tensor_like(dq, q)?),
            Some(tensor_like(dk, k)?),
            Some(tensor_like(dv, v)?),
        ))
    }
}
