//! Statistics that show whether a ternary layer learns: share of zeros, flips, scale and gradient
//! of each matrix.
//!
//! New normal weights have 31 % zeros, trained models 38 to 47 %. A layer whose trits no longer
//! flip has stopped learning; one where many flip has too high a learning rate.

use rayon::prelude::*;
use serde::Serialize;
use sterna_ternary::layout::{Role, Weight};
use sterna_ternary::quantize;

use crate::model::values_of;
use crate::{Model, Precision, Result, Trainer};

/// The statistics of one matrix of a linear layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStatistics {
    /// Its name in the checkpoint.
    pub name: String,
    /// Norm of its gradient in the last step, before clipping.
    pub gradient_norm: f64,
    /// Statistics of its trits; none in full precision.
    #[serde(flatten)]
    pub trits: Option<TritStatistics>,
}

/// Statistics of the trits of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TritStatistics {
    /// Share of zeros.
    pub zeros: f64,
    /// Share that changed since the last evaluation.
    pub flips: f64,
    /// mean|W|; the mean of the scales if there are several.
    pub scale: f32,
}

/// The trits of all ternary matrices at the last evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    trits: Vec<Vec<i8>>,
}

impl Statistics {
    /// The trits of a model now; empty in full precision.
    pub fn new(model: &Model) -> Result<Statistics> {
        let trits = ternarized(model)?;
        Ok(Statistics {
            trits: trits.into_iter().map(|(trits, _)| trits).collect(),
        })
    }

    /// Statistics of every matrix now, compared with the last evaluation, which this one replaces.
    pub fn look(&mut self, trainer: &Trainer) -> Result<Vec<LayerStatistics>> {
        let now = ternarized(&trainer.model)?;
        let mut trits = now.iter().zip(&self.trits).map(|((now, scale), before)| {
            let share = |count: usize| count as f64 / now.len() as f64;
            TritStatistics {
                zeros: share(now.iter().filter(|t| **t == 0).count()),
                flips: share(now.iter().zip(before).filter(|(a, b)| a != b).count()),
                scale: *scale,
            }
        });
        let parameters = trainer.model.parameters().map(|(weight, _)| weight);
        let layers = parameters
            .zip(&trainer.gradient_norms)
            .filter(|(weight, _)| weight.role == Role::Linear)
            .map(|(weight, norm)| LayerStatistics {
                name: weight.name.clone(),
                gradient_norm: *norm,
                trits: trits.next(),
            })
            .collect();
        self.trits = now.into_iter().map(|(trits, _)| trits).collect();
        Ok(layers)
    }

    /// The trits of all matrices, four per byte.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let code = |four: &[i8]| four.iter().rev().fold(0, |b, t| b << 2 | (t + 1) as u8);
        let matrices = self.trits.iter();
        matrices
            .flat_map(|trits| trits.chunks(4).map(code))
            .collect()
    }

    /// Reads the bytes of [`Statistics::to_bytes`] for this model; none if their number is wrong.
    pub(crate) fn from_bytes(model: &Model, mut bytes: &[u8]) -> Option<Statistics> {
        let mut matrices = Vec::new();
        for count in matrices_of(model) {
            let own = bytes.split_off(..count.div_ceil(4))?;
            let trit = |i: usize| (own[i / 4] >> (2 * (i % 4)) & 3) as i8 - 1;
            matrices.push((0..count).map(trit).collect());
        }
        bytes.is_empty().then_some(Statistics { trits: matrices })
    }
}

/// The number of weights of each ternary matrix.
fn matrices_of(model: &Model) -> impl Iterator<Item = usize> {
    let is_ternary = model.precision == Precision::Ternary;
    let parameters = model.parameters();
    parameters
        .filter(move |(weight, _)| is_ternary && weight.role == Role::Linear)
        .map(|(_, var)| var.elem_count())
}

/// Trits and mean scale of each ternary matrix.
fn ternarized(model: &Model) -> Result<Vec<(Vec<i8>, f32)>> {
    let parameters: Vec<_> = model.parameters().collect();
    let of_one = |(weight, var): (&Weight, &candle_core::Var)| {
        let values = values_of(var)?;
        let mut trits = vec![0; values.len()];
        let scales = quantize::ternarize_parts(&values, weight.columns, model.scaling, &mut trits);
        let sum: f64 = scales.iter().map(|s| f64::from(*s)).sum();
        Ok((trits, (sum / scales.len() as f64) as f32))
    };
    parameters
        .into_par_iter()
        .filter(|(weight, _)| weight.role == Role::Linear && model.precision == Precision::Ternary)
        .map(of_one)
        .collect()
}
