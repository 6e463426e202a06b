//! Embedding and head: choice of type, measurement of the rounding error, and encoding.

use half::{bf16, f16};
use sterna_ternary::layout::{Dtype, Weight};
use sterna_ternary::planes::PlaneRow;
use sterna_ternary::table::{CodedRow, MOST_COLUMNS};
use sterna_ternary::trits::TritRow;
use sterna_ternary::{PackedWriter, TableType};

use crate::gguf::q6_k;
use crate::value_type::is_same;
use crate::{Error, Result, Source, TableReport, ValueType, parallel, trit_rows};

/// Type of the head. In a tied model it is also the type of the embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadType {
    /// The narrowest type that represents every value exactly: trits, F16, BF16 or F32, the
    /// numbers in planes ([`PlaneRow`]). An untied embedding has plain numbers.
    Lossless,
    /// Plain F16, rounded half to even; applies also to an untied embedding.
    F16,
    /// Trits if the table is ternary, where values may be one step of f16 smaller than others of
    /// their group; eight-bit codes if not. The codes of a packed file are copied. An untied
    /// embedding that is not ternary stays lossless, and so does the head of a model in F16.
    #[default]
    Auto,
    /// Codes of eight bits ([`CodedRow`]); an untied embedding stays lossless.
    Q8,
    /// Codes of six bits.
    Q6,
    /// Codes of four bits.
    Q4,
    /// Trits with one scale per 128 columns. An error if the head is not ternary.
    Ternary,
}

impl HeadType {
    /// All types.
    pub const ALL: [HeadType; 7] = [
        HeadType::Lossless,
        HeadType::F16,
        HeadType::Auto,
        HeadType::Q8,
        HeadType::Q6,
        HeadType::Q4,
        HeadType::Ternary,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            HeadType::Lossless => "lossless",
            HeadType::F16 => "f16",
            HeadType::Auto => "auto",
            HeadType::Q8 => "q8",
            HeadType::Q6 => "q6",
            HeadType::Q4 => "q4",
            HeadType::Ternary => "ternary",
        }
    }

    /// The type with that name.
    pub fn from_name(name: &str) -> Option<HeadType> {
        HeadType::ALL.into_iter().find(|h| h.name() == name)
    }
}

/// The type chosen for a table, and its rounding error.
#[derive(Debug, Clone)]
pub(crate) struct TablePlan {
    pub name: String,
    pub precision: ValueType,
    pub source_dtype: &'static str,
    pub mean_error: f64,
    pub max_error: f32,
    /// Whether the table is ternary and a scale is not exact in F16.
    pub has_wide_scales: bool,
    /// Exceptions of a table in planes.
    pub exceptions: usize,
}

impl TablePlan {
    /// A plan with a type that represents every value exactly.
    pub fn exact(source: &dyn Source, weight: &Weight, precision: ValueType) -> TablePlan {
        TablePlan {
            name: weight.name.clone(),
            precision,
            source_dtype: source_type(source, weight),
            mean_error: 0.0,
            max_error: 0.0,
            has_wide_scales: false,
            exceptions: 0,
        }
    }

    pub fn report(&self) -> TableReport {
        TableReport {
            name: self.name.clone(),
            source_dtype: self.source_dtype,
            dtype: self.precision.name(),
            mean_error: self.mean_error,
            max_error: self.max_error,
        }
    }
}

/// The requested type of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Choice {
    /// The narrowest of F16, BF16 and F32 that represents every value exactly.
    Lossless,
    /// A type that may round.
    As(ValueType),
}

impl HeadType {
    /// The choice for a table of a packed file that is not stored as trits
    /// ([`crate::write::ternary_table`]).
    pub(crate) fn choice(self, is_separate_embedding: bool) -> Choice {
        let coded = |table| match is_separate_embedding {
            true => Choice::Lossless,
            false => Choice::As(ValueType::Coded(table)),
        };
        match self {
            HeadType::Lossless => Choice::Lossless,
            HeadType::F16 => Choice::As(ValueType::F16),
            HeadType::Auto | HeadType::Q8 => coded(TableType::Q8),
            HeadType::Q6 => coded(TableType::Q6),
            HeadType::Q4 => coded(TableType::Q4),
            HeadType::Ternary => Choice::Lossless, // an embedding that need not be ternary
        }
    }
}

/// What one row shows about the possible types.
#[derive(Debug, Clone, Copy, Default)]
struct RowSurvey {
    f16_is_inexact: bool,
    bf16_is_inexact: bool,
    /// |rounded - value| in the requested type.
    max_error: f32,
    sum_error: f64,
}

impl RowSurvey {
    fn add(&mut self, row: RowSurvey) {
        self.f16_is_inexact |= row.f16_is_inexact;
        self.bf16_is_inexact |= row.bf16_is_inexact;
        self.max_error = self.max_error.max(row.max_error);
        self.sum_error += row.sum_error;
    }
}

/// Number of values read at once: a few MiB.
const CHUNK: usize = 1 << 20;

/// Number of rows read at once, at most all.
pub(crate) fn rows_at_once(weight: &Weight) -> usize {
    (CHUNK / weight.columns).max(1).min(weight.rows)
}

/// Reads a table in chunks of whole rows. `f` gets the index of the first row and the values.
pub(crate) fn for_each_chunk(
    source: &dyn Source,
    weight: &Weight,
    mut f: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let step = rows_at_once(weight);
    let mut values = vec![0.0; step * weight.columns];
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
/// [`Error::Value`] if F16 or Q6_K is requested and a value would become infinite.
pub(crate) fn plan(
    source: &dyn Source,
    weight: &Weight,
    choice: Choice,
    advance: &mut dyn FnMut(usize),
) -> Result<TablePlan> {
    let held = source.precision(weight);
    if held.is_copied() && choice == Choice::As(held) {
        advance(weight.rows * weight.columns);
        return Ok(TablePlan::exact(source, weight, held)); // its codes are copied
    }
    let mut all = RowSurvey::default();
    for_each_chunk(source, weight, |first, values| {
        if let Choice::As(precision) = choice {
            refuse_overflow(source, weight, precision, first, values)?;
        }
        for row in survey(choice, values, weight.columns)? {
            all.add(row);
        }
        advance(values.len());
        Ok(())
    })?;
    Ok(planned(source, weight, choice, &all))
}

/// Chooses the type of a matrix, given all of its values.
pub(crate) fn plan_values(
    source: &dyn Source,
    weight: &Weight,
    choice: Choice,
    values: &[f32],
) -> Result<TablePlan> {
    let mut all = RowSurvey::default();
    for row in survey(choice, values, weight.columns)? {
        all.add(row);
    }
    Ok(planned(source, weight, choice, &all))
}

/// The same numbers in planes. Stays plain where more than a quarter of the values would be
/// exceptions, or where rows are longer than planes can be.
pub(crate) fn in_planes(
    source: &dyn Source,
    weight: &Weight,
    plain: TablePlan,
) -> Result<TablePlan> {
    let Some(table) = plain.precision.table().map(TableType::in_planes) else {
        return Ok(plain);
    };
    let exceptions = match table.has_low_plane() && weight.columns <= MOST_COLUMNS {
        true => exceptions(table, weight, |f| {
            for_each_chunk(source, weight, |_, x| f(x))
        })?,
        false => return Ok(plain),
    };
    let most = (weight.rows * weight.columns / 4).min(u32::MAX as usize);
    Ok(match exceptions <= most {
        true => TablePlan {
            precision: ValueType::Coded(table),
            exceptions,
            ..plain
        },
        false => plain,
    })
}

/// Number of exceptions of a table in planes. `read` calls its argument with whole rows.
pub(crate) fn exceptions(
    table: TableType,
    weight: &Weight,
    read: impl FnOnce(&mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()>,
) -> Result<usize> {
    let width = table.numbers().map_or(1, Dtype::bytes);
    let mut all = 0;
    read(&mut |values| {
        let mut rows = vec![0; values.len() / weight.columns];
        parallel::rows(values.len(), &mut rows, 1, |first, rows| {
            let values = values[first * weight.columns..].chunks_exact(weight.columns);
            for (row, values) in rows.iter_mut().zip(values) {
                *row = PlaneRow::encode(values, table).exceptions.len() / width;
            }
            Ok(())
        })?;
        all += rows.iter().sum::<usize>();
        Ok(())
    })?;
    Ok(all)
}

fn planned(source: &dyn Source, weight: &Weight, choice: Choice, all: &RowSurvey) -> TablePlan {
    let precision = match choice {
        Choice::As(precision) => precision,
        Choice::Lossless if !all.f16_is_inexact => ValueType::F16,
        Choice::Lossless if !all.bf16_is_inexact => ValueType::Bf16,
        Choice::Lossless => ValueType::F32,
    };
    TablePlan {
        name: weight.name.clone(),
        precision,
        source_dtype: source_type(source, weight),
        mean_error: all.sum_error / (weight.rows * weight.columns) as f64,
        max_error: all.max_error,
        has_wide_scales: false,
        exceptions: 0,
    }
}

pub(crate) fn source_type(source: &dyn Source, weight: &Weight) -> &'static str {
    match source.dtype(weight) {
        Dtype::U8 => source.precision(weight).name(),
        dtype => dtype.name(),
    }
}

fn survey(choice: Choice, values: &[f32], columns: usize) -> Result<Vec<RowSurvey>> {
    let mut rows = vec![RowSurvey::default(); values.len() / columns];
    parallel::rows(values.len(), &mut rows, 1, |first, rows| {
        for (i, row) in rows.iter_mut().enumerate() {
            let values = &values[(first + i) * columns..][..columns];
            *row = match choice {
                Choice::Lossless => RowSurvey {
                    f16_is_inexact: !is_exact(ValueType::F16, values),
                    bf16_is_inexact: !is_exact(ValueType::Bf16, values),
                    ..RowSurvey::default()
                },
                Choice::As(precision) => error_of(precision, values),
            };
        }
        Ok(())
    })?;
    Ok(rows)
}

fn is_exact(precision: ValueType, values: &[f32]) -> bool {
    let mut rounded = values.to_vec();
    precision.round(&mut rounded);
    rounded.iter().zip(values).all(|(a, b)| is_same(*a, *b))
}

fn error_of(precision: ValueType, values: &[f32]) -> RowSurvey {
    let mut rounded = values.to_vec();
    precision.round(&mut rounded);
    let mut row = RowSurvey::default();
    for (rounded, x) in rounded.iter().zip(values) {
        let error = (rounded - x).abs();
        row.max_error = row.max_error.max(error);
        row.sum_error += f64::from(error);
    }
    row
}

fn refuse_overflow(
    source: &dyn Source,
    weight: &Weight,
    precision: ValueType,
    first: usize,
    values: &[f32],
) -> Result<()> {
    let (overflows, expected): (fn(&f32) -> bool, _) = match precision {
        ValueType::F16 => (
            |x| f16::from_f32(*x).is_infinite(),
            "a number that f16 can hold, at most 65504",
        ),
        ValueType::Q6K => (
            |x| x.abs() >= q6_k::LIMIT,
            "a number that q6_k can hold, below 134217728",
        ),
        _ => return Ok(()),
    };
    match values.iter().position(overflows) {
        None => Ok(()),
        Some(at) => Err(Error::Value {
            path: source.path().to_owned(),
            tensor: weight.name.clone(),
            index: first * weight.columns + at,
            value: values[at],
            expected,
            advice: "keep the head lossless (--head lossless)",
        }),
    }
}

/// Encoded rows, ready to be written.
pub(crate) enum Encoded {
    Bytes(Vec<u8>),
    Rows(Vec<CodedRow>),
    Planes(Vec<PlaneRow>),
    Trits(Vec<TritRow>),
}

impl Encoded {
    pub fn write(&self, writer: &mut PackedWriter, name: &str) -> Result<()> {
        match self {
            Encoded::Bytes(bytes) => writer.rows(name, bytes)?,
            Encoded::Rows(rows) => writer.coded_rows(name, rows)?,
            Encoded::Planes(rows) => writer.plane_rows(name, rows)?,
            Encoded::Trits(rows) => writer.trit_rows(name, rows)?,
        }
        Ok(())
    }
}

pub(crate) fn encode(precision: ValueType, values: &[f32], columns: usize) -> Result<Encoded> {
    let ValueType::Coded(table) = precision else {
        return Ok(Encoded::Bytes(number_bytes(precision, values)?));
    };
    if table == TableType::Ternary {
        return Ok(Encoded::Trits(trit_rows::encode(values, columns)?));
    }
    if table.has_low_plane() {
        let rows = encoded_rows(values, columns, |x| PlaneRow::encode(x, table))?;
        return Ok(Encoded::Planes(rows));
    }
    let rows = encoded_rows(values, columns, |x| CodedRow::encode(x, table.planes()))?;
    Ok(Encoded::Rows(rows))
}

fn encoded_rows<T: Clone + Send>(
    values: &[f32],
    columns: usize,
    encode: impl Fn(&[f32]) -> T + Sync,
) -> Result<Vec<T>> {
    let mut rows = vec![None; values.len() / columns];
    parallel::rows(values.len(), &mut rows, 1, |first, rows| {
        let values = values[first * columns..].chunks_exact(columns);
        for (row, values) in rows.iter_mut().zip(values) {
            *row = Some(encode(values));
        }
        Ok(())
    })?;
    Ok(rows.into_iter().flatten().collect())
}

/// Encodes little-endian numbers.
///
/// # Panics
/// If `precision` is not F32, F16 or BF16.
pub(crate) fn number_bytes(precision: ValueType, values: &[f32]) -> Result<Vec<u8>> {
    let bytes = |width| vec![0; values.len() * width];
    match precision {
        ValueType::F32 => each(bytes(4), values, f32::to_le_bytes),
        ValueType::F16 => each(bytes(2), values, |x| f16::from_f32(x).to_le_bytes()),
        ValueType::Bf16 => bf16_bytes(values),
        other => panic!("{} is no type of numbers", other.name()),
    }
}

/// Encodes values in bf16.
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
