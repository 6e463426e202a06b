//! Counts of -1, 0 and +1 in every linear layer.
//!
//! In packed rows the counts of each byte are looked up in a table, on all cores. Gigabytes take a
//! second, so `inspect` always counts them.

use sterna_convert::Source;
use sterna_ternary::file::Matrix;
use sterna_ternary::layout::{self, Role, Weight};
use sterna_ternary::{Config, PackedFile, Packing, parallel};

use crate::{Error, Result};

/// A linear layer in numbers.
#[derive(Debug, Clone)]
pub struct TritCounts {
    /// Name and shape of the matrix.
    pub weight: Weight,
    /// The scale, or the mean of several.
    pub scale: f32,
    /// The number of scales.
    pub scales: usize,
    /// The number of trits that are -1.
    pub minus: u64,
    /// The number of trits that are 0.
    pub zero: u64,
    /// The number of trits that are +1.
    pub plus: u64,
    /// The number of rows in which every trit is zero.
    pub zero_rows: u64,
}

impl TritCounts {
    /// The number of trits.
    pub fn all(&self) -> u64 {
        self.minus + self.zero + self.plus
    }

    /// Share of zeros.
    pub fn zeros(&self) -> f64 {
        self.zero as f64 / self.all() as f64
    }

    fn new(weight: Weight, scales: &[f32], rows: [u64; 4]) -> TritCounts {
        let sum: f64 = scales.iter().map(|s| f64::from(*s)).sum();
        let [minus, zero, plus, zero_rows] = rows;
        TritCounts {
            scale: (sum / scales.len() as f64) as f32,
            scales: scales.len(),
            weight,
            minus,
            zero,
            plus,
            zero_rows,
        }
    }
}

/// The ternary layers of a model.
pub fn linear(config: &Config) -> Vec<Weight> {
    let mut weights = layout::weights(config);
    weights.retain(|w| w.role == Role::Linear);
    weights
}

/// Counts the trits of every linear layer of a packed file.
///
/// # Errors
/// A byte that encodes no trits, or a file whose layers hold numbers.
pub fn of_file(file: &PackedFile) -> Result<Vec<TritCounts>> {
    let Some(packing) = file.packing.ternary() else {
        return Err(Error::NoTrits {
            path: file.path().to_owned(),
            packing: file.packing.name(),
        });
    };
    let table = per_byte(packing);
    let counts = linear(&file.config).into_iter().map(|weight| {
        let matrix = file.matrix(&weight.name);
        let row_bytes = packing.row_bytes(matrix.columns);
        let padding = packing.padded_columns(matrix.columns) - matrix.columns;
        let rows = in_parallel(matrix.data, row_bytes, |row| {
            let [minus, zero, plus] = of_packed_row(row, &table)?;
            Some([minus, zero.checked_sub(padding as u64)?, plus])
        });
        match rows {
            Some(rows) => Ok(TritCounts::new(weight, &matrix.scales.to_f32(), rows)),
            None => Err(damaged(file, &weight, matrix)),
        }
    });
    counts.collect()
}

fn damaged(file: &PackedFile, weight: &Weight, matrix: Matrix) -> Error {
    Error::Damaged {
        path: file.path().to_owned(),
        tensor: weight.name.clone(),
        bytes: matrix.data.len(),
    }
}

/// Reads one layer of a checkpoint and counts its trits.
///
/// # Errors
/// The errors of reading the layer.
pub fn of_layer(source: &dyn Source, weight: Weight) -> sterna_convert::Result<TritCounts> {
    let matrix = source.linear(&weight)?;
    let rows = in_parallel(&matrix.trits, weight.columns, |row| Some(of_trits(row)));
    let rows = rows.expect("counting trits cannot fail");
    Ok(TritCounts::new(weight, &matrix.scales.values, rows))
}

fn of_trits(row: &[i8]) -> [u64; 3] {
    let count = |trit| row.iter().filter(|t| **t == trit).count() as u64;
    let (minus, plus) = (count(-1), count(1));
    [minus, row.len() as u64 - minus - plus, plus]
}

/// The number of -1, 0 and +1 that each byte encodes, in three fields of 21 bits. `None` for a byte
/// that encodes no trits. One addition per byte then adds all three counts.
type PerByte = [Option<u64>; 256];
const FIELD: u32 = 21;

/// The number of bytes whose counts fit into one field: a byte encodes at most five trits.
const CHUNK: usize = (1 << FIELD) / 8;

/// The table of a packing. It unpacks a block of equal bytes for each of the 256 values.
fn per_byte(packing: Packing) -> PerByte {
    let mut trits = vec![0; packing.block_columns()];
    let blocks = packing.row_bytes(trits.len());
    std::array::from_fn(|byte| {
        let block = vec![byte as u8; blocks];
        packing.unpack_row(&block, &mut trits).ok()?;
        let [minus, zero, plus] = of_trits(&trits).map(|n| n / blocks as u64);
        Some(minus | zero << FIELD | plus << (2 * FIELD))
    })
}

fn of_packed_row(row: &[u8], table: &PerByte) -> Option<[u64; 3]> {
    let mut counts = [0; 3];
    for bytes in row.chunks(CHUNK) {
        let mut fields = 0;
        for byte in bytes {
            fields += table[usize::from(*byte)]?;
        }
        for (i, count) in counts.iter_mut().enumerate() {
            *count += fields >> (FIELD * i as u32) & ((1 << FIELD) - 1);
        }
    }
    Some(counts)
}

/// Counts -1, 0, +1 and rows of zeros over the rows of `data`, which have `len` elements each.
fn in_parallel<T: Sync>(
    data: &[T],
    len: usize,
    count: impl Fn(&[T]) -> Option<[u64; 3]> + Sync,
) -> Option<[u64; 4]> {
    let part = (data.len() / len).div_ceil(parallel::cores()).max(1) * len;
    let sums = parallel::map(data.chunks(part), |rows| {
        rows.chunks_exact(len).try_fold([0; 4], |sum, row| {
            let [minus, zero, plus] = count(row)?;
            let is_zero = u64::from(minus + plus == 0);
            Some(add(sum, [minus, zero, plus, is_zero]))
        })
    });
    sums.into_iter()
        .try_fold([0; 4], |total, sum| Some(add(total, sum?)))
}

fn add(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    std::array::from_fn(|i| a[i] + b[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_rows_count_as_their_trits_do() {
        for packing in Packing::ALL {
            let table = per_byte(packing);
            for columns in [1, 100, 128, 160, 333, 2000] {
                let trits: Vec<i8> = (0..columns)
                    .map(|i| ((i * i + i / 5) % 3) as i8 - 1)
                    .collect();
                let mut bytes = vec![0; packing.row_bytes(columns)];
                packing.pack_row(&trits, &mut bytes);
                let [minus, zero, plus] = of_packed_row(&bytes, &table).unwrap();
                let padding = (packing.padded_columns(columns) - columns) as u64;
                assert_eq!([minus, zero - padding, plus], of_trits(&trits));
            }
            let bad = table.iter().position(Option::is_none).unwrap();
            assert_eq!(of_packed_row(&[bad as u8], &table), None);
        }
    }

    #[test]
    fn rows_of_zeros_are_counted_on_any_number_of_cores() {
        for rows in [1usize, 2, 7, 64] {
            let data: Vec<i8> = (0..rows)
                .flat_map(|row| [0, i8::from(row % 3 == 0), 0])
                .collect();
            let full = rows.div_ceil(3) as u64;
            let expected = [0, 3 * rows as u64 - full, full, rows as u64 - full];
            assert_eq!(
                in_parallel(&data, 3, |row| Some(of_trits(row))),
                Some(expected)
            );
        }
    }
}
