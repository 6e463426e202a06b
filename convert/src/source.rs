//! The canonical form of a checkpoint, between every reader and every writer.

use std::path::{Path, PathBuf};

use sterna_ternary::layout::{Dtype, Weight};
use sterna_ternary::scales::group_dtype;
use sterna_ternary::table::CodedRow;
use sterna_ternary::{Activations, Config, Scaling};

use crate::{Error, Result, Scales, ValueType};

/// A checkpoint, one tensor at a time, checked at opening: every tensor that its config calls for is there,
/// in the right shape, and there is no other.
///
/// A tensor may be read any number of times and gives the same values each time.
pub trait Source {
    /// Where it was read from, for messages.
    fn path(&self) -> &Path;

    /// Shapes and constants.
    fn config(&self) -> &Config;

    /// The files that travel with the model, a subset of [`sterna_ternary::file::FILES`] in that order.
    fn files(&self) -> &[(String, Vec<u8>)];

    /// What the user should know about the checkpoint.
    fn warnings(&self) -> &[String];

    /// Every file that belongs to the checkpoint, whether it exists or not: a writer keeps off them.
    fn inputs(&self) -> Vec<PathBuf>;

    /// Bytes of the weights.
    fn bytes(&self) -> u64;

    /// The type in which a table or a norm is stored.
    fn dtype(&self, weight: &Weight) -> Dtype;

    /// Bytes of a tensor as it is stored, with those of its scales.
    fn stored_bytes(&self, weight: &Weight) -> u64 {
        (weight.rows * weight.columns * self.dtype(weight).bytes()) as u64
    }

    /// How the values of a table or a norm are held.
    fn precision(&self, weight: &Weight) -> ValueType {
        ValueType::of(self.dtype(weight))
    }

    /// Which weights of a linear layer share a scale; reads the layer where nothing else tells.
    fn scaling(&self, weight: &Weight) -> Result<Scaling> {
        Ok(self.linear(weight)?.scales.scaling)
    }

    /// Whether f16 holds every scale of a linear layer.
    fn has_f16_scales(&self, weight: &Weight) -> Result<bool> {
        Ok(group_dtype(&self.linear(weight)?.scales.values) == Dtype::F16)
    }

    /// How the activations of its linear layers were rounded in training, or are by the programs that run it; 16 bits
    /// stand for not at all.
    fn activations(&self) -> Activations {
        Activations::Int8
    }

    /// The same in a word, also of baselines.
    fn inputs_rounded_to(&self) -> &'static str {
        self.activations().name()
    }

    /// A linear layer of trits.
    fn linear(&self, weight: &Weight) -> Result<Ternary>;

    /// Full-precision values (rows, columns) of a linear layer, for training that starts from them.
    ///
    /// Its master weights where the checkpoint has them, else [`Ternary::masters`] with its own scaling.
    fn masters(&self, weight: &Weight) -> Result<Vec<f32>> {
        let ternary = self.linear(weight)?;
        Ok(ternary.masters(weight.columns, ternary.scales.scaling))
    }

    /// Whether the linear layers are numbers of a packed baseline: then [`Source::linear`] is an error.
    fn is_dense(&self) -> bool {
        false
    }

    /// Whether [`Source::dense`] gives master weights, of which training used the trits only.
    fn has_masters(&self) -> bool {
        false
    }

    /// The values (rows, columns) of a linear layer as they are stored: numbers, master weights, or the products of
    /// trits and scales.
    fn dense(&self, weight: &Weight) -> Result<Vec<f32>> {
        Ok(self.linear(weight)?.products(weight.columns))
    }

    /// Rows `first..` of a table, as many as fill `values`; all are finite.
    fn rows(&self, weight: &Weight, first: usize, values: &mut [f32]) -> Result<()>;

    /// Rows `first..` of a coded table, to be copied without rounding them again; none of any other.
    fn coded_rows(&self, _weight: &Weight, _first: usize, _count: usize) -> Option<Vec<CodedRow>> {
        None
    }

    /// How many values of the rows `first..` of a table, or of a matrix of blocks, are held otherwise than its type would
    /// hold `values`; none where the values themselves tell.
    fn coded_differently(&self, _weight: &Weight, _first: usize, _values: &[f32]) -> Option<u64> {
        None
    }

    /// A norm; all values are finite.
    fn vector(&self, weight: &Weight) -> Result<Vec<f32>>;
}

/// A linear layer: the weight is trit × its scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Ternary {
    /// -1, 0 or +1 (rows, columns), rows in Hugging Face order: heads in sequence, halves rotated.
    pub trits: Vec<i8>,
    /// Finite and above zero.
    pub scales: Scales,
    /// What the scale was before.
    pub stored: StoredScale,
}

/// How a checkpoint gives the scale of a matrix; with it, a writer can give the same bits back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StoredScale {
    /// The scale itself.
    Multiply(f32),
    /// Its reciprocal: the weight is trit / this.
    Divide(f32),
    /// Not at all: it is [`sterna_ternary::quantize::absmean`] of the master weights.
    Masters,
    /// Not by itself: the weights are stored as products of trits and scales. So many of them are not exactly the
    /// product, but one step of f16 beside it.
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
