//! Dense linear layers of a full-precision model, or of a ternary one treated as numbers: choice of
//! type, and encoding.

use sterna_ternary::layout::{Role, Weight};
use sterna_ternary::{Dense, PackedWriter};

use crate::blocks::encode;
use crate::progress::ProgressCounter;
use crate::write::table::{self, Choice, TablePlan};
use crate::{Error, Result, Source, ValueType};

/// Number of values packed at once: a few MiB.
const CHUNK: usize = 1 << 20;

/// Chooses the type of each linear layer, and measures the rounding error.
pub(crate) fn plan(
    source: &dyn Source,
    weights: &[Weight],
    packing: Dense,
    progress: &mut ProgressCounter,
) -> Result<Vec<TablePlan>> {
    let choice = match packing {
        Dense::F16 => Choice::Lossless,
        Dense::Q8_0 => Choice::As(ValueType::Q8_0),
        Dense::Q4_0 => Choice::As(ValueType::Q4_0),
    };
    let linears = weights.iter().filter(|w| w.role == Role::Linear);
    linears
        .map(|weight| {
            let values = source.dense(weight)?;
            progress.add(values.len());
            table::plan_values(source, weight, choice, &values)
        })
        .collect()
}

/// Writes a linear layer as planned.
///
/// # Errors
/// [`Error::Value`] if the scale of a block overflows f16.
pub(crate) fn write(
    writer: &mut PackedWriter,
    source: &dyn Source,
    weight: &Weight,
    precision: ValueType,
) -> Result<()> {
    let values = source.dense(weight)?;
    let rows = (CHUNK / weight.columns).max(1);
    for (i, part) in values.chunks(rows * weight.columns).enumerate() {
        let bytes = match precision {
            ValueType::Q8_0 => blocks(source, weight, Dense::Q8_0, i * rows, part)?,
            ValueType::Q4_0 => blocks(source, weight, Dense::Q4_0, i * rows, part)?,
            number => table::number_bytes(number, part)?,
        };
        writer.rows(&weight.name, &bytes)?;
    }
    Ok(())
}

/// Encodes the rows from `first` on as blocks.
fn blocks(
    source: &dyn Source,
    weight: &Weight,
    packing: Dense,
    first: usize,
    values: &[f32],
) -> Result<Vec<u8>> {
    let columns = weight.columns;
    let bytes = encode(packing, values, columns);
    bytes.map_err(|row| {
        let of_row = &values[row * columns..][..columns];
        let largest = of_row.iter().map(|x| x.abs()).enumerate();
        let largest = largest
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(0, |m| m.0);
        Error::Value {
            path: source.path().to_owned(),
            tensor: weight.name.clone(),
            index: (first + row) * columns + largest,
            value: of_row[largest],
            expected: "a number whose block has a scale that f16 holds",
            advice: "pack the model as f16, which keeps every value (--packing f16)",
        }
    })
}
