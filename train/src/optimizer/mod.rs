//! AdamW and Muon over flat arenas, with decoupled weight decay on the matrices of linear layers only.
//!
//! AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Muon: Jordan et al. 2024; it
//! replaces the momentum of a matrix by the nearest orthogonal matrix, scaled so that the same learning
//! rates fit as for AdamW (Liu et al., "Muon is Scalable for LLM Training", 2025). Norms, embedding and head
//! are always AdamW's and are not decayed. On a device other than the CPU both are tensor operations (`plain`).

mod plain;

use candle_core::{CpuStorage, InplaceOp1, Layout, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sterna_ternary::layout::{Role, Weight};

use crate::arena::Arena;
use crate::ops::{Mat, matmul};
use crate::{Model, Result};

/// How the matrices of linear layers are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Like all other parameters.
    AdamW,
    /// By orthogonalized momentum.
    Muon,
}

/// An optimizer and its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimizer {
    /// How the matrices of linear layers are updated.
    pub method: Method,
    /// Decay rates of AdamW's two moments; the momentum of Muon is 0.95.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a matrix that is taken away per step and unit of learning rate.
    pub weight_decay: f64,
}

/// First and second moments of every parameter; the first update brings them where the gradients are.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Mean of the gradients; the momentum of a matrix that Muon updates.
    pub first: Arena,
    /// Mean of their squares; stays zero under Muon.
    pub second: Arena,
}

impl Moments {
    /// Zeros for a model.
    pub fn new(parameters: usize) -> Moments {
        Moments {
            first: Arena::Values(vec![0.0; parameters]),
            second: Arena::Values(vec![0.0; parameters]),
        }
    }
}

/// Momentum of Muon.
const MOMENTUM: f32 = 0.95;
/// Root mean square that Muon's updates share with AdamW's.
const UPDATE_RMS: f64 = 0.2;

/// What one update of all weights depends on beside gradients and moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// What the gradients are multiplied with.
    pub clip: f32,
    /// The learning rate.
    pub rate: f64,
    /// Updates before this one.
    pub step: u64,
}

impl Optimizer {
    /// Updates all weights from `gradients`.
    pub fn update(
        &self,
        model: &Model,
        moments: &mut Moments,
        gradients: &Arena,
        update: Update,
    ) -> Result<()> {
        match gradients {
            Arena::Values(gradients) => self.update_values(model, moments, gradients, update),
            Arena::Tensor(gradients) => plain::update(self, model, moments, gradients, update),
        }
    }

    fn update_values(
        &self,
        model: &Model,
        moments: &mut Moments,
        mut gradients: &[f32],
        update: Update,
    ) -> Result<()> {
        let mut first = &mut moments.first.as_values()?[..];
        let mut second = &mut moments.second.as_values()?[..];
        let mut parameters = Vec::new();
        for (weight, var) in model.parameters() {
            let count = var.elem_count();
            let (g, m, v);
            (g, gradients) = gradients.split_at(count);
            (m, first) = first.split_at_mut(count);
            (v, second) = second.split_at_mut(count);
            parameters.push((weight, var, g, m, v));
        }
        // Each parameter is one task, so the result does not depend on the number of threads.
        parameters
            .into_par_iter()
            .try_for_each(|(weight, var, g, m, v)| {
                let keep = self.keep(weight, update.rate);
                match self.is_muons(weight) {
                    true => muon(weight, var, g, m, update, keep),
                    false => self.adamw(var, g, (m, v), update, keep),
                }
            })
    }

    fn is_muons(&self, weight: &Weight) -> bool {
        (self.method, weight.role) == (Method::Muon, Role::Linear)
    }

    /// What decay leaves of a weight.
    fn keep(&self, weight: &Weight, rate: f64) -> f32 {
        match weight.role {
            Role::Linear => (1.0 - rate * self.weight_decay) as f32,
            _ => 1.0,
        }
    }

    /// Constants of AdamW.
    fn constants(&self, update: Update) -> AdamW {
        let correction = |beta: f64| 1.0 - libm::pow(beta, (update.step + 1) as f64);
        AdamW {
            betas: (self.betas.0 as f32, self.betas.1 as f32),
            step_size: (update.rate / correction(self.betas.0)) as f32,
            root_correction: correction(self.betas.1).sqrt() as f32,
            eps: self.eps as f32,
        }
    }

    fn adamw(
        &self,
        var: &Var,
        gradient: &[f32],
        (first, second): (&mut [f32], &mut [f32]),
        update: Update,
        keep: f32,
    ) -> Result<()> {
        let AdamW {
            betas: (b1, b2),
            step_size,
            root_correction,
            eps,
        } = self.constants(update);
        let mut change = vec![0.0; gradient.len()];
        let moments = first.iter_mut().zip(second.iter_mut());
        let rows = change.iter_mut().zip(gradient).zip(moments);
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((change, g), (m, v)) in rows {
                    let g = g * update.clip;
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *change = step_size * *m / (v.sqrt() / root_correction + eps);
                }
            },
        );
        subtract(var, keep, &change)
    }
}

/// One step of AdamW: w ← keep · w - step_size · m / (√v / root_correction + eps).
struct AdamW {
    betas: (f32, f32),
    /// The rate over the bias correction of the first moment.
    step_size: f32,
    /// Root of the bias correction of the second moment.
    root_correction: f32,
    eps: f32,
}

fn muon(
    weight: &Weight,
    var: &Var,
    gradient: &[f32],
    momentum: &mut [f32],
    update: Update,
    keep: f32,
) -> Result<()> {
    let mut direction = vec![0.0; gradient.len()];
    for ((d, m), g) in direction.iter_mut().zip(momentum).zip(gradient) {
        let g = g * update.clip;
        *m = MOMENTUM * *m + (1.0 - MOMENTUM) * g;
        *d = MOMENTUM * *m + (1.0 - MOMENTUM) * g; // Nesterov
    }
    let (rows, columns) = (weight.rows, weight.columns);
    orthogonalize(&mut direction, rows, columns);
    let step_size = muon_step_size(update.rate, rows, columns);
    direction.iter_mut().for_each(|d| *d *= step_size);
    subtract(var, keep, &direction)
}

/// What an orthogonal matrix is multiplied with, so that its root mean square is that of AdamW's updates.
fn muon_step_size(rate: f64, rows: usize, columns: usize) -> f32 {
    (rate * UPDATE_RMS * (rows.max(columns) as f64).sqrt()) as f32
}

/// a · X + (b · G + c · G²) · X with G = X Xᵀ is one step of the Newton-Schulz iteration.
const NEWTON_SCHULZ: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
/// Its steps.
const NEWTON_SCHULZ_STEPS: usize = 5;
/// Added to the norm that a matrix is divided by first, so that one of zeros stays what it is.
const NORM_EPS: f32 = 1e-7;

/// Brings all singular values of a matrix near 1 by a quintic Newton-Schulz iteration.
fn orthogonalize(x: &mut [f32], rows: usize, columns: usize) {
    let (a, b, c) = NEWTON_SCHULZ;
    let norm = x
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt() as f32;
    x.iter_mut().for_each(|x| *x /= norm + NORM_EPS);
    // Work on the smaller of X Xᵀ and Xᵀ X.
    let n = rows.min(columns);
    let (mut gram, mut polynomial, mut next) =
        (vec![0.0; n * n], vec![0.0; n * n], vec![0.0; x.len()]);
    for _ in 0..NEWTON_SCHULZ_STEPS {
        let view = Mat::new(&x[..], rows, columns);
        let (left, right) = if rows <= columns {
            (view, view.t())
        } else {
            (view.t(), view)
        };
        matmul(Mat::new(&mut gram[..], n, n), 0.0, 1.0, left, right);
        polynomial.copy_from_slice(&gram);
        let square = Mat::new(&gram[..], n, n);
        matmul(Mat::new(&mut polynomial[..], n, n), b, c, square, square);
        next.copy_from_slice(x);
        let out = Mat::new(&mut next[..], rows, columns);
        let polynomial = Mat::new(&polynomial[..], n, n);
        match rows <= columns {
            true => matmul(out, a, 1.0, polynomial, view),
            false => matmul(out, a, 1.0, view, polynomial),
        }
        x.copy_from_slice(&next);
    }
}

/// w ← keep · w - change
fn subtract(var: &Var, keep: f32, change: &[f32]) -> Result<()> {
    Ok(var.inplace_op1(&Subtract { keep, change })?)
}

struct Subtract<'a> {
    keep: f32,
    change: &'a [f32],
}

impl InplaceOp1 for Subtract<'_> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            bail!("a parameter is a contiguous f32 tensor")
        };
        for (w, change) in values[start..end].iter_mut().zip(self.change) {
            *w = *w * self.keep - change;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
