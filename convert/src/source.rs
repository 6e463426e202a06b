//! The canonical form of a checkpoint, the interface between readers and writers.

use std::path::{Path, PathBuf};

use sterna_ternary::layout::{Dtype, Weight};
use sterna_ternary::scales::group_dtype;
use sterna_ternary::table::CodedRow;
use sterna_ternary::{Activations, Config, Scaling};

use crate::{Error, Result, Scales, ValueType};

/// A checkpoint that is read one tensor at a time. Opening checks that every tensor that the config
/// requires exists with the right shape, and that there are no others.
///
/// A tensor may be read any number of times and gives the same values each time.
pub trait Source {
    /// The path of the checkpoint, for messages.
    fn path(&self) -> &Path;

    /// Shapes and constants.
    fn config(&self) -> &Config;

    /// The files to embed, a subset of [`sterna_ternary::file::FILES`] in that order.
    fn files(&self) -> &[(String, Vec<u8>)];

    /// The same, to change settings before a conversion. None for a view of another source.
    fn files_mut(&mut self) -> Option<&mut Vec<(String, Vec<u8>)>> {
        None
    }

    /// Warnings about the checkpoint for the user.
    fn warnings(&self) -> &[String];

    /// Every file of the checkpoint, whether it exists or not. A writer must not overwrite them.
    fn inputs(&self) -> Vec<PathBuf>;

    /// Size of the weights in bytes.
    fn bytes(&self) -> u64;

    /// The storage type of a table or a norm.
    fn dtype(&self, weight: &Weight) -> Dtype;

    /// Size of a stored tensor in bytes, including its scales.
    fn stored_bytes(&self, weight: &Weight) -> u64 {
        (weight.rows * weight.columns * self.dtype(weight).bytes()) as u64
    }

    /// The storage type of a table or a norm, including block and code types.
    fn precision(&self, weight: &Weight) -> ValueType {
        ValueType::of(self.dtype(weight))
    }

    /// Which weights of a linear layer share a scale. Reads the layer if nothing else determines
    /// it.
    fn scaling(&self, weight: &Weight) -> Result<Scaling> {
        Ok(self.linear(weight)?.scales.scaling)
    }

    /// Whether f16 represents every scale of a linear layer exactly.
    fn has_f16_scales(&self, weight: &Weight) -> Result<bool> {
        Ok(group_dtype(&self.linear(weight)?.scales.values) == Dtype::F16)
    }

    /// Rounding of activations in training, or in the programs that run the model. 16 bits mean
    /// that training did not round them.
    fn activations(&self) -> Activations {
        Activations::Int8
    }

    /// The same as a word, also for baselines.
    fn inputs_rounded_to(&self) -> &'static str {
        self.activations().name()
    }

    /// Reads a ternary linear layer.
    fn linear(&self, weight: &Weight) -> Result<Ternary>;

    /// Full-precision values (rows, columns) of a linear layer, as a start for training.
    ///
    /// These are the master weights if the checkpoint has them, or [`Ternary::masters`] with the
    /// layer's own scaling.
    fn masters(&self, weight: &Weight) -> Result<Vec<f32>> {
        let ternary = self.linear(weight)?;
        Ok(ternary.masters(weight.columns, ternary.scales.scaling))
    }

    /// Whether the source is a packed baseline with dense linear layers. Then [`Source::linear`] is
    /// an error.
    fn is_dense(&self) -> bool {
        false
    }

    /// Whether [`Source::dense`] gives master weights, of which training used only the trits.
    fn has_masters(&self) -> bool {
        false
    }

    /// The stored values (rows, columns) of a linear layer: numbers, master weights, or products
    /// trit × scale.
    fn dense(&self, weight: &Weight) -> Result<Vec<f32>> {
        Ok(self.linear(weight)?.products(weight.columns))
    }

    /// Reads rows of a table from `first` on until `values` is full. All values are finite.
    fn rows(&self, weight: &Weight, first: usize, values: &mut [f32]) -> Result<()>;

    /// Rows `first..` of a coded table, to be copied without new rounding. None for other tables.
    fn coded_rows(&self, _weight: &Weight, _first: usize, _count: usize) -> Option<Vec<CodedRow>> {
        None
    }

    /// Rows `first..` of a table of GGUF blocks as they are stored, to be copied without new
    /// rounding. None for other tables.
    fn blocks(&self, _weight: &Weight, _first: usize, _count: usize) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Number of values in the rows `first..` of a table, or of a matrix of blocks, whose encoding
    /// differs from that of `values`. None if comparing the values is enough.
    fn coded_differently(&self, _weight: &Weight, _first: usize, _values: &[f32]) -> Option<u64> {
        None
    }

    /// Reads a norm. All values are finite.
    fn vector(&self, weight: &Weight) -> Result<Vec<f32>>;
}

/// A ternary linear layer: weight = trit × scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Ternary {
    /// -1, 0 or +1 (rows, columns). Rows are in Hugging Face order: head by head, rotated in
    /// halves.
    pub trits: Vec<i8>,
    /// The scales, finite and positive.
    pub scales: Scales,
    /// How the checkpoint stored the scale.
    pub stored: StoredScale,
}

/// How a checkpoint stores the scale of a matrix. With it, a writer can reproduce the same bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StoredScale {
    /// The scale itself.
    Multiply(f32),
    /// Its reciprocal: the weight is trit / this.
    Divide(f32),
    /// Not stored: it is [`sterna_ternary::quantize::absmean`] of the master weights.
    Masters,
    /// Not stored separately: the weights are products of trits and scales. The number counts the
    /// weights that are not exactly the product, but one step of f16 smaller.
    Products(u64),
}

impl StoredScale {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            StoredScale::Multiply(_) => "multiply",
            StoredScale::Divide(_) => "divide",
            StoredScale::Masters => "masters",
            StoredScale::Products(_) => "products",
        }
    }
}

/// Refuses NaN and infinities; `first` is the position of `values` in the tensor.
pub(crate) fn check_finite(
    path: &Path,
    weight: &Weight,
    first: usize,
    values: &[f32],
) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Value {
            path: path.to_owned(),
            tensor: weight.name.clone(),
            index: first + at,
            value: values[at],
            expected: "a finite number",
            advice: "the training diverged or the file is damaged",
        }),
    }
}
