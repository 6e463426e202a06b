//! Updates on the CPU: one loop per parameter over gradient, moments and weights, parameters in
//! parallel.

use candle_core::{CpuStorage, InplaceOp1, Layout, Var, bail};
use rayon::prelude::*;
use sterna_ternary::layout::Weight;

use super::settings::{
    AdamW, MOMENTUM, Moments, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS, NORM_EPS, Optimizer, Update,
    muon_step_size,
};
use crate::ops::{Mat, matmul, vectorized};
use crate::timers::{Part, timer};
use crate::{Model, Result};

/// [`Optimizer::update`] for gradients in a vector (parameter_count).
pub(super) fn update(
    optimizer: &Optimizer,
    model: &Model,
    moments: &mut Moments,
    mut gradients: &[f32],
    update: Update,
) -> Result<()> {
    // Gradients and moments are cut into one part per parameter.
    let mut first = moments.first.as_values()?;
    let mut second = moments.second.as_values()?;
    let mut parameters = Vec::new();
    for (weight, var) in model.parameters() {
        let count = var.elem_count();
        let (g, m, v);
        (g, gradients) = gradients.split_at(count);
        (m, first) = first.split_at_mut(count);
        (v, second) = second.split_at_mut(count);
        parameters.push((weight, var, g, m, v));
    }
    let constants = optimizer.constants(update);
    // Each parameter is one task, so the results do not depend on the number of threads.
    parameters
        .into_par_iter()
        .try_for_each(|(weight, var, g, m, v)| {
            // Gradient, two moments and weight are read; all but the gradient are written.
            let _timer = timer(Part::Optimizer, 28 * g.len());
            let keep = optimizer.keep(weight, update.rate);
            match optimizer.is_muons(weight) {
                true => muon(weight, var, g, m, update, keep),
                false => adamw(&constants, var, g, (m, v), update.clip, keep),
            }
        })
}

/// One step of AdamW for a parameter; gradient and moments have its length.
fn adamw(
    constants: &AdamW,
    var: &Var,
    gradient: &[f32],
    (first, second): (&mut [f32], &mut [f32]),
    clip: f32,
    keep: f32,
) -> Result<()> {
    let AdamW {
        betas: (b1, b2),
        step_size,
        root_correction,
        eps,
    } = *constants;
    let mut change = vec![0.0; gradient.len()];
    let moments = first.iter_mut().zip(second.iter_mut());
    let rows = change.iter_mut().zip(gradient).zip(moments);
    vectorized(
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

/// One step of Muon for a matrix (rows, columns), whose gradient and momentum are flat.
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

/// Moves all singular values of a matrix (rows, columns) near 1, by a quintic Newton-Schulz
/// iteration.
pub(super) fn orthogonalize(x: &mut [f32], rows: usize, columns: usize) {
    let (a, b, c) = NEWTON_SCHULZ;
    let norm = x
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt() as f32;
    x.iter_mut().for_each(|x| *x /= norm + NORM_EPS);
    // The iteration works on the smaller of X Xᵀ and Xᵀ X, (n, n).
    let n = rows.min(columns);
    let (mut gram, mut polynomial, mut next) =
        (vec![0.0; n * n], vec![0.0; n * n], vec![0.0; x.len()]);
    for _ in 0..NEWTON_SCHULZ_STEPS {
        // gram = G = X Xᵀ or Xᵀ X, polynomial = b · G + c · G², next = a · X + polynomial · X
        let view = Mat::new(&x[..], rows, columns);
        let (left, right) = if rows <= columns {
            (view, view.t())
        } else {
            (view.t(), view)
        };
        matmul(Mat::new(&mut gram[..], n, n), 0.0, left, right);
        let square = Mat::new(&gram[..], n, n);
        matmul(Mat::new(&mut polynomial[..], n, n), 0.0, square, square);
        let both = polynomial.iter_mut().zip(&gram);
        both.for_each(|(square, gram)| *square = b * gram + c * *square);
        next.copy_from_slice(x);
        let out = Mat::new(&mut next[..], rows, columns);
        let polynomial = Mat::new(&polynomial[..], n, n);
        match rows <= columns {
            true => matmul(out, a, polynomial, view),
            false => matmul(out, a, view, polynomial),
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
            bail!("expected a parameter that is a contiguous f32 tensor")
        };
        for (w, change) in values[start..end].iter_mut().zip(self.change) {
            *w = *w * self.keep - change;
        }
        Ok(())
    }
}
