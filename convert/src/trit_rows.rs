//! Encodes rows of a table as trits with one scale per 128 columns, if the values are such
//! products.

use sterna_ternary::scales::GROUP_COLUMNS;
use sterna_ternary::trits::TritRow;

use crate::scales::row_factors;
use crate::{Result, parallel};

/// Encodes rows that [`crate::write::ternary_table`] found to be ternary.
pub(crate) fn encode(values: &[f32], columns: usize) -> Result<Vec<TritRow>> {
    let mut rows = vec![None; values.len() / columns];
    parallel::rows(values.len(), &mut rows, 1, |first, rows| {
        let values = values[first * columns..].chunks_exact(columns);
        for (row, values) in rows.iter_mut().zip(values) {
            *row = encode_row(values);
        }
        Ok(())
    })?;
    // A row that changed after planning is written as zeros; the proof detects the difference.
    let zeros = || {
        TritRow::encode(
            &vec![0; columns],
            &vec![1.0; columns.div_ceil(GROUP_COLUMNS)],
        )
    };
    let rows = rows.into_iter().map(|row| row.unwrap_or_else(zeros));
    Ok(rows.collect())
}

/// Encodes a row. None if it is not ternary.
pub(crate) fn encode_row(values: &[f32]) -> Option<TritRow> {
    let mut trits = vec![0; values.len()];
    let mut scales = vec![0.0; values.len().div_ceil(GROUP_COLUMNS)];
    row_factors(values, &mut trits, &mut scales).ok()?;
    Some(TritRow::encode(&trits, &scales))
}

/// Replaces the values of a row by trits times scales. Returns false if the row is not ternary.
pub(crate) fn round(row: &mut [f32]) -> bool {
    let mut trits = vec![0; row.len()];
    let mut scales = vec![0.0; row.len().div_ceil(GROUP_COLUMNS)];
    if row_factors(row, &mut trits, &mut scales).is_err() {
        return false;
    }
    for (i, (x, trit)) in row.iter_mut().zip(trits).enumerate() {
        *x = f32::from(trit) * scales[i / GROUP_COLUMNS];
    }
    true
}
