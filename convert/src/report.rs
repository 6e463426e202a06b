//! What a conversion did and what its proof found.

use serde::Serialize;
use sterna_ternary::Activations;
use sterna_ternary::layout::Weight;

use crate::compare::{Comparison, MatrixComparison};
use crate::write::table::Plan;
use crate::{Source, StoredScale, Ternary};

/// The result of a conversion. Every `differ` is zero: anything else is an error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the packing.
    pub packing: &'static str,
    /// How the runtime rounds activations, where the result says it.
    pub activations: Option<&'static str>,
    /// Weights of linear layers compared after writing; numbers of a dense packing as [`Report::values`] are.
    pub weights: u64,
    /// Those that differ from the source.
    pub differ: u64,
    /// Scales compared, bit for bit.
    pub scales: u64,
    /// Those that differ.
    pub scales_differ: u64,
    /// Values of norms and tables compared: bit for bit where their type holds them exactly, and with the
    /// source rounded again where it does not.
    pub values: u64,
    /// Those that differ.
    pub values_differ: u64,
    /// The most that a scale was rounded by, relative to it; zero unless that was asked for.
    pub scale_rounding: f64,
    /// Bytes of the weights of the source.
    pub bytes_in: u64,
    /// Bytes of the result.
    pub bytes_out: u64,
    /// Checksum of the result.
    pub sha256: String,
    /// Embedding and head.
    pub tables: Vec<TableReport>,
    /// Every linear layer of trits.
    pub matrices: Vec<MatrixReport>,
    /// Every linear layer of a dense packing.
    pub dense: Vec<TableReport>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Report {
    /// The report of a proved conversion, but for size and checksum.
    pub(crate) fn new(
        packing: &'static str,
        source: &dyn Source,
        proof: &Comparison,
        plans: &[Plan],
        matrices: Vec<MatrixReport>,
    ) -> Report {
        let rounding = |m: &MatrixComparison| f64::from((m.scales[1] / m.scales[0] - 1.0).abs());
        Report {
            packing,
            activations: None,
            weights: proof.weights,
            differ: proof.differ,
            scales: proof.scales,
            scales_differ: proof.scales_differ,
            values: proof.values,
            values_differ: proof.values_differ,
            scale_rounding: proof.matrices.iter().map(rounding).fold(0.0, f64::max),
            bytes_in: source.bytes(),
            bytes_out: 0,
            sha256: String::new(),
            tables: plans.iter().map(Plan::report).collect(),
            matrices,
            dense: Vec::new(),
            warnings: source.warnings().to_vec(),
        }
    }
}

/// What a format loses that has no word for activations of more than 8 bits, if the source needs it.
pub(crate) fn coarser(source: &dyn Source, reader: &str) -> Option<String> {
    (source.activations() == Activations::Int16).then(|| {
        format!(
            "the model was trained without quantized activations, and {reader} rounds them to int8: its output will \
             differ by about a percent of the logits; a packed file computes them in 16 bits"
        )
    })
}

/// A table, or a linear layer of numbers, and what its type cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableReport {
    /// Hugging Face name.
    pub name: String,
    /// Type in the source.
    pub source_dtype: &'static str,
    /// Type in the result.
    pub dtype: &'static str,
    /// Mean of |result - source|; zero if every value is exact.
    pub mean_error: f64,
    /// Largest |result - source|.
    pub max_error: f32,
}

/// A linear layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixReport {
    /// Hugging Face name.
    pub name: String,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// Weights that are -1.
    pub minus: u64,
    /// Weights that are 0.
    pub zero: u64,
    /// Weights that are +1.
    pub plus: u64,
    /// The weight is trit × scale; the mean where there are several.
    pub scale: f32,
    /// How many there are.
    pub scales: usize,
    /// How the source gives the scale: `multiply`, `divide`, `masters` or `products`.
    pub stored_scale: &'static str,
    /// Weights that were not exactly trit × scale, but one step of f16 beside it.
    pub rounded: u64,
}

impl MatrixReport {
    pub(crate) fn new(weight: &Weight, ternary: &Ternary) -> MatrixReport {
        let count = |trit| ternary.trits.iter().filter(|t| **t == trit).count() as u64;
        MatrixReport {
            name: weight.name.clone(),
            rows: weight.rows,
            columns: weight.columns,
            minus: count(-1),
            zero: count(0),
            plus: count(1),
            scale: ternary.scales.mean(),
            scales: ternary.scales.values.len(),
            stored_scale: ternary.stored.name(),
            rounded: match ternary.stored {
                StoredScale::Products(rounded) => rounded,
                _ => 0,
            },
        }
    }
}
