//! One optimizer step: shards of whole sequences in parallel, gradients added in a fixed tree.
//!
//! The number of shards depends on the batch alone. Their gradients are added pairwise in the same
//! order for any number of threads or ranks, so the results do not depend on these.

use std::ops::Range;

use sha2::{Digest, Sha256};

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::backward::ActivationStorage;
use crate::model::values_of;
use crate::ops::Gradients;
use crate::optimizer::{Moments, Optimizer, Update};
use crate::ranks::Ranks;
use crate::ranks::tree::{Sum, Tree, shards};
use crate::sequences::scored;
use crate::spikes::Spikes;
use crate::timers::{Part, timer};
use crate::{Error, Model, Result, Teacher};

/// What a step minimizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossReduction {
    /// The mean loss over the scored tokens of the step.
    #[default]
    Mean,
    /// The sum of these losses divided by the number of all tokens of the step. A scored token then
    /// counts the same in every step, and because the divisor is constant, learning rates and
    /// clipping keep their meaning.
    Sum,
}

/// A model with the state of its optimizer.
pub struct Trainer {
    /// The weights.
    pub model: Model,
    /// The model whose predictions are learned together with the text, on the same device; none
    /// without distillation. Evaluation ignores it.
    pub teacher: Option<Teacher>,
    /// The optimizer's constants.
    pub optimizer: Optimizer,
    /// The optimizer's state.
    pub moments: Moments,
    /// Largest norm of the gradient; a larger one is scaled down to it.
    pub clip: f64,
    /// What the forward pass keeps for the backward pass.
    pub activations: ActivationStorage,
    /// The number of parts of a step. They are computed one after the other, and memory holds one
    /// of them.
    pub accumulate: usize,
    /// What a step minimizes. Reported losses are always means.
    pub reduction: LossReduction,
    /// Decides which updates are skipped.
    pub spikes: Spikes,
    /// The processes that compute the shards of a step.
    pub ranks: Ranks,
    /// Steps taken.
    pub step: u64,
    /// Norm of the gradient of each parameter in the last step, before clipping; empty before the
    /// first step.
    pub gradient_norms: Vec<f64>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Mean loss over the scored tokens of the batch before the update, nats.
    pub loss: f64,
    /// Norm of the whole gradient before clipping.
    pub gradient_norm: f64,
    /// Whether the update was skipped because the loss was a spike.
    pub is_skipped: bool,
}

impl Trainer {
    /// A trainer before its first step.
    pub fn new(model: Model, optimizer: Optimizer, clip: f64) -> Trainer {
        let moments = Moments::new(model.parameter_count());
        Trainer {
            model,
            teacher: None,
            optimizer,
            moments,
            clip,
            activations: ActivationStorage::default(),
            accumulate: 1,
            reduction: LossReduction::default(),
            spikes: Spikes::new(0.0, 1),
            ranks: Ranks::default(),
            step: 0,
            gradient_norms: Vec::new(),
        }
    }

    /// The mean loss over the scored tokens of sequences of `context` + 1 tokens, in nats, and the
    /// gradients of what [`Trainer::reduction`] minimizes, in the order of the parameters.
    pub fn gradients(&self, rows: &[u32], context: usize) -> Result<(f64, Vec<f32>)> {
        let (loss, gradients) = self.sum(rows, context)?;
        Ok((loss, gradients.into_values()?))
    }

    /// Like [`Trainer::gradients`], with the gradients in the memory where the optimizer runs.
    fn sum(&self, rows: &[u32], context: usize) -> Result<(f64, Arena)> {
        let prepared = self.model.prepare()?;
        let tokens = rows.len() / (context + 1) * context;
        let scored = scored(rows, context).max(1);
        let scale = match self.reduction {
            LossReduction::Mean => 1.0 / scored as f64,
            LossReduction::Sum => 1.0 / tokens as f64,
        };
        let (model, teacher) = (&self.model, self.teacher.as_ref());
        let (activations, row) = (self.activations, context + 1);
        let shard = |sequences: Range<usize>| {
            let _timer = timer(Part::Graph, 0);
            let rows = &rows[sequences.start * row..sequences.end * row];
            let sequences = model.sequences(rows, context);
            let expected = teacher.map(|teacher| teacher.expects(&sequences));
            let expected = expected.transpose()?;
            let (loss, gradients) =
                model.gradients(&prepared, &sequences, expected.as_ref(), scale, activations)?;
            Ok((loss, Some(gradients)))
        };
        let tree = self.tree(rows.len() / row, context);
        let zeros = || Arena::zeros(model).map(Some);
        let (loss, gradients) = self.ranks.sum(&tree, &zeros, &shard)?;
        let gradients = gradients.expect("every shard has gradients");
        Ok((loss / scored as f64, gradients))
    }

    /// The tree of shards of a step over this number of sequences.
    fn tree(&self, sequences: usize, context: usize) -> Tree {
        // A GPU is used best by one graph per rank; a CPU computes several in parallel.
        let shards = |sequences| match self.model.plain_device() {
            None => shards(sequences, context),
            Some(_) => self.ranks.size().next_power_of_two(),
        };
        Tree::in_parts(0..sequences, self.accumulate, &shards)
    }

    /// The number of shards of a step over this number of sequences. Further ranks have nothing to
    /// compute.
    pub fn shards(&self, sequences: usize, context: usize) -> usize {
        self.tree(sequences, context).shards()
    }

    /// Takes one step with this learning rate on rows of `context` + 1 tokens.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or the norm of the gradient is not finite; the weights are
    /// then unchanged.
    pub fn step(&mut self, rows: &[u32], context: usize, rate: f64) -> Result<Step> {
        let (loss, gradients) = self.sum(rows, context)?;
        let gradient_norm = {
            let _timer = timer(Part::Norms, 4 * self.model.parameter_count());
            self.gradient_norms = gradients.norms(&self.model)?;
            gradients.norm(&self.gradient_norms)
        };
        for (what, value) in [("loss", loss), ("gradient norm", gradient_norm)] {
            if !value.is_finite() {
                return Err(Error::Diverged {
                    step: self.step,
                    what,
                    value,
                });
            }
        }
        // A skipped step changes neither weights nor moments.
        let is_skipped = self.spikes.is_spike(loss);
        if !is_skipped {
            // The factor that reduces the norm of the gradient to `self.clip`, or 1.
            let clip = (self.clip / (gradient_norm + 1e-6)).min(1.0) as f32;
            let Trainer {
                model,
                optimizer,
                moments,
                step,
                ..
            } = self;
            let update = Update {
                clip,
                rate,
                step: *step,
            };
            optimizer.update(model, moments, &gradients, update)?;
        }
        self.step += 1;
        Ok(Step {
            loss,
            gradient_norm,
            is_skipped,
        })
    }

    /// The mean loss over the scored tokens of sequences of `context` + 1 tokens, in nats per
    /// token. The model is scored as it will be exported: fully quantized, whatever λ is.
    pub fn evaluate(&self, rows: &[u32], context: usize) -> Result<f64> {
        let prepared = self.model.prepare_blended(1.0)?;
        let (model, row) = (&self.model, context + 1);
        let shard = |sequences: Range<usize>| -> Result<Sum> {
            let rows = &rows[sequences.start * row..sequences.end * row];
            let sequences = model.sequences(rows, context);
            let loss = model.loss(&prepared, &sequences, Gradients::Unwanted)?;
            Ok((f64::from(loss.to_vec1::<f32>()?[0]), None))
        };
        let sequences = rows.len() / row;
        let tree = Tree::new(0..sequences, sequences.next_power_of_two());
        let (loss, _) = self.ranks.sum(&tree, &|| Ok(None), &shard)?;
        Ok(loss / scored(rows, context).max(1) as f64)
    }

    /// Compares the step and the weights of all ranks; `what` names them in the error.
    ///
    /// # Errors
    /// [`Error::RanksDiffer`] where they are not equal.
    pub(crate) fn agree(&self, what: &'static str) -> Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let mut sum = Sha256::new_with_prefix(self.step.to_le_bytes());
        for (_, var) in self.model.parameters() {
            sum.update(bytemuck::cast_slice::<f32, u8>(&values_of(var)?));
        }
        self.ranks.agree(what, &sum.finalize())
    }

    /// Copies of all parameters in the order of the model.
    pub fn parameters(&self) -> Result<Vec<Vec<f32>>> {
        self.model
            .parameters()
            .map(|(_, var)| values_of(var))
            .collect()
    }
}
