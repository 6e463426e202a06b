//! Stores embedding and head as trits with one scale per 128 columns, if their values are such
//! products.

use sterna_ternary::TableType;
use sterna_ternary::layout::{Dtype, Weight};
use sterna_ternary::scales::{GROUP_COLUMNS, group_dtype};

use crate::scales::row_factors;
use crate::value_type::is_same;
use crate::write::table::{self, TablePlan};
use crate::{Error, HeadType, Result, Source, ValueType, parallel};

/// What one row shows.
#[derive(Debug, Clone, Copy, Default)]
struct TernarySurvey {
    /// The column of a value that is not a product.
    odd: Option<usize>,
    sum_error: f64,
    max_error: f32,
    has_wide_scales: bool,
    /// Whether a value differs from the product in its bits: one step smaller, or minus zero.
    is_inexact: bool,
}

/// The plan of a table as trits, if it is ternary. If `head` asks for exact values, no rounding is
/// allowed; if not, values may be one step of f16 smaller than others in their group.
///
/// # Errors
/// The first row that is not ternary, if `head` requires trits.
pub(crate) fn plan(
    source: &dyn Source,
    weight: &Weight,
    head: HeadType,
    is_separate_embedding: bool,
    advance: &mut dyn FnMut(usize),
) -> Result<Option<TablePlan>> {
    let (may_round, must) = match head {
        HeadType::Auto => (true, false),
        HeadType::Ternary => (true, !is_separate_embedding),
        HeadType::Lossless => (false, false),
        HeadType::Q8 | HeadType::Q6 | HeadType::Q4 if is_separate_embedding => (false, false),
        HeadType::F16 | HeadType::Q8 | HeadType::Q6 | HeadType::Q4 => return Ok(None),
    };
    let mut all = TernarySurvey::default();
    let mut odd = None;
    let step = table::rows_at_once(weight);
    let mut values = vec![0.0; step * weight.columns];
    for first in (0..weight.rows).step_by(step) {
        let values = &mut values[..step.min(weight.rows - first) * weight.columns];
        source.rows(weight, first, values)?;
        for (row, found) in (first..).zip(survey(values, weight.columns)?) {
            if found.odd.is_some() || (found.is_inexact && !may_round) {
                let column = found.odd.unwrap_or(0);
                odd = Some((row, column, values[(row - first) * weight.columns + column]));
                break;
            }
            all.sum_error += found.sum_error;
            all.max_error = all.max_error.max(found.max_error);
            all.has_wide_scales |= found.has_wide_scales;
        }
        if odd.is_some() {
            break; // most tables show what they are in their first row
        }
    }
    match odd {
        Some((row, column, value)) if must => Err(not_ternary(source, weight, row, column, value)),
        Some(_) => Ok(None),
        None => {
            let count = weight.rows * weight.columns;
            advance(count);
            Ok(Some(TablePlan {
                name: weight.name.clone(),
                precision: ValueType::Coded(TableType::Ternary),
                source_dtype: table::source_type(source, weight),
                mean_error: all.sum_error / count as f64,
                max_error: all.max_error,
                has_wide_scales: all.has_wide_scales,
                exceptions: 0,
            }))
        }
    }
}

fn not_ternary(
    source: &dyn Source,
    weight: &Weight,
    row: usize,
    column: usize,
    value: f32,
) -> Error {
    Error::Tensor {
        path: source.path().to_owned(),
        tensor: weight.name.clone(),
        expected:
            "-s, 0 and +s with one s for each 128 columns of a row, as a ternary table has them"
                .into(),
        found: format!("{value} in row {row}, column {column}"),
        advice: "choose another type of the head (--head q8)",
    }
}

fn survey(values: &[f32], columns: usize) -> Result<Vec<TernarySurvey>> {
    let mut rows = vec![TernarySurvey::default(); values.len() / columns];
    parallel::rows(values.len(), &mut rows, 1, |first, rows| {
        let values = values[first * columns..].chunks_exact(columns);
        for (row, values) in rows.iter_mut().zip(values) {
            *row = survey_row(values);
        }
        Ok(())
    })?;
    Ok(rows)
}

fn survey_row(values: &[f32]) -> TernarySurvey {
    let mut scales = vec![0.0; values.len().div_ceil(GROUP_COLUMNS)];
    let rounded = match row_factors(values, &mut vec![0; values.len()], &mut scales) {
        Ok(rounded) => rounded,
        Err(column) => {
            return TernarySurvey {
                odd: Some(column),
                ..TernarySurvey::default()
            };
        }
    };
    let mut row = TernarySurvey {
        has_wide_scales: group_dtype(&scales) != Dtype::F16,
        is_inexact: rounded > 0 || values.iter().any(|x| is_same(*x, -0.0)),
        ..TernarySurvey::default()
    };
    if rounded > 0 {
        for (values, scale) in values.chunks(GROUP_COLUMNS).zip(scales) {
            for x in values.iter().filter(|x| **x != 0.0) {
                let error = scale - x.abs();
                row.sum_error += f64::from(error);
                row.max_error = row.max_error.max(error);
            }
        }
    }
    row
}
