//! The results of a conversion and of its proof.

use serde::Serialize;
use sterna_ternary::Activations;
use sterna_ternary::layout::Weight;

use crate::compare::{Comparison, MatrixComparison};
use crate::write::table::TablePlan;
use crate::{Source, StoredScale, Ternary};

/// The report of a conversion. Every `differ` is zero, because a difference is an error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConversionReport {
    /// Name of the packing.
    pub packing: &'static str,
    /// Rounding of activations, if the result states it.
    pub activations: Option<&'static str>,
    /// Weights of ternary linear layers that were compared. The numbers of a dense packing count in
    /// [`ConversionReport::values`].
    pub weights: u64,
    /// Weights that differ from the source.
    pub differ: u64,
    /// Scales compared, bit for bit.
    pub scales: u64,
    /// Scales that differ.
    pub scales_differ: u64,
    /// Values of norms and tables that were compared: bit for bit if the type is exact, with the
    /// rounded source if it is not.
    pub values: u64,
    /// Values that differ.
    pub values_differ: u64,
    /// Largest relative rounding error of a scale. Zero unless rounding was requested.
    pub scale_rounding: f64,
    /// Size of the source's weights in bytes.
    pub bytes_in: u64,
    /// Size of the result in bytes.
    pub bytes_out: u64,
    /// SHA-256 of the result.
    pub sha256: String,
    /// Embedding and head.
    pub tables: Vec<TableReport>,
    /// Every ternary linear layer.
    pub matrices: Vec<MatrixReport>,
    /// Every linear layer in a dense packing.
    pub dense: Vec<TableReport>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl ConversionReport {
    /// The report of a proved conversion, still without size and checksum.
    pub(crate) fn new(
        packing: &'static str,
        source: &dyn Source,
        proof: &Comparison,
        plans: &[TablePlan],
        matrices: Vec<MatrixReport>,
    ) -> ConversionReport {
        let rounding = |m: &MatrixComparison| f64::from((m.scales[1] / m.scales[0] - 1.0).abs());
        ConversionReport {
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
            tables: plans.iter().map(TablePlan::report).collect(),
            matrices,
            dense: Vec::new(),
            warnings: source.warnings().to_vec(),
        }
    }
}

/// A warning if the source has activations of more than 8 bits, which the target format cannot
/// express.
pub(crate) fn coarser(source: &dyn Source, reader: &str) -> Option<String> {
    (source.activations() == Activations::Int16).then(|| {
        format!(
            "the model was trained without quantized activations, but {reader} rounds them to \
             int8: its logits will differ by about one percent; a packed file uses 16 bits"
        )
    })
}

/// A table or a dense linear layer, and the rounding error of its type.
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

/// A ternary linear layer.
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
    /// The scale; the mean if there are several. Weight = trit × scale.
    pub scale: f32,
    /// Number of scales.
    pub scales: usize,
    /// How the source stores the scale: `multiply`, `divide`, `masters` or `products`.
    pub stored_scale: &'static str,
    /// Weights that were not exactly trit × scale but one step of f16 smaller.
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
