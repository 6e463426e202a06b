//! Embedding and head: which type holds them, what it costs, and their bytes.

use half::{bf16, f16};
use sterna_ternary::layout::{Dtype, EMBEDDING, Weight};
use sterna_ternary::table::CodedRow;
use sterna_ternary::{PackedWriter, TableType};

use crate::{Error, Result, Source, TableReport, parallel};

/// Type of the head, and of the embedding of a tied model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadType {
    /// The narrowest of F16, BF16 and F32 that holds every value exactly.
    Lossless,
    /// F16, rounded half to even; an untied embedding too.
    F16,
    /// Codes of eight bits ([`CodedRow`]); an untied embedding stays lossless.
    #[default]
    Q8,
    /// Codes of six bits.
    Q6,
    /// Codes of four bits.
    Q4,
}

impl HeadType {
    /// All of them.
    pub const ALL: [HeadType; 5] = [
        HeadType::Lossless,
        HeadType::F16,
        HeadType::Q8,
        HeadType::Q6,
        HeadType::Q4,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            HeadType::Lossless => "lossless",
            HeadType::F16 => "f16",
            HeadType::Q8 => "q8",
            HeadType::Q6 => "q6",
            HeadType::Q4 => "q4",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<HeadType> {
        HeadType::ALL.into_iter().find(|h| h.name() == name)
    }
}

/// The type chosen for a table, and how far it moves the values.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub name: String,
    pub table: TableType,
    pub source_dtype: Dtype,
    pub mean_error: f64,
    pub max_error: f32,
}

impl Plan {
    pub fn report(&self) -> TableReport {
        TableReport {
            name: self.name.clone(),
            source_dtype: self.source_dtype.name(),
            dtype: self.table.name(),
            mean_error: self.mean_error,
            max_error: self.max_error,
        }
    }
}

/// What one row says about the types that could hold it.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    f16_is_inexact: bool,
    bf16_is_inexact: bool,
    /// |rounded - value| in the type asked for.
    max_error: f32,
    sum_error: f64,
}

/// Values that are read at once: a few MiB.
const CHUNK: usize = 1 << 20;

/// Reads a table as chunks of whole rows: `f` gets the index of the first row and the values.
pub(crate) fn for_each_chunk(
    source: &dyn Source,
    weight: &Weight,
    mut f: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let step = (CHUNK / weight.columns).max(1);
    let mut values = vec![0.0; step.min(weight.rows) * weight.columns];
    for first in (0..weight.rows).step_by(step) {
        let values = &mut values[..step.min(weight.rows - first) * weight.columns];
        source.rows(weight, first, values)?;
        f(first, values)?;
    }
    Ok(())
}

/// Reads a whole table and chooses its type.
///
/// # Errors
/// [`Error::Value`] where F16 is asked for and a value would become infinite.
pub(crate) fn plan(
    source: &dyn Source,
    weight: &Weight,
    head: HeadType,
    advance: &mut dyn FnMut(usize),
) -> Result<Plan> {
    let is_separate = weight.name == EMBEDDING && !source.config().tie_word_embeddings;
    let wanted = match head {
        HeadType::Q8 | HeadType::Q6 | HeadType::Q4 if is_separate => HeadType::Lossless,
        head => head,
    };
    let mut all = Row::default();
    for_each_chunk(source, weight, |first, values| {
        if wanted == HeadType::F16 {
            refuse_overflow(source, weight, first, values)?;
        }
        for row in survey(wanted, values, weight.columns)? {
            all.f16_is_inexact |= row.f16_is_inexact;
            all.bf16_is_inexact |= row.bf16_is_inexact;
            all.max_error = all.max_error.max(row.max_error);
            all.sum_error += row.sum_error;
        }
        advance(values.len());
        Ok(())
    })?;
    let table = match wanted {
        HeadType::F16 => TableType::F16,
        HeadType::Q8 => TableType::Q8,
        HeadType::Q6 => TableType::Q6,
        HeadType::Q4 => TableType::Q4,
        HeadType::Lossless if !all.f16_is_inexact => TableType::F16,
        HeadType::Lossless if !all.bf16_is_inexact => TableType::Bf16,
        HeadType::Lossless => TableType::F32,
    };
    Ok(Plan {
        name: weight.name.clone(),
        table,
        source_dtype: source.dtype(weight),
        mean_error: all.sum_error / (weight.rows * weight.columns) as f64,
        max_error: all.max_error,
    })
}

fn survey(wanted: HeadType, values: &[f32], columns: usize) -> Result<Vec<Row>> {
    let mut rows = vec![Row::default(); values.len() / columns];
    parallel::rows(values.len(), &mut rows, 1, |first, rows| {
        for (i, row) in rows.iter_mut().enumerate() {
            let values = &values[(first + i) * columns..][..columns];
            *row = match wanted {
                HeadType::Lossless => Row {
                    f16_is_inexact: values
                        .iter()
                        .any(|x| !is_same(f16::from_f32(*x).into(), *x)),
                    bf16_is_inexact: values
                        .iter()
                        .any(|x| !is_same(bf16::from_f32(*x).into(), *x)),
                    ..Row::default()
                },
                HeadType::F16 => error_of(values, |i| f16::from_f32(values[i]).into()),
                HeadType::Q8 => error_of_codes(values, TableType::Q8),
                HeadType::Q6 => error_of_codes(values, TableType::Q6),
                HeadType::Q4 => error_of_codes(values, TableType::Q4),
            };
        }
        Ok(())
    })?;
    Ok(rows)
}

fn error_of_codes(values: &[f32], table: TableType) -> Row {
    let mut decoded = vec![0.0; values.len()];
    CodedRow::encode(values, table.planes()).decode(&mut decoded);
    error_of(values, |i| decoded[i])
}

fn error_of(values: &[f32], rounded: impl Fn(usize) -> f32) -> Row {
    let mut row = Row::default();
    for (i, x) in values.iter().enumerate() {
        let error = (rounded(i) - x).abs();
        row.max_error = row.max_error.max(error);
        row.sum_error += f64::from(error);
    }
    row
}

/// The same bits: minus zero is not zero.
pub(crate) fn is_same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits()
}

fn refuse_overflow(
    source: &dyn Source,
    weight: &Weight,
    first: usize,
    values: &[f32],
) -> Result<()> {
    match values.iter().position(|x| f16::from_f32(*x).is_infinite()) {
        None => Ok(()),
        Some(at) => Err(Error::Value {
            path: source.path().to_owned(),
            tensor: weight.name.clone(),
            index: first * weight.columns + at,
            value: values[at],
            expected: "a number that f16 can hold, at most 65504",
            advice: "keep the head lossless (--head lossless)",
        }),
    }
}

/// Whole rows in a type, ready to be written.
pub(crate) enum Encoded {
    Bytes(Vec<u8>),
    Rows(Vec<CodedRow>),
}

impl Encoded {
    pub fn write(&self, writer: &mut PackedWriter, name: &str) -> Result<()> {
        match self {
            Encoded::Bytes(bytes) => writer.rows(name, bytes)?,
            Encoded::Rows(rows) => writer.coded_rows(name, rows)?,
        }
        Ok(())
    }
}

pub(crate) fn encode(table: TableType, values: &[f32], columns: usize) -> Result<Encoded> {
    let bytes = |width| vec![0; values.len() * width];
    Ok(Encoded::Bytes(match table {
        TableType::F32 => each(bytes(4), values, f32::to_le_bytes)?,
        TableType::F16 => each(bytes(2), values, |x| f16::from_f32(x).to_le_bytes())?,
        TableType::Bf16 => bf16_bytes(values)?,
        TableType::Q8 | TableType::Q6 | TableType::Q4 => {
            let mut rows = vec![None; values.len() / columns];
            parallel::rows(values.len(), &mut rows, 1, |first, rows| {
                let values = values[first * columns..].chunks_exact(columns);
                for (row, values) in rows.iter_mut().zip(values) {
                    *row = Some(CodedRow::encode(values, table.planes()));
                }
                Ok(())
            })?;
            return Ok(Encoded::Rows(rows.into_iter().flatten().collect()));
        }
    }))
}

/// Values in bf16.
pub(crate) fn bf16_bytes(values: &[f32]) -> Result<Vec<u8>> {
    each(vec![0; values.len() * 2], values, |x| {
        bf16::from_f32(x).to_le_bytes()
    })
}

fn each<const N: usize>(
    mut bytes: Vec<u8>,
    values: &[f32],
    encode: impl Fn(f32) -> [u8; N] + Sync,
) -> Result<Vec<u8>> {
    parallel::rows(values.len(), &mut bytes, N, |first, bytes| {
        for (b, x) in bytes.as_chunks_mut().0.iter_mut().zip(&values[first..]) {
            *b = encode(*x);
        }
        Ok(())
    })?;
    Ok(bytes)
}
