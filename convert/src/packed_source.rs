//! Reader of the packed file.

use std::path::{Path, PathBuf};

use sterna_ternary::file::{FILES, Table, Values};
use sterna_ternary::layout::{Dtype, EMBEDDING, HEAD, Weight};
use sterna_ternary::{Config, PackedFile, TableType};

use crate::embedded::REQUIRED;
use crate::source::check_finite;
use crate::{Error, Precision, Result, Source, StoredScale, Ternary, parallel};

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
    /// [`Error::MissingFile`] where it was made without a file that belongs to every model, unless
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

    /// Checks what the values of coded tables do not show.
    pub(crate) fn check_codes(&self) -> Result<()> {
        for (name, table) in [(EMBEDDING, self.file.embedding()), (HEAD, self.file.head())] {
            let Values::Codes(codes) = table.values else {
                continue;
            };
            let mut bad = vec![false; table.rows];
            parallel::rows(table.rows * table.columns, &mut bad, 1, |first, bad| {
                for (row, bad) in (first..).zip(bad) {
                    *bad = !codes.is_consistent(row, table.columns);
                }
                Ok(())
            })?;
            if let Some(row) = bad.iter().position(|bad| *bad) {
                return Err(Error::Differs {
                    path: self.file.path().to_owned(),
                    tensor: format!("{name}, row {row}"),
                    differ: 1,
                });
            }
        }
        Ok(())
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
        match self.table(weight).map(|(_, table)| table) {
            Some(TableType::F16) => Dtype::F16,
            Some(TableType::Bf16) => Dtype::Bf16,
            Some(TableType::Q8 | TableType::Q6 | TableType::Q4) => Dtype::U8,
            Some(TableType::F32) | None => Dtype::F32,
        }
    }

    fn precision(&self, weight: &Weight) -> Precision {
        let table = self.table(weight).map(|(_, table)| table);
        table.map_or(Precision::F32, Precision::of_table)
    }

    fn linear(&self, weight: &Weight) -> Result<Ternary> {
        let matrix = self.file.matrix(&weight.name);
        let packing = self.file.packing;
        let row_bytes = packing.row_bytes(matrix.columns);
        let mut trits = vec![0; matrix.rows * matrix.columns];
        parallel::rows(trits.len(), &mut trits, matrix.columns, |first, trits| {
            let rows = matrix.data[first * row_bytes..].chunks_exact(row_bytes);
            for (trits, row) in trits.chunks_exact_mut(matrix.columns).zip(rows) {
                packing.unpack_row(row, trits)?;
            }
            Ok(())
        })?;
        Ok(Ternary {
            trits,
            scale: matrix.scale,
            stored: StoredScale::Multiply(matrix.scale),
        })
    }

    fn rows(&self, weight: &Weight, first: usize, values: &mut [f32]) -> Result<()> {
        let columns = weight.columns;
        let start = first * columns;
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
                    }
                }
                Ok(())
            })?,
        }
        check_finite(self.path(), weight, start, values)
    }

    fn vector(&self, weight: &Weight) -> Result<Vec<f32>> {
        Ok(self.file.vector(&weight.name).to_vec())
    }
}

fn widen(to: &mut [f32], from: impl Iterator<Item = f32>) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to = x);
}
