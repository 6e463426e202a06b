//! Makes tensors row by row while they are written: a few MiB at a time, on all cores.

use sterna_ternary::Packing;
use sterna_ternary::layout::Weight;

use crate::{Result, parallel};

/// Number of elements made at once.
const CHUNK: usize = 1 << 22;

/// Makes `rows` rows of `width` elements. `fill` makes row r; `each` gets whole rows in order.
/// `weights` is the amount of work per row.
pub(crate) fn rows<T: Clone + Default + Send>(
    rows: usize,
    width: usize,
    weights: usize,
    fill: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
    mut each: impl FnMut(&[T]) -> Result<()>,
) -> Result<()> {
    let step = (CHUNK / width).clamp(1, rows);
    let mut chunk = vec![T::default(); step * width];
    for start in (0..rows).step_by(step) {
        let chunk = &mut chunk[..step.min(rows - start) * width];
        parallel::rows(
            chunk.len() / width * weights,
            chunk,
            width,
            |first, part| {
                let mut part = part.chunks_exact_mut(width).enumerate();
                part.try_for_each(|(i, row)| fill(start + first + i, row))
            },
        )?;
        each(chunk)?;
    }
    Ok(())
}

/// Makes and packs a matrix. `fill` makes the trits of row r; `each` gets the number of rows and
/// their bytes.
pub(crate) fn packed_rows(
    weight: &Weight,
    packing: Packing,
    fill: impl Fn(usize, &mut [i8]) -> Result<()> + Sync,
    mut each: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let (columns, row_bytes) = (weight.columns, packing.row_bytes(weight.columns));
    let pack = |row, bytes: &mut [u8]| {
        let mut trits = vec![0; columns];
        fill(row, &mut trits)?;
        packing.pack_row(&trits, bytes);
        Ok(())
    };
    rows(weight.rows, row_bytes, columns, pack, |bytes| {
        each(bytes.len() / row_bytes, bytes)
    })
}
