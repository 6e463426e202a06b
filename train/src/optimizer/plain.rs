//! The same updates as candle operations, for weights, gradients and moments in the memory of a
//! device.
//!
//! Consecutive parameters that AdamW updates are one flat tensor, so a step starts few kernels.
//! Nothing is copied back to the CPU.

use candle_core::{Tensor, Var};
use sterna_ternary::layout::Weight;

use super::settings::{
    AdamW, MOMENTUM, Moments, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS, NORM_EPS, Optimizer, Update,
    muon_step_size,
};
use crate::{Model, Result};

/// [`Optimizer::update`] for gradients in a flat tensor (parameter_count).
pub(super) fn update(
    optimizer: &Optimizer,
    model: &Model,
    moments: &mut Moments,
    gradients: &Tensor,
    update: Update,
) -> Result<()> {
    let device = gradients.device();
    let first = moments.first.as_tensor(device)?;
    let second = moments.second.as_tensor(device)?;
    let gradients = gradients.affine(f64::from(update.clip), 0.0)?;
    let constants = optimizer.constants(update);
    let parameters: Vec<(&Weight, &Var)> = model.parameters().collect();
    let is_muons = |(weight, _): &(&Weight, &Var)| optimizer.is_muons(weight);
    let (mut start, mut firsts, mut seconds) = (0, Vec::new(), Vec::new());
    // A run is one matrix of Muon, or all neighbours that AdamW updates. Its part of the arenas
    // begins at `start`.
    for run in parameters.chunk_by(|a, b| !is_muons(a) && !is_muons(b)) {
        let len = run.iter().map(|(_, var)| var.elem_count()).sum();
        let part = |of: &Tensor| of.narrow(0, start, len);
        let (g, m, v) = (part(&gradients)?, part(first)?, part(second)?);
        let (m, v, change) = match is_muons(&run[0]) {
            true => {
                let (m, change) = muon(run[0].0, &g, &m, update.rate)?;
                (m, v, change)
            }
            false => adamw(&constants, &g, &m, &v)?,
        };
        // w ← keep · w - change, for each parameter of the run.
        let mut offset = 0;
        for (weight, var) in run {
            let change = change.narrow(0, offset, var.elem_count())?;
            offset += var.elem_count();
            let keep = f64::from(optimizer.keep(weight, update.rate));
            let kept = var.as_tensor().affine(keep, 0.0)?;
            var.set(&(kept - change.reshape(var.shape())?)?)?;
        }
        firsts.push(m);
        seconds.push(v);
        start += len;
    }
    *first = Tensor::cat(&firsts, 0)?;
    *second = Tensor::cat(&seconds, 0)?;
    Ok(())
}

/// beta · mean + (1 - beta) · x
fn moved(mean: &Tensor, beta: f32, x: &Tensor) -> candle_core::Result<Tensor> {
    let rest = f64::from(1.0 - beta);
    mean.affine(f64::from(beta), 0.0)? + x.affine(rest, 0.0)?
}

/// The new moments and the change of the weights, all flat.
fn adamw(
    constants: &AdamW,
    g: &Tensor,
    m: &Tensor,
    v: &Tensor,
) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
    let AdamW {
        betas: (b1, b2),
        step_size,
        root_correction,
        eps,
    } = constants;
    let (m, v) = (moved(m, *b1, g)?, moved(v, *b2, &g.sqr()?)?);
    let divisor = v
        .sqrt()?
        .affine(1.0 / f64::from(*root_correction), f64::from(*eps))?;
    let change = (m.affine(f64::from(*step_size), 0.0)? / divisor)?;
    Ok((m, v, change))
}

/// The new momentum of a matrix and the change of the matrix, both flat.
fn muon(
    weight: &Weight,
    g: &Tensor,
    momentum: &Tensor,
    rate: f64,
) -> candle_core::Result<(Tensor, Tensor)> {
    let momentum = moved(momentum, MOMENTUM, g)?;
    let direction = moved(&momentum, MOMENTUM, g)?; // Nesterov
    let (rows, columns) = (weight.rows, weight.columns);
    let direction = orthogonalize(&direction.reshape((rows, columns))?)?;
    let step_size = f64::from(muon_step_size(rate, rows, columns));
    let change = direction.affine(step_size, 0.0)?.flatten_all()?;
    Ok((momentum, change))
}

/// Moves all singular values of a matrix (rows, columns) near 1.
pub(super) fn orthogonalize(x: &Tensor) -> candle_core::Result<Tensor> {
    let (a, b, c) = NEWTON_SCHULZ;
    let (a, b, c) = (f64::from(a), f64::from(b), f64::from(c));
    let (rows, columns) = x.dims2()?;
    // The iteration works on the smaller of X Xᵀ and Xᵀ X.
    let is_wide = rows <= columns;
    let norm = x.sqr()?.sum(1)?.sum_all()?.sqrt()?;
    let mut x = x.broadcast_div(&norm.affine(1.0, f64::from(NORM_EPS))?)?;
    for _ in 0..NEWTON_SCHULZ_STEPS {
        let gram = match is_wide {
            true => x.matmul(&x.t()?)?,
            false => x.t()?.matmul(&x)?,
        };
        let polynomial = (gram.affine(b, 0.0)? + gram.matmul(&gram)?.affine(c, 0.0)?)?;
        let rest = match is_wide {
            true => polynomial.matmul(&x)?,
            false => x.matmul(&polynomial)?,
        };
        x = (x.affine(a, 0.0)? + rest)?;
    }
    Ok(x)
}
