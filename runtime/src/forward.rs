//! The forward pass of every family, from token ids to logits.
//!
//! Tokens pass in batches of at most [`BATCH`]. Each line of [`Model::layer`] is one phase: all tokens of the
//! batch, all threads. Activations are quantized per token just before each linear layer, whose output is
//! ((Σ trit · q) / s) · scale: the sum exact, rounded to f32, divided by the activations' factor s, multiplied
//! by the matrix's scale, the order of transformers. Nothing else is quantized.

use std::ops::Range;
use std::sync::PoisonError;

use sterna_ternary::file::{Table, Values};
use sterna_ternary::{Activation, quantize, rope};

use crate::attention::{self, Attention};
use crate::cache::KvCache;
use crate::error::Place;
use crate::head::{HeadState, Screen};
use crate::kernels::{self, Kernels};
use crate::model::{Layer, Linear, Model, Vector};
use crate::{Error, Result};

/// Most tokens that pass through the layers together.
const BATCH: usize = 256;

/// Which positions get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// Every token that was passed.
    All,
    /// The last one.
    Last,
}

/// Working memory for n tokens; it grows to the largest batch seen.
#[derive(Debug, Default)]
pub(crate) struct State {
    x: Vec<f32>,      // (n, hidden): the residual stream
    normed: Vec<f32>, // (n, hidden): x after a norm; the output of o_proj and down_proj
    q: Vec<f32>,      // (n, heads, head_dim)
    k: Vec<f32>,      // (n, kv_heads, head_dim)
    v: Vec<f32>,      // (n, kv_heads, head_dim)
    attn: Vec<f32>,   // (n, heads, head_dim)
    gate: Vec<f32>,   // (n, intermediate)
    up: Vec<f32>,     // (n, intermediate)
    cos: Vec<f32>,    // (n, head_dim / 2)
    sin: Vec<f32>,    // (n, head_dim / 2)
    attention: attention::Memory,
    int8: Quantized,
    sums: Vec<i32>, // (threads, a tile of a linear layer's output)
    pub head: HeadState,
}

/// The input of a linear layer.
#[derive(Debug, Default)]
struct Quantized {
    q: Vec<i8>,       // (n, padded columns), zero behind the last column
    scales: Vec<f32>, // (n): x = q / scale
    sums: Vec<i32>,   // (n): Σ q
}

impl Model {
    /// Computes `ids` behind the tokens in `cache` and returns logits, (ids or 1, vocab_size).
    ///
    /// Logits have the same bits for every number of threads, kernel table, packing and split into calls.
    ///
    /// # Errors
    /// Ids that the vocabulary does not have, a cache that is full or another model's, no ids at all, and
    /// NaN or infinities anywhere. The cache then holds what it held before.
    pub fn forward(&self, cache: &mut KvCache, ids: &[u32], logits: Logits) -> Result<Vec<f32>> {
        self.checked(cache, ids, logits, None)
    }

    /// Computes `ids` and returns those logits of the last one that `screen` asks for, with the bits that
    /// [`Model::forward`] gives them; others may be -∞. A head of codes is then read in part only.
    ///
    /// # Errors
    /// Those of [`Model::forward`].
    ///
    /// # Panics
    /// If `screen` names an id that the vocabulary does not have.
    pub fn forward_screened(
        &self,
        cache: &mut KvCache,
        ids: &[u32],
        screen: &Screen,
    ) -> Result<Vec<f32>> {
        self.checked(cache, ids, Logits::Last, Some(screen))
    }

    fn checked(
        &self,
        cache: &mut KvCache,
        ids: &[u32],
        logits: Logits,
        screen: Option<&Screen>,
    ) -> Result<Vec<f32>> {
        let vocab_size = self.config().vocab_size;
        let bad = ids.iter().position(|id| *id as usize >= vocab_size);
        if let Some(index) = bad {
            return Err(Error::TokenId {
                index,
                id: ids[index],
                vocab_size,
            });
        }
        if ids.is_empty() {
            return Err(Error::NoTokens);
        }
        cache.check(self.config(), ids.len())?;
        let before = cache.len();
        let computed = self.batches(cache, ids, logits, screen);
        if computed.is_err() {
            cache.truncate(before);
        }
        computed
    }

    fn batches(
        &self,
        cache: &mut KvCache,
        ids: &[u32],
        wanted: Logits,
        screen: Option<&Screen>,
    ) -> Result<Vec<f32>> {
        // A state that a panic left behind is as good as any: each pass writes before it reads.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let positions = match wanted {
            Logits::All => ids.len(),
            Logits::Last => 1,
        };
        let vocab_size = self.config().vocab_size;
        let mut logits = vec![0.0; positions * vocab_size];
        let mut done = 0;
        for batch in ids.chunks(BATCH) {
            let last = done + batch.len() == ids.len();
            self.embed(&mut state, cache.len(), batch);
            for (index, layer) in self.weights.layers.iter().enumerate() {
                self.layer(&mut state, cache, index, layer, batch.len())?;
            }
            cache.advance(batch.len());
            match wanted {
                Logits::All => {
                    let to = done * vocab_size..(done + batch.len()) * vocab_size;
                    self.logits(&mut state, 0..batch.len(), None, &mut logits[to])?;
                }
                Logits::Last if last => {
                    let last = batch.len() - 1..batch.len();
                    self.logits(&mut state, last, screen, &mut logits)?;
                }
                Logits::Last => {}
            }
            done += batch.len();
        }
        Ok(logits)
    }

    /// Fills `x` with embeddings and `cos`, `sin` with the angles of the positions from `start`.
    fn embed(&self, state: &mut State, start: usize, ids: &[u32]) {
        let c = self.config();
        let (n, heads) = (ids.len(), c.num_attention_heads * c.head_dim);
        let kv = c.num_key_value_heads * c.head_dim;
        let widest = c.hidden_size.max(heads).max(c.intermediate_size);
        state.resize(n, c.hidden_size, heads, kv, c.intermediate_size);
        let padded = self.file.packing.padded_columns(widest);
        grow(&mut state.int8.q, n * padded);
        grow(&mut state.int8.scales, n);
        grow(&mut state.int8.sums, n);

        let embedding = self.file.embedding();
        for (id, x) in ids.iter().zip(state.x.chunks_exact_mut(c.hidden_size)) {
            table_row(&embedding, *id as usize, x);
        }
        state.cos.clear();
        state.sin.clear();
        for position in start..start + n {
            for frequency in &self.frequencies {
                let (cos, sin) = rope::cos_sin(*frequency, position);
                state.cos.push(cos);
                state.sin.push(sin);
            }
        }
    }

    /// One decoder layer: x = x + attention(norm(x)), then x = x + feed-forward(norm(x)).
    fn layer(
        &self,
        state: &mut State,
        cache: &mut KvCache,
        index: usize,
        layer: &Layer,
        n: usize,
    ) -> Result<()> {
        let c = self.config();
        let (hidden, intermediate) = (n * c.hidden_size, n * c.intermediate_size);
        let heads = n * c.num_attention_heads * c.head_dim;
        let kv = n * c.num_key_value_heads * c.head_dim;
        let place = Place::Layer(index);
        let State {
            x,
            normed,
            q,
            k,
            v,
            attn,
            gate,
            up,
            cos,
            sin,
            attention,
            int8,
            sums,
            head: _,
        } = state;
        let (x, normed) = (&mut x[..hidden], &mut normed[..hidden]);
        let (q, k, v) = (&mut q[..heads], &mut k[..kv], &mut v[..kv]);
        let (attn, gate, up) = (
            &mut attn[..heads],
            &mut gate[..intermediate],
            &mut up[..intermediate],
        );

        normed.copy_from_slice(x);
        self.rms_norm(normed, &layer.input_layernorm);
        self.quantize(
            normed,
            n,
            int8,
            place,
            "the input of q_proj, k_proj and v_proj",
        )?;
        self.linear(
            n,
            [&layer.q_proj, &layer.k_proj, &layer.v_proj],
            int8,
            [q, k, v],
            sums,
        );
        self.norm_and_rotate(q, n, layer.q_norm.as_ref(), cos, sin);
        self.norm_and_rotate(k, n, layer.k_norm.as_ref(), cos, sin);
        cache.store(&self.pool, index, k, v)?;
        self.attention(cache, index, q, attn, attention);
        if let Some(norm) = &layer.attn_sub_norm {
            self.rms_norm(attn, norm);
        }
        self.quantize(attn, n, int8, place, "the input of o_proj")?;
        self.linear(n, [&layer.o_proj], int8, [normed], sums);
        self.add(x, normed, c.hidden_size);

        normed.copy_from_slice(x);
        self.rms_norm(normed, &layer.post_attention_layernorm);
        self.quantize(normed, n, int8, place, "the input of gate_proj and up_proj")?;
        self.linear(
            n,
            [&layer.gate_proj, &layer.up_proj],
            int8,
            [gate, up],
            sums,
        );
        self.activate(gate, up);
        if let Some(norm) = &layer.ffn_sub_norm {
            self.rms_norm(gate, norm);
        }
        self.quantize(gate, n, int8, place, "the input of down_proj")?;
        self.linear(n, [&layer.down_proj], int8, [normed], sums);
        self.add(x, normed, c.hidden_size);
        Ok(())
    }

    /// Logits (tokens, vocab_size) of some tokens of the batch.
    fn logits(
        &self,
        state: &mut State,
        tokens: Range<usize>,
        screen: Option<&Screen>,
        logits: &mut [f32],
    ) -> Result<()> {
        let hidden = self.config().hidden_size;
        let x = &mut state.x[tokens.start * hidden..tokens.end * hidden];
        self.rms_norm(x, &self.weights.norm);
        self.head(&mut state.head, x, screen, logits)
    }

    /// Norms every row of x (any, gain's length) in place.
    fn rms_norm(&self, x: &mut [f32], gain: &Vector) {
        let (gain, eps) = (self.vector(gain), self.config().rms_norm_eps);
        self.pool
            .chunks_mut(x, gain.len(), |_, x| norm(self.kernels, x, gain, eps));
    }

    /// Quantizes the n rows of x.
    fn quantize(
        &self,
        x: &[f32],
        n: usize,
        int8: &mut Quantized,
        place: Place,
        tensor: &'static str,
    ) -> Result<()> {
        let columns = x.len() / n;
        let padded = self.file.packing.padded_columns(columns);
        let q = &mut int8.q[..n * padded];
        self.pool.zip_chunks_mut(
            (&mut *q, padded),
            (&mut int8.scales[..n], 1),
            |t, q, scale| {
                let (q, padding) = q.split_at_mut(columns);
                scale[0] = (self.kernels.quantize)(&x[t * columns..][..columns], q);
                padding.fill(0);
            },
        );
        for (sum, q) in int8.sums.iter_mut().zip(q.chunks_exact(padded)) {
            *sum = (self.kernels.sum)(q);
        }
        match int8.scales[..n]
            .iter()
            .all(|scale| quantize::is_usable(*scale))
        {
            true => Ok(()),
            false => Err(Error::NonFinite { place, tensor }),
        }
    }

    /// y = x · Wᵀ for several matrices with one input, in one region; each y is (n, rows).
    fn linear<const N: usize>(
        &self,
        n: usize,
        linears: [&Linear; N],
        int8: &Quantized,
        y: [&mut [f32]; N],
        sums: &mut Vec<i32>,
    ) {
        let padded = self.file.packing.padded_columns(linears[0].columns);
        let gemm = self.kernels.gemm(self.file.packing);
        let threads = self.pool.threads();
        let rows = y.iter().map(|y| y.len()).sum::<usize>() / n;
        let (height, width) = kernels::tile(n, rows, threads);
        grow(sums, threads * height * width);
        let sums = &mut sums[..threads * height * width];
        self.pool
            .tiles_mut(n, (height, width), y, sums, |matrix, mut tile, sums| {
                let (linear, tokens) = (linears[matrix], tile.rows());
                let rows = tile.columns();
                let q = &int8.q[tokens.start * padded..tokens.end * padded];
                let q_sums = &int8.sums[tokens.clone()];
                let sums = &mut sums[..tokens.len() * rows.len()]; // (tokens, rows)
                gemm(self.rows(linear, rows.clone()), q, q_sums, sums);
                for (t, sums) in tokens.zip(sums.chunks_exact(rows.len())) {
                    (self.kernels.dequantize)(sums, int8.scales[t], linear.scale, tile.row(t));
                }
            });
    }

    /// Norms (if the family does) and rotates the heads x (n, heads, head_dim).
    fn norm_and_rotate(
        &self,
        x: &mut [f32],
        n: usize,
        gain: Option<&Vector>,
        cos: &[f32],
        sin: &[f32],
    ) {
        let (head_dim, eps) = (self.config().head_dim, self.config().rms_norm_eps);
        let gain = gain.map(|gain| self.vector(gain));
        self.pool.chunks_mut(x, x.len() / n, |t, heads| {
            let angles = t * head_dim / 2..(t + 1) * head_dim / 2;
            for head in heads.chunks_exact_mut(head_dim) {
                if let Some(gain) = gain {
                    norm(self.kernels, head, gain, eps);
                }
                (self.kernels.rotate)(head, &cos[angles.clone()], &sin[angles.clone()]);
            }
        });
    }

    /// Causal attention of the tokens behind the cache's, which holds their keys and values already.
    fn attention(
        &self,
        cache: &KvCache,
        layer: usize,
        q: &[f32],
        attn: &mut [f32],
        memory: &mut attention::Memory,
    ) {
        let attention = Attention {
            kernels: self.kernels,
            cache,
            layer,
            heads: self.config().num_attention_heads,
            q,
        };
        attention.compute(&self.pool, memory, attn);
    }

    /// gate = act(gate) · up.
    fn activate(&self, gate: &mut [f32], up: &[f32]) {
        let width = self.config().intermediate_size;
        let act = match self.config().family.activation {
            Activation::Silu => self.kernels.silu_mul,
            Activation::Relu2 => self.kernels.relu2_mul,
        };
        self.pool
            .chunks_mut(gate, width, |t, gate| act(gate, &up[t * width..][..width]));
    }

    /// x = x + y, rows of `width`.
    fn add(&self, x: &mut [f32], y: &[f32], width: usize) {
        self.pool.chunks_mut(x, width, |t, x| {
            (self.kernels.add)(x, &y[t * width..][..width])
        });
    }
}

impl State {
    fn resize(&mut self, n: usize, hidden: usize, heads: usize, kv: usize, intermediate: usize) {
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

/// RMSNorm in place; NaN where the mean square overflowed, which would silently make zeros.
fn norm(kernels: &Kernels, x: &mut [f32], gain: &[f32], eps: f32) {
    let factor = (kernels.rms_norm)(x, gain, eps);
    if !quantize::is_usable(factor) {
        x.fill(f32::NAN);
    }
}

fn grow<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}

/// One row of a table as f32; every type converts exactly.
fn table_row(table: &Table, row: usize, x: &mut [f32]) {
    let range = row * table.columns..(row + 1) * table.columns;
    match table.values {
        Values::F32(values) => x.copy_from_slice(&values[range]),
        Values::F16(values) => {
            x.iter_mut()
                .zip(&values[range])
                .for_each(|(x, v)| *x = v.to_f32());
        }
        Values::Bf16(values) => {
            x.iter_mut()
                .zip(&values[range])
                .for_each(|(x, v)| *x = v.to_f32());
        }
        Values::Codes(codes) => codes.decode(row, x),
    }
}
