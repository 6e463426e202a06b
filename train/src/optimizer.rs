//! AdamW and Muon over flat arenas, with decoupled weight decay on the matrices of linear layers only.
//!
//! AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Muon: Jordan et al. 2024; it
//! replaces the momentum of a matrix by the nearest orthogonal matrix, scaled so that the same learning
//! rates fit as for AdamW (Liu et al., "Muon is Scalable for LLM Training", 2025). Norms, embedding and head
//! are always AdamW's and are not decayed.

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Tensor, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sterna_ternary::layout::{Role, Weight};

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

/// First and second moments of every parameter, one after the other in the order of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Mean of the gradients; the momentum of a matrix that Muon updates.
    pub first: Vec<f32>,
    /// Mean of their squares; stays zero under Muon.
    pub second: Vec<f32>,
}

impl Moments {
    /// Zeros for a model.
    pub fn new(parameters: usize) -> Moments {
        Moments {
            first: vec![0.0; parameters],
            second: vec![0.0; parameters],
        }
    }
}

/// Momentum of Muon.
const MOMENTUM: f32 = 0.95;
/// Root mean square that Muon's updates share with AdamW's.
const UPDATE_RMS: f64 = 0.2;

impl Optimizer {
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
        let mut first = &mut moments.first[..];
        let mut second = &mut moments.second[..];
        let mut gradients = gradients;
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
                let keep = (1.0 - rate * self.decay(weight)) as f32;
                match (self.method, weight.role) {
                    (Method::Muon, Role::Linear) => muon(weight, var, g, m, clip, rate, keep),
                    _ => self.adamw(var, g, (m, v), clip, rate, keep, step),
                }
            })
    }

    fn decay(&self, weight: &Weight) -> f64 {
        if weight.role == Role::Linear {
            self.weight_decay
        } else {
            0.0
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn adamw(
        &self,
        var: &Var,
        gradient: &[f32],
        (first, second): (&mut [f32], &mut [f32]),
        clip: f32,
        rate: f64,
        keep: f32,
        step: u64,
    ) -> Result<()> {
        let correction = |beta: f64| 1.0 - beta.powf((step + 1) as f64);
        let (b1, b2) = (self.betas.0 as f32, self.betas.1 as f32);
        let step_size = (rate / correction(self.betas.0)) as f32;
        let root_correction = correction(self.betas.1).sqrt() as f32;
        let eps = self.eps as f32;
        let mut change = vec![0.0; gradient.len()];
        let moments = first.iter_mut().zip(second.iter_mut());
        let rows = change.iter_mut().zip(gradient).zip(moments);
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((change, g), (m, v)) in rows {
                    let g = g * clip;
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *change = step_size * *m / (v.sqrt() / root_correction + eps);
                }
            },
        );
        subtract(var, keep, &change)
    }
}

fn muon(
    weight: &Weight,
    var: &Var,
    gradient: &[f32],
    momentum: &mut [f32],
    clip: f32,
    rate: f64,
    keep: f32,
) -> Result<()> {
    let mut direction = vec![0.0; gradient.len()];
    for ((d, m), g) in direction.iter_mut().zip(momentum).zip(gradient) {
        let g = g * clip;
        *m = MOMENTUM * *m + (1.0 - MOMENTUM) * g;
        *d = MOMENTUM * *m + (1.0 - MOMENTUM) * g; // Nesterov
    }
    let (rows, columns) = (weight.rows, weight.columns);
    orthogonalize(&mut direction, rows, columns);
    let step_size = (rate * UPDATE_RMS * (rows.max(columns) as f64).sqrt()) as f32;
    direction.iter_mut().for_each(|d| *d *= step_size);
    subtract(var, keep, &direction)
}

/// Brings all singular values of a matrix near 1 by five steps of a quintic Newton-Schulz iteration.
fn orthogonalize(x: &mut [f32], rows: usize, columns: usize) {
    const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
    let (a, b, c) = COEFFICIENTS;
    let norm = x
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt() as f32;
    x.iter_mut().for_each(|x| *x /= norm + 1e-7);
    // Work on the smaller of X Xᵀ and Xᵀ X.
    let n = rows.min(columns);
    let (mut gram, mut polynomial, mut next) =
        (vec![0.0; n * n], vec![0.0; n * n], vec![0.0; x.len()]);
    for _ in 0..5 {
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
    match var.device() {
        Device::Cpu => Ok(var.inplace_op1(&Subtract { keep, change })?),
        _ => subtract_anywhere(var, keep, change),
    }
}

/// The same on any device, which gets the change from the memory of the CPU.
fn subtract_anywhere(var: &Var, keep: f32, change: &[f32]) -> Result<()> {
    let change = Tensor::from_slice(change, var.shape(), var.device())?;
    let kept = var.as_tensor().affine(f64::from(keep), 0.0)?;
    Ok(var.set(&(kept - change)?)?)
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
mod tests {
    use super::*;

    #[test]
    fn weights_change_alike_in_place_and_on_any_device() {
        let values: Vec<f32> = (0..60).map(|i| (i as f32 * 0.7).sin()).collect();
        let change: Vec<f32> = (0..60).map(|i| (i as f32 * 0.3).cos() * 1e-2).collect();
        let var = || Var::from_slice(&values, (6, 10), &Device::Cpu).unwrap();
        let (in_place, anywhere) = (var(), var());
        subtract(&in_place, 0.999, &change).unwrap();
        subtract_anywhere(&anywhere, 0.999, &change).unwrap();
        let values_of = |var: &Var| var.to_vec2::<f32>().unwrap();
        assert_eq!(values_of(&in_place), values_of(&anywhere));
        assert!((values_of(&anywhere)[0][1] - (values[1] * 0.999 - change[1])).abs() < 1e-7);
    }

    #[test]
    fn orthogonalized_matrices_have_singular_values_near_one() {
        for (rows, columns) in [(8, 8), (5, 20), (20, 5)] {
            let mut x: Vec<f32> = (0..rows * columns)
                .map(|i| ((i * i * 31 + 7) % 101) as f32 / 50.0 - 1.0)
                .collect();
            orthogonalize(&mut x, rows, columns);
            let n = rows.min(columns);
            let square: f32 = x.iter().map(|x| x * x).sum();
            let mean = square / n as f32; // of the squared singular values
            assert!((0.5..1.3).contains(&mean), "{rows} x {columns}: {mean}");
        }
    }
}
