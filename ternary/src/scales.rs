//! How many scales a matrix of trits has: the weight is trit × scale in all of them.
//!
//! BitNet has one for the matrix. TriLM was trained in shards, each with its own: the scales of some matrices
//! change between blocks of rows, those of others between blocks of columns. Bonsai and BitCPM have one for each
//! [`GROUP_COLUMNS`] columns of a row.

use crate::Packing;

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

    /// The shape of the scales of a matrix [rows, columns]: [1], [rows] or [groups, rows]. Rows come last, so that
    /// the scales for a product with one group of activations are neighbours.
    pub fn shape(self, rows: usize, columns: usize) -> Vec<usize> {
        match self {
            Scaling::Matrix => vec![1],
            Scaling::Row => vec![rows],
            Scaling::Group => vec![columns.div_ceil(GROUP_COLUMNS), rows],
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
    fn groups_are_whole_blocks_of_i2() {
        assert!(Scaling::Group.fits(Packing::I2));
        assert!(!Scaling::Group.fits(Packing::T5));
        assert!(Scaling::Row.fits(Packing::T5));
    }
}
