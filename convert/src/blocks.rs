//! Rows of numbers encoded in the blocks q8_0 and q4_0 of a packed file, and the rounding of those
//! blocks.

use sterna_ternary::Dense;
use sterna_ternary::packing::DenseRows;
use sterna_ternary::packing::dense::BLOCK;

use crate::parallel;

/// Encodes rows as blocks, or returns the first row with a scale that overflows f16.
pub(crate) fn encode(
    packing: Dense,
    values: &[f32],
    columns: usize,
) -> std::result::Result<Vec<u8>, usize> {
    let size = packing.block_bytes().expect("a packing of blocks");
    let row_bytes = columns.div_ceil(BLOCK) * size;
    let mut bytes = vec![0; values.len() / columns * row_bytes];
    let bad = std::sync::Mutex::new(None);
    let encoded = parallel::rows(values.len(), &mut bytes, row_bytes, |first, bytes| {
        let rows = values[first * columns..].chunks_exact(columns);
        for (i, (bytes, x)) in bytes.chunks_exact_mut(row_bytes).zip(rows).enumerate() {
            if !packing.pack_row(x, bytes) {
                let mut bad = bad.lock().unwrap_or_else(|e| e.into_inner());
                *bad = Some(bad.map_or(first + i, |b: usize| b.min(first + i)));
            }
        }
        Ok(())
    });
    encoded.expect("packing rows returns no error");
    match bad.into_inner().unwrap_or_else(|e| e.into_inner()) {
        None => Ok(bytes),
        Some(row) => Err(row),
    }
}

/// Replaces a row by its values after encoding and decoding.
pub(crate) fn round(packing: Dense, row: &mut [f32]) {
    let size = packing.block_bytes().expect("a packing of blocks");
    let mut bytes = vec![0; row.len().div_ceil(BLOCK) * size];
    packing.pack_row(row, &mut bytes);
    match packing {
        Dense::Q4_0 => DenseRows::Q4_0(bytes.as_chunks().0).decode(0, row),
        _ => DenseRows::Q8_0(bytes.as_chunks().0).decode(0, row),
    }
}
