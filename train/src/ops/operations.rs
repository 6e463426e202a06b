//! The operations of the training step as a table: a model computes with [`FUSED`] or with
//! [`REFERENCE`].

use std::sync::Arc;

use candle_core::{Result, Tensor};
use sterna_ternary::{Activation, Scaling};

use super::{
    AttentionShape, Distillation, DocumentStarts, Gradients, Input, Linear, Parameter, RopeTable,
    Student, reference,
};

/// One implementation of every operation. Shapes and units are those of the functions in [`super`].
pub struct Operations {
    /// Whether it computes with plain candle, on any device. Gradients and moments are then tensors
    /// on that device.
    pub is_plain: bool,
    /// The ternarized form of the weight of a linear layer, made once per optimizer step. The
    /// arguments are the weight, its scaling and λ.
    pub prepare: fn(&Tensor, Scaling, f32) -> Result<Linear>,
    /// The quantized input of linear layers. The last argument is λ.
    pub input: fn(Tensor, f32) -> Result<Input>,
    /// A linear layer. The arguments are its input, its weight, and the ternarized form of the
    /// weight.
    pub linear: fn(&Input, Parameter, Ternarized) -> Result<Tensor>,
    /// See [`super::embedding`].
    pub embedding: fn(Parameter, &[u32]) -> Result<Tensor>,
    /// See [`super::rms_norm`].
    pub rms_norm: fn(&Tensor, Parameter, f32) -> Result<Tensor>,
    /// See [`super::gate`].
    pub gate: fn(&Tensor, &Tensor, Activation) -> Result<Tensor>,
    /// See [`super::attention()`]: queries, keys and values.
    pub attention: Attention,
    /// See [`super::cross_entropy()`]; the last arguments are the weight of the z-loss and whether
    /// gradients are wanted.
    pub cross_entropy: fn(&Tensor, Parameter, &[u32], f32, Gradients) -> Result<Tensor>,
    /// See [`super::distillation()`].
    pub distillation: fn(&Student, (&Tensor, &Tensor), Distillation) -> Result<Tensor>,
}

/// Attention over queries, keys and values, with the shapes of [`super::attention()`].
pub type Attention =
    fn([&Tensor; 3], AttentionShape, &Arc<RopeTable>, Option<&DocumentStarts>) -> Result<Tensor>;

/// How the weight of a linear layer is ternarized.
#[derive(Clone, Copy)]
pub struct Ternarized<'a> {
    /// What [`Operations::prepare`] returned for the weight.
    pub prepared: &'a Linear,
    /// Which weights share a scale.
    pub scaling: Scaling,
    /// λ: 0 for full precision and 1 for ternary.
    pub lambda: f32,
}

impl Ternarized<'_> {
    /// A weight that is not ternarized.
    pub fn full() -> Ternarized<'static> {
        Ternarized {
            prepared: &Linear::Full,
            scaling: Scaling::Matrix,
            lambda: 0.0,
        }
    }
}

/// Each operation is one candle operation on the CPU, with its own backward pass.
pub static FUSED: Operations = Operations {
    is_plain: false,
    prepare: Linear::blended,
    input: Input::new,
    linear: |x, weight, how| super::linear(x, weight, how.prepared),
    embedding: |weight, ids| super::embedding(weight, ids),
    rms_norm: |x, gain, eps| super::rms_norm(x, gain, eps),
    gate: super::gate,
    attention: |[q, k, v], shape, rope, starts| super::attention(q, k, v, shape, rope, starts),
    cross_entropy: |hidden, head, targets, z_loss, gradients| {
        super::cross_entropy(hidden, head, targets, gradients, z_loss)
    },
    distillation: super::distillation,
};

/// Plain candle operations on any device. Nothing is prepared: each layer ternarizes its weight and
/// its input.
pub static REFERENCE: Operations = Operations {
    is_plain: true,
    prepare: |_, _, _| Ok(Linear::Full),
    input: |x, _| Input::new(x, 0.0),
    linear: |x, weight, how| reference::linear(x.values(), weight.value, how.scaling, how.lambda),
    embedding: |weight, ids| reference::embedding(weight.value, ids),
    rms_norm: |x, gain, eps| reference::rms_norm(x, gain.value, eps),
    gate: reference::gate,
    attention: |[q, k, v], shape, rope, starts| reference::attention(q, k, v, shape, rope, starts),
    cross_entropy: |hidden, head, targets, z_loss, _| {
        reference::cross_entropy(hidden, head.value, targets, z_loss)
    },
    distillation: reference::distillation,
};
