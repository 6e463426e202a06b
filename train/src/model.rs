//! The decoder that is trained: master weights as candle variables, and the forward pass from
//! tokens to the loss.
//!
//! Its order of operations is that of the runtime: norm, attention and feed-forward network of each
//! layer, the last norm, the head. Every linear layer is one of [`crate::ops`].

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sterna_ternary::family::FAMILIES;
use sterna_ternary::layout::{self, EMBEDDING, FINAL_NORM, HEAD, Role, Weight};
use sterna_ternary::random::unit;
use sterna_ternary::{Config, Family, Scaling};

use crate::arena::Spare;
use crate::ops::{
    self, AttentionShape, Distillation, Gradients, Input, Linear, Operations, Parameter, RopeTable,
    Slot, Slots, Student, Ternarized,
};
use crate::sequences::Sequences;
use crate::timers::{Part, timer};
use crate::{Error, Result};

/// Standard deviation of a new embedding that is not tied to the head.
const EMBEDDING_DEVIATION: f64 = 0.3;

/// What the linear layers multiply with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Ternary weights and int8 activations; gradients pass both quantizers unchanged.
    Ternary,
    /// The master weights themselves.
    Full,
}

/// A decoder in training.
pub struct Model {
    /// Shapes and constants.
    pub config: Config,
    /// What the linear layers multiply with.
    pub precision: Precision,
    /// Which weights of a ternary matrix share a scale.
    pub scaling: Scaling,
    /// How much of the quantization is blended in, λ from 0 to 1: layers multiply by (1 - λ) · W +
    /// λ · Q(W).
    pub lambda: f32,
    /// Weight of (log Σ exp logits)² in the gradient.
    pub z_loss: f32,
    /// The token that starts a document; none if tokens attend to the documents before theirs too.
    pub document_start: Option<u32>,
    weights: Vec<Weight>,
    vars: Vec<Var>,
    /// Where the values of each begin in a concatenation of all.
    starts: Vec<usize>,
    index: HashMap<String, usize>,
    rope: Arc<RopeTable>,
    /// Memory of gradients that are no longer needed.
    pub(crate) spare: Arc<Spare>,
    operations: &'static Operations,
}

/// The ternarized linear layers: computed once per optimizer step and shared by all shards.
pub struct Prepared {
    linears: Vec<Option<Linear>>,
    /// λ; 0 in full precision.
    lambda: f32,
}

/// One forward pass: what it computes with, and where its backward pass puts the gradients of
/// weights.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub prepared: &'a Prepared,
    pub sequences: &'a Sequences,
    /// None if candle's graph shall hold the gradients, or if there is no backward pass.
    pub slots: Option<&'a Arc<Slots>>,
}

/// A teacher's hidden states and head, which give the logits that the student learns. They carry no
/// graph.
pub(crate) struct Expected {
    /// The input of its head (tokens, hidden_size of the teacher).
    pub hidden: Tensor,
    /// Its head (vocabulary, hidden_size of the teacher).
    pub head: Tensor,
    /// How the divergence from it is mixed with the cross entropy.
    pub settings: Distillation,
}

impl Model {
    /// Makes new weights: normal with the standard deviation `initializer_range`, norms 1. The same
    /// seed gives the same bits on every platform.
    ///
    /// # Errors
    /// [`Error::Untrainable`] for a family or a config with norms that this forward pass does not
    /// compute.
    pub fn new(
        config: Config,
        precision: Precision,
        context: usize,
        initializer_range: f64,
        seed: u64,
    ) -> Result<Model> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let values = |weight: &Weight| match weight.role {
            Role::Norm => vec![1.0; weight.columns],
            _ => {
                let deviation = deviation(&config, weight, initializer_range);
                normal(&mut random, weight.rows * weight.columns, deviation)
            }
        };
        let values = layout::weights(&config).iter().map(values).collect();
        Model::from_values(config, precision, context, values, &Device::Cpu)
    }

    /// A model with these weights, in the order of [`layout::weights`], each row-major. `context`
    /// is the length of the longest sequence.
    ///
    /// # Errors
    /// [`Error::Untrainable`], as for [`Model::new`].
    pub fn from_values(
        config: Config,
        precision: Precision,
        context: usize,
        values: Vec<Vec<f32>>,
        device: &Device,
    ) -> Result<Model> {
        refuse_family(config.family)?;
        if config.linear_norm_eps.is_some() {
            return Err(untrainable(config.family, "norms before linear layers"));
        }
        let weights = layout::weights(&config);
        // Norms are vectors, all other weights are matrices (rows, columns).
        let vars = weights.iter().zip(values).map(|(weight, values)| {
            let shape = match weight.role {
                Role::Norm => vec![weight.columns],
                _ => vec![weight.rows, weight.columns],
            };
            Var::from_tensor(&Tensor::from_vec(values, shape, device)?)
        });
        let vars = vars.collect::<candle_core::Result<_>>()?;
        let (cos, sin) = config.rope.table(config.head_dim, context);
        Ok(Model {
            precision,
            scaling: Scaling::default(),
            lambda: 1.0,
            z_loss: 0.0,
            document_start: None,
            index: weights
                .iter()
                .enumerate()
                .map(|(i, w)| (w.name.clone(), i))
                .collect(),
            starts: weights
                .iter()
                .scan(0, |next, w| {
                    let start = *next;
                    *next += w.rows * w.columns;
                    Some(start)
                })
                .collect(),
            weights,
            vars,
            rope: Arc::new(RopeTable { cos, sin }),
            spare: Arc::new(Spare::new()),
            operations: match device.is_cpu() {
                true => &ops::FUSED,
                false => &ops::REFERENCE,
            },
            config,
        })
    }

    /// Moves the model to another device. There it computes with plain candle operations.
    pub fn on(mut self, device: &Device) -> Result<Model> {
        if !device.is_cpu() {
            self.operations = &ops::REFERENCE;
            for var in &mut self.vars {
                *var = Var::from_tensor(&var.as_tensor().to_device(device)?)?;
            }
        }
        Ok(self)
    }

    /// The device where plain candle operations compute, and with them the optimizer; none for the
    /// fused operations.
    pub(crate) fn plain_device(&self) -> Option<&Device> {
        let is_plain = self.operations.is_plain;
        is_plain.then(|| self.vars[0].device())
    }

    /// Computes with plain candle operations, as on a GPU; for comparison.
    pub fn with_reference_operations(mut self) -> Model {
        self.operations = &ops::REFERENCE;
        self
    }

    /// All weights, in the order of [`layout::weights`].
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = (&Weight, &Var)> {
        self.weights.iter().zip(&self.vars)
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.vars.iter().map(|v| v.elem_count()).sum()
    }

    /// Ternarizes the linear layers, blended by [`Model::lambda`]. The result is valid until the
    /// weights change.
    pub fn prepare(&self) -> Result<Prepared> {
        self.prepare_blended(self.lambda)
    }

    /// Like [`Model::prepare`] with another λ.
    pub fn prepare_blended(&self, lambda: f32) -> Result<Prepared> {
        let lambda = match self.precision {
            Precision::Ternary => lambda,
            Precision::Full => 0.0,
        };
        let linear = |(weight, var): (&Weight, &Var)| match weight.role {
            Role::Linear => {
                // f32 in; codes of a byte per four weights out, for each direction.
                let _timer = timer(Part::Ternarize, var.elem_count() * 9 / 2);
                (self.operations.prepare)(var, self.scaling, lambda).map(Some)
            }
            _ => Ok(None),
        };
        let parameters: Vec<(&Weight, &Var)> = self.parameters().collect();
        let linears = parameters.into_par_iter().map(linear);
        Ok(Prepared {
            linears: linears.collect::<candle_core::Result<_>>()?,
            lambda,
        })
    }

    /// Rows of `context` + 1 tokens as sequences with the attention limits of this model.
    pub(crate) fn sequences(&self, rows: &[u32], context: usize) -> Sequences {
        let sequences = Sequences::new(rows, context);
        match self.document_start {
            Some(first) if sequences.document_starts.is_none() => sequences.apart(first),
            _ => sequences,
        }
    }

    /// The sum of the cross entropies with the text in nats, a tensor of one element.
    pub fn loss(
        &self,
        prepared: &Prepared,
        sequences: &Sequences,
        gradients: Gradients,
    ) -> Result<Tensor> {
        let pass = Pass {
            prepared,
            sequences,
            slots: None,
        };
        let x = self.body(pass)?;
        self.head_loss(pass, &x, gradients)
    }

    /// The sum of the losses in nats, a tensor of one element with a graph: the cross entropy with
    /// the text, mixed with the divergence from a teacher if there is one.
    pub(crate) fn training_loss(&self, pass: Pass, expected: Option<&Expected>) -> Result<Tensor> {
        let x = self.body(pass)?;
        self.head_training_loss(pass, &x, expected)
    }

    /// The logits (vocabulary) after the last token of one sequence.
    pub fn logits(&self, prepared: &Prepared, ids: &[u32]) -> Result<Vec<f32>> {
        let sequences = Sequences {
            context: ids.len(),
            ids: ids.to_vec(),
            targets: Vec::new(),
            document_starts: None,
        };
        let pass = Pass {
            prepared,
            sequences: &sequences,
            slots: None,
        };
        let x = self.body(pass)?;
        let hidden = self.final_norm(pass, &x.narrow(0, ids.len() - 1, 1)?)?;
        let (head, how) = (self.head(pass), Ternarized::full());
        let logits = (self.operations.linear)(&Input::new(hidden, 0.0)?, head, how)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    /// The residual stream (tokens, hidden_size) after the last layer.
    fn body(&self, pass: Pass) -> Result<Tensor> {
        let mut x = self.embed(pass)?;
        for i in 0..self.config.num_hidden_layers {
            x = self.layer(pass, i, &x)?;
        }
        Ok(x)
    }

    /// The residual stream before the first layer (tokens, hidden_size).
    pub(crate) fn embed(&self, pass: Pass) -> Result<Tensor> {
        let table = self.parameter(pass, EMBEDDING);
        Ok((self.operations.embedding)(table, &pass.sequences.ids)?)
    }

    /// The residual stream after decoder layer `i`, from x (tokens, hidden_size) before it.
    pub(crate) fn layer(&self, pass: Pass, i: usize, x: &Tensor) -> Result<Tensor> {
        let family = self.config.family;
        let name = |part: &str| format!("model.layers.{i}.{part}.weight");
        let input = |x: Tensor| self.input(pass, x);
        let linear = |x: &Input, part: &str| self.linear(pass, x, &name(part));
        let norm = |x: &Tensor, part: &str| self.norm(pass, x, &name(part));

        // Attention: one norm and one quantizer serve q, k and v.
        let h = input(norm(x, "input_layernorm")?)?;
        let mut q = linear(&h, "self_attn.q_proj")?; // (tokens, heads · head_dim)
        let mut k = linear(&h, "self_attn.k_proj")?; // (tokens, kv_heads · head_dim)
        let v = linear(&h, "self_attn.v_proj")?;
        if family.qk_norm {
            q = self.head_norm(pass, &q, &name("self_attn.q_norm"))?;
            k = self.head_norm(pass, &k, &name("self_attn.k_norm"))?;
        }
        // Rotary positions are applied inside the operation.
        let shape = AttentionShape::new(&self.config, pass.sequences.context);
        let starts = pass.sequences.document_starts.as_ref();
        let mut attended = (self.operations.attention)([&q, &k, &v], shape, &self.rope, starts)?;
        if let Some(sub_norm) = family.attn_sub_norm {
            attended = norm(&attended, &format!("self_attn.{sub_norm}"))?;
        }
        let x = added(x, &linear(&input(attended)?, "self_attn.o_proj")?)?;

        // Feed-forward network: act(gate) · up, then back into the stream.
        let h = input(norm(&x, "post_attention_layernorm")?)?;
        let (gate, up) = (linear(&h, "mlp.gate_proj")?, linear(&h, "mlp.up_proj")?);
        // (tokens, intermediate_size)
        let mut product = (self.operations.gate)(&gate, &up, family.activation)?;
        if let Some(sub_norm) = family.ffn_sub_norm {
            product = norm(&product, &format!("mlp.{sub_norm}"))?;
        }
        added(&x, &linear(&input(product)?, "mlp.down_proj")?)
    }

    /// The sum of the cross entropies, from the residual stream x (tokens, hidden_size) after the
    /// last layer.
    fn head_loss(&self, pass: Pass, x: &Tensor, gradients: Gradients) -> Result<Tensor> {
        let (hidden, head) = (self.final_norm(pass, x)?, self.head(pass));
        let cross_entropy = self.operations.cross_entropy;
        Ok(cross_entropy(
            &hidden,
            head,
            &pass.sequences.targets,
            self.z_loss,
            gradients,
        )?)
    }

    /// Like [`Model::training_loss`], from the residual stream x (tokens, hidden_size) after the
    /// last layer.
    pub(crate) fn head_training_loss(
        &self,
        pass: Pass,
        x: &Tensor,
        expected: Option<&Expected>,
    ) -> Result<Tensor> {
        let Some(expected) = expected else {
            return self.head_loss(pass, x, Gradients::Wanted);
        };
        let student = Student {
            hidden: &self.final_norm(pass, x)?,
            head: self.head(pass),
            targets: &pass.sequences.targets,
            z_loss: self.z_loss,
        };
        let theirs = (&expected.hidden, &expected.head);
        Ok((self.operations.distillation)(
            &student,
            theirs,
            expected.settings,
        )?)
    }

    /// The input of the head, from the residual stream after the last layer.
    pub(crate) fn final_norm(&self, pass: Pass, x: &Tensor) -> Result<Tensor> {
        self.norm(pass, x, FINAL_NORM)
    }

    /// The head (vocabulary, hidden_size).
    pub(crate) fn head(&self, pass: Pass) -> Parameter<'_> {
        match self.config.tie_word_embeddings {
            true => self.parameter(pass, EMBEDDING),
            false => self.parameter(pass, HEAD),
        }
    }

    fn parameter(&self, pass: Pass, name: &str) -> Parameter<'_> {
        let i = self.index[name];
        let (value, start) = (&self.vars[i], self.starts[i]);
        let range = start..start + value.elem_count();
        Parameter {
            value,
            slot: pass.slots.map(|slots| Slot::new(slots, i, range)),
        }
    }

    /// The input of linear layers; quantized if they are ternary.
    fn input(&self, pass: Pass, x: Tensor) -> Result<Input> {
        Ok((self.operations.input)(x, pass.prepared.lambda)?)
    }

    fn linear(&self, pass: Pass, x: &Input, name: &str) -> Result<Tensor> {
        let linear = pass.prepared.linears[self.index[name]].as_ref();
        let how = Ternarized {
            prepared: linear.expect("every linear layer is prepared"),
            scaling: self.scaling,
            lambda: pass.prepared.lambda,
        };
        Ok((self.operations.linear)(
            x,
            self.parameter(pass, name),
            how,
        )?)
    }

    fn norm(&self, pass: Pass, x: &Tensor, name: &str) -> Result<Tensor> {
        let (gain, eps) = (self.parameter(pass, name), self.config.rms_norm_eps);
        Ok((self.operations.rms_norm)(x, gain, eps)?)
    }

    /// A norm over each head separately.
    fn head_norm(&self, pass: Pass, x: &Tensor, name: &str) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let heads = x.reshape((tokens * width / self.config.head_dim, self.config.head_dim))?;
        Ok(self.norm(pass, &heads, name)?.reshape((tokens, width))?)
    }
}

/// The residual stream x and the output of a block, both (tokens, hidden_size).
fn added(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let _timer = timer(Part::Elementwise, 12 * x.elem_count());
    Ok((x + y)?)
}

/// The part of a family that this forward pass does not compute; none if it computes all.
fn not_computed(family: &Family) -> Option<&'static str> {
    match family {
        f if f.attn_post_norm.or(f.ffn_post_norm).is_some() => Some("norms over outputs"),
        f if f.norm_offset != 0.0 => Some("gains with an offset"),
        f if f.scales_embeddings => Some("scaled embeddings"),
        f if f.query_pre_attn_scalar || f.local_rope_theta.is_some() => Some("the attention"),
        _ => None,
    }
}

/// # Errors
/// [`Error::Untrainable`] for a family that [`not_computed`] names.
pub(crate) fn refuse_family(family: &'static Family) -> Result<()> {
    match not_computed(family) {
        Some(what) => Err(untrainable(family, what)),
        None => Ok(()),
    }
}

/// Whether the trainer computes all of a family.
pub fn trains(family: &Family) -> bool {
    not_computed(family).is_none()
}

fn untrainable(family: &'static Family, what: &'static str) -> Error {
    let known = FAMILIES.iter().filter(|f| trains(f));
    let known: Vec<&str> = known.map(|f| f.name).collect();
    Error::Untrainable {
        what,
        family: family.name,
        known: known.join(", "),
    }
}

/// Standard deviation of a new matrix.
///
/// An embedding that is not tied to the head starts larger, so that the residual stream carries the
/// token. The projections back into the stream start smaller, in inverse proportion to their
/// number. A ternary layer multiplies by its own scale, so elsewhere the deviation decides only how
/// fast a weight can change its trit.
fn deviation(config: &Config, weight: &Weight, initializer_range: f64) -> f64 {
    let into_stream = ["o_proj.weight", "down_proj.weight"].map(|name| weight.name.ends_with(name));
    if weight.name == EMBEDDING && !config.tie_word_embeddings {
        EMBEDDING_DEVIATION
    } else if into_stream.contains(&true) {
        initializer_range / (2 * config.num_hidden_layers) as f64
    } else {
        initializer_range
    }
}

/// Normal values from a seeded stream, by the transform of Box and Muller. The crate rand_distr is
/// not used, because its values may change with its version.
fn normal(random: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut uniform = || unit(random.next_u64());
    let mut one = || {
        let (u, v) = (1.0 - uniform(), uniform());
        ((-2.0 * libm::log(u)).sqrt() * libm::cos(std::f64::consts::TAU * v) * deviation) as f32
    };
    (0..count).map(|_| one()).collect()
}

/// The number of values in the matrices of linear layers.
pub(crate) fn linear_parameters(config: &Config) -> usize {
    let linear = layout::weights(config)
        .into_iter()
        .filter(|w| w.role == Role::Linear);
    linear.map(|w| w.rows * w.columns).sum()
}

/// Multiplications and additions of a step per token. The forward pass has two for each weight of a
/// matrix product and for each pair of positions in attention; the backward pass has twice as many.
pub fn flops_per_token(config: &Config, context: usize) -> f64 {
    let head = config.vocab_size * config.hidden_size;
    let pairs = context.div_ceil(2) * config.num_attention_heads * config.head_dim;
    let attention = 2 * config.num_hidden_layers * pairs; // scores and values, causal
    6.0 * (linear_parameters(config) + head + attention) as f64
}

/// Whether the linear layers are exported as products of trits and scales.
pub(crate) fn has_products(model: &Model) -> bool {
    model.precision == Precision::Ternary && model.scaling != Scaling::Matrix
}

/// A copy of a parameter's values.
pub(crate) fn values_of(var: &Var) -> Result<Vec<f32>> {
    Ok(var
        .as_tensor()
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(json: serde_json::Value) -> String {
        let config = Config::from_json(&json).unwrap();
        let model = Model::new(config, Precision::Ternary, 8, 0.02, 1);
        model.err().unwrap().to_string()
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let sizes = json!({
            "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 9,
            "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "tie_word_embeddings": true,
        });
        let mut llama = sizes.clone();
        llama["architectures"] = json!(["LlamaForCausalLM"]);
        llama["model_type"] = "llama".into();
        llama["hidden_act"] = "silu".into();
        llama["quantization_config"] = json!({"use_rms_norm": true});
        let message = error(llama);
        assert!(
            message.contains("norms before linear layers of the llama"),
            "{message}"
        );
        let mut gemma = sizes;
        gemma["architectures"] = json!(["Gemma3ForCausalLM"]);
        gemma["model_type"] = "gemma3_text".into();
        gemma["hidden_activation"] = "gelu_pytorch_tanh".into();
        gemma["query_pre_attn_scalar"] = 8.into();
        gemma["layer_types"] = json!(["full_attention"]);
        let message = error(gemma);
        assert!(
            message.contains("gemma3 family; train one of bitnet, llama"),
            "{message}"
        );
        assert!(!message.contains("1bitllm, qwen3, gemma3"), "{message}");
    }
}
