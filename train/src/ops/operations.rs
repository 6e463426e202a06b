//! The operations of the training step as a table: a model computes with [`FUSED`] or with
//! [`REFERENCE`].

use std::sync::Arc;

use candle_core::{Result, Tensor};
use sterna_ternary::{Activation, Scaling};

use super::{
    AttentionShape, Distillation, DocumentStarts, Gradients, Input, Linear, RopeTable, Student,
    reference,
};

/// One implementation of every operation; shapes and units are those of the functions in [`super`].
pub struct Operations {
    /// Whether it computes with plain candle, on any device; gradients and moments are then
    /// tensors there.
    pub is_plain: bool,
    /// A weight as its linear layer multiplies with it, made once per optimizer step; the last
    /// argument is λ.
    pub prepare: fn(&Tensor, Scaling, f32) -> Result<Linear>,
    /// The input of linear layers, for λ.
    pub input: fn(Tensor, f32) -> Result<Input>,
    /// A linear layer: its input, its weight, and how the weight is ternarized.
    pub linear: fn(&Input, &Tensor, Ternarized) -> Result<Tensor>,
    /// See [`super::embedding`].
    pub embedding: fn(&Tensor, &[u32]) -> Result<Tensor>,
    /// See [`super::rms_norm`].
    pub rms_norm: fn(&Tensor, &Tensor, f32) -> Result<Tensor>,
    /// See [`super::gate`].
    pub gate: fn(&Tensor, &Tensor, Activation) -> Result<Tensor>,
    /// See [`super::attention()`]: queries, keys and values.
    pub attention: Attention,
    /// See [`super::cross_entropy()`]; z_loss and whether gradients are wanted come last.
    pub cross_entropy: fn(&Tensor, &Tensor, &[u32], f32, Gradients) -> Result<Tensor>,
    /// See [`super::distillation()`].
    pub distillation: fn(&Student, (&Tensor, &Tensor), Distillation) -> Result<Tensor>,
}

/// Queries, keys and values to what each query attends to.
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

/// One candle operation each, on the CPU.
pub static FUSED: Operations = Operations {
    is_plain: false,
    prepare: Linear::blended,
    input: Input::new,
    linear: |x, weight, how| super::linear(x, weight, how.prepared),
    embedding: super::embedding,
    rms_norm: super::rms_norm,
    gate: super::gate,
    attention: |[q, k, v], shape, rope, starts| super::attention(q, k, v, shape, rope, starts),
    cross_entropy: |hidden, head, targets, z_loss, gradients| {
        super::cross_entropy(hidden, head, targets, gradients, z_loss)
    },
    distillation: super::distillation,
};

/// Plain candle on any device. It prepares nothing, and ternarizes weights and inputs inside
/// each layer.
pub static REFERENCE: Operations = Operations {
    is_plain: true,
    prepare: |_, _, _| Ok(Linear::Full),
    input: |x, _| Input::new(x, 0.0),
    linear: |x, weight, how| reference::linear(x.values(), weight, how.scaling, how.lambda),
    embedding: reference::embedding,
    rms_norm: reference::rms_norm,
    gate: reference::gate,
    attention: |[q, k, v], shape, rope, starts| reference::attention(q, k, v, shape, rope, starts),
    cross_entropy: |hidden, head, targets, z_loss, _| {
        reference::cross_entropy(hidden, head, targets, z_loss)
    },
    distillation: reference::distillation,
};
