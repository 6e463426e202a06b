//! How many scales a matrix of trits has: the weight is trit × scale in all of them.
//!
//! BitNet has one for the matrix. TriLM was trained in shards, each with its own: the scales of some matrices
//! change between blocks of rows, those of others between blocks of columns. Bonsai and BitCPM have one for each
//! [`GROUP_COLUMNS`] columns of a row.

use std::borrow::Cow;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::{Dtype, Packing};

/// Columns of a group; the last one of a row may be shorter.
pub const GROUP_COLUMNS: usize = 128;

/// Which weights of a matrix share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// All.
    #[default]
    Matrix,
    /// Those of a row.
    Row,
    /// Those of a group of [`GROUP_COLUMNS`] columns of a row.
    Group,
}

impl Scaling {
    /// All of them, the simplest first.
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
    /// Rows come last, so that the scales for a product with one group of activations are neighbours.
    pub fn shape(self, rows: usize, columns: usize) -> Vec<usize> {
        match self {
            Scaling::Matrix => vec![1],
            Scaling::Row => vec![rows],
            Scaling::Group => vec![columns.div_ceil(GROUP_COLUMNS), rows],
        }
    }

    /// The index of the scale of the weight in this row and column, in a matrix with `rows` rows.
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

    /// Whether no block of the packing reaches into two groups, so that the sum of each can be computed.
    pub fn fits(self, packing: Packing) -> bool {
        self != Scaling::Group || GROUP_COLUMNS.is_multiple_of(packing.block_columns())
    }
}

/// Scales in place, as a file holds them: those of groups may be f16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScaleValues<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision, where it holds every one.
    F16(&'a [f16]),
}

impl<'a> ScaleValues<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            ScaleValues::F32(values) => values.len(),
            ScaleValues::F16(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Scale `i`.
    ///
    /// # Panics
    /// If there is no such scale.
    pub fn at(self, i: usize) -> f32 {
        match self {
            ScaleValues::F32(values) => values[i],
            ScaleValues::F16(values) => values[i].to_f32(),
        }
    }

    /// The scales from `first` on, as many as `to` has room for.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn read(self, first: usize, to: &mut [f32]) {
        match self {
            ScaleValues::F32(values) => to.copy_from_slice(&values[first..][..to.len()]),
            ScaleValues::F16(values) => values[first..][..to.len()].convert_to_f32_slice(to),
        }
    }

    /// All of them in single precision.
    pub fn to_f32(self) -> Cow<'a, [f32]> {
        match self {
            ScaleValues::F32(values) => Cow::Borrowed(values),
            ScaleValues::F16(values) => Cow::Owned(values.to_f32_vec()),
        }
    }
}

/// The type that a file holds scales of groups in: F16 if that holds every one of them exactly, else F32.
pub fn group_dtype(scales: &[f32]) -> Dtype {
    match scales.iter().all(|s| f16::from_f32(*s).to_f32() == *s) {
        true => Dtype::F16,
        false => Dtype::F32,
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
