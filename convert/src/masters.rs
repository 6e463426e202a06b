//! Full-precision weights for training: as the starting point, or as the teacher of a distillation.
//!
//! Ternary training keeps a matrix of f32, the master weights, and quantizes it in every step. A
//! checkpoint with only trits and scales gives masters that quantize to the same trits and scales:
//! trit × scale, divided by the mean of |trit| over the weights that share a scale. The quantizer's
//! scale is the mean of |master|, which undoes this division.

use std::collections::HashMap;
use std::path::Path;

use sterna_ternary::layout::{self, Role, Weight};
use sterna_ternary::{Activations, Config, Scaling};

use crate::{Error, Result, Scales, Source, StoredScale, Ternary, open};

impl Ternary {
    /// Master weights (rows, columns) for training with `scaling`.
    ///
    /// They quantize to these trits. They quantize to these scales, up to rounding, if weights that
    /// share a scale in `scaling` also share one here.
    pub fn masters(&self, columns: usize, scaling: Scaling) -> Vec<f32> {
        let rows = self.trits.len() / columns;
        let part = |i: usize| scaling.index(i / columns, i % columns, rows);
        let parts = scaling.shape(rows, columns).iter().product();
        let (mut all, mut nonzero) = (vec![0u64; parts], vec![0u64; parts]);
        for (i, trit) in self.trits.iter().enumerate() {
            all[part(i)] += 1;
            nonzero[part(i)] += u64::from(*trit != 0);
        }
        let larger = |i: usize| all[part(i)] as f64 / nonzero[part(i)].max(1) as f64;
        let products = self.products(columns).into_iter().enumerate();
        products.map(|(i, w)| w * larger(i) as f32).collect()
    }

    /// The products trit × scale (rows, columns).
    pub fn products(&self, columns: usize) -> Vec<f32> {
        let Scales { scaling, values } = &self.scales;
        let rows = self.trits.len() / columns;
        let scale = |i: usize| values[scaling.index(i / columns, i % columns, rows)];
        let product = |(i, trit): (usize, &i8)| f32::from(*trit) * scale(i);
        self.trits.iter().enumerate().map(product).collect()
    }
}

/// The coarsest scaling that describes every linear layer of a checkpoint. If a layer is in full
/// precision: one scale per matrix.
pub fn finest(source: &dyn Source) -> Result<Scaling> {
    let mut finest = Scaling::Matrix;
    for weight in layout::weights(source.config()) {
        if weight.role != Role::Linear {
            continue;
        }
        match (finest, source.scaling(&weight)) {
            (_, Err(Error::Tensor { .. })) => return Ok(Scaling::Matrix),
            (_, Err(error)) => return Err(error),
            (_, Ok(Scaling::Group)) => return Ok(Scaling::Group),
            (_, Ok(Scaling::Row)) => finest = Scaling::Row,
            (_, Ok(Scaling::Matrix)) => {}
        }
    }
    Ok(finest)
}

/// The scaling with which a teacher quantizes its weights, to compute what the runtime computes.
/// None if the activations are not rounded to int8: then the teacher uses its weights unquantized.
pub fn as_it_runs(source: &dyn Source) -> Result<Option<Scaling>> {
    match source.activations() {
        Activations::Int8 => finest(source).map(Some),
        Activations::Int16 => Ok(None),
    }
}

/// Reads all weights for ternary training with `scaling`, in the order of [`layout::weights`] of
/// `config`. Norms that the checkpoint does not have are 1.
pub fn read(path: &Path, config: &Config, scaling: Scaling) -> Result<Vec<Vec<f32>>> {
    read_with(path, config, &move |source, weight| {
        // Weights that are not products of trits and scales are in full precision.
        match source.linear(weight) {
            Ok(ternary) if ternary.stored != StoredScale::Masters => {
                Ok(ternary.masters(weight.columns, scaling))
            }
            Ok(_) | Err(Error::Tensor { .. }) => source.masters(weight),
            Err(error) => Err(error),
        }
    })
}

/// Reads all weights for a model without quantization, in the form of [`read`]. A ternary layer
/// becomes trit × scale.
pub fn read_full_precision(path: &Path, config: &Config) -> Result<Vec<Vec<f32>>> {
    read_with(
        path,
        config,
        &|source, weight| match source.linear(weight) {
            Ok(ternary) => Ok(ternary.products(weight.columns)),
            Err(Error::Tensor { .. }) => source.masters(weight),
            Err(error) => Err(error),
        },
    )
}

/// Reads a linear layer (rows, columns).
type ReadLinear = dyn Fn(&dyn Source, &Weight) -> Result<Vec<f32>>;

fn read_with(path: &Path, config: &Config, linear: &ReadLinear) -> Result<Vec<Vec<f32>>> {
    let source = open(path, true)?;
    let stored = layout::weights(source.config()).into_iter();
    let stored: HashMap<String, Weight> = stored.map(|w| (w.name.clone(), w)).collect();
    let values = |weight: &Weight| match (stored.get(&weight.name), weight.role) {
        // A sub-norm that `config` has and the checkpoint does not.
        (None, _) => Ok(vec![1.0; weight.columns]),
        (Some(weight), Role::Linear) => linear(&*source, weight),
        (Some(weight), Role::Norm) => source.vector(weight),
        (Some(weight), Role::Table) => {
            let mut values = vec![0.0; weight.rows * weight.columns];
            source.rows(weight, 0, &mut values)?;
            Ok(values)
        }
    };
    layout::weights(config).iter().map(values).collect()
}

#[cfg(test)]
mod tests {
    use sterna_ternary::quantize::ternarize_parts;

    use super::*;

    #[test]
    fn masters_quantize_to_the_trits_and_the_scales_again() {
        let (rows, columns) = (12, 160);
        let trits: Vec<i8> = (0..rows * columns)
            .map(|i| (i * i % 7 % 3) as i8 - 1)
            .collect();
        for scaling in Scaling::ALL {
            let count = scaling.shape(rows, columns).iter().product();
            let values = (0..count).map(|i| 0.37 + i as f32).collect();
            let ternary = Ternary {
                trits: trits.clone(),
                scales: Scales { scaling, values },
                stored: StoredScale::Products(0),
            };
            let mut again = vec![0; trits.len()];
            let masters = ternary.masters(columns, scaling);
            let scales = ternarize_parts(&masters, columns, scaling, &mut again);
            assert_eq!(again, trits);
            let pairs = scales.iter().zip(&ternary.scales.values);
            for (found, expected) in pairs {
                assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
            }
        }
    }

    #[test]
    fn products_have_the_scale_of_their_row() {
        let ternary = Ternary {
            trits: vec![1, -1, 0, 1],
            scales: Scales {
                scaling: Scaling::Row,
                values: vec![0.5, 3.0],
            },
            stored: StoredScale::Products(0),
        };
        assert_eq!(ternary.products(2), [0.5, -0.5, 0.0, 3.0]);
        assert_eq!(ternary.masters(2, Scaling::Row), [0.5, -0.5, 0.0, 6.0]);
    }
}
