//! Gradients of a shard: from one graph, or layer by layer with the activations of each layer
//! computed twice.
//!
//! One graph holds the activations of all layers until its backward pass. With
//! [`ActivationStorage::Recompute`] the forward pass keeps only the input of each layer. The
//! backward pass then computes a layer again, with a graph, when it needs its gradient (Chen et
//! al., "Training Deep Nets with Sublinear Memory Cost", 2016). Both ways give the same bits.

use std::sync::Arc;

use candle_core::{Tensor, Var, backprop::GradStore};
use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::model::{Expected, Pass, Prepared};
use crate::ops::Slots;
use crate::sequences::Sequences;
use crate::timers::{Part, timer};
use crate::{Model, Result};

/// What the forward pass keeps for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationStorage {
    /// The activations of all layers.
    #[default]
    Keep,
    /// The input of each layer: several times less memory for one more forward pass.
    Recompute,
}

impl Model {
    /// The sum of the losses in nats, and the gradients of `scale` times this sum, in the order of
    /// the parameters.
    pub(crate) fn gradients(
        &self,
        prepared: &Prepared,
        sequences: &Sequences,
        expected: Option<&Expected>,
        scale: f64,
        activations: ActivationStorage,
    ) -> Result<(f64, Arena)> {
        let mut sum = GradientSum::new(self);
        let slots = sum.slots();
        let pass = Pass {
            prepared,
            sequences,
            slots: slots.as_ref(),
        };
        let loss = match activations {
            ActivationStorage::Keep => {
                let loss = self.training_loss(pass, expected)?;
                sum.add(&loss.affine(scale, 0.0)?.backward()?)?;
                loss
            }
            ActivationStorage::Recompute => self.recompute(pass, expected, scale, &mut sum)?,
        };
        Ok((f64::from(loss.to_vec1::<f32>()?[0]), sum.finish()?))
    }

    fn recompute(
        &self,
        pass: Pass,
        expected: Option<&Expected>,
        scale: f64,
        sum: &mut GradientSum,
    ) -> Result<Tensor> {
        // Forward without a graph; inputs[i] is the input of layer i (tokens, hidden_size).
        let layers = self.config.num_hidden_layers;
        let mut inputs = vec![self.embed(pass)?.detach()];
        for i in 0..layers {
            inputs.push(self.layer(pass, i, &inputs[i])?.detach());
        }
        // The head has a graph of its own, which gives the gradient of the last output.
        let x = Var::from_tensor(&inputs[layers])?;
        let loss = self.head_training_loss(pass, &x, expected)?;
        let gradients = loss.affine(scale, 0.0)?.backward()?;
        sum.add(&gradients)?;
        let mut dx = gradient_of(&gradients, &x)?;
        // Layer i again, now with a graph. The gradient of Σ y · dx by y is dx, so this backward
        // pass continues the chain.
        for i in (0..layers).rev() {
            let x = Var::from_tensor(&inputs[i])?;
            inputs.truncate(i);
            let y = self.layer(pass, i, &x)?;
            let gradients = (y * dx)?.sum_all()?.backward()?;
            sum.add(&gradients)?;
            dx = gradient_of(&gradients, &x)?;
        }
        let embedded = (self.embed(pass)? * dx)?.sum_all()?;
        sum.add(&embedded.backward()?)?;
        Ok(loss)
    }
}

/// The sums of the gradients of all parameters: in their places on the CPU, or in one tensor per
/// parameter on their device.
enum GradientSum<'a> {
    Slots(&'a Model, Arc<Slots>),
    Tensors(&'a Model, Vec<Option<Tensor>>),
}

impl GradientSum<'_> {
    fn new(model: &Model) -> GradientSum<'_> {
        let count = model.parameters().len();
        match model.plain_device() {
            None => {
                let values = model.spare.values(model.parameter_count());
                GradientSum::Slots(model, Arc::new(Slots::new(count, values)))
            }
            Some(_) => GradientSum::Tensors(model, vec![None; count]),
        }
    }

    /// The places where the backward pass puts gradients itself.
    fn slots(&self) -> Option<Arc<Slots>> {
        match self {
            GradientSum::Slots(_, slots) => Some(slots.clone()),
            GradientSum::Tensors(..) => None,
        }
    }

    /// Adds the gradients that candle's graph holds.
    fn add(&mut self, gradients: &GradStore) -> Result<()> {
        if let GradientSum::Tensors(model, sums) = self {
            let _timer = timer(Part::Sums, 8 * model.parameter_count());
            for (sum, (_, var)) in sums.iter_mut().zip(model.parameters()) {
                *sum = match (sum.take(), gradients.get(var)) {
                    (Some(sum), Some(gradient)) => Some((sum + gradient)?),
                    (sum, gradient) => sum.or(gradient.cloned()),
                };
            }
        }
        Ok(())
    }

    /// # Errors
    /// A parameter without a gradient. candle stops gradients silently at operations that have no
    /// backward pass; here that is an error.
    fn finish(self) -> Result<Arena> {
        match self {
            GradientSum::Slots(model, slots) => {
                let (values, seen) = slots.take();
                complete(model, &seen)?;
                Ok(Arena::Values(values))
            }
            GradientSum::Tensors(model, sums) => {
                let seen: Vec<bool> = sums.iter().map(Option::is_some).collect();
                complete(model, &seen)?;
                let flat = sums.iter().flatten().map(Tensor::flatten_all);
                let flat = flat.collect::<candle_core::Result<Vec<_>>>()?;
                Ok(Arena::Tensor(Tensor::cat(&flat, 0)?))
            }
        }
    }
}

/// # Errors
/// A parameter that is not `seen`.
fn complete(model: &Model, seen: &[bool]) -> Result<()> {
    match model.parameters().zip(seen).find(|(_, seen)| !**seen) {
        None => Ok(()),
        Some(((weight, _), _)) => {
            let message = format!("{} has no gradient", weight.name);
            Err(candle_core::Error::Msg(message).into())
        }
    }
}

fn gradient_of(gradients: &GradStore, x: &Var) -> Result<Tensor> {
    let gradient = gradients.get(x);
    Ok(gradient
        .ok_or_else(|| candle_core::Error::Msg("a layer's input has no gradient".into()))?
        .clone())
}
