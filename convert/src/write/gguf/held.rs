//! The scales of a matrix in a GGUF type: one per run of weights, in f32 or f16.
//!
//! A run is a block, a row or the whole matrix. If the weights of a run have several scales, or a
//! scale that the type cannot represent, the trits stay unchanged and the scale changes. This is
//! refused with the size of the error, unless the user accepts it. The run then gets the mean scale
//! of its nonzero weights, which is the least-squares solution.

use std::path::{Path, PathBuf};

use half::f16;
use sterna_ternary::layout::{Dtype, Weight};
use sterna_ternary::scales::GROUP_COLUMNS;
use sterna_ternary::{Config, Scaling};

use crate::gguf::types::{ScaleAt, Size, Type};
use crate::{Error, Result, Scales, Source, Ternary, ValueType};

/// The scales of a matrix after conversion to a type.
#[derive(Debug)]
pub(crate) struct HeldScales {
    /// One scale per run, in the order of the rows.
    pub scales: Vec<f32>,
    /// The largest |new / old - 1| over nonzero weights.
    pub error: f64,
    /// The scale that changed most: (old, new).
    worst: (f32, f32),
    /// Whether a run has weights with several scales.
    shares: bool,
}

impl HeldScales {
    /// Computes the runs of a matrix. Runs of zeros have the scale 1.
    pub fn of(ternary: &Ternary, columns: usize, kind: &Type) -> HeldScales {
        let span = span(kind, columns, ternary.trits.len());
        let mut runs = HeldScales {
            scales: Vec::with_capacity(ternary.trits.len() / span),
            error: 0.0,
            worst: (1.0, 1.0),
            shares: false,
        };
        for (i, trits) in ternary.trits.chunks_exact(span).enumerate() {
            runs.add(ternary, columns, i * span, trits, kind);
        }
        runs
    }

    fn add(&mut self, ternary: &Ternary, columns: usize, start: usize, trits: &[i8], kind: &Type) {
        if let Some(scale) = ternary.scales.single() {
            self.hold(&[(scale, 1)], kind);
            return;
        }
        let rows = ternary.trits.len() / columns;
        let mut parts: Vec<(f32, usize)> = Vec::new();
        let mut at = 0;
        while at < trits.len() {
            let (row, column) = ((start + at) / columns, (start + at) % columns);
            let group = column / GROUP_COLUMNS;
            let end = ((group + 1) * GROUP_COLUMNS).min(columns) - column;
            let part = &trits[at..(at + end).min(trits.len())];
            let count = part.iter().filter(|t| **t != 0).count();
            let scale = scale_of(&ternary.scales, rows, row, group);
            match parts.last_mut() {
                Some(last) if last.0 == scale => last.1 += count,
                _ if count > 0 => parts.push((scale, count)),
                _ => {} // zeros of any scale
            }
            at += part.len();
        }
        self.hold(&parts, kind);
    }

    /// Adds a run, given the number of weights with each scale.
    fn hold(&mut self, parts: &[(f32, usize)], kind: &Type) {
        let count: usize = parts.iter().map(|p| p.1).sum();
        let sum: f64 = parts.iter().map(|p| f64::from(p.0) * p.1 as f64).sum();
        let scale = match parts {
            [] => 1.0,
            [(scale, _)] => *scale,
            _ => (sum / count as f64) as f32,
        };
        let scale = match precision(kind) {
            ValueType::F16 => f16::from_f32(scale).to_f32(),
            _ => scale,
        };
        self.scales.push(scale);
        self.shares |= parts.iter().any(|p| p.0 != parts[0].0);
        for (real, _) in parts {
            let error = (f64::from(scale) / f64::from(*real) - 1.0).abs();
            if error > self.error {
                (self.error, self.worst) = (error, (*real, scale));
            }
        }
    }

    /// # Errors
    /// [`Error::Tensor`] with the size of the error, if a scale changes. With `lossy`, only if a
    /// scale would vanish.
    pub fn check(
        &self,
        source: &dyn Source,
        weight: &Weight,
        kind: &Type,
        lossy: bool,
    ) -> Result<()> {
        let is_usable = self.scales.iter().all(|s| s.is_finite() && *s > 0.0);
        if is_usable && (lossy || self.error == 0.0) {
            return Ok(());
        }
        let (scale, held) = self.worst;
        let would = format!(
            "{scale}, which would become {held}, off by {:.1e}",
            self.error
        );
        let name = kind.name;
        let (expected, found) = match (self.shares, precision(kind)) {
            (true, _) => {
                let run = match kind.size {
                    Size::Blocks { weights, .. } => format!("each {weights} weights"),
                    Size::Rows { .. } => "each row".into(),
                    Size::Matrix { .. } | Size::Triples => "the matrix".into(),
                };
                let expected = format!("one scale for {run}, as {name} stores it");
                (expected, format!("several; the farthest is {would}"))
            }
            (false, _) => (
                format!("a scale that f16 holds, as {name} stores it"),
                would,
            ),
        };
        Err(Error::Tensor {
            path: source.path().to_owned(),
            tensor: weight.name.clone(),
            expected,
            found,
            advice: match (is_usable, self.shares) {
                (true, true) => {
                    "q2_0 holds one scale per 64 weights, iq2_bn one per row, a packed file any; \
                     or accept changed scales (--lossy)"
                }
                (true, false) => {
                    "write i2_s or iq2_bn, whose scales are f32, or accept rounded ones (--lossy)"
                }
                (false, _) => "write i2_s or iq2_bn, whose scales are f32, or a packed file",
            },
        })
    }
}

/// The part of `elements` weights, in rows of `columns`, that share a scale in a type.
fn span(kind: &Type, columns: usize, elements: usize) -> usize {
    match kind.size {
        Size::Blocks { weights, .. } => weights,
        Size::Rows { .. } => columns,
        Size::Matrix { .. } | Size::Triples => elements,
    }
}

fn scale_of(scales: &Scales, rows: usize, row: usize, group: usize) -> f32 {
    match scales.scaling {
        Scaling::Matrix => scales.values[0],
        Scaling::Row => scales.values[row],
        Scaling::Group => scales.values[group * rows + row],
    }
}

/// The type of a scale.
fn precision(kind: &Type) -> ValueType {
    match kind.scale {
        ScaleAt::HeadF16 | ScaleAt::TailF16 => ValueType::F16,
        ScaleAt::Within | ScaleAt::HeadF32 | ScaleAt::MatrixF32 => ValueType::F32,
    }
}

/// A source whose scales are changed as a GGUF type requires: the expected content of the file.
pub(crate) struct Held<'a> {
    pub source: &'a dyn Source,
    pub kind: &'static Type,
}

impl Source for Held<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn config(&self) -> &Config {
        self.source.config()
    }

    fn files(&self) -> &[(String, Vec<u8>)] {
        self.source.files()
    }

    fn warnings(&self) -> &[String] {
        self.source.warnings()
    }

    fn inputs(&self) -> Vec<PathBuf> {
        self.source.inputs()
    }

    fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    fn dtype(&self, weight: &Weight) -> Dtype {
        self.source.dtype(weight)
    }

    fn precision(&self, weight: &Weight) -> ValueType {
        self.source.precision(weight)
    }

    fn linear(&self, weight: &Weight) -> Result<Ternary> {
        let mut ternary = self.source.linear(weight)?;
        let runs = HeldScales::of(&ternary, weight.columns, self.kind).scales;
        let is_one = ternary.scales.single().is_some() || runs.len() == 1;
        ternary.scales = match is_one {
            true => Scales::one(runs[0]),
            false => Scales::of_runs(&ternary.trits, weight.columns, &runs)
                .expect("the runs of a group have its scale, those of several groups one for all"),
        };
        Ok(ternary)
    }

    fn rows(&self, weight: &Weight, first: usize, values: &mut [f32]) -> Result<()> {
        self.source.rows(weight, first, values)
    }

    fn blocks(&self, weight: &Weight, first: usize, count: usize) -> Result<Option<Vec<u8>>> {
        self.source.blocks(weight, first, count)
    }

    fn vector(&self, weight: &Weight) -> Result<Vec<f32>> {
        self.source.vector(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoredScale;
    use crate::gguf::types;

    /// Checks two rows of 256 columns in which each half of a row has its own scale.
    fn check(scales: [f32; 4], kind: &Type, expected: &[f32], error: f64) {
        let mut trits = vec![1; 512];
        trits[384..].fill(0);
        trits[256] = -1;
        let ternary = Ternary {
            scales: Scales {
                scaling: Scaling::Group,
                values: scales.to_vec(),
            },
            trits,
            stored: StoredScale::Products(0),
        };
        let runs = HeldScales::of(&ternary, 256, kind);
        assert_eq!(runs.scales, expected, "{}", kind.name);
        assert!((runs.error - error).abs() < 1e-9, "{}", runs.error);
    }

    #[test]
    fn each_type_has_its_runs() {
        let different = [0.25, 0.5, 0.75, 9.0]; // (groups, rows)
        let blocks = [0.25, 0.25, 0.75, 0.75, 0.5, 0.5, 1.0, 1.0];
        check(different, &types::Q2_0, &blocks, 0.0);
        check(different, &types::TQ2_0, &[0.5, 0.5], 1.0);
        check(different, &types::IQ2_BN, &[0.5, 0.5], 1.0);
        check(different, &types::I2_S, &[0.5], 1.0);
        check([0.5, 0.25, 0.5, 9.0], &types::IQ2_BN, &[0.5, 0.25], 0.0);
        let third = f16::from_f32(1.0 / 3.0).to_f32();
        let error = (f64::from(third) / f64::from(1f32 / 3.0) - 1.0).abs();
        check([1.0 / 3.0; 4], &types::TQ1_0, &[third; 2], error);
    }
}
