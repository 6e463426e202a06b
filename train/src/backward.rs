//! Gradients of a shard: from one graph, or layer by layer with the activations of each computed twice.
//!
//! One graph holds the activations of all layers until its backward pass. With [`Activations::Recompute`] the
//! forward pass keeps only the input of each layer; the backward pass computes a layer again, with a graph, when
//! its gradient is due (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). Both give the same
//! bits.

use candle_core::{Device, Tensor, Var, backprop::GradStore};
use serde::{Deserialize, Serialize};

use crate::model::{Prepared, Sequences};
use crate::ops::{Gradients, with_values};
use crate::{Model, Result};

/// What the forward pass keeps for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activations {
    /// The activations of all layers.
    #[default]
    Keep,
    /// The input of each layer: several times less memory for one more forward pass.
    Recompute,
}

impl Model {
    /// The sum of the losses in nats, and the gradients of `scale` times this sum in the order of the parameters.
    pub(crate) fn gradients(
        &self,
        prepared: &Prepared,
        rows: &[u32],
        context: usize,
        scale: f64,
        activations: Activations,
    ) -> Result<(f64, Vec<f32>)> {
        let sequences = self.sequences(rows, context);
        let mut sum = Sum::new(self);
        let loss = match activations {
            Activations::Keep => {
                let loss = self.loss(prepared, &sequences, Gradients::Wanted)?;
                sum.add(&loss.affine(scale, 0.0)?.backward()?)?;
                loss
            }
            Activations::Recompute => self.recompute(prepared, &sequences, scale, &mut sum)?,
        };
        Ok((f64::from(loss.to_vec1::<f32>()?[0]), sum.finish()?))
    }

    fn recompute(
        &self,
        prepared: &Prepared,
        sequences: &Sequences,
        scale: f64,
        sum: &mut Sum,
    ) -> Result<Tensor> {
        let layers = self.config.num_hidden_layers;
        let mut inputs = vec![self.embed(sequences)?.detach()];
        for i in 0..layers {
            inputs.push(self.layer(prepared, i, &inputs[i], sequences)?.detach());
        }
        let x = Var::from_tensor(&inputs[layers])?;
        let loss = self.head_loss(&x, sequences, Gradients::Wanted)?;
        let gradients = loss.affine(scale, 0.0)?.backward()?;
        sum.add(&gradients)?;
        let mut dx = gradient_of(&gradients, &x)?;
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

/// The gradients of all parameters, one after the other.
struct Sum<'a> {
    model: &'a Model,
    values: Vec<f32>,
    /// Of which parameters a gradient came.
    seen: Vec<bool>,
}

impl Sum<'_> {
    fn new(model: &Model) -> Sum<'_> {
        Sum {
            model,
            values: vec![0.0; model.parameter_count()],
            seen: vec![false; model.parameters().len()],
        }
    }

    fn add(&mut self, gradients: &GradStore) -> Result<()> {
        let mut rest = &mut self.values[..];
        for ((_, var), seen) in self.model.parameters().zip(&mut self.seen) {
            let of_var;
            (of_var, rest) = rest.split_at_mut(var.elem_count());
            if let Some(gradient) = gradients.get(var) {
                *seen = true;
                let gradient = gradient.to_device(&Device::Cpu)?.contiguous()?;
                with_values(&gradient, |values| {
                    of_var.iter_mut().zip(values).for_each(|(sum, g)| *sum += g);
                })?;
            }
        }
        Ok(())
    }

    /// candle stops gradients in silence where an operation has no backward pass; here that is an error.
    fn finish(self) -> Result<Vec<f32>> {
        let mut parameters = self.model.parameters().zip(&self.seen);
        match parameters.find(|(_, seen)| !**seen) {
            None => Ok(self.values),
            Some(((weight, _), _)) => {
                let message = format!("{} has no gradient", weight.name);
                Err(candle_core::Error::Msg(message).into())
            }
        }
    }
}

fn gradient_of(gradients: &GradStore, x: &Var) -> Result<Tensor> {
    let gradient = gradients.get(x);
    Ok(gradient
        .ok_or_else(|| candle_core::Error::Msg("a layer's input has no gradient".into()))?
        .clone())
}
