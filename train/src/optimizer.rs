//! AdamW over flat arenas, with decoupled weight decay on matrices only.
//!
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Norms, embedding and head are not
//! decayed.

use candle_core::{CpuStorage, InplaceOp1, Layout, bail};
use sterna_ternary::layout::{Role, Weight};

use crate::{Model, Result};

/// The constants of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a matrix that is taken away per step and unit of learning rate.
    pub weight_decay: f64,
}

/// First and second moments of every parameter, one after the other in the order of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Mean of the gradients.
    pub first: Vec<f32>,
    /// Mean of their squares.
    pub second: Vec<f32>,
}

impl Moments {
    /// Zeros for a model.
    pub fn new(parameters: usize) -> Moments {
        Moments { first: vec![0.0; parameters], second: vec![0.0; parameters] }
    }
}

impl AdamW {
    /// Updates all weights from `gradients`, multiplied by `clip`; `step` counts from 0.
    pub fn update(
        &self,
        model: &Model,
        moments: &mut Moments,
        gradients: &[f32],
        clip: f32,
        rate: f64,
        step: u64,
    ) -> Result<()> {
        let count = (step + 1) as f64;
        let correction = |beta: f64| 1.0 - beta.powf(count);
        let (first, second) = self.betas;
        let mut offset = 0;
        for (weight, var) in model.parameters() {
            let range = offset..offset + var.elem_count();
            offset = range.end;
            let update = Update {
                gradients: &gradients[range.clone()],
                moments: std::cell::RefCell::new((
                    &mut moments.first[range.clone()],
                    &mut moments.second[range],
                )),
                clip,
                betas: (first as f32, second as f32),
                step_size: (rate / correction(first)) as f32,
                root_correction: correction(second).sqrt() as f32,
                eps: self.eps as f32,
                keep: (1.0 - rate * self.decay(weight)) as f32,
            };
            var.inplace_op1(&update)?;
        }
        Ok(())
    }

    fn decay(&self, weight: &Weight) -> f64 {
        if weight.role == Role::Linear { self.weight_decay } else { 0.0 }
    }
}

struct Update<'a> {
    gradients: &'a [f32],
    moments: std::cell::RefCell<(&'a mut [f32], &'a mut [f32])>,
    clip: f32,
    betas: (f32, f32),
    step_size: f32,
    root_correction: f32,
    eps: f32,
    keep: f32,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            bail!("a parameter is a contiguous f32 tensor")
        };
        let (first, second) = &mut *self.moments.borrow_mut();
        let (b1, b2) = self.betas;
        let rows = values[start..end].iter_mut().zip(self.gradients);
        let rows = rows.zip(first.iter_mut().zip(second.iter_mut()));
        pulp::Arch::new().dispatch(|| {
            for ((p, g), (m, v)) in rows {
                let g = g * self.clip;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *p = *p * self.keep - self.step_size * *m / (v.sqrt() / self.root_correction + self.eps);
            }
        });
        Ok(())
    }
}
