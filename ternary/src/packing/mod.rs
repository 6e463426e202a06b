//! Packings: the encoding of rows of trits, or of the numbers of full-precision models ([`dense`]).
//! Each packing has its own file, whose head gives the exact layout.
//!
//! A packing encodes rows: a matrix [rows, columns] is `rows` times [`Packing::row_bytes`] bytes
//! without gaps. A row is padded with zero trits to a multiple of [`Packing::block_columns`], and
//! each block is [`BLOCK_BYTES`] bytes, so that kernels need no code for a remainder.

pub mod dense;
mod i2;
pub mod q4_0;
pub mod q8_0;
mod t5;

use crate::{Error, Result};
pub use dense::{Dense, DenseRows};

/// Bytes of one block in any packing of trits: half a cache line, one 256-bit register.
pub const BLOCK_BYTES: usize = 32;

/// A lossless encoding of trits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Two bits per weight, four weights per byte.
    I2,
    /// Five weights per byte, 1.6 bits per weight.
    T5,
}

/// The packing of a model's linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinearType {
    /// Trits, with separate scales.
    Ternary(Packing),
    /// Numbers of full or reduced precision.
    Dense(Dense),
}

impl LinearType {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            LinearType::Ternary(packing) => packing.name(),
            LinearType::Dense(dense) => dense.name(),
        }
    }

    /// The type with that name.
    pub fn from_name(name: &str) -> Option<LinearType> {
        let dense = || Dense::from_name(name).map(LinearType::Dense);
        Packing::from_name(name)
            .map(LinearType::Ternary)
            .or_else(dense)
    }

    /// The ternary packing, if it is one.
    pub fn ternary(self) -> Option<Packing> {
        match self {
            LinearType::Ternary(packing) => Some(packing),
            LinearType::Dense(_) => None,
        }
    }

    /// The dense packing, if it is one.
    pub fn dense(self) -> Option<Dense> {
        match self {
            LinearType::Ternary(_) => None,
            LinearType::Dense(dense) => Some(dense),
        }
    }
}

impl From<Packing> for LinearType {
    fn from(packing: Packing) -> LinearType {
        LinearType::Ternary(packing)
    }
}

impl From<Dense> for LinearType {
    fn from(dense: Dense) -> LinearType {
        LinearType::Dense(dense)
    }
}

impl Packing {
    /// All packings of trits.
    pub const ALL: [Packing; 2] = [Packing::I2, Packing::T5];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Packing::I2 => "i2",
            Packing::T5 => "t5",
        }
    }

    /// The packing with that name.
    pub fn from_name(name: &str) -> Option<Packing> {
        Packing::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Columns per block of [`BLOCK_BYTES`].
    pub fn block_columns(self) -> usize {
        match self {
            Packing::I2 => i2::BLOCK_COLUMNS,
            Packing::T5 => t5::BLOCK_COLUMNS,
        }
    }

    /// `columns` rounded up to whole blocks.
    pub fn padded_columns(self, columns: usize) -> usize {
        columns.next_multiple_of(self.block_columns())
    }

    /// Bytes of one packed row.
    pub fn row_bytes(self, columns: usize) -> usize {
        columns.div_ceil(self.block_columns()) * BLOCK_BYTES
    }

    /// Packs one row of trits (-1, 0, +1) into exactly `row_bytes(trits.len())` bytes.
    ///
    /// # Panics
    /// If `bytes` has another length or a trit is out of range.
    pub fn pack_row(self, trits: &[i8], bytes: &mut [u8]) {
        assert_eq!(bytes.len(), self.row_bytes(trits.len()));
        assert!(
            trits.iter().all(|t| (-1..=1).contains(t)),
            "a trit is -1, 0 or +1"
        );
        let columns = self.block_columns();
        let mut block = [0i8; i2::BLOCK_COLUMNS + t5::BLOCK_COLUMNS];
        for (bytes, trits) in bytes
            .chunks_exact_mut(BLOCK_BYTES)
            .zip(trits.chunks(columns))
        {
            block.fill(0);
            block[..trits.len()].copy_from_slice(trits);
            match self {
                Packing::I2 => i2::pack_block(&block, bytes),
                Packing::T5 => t5::pack_block(&block, bytes),
            }
        }
    }

    /// Unpacks one row, the inverse of [`Packing::pack_row`].
    ///
    /// # Errors
    /// [`Error::Code`] if the row has a byte that no packer writes, or nonzero padding.
    ///
    /// # Panics
    /// If `bytes` is not `row_bytes(trits.len())` long.
    pub fn unpack_row(self, bytes: &[u8], trits: &mut [i8]) -> Result<()> {
        match self.read_row(bytes, trits) {
            None => Ok(()),
            Some(block) => Err(Error::Code {
                packing: self.name(),
                offset: block * BLOCK_BYTES,
            }),
        }
    }

    /// Unpacks a row without failing. Invalid bytes decode to unspecified values; returns the index
    /// of the first block that contains one.
    ///
    /// # Panics
    /// If `bytes` is not `row_bytes(trits.len())` long.
    pub fn read_row(self, bytes: &[u8], trits: &mut [i8]) -> Option<usize> {
        assert_eq!(bytes.len(), self.row_bytes(trits.len()));
        let columns = self.block_columns();
        let mut block = [0i8; i2::BLOCK_COLUMNS + t5::BLOCK_COLUMNS];
        let blocks = bytes
            .chunks_exact(BLOCK_BYTES)
            .zip(trits.chunks_mut(columns));
        let mut bad = None;
        for (index, (bytes, trits)) in blocks.enumerate() {
            let valid = match self {
                Packing::I2 => i2::unpack_block(bytes, &mut block),
                Packing::T5 => t5::unpack_block(bytes, &mut block),
            };
            let (kept, padding) = block[..columns].split_at(trits.len());
            if !valid || padding.iter().any(|t| *t != 0) {
                bad.get_or_insert(index);
            }
            trits.copy_from_slice(kept);
        }
        bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trits(columns: usize) -> Vec<i8> {
        (0..columns)
            .map(|i| ((i * i + i / 5) % 3) as i8 - 1)
            .collect()
    }

    #[test]
    fn every_width_round_trips() {
        for packing in Packing::ALL {
            for columns in (1..700).chain([2048, 2560, 5460, 6912]) {
                let trits = trits(columns);
                let mut bytes = vec![0xff; packing.row_bytes(columns)];
                packing.pack_row(&trits, &mut bytes);
                let mut back = vec![9; columns];
                packing.unpack_row(&bytes, &mut back).unwrap();
                assert_eq!(trits, back, "{} {columns}", packing.name());
            }
        }
    }

    #[test]
    fn sizes_of_published_widths() {
        assert_eq!(Packing::I2.row_bytes(2560), 640);
        assert_eq!(Packing::T5.row_bytes(2560), 512);
        assert_eq!(Packing::I2.row_bytes(6912), 1728);
        assert_eq!(Packing::T5.row_bytes(6912), 44 * 32);
    }

    #[test]
    fn impossible_bytes_and_padding_are_refused() {
        let trits = trits(100);
        for (packing, bad) in [(Packing::I2, 0b11), (Packing::T5, 0x80)] {
            let mut bytes = vec![0; packing.row_bytes(100)];
            packing.pack_row(&trits, &mut bytes);
            let mut back = vec![0; 100];
            for broken in [bad, bytes[31] ^ 0x40] {
                let mut bytes = bytes.clone();
                bytes[31] = broken;
                assert!(
                    packing.unpack_row(&bytes, &mut back).is_err(),
                    "{}",
                    packing.name()
                );
            }
        }
    }
}
