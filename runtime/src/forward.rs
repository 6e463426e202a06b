//! The forward pass of every family, from token ids to logits or to the last hidden states.
//!
//! Tokens pass in batches of at most [`BATCH`]. A batch may hold tokens of several sequences: only
//! positions and attention tell them apart. Each line of [`Model::layer`] is one phase: all tokens
//! of the batch, all threads. Activations are quantized per token just before each linear layer
//! ([`crate::linear`]), and nothing else is. Where linear layers have norms of their own, each one
//! norms the input and then quantizes it.

use std::ops::Range;
use std::sync::PoisonError;

use sterna_ternary::file::{Table, Values};
use sterna_ternary::{Activation, quantize};

use crate::attention::{self, Attention, Sequence};
use crate::cache::KvCache;
use crate::error::Location;
use crate::head::Screen;
use crate::kernels::Kernels;
use crate::model::{Linear, Model, Vector};
use crate::rotary::Angles;
use crate::state::{LinearState, State, grow};
use crate::{Error, Result};

/// Most tokens that pass through the layers together.
const BATCH: usize = 256;

/// The next tokens of one sequence.
#[derive(Debug)]
pub struct Part<'a> {
    /// The tokens before `ids`, which are added to it.
    pub cache: &'a mut KvCache,
    /// The tokens to compute.
    pub ids: &'a [u32],
    /// Which of them get logits, or a hidden state.
    pub logits: Logits<'a>,
}

/// Which tokens get logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Logits<'a> {
    /// No token: this is the beginning of a longer prompt.
    None,
    /// Every token that was passed.
    All,
    /// The last one.
    Last,
    /// The last tokens, one for each screen, get the logits that it asks for; others may be −∞. A
    /// coded head is then read only in part, unless other tokens of the batch need all of it.
    Screened(&'a [Screen]),
}

/// What a pass returns for each requested token.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PassOutput {
    /// (vocab_size)
    Logits,
    /// (hidden_size)
    Hidden,
}

impl Model {
    /// Computes `ids` after the tokens in `cache` and returns logits, (tokens that get logits,
    /// vocab_size).
    ///
    /// Logits have the same bits for every number of threads, kernel table, packing, split into
    /// calls and batch composition.
    ///
    /// # Errors
    /// Ids that the vocabulary does not have, a cache that is full or another model's, no ids at
    /// all, and NaN or infinities anywhere. The cache is then unchanged.
    ///
    /// # Panics
    /// If a screen names an id that the vocabulary does not have, or if there are more screens than
    /// tokens.
    pub fn forward(&self, cache: &mut KvCache, ids: &[u32], logits: Logits) -> Result<Vec<f32>> {
        self.forward_many(&mut [Part { cache, ids, logits }])
    }

    /// Computes the next tokens of several sequences in one pass over the weights. Returns logits,
    /// (tokens that get some, vocab_size): those of the first part, of the second, and so on.
    ///
    /// # Errors
    /// Those of [`Model::forward`] for any part; compute the parts alone to find the one that
    /// failed. Every cache is then unchanged.
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn forward_many(&self, parts: &mut [Part]) -> Result<Vec<f32>> {
        self.pass(parts, PassOutput::Logits)
    }

    /// [`Model::forward_many`] without the head: the hidden states after the last norm, (tokens
    /// that are asked for, hidden_size), which the head would turn into logits. A screen asks for
    /// the one of its token.
    ///
    /// # Errors
    /// Those of [`Model::forward_many`].
    pub fn hidden_many(&self, parts: &mut [Part]) -> Result<Vec<f32>> {
        self.pass(parts, PassOutput::Hidden)
    }

    fn pass(&self, parts: &mut [Part], output: PassOutput) -> Result<Vec<f32>> {
        for part in parts.iter() {
            self.check(part)?;
        }
        let before: Vec<usize> = parts.iter().map(|part| part.cache.len()).collect();
        let computed = self.batches(parts, output);
        if computed.is_err() {
            for (part, len) in parts.iter_mut().zip(before) {
                part.cache.truncate(len);
            }
        }
        computed
    }

    fn check(&self, part: &Part) -> Result<()> {
        let (ids, vocab_size) = (part.ids, self.config().vocab_size);
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
        part.cache.check(self.config(), ids.len())
    }

    fn batches(&self, parts: &mut [Part], output: PassOutput) -> Result<Vec<f32>> {
        // A state that was abandoned by a panic is fine: each pass writes before it reads.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens: usize = parts.iter().map(|part| part.ids.len()).sum();
        let rows: usize = parts
            .iter()
            .map(|part| part.logits.of(part.ids.len()).len())
            .sum();
        let mut y = vec![0.0; rows * self.width(output)];
        let mut missing = &mut y[..]; // rows of y that later batches fill
        for start in (0..tokens).step_by(BATCH) {
            let mut runs = runs(parts, start..tokens.min(start + BATCH));
            self.embed(&mut state, &runs);
            for index in 0..self.weights.layers.len() {
                self.layer(&mut state, &mut runs, index)?;
            }
            // Only now do the new tokens count as part of their caches.
            for run in &mut runs {
                run.cache.advance(run.ids);
            }
            self.output(&mut state, &runs, output, &mut missing)?;
        }
        Ok(y)
    }

    /// Numbers of a token.
    fn width(&self, output: PassOutput) -> usize {
        match output {
            PassOutput::Logits => self.config().vocab_size,
            PassOutput::Hidden => self.config().hidden_size,
        }
    }

    /// Fills `x` with embeddings and `angles` with those of their positions.
    fn embed(&self, state: &mut State, runs: &[SequenceTokens]) {
        let c = self.config();
        let (n, heads) = (count(runs), c.num_attention_heads * c.head_dim);
        let kv = c.num_key_value_heads * c.head_dim;
        state.resize(n, c.hidden_size, heads, kv, c.intermediate_size);
        if c.linear_norm_eps.is_some() {
            let widest = c.hidden_size.max(heads).max(c.intermediate_size);
            grow(&mut state.linear.normed, n * widest);
        }

        let embedding = self.file.embedding();
        let ids = runs.iter().flat_map(|run| run.ids);
        for (id, x) in ids.zip(state.x.chunks_exact_mut(c.hidden_size)) {
            table_row(self.kernels, &embedding, *id as usize, x);
            self.file.count_seldom_read();
            if c.embedding_multiplier != 1.0 {
                x.iter_mut().for_each(|x| *x *= c.embedding_multiplier);
            }
        }
        let positions = |run: &SequenceTokens| run.cache.len()..run.cache.len() + run.ids.len();
        for (angles, frequencies) in state.angles.iter_mut().zip(&self.frequencies) {
            angles.fill(frequencies, runs.iter().flat_map(positions));
        }
    }

    /// One decoder layer: x = x + attention(norm(x)), then x = x + feed-forward(norm(x)).
    fn layer(&self, state: &mut State, runs: &mut [SequenceTokens], index: usize) -> Result<()> {
        let (c, n) = (self.config(), count(runs));
        let layer = &self.weights.layers[index];
        let (hidden, intermediate) = (n * c.hidden_size, n * c.intermediate_size);
        let heads = n * c.num_attention_heads * c.head_dim;
        let kv = n * c.num_key_value_heads * c.head_dim;
        let place = Location::Layer(index);
        let State {
            x,
            normed,
            q,
            k,
            v,
            attn,
            gate,
            up,
            angles,
            attention,
            linear,
            head: _,
        } = state;
        // Layers with a window can have other angles. The buffers are as long as the largest batch
        // so far.
        let angles = &angles[usize::from(layer.window.is_some())];
        let (x, normed) = (&mut x[..hidden], &mut normed[..hidden]);
        let (q, k, v) = (&mut q[..heads], &mut k[..kv], &mut v[..kv]);
        let (attn, gate, up) = (
            &mut attn[..heads],
            &mut gate[..intermediate],
            &mut up[..intermediate],
        );

        // Attention. `normed` is the norm of x, then the output of o_proj: (n, hidden).
        self.norm_of(x, &layer.input_layernorm, normed);
        self.project(
            normed,
            n,
            [&layer.q_proj, &layer.k_proj, &layer.v_proj],
            [q, k, v],
            linear,
            (place, "the input of q_proj, k_proj and v_proj"),
        )?;
        self.will_read([&layer.o_proj]);
        // Keys go into the cache rotated, so a later token reads them as they are.
        self.norm_and_rotate(q, n, layer.q_norm.as_ref(), angles);
        self.norm_and_rotate(k, n, layer.k_norm.as_ref(), angles);
        self.store(runs, index, k, v)?;
        self.attention(runs, (index, layer.window), q, attn, attention);
        if let Some(norm) = &layer.attn_sub_norm {
            self.rms_norm(attn, norm);
        }
        let input = (place, "the input of o_proj");
        self.project(attn, n, [&layer.o_proj], [normed], linear, input)?;
        self.will_read([&layer.gate_proj, &layer.up_proj]);
        self.add(x, normed, layer.attn_post_norm.as_ref());

        // Feed-forward. `gate` becomes act(gate) · up: (n, intermediate).
        self.norm_of(x, &layer.ffn_norm, normed);
        self.project(
            normed,
            n,
            [&layer.gate_proj, &layer.up_proj],
            [gate, up],
            linear,
            (place, "the input of gate_proj and up_proj"),
        )?;
        self.will_read([&layer.down_proj]);
        self.activate(gate, up, layer.ffn_sub_norm.as_ref());
        let input = (place, "the input of down_proj");
        self.project(gate, n, [&layer.down_proj], [normed], linear, input)?;
        match self.weights.layers.get(index + 1) {
            Some(next) => self.will_read([&next.q_proj, &next.k_proj, &next.v_proj]),
            None => self.pool.will_read(&[self.first_of_head()]),
        }
        self.add(x, normed, layer.ffn_post_norm.as_ref());
        Ok(())
    }

    /// Says which linear layers come next.
    fn will_read<const N: usize>(&self, linears: [&Linear; N]) {
        let data = self.file.data();
        let slices = linears.map(|linear| &data[linear.bytes.clone()]);
        self.pool.will_read(&slices);
    }

    /// Several linear layers with one input x (n, columns). Layers without norms of their own share
    /// its codes.
    fn project<const N: usize>(
        &self,
        x: &[f32],
        n: usize,
        linears: [&Linear; N],
        mut y: [&mut [f32]; N],
        state: &mut LinearState,
        (place, tensor): (Location, &'static str),
    ) -> Result<()> {
        let LinearState {
            normed,
            quantized,
            sums,
        } = state;
        // One quantization serves all layers, unless each norms the input with a gain of its own.
        let Some(eps) = self.config().linear_norm_eps else {
            self.quantize(x, n, quantized, place, tensor)?;
            self.linear(n, linears, quantized, y, sums);
            return Ok(());
        };
        let normed = &mut normed[..x.len()];
        for (linear, y) in linears.into_iter().zip(&mut y) {
            let gain = linear.norm.as_ref().expect("all linear layers have norms");
            self.norm_of_with(x, self.vector(gain), eps, normed);
            self.quantize(normed, n, quantized, place, tensor)?;
            self.linear(n, [linear], quantized, [y], sums);
        }
        Ok(())
    }

    /// Fills the output of the batch, (requested tokens, width), which it takes from the front of
    /// `missing`.
    fn output(
        &self,
        state: &mut State,
        runs: &[SequenceTokens],
        output: PassOutput,
        missing: &mut &mut [f32],
    ) -> Result<()> {
        let hidden = self.config().hidden_size;
        // The requested tokens move to the front of `normed`, (wanted, hidden): the head sees no
        // others.
        let mut wanted = Vec::new();
        let mut first = 0;
        for run in runs {
            for (i, token) in run.logits.of(run.ids.len()).enumerate() {
                let from = (first + token) * hidden;
                let to = wanted.len() * hidden;
                state.normed[to..to + hidden].copy_from_slice(&state.x[from..from + hidden]);
                wanted.push(match run.logits {
                    Logits::Screened(screens) => Some(&screens[i]),
                    _ => None,
                });
            }
            first += run.ids.len();
        }
        if wanted.is_empty() {
            return Ok(());
        }
        // If one token needs all logits, the whole head is read, for the others too.
        let screens: Option<Vec<&Screen>> = wanted.iter().copied().collect();
        let x = &mut state.normed[..wanted.len() * hidden];
        self.rms_norm(x, &self.weights.norm);
        let y = missing.split_off_mut(..wanted.len() * self.width(output));
        let y = y.expect("there is room for every batch's");
        match output {
            PassOutput::Logits => self.head(&mut state.head, x, screens.as_deref(), y),
            PassOutput::Hidden if x.iter().all(|x| x.is_finite()) => {
                y.copy_from_slice(x);
                Ok(())
            }
            PassOutput::Hidden => Err(Error::NonFinite {
                place: Location::End,
                tensor: "the hidden state",
            }),
        }
    }

    /// Norms every row of x (any, gain's length) in place.
    fn rms_norm(&self, x: &mut [f32], gain: &Vector) {
        let (gain, eps) = (self.vector(gain), self.config().rms_norm_eps);
        self.pool
            .chunks_mut(x, gain.len(), |_, x| norm(self.kernels, x, gain, eps));
    }

    /// Fills `normed` with the norms of the rows of x (any, gain's length).
    fn norm_of(&self, x: &[f32], gain: &Vector, normed: &mut [f32]) {
        self.norm_of_with(x, self.vector(gain), self.config().rms_norm_eps, normed);
    }

    fn norm_of_with(&self, x: &[f32], gain: &[f32], eps: f32, normed: &mut [f32]) {
        let width = gain.len();
        self.pool.chunks_mut(normed, width, |t, normed| {
            normed.copy_from_slice(&x[t * width..][..width]);
            norm(self.kernels, normed, gain, eps);
        });
    }

    /// Norms (if the family does) and rotates the heads x (n, heads, head_dim).
    fn norm_and_rotate(&self, x: &mut [f32], n: usize, gain: Option<&Vector>, angles: &Angles) {
        let (head_dim, eps) = (self.config().head_dim, self.config().rms_norm_eps);
        let gain = gain.map(|gain| self.vector(gain));
        self.pool.chunks_mut(x, x.len() / n, |t, heads| {
            let of_token = t * head_dim / 2..(t + 1) * head_dim / 2;
            let (cos, sin) = (&angles.cos[of_token.clone()], &angles.sin[of_token]);
            for head in heads.chunks_exact_mut(head_dim) {
                if let Some(gain) = gain {
                    norm(self.kernels, head, gain, eps);
                }
                (self.kernels.rotate)(head, cos, sin);
            }
        });
    }

    /// Stores keys and values (n, kv_heads · head_dim) after the tokens in the caches.
    fn store(
        &self,
        runs: &mut [SequenceTokens],
        layer: usize,
        mut k: &[f32],
        mut v: &[f32],
    ) -> Result<()> {
        let width = k.len() / count(runs);
        for run in runs {
            let of_run = ..run.ids.len() * width;
            let both = k.split_off(of_run).zip(v.split_off(of_run));
            let (keys, values) = both.expect("every token has both");
            run.cache.store(&self.pool, layer, keys, values)?;
        }
        Ok(())
    }

    /// Causal attention of the new tokens; the caches already hold their keys and values.
    fn attention(
        &self,
        runs: &[SequenceTokens],
        (layer, window): (usize, Option<usize>),
        mut q: &[f32],
        attn: &mut [f32],
        memory: &mut attention::Memory,
    ) {
        let width = q.len() / count(runs);
        let sequences = runs.iter().map(|run| Sequence {
            cache: run.cache,
            q: q.split_off(..run.ids.len() * width)
                .expect("every token has queries"),
        });
        let sequences: Vec<Sequence> = sequences.collect();
        let attention = Attention {
            kernels: self.kernels,
            layer,
            heads: self.config().num_attention_heads,
            query_pre_attn_scalar: self.config().query_pre_attn_scalar,
            window,
            sequences: &sequences,
        };
        attention.compute(&self.pool, memory, attn);
    }

    /// gate = act(gate) · up, and then its norm if the family has one. A row that was activated is
    /// in the cache when it is normed.
    fn activate(&self, gate: &mut [f32], up: &[f32], gain: Option<&Vector>) {
        let (width, eps) = (self.config().intermediate_size, self.config().rms_norm_eps);
        let gain = gain.map(|gain| self.vector(gain));
        let act = match self.config().family.activation {
            Activation::Silu => self.kernels.silu_mul,
            Activation::Relu2 => self.kernels.relu2_mul,
            Activation::GeluTanh => self.kernels.gelu_tanh_mul,
        };
        self.pool.chunks_mut(gate, width, |t, gate| {
            act(gate, &up[t * width..][..width]);
            if let Some(gain) = gain {
                norm(self.kernels, gate, gain, eps);
            }
        });
    }

    /// x = x + y, of which y becomes its norm before if the family has one.
    fn add(&self, x: &mut [f32], y: &mut [f32], gain: Option<&Vector>) {
        let (width, eps) = (self.config().hidden_size, self.config().rms_norm_eps);
        let gain = gain.map(|gain| self.vector(gain));
        self.pool.zip_chunks_mut((x, width), (y, width), |_, x, y| {
            if let Some(gain) = gain {
                norm(self.kernels, y, gain, eps);
            }
            (self.kernels.add)(x, y);
        });
    }
}

impl Logits<'_> {
    /// How many of `tokens` tokens get logits.
    pub fn count(self, tokens: usize) -> usize {
        self.of(tokens).len()
    }

    /// Which of `tokens` tokens get logits.
    fn of(self, tokens: usize) -> Range<usize> {
        match self {
            Logits::None => tokens..tokens,
            Logits::All => 0..tokens,
            Logits::Last => tokens - 1..tokens,
            Logits::Screened(screens) => tokens - screens.len()..tokens,
        }
    }
}

/// The tokens of one sequence in a batch.
struct SequenceTokens<'a> {
    cache: &'a mut KvCache,
    ids: &'a [u32],
    logits: Logits<'a>,
}

/// Cuts a batch out of all tokens.
fn runs<'a>(parts: &'a mut [Part], batch: Range<usize>) -> Vec<SequenceTokens<'a>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for part in parts {
        let end = start + part.ids.len();
        let ids = batch.start.max(start)..batch.end.min(end);
        if !ids.is_empty() {
            runs.push(SequenceTokens {
                cache: part.cache,
                ids: &part.ids[ids.start - start..ids.end - start],
                logits: match part.logits {
                    Logits::All => Logits::All,
                    Logits::Screened(screens) => {
                        let first = end - screens.len();
                        let of_batch = ids.start.max(first)..ids.end.max(first);
                        Logits::Screened(&screens[of_batch.start - first..of_batch.end - first])
                    }
                    of_last if ids.end == end => of_last,
                    _ => Logits::None,
                },
            });
        }
        start = end;
    }
    runs
}

/// Tokens of a batch.
fn count(runs: &[SequenceTokens]) -> usize {
    runs.iter().map(|run| run.ids.len()).sum()
}

/// RMSNorm in place; NaN where the mean square overflowed, which would silently make zeros.
fn norm(kernels: &Kernels, x: &mut [f32], gain: &[f32], eps: f32) {
    let factor = (kernels.rms_norm)(x, gain, eps);
    if !quantize::is_usable(factor) {
        x.fill(f32::NAN);
    }
}

/// One row of a table as f32; every type converts exactly.
fn table_row(kernels: &Kernels, table: &Table, row: usize, x: &mut [f32]) {
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
        Values::Planes(planes) => (kernels.decode_planes)(&planes, row, x),
        Values::Trits(trits) => trits.decode(row, x),
    }
}
