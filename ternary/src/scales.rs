//! The scales of a ternary matrix. In all forms, weight = trit × scale.
//!
//! BitNet has one scale per matrix. TriLM was trained in shards, each with its own scale: in some
//! matrices the scales change between blocks of rows, in others between blocks of columns. Bonsai
//! and BitCPM have one scale per [`GROUP_COLUMNS`] columns of a row.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::{Dtype, Error, LinearType, Packing, Result};

/// Columns per group. The last group of a row may be shorter.
pub const GROUP_COLUMNS: usize = 128;

/// The set of weights that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// All weights of the matrix.
    #[default]
    Matrix,
    /// The weights of a row.
    Row,
    /// The weights of a group of [`GROUP_COLUMNS`] columns of a row.
    Group,
}

impl Scaling {
    /// All scalings, the coarsest first.
    pub const ALL: [Scaling; 3] = [Scaling::Matrix, Scaling::Row, Scaling::Group];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Scaling::Matrix => "matrix",
            Scaling::Row => "row",
            Scaling::Group => "group",
        }
    }

    /// The shape of the scales of a matrix `[rows, columns]`: `[1]`, `[rows]` or `[groups, rows]`.
    /// Rows are the last dimension, so that the scales for a product with one group of activations
    /// are adjacent.
    pub fn shape(self, rows: usize, columns: usize) -> Vec<usize> {
        match self {
            Scaling::Matrix => vec![1],
            Scaling::Row => vec![rows],
            Scaling::Group => vec![columns.div_ceil(GROUP_COLUMNS), rows],
        }
    }

    /// The index of the scale for the weight at (row, column) in a matrix with `rows` rows.
    pub fn index(self, row: usize, column: usize, rows: usize) -> usize {
        match self {
            Scaling::Matrix => 0,
            Scaling::Row => row,
            Scaling::Group => column / GROUP_COLUMNS * rows + row,
        }
    }

    /// The scaling whose scales have this shape.
    pub fn from_shape(shape: &[usize], rows: usize, columns: usize) -> Option<Scaling> {
        let has_shape = |s: &Scaling| s.shape(rows, columns) == shape;
        Scaling::ALL.into_iter().find(has_shape)
    }

    /// Whether no block of the packing crosses a group boundary, so that each group can be summed
    /// by itself.
    pub fn fits(self, packing: Packing) -> bool {
        self != Scaling::Group || GROUP_COLUMNS.is_multiple_of(packing.block_columns())
    }
}

/// Scales in a file, used in place. Group scales may be f16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScaleValues<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision, if it represents every scale exactly.
    F16(&'a [f16]),
}

impl<'a> ScaleValues<'a> {
    /// Number of scales.
    pub fn len(self) -> usize {
        match self {
            ScaleValues::F32(values) => values.len(),
            ScaleValues::F16(values) => values.len(),
        }
    }

    /// Whether there are no scales.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Scale `i`.
    ///
    /// # Panics
    /// If `i` is out of range.
    pub fn at(self, i: usize) -> f32 {
        match self {
            ScaleValues::F32(values) => values[i],
            ScaleValues::F16(values) => values[i].to_f32(),
        }
    }

    /// Copies scales from index `first` on until `to` is full.
    ///
    /// # Panics
    /// If there are too few scales.
    pub fn read(self, first: usize, to: &mut [f32]) {
        match self {
            ScaleValues::F32(values) => to.copy_from_slice(&values[first..][..to.len()]),
            ScaleValues::F16(values) => values[first..][..to.len()].convert_to_f32_slice(to),
        }
    }

    /// All scales in single precision.
    pub fn to_f32(self) -> Cow<'a, [f32]> {
        match self {
            ScaleValues::F32(values) => Cow::Borrowed(values),
            ScaleValues::F16(values) => Cow::Owned(values.to_f32_vec()),
        }
    }
}

/// Type for group scales in a file: F16 if it represents every scale exactly, F32 if not.
pub fn group_dtype(scales: &[f32]) -> Dtype {
    match scales.iter().all(|s| f16::from_f32(*s).to_f32() == *s) {
        true => Dtype::F16,
        false => Dtype::F32,
    }
}

/// Refuses group scales in a packing whose blocks cross group boundaries.
pub(crate) fn check_scaling(
    path: &Path,
    packing: LinearType,
    scaling: &HashMap<String, Scaling>,
) -> Result<()> {
    let Some(packing) = packing.ternary() else {
        return Ok(()); // no scales beside its matrices
    };
    let unfit = scaling.iter().filter(|(_, s)| !s.fits(packing));
    match unfit.map(|(name, _)| name).min() {
        None => Ok(()),
        Some(name) => Err(Error::Scaling {
            path: path.to_owned(),
            tensor: name.clone(),
            packing: packing.name(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_back() {
        for (rows, columns) in [(3, 300), (1, 128), (1, 129), (7, 5)] {
            for scaling in Scaling::ALL {
                let shape = scaling.shape(rows, columns);
                let found = Scaling::from_shape(&shape, rows, columns).unwrap();
                assert_eq!(found.shape(rows, columns), shape);
            }
        }
        assert_eq!(Scaling::from_shape(&[3, 4], 4, 300), Some(Scaling::Group));
        assert_eq!(Scaling::from_shape(&[4, 3], 4, 300), None);
    }

    #[test]
    fn half_precision_where_it_is_exact() {
        let scales = [0.5, 0.099975586, 65504.0];
        assert_eq!(group_dtype(&scales), Dtype::F16);
        assert_eq!(group_dtype(&[0.5, 0.1]), Dtype::F32);
        let halves = scales.map(f16::from_f32);
        let mut read = [0.0; 2];
        for values in [ScaleValues::F32(&scales), ScaleValues::F16(&halves)] {
            assert_eq!(*values.to_f32(), scales);
            assert_eq!((values.len(), values.at(1)), (3, scales[1]));
            values.read(1, &mut read);
            assert_eq!(read, scales[1..]);
        }
    }

    #[test]
    fn groups_are_whole_blocks_of_i2() {
        assert!(Scaling::Group.fits(Packing::I2));
        assert!(!Scaling::Group.fits(Packing::T5));
        assert!(Scaling::Row.fits(Packing::T5));
    }
}
