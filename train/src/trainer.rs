//! One optimizer step: shards of whole sequences side by side, gradients added in a fixed tree.
//!
//! The number of shards depends on the batch alone, and their gradients are added pairwise in the same
//! order whoever computed them, so results do not depend on the number of threads.

use serde::{Deserialize, Serialize};

use crate::backward::Activations;
use crate::model::{scored, values_of};
use crate::ops::Gradients;
use crate::optimizer::{Moments, Optimizer};
use crate::spikes::Spikes;
use crate::{Error, Model, Result};

/// Tokens that a shard should have: enough for matrix products at full rate.
const SHARD_TOKENS: usize = 512;
/// Shards at most; each holds a copy of the gradients.
const MOST_SHARDS: usize = 16;

/// What a step minimizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// The mean loss over the scored tokens of the step.
    #[default]
    Mean,
    /// Their sum, over the number of all tokens of the step: a scored token counts the same in every step, and
    /// because the divisor is constant, rates and clipping keep their meaning.
    Sum,
}

/// A model with the state of its optimizer.
pub struct Trainer {
    /// The weights.
    pub model: Model,
    /// The optimizer's constants.
    pub optimizer: Optimizer,
    /// The optimizer's state.
    pub moments: Moments,
    /// Largest norm of a gradient; longer ones are scaled down to it.
    pub clip: f64,
    /// What the forward pass keeps.
    pub activations: Activations,
    /// Parts that a step's sequences are computed in, one after the other; memory holds one of them.
    pub accumulate: usize,
    /// What a step minimizes; reported losses are always means.
    pub reduction: Reduction,
    /// Which steps leave the weights as they are.
    pub spikes: Spikes,
    /// Steps taken.
    pub step: u64,
    /// Norm of the gradient of each parameter in the last step, before clipping; empty before the first.
    pub gradient_norms: Vec<f64>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Mean loss over the scored tokens of the batch before the update, nats.
    pub loss: f64,
    /// Norm of the whole gradient before clipping.
    pub gradient_norm: f64,
    /// Whether the update was left out because the loss was a spike.
    pub is_skipped: bool,
}

impl Trainer {
    /// A trainer before its first step.
    pub fn new(model: Model, optimizer: Optimizer, clip: f64) -> Trainer {
        let moments = Moments::new(model.parameter_count());
        Trainer {
            model,
            optimizer,
            moments,
            clip,
            activations: Activations::default(),
            accumulate: 1,
            reduction: Reduction::default(),
            spikes: Spikes::new(0.0, 1),
            step: 0,
            gradient_norms: Vec::new(),
        }
    }

    /// Mean loss over the scored tokens of sequences of `context` + 1 tokens, and the gradients of what
    /// [`Trainer::reduction`] says in the order of the model's parameters.
    pub fn gradients(&self, rows: &[u32], context: usize) -> Result<(f64, Vec<f32>)> {
        let prepared = self.model.prepare()?;
        let tokens = rows.len() / (context + 1) * context;
        let scored = scored(rows, context).max(1);
        let scale = match self.reduction {
            Reduction::Mean => 1.0 / scored as f64,
            Reduction::Sum => 1.0 / tokens as f64,
        };
        let shard = |rows: &[u32]| {
            self.model
                .gradients(&prepared, rows, context, scale, self.activations)
        };
        let row = context + 1;
        let part = |rows: &[u32]| tree(rows, shards(rows.len() / row, context), row, &shard);
        let (loss, gradients) = accumulated(rows, self.accumulate, row, &part)?;
        Ok((loss / scored as f64, gradients))
    }

    /// Takes one step with this learning rate.
    pub fn step(&mut self, rows: &[u32], context: usize, rate: f64) -> Result<Step> {
        let (loss, gradients) = self.gradients(rows, context)?;
        let gradient_norm = norm(&gradients);
        self.gradient_norms = self.norms(&gradients);
        for (what, value) in [("loss", loss), ("gradient norm", gradient_norm)] {
            if !value.is_finite() {
                return Err(Error::Diverged {
                    step: self.step,
                    what,
                    value,
                });
            }
        }
        let is_skipped = self.spikes.is_spike(loss);
        if !is_skipped {
            let clip = (self.clip / (gradient_norm + 1e-6)).min(1.0) as f32;
            let Trainer {
                model,
                optimizer,
                moments,
                step,
                ..
            } = self;
            optimizer.update(model, moments, &gradients, clip, rate, *step)?;
        }
        self.step += 1;
        Ok(Step {
            loss,
            gradient_norm,
            is_skipped,
        })
    }

    /// The norm of each parameter's part of the gradients.
    fn norms(&self, mut gradients: &[f32]) -> Vec<f64> {
        let one = |(_, var): (_, &candle_core::Var)| {
            let (own, rest) = gradients.split_at(var.elem_count());
            gradients = rest;
            norm(own)
        };
        self.model.parameters().map(one).collect()
    }

    /// Mean loss over the scored tokens of sequences of `context` + 1 tokens, nats per token; of the model as it will be exported,
    /// however far quantization is blended in.
    pub fn evaluate(&self, rows: &[u32], context: usize) -> Result<f64> {
        let prepared = self.model.prepare_blended(1.0)?;
        let shard = |rows: &[u32]| -> Result<(f64, Vec<f32>)> {
            let loss = self.model.loss(
                &prepared,
                &self.model.sequences(rows, context),
                Gradients::Unwanted,
            )?;
            Ok((f64::from(loss.to_vec1::<f32>()?[0]), Vec::new()))
        };
        let sequences = rows.len() / (context + 1);
        let (loss, _) = tree(rows, sequences.next_power_of_two(), context + 1, &shard)?;
        Ok(loss / scored(rows, context).max(1) as f64)
    }

    /// Copies of all parameters in the order of the model.
    pub fn parameters(&self) -> Result<Vec<Vec<f32>>> {
        self.model
            .parameters()
            .map(|(_, var)| values_of(var))
            .collect()
    }
}

/// A power of two that depends on the batch alone.
fn shards(sequences: usize, context: usize) -> usize {
    let wanted = (sequences * context / SHARD_TOKENS)
        .clamp(1, MOST_SHARDS)
        .min(sequences.max(1));
    1 << wanted.ilog2()
}

/// Halves the rows until `shards` is 1, runs both halves side by side and adds the right to the left.
fn tree(
    rows: &[u32],
    shards: usize,
    row: usize,
    shard: &(impl Fn(&[u32]) -> Result<(f64, Vec<f32>)> + Sync),
) -> Result<(f64, Vec<f32>)> {
    let sequences = rows.len() / row;
    if shards <= 1 || sequences <= 1 {
        return shard(rows);
    }
    let (left, right) = rows.split_at(sequences.div_ceil(2) * row);
    let (left, right) = rayon::join(
        || tree(left, shards / 2, row, shard),
        || tree(right, shards / 2, row, shard),
    );
    Ok(added(left?, right?))
}

/// Halves the rows until `parts` is 1 and runs one part after the other; the additions are those of [`tree`].
fn accumulated(
    rows: &[u32],
    parts: usize,
    row: usize,
    part: &impl Fn(&[u32]) -> Result<(f64, Vec<f32>)>,
) -> Result<(f64, Vec<f32>)> {
    if parts <= 1 {
        return part(rows);
    }
    let left = parts.div_ceil(2);
    let (first, rest) = rows.split_at(rows.len() / row * left / parts * row);
    Ok(added(
        accumulated(first, left, row, part)?,
        accumulated(rest, parts - left, row, part)?,
    ))
}

fn added(
    (mut loss, mut sum): (f64, Vec<f32>),
    (right_loss, right): (f64, Vec<f32>),
) -> (f64, Vec<f32>) {
    loss += right_loss;
    sum.iter_mut()
        .zip(&right)
        .for_each(|(sum, right)| *sum += right);
    (loss, sum)
}

/// Euclidean norm, in f64 over fixed lanes.
fn norm(values: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    for chunk in values.chunks(8) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*x) * f64::from(*x);
        }
    }
    lanes.iter().sum::<f64>().sqrt()
}
