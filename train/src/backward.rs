//! Gradients of a shard: from one graph, or layer by layer with the activations of each layer
//! computed twice.
//!
//! One graph holds the activations of all layers until its backward pass. With
//! [`ActivationStorage::Recompute`] the forward pass keeps only the input of each layer. The
//! backward pass then computes a layer again, with a graph, when it needs its gradient (Chen et
//! al., "Training Deep Nets with Sublinear Memory Cost", 2016). Both ways give the same bits.

use candle_core::{Tensor, Var, backprop::GradStore};
use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::model::{Expected, Prepared};
use crate::ops::with_values;
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
        let loss = match activations {
            ActivationStorage::Keep => {
                let loss = self.training_loss(prepared, sequences, expected)?;
                sum.add(&loss.affine(scale, 0.0)?.backward()?)?;
                loss
            }
            ActivationStorage::Recompute => {
                self.recompute(prepared, sequences, expected, scale, &mut sum)?
            }
        };
        Ok((f64::from(loss.to_vec1::<f32>()?[0]), sum.finish()?))
    }

    fn recompute(
        &self,
        prepared: &Prepared,
        sequences: &Sequences,
        expected: Option<&Expected>,
        scale: f64,
        sum: &mut GradientSum,
    ) -> Result<Tensor> {
        // Forward without a graph; inputs[i] is the input of layer i (tokens, hidden_size).
        let layers = self.config.num_hidden_layers;
        let mut inputs = vec![self.embed(sequences)?.detach()];
        for i in 0..layers {
            inputs.push(self.layer(prepared, i, &inputs[i], sequences)?.detach());
        }
        // The head has a graph of its own, which gives the gradient of the last output.
        let x = Var::from_tensor(&inputs[layers])?;
        let loss = self.head_training_loss(&x, sequences, expected)?;
        let gradients = loss.affine(scale, 0.0)?.backward()?;
        sum.add(&gradients)?;
        let mut dx = gradient_of(&gradients, &x)?;
        // Layer i again, now with a graph. The gradient of Σ y · dx by y is dx, so this backward
        // pass continues the chain.
        for i in (0..layers).rev() {
            let x = Var::from_tensor(&inputs[i])?;
            inputs.truncate(i);
            let y = self.layer(prepared, i, &x, sequences)?;
            let gradients = (y * dx)?.sum_all()?.backward()?;
            sum.add(&gradients)?;
            dx = gradient_of(&gradients, &x)?;
        }
        let embedded = (self.embed(sequences)? * dx)?.sum_all()?;
        sum.add(&embedded.backward()?)?;
        Ok(loss)
    }
}

/// The sums of the gradients of all parameters.
struct GradientSum<'a> {
    model: &'a Model,
    values: GradientBuffers,
    /// Whether each parameter has received a gradient.
    seen: Vec<bool>,
}

/// Where gradients are added: in one vector on the CPU, or in one tensor per parameter on their
/// device.
enum GradientBuffers {
    Flat(Vec<f32>),
    Tensors(Vec<Option<Tensor>>),
}

impl GradientSum<'_> {
    fn new(model: &Model) -> GradientSum<'_> {
        let count = model.parameters().len();
        GradientSum {
            model,
            values: match model.plain_device() {
                None => GradientBuffers::Flat(vec![0.0; model.parameter_count()]),
                Some(_) => GradientBuffers::Tensors(vec![None; count]),
            },
            seen: vec![false; count],
        }
    }

    fn add(&mut self, gradients: &GradStore) -> Result<()> {
        let _timer = timer(Part::Sums, 8 * self.model.parameter_count());
        let gradients = self.model.parameters().map(|(_, var)| gradients.get(var));
        let gradients: Vec<Option<&Tensor>> = gradients.collect();
        match &mut self.values {
            GradientBuffers::Flat(values) => {
                let mut rest = &mut values[..];
                let parameters = self.model.parameters().zip(&self.seen);
                for (((_, var), seen), gradient) in parameters.zip(&gradients) {
                    let of_var;
                    (of_var, rest) = rest.split_at_mut(var.elem_count());
                    if let Some(gradient) = gradient {
                        with_values(&gradient.contiguous()?, |values| match seen {
                            true => of_var.iter_mut().zip(values).for_each(|(sum, g)| *sum += g),
                            // The first gradient is copied, not added: reading the untouched zeros
                            // would cost one more page fault, which all processors take part in.
                            false => of_var.copy_from_slice(values),
                        })?;
                    }
                }
            }
            GradientBuffers::Tensors(sums) => {
                for (sum, gradient) in sums.iter_mut().zip(&gradients) {
                    *sum = match (sum.take(), *gradient) {
                        (Some(sum), Some(gradient)) => Some((sum + gradient)?),
                        (sum, gradient) => sum.or(gradient.cloned()),
                    };
                }
            }
        }
        for (seen, gradient) in self.seen.iter_mut().zip(&gradients) {
            *seen |= gradient.is_some();
        }
        Ok(())
    }

    /// # Errors
    /// A parameter without a gradient. candle stops gradients silently at operations that have no
    /// backward pass; here that is an error.
    fn finish(self) -> Result<Arena> {
        let mut parameters = self.model.parameters().zip(&self.seen);
        if let Some(((weight, _), _)) = parameters.find(|(_, seen)| !**seen) {
            let message = format!("{} has no gradient", weight.name);
            return Err(candle_core::Error::Msg(message).into());
        }
        Ok(match self.values {
            GradientBuffers::Flat(values) => Arena::Values(values),
            GradientBuffers::Tensors(sums) => {
                let flat = sums.iter().flatten().map(Tensor::flatten_all);
                let flat = flat.collect::<candle_core::Result<Vec<_>>>()?;
                Arena::Tensor(Tensor::cat(&flat, 0)?)
            }
        })
    }
}

fn gradient_of(gradients: &GradStore, x: &Var) -> Result<Tensor> {
    let gradient = gradients.get(x);
    Ok(gradient
        .ok_or_else(|| candle_core::Error::Msg("a layer's input has no gradient".into()))?
        .clone())
}
