//! What tells whether a ternary layer learns: share of zeros, flips, scale and gradient of each matrix.
//!
//! Fresh normal weights have 31 % zeros and trained models 38 to 47 %; a layer whose trits no longer flip has
//! stopped learning, one where many do has too high a rate.

use rayon::prelude::*;
use serde::Serialize;
use sterna_ternary::layout::{Role, Weight};
use sterna_ternary::quantize;

use crate::model::values_of;
use crate::{Model, Precision, Result, Trainer};

/// One matrix of a linear layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStatistics {
    /// Its name in the checkpoint.
    pub name: String,
    /// Norm of its gradient in the last step, before clipping.
    pub gradient_norm: f64,
    /// Its trits; none in full precision.
    #[serde(flatten)]
    pub trits: Option<TritStatistics>,
}

/// What the trits of a matrix are like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TritStatistics {
    /// Share of zeros.
    pub zeros: f64,
    /// Share that changed since they were looked at before.
    pub flips: f64,
    /// mean|W|; of several scales their mean.
    pub scale: f32,
}

/// The trits of all ternary matrices when they were last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    trits: Vec<Vec<i8>>,
}

impl Statistics {
    /// The trits of a model as it is now; none in full precision.
    pub fn new(model: &Model) -> Result<Statistics> {
        let trits = ternarized(model)?;
        Ok(Statistics {
            trits: trits.into_iter().map(|(trits, _)| trits).collect(),
        })
    }

    /// Every matrix now, compared with the last look, which this one replaces.
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

    /// Four trits a byte, one matrix after the other.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let code = |four: &[i8]| four.iter().rev().fold(0, |b, t| b << 2 | (t + 1) as u8);
        let matrices = self.trits.iter();
        matrices
            .flat_map(|trits| trits.chunks(4).map(code))
            .collect()
    }

    /// What [`Statistics::to_bytes`] made for this model; none if the length is another.
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

/// Number of weights of each matrix that is ternary.
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
