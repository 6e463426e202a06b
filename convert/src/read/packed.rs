//! Reader of the packed file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use sterna_ternary::file::{FILES, Table, Values};
use sterna_ternary::layout::{Dtype, EMBEDDING, HEAD, Role, Weight};
use sterna_ternary::packing::DenseRows;
use sterna_ternary::packing::dense::BLOCK;
use sterna_ternary::planes::PlaneRow;
use sterna_ternary::scales::group_dtype;
use sterna_ternary::table::CodedRow;
use sterna_ternary::{Activations, Config, Dense, PackedFile, Packing, Scaling, TableType};

use crate::read::embedded::REQUIRED;
use crate::source::check_finite;
use crate::value_type::is_same;
use crate::{
    Error, Result, Scales, Source, StoredScale, Ternary, ValueType, blocks, parallel, trit_rows,
};

/// A packed file.
#[derive(Debug)]
pub struct Packed {
    file: PackedFile,
    files: Vec<(String, Vec<u8>)>,
    warnings: Vec<String>,
}

impl Packed {
    /// Maps and checks a file.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the packed file lacks a file that every model needs, unless
    /// `allow_missing`.
    pub fn open(path: &Path, allow_missing: bool) -> Result<Packed> {
        let file = PackedFile::open(path)?;
        let files: Vec<_> = FILES
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), file.file(name)?.to_vec())))
            .collect();
        let mut warnings = Vec::new();
        for (name, consequence) in REQUIRED {
            if files.iter().any(|(n, _)| n == name) {
                continue;
            }
            if !allow_missing {
                return Err(Error::MissingFile {
                    path: path.to_owned(),
                    file: name,
                    consequence,
                });
            }
            warnings.push(format!("there is no {name}: {consequence}"));
        }
        Ok(Packed {
            file,
            files,
            warnings,
        })
    }

    /// The storage type of a linear layer in a dense packing.
    fn held(&self, weight: &Weight) -> Option<ValueType> {
        if weight.role != Role::Linear || !self.is_dense() {
            return None;
        }
        Some(match self.file.dense(&weight.name).values {
            DenseRows::F32(_) => ValueType::F32,
            DenseRows::F16(_) => ValueType::F16,
            DenseRows::Bf16(_) => ValueType::Bf16,
            DenseRows::Q8_0(_) => ValueType::Q8_0,
            DenseRows::Q4_0(_) => ValueType::Q4_0,
        })
    }

    /// The packing of a linear layer stored in blocks.
    fn blocks(&self, weight: &Weight) -> Option<Dense> {
        let dense = self.file.packing.dense()?;
        (weight.role == Role::Linear && dense.block_bytes().is_some()).then_some(dense)
    }

    /// Number of values in blocks that differ from the encoding of `values`, which are all values
    /// of the matrix.
    fn blocks_differ(&self, weight: &Weight, packing: Dense, values: &[f32]) -> u64 {
        let bytes = &self.file.data()[self.range(&weight.name)];
        let Ok(expected) = blocks::encode(packing, values, weight.columns) else {
            return values.len() as u64;
        };
        let size = packing.block_bytes().expect("a packing of blocks");
        let pairs = bytes.chunks_exact(size).zip(expected.chunks_exact(size));
        let differ = pairs.filter(|(a, b)| a != b).count();
        self.file.release(&weight.name);
        (differ * BLOCK).min(values.len()) as u64
    }

    fn range(&self, name: &str) -> Range<usize> {
        let entry = self.file.layout().find(name);
        let entry = entry.expect("an open file has every tensor of its config");
        entry.offset..entry.offset + entry.len
    }

    /// The packing of the trits of a linear layer.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the layer is not ternary.
    fn packing(&self, weight: &Weight) -> Result<Packing> {
        self.file.packing.ternary().ok_or_else(|| Error::Tensor {
            path: self.path().to_owned(),
            tensor: weight.name.clone(),
            expected: "trits".into(),
            found: format!("numbers, packing {}", self.file.packing.name()),
            advice: "a baseline has no trits: use --packing f16, q8_0 or q4_0, or the \
                     checkpoint that it was made from",
        })
    }

    fn table(&self, weight: &Weight) -> Option<(Table<'_>, TableType)> {
        match weight.name.as_str() {
            EMBEDDING => Some((self.file.embedding(), self.file.embedding_type)),
            HEAD => Some((self.file.head(), self.file.head_type)),
            _ => None,
        }
    }
}

impl Source for Packed {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn config(&self) -> &Config {
        &self.file.config
    }

    fn files(&self) -> &[(String, Vec<u8>)] {
        &self.files
    }

    fn files_mut(&mut self) -> Option<&mut Vec<(String, Vec<u8>)>> {
        Some(&mut self.files)
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn inputs(&self) -> Vec<PathBuf> {
        vec![self.file.path().to_owned()]
    }

    fn bytes(&self) -> u64 {
        self.file.len() as u64
    }

    fn dtype(&self, weight: &Weight) -> Dtype {
        if let Some(held) = self.held(weight) {
            return match held {
                ValueType::F16 => Dtype::F16,
                ValueType::Bf16 => Dtype::Bf16,
                ValueType::F32 => Dtype::F32,
                _ => Dtype::U8,
            };
        }
        match self.table(weight).map(|(_, table)| table) {
            Some(table) => table.numbers().unwrap_or(Dtype::U8),
            None => Dtype::F32,
        }
    }

    fn stored_bytes(&self, weight: &Weight) -> u64 {
        // The names of the planes, multipliers and scales of a coded table start with the name of
        // the table.
        let entries = self.file.layout().entries.iter();
        let own = entries.filter(|e| e.name.starts_with(&weight.name));
        own.map(|e| e.len as u64).sum()
    }

    fn precision(&self, weight: &Weight) -> ValueType {
        if let Some(held) = self.held(weight) {
            return held;
        }
        let table = self.table(weight).map(|(_, table)| table);
        table.map_or(ValueType::F32, ValueType::of_table)
    }

    fn scaling(&self, weight: &Weight) -> Result<Scaling> {
        self.packing(weight)?;
        Ok(self.file.matrix(&weight.name).scaling)
    }

    fn has_f16_scales(&self, weight: &Weight) -> Result<bool> {
        self.packing(weight)?;
        let scales = self.file.matrix(&weight.name).scales;
        Ok(group_dtype(&scales.to_f32()) == Dtype::F16)
    }

    fn activations(&self) -> Activations {
        self.file.activations
    }

    fn inputs_rounded_to(&self) -> &'static str {
        match self.file.packing.dense() {
            Some(dense) => dense.activations(),
            None => self.file.activations.name(),
        }
    }

    fn linear(&self, weight: &Weight) -> Result<Ternary> {
        let packing = self.packing(weight)?;
        let matrix = self.file.matrix(&weight.name);
        let row_bytes = packing.row_bytes(matrix.columns);
        let mut trits = vec![0; matrix.rows * matrix.columns];
        parallel::rows(trits.len(), &mut trits, matrix.columns, |first, trits| {
            let rows = matrix.data[first * row_bytes..].chunks_exact(row_bytes);
            for (trits, row) in trits.chunks_exact_mut(matrix.columns).zip(rows) {
                packing.unpack_row(row, trits).map_err(|e| Error::Tensor {
                    path: self.path().to_owned(),
                    tensor: weight.name.clone(),
                    expected: "rows of trits".into(),
                    found: e.to_string(),
                    advice: "copy or convert the file again",
                })?;
            }
            Ok(())
        })?;
        self.file.release(&weight.name); // memory shall not grow with the file
        Ok(Ternary {
            trits,
            stored: StoredScale::Multiply(matrix.scales.at(0)),
            scales: Scales {
                scaling: matrix.scaling,
                values: matrix.scales.to_f32().into_owned(),
            },
        })
    }

    fn is_dense(&self) -> bool {
        self.file.packing.dense().is_some()
    }

    fn dense(&self, weight: &Weight) -> Result<Vec<f32>> {
        if !self.is_dense() {
            return Ok(self.linear(weight)?.products(weight.columns));
        }
        let (matrix, columns) = (self.file.dense(&weight.name), weight.columns);
        let mut values = vec![0.0; weight.rows * columns];
        parallel::rows(values.len(), &mut values, columns, |first, values| {
            for (row, values) in (first..).zip(values.chunks_exact_mut(columns)) {
                matrix.values.decode(row, values);
            }
            Ok(())
        })?;
        self.file.release(&weight.name);
        check_finite(self.path(), weight, 0, &values)?;
        Ok(values)
    }

    fn masters(&self, weight: &Weight) -> Result<Vec<f32>> {
        match self.is_dense() {
            true => self.dense(weight),
            false => {
                let ternary = self.linear(weight)?;
                Ok(ternary.masters(weight.columns, ternary.scales.scaling))
            }
        }
    }

    fn rows(&self, weight: &Weight, first: usize, values: &mut [f32]) -> Result<()> {
        let columns = weight.columns;
        let start = first * columns;
        if first == 0 {
            self.file.will_read(&weight.name);
        }
        match self.table(weight).map(|(table, _)| table.values) {
            None => {
                values.copy_from_slice(&self.file.vector(&weight.name)[start..][..values.len()])
            }
            Some(Values::F32(v)) => values.copy_from_slice(&v[start..][..values.len()]),
            Some(table) => parallel::rows(values.len(), values, columns, |row, values| {
                for (row, values) in (first + row..).zip(values.chunks_exact_mut(columns)) {
                    let part = row * columns..(row + 1) * columns;
                    match table {
                        Values::F32(v) => values.copy_from_slice(&v[part]),
                        Values::F16(v) => widen(values, v[part].iter().map(|x| x.to_f32())),
                        Values::Bf16(v) => widen(values, v[part].iter().map(|x| x.to_f32())),
                        Values::Codes(codes) => codes.decode(row, values),
                        Values::Planes(planes) => planes.decode(row, values),
                        Values::Trits(trits) => {
                            trits.check(row, columns)?;
                            trits.decode(row, values);
                        }
                    }
                }
                Ok(())
            })?,
        }
        self.file.release(&weight.name);
        check_finite(self.path(), weight, start, values)
    }

    fn coded_rows(&self, weight: &Weight, first: usize, count: usize) -> Option<Vec<CodedRow>> {
        match self.table(weight)?.0.values {
            Values::Codes(codes) => {
                let rows = (first..first + count).map(|row| codes.row(row)).collect();
                self.file.release(&weight.name);
                Some(rows)
            }
            _ => None,
        }
    }

    /// Compares codes, which hold more than their values show, and trits with their scales, row by
    /// row.
    fn coded_differently(&self, weight: &Weight, first: usize, values: &[f32]) -> Option<u64> {
        if let Some(packing) = self.blocks(weight) {
            return Some(self.blocks_differ(weight, packing, values));
        }
        let (table, table_type) = self.table(weight)?;
        let columns = table.columns;
        let differ_in = |a: &[f32], b: &[f32]| -> u64 {
            let pairs = a.iter().zip(b);
            pairs.filter(|(a, b)| !is_same(**a, **b)).count().max(1) as u64
        };
        // The number of values that differ in a row, at least 1 if only its encoding differs.
        let row_differs = |row: usize, values: &[f32]| -> u64 {
            let (mut a, mut b) = (vec![0.0; columns], vec![0.0; columns]);
            match table.values {
                Values::Codes(codes) => {
                    let again = CodedRow::encode(values, table_type.planes());
                    if codes.row(row) == again {
                        return 0;
                    }
                    codes.decode(row, &mut a);
                    again.decode(&mut b);
                    differ_in(&a, &b)
                }
                Values::Planes(planes) => {
                    if planes.row(row, columns) == PlaneRow::encode(values, table_type) {
                        return 0;
                    }
                    planes.decode(row, &mut a);
                    differ_in(&a, values)
                }
                Values::Trits(trits) => {
                    let is_same = trit_rows::encode_row(values).as_ref() == Some(&trits.row(row));
                    if is_same { 0 } else { columns as u64 }
                }
                Values::F32(_) | Values::F16(_) | Values::Bf16(_) => 0,
            }
        };
        if let Values::F32(_) | Values::F16(_) | Values::Bf16(_) = table.values {
            return None;
        }
        let mut rows = vec![0u64; values.len() / columns];
        let compared = parallel::rows(values.len(), &mut rows, 1, |start, rows| {
            let values = values[start * columns..].chunks_exact(columns);
            for ((row, values), differ) in (first + start..).zip(values).zip(rows) {
                *differ = row_differs(row, values);
            }
            Ok(())
        });
        self.file.release(&weight.name);
        compared.ok().map(|()| rows.iter().sum())
    }

    fn vector(&self, weight: &Weight) -> Result<Vec<f32>> {
        Ok(self.file.vector(&weight.name).to_vec())
    }
}

fn widen(to: &mut [f32], from: impl Iterator<Item = f32>) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to = x);
}
