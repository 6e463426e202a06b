//! The same operations in plain candle: the reference for tests of the fused ones, and what runs on
//! a GPU.
//!
//! They compute in the element type of their inputs, so in f64 they can be compared with finite
//! differences.
//!
//! exp, log, silu and gelu are candle's own. They call the standard library or the device, so their
//! last bits may differ between platforms. The fused operations and the optimizer call `libm`,
//! which has the same bits everywhere.
//!
//! candle-nn is a reference for the tests only: its fused `rms_norm`, `softmax_last_dim` and `rope`
//! stop gradients without an error, and its layers that carry gradients compute what is here.

use candle_core::{D, Device, Result, Tensor};
use sterna_ternary::scales::GROUP_COLUMNS;
use sterna_ternary::{Activation, Scaling, quantize};

use super::{AttentionShape, Distillation, DocumentStarts, RopeTable, Student, UNSCORED};

/// Rounds half to even, for |x| < 2²²: adding 1.5 · 2²³ leaves no bits for a fraction.
fn round_ties_even(x: &Tensor) -> Result<Tensor> {
    x.affine(1.0, 12_582_912.0)?.affine(1.0, -12_582_912.0)
}

/// Straight-through gradient: the value of `to`, the gradient of `from`.
fn straight_through(from: &Tensor, to: &Tensor) -> Result<Tensor> {
    from + (to - from)?.detach()
}

/// scale · trit of a weight (rows, columns), which a ternary layer multiplies by; straight-through
/// gradients.
pub fn ternary_weight(w: &Tensor, scaling: Scaling) -> Result<Tensor> {
    let columns = w.dim(1)?;
    let span = match scaling {
        Scaling::Matrix => return straight_through(w, &ternary_part(w, w.abs()?.mean_all()?)?),
        Scaling::Row => columns,
        Scaling::Group => GROUP_COLUMNS,
    };
    let part = |first: usize| {
        let w = w.narrow(1, first, span.min(columns - first))?;
        ternary_part(&w, w.abs()?.mean_keepdim(1)?)
    };
    let parts = (0..columns).step_by(span).map(part);
    straight_through(w, &Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?)
}

fn ternary_part(w: &Tensor, absmean: Tensor) -> Result<Tensor> {
    let scale = absmean.maximum(f64::from(quantize::EPSILON))?;
    let trits = round_ties_even(&w.broadcast_div(&scale)?)?.clamp(-1f32, 1f32)?;
    trits.broadcast_mul(&scale)
}

/// int8 activations with one scale per token, as floats; straight-through gradients.
pub fn int8_activations(x: &Tensor) -> Result<Tensor> {
    let absmax = x.detach().abs()?.max_keepdim(D::Minus1)?;
    let scale = absmax
        .maximum(f64::from(quantize::EPSILON))?
        .recip()?
        .affine(127.0, 0.0)?;
    let q = round_ties_even(&x.detach().broadcast_mul(&scale)?)?.clamp(-128f32, 127f32)?;
    straight_through(x, &q.broadcast_div(&scale)?)
}

/// See [`super::linear()`]; λ is 0 for full precision and 1 for ternary.
pub fn linear(x: &Tensor, weight: &Tensor, scaling: Scaling, lambda: f32) -> Result<Tensor> {
    let blend =
        |from: &Tensor, to: &Tensor| from + (to - from)?.detach().affine(f64::from(lambda), 0.0)?;
    if lambda == 0.0 {
        return x.matmul(&weight.t()?);
    }
    let (x, weight) = (
        blend(x, &int8_activations(x)?)?,
        blend(weight, &ternary_weight(weight, scaling)?)?,
    );
    x.matmul(&weight.t()?)
}

/// See [`super::rms_norm`].
pub fn rms_norm(x: &Tensor, gain: &Tensor, eps: f32) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + f64::from(eps))?.sqrt()?)?
        .broadcast_mul(gain)
}

/// See [`super::gate`].
pub fn gate(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Silu => gate.silu()? * up,
        Activation::Relu2 => gate.relu()?.sqr()? * up,
        Activation::GeluTanh => gate.gelu()? * up,
    }
}

/// See [`super::embedding`].
pub fn embedding(weight: &Tensor, ids: &[u32]) -> Result<Tensor> {
    weight.index_select(&Tensor::new(ids, weight.device())?, 0)
}

/// See [`super::cross_entropy`].
pub fn cross_entropy(
    hidden: &Tensor,
    head: &Tensor,
    targets: &[u32],
    z_loss: f32,
) -> Result<Tensor> {
    let logits = hidden.matmul(&head.t()?)?;
    // log Σ exp (tokens, 1), with the maximum subtracted first.
    let max = logits.detach().max_keepdim(1)?;
    let log_sum = (logits.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?.log()? + max)?;
    let is_scored = |target: &u32| *target != UNSCORED;
    let scored = targets
        .iter()
        .map(|t| if is_scored(t) { 1f32 } else { 0.0 });
    let scored = Tensor::from_iter(scored, hidden.device())?.to_dtype(hidden.dtype())?;
    let scored = scored.unsqueeze(1)?;
    let targets = targets.iter().map(|t| if is_scored(t) { *t } else { 0 });
    let targets = Tensor::from_iter(targets, hidden.device())?.unsqueeze(1)?;
    // The logit of each target (tokens, 1).
    let right = logits.gather(&targets, 1)?;
    let loss = ((&log_sum - right)? * &scored)?.sum_all()?.reshape(1)?;
    let z = (log_sum.sqr()? * scored)?.sum_all()?.reshape(1)?;
    loss + (&z - z.detach())?.affine(f64::from(z_loss), 0.0)? // a gradient and no value
}

/// See [`super::distillation()`].
pub fn distillation(
    student: &Student,
    teacher: (&Tensor, &Tensor),
    settings: Distillation,
) -> Result<Tensor> {
    let (w, t) = (f64::from(settings.weight), f64::from(settings.temperature));
    let Student {
        hidden,
        head,
        targets,
        z_loss,
    } = student;
    let log_softmax = |logits: Tensor| {
        let logits = logits.affine(1.0 / t, 0.0)?;
        let logits = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
        logits.broadcast_sub(&logits.exp()?.sum_keepdim(1)?.log()?)
    };
    let log_q = log_softmax(hidden.matmul(&head.value.t()?)?)?;
    let log_p = log_softmax(teacher.0.matmul(&teacher.1.t()?)?)?.detach();
    let divergence = (log_p.exp()? * (&log_p - log_q)?)?.sum(1)?;
    let scored = targets.iter().map(|t| f32::from(*t != UNSCORED));
    let scored = Tensor::from_iter(scored, hidden.device())?.to_dtype(hidden.dtype())?;
    let divergence = (divergence * scored)?.sum_all()?.reshape(1)?;
    cross_entropy(hidden, head.value, targets, *z_loss)?.affine(1.0 - w, 0.0)?
        + divergence.affine(w * t * t, 0.0)?
}

/// (tokens, heads · head_dim) to (sequences, heads, context, head_dim).
fn split_heads(x: &Tensor, heads: usize, shape: &AttentionShape) -> Result<Tensor> {
    x.reshape(((), shape.context, heads, shape.head_dim))?
        .transpose(1, 2)?
        .contiguous()
}

fn rotate(x: &Tensor, shape: &AttentionShape, rope: &RopeTable) -> Result<Tensor> {
    let half = shape.head_dim / 2;
    let table = |values: &[f32]| {
        Tensor::from_slice(
            &values[..shape.context * half],
            (shape.context, half),
            x.device(),
        )?
        .to_dtype(x.dtype())
    };
    let (cos, sin) = (table(&rope.cos)?, table(&rope.sin)?);
    let (low, high) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
    let a = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let b = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
    Tensor::cat(&[a, b], 3)
}

/// 0 where a query attends to a key, -1e9 where not: (sequences, 1, context, context).
fn causal_mask(context: usize, starts: &[u32], device: &Device) -> Result<Tensor> {
    let mask = starts.iter().enumerate().flat_map(|(token, start)| {
        let seen = *start as usize..token % context + 1;
        (0..context).map(move |key| if seen.contains(&key) { 0.0 } else { -1e9f32 })
    });
    Tensor::from_iter(mask, device)?.reshape(((), 1, context, context))
}

/// See [`super::attention()`].
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: AttentionShape,
    rope: &RopeTable,
    starts: Option<&DocumentStarts>,
) -> Result<Tensor> {
    let all = vec![0; shape.context];
    let starts = starts.map_or(&all[..], |starts| &starts[..]);
    // Each key and value head serves `group` query heads.
    let group = shape.heads / shape.kv_heads;
    let repeat = |x: &Tensor| -> Result<Tensor> {
        let (sequences, kv, context, head_dim) = x.dims4()?;
        x.unsqueeze(2)?
            .expand((sequences, kv, group, context, head_dim))?
            .reshape((sequences, kv * group, context, head_dim))
    };
    let q = rotate(&split_heads(q, shape.heads, &shape)?, &shape, rope)?;
    let k = repeat(&rotate(
        &split_heads(k, shape.kv_heads, &shape)?,
        &shape,
        rope,
    )?)?;
    let v = repeat(&split_heads(v, shape.kv_heads, &shape)?)?;
    // (sequences, heads, context, context)
    let scores = q.matmul(&k.t()?)?.affine(f64::from(shape.scale()), 0.0)?;
    let mask = causal_mask(shape.context, starts, scores.device())?;
    let scores = scores.broadcast_add(&mask.to_dtype(scores.dtype())?)?;
    let scores = scores
        .broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?
        .exp()?;
    let probabilities = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    let out = probabilities.matmul(&v)?.transpose(1, 2)?.contiguous()?;
    out.reshape(((), shape.q_width()))
}
