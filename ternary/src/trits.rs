//! Ternary tables: embedding and head of trits with one scale per 128 columns, as in Bonsai.
//!
//! Rows are encoded like those of a linear layer in the packing `i2`, whatever the packing of the
//! model. Scales are stored as (groups, rows), like those of a linear layer with one scale per
//! group. The head is therefore computed like a linear layer.

use crate::packing::Packing;
use crate::scales::{GROUP_COLUMNS, ScaleValues};
use crate::{Result, table};

/// The packing of rows.
pub const PACKING: Packing = Packing::I2;

/// One row of a ternary table.
#[derive(Debug, Clone, PartialEq)]
pub struct TritRow {
    /// The trits, packed.
    pub bytes: Vec<u8>,
    /// One scale per group, finite and positive.
    pub scales: Vec<f32>,
}

impl TritRow {
    /// Packs a row; `scales` has one element per 128 columns.
    ///
    /// # Panics
    /// If the number of scales is wrong, or a trit is out of range.
    pub fn encode(trits: &[i8], scales: &[f32]) -> TritRow {
        assert_eq!(scales.len(), table::groups(trits.len()));
        let mut bytes = vec![0; PACKING.row_bytes(trits.len())];
        PACKING.pack_row(trits, &mut bytes);
        TritRow {
            bytes,
            scales: scales.to_vec(),
        }
    }
}

/// A ternary table, used in place.
#[derive(Debug, Clone, Copy)]
pub struct Trits<'a> {
    /// Number of rows.
    pub rows: usize,
    /// (rows, row_bytes)
    pub bytes: &'a [u8],
    /// (groups, rows)
    pub scales: ScaleValues<'a>,
}

impl<'a> Trits<'a> {
    /// The packed trits of a row.
    pub fn row_bytes(&self, row: usize) -> &'a [u8] {
        let len = self.bytes.len() / self.rows;
        &self.bytes[row * len..][..len]
    }

    /// The scales of a row, one per group.
    pub fn row_scales(&self, row: usize) -> impl Iterator<Item = f32> + 'a {
        let Trits { rows, scales, .. } = *self;
        (row..scales.len()).step_by(rows).map(move |i| scales.at(i))
    }

    /// Decodes a row. The values are unspecified if its bytes are not those of a packer
    /// ([`Trits::check`]).
    ///
    /// # Panics
    /// If the row does not exist or `x` does not have the length of a row.
    pub fn decode(&self, row: usize, x: &mut [f32]) {
        let mut trits = vec![0; x.len()];
        PACKING.read_row(self.row_bytes(row), &mut trits);
        let groups = x.chunks_mut(GROUP_COLUMNS).zip(trits.chunks(GROUP_COLUMNS));
        for ((x, trits), scale) in groups.zip(self.row_scales(row)) {
            for (x, trit) in x.iter_mut().zip(trits) {
                *x = f32::from(*trit) * scale;
            }
        }
    }

    /// Checks that a row with `columns` columns can be decoded.
    ///
    /// # Errors
    /// [`crate::Error::Code`] at a byte that does not encode trits.
    pub fn check(&self, row: usize, columns: usize) -> Result<()> {
        PACKING.unpack_row(self.row_bytes(row), &mut vec![0; columns])
    }

    /// A copy of a row.
    pub fn row(&self, row: usize) -> TritRow {
        TritRow {
            bytes: self.row_bytes(row).to_vec(),
            scales: self.row_scales(row).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        for columns in [1, 127, 128, 129, 300] {
            let groups = table::groups(columns);
            let trit = |row: usize, i: usize| ((i * i + row) % 3) as i8 - 1;
            let scale = |row: usize, group: usize| 0.25 + 0.5 * (row * groups + group) as f32;
            let row = |r: usize| {
                let trits: Vec<i8> = (0..columns).map(|i| trit(r, i)).collect();
                let scales: Vec<f32> = (0..groups).map(|g| scale(r, g)).collect();
                TritRow::encode(&trits, &scales)
            };
            let rows = [row(0), row(1), row(2)];
            let bytes = rows.each_ref().map(|r| r.bytes.clone()).concat();
            let scales: Vec<f32> = (0..groups)
                .flat_map(|g| (0..3).map(move |r| scale(r, g)))
                .collect();
            let table = Trits {
                rows: 3,
                bytes: &bytes,
                scales: ScaleValues::F32(&scales),
            };
            for (r, row) in rows.iter().enumerate() {
                assert_eq!(table.row(r), *row);
                let mut x = vec![f32::NAN; columns];
                table.decode(r, &mut x);
                for (i, x) in x.iter().enumerate() {
                    assert_eq!(*x, f32::from(trit(r, i)) * scale(r, i / GROUP_COLUMNS));
                }
            }
        }
    }

    #[test]
    fn bytes_of_no_trits_are_refused() {
        let table = Trits {
            rows: 1,
            bytes: &[0xff; 32],
            scales: ScaleValues::F32(&[1.0]),
        };
        assert!(table.check(0, 128).is_err());
        table.decode(0, &mut [0.0; 128]);
    }
}
