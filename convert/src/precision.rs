//! The types that hold tables and norms, and what each makes of a value.

use half::{bf16, f16};
use sterna_ternary::table::CodedRow;
use sterna_ternary::{Dense, Dtype, TableType};

use crate::{blocks, trit_rows};

/// How the values of a table or norm are held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// GGUF's eight bits a value, a scale for each 32.
    Q8_0,
    /// GGUF's four bits a value, a scale for each 32.
    Q4_0,
    /// A coded or ternary table of a packed file.
    Coded(TableType),
    /// A type that Sterna reads and does not write.
    Other(&'static str),
}

impl Precision {
    /// The precision of a type of safetensors.
    pub fn of(dtype: Dtype) -> Precision {
        match dtype {
            Dtype::F32 => Precision::F32,
            Dtype::F16 => Precision::F16,
            Dtype::Bf16 => Precision::Bf16,
            Dtype::U8 => Precision::Other("U8"),
        }
    }

    /// The precision of a table of a packed file.
    pub fn of_table(table: TableType) -> Precision {
        match table {
            TableType::F32 => Precision::F32,
            TableType::F16 => Precision::F16,
            TableType::Bf16 => Precision::Bf16,
            TableType::Q8 | TableType::Q6 | TableType::Q4 | TableType::Ternary => {
                Precision::Coded(table)
            }
        }
    }

    /// The type of a table of a packed file, if it is one.
    pub(crate) fn table(self) -> Option<TableType> {
        match self {
            Precision::F32 => Some(TableType::F32),
            Precision::F16 => Some(TableType::F16),
            Precision::Bf16 => Some(TableType::Bf16),
            Precision::Coded(table) => Some(table),
            Precision::Q8_0 | Precision::Q4_0 | Precision::Other(_) => None,
        }
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
            Precision::Q8_0 => "q8_0",
            Precision::Q4_0 => "q4_0",
            Precision::Coded(table) => table.name(),
            Precision::Other(name) => name,
        }
    }

    /// Replaces a row of values by what this type makes of them; false if Sterna cannot write the type, or the type
    /// is ternary and the row is not.
    pub(crate) fn round(self, row: &mut [f32]) -> bool {
        match self {
            Precision::F32 => {}
            Precision::F16 => row.iter_mut().for_each(|x| *x = f16::from_f32(*x).into()),
            Precision::Bf16 => row.iter_mut().for_each(|x| *x = bf16::from_f32(*x).into()),
            Precision::Q8_0 => blocks::round(Dense::Q8_0, row),
            Precision::Q4_0 => blocks::round(Dense::Q4_0, row),
            Precision::Coded(TableType::Ternary) => return trit_rows::round(row),
            Precision::Coded(table) => CodedRow::encode(row, table.planes()).decode(row),
            Precision::Other(_) => return false,
        }
        true
    }
}

/// The same bits: minus zero is not zero.
pub(crate) fn is_same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits()
}
